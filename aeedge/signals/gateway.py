"""A stream at work: what comes is pushed, what it says becomes JSON, is counted, recorded and kept over restarts."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge.files.source import reading
from aeedge.signals.metrics import Metrics
from aeedge.signals.stream import Stream
from aeedge.system.stopping import Stopped

if TYPE_CHECKING:
    from aeedge.model import Model
    from aeedge.signals.event import Event
    from aeedge.signals.lines import Chunk
    from aeedge.signals.mqtt import Broker
    from aeedge.signals.recorder import Recorder
    from aeedge.signals.sources import Parser

    Tell = Callable[[list[dict[str, Any]]], None]

ONLY = ("alarms", "changes")
_STATE_FORMAT = "aeedge-stream-state/1"
_KEEP_EVERY, _MEASURE_EVERY = 10.0, 5.0  # seconds
_QUIET, _LAST_WAIT = 0.1, 5.0  # seconds without a message, and for the last events to arrive
_MOST_UNSETTLED = 10  # messages; some brokers send no more than 20 at once
_SAID_AT_ONCE, _SAY_EVERY = 10, 10.0  # sentences, seconds
_SINCE_1970 = 5e8  # times from here on are those of a calendar


class Gateway:
    """Pushes what comes into a stream, and makes documents of its events.

    Args:
        stream: to push to.
        model: of the stream.
        warn: called with a sentence about what could not be read or written.
        top: how many causes of an alarm are named.
        only: "alarms" for windows in an alarm, "changes" for those in which the alarm or the verdict is another than
            before; None for all.
        recorder: keeps samples around alarms.
        strict: whether what cannot be read is an InputError.
        tolerant: whether that is so even where nothing could be read before, as of messages, which come again.

    Attributes:
        metrics: counters, see Metrics.
        samples: number of samples that were taken.
    """

    def __init__(
        self,
        stream: Stream,
        model: Model,
        warn: Callable[[str], None],
        *,
        top: int = 3,
        only: str | None = None,
        recorder: Recorder | None = None,
        strict: bool = False,
        tolerant: bool = False,
    ) -> None:
        self.stream, self.metrics, self.samples = stream, Metrics(model.manifest.name), 0
        self.warn, self._only, self._recorder = warn, only, recorder
        self._top = top if model.has_decoder else 0
        self._strict, self._tolerant = strict, tolerant
        signal = model.input.signal
        self._needs_time = signal is not None and bool(signal.calendar)
        self._before = (False, "ok")  # alarm and verdict of the event before

    def take(self, chunk: Chunk, arrived: float) -> list[dict[str, Any]]:
        """Push a chunk that arrived at a time of `time.time()`; gives a document for each event that is asked for.

        Raises:
            InputError: it cannot be read, and that is not tolerated.
        """
        if chunk.fault:
            self._unreadable(chunk.fault)
        if chunk.samples is None:
            return self._told(self.stream.push(None, missing=chunk.missing), arrived) if chunk.missing else []
        times = chunk.times
        if times is None and self._needs_time:
            times, self._needs_time = arrived, False  # of the first sample; the others follow at the rate
        try:
            events = self.stream.push(chunk.samples, times)
        except InputError as error:
            found = [document for part in self._one_by_one(chunk, error) for document in self._told(part, arrived)]
            if not self.samples and not self._tolerant:
                raise
            return found
        self.samples += len(chunk.samples)
        return self._told(events, arrived)

    def _one_by_one(self, chunk: Chunk, error: InputError) -> Iterator[list[Event]]:
        """Push the samples of a chunk that was refused, those that are refused by themselves as missing."""
        assert chunk.samples is not None
        if len(chunk.samples) == 1 or isinstance(chunk.times, float):
            self._unreadable(str(error))
            yield self.stream.push(None, missing=len(chunk.samples))
            return
        for i in range(len(chunk.samples)):
            time_of = None if chunk.times is None else chunk.times[i]
            try:
                yield self.stream.push(chunk.samples[i : i + 1], time_of)
                self.samples += 1
            except InputError as other:
                self._unreadable(str(other))
                yield self.stream.push(None, missing=1)

    def _unreadable(self, message: str) -> None:
        if self._strict:
            raise InputError(message)
        self._count("unreadable_total")
        self.warn(message)

    def _told(self, events: list[Event], arrived: float) -> list[dict[str, Any]]:
        found = []
        for event in events:
            now = (event.alarm, event.verdict)
            if self._only is None or (event.alarm if self._only == "alarms" else now != self._before or event.raised):
                found.append(self._document(event))
            if self._recorder is not None:
                self._record(self._recorder, event)
            self._before = now
            self._count("windows_total")
            self._count("alarms_total", event.raised)
            self._count("bad_windows_total", event.verdict == "bad input")
        if events:
            last, clock = events[-1], time.time()
            since = last.end if last.end > _SINCE_1970 else arrived
            latest = {"drift": last.drift, "score": last.score, "alarm": float(last.alarm)}
            self.metrics.values |= latest | {"lag_seconds": clock - since, "last_window_timestamp_seconds": clock}
        return found

    def _count(self, name: str, by: float = 1) -> None:
        self.metrics.values[name] = (self.metrics.values[name] or 0) + by

    def _document(self, event: Event) -> dict[str, Any]:
        return document_of(event, self._top)

    def _record(self, recorder: Recorder, event: Event) -> None:
        try:
            recorder.add(event, self._document(event))
        except InputError as error:
            self.warn(str(error))

    def close(self) -> None:
        """End a recording that is being made."""
        if self._recorder is not None:
            try:
                self._recorder.close()
            except InputError as error:
                self.warn(str(error))


def document_of(event: Event, top: int) -> dict[str, Any]:
    """An event as JSON, NaN as null; the `top` causes of an alarm."""
    causes = event.explain(top) if top and event.alarm else ()
    return {
        "window": event.index,
        "start": _plain(event.start),
        "end": _plain(event.end),
        "score": _number(float(f"{event.score:.9g}")),
        "p_value": _number(event.p_value),
        **({} if event.likelihood != event.likelihood else {"likelihood": float(f"{event.likelihood:.9g}")}),
        "alarm": event.alarm,
        "raised": event.raised,
        "verdict": event.verdict,
        "health": [fault._asdict() for fault in event.health],
        "drift": _number(float(f"{event.drift:.6g}")),
        "causes": [{"name": cause.name, "share": float(f"{cause.share:.4g}")} for cause in causes],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(seconds: float) -> float:
    return round(seconds, 6)


class Keeper:
    """Writes the state and the metrics of a gateway to files, now and then and at the end.

    Args:
        gateway: whose.
        state, metrics: files; None for none.
        warn: called with a sentence where one cannot be written; at the end that is an InputError.
    """

    def __init__(self, gateway: Gateway, state: str | None, metrics: str | None, warn: Callable[[str], None]) -> None:
        self._gateway, self._state, self._metrics, self._warn = gateway, state, metrics, warn
        self._due = {"state": _KEEP_EVERY, "metrics": 0.0}  # seconds, of a clock that begins now
        self._began = time.monotonic()

    @property
    def keeps_state(self) -> bool:
        """Whether there is a file for the state."""
        return self._state is not None

    def tick(self, *, state: bool = True) -> None:
        """Write what is due; `state`: whether that may be the state."""
        now = time.monotonic() - self._began
        for name, write, every in (("state", self.save, _KEEP_EVERY), ("metrics", self._measure, _MEASURE_EVERY)):
            if name == "state" and not state:
                continue
            if now >= self._due[name]:
                self._due[name] = now + every
                try:
                    write()
                except InputError as error:
                    self._warn(str(error))

    def save(self, messages: Mapping[int, str] | None = None) -> None:
        """Write the state; `messages` is what an MQTT client remembers.

        Raises:
            InputError: it cannot be written.
        """
        if self._state is not None:
            write_state(self._state, self._gateway.stream, messages)

    def _measure(self) -> None:
        if self._metrics is not None:
            self._gateway.metrics.write(self._metrics)

    def close(self, *, state: bool = True) -> None:
        """Write all for the last time; `state`: whether the state, too.

        Raises:
            InputError: the state or the metrics cannot be written.
        """
        self._gateway.close()
        if state:
            self.save()
        self._measure()


class Sparing:
    """Says the first sentences of a flood, then one now and then, with the number of those left out."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said, self._left_out, self._latest = say, 0, 0, 0.0

    def __call__(self, text: str) -> None:
        """Say a sentence, or count it."""
        now = time.monotonic()
        if self._said >= _SAID_AT_ONCE and now - self._latest < _SAY_EVERY:
            self._left_out += 1
            return
        more = f" (and {self._left_out:,} more before)" if self._left_out else ""
        self._said, self._left_out, self._latest = self._said + 1, 0, now
        self._say(f"{text}{more}")


