"""A command that is told to end: it cleans up, and its exit code says which signal it was."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.waiting import soon

from aeedge.cli.group import AeedgeGroup

BUNDLE = str(Path(__file__).parent.parent / "data" / "bundle_v1")
ROW = b",".join(b"%d.5" % (20 + i) for i in range(12)) + b"\n"


def started(folder, *args, before=None):
    """A command that has begun to write and waits for more rows."""
    line, before_it = [sys.executable, "-m", "aeedge", *args], parts(folder)
    process = subprocess.Popen(
        line, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before
    )
    process.stdin.write(ROW * 40_000)
    process.stdin.flush()
    assert soon(lambda: parts(folder) - before_it or process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    return process


def parts(folder):
    """What commands have begun to write."""
    return set(folder.glob(".*.part"))


def ended(process):
    """Exit code and messages, while standard input stays open."""
    code = process.wait(60)
    message = process.stderr.read().decode()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    return code, message


def test_a_signal_that_becomes_another_exception_still_ends_the_command(monkeypatch):
    """As in the import of a compiled module."""

    def load(*given, **options):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("aeedge.cli.transform.load", load)
    assert CliRunner().invoke(AeedgeGroup.build(), ["encode", BUNDLE, "x.npy", "-o", "-"]).exit_code == 143


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("encode", signal.SIGTERM, 143),
        ("encode", signal.SIGHUP, 129),
        ("encode", signal.SIGINT, 130),
        ("denoise", signal.SIGTERM, 143),
        ("score", signal.SIGTERM, 143),
    ],
)
def test_a_command_that_is_told_to_end_leaves_nothing_half_written(tmp_path, command, number, code):
    process = started(tmp_path, command, BUNDLE, "-", "-o", "out.npy")
    process.send_signal(number)
    end, message = ended(process)
    assert end == code, message
    assert "Traceback" not in message
    assert "Fatal" not in message
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "out.csv").write_text("old")
    process = started(tmp_path, "denoise", BUNDLE, "-", "-o", "out.csv", "--force")
    for _ in range(3):  # the later ones do not interrupt the cleaning up
        process.send_signal(signal.SIGTERM)
    assert ended(process)[0] in (143, -signal.SIGTERM)  # the latter where it came when all was done
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As nohup does."""
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = started(tmp_path, "encode", BUNDLE, "-", "-o", "out.npy", before=ignore)
    process.send_signal(signal.SIGHUP)
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    process.stderr.close()
    assert len(np.load(tmp_path / "out.npy")) == 40_000


def test_killed_commands_leave_files_that_the_next_one_removes(tmp_path):
    for _ in range(2):
        process = started(tmp_path, "encode", BUNDLE, "-", "-o", "out.npy")
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "x.csv").write_bytes(ROW * 3)
    done = CliRunner().invoke(AeedgeGroup.build(), ["encode", BUNDLE, f"{tmp_path}/x.csv", "-o", f"{tmp_path}/out.npy"])
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"x.csv", "out.npy"}


def test_a_disk_that_fills_up_leaves_nothing_and_the_old(tmp_path):
    """A limit on the size of files stands for the full disk."""
    import resource

    (tmp_path / "x.csv").write_bytes(ROW * 2000)
    (tmp_path / "out.npy").write_text("old")
    done = subprocess.run(
        [sys.executable, "-m", "aeedge", "denoise", BUNDLE, "x.csv", "-o", "out.npy", "-f"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        check=False,
    )
    assert done.returncode == 2
    assert "out.npy: not written, the disk is full; nothing was changed" in done.stderr
    assert (tmp_path / "out.npy").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"x.csv", "out.npy"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_output_that_is_full_or_closed_is_one_sentence(tmp_path):
    (tmp_path / "x.csv").write_bytes(ROW)
    line = f"{sys.executable} -m aeedge encode {BUNDLE} x.csv -o -"
    for redirection, message in (("> /dev/full", "No space left on device"), (">&-", "is closed")):
        done = subprocess.run(
            ["bash", "-c", f"{line} {redirection}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("Error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    subprocess.run(["bash", "-c", f"{line[:-1]}/dev/stdout > out.csv"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "out.csv").read_text().count("\n") == 2


def test_the_handlers_of_a_program_that_runs_a_command_are_kept(tmp_path):
    """Also where it runs the command on a thread of its own, where none can be set."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    codes = []

    def call():
        codes.append(CliRunner().invoke(AeedgeGroup.build(), ["info", BUNDLE]).exit_code)
        assert [signal.getsignal(number) for number in numbers] == before

    call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    own = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        before = [signal.getsignal(number) for number in numbers]
        call()
    finally:
        signal.signal(signal.SIGTERM, own)
    assert codes == [0, 0, 0]
