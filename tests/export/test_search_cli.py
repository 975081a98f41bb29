"""aeedge search, called as from a shell: its options, its output, what it refuses, and devices that fail."""

from __future__ import annotations

import json
import re
import shutil
import stat
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.devices import by_size
from helpers.json_outputs import compare

import aeedge
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge.files.replacing import BUNDLE, RUN, SEARCH, check_folder
from aeedge_export.architecture_search import measuring, session
from aeedge_export.architecture_search.result import Point
from aeedge_export.cli import search_text
from aeedge_export.cli.search_text import SearchProgress, result_lines, table

FEW = ["--families", "pca", "--latents", "2", "--variants", "fp32", "-q"]


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def sentence(result):
    """The only complaint of a command: one line that begins with "Error: "."""
    found = [
        line for line in result.stderr.splitlines() if not line.startswith(("Read: ", "Usage: ", "Try ", "Note: "))
    ]
    lines = [line for line in found if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.output
    return lines[0].removeprefix("Error: ")


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(session, "measure", by_size)


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(300, 6))
    path = tmp_path_factory.mktemp("data") / "pump.csv"
    np.savetxt(path, rows, delimiter=",", fmt="%.9g", header="a,b,c,d,e,f", comments="")
    return path


@pytest.fixture(scope="module")
def done(csv, tmp_path_factory):
    """A search that is done, measured on this machine."""
    path = tmp_path_factory.mktemp("done") / "found"
    result = call("search", csv, "-o", path, *FEW, "--time", "60s")
    assert result.exit_code == 0, result.output
    return SimpleNamespace(path=path, result=result)


@pytest.fixture
def finished(done, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(done.path, tmp_path / "finished"))


# --- what it does


def test_from_rows_to_the_best_bundle(done, csv, tmp_path):
    lines = done.result.stdout.splitlines()
    assert any(re.match(r"\*> pca-k2 +2 +1\.000 +1\.000 .* µs .*/s .* kB", line) for line in lines), lines
    assert any(re.match(r"best: pca-k2, error [\d.e-]+ on 45 rows that judge alone", line) for line in lines)
    assert any(line.startswith("measured on this machine") for line in lines)
    assert lines[-1] == f"page: {done.path}/report.html; next: aeedge verify {done.path}/best.aeedge"
    assert (done.path / "report.html").exists()
    assert "Read: inputs (6): a, b, c, d, e, f" in done.result.stderr
    assert call("verify", done.path / "best.aeedge").exit_code == 0
    assert call("export", done.path / "runs" / "pca-k2", "-o", tmp_path / "again.aeedge").exit_code == 0
    assert aeedge.load(done.path / "best.aeedge").input.features == tuple("abcdef")


@pytest.mark.usefixtures("measured")
def test_the_documented_keys_are_those_of_the_json(csv, tmp_path):
    options = ["--families", "dense,pca", "--latents", "1,2", "--variants", "fp32", "--time", "3m", "-q", "--json"]
    result = call("search", csv, "-o", tmp_path / "found", *options)
    document = json.loads(result.stdout)
    assert compare("search", document) <= {"notes[]", "reference.hidden[]"}  # there was nothing to note
    assert len(document["points"]) >= 4
    assert document["best"] in [point["name"] for point in document["points"]]


@pytest.mark.usefixtures("measured")
def test_a_search_goes_on_with_another_budget_and_one_that_nothing_meets_ends_with_1(csv, finished):
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--latency", "1ns", "--json")
    assert result.exit_code == 1
    assert "no network meets the budget; the nearest is pca-k2" in result.stderr
    assert json.loads(result.stdout)["best"] is None
    assert not (finished / "best.aeedge").exists()
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--size", "1MB")
    assert result.exit_code == 0, result.output
    assert (finished / "best.aeedge").exists()


