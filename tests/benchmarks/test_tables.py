"""Tables and pictures of a run follow from its file alone, and the committed ones are up to date."""

from argparse import Namespace
from pathlib import Path

import pytest
import runtimes
from comparison import pictures, run, tables
from comparison.records import Records

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STALE = "is stale; run: python benchmarks/runtimes.py --tables"


def test_the_committed_tables_are_up_to_date(tmp_path):
    records = Records.read(RESULTS / "runtimes.jsonl")
    assert records.of("end"), "runtimes.jsonl is not of a full run"
    tables.write(records, tmp_path / "runtimes.md")
    fresh, committed = (tmp_path / "runtimes.md").read_text(), (RESULTS / "runtimes.md").read_text()
    assert committed == fresh, f"runtimes.md {STALE}"
    for workload in records.names("workload"):
        assert (RESULTS / f"runtimes-{workload}.svg").exists()


def test_headline_is_a_ratio_against_the_peer(records):
    lines = {line.split(" | ")[0].strip("| "): line for line in tables.headline(records).splitlines() if "|" in line}
    assert "| 2.00 | 3.00 | yes | 150 | 60 | 140 |" in lines["aeedge fp32"]
    assert "| 1.00 | 1.00 | yes |" in lines["onnxruntime"]
    assert "another model" in lines["sklearn PCA"]


def test_the_fastest_network_is_bold_and_pca_never(records):
    text = tables.document(records)
    assert "| aeedge fp32 | **10.0** | **100** |" in text
    assert "| sklearn PCA | 1.0 | 1.0 |" in text


def test_disturbed_cells_are_marked(records):
    records.of("speed", contender="aeedge fp32", batch=1)[0]["disturbed"] = "other processes used 90% of a CPU"
    text = tables.document(records)
    assert "~**10.0**" in text
    assert "~ disturbed: other processes used 90% of a CPU" in text


def test_records_survive_the_file(records, tmp_path):
    records.write(tmp_path / "r.jsonl")
    assert Records.read(tmp_path / "r.jsonl").lines == records.lines


def test_pictures_are_small_and_repeat(records, tmp_path):
    pictures.write(records, tmp_path, "runtimes")
    first = (tmp_path / "runtimes-deep.svg").read_bytes()
    pictures.write(records, tmp_path, "runtimes")
    assert (tmp_path / "runtimes-deep.svg").read_bytes() == first
    assert b"aeedge fp32" in first
    assert len(first) < 100_000


def asked(tmp_path, **changes):
    return Namespace(**{"quick": False, "workload": [], "contender": [], "out": tmp_path, "tables": False} | changes)


def test_interrupted_runs_are_written_under_another_name(tmp_path, monkeypatch):
    def interrupted(settings, records, log, keep):
        records.add("peak", threads="one")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "compare", interrupted)
    with pytest.raises(SystemExit, match="interrupted; what was measured is in"):
        runtimes.measure(asked(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["runtimes-partial.jsonl"]
    kept = Records.read(tmp_path / "runtimes-partial.jsonl")
    assert [line["kind"] for line in kept.lines] == ["machine", "settings", "peak", "interrupted"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "runtimes"), ({"quick": True}, "runtimes-quick"), ({"workload": ["deep"]}, "runtimes-partial")],
)
def test_only_a_full_run_gets_the_full_name(tmp_path, monkeypatch, records, changes, name):
    def compared(settings, made, log, keep):
        made.lines += records.lines[2:]
        keep()

    monkeypatch.setattr(run, "compare", compared)
    runtimes.measure(asked(tmp_path, **changes))
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.jsonl", f"{name}.md", f"{name}-deep.svg"}