def run(pieces: Iterable[bytes], parser: Parser, gateway: Gateway, keeper: Keeper, tell: Tell) -> None:
    """Let a gateway take what a pipe gives, to its end.

    Raises:
        InputError: it cannot be read; what could be read before is told.
    """
    arrived = time.time()
    for piece in pieces:
        arrived = time.time()
        for chunk in parser.feed(piece):
            tell(gateway.take(chunk, arrived))
        keeper.tick()
    for chunk in parser.close():
        tell(gateway.take(chunk, arrived))
    if not gateway.metrics.values["windows_total"] and not keeper.keeps_state:
        raise InputError(
            f"expected at least a window of {gateway.stream.window:,} samples, but the input ended after "
            f"{gateway.samples:,}"
        )
    if gateway.samples < gateway.stream.hop and not keeper.keeps_state:
        gateway.warn(
            f"hop: of {gateway.samples:,} samples, fewer than the hop of {gateway.stream.hop:,}, there is one window "
            "at most; take a shorter hop"
        )


def run_broker(broker: Broker, parser: Parser, gateway: Gateway, keeper: Keeper, tell: Tell) -> None:
    """Let a gateway take the messages of a broker, until an exception ends it.

    Messages are acknowledged when their events have arrived and the state that includes them is written: after a crash
    they come again, the stream goes on from before them, and at most some events are published twice, with the same
    numbers of windows.

    Raises:
        InputError: the broker refuses the client, or the state cannot be written.
    """

    def settle(timeout: float | None = None) -> None:
        if broker.settled(timeout):
            keeper.save(broker.taken)
            broker.acknowledge()

    try:
        while True:
            message = broker.take(_QUIET if broker.unacknowledged else _KEEP_EVERY / 10)
            if message is not None:
                arrived = time.time()
                for chunk in parser.message(message.payload):
                    tell(gateway.take(chunk, arrived))
                broker.done(message)
            if broker.unacknowledged and (message is None or broker.unacknowledged >= _MOST_UNSETTLED):
                settle()
            keeper.tick(state=False)
    except Stopped:
        settle(_LAST_WAIT)
        raise
    finally:
        broker.close()


