"""What a stream has done, as Prometheus text for the node exporter's textfile collector."""

from __future__ import annotations

import os

from aeedge.files.atomic import atomic_file

_METRICS = (  # name, type, what it is
    ("windows_total", "counter", "Windows and gaps that the stream told of."),
    ("alarms_total", "counter", "Alarms that began."),
    ("bad_windows_total", "counter", "Windows and gaps with the verdict bad input."),
    ("unreadable_total", "counter", "Lines or messages that could not be read."),
    ("lag_seconds", "gauge", "From a window's last sample, or from when it was read, to its result."),
    ("drift", "gauge", "Distance of the latest windows from training; 1 or more is drift."),
    ("score", "gauge", "Anomaly score of the latest window."),
    ("alarm", "gauge", "Whether the alarm is on."),
    ("last_window_timestamp_seconds", "gauge", "When the latest window was scored, since 1970."),
)


class Metrics:
    """Counters and the latest values, by the names in the text without "aeedge_"; those that are None are left out.

    Args:
        model: name of the bundle, the label of all.
    """

    def __init__(self, model: str) -> None:
        escaped = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        self._label = f'{{model="{escaped}"}}'
        self.values: dict[str, float | None] = {name: 0 if kind == "counter" else None for name, kind, _ in _METRICS}

    def text(self) -> str:
        """Prometheus's text format."""
        lines = []
        for name, kind, what in _METRICS:
            value = self.values[name]
            if value is not None:
                number = "NaN" if value != value else f"{value:.17g}"
                head = f"# HELP aeedge_{name} {what}\n# TYPE aeedge_{name} {kind}\n"
                lines.append(f"{head}aeedge_{name}{self._label} {number}\n")
        return "".join(lines)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Replace a file by the text.

        Raises:
            InputError: it cannot be written.
        """
        with atomic_file(path, overwrite=True) as part:
            part.write_text(self.text(), encoding="utf-8")
