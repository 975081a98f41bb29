"""`aeedge doctor`: what a system hides is left out, each finding has a sentence, the text fits a terminal."""

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
from aeedge.bundle.reader import Bundle
from aeedge.cli.doctor import _telemetry, text
from aeedge.cli.group import AeedgeGroup
from aeedge.doctor import examine, int8_sums, telemetry
from aeedge.runtime import policy_store
from aeedge.runtime.policy import DispatchPolicy
from aeedge.runtime.policy_store import TunedPolicy
from aeedge.table import pairs

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
WORKS = {
    "version": "1.20.0",
    "works": True,
    "stages_done": [],
    "failed_stage": None,
    "exit": None,
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
    """No probe: for tests of the other findings."""
    monkeypatch.setattr(aeedge.doctor, "probe", lambda timeout: dict(WORKS))


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
    for title in ("machine\n", "\nonnxruntime\n"):
        assert title in result.output
    assert "yes: imported, opened a graph and ran it" in result.output
    document = json.loads(call(*bundle, "--json").stdout)
    assert document["ok"]
    assert document["onnxruntime"]["stages_done"] == ["numpy_import", "onnxruntime_import", "session", "run"]
    assert not messages(document, "error")
    if name is not None:
        assert "\nbundle\n" in result.output
        assert "reference outputs reproduced" in result.output
        assert document["bundle"]["status"] == "ok"
        assert document["bundle"]["variant"]["value"] == ("int8" if "int8" in name else "fp32")
        assert [one["output"] for one in document["bundle"]["outputs"]] == ["latent", "reconstruction", "score"]


def test_the_text_fits_80_columns(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert max(map(len, call("tests/data/bundle_v1_int8").output.splitlines())) <= 80
    document = examine(None)
    document["findings"] = [{"grade": "warning", "message": "expected this, got something else; do that " * 9}]
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


def test_reference_outputs_that_differ(bundle):
    change_golden(bundle, "fp32.latent", (3, 0), 1.0)
    document = examine(str(bundle))
    assert document["bundle"]["status"] == "check_failed"
    assert "latent of row 3 differs by 1" in messages(document, "error")[0]
    assert document["bundle"]["variant"]["value"] == "fp32"
    assert "self-check        failed: the reference outputs are not reproduced" in text(document)


def test_int8_that_is_not_right_is_a_warning(tmp_path):
    path = Path(shutil.copytree(DATA / "bundle_v1_int8", tmp_path / "motor.aeedge"))
    change_golden(path, "int8.latent", (3, 0), 1000.0)
    identity = Bundle(path).manifest.id
    policy_store.write(identity, TunedPolicy("memory", "int8", 1, DispatchPolicy(), {"encode": 1.0}, {}))
    document = examine(str(path))
    assert document["ok"]
    assert document["bundle"]["variant"] == {"value": "fp32", "source": "fallback"}
    assert document["bundle"]["dispatch_policy"] == {"source": "default", "objective": None}
    assert "threads           1: tuned on this device\n" in text(document)
    assert any("int8 is not right on this machine" in message for message in messages(document, "warning"))


def test_what_the_model_chose_is_printed(works):
    path = str(DATA / "bundle_v1")
    found = examine(path)["bundle"]
    assert found["variant"] == {"value": "fp32", "source": "bundle_default"}
    assert found["dispatch_policy"] == {"source": "default", "objective": None}
    with aeedge.load(path) as model:
        assert (found["arithmetic"], found["nonfinite_check"]) == (model.arithmetic, model.nonfinite_check)
        assert found["threads"]["value"] == model.threads
    policy_store.write(found["id"], TunedPolicy("memory", "fp32", 1, DispatchPolicy(), {"encode": 1.0}, {}))
    document = examine(path)
    assert document["bundle"]["variant"] == {"value": "fp32", "source": "tuned"}
    assert document["bundle"]["threads"] == {"value": 1, "source": "tuned"}
    assert document["bundle"]["dispatch_policy"] == {"source": "tuned", "objective": "memory"}
    assert "variant           fp32: tuned on this device for memory" in text(document)


def test_a_damaged_result_of_tune_is_a_warning(works):
    path = str(DATA / "bundle_v1")
    place = Path(aeedge.system.limits.record_path(examine(path)["bundle"]["id"]))
    place.parent.mkdir(parents=True)
    place.write_text("{")
    (warning,) = messages(examine(path), "warning")
    assert "not a record that 'aeedge tune' wrote" in warning


def test_nothing_there_is_exit_code_2():
    result = call("no/such/bundle")
    assert result.exit_code == 2
    assert "nothing is there" in result.stderr


@pytest.mark.parametrize("home", [None, "", "not/absolute"])
def test_no_home(monkeypatch, works, home):
    def unknown(uid):
        raise KeyError(uid)

    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    document = examine()
    assert document["ok"]
    assert any("set AEEDGE_STATE, XDG_STATE_HOME or HOME" in message for message in messages(document, "warning"))


@pytest.mark.parametrize(("variable", "below"), [("XDG_STATE_HOME", "/aeedge"), ("AEEDGE_STATE", "")])
def test_a_state_folder_that_cannot_be_made(monkeypatch, tmp_path, works, variable, below):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "state"))
    (warning,) = [message for message in messages(examine(), "warning") if "AEEDGE_STATE" in message]
    assert warning.startswith(f"{tmp_path}/file/state{below} cannot be written")


