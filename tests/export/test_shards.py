"""Training on files that together are larger than memory: the same as on one array, in bounded memory."""

import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge_export.data.files
import aeedge_export.data.rows
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder, Shards
from aeedge_export.data import shards as shards_module
from aeedge_export.data.outliers import find_outliers
from aeedge_export.data.rows import StreamedRows, split
from aeedge_export.data.scaling import Scaler, fit_statistics, pick_rows

CUTS = (0, 90, 91, 230, 400)
NAMES = tuple("abcdef")
SMALL = {"latent": 2, "hidden": (8,), "epochs": 3, "random_state": 0, "threads": 1, "batch_size": 32}
NO_SCALING = Scaler("none", np.array(0, np.float32), np.array(1, np.float32))
CPU = torch.device("cpu")


def write_npy(folder, X, cuts=CUTS):
    folder.mkdir(exist_ok=True)
    for i, (start, stop) in enumerate(pairwise(cuts)):
        np.save(folder / f"part-{i:03}.npy", X[start:stop])
    return folder


def write_parquet(folder, X, cuts=CUTS, group=60, names=NAMES):
    folder.mkdir(exist_ok=True)
    for i, (start, stop) in enumerate(pairwise(cuts)):
        table = pa.table({name: X[start:stop, j] for j, name in enumerate(names)})
        pq.write_table(table, folder / f"part-{i:03}.parquet", row_group_size=group)
    return folder


@pytest.fixture(scope="session")
def stored(rows, tmp_path_factory):
    """The rows as shards of each kind."""
    place = tmp_path_factory.mktemp("shards")
    return {"npy": write_npy(place / "npy", rows), "parquet": write_parquet(place / "parquet", rows)}


@pytest.fixture(params=["npy", "parquet"])
def shards(request, stored):
    return Shards(stored[request.param])


@pytest.fixture
def no_memory(monkeypatch):
    """Arrays are streamed as shards are."""
    monkeypatch.setattr(aeedge_export.data.rows, "_free_memory", lambda device: 0)


def weights(ae):
    return {name: tensor.numpy().tobytes() for name, tensor in ae.network_.state_dict().items()}


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# --- as an array


def test_shards_are_described_as_an_array(shards, rows):
    assert shards.shape == rows.shape
    assert (len(shards), shards.ndim, shards.size, shards.nbytes) == (len(rows), 2, rows.size, rows.nbytes)
    assert shards.dtype == np.float32
    assert shards.describe() == "4 shards, 400 rows × 6 float32, 0.0 MB, streamed"
    np.testing.assert_array_equal(shards[:], rows)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_any_index_gives_what_an_array_gives(kind, stored, rows, data):
    shards, n = Shards(stored[kind]), len(rows)
    row = st.integers(-n, n - 1)
    edge = st.none() | st.integers(-n - 5, n + 5)
    if data.draw(st.booleans()):
        shards.hold(np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=50))))
    index = data.draw(
        st.one_of(
            row,
            st.builds(slice, edge, edge, st.none() | st.integers(-7, 7).filter(bool)),
            st.lists(row, max_size=60).map(lambda rows: np.array(rows, np.int32)),
            st.lists(row, max_size=60).map(lambda rows: np.sort(np.array(rows, np.int64))),
            st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
        )
    )
    found = shards[index]
    np.testing.assert_array_equal(found, rows[index])
    assert found.flags.writeable


@pytest.mark.parametrize("index", [400, -401, [0, 400], np.array([0.5]), (0, 1), np.ones(3, bool)])
def test_a_row_that_is_not_there_is_an_index_error(shards, index):
    with pytest.raises(IndexError, match="expected"):
        shards[index]


def test_shards_are_not_pulled_into_memory_by_numpy(shards):
    with pytest.raises(InputError, match="400 that are streamed from files"):
        np.asarray(shards)


