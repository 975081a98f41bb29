"""What `aeedge train` does: a file of rows to a run."""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, strftime
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray

import aeedge_export.autoencoder as workstation
from aeedge.cli.reading import of_files
from aeedge.cli.wording import reworded, say
from aeedge.detection.calibration import ThresholdRule
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_folder, is_same
from aeedge_export.alarms import rows_word
from aeedge_export.cli import processes
from aeedge_export.cli.training_data import (
    Reading,
    TrainingData,
    label_file,
    reading_of,
    time_order,
)
from aeedge_export.cli.windows import evaluate_windows, read_windows, summarize
from aeedge_export.data.cutting import Windows
from aeedge_export.data.dataset import Dataset, Selection
from aeedge_export.data.files import read
from aeedge_export.data.missing import treat_as_trained
from aeedge_export.data.recording_files import selected_alike
from aeedge_export.data.rows import row_keys
from aeedge_export.reporting.detection import described
from aeedge_export.reporting.evaluation import against_pca
from aeedge_export.reporting.page import render
from aeedge_export.run import STOPPED, Run
from aeedge_export.training import distributed

if TYPE_CHECKING:
    from aeedge_export.training.loop import State

_CHECKPOINT_SECONDS = 10.0


def run(
    ctx: click.Context,
    /,
    data: tuple[str, ...],
    output: str,
    weights: str | None,
    stream: bool | None,
    resume: bool,
    quiet: bool,
    force: bool,
    nproc: int | str,
    max_restarts: int,
    calibration_files: tuple[str, ...],
    false_alarm_rate: float | None,
    quantile: float | None,
    threshold: float | None,
    contamination: float,
    linear_path: str,
    seed: int,
    gradient_clip: float,
    out: str,
    **params: Any,
) -> None:
    """Train, evaluate, save and summarise; the parameters are those of the command.

    Raises:
        InputError: data or options that do not fit.
    """
    target = Path(output)
    rule = ThresholdRule(false_alarm_rate, quantile, threshold, contamination).checked()
    _check_options(ctx, resume=resume)
    check_folder(target, overwrite=True, inputs=[*data, *calibration_files, label_file(params["labels"])])
    restarted = _restarted(target)
    if target.exists() and not (resume or force or restarted):
        raise InputError(
            f"{target}: already exists; choose another name, overwrite it (--force) or continue it (--resume)"
        )
    if (count := _processes(nproc, data)) > 1:
        ctx.exit(processes.launch(ctx.meta["args"], count, max_restarts))
    resumed = restarted or (_resumed(target, params) if resume else None)
    reading = reading_of(params, weights)
    selection, cutting = reading.selection, reading.cutting
    if stream and cutting is not None:
        raise InputError("--stream: recordings are cut into windows in memory; cut them first, and stream the windows")
    times = resumed is None and params["time_ordered"] is not False
    streaming = reading._replace(selection=replace(selection, stream=stream))
    training = streaming.read(data, like=None if resumed is None else resumed.run_.signal, times=times)
    found, windows = training.rows, training.windows
    calibration_rows = _read_calibration(calibration_files, training, reading)
    saved, launch = monotonic(), processes.launch_id()

    def checkpoint(state: State) -> None:
        nonlocal saved, target
        if not distributed.rank() and (launch or monotonic() - saved >= _CHECKPOINT_SECONDS):
            ae.run_.launch = launch
            target = _save(ae, target)
            saved = monotonic()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notes are printed below
        if resumed is not None:
            ae = resumed
            ae.verbose = not quiet
            epochs = params["epochs"]
            if restarted is None or ae.run_.state.stopped == "running":  # otherwise only the evaluation is missing
                ae.resume(found.X, epochs=None if epochs == "auto" else epochs, on_epoch=checkpoint)
        else:
            params |= {"output": out, "gradient_clip": gradient_clip or None, "random_state": seed}
            params["time_ordered"] = time_order(found, params["time_ordered"])
            params["linear_path"] = linear_path if linear_path == "auto" else linear_path == "yes"
            ae = workstation.Autoencoder(**params, verbose=not quiet)
            known: dict[str, Any] = {
                **training.known,
                "calibration_rows": calibration_rows,
                "rule": None if rule == ThresholdRule() else rule,
            }
            with of_files(data, ""):
                ae.fit_rows(found.X, **known, sample_weight=found.weights, on_epoch=checkpoint)
        if distributed.rank():
            return  # process 0 writes
        target = _save(ae, target)  # before the evaluation: whatever happens there, the training is kept
        ae.evaluate(found.X, found.labels)
        tested = selection.select is not None and selection.labels is not None and "-" not in data
        if tested and windows is not None and cutting is not None:
            evaluate_windows(ae, data, selection, cutting, windows)
        elif tested:
            test = _all_rows(data, selection, ae)
            fitted = row_keys(found.X[ae.run_.split(len(found.X)).fitted], test.X.dtype)
            held_out = np.flatnonzero(~np.isin(row_keys(test.X, test.X.dtype), fitted))
            ae.evaluate_detection(test.X, test.labels, held_out=held_out)
    target = _save(ae, target)
    with atomic_file(target / "report.html", overwrite=True) as part:
        part.write_text(render(ae.run_), encoding="utf-8")
    _summarize(ae, target, ctx.command, windows)


