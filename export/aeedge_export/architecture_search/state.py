"""What a search has done so far, on disk: enough to go on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge_export.architecture_search.budget import Cost

try:
    import fcntl
except ImportError:  # Windows: two searches in a folder are not seen
    fcntl = None  # type: ignore[assignment]

STATE, FORMAT, VERSION = "search.json", "aeedge-search", 1


@dataclass
class Trial:
    """What is known of a candidate.

    Attributes:
        name: of the candidate.
        losses: on the selecting rows, by rung.
        cost: of its fp32 form after the first rung; None before.
        seconds: of its trainings.
        fault: why it cannot be trained or exported; empty where it can.
        bundles: of the finished network by variant: "id", "loss", "judged".
    """

    name: str
    losses: dict[int, float] = field(default_factory=dict)
    cost: Cost | None = None
    seconds: float = 0.0
    fault: str = ""
    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    macs: int = 0


@dataclass
class State:
    """A search on disk.

    Attributes:
        settings: what must not change when a search goes on: data, seed, candidates, objective, method, variants.
        trials: by name of candidate.
        measured: the last document of `aeedge bench --batch` of the finished bundles; empty before.
        curve: see `Search.curve`.
        selecting: number of rows that select.
        seconds: spent so far.
    """

    settings: dict[str, Any]
    trials: dict[str, Trial] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    selecting: int = 0
    seconds: float = 0.0

    def save(self, directory: Path) -> None:
        """Write search.json, completely or not at all."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        with atomic_file(directory / STATE, overwrite=True) as part:
            part.write_text(json.dumps(document, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> State:
        """Read search.json.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = directory / STATE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["version"] != VERSION:
                raise InputError(f"{path}: expected a search of version {VERSION}, got another; start a new one")
            trials = {name: _trial(one) for name, one in document["trials"].items()}
            kept = {name: document[name] for name in ("settings", "measured", "curve", "selecting", "seconds")}
            return cls(trials=trials, **kept)
        except OSError:
            raise InputError(
                f"{directory}: expected a folder that 'aeedge search' made, to go on with it; start a new one"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: is damaged ({type(error).__name__}); start a new search") from None

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with other data or settings.

        Raises:
            InputError: they differ; the message says in what.
        """
        wanted: dict[str, Any] = json.loads(json.dumps(settings))
        if self.settings.get("data") != wanted["data"]:
            raise InputError("X: expected the rows that the search began with, got others; start a new search")
        began, given = _flat(self.settings), _flat(wanted)
        for name in given | began:
            if began.get(name) != given.get(name):
                one, other = (_short(values.get(name, "the default")) for values in (began, given))
                raise InputError(f"{name}: expected what the search began with, {one}, got {other}; start a new search")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other searches out of a folder; the lock ends with the process.

    Raises:
        InputError: another search has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{directory}: another search is writing there; wait until it ends, or choose another folder"
            ) from None
        except OSError:  # the disk of another machine may have no locks
            pass
        yield
    finally:
        os.close(handle)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, the parameters of every Autoencoder among them."""
    rest = {name: value for name, value in settings.items() if name != "params"}
    return rest | dict(settings.get("params", {}))


def _trial(document: dict[str, Any]) -> Trial:
    cost = document["cost"]
    losses = {int(rung): float(loss) for rung, loss in document["losses"].items()}
    return Trial(**{**document, "losses": losses, "cost": None if cost is None else Cost(**cost)})


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
