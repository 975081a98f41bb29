"""Encodes one part of an archive: reads it, computes, writes the result and what had to be set aside, and commits."""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.archive.ledger import SCRATCH, Ledger, file_name
from aeedge.archive.parts import Part, UnreadableError, changed, damage, folder_values, opened, with_folders
from aeedge.archive.recordings import WINDOW, is_recording, recording_batches, window_schema
from aeedge.archive.storage import Place, patiently, remove, write, written
from aeedge.archive.work import Outcome
from aeedge.arrow import BatchEncoder
from aeedge.errors import AeedgeError, BundleError, InputError, VerificationError
from aeedge.loading import load
from aeedge.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_LOADING = ("variant", "allow_ops")
_BATCH_ROWS = 2**16
_COMPRESSION = "zstd"
_MOST_REASONS = 20
_REASONS = ("_file", "_row", "_reason")


class Settings(NamedTuple):
    """What is computed of each row: arguments of `aeedge.arrow.BatchEncoder`, and of `aeedge.load`."""

    outputs: tuple[str, ...] = ("latent",)
    keep: tuple[str, ...] = ()
    column: str | None = None
    variant: str = "fp32"
    invalid: str = "raise"
    false_alarm_rate: float | None = None
    threshold: float | None = None
    allow_ops: tuple[str, ...] = ()

    def encoder(self, model: Model, first_row: int = 0) -> BatchEncoder:
        """For a model that is open."""
        options: Any = {name: value for name, value in self._asdict().items() if name not in _OF_LOADING}
        return BatchEncoder(model, **options, first_row=first_row)


@dataclass(frozen=True)
class EncodeTask:
    """The task of a job that encodes; it travels to the workers.

    Attributes:
        identity: of the job.
        bundle_id: of the bundle that is expected there.
        settings: what is computed.
        output: folder for results.
        bad_rows: folder for rows that cannot be computed; without one they are an error.
        are_recordings: whether a file is a recording, of which windows are cut.
    """

    identity: str
    bundle_id: str
    settings: Settings
    output: Place
    bad_rows: Place | None
    are_recordings: bool = False

    def __call__(self, part: Part, bundle: str) -> Outcome:
        """Do a part with the bundle at this path."""
        began, host = time.perf_counter(), platform.node()
        try:
            model = verified(bundle, self.bundle_id, self.settings.variant, self.settings.allow_ops)
            outcome = patiently(lambda: self._encoded(part, model))
            outcome = outcome._replace(host=host, variant=model.variant, seconds=round(time.perf_counter() - began, 3))
            patiently(lambda: self._commit(part, outcome))
        except AeedgeError as error:
            where = f"worker {host}: " if isinstance(error, (VerificationError, BundleError)) else ""
            unverified = isinstance(error, (VerificationError, BundleError))
            return Outcome(part.number, host=host, error=where + str(error), is_unverified=unverified)
        return outcome

    def _encoded(self, part: Part, model: Model) -> Outcome:
        """Write the result of a part, and what is set aside."""
        aside = Aside(part, self.bad_rows)
        try:
            source = Source(part, model, self.settings, missing=self.bad_rows is not None)
            rows, count, alarms = self._written(part, source, aside)
        except UnreadableError as error:
            if self.bad_rows is None:
                raise InputError(f"{error}; or give bad_rows to set such files aside") from None
            aside.all_of_it(str(error))
            lost = 0 if self.are_recordings else part.rows  # nobody knows how many windows it has
            return Outcome(part.number, part.rows, 0, lost, unreadable=str(error))
        if not source.is_cut and rows != part.rows:
            raise changed(part.place)
        aside.finish(source)
        reasons, notes = dict(Counter(aside.reasons.values()).most_common(_MOST_REASONS)), tuple(source.notes)
        found = Outcome(part.number, part.rows, count, len(aside.reasons), alarms=alarms, reasons=reasons)
        return found._replace(payload=notes)

    def _written(self, part: Part, source: Source, aside: Aside) -> tuple[int, int, int]:
        """Numbers of rows that were read and written, and of alarms."""
        import pyarrow.parquet as pq

        rows = count = alarms = 0
        ledger = Ledger(self.output, self.identity)
        with written(self.output / file_name(part.number), ledger.scratch) as stream:
            schema = source.encoder.schema(source.schema)
            with pq.ParquetWriter(stream, schema, compression=_COMPRESSION) as writer:
                for batch in source.batches:
                    numbers = np.arange(rows, rows + batch.num_rows)
                    _, _, result = aside.sound(batch, source.encoder, numbers)
                    writer.write_batch(result)
                    rows, count = rows + batch.num_rows, count + result.num_rows
                    alarms += result.column("alarm").true_count if "alarm" in self.settings.outputs else 0
            ledger.check_ours()
        return rows, count, alarms

    def _commit(self, part: Part, outcome: Outcome) -> None:
        target = self.output / file_name(part.number)
        if not outcome.written:
            remove(target)
        size = target.filesystem.get_file_info(target.path).size if outcome.written else 0
        found = {"source": part.place.name, "first_row": part.first_row, "version": part.version}
        Ledger(self.output, self.identity).record(outcome, size, found)