@pytest.mark.usefixtures("measured")
def test_labels_windows_and_missing_values_are_read_as_for_training(tmp_path):
    rng = np.random.default_rng(0)
    signal = np.sin(np.arange(4000) / 7)[:, None] * [1, 0.5] + 0.1 * rng.normal(size=(4000, 2))
    np.savetxt(tmp_path / "s.csv", signal, delimiter=",", fmt="%.6g", header="x,y", comments="")
    windows = ["--window", "16", "--hop", "8", "--sample-rate", "50Hz", "--channels", "x,y"]
    result = call("search", tmp_path / "s.csv", "-o", tmp_path / "w", *windows, *FEW)
    assert result.exit_code == 0, result.output
    with aeedge.load(tmp_path / "w" / "best.aeedge") as model:
        assert (model.input.signal.window, model.input.signal.rate) == (16, 50.0)
    assert "channels: x, y" in result.stdout
    rows = rng.normal(size=(200, 4)) * [1, 1, 0.1, 0.1]
    lines = [",".join(f"{v:.5g}" for v in row) + f",{'bad' if i % 40 == 0 else 'ok'}" for i, row in enumerate(rows)]
    lines[7] = ",,,,ok"
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,state", *lines]))
    options = ["--labels", "state", "--missing", "drop", "--objective", "probe"]
    result = call("search", tmp_path / "t.csv", "-o", tmp_path / "t", *options, *FEW)
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout.splitlines()[0]
    assert aeedge.load(tmp_path / "t" / "best.aeedge").input.missing.policy == "drop"


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--latency 20us --rate 50k/s", "--latency, --rate: both limit the time of a sample; give one of them"),
        ("--latency 20", "--latency: expected a duration above 0 with its unit such as 20us or 1.5ms, got '20'"),
        ("--latency 0us", "--latency: expected a duration above 0"),
        ("--latency -5us", "--latency: expected a duration above 0"),
        ("--latency 5 parsecs", "--latency: expected a duration above 0"),
        ("--rate 20Hz", "--rate: expected samples per second above 0 such as 2000/s or 50k/s, got '20Hz'"),
        ("--rate 0/s", "--rate: expected samples per second above 0"),
        ("--size 0", "--size: expected a size above 0 such as 200kB, 8MB or 1MiB, got '0'"),
        ("--size 200kb", "--size: expected a size above 0"),
        ("--memory -1MB", "--memory: expected a size above 0"),
        ("--macs nan", "--macs: expected a number above 0 such as 5000, 100k or 2M, got 'nan'"),
        ("--max-error-vs-best 5", "--max-error-vs-best: expected a share from 0 to 1 such as 5% or 0.05, got '5'"),
        ("--time 0", "--time: expected a duration above 0"),
        ("--at 0", "--at: expected a whole number of at least 1, got '0'"),
        ("--latents 4,x", "--latents: expected 'auto' or numbers such as 4,8,16, got '4,x'"),
        ("--latents 7", "--latents: expected numbers from 1 to 6, the values in a row, got 7"),
        ("--latents 0", "--latents: expected numbers from 1 to 6"),
        ("--families dense,lstm", "--families: expected some of dense, conv1d, conv2d, pca, got lstm"),
        ("--families dense,", "--families: expected names with a comma between them, got 'dense,'"),
        (
            "--families conv1d",
            "--families: 'conv1d' takes signals, rows of two axes, got rows of shape (6,); leave it out",
        ),
        ("--variants int4", "--variants: expected fp32, int8 or both in a sequence, got int4"),
        ("--objective auc", "--objective: 'auc' needs labels, got none; give a class for each row"),
        ("--goal win", "--goal: expected detect, compress, got 'win'"),
        ("--scaling log", "--scaling: expected auto, standard, robust, minmax, none, got 'log'"),
        ("--seed -1", "--seed: expected a whole number from 0 to 4294967295, got -1"),
        ("--axes nct", "axes: 'nct' needs rows of 2 axes, got rows of shape (6,)"),
        ("--sample-rate 50Hz", "--sample-rate: expected --window with it, which makes windows of recordings, got none"),
        ("--time-column t", "--time-column: expected --window with it"),
        ("--labels nothing", "nothing"),
        ("--measured m.json", "--measured: expected --resume with it: the bundles of an earlier search were measured"),
        ("--measured m.json --remote env --resume", "--measured, --remote: both say how a device is measured"),
        ("--remote ' '", "--remote: expected a command that runs another one on the device"),
        ('--remote "\'x"', "--remote: expected a command that runs another one on the device"),
        ("--resume --force", "--resume, --force: a search is either gone on with or replaced; give one of them"),
        ("--resume", "expected a folder that 'aeedge search' made, to go on with it (--resume)"),
    ],
)
def test_what_is_refused_in_a_sentence_and_leaves_nothing(csv, tmp_path, options, message):
    words = [word.strip('"') for word in re.findall(r"'[^\"]*'|\"[^\"]*\"|\S+", options)]
    words = [word[1:-1] if len(word) > 2 and word[0] == word[-1] == "'" else word for word in words]
    if "parsecs" in words:
        words = ["--latency", "5 parsecs"]
    result = call("search", csv, "-o", tmp_path / "found", "--families", "pca", *words, "-q")
    assert result.exit_code == 2
    assert message in sentence(result)
    assert not any(tmp_path.iterdir())


