"""encode, decode, denoise, score: shapes, dtypes, what is refused, and the laws that hold for all inputs."""

import itertools
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aeedge

DATA = Path(__file__).parent.parent / "data"
CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # fp32: a row's rounding may depend on the size of its block


def test_shapes(model, rows):
    assert model.encode(rows).shape == (3000, 3)
    assert model.encode(rows[0]).shape == (3,)
    assert model.decode(model.encode(rows[:5])).shape == (5, 12)
    assert model.decode(model.encode(rows[0])).shape == (12,)
    assert model.denoise(rows[:5]).shape == (5, 12)
    assert model.score(rows[:5]).shape == (5,)
    assert np.ndim(model.score(rows[0])) == 0
    assert model.residual(rows[:5]).shape == (5, 12)
    for result in (model.encode(rows), model.denoise(rows), model.score(rows)):
        assert result.dtype == np.float32


def test_denoise_is_decode_of_encode_and_score_its_error(model, rows):
    clean = model.denoise(rows)
    np.testing.assert_allclose(clean, model.decode(model.encode(rows)), **CLOSE)
    residual = (rows - clean) / model.manifest.score.scale
    np.testing.assert_allclose(model.residual(rows), residual, **CLOSE)
    np.testing.assert_allclose(model.score(rows), (residual**2).mean(axis=1), rtol=1e-4)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_any_split_into_batches_gives_the_same_latents(model, rows, cuts):
    edges = sorted({0, 3000, *cuts})
    parts = [model.encode(rows[a:b]) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(parts), model.encode(rows), **CLOSE)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 40), single=st.booleans())
def test_decode_of_encode_keeps_the_shape(model, pixels, n, single):
    for loaded, shape in ((model, (12,)), (pixels, (1, 4, 4))):
        x = np.ones((n, *shape), loaded.input.dtype)
        x = x[0] if single else x
        assert loaded.decode(loaded.encode(x)).shape == x.shape


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(rows, threads):
    with aeedge.load(DATA / "bundle_v1", threads=threads) as model, aeedge.load(DATA / "bundle_v1", threads=1) as one:
        for what in ("encode", "denoise", "score"):
            np.testing.assert_array_equal(getattr(model, what)(rows), getattr(one, what)(rows))


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.concatenate([x, x], axis=1)[:, :12],
        lambda x: x.tolist(),
        lambda x: x[::-1][::-1],
    ],
    ids=["float64", "big-endian", "fortran", "strided rows", "strided columns", "lists", "reversed twice"],
)
def test_every_layout_gives_the_same_bits(model, rows, convert):
    x = rows[:700]
    np.testing.assert_array_equal(model.encode(convert(x)), model.encode(x))


def test_integers_are_taken_as_numbers(model, rows):
    whole = np.rint(rows[:9]).astype(np.int64)
    np.testing.assert_array_equal(model.encode(whole), model.encode(whole.astype(np.float32)))


def test_the_input_is_never_changed(model, rows):
    x = rows.copy()
    x[5, 5] = np.nan
    before = x.copy()
    model.encode(x, invalid="propagate")
    np.testing.assert_array_equal(x, before)


def test_results_are_fresh(model, rows):
    first = model.encode(rows[:1])
    kept = first.copy()
    model.encode(rows[1:2])
    np.testing.assert_array_equal(first, kept)


def test_out_is_written_and_returned(model, rows):
    out = np.full((3000, 3), np.nan, np.float32)
    assert model.encode(rows, out=out) is out
    np.testing.assert_array_equal(out, model.encode(rows))
    wide = np.zeros((3000, 6), np.float32)
    model.encode(rows, out=wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], out)
    one = np.zeros(3, np.float32)
    model.encode(rows[0], out=one)
    np.testing.assert_array_equal(one, model.encode(rows[0]))


def test_out_may_overlap_the_input(model, rows):
    x = rows.copy()
    expected = model.denoise(rows)
    model.denoise(x, out=x)
    np.testing.assert_array_equal(x, expected)
    x = rows.copy()
    np.testing.assert_array_equal(model.encode(x, out=x[:, :3]), model.encode(rows))


