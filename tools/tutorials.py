"""Execute the tutorials, notebooks in docs/tutorials/*.py (jupytext's percent format), and make pages of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sources() -> list[Path]:
    """The notebooks, in order."""
    return sorted((ROOT / "docs" / "tutorials").glob("[0-9]*.py"))


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of each."""
    yield from ()