class Source:
    """What a part is read as: batches, and what computes them.

    Attributes:
        is_cut: whether it is a recording, of which windows are cut.
        schema: of the batches.
        notes: of what was guessed; complete once all is read.
    """

    def __init__(self, part: Part, model: Model, settings: Settings, *, missing: bool) -> None:
        self.notes: list[str] = []
        schema = _schema(part)
        self.is_cut = is_recording(model, schema, settings.column)
        if not self.is_cut:
            self.encoder, self.schema = settings.encoder(model, part.first_row), schema
            self.batches = _row_batches(part, self.encoder)
            return
        missing |= settings.invalid == "propagate" or model.input.missing is not None
        beside = window_schema(model, schema, settings.keep)
        windows = recording_batches(model, part, beside, missing=missing, notes=self.notes)
        first = next(windows)
        names = tuple(name for name in first.schema.names if name != WINDOW)
        self.encoder, self.schema = settings._replace(keep=names, column=WINDOW).encoder(model), first.schema
        self.batches = chain([first], windows)


class Aside:
    """The rows of a part that cannot be computed.

    Args:
        part: that is done.
        folder: for these rows; None where they are an error.
        instead: what becomes of them with invalid="propagate".

    Attributes:
        reasons: by the number of the row (of windows: of the window) in the part.
    """

    def __init__(self, part: Part, folder: Place | None, instead: str = "get NaN there") -> None:
        self._part, self._folder, self._instead = part, folder, instead
        self._pieces: list[Any] = []
        self.reasons: dict[int, str] = {}

    @property
    def _note(self) -> Place:
        """What says why nothing of the part can be read."""
        assert self._folder is not None
        return self._folder / f"part-{self._part.number:06d}.json"

    def sound(
        self, batch: Any, encoder: BatchEncoder, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Any, Any]:
        """The rows of a batch that can be computed: their numbers, the batch of them, and the result.

        Args:
            batch: some rows of the part.
            encoder: that computes them.
            numbers: theirs in the part.

        Raises:
            InputError: some cannot, and there is no folder for them.
        """
        import pyarrow as pa

        try:
            return numbers, batch, encoder(batch)
        except InputError as error:
            found = encoder.faults(batch)  # a second look at all rows, for those that are at fault
            if not found:
                raise InputError(f"{self._part.name}: {error}") from None
        if self._folder is None:
            row = min(found)
            helps = encoder.invalid == "raise" and row not in encoder.faults(batch, invalid="propagate")
            raise InputError(
                f"{self._part.place.name}, row {self._part.first_row + numbers[row]} (counted from 0): {found[row]}; "
                "give bad_rows to set such rows aside"
                + (f", or invalid='propagate' to {self._instead}" if helps else "")
            )
        self.reasons |= {int(numbers[row]): why for row, why in found.items()}
        self._pieces.append(pa.Table.from_batches([batch]).take(pa.array(sorted(found))))
        rest = np.delete(np.arange(len(numbers)), list(found))
        batch = batch.take(pa.array(rest))
        return numbers[rest], batch, encoder(batch)

    def finish(self, source: Source) -> None:
        """Write the rows, with all columns of the file, and why; of windows what is kept of them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._folder is None:
            return
        numbers, target = sorted(self.reasons), self._folder / file_name(self._part.number)
        remove(self._note)
        if not numbers:
            remove(target)
            return
        is_cut, pieces = source.is_cut, self._pieces
        table = pa.concat_tables(pieces).drop_columns([WINDOW]) if is_cut else _rows(self._part, numbers)
        table = table.drop_columns([name for name in _REASONS if name in table.column_names])  # of an earlier run
        first = 0 if is_cut else self._part.first_row
        added = [
            [self._part.place.name] * len(numbers),
            [first + number for number in numbers],
            [self.reasons[number] for number in numbers],
        ]
        for name, values in zip(_REASONS, added):
            table = table.append_column(name, pa.array(values))
        with written(target, self._folder / SCRATCH) as stream:
            pq.write_table(table, stream)

    def all_of_it(self, reason: str) -> None:
        """Write down that nothing of the part can be read, and why."""
        assert self._folder is not None
        remove(self._folder / file_name(self._part.number))
        found = {"file": self._part.place.name, "first_row": self._part.first_row, "rows": self._part.rows}
        text = json.dumps({**found, "reason": reason}) + "\n"
        write(self._note, text.encode(), self._folder / SCRATCH)


@lru_cache(maxsize=4)
def verified(bundle: str, identity: str, variant: str, allow_ops: tuple[str, ...] = ()) -> Model:
    """A model that reproduced its reference outputs in this process; int8 that does not is fp32, as on a device.

    Raises:
        BundleError: it cannot be read.
        VerificationError: it computes something else here, or is another bundle.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which variant runs is in the outcome
        model = load(bundle, variant=variant, threads=1, check="golden", allow_ops=allow_ops)
    if model.manifest.id != identity:
        raise VerificationError(
            f"{bundle}: expected the bundle {identity[:12]}, got {model.manifest.id[:12]}; it was replaced, run again"
        )
    return model


