"""Colours of pages and pictures, light and dark: readable on page and card, and apart for colour-blind eyes."""

from __future__ import annotations

COLOURS: dict[str, tuple[str, str]] = {  # by the name of the CSS variable: light, dark
    "ink": ("#1c1e21", "#e8eaed"),
    "soft": ("#5a5f6b", "#a3abb5"),
    "page": ("#ffffff", "#15171a"),
    "card": ("#f5f6f8", "#1f2226"),
    "line": ("#d5d8de", "#3a3f46"),
    "c1": ("#0b62a8", "#6db3f2"),
    "c2": ("#b04a00", "#ff9e57"),
    "c3": ("#00734f", "#4fc79a"),
    "c4": ("#9c3a75", "#e08cc0"),
    "c5": ("#7a6200", "#d9bb3c"),
    "c6": ("#4a5568", "#a3adbb"),
    "c7": ("#0e7490", "#5cc4d8"),
    "c8": ("#b3261e", "#ff8a80"),
}
SERIES = 8
"""How many colours tell things apart: c1 to c8."""


def series(index: int) -> str:
    """The colour of one of several things, for a presentation attribute; from the ninth on they come again."""
    return f"var(--c{index % SERIES + 1})"


def declarations(dark: bool) -> str:
    """The CSS variables of one mode."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())