def test_a_folder_is_replaced_only_by_force_and_only_a_search(csv, done, finished, tmp_path, measured):
    refused = call("search", csv, "-o", finished, *FEW)
    assert refused.exit_code == 2
    assert sentence(refused) == (
        f"{finished}: already exists; choose another name, replace it (--force) or go on with it (--resume)"
    )
    before = sorted(path.relative_to(finished) for path in finished.rglob("*"))
    assert call("search", csv, "-o", finished, *FEW, "--force", "--scaling", "log").exit_code == 2
    assert sorted(path.relative_to(finished) for path in finished.rglob("*")) == before  # the old one came back
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]
    old = (finished / "search.json").read_bytes()
    assert call("search", csv, "-o", finished, *FEW, "--force", "--seed", "1").exit_code == 0
    assert (finished / "search.json").read_bytes() != old
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


@pytest.mark.parametrize("place", [".", "runs", "bundles", "runs/pca-k2", "bundles/pca-k2.aeedge", "best.aeedge"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_search_with_files_of_others_is_not_replaced(csv, finished, place, as_folder):
    foreign = finished / place / "thesis.txt"
    foreign.mkdir() if as_folder else foreign.write_text("irreplaceable")
    result = call("search", csv, "-o", finished, *FEW, "--force")
    assert result.exit_code == 2
    assert "thesis.txt" in sentence(result)
    assert "no part of this search" in sentence(result)
    assert foreign.exists()


def test_runs_and_bundles_are_not_replaced_by_a_search_nor_a_search_by_them(csv, done, finished):
    for path in (done.path / "runs" / "pca-k2", done.path / "best.aeedge"):
        result = call("search", csv, "-o", path, *FEW, "--force")
        assert result.exit_code == 2
        assert "which is not replaced here" in sentence(result)
    for kinds in ([RUN], [BUNDLE], [RUN, BUNDLE]):
        with pytest.raises(InputError, match="is a search, which is not replaced here"):
            check_folder(finished, overwrite=True, kinds=kinds)
    check_folder(finished, overwrite=True, kinds=[SEARCH])
    (finished / "runs" / ".pca-k2.aeedge-0123abcd.part").mkdir()  # left by a writer that was killed
    check_folder(finished, overwrite=True, kinds=[SEARCH])


def test_an_output_that_holds_the_data_is_refused(done, csv, tmp_path):
    shutil.copy(csv, tmp_path / "pump.csv")
    result = call("search", tmp_path / "pump.csv", "-o", tmp_path, *FEW, "--force")
    assert result.exit_code == 2
    assert "which this command reads" in sentence(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--latents 2,3", "--latents: expected what the search began with, 2, got 2, 3; start a new search"),
        ("--families dense", "--families: expected what the search began with, pca, got dense"),
        ("--variants fp32,int8", "--variants: expected what the search began with, fp32, got fp32, int8"),
        ("--method score", "--method: expected what the search began with, encode, got score"),
        ("--seed 1", "--seed: expected what the search began with, 0, got 1"),
        ("--scaling robust", "--scaling: expected what the search began with, "),
        ("--goal detect", "--goal: expected what the search began with, 'compress', got 'detect'"),
        ("--drop a", "DATA: expected the rows that the search began with, got others; start a new search"),
    ],
)
def test_a_search_does_not_go_on_with_other_data_or_settings(csv, finished, options, message):
    before = (finished / "search.json").read_bytes()
    result = call("search", csv, "-o", finished, *FEW, *options.split(), "--resume")
    assert result.exit_code == 2
    assert message in sentence(result)
    assert (finished / "search.json").read_bytes() == before


def test_a_damaged_state_is_named(csv, finished):
    (finished / "search.json").write_text('{"format": "aeedge-search", "version": 1}')
    result = call("search", csv, "-o", finished, *FEW, "--resume")
    assert result.exit_code == 2
    assert "search.json: is damaged" in sentence(result)


@pytest.mark.usefixtures("measured")
def test_time_that_runs_out_before_one_candidate_is_done(csv, tmp_path):
    result = call("search", csv, "-o", tmp_path / "found", *FEW, "--time", "1ms")
    assert result.exit_code == 1
    assert "the time ran out before one candidate was trained to the end" in result.stderr
    assert "--resume" in result.stderr
    assert call("search", csv, "-o", tmp_path / "found", *FEW, "--resume").exit_code == 0


@pytest.mark.usefixtures("measured")
def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(csv, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.Session, "_train", interrupted)
    result = call("search", csv, "-o", tmp_path / "found", *FEW)
    assert result.exit_code == 1
    assert "--resume" in result.output
    monkeypatch.undo()
    monkeypatch.setattr(session, "measure", interrupted)
    result = call("search", csv, "-o", tmp_path / "found", *FEW, "--resume")
    assert result.exit_code == 1
    assert "--resume" in result.output
    monkeypatch.setattr(session, "measure", by_size)
    assert call("search", csv, "-o", tmp_path / "found", *FEW, "--resume").exit_code == 0


# --- devices


def script(folder, text):
    """A command that runs such Python in the place of ssh."""
    path = folder / "remote.py"
    path.write_text(text)
    return f"{sys.executable} {path}"


ANSWER = "import sys, json; sys.stdin.buffer.read(); print(json.dumps({}))"
OTHER = {"name": "pca-k2", "id": "0" * 64, "size_bytes": 1, "latency_us": {"1": 1.0, "1024": 2.0}}


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        (
            "import sys; print('Connection refused', file=sys.stderr); sys.exit(255)",
            "exit code 255 and 'Connection refused'",
        ),
        ("print('Welcome to gateway!')", "expected the JSON of 'aeedge bench --batch', got exit code 0"),
        ("", "expected the JSON of 'aeedge bench --batch', got exit code 0"),
        ("print('{}')", "expected what 'aeedge bench --batch --json' prints"),
        ("print('[1]')", "expected what 'aeedge bench --batch --json' prints"),
        ("print('null')", "expected what 'aeedge bench --batch --json' prints"),
        (
            ANSWER.format({"schema": "aeedge-bench-batch/1", "bundles": []}),
            "expected results of the 1 bundles that were sent",
        ),
        (ANSWER.format({"schema": "aeedge-bench-batch/1", "bundles": [OTHER]}), "those of others for pca-k2"),
        (ANSWER.format({"schema": "aeedge-bench-batch/1", "bundles": [{}]}), "--json' prints"),
        (ANSWER.format({"schema": "aeedge-bench-batch/1"}), "expected what 'aeedge bench --batch --json' prints"),
        ("import time; time.sleep(60)", "no answer within"),
        (None, "/nowhere/ssh': cannot be run: No such file or directory; check the command"),
    ],
)
def test_a_device_that_fails_is_named_and_what_was_trained_is_kept(csv, tmp_path, monkeypatch, remote, message):
    monkeypatch.setattr(measuring, "_PATIENCE", 1.0)
    monkeypatch.setattr(measuring, "_PER_BUNDLE", 0.0)
    command = "/nowhere/ssh" if remote is None else script(tmp_path, remote)
    result = call("search", csv, "-o", tmp_path / "found", *FEW, "--remote", command)
    assert result.exit_code == 1
    assert message in sentence(result)
    assert "what was trained is kept; go on with --resume" in sentence(result)
    monkeypatch.undo()
    monkeypatch.setattr(session, "measure", by_size)
    assert call("search", csv, "-o", tmp_path / "found", *FEW, "--resume").exit_code == 0


