"""Progress of training: one line of a terminal, a line for each tenth of the epochs elsewhere."""

from __future__ import annotations

from aeedge.system.progress import Pace, ProgressLine
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
    """Shows epoch, losses and the time left, on standard error.

    Args:
        epochs: at most.
        done: before these.
    """

    def __init__(self, epochs: int, done: int = 0) -> None:
        self._epochs, self._line, self._pace = epochs, ProgressLine(), Pace(done)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *args: object) -> None:
        self._line.end()

    def __call__(self, state: State) -> None:
        """Show an epoch."""
        last = state.history[-1]
        parts = [
            f"epoch {state.epoch}/{self._epochs}",
            f"validation {_short(last['validation_loss'])}",
            f"best {_short(state.best_loss)}",
            f"loss {_short(last['train_loss'])}",
            self._pace.left(state.epoch, self._epochs),
        ]
        self._line.show(parts, state.epoch / self._epochs)


def _short(loss: float) -> str:
    return f"{loss:.4f}" if 0.01 <= loss < 1000 else f"{loss:.3g}"
