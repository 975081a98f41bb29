"""`aeedge bench` from the command line: output, exit codes, one sentence for a mistake."""

import copy
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.simulated import Simulated
from helpers.tampering import change_golden

from aeedge.bench import measuring, scenarios
from aeedge.cli.group import AeedgeGroup
from aeedge.cli.types import DURATION, PERCENT, RATE
from aeedge.system import conditions

DATA = Path(__file__).parent.parent / "data"
BUNDLE = str(DATA / "bundle_v1")
SHORT = ("--scenario", "single-stream", "--seconds", "0.3", "--quick")


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), ["bench", *(str(a) for a in args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """What other processes do while the tests run is not what is tested here, nor how long calls take."""
    monkeypatch.setattr(measuring, "Clock", lambda: Simulated(tick=300_000).clock)
    monkeypatch.setattr(conditions, "judge", lambda before, after: [])
    monkeypatch.setattr(conditions.time, "sleep", lambda seconds: None)


def measured(*args):
    return json.loads(call(BUNDLE, *SHORT, "--json", *args).stdout)


def test_the_table_fits_80_columns():
    result = call(BUNDLE, *SHORT, "--profile", "--rate", "500/s", "--soak", "1s", "--scenario", "Offline")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for text in ("SingleStream", "Offline", "FusedGemm", "soak, s", "500 queries per second", "VALID"):
        assert text in result.stdout


def test_a_page_is_written_and_stands_alone(tmp_path):
    page = tmp_path / "bench.html"
    result = call(BUNDLE, *SHORT, "--html", page)
    assert result.exit_code == 0
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "SingleStream" in html
    assert not re.search(r"(src|href)=", html)
    again = call(BUNDLE, *SHORT, "--html", page)
    assert again.exit_code == 2
    assert "already exists; choose another name, or overwrite it (--force)" in again.stderr
    assert call(BUNDLE, *SHORT, "--html", page, "--force").exit_code == 0


@pytest.mark.parametrize("name", ["page.pdf", "page", "page.html.gz", "-", "kept.json"])
def test_a_page_is_named_html(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = call(BUNDLE, *SHORT, "--html", name)
    assert result.exit_code == 2
    assert f"{name}: expected a name that ends in .html, got" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_busy_machine_is_reported_before_the_run(monkeypatch):
    """And what is measured then decides: the load ended before the run began."""
    busy = conditions.Finding("invalid", "other_load", "other processes used 90% of the CPU time; stop them")
    said = iter([[busy]])
    monkeypatch.setattr(conditions, "judge", lambda before, after: next(said, []))

    class Watched(measuring.Measurement):
        def __init__(self, *args):
            sys.stderr.write("(begins)")
            super().__init__(*args)

    monkeypatch.setattr("aeedge.cli.bench.Measurement", Watched)
    result = call(BUNDLE, *SHORT, "--json")
    before = result.stderr.split("(begins)")[0]
    assert "Before the run: other processes used 90% of the CPU time" in before
    assert "If this goes on, the result will be INVALID." in before
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "valid"


def test_a_bundle_that_fails_its_check_is_not_benchmarked(bundle):
    change_golden(bundle, "fp32.latent", (3, 0), 1.0)
    result = call(bundle, *SHORT)
    assert result.exit_code == 1
    assert "latent of row 3 (counted from 0) differs by 1" in result.stderr
    assert result.stdout == ""
    (bundle / "encoder.onnx").write_bytes(b"cut off")
    assert "truncated" in call(bundle, *SHORT).stderr


@pytest.mark.parametrize(
    ("quantity", "text", "number"),
    [
        (DURATION, "500us", 500e-6),
        (DURATION, "2.5 ms", 2.5e-3),
        (DURATION, "90", 90),
        (DURATION, "2h", 7200),
        (RATE, "200/s", 200),
        (RATE, "12 / m", 0.2),
        (RATE, "1e3", 1000),
        (PERCENT, "5%", 0.05),
        (PERCENT, "0", 0),
    ],
)
def test_quantities(quantity, text, number):
    assert quantity.convert(text, None, None) == pytest.approx(number)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scenario", "Server"), "expected SingleStream, MultiStream, Offline, got 'Server'"),
        (("--rate", "fast"), "--rate: expected queries per second above 0 such as 200/s, got 'fast'"),
        (("--rate", "0"), "--rate: expected queries per second above 0"),
        (("--soak", "1.2.3s"), "--soak: expected a duration above 0 such as 20ms, 90s or 30m, got '1.2.3s'"),
        (("--threads", "0"), "--threads: expected 'auto' or a whole number of at least 1, got '0'"),
        (("--deadline", "5ms"), "--deadline: expected --rate with it"),
        (("--fail-if-slower", "5%"), "expected --compare or --baseline with it"),
        (("--fail-if-slower", "x", "--compare", BUNDLE), "--fail-if-slower: expected percent such as 5%"),
        (("--compare", BUNDLE, "--baseline", "x.json"), "expected --compare or --baseline, got both"),
        (("--baseline", "missing.json"), "missing.json: expected a result of 'aeedge bench --json'"),
        (("--html", "no/such/page.html"), "expected the folder no/such to exist"),
        (("--variant", "fp16"), "variant: expected 'auto', 'fp32' or 'int8', got 'fp16'"),
        (("--data", "none.npy"), "none.npy"),
        (("--compare", str(DATA / "bundle_v1_encoder")), "such bundles cannot be compared"),
    ],
)
def test_a_mistake_is_one_sentence(options, message):
    result = call(BUNDLE, *SHORT, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_own_rows_are_used(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((7, 12), np.float32))
    assert call(BUNDLE, *SHORT, "--data", tmp_path / "rows.npy").exit_code == 0
    for method, size in (("encode", 12), ("decode", 3)):  # one sample
        np.save(tmp_path / "rows.npy", np.zeros(size, np.float32))
        assert call(BUNDLE, *SHORT, "--method", method, "--data", tmp_path / "rows.npy").exit_code == 0
    np.save(tmp_path / "rows.npy", np.zeros((7, 5), np.float32))
    result = call(BUNDLE, *SHORT, "--data", tmp_path / "rows.npy")
    assert result.exit_code == 2
    assert "expected rows of shape (12,), got (5,)" in result.stderr


def test_a_rate_that_cannot_be_reached_is_reported():
    result = call(BUNDLE, *SHORT, "--rate", "10000000/s")
    assert result.exit_code == 1
    assert "the rate of 1e+07/s was not reached" in " ".join(result.stdout.split())
    assert "INVALID: do not use these numbers" in result.stdout


def test_ctrl_c_keeps_what_was_measured(monkeypatch):
    """Ctrl-C at query 1 500 of the first load: the warm-up before it takes as many calls as the machine is fast."""
    true = scenarios.back_to_back

    def interrupted(call, queries, rows, seconds, clock, **options):
        numbers = itertools.count(1)

        def counted(x):
            if next(numbers) > 1500:
                raise KeyboardInterrupt
            return call(x)

        return true(counted if seconds > 1 else call, queries, rows, seconds, clock, **options)

    monkeypatch.setattr(scenarios, "back_to_back", interrupted)
    result = call(BUNDLE, "--seconds", "60", "--quick", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["interrupted"]
    assert document["scenarios"]["SingleStream"]["queries"] == 1500
    assert list(document["scenarios"]) == ["SingleStream"]


def test_a_bundle_against_itself():
    result = call(BUNDLE, "--compare", BUNDLE, "--seconds", "1", "--fail-if-slower", "50%")
    assert result.exit_code == 0
    assert "99 % interval" in result.stdout


def test_slower_than_allowed_is_exit_code_1(monkeypatch, tmp_path):
    kept = measured()
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    assert measured("--baseline", tmp_path / "kept.json")["comparison"][0]["scenario"] == "SingleStream"
    faster = copy.deepcopy(kept)
    faster["scenarios"]["SingleStream"]["loads_us"] = [us / 3 for us in kept["scenarios"]["SingleStream"]["loads_us"]]
    (tmp_path / "faster.json").write_text(json.dumps(faster))
    result = call(BUNDLE, *SHORT, "--baseline", tmp_path / "faster.json", "--fail-if-slower", "5%")
    assert result.exit_code == 1
    assert re.search(r"slower by \d+\.\d% \(SingleStream\), expected at most 5\.0%", result.stderr)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": {"processor": "another"}}, "measured on another machine (processor was another"),
        ({"schema": "aeedge-bench/1"}, "expected a result of schema aeedge-bench/2, got aeedge-bench/1"),
        ({"schema": "aeedge-bench/99"}, "expected a result of schema aeedge-bench/2, got aeedge-bench/99"),
        ({"status": "invalid"}, "expected a valid baseline, but this one is INVALID"),
        ({"method": "score"}, "measured score, this run encode"),
        ({"scenarios": {}}, "no scenario in common"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused(change, message, tmp_path):
    kept = measured()
    for name, value in change.items():
        kept[name] = {**kept[name], **value} if name == "machine" else value
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    result = call(BUNDLE, *SHORT, "--baseline", tmp_path / "kept.json")
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_no_result_is_no_baseline(tmp_path):
    (tmp_path / "kept.json").write_text("[1, 2]")
    assert "but it is not one" in call(BUNDLE, *SHORT, "--baseline", tmp_path / "kept.json").stderr


def test_one_of_several_arrays_is_named_as_in_other_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", A=np.zeros((9, 12), np.float32), B=np.zeros((9, 3), np.float32))
    assert "name one with --array" in call(BUNDLE, *SHORT, "--data", "rows.npz").output
    assert call(BUNDLE, *SHORT, "--data", "rows.npz", "--array", "A").exit_code == 0
    assert "did you mean 'A'?" in call(BUNDLE, *SHORT, "--data", "rows.npz", "--array", "a").output
    assert "--array: expected --data with it" in call(BUNDLE, *SHORT, "--array", "A").output