def test_a_remote_command_measures(csv, finished, tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -m aeedge "$@"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--remote", f"{ssh} pi@gateway")
    assert result.exit_code == 0, result.output
    assert f"measured on '{ssh} pi@gateway'" in result.stdout


def test_results_of_a_device_are_taken_from_a_file(csv, finished, tmp_path):
    document = by_size([finished / "bundles" / "pca-k2.aeedge"], SimpleNamespace(latency_at=1, rate_at=1024))
    document["bundles"][0]["latency_us"] = {"1": 123.0, "1024": 1024.0}
    (tmp_path / "device.json").write_text(json.dumps(document))
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--measured", tmp_path / "device.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"pca-k2 .* 123 µs +1M/s", result.stdout), result.stdout
    assert "measured on a device" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "0" * 64}, "--measured: expected results of this search's bundles"),
        ({"name": "other"}, "--measured: expected results of this search's bundles"),
        ({"latency_us": {"1": 1.0}}, "--measured: expected times of calls with 1 and 1024 samples"),
    ],
)
def test_results_of_other_bundles_or_calls_are_refused(csv, finished, tmp_path, change, message):
    document = by_size([finished / "bundles" / "pca-k2.aeedge"], SimpleNamespace(latency_at=1, rate_at=1024))
    document["bundles"][0] |= change
    (tmp_path / "device.json").write_text(json.dumps(document))
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--measured", tmp_path / "device.json")
    assert result.exit_code == 2
    assert message in sentence(result)
    result = call("search", csv, "-o", finished, *FEW, "--resume")  # the refused file has changed nothing
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"schema": "aeedge-bench/2"}'])
def test_a_file_of_something_else_is_refused(csv, finished, tmp_path, text):
    if text is not None:
        (tmp_path / "device.json").write_text(text)
    result = call("search", csv, "-o", finished, *FEW, "--resume", "--measured", tmp_path / "device.json")
    assert result.exit_code == 2
    assert sentence(result).startswith("--measured: ")
    assert "device.json" in sentence(result)


