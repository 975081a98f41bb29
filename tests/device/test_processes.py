"""A model among processes: forked, handed over, copied, closed, and at the end of its process."""

import copy
import itertools
import pickle
import shutil

import numpy as np
import pytest
from helpers import reference
from helpers.children import BUNDLE, BUNDLES, DATA, child

import aeedge
import aeedge.system.limits

pytestmark = pytest.mark.usefixtures("truth")


# Fork


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("used", [(), (1,), (64, 256), (20_000,)], ids=["nothing", "one row", "some rows", "many rows"])
def test_a_forked_child_is_right_whatever_was_done_before(name, used):
    out, _ = child(
        f"""
        model = aeedge.load(bundle, threads=2)
        used = right(model, {used}) if {used} else True
        codes = [
            forked(lambda: right(model)),
            forked(lambda: right(model), sys.exit),
            forked(lambda: True),
            forked(lambda: True, sys.exit),
            forked(lambda: right(model, (1, 256)) and forked(lambda: right(model), sys.exit) == 0, sys.exit),
            forked(lambda: forked(lambda: right(model)) == 0),  # its parent did nothing
        ]
        print(used, codes, right(model))
        """,
        DATA / name,
    )
    assert out == "True [0, 0, 0, 0, 0, 0] True"


@pytest.mark.parametrize(
    ("name", "count"), [("bundle_v1", 1), ("bundle_v1", 256), ("bundle_v1", 20_000), ("bundle_v1_int8", 256)]
)
def test_a_child_forked_while_another_thread_encodes_is_right(name, count):
    out, _ = child(
        f"""
        model = aeedge.load(bundle, threads=2)
        rows, stop, calls = rows_of(model, {count}), threading.Event(), []

        def work():
            while not stop.is_set():
                model.encode(rows)
                calls.append(1)

        worker = threading.Thread(target=work)
        worker.start()
        soon(lambda: calls)
        # A lock that is held by chance: few rows, but many forks.
        codes = [forked(lambda: right(model, (1, 64))) for _ in range(25)]
        codes += [forked(lambda: right(model, (256, 5000)), leave) for leave in (os._exit, sys.exit) for _ in range(3)]
        stop.set()
        worker.join()
        print(set(codes), right(model))
        """,
        DATA / name,
    )
    assert out == "{0} True"


@pytest.mark.parametrize("opens", ["model.denoise(rows)", "model.encode(many)"], ids=["a graph", "the pool"])
def test_a_child_forked_while_another_thread_opens_a_session_is_right(opens):
    """The lock that the other thread held is never released in the child."""
    out, _ = child(
        f"""
        import signal
        import aeedge.loading
        from aeedge.runtime import session
        aeedge.loading.allowed_cpus = lambda: range(4)  # there is a pool, also on one CPU
        model = aeedge.load(bundle, threads=2)
        rows, many = rows_of(model, 1), rows_of(model, 4096)
        opened, begun, go_on = session.Session.__init__, threading.Event(), threading.Event()

        def slowly(*args, **named):
            begun.set()
            go_on.wait()
            opened(*args, **named)

        def in_child():
            signal.alarm(60)  # ends a child that waits for ever
            session.Session.__init__ = opened
            return right(model, (1, 256)) and model.denoise(rows).shape == (1, 12)

        session.Session.__init__ = slowly
        thread = threading.Thread(target=lambda: {opens})
        thread.start()
        waited = begun.wait(60)
        codes = [forked(in_child), forked(in_child, sys.exit)]
        go_on.set()
        thread.join()
        session.Session.__init__ = opened
        print(waited, codes, right(model))
        """
    )
    assert out == "True [0, 0] True"


def test_a_forked_child_closes_and_collects_its_model():
    out, _ = child(
        """
        model = aeedge.load(bundle, threads=2)
        right(model)

        def closed():
            model.close()
            return True

        def collected():
            global model
            del model
            import gc
            gc.collect()
            again = aeedge.load(bundle, threads=2)
            return right(again)

        print([forked(work, leave) for work in (closed, collected) for leave in (os._exit, sys.exit)], right(model))
        """
    )
    assert out == "[0, 0, 0, 0] True"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("name", BUNDLES)
def test_a_model_travels_to_other_processes(name, method):
    out, _ = child(
        f"""
        import multiprocessing
        context = multiprocessing.get_context({method!r})
        model = aeedge.load(bundle, threads=2)
        here = right(model)
        ours, theirs = context.Pipe()
        process = context.Process(target=reference.answer, args=(model, theirs))
        process.start()
        theirs.close()
        there = ours.recv()
        process.join()
        rows = rows_of(model)
        with context.Pool(2) as pool:
            parts = pool.map(model.encode, np.array_split(rows, 6))
        print(here, there, process.exitcode, same(model, "encode", np.concatenate(parts), model.encode(rows)))
        """,
        DATA / name,
    )
    assert out == "True True 0 True"