def test_a_state_folder_that_is_chosen_needs_no_home(monkeypatch, tmp_path, works):
    monkeypatch.setenv("AEEDGE_STATE", str(tmp_path / "new"))
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name)
    assert not [message for message in messages(examine(), "warning") if "AEEDGE_STATE" in message]


def test_hidden_proc_and_sys(monkeypatch):
    for module in (aeedge.system.limits, aeedge.system.fingerprint, aeedge.system.conditions, aeedge.doctor):
        monkeypatch.setattr(module, "read_text", lambda path: "")
    document = examine(str(DATA / "bundle_v1_int8"))
    assert document["ok"]
    machine = document["machine"]
    assert (machine["memory_mb"], machine["memory_free_mb"], machine["int8_sums"], machine["celsius"]) == (None,) * 4
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
    assert "integer sums may saturate (no VNNI); checked when int8 is loaded" in " ".join(out.split())


@pytest.mark.parametrize(
    ("vector", "meaning"),
    [
        (["avx2", "avx_vnni"], "dot_product"),
        (["asimd", "asimddp"], "dot_product"),
        (["asimd"], "exact"),
        (["sse4_2"], "may_saturate"),
        ([], None),
    ],
)
def test_integer_sums(vector, meaning):
    assert int8_sums(vector) == meaning


def test_a_quota_and_little_memory(monkeypatch, tmp_path, works):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(aeedge.system.limits, "_CGROUP", str(tmp_path))
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    document = examine()
    assert document["threads"] == {"value": 2, "source": "cpu_quota"}
    out = text(document)
    assert "CPUs       4 of 8, a quota of 1.5 CPUs\n" in out
    assert "threads    2: limited by the CPU quota\n" in out
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("45000000\n")
    (tmp_path / "memory.stat").write_text("anon 30000000\nactive_file 1000000\ninactive_file 2000000\n")
    document = examine()
    warnings = messages(document, "warning")
    assert document["machine"]["memory_free_mb"] == 8
    assert "a quota of 0.5 CPUs pauses calls before they are done; grant at least one CPU" in warnings
    assert "8 MB of memory are free, expected 64 or more; free some" in warnings


def test_where_the_process_is_placed(monkeypatch, works):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    document = examine()
    notes = " ".join(messages(document, "note"))
    assert document["ok"]
    assert document["threads"] == {"value": 1, "source": "affinity_mask"}
    assert "the affinity mask allows 1 of 8 CPUs" in notes
    assert "OMP_NUM_THREADS=3 has no effect on aeedge; pass threads=3 to aeedge.load, or --threads" in notes


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
        ("1.20.0", None, "this version has none"),
        ("1.32.0", None, "off, switched off by aeedge"),
        ("1.32.0", "", "off, switched off by aeedge"),
        ("1.32.0", "True", "off: ORT_DISABLE_TELEMETRY=True is set"),
        ("1.32.0", "0", "on: ORT_DISABLE_TELEMETRY=0 is set; set it to 1 to switch it off"),
        (None, None, "off, switched off by aeedge"),
    ],
)
def test_telemetry(monkeypatch, version, found, meaning):
    monkeypatch.setattr(aeedge.doctor, "TELEMETRY_FOUND", found)
    assert _telemetry(telemetry(version)).startswith(meaning)


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
    monkeypatch.setattr(aeedge.doctor, "probe", lambda timeout: WORKS | {"version": "1.32.0"})
    for found, noted in ((None, 0), ("1", 0), ("0", 1)):  # others may have it on, which is not asked here
        monkeypatch.setattr(aeedge.doctor, "TELEMETRY_FOUND", found)
        notes = [m for m in messages(examine(), "note") if "telemetry" in m]
        assert len(notes) == noted
        assert all(str(database) in m and "set ORT_DISABLE_TELEMETRY=1" in m for m in notes)


def test_pairs_fold_between_words():
    assert (
        pairs([("a", "b"), ("long", "one two --three-four")], 12) == "a     b\nlong  one\n      two\n      --three-four"
    )
