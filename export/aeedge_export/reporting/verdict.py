"""What the numbers of a run say: a sentence, and tiles with the figures it rests on."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from aeedge.errors import printable
from aeedge.table import human_bytes
from aeedge_export.alarms import rows_word
from aeedge_export.data.rows import CROSS
from aeedge_export.reporting.axes import shortened_name
from aeedge_export.reporting.evaluation import health, parameters, trades_error
from aeedge_export.reporting.wording import duration, number, percent
from aeedge_export.run import STOPPED, Run

_ALIKE = 0.02  # of PCA's error: less is no difference
_WEAK = 0.6  # ROC AUC below it: the score hardly tells classes apart
_WEAKER = {"vae": "lower --beta", "sparse": "weaken --sparsity", "contractive": "lower --contraction"}


class Tile(NamedTuple):
    """A figure.

    Attributes:
        name: what it is.
        value: for people.
        note: what else there is to know.
        bad: whether something should be done.
    """

    name: str
    value: str
    note: str = ""
    bad: bool = False


def verdict(run: Run) -> str:
    """Whether the run is any good and what to do if not, in a sentence."""
    clauses = [_training(run), *_purposes(run), _latents(run)]
    text = "; ".join(clause for clause in clauses if clause)
    return f"{text[0].upper()}{text[1:]}."


def health_of(run: Run) -> dict[str, Any]:
    """The health of the latents, of the evaluation; else of the rows that the run keeps."""
    found: dict[str, Any] = run.evaluation.get("health") or health(run.encode(run.sample))
    return found


def held_out(run: Run) -> bool:
    """Whether the training had not seen the rows that the run keeps and was evaluated on."""
    split = run.params["validation"] > 0 and run.params["calibration"] != CROSS
    known = split and run.fingerprint is not None  # runs of former versions do not say
    return bool(run.evaluation.get("held_out", known))


def loss_name(run: Run) -> str:
    """What the losses of the training are."""
    return f"{run.design.loss} + KL" if run.family == "vae" else run.design.loss


def ratio(run: Run) -> float | None:
    """The error as a multiple of PCA's; None where they were not compared, or PCA is exact."""
    if "baseline" not in run.evaluation:
        return None
    network, pca = (float(entry["error"]) for entry in run.evaluation["baseline"])
    return network / pca if pca else None


def explained(run: Run) -> float | None:
    """The share of the variance that reconstructions have; None where it is not known."""
    variance = run.evaluation.get("variance")
    return 1 - run.evaluation["baseline"][0]["error"] / variance if variance else None


def comparison_with(other: str, times: float) -> str:
    """An error as a multiple of another one in words: 56 % less error than PCA."""
    if abs(times - 1) <= _ALIKE:
        return f"as much error as {other}"
    if times < 1:
        return f"{percent(1 - times)} less error than {other}"
    if times < 2:
        return f"{percent(times - 1)} more error than {other}"
    return f"{number(times, 2)} times the error of {other}"


def _training(run: Run) -> str:
    """What is to be said of a training that did not end as it should."""
    state = run.state
    if state.stopped == "diverged":
        return f"the training diverged in epoch {state.epoch}: try a lower --learning-rate"
    if state.stopped in ("interrupted", "running"):
        return f"the training was interrupted after {_epochs(state.epoch)}: continue it with --resume"
    return ""


def _purposes(run: Run) -> list[str]:
    """Reconstruction and alarms; these first where labels say how good they are."""
    found = [_reconstruction(run), _alarms(run)]
    return found[::-1] if "roc_auc" in run.evaluation.get("detection", {}).get("labels", {}) else found


def _reconstruction(run: Run) -> str:
    """Against PCA, and whether that would be the better choice."""
    latents = _count(run.design.latent, "latent")
    if "baseline" not in run.evaluation:
        return f"validation loss {number(run.state.best_loss, 3)} with {latents}, not compared with PCA"
    seen = "" if held_out(run) else ", on rows that it was trained on"
    network, pca = run.evaluation["baseline"]
    if run.family == "pca":
        share = explained(run)
        kept = "" if share is None else f" keeps {percent(share)} of the variance"
        return f"PCA is exact here, {latents} lose nothing" if not pca["error"] else f"PCA with {latents}{kept}{seen}"
    if not pca["error"]:
        return f"PCA is exact here with {latents}: use --family pca"
    times = network["error"] / pca["error"]
    found = comparison_with(f"PCA with {latents}", times) + seen
    if times < 1 - _ALIKE:
        return found
    if trades_error(run) and times > 1 + _ALIKE:
        return f"{found}, which this recipe trades for anomaly scores (for compression: --goal compress)"
    if times > 1 + _ALIKE:
        others = [_WEAKER[run.family]] if run.family in _WEAKER else []
        others += ["train longer"] if _still_improving(run) else []
        return found if _training(run) else f"{found}: {' or '.join(['use --family pca', *others])}"
    if pca["multiply_adds"] < network["multiply_adds"]:
        return f"{found}: use --family pca, which has fewer multiply-adds"
    return f"{found}, with fewer multiply-adds"


def _still_improving(run: Run) -> bool:
    """Whether more epochs than those that were asked for could have helped."""
    state = run.state
    return state.stopped == "epochs" and run.params["epochs"] != "auto" and state.best_epoch > 0.9 * state.epoch


