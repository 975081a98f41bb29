"""Numbers, times and dates for people."""

from __future__ import annotations

from datetime import datetime, timezone

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 6) -> str:
    """A number with at most so many significant digits: 0.0032, 12,400, −2×10⁻⁶."""
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:,.10g}".replace("-", "−")
    mantissa, exponent = f"{rounded:e}".split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    factor = f"{float(mantissa):g}".replace("-", "−")
    return power if factor == "1" else f"{factor}×{power}"


def percent(share: float) -> str:
    """A share with about two digits: 0.55 %, 44 %, 99.6 %."""
    value = 100 * share
    return f"{number(value, 3 if abs(value) > 99 else 2)}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """A time in its two largest units: 1.2 s, 1 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 9.95:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(i for i, (_, length) in enumerate(units) if whole >= length)
    parts = []
    for unit, length in units[first : first + 2]:
        parts.append(f"{whole // length} {unit}")
        whole %= length
    return " ".join(part for part in parts if not part.startswith("0 "))


def date(iso: str) -> str:
    """A time in ISO 8601 as 27 November 2026, 08:27 UTC; what is none stays as it is."""
    try:
        when = datetime.fromisoformat(iso).astimezone(timezone.utc)
    except ValueError:
        return iso
    return f"{when.day} {when:%B %Y, %H:%M} UTC"
