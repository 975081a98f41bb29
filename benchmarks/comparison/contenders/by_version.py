"""A version of aeedge, from the folder of its unpacked wheel, called in the ways that `versions.py` compares."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ITEMS = 64  # of a list for `encode_iter`; the time is that of them all


class Contender:
    """All methods of the fp32 variant of float32 input; bytes also in int8, where the workload has such a bundle."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        sys.path.insert(0, options["wheel"])
        import aeedge

        if not str(aeedge.__file__).startswith(options["wheel"]):
            raise ImportError(f"expected aeedge from {options['wheel']}, got {aeedge.__file__}")
        self._load, self._folder, self._options = aeedge.load, folder, options
        self._threads = threads if threads == 1 else "auto"
        self._models: dict[tuple[str, str], Any] = {}
        self.encode = self._model("float32.aeedge", "fp32").encode

    def _model(self, bundle: str, variant: str) -> Any:
        if (bundle, variant) not in self._models:
            model = self._load(f"{self._folder}/{bundle}", variant=variant, threads=self._threads)
            if model.variant != variant:
                raise ValueError(f"{bundle}: {model.variant} runs instead of {variant}")
            self._models[bundle, variant] = model
        return self._models[bundle, variant]

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows as they are."""
        return rows

    def call(self, what: str, rows: NDArray[Any]) -> Callable[[], object]:
        """What is timed, for float32 rows: a method of the model, or one of the keys of `ways`."""
        ways = {
            "encode, float64": self._float64,
            "encode, out=": self._out,
            "encode, propagate": self._propagate,
            "encode_iter, item": self._iterate,
            "encode, uint8": lambda rows: self._of_bytes(rows, "uint8", "fp32"),
            "encode, int64": lambda rows: self._of_bytes(rows, "int64", "fp32"),
            "encode, int8": lambda rows: self._of_bytes(rows, "uint8", "int8"),
            "decode": lambda rows: self._method("decode", self.encode(rows)),
            "bind, encode": lambda rows: self._bound("encode", rows),
            "bind, encode alone": lambda rows: self._model("float32.aeedge", "fp32").bind(len(rows)).encode,
            "bind, score": lambda rows: self._bound("score", rows),
        }
        return ways[what](rows) if what in ways else self._method(what, rows)

    def _method(self, name: str, rows: NDArray[Any]) -> Callable[[], object]:
        method = getattr(self._model("float32.aeedge", "fp32"), name)
        return lambda: method(rows)

    def _float64(self, rows: NDArray[Any]) -> Callable[[], object]:
        return self._method("encode", rows.astype("float64"))

    def _out(self, rows: NDArray[Any]) -> Callable[[], object]:
        encode, out = self.encode, self.encode(rows)
        return lambda: encode(rows, out=out)

    def _propagate(self, rows: NDArray[Any]) -> Callable[[], object]:
        encode = self.encode
        return lambda: encode(rows, invalid="propagate")

    def _iterate(self, rows: NDArray[Any]) -> Callable[[], object]:
        encode_iter, batches = self._model("float32.aeedge", "fp32").encode_iter, [rows] * ITEMS
        return lambda: deque(encode_iter(batches), maxlen=0)

    def _of_bytes(self, rows: NDArray[Any], dtype: str, variant: str) -> Callable[[], object]:
        mean, scale = self._options["scaler"]
        given = (rows * scale + mean).round().clip(0, 255).astype(dtype)
        encode = self._model(self._options["bytes"], variant).encode
        return lambda: encode(given)

    def _bound(self, name: str, rows: NDArray[Any]) -> Callable[[], object]:
        slot = self._model("float32.aeedge", "fp32").bind(len(rows))
        given, run = slot.input, getattr(slot, name)

        def call() -> object:
            given[...] = rows
            return run()

        return call
