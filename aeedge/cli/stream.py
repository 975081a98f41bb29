"""aeedge stream: a live signal in, a line of JSON for each window out."""

from __future__ import annotations

import json
import os
import signal as signals
import sys
import time as clock
from collections.abc import Callable
from typing import Any

import click

from aeedge.bundle.manifest import SignalSpec
from aeedge.cli.command import Command, section
from aeedge.cli.group import DEVICE
from aeedge.cli.streams import check_stdout, show
from aeedge.cli.types import (
    Quantity,
    Whole,
    allow_ops_option,
    dialect_options,
    table_options,
    threads_option,
    variant_option,
)
from aeedge.cli.wording import reworded, say
from aeedge.errors import InputError, printable, shortened
from aeedge.files.replacing import check_file
from aeedge.files.source import STDIN
from aeedge.loading import load
from aeedge.model import Model
from aeedge.signals.gateway import ONLY, Gateway, Keeper, Sparing, restored, run, run_broker
from aeedge.signals.layout import Layout
from aeedge.signals.lines import Fields
from aeedge.signals.mqtt import Address, Broker, default_client_id
from aeedge.signals.recorder import Recorder
from aeedge.signals.sources import RAW, parser_of, read_pieces
from aeedge.signals.stream import Stream
from aeedge.system.progress import ProgressLine
from aeedge.system.stopping import Stopped, Stopping

_PAUSE, _PROGRESS_EVERY, _OLD = 1.0, 0.5, 86_400.0  # seconds; a lag from which on the signal is an old one
_RATE = Quantity(
    "rate",
    "samples a second above 0 such as 8000, 8kHz or 12/min",
    {"": 1.0, "Hz": 1.0, "hz": 1.0, "/s": 1.0, "kHz": 1e3, "khz": 1e3, "/min": 1 / 60, "/m": 1 / 60, "/h": 1 / 3600},
)
_COOLDOWN = Quantity(
    "duration", "a duration such as 30s or 5m", {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}, zero=True
)
_RATE_ERROR = 1e-3  # that two rates may differ by
_HELP = f"""{DEVICE["stream"]}

    SOURCE is a file, a named pipe or a serial device, or - for standard input: a sample a line, as CSV (with or without
    names) or JSON (an object or an array), or raw numbers with --format. Every line is taken as soon
    as it is there. Lines that cannot be read are missing samples, and are counted.

    For each window one line of JSON is written: window (a count), start, end (seconds), score, p_value, alarm (it is
    on), raised (it begins here), verdict ("ok", "anomaly", "drift" or "bad input"), health (what is wrong with
    sensors), drift (1 or more is drift), causes (of alarms); with --adapt also likelihood. SIGTERM ends the command
    cleanly, with exit code 0.

    \b
    Examples:
      sensor | aeedge stream motor.aeedge --patience '3 of 5' --state motor.state
      arecord -t raw -f S16_LE -r 8000 -c 2 \\
        | aeedge stream hall.aeedge --format s16le --channels 2 --rate 8000
      aeedge stream motor.aeedge --mqtt mqtt://broker/motor \\
        --publish motor/alarms --only changes
    """