def _processes(asked: int | str, data: Sequence[str]) -> int:
    """How many processes to start; 1 to train in this one.

    Raises:
        InputError: a number that cannot be.
    """
    among = distributed.size()
    if isinstance(asked, int) and (asked < 1 or (distributed.launched() and asked not in (1, among))):
        started = f", or the {among} that torchrun started" if distributed.launched() else ""
        raise InputError(f"--nproc: expected 'auto' or a number of at least 1{started}, got {asked}")
    count = among if distributed.launched() else processes.how_many(asked)
    if not distributed.launched() and count > (most := processes.most()):
        raise InputError(f"--nproc: expected at most {most} processes on this machine, got {count}; use 'auto'")
    if count > 1 and "-" in data:
        raise InputError(f"--nproc: {count} processes cannot all read standard input; write it to a file first")
    return 1 if distributed.launched() else count


def _restarted(target: Path) -> workstation.Autoencoder | None:
    """The run that this launch had saved before a process of it was killed; None at its start, and without torchrun."""
    if not processes.restarts() or not (target / "run.json").is_file():
        return None
    ae = workstation.Autoencoder.load(target)
    if ae.run_.launch != processes.launch_id():
        return None
    if not distributed.rank():
        say(f"Note: a process ended; all were started again, and continue after epoch {ae.run_.state.epoch}", err=True)
    return ae


def _resumed(target: Path, params: dict[str, Any]) -> workstation.Autoencoder:
    """The run to continue; what its windows are is put into `params`.

    Raises:
        InputError: no run, or options that it keeps.
    """
    ae = workstation.Autoencoder.load(target)
    given = next((name for name in ("window", "hop", "calendar") if params[name] is not None), None)
    if given is not None:
        raise InputError(f"--{given}: a run that is continued keeps its windows; leave it out, or train a new run")
    if (signal := ae.run_.signal) is not None:
        params |= {"window": signal.window, "hop": signal.hop, "calendar": ",".join(signal.calendar) or None}
    return ae


def _all_rows(data: Sequence[str], selection: Selection, ae: workstation.Autoencoder) -> Dataset:
    """Labelled rows to test detection with: also those that were not selected, with the same columns."""
    whole = replace(selection, select=None, columns=ae.run_.features or (), drop=())
    return treat_as_trained(read(*data, selection=whole, missing=True), ae.run_.input_spec)


def _read_calibration(files: Sequence[str], training: TrainingData, reading: Reading) -> NDArray[Any] | None:
    """The rows of --calibration, None without."""
    if not files:
        return None
    selection, cutting, missing = reading
    if cutting is not None and training.windows is not None:
        like, note = selected_alike(files[0], replace(selection, labels=None))
        if note:
            say(f"Read for calibration: {note}", err=True)
        return read_windows(files, like, cutting, training.windows.signal, keep=True, of=" for calibration").X
    rows = read(*files, selection=selection, missing=missing != "refuse", like=training.rows)
    for note in rows.notes:
        if not note.startswith("inputs ("):  # they are those of the training
            say(f"Read for calibration: {note}", err=True)
    return rows.X


