"""What all engines have in common: each part is done once, whatever ends in the middle, and results are the same."""

import platform
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.parts import Meddled, Work, parts
from helpers.tampering import change_golden
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem, copy_files

import aeedge.archive.parts
from aeedge.archive.engines import ENGINES, make_engine
from aeedge.archive.job import encode_archive
from aeedge.archive.packing import pack
from aeedge.archive.work import TRIES
from aeedge.errors import AeedgeError

BUNDLE = Path(__file__).parent.parent / "data/bundle_v1_robust_int8"  # as in conftest.py
PART_ROWS = 200
COUNT = 8
OUTPUTS = ("latent", "score", "p_value", "alarm")
KEEP = ("id", "time")


@pytest.fixture(params=ENGINES)
def engine(request):
    """Two processes, the session of Spark, the cluster of Ray."""
    session = {"spark": "spark", "ray": "ray_session"}.get(request.param)
    if session is not None:
        request.getfixturevalue(session)
    return make_engine(request.param, workers=2 if session is None else None)


@pytest.fixture
def many_parts(monkeypatch):
    """Files are cut into parts."""
    monkeypatch.setattr(aeedge.archive.parts, "PART_ROWS", PART_ROWS)


@pytest.fixture
def packed(bundle):
    return pack(bundle)


@pytest.fixture(scope="module")
def reference(archive, tmp_path_factory):
    """The result files of one process here, by name, in fp32 and in int8."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aeedge.archive.parts, "PART_ROWS", PART_ROWS)
        for variant in ("fp32", "int8"):
            output = tmp_path_factory.mktemp("reference") / variant
            encode_archive(BUNDLE, [archive], output, outputs=OUTPUTS, keep=KEEP, variant=variant, workers=1)
            found[variant] = results(output)
    assert len(found["int8"]) > 10
    return found


def results(folder, filesystem=None):
    filesystem = filesystem or LocalFileSystem()
    infos = filesystem.get_file_info(FileSelector(str(folder)))
    names = [info.base_name for info in infos if info.base_name.startswith("part-")]
    return {name: filesystem.open_input_file(f"{folder}/{name}").read() for name in names}


def test_each_part_is_done_once_with_the_bundle(engine, packed, bundle, tmp_path):
    outcomes = list(engine.run(Work(str(tmp_path)), parts(COUNT), packed))
    assert sorted(outcome.number for outcome in outcomes) == list(range(COUNT))
    assert {outcome.host for outcome in outcomes} == {platform.node()}
    assert {tuple(outcome.payload[1]) for outcome in outcomes} == {tuple(sorted(p.name for p in bundle.iterdir()))}
    assert engine.workers == 2


def test_nothing_to_do(engine, packed, tmp_path):
    assert list(engine.run(Work(str(tmp_path)), [], packed)) == []


@pytest.mark.parametrize("what", ["end", "complain"])
def test_a_part_whose_worker_ended_is_done_by_another(what, engine, packed, tmp_path):
    work = Work(str(tmp_path), 3, what, seconds=0.05)
    outcomes = list(engine.run(work, parts(COUNT), packed))
    assert work.happened() == 1
    assert Counter(outcome.number for outcome in outcomes) == Counter(range(COUNT))
    assert not any(outcome.error for outcome in outcomes)


@pytest.mark.parametrize(("what", "reason"), [("end", ""), ("complain", "MemoryError: nothing is left")])
def test_a_part_whose_workers_always_end_is_told_and_the_others_are_done(what, reason, engine, packed, tmp_path):
    work = Work(str(tmp_path), 3, what, times=100)
    outcomes = {outcome.number: outcome for outcome in engine.run(work, parts(COUNT), packed)}
    assert set(outcomes) == set(range(COUNT))
    assert work.happened() == TRIES
    error = outcomes.pop(3).error
    assert re.fullmatch(rf"/archive/day-3\.parquet: its worker ended {TRIES} times .*\n?", error)
    assert reason in error or engine.name == "local"  # whose worker prints it
    assert not any(outcome.error for outcome in outcomes.values())


def test_what_another_try_would_not_mend_is_not_tried_again(engine, packed, tmp_path):
    work = Work(str(tmp_path), 3, "fail", times=100)
    outcomes = {outcome.number: outcome for outcome in engine.run(work, parts(COUNT), packed)}
    assert work.happened() == 1
    assert [number for number, outcome in outcomes.items() if outcome.error] == [3]
    assert set(outcomes) == set(range(COUNT))


def test_outcomes_come_while_others_are_not_done_and_closing_ends_the_rest(engine, packed, tmp_path):
    work, count = Work(str(tmp_path), seconds=0.2), 200
    outcomes = engine.run(work, parts(count), packed)
    for _ in range(3):
        next(outcomes)
    outcomes.close()
    assert 3 <= len(work.done()) < count / 2
    assert len(list(engine.run(Work(str(tmp_path)), parts(2), packed))) == 2


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_an_archive_gives_the_same_files(variant, engine, many_parts, bundle, archive, tmp_path, reference):
    report = encode_archive(
        bundle, [archive], tmp_path / "out", outputs=OUTPUTS, keep=KEEP, variant=variant, engine=engine
    )
    assert (report.rows, report.written, report.set_aside) == (2000, 2000, 0)
    assert report.variants == {variant: len(reference[variant])}
    assert results(tmp_path / "out") == reference[variant]


@pytest.mark.parametrize("is_before", [True, False])
def test_an_archive_is_complete_when_workers_are_killed(
    is_before, engine, many_parts, bundle, archive, tmp_path, reference
):
    """Before a part is done, and after it was committed, when nobody knows of it but the output folder."""
    meddled = Meddled(engine, Work(str(tmp_path), None, "end", times=3), is_before)
    report = encode_archive(bundle, [archive], tmp_path / "out", outputs=OUTPUTS, keep=KEEP, engine=meddled)
    assert meddled.work.happened() == 3
    assert report.written == 2000
    assert results(tmp_path / "out") == reference["int8"]
    table = pq.read_table(tmp_path / "out")
    assert sorted(table.column("id").to_pylist()) == list(range(2000))


def test_an_archive_on_s3(engine, s3, many_parts, bundle, archive, reference):
    url, where = f"s3://plant/{engine.name}", f"plant/{engine.name}"
    filesystem, _ = FileSystem.from_uri(url)
    copy_files(str(archive), f"{where}/in", LocalFileSystem(), filesystem)
    report = encode_archive(bundle, [f"{url}/in/*.parquet"], f"{url}/out", outputs=OUTPUTS, keep=KEEP, engine=engine)
    assert (report.files, report.rows, report.written) == (5, 2000, 2000)
    assert results(f"{where}/out", filesystem) == reference["int8"]


def test_a_worker_that_computes_something_else_is_named(engine, bundle, archive, tmp_path):
    change_golden(bundle, "fp32.latent", (0, 0), 1.0)
    with pytest.raises(AeedgeError, match=f"worker {re.escape(platform.node())}: .*latent"):
        encode_archive(bundle, [archive], tmp_path / "out", variant="fp32", engine=engine)


def test_a_row_that_cannot_be_computed_is_named(engine, bundle, archive, tmp_path):
    table = pq.read_table(archive / "day-1.parquet")
    values = np.array(table.column("s2"))
    values[7] = np.nan
    pq.write_table(table.set_column(table.column_names.index("s2"), "s2", [values]), tmp_path / "bad.parquet")
    with pytest.raises(AeedgeError, match=r"bad\.parquet, row 7 .*s2"):
        encode_archive(bundle, [tmp_path / "bad.parquet"], tmp_path / "out", engine=engine)
