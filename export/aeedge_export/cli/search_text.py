"""A search in the terminal: its progress in one line, and its result as a table and sentences."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator, Mapping
from shutil import get_terminal_size
from time import monotonic
from typing import Any

from aeedge.system.progress import ProgressLine, time_left
from aeedge.table import columns, human_bytes
from aeedge_export.architecture_search.budget import human_count, human_time
from aeedge_export.architecture_search.result import Point, Search

_WIDTH = 80
_SMOOTHING = 0.3  # of a new estimate of when the search ends
_LEFT_OUT = ("k", "/ PCA", "MACs", "memory")  # columns, in this order, where a table is too wide
_MEASURES = {"error": "error", "auc": "ROC AUC", "probe": "accuracy"}


class SearchProgress(ProgressLine):
    """Progress of a search on standard error: one line in a terminal, elsewhere a line for each tenth.

    Args:
        limit: of the search, in seconds.
        quiet: whether nothing is shown.
    """

    def __init__(self, limit: float, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._began = monotonic()
        self._latest_end, self._end = self._began + limit, 0.0

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, *args: object) -> None:
        self.end()

    def __call__(self, done: int, total: int, text: str, seconds_left: float | None) -> None:
        """Show what is done, what comes next, and the time left."""
        now = monotonic()
        left = self._smoothed(now, seconds_left)
        share = done / max(total, 1) if left is None else (now - self._began) / max(now - self._began + left, 1e-9)
        self.show([f"{text} ({done} of {total} done)", "" if left is None else time_left(left)], share)

    def _smoothed(self, now: float, seconds_left: float | None) -> float | None:
        """The time left, which does not jump with each estimate and never exceeds the limit."""
        if seconds_left is None:
            return None
        end = now + seconds_left
        self._end = end if not self._end else self._end + _SMOOTHING * (end - self._end)
        return max(min(self._end, self._latest_end) - now, 0.0)


def table(found: Search) -> str:
    """The finished networks by latency; the marks before their names are explained below."""
    cells = [_cells(found, point) for point in found.points]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    width = max(_WIDTH, get_terminal_size().columns if sys.stdout.isatty() else 0)
    for name in ("", *_LEFT_OUT):
        names = [other for other in names if other != name]
        shown = columns(names, [[row[name] for name in names] for row in cells])
        if max(map(len, shown.splitlines())) <= width:
            break
    return shown


def _cells(found: Search, point: Point) -> dict[str, str]:
    """A row of the table by its columns; empty where something is not known."""
    best = "" if found.best is None else found.best.name
    marks = ("*" if point.on_front else " ") + (">" if point.name == best else " " if point.meets else "!")
    return {
        "   network": f"{marks} {point.name}",
        "k": str(point.latent),
        **_quality(found, point),
        "latency": human_time(point.latency_us),
        "rate": f"{human_count(point.rate)}/s",
        "size": human_bytes(point.size),
        "memory": "" if point.memory is None else human_bytes(point.memory),
        "MACs": human_count(point.macs),
    }


def _quality(found: Search, point: Point) -> dict[str, str]:
    if found.objective != "error":
        return {_MEASURES[found.objective]: f"{1 - point.loss:.4f}"}
    least = min(other.loss for other in found.points)
    pca = [p.loss for p in found.points if (p.family, p.latent, p.variant) == ("pca", point.latent, "fp32")]
    return {"error": _ratio(point.loss, least), "/ PCA": _ratio(point.loss, pca[0]) if pca else ""}


def _ratio(loss: float, other: float) -> str:
    ratio = loss / other if other > 0 else math.inf if loss > 0 else 1.0
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.4g}"


def result_lines(found: Search, path: str) -> Iterator[str]:
    """What is to be said of a result beside the table, in sentences.

    Args:
        found: the search.
        path: of its folder, as it was given.
    """
    measured, rows = found.details["measured"], found.details["rows"]
    if found.points:
        yield _legend(found)
        yield f"measured on {_machine(measured)}{_noise(measured)}{_agreement(measured)}{_invalid(measured)}"
    if measured["where"] == "this machine" and len({point.variant for point in found.points}) > 1:
        yield "on another kind of processor fp32 and int8 may rank differently: measure there (--remote, --measured)"
    what = rows["what"]
    counts = f"{rows['training']:,} trained, {rows['selection']:,} others selected"
    if found.best is not None:
        judged = found.best.judged if found.objective == "error" else 1 - found.best.judged
        yield (
            f"best: {found.best.name}, {_MEASURES[found.objective]} {judged:.4g} on {rows['judging']:,} {what} that "
            f"judge alone ({counts})"
        )
    if found.smallest_latent is not None:
        tried = [one["latent"] for one in found.curve]
        yield (
            f"{found.smallest_latent} latents are enough: the fewest of {min(tried)} to {max(tried)} with an "
            f"error within {_tolerance(found)} of the least"
        )
    if found.stopped != "done" and found.points:
        why = "the time was up" if found.stopped == "time" else "interrupted"
        yield f"{why} with candidates left; --resume goes on with them"
    if found.points:
        other = next((p for p in found.front if p is not found.best), found.points[0])
        yield (
            f"another one: as it was measured {_quoted(path, 'bundles', other.name + '.aeedge')}, or "
            f"aeedge export {_quoted(path, 'runs', other.trial)} -o {_quoted(other.trial + '.aeedge')}"
        )
    if found.best is not None:
        yield f"page: {_quoted(path, 'report.html')}; next: aeedge verify {_quoted(path, 'best.aeedge')}"


def _legend(found: Search) -> str:
    """What the columns and marks of the table mean."""
    calls = found.details["measured"]
    pca = ", and of PCA's with as many latents" if any(point.family == "pca" for point in found.points) else ""
    error = f"error: mean squared, as a multiple of the least{pca}; "
    return (
        f"{error if found.objective == 'error' else ''}latency: of a call with {_samples(calls['latency_at'])}; rate: "
        f"in calls with {calls['rate_at']:,}; * on the front: none is better in all of quality, latency, size and "
        "memory; > best.aeedge; ! over the budget"
    )


def _samples(count: int) -> str:
    return "one sample" if count == 1 else f"{count:,} samples"


def _machine(measured: Mapping[str, Any]) -> str:
    """Where times were measured."""
    where, machine = measured["where"] or "a device", (measured["machine"] or {}).get("processor")
    return f"{where} ({machine})" if machine else where


def _invalid(measured: Mapping[str, Any]) -> str:
    what = "--resume measures again" if measured["where"] else "measure there again"
    return "" if measured["status"] == "valid" else f"; INVALID, for the machine was disturbed: {what}"


def _noise(measured: Mapping[str, Any]) -> str:
    return "" if measured["noise"] is None else f", times within ±{measured['noise']:.1%}"


def _agreement(measured: Mapping[str, Any]) -> str:
    ranks = measured["rank_agreement"]
    return "" if ranks is None else f", ranked as by the search with a correlation of {ranks:.2f}"


def _tolerance(found: Search) -> str:
    return "5%" if found.max_error_vs_best is None else f"{found.max_error_vs_best:.3g}"


def _quoted(*parts: str) -> str:
    return shlex.quote("/".join((parts[0].rstrip("/") or "/", *parts[1:])))