# --- output


def point(name, **changes):
    values = {"trial": name, "family": "dense", "hidden": (8,), "latent": 16, "variant": "fp32", "loss": 0.02}
    values |= {
        "judged": 0.02,
        "latency_us": 12.34,
        "rate": 123456.0,
        "size": 123456,
        "memory": 12345678,
        "macs": 123456,
    }
    return Point(name, **values | changes)


def test_times_of_both_variants_measured_here_say_that_the_device_may_rank_them_differently():
    measured = {"where": "this machine", "machine": None, "noise": None, "rank_agreement": None, "status": "valid"}
    details = {
        "measured": measured | {"latency_at": 1, "rate_at": 1024},
        "rows": {"training": 1, "selection": 1, "judging": 1, "what": "rows"},
    }
    points = [point("a"), point("a-int8", variant="int8")]
    found = SimpleNamespace(
        points=points, front=points, best=None, objective="error", details=details, smallest_latent=None, stopped="done"
    )
    assert any("fp32 and int8 may rank differently" in line for line in result_lines(found, "s"))
    found.points = points[:1]
    assert not any("rank differently" in line for line in result_lines(found, "s"))
    found.points, measured["where"] = points, "'ssh pi'"
    details["measured"] |= measured
    assert not any("rank differently" in line for line in result_lines(found, "s"))


@pytest.mark.parametrize("length", [8, 20, 30, 40])
def test_a_table_fits_80_columns(length):
    names = [f"{'conv1d-16-32-64-s4-2-sep-k128-int8-and-more-'[: length - 1]}{i}" for i in range(3)]
    points = [point(names[0]), point(names[1], loss=12345.6, on_front=True), point(names[2], family="pca")]
    found = SimpleNamespace(points=points, best=points[1], objective="error")
    lines = table(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1 if length < 20 else 0] for line in lines]
    for name, line in zip(names, lines[2:]):
        assert name in line
        assert "12.3 µs" in line
    assert lines[3].startswith("*>")


class Terminal:
    def __init__(self, *, is_terminal):
        self.is_terminal, self.written = is_terminal, ""

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        self.written += text

    def flush(self):
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_fits_a_line_and_its_time_left_stays_within_the_limit(monkeypatch, is_terminal):
    terminal, now = Terminal(is_terminal=is_terminal), [100.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(search_text, "monotonic", lambda: now[0])
    limit = 600.0
    with SearchProgress(limit) as progress:
        for step in range(200):
            now[0] = 100.0 + 3 * step
            progress(step, 200, "training conv1d-16-32-64-s4-2-sep-k128" * (step % 4), 10 * (limit - 3 * step))
    lines = [line.rstrip() for line in re.split(r"[\r\n]", terminal.written) if line.strip()]
    assert max(map(len, lines)) < 80
    assert len(lines) == 200 if is_terminal else 5 <= len(lines) <= 11
    for line in lines:
        assert re.search(r"(\d+ (s|min) left|nearly done)$", line), line
        minutes = re.search(r"(\d+) min left", line)
        assert minutes is None or int(minutes[1]) <= 10
    quiet = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", quiet)
    with SearchProgress(limit, quiet=True) as progress:
        progress(0, 1, "training", 5.0)
    assert quiet.written == ""


def test_the_time_left_does_not_jump(monkeypatch):
    now, shown = [0.0], []
    monkeypatch.setattr(search_text, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", Terminal(is_terminal=True))
    progress = SearchProgress(1000.0)
    for step in range(50):
        now[0] = float(step)
        shown.append(progress._smoothed(now[0], 100.0 - step if step % 2 else 2 * (100.0 - step)))
    assert max(abs(one - other) for one, other in pairwise(shown[10:])) < 40
