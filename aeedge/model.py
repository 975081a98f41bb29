"""A loaded bundle: raw rows in, latents, reconstructions and scores out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge import scoring
from aeedge.batching import Blocks, Rows
from aeedge.bundle import Bundle, file_name
from aeedge.errors import AeedgeError, CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.golden import Deviation, deviation
from aeedge.machine import thread_count
from aeedge.manifest import VARIANTS, InputSpec, Manifest, Tolerance
from aeedge.session import Session, check_runtime

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.batching import Block, BlockFunction

    Floats = NDArray[np.float32]


def load(
    path: str | os.PathLike[str], *, variant: str = "auto", threads: int | str = "auto", check: str = "hash"
) -> Model:
    """Open a bundle.

    Args:
        path: the bundle's directory.
        variant: "fp32", "int8", or "auto" for the bundle's default. Where int8 does not reproduce its golden rows, even
            with exact sums, fp32 is used, with a warning that says why.
        threads: how many threads large batches are spread over; "auto" for the CPUs this process may use.
        check: "hash" compares every file with its sha256, "golden" also runs `self_check`, "size" compares sizes only.

    Returns:
        A model, ready to encode.

    Raises:
        BundleError: nothing there, not a bundle, damaged, or made for something newer; the message says which.
        InputError: an argument that is none of the above.
        VerificationError: with check="golden", numbers that differ from the recorded ones.
    """
    if check not in ("hash", "golden", "size"):
        raise InputError(f"check: expected 'hash', 'golden' or 'size', got {check!r}")
    if variant not in ("auto", *VARIANTS):
        raise InputError(f"variant: expected 'auto', {' or '.join(map(repr, VARIANTS))}, got {variant!r}")
    model = Model(Bundle(path, "size" if check == "size" else "hash"), variant, thread_count(threads))
    if check == "golden" and model.arithmetic == "float":  # integers were checked while they were opened
        model.self_check()
    return model


_STEPS = ("encode", "decode", "denoise", "residual", "score")


class _Step(NamedTuple):
    """What a method does with a block of rows, and the shapes and dtype of rows in and out."""

    name: str
    function: BlockFunction
    row_in: tuple[int, ...]
    row_shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...] | None

    def rows(self, x: ArrayLike, invalid: str, first: int = 0) -> Rows:
        """The caller's array as rows of this step."""
        return Rows(x, self.row_in, self.dtype, what=self.name, columns=self.columns, first=first, invalid=invalid)


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

    def __init__(self, bundle: Bundle, variant: str, threads: int) -> None:
        manifest = bundle.manifest
        check_runtime(manifest.min_onnxruntime, bundle.path)
        self._bundle, self._requested = bundle, variant
        self._blocks = Blocks(threads)
        self._closed = False
        wanted = manifest.default_variant if variant == "auto" else variant
        if wanted == "int8":
            self._start_integer()
        else:
            self._start(wanted)

    def _start(self, variant: str, *, exact: bool = False) -> None:
        """Open the sessions of a variant."""
        self.variant = variant
        self.arithmetic = "float" if variant == "fp32" else "exact integer" if exact else "integer"
        spec, latent = self.manifest.input, (self.manifest.latent,)

        def opened(role: str, dtype: str, row_in: tuple[int, ...], row_out: tuple[int, ...]) -> Session:
            where = os.path.join(self._bundle.path, file_name(role, variant))
            return Session(self._bundle.graph(role, variant), where, dtype, row_in, row_out, exact)

        encoder = opened("encoder", spec.dtype, spec.shape, latent)
        entries = self.manifest.variants[variant]
        decoder = opened("decoder", "float32", latent, spec.shape) if entries.decoder is not None else None
        self._steps = self._make_steps(encoder.run, None if decoder is None else decoder.run)

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
        return self._blocks.threads

    def encode(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Latents of rows: (n, *input_shape) to (n, k) float32.

        Args:
            x: array-like of numbers; for models of integer input, integers within the dtype's range.
            out: a float32 array of shape (n, k) to write into instead of a new one; returned. Undefined after an error.
            invalid: "raise" or "propagate", see the class.

        Raises:
            InputError: a wrong shape or dtype, no rows, NaN or infinity, an `out` that does not fit.
        """
        return self._run("encode", x, out, invalid)

    def decode(self, z: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Reconstructions of latents, in raw units: (n, k) to (n, *input_shape) float32.

        Where the latents are ordered (`manifest.ordered`) a prefix of j latents, (n, j), is enough.

        Raises:
            InputError: as `encode`.
            IncompatibleBundleError: the bundle has no decoder.
        """
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
        return self._run("denoise", x, out, invalid)

    def score(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Anomaly score of each row, higher is stranger: (n, *input_shape) to (n,) float32.

        The mean over a row of ((x - denoise(x)) / scale)², the squared reconstruction error in scaled units (without
        unit). A single row gives a scalar.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        return self._run("score", x, out, invalid)

    def residual(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """(x - denoise(x)) / scale, which shows what is strange about a row: (n, *input_shape) to the same, float32.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        return self._run("residual", x, out, invalid)

    def encode_iter(self, batches: Iterable[ArrayLike], *, invalid: str = "raise") -> Iterator[Floats]:
        """Latents of each array of an iterable, in order; one batch in memory at a time.

        Raises:
            InputError: as `encode`, when the batch at fault is reached; rows are counted over all batches.
        """
        return self.map_iter("encode", batches, invalid=invalid)

    def map_iter(self, what: str, batches: Iterable[ArrayLike], *, invalid: str = "raise") -> Iterator[Floats]:
        """`encode`, `decode`, `denoise`, `score` or `residual`, as `what` says, of each array of an iterable."""
        step = self._step(what)
        first = 0
        for batch in batches:
            rows = step.rows(batch, invalid, first)
            yield self._blocks.run(rows, step.function, step.row_shape, None)
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
        step = self._step(what)
        return self._blocks.run(step.rows(x, invalid), step.function, step.row_shape, out)

    def _step(self, what: str) -> _Step:
        """The step of a method, or the reason why there is none."""
        if self._closed:
            raise AeedgeError(f"{self._bundle.path}: the model was closed; load it again")
        if what in self._steps:
            return self._steps[what]
        if what not in _STEPS:
            raise InputError(f"expected {', '.join(_STEPS)}, got {what!r}")
        raise IncompatibleBundleError(
            f"{self._bundle.path}: this needs a decoder, but the bundle has only an encoder; export it with its decoder"
        )

    def _make_steps(self, encode: BlockFunction, decode: BlockFunction | None) -> dict[str, _Step]:
        spec, latent, scoring_spec = self.input, (self.latent_size,), self.manifest.score
        steps = {"encode": _Step("encode", encode, spec.shape, latent, spec.dtype, spec.features)}
        if decode is None:
            return steps
        steps["decode"] = _Step("decode", decode, latent, spec.shape, "float32", None)

        def denoise(block: Block) -> Floats:
            return decode(encode(block))

        def residual(block: Block) -> Floats:
            return scoring.residual(block, decode(encode(block)), scoring_spec)

        def score(block: Block) -> Floats:
            return scoring.score(block, decode(encode(block)), scoring_spec)

        for function, row_shape in ((denoise, spec.shape), (residual, spec.shape), (score, ())):
            name = function.__name__
            steps[name] = _Step(name, function, spec.shape, row_shape, spec.dtype, spec.features)
        return steps

    def close(self) -> None:
        """End the model's threads and refuse further calls. Closing twice does nothing."""
        self._closed = True
        self._blocks.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        path = os.path.realpath(self._bundle.path)
        return _reopen, (path, self.manifest.id, self._requested, self.threads, self._bundle.check)

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"<aeedge.Model {m.name!r} ({m.family}, {self.variant}): {self.input.dtype} {self.input.shape} -> "
            f"{self.latent_size} latents, {self.threads} threads, id {m.id[:12]}>"
        )


def _reopen(path: str, identity: str, variant: str, threads: int, check: str) -> Model:
    """What a pickled model becomes where it is unpickled: the same bundle, opened again."""
    model = load(path, variant=variant, threads=threads, check=check)
    if model.manifest.id != identity:
        raise IncompatibleBundleError(
            f"{path}: expected the bundle {identity[:12]}… that was pickled, got {model.manifest.id[:12]}…; "
            "it was replaced since"
        )
    return model
