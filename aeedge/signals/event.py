"""What a stream says of each window."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.signals.health import Fault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.detection.explain import Cause
    from aeedge.model import Model
    from aeedge.signals.layout import Layout
    from aeedge.types import Floats


class Block:
    """Windows that were scored in one call, kept as long as one of their events is."""

    def __init__(self, model: Model, layout: Layout, samples: NDArray[Any], hop: int) -> None:
        self._model, self._layout = model, layout
        length, step = layout.window, samples.strides[0]
        shape = ((len(samples) - length) // hop + 1, length, samples.shape[1])
        # What `window` gives, without the many microseconds that numpy's stride tricks take.
        self.windows = np.ndarray(shape, samples.dtype, samples, 0, (hop * step, *samples.strides))
        self.rows = layout.rows(self.windows)  # in the model's shape

    @cached_property
    def latents(self) -> Floats:
        """Latents of all windows, computed when they are first asked for."""
        return self._model.encode(self.rows, invalid="propagate")

    def novelty(self, hop: int) -> NDArray[np.float64]:
        """How unlike others the last `hop` samples of each window are, (n, 2): by their residuals, and by their changes
        from sample to sample; means of squares, in units of the score's scale.

        Channels that are made of the time have no say.
        """
        width = len(self._layout.signal.channels)
        residual = self._layout.windows(self._model.residual(self.rows, invalid="propagate"))
        scale = np.broadcast_to(self._model.manifest.score.scale, self._model.input.shape)[np.newaxis]
        change = np.diff(self.windows.astype(np.float64), axis=1) / self._layout.windows(scale)[:, 1:]
        with np.errstate(all="ignore"):
            means = [np.square(part[:, -hop:, :width]).mean(axis=(1, 2)) for part in (residual, change)]
        return np.stack(means, axis=1)

    def p_value(self, score: float) -> float:
        """The conformal p-value of a score; NaN where the bundle has no calibration."""
        return float(self._model.calibration.p_value(score)) if self._model.calibration_size else float("nan")

    def explain(self, at: int, top: int) -> tuple[Cause, ...]:
        """Which channels make the score of a window."""
        found = self._model.explain(self.rows[at], top, invalid="propagate")
        assert isinstance(found, tuple)
        return found


class Event:
    """A window of a stream, or a stretch of time without samples.

    Attributes:
        index: of the event in the stream, from 0.
        start, end: time of the window's first and last sample in seconds; of a gap, both the time at which it begins.
        score: anomaly score, see `aeedge.Model.score`; NaN where there is none.
        exceeded: whether the score (the likelihood, where the stream adapts) is above the threshold.
        alarm: whether the alarm is on.
        raised: whether it begins with this window.
        health: what is wrong with the sensors, a tuple of `aeedge.signals.health.Fault`; empty where all is well.
        drift: how far what the stream has seen lately is from training, 1 or more is drift; NaN where that is not
            known. See `aeedge.signals.drift`.
        likelihood: that what is new in the window is more than an odd moment of the signal as it has lately been, 0 to
            1; NaN unless the stream adapts. See `aeedge.signals.likelihood`.
    """

    __slots__ = (
        *("_at", "_block", "alarm", "drift", "end", "exceeded", "health", "index", "likelihood", "raised", "score"),
        "start",
    )

    def __init__(
        self,
        index: int,
        start: float,
        end: float,
        score: float,
        exceeded: bool,
        alarm: bool,
        raised: bool,
        health: tuple[Fault, ...],
        drift: float,
        block: Block | None,
        at: int,
        likelihood: float = float("nan"),
    ) -> None:
        self.index, self.start, self.end, self.score = index, start, end, score
        self.exceeded, self.alarm, self.raised, self.health, self.drift = exceeded, alarm, raised, health, drift
        self._block, self._at, self.likelihood = block, at, likelihood

    @property
    def verdict(self) -> str:
        """ "bad input" before "anomaly" (the alarm is on) before "drift" before "ok"."""
        if self.health:
            return "bad input"
        return "anomaly" if self.alarm else "drift" if self.drift >= 1.0 else "ok"

    @property
    def p_value(self) -> float:
        """Conformal p-value of the score, see `aeedge.Model.p_value`; NaN where there is none."""
        return float("nan") if self._block is None else self._block.p_value(self.score)

    @property
    def samples(self) -> NDArray[Any] | None:
        """The window, (window, channels) in raw units; None of a gap."""
        return None if self._block is None else self._block.windows[self._at]

    @property
    def latent(self) -> Floats | None:
        """Latents of the window, computed when they are first asked for; None of a gap."""
        return None if self._block is None else self._block.latents[self._at]

    def explain(self, top: int = 3) -> tuple[Cause, ...]:
        """Which channels make the score, the largest share first; see `aeedge.Model.explain`.

        Raises:
            InputError: `top` is no whole number of at least 1.
            IncompatibleBundleError: the bundle has no decoder.
        """
        return () if self._block is None else self._block.explain(self._at, top)

    def __repr__(self) -> str:
        faults = "".join(f", {fault.kind}" + (f": {fault.channel}" if fault.channel else "") for fault in self.health)
        about = f"{self.start:g} to {self.end:g} s, score {self.score:g}, {self.verdict}{faults}"
        return f"<aeedge.Event {self.index}: {about}>"
