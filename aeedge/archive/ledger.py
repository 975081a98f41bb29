"""What is known of a job in its output folder: its plan, a record of each part that is done, and that all are.

A worker writes a part's file under another name, moves it to its own, and then writes the record. What has no record
is done again: the result has the same name and the same bytes, so nothing is there twice, whoever was killed when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aeedge.archive.engines import Outcome
from aeedge.archive.storage import Place, entries, read, remove, write
from aeedge.errors import InputError

FOLDER, SUCCESS = "_aeedge", "_SUCCESS"
_JOB, _RECORDS, _SCRATCH, _MANIFEST = "job.json", "parts", "tmp", "manifest.json"
_READERS = 16


def file_name(number: int) -> str:
    """Of a part's result."""
    return f"part-{number:05d}.parquet"


class Ledger:
    """The records of a job.

    Args:
        output: its folder.
        identity: of bundle, settings and plan; two jobs of one identity give the same bytes.
    """

    def __init__(self, output: Place, identity: str) -> None:
        self.output, self.identity = output, identity
        self.folder = output / FOLDER
        self.scratch = self.folder / _SCRATCH

    def begin(self, job: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Claim the folder, and write what there is to do.

        Args:
            job: settings, for people and for what a later run compares itself with.
            resume: whether to go on where another run of the same job ended.
            overwrite: whether to remove the results of a run.

        Raises:
            InputError: the folder holds results of another run, or of this one and neither is asked for; other files.
        """
        before = self._json(self.folder / _JOB)
        there = [info.base_name for info in entries(self.output)]
        foreign = sorted(name for name in there if name not in (FOLDER, SUCCESS) and not _is_part(name))
        if foreign or (there and before is None):
            raise InputError(
                f"{self.output.name}: expected a new or empty folder, or one with results of aeedge, it holds "
                f"{(foreign or there)[0]!r}; give another one"
            )
        if before is not None and not overwrite:
            if before.get("identity") != self.identity:
                raise InputError(
                    f"{self.output.name}: holds the results of another run ({_difference(before, job)}); give another "
                    "folder, or overwrite=True to remove them"
                )
            if not resume:
                state = "the results of this run" if self._manifest() else "a part of the results of this run"
                raise InputError(
                    f"{self.output.name}: holds {state} already; resume=True goes on, overwrite=True begins anew"
                )
        if before is not None and overwrite:
            self.clear(there)
            before = None
        if before is None:
            write(self.folder / _JOB, _document({"identity": self.identity, **job}), self.scratch)

    def clear(self, names: list[str]) -> None:
        """Remove results: first what says that they are complete, last what says that they are ours."""
        remove(self.output / SUCCESS)
        remove(self.folder / _MANIFEST)
        remove(self.folder / _RECORDS)
        for name in names:
            if _is_part(name):
                remove(self.output / name)
        remove(self.folder)

    def record(self, outcome: Outcome, size: int, more: Mapping[str, Any]) -> None:
        """Write down that a part is done, and its file has so many bytes; by the worker, last of all."""
        found = {name: getattr(outcome, name) for name in _KEPT}
        document = _document({"identity": self.identity, "bytes": size, **found, **more})
        write(self.folder / _RECORDS / f"{outcome.number:05d}.json", document, self.scratch)

    def finished(self) -> dict[int, Outcome]:
        """The parts that are done, whose files are there."""
        sizes = {info.base_name: info.size for info in entries(self.output)}
        records = [self.folder / _RECORDS / info.base_name for info in entries(self.folder / _RECORDS)]
        with ThreadPoolExecutor(_READERS) as pool:
            found = [each for each in pool.map(self._json, records) if each and each.get("identity") == self.identity]
        return {
            each["number"]: Outcome(**{name: each[name] for name in _KEPT})
            for each in found
            if not each["written"] or sizes.get(file_name(each["number"])) == each["bytes"]
        }

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write that all is done, for this program and for others."""
        write(self.folder / _MANIFEST, _document({"identity": self.identity, **summary}), self.scratch)
        write(self.output / SUCCESS, b"", self.scratch)
        remove(self.scratch)

    def check(self, parts: Mapping[int, Outcome]) -> None:
        """See that the folder holds the files of these parts, and no others.

        Raises:
            InputError: it does not.
        """
        expected = {file_name(number) for number, outcome in parts.items() if outcome.written}
        there = {info.base_name for info in entries(self.output) if _is_part(info.base_name)}
        if there != expected:
            name = min(there ^ expected)
            what = "is missing" if name in expected else "is none of this run"
            raise InputError(f"{(self.output / name).name}: {what}; somebody else changed the folder: run with resume")

    def _manifest(self) -> Any:
        return self._json(self.folder / _MANIFEST)

    def _json(self, place: Place) -> Any:
        data = read(place)
        try:
            found = None if data is None else json.loads(data)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


_KEPT = ("number", "rows", "written", "set_aside", "host", "variant", "seconds")


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _difference(before: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """In what two jobs differ, in words."""
    names = [name for name in job if before.get(name) != job[name]]
    return ", ".join(f"another {name.replace('_', ' ')}" for name in names) or "of another version of aeedge"


def _document(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
