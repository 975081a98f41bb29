"""Whole or not at all: writing under faults."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
from helpers.waiting import PATIENCE

import aeedge.files.atomic
from aeedge.bundle.manifest import VARIANTS
from aeedge.bundle.reader import CALIBRATION, FEATURES, GOLDEN, MANIFEST, ROLES, file_name
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory, atomic_file
from aeedge.files.replacing import BUNDLE, RUN, check_file, check_folder
from aeedge.files.writing import Layout, row_writer

NAMES = ("manifest.json", "encoder.onnx", "decoder.onnx")
ONE_COLUMN = Layout.of_array((1,), ["a"])


def fill(path, text):
    for name in NAMES:
        (path / name).write_text(f'{{"format": "aeedge", "text": "{text}"}}')


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "x.aeedge"
    path.mkdir()
    fill(path, "old")
    return path


def content(path):
    return {f.name: json.loads(f.read_text())["text"] for f in path.iterdir()}


def tree(path):
    """Everything below a folder, to see that nothing has changed."""
    return {p.relative_to(path): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


def run_of(path, **more):
    """A folder like those of `aeedge train`, with more files."""
    path.mkdir(parents=True)
    for name in RUN.files:
        (path / name).write_text('{\n "format": "aeedge-run"')
    for name, text in more.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_a_directory_is_replaced_as_a_whole(old):
    with atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
        assert set(content(old).values()) == {"old"}
    assert content(old) == dict.fromkeys(NAMES, "new")
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_without_overwrite_nothing_is_touched(old):
    with pytest.raises(InputError, match="already exists"), atomic_directory(old) as part:
        fill(part, "new")
    assert set(content(old).values()) == {"old"}


def test_an_exception_leaves_the_old_and_no_trace_of_the_new(old):
    with pytest.raises(ZeroDivisionError), atomic_directory(old, overwrite=True) as part:
        fill(part, f"new {1 / 0}")
    assert set(content(old).values()) == {"old"}
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("nth", range(6))
def test_any_failing_sync_leaves_the_old_intact(old, monkeypatch, code, nth):
    calls = []

    def failing(handle):
        calls.append(handle)
        if len(calls) == nth + 1:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    done = False
    try:
        with atomic_directory(old, overwrite=True) as part:
            fill(part, "new")
        done = True
    except InputError as error:
        message = str(error)
    assert done or "not written" in message
    assert content(old) == dict.fromkeys(NAMES, "new" if done or nth == 4 else "old")
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_where_directories_cannot_be_exchanged_the_old_is_put_back_on_failure(old, monkeypatch):
    monkeypatch.setattr(aeedge.files.atomic, "_exchange", lambda first, second: False)
    real = os.rename

    def rename(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.EIO, "broken disk")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(InputError, match="broken disk"), atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
    monkeypatch.undo()
    assert content(old) == dict.fromkeys(NAMES, "old")


def test_where_directories_cannot_be_exchanged_they_are_renamed(old, monkeypatch):
    monkeypatch.setattr(aeedge.files.atomic, "_exchange", lambda first, second: False)
    with atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
    assert content(old) == dict.fromkeys(NAMES, "new")
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_a_full_disk_is_one_sentence(tmp_path):
    """A file size limit stands for the full disk: the kernel refuses the write in the same place."""
    (tmp_path / "x.npy").write_text("precious")
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from aeedge.files.atomic import atomic_file
from aeedge.errors import InputError
try:
    with atomic_file({str(tmp_path / "x.npy")!r}, overwrite=True) as part:
        part.write_bytes(bytes(5000))
except InputError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "not written, the disk is full; nothing was changed" in out
    assert (tmp_path / "x.npy").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_killed_while_writing_leaves_the_old_bundle_whole(old):
    """Killed at random moments, the directory always holds one whole generation."""
    code = f"""
from aeedge.files.atomic import atomic_directory
n = 0
while True:
    n += 1
    with atomic_directory({str(old)!r}, overwrite=True) as part:
        for name in {NAMES}:
            (part / name).write_text('{{"format": "aeedge", "text": "%s"}}' % (str(n) * 1000))
    print(n, flush=True)
