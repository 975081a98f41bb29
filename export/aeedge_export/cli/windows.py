"""Recordings of the command line, and what becomes of them: windows, in the form that rows have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import InputSpec, SignalSpec
from aeedge.cli.wording import say
from aeedge.errors import InputError
from aeedge.runtime.missing import fill_missing
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.data.cutting import Cutting, Windows, cut
from aeedge_export.data.dataset import Dataset, Selection
from aeedge_export.data.recording_files import read_recordings

_OF_WINDOWS = ("hop", "rate", "time", "resample", "calendar")  # options that need --window
_SHOWN = 10  # findings in the summary


def cutting_of(
    missing: str,
    *,
    window: int | None,
    hop: int | None,
    rate: float | None,
    time: str | None,
    resample: float | None,
    calendar: str | None,
) -> Cutting | None:
    """What the options say; None where DATA are rows.

    Raises:
        InputError: an option that needs --window without it, or one that does not fit.
    """
    if window is None:
        given = {"hop": hop, "rate": rate, "time": time, "resample": resample, "calendar": calendar}
        alone = next((name for name in _OF_WINDOWS if given[name] is not None), None)
        if alone is not None:
            raise InputError(f"{alone}: expected --window with it, which makes windows of recordings, got none")
        return None
    periods = () if calendar is None else tuple(part.strip() for part in calendar.split(","))
    return Cutting(window, hop, rate, resample, periods, missing).checked()


def read_windows(
    paths: Sequence[str],
    selection: Selection,
    cutting: Cutting,
    like: SignalSpec | None = None,
    *,
    keep: bool = False,
    of: str | None = "",
) -> Windows:
    """The windows of recordings; what was found is printed.

    Args:
        paths: of the files.
        selection: which columns, and how.
        cutting: how.
        like: what the windows are that a model was trained on; its channels are read.
        keep: see `cut`.
        of: what they are for, for people; None to print nothing.
    """
    if like is not None:
        selection = replace(selection, columns=like.channels, drop=())
    found = cut(read_recordings(paths, selection, missing=cutting.missing != "refuse"), cutting, like, keep=keep)
    for note in found.notes:
        if of is not None and (like is None or not note.startswith("inputs (")):  # they are those of the training
            say(f"Read{of}: {note}", err=True)
    return found


def as_dataset(windows: Windows) -> Dataset:
    """Windows as rows."""
    return Dataset(windows.X, labels=windows.labels, dialect=windows.dialect, notes=windows.notes)


def windows_as_trained(
    paths: Sequence[str],
    selection: Selection,
    spec: InputSpec,
    rate: float | None = None,
    resample: float | None = None,
    *,
    of: str | None = "",
) -> Windows:
    """Windows like those that a model was trained on; missing values are filled as there, or no window has them.

    Args:
        paths: of the files.
        selection: which columns, and how; the channels are those of the training.
        spec: of the model's input, with its signal.
        rate, resample: see `Cutting`.
        of: see `read_windows`.
    """
    signal = spec.signal
    assert signal is not None
    policy = "drop" if spec.missing is None else spec.missing.policy
    cutting = Cutting(signal.window, signal.hop, rate, resample, signal.calendar, policy)
    found = read_windows(paths, selection, cutting, signal, keep=True, of=of)
    if spec.missing is None:
        return found
    X, _ = fill_missing(found.X, spec)
    whole = ~np.isnan(X).any(axis=(1, 2))
    if not whole.any():
        raise InputError(f"{paths[0]}: expected windows without missing values, but every one has some; use others")
    labels = None if found.labels is None else found.labels[whole]
    return replace(found, X=X[whole], starts=found.starts[whole], spans=found.spans[whole], labels=labels)


def evaluate_windows(
    ae: Autoencoder, paths: Sequence[str], selection: Selection, cutting: Cutting, trained: Windows
) -> None:
    """Evaluate detection on all windows of labelled recordings, also those with samples that were not selected.

    Only windows that share no sample with the training's are compared with labels.
    """
    whole = replace(selection, select=None)
    test = windows_as_trained(paths, whole, ae.run_.input_spec, cutting.rate, cutting.resample, of=None)
    fitted = trained.spans[ae.run_.split(len(trained.X)).fitted]
    ae.evaluate_detection(test.X, test.labels, held_out=apart_from(test, fitted))


def apart_from(windows: Windows, fitted: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of windows of the same recordings that share no sample with given spans (m, 2)."""
    edges = np.zeros(windows.samples + 1, np.intp)
    np.add.at(edges, fitted[:, 0], 1)
    np.add.at(edges, fitted[:, 1], -1)
    before = np.concatenate([[0], np.cumsum(np.cumsum(edges[:-1]) > 0)])
    return np.flatnonzero(before[windows.spans[:, 1]] == before[windows.spans[:, 0]])


def summarize(windows: Windows) -> None:
    """Print what the windows are, and what was guessed."""
    signal = windows.signal
    units = signal.units or ("",) * len(signal.channels)
    named = [f"{name} ({unit})" if unit else name for name, unit in zip(signal.channels, units)]
    calendar = f", and the time of {' and '.join(signal.calendar)}" if signal.calendar else ""
    say(f"channels: {', '.join(named)}{calendar}")
    for line in windows.findings[:_SHOWN]:
        say(line)
    if len(windows.findings) > _SHOWN:
        say(f"and {len(windows.findings) - _SHOWN} more findings about recordings")
