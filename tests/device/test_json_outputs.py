"""docs/reference/json-outputs.md lists exactly the keys that the commands print, with their types."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.json_outputs import compare
from helpers.signals import machine, signal_bundle
from helpers.tampering import change_golden

from aeedge.bench import measuring
from aeedge.cli.group import AeedgeGroup
from aeedge.system import conditions

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
BUNDLE, INT8, SPECTRUM = (str(DATA / name) for name in ("bundle_v1", "bundle_v1_int8", "bundle_v3_spectrum"))

pytestmark = pytest.mark.usefixtures("own_folders")


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture
def disturbed(monkeypatch):
    """One finding in each document of bench and tune."""
    found = [conditions.Finding("warning", "other_load", "other processes used 5% of the CPU time")]
    monkeypatch.setattr(conditions, "judge", lambda before, after: found)


def test_doctor(tmp_path, monkeypatch):
    damaged = Path(shutil.copytree(BUNDLE, tmp_path / "damaged"))
    change_golden(damaged, "fp32.latent", (3, 0), 1.0)
    monkeypatch.setattr("aeedge.doctor.pi_flags", lambda: 1)
    assert not compare("doctor", *(call("doctor", *path, "--json") for path in ([], [INT8], [damaged], [SPECTRUM])))


def test_verify(bundle):
    (bundle / "encoder.onnx").write_bytes(b"")
    assert not compare("verify", *(call("verify", path, "--json") for path in (INT8, bundle, SPECTRUM)))


@pytest.mark.usefixtures("disturbed")
def test_bench(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_PROCESSES", 1)
    monkeypatch.setattr(measuring, "_PROCESS_SECONDS", 0.2)
    full = call("bench", BUNDLE, "--seconds", "0.2", "--rate", "500/s", "--soak", "1s", "--profile", "--json")
    (tmp_path / "kept.json").write_text(json.dumps(full | {"status": "valid"}))
    quick = ("--seconds", "0.2", "--quick", "--json")
    compared = call("bench", BUNDLE, "--compare", BUNDLE, *quick)
    again = call("bench", BUNDLE, "--baseline", tmp_path / "kept.json", *quick)
    assert not compare("bench", full, compared, again)


@pytest.mark.usefixtures("disturbed")
def test_bench_batch(tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "good.aeedge")
    (shutil.copytree(BUNDLE, tmp_path / "bad.aeedge") / "encoder.onnx").write_bytes(b"")
    documents = [
        call("bench", "--batch", tmp_path, "--at", 1, "--seconds", "0.05", *threads, "--json")
        for threads in ([], ["--threads", 1])
    ]
    assert not compare("bench --batch", *documents)
    assert [entry["name"] for entry in documents[0]["bundles"]] == ["bad", "good"]


@pytest.mark.usefixtures("disturbed")
@pytest.mark.parametrize("objective", ["latency", "memory"])
def test_tune(objective, tmp_path):
    path = Path(shutil.copytree(INT8, tmp_path / "motor.aeedge"))
    change_golden(path, "int8.latent", (3, 0), 1000.0)  # int8 is rejected
    missing = compare("tune", call("tune", path, "--for", objective, "--json"))
    assert missing == {key for key in missing if key.startswith("measurements.")}
    assert "measurements.rejected.*" not in missing


def test_stream(tmp_path):
    bundle = signal_bundle(tmp_path / "m.aeedge")
    rows = [*machine(2000).tolist(), None, *(100 * machine(100, noise=1.0)).tolist()]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    lines = []
    for options in (["--threshold", "0.1"], ["--adapt"]):
        result = CliRunner().invoke(AeedgeGroup.build(), ["stream", str(bundle), *options], input=text)
        lines += result.stdout.splitlines()
    assert not compare("stream", *map(json.loads, lines))


def test_every_code_is_documented():
    page = (ROOT / "docs" / "reference" / "json-outputs.md").read_text(encoding="utf-8")
    files = [*(ROOT / "aeedge" / "bench").glob("*.py"), ROOT / "aeedge/system/conditions.py", ROOT / "aeedge/doctor.py"]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    codes = set(re.findall(r'(?:Finding\("\w+", |_graded\()"(\w+)"', source))
    assert len(codes) > 20
    assert not [code for code in codes if f"`{code}`" not in page and f'"{code}"' not in page]


def test_info_is_the_manifest():
    assert call("info", BUNDLE, "--json") == json.loads((DATA / "bundle_v1" / "manifest.json").read_text())
