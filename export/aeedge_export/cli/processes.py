"""`aeedge train` in several processes: how they are started, what each of them prints, and how they end.

Processes that end by themselves, with or without an error, are final: only killed ones make torchrun start all again.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

import click
import torch

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge.system.limits import cpu_count
from aeedge_export.training.distributed import LostProcessError, local, rank

_OTHERS_SECONDS = 2.0  # that the others are given to meet the same error
_LOST_SECONDS = 10.0  # torchrun ends the processes that are left within a fraction of one
_STOP = "interrupted"  # a file in the folder of `launch`
_INTERRUPTED = 130  # as a shell reports what SIGINT ends


def launch_id() -> str:
    """What this process and those of its restarts have in common; "" without torchrun."""
    return "" if (place := _place()) is None else place.name


def restarts() -> int:
    """How often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _place() -> Path | None:
    """torchrun's folder for this launch, on this machine."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(file).parents[2] if file else None  # FOLDER/attempt_N/RANK/error.json


def work(args: Sequence[str]) -> int:
    """Run `aeedge train ARGS` in one of several processes: number 0 prints. Gives the exit code."""
    place, (number, processes) = _place(), local()
    if place is not None:
        if ended := sorted(place.glob("ended-*")):  # restarted after an error that would come again
            return int(ended[0].read_text())
        if (place.parent / _STOP).exists():  # Ctrl-C while processes were starting
            return _INTERRUPTED
        with suppress(OSError, AttributeError):  # a Ctrl-C comes once, from torchrun
            os.setpgrp()
    code, message, lost = _run(args)
    if lost:
        time.sleep(_LOST_SECONDS)
        sys.exit(code)
    if not code:
        return 0
    alone = False
    if place is not None:
        (place / f"ended-{number}").write_text(str(code))
        end = time.monotonic() + _OTHERS_SECONDS
        while (alone := len(list(place.glob("ended-*"))) < processes) and time.monotonic() < end:
            time.sleep(0.02)
    if number == 0 or alone:
        click.echo(message, err=True, nl=False)
    if alone:
        sys.exit(code)  # so that torchrun ends the others
    return code


def _run(args: Sequence[str]) -> tuple[int, str, bool]:
    """Exit code, what is to be said of an error, and whether it is that another process ended."""
    said = io.StringIO()
    main = rank() == 0
    with redirect_stdout(sys.stdout if main else said), redirect_stderr(sys.stderr if main else said):
        try:
            group = AeedgeGroup.build()
            return int(group.main(["train", *args], "aeedge", standalone_mode=False) or 0), "", False
        except click.ClickException as error:
            text = io.StringIO()
            error.show(text)
            return error.exit_code, text.getvalue(), isinstance(error.__cause__, LostProcessError)
        except click.Abort:
            return _INTERRUPTED, "\nAborted!\n", False
        except Exception:
            return 1, traceback.format_exc(), False


def how_many(asked: int | str) -> int:
    """The number of processes: "auto" is one for each CUDA device, or for each CPU where there are none."""
    if isinstance(asked, int):
        return asked
    return torch.cuda.device_count() or cpu_count()


def most() -> int:
    """The largest number of processes to start here: more than CPUs are no faster, and each takes memory."""
    return max(16, 4 * cpu_count(), torch.cuda.device_count())


def launch(args: Sequence[str], processes: int, most_restarts: int) -> int:
    """Run `aeedge train ARGS` in so many processes on this machine, by torchrun's agent. Gives the exit code.

    Raises:
        InputError: a process was killed more often than it may be started again.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException  # takes a while
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if processes > (cpus := cpu_count()) and not torch.cuda.is_available():
        click.echo(f"Note: {processes} processes share {cpus} CPUs; no more than --nproc {cpus} are faster", err=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    for name in (
        "torch.distributed.elastic",
        "torch.distributed.elastic.agent.server.api",
        "torch.multiprocessing.spawn",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what they log is said here
    interrupted = 0

    def pass_on(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted += 1
        (Path(folder) / _STOP).touch()
        for child in multiprocessing.active_children():
            with suppress(OSError, TypeError):
                os.kill(child.pid, signum)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory(prefix="aeedge-") as folder:
        before = signal.signal(signal.SIGINT, pass_on)
        try:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=Path(folder).name,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=most_restarts,
                logs_specs=DefaultLogsSpecs(log_dir=folder),
                signals_to_handle="SIGTERM,SIGHUP,SIGQUIT",
            )
            return int(elastic_launch(config, work)(list(args))[0])
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            if interrupted:
                return _INTERRUPTED
            if failure.exitcode > 0:  # it has said why
                return failure.exitcode
            raise InputError(
                f"--nproc: a process was ended by {signal.Signals(-failure.exitcode).name} again after {most_restarts} "
                "restarts (--max-restarts); --resume continues from the last epoch, with fewer processes if memory is "
                "short"
            ) from None
        except SignalException as error:  # to end: systemctl stop, a closed terminal
            return 128 + int(error.sigval)
        finally:
            signal.signal(signal.SIGINT, before)