def _alarms(run: Run) -> str:
    """How many false alarms to expect, what labelled anomalies are found, whether it holds later."""
    alarm, found = run.alarm, run.evaluation.get("detection", {}).get("labels", {})
    if "roc_auc" in found:
        name = f"'{shortened_name(printable(found['anomalous'], None), 30)}'"
        if found["roc_auc"] < _WEAK:
            return f"the score does not tell {name} from the rest (ROC AUC {found['roc_auc']:.2f})"
        caught = detected(found)
        if alarm is None or caught is None:
            return f"ROC AUC {found['roc_auc']:.3f} for {name}, no threshold"
        tail = f" at {percent(alarm.rate)} false alarms" if run.inflation <= 1 else ""
        return f"finds {percent(caught)} of {name}{tail} (ROC AUC {found['roc_auc']:.3f}){_drift(run)}"
    if alarm is None:
        compress = run.params.get("goal") == "compress"
        return "" if compress else "no alarm threshold, for no rows were held out to calibrate it"
    if run.inflation > 1:
        return f"the threshold {number(alarm.threshold, 4)} promises no false-alarm rate, for so short a recording"
    return f"{percent(alarm.rate)} false alarms at threshold {number(alarm.threshold, 4)}{_drift(run)}"


def _drift(run: Run) -> str:
    drift = {} if run.alarm is None else run.alarm.drift
    if not drift or not drift["drift"]:
        return ""
    return f", but {drift['alarms']:,} of {drift['rows']:,} later {rows_word(run.signal)} raise an alarm: drift"


def detected(labels: dict[str, Any]) -> float | None:
    """The share of the anomalous class that raises an alarm; None without a threshold."""
    for one in labels["classes"]:
        if one["name"] == labels["anomalous"] and "alarms" in one and one["rows"]:
            return float(one["alarms"] / one["rows"])
    return None


def _latents(run: Run) -> str:
    """Latents that carry nothing."""
    found = health_of(run)
    dead, count = found["dead"], len(found["variance"])
    if dead == count:
        return "all latents are constant: nothing was learned"
    return f"{dead} of {count} latents {'is' if dead == 1 else 'are'} dead: try --latent {count - dead}" if dead else ""


def tiles(run: Run) -> list[Tile]:
    """The figures of a run."""
    return [tile for tile in (_error(run), _alarm(run), _labels(run), _health(run), *_costs(run)) if tile is not None]


def _error(run: Run) -> Tile:
    if "baseline" not in run.evaluation:
        return Tile("validation loss", number(run.state.best_loss, 3), "not compared with PCA")
    network, pca = run.evaluation["baseline"]
    share = explained(run)
    note = f"{number(network['error'], 3)}; PCA {number(pca['error'], 3)}"
    note = note if share is None else f"{percent(share)} of the variance kept"
    times = ratio(run)
    if times is None:
        return Tile("error", number(network["error"], 3), "PCA is exact here", run.family != "pca")
    worse = times > 1 + _ALIKE and run.family != "pca" and not trades_error(run)
    return Tile("error, PCA = 1", number(times, 3), note, worse)


def _alarm(run: Run) -> Tile | None:
    alarm = run.alarm
    if alarm is None:
        return None if run.params.get("goal") == "compress" else Tile("false alarms", "–", "no threshold")
    note = f"threshold {number(alarm.threshold, 4)}, from {alarm.rows:,} {rows_word(run.signal)}"
    if run.inflation > 1:
        return Tile("threshold", number(alarm.threshold, 4), "by cross-validation, promises no rate")
    return Tile("false alarms", percent(alarm.rate), note, bool(alarm.drift and alarm.drift["drift"]))


def _labels(run: Run) -> Tile | None:
    found = run.evaluation.get("detection", {}).get("labels", {})
    if "roc_auc" in found:
        caught = detected(found)
        name = shortened_name(printable(found["anomalous"], None), 24)
        note = f"for {name}" if caught is None else f"{percent(caught)} of {name} found"
        return Tile("ROC AUC", f"{found['roc_auc']:.3f}", note, found["roc_auc"] < _WEAK)
    probes = [row.get("probe") for row in run.evaluation.get("baseline", ())]
    if not probes or probes[0] is None:
        return None
    return Tile("linear probe", percent(probes[0]), f"of classes right, PCA {percent(probes[1])}")


def _health(run: Run) -> Tile:
    found = health_of(run)
    dead, count = found["dead"], len(found["variance"])
    note = f"{dead or 'none'} dead, effective rank {found['effective_rank']:.1f}"
    return Tile("latents", f"{count:,}", note, bool(dead))


def _costs(run: Run) -> list[Tile]:
    state, weights = run.state, parameters(run.network)
    shape = "×".join(map(str, run.input_shape))
    seconds = math.fsum(epoch.get("seconds", 0.0) for epoch in state.history)
    epochs = f"epoch {state.best_epoch:,} of {state.epoch:,} is the best"
    if state.stopped == "solved":
        epochs = STOPPED["solved"]
    elif not state.best_epoch:
        epochs = f"none of {_epochs(state.epoch)} better than the start at PCA"
    return [
        Tile(rows_word(run.signal), f"{run.rows:,}", f"of {shape} {run.dtype}"),
        Tile("training", duration(seconds), epochs),
        Tile("size", human_bytes(4 * weights), f"{weights:,} weights of fp32"),
    ]


def _epochs(count: int) -> str:
    return _count(count, "epoch")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
