"""Scores one part of an archive for a calibration: nothing is written, what comes back is a sketch of the scores."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.archive.engines import Outcome
from aeedge.archive.parts import Part, UnreadableError
from aeedge.archive.sketch import ScoreSketch
from aeedge.archive.storage import Place
from aeedge.archive.task import Aside, Settings, Source, verified
from aeedge.arrow import BatchEncoder
from aeedge.detection.calibration import raised
from aeedge.errors import AeedgeError, InputError, VerificationError
from aeedge.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.types import Floats

LEAVE_OUT = "leave them out"
"""What becomes of rows with NaN where that is asked for."""


class FitRows(NamedTuple):
    """Which rows of an archive fit a score, and so do not calibrate: runs of rows, at equal distances.

    Attributes:
        parts: numbers of the parts that have some.
        until: number of the row in a part before which they are.
        period: rows from the beginning of a run to that of the next one.
        run: rows of each.
        apart: rows before and after a run that share samples with it, as windows do; they are not used.
    """

    parts: frozenset[int] = frozenset()
    until: int = 0
    period: int = 1
    run: int = 0
    apart: int = 0

    def among(self, part: Part, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of rows, by number in a part: which fit, and which are not used."""
        if part.number not in self.parts:
            none = np.zeros(len(rows), np.bool_)
            return none, none
        at = rows % self.period
        fits = (rows < self.until) & (at < self.run)
        near = (at < self.run + self.apart) | (at >= self.period - self.apart)
        return fits, (rows < self.until + self.apart) & near & ~fits


class Scored(NamedTuple):
    """What was found in a part, or in all of them.

    Attributes:
        sketches: of the scores of the rows that calibrate, `raised`, by variant; of those that are right there.
        fitted: rows that fitted the score.
        near: windows that are not used, for they share samples with these.
        missing: rows with missing values, NaN or infinity, which have no score.
        set_aside: rows that were written elsewhere.
        wrong: variants that do not compute what they should, and where.
        notes: of what was guessed.
    """

    sketches: dict[str, ScoreSketch]
    fitted: int = 0
    near: int = 0
    missing: int = 0
    set_aside: int = 0
    wrong: dict[str, str] = {}  # noqa: RUF012  # never changed
    notes: tuple[str, ...] = ()

    @property
    def left_out(self) -> int:
        """Rows that neither fitted nor calibrate, and are not set aside."""
        return self.near + self.missing

    def with_part(self, other: Scored) -> Scored:
        """Both together, of the variants that are right in both; the order makes no difference."""
        wrong = {
            name: min(found[name] for found in (self.wrong, other.wrong) if name in found)
            for name in self.wrong.keys() | other.wrong.keys()
        }
        return Scored(
            {name: sketch + other.sketches[name] for name, sketch in self.sketches.items() if name in other.sketches},
            self.fitted + other.fitted,
            self.near + other.near,
            self.missing + other.missing,
            self.set_aside + other.set_aside,
            wrong,
            tuple(sorted({*self.notes, *other.notes})),
        )


@dataclass(frozen=True)
class ScoreTask:
    """The task of a calibration; it travels to the workers.

    Attributes:
        bundle_id: of the bundle that is expected there.
        variants: to score with, fp32 first.
        settings: how rows are read.
        fit: rows that do not calibrate.
        bad_rows: folder for rows that cannot be scored; without one they are an error.
    """

    bundle_id: str
    variants: tuple[str, ...]
    settings: Settings
    fit: FitRows
    bad_rows: Place | None

    def __call__(self, part: Part, bundle: str) -> Outcome:
        """Score a part with the bundle at this path; the outcome's payload is what was found."""
        began, host = time.perf_counter(), platform.node()
        try:
            models, wrong = self._models(bundle, host)
            found = self._scored(part, models)._replace(wrong=wrong)
        except AeedgeError as error:
            return Outcome(part.number, host=host, error=str(error))
        calibrated = next(iter(found.sketches.values())).count
        return Outcome(
            part.number,
            part.rows,
            calibrated,
            found.set_aside,
            host=host,
            variant=next(iter(models)),
            seconds=round(time.perf_counter() - began, 3),
            payload=found,
        )

    def _models(self, bundle: str, host: str) -> tuple[dict[str, Model], dict[str, str]]:
        """The variants that are right here, and why the others are not.

        Raises:
            VerificationError: none is right.
        """
        models: dict[str, Model] = {}
        wrong: dict[str, str] = {}
        for variant in self.variants:
            try:
                model = verified(bundle, self.bundle_id, variant)
            except VerificationError as error:
                wrong[variant] = f"worker {host}: {error}"
                continue
            if model.variant == variant:
                models[variant] = model
            else:
                wrong[variant] = f"worker {host}: it does not reproduce its reference outputs there"
        if not models:
            raise VerificationError(wrong[self.variants[0]])
        return models, wrong

    def _scored(self, part: Part, models: dict[str, Model]) -> Scored:
        sketches = {variant: ScoreSketch() for variant in models}
        aside, first = Aside(part, self.bad_rows, LEAVE_OUT), next(iter(models.values()))
        fitted = near = missing = 0
        try:
            source = Source(part, first, self.settings, missing=self.bad_rows is not None)
            for rows, batch, result in _sound_rows(part, source, aside):
                scores = scores_of(result)
                fits, unused = self.fit.among(part, rows)
                scored = ~np.isnan(scores)
                fitted += int((fits & scored).sum())
                near += int((unused & scored).sum())
                missing += int((~scored).sum())
                calibrates = scored & ~fits & ~unused
                for variant, model in models.items():
                    values = scores if model is first else scores_of(_encoder(model, source)(batch))
                    _check_finite(values[scored], rows[scored], part)
                    sketches[variant].add(raised(values[calibrates]))
        except UnreadableError as error:
            if self.bad_rows is None:
                raise
            aside.all_of_it(str(error))
            return Scored({variant: ScoreSketch() for variant in models}, set_aside=part.rows)
        aside.finish(source)
        return Scored(sketches, fitted, near, missing, len(aside.reasons), notes=tuple(source.notes))


def _sound_rows(part: Part, source: Source, aside: Aside) -> Iterator[tuple[NDArray[np.int64], Any, Any]]:
    """The rows of a part that are not set aside, batch by batch: see `Aside.sound`.

    Raises:
        InputError: rows that cannot be scored, and are not to be set aside; a file that was changed.
    """
    first = 0
    for batch in source.batches:
        rows = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
        yield aside.sound(batch, source.encoder, rows)
    if not source.is_cut and first != part.rows:
        raise InputError(f"{part.name}: expected {part.rows:,} rows as before, got {first:,}; the file was changed")


def scores_of(result: Any) -> Floats:
    """The scores in a batch of results, NaN for rows with missing values."""
    found: Floats = result.column(result.schema.get_field_index("score")).to_numpy(zero_copy_only=False)
    return found


def _encoder(model: Model, source: Source) -> BatchEncoder:
    """For another variant, with the same columns."""
    return BatchEncoder(model, ("score",), column=source.encoder.column, invalid=source.encoder.invalid)


def _check_finite(scores: Floats, rows: NDArray[np.int64], part: Part) -> None:
    """Refuse rows that are finite numbers, and whose scores are none.

    Raises:
        InputError: there is one.
    """
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise InputError(
            f"{part.place.name}, row {part.first_row + int(rows[wrong[0]])} (counted from 0): its score is beyond float32; "
            "is it in raw units? leave it out"
        )
