"""Results belong to the caller, whatever other threads and signal handlers do with the model."""

import contextlib
import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from helpers import reference
from helpers.children import BUNDLE, BUNDLES, DATA, child

import aeedge
import aeedge.loading
import aeedge.system.limits
from aeedge.runtime.session import Session

pytestmark = pytest.mark.usefixtures("truth")


# Results belong to the caller


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("what", ["encode", "denoise", "residual", "score"])
@pytest.mark.parametrize("count", [None, 1, 64, 300, 5000], ids=lambda n: "single" if n is None else str(n))
def test_results_are_never_written_again(name, what, count):
    with aeedge.load(DATA / name, threads=2) as model:
        rows, call = reference.rows_of(model, 5050), getattr(model, what)
        picks = [rows[i] if count is None else rows[i : i + count] for i in range(50 if count != 5000 else 5)]
        results = [call(x) for x in picks]
        kept = [np.copy(r) for r in results]
        again = [call(x) for x in reversed(picks)][::-1]
        assert all(np.array_equal(r, k) for r, k in zip(results, kept))
        assert all(np.array_equal(a, k) for a, k in zip(again, kept))
        assert not any(np.may_share_memory(a, b) for a, b in itertools.combinations([*results, *again], 2))


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("count", [None, 1, 64, 5000], ids=lambda n: "single" if n is None else str(n))
def test_a_result_may_be_changed(name, count):
    with aeedge.load(DATA / name, threads=2) as model:
        rows = reference.rows_of(model, 5000)
        x = rows[0] if count is None else rows[:count]
        for call in (model.encode, model.denoise):
            first = call(x)
            kept = first.copy()
            assert first.flags.writeable
            first[...] = 7
            assert np.array_equal(call(x), kept)
            assert np.array_equal(x, rows[0] if count is None else rows[:count])


@pytest.mark.parametrize("count", [None, 1, 64, 5000], ids=lambda n: "single" if n is None else str(n))
def test_an_out_is_not_kept(count):
    with aeedge.load(BUNDLE, threads=2) as model:
        rows = reference.rows_of(model, 5000)
        x, other = (rows[0], rows[1]) if count is None else (rows[:count], rows[::-1][:count])
        out = np.empty_like(model.encode(x))
        model.encode(x, out=out)
        kept = out.copy()
        model.encode(other)
        model.encode(other, out=np.empty_like(out))
        assert np.array_equal(out, kept)
        gone = weakref.ref(out)
        del out
        gc.collect()
        assert gone() is None


def test_the_input_is_not_kept():
    with aeedge.load(BUNDLE, threads=2) as model:
        for count in (1, 64, 5000):
            x = reference.rows_of(model, count)
            model.encode(x)
            gone = weakref.ref(x)
            del x
            gc.collect()
            assert gone() is None


# Threads and signals


@pytest.mark.parametrize("name", BUNDLES)
def test_many_threads_on_one_model_get_the_single_threaded_results(name):
    out, _ = child(
        """
        from concurrent.futures import ThreadPoolExecutor
        methods, sizes = ("encode", "score", "denoise"), (1, 3, 64, 700, 5000)
        with aeedge.load(bundle, threads=1) as one:
            rows = rows_of(one, 6000)
            expected = {what: getattr(one, what)(rows) for what in methods}
        model = aeedge.load(bundle, threads=2)
        together = threading.Barrier(8)

        def work(seed):
            rng, wrong = np.random.default_rng(seed), []
            together.wait()
            for _ in range(120):
                what, count = str(rng.choice(methods)), int(rng.choice(sizes))
                first = int(rng.integers(0, len(rows) - count))
                got = getattr(model, what)(rows[first : first + count])
                if not same(model, what, got, expected[what][first : first + count]):
                    wrong.append((what, first, count))
            return wrong

        with ThreadPoolExecutor(8) as pool:
            print(list(pool.map(work, range(8))))
        """,
        DATA / name,
    )
    assert out == str([[]] * 8)