def _row_batches(part: Part, encoder: BatchEncoder) -> Iterator[Any]:
    """The columns of a part that are needed, in batches.

    Raises:
        UnreadableError: the file is damaged.
    """
    with opened(part.place, part.version) as file:
        needed = encoder.columns(with_folders(file.schema_arrow, part.place))
        yield from _batches(part, file, needed)


def _batches(part: Part, file: Any, columns: list[str] | None) -> Iterator[Any]:
    """Batches of columns, of all for None, with what the names of folders say."""
    import pyarrow as pa

    said = folder_values(part.place, file.schema_arrow.names)
    added = {name: value for name, value in said.items() if columns is None or name in columns}
    with damage(part.name):
        for groups in _stretches(file.metadata, part.groups):
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
                schema, arrays = batch.schema, batch.columns
                for name, value in added.items():
                    schema = schema.append(pa.field(name, pa.string()))
                    arrays.append(pa.array([value] * batch.num_rows, pa.string()))
                yield pa.RecordBatch.from_arrays(arrays, schema=schema) if added else batch


def _stretches(metadata: Any, groups: Sequence[int]) -> Iterator[list[int]]:
    """Row groups that are in memory together: one, or as many as make a batch where they are small."""
    chosen, rows = list[int](), 0
    for group in groups or range(metadata.num_row_groups):
        chosen.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= _BATCH_ROWS:
            yield chosen
            chosen, rows = [], 0
    if chosen:
        yield chosen


def _schema(part: Part) -> Any:
    with opened(part.place, part.version) as file:
        return with_folders(file.schema_arrow, part.place)


def _rows(part: Part, numbers: list[int]) -> Any:
    """Rows of a part, by number, with all their columns."""
    import pyarrow as pa

    pieces, first = [], 0
    with opened(part.place, part.version) as file:
        for batch in _batches(part, file, None):
            here = [number - first for number in numbers if first <= number < first + batch.num_rows]
            if here:
                pieces.append(pa.Table.from_batches([batch]).take(pa.array(here)))
            first += batch.num_rows
    return pa.concat_tables(pieces)
