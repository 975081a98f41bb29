"""Encodes or scores an archive: plans the work, lets an engine do it, and sees that every row is accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aeedge.archive.engines import make_engine
from aeedge.archive.ledger import SCRATCH, UNREADABLE, Ledger
from aeedge.archive.packing import pack
from aeedge.archive.parts import Plan, plan
from aeedge.archive.recordings import is_recording, window_schema
from aeedge.archive.storage import File, Place, covers, files, place, remove, write
from aeedge.archive.task import EncodeTask, Settings
from aeedge.archive.work import Engine, Outcome
from aeedge.errors import AeedgeError, InputError, VerificationError, shortened
from aeedge.loading import load
from aeedge.model import Model

_MOST_FAILURES = 10  # parts, after which the others are not tried
_MOST_REASONS = 20


class Report(NamedTuple):
    """What was done.

    Attributes:
        output: the folder with the results.
        bad_rows: the folder with what was set aside; "" for none.
        engine, workers: what did it, and how many parts beside each other; 0 where nothing was left to do.
        files, parts: how many.
        rows: of all files that can be read; of recordings samples.
        columns: of the files: those that the samples were taken from.
        written: rows of the result; windows, where recordings were cut.
        alarms: of them; 0 where none were asked for.
        set_aside: rows that could not be computed, in the folder that was given for them.
        reasons: why, and how many rows, the most first.
        unreadable: files, or parts of them, that were set aside as a whole, and why.
        resumed, resumed_rows: parts that were done before, and their rows.
        variant, variants: what was to run, and how many parts each variant did.
        hosts: of the workers.
        fell_back: hosts on which another variant ran, for this one is not right there.
        seconds: of this run.
        are_windows: whether recordings were cut into windows.
        notes: what was guessed and left out.
    """

    output: str
    bad_rows: str
    engine: str
    workers: int
    parts: int
    rows: int
    written: int
    alarms: int
    set_aside: int
    reasons: tuple[tuple[str, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    variants: dict[str, int]
    hosts: tuple[str, ...]
    notes: tuple[str, ...]
    files: int = 0
    columns: tuple[str, ...] = ()
    resumed: int = 0
    resumed_rows: int = 0
    variant: str = ""
    fell_back: tuple[str, ...] = ()
    seconds: float = 0.0
    are_windows: bool = False


Progress = Callable[[int, int, str], object]
"""Called with the rows that are done, of how many, and what is being done."""


def encode_archive(
    bundle: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    outputs: Sequence[str] = ("latent",),
    keep: Sequence[str] = (),
    column: str | None = None,
    variant: str = "auto",
    invalid: str = "raise",
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
    allow_ops: Sequence[str] = (),
    engine: str | Engine = "local",
    workers: int | None = None,
    master: str | None = None,
    address: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    bad_rows: str | os.PathLike[str] | None = None,
    progress: Progress = lambda done, rows, what: None,
) -> Report:
    """Encode an archive of Parquet files: a result file for each part, of a million rows or a file that has fewer.

    Each part is committed at once, whoever is killed when: what is in the output folder at the end is complete and has
    nothing twice. Rows are counted: as many as the archive has are written or set aside, or there is an error.

    Args:
        bundle: the bundle's directory, on this machine; it is sent to the workers, each of which verifies it.
        sources: Parquet files, folders and globs, as paths or URLs that all workers can reach.
        output: a new folder, as path or URL; of an archive on another machine a URL.
        outputs, keep, column, variant, invalid, false_alarm_rate, threshold: see `aeedge.arrow.encode_batches`.
        allow_ops: see `aeedge.load`.
        engine: "local", "spark", "ray", or an `Engine`.
        workers, master, address: see `aeedge.archive.engines.make_engine`.
        resume: go on with a run that ended before it was done.
        overwrite: remove the results of another run first; nothing else is ever removed.
        bad_rows: a folder for rows that cannot be computed (missing values, NaN, files that are damaged), with the
            reasons; by default they are an error.
        progress: called as parts are done.

    Returns:
        What was done, with all counts.

    Raises:
        InputError: sources that cannot be read or differ in their columns, an output folder that holds something else,
            rows that cannot be computed, an engine that cannot run; the message says how many parts are done.
        BundleError: the bundle cannot be read, or lacks what an output needs.
        VerificationError: it does not compute here what it should.
    """
    if resume and overwrite:
        raise InputError("expected resume=True or overwrite=True, got both; the second one begins anew")
    began = time.perf_counter()
    chosen = make_engine(engine, workers=workers, master=master, address=address) if isinstance(engine, str) else engine
    packed, notes = pack(bundle), list[str]()
    target, aside = place(output), None if bad_rows is None else place(bad_rows)
    with load(bundle, variant=variant, threads=1, allow_ops=allow_ops) as model:
        own = model.manifest.default_variant if variant == "auto" else variant
        settings = Settings(
            tuple(outputs),
            tuple(dict.fromkeys(keep)),
            column,
            own,
            invalid,
            false_alarm_rate,
            threshold,
            tuple(allow_ops),
        )
        settings.encoder(model)  # refuses what the bundle cannot give, before an archive is listed
        progress(0, 0, "looking for files")
        found = files(sources, notes)
        check_apart(sources, target, aside)
        progress(0, 0, f"reading the footers of {len(found):,} files")
        what, are_recordings = planned(model, found, settings, aside, notes)
        job = job_of(packed.name, settings, what)
        identity = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        bundle_id = model.manifest.id
        taken = _taken(model, settings, what.columns, are_recordings)
    told = {"bundle_id": bundle_id, "bad_rows": None if aside is None else aside.name}
    ledger, of_bad = Ledger(target, identity), None if aside is None else Ledger(aside, identity)
    if of_bad is not None:
        of_bad.look(job, resume=resume, overwrite=overwrite)  # before the other folder is cleared
    ledger.begin({**job, **told}, resume=resume, overwrite=overwrite)
    if of_bad is not None:
        of_bad.begin(job, resume=resume, overwrite=overwrite)
    done = ledger.finished(what.parts, aside)
    before = [outcome.rows for outcome in done.values()]
    keep_unreadable(what, aside)
    if len(done) < len(what.parts):
        ledger.reopen()
        task = EncodeTask(identity, bundle_id, settings, target, aside, are_recordings)
        notes += _run(chosen, task, what, packed, done, progress)
    ledger.check(done)
    report = _report(target, aside, chosen, what, done, len(before), notes)._replace(
        files=len(found),
        columns=taken,
        resumed_rows=sum(before),
        variant=own,
        fell_back=tuple(sorted({each.host for each in done.values() if each.variant not in ("", own)})),
        seconds=round(time.perf_counter() - began, 3),
        are_windows=are_recordings,
    )
    _check_rows(report)
    ledger.complete(report._asdict())
    if of_bad is not None:
        remove(of_bad.scratch)
    return report


def check_apart(sources: Sequence[str | os.PathLike[str]], target: Place, aside: Place | None) -> None:
    """See that nothing that is written can be taken for a source, or for another thing that is written.

    Raises:
        InputError: it can.
    """
    for name, folder in (("output", target), ("bad_rows", aside)):
        for source in sources:
            if folder is not None and covers(source, folder):
                raise InputError(f"{name}: {folder.name} is in the source {os.fspath(source)}; give another folder")
    if aside is not None and f"{aside.path}/".startswith(f"{target.path}/") and aside.name.startswith(target.name):
        raise InputError(f"bad_rows: {aside.name} is in the folder of the results; give another folder")


def planned(
    model: Model, found: Sequence[File], settings: Settings, aside: Place | None, notes: list[str]
) -> tuple[Plan, bool]:
    """The parts, and whether they are recordings.

    Raises:
        InputError: files whose columns do not fit, or that cannot be read and are not to be set aside.
    """
    encoder = settings.encoder(model)
    results, cut, taken = list[Any](), list[bool](), list[list[str]]()

    def check(schema: Any) -> None:
        cut.append(is_recording(model, schema, settings.column))
        if cut[0] != cut[-1]:
            raise InputError("expected recordings alone or rows alone, got both; encode them apart")
        result = window_schema(model, schema, settings.keep) if cut[0] else encoder.schema(schema)
        if results and not result.equals(results[0]):
            raise InputError(
                f"its result would have other columns than that of the first file: {_unlike(results[0], result)}"
            )
        results.append(result)
        if not cut[0]:
            taken.append([name for name in encoder.columns(schema) if name not in settings.keep])
            if encoder.notes and taken[0] != taken[-1]:  # a guess, which is to be the same for all
                raise InputError(
                    f"samples would be taken from {shortened(taken[-1])}, not from {shortened(taken[0])}; rename "
                    "columns, or name one of lists with column="
                )

    is_whole = model.input.signal is not None and settings.column is None
    what = plan(found, check, whole=is_whole)
    notes += encoder.notes
    if what.unreadable and aside is None:
        first, count = what.unreadable[0], len(what.unreadable)
        many = f" (and {count - 1:,} more)" if count > 1 else ""
        raise InputError(
            f"{first.place.name}{many}: expected a Parquet file, but it cannot be read: {first.reason}; restore it, "
            "leave it out, or give bad_rows to set such files aside"
        )
    if not what.parts:
        raise InputError(f"{found[0].name}: expected at least one row, got none in {len(found):,} files")
    if what.empty:
        notes.append(f"{what.empty:,} of {len(found):,} files have no rows")
    return what, bool(cut and cut[0])


def _taken(model: Model, settings: Settings, columns: Any, are_recordings: bool) -> tuple[str, ...]:
    """The columns that samples are taken from."""
    if are_recordings and model.input.signal is not None:
        return tuple(name for name in columns.names if name in model.input.signal.channels)
    features, names = model.input.features or (), settings.encoder(model).columns(columns)
    return tuple(name for name in names if name in features or name not in settings.keep)


def _unlike(one: Any, other: Any) -> str:
    """The first field in which two schemas differ."""
    for name in dict.fromkeys([*one.names, *other.names]):
        kinds = [str(schema.field(name).type) if name in schema.names else "none" for schema in (one, other)]
        if kinds[0] != kinds[1]:
            return f"{name!r} is {kinds[1]}, not {kinds[0]}"
    return "in another order"


def job_of(bundle: str, settings: Settings, what: Plan) -> dict[str, Any]:
    """What makes the result what it is, as JSON."""
    listed = "\n".join(f"{part.place.name} {part.groups} {part.first_row} {part.rows}" for part in what.parts)
    chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in settings._asdict().items()}
    return {
        "bundle": bundle,
        "settings": chosen,
        "sources": hashlib.sha256(listed.encode()).hexdigest(),
        "parts": len(what.parts),
        "rows": what.rows,
    }


def keep_unreadable(what: Plan, aside: Place | None) -> None:
    """Write down which files were set aside as a whole."""
    if aside is not None and what.unreadable:
        lines = [json.dumps({"file": each.place.name, "reason": each.reason}) for each in what.unreadable]
        write(aside / UNREADABLE, ("\n".join(lines) + "\n").encode(), aside / SCRATCH)


def _run(
    engine: Engine, task: EncodeTask, what: Plan, packed: Any, done: dict[int, Outcome], progress: Progress
) -> list[str]:
    """Let the engine do what is not done; outcomes are added to `done`. Gives the notes of the parts.

    Raises:
        InputError: parts failed; some of them, and how many are done.
    """
    rest, notes = [part for part in what.parts if part.number not in done], list[str]()
    count = sum(outcome.rows for outcome in done.values())
    failures: list[Outcome] = []
    progress(0, 0, f"starting {engine.name}")
    label = f"{engine.name}, {engine.workers} {'worker' if engine.workers == 1 else 'workers'}"
    progress(count, what.rows, label)
    outcomes = engine.run(task, rest, packed)
    try:
        for outcome in outcomes:
            if outcome.error:
                failures.append(outcome)
                if len(failures) >= _MOST_FAILURES or outcome.is_unverified:
                    break
                continue
            done[outcome.number] = outcome
            notes += outcome.payload or ()
            count += outcome.rows
            progress(count, what.rows, label)
    finally:
        outcomes.close()
    if failures:
        distinct = dict.fromkeys(outcome.error for outcome in failures)
        first = next((outcome.error for outcome in failures if outcome.is_unverified), failures[0].error)
        count = len(distinct) - 1
        others = f" ({count} more part{'s' * (count > 1)} failed)" if count else ""
        kind = VerificationError if failures[-1].is_unverified else InputError
        raise kind(
            f"{first}{others}; {len(done):,} of {len(what.parts):,} parts are done: mend it, then resume=True goes on"
        )
    missing = [part for part in rest if part.number not in done]
    if missing:
        raise AeedgeError(f"{missing[0].name}: the engine gave no outcome for it; resume=True goes on")
    return notes


def _report(
    target: Place,
    aside: Place | None,
    engine: Engine,
    what: Plan,
    done: dict[int, Outcome],
    resumed: int,
    notes: list[str],
) -> Report:
    """What the outcomes of all parts say."""
    outcomes = [done[number] for number in sorted(done)]
    reasons, unreadable = Counter[str](), [(each.place.name, each.reason) for each in what.unreadable]
    for outcome in outcomes:
        reasons.update(outcome.reasons or {})
        if outcome.unreadable:
            unreadable.append((what.parts[outcome.number].name, outcome.unreadable))
    return Report(
        output=target.name,
        bad_rows="" if aside is None else aside.name,
        engine=engine.name,
        workers=engine.workers if len(done) > resumed else 0,  # asking starts a cluster
        parts=len(what.parts),
        resumed=resumed,
        rows=what.rows,
        written=sum(outcome.written for outcome in outcomes),
        alarms=sum(outcome.alarms for outcome in outcomes),
        set_aside=sum(outcome.set_aside for outcome in outcomes),
        reasons=tuple(sorted(reasons.items(), key=lambda each: (-each[1], each[0]))[:_MOST_REASONS]),
        unreadable=tuple(unreadable),
        variants=dict(Counter(outcome.variant for outcome in outcomes if outcome.variant)),
        hosts=tuple(sorted({outcome.host for outcome in outcomes})),
        notes=tuple(dict.fromkeys(notes)),
    )


def _check_rows(report: Report) -> None:
    """Every row is accounted for.

    Raises:
        AeedgeError: it is not.
    """
    if not report.are_windows and report.written + report.set_aside != report.rows:
        raise AeedgeError(
            f"{report.output}: {report.rows:,} rows were to be done, {report.written:,} were written and "
            f"{report.set_aside:,} set aside; somebody changed the archive or the output: encode it again"
        )
