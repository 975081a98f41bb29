"""Archives as a whole, without clusters: counts, resumed runs, bad rows and files, and folders that are in use."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive.conftest import BUNDLE, SIZES
from helpers.archives import bytes_of, latents, result, rewrite, write_recording
from helpers.inline_engine import InlineEngine, KillingEngine, RaisingEngine
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge.archive import ledger, parts, storage, task
from aeedge.archive.job import encode_archive
from aeedge.bundle.manifest import SignalSpec
from aeedge.errors import AeedgeError, BundleError, InputError, VerificationError

ALL = ("latent", "score", "p_value", "alarm")


def encode(sources, output, bundle=BUNDLE, **options):
    sources = sources if isinstance(sources, list) else [sources]
    return encode_archive(bundle, sources, output, **{"engine": InlineEngine(), **options})


@pytest.fixture
def own(archive, tmp_path):
    """An archive that may be changed."""
    return Path(shutil.copytree(archive, tmp_path / "own"))


# --- what comes out


@pytest.mark.parametrize("rows", [2**20, 200])  # whole files, and some row groups of each
def test_results_are_those_of_one_process(archive, samples, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parts, "PART_ROWS", rows)
    report = encode(archive, tmp_path / "out", outputs=ALL, keep=("id", "note"))
    found = result(tmp_path / "out")
    assert found.schema.names == ["id", "note", *ALL]
    assert found["id"].to_pylist() == list(range(len(samples)))
    with aeedge.load(BUNDLE, threads=1) as model:
        assert model.variant == "int8"
        scores = model.score(samples)
        np.testing.assert_array_equal(latents(found), model.encode(samples))
        np.testing.assert_array_equal(found["score"], scores)
        np.testing.assert_array_equal(found["p_value"], model.calibration.p_value(scores))
        alarms = int((scores > np.float32(model.threshold)).sum())
    assert 0 < alarms == report.alarms == sum(found["alarm"].to_pylist())
    assert report.rows == report.written == len(samples)
    assert (report.set_aside, report.resumed, report.variants) == (0, 0, {"int8": report.parts})
    assert report.parts == len(SIZES) if rows > 1000 else report.parts > 2 * len(SIZES)
    assert report.columns == tuple(f"s{i}" for i in range(8))


def test_parts_and_batches_change_nothing(archive, tmp_path, monkeypatch):
    encode(archive, tmp_path / "a", outputs=ALL)
    monkeypatch.setattr(parts, "PART_ROWS", 128)
    monkeypatch.setattr(task, "_BATCH_ROWS", 50)
    encode(archive, tmp_path / "b", outputs=ALL)
    assert len(bytes_of(tmp_path / "b")) > len(bytes_of(tmp_path / "a"))
    assert result(tmp_path / "a").equals(result(tmp_path / "b"))


def test_the_same_run_gives_the_same_bytes(archive, tmp_path):
    for name in "ab":
        encode(archive, tmp_path / name)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_what_is_complete_says_so(archive, tmp_path):
    report = encode(archive, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == [
        "_SUCCESS",
        "_aeedge",
        *(f"part-00000{i}.parquet" for i in range(5)),
    ]
    manifest = json.loads((tmp_path / "out/_aeedge/manifest.json").read_text())
    assert manifest["rows"] == manifest["written"] == report.rows
    assert not (tmp_path / "out/_aeedge/tmp").exists()


def test_a_list_column(samples, tmp_path):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(samples.reshape(-1)), 8)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"values": lists, "other": lists}), tmp_path / "in/a.parquet")
    with pytest.raises(InputError, match="values, other"):
        encode(tmp_path / "in", tmp_path / "out")
    report = encode(tmp_path / "in", tmp_path / "out", column="values")
    assert report.columns == ("values",)
    with aeedge.load(BUNDLE, threads=1) as model:
        np.testing.assert_array_equal(latents(result(tmp_path / "out")), model.encode(samples))


def test_a_guess_is_the_same_for_all_files(samples, tmp_path):
    bundle = BUNDLE.parent / "bundle_v1"  # twelve values, some of whose names are given here
    with aeedge.load(bundle, threads=1) as model:
        values = model.golden_rows()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"a": lists}), tmp_path / "in/0.parquet")
    pq.write_table(pa.table({"b": lists}), tmp_path / "in/1.parquet")
    with pytest.raises(InputError, match=r"1.parquet: samples would be taken from b, not from a; .*0.parquet"):
        encode(tmp_path / "in", tmp_path / "out", bundle)
    pq.write_table(pa.table({"b": lists, "a": lists}), tmp_path / "in/1.parquet")
    report = encode(tmp_path / "in", tmp_path / "out", bundle, column="a")
    assert report.written == 2 * len(values)


def test_empty_files_are_counted(own, tmp_path):
    table = pq.read_table(own / "day-0.parquet")
    pq.write_table(table.slice(0, 0), own / "day-7.parquet")
    report = encode(own, tmp_path / "out")
    assert report.notes == ("1 of 6 files have no rows",)
    assert (report.files, report.parts) == (6, 5)
    for file in own.glob("*"):
        pq.write_table(table.slice(0, 0), file)
    with pytest.raises(InputError, match="expected at least one row, got none in 6 files"):
        encode(own, tmp_path / "none")


# --- runs that end early


class KilledError(BaseException):
    """As by kill -9: nothing that is written comes after it."""


class Files:
    """A file system that ends the run at its n-th change: before it, or right after."""

    def __init__(self, system, at, after):
        self._system, self._at, self._after, self.count = system, at, after, 0

    def __getattr__(self, name):
        found = getattr(self._system, name)
        if name not in ("open_output_stream", "move", "create_dir", "delete_file", "delete_dir"):
            return found

        def change(*args, **options):
            self.count += 1
            if self.count > self._at or (self.count == self._at and not self._after):
                raise KilledError
            done = found(*args, **options)
            if self.count == self._at:
                raise KilledError
            return done

        return change


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("begin", ["new", "overwrite"])
def test_a_run_that_is_killed_anywhere_is_resumed(own, tmp_path, monkeypatch, begin, after):
    for day in (0, 3, 4):
        (own / f"day-{day}.parquet").unlink()
    rewrite(own / "day-1.parquet", s3={5: None})
    options = {"keep": ("id",), "bad_rows": tmp_path / "bad", "outputs": ("score",)}
    whole = encode(own, tmp_path / "whole", **{**options, "bad_rows": tmp_path / "whole_bad"})
    system = storage._opened("")
    out, bad = tmp_path / "out", tmp_path / "bad"
    states = set()
    for at in range(1, 200):
        for folder in (out, bad):
            shutil.rmtree(folder, ignore_errors=True)
        if begin == "overwrite":
            encode(own, out, **options)
        files = Files(system, at, after)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "_opened", lambda root, files=files: files)
            try:
                encode(own, out, overwrite=begin == "overwrite", **options)
            except KilledError:
                killed = True
            else:
                killed = False
        if not killed:
            break
        states.add(tuple(sorted(file.name for file in out.rglob("*") if file.parent.name != "tmp")))
        report = encode(own, out, resume=True, **options)
        assert bytes_of(out) == bytes_of(tmp_path / "whole")
        assert bytes_of(bad) == bytes_of(tmp_path / "whole_bad")
        assert (report.rows, report.written, report.set_aside) == (whole.rows, whole.written, 1)
        assert report.reasons == whole.reasons
        assert (out / "_SUCCESS").exists()
        assert not (out / "_aeedge/tmp").exists()
    assert not killed
    assert len(states) > 8  # it was killed in many states


def test_only_what_is_not_done_is_done_again(own, tmp_path):
    encode(own, tmp_path / "out")
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    (tmp_path / "out/part-000001.parquet").unlink()
    (tmp_path / "out/part-000002.parquet").write_bytes(b"cut")
    (tmp_path / "out/_aeedge/parts/000003.json").write_text('{"identity":')
    report = encode(own, tmp_path / "out", resume=True)
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    assert {name for name in before if before[name] == after[name]} == {"part-000000.parquet", "part-000004.parquet"}
    assert report.resumed == 2
    assert report.resumed_rows == SIZES[0] + SIZES[4]
    assert encode(own, tmp_path / "out", resume=True).resumed == 5


def test_a_file_that_has_changed_is_done_again(own, tmp_path):
    encode(own, tmp_path / "out")
    first = result(tmp_path / "out")
    rewrite(own / "day-1.parquet", s0={7: 3.0})
    report = encode(own, tmp_path / "out", resume=True)
    changed = np.flatnonzero((latents(first) != latents(result(tmp_path / "out"))).any(axis=1))
    assert (report.resumed, changed.tolist()) == (4, [SIZES[0] + 7])


def test_results_are_not_called_complete_while_they_are_not(own, tmp_path):
    class Idle(InlineEngine):
        def run(self, task, parts, bundle):
            yield from ()

    encode(own, tmp_path / "out")
    (tmp_path / "out/part-000001.parquet").unlink()
    with pytest.raises(AeedgeError, match=r"day-1.*: the engine gave no outcome"):
        encode(own, tmp_path / "out", resume=True, engine=Idle())
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert not (tmp_path / "out/_aeedge/manifest.json").exists()
    assert encode(own, tmp_path / "out", resume=True).resumed == 4


def test_rows_that_were_set_aside_and_are_gone_are_set_aside_again(own, tmp_path):
    rewrite(own / "day-1.parquet", s3={5: None})
    encode(own, tmp_path / "out", bad_rows=tmp_path / "bad")
    before = bytes_of(tmp_path / "bad")
    shutil.rmtree(tmp_path / "bad")
    assert encode(own, tmp_path / "out", bad_rows=tmp_path / "bad", resume=True).resumed == 4
    assert bytes_of(tmp_path / "bad") == before != {}


def test_workers_that_are_killed_are_replaced(archive, tmp_path):
    (tmp_path / "marks").mkdir()
    whole = encode(archive, tmp_path / "whole")
    report = encode(archive, tmp_path / "out", engine=KillingEngine(2, 3, tmp_path / "marks"))
    assert len(os.listdir(tmp_path / "marks")) == 3
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert report.written == whole.written


OF_A_SCRIPT = """\
from aeedge.archive.work import Outcome
from aeedge.archive.local import LocalEngine
from aeedge.archive.packing import Packed
from aeedge.archive.parts import Part

