"""A search as one self-contained HTML page, and its front as an SVG file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aeedge.table import human_bytes
from aeedge_export.architecture_search.budget import human_count, human_time
from aeedge_export.architecture_search.pictures import (
    NARROW,
    SMALL,
    as_file,
    by_latents,
    front,
    number,
    other_costs,
    sentence,
    time_of,
    tolerance_shown,
)
from aeedge_export.reporting.templates import template
from aeedge_export.reporting.verdict import Tile
from aeedge_export.reporting.wording import duration

_OBJECTIVES = {"error": "error", "auc": "ROC AUC", "probe": "accuracy of the linear probe"}
_STOPPED = {"time": "the time was up", "interrupted": "it was interrupted"}


def render(summary: Mapping[str, Any]) -> str:
    """The page of a search.

    Args:
        summary: what `Search.summary` returns.
    """
    best, points = _best(summary), summary["points"]
    cost = time_of(summary)
    tolerance = 0.05 if summary["max_error_vs_best"] is None else summary["max_error_vs_best"]
    dropped = [
        {**trial, "loss": "–" if number(trial["loss"]) is None else f"{trial['loss']:.4g}"}
        for trial in summary["trials"]
        if trial["fate"] != "trained"
    ]
    return template("search.html", __package__ or "").render(
        title="Architecture search",
        summary=summary,
        best=best,
        verdict=verdict(summary),
        tiles=[Tile(name, value) for name, value in _tiles(summary, best).items()] if best else [],
        duration=duration,
        fronts=[front(summary, cost), front(summary, cost, NARROW)] if points else [],
        limited=cost.limit is not None,
        early=_STOPPED.get(summary["stopped"]),
        others=[front(summary, other, SMALL, all_names=False) for other in other_costs(summary)],
        curves=[by_latents(summary["curve"], key, summary["smallest_latent"], tolerance) for key in ("error", "probe")],
        columns=[heading for heading, _ in _columns(summary)],
        table=[
            (point, [shown(point) for _, shown in _columns(summary)])
            for point in sorted(points, key=lambda one: cost.of(one) or float("inf"))
        ],
        dropped=dropped,
        fates=Counter(trial["fate"].partition(":")[0] for trial in dropped),
        tolerance=f"{100 * tolerance:.3g}\N{NO-BREAK SPACE}%",
        run=shlex.quote((best or (points[0] if points else {"trial": "NAME"}))["trial"]),
        facts=_facts(summary),
    )


def front_svg(summary: Mapping[str, Any]) -> str:
    """The picture of the front as an SVG file, whose colours are its own.

    Args:
        summary: what `Search.summary` returns.
    """
    return as_file(front(summary, time_of(summary)) or sentence(verdict(summary)))


def verdict(summary: Mapping[str, Any]) -> str:
    """What was found, in a sentence."""
    best, asked, tolerance = _best(summary), _asked(summary), tolerance_shown(summary)
    if best is None:
        why = summary["nearest"] or "no network was found"
        return f"{why[0].upper()}{why[1:].rstrip('.')}."
    found = f"{best['name']}: {_speed(summary, best)}, {_quality(summary, best)}"
    if asked:
        return f"{found}; meets the budget of {asked}{f', within {tolerance} of the best' if tolerance else ''}."
    return f"{found}; the fastest within {tolerance} of the best." if tolerance else f"{found}."


def _best(summary: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((point for point in summary["points"] if point["name"] == summary["best"]), None)


def _asked(summary: Mapping[str, Any]) -> str:
    """The limits, for people."""
    budget = summary["budget"]
    shown: dict[str, Callable[[Any], str]] = {
        "latency_us": human_time,
        "rate": lambda rate: f"{human_count(rate)} samples/s",
        "size": lambda size: f"{human_bytes(round(size))}",
        "memory": lambda size: f"{human_bytes(round(size))} of memory",
        "macs": lambda count: f"{human_count(count)} multiply-adds",
    }
    return ", ".join(form(budget[name]) for name, form in shown.items() if budget[name] is not None)


def _speed(summary: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """Latency, or rate where that is limited, with the number of samples of a call."""
    measured = summary["measured"]
    if summary["budget"]["rate"] is not None:
        return f"{human_count(point['rate'])} samples/s in calls of {measured['rate_at']:,}"
    at = measured["latency_at"]
    return f"{human_time(point['latency_us'])} {'a sample' if at == 1 else f'a call of {at:,} samples'}"


def _quality(summary: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """The error as a multiple of the best candidate's, AUC or accuracy: on rows for judging, where there are some."""
    value = _judged(point)
    if value is None:
        return "error unknown"
    if summary["objective"] == "auc":
        return f"ROC AUC {1 - value:.4f}"
    if summary["objective"] == "probe":
        return f"accuracy of the linear probe {100 - 100 * value:.1f} %"
    least = min(other for one in summary["points"] if (other := _judged(one)) is not None)
    if value == least:
        return f"the least error of all, {value:.4g}"
    return f"error {value / least:.3g} times the best" if least else f"error {value:.4g}"


