"""Recalibrates a bundle over a whole archive: a few rows fit its score, all others calibrate by a sketch of scores."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.archive.engines import make_engine
from aeedge.archive.job import Progress, check_apart, job_of, keep_unreadable, planned
from aeedge.archive.ledger import SCRATCH, Ledger
from aeedge.archive.packing import Packed, pack
from aeedge.archive.parts import Plan, UnreadableError
from aeedge.archive.score_task import LEAVE_OUT, FitRows, Scored, ScoreTask, scores_of
from aeedge.archive.storage import Place, files, is_url, place, remove
from aeedge.archive.task import Aside, Settings, Source
from aeedge.archive.work import Engine, Outcome
from aeedge.bundle.reader import Bundle
from aeedge.detection.calibration import ThresholdRule, kept_of, rank_of
from aeedge.errors import AeedgeError, BundleError, InputError, VerificationError
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.model import Model
from aeedge.recalibration import Recalibrated, inherited
from aeedge.recalibration.scoring import LEAST_FIT, check_score, fit_count, fitted_score, opened
from aeedge.recalibration.writing import remade, write_bundle, write_calibrated
from aeedge.runtime.missing import fill_missing

if TYPE_CHECKING:
    from aeedge.detection.scores import Scoring
    from aeedge.types import Block

_MOST_FIT, _FIT_BYTES = 20_000, 2**26  # rows that fit, about, and their bytes: they are in the driver's memory
_FIT_PARTS, _MOST_FIT_PARTS = 32, 512  # they come from so many parts; from more of them where parts are small
_FIT_FROM = 2**17  # the first rows of each; more where there are few parts
_RUN_SPANS = 8  # windows in a row, times those that share samples: the fewer runs, the fewer windows are not used
_MOST_FAILURES = 10  # parts, after which the others are not tried
_MOST_NOTES = 10


class CalibrationReport(NamedTuple):
    """What was done.

    Attributes:
        recalibrated: what became of the bundle; its `calibration_rows` are those of the archive.
        engine, workers: that did it.
        files, parts: how many.
        rows: of all files that can be read; windows, where recordings were cut.
        left_out: rows that were left out: with missing values, as the bundle says; with NaN where that was asked for;
            windows that share samples with those that fitted the score.
        set_aside: rows that could not be scored.
        bad_rows: the folder with these; "" for none.
        reasons: why, and how many rows, the most first.
        unreadable: files, or parts of them, that were set aside as a whole, and why.
        hosts: of the workers.
        seconds: that it took.
        are_windows: whether recordings were cut into windows.
    """

    recalibrated: Recalibrated
    engine: str
    workers: int
    files: int
    parts: int
    rows: int
    left_out: int
    set_aside: int
    bad_rows: str
    reasons: tuple[tuple[str, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    hosts: tuple[str, ...]
    seconds: float
    are_windows: bool


def calibrate_archive(
    bundle: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    false_alarm_rate: float | None = None,
    quantile: float | None = None,
    threshold: float | None = None,
    contamination: float = 0.0,
    keep_score: bool = False,
    column: str | None = None,
    invalid: str = "raise",
    engine: str | Engine = "local",
    workers: int | None = None,
    master: str | None = None,
    address: str | None = None,
    bad_rows: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, rows, what: None,
) -> CalibrationReport:
    """Write a bundle like another one, with scores and thresholds for what is normal in an archive of Parquet files.

    As `aeedge.recalibrate`, for more rows than memory holds. Up to about 20,000 rows from all over the archive fit the
    parameters of the score, and do not calibrate. The bundle with that score is sent to the workers, who count the
    scores of all other rows, of each variant, in sketches (`ScoreSketch`). The bundle keeps 4,096 order statistics of
    them, which are never too low and at most 2⁻¹³ (0.012 %) too high, and its thresholds may be of rates that are lower
    than these support, down to 1 / (rows + 1). The same archive and bundle give the same bytes,
    whatever the engine, on workers of one kind.

    Args:
        bundle: the old bundle's directory, on this machine; it is not changed.
        sources: Parquet files, folders and globs, as paths or URLs that all workers can reach; of a bundle of a signal
            recordings, a row for each sample, which are cut into windows.
        output: the new bundle's directory, on this machine.
        false_alarm_rate, quantile, threshold, contamination, keep_score: see `aeedge.recalibrate`.
        column: with the samples, see `aeedge.arrow.encode_batches`.
        invalid: "raise", or "propagate" to leave out rows with NaN or infinity.
        engine, workers, master, address: see `aeedge.archive.job.encode_archive`.
        bad_rows: a folder for rows that cannot be scored, and for the reasons; by default they are an error.
        overwrite: replace an existing bundle that holds no other files; the old bundle itself is never replaced.
        progress: called as parts are done.

    Returns:
        What was done, with all counts.

    Raises:
        InputError: sources that cannot be read, rows that cannot be scored, too few for the rate or to fit the score, a
            rule that is none, an engine that cannot run; `output` exists, is the old bundle, or cannot be written.
        BundleError: the old bundle cannot be read or run, or has no score.
        VerificationError: no variant computes here what it should, or the new bundle does not; nothing is written.
    """
    began = time.perf_counter()
    rule = ThresholdRule(false_alarm_rate, quantile, threshold, contamination).checked()
    if is_url(output):
        raise InputError("output: expected a folder on this machine, got a URL; write it here, and copy it there")
    check_folder(output, overwrite=overwrite, kinds=[BUNDLE], inputs=[bundle])
    chosen = make_engine(engine, workers=workers, master=master, address=address) if isinstance(engine, str) else engine
    aside, notes = None if bad_rows is None else place(bad_rows), list[str]()
    with closing(Bundle(bundle)) as source, tempfile.TemporaryDirectory(prefix="aeedge-") as scratch:
        fits = source.manifest.score.kind != "mse" and not keep_score
        check_score(source, fits)
        settings = Settings(("score",), (), column, "fp32", invalid)
        work = _prepared(source, sources, place(output), settings, aside, fits, notes, progress)
        before, what = source.manifest.calibration, work.what
        rule = inherited(rule, before, work.most)
        if rule.false_alarm_rate is not None:  # before all is scored
            rank_of(rule.false_alarm_rate, kept_of(work.most, rule.contamination), all_kept=False)
        if aside is not None:
            _claim(aside, job_of(pack(bundle).name, settings, what), place(output), overwrite)
            keep_unreadable(what, aside)
        identity, shipped = source.manifest.id, os.fspath(bundle)
        if work.scoring is not None:
            fitted, made = remade(source, work.scoring, None, notes)
            identity, shipped = fitted.id, os.path.join(scratch, "fitted.aeedge")
            write_bundle(shipped, made, work.variants, name=os.fspath(output))
        task = ScoreTask(identity, work.variants, settings, work.fit, aside, work.are_recordings)
        total, hosts = _scored(chosen, task, what, pack(shipped), progress)
        _check_counts(total, work)
        if aside is not None:
            remove(aside / SCRATCH)
        notes += _said(total, source.manifest.input.signal is not None)
        progress(what.rows, what.rows, "writing")
        manifest = write_calibrated(source, output, work.scoring, total.sketches, rule, notes, overwrite=overwrite)
    done = Recalibrated(manifest, before, work.fit_rows, total.calibrated, tuple(dict.fromkeys(notes)))
    unreadable = [(each.place.name, each.reason) for each in what.unreadable]
    return CalibrationReport(
        recalibrated=done,
        engine=chosen.name,
        workers=chosen.workers,
        files=len({part.place for part in what.parts}) + len(unreadable) + what.empty,
        parts=len(what.parts),
        rows=work.fit_rows + total.calibrated + total.left_out + total.rows["aside"],
        left_out=total.left_out,
        set_aside=total.rows["aside"],
        bad_rows="" if aside is None else aside.name,
        reasons=tuple(total.reasons.most_common()),
        unreadable=(*unreadable, *sorted(total.unreadable.items())),
        hosts=hosts,
        seconds=round(time.perf_counter() - began, 3),
        are_windows=work.are_recordings,
    )


class _Work(NamedTuple):
    """What there is to score, and the score.

    Attributes:
        what: the parts.
        are_recordings: whether files are recordings, of which windows are cut.
        variants: that are right on this machine, fp32 first.
        most: how many samples can calibrate at most: nobody has counted windows yet.
        fit: which rows fit the score.
        fit_rows: how many they are.
        scoring: the score; None for that of the bundle.
    """

    what: Plan
    are_recordings: bool
    variants: tuple[str, ...]
    most: int
    fit: FitRows = FitRows()
    fit_rows: int = 0
    scoring: Scoring | None = None


def _prepared(
    source: Bundle,
    sources: Sequence[str | os.PathLike[str]],
    output: Place,
    settings: Settings,
    aside: Place | None,
    fits: bool,
    notes: list[str],
    progress: Progress,
) -> _Work:
    """List the archive, and fit the score if that is to be.

    Raises:
        InputError, BundleError, VerificationError: as `calibrate_archive`.
    """
    progress(0, 0, "looking for files")
    found = files(sources, notes)
    check_apart(sources, output, aside)
    with ExitStack() as stack:
        models = _models(source, stack, notes)
        model = next(iter(models.values()))
        progress(0, 0, f"reading the footers of {len(found):,} files")
        what, are_recordings = planned(model, found, settings, aside, notes)
        samples = what.rows
        if are_recordings and (signal := model.input.signal) is not None:
            samples = sum(max(part.rows - signal.window, -1) // signal.hop + 1 for part in what.parts)
        work = _Work(what, are_recordings, tuple(models), samples)
        if not fits:
            return work
        fit = _chosen(what, samples, model, are_recordings)
        rows = _rows(what, fit, model, settings, aside, progress)
        progress(0, what.rows, f"fitting the score to {len(rows):,} rows")
        return work._replace(most=samples - len(rows), fit=fit, fit_rows=len(rows), scoring=fitted_score(model, rows))


def _claim(aside: Place, job: dict[str, Any], output: Place, overwrite: bool) -> None:
    """Take the folder for bad rows, if it has none of another archive.

    Raises:
        InputError: it has.
    """
    identity = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
    Ledger(aside, identity).begin(job | {"output": output.name}, resume=True, overwrite=overwrite)


def _models(source: Bundle, stack: ExitStack, notes: list[str]) -> dict[str, Model]:
    """The variants that are right on this machine, fp32 first; they are closed with the stack.

    Raises:
        VerificationError: none is.
    """
    models: dict[str, Model] = {}
    reasons: list[str] = []
    for variant in sorted(source.manifest.variants, key=lambda name: name != "fp32"):
        model = opened(source.path, variant, ())
        if isinstance(model, str):
            reasons.append(model)
            notes.append(f"{variant} does not reproduce its reference outputs on this machine: it has no threshold")
            continue
        models[variant] = stack.enter_context(model)
        if model.manifest.id != source.manifest.id:
            raise BundleError(f"{source.path}: was replaced while it was read; recalibrate the new one")
    if not models:
        raise VerificationError(reasons[0])
    return models


# --- rows that fit the score


def _chosen(what: Plan, samples: int, model: Model, is_cut: bool) -> FitRows:
    """As many rows as `recalibrate` takes, up to a limit: runs from all over the archive."""
    manifest, signal = model.manifest, model.input.signal
    latents = 0 if manifest.score.kind == "robust" else manifest.latent
    row_bytes = 4 * max(manifest.input.size, manifest.latent)
    wanted = max(min(fit_count(samples, latents), _MOST_FIT, _FIT_BYTES // row_bytes), 1)
    hop, span = (signal.hop, signal.span) if signal is not None and is_cut else (1, 1)
    count = _FIT_PARTS
    while True:
        at = np.unique(np.linspace(0, len(what.parts) - 1, count).astype(np.intp))
        until = _FIT_FROM * -(-_FIT_PARTS // len(at))
        there = sum(min(what.parts[i].rows // hop, until) for i in at)
        if there >= 3 * wanted or count >= min(len(what.parts), _MOST_FIT_PARTS):
            break
        count *= 2
    run = 1 if span == 1 else _RUN_SPANS * span
    period = max(run * there // wanted, 3 * run)
    return FitRows(frozenset(what.parts[i].number for i in at), until, period, run, span - 1)


def _rows(what: Plan, fit: FitRows, model: Model, settings: Settings, aside: Place | None, progress: Progress) -> Block:
    """The rows that fit the score, without those that have none.

    Raises:
        InputError: a row that cannot be scored and is not to be set aside; too few of them.
    """
    import pyarrow as pa

    blocks: list[Block] = []
    for i, part in enumerate(part for part in what.parts if part.number in fit.parts):
        progress(0, what.rows, f"reading rows that fit the score: file {i + 1} of {len(fit.parts)}")
        sound = Aside(part, aside, LEAVE_OUT)
        try:
            source, first = Source(part, model, settings, missing=aside is not None), 0
            for batch in source.batches:
                numbers = np.arange(first, first + batch.num_rows)
                at = np.flatnonzero(fit.among(part, numbers)[0])
                if len(at):
                    _, batch, result = sound.sound(batch.take(pa.array(at)), source.encoder, numbers[at])
                    at = np.flatnonzero(scores_of(result, source.encoder)[1])
                    blocks.append(source.encoder.samples(batch.take(pa.array(at))))
                first += len(numbers)
                if first >= fit.until:
                    break
        except UnreadableError:
            if aside is None:
                raise
    found = sum(map(len, blocks))
    if found < LEAST_FIT:
        raise InputError(
            f"normal_rows: expected {LEAST_FIT} or more that fit the score, a quarter of all, got {found:,}; "
            "pass more, or keep_score=True, so that all calibrate"
        )
    rows = np.concatenate(blocks)
    return rows if model.input.missing is None else fill_missing(rows, model.input)[0]


# --- the others


def _scored(
    engine: Engine, task: ScoreTask, what: Plan, packed: Packed, progress: Progress
) -> tuple[Scored, tuple[str, ...]]:
    """What an engine finds in all parts, and the hosts of the workers. The order of parts makes no difference.

    Raises:
        InputError: parts failed.
    """
    done: dict[int, Outcome] = {}
    failures: list[Outcome] = []
    label = f"{engine.name}, {engine.workers} {'worker' if engine.workers == 1 else 'workers'}"
    total, rows = Scored.nothing(task.variants), 0
    progress(0, what.rows, label)
    with closing(engine.run(task, what.parts, packed)) as outcomes:
        for outcome in outcomes:
            if outcome.error:
                failures.append(outcome)
                if len(failures) >= _MOST_FAILURES or outcome.is_unverified:
                    break
            elif outcome.number not in done:
                total += outcome.payload
                done[outcome.number] = outcome._replace(payload=None)
                rows += outcome.rows
                progress(rows, what.rows, label)
    if failures:
        first = failures[-1] if failures[-1].is_unverified else min(failures, key=lambda outcome: outcome.number)
        others = len({outcome.error for outcome in failures}) - 1
        kind = VerificationError if first.is_unverified else InputError
        raise kind(first.error + (f" ({others} more parts failed)" if others else ""))
    lost = next((part for part in what.parts if part.number not in done), None)
    if lost is not None:
        raise AeedgeError(f"{lost.name}: the engine gave no outcome for it; run again")
    if not total.sketches:
        raise VerificationError(next(iter(total.wrong.values())))
    return total, tuple(sorted({outcome.host for outcome in done.values()}))


def _check_counts(total: Scored, work: _Work) -> None:
    """Every row is accounted for.

    Raises:
        AeedgeError: it is not.
    """
    fitted, aside, expected = total.rows["fit"], total.rows["aside"], work.what.rows
    rows = fitted + total.calibrated + total.left_out + aside
    is_even = len({sketch.count for sketch in total.sketches.values()}) == 1
    if not is_even or fitted != work.fit_rows or (not work.are_recordings and rows != expected):
        raise AeedgeError(
            f"{expected:,} rows were to be used; {fitted:,} of them (before {work.fit_rows:,}) fitted the score, "
            f"{total.calibrated:,} calibrated, {total.left_out:,} were left out and {aside:,} set aside; somebody "
            "changed the archive: run again"
        )


def _said(total: Scored, of_signal: bool) -> Iterator[str]:
    """What there is to say of the rows."""
    for variant, where in sorted(total.wrong.items()):
        yield f"{variant} has no threshold: {where}"
    if total.rows["missing"]:
        yield f"{total.rows['missing']:,} rows with missing values, NaN or infinity were left out"
    if total.rows["near"]:
        yield f"{total.rows['near']:,} windows were left out, for they share samples with those that fitted the score"
    if of_signal:
        yield "the new bundle finds no drift, for archives have no order in time; recalibrate with a recording for that"
    yield from sorted(total.notes)[:_MOST_NOTES]
    if len(total.notes) > _MOST_NOTES:
        yield f"{len(total.notes) - _MOST_NOTES:,} more notes of this kind on files"
