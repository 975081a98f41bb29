"""A loaded bundle: raw rows in, latents, reconstructions and scores out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge import memory, scoring
from aeedge.ahead import ahead
from aeedge.bundle import Bundle, file_name
from aeedge.engine import Engine
from aeedge.errors import AeedgeError, CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.golden import Deviation, deviation
from aeedge.machine import allowed_cpus, thread_count
from aeedge.manifest import VARIANTS, InputSpec, Manifest, Tolerance
from aeedge.runner import Runner
from aeedge.schedule import Schedule
from aeedge.session import Session, check_runtime
from aeedge.steps import NAMES, Step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.rows import Floats


def load(
    path: str | os.PathLike[str],
    *,
    variant: str = "auto",
    threads: int | str = "auto",
    memory_limit_mb: float | None = None,
    check: str = "hash",
) -> Model:
    """Open a bundle.

    Args:
        path: the bundle's directory.
        variant: "fp32", "int8", or "auto" for the bundle's default. Where int8 does not reproduce its golden rows, even
            with exact sums, fp32 is used, with a warning that says why.
        threads: how many threads large batches are spread over; "auto" for the CPUs this process may use.
        memory_limit_mb: how much the process may grow by (10⁶ bytes, results not counted): blocks and threads are chosen
            to fit, and onnxruntime's pool is not used. None for no limit.
        check: "hash" compares every file with its sha256, "golden" also runs `self_check`, "size" compares sizes only.

    Returns:
        A model, ready to encode.

    Raises:
        BundleError: nothing there, not a bundle, damaged, or made for something newer; the message says which.
        InputError: an argument that is none of the above, or a limit that is too small; it names the smallest.
        VerificationError: with check="golden", numbers that differ from the recorded ones.
    """
    if check not in ("hash", "golden", "size"):
        raise InputError(f"check: expected 'hash', 'golden' or 'size', got {check!r}")
    if variant not in ("auto", *VARIANTS):
        raise InputError(f"variant: expected 'auto', {' or '.join(map(repr, VARIANTS))}, got {variant!r}")
    limit = None if memory_limit_mb is None else memory.limit(memory_limit_mb)
    model = Model(Bundle(path, "size" if check == "size" else "hash"), variant, thread_count(threads), limit)
    if check == "golden" and model.arithmetic == "float":  # integers were checked while they were opened
        model.self_check()
    return model


class Model:
    """A loaded bundle; `aeedge.load` makes one. Safe to call from many threads; survives fork and pickling.

    In what follows n is the number of rows, `input_shape` the shape of one row, and k the latent size. Wherever rows
    are expected, a single row without the leading axis gives a result without it. Input is converted block by block;
    float32 C-contiguous arrays are not copied.

    `variant` is the one that runs; `arithmetic` how: "float", "integer", or "exact integer" on a processor whose own
    integer sums saturate (checked with the bundle's golden rows when int8 is loaded).

    With invalid="raise" a row with NaN or infinity is an InputError that names the first row and column; with
    invalid="propagate" the results of such rows are NaN and all others exact.
    """

    def __init__(self, bundle: Bundle, variant: str, threads: int, limit: memory.Limit | None = None) -> None:
        manifest = bundle.manifest
        check_runtime(manifest.min_onnxruntime, bundle.path)
        self._bundle, self._requested = bundle, variant
        self._threads, self._limit, self._closed = threads, limit, False
        wanted = manifest.default_variant if variant == "auto" else variant
        if wanted == "int8":
            self._start_integer()
        else:
            self._start(wanted)
        if limit is not None:
            self._fit(limit)

    def _start(self, variant: str, *, exact: bool = False) -> None:
        """Open the sessions of a variant."""
        self.variant = variant
        self.arithmetic = "float" if variant == "fp32" else "exact integer" if exact else "integer"
        spec, latent, bundle = self.manifest.input, (self.manifest.latent,), self._bundle
        shapes = {"encoder": (spec.dtype, spec.shape, latent), "decoder": ("float32", latent, spec.shape)}

        def opened(role: str, cpus: tuple[int, ...]) -> Session:
            where = os.path.join(bundle.path, file_name(role, variant))
            return Session(bundle.graph(role, variant), where, *shapes[role], exact, cpus)

        files = self.manifest.variants.get(variant)
        has_decoder = files is not None and files.decoder is not None
        cpus = allowed_cpus()[: self._threads] if self._limit is None else ()
        self._engine = Engine(self.manifest, opened, has_decoder, cpus)
        if has_decoder:
            bundle.graph("decoder", variant)  # checked now, opened when it is first needed
        self._runner = Runner(self._engine, self._threads, Schedule(), {})
        self._one_row = self._engine.one_row

    def _fit(self, limit: memory.Limit) -> None:
        """Choose blocks and threads that stay within a limit of memory."""
        spec, name = self.input, "score" if "score" in self._engine.alone() else "encode"

        def run(rows: int) -> None:
            self._engine.alone()[name].new(np.zeros((rows, *spec.shape), spec.dtype))

        arrays = 4 * (3 * spec.size + 2 * self.latent_size)  # input, reconstruction, residual; latents
        try:
            found = memory.fit(limit, run, arrays, self._threads)
        except InputError:
            self.close()
            raise
        self._runner.close()
        self._threads = found.threads
        self._runner = Runner(self._engine, found.threads, Schedule(most_rows=found.rows), {})

    def _start_integer(self) -> None:
        """int8 as this processor computes it if that is right, else with exact sums, else fp32 and a warning.

        x86 processors without VNNI add integer products in 16 bits, which may saturate in silence; the golden rows
        tell.
        """
        for exact in (False, True):
            self._start("int8", exact=exact)
            try:
                self.self_check()
            except VerificationError as error:
                reason = error
            else:
                return
        if "fp32" not in self.manifest.variants:
            raise reason
        warnings.warn(f"int8 is not right on this machine, fp32 is used instead: {reason}", stacklevel=4)
        self._start("fp32")

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    @property
    def input(self) -> InputSpec:
        """Shape, dtype and names of one row."""
        return self.manifest.input

    @property
    def latent_size(self) -> int:
        """k, the number of latents of a row."""
        return self.manifest.latent

    @property
    def threads(self) -> int:
        """How many threads large batches are spread over."""
        return self._runner.threads

    def encode(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Latents of rows: (n, *input_shape) to (n, k) float32.

        Args:
            x: array-like of numbers; for models of integer input, integers within the dtype's range.
            out: a float32 array of shape (n, k) to write into instead of a new one; returned. Undefined after an error.
            invalid: "raise" or "propagate", see the class.

        Raises:
            InputError: a wrong shape or dtype, no rows, NaN or infinity, an `out` that does not fit.
        """
        if out is None and invalid == "raise" and (result := self._one_row["encode"](x)) is not None:
            return result
        return self._run("encode", x, out, invalid)

    def decode(self, z: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Reconstructions of latents, in raw units: (n, k) to (n, *input_shape) float32.

        Where the latents are ordered (`manifest.ordered`) a prefix of j latents, (n, j), is enough.

        Raises:
            InputError: as `encode`.
            IncompatibleBundleError: the bundle has no decoder.
        """
        if out is None and invalid == "raise" and (result := self._one_row["decode"](z)) is not None:
            return result
        return self._run("decode", self._padded(z) if self.manifest.ordered else z, out, invalid)

    def _padded(self, z: ArrayLike) -> ArrayLike:
        """A prefix of ordered latents, with zeros for the others."""
        prefix = np.asarray(z)
        missing = self.latent_size - prefix.shape[-1] if prefix.ndim in (1, 2) else 0
        if missing <= 0 or missing == self.latent_size:
            return z
        return np.pad(prefix, [(0, 0)] * (prefix.ndim - 1) + [(0, missing)])

    def denoise(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """decode(encode(x)), block by block: (n, *input_shape) to (n, *input_shape) float32, in raw units.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if out is None and invalid == "raise" and (result := self._one_row["denoise"](x)) is not None:
            return result
        return self._run("denoise", x, out, invalid)

    def score(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Anomaly score of each row, higher is stranger: (n, *input_shape) to (n,) float32.

        The mean over a row of ((x - denoise(x)) / scale)², the squared reconstruction error in scaled units (without
        unit). A single row gives a scalar.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if out is None and invalid == "raise" and (result := self._one_row["score"](x)) is not None:
            return result
        return self._run("score", x, out, invalid)

    def residual(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """(x - denoise(x)) / scale, which shows what is strange about a row: (n, *input_shape) to the same, float32.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if out is None and invalid == "raise" and (result := self._one_row["residual"](x)) is not None:
            return result
        return self._run("residual", x, out, invalid)

    def encode_iter(self, batches: Iterable[ArrayLike], *, invalid: str = "raise") -> Iterator[Floats]:
        """Latents of each array of an iterable, in order; the next one is read while one is encoded.

        The iterable is read on a thread of its own, and its arrays are copied there: it may fill the same one again.
        Three batches are in memory at a time. A list or a tuple is taken as it is.

        Raises:
            InputError: as `encode`, when the batch at fault is reached; rows are counted over all batches.
        """
        return self.map_iter("encode", batches, invalid=invalid)

    def map_iter(
        self, what: str, batches: Iterable[ArrayLike], *, invalid: str = "raise", fresh: bool = False
    ) -> Iterator[Floats]:
        """`encode`, `decode`, `denoise`, `score` or `residual`, as `what` says, of each array of an iterable.

        With `fresh` the arrays are not copied: each has memory of its own that nobody changes.
        """
        self._step(what)
        in_memory = isinstance(batches, (list, tuple))
        return self._mapped(what, batches if in_memory else ahead(batches, _as_is if fresh else _copied), invalid)

    def _mapped(self, what: str, batches: Iterable[ArrayLike], invalid: str) -> Iterator[Floats]:
        first = 0
        for batch in batches:
            rows = self._step(what).rows(batch, invalid, first)
            yield self._runner.run(what, rows, None)
            first += len(rows)

    def self_check(self) -> list[Deviation]:
        """Run the golden rows and compare latents, reconstructions and scores with the recorded ones.

        Each is computed for all rows at once and again row by row: other kernels run then.

        Returns:
            For each output its worst row.

        Raises:
            VerificationError: a row differs by more than its tolerance; the message names it.
        """
        recorded, limits = self._bundle.golden(), self.manifest.variants[self.variant].tolerance
        try:
            rows = recorded["input"]
            expected = {what: recorded[f"{self.variant}.{what}"] for what in limits}
        except KeyError as error:
            raise CorruptBundleError(
                f"{self._bundle.path}: golden.npz lacks {error}; export the bundle again"
            ) from None
        worst = []
        for what, values in expected.items():
            call = {"latent": self.encode, "reconstruction": self.denoise, "score": self.score}[what]
            one_by_one = np.concatenate([call(rows[i : i + 1]) for i in range(len(rows))])
            found = [self.deviation(what, rows, got, values, limits[what]) for got in (call(rows), one_by_one)]
            worst.append(max(found, key=lambda d: d.error / max(d.allowed, 1e-300)))
        bad = [d for d in worst if not d.ok]
        if bad:
            raise VerificationError(
                f"{self._bundle.path} ({self.variant}): on this machine the {bad[0]}; do not use this variant here: "
                "try another, another onnxruntime, or export the bundle again"
            )
        return worst

    def deviation(
        self, what: str, rows: NDArray[Any], got: Floats, expected: Floats, tolerance: Tolerance
    ) -> Deviation:
        """The worst row of computed outputs against recorded ones; reconstructions are compared as residuals.

        Residuals are in scaled units, so that a feature of small numbers counts as much as one of large numbers.
        """
        if what == "reconstruction":
            spec = self.manifest.score
            got, expected = scoring.residual(rows, got, spec), scoring.residual(rows, expected, spec)
        return deviation(what, got, expected, tolerance)

    def _run(self, what: str, x: ArrayLike, out: Floats | None, invalid: str) -> Floats:
        return self._runner.run(what, self._step(what).rows(x, invalid), out)

    def _step(self, what: str) -> Step:
        """The step of a method, or the reason why there is none."""
        if self._closed:
            raise AeedgeError(f"{self._bundle.path}: the model was closed; load it again")
        steps = self._engine.alone()
        if what in steps:
            return steps[what]
        if what not in NAMES:
            raise InputError(f"expected {', '.join(NAMES)}, got {what!r}")
        raise IncompatibleBundleError(
            f"{self._bundle.path}: this needs a decoder, but the bundle has only an encoder; export it with its decoder"
        )

    def close(self) -> None:
        """End the model's threads and refuse further calls. Closing twice does nothing."""
        self._closed = True
        self._runner.close()
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        path = os.path.realpath(self._bundle.path)
        return _reopen, (
            path,
            self.manifest.id,
            self._requested,
            self.threads,
            self._bundle.check,
            self._limit and self._limit.mb,
        )

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"<aeedge.Model {m.name!r} ({m.family}, {self.variant}): {self.input.dtype} {self.input.shape} -> "
            f"{self.latent_size} latents, {self.threads} threads, id {m.id[:12]}>"
        )


def _as_is(batch: Any) -> Any:
    return batch


def _copied(batch: Any) -> Any:
    return batch.copy() if isinstance(batch, np.ndarray) else batch


def _reopen(path: str, identity: str, variant: str, threads: int, check: str, limit_mb: float | None) -> Model:
    """What a pickled model becomes where it is unpickled: the same bundle, opened again."""
    model = load(path, variant=variant, threads=threads, memory_limit_mb=limit_mb, check=check)
    if model.manifest.id != identity:
        raise IncompatibleBundleError(
            f"{path}: expected the bundle {identity[:12]}… that was pickled, got {model.manifest.id[:12]}…; "
            "it was replaced since"
        )
    return model