def test_far_and_near_rows_are_gathered_without_the_rows_between(rows, tmp_path, monkeypatch):
    shards = Shards(write_npy(tmp_path / "npy", rows))
    read = []
    monkeypatch.setattr(shards_module, "_GAP_BYTES", 5 * rows[0].nbytes)
    plain = shards_module._NpyShard.read
    monkeypatch.setattr(shards_module._NpyShard, "read", lambda self, a, b: read.append(b - a) or plain(self, a, b))
    np.testing.assert_array_equal(shards[[100, 103, 200, 390]], rows[[100, 103, 200, 390]])
    assert read == [4, 1, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">f4", "float64", "float16"])
def test_the_dtype_of_arrays_is_kept(dtype, tmp_path):
    X = np.arange(120).reshape(20, 2, 3).astype(dtype)
    shards = Shards(write_npy(tmp_path / "npy", X, (0, 7, 20)))
    assert shards.dtype == X.dtype.newbyteorder("=")
    assert shards.shape == (20, 2, 3)
    np.testing.assert_array_equal(shards[3:12], X[3:12])


def test_a_list_or_tensor_column_is_the_row(rows, tmp_path):
    X = rows[:40]
    lists = pa.table({"v": pa.array(X.tolist(), pa.list_(pa.float32()))})
    fixed = pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 6), "id": pa.array(["x"] * 40)})
    tensors = pa.table({"v": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(X.reshape(40, 2, 3)))})
    for i, (table, shape) in enumerate(((lists, (40, 6)), (fixed, (40, 6)), (tensors, (40, 2, 3)))):
        (tmp_path / str(i)).mkdir()
        pq.write_table(table.slice(0, 15), tmp_path / str(i) / "a.parquet", row_group_size=4)
        pq.write_table(table.slice(15), tmp_path / str(i) / "b.parquet", row_group_size=100)
        shards = Shards(tmp_path / str(i))
        assert shards.shape == shape
        np.testing.assert_array_equal(shards[:], X.reshape(shape))


def test_columns_are_chosen_by_name_or_by_the_first_shard(rows, tmp_path):
    table = pa.table({**{name: rows[:, j] for j, name in enumerate(NAMES)}, "row": np.arange(400), "site": ["x"] * 400})
    pq.write_table(table.slice(0, 200), tmp_path / "a.parquet")
    pq.write_table(table.slice(200).select(table.column_names[::-1]), tmp_path / "b.parquet")
    found = Shards(tmp_path)
    assert found.features == NAMES
    assert "row (counts up)" in found.notes[1]
    assert "site (text)" in found.notes[1]
    np.testing.assert_array_equal(found[:], rows)
    np.testing.assert_array_equal(Shards(tmp_path, columns=["c", "a"])[150:250], rows[150:250][:, [2, 0]])
    assert Shards(tmp_path, drop=["b", "e"]).features == ("a", "c", "d", "f")


# --- as in memory


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_statistics_and_samples_are_those_of_the_array(kind, stored, rows, monkeypatch):
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 6 * 37)
    shards, train = Shards(stored[kind]), split(len(rows), 0.2, 0).train
    for some in (None, train):
        mine, whole = fit_statistics(shards, some), fit_statistics(rows, some)
        for name in ("mean", "std", "min", "max"):
            assert getattr(mine, name).tobytes() == getattr(whole, name).tobytes()
        np.testing.assert_array_equal(pick_rows(shards, some), pick_rows(rows, some))


