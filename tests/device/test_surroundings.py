"""A model among processes, threads and signals, and where the machine around it is broken.

What may hang or crash runs in a process of its own; `witness.right` says there whether results are what they should be.
"""

import copy
import gc
import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import pytest
import witness

import aeedge
import aeedge.machine

DATA = Path(__file__).parent.parent / "data"
BUNDLE = DATA / "bundle_v1"
BUNDLES = ["bundle_v1", "bundle_v1_int8"]
TIMEOUT = 90  # seconds; a child takes a few, more where the machine is busy

PRELUDE = """
import os, sys, threading, time
import numpy as np
import aeedge, witness
from witness import forked, right, rows_of, same

bundle = sys.argv[1]

def tasks():  # threads as the kernel counts them, also those that Python did not start
    return len(os.listdir("/proc/self/task"))

def soon(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
"""


@pytest.fixture(scope="module", autouse=True)
def truth(tmp_path_factory):
    """Latents by one thread, all rows at once, where every process finds them."""
    folder = tmp_path_factory.mktemp("truth")
    for name in BUNDLES:
        with aeedge.load(DATA / name, threads=1) as model:
            witness.record(model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(witness.PLACE, str(folder))
        yield


def run(command, **options):
    """What a process prints, which must end with 0 and in time, and what it says on stderr."""
    places = [str(Path(aeedge.__file__).parent.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    env = {
        **options.pop("env", os.environ),
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONFAULTHANDLER": "1",
    }
    pipe = subprocess.PIPE
    # A session of its own: what it forked is ended with it.
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True, **options
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # each process says where it hangs
            out, err = process.communicate()
            pytest.fail(f"hangs\n{out}{err}")
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}{err}"
    return out.strip(), err


def child(code, bundle=BUNDLE, *, first="", wrap=(), **options):
    """What a fresh Python prints that runs `first`, the prelude and `code`."""
    script = first + PRELUDE + textwrap.dedent(code)
    return run([*wrap, sys.executable, "-c", script, str(bundle)], **options)


def in_namespace(mounts):
    """How to run a command where `mounts` were done: root's or a user's own file systems, which vanish with it."""
    wrap = ["unshare", "-rm", "sh", "-ec", mounts + '\nexec "$@"', "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    done = subprocess.run([*wrap, "true"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    return wrap


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
        codes = [forked(lambda: right(model, (1, 64))) for _ in range(50)]
        codes += [forked(lambda: right(model, (256, 5000)), leave) for leave in (os._exit, sys.exit) for _ in range(3)]
        stop.set()
        worker.join()
        print(set(codes), right(model))
        """,
        DATA / name,
    )
    assert out == "{0} True"


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
        process = context.Process(target=witness.answer, args=(model, theirs))
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
        assert witness.right(again, (1, 3000))
        assert (again.threads, again.variant, again.manifest.id) == (3, model.variant, model.manifest.id)


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_lives_without_the_original(name, duplicate):
    model = aeedge.load(DATA / name, threads=2)
    assert witness.right(model)
    with duplicate(model) as twin:
        model.close()
        assert witness.right(twin)


def test_pickling_keeps_the_variant_that_was_asked_for():
    with aeedge.load(DATA / "bundle_v1_int8", variant="fp32") as model, pickle.loads(pickle.dumps(model)) as again:
        assert again.variant == "fp32"


def test_pickling_notices_a_replaced_bundle(bundle):
    data = pickle.dumps(aeedge.load(bundle))
    shutil.rmtree(bundle)
    shutil.copytree(DATA / "bundle_v1_uint8", bundle)
    with pytest.raises(aeedge.IncompatibleBundleError, match="was replaced since"):
        pickle.loads(data)


# Results belong to the caller


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("what", ["encode", "denoise", "residual", "score"])
@pytest.mark.parametrize("count", [None, 1, 64, 300, 5000], ids=lambda n: "single" if n is None else str(n))
def test_results_are_never_written_again(name, what, count):
    with aeedge.load(DATA / name, threads=2) as model:
        rows, call = witness.rows_of(model, 5050), getattr(model, what)
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
        rows = witness.rows_of(model, 5000)
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
        rows = witness.rows_of(model, 5000)
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
            x = witness.rows_of(model, count)
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
        together, end = threading.Barrier(8), time.monotonic() + 1.5

        def work(seed):
            rng, wrong, calls = np.random.default_rng(seed), [], 0
            together.wait()
            while time.monotonic() < end:
                what, count = str(rng.choice(methods)), int(rng.choice(sizes))
                first = int(rng.integers(0, len(rows) - count))
                got = getattr(model, what)(rows[first : first + count])
                if not same(model, what, got, expected[what][first : first + count]):
                    wrong.append((what, first, count))
                calls += 1
            return wrong, calls

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(work, range(8)))
        print([w for wrong, _ in done for w in wrong], all(calls for _, calls in done))
        """,
        DATA / name,
    )
    assert out == "[] True"


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
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            fine = fine and right(model, (1, 64, 256, 1500, 1500, 1500, 3000))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(fine, all(answers), len(answers) > 20)
        """
    )
    assert out == "True True True"


def test_ctrl_c_during_encode_leaves_the_model_right():
    out, _ = child(
        """
        import signal
        model, caught = aeedge.load(bundle, threads=2), 0
        fine, rng = right(model), np.random.default_rng(0)

        def handler(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        rows = rows_of(model)
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 4e-3))
                for _ in range(30):  # an exception may get lost, in a destructor
                    model.encode(rows)
                time.sleep(0.01)
            except KeyboardInterrupt:
                caught += 1
            fine = fine and right(model, (1, 1500))
        print(fine, caught > 100, right(model))
        """
    )
    assert out == "True True True"


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


# A broken machine


def test_full_folder_for_temporary_files(tmp_path):
    wrap = in_namespace(f"mount -t tmpfs -o size=4k none {tmp_path}; head -c 4096 /dev/zero > {tmp_path}/full")
    code = """
        try:
            with open(os.environ["TMPDIR"] + "/more", "wb", buffering=0) as file:
                file.write(bytes(4096))
        except OSError as error:
            model = aeedge.load(bundle, threads=2)
            print(error.strerror, right(model), model.self_check()[0].ok)
    """
    assert child(code, wrap=wrap, env={**os.environ, "TMPDIR": str(tmp_path)})[0] == "No space left on device True True"


def test_no_folder_for_temporary_files(tmp_path):
    env = {**os.environ, "TMPDIR": str(tmp_path / "nowhere")}
    assert child("print(right(aeedge.load(bundle, threads=2)))", env=env)[0] == "True"


@pytest.mark.parametrize("name", BUNDLES)
def test_a_machine_that_can_only_be_read(tmp_path, name):
    wrap = in_namespace("mount -o remount,bind,ro /")
    code = """
        try:
            open("written", "w")
        except OSError as error:
            model = aeedge.load(bundle, threads=2)
            print(error.strerror, right(model), model.self_check()[0].ok)
    """
    bundle = shutil.copytree(DATA / name, tmp_path / name)
    assert child(code, bundle, wrap=wrap, cwd=tmp_path)[0] == "Read-only file system True True"


@pytest.mark.parametrize("home", ["unset", "nowhere", "empty", "file"])
def test_nothing_is_written_at_home_and_no_home_is_needed(tmp_path, home):
    own = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG_")}
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    if home != "unset":
        own.update(dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(tmp_path / home)))
    code = "model = aeedge.load(bundle, threads=2); print(right(model), model.self_check()[0].ok)"
    assert child(code, env=own, cwd=tmp_path / "empty")[0] == "True True"
    if home == "empty":
        run([sys.executable, "-m", "aeedge", "verify", str(BUNDLE)], env=own, cwd=tmp_path / "empty")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["empty", "file"]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *(("bundle_v1", places) for places in ("/sys", "/proc", "/dev/shm", "/sys /proc")),
        ("bundle_v1_int8", "/sys /proc"),
    ],
)
def test_hidden_folders_of_the_kernel(name, hidden):
    wrap = in_namespace(f"for place in {hidden}; do mount -t tmpfs -o ro none $place; done")
    code = f"""
        assert not any(map(os.listdir, {hidden.split()}))
        model = aeedge.load(bundle)
        print(model.threads >= 1, right(model, (1, 5000)), right(aeedge.load(bundle, threads=2), (1, 5000)))
    """
    assert child(code, DATA / name, wrap=wrap)[0] == "True True True"


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_neither_proc_nor_sys_can_be_read(monkeypatch, tmp_path, error):
    real = open

    def deny(path, *args, **options):
        if str(path).startswith(("/proc", "/sys")):
            raise error(path)
        return real(path, *args, **options)

    monkeypatch.setattr("builtins.open", deny)
    monkeypatch.setattr(aeedge.machine, "_CGROUP", str(tmp_path / "missing"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    with aeedge.load(BUNDLE) as model:
        assert model.threads == 1
        assert witness.right(model, (1, 5000))


def test_the_current_folder_was_deleted(tmp_path):
    code = """
        import pickle
        os.rmdir(os.getcwd())
        model = aeedge.load(bundle, threads=2)
        print(right(model), model.self_check()[0].ok, right(pickle.loads(pickle.dumps(model))))
    """
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    own = {**os.environ, "PYTHONSAFEPATH": "1"}  # Python 3.13.0 looks into the current folder and trips
    assert child(code, cwd=doomed, env=own)[0] == "True True True"
    assert not doomed.exists()


@pytest.mark.parametrize(
    "then", ["right(model)", "model.self_check()[0].ok", "right(pickle.loads(pickle.dumps(model)))"]
)
def test_a_relative_path_is_meant_from_where_it_was_given(then):
    code = f"""
        import pickle
        model = aeedge.load(bundle, threads=2)
        os.chdir("/")
        print({then})
    """
    assert child(code, "bundle_v1", cwd=DATA)[0] == "True"


def test_a_bundle_may_vanish_once_it_is_loaded(bundle):
    with aeedge.load(bundle, threads=2) as model:
        shutil.rmtree(bundle)
        assert witness.right(model) if model.manifest.name == "bundle_v1" else False
        assert model.score(np.ones((300, 12))).shape == (300,)


def test_loading_and_closing_leaks_no_file(tmp_path):
    half = shutil.copytree(BUNDLE, tmp_path / "half")
    (half / "decoder.onnx").unlink()
    out, _ = child(
        f"""
        def files():
            return len(os.listdir("/proc/self/fd"))

        def cycle(close):
            model = aeedge.load(bundle, threads=2, check="golden")
            model.encode(rows)
            if close:
                model.close()
            try:
                aeedge.load({str(half)!r})
            except aeedge.CorruptBundleError:
                return
            raise AssertionError

        rows = np.ones((5000, 12), np.float32)
        cycle(True)
        before = files()
        for i in range(200):
            cycle(i % 2)
        print(soon(lambda: files() <= before))
        """
    )
    assert out == "True"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    wrap = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    code = "model = aeedge.load(bundle, threads=2); open('answer', 'w').write(str(right(model)))"
    child(code, wrap=wrap, cwd=tmp_path)
    assert (tmp_path / "answer").read_text() == "True"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_the_command_with_closed_streams(tmp_path, closed):
    with aeedge.load(BUNDLE, threads=1) as model:
        rows = witness.rows_of(model, 3000)
        np.save(tmp_path / "rows.npy", rows)
        wrap = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "aeedge"]
        run([*wrap, "encode", str(BUNDLE), "rows.npy", "-o", "latents.npy"], cwd=tmp_path)
        assert witness.same(model, "encode", np.load(tmp_path / "latents.npy"), model.encode(rows))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_on_one_cpu_there_is_one_thread():
    first = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code = "before = tasks(); model = aeedge.load(bundle); print(model.threads, right(model), tasks() - before)"
    assert child(code, first=first)[0] == "1 True 0"
