"""Missing values of recordings: refused, windows without them, or filled with medians, as a device does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import Missing, SignalSpec
from aeedge.errors import InputError, printable, shortened
from aeedge_export.data.missing import find_codes
from aeedge_export.data.segments import Recording

_BLOCK = 2**20  # samples that are looked at in one go


def without_missing(
    recordings: Sequence[Recording], policy: str, *, keep: bool
) -> tuple[list[Recording], list[NDArray[np.bool_] | None], Missing | None, list[str]]:
    """Recordings with missing values filled, masks of samples to leave out, what a device needs to do likewise, notes.

    Args:
        recordings: one or more, of the same channels.
        policy: "refuse", "drop" or "median".
        keep: whether what is missing stays NaN where it is to be filled: by another training's medians.

    Raises:
        InputError: a missing value, where they are refused.
    """
    unwanted = [None if one.selected is None else ~one.selected for one in recordings]
    notes = [
        f"{one.name}: {int(one.selected.sum()):,} of {len(one.selected):,} samples selected"
        for one in recordings
        if one.selected is not None
    ]
    if policy == "refuse" or recordings[0].samples.dtype.kind != "f":
        for one, mask in zip(recordings, unwanted):
            _check_finite(one, mask)
        return list(recordings), unwanted, None, notes
    samples = [np.array(one.samples) for one in recordings]
    whole = np.concatenate(samples)
    _check_known(whole, recordings[0])
    codes = {} if keep else find_codes(whole, recordings[0].channels)
    medians = np.nanmedian(whole, axis=0)
    masks: list[NDArray[np.bool_] | None] = []
    filled = 0
    for i, values in enumerate(samples):
        for column, found in codes.items():
            values[np.isin(values[:, column], found), column] = np.nan
        gone = np.isnan(values)
        lost = gone.any(axis=1)
        if policy == "drop":
            masks.append(lost if unwanted[i] is None else lost | unwanted[i])
            filled += int(lost.sum())
        else:
            masks.append(unwanted[i])
            filled += int(gone.sum())
            if not keep:
                np.copyto(values, np.broadcast_to(medians, values.shape), where=gone)
    names = recordings[0].channels
    notes += [
        f"'{printable(names[i])}': {shortened([f'{v:g}' for v in found])} taken for missing"
        for i, found in codes.items()
    ]
    done = (
        "samples had missing values; no window has them" if policy == "drop" else "missing values filled with medians"
    )
    notes += [] if not filled or (keep and policy == "median") else [f"{filled:,} {done}"]
    treated = [replace(one, samples=values) for one, values in zip(recordings, samples)]
    by_column = {str(i): tuple(found) for i, found in codes.items()}
    fill = tuple(map(float, medians)) if policy == "median" else None
    return treated, masks, Missing(policy, by_column, fill), notes


def _check_known(samples: NDArray[Any], recording: Recording) -> None:
    lost = np.isnan(samples).all(axis=0)
    if lost.any():
        name = printable(recording.channels[int(lost.argmax())])
        raise InputError(
            f"{recording.name}: expected numbers in the channel '{name}', but all of its values are missing; leave it "
            "out (channels=...)"
        )


def _check_finite(recording: Recording, unwanted: NDArray[np.bool_] | None) -> None:
    if recording.samples.dtype.kind != "f":
        return
    for start in range(0, len(recording.samples), _BLOCK):
        fine = np.isfinite(recording.samples[start : start + _BLOCK])
        if unwanted is not None:
            fine = fine | unwanted[start : start + _BLOCK, None]
        if not fine.all():
            row, column = (int(i) for i in np.argwhere(~fine)[0])
            value = recording.samples[start + row, column]
            raise InputError(
                f"{recording.name}, sample {start + row} (counted from 0), channel "
                f"'{printable(recording.channels[column])}': expected a finite number, got {value}; split "
                "recordings there (missing='drop') or fill them (missing='median')"
            )


def of_windows(missing: Missing, signal: SignalSpec) -> Missing:
    """What was found for each channel, for each value of a window."""
    extra = signal.width - len(signal.channels)
    fill = None if missing.fill is None else (*missing.fill, *(0.0,) * extra) * signal.window
    codes = {
        str(i * signal.width + int(column)): found
        for column, found in missing.codes.items()
        for i in range(signal.window)
    }
    return Missing(missing.policy, codes, fill)