_INPUT = section(
    "Signal",
    click.option(
        "--format",
        metavar="FORMAT",
        show_default="csv or jsonl, as the first line is",
        help=f"csv, jsonl, or of raw numbers: {', '.join(RAW)}.",
    ),
    click.option(
        "--channels", type=Whole(1), show_default="as BUNDLE", help="How many raw numbers have; must be as BUNDLE's."
    ),
    click.option("--rate", type=_RATE, show_default="as BUNDLE", help="Samples a second, such as 8kHz; to be checked."),
    click.option(
        "--time", metavar="NAME", show_default="as BUNDLE", help="Column or key of the time, or its place (0, 1, …)."
    ),
    click.option(
        "--hop", type=Whole(1), show_default="as BUNDLE", help="Samples from the start of a window to the next one."
    ),
    click.option("--strict", is_flag=True, help="End at the first line that cannot be read."),
    table_options,
)
_ALARMS = section(
    "Alarms",
    click.option("--patience", metavar="N of M", default="1 of 1", help="Windows that an alarm takes, such as 3 of 5."),
    click.option("--cooldown", type=_COOLDOWN, default="0", help="After an alarm, none for so long, such as 5m."),
    click.option(
        "--hysteresis",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="An alarm ends when scores are this share below the threshold.",
    ),
    click.option(
        "--false-alarm-rate",
        type=float,
        metavar="RATE",
        show_default="BUNDLE's",
        help="Share of normal windows that may raise an alarm.",
    ),
    click.option(
        "--threshold", type=float, metavar="SCORE", show_default="BUNDLE's", help="Windows above it are anomalous."
    ),
    click.option("--adapt", is_flag=True, help="Judge by likelihood: how rare a window is among the last ones."),
    click.option("--top", type=Whole(0), default=3, help="How many causes of alarms to name."),
)
_OUTPUT = section(
    "Output",
    click.option(
        "--only",
        type=click.Choice(ONLY),
        show_default="all windows",
        help="Write windows in an alarm, or where something changes.",
    ),
    click.option(
        "--record",
        metavar="DIR",
        type=click.Path(),
        show_default="nothing is kept",
        help="Keep the samples around alarms.",
    ),
    click.option("--record-limit", type=Whole(1), default=100, help="How many alarms --record keeps."),
    click.option(
        "--state",
        metavar="FILE",
        type=click.Path(),
        show_default="a new stream each time",
        help="Go on where the stream was ended.",
    ),
    click.option(
        "--metrics-file",
        metavar="FILE",
        type=click.Path(),
        show_default="none",
        help="Prometheus text (.prom), every 5 s.",
    ),
)
_BROKER = section(
    "MQTT",
    click.option(
        "--mqtt",
        metavar="URL",
        show_default="SOURCE is read",
        help="Take messages: mqtt://HOST[:PORT]/TOPIC, or mqtts:// for TLS.",
    ),
    click.option(
        "--publish", metavar="TOPIC", show_default="standard output", help="With --mqtt: where to write windows to."
    ),
    click.option(
        "--client-id",
        metavar="NAME",
        show_default="made of BUNDLE and TOPIC",
        help="With --mqtt: as what the broker knows this stream.",
    ),
)


@click.command(help=_HELP, cls=Command)
@click.argument("bundle", type=click.Path())
@click.argument("source", default=STDIN, type=click.Path())
@_INPUT
@_ALARMS
@_OUTPUT
@_BROKER
@variant_option
@threads_option
@allow_ops_option
def stream(
    bundle: str,
    source: str,
    format: str | None,
    channels: int | None,
    rate: float | None,
    time: str | None,
    header: bool | None,
    delimiter: str | None,
    decimal: str | None,
    top: int,
    only: str | None,
    record: str | None,
    record_limit: int,
    state: str | None,
    metrics_file: str | None,
    mqtt: str | None,
    publish: str | None,
    client_id: str | None,
    strict: bool,
    variant: str,
    threads: int | str,
    allow_ops: tuple[str, ...],
    **options: Any,
) -> None:
    """Windows, scores and alarms of a live signal."""
    if mqtt is not None and source != STDIN:
        raise InputError(f"expected SOURCE or --mqtt, got both ({source}); leave one out")
    if mqtt is None and (publish or client_id):
        raise InputError(f"--{'publish' if publish else 'client-id'}: needs --mqtt, the address of a broker")
    address = None if mqtt is None else Address.parse(mqtt)
    if publish is None:
        check_stdout()
    if state is not None and metrics_file is not None and os.path.realpath(state) == os.path.realpath(metrics_file):
        raise InputError(f"--metrics-file: expected another file than that of --state, got {metrics_file} for both")
    for path in filter(None, (state, metrics_file)):
        check_file(path, overwrite=True, inputs=[bundle, source])
    with load(bundle, variant=variant, threads=threads, allow_ops=allow_ops) as model, Stopping() as stopping:
        spec = Layout(model).signal
        _check(spec, channels, rate)
        fields = Fields.of(spec, time, model.input.dialect, dialect_options(header, delimiter, decimal))
        name = f"topic {address.topic}" if address else "standard input" if source == STDIN else source
        parser = parser_of(format, fields, name)
        live = Stream(model, **options)
        live, taken = (live, {}) if state is None else restored(state, model, live)
        warn = Sparing(lambda text: say(f"Note: {reworded(text, stream)}", err=True))
        about = {"model": model.manifest.name, "bundle": model.manifest.id}
        recorder = None if record is None else Recorder(record, spec, live.hop, about, record_limit)
        gateway = Gateway(
            live, model, warn, top=top, only=only, recorder=recorder, strict=strict, tolerant=mqtt is not None
        )
        keeper = Keeper(gateway, state, metrics_file, warn)
        say(_about(model, spec, live), err=True)
        ended: int | None = None
        line = ProgressLine()
        try:
            if address is None:
                run(
                    read_pieces(source, _PAUSE, stopping.waiting),
                    parser,
                    gateway,
                    keeper,
                    _tell(gateway, stopping, line),
                )
            else:
                client = client_id or default_client_id(model.manifest.id, address.topic)
                broker = Broker(address, publish, client, taken, warn, stopping.waiting)
                run_broker(
                    broker, parser, gateway, keeper, _tell(gateway, stopping, line, broker.publish if publish else None)
                )
        except Stopped as reason:
            ended = reason.number
        finally:
            keeper.close(state=address is None)
            line.end()
            if gateway.samples or ended is not None:
                say(f"{printable(model.manifest.name)}: {_counts(gateway)}", err=True)
    if ended == signals.SIGINT:
        raise KeyboardInterrupt
    if ended not in (None, signals.SIGTERM):
        raise SystemExit(128 + ended)