"""
    for delay in (0.0, 0.003, 0.01, 0.03, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout.readline()  # it has replaced it once
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = content(old)
        assert set(found) == set(NAMES)
        assert len(set(found.values())) == 1
        assert "old" not in found.values()


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="to exist; create it first"), atomic_file(tmp_path / "no" / "x.npy"):
        pass


def test_files_get_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "x") as part:
        part.write_text("x")
    with atomic_directory(tmp_path / "d") as part:
        (part / "a").write_text("a")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.txt": "years of work"},
        {"manifest.json": '{"name": "a web page"}', "encoder.onnx": "somebody else's"},
        {"manifest.json": '{"name": "x", "format": "aeedge"}'},
        {"manifest.json": '{"format": "aeedge-other"}'},
        {"run.json": '{"format": "aeedge"}'},
        {"run.json": ""},
        {".hidden": "secret"},
        {"sub/deep.txt": "x"},
        {"run.json": '{"format": "aeedge-run"}', "thesis.txt": "x"},
        {"run.json": '{"format": "aeedge-run"}', ".git/config": "x"},
        {"run.json": '{"format": "aeedge-run"}', "report.html/x": "x"},
        {"run.json": '{"format": "aeedge-run"}', "golden.npz": "of a bundle"},
        {"manifest.json": '{"format": "aeedge"}', "sample.npy": "of a run"},
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_foreign_files_is_never_replaced(tmp_path, files, overwrite):
    place = tmp_path / "out"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    before = tree(tmp_path)
    foreign = next(reversed(files)).split("/")[0]
    with pytest.raises(InputError, match=rf"out: holds files that are no (run|part).*\(.*{foreign}"):
        check_folder(place, overwrite=overwrite)
    with pytest.raises(InputError), atomic_directory(place, overwrite=overwrite):
        pytest.fail("it was refused too late")
    assert tree(tmp_path) == before


def test_many_foreign_files_are_counted(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}.txt").touch()
    with pytest.raises(InputError, match=r"\(00\.txt, 01\.txt, 02\.txt and 9 more\)"):
        check_folder(tmp_path, overwrite=True)


def test_a_bundle_is_replaced_whatever_of_its_files_it_has():
    graphs = {file_name(role, variant) for role in ROLES for variant in VARIANTS}
    assert BUNDLE.files == graphs | {MANIFEST, GOLDEN, CALIBRATION, file_name(FEATURES, "fp32")}


def test_runs_bundles_and_empty_folders_are_replaced(tmp_path, old):
    run_of(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (old / "manifest.json").write_text('{\n "format": "aeedge", "cut o')
    for place in (old, tmp_path / "run", tmp_path / "empty"):
        with pytest.raises(InputError, match="already exists"):
            check_folder(place, overwrite=False)
        with atomic_directory(place, overwrite=True) as part:
            fill(part, "new")
        assert content(place) == dict.fromkeys(NAMES, "new")


def test_a_bundle_does_not_replace_a_run(tmp_path):
    run = run_of(tmp_path / "run")
    with pytest.raises(InputError, match="is a run, which is not replaced here"):
        check_folder(run, overwrite=True, kinds=[BUNDLE])


def test_files_put_there_in_the_meantime_are_kept(old):
    with pytest.raises(InputError, match=r"notes\.txt"), atomic_directory(old, overwrite=True):
        (old / "notes.txt").write_text("just written")
    assert (old / "notes.txt").read_text() == "just written"
    assert json.loads((old / "encoder.onnx").read_text())["text"] == "old"
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_what_is_read_is_never_replaced(tmp_path):
    run = run_of(tmp_path / "run")
    (tmp_path / "photos").mkdir()
    link = tmp_path / "link"
    link.symlink_to(run)
    for target, read in (
        (run, run),
        (run, run / "sample.npy"),
        (link, run / "sample.npy"),
        (run, link),
        (tmp_path / "photos", tmp_path / "photos"),
        (tmp_path, tmp_path / "photos"),
    ):
        with pytest.raises(InputError, match=r"is or holds .*, which this command reads"):
            check_folder(target, overwrite=True, inputs=[None, read])
    check_folder(run, overwrite=True, inputs=[tmp_path / "photos", None, "-"])
    check_folder(tmp_path / "photos" / "run", overwrite=True, inputs=[tmp_path / "photos"])


def test_the_current_folder_and_home_are_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    run_of(tmp_path / "home")
    (tmp_path / "work" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "here")
    for place in (".", "", "..", "/", tmp_path / "home", tmp_path / "work"):
        before = tree(tmp_path)
        with pytest.raises(InputError, match=r"current folder, your home|holds files"):
            check_folder(place, overwrite=True)
        assert tree(tmp_path) == before


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="x: is a file, expected the name of a folder"):
        check_folder(tmp_path / "x", overwrite=True)
    with pytest.raises(InputError, match="d: is a folder, expected the name of a file"):
        check_file(tmp_path / "d", overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: is a device or a pipe"):
        check_file(tmp_path / "pipe", overwrite=True)
    with pytest.raises(InputError, match="expected the folder"):
        check_folder(tmp_path / "x" / "run", overwrite=True)
    for check in (check_file, check_folder):
        with pytest.raises(InputError, match="too long"):
            check(tmp_path / ("n" * 300), overwrite=True)


def test_links_are_followed(tmp_path, old):
    """What a link points to is replaced, if it may be; the link stays."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    for name, points in (("good", old), ("bad", tmp_path / "photos"), ("new", tmp_path / "later")):
        (tmp_path / name).symlink_to(points)
    with pytest.raises(InputError, match=r"bad: holds files .*1\.png"):
        check_folder(tmp_path / "bad", overwrite=True)
    for name in ("good", "new"):
        with atomic_directory(tmp_path / name, overwrite=True) as part:
            fill(part, "new")
        assert (tmp_path / name).is_symlink()
        assert content(tmp_path / name) == dict.fromkeys(NAMES, "new")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    with atomic_file(tmp_path / "y") as part:
        part.write_text("x")
    assert (tmp_path / "x").read_text() == "x"
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


