"""Archives on the command line: which engine runs, how far it is, and what is said of the result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from aeedge.archive.engines import ENGINES
from aeedge.archive.storage import OTHER_SUFFIXES, is_glob, is_url
from aeedge.cli.command import section
from aeedge.cli.streams import show, show_json
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable, shortened
from aeedge.files.source import STDIN
from aeedge.files.writing import FORMATS, STDOUT
from aeedge.system.progress import ProgressLine, time_left
from aeedge.table import human_duration, pairs

if TYPE_CHECKING:
    from aeedge.archive.calibration import CalibrationReport
    from aeedge.archive.job import Report

SCHEMA = "aeedge-archive/1"
ARCHIVES = """Archives. With --engine, an OUT that ends with /, a URL or a quoted pattern, IN is an archive: Parquet
    files, folders and patterns of them, here or on S3, GCS, HDFS and whatever fsspec opens. It is done in parts, of a
    million rows or of a file that has fewer; each is a file in OUT/, in the order of the archive, that appears when it
    is whole. After any end, the same command with --resume does the parts that are left. Rows that have no result
    (missing values, NaN, damaged files) are an error, or go to --bad-rows with the reason; rows in = rows out + rows
    set aside is checked."""
EXAMPLE = (
    "aeedge {name} motor.aeedge 's3://plant/2025/*.parquet' \\\n"
    "        -o s3://plant/{name}d/ --keep time --engine spark \\\n"
    "        --bad-rows s3://plant/bad/"
)
_LINE = 80
_EVERY = 10.0  # seconds between lines about the progress that no terminal shows
_MOST = 5  # reasons, and files, that are named


engine_options = section(
    "Archives",
    click.option("--engine", type=click.Choice(ENGINES), show_default="local", help="What runs the work."),
    click.option("--workers", type=int, show_default="its CPUs", help="Parts done beside each other on this machine."),
    click.option(
        "--master",
        metavar="URL",
        show_default="as configured",
        help="Spark's cluster, such as yarn or spark://host:7077.",
    ),
    click.option(
        "--address",
        metavar="ADDR",
        show_default="RAY_ADDRESS, or a cluster here",
        help="Ray's cluster, such as host:6379 or auto.",
    ),
    click.option(
        "--bad-rows",
        metavar="DIR",
        show_default="they are an error",
        help="Folder for rows without a result, and why.",
    ),
)
column_option = section(
    "Archives",
    click.option(
        "--column", metavar="NAME", show_default="found out", help="Of lists or tensors, that holds the samples."
    ),
)
archive_options = section(
    "Archives",
    engine_options,
    click.option("--resume", is_flag=True, help="Go on with a run that ended early, part by part."),
    column_option,
    click.option(
        "--json", "as_json", is_flag=True, help="Print what was done as JSON (docs/reference/json-outputs.md)."
    ),
)


class Wish(NamedTuple):
    """The options of an archive, as they were given."""

    engine: str | None = None
    workers: int | None = None
    master: str | None = None
    address: str | None = None
    bad_rows: str | None = None
    resume: bool = False
    column: str | None = None
    as_json: bool = False

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Wish:
        """From the options of a command, which keeps the others."""
        return cls(**{name: options.pop(name) for name in cls._fields if name in options})

    def is_archive(self, sources: Sequence[str], output: str | None, format: str | None = None) -> bool:
        """Whether an archive is meant; otherwise files are, of which the result may be in a `format`.

        Raises:
            InputError: something of both is.
        """
        why = self._why(sources, output)
        if why is None:
            self._check_files(sources, output)
            if format is None and not (
                _is_file(output) or os.path.splitext(str(output))[1] or os.path.exists(str(output))
            ):
                raise InputError(
                    f"{output}: expected a name that ends in one of {', '.join(FORMATS)}, or in /, {output}/, for the "
                    "results of an archive of Parquet"
                )
            return False
        if output is None or output == STDOUT:
            raise InputError(f"{why}: the results of an archive are a folder; give one, such as -o results/")
        if _is_file(output):
            raise InputError(
                f"{output}: is the name of a file, but the results of an archive ({why}) are a folder of Parquet; give "
                "one, such as -o results/"
            )
        _check_parquet(sources, why, "leave --engine out, and give OUT the name of a file")
        return True

    def reads_archive(self, sources: Sequence[str]) -> bool:
        """Whether sources are an archive, for a command whose result is no folder of files.

        Raises:
            InputError: something is of an archive, and something of files.
        """
        pattern = next((source for source in sources if is_url(source) or is_glob(source)), None)
        if self.engine is not None or pattern is not None:
            why = "--engine" if self.engine is not None else str(pattern)
            _check_parquet(sources, why, "leave --engine and patterns out")
            return True
        for name, value in self._asdict().items():
            if value not in (None, False):
                raise InputError(f"{_flag(name)}: is for archives; give --engine local, too, or leave it out")
        return False

    def where(self) -> dict[str, Any]:
        """Where to work: engine, workers, master, address, bad_rows."""
        names = ("engine", "workers", "master", "address", "bad_rows")
        return {name: getattr(self, name) for name in names} | {"engine": self.engine or "local"}

    def _why(self, sources: Sequence[str], output: str | None) -> str | None:
        """Why an archive is meant."""
        if self.engine is not None:
            return "--engine"
        if output is not None and (output.endswith(("/", os.sep)) or is_url(output)):
            return f"-o {output}"
        for source in sources:
            if is_url(source) or (is_glob(source) and not _is_file(output)):
                return f"IN {source}"
        return None

    def _check_files(self, sources: Sequence[str], output: str | None) -> None:
        """Refuse options and an OUT that only an archive has."""
        folder = "results/" if _is_file(output) else f"{output}/"
        for name, value in self._asdict().items():
            if value not in (None, False):
                raise InputError(f"{_flag(name)}: is for archives; leave it out, or give a folder, such as -o {folder}")
        pattern = next((source for source in sources if is_glob(source)), None)
        if pattern is not None:
            raise InputError(
                f"{pattern}: no such file; a pattern stands for an archive, with a folder such as -o {folder}"
            )
        if output is not None and output != STDOUT and os.path.isdir(output):
            raise InputError(
                f"{output}: is a folder, expected the name of a file; name one inside it, or give {output}/ for the "
                "results of an archive of Parquet"
            )


def _is_file(output: str | None) -> bool:
    """Whether an OUT stands for a table on the terminal, standard output, or a file by its suffix."""
    return output in (None, STDOUT) or os.path.splitext(output or "")[1].lower() in FORMATS


def _check_parquet(sources: Sequence[str], why: str, instead: str) -> None:
    """Refuse files of other kinds, and standard input, in an archive; `instead`: what to do for these.

    Raises:
        InputError: there is one.
    """
    for source in sources:
        suffix = os.path.splitext(source)[1].lower()
        if source == STDIN or suffix in OTHER_SUFFIXES:
            name = "standard input" if source == STDIN else source
            raise InputError(f"{name}: archives ({why}) are Parquet; to read files of other kinds {instead}")


def refuse(options: Mapping[str, Any], threads: int | str = "auto") -> None:
    """Refuse options that only files have.

    Raises:
        InputError: one was given.
    """
    for name, value in options.items():
        if value not in (None, False, (), 0):
            raise InputError(f"{_flag(name)}: is for files, not for archives; leave it out")
    if threads not in ("auto", 1):
        raise InputError(f"--threads: a worker of an archive has one thread, got {threads}; give --workers {threads}")


def run(
    name: str,
    bundle: str,
    sources: Sequence[str],
    output: str,
    wish: Wish,
    *,
    more: Callable[[Report], Sequence[tuple[str, str]]] = lambda report: (),
    **settings: Any,
) -> None:
    """Encode or score an archive, and say what was done.

    Args:
        name: of the command.
        bundle, sources, output, wish: as given.
        more: further lines about the result.
        settings: of `aeedge.archive.job.encode_archive`.
    """
    from aeedge.archive.job import encode_archive

    where = wish._asdict() | {"engine": wish.engine or "local"}
    as_json = where.pop("as_json")
    with progress_line(name) as line:
        report = encode_archive(bundle, sources, output, progress=line, **where, **settings)
    if report.fell_back:
        say(
            f"Warning: {report.variant} is not right on {shortened(report.fell_back)}, where another variant ran: "
            "its results differ in rounding",
            err=True,
        )
    if as_json:
        show_json(document(name, report, has_alarms="alarm" in settings.get("outputs", ())))
        return
    for note in report.notes:
        say(f"Note: {note}", err=True)
    show(pairs([*told(report), *more(report)], _LINE))


def told(report: Report) -> Iterator[tuple[str, str]]:
    """What was done, in words."""
    what, seconds = "windows" if report.are_windows else "rows", max(report.seconds, 1e-9)
    read = "samples" if report.are_windows else "rows"
    yield "read", f"{many(report.files, 'file')} in {many(report.parts, 'part')}: {many(report.rows, read[:-1])}"
    if report.resumed:
        yield "", f"{many(report.resumed, 'part')} of them ({many(report.resumed_rows, read[:-1])}) were done before"
    yield "columns", shortened(report.columns)
    yield "written", f"{many(report.written, what[:-1])} to {report.output}"
    yield from set_aside(report, what)
    if not report.are_windows:
        aside = f" + {report.set_aside:,} set aside" if report.set_aside else ""
        yield "check", f"{report.rows:,} rows in = {report.written:,} rows out{aside}"
    ran = ", ".join(f"{variant} in {many(count, 'part')}" for variant, count in sorted(report.variants.items()))
    by = f"by {report.engine}, {many(report.workers, 'worker')}" if report.workers else "by an earlier run"
    yield "ran", f"{ran} {by} on {shortened(report.hosts, 4)}"
    fresh = report.rows - report.resumed_rows
    rate = f"{fresh / seconds:,.0f} {read}/s" if fresh else "all was done before"
    yield "took", f"{human_duration(report.seconds)}, {rate}"


def set_aside(report: Report | CalibrationReport, what: str) -> Iterator[tuple[str, str]]:
    """Rows and files that have no result, why, and where they are; `what`: rows or windows."""
    if report.set_aside:
        reasons = [f"{count:,} × {printable(reason, 200)}" for reason, count in report.reasons[:_MOST]]
        lost = report.set_aside - sum(count for _, count in report.reasons)
        reasons += [f"{lost:,} in parts that cannot be read, or for other reasons"] if lost else []
        yield "set aside", f"{many(report.set_aside, what[:-1])} to {report.bad_rows}: {'; '.join(reasons)}"
    if report.unreadable:
        named = [f"{name} ({printable(reason, 120)})" for name, reason in report.unreadable[:_MOST]]
        count = len(report.unreadable)
        rest = f", and {count - _MOST:,} more" if count > _MOST else ""
        yield "unreadable", f"{count:,}, named in {report.bad_rows}: {', '.join(named)}{rest}"


def document(name: str, report: Report, *, has_alarms: bool) -> dict[str, Any]:
    """What was done, for programs."""
    return {
        "schema": SCHEMA,
        "command": name,
        **report._asdict(),
        "bad_rows": report.bad_rows or None,
        "alarms": report.alarms if has_alarms else None,
        "reasons": [{"reason": reason, "rows": rows} for reason, rows in report.reasons],
        "unreadable": [{"name": name, "reason": reason} for name, reason in report.unreadable],
    }


class ArchiveProgress(ProgressLine):
    """How far an archive is: rows, their rate, and the time left.

    Attributes:
        done, rows: rows that are done, of how many; 0 before that is known.
    """

    def __init__(self, name: str) -> None:
        super().__init__(every=_EVERY)
        self._name = name
        self._began, self._first = time.monotonic(), 0
        self.done = self.rows = 0

    def __call__(self, done: int, rows: int, what: str) -> None:
        """Show it; see `aeedge.archive.job.Progress`."""
        now = time.monotonic()
        if rows and not self.rows:
            self._began, self._first = now, done
        self.done, self.rows = done, rows
        if not rows:
            self.show([f"{self._name}: {what} …"])
            return
        parts = [f"{self._name} {100 * done // rows} %: {_short(done)} of {_short(rows)} rows"]
        fresh, seconds = done - self._first, now - self._began
        rate = fresh / seconds if fresh and seconds > 0 else 0.0
        parts += [f"{_short(rate)}/s", what, time_left((rows - done) / rate)] if rate else [what]
        self.show(parts, done / rows)


@contextmanager
def progress_line(name: str, *, resumes: bool = True) -> Iterator[ArchiveProgress]:
    """An `ArchiveProgress`; where a signal ends a command that can go on later, how far it came is said."""
    line = ArchiveProgress(name)
    try:
        with redirect_stdout(sys.stderr):  # Ray tells on standard output that a worker ended
            yield line
    except (KeyboardInterrupt, SystemExit):
        line.end()
        if line.rows and resumes:
            share = f"{line.done:,} of {line.rows:,} rows"
            say(f"Ended when {share} were done and kept; the same command with --resume goes on.", err=True)
        raise
    except BaseException:
        line.end()
        raise
    line.end()


def _flag(name: str) -> str:
    return "--json" if name == "as_json" else f"--{name.replace('_', '-')}"


def many(count: int, what: str) -> str:
    """A number of things."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _short(count: float) -> str:
    """With three digits: "1.23 M"."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= max(factor, 1e4):
            scaled = count / factor
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"
    return f"{count:,.0f}"