def test_many_threads_may_use_a_model_for_the_first_time_at_once():
    out, _ = child(
        """
        from concurrent.futures import ThreadPoolExecutor
        answers = []
        for count in (1, 64, 256, 20_000):
            with aeedge.load(bundle, threads=2) as model, ThreadPoolExecutor(8) as pool:
                together = threading.Barrier(8)
                answers += pool.map(lambda _: together.wait() >= 0 and right(model, (count,)), range(8))
        print(all(answers), len(answers))
        """
    )
    assert out == "True 32"


def test_a_model_closed_while_others_encode_answers_or_says_so():
    out, _ = child(
        """
        from concurrent.futures import ThreadPoolExecutor

        def work(model, count):
            answers = []
            try:
                while all(answers):
                    answers.append(right(model, (count,)))
            except aeedge.AeedgeError as error:
                return all(answers) and "was closed" in str(error)
            return False

        threads, answers = tasks(), []
        with ThreadPoolExecutor(4) as pool:
            for _ in range(40):
                model = aeedge.load(bundle, threads=3)
                working = [pool.submit(work, model, count) for count in (1, 256, 3000, 20_000)]
                time.sleep(0.01)
                model.close()
                answers += [w.result() for w in working]
        print(all(answers), soon(lambda: tasks() <= threads))
        """
    )
    assert out == "True True"


def test_sessions_that_are_opened_while_the_model_is_closed_are_let_go(monkeypatch, four_cpus):
    opened = []

    def opens_and_closes(*args):
        session = Session(*args)
        opened.append(weakref.ref(session))
        closing.start()
        closing.join()
        return session

    with aeedge.load(BUNDLE, threads=2) as model:
        rows = np.resize(model.golden_rows(), (300, *model.input.shape))
        closing = threading.Thread(target=model.close)
        dispatcher = model._dispatcher
        dispatcher.set_policy(dispatcher.policy, {"encode": 2.0})  # so long that it takes the pool
        monkeypatch.setattr(aeedge.loading, "Session", opens_and_closes)
        with contextlib.suppress(aeedge.AeedgeError):
            model.encode(rows)
        assert [session() for session in opened] == [None]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_handler_may_encode_while_encode_runs(threads):
    out, _ = child(
        f"""
        import signal
        model = aeedge.load(bundle, threads={threads})
        sizes, answers, rng = (1, 64, 256, 1500, 20_000), [], np.random.default_rng(0)

        def handler(*_):
            answers.append(right(model, (int(rng.choice(sizes)),)))
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 2e-3))

        fine = right(model)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        turns = 0
        while turns < 20 or len(answers) < 50:
            turns += 1
            fine = fine and right(model, (1, 64, 256, 1500, 1500, 1500, 3000))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(fine, all(answers))
        """
    )
    assert out == "True True"


def test_a_signal_handler_may_encode_while_sessions_are_opened():
    out, _ = child(
        """
        import signal
        right(aeedge.load(bundle))
        answers, rng, turns = [], np.random.default_rng(0), 0
        signal.signal(signal.SIGALRM, lambda *_: answers.append(right(model, (64, 20_000))))
        while turns < 100 or len(answers) < turns + 30:  # of the handler, beside those below
            turns += 1
            with aeedge.load(bundle, threads=2) as model:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 4e-3))
                answers.append(right(model, (64, 20_000)))
                signal.setitimer(signal.ITIMER_REAL, 0)
        print(all(answers))
        """
    )
    assert out == "True"


def test_ctrl_c_during_encode_leaves_the_model_right():
    out, _ = child(
        """
        import signal
        model, raising, turns, caught = aeedge.load(bundle, threads=2), False, 0, 0
        fine, rng = right(model), np.random.default_rng(0)

        def handler(*_):
            if raising:
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        rows = rows_of(model)
        while turns < 200 or caught < 100:
            try:
                turns, raising = turns + 1, True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 4e-3))
                for _ in range(30):  # an exception may get lost, in a destructor
                    model.encode(rows)
                time.sleep(0.01)
            except KeyboardInterrupt:
                caught += 1
            finally:
                raising = False
            fine = fine and right(model, (1, 1500))
        print(fine, right(model))
        """
    )
    assert out == "True True"