def test_a_file_does_not_replace_what_is_read_or_a_part_of_a_bundle(tmp_path, old):
    run = run_of(tmp_path / "run")
    (tmp_path / "x.npy").touch()
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    for out, read in (("x.npy", "x.npy"), ("link.npy", "x.npy"), ("x.npy", "link.npy"), ("run/../x.npy", "x.npy")):
        with pytest.raises(InputError, match="is the file that is read"):
            check_file(tmp_path / out, overwrite=True, inputs=[tmp_path / read])
    for place in (old / "z.npy", old / "encoder.onnx", run / "sample.npy"):
        with pytest.raises(InputError, match=r"would damage the (run|bundle)"):
            check_file(place, overwrite=True)
    for place in (run / "report.html", run / "z.npy", tmp_path / "x.npy"):
        check_file(place, overwrite=True, inputs=[None, run / "sample.npy", "-"])


@pytest.mark.parametrize("check", [check_file, check_folder])
def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path, check):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="leads back to itself"):
        check(tmp_path / "loop", overwrite=True)
    with pytest.raises(InputError, match=r"/proc/x: cannot be written there"):
        check("/proc/x", overwrite=True)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_disk_that_cannot_be_written_to_is_found_at_once(tmp_path, monkeypatch, code):
    """The tests may run as root, who may write anywhere."""

    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", fail)
    for check in (check_file, check_folder):
        with pytest.raises(InputError, match=rf"x: cannot be written there \({os.strerror(code)}\)"):
            check(tmp_path / "x", overwrite=True)


# --- several writers


RACER = """
import sys
import aeedge.files.atomic as atomic
from aeedge.errors import InputError
kind, steps, overwrite = sys.argv[1], sys.argv[2], sys.argv[3] == "overwrite"
if steps == "plain":
    atomic._rename = lambda source, target, flag: False
for line in sys.stdin:
    path, text = line.split()
    try:
        if kind == "file":
            with atomic.atomic_file(path, overwrite=overwrite) as part:
                part.write_text(text * 1000)
        else:
            with atomic.atomic_directory(path, overwrite=overwrite) as part:
                for name in ("manifest.json", "encoder.onnx", "decoder.onnx"):
                    (part / name).write_text('{"format": "aeedge", "text": "%s"}' % text)
        print("won", text, flush=True)
    except InputError as error:
        print(error, flush=True)
"""