@pytest.mark.parametrize(
    "out", [np.zeros((4, 3)), np.zeros((5, 3), np.float32), [1], np.zeros((4, 3, 1), np.float32)], ids=str
)
def test_an_out_that_does_not_fit(model, rows, out):
    with pytest.raises(aeedge.InputError, match=r"out: expected a .*float32 array of shape \(4, 3\), got"):
        model.encode(rows[:4], out=out)


def test_a_read_only_out(model, rows):
    out = np.zeros((4, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(aeedge.InputError, match="got read-only float32"):
        model.encode(rows[:4], out=out)


@pytest.mark.parametrize("shape", [(3, 11), (11,), (12, 1), (2, 3, 12), ()])
def test_a_wrong_shape(model, shape):
    with pytest.raises(aeedge.InputError, match=r"encode: expected an array of shape \(n, 12\) or \(12,\), got"):
        model.encode(np.ones(shape))


def test_an_empty_array(model):
    with pytest.raises(aeedge.InputError, match="expected at least one row"):
        model.encode(np.ones((0, 12)))


@pytest.mark.parametrize(
    "x", [np.array([["a"] * 12]), np.ones((2, 12), complex), np.array([[None] * 12]), [[1] * 12, [2]], "abc"], ids=str
)
def test_what_is_not_numbers(model, x):
    with pytest.raises(aeedge.InputError, match=r"encode: expected"):
        model.encode(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0), (700, 3), (2999, 11)])
def test_the_first_value_that_is_not_finite_is_named(model, rows, bad, where):
    x = rows.copy()
    x[where] = bad
    x[2999, 11] = bad
    row, column = where
    with pytest.raises(aeedge.InputError, match=rf"got {bad} in row {row}, column {column} \('s{column}'\)"):
        model.encode(x)


def test_a_float64_that_does_not_fit_float32(model, rows):
    x = rows[:5].astype(np.float64)
    x[3, 2] = 1e300
    with pytest.raises(aeedge.InputError, match=r"got 1e\+300 in row 3, column 2"):
        model.encode(x)


def test_large_finite_values_are_not_taken_for_infinity(model):
    assert model.encode(np.full((40, 12), 3e38, np.float32)).shape == (40, 3)


@pytest.mark.parametrize("what", ["encode", "denoise", "score"])
def test_propagate_gives_nan_for_bad_rows_and_leaves_the_others_exact(model, rows, what):
    x = rows.copy()
    x[[3, 1500, 2999], [0, 5, 11]] = np.nan, np.inf, -np.inf
    got = getattr(model, what)(x, invalid="propagate")
    expected = getattr(model, what)(rows)
    bad = np.zeros(3000, bool)
    bad[[3, 1500, 2999]] = True
    assert np.isnan(got[bad]).all()
    np.testing.assert_array_equal(got[~bad], expected[~bad])


def test_an_unknown_way_of_handling_nan(model, rows):
    with pytest.raises(aeedge.InputError, match="invalid: expected 'raise' or 'propagate', got 'ignore'"):
        model.encode(rows, invalid="ignore")


def test_integer_models_take_raw_integers(pixels):
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4))
    np.testing.assert_array_equal(pixels.encode(images), pixels.encode(images.astype(np.uint8)))
    with pytest.raises(aeedge.InputError, match=r"encode: expected uint8 .*, got float64; pass the raw values"):
        pixels.encode(images / 255)
    images[7, 0, 1, 2] = 256
    with pytest.raises(
        aeedge.InputError, match=r"expected values from 0 to 255 .*, got 256 in row 7, position \(0, 1, 2\)"
    ):
        pixels.encode(images)


def test_encode_iter_is_ordered_and_counts_rows_over_all_batches(model, rows):
    batches = [rows[:10], rows[10:500], rows[500:]]
    np.testing.assert_allclose(np.concatenate(list(model.encode_iter(iter(batches)))), model.encode(rows), **CLOSE)
    bad = rows[500:].copy()
    bad[4, 2] = np.nan
    with pytest.raises(aeedge.InputError, match="row 504, column 2"):
        list(model.encode_iter([rows[:500], bad]))