def _save(ae: workstation.Autoencoder, target: Path) -> Path:
    """Save; beside `target` if somebody put other files there during the training. Gives the place."""
    try:
        ae.save(target, overwrite=True)
        return target
    except InputError as error:
        other = target.with_name(f"{target.name}-{strftime('%Y%m%d-%H%M%S')}")
        try:
            ae.save(other)
        except InputError:
            raise error from None
        click.echo(f"Note: {error}; the run is saved as {other}", err=True)
        return other


def _check_options(ctx: click.Context, *, resume: bool) -> None:
    """Refuse what would be ignored or cannot be given here."""
    if ctx.params["family"] == "custom":
        raise InputError("family: custom networks are torch modules, which only Python can pass: see Autoencoder")
    settings = {*inspect.signature(workstation.Autoencoder).parameters, *ThresholdRule._fields}
    settings = settings - {"output", "epochs"} | {"out", "seed", "calibration_files"}
    for option in ctx.command.params if resume else ():
        if option.name in settings and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise InputError(
                f"{option.opts[0]}: a run that is continued keeps its settings; leave it out, or train a new run"
            )
    for file in ctx.params["calibration_files"]:
        if any(is_same(Path(file), Path(other)) for other in ctx.params["data"]):
            raise InputError(
                f"--calibration: expected rows that are not trained on, got {file}, which is DATA as well; leave it "
                "out, then a share of DATA is held out"
            )
    if ctx.params["calibration_files"] and ctx.params["calibration"] != "auto":
        raise InputError("--calibration: expected a file or a share (--calibration-share), got both; leave one out")


def _parts(run: Run) -> str:
    """How many rows served what."""
    parts = run.split(run.rows)
    counts = [f"{len(parts.train):,} {rows_word(run.signal)} to train on", f"{len(parts.validation):,} for validation"]
    given = len(parts.calibration) or (0 if run.calibration is None else len(run.calibration))
    counts += [f"{given:,} for calibration"] if given else []
    return ", ".join(counts + ([f"{len(parts.later):,} later"] if len(parts.later) else []))


def _summarize(
    ae: workstation.Autoencoder, target: Path, command: click.Command, windows: Windows | None = None
) -> None:
    for note in ae.notes_:
        say(f"Note: {reworded(note, command)}", err=True)
    state = ae.run_.state
    shape = "×".join(map(str, ae.run_.input_shape))
    widths = "-".join(map(str, (shape, *ae.design_.hidden, ae.design_.latent)))
    best = f"best epoch {state.best_epoch} of {state.epoch}"
    if not state.best_epoch:
        best = f"none of {state.epoch} epochs better than the start at PCA"
    say(
        f"wrote {target}: {ae.family} {widths}, {best} ({STOPPED[state.stopped]}), "
        f"validation loss {state.best_loss:.6g}"
    )
    if windows is not None:
        summarize(windows)
    health = ae.evaluation_["health"]
    say(
        f"latents: {health['dead']} dead of {len(health['variance'])}, effective rank {health['effective_rank']:.1f}, "
        f"{health['active']:.0%} of values active"
    )
    say(f"held-out error {reworded(against_pca(ae.run_), command)}; report in {target / 'report.html'}")
    for line in described(ae.run_):
        say(line)
    if ae.run_.alarm is None and ae.run_.rows < 495 and ae.goal != "compress":
        say(
            "no alarms: of fewer than 495 rows none are held out by default; take more rows, or --calibration-share 0.2"
        )
    say(f"{_parts(ae.run_)}; scaling {ae.scaler_.kind}; threads {state.threads}")
    say(f"next: aeedge export {shlex.quote(str(target))} -o {shlex.quote(target.name + '.aeedge')}")