@pytest.mark.parametrize("overwrite", ["new", "overwrite"])
@pytest.mark.parametrize("steps", ["one step", "plain"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_of_several_writers_one_wins_and_the_others_leave_nothing(tmp_path, kind, steps, overwrite):
    """With overwriting all of them succeed, one after the other."""
    command = [sys.executable, "-c", RACER, kind, steps, overwrite]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for round_ in range(25):
        path = tmp_path / (f"{round_}" if overwrite == "new" else "x")
        for i, writer in enumerate(writers):
            writer.stdin.write(f"{path} {i}\n")
        for writer in writers:
            writer.stdin.flush()
        answers = [writer.stdout.readline().strip() for writer in writers]
        won = [answer for answer in answers if answer.startswith("won")]
        lost = [answer for answer in answers if "already exists; choose another name" in answer]
        assert (len(won), len(lost)) == ((1, 3) if overwrite == "new" else (4, 0)), answers
        found = {path.read_text()[0]} if kind == "file" else set(content(path).values())
        assert len(found) == 1
        if overwrite == "new":
            assert found == {won[0][-1]}
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    for writer in writers:
        writer.communicate()


@pytest.mark.parametrize("kind", [atomic_file, atomic_directory])
def test_what_appears_while_it_is_written_is_kept(tmp_path, kind, monkeypatch):
    """Also after the last check."""
    for check in ("check_file", "check_folder"):
        monkeypatch.setattr(aeedge.files.atomic, check, lambda *given, **more: None)

    def appear():
        if kind is atomic_file:
            return (tmp_path / "x").write_text("precious")
        (tmp_path / "x").mkdir()
        return (tmp_path / "x" / "y").write_text("precious")

    with pytest.raises(InputError, match="x: already exists; choose another name"), kind(tmp_path / "x"):
        appear()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert "precious" in ((tmp_path / "x" / "y") if kind is atomic_directory else tmp_path / "x").read_text()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EIO])
