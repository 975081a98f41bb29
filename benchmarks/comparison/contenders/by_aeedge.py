"""aeedge with all its checks; rows of a uint8 bundle are pixels 0 to 255."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """One variant of one bundle."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import aeedge

        self._dtype = options["dtype"]
        self._model = aeedge.load(f"{folder}/{options['bundle']}", variant=options["variant"], threads=threads)
        self.encode = self._model.encode

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of the bundle's dtype."""
        return rows if self._dtype == "float32" else (rows * 255).round().astype(self._dtype)
