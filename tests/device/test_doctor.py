"""`aeedge doctor`: a death inside onnxruntime is named, what a system hides is left out, the text fits a terminal."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from helpers.complaints import messages
from helpers.tampering import change_golden

import aeedge.doctor
import aeedge.system.conditions
import aeedge.system.fingerprint
import aeedge.system.limits
from aeedge.cli.doctor import text
from aeedge.cli.group import AeedgeGroup
from aeedge.doctor import examine, integers, telemetry, threads
from aeedge.table import pairs

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
WORKS = {
    "version": "1.20.0",
    "works": True,
    "done": [],
    "failed_in": None,
    "how": None,
    "message": None,
    "seconds": 0.1,
}


pytestmark = pytest.mark.usefixtures("own_folders")


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), ["doctor", *(str(a) for a in args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def works(monkeypatch):
    """Nothing is tried: for tests of what else is said."""
    monkeypatch.setattr(aeedge.doctor, "try_onnxruntime", lambda timeout: dict(WORKS))


def test_onnxruntime_is_imported_only_when_a_session_is_opened():
    code = f"""
import sys, aeedge, aeedge.cli, aeedge.cli.doctor, aeedge.cli.verify, aeedge.cli.bench, aeedge.cli.transform
print("onnxruntime" in sys.modules)
aeedge.load({str(DATA / "bundle_v1")!r})
print("onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", [None, "bundle_v1", "bundle_v1_int8"])
def test_a_machine_that_is_fit(name):
    bundle = [] if name is None else [DATA / name]
    result = call(*bundle)
    assert result.exit_code == 0, result.output
    for title in ("machine\n", "\nonnxruntime\n", "\nwill be used\n"):
        assert title in result.output
    assert "yes: imported, opened a graph and ran it" in result.output
    document = json.loads(call(*bundle, "--json").stdout)
    assert document["ok"]
    assert document["onnxruntime"]["done"] == ["numpy import", "onnxruntime import", "session", "run"]
    assert not messages(document, "error")
    if name is not None:
        assert "reproduced" in document["use"]["golden rows"]
        assert document["bundle"]["variant"] == ("int8" if "int8" in name else "fp32")
        assert [one["what"] for one in document["bundle"]["golden"]] == ["latent", "reconstruction", "score"]


def test_the_text_fits_80_columns(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = call("tests/data/bundle_v1_int8")
    machine = result.output.split("\nwill be used\n")
    assert len(machine) == 2
    assert max(map(len, machine[0].splitlines())) <= 80
    document = examine(None)
    document["problems"] = [{"grade": "warning", "message": "expected this, got something else; do that " * 9}]
    assert max(map(len, text(document).splitlines())) <= 80


def test_a_tampered_bundle(bundle):
    data = bytearray((bundle / "decoder.onnx").read_bytes())
    data[500] ^= 1
    (bundle / "decoder.onnx").write_bytes(data)
    result = call(bundle)
    assert result.exit_code == 1
    assert "decoder.onnx: its content was changed" in " ".join(result.output.split())
    assert not json.loads(call(bundle, "--json").stdout)["ok"]
    (bundle / "manifest.json").write_text("{}")
    assert call(bundle).exit_code == 1


def test_golden_rows_that_differ(bundle):
    change_golden(bundle, "fp32.latent", (3, 0), 1.0)
    document = examine(str(bundle))
    assert document["use"]["golden rows"] == "not reproduced"
    assert "latent of row 3 differs by 1" in messages(document, "error")[0]
    assert document["bundle"]["variant"] == "fp32"


def test_int8_that_is_not_right_is_a_warning(tmp_path):
    path = Path(shutil.copytree(DATA / "bundle_v1_int8", tmp_path / "motor.aeedge"))
    change_golden(path, "int8.latent", (3, 0), 1000.0)
    document = examine(str(path))
    assert document["ok"]
    assert document["bundle"]["variant"] == "fp32"
    assert any("int8 is not right on this machine" in message for message in messages(document, "warning"))


def test_what_the_model_chose_is_printed(works):
    use = examine(str(DATA / "bundle_v1"))["use"]
    with aeedge.load(DATA / "bundle_v1") as model:
        assert use["variant"] == model.choices["variant"] == "fp32: the bundle's default"
        assert use["calls"] == model.choices["calls"]
    assert use["arithmetic"].startswith("float")


def test_nothing_there_is_exit_code_2():
    result = call("no/such/bundle")
    assert result.exit_code == 2
    assert "nothing is there" in result.stderr


def test_no_home(monkeypatch, works):
    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    document = examine()
    assert document["ok"]
    assert any("there is no home directory" in message for message in messages(document, "warning"))


def test_a_state_folder_that_cannot_be_made(monkeypatch, tmp_path, works):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "state"))
    (warning,) = [message for message in messages(examine(), "warning") if "XDG_STATE_HOME" in message]
    assert warning.startswith(f"{tmp_path}/file/state/aeedge cannot be written")


def test_hidden_proc_and_sys(monkeypatch):
    for module in (aeedge.system.limits, aeedge.system.fingerprint, aeedge.system.conditions, aeedge.doctor):
        monkeypatch.setattr(module, "read_text", lambda path: "")
    document = examine(str(DATA / "bundle_v1_int8"))
    assert document["ok"]
    machine = document["machine"]
    assert (machine["memory_mb"], machine["memory_free_mb"], machine["integers"], machine["celsius"]) == (None,) * 4
    assert any(message.startswith("/proc/cpuinfo, ") for message in messages(document, "warning"))
    out = text(document)
    assert "features   unknown" in out
    assert "memory  " not in out


