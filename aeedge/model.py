"""A loaded bundle: raw rows in, latents, reconstructions and scores out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import InputSpec, Manifest, Tolerance
from aeedge.bundle.reader import Bundle, file_name
from aeedge.errors import AeedgeError, CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.record import Record
from aeedge.runtime import scoring
from aeedge.runtime.dispatch import Runner
from aeedge.runtime.methods import NAMES, Step
from aeedge.runtime.policy import Schedule, default_schedule
from aeedge.runtime.session import Session
from aeedge.runtime.sessions import Engine
from aeedge.system.limits import allowed_cpus

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.runtime.batch import Floats
    from aeedge.verification import Deviation


class Setup(Record):
    """What is opened, and how it is run.

    Attributes:
        variant: "fp32" or "int8".
        exact: exact integer sums on processors whose own would saturate.
        threads: our own, the calling one included.
        pool: whether onnxruntime's may be used.
        schedule, row_us: see runner.py; None for the default.
        choices: what was chosen and why, by topic.
    """

    variant: str
    exact: bool
    threads: int
    pool: bool
    schedule: Schedule | None
    row_us: Mapping[str, float]
    choices: dict[str, str]


class Model:
    """A loaded bundle; `aeedge.load` makes one. Safe to call from many threads; survives fork and pickling.

    In what follows n is the number of rows, `input_shape` the shape of one row, and k the latent size. Wherever rows
    are expected, a single row without the leading axis gives a result without it. Input is converted block by block;
    float32 C-contiguous arrays are not copied.

    `variant` is the one that runs; `arithmetic` how: "float", "integer", or "exact integer" on a processor whose own
    integer sums saturate (checked with the bundle's golden rows when int8 is loaded). `choices` says what was chosen
    when it was loaded (variant, threads, calls), and why.

    With invalid="raise" a row with NaN or infinity is an InputError that names the first row and column; with
    invalid="propagate" the results of such rows are NaN and all others exact.
    """

    def __init__(self, bundle: Bundle, setup: Setup) -> None:
        self._bundle, self._setup, self._closed = bundle, setup, False
        self.variant, self.choices = setup.variant, setup.choices
        self.arithmetic = "float" if setup.variant == "fp32" else "exact integer" if setup.exact else "integer"
        self.reopened_by: tuple[Callable[..., Model], tuple[Any, ...]] | None = None
        files = self.manifest.variants.get(setup.variant)
        self.has_decoder = files is not None and files.decoder is not None
        pool = min(setup.threads, len(allowed_cpus())) if setup.pool else 1  # more would wait for each other
        opened = partial(_opened, bundle, setup)
        self._engine = Engine(
            self.manifest, opened, self.has_decoder, pool, 0 if files is None else files.telling_latents
        )
        if self.has_decoder:
            bundle.verify("decoder", setup.variant)  # checked now, opened when it is first needed
        self._short = self._engine.short
        self._runner = Runner(self._engine, setup.threads, setup.schedule or self.default_schedule, setup.row_us)

    def use(self, threads: int, schedule: Schedule, row_us: Mapping[str, float]) -> None:
        """Run calls another way from now on; not while other threads call. `row_us`: see runner.py."""
        self._runner.close()
        self._runner = Runner(self._engine, threads, schedule, row_us)

    def run_block(self, rows: int) -> None:
        """Run so many rows as one block through all graphs, for whoever looks at memory."""
        steps = self._engine.alone()
        block = np.zeros((rows, *self.input.shape), self.input.dtype)
        steps["score" if self.has_decoder else "encode"].new(block)

    @property
    def trusts_latents(self) -> bool:
        """Whether NaN and infinity are looked for in latents, and in rows only if they are there (see telling.py)."""
        return self._engine.alone()["encode"].trusted

    @property
    def default_schedule(self) -> Schedule:
        """Which way a number of rows is run where nothing was tuned."""
        return default_schedule(self._engine.alone()["encode"].encoder.chain)

    @property
    def schedule(self) -> Schedule:
        """Which way a number of rows is run; may be set, while no other thread calls."""
        return self._runner.schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._runner.schedule = schedule

    @property
    def path(self) -> str:
        """The bundle's directory."""
        return self._bundle.path

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the bundle has graphs for: "encode", and with a decoder all five."""
        return tuple(self._engine.alone())

    def golden_rows(self) -> NDArray[Any]:
        """The recorded rows, (n, *input_shape) of the input's dtype, in raw units: examples of real input.

        Raises:
            BundleError: golden.npz is missing or damaged.
        """
        return self._golden()["input"]

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
        if out is None and invalid == "raise" and (result := self._short["encode"](x)) is not None:
            return result
        return self._run("encode", x, out, invalid)

    def decode(self, z: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Reconstructions of latents, in raw units: (n, k) to (n, *input_shape) float32.

        Where the latents are ordered (`manifest.ordered`) a prefix of j latents, (n, j), is enough.

        Raises:
            InputError: as `encode`.
            IncompatibleBundleError: the bundle has no decoder.
        """
        if out is None and invalid == "raise" and (result := self._short["decode"](z)) is not None:
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
        if out is None and invalid == "raise" and (result := self._short["denoise"](x)) is not None:
            return result
        return self._run("denoise", x, out, invalid)

    def score(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Anomaly score of each row, higher is stranger: (n, *input_shape) to (n,) float32.

        The mean over a row of ((x - denoise(x)) / scale)², the squared reconstruction error in scaled units (without
        unit). A single row gives a scalar.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if out is None and invalid == "raise" and (result := self._short["score"](x)) is not None:
            return result
        return self._run("score", x, out, invalid)

    def residual(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """(x - denoise(x)) / scale, which shows what is strange about a row: (n, *input_shape) to the same, float32.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if out is None and invalid == "raise" and (result := self._short["residual"](x)) is not None:
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
        from aeedge.runtime.prefetch import ahead

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

        Each is computed for all rows at once and again row by row: other kernels run then. Where NaN and infinity are
        looked for in latents, each column is tried with them.

        Returns:
            For each output its worst row.

        Raises:
            VerificationError: a row differs by more than its tolerance, the message names it; or there are rows with
                NaN or infinity that do not reach the latents as the bundle says.
        """
        limits = self.manifest.variants[self.variant].tolerance
        recorded = self._golden()
        rows, expected = recorded["input"], {what: recorded[f"{self.variant}.{what}"] for what in limits}
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
        promised = self.manifest.variants[self.variant].telling_latents
        if promised and self.trusts_latents:
            self._check_trust(promised, rows[-1])
        return worst

    def _check_trust(self, promised: int, row: NDArray[Any]) -> None:
        """Try what the bundle says of its latents on a row of real input."""
        from aeedge.runtime.telling import telling_latents

        if not 0 < telling_latents(self._engine.alone()["encode"].encoder, row) <= promised:
            raise VerificationError(
                f"{self._bundle.path} ({self.variant}): telling_latents is {promised} in the manifest, but on this "
                "machine a row with NaN or infinity leaves so many first latents finite; export the bundle again"
            )

    def _golden(self) -> dict[str, NDArray[Any]]:
        """Recorded input and outputs of this variant."""
        recorded = self._bundle.golden()
        for name in ("input", *(f"{self.variant}.{what}" for what in self.manifest.variants[self.variant].tolerance)):
            if name not in recorded:
                raise CorruptBundleError(f"{self._bundle.path}: golden.npz lacks {name!r}; export the bundle again")
        return recorded

    def deviation(
        self, what: str, rows: NDArray[Any], got: Floats, expected: Floats, tolerance: Tolerance
    ) -> Deviation:
        """The worst row of computed outputs against recorded ones; reconstructions are compared as residuals.

        Residuals are in scaled units, so that a feature of small numbers counts as much as one of large numbers.
        """
        from aeedge.verification import deviation

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
        self._bundle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reopened_by is None:
            raise AeedgeError(f"{self._bundle.path}: expected a model that aeedge.load made, it alone can be pickled")
        return self.reopened_by

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"<aeedge.Model {m.name!r} ({m.family}, {self.variant}): {self.input.dtype} {self.input.shape} -> "
            f"{self.latent_size} latents, {self.threads} threads, id {m.id[:12]}>"
        )


def _opened(bundle: Bundle, setup: Setup, role: str, threads: int) -> Session:
    """A session of a bundle's graph. No method of a model, which could then only go with the garbage collector."""
    spec, latent = bundle.manifest.input, (bundle.manifest.latent,)
    dtype, row_in, row_out = (spec.dtype, spec.shape, latent) if role == "encoder" else ("float32", latent, spec.shape)
    where = os.path.join(bundle.path, file_name(role, setup.variant))
    return Session(bundle.graph(role, setup.variant), where, dtype, row_in, row_out, setup.exact, threads)


def _as_is(batch: Any) -> Any:
    return batch


def _copied(batch: Any) -> Any:
    return batch.copy() if isinstance(batch, np.ndarray) else batch
