"""Scores one part of an archive for a calibration: nothing is written, what comes back is a sketch of the scores."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.archive.parts import Part, UnreadableError
from aeedge.archive.sketch import ScoreSketch
from aeedge.archive.storage import Place, patiently
from aeedge.archive.task import Aside, Settings, Source, verified
from aeedge.archive.work import Outcome
from aeedge.arrow import BatchEncoder
from aeedge.detection.calibration import raised
from aeedge.errors import AeedgeError, BundleError, InputError, VerificationError
from aeedge.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.types import Floats

_MOST_REASONS = 20
_GOLDEN = 0x9E3779B1  # of 2³²
LEAVE_OUT = "leave them out"
"""What becomes of rows with NaN where that is asked for."""


class FitRows(NamedTuple):
    """Which rows of an archive fit a score, and so do not calibrate: a run of rows in every so many.

    Where in these a run begins is another place each time, so that a machine that goes in cycles shows all of them.

    Attributes:
        parts: numbers of the parts that have some.
        until: number of the row in a part before which they are.
        period: rows of which one run fits.
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
        fits, near = np.zeros((2, len(rows)), np.bool_)
        if part.number in self.parts:
            block = rows // self.period
            for other in (-1, 0, 1):
                start = self._starts(block + other)
                fits |= (start <= rows) & (rows < start + self.run)
                is_run = (start >= 0) & (start < self.until)
                near |= is_run & (start - self.apart <= rows) & (rows < start + self.run + self.apart)
            fits &= rows < self.until
            near &= ~fits
        return fits, near

    def _starts(self, block: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first rows of the runs of these blocks, one in each: places that spread as the golden ratio does."""
        places = self.period - self.run + 1
        return block * self.period + ((block * _GOLDEN % 2**32) * places >> 32)


class Scored(NamedTuple):
    """What was found in a part, or in all of them.

    Attributes:
        sketches: of the scores of the rows that calibrate, `raised`, by variant; of those that are right there.
        rows: how many rows fitted the score ("fit"), share samples with these and are not used ("near"), have missing
            values or NaN and so no score ("missing"), were set aside ("aside").
        reasons: why rows were set aside, and how many.
        unreadable: parts that cannot be read, and why.
        wrong: variants that do not compute what they should, and where.
        notes: of what was guessed.
    """

    sketches: dict[str, ScoreSketch]
    rows: Counter[str]
    reasons: Counter[str]
    unreadable: dict[str, str]
    wrong: dict[str, str]
    notes: frozenset[str]

    @classmethod
    def nothing(cls, variants: Iterable[str]) -> Scored:
        """Of no rows, with these variants."""
        return cls({name: ScoreSketch() for name in variants}, Counter(), Counter(), {}, {}, frozenset())

    @property
    def calibrated(self) -> int:
        """How many rows calibrate."""
        return next((sketch.count for sketch in self.sketches.values()), 0)

    @property
    def left_out(self) -> int:
        """Rows that neither fitted nor calibrate, and are not set aside."""
        return self.rows["near"] + self.rows["missing"]

    def __add__(self, other: Scored) -> Scored:  # type: ignore[override]
        """Both together, of the variants that are right in both; the order makes no difference to the sketches."""
        names = [name for name in self.sketches if name in other.sketches]
        return Scored(
            {name: self.sketches[name] + other.sketches[name] for name in names},
            self.rows + other.rows,
            Counter(dict((self.reasons + other.reasons).most_common(_MOST_REASONS))),
            self.unreadable | other.unreadable,
            self.wrong | other.wrong,
            self.notes | other.notes,
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
        are_recordings: whether a file is a recording, of which windows are cut.
    """

    bundle_id: str
    variants: tuple[str, ...]
    settings: Settings
    fit: FitRows
    bad_rows: Place | None
    are_recordings: bool

    def __call__(self, part: Part, bundle: str) -> Outcome:
        """Score a part with the bundle at this path; the outcome's payload is what was found."""
        began, host = time.perf_counter(), platform.node()
        try:
            models, wrong = self._models(bundle)
            found = patiently(lambda: self._scored(part, models))
            found = found._replace(wrong={variant: f"worker {host}: {why}" for variant, why in wrong.items()})
        except AeedgeError as error:
            unverified = isinstance(error, (VerificationError, BundleError))
            where = f"worker {host}: " if unverified else ""
            return Outcome(part.number, host=host, error=where + str(error), is_unverified=unverified)
        return Outcome(part.number, part.rows, host=host, seconds=round(time.perf_counter() - began, 3), payload=found)

    def _models(self, bundle: str) -> tuple[dict[str, Model], dict[str, str]]:
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
                wrong[variant] = str(error)
                continue
            if model.variant == variant:
                models[variant] = model
            else:
                wrong[variant] = f"{variant} does not reproduce its reference outputs"
        if not models:
            raise VerificationError(wrong[self.variants[0]])
        return models, wrong

    def _scored(self, part: Part, models: dict[str, Model]) -> Scored:
        found, aside = Scored.nothing(models), Aside(part, self.bad_rows, LEAVE_OUT)
        first, *others = models.values()
        try:
            source = Source(part, first, self.settings, missing=self.bad_rows is not None)
            encoders = [
                BatchEncoder(m, ("score",), column=source.encoder.column, invalid=source.encoder.invalid)
                for m in others
            ]
            for numbers, batch, result in _sound_rows(part, source, aside):
                scores, scored = scores_of(result, source.encoder)
                fits, near = self.fit.among(part, numbers)
                calibrates = scored & ~fits & ~near
                found.rows.update(fit=_count(fits & scored), near=_count(near & scored), missing=_count(~scored))
                of_others = (scores_of(encoder(batch), encoder)[0] for encoder in encoders)
                for sketch, values in zip(found.sketches.values(), chain([scores], of_others)):
                    _check_finite(values[scored], numbers[scored], part)
                    sketch.add(raised(values[calibrates]))
        except UnreadableError as error:
            if self.bad_rows is None:
                raise
            aside.all_of_it(str(error))
            found = Scored.nothing(models)
            found.rows["aside"] = 0 if self.are_recordings else part.rows  # nobody knows how many windows it has
            return found._replace(unreadable={part.name: str(error)})
        aside.finish(source)
        found.rows["aside"] = len(aside.reasons)
        reasons = Counter(dict(Counter(aside.reasons.values()).most_common(_MOST_REASONS)))
        notes = (note for note in source.notes if " windows of " not in note)  # whose number all parts together have
        return found._replace(reasons=reasons, notes=frozenset(f"{part.place.name}: {note}" for note in notes))


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


def scores_of(result: Any, encoder: BatchEncoder) -> tuple[Floats, NDArray[np.bool_]]:
    """The scores in a batch of results, and which rows have one: others have missing values, or NaN that is allowed."""
    column = result.column(result.schema.get_field_index("score"))
    scores: Floats = column.to_numpy(zero_copy_only=False)
    if encoder.invalid == "propagate":
        return scores, ~np.isnan(scores)
    return scores, column.is_valid().to_numpy(zero_copy_only=False)


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _check_finite(scores: Floats, rows: NDArray[np.int64], part: Part) -> None:
    """Refuse rows that are finite numbers, and whose scores are none.

    Raises:
        InputError: there is one.
    """
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise InputError(
            f"{part.place.name}, row {part.first_row + int(rows[wrong[0]])} (counted from 0): its score is beyond "
            "float32; is it in raw units? leave it out"
        )