def test_a_machine_without_vnni(monkeypatch, works):
    flags = "flags : fpu sse4_2 avx avx2 fma\n"
    cpuinfo = f"model name : Intel(R) Core(TM) i5-4570\n{flags}"
    monkeypatch.setattr(aeedge.system.limits, "read_text", lambda path: cpuinfo if "cpuinfo" in path else "")
    out = text(examine())
    assert "processor  Intel(R) Core(TM) i5-4570\n" in out
    assert "features   sse4_2 avx avx2\n" in out
    assert "integers may saturate (no VNNI): golden rows decide when int8 is loaded" in " ".join(out.split())


@pytest.mark.parametrize(
    ("vector", "meaning"),
    [
        (["avx2", "avx_vnni"], "integers are fast and exact (avx_vnni)"),
        (["asimd", "asimddp"], "integers are fast and exact (asimddp)"),
        (["asimd"], "integers are exact, without instructions for dot products"),
        (["sse4_2"], "integers may saturate"),
        ([], None),
    ],
)
def test_integers(vector, meaning):
    found = integers(vector)
    assert found == meaning if meaning is None else found.startswith(meaning)


def test_a_quota_and_little_memory(monkeypatch, tmp_path, works):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(aeedge.system.limits, "_CGROUP", str(tmp_path))
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads() == "2: 4 of 8 CPUs in the affinity mask, a quota of 1.5 CPUs"
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("45000000\n")
    (tmp_path / "memory.stat").write_text("anon 30000000\nactive_file 1000000\ninactive_file 2000000\n")
    document = examine()
    said = messages(document, "warning")
    assert document["machine"]["memory_free_mb"] == 8
    assert "a quota of 0.5 CPUs: calls are made to wait in their middle; grant one CPU at least" in said
    assert "8 MB of memory are free, expected 64 or more; free some" in said


def test_where_the_process_is_placed(monkeypatch, works):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    document = examine()
    said = " ".join(messages(document, "note"))
    assert document["ok"]
    assert document["use"]["threads"].startswith("1: 1 of 8 CPUs in the affinity mask")
    assert "the affinity mask allows 1 of 8 CPUs" in said
    assert "OMP_NUM_THREADS=3 has no effect on aeedge; pass threads=3 to aeedge.load" in said


def test_packages_too_old_or_over_each_other(monkeypatch, works):
    def distribution(name, version, file="onnxruntime/__init__.py"):
        return SimpleNamespace(metadata={"Name": name}, version=version, files=[Path(file)])

    installed = [
        distribution("onnxruntime", "1.20.0"),
        distribution("onnxruntime-gpu", "1.19.2"),
        distribution("onnxruntime-extensions", "0.9", "onnxruntime_extensions/__init__.py"),
        distribution("onnxruntime", "1.20.0"),  # found twice where a folder is on the path twice
    ]
    monkeypatch.setattr(aeedge.doctor, "distributions", lambda: installed)
    needs = ["onnxruntime>=1.21", "numpy (>=1.0)", "click>=99; extra == 'dev'"]
    monkeypatch.setattr(aeedge.doctor, "requires", lambda name: needs)
    old, twice = messages(examine(), "warning")[:2]
    assert old == "onnxruntime 1.20.0: expected 1.21 or newer; upgrade it with: pip install 'onnxruntime>=1.21'"
    assert twice.startswith("onnxruntime 1.20.0 and onnxruntime-gpu 1.19.2 are installed over each other")
    assert "pip uninstall onnxruntime onnxruntime-gpu)" in twice


@pytest.mark.parametrize(
    ("version", "found", "meaning"),
    [
        ("1.20.0", None, "none in this version"),
        ("1.32.0", None, "off, aeedge sees to it; on in programs that import onnxruntime before aeedge"),
        ("1.32.0", "", "off, aeedge sees to it"),
        ("1.32.0", "True", "off: ORT_DISABLE_TELEMETRY=True is set"),
        ("1.32.0", "0", "ORT_DISABLE_TELEMETRY=0 asks onnxruntime to start it; set it to 1"),
        ("not installed", None, "off, aeedge sees to it"),
    ],
)
def test_telemetry(monkeypatch, version, found, meaning):
    monkeypatch.setattr(aeedge.doctor, "TELEMETRY_FOUND", found)
    assert telemetry(version)["meaning"].startswith(meaning)


@pytest.mark.parametrize(("found", "then"), [(None, "1"), ("", "1"), ("0", "0"), ("yes", "yes")])
def test_telemetry_is_switched_off_unless_the_user_has_spoken(found, then):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if found is None else {"ORT_DISABLE_TELEMETRY": found}
    code = "import os, aeedge.runtime.session as s; print(repr(s.TELEMETRY_FOUND), os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [repr(found), then]


def test_what_a_broken_uninstall_leaves_is_passed_over(monkeypatch, tmp_path, works):
    (tmp_path / "~nnxruntime-1.20.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert examine()["ok"]


def test_traces_of_telemetry(monkeypatch, tmp_path, works):
    assert not [m for m in messages(examine(), "note") if "telemetry" in m]
    database = tmp_path / "XDG_CACHE_HOME" / "Microsoft" / "DeveloperTools" / ".onnxruntime" / "onnxruntime.db"
    database.parent.mkdir(parents=True)
    database.write_text("")
    assert [m for m in messages(examine(), "note") if m.startswith(f"{database} is there")]


def test_pairs_fold_between_words():
    assert (
        pairs([("a", "b"), ("long", "one two --three-four")], 12) == "a     b\nlong  one\n      two\n      --three-four"
    )
