"""Whole or not at all: writing under faults."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

import aeedge.files.atomic
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory, atomic_file


def fill(path, text):
    for name in ("a", "b", "c"):
        (path / name).write_text(text)


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "x.aeedge"
    path.mkdir()
    fill(path, "old")
    return path


def content(path):
    return {f.name: f.read_text() for f in path.iterdir()}


def test_a_directory_is_replaced_as_a_whole(old):
    with atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
        assert set(content(old).values()) == {"old"}
    assert content(old) == dict.fromkeys("abc", "new")
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
    assert content(old) == dict.fromkeys("abc", "new" if done or nth == 4 else "old")
    assert [p.name for p in old.parent.iterdir()] == ["x.aeedge"]


def test_where_directories_cannot_be_exchanged_the_old_is_put_back_on_failure(old, monkeypatch):
    monkeypatch.setattr(aeedge.files.atomic, "_exchange", lambda first, second: False)
    real = os.rename

    def rename(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.EIO, "broken disk")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="broken disk"), atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
    monkeypatch.undo()
    assert content(old) == dict.fromkeys("abc", "old")


def test_where_directories_cannot_be_exchanged_they_are_renamed(old, monkeypatch):
    monkeypatch.setattr(aeedge.files.atomic, "_exchange", lambda first, second: False)
    with atomic_directory(old, overwrite=True) as part:
        fill(part, "new")
    assert content(old) == dict.fromkeys("abc", "new")
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
print("ready", flush=True)
while True:
    n += 1
    with atomic_directory({str(old)!r}, overwrite=True) as part:
        for name in "abc":
            (part / name).write_text(str(n) * 1000)
"""
    for delay in (0.0, 0.003, 0.01, 0.03, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = content(old)
        assert set(found) == set("abc")
        assert len(set(found.values())) == 1


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
