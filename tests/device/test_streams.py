"""Standard output and error in other encodings than UTF-8, closed, full, or pipes that nobody reads."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import streams
from helpers.simulated import Simulated
from helpers.tampering import change_golden

from aeedge.bench import measuring
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import DEVICE
from aeedge.system import conditions

DATA = Path(__file__).parent.parent / "data"
BUNDLE = DATA / "bundle_v1"
FOREIGN = "Größe 测 ─ µ × ² – … ≥ ± 😀"  # no encoding here but UTF-8 has all of it

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A bundle with features in another script in a folder of such a name, and rows for it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BUNDLE, FOREIGN)
    manifest = Bundle(FOREIGN).manifest
    names = tuple(f"{FOREIGN} {i}" for i in range(12))
    changed = manifest._replace(input=manifest.input._replace(features=names), name=FOREIGN)
    Path(FOREIGN, "manifest.json").write_text(changed.dumps(), encoding="utf-8")
    shutil.copytree(FOREIGN, "failing")
    change_golden(Path("failing"), "fp32.latent", (3, 0), 1.0)
    np.save("x.npy", np.zeros((30, 12), np.float32))
    header = ",".join(names)
    np.savetxt("x.csv", np.zeros((30, 12)), delimiter=",", header=header, comments="", encoding="utf-8")
    Path("bad.csv").write_text(header.replace(" 0", " other", 1) + "\n", encoding="utf-8")
    np.save("nan.npy", np.full((2, 12), np.nan))
    np.save("z.npy", np.zeros((30, 3), np.float32))
    return tmp_path


COMMANDS = {
    "help": (["--help"], 0),
    "help of a command": (["bench", "--help"], 0),
    "info": (["info", FOREIGN], 0),
    "info, JSON": (["info", FOREIGN, "--json"], 0),
    "verify": (["verify", FOREIGN], 0),
    "verify, JSON": (["verify", FOREIGN, "--json"], 0),
    "verify, a failing bundle": (["verify", "failing"], 1),
    "doctor": (["doctor", FOREIGN], 0),
    "doctor, a failing bundle": (["doctor", "failing"], 1),
    "encode": (["encode", FOREIGN, "x.npy", "-o", f"{FOREIGN}.npy", "-f"], 0),
    "encode to standard output": (["encode", FOREIGN, "x.npy", "-o", "-"], 0),
    "decode to standard output": (["decode", FOREIGN, "z.npy", "-o", "-"], 0),
    "denoise": (["denoise", FOREIGN, "x.npy", "-o", "d.csv", "-f"], 0),
    "score": (["score", FOREIGN, "x.npy"], 0),
    "recalibrate": (["recalibrate", FOREIGN, "x.npy", "-o", f"{FOREIGN} new", "-f"], 0),
    "stream to standard output": (["stream", FOREIGN, "x.csv"], 0),
    "stream, other columns": (["stream", FOREIGN, "bad.csv"], 2),
    "tune": (["tune", FOREIGN, "--for", "memory"], 0),
    "tune, JSON": (["tune", FOREIGN, "--for", "memory", "--json"], 0),
    "bench": (["bench", FOREIGN, "--quick", "--seconds", "0.05", "--profile", "--html", f"{FOREIGN}.html", "-f"], 0),
    "a NaN": (["encode", FOREIGN, "nan.npy", "-o", "n.npy"], 2),
    "a missing file": (["encode", FOREIGN, f"{FOREIGN}.csv", "-o", "n.npy"], 2),
    "a missing bundle": (["info", f"{FOREIGN} 2"], 2),
    "no such command": ([FOREIGN], 2),
    "no such option": (["info", FOREIGN, f"--{FOREIGN}"], 2),
}
ENCODINGS = ["cp1252", "latin-1", "cp437", "ascii", "utf-16-le"]


def test_every_command_is_here():
    assert set(DEVICE) <= {arguments[0] for arguments, _ in COMMANDS.values()}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_in_every_encoding(folder, monkeypatch, encoding):
    """It ends as in UTF-8, prints as many lines, and each character that the encoding has."""
    monkeypatch.setattr(conditions, "judge", lambda before, after: [])
    monkeypatch.setattr(conditions.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(measuring, "Clock", lambda: Simulated(tick=50_000).clock)  # enough calls on any machine
    monkeypatch.setattr(measuring.scenarios, "OFFLINE_ROWS", 256)
    for name, (arguments, code) in COMMANDS.items():
        run = streams.in_encoding(encoding, arguments)
        assert run.code == code, (name, run)
        data = "JSON" in name or "standard output" in name
        out = run.out.decode("utf-8" if data else encoding)  # strict
        err = run.err.decode(encoding)
        assert out or err, name
        assert "Traceback" not in err, (name, err)
        if "JSON" in name:
            json.loads(out)
    assert np.load(f"{FOREIGN}.npy").shape == (30, 3)
    header = Path("d.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == ",".join(Bundle(FOREIGN).manifest.input.features)
    shown = streams.in_encoding(encoding, ["info", FOREIGN]).out.decode(encoding)
    expected = streams.in_encoding("utf-8", ["info", FOREIGN]).out.decode()
    assert len(shown.splitlines()) >= len(expected.splitlines())
    for character in set(FOREIGN):
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            assert character not in shown
        else:
            assert character in shown


def test_stand_ins_can_be_read(folder):
    shown = streams.in_encoding("ascii", ["info", FOREIGN]).out.decode("ascii")
    assert "Grosse ? - u x ^2 - ... >= +/- ?" in shown
    table = streams.in_encoding("ascii", ["verify", BUNDLE]).out.decode("ascii")
    assert set(table.splitlines()[1]) == {"-", " "}


def test_csv_and_json_are_utf_8_whatever_the_encoding(folder):
    for arguments in (["denoise", FOREIGN, "x.npy", "-o", "-"], ["info", FOREIGN, "--json"]):
        first, *others = [streams.in_encoding(encoding, arguments).out for encoding in ("utf-8", *ENCODINGS)]
        assert FOREIGN in first.decode("utf-8")
        assert others == [first] * len(ENCODINGS)


@pytest.mark.skipif(sys.platform == "win32", reason="names of files are characters there")
def test_a_file_name_that_is_no_text(folder):
    name = os.fsdecode(b"\xff.npy")
    for encoding in ("utf-8", "ascii"):
        run = streams.in_encoding(encoding, ["encode", FOREIGN, "x.npy", "-o", name, "-f"])
        assert (run.code, run.out.split(b":")[0]) == (0, rb"wrote \udcff.npy")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: " ".join(environment.values()),
)
def test_as_the_environment_says(folder, environment):
    for arguments, code in (COMMANDS["encode"], COMMANDS["verify, a failing bundle"], COMMANDS["doctor"]):
        done = streams.process(arguments, env=os.environ | environment)
        assert done.code == code
        (done.out + done.err).decode("cp1252" if "cp1252" in environment.values() else "ascii")
        assert b"Traceback" not in done.err
    assert np.load(f"{FOREIGN}.npy").shape == (30, 3)


TO_STDOUT = {
    name: COMMANDS[name] for name in ("info", "verify, JSON", "doctor", "score", "encode to standard output", "help")
}
posix = pytest.mark.skipif(os.name != "posix", reason="what a shell does there")


@posix
@pytest.mark.parametrize("name", TO_STDOUT)
def test_a_full_disk_is_one_sentence(folder, name):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = streams.process(TO_STDOUT[name][0], stdout=full)
    assert done.code == 2
    assert done.err.decode().splitlines()[-1] == "Error: output cannot be written (No space left on device)"
    assert b"Traceback" not in done.err
    assert b"Exception" not in done.err


@posix
@pytest.mark.parametrize("name", TO_STDOUT)
def test_a_pipe_that_nobody_reads_ends_quietly(folder, name):
    read, write = os.pipe()
    os.close(read)
    done = streams.process(TO_STDOUT[name][0], stdout=write)
    os.close(write)
    assert (done.code, done.err) == (141, b"")


@posix
@pytest.mark.parametrize("name", [name for name in TO_STDOUT if name != "help"])
def test_a_result_for_closed_standard_output_is_refused(folder, name):
    done = streams.process(TO_STDOUT[name][0], closed=">&-")
    assert done.code == 2
    assert done.err.decode().startswith("Error: standard output is closed, expected a place for the result")
    assert len(done.err.splitlines()) == 1


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2</dev/null"])
def test_exit_codes_without_a_stream(folder, closed):
    """What is written to a file is written, and what fails fails as it would."""
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    assert streams.process(COMMANDS["encode"][0], closed=closed).code == 0
    assert np.load(f"{FOREIGN}.npy").shape == (30, 3)
    for name in ("a NaN", "a missing bundle", "no such command"):
        assert streams.process(COMMANDS[name][0], closed=closed).code == 2, name
    if ">&-" not in closed.split():
        assert streams.process(COMMANDS["verify, a failing bundle"][0], closed=closed).code == 1


@posix
def test_closed_standard_input_is_empty(folder):
    done = streams.process(["encode", FOREIGN, "-", "-o", "z2.npy"], closed="<&-")
    assert done.code == 2
    assert b"standard input: expected rows of numbers, but it is empty" in done.err


def test_ctrl_c_is_no_failed_check(folder, monkeypatch):
    """130, as a shell says of SIGINT, and nothing half written."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("aeedge.files.writing.RowWriter.write", interrupted)
    run = streams.in_encoding("utf-8", ["encode", FOREIGN, "x.npy", "-o", "z2.npy"])
    assert (run.code, run.out, run.err.split()) == (130, b"", [b"Aborted!"])
    assert not [name for name in os.listdir() if "z2" in name]


def test_a_replaced_stream_is_left_as_it_is(folder, monkeypatch):
    class Plain(io.StringIO):
        """As some notebooks have it."""

    out = Plain()
    monkeypatch.setattr(sys, "stdout", out)
    assert streams.exit_code(["info", FOREIGN]) == 0
    assert FOREIGN in out.getvalue()
