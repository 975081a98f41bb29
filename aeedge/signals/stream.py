"""A live stream: samples in, in chunks of any length; windows, scores, alarms and verdicts out."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.detection.calibration import as_threshold
from aeedge.errors import InputError
from aeedge.signals.alarm_logic import AlarmLogic
from aeedge.signals.buffer import WindowBuffer, Windows
from aeedge.signals.clock import SampleClock
from aeedge.signals.drift import DriftMonitor
from aeedge.signals.event import Block, Event
from aeedge.signals.health import Fault, HealthCheck
from aeedge.signals.layout import Layout
from aeedge.signals.likelihood import Likelihood, adapted_threshold
from aeedge.signals.window import as_count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.model import Model

_FORMAT = 1  # of `state`
_BLIND = {"stuck", "not finite", "missing"}  # faults with which a score says nothing of the machine
_NO_FAULTS: tuple[Fault, ...] = ()


class Stream:
    """Scores a live signal window by window. For one thread.

    Args:
        model: of windows, see `aeedge.signals.layout.Layout`.
        hop: samples from the start of one window to that of the next; None for that of the training.
        patience: when an alarm begins: "3 of 5" when 3 of the last 5 windows score above the threshold.
        cooldown: seconds after the end of an alarm in which no other begins.
        hysteresis: an alarm is on until scores are below the threshold by this share, 0 up to, not including, 1.
        threshold: the score above which a window is anomalous; None for that of `false_alarm_rate`.
        false_alarm_rate: share of normal windows above the threshold; None for the bundle's own threshold. A bundle
            without a calibration raises no alarms.
        adapt: whether windows are judged by how rare what is new in them is among the stream's last 2 000 windows, for
            signals that do not stay as they were in training: by `Event.likelihood` in place of the score. `threshold`
            is a likelihood then, and 1 - false_alarm_rate, by default 0.999. Alarms tell where something begins.

    Windows with faulty sensors (`Event.health`) have no say in alarms, unless a channel is only out of its range or
    saturated, as it may be where a machine breaks. A gap in time ends an alarm, and windows do not cross it.

    Raises:
        InputError: an option out of range, or a model that has no windows.
        IncompatibleBundleError: a rate without a calibration.
    """

    def __init__(
        self,
        model: Model,
        hop: int | None = None,
        *,
        patience: str = "1 of 1",
        cooldown: float = 0.0,
        hysteresis: float = 0.0,
        threshold: float | None = None,
        false_alarm_rate: float | None = None,
        adapt: bool = False,
    ) -> None:
        self._model, self._layout = model, Layout(model)
        signal, dtype = self._layout.signal, self._layout.dtype
        self._signal, self.hop = signal, signal.hop if hop is None else as_count("hop", hop, 2**31 - 1)
        if not isinstance(adapt, (bool, np.bool_)):
            raise InputError(f"adapt: expected True or False, got {adapt!r:.60}")
        self._options = {"patience": patience, "cooldown": cooldown, "hysteresis": hysteresis}
        self._limit = {"threshold": threshold, "false_alarm_rate": false_alarm_rate, "adapt": bool(adapt)}
        self.threshold = self._threshold(threshold, false_alarm_rate)
        self._scores = model.has_decoder or model.manifest.score.needs_scorer
        if adapt and not self._scores:
            raise InputError(f"adapt: {model.path} has no scores to judge by; export it with its decoder")
        self._has_changes = model.has_decoder and model.manifest.front_end is None and signal.window > 1
        self._alarms = AlarmLogic(**self._options)  # type: ignore[arg-type]
        self._buffer = WindowBuffer(signal.window, self.hop, signal.width, dtype.name)
        self._clock = SampleClock(signal.rate, signal.longest_step)
        self._check = HealthCheck(signal.reference, signal.channels, dtype, model.input)
        self._drift_reference = model.drift_reference
        self._look_every = max(1, signal.window // self.hop)  # windows: no sample is passed over
        self._drift_every = max(1, -(-signal.window // self.hop))  # that share no sample
        self.reset()

    def _threshold(self, threshold: float | None, rate: float | None) -> float | None:
        """The score, as float32, or the likelihood above which windows are anomalous; None for no alarms."""
        if threshold is not None and rate is not None:
            raise InputError("expected a false_alarm_rate or a threshold, got both; leave one out")
        if self._limit["adapt"]:
            return adapted_threshold(threshold, rate)
        if threshold is not None:
            return float(np.float32(as_threshold(threshold)))
        if rate is not None:
            return self._model.calibration.threshold(rate)
        return self._model.threshold if self._model.calibration_size else None

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with, the hop as it is."""
        found = {"hop": self.hop, **self._options, **self._limit}
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of a sample, in order."""
        return self._signal.channels

    @property
    def window(self) -> int:
        """Samples of a window."""
        return self._signal.window

    @property
    def rate(self) -> float | None:
        """Samples a second; None where the bundle does not say."""
        return self._signal.rate

    def push(
        self, samples: ArrayLike | None, time: float | ArrayLike | None = None, *, missing: int | None = None
    ) -> list[Event]:
        """Take samples, and say something of each window that they complete.

        What comes out does not depend on how samples are divided into chunks.

        Args:
            samples: (k, channels) in raw units, as the sensor gives them; of one channel also (k,), of several also one
                sample (channels,). Frames are taken by column name. None for samples that were lost.
            time: of the first sample in seconds, or of each (k,); None for one sample period after the sample before,
                from 0, without a known rate one second.
            missing: with None for samples, how many were lost.

        Raises:
            InputError: samples or times that do not fit; nothing is taken then.
        """
        if samples is None:
            return self._lost(as_count("missing", missing))
        if missing is not None:
            raise InputError("missing: expected samples or how many are missing, got both")
        found = self._layout.samples(samples)
        if not len(found):
            return []
        times, breaks = self._clock.times(len(found), time, needed=bool(self._signal.calendar))
        events: list[Event] = []
        first = 0
        for at, fault in breaks:
            self._take(found[first:at], times[first:at], events)
            self._gap(fault, events, self._clock.next)
            first = at
        self._take(found[first:], times[first:], events)
        return events

    def _take(self, samples: NDArray[Any], times: NDArray[np.float64], events: list[Event]) -> None:
        """Samples without a gap between them."""
        if not len(samples):
            return
        if samples.dtype != self._layout.dtype:  # integers, some of which are not finite
            self._take_broken(samples, times, events)
            return
        self._clock.passed(times)
        self._in_gap = False
        if self._signal.calendar:
            samples = self._layout.with_calendar(samples, times)
        for windows in self._buffer.add(samples, times):
            self._judge(windows, events)

    def _take_broken(self, samples: NDArray[Any], times: NDArray[np.float64], events: list[Event]) -> None:
        """Samples for an integer model, some of which are NaN or infinity: those are lost."""
        good = np.isfinite(samples).all(axis=1)
        edges = np.flatnonzero(np.diff(good)) + 1
        for part, part_times, whole in zip(np.split(samples, edges), np.split(times, edges), good[[0, *edges]]):
            if whole:
                self._take(part.astype(self._layout.dtype), part_times, events)
            else:
                broken = np.flatnonzero(~np.isfinite(part[0]))  # of the first sample, however many come in a chunk
                channel = self._signal.channels[broken[0]] if len(broken) == 1 else None
                self._lost_at(len(part), events, channel, part_times)

    def _lost(self, count: int) -> list[Event]:
        events: list[Event] = []
        self._lost_at(count, events)
        return events

    def _lost_at(
        self, count: int, events: list[Event], channel: str | None = None, times: NDArray[np.float64] | None = None
    ) -> None:
        if times is None:
            time = self._clock.next
            self._clock.skip(count)
        else:
            time = float(times[0])
            self._clock.passed(times)
        self._gap(Fault("missing", channel, "samples are missing"), events, time)
        self._in_gap = True

    def _gap(self, fault: Fault, events: list[Event], time: float) -> None:
        """Say that the signal is interrupted, and begin a new window with the next sample."""
        self._buffer.clear()
        self._alarms.interrupt(time)
        self._windows, self._health = 0, _NO_FAULTS
        if self._in_gap and fault.kind != "clock":  # one event for each gap, however it is told
            return
        drift = math.nan if self._drift is None else self._drift.value
        events.append(Event(self._index, time, time, math.nan, False, False, False, (fault,), drift, None, 0))
        self._index += 1

    def _judge(self, windows: Windows, events: list[Event]) -> None:
        """An event for each window."""
        block = Block(self._model, self._layout, windows.samples.copy(), self.hop)
        scores, likelihood = self._scored(block), self._likelihood
        novelty = None if likelihood is None else self._novelty(block, scores)
        limit, alarms, drift = self.threshold, self._alarms, self._drift
        for at, (start, end, score) in enumerate(zip(windows.start.tolist(), windows.end.tolist(), scores)):
            blind = self._is_blind(block.windows[at], score)
            rare = math.nan if blind or likelihood is None or novelty is None else likelihood.update(novelty[at])
            judged = score if likelihood is None else rare
            exceeded = limit is not None and judged > limit
            raised = limit is not None and not blind and alarms.update(judged, limit, end)
            if drift is not None and not blind and self._windows % self._drift_every == 0:
                drift.update(self._model.encode(block.rows[at : at + 1]).reshape(-1), score)
            value = math.nan if drift is None else drift.value
            faults = self._health
            events.append(
                Event(self._index, start, end, score, exceeded, alarms.on, raised, faults, value, block, at, rare)
            )
            self._windows += 1
            self._index += 1

    def _is_blind(self, samples: NDArray[Any], score: float) -> bool:
        """Look at the sensors, where it is time to or a score asks for it; whether scores mean nothing."""
        over = self.threshold is not None and score > self.threshold
        broken = score != score and self._scores
        if over or broken or self._likelihood is not None or self._windows % self._look_every == 0:
            self._health = self._looked(samples, score)
        return bool(self._health) and any(fault.kind in _BLIND for fault in self._health)

    def _novelty(self, block: Block, scores: list[float]) -> list[list[float]]:
        """What a stream that adapts compares windows by."""
        if not self._has_changes:
            return [[score] for score in scores]
        found: list[list[float]] = block.novelty(self.hop).tolist()
        return found

    def _scored(self, block: Block) -> list[float]:
        if not self._scores:
            return [math.nan] * len(block.windows)
        found: list[float] = self._model.score(block.rows, invalid="propagate").tolist()
        return found

    def _looked(self, samples: NDArray[Any], score: float) -> tuple[Fault, ...]:
        """What is wrong with a window."""
        found: tuple[Fault, ...] = self._check.check(samples)
        if not found and score != score and self._scores:
            return (Fault("not finite", None, "its score is not finite"),)
        return found

    @property
    def expected_false_alarms_per_day(self) -> float | None:
        """How many alarms a day normal operation should raise at most, by the calibration; None where that is not
        known: without a rate, a calibration, or a threshold.

        Windows overlap, so that one odd moment makes several of them score high: what is counted is the share of
        stretches of time as long as a window in which an alarm begins, (1 + number of such stretches of the calibration
        recording) / (1 + number of all). Where the calibration windows are in no order, each window above the threshold
        is taken for an alarm, which is rather too high. So it is for a stream that adapts.
        """
        from aeedge.signals.expectation import DAY, alarms_per_day

        if self._limit["adapt"] and self.threshold is not None and self.rate is not None:
            return (1 - self.threshold) * DAY * self.rate / self.hop
        if self.threshold is None or self.rate is None or not self._model.calibration_size:
            return None
        alarms = AlarmLogic(**self._options)  # type: ignore[arg-type]
        return alarms_per_day(self._model, self._signal, self.hop, self.threshold, alarms)

    def __repr__(self) -> str:
        rate = "" if self.rate is None else f" at {self.rate:g} Hz"
        name = self._model.manifest.name
        return (
            f"<aeedge.Stream of {name!r}: {len(self.channels)} channels{rate}, {self.window} samples every {self.hop}>"
        )

    def reset(self) -> None:
        """Forget everything that was pushed: the next event is that of a new stream."""
        self._buffer.clear()
        self._alarms.clear()
        self._clock.clear()
        self._drift = None if self._drift_reference is None else DriftMonitor(self._drift_reference)
        self._likelihood = Likelihood(2 if self._has_changes else 1) if self._limit["adapt"] else None
        self._index = self._windows = 0  # events; windows since the last gap
        self._health, self._in_gap = _NO_FAULTS, False

    def state(self) -> bytes:
        """Everything that the stream remembers, to be kept over a restart; see `restore`."""
        document = {
            "format": _FORMAT,
            "bundle": self._model.manifest.id,
            "variant": self._model.variant,
            **self.options,
            "index": self._index,
            "windows": self._windows,
            "in_gap": self._in_gap,
            "health": [list(fault._asdict().values()) for fault in self._health],
            "clock": self._clock.state(),
            "alarm": self._alarms.state(),
        }
        arrays = {f"buffer.{name}": value for name, value in self._buffer.state().items()}
        if self._drift is not None:
            arrays |= {f"drift.{name}": value for name, value in self._drift.state().items()}
        if self._likelihood is not None:
            arrays |= {f"likelihood.{name}": value for name, value in self._likelihood.state().items()}
        file = io.BytesIO()
        arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def restore(cls, model: Model, state: bytes) -> Stream:
        """The stream that gave a state, with its options; it goes on as if nothing had happened.

        Args:
            model: of the same bundle and variant.
            state: what `state` returned.

        Raises:
            InputError: no state, a damaged one, or one of another bundle.
        """
        document, arrays = _opened(state)
        for what, own in (("bundle", model.manifest.id), ("variant", model.variant)):
            if document.get(what) != own:
                raise InputError(
                    f"state: expected that of a stream of the {what} {own[:12]}, got one of "
                    f"{str(document.get(what))[:12]!r}; begin a new stream, or load the {what} that it is of"
                )
        try:
            options = ("hop", "patience", "cooldown", "hysteresis", "threshold", "false_alarm_rate", "adapt")
            stream = cls(model, **{name: document[name] for name in options})
            stream._index, stream._windows = int(document["index"]), int(document["windows"])
            stream._in_gap = bool(document["in_gap"])
            stream._health = tuple(Fault(*map(_plain_text, fault)) for fault in document["health"])
            stream._clock.restore(document["clock"])
            stream._alarms.restore(document["alarm"])
            stream._buffer.restore(_part(arrays, "buffer."))
            if stream._drift is not None:
                stream._drift.restore(_part(arrays, "drift."))
            if stream._likelihood is not None:
                stream._likelihood.restore(_part(arrays, "likelihood."))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"state: expected what Stream.state() gave, got a damaged one ({error!r:.80})") from None
        return stream


def _opened(state: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON and the arrays of a state."""
    try:
        with np.load(io.BytesIO(state), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        document = json.loads(arrays.pop("document").tobytes())
        if document["format"] != _FORMAT:
            raise InputError(f"state: expected format {_FORMAT}, got {document['format']!r:.20}; begin a new stream")
    except Exception as error:  # of damaged archives, zipfile and numpy raise nearly everything
        if isinstance(error, InputError):
            raise
        raise InputError("state: expected the bytes that Stream.state() gave, got something else") from None
    return document, arrays


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _plain_text(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("health")
    return value
