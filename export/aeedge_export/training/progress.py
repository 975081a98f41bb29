"""Progress of training: a bar in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aeedge_export.training.loop import State


class Silence:
    """No output."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __call__(self, state: State) -> None:
        """Ignore an epoch."""


class Progress:
    """Shows epoch, losses and the time left, on standard error."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("epochs  loss {task.fields[loss]}  validation {task.fields[validation]} {task.fields[best]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=epochs, loss="–", validation="–", best="")

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, state: State) -> None:
        """Show an epoch."""
        last = state.history[-1]
        loss, validation = f"{last['train_loss']:.5f}", f"{last['validation_loss']:.5f}"
        if self._console.is_terminal:
            best = f"(best {state.best_loss:.5f})"
            self._bar.update(self._task, completed=state.epoch, best=best, loss=loss, validation=validation)
            return
        left = last["seconds"] * (self._epochs - state.epoch)
        print(
            f"epoch {state.epoch}/{self._epochs}  loss {loss}  validation {validation}"
            f"{' *' if state.best_epoch == state.epoch else ''}  {left:.0f} s left",
            file=self._console.file,
            flush=True,
        )