def test_encode_iter_reads_one_batch_ahead_and_no_more(model, rows):
    taken = []

    def batches():
        for start in range(0, 3000, 300):
            taken.append(start)
            yield rows[start : start + 300]

    iterator = model.encode_iter(batches())
    assert taken == []
    for delivered in range(1, 5):
        next(iterator)
        time.sleep(0.05)  # a reader without bounds would run away now
        assert delivered <= len(taken) <= delivered + 2  # one waits in between, one is held by the reader
    iterator.close()


def test_encode_iter_reads_while_it_encodes(model, rows):
    """Reading and using take 0.1 s each; one after the other that would be 1 s."""

    def slowly():
        for start in range(0, 500, 100):
            time.sleep(0.1)
            yield rows[start : start + 100]

    began = time.perf_counter()
    for _ in model.encode_iter(slowly()):
        time.sleep(0.1)
    assert time.perf_counter() - began < 0.9


def test_encode_iter_may_be_given_the_same_array_again_and_again(model, rows):
    def refilled():
        buffer = np.empty((100, 12), np.float32)
        for start in range(0, 3000, 100):
            buffer[:] = rows[start : start + 100]
            yield buffer

    found = np.concatenate(list(model.encode_iter(refilled())))
    np.testing.assert_allclose(found, model.encode(rows), **CLOSE)


def test_what_an_iterable_raises_comes_in_its_turn(model, rows):
    def failing():
        yield rows[:10]
        yield rows[10:20]
        raise OSError("the disk is gone")

    results = model.encode_iter(failing())
    assert [len(next(results)), len(next(results))] == [10, 10]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_an_abandoned_iteration_ends_its_thread(model, rows):
    results = model.encode_iter(itertools.repeat(rows[:10]))
    next(results)
    results.close()
    for _ in range(50):
        if not any(thread.name == "aeedge-reader" for thread in threading.enumerate()):
            return
        time.sleep(0.1)
    pytest.fail("the reader still runs")


def test_a_bundle_without_decoder_encodes_and_says_what_it_lacks():
    model = aeedge.load(DATA / "bundle_v1_encoder")
    assert model.encode(np.ones((2, 4))).shape == (2, 1)
    with pytest.raises(aeedge.IncompatibleBundleError, match="needs a decoder"):
        model.denoise(np.ones((2, 4)))
    assert [d.what for d in model.self_check()] == ["latent"]


def test_many_threads_on_one_model_get_the_single_threaded_results(model, rows):
    expected = model.encode(rows)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            start = int(rng.integers(0, 2900))
            stop = start + int(rng.integers(1, 100))
            if not np.allclose(model.encode(rows[start:stop]), expected[start:stop], **CLOSE):
                wrong.append((start, stop))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_closed_model_refuses(bundle, rows):
    with aeedge.load(bundle, threads=2) as model:
        model.encode(rows)
    model.close()
    with pytest.raises(aeedge.AeedgeError, match="was closed; load it again"):
        model.encode(rows)


def test_pickling_reopens_the_bundle(bundle, rows):
    model = aeedge.load(bundle, threads=1)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.encode(rows), model.encode(rows))
    assert again.threads == 1


def test_pickling_notices_a_replaced_bundle(bundle):
    import shutil

    data = pickle.dumps(aeedge.load(bundle))
    shutil.rmtree(bundle)
    shutil.copytree(DATA / "bundle_v1_uint8", bundle)
    with pytest.raises(aeedge.IncompatibleBundleError, match="was replaced since"):
        pickle.loads(data)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_in_use_survives_fork(model, rows):
    expected = model.encode(rows)  # the pool's threads exist before the fork
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.encode(rows), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(model.encode(rows), expected)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_model_travels_to_other_processes(model, rows, method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        got = pool.submit(model.encode, rows).result(timeout=60)
    np.testing.assert_array_equal(got, model.encode(rows))


def test_repr_says_what_it_is(model):
    assert "'bundle_v1' (dense, fp32): float32 (12,) -> 3 latents, 2 threads" in repr(model)