# Copies


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", BUNDLES)
def test_pickling_reopens_the_bundle(name, protocol):
    with (
        aeedge.load(DATA / name, threads=3) as model,
        pickle.loads(pickle.dumps(model, protocol)) as again,
    ):
        assert reference.right(again, (1, 3000))
        assert (again.threads, again.variant, again.manifest.id) == (3, model.variant, model.manifest.id)


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_lives_without_the_original(name, duplicate):
    model = aeedge.load(DATA / name, threads=2)
    assert reference.right(model)
    with duplicate(model) as twin:
        model.close()
        assert reference.right(twin)


def test_pickling_keeps_the_variant_that_was_asked_for():
    with aeedge.load(DATA / "bundle_v1_int8", variant="fp32") as model, pickle.loads(pickle.dumps(model)) as again:
        assert again.variant == "fp32"


def test_pickling_notices_a_replaced_bundle(bundle):
    data = pickle.dumps(aeedge.load(bundle))
    shutil.rmtree(bundle)
    shutil.copytree(DATA / "bundle_v1_uint8", bundle)
    with pytest.raises(aeedge.IncompatibleBundleError, match="was replaced since"):
        pickle.loads(data)


# The end of a model and of a process


def test_a_closed_model_refuses_everything_in_one_sentence():
    rows = np.ones((2, 12), np.float32)
    with aeedge.load(BUNDLE, threads=2) as model:
        latents = model.encode(rows)
        model.encode(np.ones((5000, 12)))
    model.close()
    calls = [lambda: model.decode(latents), lambda: list(model.encode_iter([rows])), model.self_check]
    calls += [lambda what=what: getattr(model, what)(rows) for what in ("encode", "denoise", "score", "residual")]
    calls += [lambda what=what: list(model.map_iter(what, [rows])) for what in ("encode", "denoise", "score")]
    for call in calls:
        with pytest.raises(aeedge.AeedgeError, match=r"bundle_v1: the model was closed; load it again$"):
            call()
    model.close()
    assert model.manifest.name in repr(model)


def test_closing_ends_an_iterator_that_has_begun():
    with aeedge.load(BUNDLE, threads=2) as model:
        iterator = model.encode_iter(itertools.repeat(np.ones((5000, 12))))
        next(iterator)
    with pytest.raises(aeedge.AeedgeError, match="was closed"):
        next(iterator)


def test_an_error_inside_with_is_not_hidden_and_the_model_is_closed():
    with pytest.raises(KeyError, match="mine"), aeedge.load(BUNDLE) as model:
        raise KeyError("mine")
    with pytest.raises(aeedge.AeedgeError, match="was closed"):
        model.encode(np.ones(12))


@pytest.mark.parametrize("end", ["model.close()", "", "next(model.encode_iter([rows_of(model)] * 3))"])
@pytest.mark.parametrize("name", BUNDLES)
def test_no_thread_outlives_its_model(name, end):
    out, _ = child(
        f"""
        import gc, weakref
        model = aeedge.load(bundle, threads=3)  # the first may start what lives as long as the process
        right(model)
        model.close()
        soon(lambda: threading.active_count() == 1)
        before = tasks()
        fine = True
        for _ in range(5):
            model = aeedge.load(bundle, threads=3)
            fine = fine and right(model)
            {end}
            gone = weakref.ref(model)
            del model
            gc.collect()
            fine = fine and gone() is None
        print(fine, soon(lambda: threading.active_count() == 1), soon(lambda: tasks() <= before))
        """,
        DATA / name,
    )
    assert out == "True True True"


ENDS = {
    "threads exist": "right(model)",
    "sys.exit": "right(model); sys.exit()",
    "another thread waits": "right(model); threading.Thread(target=time.sleep, args=(0.2,)).start()",
    "a thread encodes on": "threading.Thread(target=lambda: [model.encode(rows) for _ in range(200)]).start()",
    "a daemon encodes one row": "daemon(rows[0])",
    "a daemon encodes some rows": "daemon(rows[:256])",
    "a daemon encodes many rows": "daemon(rows)",
    "an iterator is half done": "begun = model.encode_iter([rows] * 9); next(begun)",
    "atexit closes": "import atexit; right(model); atexit.register(model.close)",
    "a cycle holds it": "right(model); model_and_itself = [model]; model_and_itself.append(model_and_itself)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_process_ends_in_silence_without_close(end):
    out, err = child(
        f"""
        model = aeedge.load(bundle, threads=2)
        rows = rows_of(model)

        def daemon(x):
            def work():
                while True:
                    model.encode(x)
            threading.Thread(target=work, daemon=True).start()
            time.sleep(0.1)

        {end}
        """
    )
    assert (out, err) == ("", "")


@pytest.mark.parametrize("used", [(), (1,), (20_000,)], ids=["nothing", "one row", "many rows"])
def test_a_model_still_works_in_atexit(used):
    out, err = child(
        f"""
        import atexit
        model = aeedge.load(bundle, threads=2)
        {used} and right(model, {used})
        atexit.register(lambda: print(right(model)))
        """
    )
    assert (out, err) == ("True", "")
