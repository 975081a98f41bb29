"""Too little memory; two who write at once; targets that cannot be written."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from attacks.bundles import BUNDLE, close, latents, rows
from attacks.outcomes import CRASH, HANG, LEFT, MISLEADING, RIGHT, TYPED, UNTYPED, WRONG, Outcome, outcome

_BLAME = ("upgrade", "export the bundle", "export it again", "copy the bundle", "damaged")
COUNT = 50_000


def _in_child(work: Callable[[], Outcome], seconds: float = 15.0) -> Outcome:
    """Run in a forked child, which may end as it likes."""
    taken, given = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(seconds))
        found = work()
        os.write(given, json.dumps(found)[:2000].encode())
        os._exit(0)
    os.close(given)
    with os.fdopen(taken) as stream:
        text = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if text:
        return Outcome(*json.loads(text))
    return Outcome(HANG if code == -signal.SIGALRM else CRASH, signal.Signals(-code).name if code < 0 else str(code))


def low_memory(index: int, folder: Path) -> Outcome:
    """Load and encode with 0 to 25 MB more than there is: a right result, or a sentence about memory."""
    import aeedge

    expected, x = latents(COUNT), rows(COUNT)
    room = int(25e6 * random.Random(index).random() ** 2)

    def use() -> bool:
        with aeedge.load(BUNDLE, threads=2) as model:
            return close(model.encode(x), expected) and close(model.encode(x[:1]), expected[:1])

    def work() -> Outcome:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + room
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
        try:
            return outcome(use, bool, _BLAME)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    return _in_child(work)


def low_memory_command(index: int, folder: Path) -> Outcome:
    """The command with 100 to 700 MB of address space."""
    np.save(folder / "rows.npy", rows(COUNT))
    most = int(np.linspace(100e6, 700e6, 40)[index])
    line = [sys.executable, "-m", "aeedge", "encode", str(BUNDLE), "rows.npy", "-o", "made.npy", "--threads", "1"]
    try:
        done = subprocess.run(
            line,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
        )
    except subprocess.TimeoutExpired:
        return Outcome(HANG, f"{most // 10**6} MB")
    words = f"{most // 10**6} MB: {done.stderr[-200:]}"
    if done.returncode == 0:
        return Outcome(RIGHT if close(np.load(folder / "made.npy"), latents(COUNT)) else WRONG, words)
    if [part.name for part in folder.iterdir() if part.name != "rows.npy"]:
        return Outcome(LEFT, words)
    if done.returncode < 0 or "terminate called" in done.stderr:
        return Outcome(CRASH, words)
    if "Traceback" in done.stderr:
        own = "aeedge/" in done.stderr.replace("aeedge/__main__", "").replace("aeedge/__init__", "")
        return Outcome(UNTYPED if own or "MemoryError" not in done.stderr else TYPED, words)
    return Outcome(MISLEADING if any(blame in done.stderr for blame in _BLAME) else TYPED, words)


def race(index: int, folder: Path) -> Outcome:
    """Two processes write a file or a folder of one name, without overwriting: one is refused."""
    import aeedge
    from aeedge.files.atomic import atomic_directory, atomic_file

    directory = index % 2
    target = folder / "made"
    begin = time.monotonic() + 0.03
    children = []
    for each in range(2):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 2
        try:
            with (atomic_directory if directory else atomic_file)(target) as part:
                file = part / "run.json" if directory else part
                file.write_text(json.dumps({"format": "aeedge-run", "by": each}))
                while time.monotonic() < begin:
                    pass
            code = 0
        except aeedge.InputError:
            code = 1
        finally:
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if codes == [0, 0]:
        return Outcome(WRONG, "both have written")
    if 2 in codes or min(codes) < 0:
        return Outcome(UNTYPED, f"exit codes {codes}")
    file = target / "run.json" if directory else target
    if codes == [1, 1]:
        return (
            Outcome(UNTYPED, "none has written")
            if not file.exists()
            else Outcome(WRONG, "none says that it has written")
        )
    if json.loads(file.read_text())["by"] != codes.index(0):
        return Outcome(WRONG, "the one that was refused has written")
    if left := [part.name for part in folder.iterdir() if part.name != "made"]:
        return Outcome(LEFT, ", ".join(left))
    return Outcome(RIGHT)


def _dangling(folder: Path) -> Path:
    (folder / "made.npy").symlink_to(folder / "nowhere" / "there.npy")
    return folder / "made.npy"


def _circle(folder: Path) -> Path:
    (folder / "made.npy").symlink_to(folder / "made.npy")
    return folder / "made.npy"


def _linked(folder: Path) -> Path:
    (folder / "real.npy").write_bytes(b"")
    (folder / "made.npy").symlink_to(folder / "real.npy")
    return folder / "made.npy"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "made.npy")
    return folder / "made.npy"


def _folder(folder: Path) -> Path:
    (folder / "made.npy").mkdir()
    return folder / "made.npy"


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "made.npy"


def _in_a_bundle(folder: Path) -> Path:
    import shutil

    shutil.copytree(BUNDLE, folder / "b.aeedge")
    return folder / "b.aeedge" / "golden.npy"


TARGETS: dict[str, Callable[[Path], Path]] = {
    "a link to nowhere": _dangling,
    "a link to itself": _circle,
    "a link to a file": _linked,
    "a folder": _folder,
    "below a file": _below_a_file,
    "in a bundle": _in_a_bundle,
    "a name of 250 characters": lambda folder: folder / ("n" * 246 + ".npy"),
    "a name of 255 characters": lambda folder: folder / ("n" * 251 + ".npy"),
    "a name of 300 characters": lambda folder: folder / ("n" * 296 + ".npy"),
    "a name of 250 bytes in UTF-8": lambda folder: folder / ("ä" * 123 + ".npy"),
    "a path of 5 000 characters": lambda folder: folder / ("a/" * 2500 + "made.npy"),
    "a name with an escape": lambda folder: folder / "\x1b[2J.npy",
    "a name that is not UTF-8": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff.npy")),
    "a missing folder": lambda folder: folder / "none" / "made.npy",
    "the input": lambda folder: folder / "rows.npy",
    "a full device": lambda folder: Path("/dev/full"),
    "/proc": lambda folder: Path("/proc/made.npy"),
    "a pipe that nobody reads": _fifo,
    "no suffix": lambda folder: folder / "made",
    "the folder itself": lambda folder: folder,
}


def target(index: int, folder: Path) -> Outcome:
    """A target that is odd, without and with --force; what it wrote can be read, and nothing else is there."""
    name = list(TARGETS)[index // 2]
    np.save(folder / "rows.npy", rows(20))
    place = TARGETS[name](folder)
    before = {entry.name for entry in folder.iterdir()}
    line = [sys.executable, "-m", "aeedge", "encode", str(BUNDLE), str(folder / "rows.npy"), "-o", os.fsencode(place)]
    try:
        done = subprocess.run(
            [*line, *(["-f"] if index % 2 else [])],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(HANG, name)
    words = f"{name}: {done.stderr[-200:]}"
    real = Path(os.path.realpath(place))
    left = {entry.name for entry in folder.iterdir()} - before - {real.name}
    if left:
        return Outcome(LEFT, f"{words} {sorted(left)}")
    if done.returncode == 0:
        return Outcome(RIGHT if close(np.load(real), latents(20)) else WRONG, words)
    if name == "the input" and not np.array_equal(np.load(folder / "rows.npy"), rows(20)):
        return Outcome(WRONG, words)
    if done.returncode < 0:
        return Outcome(CRASH, words)
    return Outcome(UNTYPED if "Traceback" in done.stderr else TYPED, words)