def test_a_disk_without_links_takes_new_files_and_keeps_old_ones(tmp_path, monkeypatch, code):
    """As FAT, where the system cannot rename to a new name alone."""

    def fail(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(aeedge.files.atomic, "_rename", lambda source, target, flag: False)
    monkeypatch.setattr(aeedge.files.atomic, "check_file", lambda path, overwrite: None)
    monkeypatch.setattr(os, "link", fail)
    (tmp_path / "old").write_text("precious")
    for name in ("old", "new"):
        refused = "Input/output error" if code == errno.EIO else "already exists" if name == "old" else None
        with (
            pytest.raises(InputError, match=refused) if refused else nullcontext(),
            atomic_file(tmp_path / name) as part,
        ):
            part.write_text("new")
    assert (tmp_path / "old").read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {"old"} | ({"new"} if code != errno.EIO else set())


def test_foreign_files_that_appear_after_the_last_check_are_kept(old, monkeypatch):
    monkeypatch.setattr(aeedge.files.atomic, "check_folder", lambda *given, **more: None)
    with pytest.raises(InputError, match=r"notes\.txt"), atomic_directory(old, overwrite=True):
        (old / "notes.txt").write_text("precious")
    assert (old / "notes.txt").read_text() == "precious"
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_the_old_directory_is_not_taken_for_a_stale_one_while_it_is_checked(old, monkeypatch):
    """Another writer begins just after the two were exchanged."""
    real = aeedge.files.atomic.check_replaceable

    def check(part, target, kinds):
        write("directory", old.parent / "y.aeedge")  # of another name
        aeedge.files.atomic._remove_stale(target)
        assert set(content(part).values()) == {"old"}
        real(part, target, kinds)

    monkeypatch.setattr(aeedge.files.atomic, "check_replaceable", check)
    write("directory", old)
    assert content(old) == dict.fromkeys(NAMES, "new")
    assert {p.name for p in old.parent.iterdir()} == {"x.aeedge", "y.aeedge"}


# --- what a killed writer leaves


HOLDER = """
import sys, time
from aeedge.files.atomic import atomic_directory, atomic_file
kind = {"file": atomic_file, "directory": atomic_directory}[sys.argv[1]]
with kind(sys.argv[2], overwrite=True) as part:
    if part.is_dir():
        (part / "manifest.json").write_text("half")
        (part / "more").mkdir()
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def holder():
    """Starts writers that wait in the middle; they are killed at the end."""
    started = []

    def start(kind, path):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, kind, str(path)], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write(kind, path):
    if kind == "file":
        with atomic_file(path, overwrite=True) as part:
            part.write_text("new")
    else:
        with atomic_directory(path, overwrite=True) as part:
            fill(part, "new")


@pytest.mark.parametrize("name", ["x.npy", "n" * 255, "new\nline", "ü" * 127])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_killed_writers_left_is_removed_by_the_next_one_and_nothing_else(tmp_path, holder, kind, name):
    path = tmp_path / name
    for process in [holder(kind, path) for _ in range(2)]:
        process.kill()
        process.wait()
    left = {p.name for p in tmp_path.iterdir()}
    assert len(left) == 2
    live = holder(kind, path)
    (kept,) = {p.name for p in tmp_path.iterdir()}
    assert kept not in left
    others = [f".{name[:9]}.part", f".{name[:9]}.aeedge-12.part", f".a{name[:9]}.aeedge-12345678.part", "y"]
    for other in others:
        (tmp_path / other).write_text("not ours")
    write(kind, path)
    assert {p.name for p in tmp_path.iterdir()} == {name, kept, *others}
    live.kill()
    live.wait()
    write(kind, path)
    assert {p.name for p in tmp_path.iterdir()} == {name, *others}


def test_the_old_that_was_moved_aside_stays_until_there_is_a_new_one(tmp_path, old):
    """Killed between the two steps, where directories cannot be exchanged in one."""
    aside = tmp_path / ".x.aeedge.aeedge-0123abcd.old"
    old.rename(aside)
    with pytest.raises(ZeroDivisionError), atomic_directory(old) as part:
        fill(part, f"{1 / 0}")
    assert set(content(aside).values()) == {"old"}
    write("directory", old)
    write("directory", old)
    assert [p.name for p in tmp_path.iterdir()] == ["x.aeedge"]


def test_a_sibling_taken_for_a_stale_one_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    import fcntl

    made = []

    def flock(handle, how):
        if not made:
            made.extend(tmp_path.iterdir())
            made[0].unlink()
        return real(handle, how)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    write("file", tmp_path / "x")
    assert made
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("absent", ["no flock", "no module"])
def test_where_there_are_no_locks_nothing_is_removed(tmp_path, monkeypatch, absent):
    def unsupported(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    stale = tmp_path / ".x.aeedge-0123abcd.part"
    stale.write_text("perhaps of another machine")
    if absent == "no flock":
        monkeypatch.setattr(aeedge.files.atomic.fcntl, "flock", unsupported)
    else:
        monkeypatch.setattr(aeedge.files.atomic, "fcntl", None)
    write("file", tmp_path / "x")
    assert {p.name for p in tmp_path.iterdir()} == {"x", stale.name}


# --- odd targets


@pytest.mark.parametrize(
    "name", ["n" * 255, "ü" * 127, "a\nb", "\x1b[31m", b"\xff\xfe".decode("utf-8", "surrogateescape"), " ", "-", "~"]
)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_every_legal_name_can_be_written(tmp_path, kind, name):
    for _ in range(2):
        write(kind, tmp_path / name)
        assert [p.name for p in tmp_path.iterdir()] == [name]
    with (
        pytest.raises(InputError, match="already exists" if kind == "file" else "is a folder") as caught,
        atomic_file(tmp_path / name),
    ):
        pytest.fail("it was refused too late")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "new/",
            "new/.",
            "new/..",
            "/",
            "d",
            "d/",
            "f/",
            "f/x",
            "f/x/y",
            "no/x",
            "n" * 256,
            "n" * 5000,
        ),
        *("a\0b", "\ud800", "loop", "loop/x", "to_nowhere", "pipe", "socket", "/dev/null"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_impossible_target_is_refused_at_once(tmp_path, monkeypatch, name, overwrite):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis").touch()
    (tmp_path / "f").write_text("f")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_nowhere").symlink_to("no/x")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    before = tree(tmp_path)
    with pytest.raises(InputError) as caught, atomic_file(name, overwrite=overwrite):
        pytest.fail("it was refused too late")
    assert str(caught.value).isprintable()
    if name not in ("new/", "new/."):  # which a folder may be called
        with pytest.raises(InputError), atomic_directory(name, overwrite=overwrite):
            pytest.fail("it was refused too late")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("steps", ["one step", "plain"])
@pytest.mark.parametrize("fails", [False, True])
def test_overwriting_a_file_or_a_link_leaves_no_trace(tmp_path, monkeypatch, steps, fails):
    if steps == "plain":
        monkeypatch.setattr(aeedge.files.atomic, "_rename", lambda source, target, flag: False)
    (tmp_path / "file").write_text("old")
    run_of(tmp_path / "run")
    for link, to in (("to_file", "file"), ("to_new", "new"), ("to_link", "to_file"), ("to_run", "run")):
        (tmp_path / link).symlink_to(to)
    names = {p.name for p in tmp_path.iterdir()}
    for name in ("file", "to_file", "to_link", "to_new"):
        try:
            with atomic_file(tmp_path / name, overwrite=True) as part:
                part.write_text(name)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        else:
            assert (tmp_path / name).read_text() == name
    for name in ("run", "to_run"):
        try:
            with atomic_directory(tmp_path / name, overwrite=True) as part:
                fill(part, name)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        else:
            assert content(tmp_path / name) == dict.fromkeys(NAMES, name)
    assert {p.name for p in tmp_path.iterdir()} == names | (set() if fails else {"new"})


def test_a_folder_that_becomes_a_file_or_a_link_meanwhile_is_kept(tmp_path, old, monkeypatch):
    """The folder was checked, but what is there when it is replaced is something else."""
    (tmp_path / "thesis").write_text("precious")
    monkeypatch.setattr(aeedge.files.atomic, "check_folder", lambda *given, **more: None)

    def change(put):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
        put()

    for put in (lambda: old.write_text("precious"), lambda: old.symlink_to("thesis")):
        with pytest.raises(InputError, match="is a file"), atomic_directory(old, overwrite=True):
            change(put)
        assert old.read_text() == "precious"
        assert {p.name for p in tmp_path.iterdir()} == {"thesis", "x.aeedge"}


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("aeedge.files.writing._READER_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(InputError, match="pipe: is a pipe that nobody reads"),
        row_writer(tmp_path / "pipe", ONE_COLUMN, overwrite=False),
    ):
        pytest.fail("it was refused too late")


def test_a_pipe_whose_reader_comes_later_gets_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("aeedge.files.writing._READER_SECONDS", PATIENCE)
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["bash", "-c", "sleep 0.3; cat pipe > read"], cwd=tmp_path)
    with row_writer(tmp_path / "pipe", ONE_COLUMN, overwrite=False) as writer:
        writer.write(np.zeros((100_000, 1), np.float32))
    assert reader.wait() == 0
    assert (tmp_path / "read").read_bytes() == b"a\n" + b"0\n" * 100_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_is_full_is_one_sentence():
    with (
        pytest.raises(InputError, match="/dev/full: not written to the end, No space left"),
        row_writer("/dev/full", ONE_COLUMN, overwrite=False) as writer,
    ):
        writer.write(np.zeros((100_000, 1), np.float32))


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    for write in (lambda: atomic_file(file), lambda: atomic_directory(folder)):
        with pytest.raises(InputError, match="already exists"), write():
            pass
    assert file.read_text() == "old"
    assert list(folder.iterdir()) == []
