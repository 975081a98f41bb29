"""DATA of the commands that train: how it is read, and the rows or windows that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from aeedge.bundle.manifest import Missing, SignalSpec
from aeedge.cli.types import dialect_options
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable
from aeedge_export.cli.windows import as_dataset, cutting_of, read_windows
from aeedge_export.data.cutting import Cutting, Windows
from aeedge_export.data.dataset import Dataset, Selection
from aeedge_export.data.files import read
from aeedge_export.data.missing import treat_missing

_CUTTING = ("window", "hop", "rate", "time", "resample", "calendar")
_NAMES = (
    *_CUTTING,
    *("array", "header", "delimiter", "decimal", "columns", "drop", "select", "resize", "skip_bad", "labels"),
    "missing",
)


class TrainingData(NamedTuple):
    """What was read to train on.

    Attributes:
        rows: without missing values.
        missing: how missing values were told and treated, None where they were not.
        windows: what the rows are where they were cut from recordings, else None.
    """

    rows: Dataset
    missing: Missing | None
    windows: Windows | None

    @property
    def known(self) -> dict[str, Any]:
        """What is known of the rows beside their numbers, as arguments of `Autoencoder.fit_rows`."""
        return {
            "features": self.rows.features,
            "units": self.rows.units,
            "missing": self.missing,
            "dialect": self.rows.dialect,
            "signal": None if self.windows is None else self.windows.signal,
        }


class Reading(NamedTuple):
    """How DATA is read.

    Attributes:
        selection: which part of it.
        cutting: how windows are cut from recordings, None where DATA are rows.
        missing: of POLICIES.
    """

    selection: Selection
    cutting: Cutting | None
    missing: str

    def read(self, paths: Sequence[str], *, like: SignalSpec | None = None, times: bool = False) -> TrainingData:
        """Read files; what was found, guessed and left out is printed.

        Args:
            paths: of the files.
            like: what the windows are that are trained on already; None for none.
            times: whether to see if the time of rows rises.
        """
        if self.cutting is not None:
            windows = read_windows(paths, self.selection, self.cutting, like)
            return TrainingData(as_dataset(windows), windows.missing, windows)
        selection = replace(self.selection, times=times)
        found, treated = treat_missing(
            read(*paths, selection=selection, missing=self.missing != "refuse"), self.missing
        )
        for note in found.notes:
            say(f"Read: {note}", err=True)
        return TrainingData(found, treated, None)


def reading_of(params: dict[str, Any], weights: str | None = None) -> Reading:
    """What the options say; they are taken out of `params`, and so is "channels" where it names channels to read.

    Args:
        params: of the command, by name.
        weights: column with the weight of each row.

    Raises:
        InputError: options that do not go together.
    """
    given = {name: params.pop(name) for name in _NAMES}
    selection = Selection(
        given["columns"],
        given["drop"],
        given["labels"],
        weights,
        given["array"],
        dialect_options(given["header"], given["delimiter"], given["decimal"]),
        given["resize"],
        given["skip_bad"],
        given["select"],
    )
    cutting = cutting_of(given["missing"], **{name: given[name] for name in _CUTTING})
    if cutting is not None:
        channels = () if params["channels"] == "auto" else tuple(params["channels"].split(","))
        selection = _of_recordings(replace(selection, time=given["time"]), channels)
        params["channels"] = "auto"
    return Reading(selection, cutting, given["missing"])


def time_order(found: Dataset, asked: bool | None) -> bool | str:
    """Whether rows are split in time order: as asked, otherwise where a column of times rises; a guess is printed.

    Without such a column `fit` looks whether rows are windows that overlap ("auto").
    """
    name = printable(found.time_column or "")
    if found.time_column and not found.time_ordered:
        done = (
            "taken to be in time order as they are" if asked else "split at random; sort them, or give --time-ordered"
        )
        say(f"Note: column '{name}' does not rise from row to row: rows are {done}", err=True)
    elif found.time_column and asked is None:
        say(
            f"Note: rows are in time order (column '{name}'): held-out rows are blocks at the end; --no-time-ordered "
            "for a random split",
            err=True,
        )
    if asked is None and found.time_column is None:
        return "auto"
    return found.time_ordered if asked is None else asked


def label_file(labels: str | None) -> str | None:
    """The file that labels are read from, None where they are in DATA."""
    return labels if labels and labels.endswith(".npy") else None


def _of_recordings(selection: Selection, channels: tuple[str, ...]) -> Selection:
    """What is read of recordings.

    Raises:
        InputError: channels twice, or options that only rows have.
    """
    if channels and selection.columns:
        raise InputError("--channels, --columns: both name the channels to take; leave one out")
    if len(set(channels)) < len(channels):
        raise InputError(f"--channels: expected each name once, got {','.join(channels)}")
    if selection.resize or selection.skip_bad:
        raise InputError("--resize, --skip-bad: only images can be resized or skipped; leave them out")
    return replace(selection, columns=channels or selection.columns)