@pytest.mark.filterwarnings("ignore:column")
@pytest.mark.parametrize("outlier", [False, True])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_training_on_shards_gives_the_bytes_of_training_on_the_array(kind, outlier, rows, tmp_path, no_memory):
    X = rows.copy()
    X[[17, 200], 3] = 1e12 if outlier else X[[17, 200], 3]
    shards = Shards((write_npy if kind == "npy" else write_parquet)(tmp_path / kind, X))
    whole, found = Autoencoder(**SMALL).fit(X), Autoencoder(**SMALL).fit(shards)
    assert found.scaler_.mean.tobytes() == whole.scaler_.mean.tobytes()
    assert found.scaler_.scale.tobytes() == whole.scaler_.scale.tobytes()
    assert weights(found) == weights(whole)
    assert found.run_.fingerprint == whole.run_.fingerprint
    assert found.run_.alarm == whole.run_.alarm
    assert found.notes_ == [
        note.replace("column 3", "column 'd'") if kind == "parquet" else note for note in whole.notes_
    ]
    assert found.run_.left_out.tolist() == ([17, 200] if outlier else [])
    np.testing.assert_array_equal(found.sample_, whole.sample_)
    np.testing.assert_array_equal(found.transform(shards), whole.transform(X))
    mine, other = found.evaluate(shards), whole.evaluate(X)
    assert mine["baseline"] == other["baseline"]
    assert [row["score"] for row in mine["detection"]["worst"]] == [row["score"] for row in other["detection"]["worst"]]


def test_statistics_take_one_pass_and_spread_rows_another(stored, rows, monkeypatch):
    passes = {}
    plain = shards_module._ParquetShard._decoded
    monkeypatch.setattr(shards_module, "_CACHE_BYTES", 0)
    monkeypatch.setattr("aeedge_export.fitting._START_ROWS", 30)  # so that not all rows are held in memory
    monkeypatch.setattr("aeedge_export.data.scaling._PICKED_ROWS", 30)
    monkeypatch.setattr("aeedge_export.data.rows._HASHED_BYTES", 30 * 24)
    monkeypatch.setattr("aeedge_export.data.rows._CHUNKS_MIXED", 10**9)

    def decoded(self, number):
        passes[self.name, number] = passes.get((self.name, number), 0) + 1
        return plain(self, number)

    monkeypatch.setattr(shards_module._ParquetShard, "_decoded", decoded)
    shards = Shards(stored["parquet"])
    Autoencoder(**{**SMALL, "epochs": 2}, time_ordered=False, gap=1).fit(shards)
    assert len(passes) == len(shards.edges)
    assert max(passes.values()) == 1 + 1 + 2  # spread rows, statistics, two epochs
    assert sum(passes.values()) > 3 * len(passes)


def test_families_that_need_other_passes_train_on_shards(stored, rows, tmp_path, no_memory):
    whole, found = (Autoencoder(family="pca", latent=2, random_state=0).fit(X) for X in (rows, Shards(stored["npy"])))
    np.testing.assert_allclose(found.score(rows), whole.score(rows), rtol=1e-3)
    windows = np.random.default_rng(0).normal(size=(200, 16, 2)).astype(np.float32)
    shards = Shards(write_npy(tmp_path / "windows", windows, (0, 70, 200)))
    for options in ({"family": "conv1d", "channels": "last", "hidden": (4,)}, {"front_end": "spectrum"}):
        whole, found = (Autoencoder(**{**SMALL, **options}).fit(each) for each in (windows, shards))
        assert weights(found) == weights(whole)
        assert found.evaluate(shards)["baseline"] == whole.evaluate(windows)["baseline"]


def test_portions_of_shards_are_trained_on(stored, rows):
    ae = Autoencoder(**SMALL).partial_fit(Shards(stored["npy"])).partial_fit(Shards(stored["npy"]))
    assert ae.n_iter_ == 2


# --- the order of rows


def batches_of(X, train, size, seed, chunk=7, weights=None):
    rows = StreamedRows(X, train, train[:0], NO_SCALING, CPU, weights, chunk_bytes=chunk * 24)
    return [batch.numpy() for batch in rows.batches(size, torch.Generator().manual_seed(seed))]


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 60), chunk=st.integers(1, 90), seed=st.integers(0, 99))
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_every_row_is_seen_once_an_epoch(kind, stored, rows, size, chunk, seed):
    shards, train = Shards(stored[kind]), split(len(rows), 0.2, seed).train
    found = batches_of(shards, train, size, seed, chunk)
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    assert sorted(row.tobytes() for row in np.concatenate(found)) == sorted(row.tobytes() for row in rows[train])


