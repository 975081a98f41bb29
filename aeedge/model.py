"""A loaded bundle: raw samples in, latents, reconstructions and scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from aeedge.bundle.manifest import InputSpec, Manifest
from aeedge.detection.calibration import Calibration, as_threshold
from aeedge.errors import AeedgeError, IncompatibleBundleError, InputError, printable
from aeedge.runtime.batch import INVALID, as_array
from aeedge.runtime.methods import NAMES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.drift_reference import DriftReference
    from aeedge.bundle.reader import Bundle
    from aeedge.detection.explain import Cause
    from aeedge.runtime.codes import Coder, Codes
    from aeedge.runtime.dispatch import Dispatcher
    from aeedge.runtime.slot import Slot
    from aeedge.types import Floats
    from aeedge.verification import Deviation


class Model:
    """A loaded bundle; `aeedge.load` makes one. Safe to call from many threads; survives fork and pickling.

    Below, n is the number of samples, `input_shape` the shape of one sample, and `latent_shape` that of its latents:
    (k,) for a vector of k. Wherever (n, ...) is expected, a single sample without the leading axis gives a result
    without it. Arrays of another dtype or layout are converted, a block (2 MiB) at a time; float32 C-contiguous ones
    are used where they are, but for a few samples, which are copied into arrays that onnxruntime knows.

    Frames (pandas, polars, pyarrow, structured arrays, dicts, what has `__arrow_c_stream__`, `__dataframe__` or
    `columns`) are taken by name where the bundle names its features
    (`input.features`): columns in any order, others are ignored, and nothing (null, NA) is NaN. A Series or a dict of
    numbers is a single sample. Without names in the bundle, and for latents, columns are taken in order.

    `variant` is the one that runs; `arithmetic` how: "float", "integer", or "exact integer" on a processor whose own
    integer sums saturate (checked with the bundle's reference inputs and outputs when int8 is loaded). `choices` holds
    what was chosen at load (variant, threads, calls), and why.

    With invalid="raise" a sample with NaN or infinity is an InputError that names the first row and column; with
    invalid="propagate" the results of such samples are NaN and all others exact. Where the bundle knows missing values
    (`input.missing`), codes are NaN too; with its policy "median" codes and NaN are filled, and results are those of
    the filled samples.
    """

    def __init__(
        self,
        bundle: Bundle,
        dispatcher: Dispatcher,
        variant: str,
        arithmetic: str,
        choices: dict[str, str],
        reopen: tuple[Callable[..., Model], tuple[Any, ...]] | None = None,
    ) -> None:
        self._bundle, self._dispatcher, self._reopen, self._closed = bundle, dispatcher, reopen, False
        self._fast = dispatcher.fast
        spec = bundle.manifest.calibration
        # Comparing with arrays without axes is faster than with numbers.
        found = {} if spec is None else {name: np.array(limit, np.float32) for name, limit in spec.thresholds.items()}
        self._limit, self._others = found.pop(variant, None), found
        self.variant, self.arithmetic, self.choices = variant, arithmetic, choices
        self._coders: dict[int, Coder] = {}

    @property
    def path(self) -> str:
        """The bundle's directory."""
        return self._bundle.path

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the bundle has graphs for: "encode", with a decoder all that it can have."""
        return self._dispatcher.names

    @property
    def has_decoder(self) -> bool:
        """Whether the bundle can decode, and so score and explain."""
        return "decode" in self._dispatcher.names

    @property
    def nonfinite_check(self) -> str:
        """Where NaN and infinity are looked for: "latents" (which expose them), "inputs", or "none" for integers."""
        return self._dispatcher.nonfinite_check

    def golden_rows(self) -> NDArray[Any]:
        """The reference inputs, (n, *input_shape) of the input's dtype, in raw units: examples of real input.

        Raises:
            BundleError: golden.npz is missing or damaged.
        """
        return self._bundle.golden(self.variant)["input"]

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def input(self) -> InputSpec:
        """Shape, dtype and names of one sample."""
        return self.manifest.input

    @property
    def latent_size(self) -> int:
        """The number of latents of a sample, the product of `latent_shape`."""
        return self.manifest.latent

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents: (k,) for a vector, as (channels, height, width) for a map."""
        return self.manifest.latent_shape

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration scores of the variant that runs: p-values and thresholds of scores.

        Raises:
            IncompatibleBundleError: the bundle has none.
            CorruptBundleError: calibration.npz is missing or damaged.
        """
        self._check("encode")
        scores, spec = self._bundle.calibration(self.variant), self.manifest.calibration
        if spec is None or spec.calibrated is None:
            return Calibration(scores)
        return Calibration(scores, spec.calibrated, (self.threshold, spec.false_alarm_rate))

    @property
    def threshold(self) -> float:
        """The score above which `detect` raises an alarm, of the variant that runs.

        Raises:
            IncompatibleBundleError: the bundle has no calibration.
        """
        return float(self._other())

    @property
    def false_alarm_rate(self) -> float:
        """The probability of an alarm for a normal sample at `threshold`, as the calibration samples have it.

        Raises:
            IncompatibleBundleError: the bundle has no calibration.
        """
        return self.calibration.rate(self.threshold)

    @property
    def calibration_size(self) -> int:
        """How many calibration samples the bundle has for the variant that runs; 0 for none."""
        spec = self.manifest.calibration
        return spec.rows if spec is not None and self.variant in spec.thresholds else 0

    @property
    def calibration_sequence(self) -> Floats | None:
        """The calibration scores of the variant that runs in time order, (n,) float32; None where they have none.

        They are `manifest.calibration.spacing` hops apart.

        Raises:
            IncompatibleBundleError, CorruptBundleError: as `calibration`.
        """
        self._check("encode")
        return self._bundle.calibration_sequence(self.variant)

    @property
    def drift_reference(self) -> DriftReference | None:
        """What `aeedge.signals.drift.DriftMonitor` compares latents and scores with; None where the bundle has none.

        Raises:
            CorruptBundleError: calibration.npz is missing or damaged.
        """
        self._check("encode")
        return self._bundle.drift_reference(self.variant)

    @property
    def threads(self) -> int:
        """How many threads large batches are spread over."""
        return self._dispatcher.threads

    @overload
    def encode(
        self, x: ArrayLike, *, bits: None = None, out: Floats | None = None, invalid: str = "raise"
    ) -> Floats: ...

    @overload
    def encode(self, x: ArrayLike, *, bits: int, out: Codes | None = None, invalid: str = "raise") -> Codes: ...

    def encode(self, x: ArrayLike, *, bits: int | None = None, out: Any = None, invalid: str = "raise") -> Any:
        """Latents of samples: (n, *input_shape) to (n, *latent_shape) float32; or with `bits` their codes, uint8.

        Codes are for narrow connections: each of the k latents, flattened in C order, is rounded to one of 256 or 16
        even steps, which the manifest has (`manifest.codes`, with the error that it costs), and those beyond the ends
        get the first or the last one. (n, *input_shape) to (n, k) with 8 bits, to (n, ceil(k / 2)) with 4. See
        docs/how-to/codes.md.

        Args:
            x: array-like of numbers, or a frame; for models of integer input, integers within the dtype's range.
            bits: 8 or 4 for codes, None for latents.
            out: an array to write into instead of a new one, of the result's dtype and shape; returned. Undefined after
                an error.
            invalid: "raise" or "propagate", see the class. With `bits` "raise" alone: a sample with NaN or infinity has
                no code.

        Raises:
            InputError: a wrong shape or dtype, no rows, NaN or infinity, an `out` that does not fit; a frame without
                one of the model's features, or with a column of it that is not numbers; other `bits`.
            IncompatibleBundleError: `bits` for a bundle without codes.
        """
        if bits is not None:
            return self._coder("encode", bits, invalid).encode(self.encode(x, invalid=invalid), out)
        result = self._fast["encode"](x, out, invalid)
        return self._run("encode", x, out, invalid) if result is None else result

    def decode(
        self, z: ArrayLike, *, bits: int | None = None, out: Floats | None = None, invalid: str = "raise"
    ) -> Floats:
        """Reconstructions of latents, in raw units: (n, *latent_shape) to (n, *input_shape) float32.

        With a front end (`manifest.front_end`) features: (n, *latent_shape) to (n, *features_shape).

        Where the latents are ordered (`manifest.ordered`) a prefix of j latents, (n, j), is enough.

        With `bits`, 8 or 4, of codes as `encode` makes them, uint8: (n, k) or (n, ceil(k / 2)). Where the latents are
        ordered the first j bytes, (n, j), are enough.

        Raises:
            InputError: as `encode`; codes of another width or dtype.
            IncompatibleBundleError: the bundle has no decoder; `bits` for a bundle without codes.
        """
        if bits is not None:
            z = self._coder("decode", bits, invalid).decode(z)
        result = self._fast["decode"](z, out, invalid)
        return self._run("decode", z, out, invalid) if result is None else result

    def denoise(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """decode(encode(x)), block by block: (n, *input_shape) to (n, *input_shape) float32, in raw units.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`; the bundle has a front end, whose features
                cannot be turned back into samples.
        """
        result = self._fast["denoise"](x, out, invalid)
        return self._run("denoise", x, out, invalid) if result is None else result

    def features(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """What the front end makes of raw windows: (n, *input_shape) to (n, *features_shape) float32.

        `manifest.front_end` has their shape and names. The other methods take raw windows, too.

        Raises:
            InputError: as `encode`.
            IncompatibleBundleError: the bundle has no front end.
        """
        result = self._fast["features"](x, out, invalid)
        return self._run("features", x, out, invalid) if result is None else result

    def reconstruct(self, x: ArrayLike, *, invalid: str = "raise") -> Floats:
        """decode(encode(x)), what a sample is compared with: `denoise`, or with a front end the features that it should
        have, (n, *features_shape) float32.

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        if self.manifest.front_end is None:
            return self.denoise(x, invalid=invalid)
        return self.decode(self.encode(x, invalid=invalid), invalid=invalid)

    def score(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """Anomaly score of each sample, higher is more anomalous: (n, *input_shape) to (n,) float32, without unit.

        `manifest.score.kind` says which. "mse": the mean over a sample of ((x - denoise(x)) / scale)², the squared
        reconstruction error in scaled units; "robust": the same with the scale of each value's own residuals on normal
        samples; "mahalanobis": the squared distance of the latents from those of normal samples; "both": the sum of
        the last two. A single sample gives a scalar. (The workstation's `score_samples` has the opposite sign, as in
        scikit-learn: lower is more anomalous.)

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        result = self._fast["score"](x, out, invalid)
        return self._run("score", x, out, invalid) if result is None else result

    def detect(
        self,
        x: ArrayLike,
        *,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        invalid: str = "raise",
    ) -> NDArray[np.bool_]:
        """Whether each sample is anomalous, its score above the threshold: (n, *input_shape) to (n,) bool.

        The threshold is the bundle's own (`threshold`), or that of another rate, or a given one. At a rate of α a
        normal sample raises an alarm with a probability of at most α, if it comes from where the calibration samples
        came from (split conformal prediction, see `aeedge.detection.calibration`). With invalid="propagate" a sample
        that cannot be scored, for it has NaN or infinity, is an alarm. A single sample gives a scalar.

        Raises:
            InputError: as `encode`; a rate that so few calibration samples do not support, a threshold that is none or
                belongs to another variant.
            IncompatibleBundleError: the bundle has no calibration, and no threshold is given; or it has no score.
        """
        limit = self._limit
        if limit is None or false_alarm_rate is not None or threshold is not None:
            limit = self._other(false_alarm_rate, threshold)
        scores = self._fast["score"](x, None, invalid)
        if scores is None:
            scores = self._run("score", x, None, invalid)
        return np.logical_not(scores <= limit)  # a NaN is no score below the threshold

    def p_value(self, x: ArrayLike, *, invalid: str = "raise") -> NDArray[np.float64]:
        """Conformal p-values of samples, low is anomalous: (n, *input_shape) to (n,) float64.

        The share of normal samples that score at least as high: (1 + the number of calibration scores that are at least
        as high) / (n + 1). For a normal sample it is at most α with a probability of at most α, for every α. A single
        sample gives a scalar; with invalid="propagate" a sample that cannot be scored has NaN.

        Raises:
            InputError, IncompatibleBundleError: as `detect`.
        """
        return self.calibration.p_value(self.score(x, invalid=invalid))

    def residual(self, x: ArrayLike, *, out: Floats | None = None, invalid: str = "raise") -> Floats:
        """(x - denoise(x)) / scale, what is anomalous about a sample: (n, *input_shape) to the same, float32.

        With a front end (features(x) - decode(encode(x))) / scale: (n, *input_shape) to (n, *features_shape).

        Raises:
            InputError, IncompatibleBundleError: as `encode` and `decode`.
        """
        result = self._fast["residual"](x, out, invalid)
        return self._run("residual", x, out, invalid) if result is None else result

    def explain(
        self, x: ArrayLike, top: int = 3, *, invalid: str = "raise"
    ) -> list[tuple[Cause, ...]] | tuple[Cause, ...]:
        """Which values make samples anomalous: (n, *input_shape) to n tuples of the `top` causes, the largest first.

        Each value in turn is replaced by what the others say it should be, and its share is what the score loses by it;
        see `aeedge.detection.explain` for method and source. Of signals with several channels whole channels are
        replaced. Of more than 64 values (channels) those with the largest residuals are tried. Each that is tried costs
        three passes of the sample through the network. A single sample gives one tuple.

        With a front end the causes are features, by name (bands of frequencies, mels): nothing can be replaced in raw
        samples there, so a share is the feature's part of the sum of squared residuals (its contribution to the SPE of
        process monitoring), even where latents have a say in the score. It takes two passes.

        With invalid="propagate" the causes of a sample with NaN or infinity are these values, in order, with equal
        shares and the residual NaN; with a front end the channels that have some.

        Returns:
            Tuples of `Cause`: name, index, share of the score, residual (signed, in scaled units), actual and expected
            value (in raw units). There are fewer than `top` where a sample has fewer values.

        Raises:
            InputError: as `encode`; `top` is no whole number of at least 1.
            IncompatibleBundleError: the bundle has no decoder.
            BundleError: golden.npz, which has typical values, is missing or damaged.
        """
        from aeedge.detection.explain import Explainer, FeatureExplainer

        self._check("decode")
        last = self.manifest.training.get("channels") == "last"
        scale, typical, front_end = self.manifest.score.scale, self._typical, self.manifest.front_end
        if front_end is not None:
            names = front_end.names
            return FeatureExplainer(self.input, names, scale, typical, self.features, self.reconstruct)(x, top, invalid)
        return Explainer(self.input, scale, typical, last, self.score, self.denoise)(x, top, invalid)

    def bind(self, n: int = 1, *, invalid: str = "raise") -> Slot:
        """Arrays of your own for a control loop: fill `slot.input`, call `slot.encode()`, read what it returns.

        Nothing is copied or allocated between calls. The array that a call returns is valid until the next call of the
        same slot. A slot is for one thread; make one for each.

        Args:
            n: number of samples, (n, *input_shape).
            invalid: "raise" or "propagate", see the class.

        Raises:
            InputError: `n` is no whole number of at least 1; another `invalid`.
        """
        from aeedge.runtime.slot import Slot

        def bind(name: str, given: NDArray[Any]) -> Callable[[], Floats]:
            self._check(name)
            return self._dispatcher.bind(name, given, invalid)

        self._check("encode")
        if invalid not in INVALID:
            raise InputError(f"invalid: expected 'raise' or 'propagate', got {invalid!r}")
        return Slot(bind, self.input, n)

    @overload
    def encode_iter(
        self, batches: Iterable[ArrayLike], *, bits: None = None, invalid: str = "raise"
    ) -> Iterator[Floats]: ...

    @overload
    def encode_iter(self, batches: Iterable[ArrayLike], *, bits: int, invalid: str = "raise") -> Iterator[Codes]: ...

    def encode_iter(
        self, batches: Iterable[ArrayLike], *, bits: int | None = None, invalid: str = "raise"
    ) -> Iterator[Any]:
        """Latents of each array of an iterable, in order, or with `bits` codes; the next is read while one is encoded.

        The iterable is read on a thread of its own, and its arrays are copied there: it may fill the same one again.
        Three batches are in memory at a time. A list or a tuple is taken as it is.

        Raises:
            InputError: as `encode`, when the batch at fault is reached; rows are counted over all batches.
            IncompatibleBundleError: as `encode`.
        """
        return self.map_iter("encode", batches, bits=bits, invalid=invalid)

    def score_iter(self, batches: Iterable[ArrayLike], *, invalid: str = "raise") -> Iterator[Floats]:
        """Scores of each array of an iterable, in order, as `encode_iter` gives latents."""
        return self.map_iter("score", batches, invalid=invalid)

    def detect_iter(
        self,
        batches: Iterable[ArrayLike],
        *,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        invalid: str = "raise",
    ) -> Iterator[NDArray[np.bool_]]:
        """`detect` of each array of an iterable, in order, as `encode_iter` gives latents.

        Raises:
            InputError, IncompatibleBundleError: as `detect`, those of the threshold at once.
        """
        limit = self._other(false_alarm_rate, threshold)
        return (np.logical_not(scores <= limit) for scores in self.score_iter(batches, invalid=invalid))

    def map_iter(
        self,
        what: str,
        batches: Iterable[ArrayLike],
        *,
        bits: int | None = None,
        invalid: str = "raise",
        fresh: bool = False,
    ) -> Iterator[Any]:
        """The method that `what` names, such as "encode" or "features", of each array of an iterable.

        `bits`: of the codes that "encode" gives and "decode" takes. With `fresh` the arrays are not copied: each has
        memory of its own that nobody changes.
        """
        from aeedge.runtime.prefetch import prefetch

        self._check(what)
        coder = None if bits is None else self._coder(what, bits, invalid)
        in_memory = isinstance(batches, (list, tuple))
        given = batches if in_memory else prefetch(batches, _as_is if fresh else _copied)
        if coder is None:
            return self._mapped(what, given, invalid)
        if what == "decode":
            return self._mapped(what, map(coder.decode, given), invalid)
        return self._encoded(coder, self._mapped(what, given, invalid))

    def _encoded(self, coder: Coder, batches: Iterable[Floats]) -> Iterator[Codes]:
        first = 0
        for latents in batches:
            yield coder.encode(latents, None, first)
            first += len(latents) if latents.ndim > len(self.latent_shape) else 1

    def _mapped(self, what: str, batches: Iterable[ArrayLike], invalid: str) -> Iterator[Floats]:
        first, fast = 0, self._fast
        back = len(self.input.shape if what == "denoise" else self.manifest.reconstruction_shape)
        result_ndim = {"encode": len(self.latent_shape), "score": 0}.get(what, back)
        for batch in batches:
            result = fast[what](batch, None, invalid)
            if result is None:
                result = self._run(what, batch, None, invalid, first)
            first += len(result) if result.ndim > result_ndim else 1
            yield result

    def self_check(self) -> list[Deviation]:
        """Run the reference inputs and compare latents, reconstructions and scores with the recorded outputs.

        Each is computed for all samples at once and again one by one: other kernels run then. Where NaN and infinity
        are looked for in latents, each column is tried with them. Calibration scores are read, if there are any.

        Returns:
            For each output its worst sample.

        Raises:
            VerificationError: a sample differs by more than its tolerance, the message names it; two calls with the
                same sample differ; a tolerance is nearly as large as the outputs; or NaN or infinity do not reach the
                latents as the manifest says.
            CorruptBundleError: golden.npz or calibration.npz is damaged.
        """
        from aeedge.verification import self_check

        self._check("encode")
        if self.calibration_size:
            self._bundle.calibration(self.variant)
            self._bundle.drift_reference(self.variant)
        calls: dict[str, Callable[[Any], Any]] = {"latent": self.encode, "reconstruction": self.reconstruct}
        calls["score"] = self.score
        if self.manifest.front_end is not None:
            calls["features"] = self.features
        find = self._dispatcher.find_sentinels if self.nonfinite_check == "latents" else None
        return self_check(self._bundle, self.variant, calls, find)

    def _run(self, name: str, x: ArrayLike, out: Floats | None, invalid: str, first: int = 0) -> Floats:
        """What the fast path left: input to be converted, sessions to be opened, or an error to be found."""
        self._check(name)
        x = self._padded(x) if name == "decode" and self.manifest.ordered else x
        return self._dispatcher.run(name, x, out, invalid, first)

    def _coder(self, what: str, bits: int, invalid: str) -> Coder:
        """What makes codes of latents for "encode", and latents of codes for "decode"."""
        self._check(what)
        if what == "encode" and invalid == "propagate":
            raise InputError(
                "invalid: expected 'raise' for codes, got 'propagate': a sample with NaN or infinity has no code; "
                "leave such samples out"
            )
        coder = self._coders.get(bits) if type(bits) is int else None
        if coder is None:
            from aeedge.runtime.codes import coder_of

            coder = coder_of(self.manifest, bits, self._bundle.path)
            self._coders[coder.bits] = coder
        return coder

    @cached_property
    def _typical(self) -> NDArray[Any]:
        """A sample that is typical value by value: the median of the reference inputs."""
        found: NDArray[Any] = np.median(self.golden_rows(), axis=0)
        return found

    def _other(self, false_alarm_rate: float | None = None, threshold: float | None = None) -> NDArray[np.float32]:
        """The threshold that was asked for; the bundle's own where none was."""
        if threshold is None:
            if false_alarm_rate is not None:
                return np.array(self.calibration.threshold(false_alarm_rate), np.float32)
            if self._limit is None:
                self._bundle.calibration(self.variant)  # has none, and says so
            assert self._limit is not None
            return self._limit
        if false_alarm_rate is not None:
            raise InputError("expected a false_alarm_rate or a threshold, got both; leave one out")
        number, own = np.array(as_threshold(threshold), np.float32), self._limit
        for variant, other in self._others.items():
            if other == number and (own is None or other != own):
                raise InputError(
                    f"threshold: {other:g} is that of {variant}, and {self.variant} runs, whose scores are others; "
                    + ("it has none of its own" if own is None else f"leave it out for its own, {own:g}")
                )
        return number

    def _padded(self, z: ArrayLike) -> ArrayLike:
        """A prefix of ordered latents, with zeros for the others."""
        prefix = as_array(z, "decode")
        missing = self.latent_size - prefix.shape[-1] if prefix.ndim in (1, 2) else 0
        if missing <= 0 or missing == self.latent_size:
            return prefix
        return np.pad(prefix, [(0, 0)] * (prefix.ndim - 1) + [(0, missing)])

    def _check(self, name: str) -> None:
        """Refuse a call of a closed model, or of a method that it does not have."""
        if self._closed:
            raise AeedgeError(f"{self._bundle.path}: the model was closed; load it again")
        if name not in NAMES:
            raise InputError(f"expected {', '.join(NAMES)}, got {name!r}")
        if name == "features" and self.manifest.front_end is None:
            raise IncompatibleBundleError(
                f"{self._bundle.path}: has no features, for it has no front end; encode takes samples as they are"
            )
        if name == "denoise" and self.manifest.front_end is not None:
            raise IncompatibleBundleError(
                f"{self._bundle.path}: cannot denoise, for its network reconstructs features "
                f"({printable(self.manifest.front_end.kind)}), which cannot be turned back into samples; compare "
                "features (features, residual, explain), or train without a front end"
            )
        if name not in self._dispatcher.names:
            raise IncompatibleBundleError(
                f"{self._bundle.path}: this needs a decoder, but the bundle has only an encoder; export it with its "
                "decoder"
            )

    def close(self) -> None:
        """End the model's threads and refuse further calls. Closing twice does nothing."""
        self._closed = True
        self._dispatcher.close()
        self._bundle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reopen is None:
            raise AeedgeError(f"{self._bundle.path}: expected a model that aeedge.load made, it alone can be pickled")
        return self._reopen

    def __repr__(self) -> str:
        m = self.manifest
        return (
            f"<aeedge.Model {m.name!r} ({printable(m.family)}, {self.variant}): {self.input.dtype} "
            f"{self.input.shape} -> {'×'.join(map(str, self.latent_shape))} latents, {self.threads} threads, "
            f"id {m.id[:12]}>"
        )


def _as_is(batch: Any) -> Any:
    return batch


def _copied(batch: Any) -> Any:
    """A copy of what may be filled again: an array, or a frame of pandas."""
    return batch.copy() if isinstance(batch, np.ndarray) or hasattr(batch, "iloc") else batch
