"""Find commands, import each only when it is called, and turn an AeedgeError into one sentence."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any

import click

from aeedge import __version__
from aeedge.cli.command import Context, on_workstation
from aeedge.cli.streams import UnusableError, ended_quietly, prepare
from aeedge.cli.wording import reworded, say, suggested, wrapped
from aeedge.errors import AeedgeError, BundleError, InputError

ENTRY_POINT_GROUP = "aeedge.commands"
DEVICE = {
    "info": "Show what a bundle contains.",
    "verify": "Check a bundle's files and that it reproduces its reference outputs.",
    "encode": "Compute the latents of a file of rows.",
    "decode": "Reconstruct rows from a file of latents.",
    "denoise": "Reconstruct a file of rows with encoder and decoder.",
    "score": "Compute the anomaly score of each row of a file.",
    "stream": "Score a live signal: lines of samples in, a line for each window out.",
    "recalibrate": "Calibrate a bundle again, for what is normal on this machine.",
    "doctor": "Report on this machine, its packages, and how a bundle runs here.",
    "tune": "Find the fastest way to run a bundle on this machine, and keep it.",
    "bench": "Measure latency and throughput of a bundle, or of many, on this machine.",
}
WORKSTATION = {  # listed here so that --help need not import the workstation
    "train": "Train an autoencoder on a file of rows.",
    "export": "Turn a trained run into a bundle.",
    "report": "Write a run as one HTML page.",
    "sample": "Write small data to try the commands with.",
    "search": "Find the networks that suit a device: small, fast, and as accurate as they can be.",
}
_MODULES = dict.fromkeys(("encode", "decode", "denoise"), "aeedge.cli.transform") | {
    "score": "aeedge.cli.score",
    "stream": "aeedge.cli.stream",
    "bench": "aeedge.cli.bench",
    "doctor": "aeedge.cli.doctor",
    "tune": "aeedge.cli.tune",
    "info": "aeedge.cli.info",
    "recalibrate": "aeedge.cli.recalibrate",
    "verify": "aeedge.cli.verify",
}


class AeedgeGroup(click.Group):
    """The top of the command line."""

    context_class = Context

    @classmethod
    def build(cls) -> AeedgeGroup:
        """The group, with its help text and --version."""
        group = cls(
            name="aeedge",
            help="Learned features on small machines: train and export on a workstation, encode on a device.",
            epilog="Exit codes: 0 done, 1 a check failed, 2 wrong usage or unusable input, 128 + n ended by signal n.",
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        version: click.Group = click.version_option(__version__, prog_name="aeedge")(group)
        assert isinstance(version, AeedgeGroup)
        return version

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, those of the device first."""
        return [*DEVICE, *(name for name in _installed() if name not in DEVICE)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        if name in DEVICE:
            found = getattr(import_module(_MODULES[name]), name)
        elif name in (installed := _installed()):
            found = _load(installed[name])
        else:
            return None
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none of that name, say which ones are like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx))
            if not near:
                raise
            said = f"{error.message.rstrip('.')}; did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(said, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands, device first, from the tables above: nothing is imported."""
        with formatter.section("On the device"):
            formatter.write_dl(list(DEVICE.items()))
        rest = [(name, WORKSTATION.get(name, "")) for name in _installed() if name not in DEVICE]
        if rest:
            with formatter.section("On the workstation (pip install 'aeedge[export]')"):
                formatter.write_dl(sorted(rest, key=lambda row: [*WORKSTATION, row[0]].index(row[0])))

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line, whatever standard output and error are."""
        prepare()
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line, which may print help."""
        with ended_quietly():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an AeedgeError or MemoryError becomes a sentence and an exit code, all else is a bug."""
        try:
            with _signals_as_exceptions(), ended_quietly(), _warnings_as_notes():
                return super().invoke(ctx)
        except click.BadParameter as error:
            if isinstance(error, click.MissingParameter) or (said := suggested(error.message)) == error.message:
                raise
            raise click.BadParameter(said, error.ctx, error.param, error.param_hint) from None
        except AeedgeError as error:
            unusable = isinstance(error, InputError) or type(error) is BundleError
            command = self.get_command(ctx, ctx.invoked_subcommand or "") or self
            message = wrapped(f"Error: {reworded(str(error), command)}", err=True).removeprefix("Error: ")
            raise (UnusableError if unusable else click.ClickException)(message) from error
        except MemoryError as error:
            raise UnusableError(str(error) or "there is too little memory; free some") from error


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show a warning as a sentence, without the line of code that it comes from."""
    before = warnings.showwarning

    def shown(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if category is UserWarning:
            say(f"Warning: {message}", err=True)
        else:
            before(message, category, *place, **more)

    warnings.showwarning = shown
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Let a signal to end (systemctl stop, docker stop, a closed terminal) end the command as an exception does, so
    that no temporary file stays; the exit code is 128 + the signal. A signal that is ignored or handled stays so.
    """
    handled: list[signal.Signals] = []
    caught: list[int] = []
    if threading.current_thread() is threading.main_thread():
        known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGBREAK"))
        handled = [each for each in known if each is not None and signal.getsignal(each) == signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for each in handled:
            signal.signal(each, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        raise SystemExit(128 + number)

    for each in handled:
        signal.signal(each, end)
    try:
        yield
    except BaseException:
        if caught:  # an import of a compiled module makes another exception of it
            raise SystemExit(128 + caught[0]) from None
        raise
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _load(entry: EntryPoint) -> Any:
    with on_workstation(entry.name):
        return entry.load()
