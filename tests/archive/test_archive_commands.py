"""aeedge encode and aeedge score of archives, as people call them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive.conftest import BUNDLE, SIZES, write_archive
from click.testing import CliRunner
from helpers.archives import bytes_of, latents, result, rewrite, write_recording
from helpers.inline_engine import InlineEngine
from helpers.json_outputs import compare
from helpers.signals import signal_bundle
from helpers.waiting import soon

import aeedge
from aeedge.archive import parts
from aeedge.cli.archive import ArchiveProgress
from aeedge.cli.group import AeedgeGroup


@pytest.fixture
def inline(monkeypatch):
    """No processes: they take time."""
    monkeypatch.setattr("aeedge.archive.job.make_engine", lambda *args, **options: InlineEngine())


@pytest.fixture
def own(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(archive, tmp_path / "plant"))


def call(*args, code=0):
    found = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == code, found.output
    return found


def words(found):
    return " ".join(found.output.split())


# --- what comes out


@pytest.mark.parametrize("variant", ["int8", "fp32"])
def test_an_archive_gives_what_a_file_gives(own, inline, variant):
    call("encode", BUNDLE, own, "-o", "out/", "--keep", "id", "--variant", variant)
    files = sorted(own.glob("*.parquet"))
    call("encode", BUNDLE, *files, "-o", "all.parquet", "--keep", "id", "--variant", variant)
    one, found = pq.read_table("all.parquet"), result("out")
    assert found["id"].to_pylist() == one["id"].to_pylist()
    expected = np.stack([one[f"latent_{i}"].to_numpy() for i in range(3)], 1)
    if variant == "int8":
        np.testing.assert_array_equal(latents(found), expected)
    np.testing.assert_allclose(latents(found), expected, rtol=1e-5, atol=1e-6)
    call("score", BUNDLE, own, "-o", "scored/", "--keep", "id", "--variant", variant)
    call("score", BUNDLE, *files, "-o", "scored.parquet", "--keep", "id", "--top", 0, "--variant", variant)
    one, found = pq.read_table("scored.parquet"), result("scored")
    assert found.column_names == one.column_names == ["id", "score", "p_value", "alarm"]
    if variant == "int8":
        assert found["score"].to_pylist() == one["score"].to_pylist()
    assert found["alarm"].to_pylist() == one["alarm"].to_pylist()


def test_what_is_said_at_the_end(own, inline):
    rewrite(own / "day-1.parquet", s3={5: None, 7: None}, s1={9: float("nan")})
    os.truncate(own / "day-3.parquet", 1000)
    (own / "notes.txt").write_text("no Parquet")
    found = call("score", BUNDLE, own, "-o", "out/", "--bad-rows", "bad/", "--workers", 2)
    said, rows = words(found), sum(SIZES) - SIZES[3]
    assert "Note: " in said
    assert "such as notes.txt" in said
    assert f"read 5 files in 4 parts: {rows:,} rows" in said
    assert "columns s0, s1, s2, s3, s4, s5, s6, s7" in said
    assert "set aside 3 rows to" in said
    assert "2 × column 's3'" in said
    assert "1 × column 's1'" in said
    assert re.search(r"unreadable 1, named in \S*bad: \S*day-3.parquet \(", said)
    assert f"check {rows:,} rows in = {rows - 3:,} rows out + 3 set aside" in said
    assert "ran int8 in 4 parts by local, 1 worker on" in said
    alarms = sum(result("out")["alarm"].to_pylist())
    assert alarms > 0
    assert f"alarms {alarms:,} (" in said
    assert "promised" in said
    assert all(len(line) <= 80 or "/" in line for line in found.output.splitlines())
    again = words(call("score", BUNDLE, own, "-o", "out/", "--bad-rows", "bad/", "--resume"))
    assert f"4 parts of them ({rows:,} rows) were done before" in again
    assert f"alarms {alarms:,} (" in again


def test_scores_without_a_calibration(own, inline, tmp_path):
    bundle = signal_bundle(tmp_path / "pump.aeedge", rate=None)
    (tmp_path / "in").mkdir()
    write_recording(tmp_path / "in/a.parquet", 300)
    said = words(call("score", bundle, "in", "-o", "out/"))
    assert result("out").column_names == ["start", "start_time", "score"]
    assert "alarms none, for the bundle has no calibration" in said
    assert "read 1 file in 1 part: 300 samples" in said
    assert "check" not in said.split()  # windows are not samples
    said = words(call("score", bundle, "in", "-o", "out/", "--threshold", 0, "-f"))
    assert "34 (100 %) above 0" in said


def test_json(own, inline):
    rewrite(own / "day-1.parquet", s3={5: None})
    os.truncate(own / "day-3.parquet", 1000)
    (own / "notes.txt").write_text("no Parquet")
    documents = []
    for name in ("encode", "score"):
        found = call(name, BUNDLE, own, "-o", f"{name}/", "--bad-rows", f"bad_{name}/", "--json")
        documents.append(json.loads(found.stdout))
    documents.append(json.loads(call("encode", BUNDLE, own / "day-0.parquet", "-o", "plain/", "--json").stdout))
    assert compare("encode", *documents) == {"fell_back[]"}
    assert [document["command"] for document in documents] == ["encode", "score", "encode"]
    assert [document["alarms"] is None for document in documents] == [True, False, True]
    assert documents[2]["bad_rows"] is None
    assert documents[0]["rows"] == documents[0]["written"] + documents[0]["set_aside"]


def test_a_variant_that_is_not_right_there_is_named(own, bundle, monkeypatch):
    class Elsewhere(InlineEngine):
        def run(self, task, parts, packed):
            for outcome in super().run(task, parts, packed):
                yield outcome._replace(host=f"node{outcome.number}", variant="fp32" if outcome.number == 2 else "int8")

    monkeypatch.setattr("aeedge.archive.job.make_engine", lambda *args, **options: Elsewhere())
    found = call("encode", bundle, own, "-o", "out/")
    assert "Warning: int8 is not right on node2, where another variant ran" in " ".join(found.stderr.split())
    assert "fp32 in 1 part, int8 in 4 parts by local" in words(found)
    assert json.loads(call("encode", bundle, own, "-o", "out/", "-f", "--json").stdout)["fell_back"] == ["node2"]


# --- what is an archive, and what is not


def test_an_archive_is_meant_by_engine_folder_url_or_pattern(own, inline):
    for number, (sources, output, more) in enumerate(
        [
            ([own], "a/", ()),
            ([own], "b", ("--engine", "local")),
            ([f"file://{own}/day-0.parquet"], "c", ()),
            (["plant/day-[01].parquet"], "d", ()),
            ([own / "day-0.parquet", own / "day-1.parquet"], f"file://{Path.cwd()}/e", ()),
        ]
    ):
        call("encode", BUNDLE, *sources, "-o", output, *more)
        assert Path("abcde"[number], "_SUCCESS").exists()
    call("encode", BUNDLE, own / "day-0.parquet", "-o", "file.parquet")
    assert Path("file.parquet").is_file()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plant -o out.csv --engine local", "out.csv: is the name of a file, but the results of an archive (--engine)"),
        ("file://x/*.parquet -o out.npy", "out.npy: is the name of a file"),
        (
            "plant -o - --engine local",
            "--engine: the results of an archive are a folder; give one, such as -o results/",
        ),
        ("rows.csv -o out/", "rows.csv: archives (-o out/) are Parquet"),
        ("rows.npy -o out --engine local", "rows.npy: archives (--engine) are Parquet"),
        ("- -o out/", "standard input: archives (-o out/) are Parquet"),
        ("plant -o out --resume", "--resume: is for archives; leave it out, or give a folder, such as -o out/"),
        (
            "plant -o out.npy --workers 2",
            "--workers: is for archives; leave it out, or give a folder, such as -o results/",
        ),
        ("plant -o out.npy --bad-rows bad", "--bad-rows: is for archives"),
        ("plant -o out.npy --column c", "--column: is for archives"),
        ("plant -o out.npy --json", "--json: is for archives"),
        ("plant -o folder", "folder: is a folder, expected the name of a file; name one inside it, or give folder/"),
        ("no*.csv -o out.csv", "no*.csv: no such file; a pattern stands for an archive"),
        ("plant -o out/ --format csv", "--format: is for files, not for archives; leave it out"),
        ("plant -o out/ --bits 8", "--bits: is for files"),
        ("plant -o out/ --array a", "--array: is for files"),
        ("plant -o out/ --no-header", "--header: is for files"),
        ("plant -o out/ --delimiter ;", "--delimiter: is for files"),
        ("plant -o out/ --decimal ,", "--decimal: is for files"),
        ("plant -o out/ --resize 4x4", "--resize: is for files"),
        ("plant -o out/ --skip-bad", "--skip-bad: is for files"),
        ("plant -o out/ --threads 4", "--threads: a worker of an archive has one thread, got 4; give --workers 4"),
        ("plant -o out/ --workers 0", "--workers: expected a whole number of at least 1, got 0"),
        ("plant -o out/ --master yarn", "--master: is an option of the engine 'spark', got it with 'local'"),
        ("plant -o out/ --address auto", "--address: is an option of the engine 'ray', got it with 'local'"),
        ("plant -o out/ --engine dask", "--engine"),
        ("plant -o out/ --keep idd", "day-0.parquet: --keep: expected a column 'idd', got id, time, s0"),
        ("plant -o out/ --column idd", "day-0.parquet: --column: expected one of id, time, s0"),
        ("plant -o plant/out/", "--output: "),
        ("plant -o out/ --bad-rows out/bad", "--bad-rows: "),
        ("plant -o out", "out: expected a name that ends in one of .npy, .csv, .parquet"),
        ("plant -o out", "or in /, out/, for the results of an archive of Parquet"),
        ("plant -o done/", "holds the results of this run already; --resume goes on, --force begins anew"),
        ("plant -o done/ --keep id", "(with other --keep); give another folder, or --force to remove them"),
        ("poisoned -o out/", "give --bad-rows to set such rows aside, or --invalid propagate to get NaN there"),
        ("poisoned -o out/", "0 of 1 parts are done: mend it, then --resume goes on"),
        ("cut -o out/", "or give --bad-rows to set such files aside"),
        ("nothing -o out/", "nothing: no such file or folder"),
        ("folder -o out/", "folder: expected Parquet files (.parquet), got none there"),
        ("plant plant/day-0.parquet -o out/", "day-0.parquet: is among the sources twice"),
        ("nope://x/y.parquet -o out/", "nope://"),
        ("lists -o out/", "with --column"),
    ],
)
def test_messages(own, request, line, said):
    if not re.search("--(workers|master|address)", line):  # which no engine gets that far
        request.getfixturevalue("inline")
    for name in ("folder", "poisoned", "cut", "lists"):
        Path(name).mkdir()
    for name in ("rows.csv", "rows.npy"):
        Path(name).write_text("")
    shutil.copy(own / "day-1.parquet", "poisoned")
    rewrite(Path("poisoned/day-1.parquet"), s3={5: None})
    shutil.copy(own / "day-1.parquet", "cut")
    os.truncate("cut/day-1.parquet", 500)
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(16, np.float32)), 8)
    pq.write_table(pa.table({"a": values, "b": values}), "lists/a.parquet")
    if "done/" in line:
        call("encode", BUNDLE, own, "-o", "done/")
    found = call("encode", BUNDLE, *line.split(), code=2)
    assert said in words(found)
    assert len(found.output.splitlines()) == 1 or "--engine dask" in line
    assert not Path("out/_SUCCESS").exists()


def test_score_refuses_causes(own, inline):
    assert "--top: causes are not computed for archives" in words(
        call("score", BUNDLE, own, "-o", "out/", "--top", 1, code=2)
    )
    assert "a folder; give one" in words(call("score", BUNDLE, own, "--engine", "local", code=2))
    call("score", BUNDLE, own, "-o", "out/", "--top", 0, "--summary", "--false-alarm-rate", 0.1)
    found = result("out")
    with aeedge.load(BUNDLE, threads=1) as model:
        limit = model.calibration.threshold(0.1)
    assert found["alarm"].to_pylist() == (found["score"].to_numpy() > np.float32(limit)).tolist()


def test_keep_of_files(own):
    call("encode", BUNDLE, own / "day-0.parquet", "-o", "a.csv", "--keep", "id", "--keep", "note", "--keep", "id")
    lines = Path("a.csv").read_text().splitlines()
    assert lines[0] == "id,note,latent_0,latent_1,latent_2"
    assert lines[-1].startswith("499,row 499,")
    assert "--keep: an .npy" in words(call("encode", BUNDLE, own, "-o", "a.npy", "--keep", "id", code=2))
    table = pq.read_table(own / "day-0.parquet").rename_columns(["latent_1", *pq.read_table(own).column_names[1:]])
    pq.write_table(table, "clash.parquet")
    said = words(call("encode", BUNDLE, "clash.parquet", "-o", "b.csv", "--keep", "latent_1", code=2))
    assert "--keep: a column of the result is called 'latent_1', too" in said


@pytest.mark.parametrize("name", ["encode", "score"])
def test_help(name):
    text = call(name, "--help").output
    options, of_archives = re.split(r"^Archives:\n", text, flags=re.MULTILINE)
    of_archives = of_archives.split("\n\n")[0]
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", of_archives, re.MULTILINE) == [
        *("--engine", "--workers", "--master", "--address", "--bad-rows", "--resume", "--column", "--json")
    ]
    assert "--keep" in options
    assert f"aeedge {name} motor.aeedge 's3://plant/" in text
    for option in ("engine", "workers", "master", "address", "bad-rows", "column"):
        described = re.search(rf"--{option}\b.*?(?=^  --|\Z)", of_archives, re.MULTILINE | re.DOTALL)[0]
        assert "[default: " in " ".join(described.split()), option
    assert "--engine" not in call("decode", "--help").output


def test_a_bundle_that_is_not_right_ends_with_1(own, bundle, monkeypatch):
    from helpers.tampering import change_golden

    class Damaging(InlineEngine):
        def run(self, task, parts, packed):
            change_golden(bundle, "fp32.latent", (3, 0), 1.0)
            yield from super().run(task, parts, packed)

    monkeypatch.setattr("aeedge.archive.job.make_engine", lambda *args, **options: Damaging())
    said = words(call("encode", bundle, own, "-o", "out/", "--variant", "fp32", code=1))
    assert re.search(r"^Error: worker \S+: .*--resume goes on$", said)


def test_examples_of_the_documentation(own, bundle, inline, s3, tmp_path, monkeypatch):
    from pyarrow.fs import FileSystem, copy_files

    page = (Path(__file__).parents[2] / "docs/how-to/scale.md").read_text(encoding="utf-8")
    section = re.search(r"^## Encode an archive\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)[1]
    files, bucket = FileSystem.from_uri("s3://plant")
    rewrite(own / "day-1.parquet", s3={5: None})
    copy_files(str(own), f"{bucket}/2025", destination_filesystem=files)
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)).splitlines()
    assert len(lines) == 3
    for line, code in zip(lines, (2, 0, 2)):
        found = call(*shlex.split(line)[1:], code=code)
        assert ("row 5 (counted from 0): column 's3'" if code else "1 × column 's3'") in words(found)
    with files.open_output_stream(f"{bucket}/2025/day-1.parquet") as stream:
        rewrite(own / "day-1.parquet", s3={5: 0.0})
        stream.write((own / "day-1.parquet").read_bytes())
    assert "4 parts of them" in words(call(*shlex.split(lines[2])[1:]))
    (tmp_path / "archive").symlink_to(own)
    exec(re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1], {})
    assert result("encoded").num_rows == sum(SIZES)


@pytest.mark.parametrize("name", ["encode", "score"])
def test_operators_that_are_allowed_here_are_on_the_workers(own, bundle, inline, monkeypatch, name):
    asked = []

    def recorded(*args, **options):
        asked.append(options["allow_ops"])
        return aeedge.load(*args, **options)

    for module in ("job", "task"):
        monkeypatch.setattr(f"aeedge.archive.{module}.load", recorded)
    call(name, bundle, own, "-o", "out/", "--allow-ops", "If,Loop")
    assert asked == [("If", "Loop")] * 2


# --- how far it is


def test_the_line_fits_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = ArchiveProgress("encode")
    line(0, 0, "reading the footers of 1,234,567 files")
    for done in (0, 10**6, 123_456_789_012):
        now[0] += 3000.0
        line(done, 10**12, "spark, 1000 workers")
    shown = [text.rstrip() for text in capsys.readouterr().err.split("\r") if text]
    assert shown[0] == "encode: reading the footers of 1,234,567 files …"
    assert shown[1] == "encode 0 %: 0 of 1.00 T rows, spark, 1000 workers"
    assert shown[3] == "encode 12 %: 123 G of 1.00 T rows, 20.6 M/s, 11 h 50 min left"
    line.end()
    cleared = capsys.readouterr().err
    assert cleared.strip() == ""
    assert cleared.endswith("\r")


def test_a_pipe_gets_a_line_for_each_tenth_at_most(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    line = ArchiveProgress("score")
    for done in range(0, 1001):
        now[0] += 1.0
        line(done, 1000, "local, 2 workers")
    lines = capsys.readouterr().err.splitlines()
    assert [text.split(":")[0] for text in lines] == [f"score {tenth}0 %" for tenth in range(1, 11)]
    line = ArchiveProgress("score")
    for done in range(0, 1001):
        now[0] += 0.001
        line(done, 1000, "local, 2 workers")
    assert capsys.readouterr().err == ""


# --- signals, with processes


@pytest.fixture
def long(tmp_path, samples):
    """An archive that takes some seconds, and what comes out."""
    one, folder = tmp_path / "one", tmp_path / "long"
    one.mkdir()
    folder.mkdir()
    table = pq.read_table(write_archive(one, samples))
    for number in range(60):
        pq.write_table(table, folder / f"{number:02}.parquet")
    return folder


def command(*args, cwd):
    places = [str(Path(aeedge.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    run = [sys.executable, "-c", "from aeedge.cli import main; main()", *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(run, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def done(folder):
    return len(list(Path(folder, "_aeedge/parts").glob("*.json")))


def members(session):
    """Processes of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="NOTHING WAS TESTED: processes are not told apart here"
)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_run_that_is_ended_leaves_no_process_and_is_resumed(long, tmp_path, how):
    args = ("encode", BUNDLE, long, "-o", "out/", "--keep", "id", "--workers", 2)
    process = command(*args, cwd=tmp_path)
    assert soon(lambda: done(tmp_path / "out") >= 3)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + how)
    assert soon(lambda: not members(process.pid))
    assert done(tmp_path / "out") < 60
    assert not (tmp_path / "out/_SUCCESS").exists()
    if how == signal.SIGKILL:
        assert said == ""
    else:
        assert re.match(
            r"Ended when [\d,]+ of 120,000 rows were done and kept; the same command with --resume goes on.\n", said
        )
        assert "Traceback" not in said
    process = command(*args, "--resume", "--json", cwd=tmp_path)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    report = json.loads(out)
    assert report["resumed"] >= 2
    assert (report["rows"], report["written"]) == (120_000, 120_000)
    assert len(set(bytes_of(tmp_path / "out").values())) == 1
    assert len(bytes_of(tmp_path / "out")) == 60
    assert not (tmp_path / "out/_aeedge/tmp").exists()


def test_parts_of_one_file_in_processes(own, monkeypatch):
    assert parts.PART_ROWS == 2**20
    found = json.loads(call("score", BUNDLE, own, "-o", "out/", "--workers", 2, "--json").stdout)
    assert (found["workers"], found["engine"], found["written"]) == (2, "local", sum(SIZES))