def _check(spec: SignalSpec, channels: int | None, rate: float | None) -> None:
    """Refuse a stream that the bundle was not made for."""
    count = len(spec.channels)
    if channels not in (None, count):
        raise InputError(
            f"--channels: expected {count}, as the bundle has ({shortened(spec.channels)}), got {channels}"
        )
    if rate is not None and spec.rate is not None and abs(rate - spec.rate) > _RATE_ERROR * spec.rate:
        raise InputError(
            f"--rate: expected {spec.rate:g} Hz, as the bundle was trained with, got {rate:g} Hz; resample the signal"
        )


def _tell(
    gateway: Gateway, stopping: Stopping, line: ProgressLine, publish: Callable[[str], None] | None = None
) -> Callable[[list[dict[str, Any]]], None]:
    """Prints documents as lines, or publishes them, and says on a terminal how far it is."""
    shows_progress = sys.stderr.isatty() and (publish is not None or not sys.stdout.isatty())
    latest = 0.0

    def tell(documents: list[dict[str, Any]]) -> None:
        nonlocal latest
        lines = [json.dumps(document, allow_nan=False) for document in documents]
        if publish is not None:
            for text in lines:
                publish(text)
        elif lines:
            with stopping.writing():
                show("\n".join(lines).encode())
        if shows_progress and clock.monotonic() - latest > _PROGRESS_EVERY:
            latest = clock.monotonic()
            line.show([_counts(gateway)])

    return tell


def _about(model: Model, spec: SignalSpec, live: Stream) -> str:
    """What is streamed, in a sentence."""
    names = f"{len(spec.channels)} channel{'s' * (len(spec.channels) > 1)} ({shortened(spec.channels, 4)})"
    rate = "" if spec.rate is None else f" at {spec.rate:g} Hz" if spec.rate >= 1 else f" every {1 / spec.rate:.4g} s"
    seconds = "" if spec.rate is None else f" ({spec.window / spec.rate:.4g} s)"
    cut = f"a window of {spec.window:,} samples{seconds} every {live.hop:,}"
    text = f"{printable(model.manifest.name)}: {names}{rate}, {cut}"
    if live.threshold is None:
        return f"{text}; no alarms, for the bundle has no calibration (give a --threshold)"
    expected = live.expected_false_alarms_per_day
    alarms = "" if expected is None else f", at most about {_rounded(expected)} false alarms a day expected"
    above = "likelihood " if live.options["adapt"] else ""
    return f"{text}; alarm above {above}{live.threshold:.6g}{alarms}"


def _counts(gateway: Gateway) -> str:
    values = gateway.metrics.values
    count = {"sample": gateway.samples, "window": values["windows_total"], "alarm": values["alarms_total"]}
    parts = [f"{n:,.0f} {what}{'s' * (n != 1)}" for what, n in count.items()]
    parts += [f"{values['bad_windows_total']:,.0f} with bad input"]
    parts += [f"{values['unreadable_total']:,.0f} unreadable"] if values["unreadable_total"] else []
    lag = values["lag_seconds"]
    return ", ".join(parts) + ("" if lag is None or lag > _OLD else f"; lag {lag:.3g} s")


def _rounded(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.2g}"
