"""aeedge's `bind`: a sample is written into the slot's array, as with LiteRT's set, invoke, get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """One variant of one bundle of float32 input; the slot is made in `prepare`, when the batch changes."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import aeedge

        self._model = aeedge.load(f"{folder}/{options['bundle']}", variant=options["variant"], threads=threads)
        self._slot = self._model.bind()

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows as they are."""
        self._slot = self._model.bind(len(rows))
        return rows

    def encode(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Latents, valid until the next call."""
        self._slot.input[...] = rows
        return self._slot.encode()