def test_rows_are_shuffled_within_buffers_and_differ_by_epoch(stored, rows):
    train = np.arange(392)
    first, again, other = (np.concatenate(batches_of(Shards(stored["npy"]), train, 32, seed)) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    order = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in first]
    assert sorted(order) == list(range(392))
    buffers = [order[start : start + 28] for start in range(0, 392, 28)]
    assert all(len({row // 7 for row in part}) == 4 for part in buffers)
    assert all(part != sorted(part) for part in buffers)
    assert [min(part) for part in buffers] != sorted(min(part) for part in buffers)


def test_weighted_rows_come_as_often_from_shards_as_from_an_array(stored, rows):
    train, some = np.arange(400), np.random.default_rng(0).uniform(0.1, 3, 400).astype(np.float32)
    assert [batch.tobytes() for batch in batches_of(Shards(stored["npy"]), train, 32, 0, weights=some)] == [
        batch.tobytes() for batch in batches_of(rows, train, 32, 0, weights=some)
    ]


def test_row_groups_are_not_cut(stored):
    shards = Shards(stored["parquet"])
    rows = StreamedRows(shards, np.arange(400), np.arange(0), NO_SCALING, CPU, chunk_bytes=24 * 70)
    assert rows._edges(np.arange(400)).tolist() == [0, 90, 211, 290, 400]
    assert set(rows._edges(np.arange(400))[:-1]) <= set(shards.edges)


class Watched(shards_module.LazyRows):
    """Rows that remember how many were read at once, and on which thread."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.most, self.threads = X, X.shape, X.dtype, 0, set()

    def _between(self, start, stop):
        return self._gathered(np.arange(start, stop))

    def _gathered(self, rows):
        self.most = max(self.most, len(rows))
        self.threads.add(threading.current_thread() is threading.main_thread())
        return self.X[rows]


def test_no_more_than_a_chunk_is_read_at_once(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30_000, 6)).astype(np.float32)
    X = (X @ np.random.default_rng(1).normal(size=(6, 6))).astype(np.float32)
    most = 1000
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 6 * most)
    monkeypatch.setattr("aeedge_export.data.rows._VALIDATION_ROWS", most)
    monkeypatch.setattr("aeedge_export.data.rows._MOST_CALIBRATION", most)
    monkeypatch.setattr("aeedge_export.data.rows._HASHED_BYTES", 4 * 6 * most)
    monkeypatch.setattr("aeedge_export.data.scaling._PICKED_ROWS", most)
    monkeypatch.setattr("aeedge_export.fitting._START_ROWS", most)
    monkeypatch.setattr("aeedge_export.reporting.evaluation._TRAIN_ROWS", most)
    monkeypatch.setattr("aeedge_export.reporting.detection._BLOCK_ROWS", most)
    monkeypatch.setattr("aeedge_export.run._BLOCK_ROWS", most)
    plain = StreamedRows.__init__
    monkeypatch.setattr(StreamedRows, "__init__", lambda self, *args: plain(self, *args, chunk_bytes=4 * 6 * most))
    watched = Watched(X)
    ae = Autoencoder(**{**SMALL, "batch_size": 256}).fit(watched)
    ae.evaluate(watched)
    ae.resume(watched, epochs=4)
    ae.transform(watched)
    assert 0 < watched.most <= most + 1
    assert False in watched.threads  # buffers are read ahead


def test_long_validation_rows_are_thinned_out(monkeypatch):
    X = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    monkeypatch.setattr("aeedge_export.data.rows._VALIDATION_BYTES", 16 * 10)
    rows = StreamedRows(X, np.arange(500), np.arange(500, 1000), NO_SCALING, CPU)
    assert rows.validation[:, 0].tolist() == X[np.linspace(500, 999, 10).astype(int), 0].tolist()


def test_very_many_far_values_are_in_the_nature_of_the_data(monkeypatch):
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    X[::50, 1] = 1e6
    assert find_outliers(X).mask.sum() == 10
    monkeypatch.setattr("aeedge_export.data.outliers._MOST_FAR", 9)
    assert find_outliers(X).findings == ()


def test_the_next_buffer_is_read_while_the_present_one_is_used():
    watched = Watched(np.arange(4000, dtype=np.float32).reshape(1000, 4))
    rows = StreamedRows(watched, np.arange(1000), np.arange(0), NO_SCALING, CPU, chunk_bytes=16 * 10)
    before = threading.active_count()
    found = rows.batches(8, torch.Generator().manual_seed(0))
    next(found)
    assert threading.active_count() == before + 1
    found.close()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.name == "aeedge-reader":
            thread.join(5)
    assert threading.active_count() == before
    assert rows.waited > 0


# --- resumed, saved, exported


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_run_on_shards_is_resumed_exported_and_calibrated(kind, stored, rows, tmp_path, time_has_no_say):
    options = {**SMALL, "schedule": "constant", "patience": None}
    shards = Shards(stored[kind])
    whole = Autoencoder(**{**options, "epochs": 5}).fit(shards)
    Autoencoder(**options).fit(shards).save(tmp_path / "run")
    resumed = Autoencoder.load(tmp_path / "run").resume(shards, epochs=5)
    assert weights(resumed) == weights(whole)
    other = rows.copy()
    other[350, 2] += 1
    with pytest.raises(InputError, match="expected the rows that the run was trained on"):
        resumed.resume(Shards((write_npy if kind == "npy" else write_parquet)(tmp_path / "other", other)), epochs=6)
    manifest = resumed.export(tmp_path / "a.aeedge", variants=("fp32", "int8"), calibration=shards[::2])
    assert set(manifest.variants) == {"fp32", "int8"}
    with pytest.warns(UserWarning, match="these rows were trained on"):
        resumed.calibrate(shards, false_alarm_rate=0.1)
    assert resumed.predict(shards).shape == (400,)


# --- faults


def test_shards_of_other_shapes_or_types_name_both_files(rows, tmp_path):
    write_npy(tmp_path, rows)
    for other in (rows[:5, :4], rows[:5].astype(np.float64), rows[:5].reshape(5, 2, 3)):
        np.save(tmp_path / "x.npy", other)
        with pytest.raises(
            InputError, match=r"x\.npy: expected rows of shape \(6,\) and dtype float32 as in .*part-000"
        ):
            Shards(tmp_path)


def test_a_missing_or_other_column_names_both_files(rows, tmp_path):
    write_parquet(tmp_path, rows)
    table = pq.read_table(tmp_path / "part-001.parquet")
    for other, got in (
        (table.drop_columns(["c"]), "got a, b, d"),
        (table.set_column(2, "c", pa.array(["x"] * len(table))), "got a column of text"),
    ):
        pq.write_table(other, tmp_path / "x.parquet")
        with pytest.raises(InputError, match=rf"x\.parquet: expected a column 'c' .* as in .*part-000.*{got}"):
            Shards(tmp_path)
    with pytest.raises(InputError, match=r"part-000\.parquet: expected a column 'nope', got a, b"):
        Shards(tmp_path, columns=["nope"])


def test_files_of_two_kinds_and_other_kinds_are_refused(rows, tmp_path):
    write_npy(write_parquet(tmp_path, rows), rows)
    with pytest.raises(InputError, match=r"expected shards of one kind, \.npy or \.parquet, got .*npy, .*parquet"):
        Shards(tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"expected shards of one kind.*x\.csv"):
        Shards(tmp_path / "c")
    with pytest.raises(InputError, match="nothing is there"):
        Shards(tmp_path / "gone.npy")
    with pytest.raises(InputError, match="got none"):
        Shards([])
    with pytest.raises(InputError, match=r"columns can be chosen by name in tables only"):
        Shards(tmp_path / "part-000.npy", columns=["a"])


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_empty_shards_are_passed_over_and_named(kind, rows, tmp_path):
    write, suffix = (write_npy, "npy") if kind == "npy" else (write_parquet, "parquet")
    write(tmp_path / "some", rows, (0, 0, 100, 100, 400))
    shards = Shards(tmp_path / "some")
    np.testing.assert_array_equal(shards[:], rows)
    assert f"part-000.{suffix}" in shards.notes[-1]
    assert f"part-002.{suffix}" in shards.notes[-1]
    with pytest.raises(InputError, match=r"expected rows, but all are empty"):
        Shards(write(tmp_path / "none", rows, (0, 0, 0)))
    with pytest.raises(InputError, match=r"expected two or more rows to train on, got 1"):
        Shards(write(tmp_path / "one", rows, (0, 0, 1)))


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_damaged_shard_is_named(kind, rows, tmp_path):
    place = (write_npy if kind == "npy" else write_parquet)(tmp_path, rows) / f"part-002.{kind}"
    data = place.read_bytes()
    for damaged in (data[:-40], data[:100], b"", b"\0" * 200):
        place.write_bytes(damaged)
        with pytest.raises(InputError, match=r"part-002"):
            Shards(tmp_path)[:]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_value_that_is_no_number_is_named_by_file_row_and_column(kind, value, rows, tmp_path):
    X = rows.copy()
    X[333, 4] = value
    shards = Shards((write_npy if kind == "npy" else write_parquet)(tmp_path, X))
    where = r"row 103 \(counted from 0\) of .*part-003\.npy, column 4"
    with pytest.raises(InputError, match=where if kind == "npy" else r"part-003\.parquet, row 103 .*column 'e'"):
        Autoencoder(**SMALL).fit(shards)


def test_a_null_is_named_by_file_row_and_column(rows, tmp_path):
    write_parquet(tmp_path, rows)
    table = pq.read_table(tmp_path / "part-002.parquet")
    cells = table.column("b").to_pylist()
    cells[77] = None
    pq.write_table(table.set_column(1, "b", pa.array(cells)), tmp_path / "part-002.parquet", row_group_size=60)
    with pytest.raises(InputError, match=r"part-002\.parquet, row 77 \(counted from 0\), column 'b': .*missing value"):
        Autoencoder(**SMALL).fit(Shards(tmp_path))


def test_a_list_of_another_length_is_named_by_file_and_row(rows, tmp_path):
    lists = rows[:50].tolist()
    pq.write_table(pa.table({"v": lists}), tmp_path / "a.parquet")
    for wrong in ([1.0] * 5, None):
        pq.write_table(pa.table({"v": [*lists[:33], wrong, *lists[34:]]}), tmp_path / "b.parquet", row_group_size=20)
        got = "none" if wrong is None else "5"
        with pytest.raises(InputError, match=rf"b\.parquet, row 33 .*column 'v': expected 6 values .*got {got}"):
            Autoencoder(**SMALL).fit(Shards(tmp_path))
    pq.write_table(pa.table({"v": rows[:9, :4].tolist()}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: expected a column 'v\[4\]' of numbers as in .*a\.parquet"):
        Shards(tmp_path)


@pytest.mark.parametrize("change", ["longer", "shorter", "gone"])
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_files_that_change_while_training_stop_it(kind, change, rows, tmp_path, monkeypatch):
    place = (write_npy if kind == "npy" else write_parquet)(tmp_path, rows) / f"part-003.{kind}"

    data = place.read_bytes()

    def after_epoch(state):
        if change == "gone":
            place.unlink(missing_ok=True)
        else:
            place.write_bytes(data + b"\0" * 30 if change == "longer" else data[:-30])

    monkeypatch.setattr(Shards, "hold", lambda self, rows: None)  # all of these few

    with pytest.raises(InputError, match=r"part-003.*(has changed since|nothing is there)"):
        Autoencoder(**SMALL).fit_rows(Shards(tmp_path), on_epoch=after_epoch)


def test_row_groups_that_would_not_fit_are_refused(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_MOST_GROUP_BYTES", 59 * 24)
    with pytest.raises(InputError, match=r"part-000\.parquet: expected row groups of at most .*row_group_size="):
        Shards(write_parquet(tmp_path, rows))


def test_rows_of_another_shape_or_with_other_columns_are_refused(stored, rows, tmp_path):
    ae = Autoencoder(**SMALL).fit(Shards(stored["parquet"]))
    with pytest.raises(InputError, match=r"expected rows of shape \(6,\), got \(4,\)"):
        ae.transform(Shards(write_npy(tmp_path / "x", rows[:, :4])))
    with pytest.raises(InputError, match=r"expected the columns a, b, .* got b, a"):
        ae.transform(Shards(stored["parquet"], columns=["b", "a", "c", "d", "e", "f"]))


# --- the command


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_the_command_streams_a_folder_from_a_size_on(kind, stored, rows, tmp_path, monkeypatch):
    quick = ("-o", tmp_path / "run", "--latent", "2", "--hidden", "8", "--epochs", "2", "-q")
    result = call("train", stored[kind], *quick)
    assert result.exit_code == 0, result.output
    assert "streamed" not in result.output
    monkeypatch.setattr(aeedge_export.data.files, "STREAMED_FROM", 1000)
    result = call("train", stored[kind], *quick, "--force")
    assert result.exit_code == 0, result.output
    assert "Read: 4 shards, 400 rows × 6 float32, 0.0 MB, streamed" in result.output
    assert (tmp_path / "run" / "report.html").exists()
    result = call("train", stored[kind], "-o", tmp_path / "run", "--resume", "--epochs", "4", "-q")
    assert result.exit_code == 0, result.output
    result = call("export", tmp_path / "run", "-o", tmp_path / "a.aeedge")
    assert result.exit_code == 0, result.output
    result = call("train", stored[kind], *quick, "--force", "--no-stream")
    assert result.exit_code == 0, result.output
    assert "streamed" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "a"), "--labels needs all rows in memory"),
        (("--weights", "a"), "--weights needs all rows in memory"),
        (("--select", "a > 0"), "--select needs all rows in memory"),
        (("--missing", "median"), "--missing drop or median needs all rows in memory"),
        (("--delimiter", ";"), "shards have no header"),
        (("--window", "8"), "--stream: recordings are cut into windows in memory"),
    ],
)
def test_options_that_need_all_rows_are_refused_where_rows_are_streamed(options, message, stored, tmp_path):
    result = call("train", stored["parquet"], "-o", tmp_path / "run", "--stream", *options)
    assert result.exit_code != 0
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_columns_are_chosen_where_rows_are_streamed(stored, tmp_path):
    result = call(
        *("train", stored["parquet"], "-o", tmp_path / "run", "--stream", "--drop", "b", "--drop", "e"),
        *("--latent", "2", "--hidden", "8", "--epochs", "1", "-q"),
    )
    assert result.exit_code == 0, result.output
    assert "inputs (4): a, c, d, f" in result.output
    assert Autoencoder.load(tmp_path / "run").run_.features == ("a", "c", "d", "f")


def test_a_file_of_labels_is_used_where_rows_are_streamed(stored, tmp_path):
    np.save(tmp_path / "y.npy", (np.arange(400) % 5 == 0).astype(int))
    result = call(
        *("train", stored["npy"], "-o", tmp_path / "run", "--stream", "--labels", tmp_path / "y.npy"),
        *("--latent", "2", "--hidden", "8", "--epochs", "1", "-q"),
    )
    assert result.exit_code == 0, result.output
    assert "streamed" in result.output
    assert "labels: class '1' counts as anomalous" in result.output


def test_calibration_rows_from_other_shards_are_read_into_memory(stored, tmp_path):
    result = call(
        *("train", stored["parquet"], "-o", tmp_path / "run", "--stream", "--calibration", stored["npy"]),
        *("--latent", "2", "--hidden", "8", "--epochs", "1", "-q"),
    )
    assert result.exit_code == 0, result.output
    assert Autoencoder.load(tmp_path / "run").run_.alarm.rows == 400