def task(part, bundle):
    return Outcome(part.number)

if __name__ == "__main__":
    found = LocalEngine(1).run(task, [Part(7, None, (), 0, 1)], Packed("", "", b""))
    print([outcome.number for outcome in found])
"""


def test_a_script_need_not_expect_to_be_imported(archive, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from aeedge.archive.job import encode_archive\n"
        f"print(encode_archive({str(BUNDLE)!r}, [{str(archive)!r}], 'out', workers=2).written)\n"
    )
    places = [str(Path(aeedge.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    run = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == (f"{sum(SIZES)}\n", "")
    script.write_text(OF_A_SCRIPT)
    run = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == ("[7]\n", "")


def test_a_part_that_always_kills_its_worker(archive, tmp_path):
    (tmp_path / "marks").mkdir()
    said = r"day-2.*its worker ended 4 times before it was done \(exit code -9\).*4 of 5 parts are done.*resume=True"
    with pytest.raises(InputError, match=said):
        encode(archive, tmp_path / "out", engine=KillingEngine(2, 9, tmp_path / "marks"))
    assert encode(archive, tmp_path / "out", resume=True).resumed == 4


class Failing:
    """A file system whose server fails some times."""

    def __init__(self, system, operation, name, error, times):
        self._system, self._failing, self.left, self.error = system, (operation, name), times, error

    def __getattr__(self, operation):
        found = getattr(self._system, operation)
        if operation != self._failing[0]:
            return found

        def act(path, *args, **options):
            if self.left and self._failing[1] in path:
                self.left -= 1
                raise self.error
            return found(path, *args, **options)

        return act


SLOW = OSError("When reading object: AWS Error SLOW_DOWN during GetObject operation: try again")
DENIED = OSError("When reading object: AWS Error ACCESS_DENIED during GetObject operation")
NO_PERMISSION = PermissionError(13, "Permission denied")


@pytest.mark.parametrize("operation", ["open_input_file", "open_output_stream", "move"])
def test_a_server_that_fails_for_a_while(archive, tmp_path, monkeypatch, operation):
    name = "day-1" if operation == "open_input_file" else "part-000001"
    files, slept = Failing(storage._opened(""), operation, name, SLOW, 0), []
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_opened", lambda root: files)
        patch.setattr(storage.time, "sleep", slept.append)
        encode(archive, tmp_path / "out", bad_rows=tmp_path / "bad", engine=Later(files, 2))
    assert slept == [1.0, 5.0]
    encode(archive, tmp_path / "whole")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    assert os.listdir(tmp_path / "bad") == ["_aeedge"]


class Later(InlineEngine):
    """The server fails when the work begins."""

    def __init__(self, files, times):
        self.files, self.times = files, times

    def run(self, task, parts, bundle):
        self.files.left = self.times
        yield from super().run(task, parts, bundle)


@pytest.mark.parametrize(("error", "tries"), [(SLOW, 3), (DENIED, 1), (NO_PERMISSION, 1)])
@pytest.mark.parametrize("when", ["plan", "work"])
def test_a_file_that_cannot_be_reached_is_not_taken_for_a_damaged_one(
    archive, tmp_path, monkeypatch, error, tries, when
):
    files = Failing(storage._opened(""), "open_input_file", "day-1", error, 99 if when == "plan" else 0)
    slept = []
    monkeypatch.setattr(storage, "_opened", lambda root: files)
    monkeypatch.setattr(storage.time, "sleep", slept.append)
    with pytest.raises(InputError, match=r"day-1.parquet: cannot be read"):
        encode(archive, tmp_path / "out", bad_rows=tmp_path / "bad", engine=Later(files, 99))
    if when == "plan":
        assert not (tmp_path / "out").exists()
    else:
        assert len(slept) == tries - 1
        assert sorted(os.listdir(tmp_path / "bad")) == ["_aeedge"]
        assert len(bytes_of(tmp_path / "out")) == 4


def test_resume_or_overwrite(archive, tmp_path):
    with pytest.raises(InputError, match="resume=True or overwrite=True, got both"):
        encode(archive, tmp_path / "out", resume=True, overwrite=True)


def test_an_exception_that_nobody_expects_is_told(archive, tmp_path):
    with pytest.raises(InputError, match=r"day-2.*ended 4 times before it was done \(RuntimeError: as a bug\)"):
        encode(archive, tmp_path / "out", engine=RaisingEngine(2))


# --- rows and files that cannot be computed


def test_a_poisoned_row_is_named(own, tmp_path):
    rewrite(own / "day-3.parquet", s3={600: float("nan"), 650: None})
    with pytest.raises(InputError, match=r"day-3.parquet, row 600 \(counted from 0\): column 's3'.*nan; give bad_rows"):
        encode(own, tmp_path / "out")
    assert not (tmp_path / "out/part-000003.parquet").exists()
    report = encode(own, tmp_path / "out", resume=True, bad_rows=tmp_path / "bad", keep=())
    assert report.resumed == 4  # a run goes on that had no folder for bad rows before


@pytest.mark.parametrize("rows", [2**20, 128])
def test_poisoned_rows_are_set_aside_with_all_their_columns(own, samples, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parts, "PART_ROWS", rows)
    monkeypatch.setattr(task, "_BATCH_ROWS", 100)
    rewrite(own / "day-0.parquet", s3={0: None, 130: float("inf")}, s1={499: float("nan")})
    rewrite(own / "day-2.parquet", s7={0: float("nan")})  # all rows of a file
    report = encode(own, tmp_path / "out", bad_rows=tmp_path / "bad", keep=("id",), outputs=ALL)
    gone = [0, 130, 499, 800]
    rest = np.delete(np.arange(len(samples)), gone)
    found, bad = result(tmp_path / "out"), result(tmp_path / "bad")
    assert found["id"].to_pylist() == rest.tolist()
    with aeedge.load(BUNDLE, threads=1) as model:
        np.testing.assert_array_equal(latents(found), model.encode(samples[rest]))
    assert bad["id"].to_pylist() == gone
    assert bad["note"].to_pylist() == [f"row {i}" for i in gone]
    assert bad["_row"].to_pylist() == [0, 130, 499, 0]
    assert {Path(name).name for name in bad["_file"].to_pylist()} == {"day-0.parquet", "day-2.parquet"}
    assert ["s3" in bad["_reason"][0].as_py(), "nan" in bad["_reason"][2].as_py()] == [True, True]
    assert (report.written, report.set_aside) == (len(rest), 4)
    assert sum(count for _, count in report.reasons) == 4
    assert report.bad_rows == str(tmp_path / "bad")
    assert "part-000002.parquet" not in os.listdir(tmp_path / "out") or rows == 128
    assert encode(own, tmp_path / "out", bad_rows=tmp_path / "bad", keep=("id",), outputs=ALL, resume=True) == (
        report._replace(
            workers=0,
            resumed=report.parts,
            resumed_rows=report.rows,
            notes=(),
            seconds=encode_seconds(tmp_path / "out"),
        )
    )


def encode_seconds(folder):
    return json.loads((folder / "_aeedge/manifest.json").read_text())["seconds"]


def test_with_propagate_all_rows_come_out(own, samples, tmp_path):
    rewrite(own / "day-0.parquet", s3={5: float("nan")})
    report = encode(own, tmp_path / "out", outputs=ALL, invalid="propagate")
    found = result(tmp_path / "out")
    assert (report.written, report.set_aside) == (len(samples), 0)
    assert np.flatnonzero(np.isnan(latents(found)).any(axis=1)).tolist() == [5]
    assert found["alarm"][5].as_py()


def damaged(file):
    """A file whose footer is right, and whose pages are not."""
    data = bytearray(file.read_bytes())
    data[200 : len(data) // 2] = bytes(len(data) // 2 - 200)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: os.truncate(file, 1000), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_text("id,s0\n1,2\n"), "cannot be read"),
        (damaged, "cannot be read"),
    ],
    ids=["cut", "empty", "text", "pages"],
)
def test_a_damaged_file(own, samples, tmp_path, damage, said):
    damage(own / "day-1.parquet")
    with pytest.raises(InputError, match=rf"day-1.parquet.*{said}"):
        encode(own, tmp_path / "out")
    report = encode(own, tmp_path / "aside", bad_rows=tmp_path / "bad", keep=("id",))
    lost = list(range(SIZES[0], SIZES[0] + SIZES[1]))
    assert result(tmp_path / "aside")["id"].to_pylist() == np.delete(np.arange(len(samples)), lost).tolist()
    assert [(Path(name).name, reason != "") for name, reason in report.unreadable] == [("day-1.parquet", True)]
    assert report.written + report.set_aside == report.rows
    notes = [json.loads(file.read_text()) for file in (tmp_path / "bad").glob("*.json*")]
    assert [Path(note["file"]).name for note in notes] == ["day-1.parquet"]


def test_a_mended_file_leaves_nothing_in_the_folder_of_bad_rows(own, tmp_path):
    good = (own / "day-1.parquet").read_bytes()
    damaged(own / "day-1.parquet")
    encode(own, tmp_path / "out", bad_rows=tmp_path / "bad")
    assert (tmp_path / "bad/part-000001.json").exists()
    (own / "day-1.parquet").write_bytes(good)
    report = encode(own, tmp_path / "out", bad_rows=tmp_path / "bad", resume=True)
    assert (report.set_aside, report.unreadable, report.resumed) == (0, (), 4)
    assert sorted(os.listdir(tmp_path / "bad")) == ["_aeedge"]


def test_rows_that_were_set_aside_before_are_set_aside_again_with_one_reason(own, tmp_path):
    rewrite(own / "day-0.parquet", s3={5: None, 7: float("nan")})
    encode(own, tmp_path / "out", bad_rows=tmp_path / "bad")
    rewrite(tmp_path / "bad/part-000000.parquet", s3={0: 1.0})  # the other one is not mended
    report = encode(tmp_path / "bad", tmp_path / "mended", bad_rows=tmp_path / "again", keep=("id",))
    assert (report.written, report.set_aside) == (1, 1)
    found = pq.read_table(tmp_path / "again/part-000000.parquet")
    assert len(set(found.column_names)) == len(found.column_names)
    assert (found["id"].to_pylist(), found["_row"].to_pylist()) == ([7], [1])
    assert found["_file"].to_pylist() == [str(tmp_path / "bad/part-000000.parquet")]


def test_a_message_offers_only_what_helps(tmp_path, samples):
    (tmp_path / "in").mkdir()
    for values, offered in (([1.0], False), ([float("nan")] * 8, True)):
        lists = pa.array([*samples[:3].tolist(), values], pa.list_(pa.float32()))
        pq.write_table(pa.table({"v": lists}), tmp_path / "in/a.parquet")
        with pytest.raises(InputError, match=r"row 3 .*give bad_rows to set such rows aside") as raised:
            encode(tmp_path / "in", tmp_path / f"out-{offered}")
        assert ("invalid='propagate'" in str(raised.value)) == offered
    pq.write_table(pa.table({"v": pa.array([*samples[:3].tolist(), [1.0]])}), tmp_path / "in/a.parquet")
    with pytest.raises(InputError, match=r"row 3 .*give bad_rows") as raised:
        encode(tmp_path / "in", tmp_path / "propagated", invalid="propagate")
    assert "invalid=" not in str(raised.value)


def test_schemas_that_differ(own, tmp_path):
    table = pq.read_table(own / "day-3.parquet")
    file = own / "day-3.parquet"
    pq.write_table(table.append_column("more", table["s0"]).select(["s7", "more", *table.column_names[:-2]]), file)
    report = encode(own, tmp_path / "more", keep=("id",))  # other columns, another order: the same samples
    plain = encode(own.parent / "own", tmp_path / "again", keep=("id",))
    assert report.written == plain.written
    pq.write_table(table.set_column(0, "id", table["id"].cast(pa.float64())), file)
    with pytest.raises(InputError, match=r"day-3.*'id' is double, not int64.*day-0"):
        encode(own, tmp_path / "kept", keep=("id",))
    assert encode(own, tmp_path / "not_kept").written == plain.written
    pq.write_table(table.set_column(5, "s3", table["note"]), file)
    with pytest.raises(InputError, match=r"day-3.*'s3'.*string.*day-0"):
        encode(own, tmp_path / "text")
    pq.write_table(table.drop_columns(["s3"]), file)
    with pytest.raises(InputError, match=r"day-3.*s3.*day-0"):
        encode(own, tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_missing_column_is_told_of_the_file(own, tmp_path):
    file = own / "day-3.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["s2"]), file)
    with pytest.raises(InputError, match=r"day-3.parquet: expected a column 's2', got"):
        encode(own, tmp_path / "out")


def test_a_file_that_changes_while_the_archive_is_read(own, tmp_path):
    class Changing(InlineEngine):
        def run(self, task, parts, bundle):
            table = pq.read_table(own / "day-3.parquet")
            pq.write_table(change(table), own / "day-3.parquet")
            yield from super().run(task, parts, bundle)

    for change in (lambda table: table.slice(1), lambda table: table.drop_columns("note")):
        with pytest.raises(InputError, match=r"day-3.*was changed.*resume=True"):
            encode(own, tmp_path / f"out_{change(pq.read_table(own / 'day-3.parquet')).num_columns}", engine=Changing())

    class Removing(InlineEngine):
        def run(self, task, parts, bundle):
            (own / "day-3.parquet").unlink()
            yield from super().run(task, parts, bundle)

    with pytest.raises(InputError, match=r"day-3.parquet: is not there any more.*4 of 5 parts are done"):
        encode(own, tmp_path / "removed", engine=Removing())


# --- folders that are in use


def test_results_of_another_run_are_not_mixed(archive, tmp_path):
    out = tmp_path / "out"
    encode(archive, out)
    before = bytes_of(out)
    for options, said in (
        ({}, "holds the results of this run already; resume=True goes on, overwrite=True begins anew"),
        ({"keep": ("id",)}, r"results of another run \(with other keep\)"),
        ({"keep": ("id",), "resume": True}, r"results of another run \(with other keep\)"),
        ({"outputs": ("score",), "variant": "fp32", "resume": True}, r"with other outputs, variant"),
        ({"bundle": BUNDLE.parent / "bundle_v2_both", "resume": True}, "of another bundle"),
    ):
        with pytest.raises(InputError, match=said):
            encode(archive, out, **options)
    with pytest.raises(InputError, match=rf"\(of other sources: {sum(SIZES)} rows then, {SIZES[1]} now\)"):
        encode([archive / "day-1.parquet"], out, resume=True)
    assert bytes_of(out) == before
    encode([archive / "day-1.parquet"], out, overwrite=True)
    assert sorted(bytes_of(out)) == ["part-000000.parquet"]


def test_a_run_does_not_write_among_the_results_of_one_that_began_later(archive, tmp_path):
    encode(archive, tmp_path / "alone", outputs=("score",))

    class Overtaken(InlineEngine):
        def run(self, task, parts, packed):
            outcomes = super().run(task, parts, packed)
            yield next(outcomes)
            encode(archive, tmp_path / "out", outputs=("score",), overwrite=True)
            yield from outcomes

    with pytest.raises(InputError, match=r"out: another run has begun there; give one of them another folder"):
        encode(archive, tmp_path / "out", engine=Overtaken())
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "alone")
    assert json.loads((tmp_path / "out/_aeedge/manifest.json").read_text())["written"] == sum(SIZES)
    assert encode(archive, tmp_path / "out", outputs=("score",), resume=True).resumed == len(SIZES)


def test_nothing_else_is_ever_removed(archive, tmp_path):
    for name, made in (("mine.txt", "a"), ("part-000000.parquet", "b"), ("_SUCCESS", "c")):
        (tmp_path / made).mkdir()
        (tmp_path / made / name).write_text("mine")
        with pytest.raises(InputError, match=f"expected a new or empty folder.*'{name}'"):
            encode(archive, tmp_path / made, overwrite=True)
        assert (tmp_path / made / name).read_text() == "mine"
    encode(archive, tmp_path / "out")
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'mine.txt'"):
        encode(archive, tmp_path / "out", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder, it is a file"):
        encode(archive, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert encode(archive, tmp_path / "empty").written


def test_folders_that_would_be_mixed_up(own, tmp_path):
    for output, bad in ((own, None), (own / "out", None), (tmp_path / "out", own / "bad")):
        with pytest.raises(InputError, match="is in the source"):
            encode(own, output, bad_rows=bad)
    with pytest.raises(InputError, match="is in the source"):
        encode(str(own / "**/*.parquet"), own / "out")
    for bad in ("out", "out/bad"):
        with pytest.raises(InputError, match=r"bad_rows: .* is in the folder of the results"):
            encode(own, tmp_path / "out", bad_rows=tmp_path / bad)
    assert encode(str(own / "*.parquet"), own / "out", bad_rows=own / "bad").written  # no pattern finds these
    encode(str(own / "*.parquet"), own / "out", bad_rows=own / "bad", resume=True)


def test_the_folder_of_bad_rows_is_of_one_run(own, tmp_path):
    rewrite(own / "day-1.parquet", s3={5: None})
    encode(own, tmp_path / "out", bad_rows=tmp_path / "bad")
    with pytest.raises(InputError, match="bad: holds the results of another run"):
        encode([own / "day-0.parquet"], tmp_path / "other", bad_rows=tmp_path / "bad")
    with pytest.raises(InputError, match=r"bad_rows: expected .*bad, where"):
        encode(own, tmp_path / "out", bad_rows=tmp_path / "elsewhere", resume=True)


def test_a_bundle_that_is_not_right_here(archive, bundle, tmp_path):
    from helpers.tampering import change_golden

    class Damaging(InlineEngine):
        def run(self, task, parts, packed):
            change_golden(bundle, "fp32.latent", (3, 0), 1.0)
            yield from super().run(task, parts, packed)

    with pytest.raises(VerificationError, match=r"^worker .*latent.* 0 of 5 parts are done"):
        encode(archive, tmp_path / "out", bundle, engine=Damaging(), variant="fp32")


def test_sources(own, tmp_path):
    for sources, said in (
        ([tmp_path / "nothing"], "no such file or folder"),
        ([own / "*.pq"], "expected Parquet files .*got none"),
        ([own, own / "day-0.parquet"], "among the sources twice"),
        ([tmp_path / "no/*.parquet"], "no such folder"),
        (["nowhere://x/y.parquet"], "nowhere"),
        ([own / "rows.csv"], "archives are Parquet, got .csv"),
    ):
        (own / "rows.csv").write_text("1,2")
        with pytest.raises(InputError, match=said):
            encode(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (own / "_hidden.parquet").write_text("")
    (own / ".part.parquet.crc").write_text("")
    (own / "deep/deeper").mkdir(parents=True)
    shutil.copy(own / "day-0.parquet", own / "deep/deeper/z.PARQUET")
    report = encode(own, tmp_path / "folder")
    assert (report.files, len(report.notes)) == (6, 1)
    assert "rows.csv" in report.notes[0]
    for number, (pattern, files) in enumerate(
        {
            "*.parquet": 5, "day-[0-2].parquet": 3, "day-?.parquet": 5, "day-[!0].parquet": 4, "**/*.parquet": 5,
            "**/*.PARQUET": 1, "d*/*/z*": 1, "_*": None,
        }.items()
    ):  # fmt: skip
        if files is None:
            with pytest.raises(InputError, match="_hidden"):
                encode(f"{own}/{pattern}", tmp_path / f"out-{number}")
        else:
            assert encode(f"{own}/{pattern}", tmp_path / f"out-{number}").files == files, pattern
    assert encode(f"file://{own}/day-0.parquet", f"file://{tmp_path}/by_url").written == SIZES[0]
    assert result(tmp_path / "by_url").num_rows == SIZES[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("pattern", "names"),
    {
        "[[]1]*": ["[1].parquet"],
        "[]1]*": [],
        "[&&~~||--]*": [],
        "[0-9][!0-9]*": ["5%20.parquet", "50%.parquet"][:1],
        "x[#?]*": ["x#1.parquet"],
        "*%*": ["5%20.parquet", "50%.parquet"],
        "* *": ["a b.parquet"],
        "[ü]*": ["ü.parquet"],
    }.items(),
)
def test_names_and_patterns_with_special_characters(archive, tmp_path, pattern, names):
    (tmp_path / "in").mkdir()
    for name in (
        "[1].parquet",
        "5%20.parquet",
        "50%.parquet",
        "x#1.parquet",
        "a b.parquet",
        "ü.parquet",
        "k=v.parquet",
    ):
        shutil.copy(archive / "day-2.parquet", tmp_path / "in" / name)
    if not names:
        with pytest.raises(InputError, match="expected Parquet files"):
            storage.files([f"{tmp_path}/in/{pattern}"], [])
        return
    assert [Path(file.place.path).name for file in storage.files([f"{tmp_path}/in/{pattern}"], [])] == names
    assert encode(f"{tmp_path}/in/{pattern}", tmp_path / "out").files == len(names)


@pytest.mark.parametrize(
    ("pattern", "count"),
    {"*.parquet": 3, "year=*": 2, "year=*/": 2, "*": 5, "year=*/*.parquet": 2, "**/*.parquet": 5, "[x]*": 2}.items(),
)
def test_folders_that_a_pattern_finds_are_read(archive, tmp_path, pattern, count):
    """Spark writes a folder for what it calls x.parquet."""
    for name in ("a.parquet", "x.parquet/part-0.snappy.parquet", "x.parquet/deep/part-1.parquet",
                 "year=2024/a.parquet", "year=2025/b.parquet"):  # fmt: skip
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(archive / "day-2.parquet", tmp_path / "in" / name)
    for name in ("x.parquet/_SUCCESS", "x.parquet/_metadata.parquet", "x.parquet/_temporary/c.parquet"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("")
    assert len(storage.files([f"{tmp_path}/in/{pattern}"], [])) == count


def test_a_link_into_the_source_is_no_place_for_results(own, tmp_path):
    (tmp_path / "link").symlink_to(own)
    for source, output in ((own, tmp_path / "link/out"), (tmp_path / "link", own / "out")):
        with pytest.raises(InputError, match="is in the source"):
            encode(source, output)
    assert not (own / "out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_links_are_followed_and_a_pipe_is_no_gap(own, tmp_path):
    (tmp_path / "more").mkdir()
    (own / "day-4.parquet").rename(tmp_path / "more/day-4.parquet")
    (own / "linked").symlink_to(tmp_path / "more")
    assert len(storage.files([own], [])) == len(SIZES)
    os.mkfifo(own / "pipe.parquet")
    with pytest.raises(InputError, match=r"pipe.parquet: expected a file"):
        storage.files([own], [])


def test_a_folder_that_a_pattern_finds_is_no_place_for_results(own, tmp_path):
    with pytest.raises(InputError, match="is in the source"):
        encode(f"{own.parent}/ow*", own / "out")


def test_a_pattern_that_is_none(archive):
    with pytest.raises(InputError, match=r"day-\[9-1\].parquet: expected a pattern"):
        storage.files([f"{archive}/day-[9-1].parquet"], [])


def test_names_of_results_sort_as_their_numbers():
    numbers = [0, 9, 10, 99_999, 100_000, 953_674]
    assert sorted(map(ledger.file_name, numbers)) == [ledger.file_name(number) for number in numbers]


def test_what_the_bundle_cannot_give_is_refused_before_anything_is_read(tmp_path):
    bundle = BUNDLE.parent / "bundle_v1_encoder"
    with pytest.raises(BundleError):
        encode(tmp_path / "nothing", tmp_path / "out", bundle, outputs=("score",))
    with pytest.raises(InputError, match="outputs"):
        encode(tmp_path / "nothing", tmp_path / "out", outputs=("scores",))
    assert not (tmp_path / "out").exists()


def test_progress_ends_with_all_rows(own, tmp_path):
    said = []
    (own / "day-0.parquet").unlink()
    encode(own, tmp_path / "out", progress=lambda *args: said.append(args))
    rows = sum(SIZES[1:])
    assert [done for done, total, _ in said if total == rows] == [0, *np.cumsum(SIZES[1:]).tolist()]
    (tmp_path / "out/part-000001.parquet").unlink()
    said.clear()
    encode(own, tmp_path / "out", resume=True, progress=lambda *args: said.append(args))
    assert [done for done, total, _ in said if total == rows] == [rows - 1, rows]


# --- recordings


@pytest.fixture(scope="module")
def signal(tmp_path_factory):
    return signal_bundle(tmp_path_factory.mktemp("signal") / "pump.aeedge")


def test_recordings_are_cut_into_windows(signal, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 100)  # a recording is never cut
    (tmp_path / "in").mkdir()
    recordings = [write_recording(tmp_path / f"in/{i}.parquet", 300 + i, i) for i in range(2)]
    report = encode(tmp_path / "in", tmp_path / "out", signal, outputs=("latent", "score"), keep=("t",))
    found = result(tmp_path / "out")
    assert found.schema.names[0] == "start"
    with aeedge.load(signal, threads=1) as model:
        expected = [model.encode(aeedge.window(values, 32, 8)) for values in recordings]
    np.testing.assert_allclose(latents(found), np.concatenate(expected), rtol=1e-6, atol=1e-6)
    counts = [len(each) for each in expected]
    assert found["start"].to_pylist() == [8 * i for count in counts for i in range(count)]
    assert (report.rows, report.written, report.are_windows, report.parts) == (601, sum(counts), True, 2)
    assert report.columns == ("x", "y")
    np.testing.assert_allclose(found["t"].to_numpy()[: counts[0]], np.arange(counts[0]) * 0.08 + 0.31)


def test_recordings_that_cannot_be_cut(signal, tmp_path):
    (tmp_path / "in").mkdir()
    for name, count in (("good", 300), ("short", 20), ("bad", 300)):
        write_recording(tmp_path / f"in/{name}.parquet", count)
    rewrite(tmp_path / "in/bad.parquet", x={100: float("nan")})
    with pytest.raises(
        InputError, match=r"bad.parquet, row 100 .*column 'x'.*; or give bad_rows to set such files aside"
    ):
        encode(tmp_path / "in", tmp_path / "out", signal)
    report = encode(tmp_path / "in", tmp_path / "out", signal, resume=True, bad_rows=tmp_path / "aside")
    windows = (300 - 32) // 8 + 1
    assert report.set_aside == 4  # windows with sample 100
    assert report.written == 2 * windows - 4
    assert [Path(name).name for name, _ in report.unreadable] == ["short.parquet"]
    aside = pq.read_table(tmp_path / "aside/part-000000.parquet")
    assert aside["start"].to_pylist() == [72, 80, 88, 96]
    damaged(tmp_path / "in/good.parquet")
    report = encode(tmp_path / "in", tmp_path / "out", signal, resume=True, bad_rows=tmp_path / "aside")
    assert sorted(Path(name).name for name, _ in report.unreadable) == ["good.parquet", "short.parquet"]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_columns_beside_windows_keep_their_types(tmp_path, unit):
    signal = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0, time="when")
    bundle = signal_bundle(tmp_path / "pump.aeedge", signal=signal)
    (tmp_path / "in").mkdir()
    step = {"ms": 10, "us": 10_000, "ns": 10_000_001}[unit]
    count, start = 20_000, np.datetime64("2026-01-01T00:00:00", unit)
    when = pa.array(start + np.arange(count) * np.timedelta64(step, unit), pa.timestamp(unit, "UTC"))
    late = [None] * (count - 1) + ["end"]  # null in the first batches
    whole = pa.array([None, *range(1, count)], pa.int32())
    write_recording(tmp_path / "in/a.parquet", count, when=when, late=late, whole=whole)
    shutil.copy(tmp_path / "in/a.parquet", tmp_path / "in/b.pq")
    encode(tmp_path / "in", tmp_path / "out", bundle, keep=("late", "whole"))
    found = result(tmp_path / "out")
    expected = [pa.int64(), pa.timestamp(unit, "UTC"), pa.string(), pa.int32()]
    assert found.schema.types[:4] == expected
    starts = np.arange(0, count - 31, 8)
    assert found["start"].to_pylist() == [*starts, *starts]
    assert found["start_time"].combine_chunks().equals(pa.concat_arrays([when.take(pa.array(starts))] * 2))
    assert found["whole"].to_pylist() == [*(starts + 31), *(starts + 31)]
    assert found["late"].to_pylist()[-1] == "end"
    write_recording(tmp_path / "in/c.parquet", 300, late=["a"] * 300, whole=np.arange(300, dtype=np.int32))
    with pytest.raises(InputError, match=r"c.parquet.*'start_time' is double, not timestamp"):
        encode(tmp_path / "in", tmp_path / "other", bundle, keep=("late", "whole"))
    table = pq.read_table(tmp_path / "in/a.parquet")
    pq.write_table(table.append_column("start", table["x"]), tmp_path / "start.parquet")
    with pytest.raises(InputError, match="keep: a column of the result is called 'start', too"):
        encode(tmp_path / "start.parquet", tmp_path / "other", bundle, keep=("start",))


def test_windows_of_a_signal_in_rows(signal, tmp_path):
    (tmp_path / "in").mkdir()
    windows = np.ascontiguousarray(aeedge.window(machine(400), 32, 8))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(windows.reshape(-1)), 64)
    pq.write_table(pa.table({"n": np.arange(len(windows)), "w": flat}), tmp_path / "in/a.parquet")
    report = encode(tmp_path / "in", tmp_path / "out", signal, keep=("n",))
    assert (report.rows, report.written, report.are_windows) == (len(windows), len(windows), False)
    write_recording(tmp_path / "in/b.parquet", 300)
    with pytest.raises(InputError, match=r"b.parquet: expected recordings alone or rows alone"):
        encode(tmp_path / "in", tmp_path / "both", signal)


# --- folders that say something


@pytest.mark.parametrize("rows", [2**20, 200])
def test_names_of_folders_can_be_kept(own, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parts, "PART_ROWS", rows)
    folders = ("line=a%3Ab/year=2024", "line=x/year=__HIVE_DEFAULT_PARTITION__")
    for day, folder in enumerate(folders):
        (own / folder).mkdir(parents=True)
        (own / f"day-{day}.parquet").rename(own / folder / "part-0.parquet")
    rewrite(own / folders[0] / "part-0.parquet", s3={5: None})
    source = f"{own}/line=*/**/*.parquet"
    report = encode(source, tmp_path / "out", keep=("year", "id", "line"), bad_rows=tmp_path / "bad")
    found = result(tmp_path / "out")
    assert found.schema.names == ["year", "id", "line", "latent"]
    counts = (SIZES[0] - 1, SIZES[1])
    assert found["line"].to_pylist() == ["a:b"] * counts[0] + ["x"] * counts[1]
    assert found["year"].to_pylist() == ["2024"] * counts[0] + [None] * counts[1]
    assert found["id"].to_pylist() == np.delete(np.arange(sum(SIZES[:2])), 5).tolist()
    aside = result(tmp_path / "bad").to_pylist()
    assert [(row["id"], row["line"], row["year"]) for row in aside] == [(5, "a:b", "2024")]
    assert (report.written, report.set_aside) == (sum(counts), 1)
    plain = encode(source, tmp_path / "plain", bad_rows=tmp_path / "plain-bad")
    assert (plain.columns, plain.notes) == (report.columns, ())
    with pytest.raises(InputError, match=r"day-2.parquet.*keep: expected a column 'year'"):
        encode(own, tmp_path / "no", keep=("year",))


def test_a_column_of_the_file_comes_before_the_name_of_a_folder(own, tmp_path):
    (own / "note=folder").mkdir()
    (own / "day-2.parquet").rename(own / "note=folder/id=7.parquet")
    encode(own / "note=folder", tmp_path / "out", keep=("note", "id"))
    assert result(tmp_path / "out")["note"].to_pylist() == [f"row {sum(SIZES[:2])}"]
    assert result(tmp_path / "out")["id"].to_pylist() == [sum(SIZES[:2])]


def test_names_of_folders_of_recordings_can_be_kept(signal, tmp_path):
    (tmp_path / "in/pump=7").mkdir(parents=True)
    write_recording(tmp_path / "in/pump=7/a.parquet", 300)
    encode(tmp_path / "in", tmp_path / "out", signal, keep=("pump", "t"))
    found = result(tmp_path / "out")
    assert found["pump"].to_pylist() == ["7"] * ((300 - 32) // 8 + 1)
    assert found["t"][0].as_py() == pytest.approx(0.31)


# --- other file systems


def test_s3(s3, own, tmp_path, monkeypatch):
    from pyarrow.fs import FileSystem

    files, path = FileSystem.from_uri("s3://plant")
    for file in own.iterdir():
        with files.open_output_stream(f"{path}/job/in/{file.name}") as stream:
            stream.write(file.read_bytes())
    whole = encode(own, tmp_path / "whole")
    source, out = "s3://plant/job/in/*.parquet", "s3://plant/job/out"
    report = encode(source, f"{out}/", bad_rows="s3://plant/job/bad")
    assert report.written == whole.written
    for name, data in bytes_of(tmp_path / "whole").items():
        with files.open_input_stream(f"{path}/job/out/{name}") as stream:
            assert stream.read() == data
    assert encode(source, out, bad_rows="s3://plant/job/bad", resume=True).resumed == 5
    files.delete_file(f"{path}/job/out/part-000001.parquet")
    assert encode("s3://plant/job/in", out, bad_rows="s3://plant/job/bad", resume=True).resumed == 4
    with pytest.raises(InputError, match="results of this run already"):
        encode(source, out)
    assert encode(source, out, overwrite=True).written == whole.written
    by_option = f"{source}?endpoint_override={s3.removeprefix('http://')}&scheme=http"
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ENDPOINT_URL")
        assert encode(by_option, tmp_path / "here").written == whole.written
    for sources, said in (
        ("s3://plant/no.parquet", "no such file"),
        ("s3://no-such-bucket/x/*.parquet", "no-such-buc"),
    ):
        with pytest.raises(InputError, match=said):
            encode(sources, out, resume=True)


def test_names_with_special_characters_on_s3(s3, own, tmp_path):
    from pyarrow.fs import FileSystem

    files, path = FileSystem.from_uri("s3://plant")
    for name in ("day#1/x#2.parquet", "day/wrong.parquet", "day#1/50% ü.parquet"):
        with files.open_output_stream(f"{path}/odd/{name}") as stream:
            stream.write((own / "day-2.parquet").read_bytes())
    for source, count in (
        ("day#1/*.parquet", 2), ("day#1", 2), ("day#1/x#2.parquet", 1), ("*/x#?.parquet", 1), ("day#1/50% ü.parquet", 1)
    ):  # fmt: skip
        found = storage.files([f"s3://plant/odd/{source}"], [])
        assert len(found) == count, source
        assert all("/odd/day#1/" in file.name for file in found)
    report = encode("s3://plant/odd/day#1/*.parquet", "s3://plant/odd/out #1 ü", bad_rows="s3://plant/odd/out #2")
    assert (report.written, report.output) == (2, "s3://plant/odd/out #1 ü")
    with pytest.raises(InputError, match="is in the source"):
        encode("s3://plant/odd/day#1/", "s3://plant/odd/day#1/out")


def test_fsspec(own, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(own), "/plant/in", recursive=True)
    whole = encode(own, tmp_path / "whole")
    try:
        report = encode("memory://plant/in/*.parquet", "memory://plant/out")
        assert report.written == whole.written
        assert memory.cat("/plant/out/part-000000.parquet") == bytes_of(tmp_path / "whole")["part-000000.parquet"]
        assert encode("memory://plant/in", "memory://plant/out", resume=True).resumed == 5
    finally:
        memory.rm("/plant", recursive=True)


def test_columns_of_a_row_group_are_read_in_one_request(samples, tmp_path, monkeypatch):
    """Over a network each request takes a while: eight columns of eight groups must not take 64 of them."""
    fsspec = pytest.importorskip("fsspec")
    memory, reads = fsspec.filesystem("memory"), []
    table = pa.table({f"s{i}": samples[:, i] for i in range(8)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=-(-len(samples) // 8), use_dictionary=False)
    memory.put(str(tmp_path / "rows.parquet"), "/plant/rows.parquet")
    kind = type(memory.open("/plant/rows.parquet"))
    read = kind.read
    monkeypatch.setattr(kind, "read", lambda self, *args: reads.append(args) or read(self, *args))
    monkeypatch.setattr(task, "_BATCH_ROWS", len(samples) // 8)
    try:
        assert encode("memory://plant/rows.parquet", tmp_path / "out").written == len(samples)
    finally:
        memory.rm("/plant", recursive=True)
    assert 8 < len(reads) <= 8 + 6  # a group each; and footers, of the plan and of the part