# --- the state of a stream in a file


def write_state(path: str | os.PathLike[str], stream: Stream, messages: Mapping[int, str] | None = None) -> None:
    """Replace a file by the state of a stream; `messages` is what an MQTT client remembers.

    Raises:
        InputError: it cannot be written.
    """
    head = {"format": _STATE_FORMAT, "messages": list((messages or {}).items())}
    with atomic_file(path, overwrite=True) as part:
        part.write_bytes(json.dumps(head).encode() + b"\n" + stream.state())


def restored(path: str | os.PathLike[str], model: Model, fresh: Stream) -> tuple[Stream, dict[int, str]]:
    """The stream whose state is in a file, and what an MQTT client remembers; `fresh` where there is no file yet.

    Raises:
        InputError: no state, a damaged one, one of another bundle or of a stream with other options than `fresh`.
    """
    if not Path(path).exists():
        return fresh, {}
    with reading(str(path), expected="the state of a stream"):
        head, _, state = Path(path).read_bytes().partition(b"\n")
        document = json.loads(head)
        if document["format"] != _STATE_FORMAT:
            raise ValueError(f"format {document['format']!r}")
        messages = {int(number): str(digest) for number, digest in document["messages"]}
    advice = "remove it to begin anew, or name another file"
    try:
        stream = Stream.restore(model, state)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix('state: ')}") from None
    if stream.options != fresh.options:
        changed = ", ".join(f"{name} {value}" for name, value in stream.options.items() if value != fresh.options[name])
        raise InputError(f"{path}: is of a stream with other options ({changed}); give these, {advice}")
    return stream, messages
