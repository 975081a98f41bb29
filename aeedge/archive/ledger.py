"""What is known of a job in its output folder: its plan, a record of each part that is done, and that all are.

A worker writes a part's file under another name, moves it to its own, and then writes the record. What has no record
is done again: the result has the same name and the same bytes, so nothing is there twice, whoever was killed when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aeedge.archive.parts import Part
from aeedge.archive.storage import Place, entries, is_file, read, remove, write
from aeedge.archive.work import Outcome
from aeedge.errors import InputError, printable

FOLDER, SUCCESS, UNREADABLE = "_aeedge", "_SUCCESS", "unreadable.jsonl"
SCRATCH = f"{FOLDER}/tmp"
"""Where files are until they are whole."""
_JOB, _RECORDS, _MANIFEST = "job.json", "parts", "manifest.json"
_BAD_ROWS = "bad_rows"
_READERS = 16


def file_name(number: int) -> str:
    """Of a part's result."""
    return f"part-{number:06d}.parquet"


class Ledger:
    """The records of a job.

    Args:
        output: its folder.
        identity: of bundle, settings and plan; two jobs of one identity give the same bytes.
    """

    def __init__(self, output: Place, identity: str) -> None:
        self.output, self.identity = output, identity
        self.folder = output / FOLDER
        self.scratch = output / SCRATCH

    def look(self, job: Mapping[str, Any], *, resume: bool, overwrite: bool) -> list[str]:
        """See whether the folder is free for this job; gives what is in it.

        Args:
            job: settings, for people and for what a later run compares itself with.
            resume: whether to go on where another run of the same job ended.
            overwrite: whether the results of a run may be removed.

        Raises:
            InputError: the folder holds results of another run, or of this one and neither is asked for; other files.
        """
        if is_file(self.output):
            raise InputError(f"{self.output.name}: expected a new or empty folder, it is a file; give another name")
        before = self._json(self.folder / _JOB)
        there = [info.base_name for info in entries(self.output)]
        foreign = sorted(name for name in there if name != FOLDER and not (before and _is_ours(name)))
        if foreign:
            raise InputError(
                f"{self.output.name}: expected a new or empty folder, or one with results of aeedge, it holds "
                f"'{printable(foreign[0])}'; give another one"
            )
        if before is not None and not overwrite:
            self._check_same(before, job, resume)
        return there

    def begin(self, job: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Claim the folder, and write what there is to do; see `look`."""
        there = self.look(job, resume=resume, overwrite=overwrite)
        before = self._json(self.folder / _JOB)
        if before is not None and overwrite:
            self._clear(there)
            before = None
        if before is None or before.get(_BAD_ROWS) != job.get(_BAD_ROWS):
            write(self.folder / _JOB, _document({"identity": self.identity, **job}), self.scratch)

    def _check_same(self, before: Mapping[str, Any], job: Mapping[str, Any], resume: bool) -> None:
        if before.get("identity") != self.identity:
            raise InputError(
                f"{self.output.name}: holds the results of another run ({_difference(before, job)}); give another "
                "folder, or overwrite=True to remove them"
            )
        if not resume:
            state = "the results of this run" if read(self.folder / _MANIFEST) else "a part of the results of this run"
            raise InputError(
                f"{self.output.name}: holds {state} already; resume=True goes on, overwrite=True begins anew"
            )
        if before.get(_BAD_ROWS) not in (None, job.get(_BAD_ROWS)):
            raise InputError(f"bad_rows: expected {before[_BAD_ROWS]}, where this run has set rows aside before")

    def _clear(self, names: list[str]) -> None:
        """Remove results: first what says that they are complete, last what says that they are ours."""
        self.reopen()
        remove(self.folder / _RECORDS)
        for name in names:
            if name != FOLDER:
                remove(self.output / name)
        remove(self.folder)

    def reopen(self) -> None:
        """Take back that all is done."""
        remove(self.output / SUCCESS)
        remove(self.folder / _MANIFEST)

    def check_ours(self) -> None:
        """See that the folder is still that of this job; by the worker, before it puts a file there.

        Raises:
            InputError: another command has begun anew there.
        """
        if (self._json(self.folder / _JOB) or {}).get("identity") != self.identity:
            raise InputError(f"{self.output.name}: another run has begun there; give one of them another folder")

    def record(self, outcome: Outcome, size: int, more: Mapping[str, Any]) -> None:
        """Write down that a part is done, and its file has so many bytes; by the worker, last of all."""
        found = {name: getattr(outcome, name) for name in _KEPT}
        document = _document({"identity": self.identity, "bytes": size, **found, **more})
        write(self.folder / _RECORDS / f"{outcome.number:06d}.json", document, self.scratch)

    def finished(self, parts: Sequence[Part], bad_rows: Place | None) -> dict[int, Outcome]:
        """Those of the parts that are done: all that they wrote is there, and their files have not changed since."""
        sizes = {info.base_name: info.size for info in entries(self.output)}
        aside = {info.base_name.partition(".")[0] for info in entries(bad_rows)} if bad_rows else set()
        records = [self.folder / _RECORDS / info.base_name for info in entries(self.folder / _RECORDS)]
        versions = {part.number: part.version for part in parts}
        with ThreadPoolExecutor(_READERS) as pool:
            found = [each for each in pool.map(self._json, records) if each and {*_KEPT, "bytes"} <= {*each}]
        return {
            each["number"]: Outcome(**{name: each[name] for name in _KEPT})
            for each in found
            if each.get("identity") == self.identity
            and each.get("version") == versions.get(each["number"])
            and sizes.get(name := file_name(each["number"]), 0) == each["bytes"]
            and (not (each["set_aside"] or each["unreadable"]) or name.partition(".")[0] in aside)
        }

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write that all is done, for this program and for others.

        Raises:
            InputError: another command has begun anew in the folder.
        """
        self.check_ours()
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
            what = "is missing, resume=True makes it" if name in expected else "is none of this run, remove it"
            raise InputError(f"{(self.output / name).name}: {what}; somebody else changed the folder")

    def _json(self, place: Place) -> Any:
        data = read(place)
        try:
            found = None if data is None else json.loads(data)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


_KEPT = [name for name in Outcome._fields if name not in ("error", "is_unverified", "payload")]


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _is_ours(name: str) -> bool:
    return _is_part(name) or name in (SUCCESS, UNREADABLE) or (name.startswith("part-") and name.endswith(".json"))


def _difference(before: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """In what two jobs differ, in words."""
    old, new = before.get("settings") or {}, job["settings"]
    names = [name for name in new if old.get(name) != new[name]]
    found = ["of another bundle"] if before.get("bundle") != job["bundle"] else []
    found += [f"with other {', '.join(names)}"] if names else []
    if before.get("sources") != job["sources"]:
        rows = [each.get("rows") for each in (before, job)]
        found.append("of other sources" + (f": {rows[0]} rows then, {rows[1]} now" if rows[0] != rows[1] else ""))
    return ", ".join(found) or "by another version of aeedge"


def _document(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