def _judged(point: Mapping[str, Any]) -> float | None:
    value = number(point["judged"])
    return number(point["loss"]) if value is None else value


def _tiles(summary: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, str]:
    """Figures of the best point, by what they are."""
    value = _judged(best)
    latency_at, rate_at = (summary["measured"][key] for key in ("latency_at", "rate_at"))
    found = {
        "one sample" if latency_at == 1 else f"a call of {latency_at:,}": human_time(best["latency_us"]),
        f"in calls of {rate_at:,}": f"{human_count(best['rate'])}/s",
        _OBJECTIVES[summary["objective"]]: _loss_shown(summary, value),
        "bundle": human_bytes(round(best["size"])),
    }
    if number(best["memory"]) is not None:
        found["memory"] = human_bytes(round(best["memory"]))
    found |= {"multiply-adds": human_count(best["macs"]), "latents": str(best["latent"])}
    reference = summary["reference"]
    if reference and reference["name"] != best["name"] and summary["objective"] == "error":
        base = _judged(reference)
        if base and value is not None:
            found["error against PCA's"] = f"{value / base:.3g}×"
    return found


def _loss_shown(summary: Mapping[str, Any], value: float | None) -> str:
    if value is None:
        return "–"
    return {"auc": f"{1 - value:.4f}", "probe": f"{100 - 100 * value:.1f} %"}.get(summary["objective"], f"{value:.4g}")


def _columns(summary: Mapping[str, Any]) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Headings of the table of points, and how a point is shown below them."""
    what = _OBJECTIVES[summary["objective"]]
    latency_at, rate_at = (summary["measured"][key] for key in ("latency_at", "rate_at"))

    def loss(key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda point: _loss_shown(summary, number(point[key]))

    def amount(key: str, form: Callable[[Any], str]) -> Callable[[Mapping[str, Any]], str]:
        return lambda point: "–" if number(point[key]) is None else form(point[key])

    found = [
        (f"{what}, judged", loss("judged")),
        (f"{what}, selection", loss("loss")),
        ("one sample" if latency_at == 1 else f"call of {latency_at:,}", amount("latency_us", human_time)),
        (f"samples/s, calls of {rate_at:,}", amount("rate", human_count)),
        ("size", amount("size", lambda size: human_bytes(round(size)))),
        ("memory", amount("memory", lambda size: human_bytes(round(size)))),
        ("multiply-adds", amount("macs", human_count)),
        ("latents", lambda point: str(point["latent"])),
    ]
    if summary["best"] is None or any(not point["meets"] for point in summary["points"]):
        found.append(("meets", lambda point: "yes" if point["meets"] else "no"))
    return found


def _facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """How it was measured, by what it is."""
    measured, rows, data = summary["measured"], summary["rows"], summary["data"]
    machine = measured["machine"] or {}
    parts = {"training": "for training", "selection": "for selection", "judging": "for judging"}
    agreement = number(measured["rank_agreement"])
    versions_there = [f"{name} {version}" for name, version in machine.get("versions", {}).items()]
    facts = {
        "measured on": measured["where"] or "a device",
        "processor": ", ".join(
            f"{machine[key]}{unit}"
            for key, unit in (("processor", ""), ("cpus", " CPUs"), ("memory_mb", " MB"))
            if machine.get(key)
        ),
        "system": ", ".join([machine["system"], *versions_there]) if machine else "",
        "method, threads": f"{measured['method']}, {measured['threads']}",
        "times within": f"±{100 * measured['noise']:.2g} %" if number(measured["noise"]) else "",
        "ranks of latencies": ""
        if agreement is None
        else f"Spearman's correlation {agreement:.2f} with the search's own",
        rows["what"]: ", ".join(f"{rows[name]:,} {what}" for name, what in parts.items()),
        "seed": str(summary["random_state"]),
        "time": f"{duration(summary['seconds'])} of {_limit(summary['time_limit'])}"
        + (f"; {why}" if (why := _STOPPED.get(summary["stopped"])) else ""),
        "data": f"{'×'.join(map(str, data['shape']))} {data['dtype']}, sha256 {data['sha256']}",
        "made with": ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
    }
    return {name: value for name, value in facts.items() if value}


def _limit(seconds: float | None) -> str:
    return "no limit" if seconds is None else duration(seconds)
