"""Where onnxruntime is missing, half removed, too old for numpy, noisy, out of memory or fails at a graph."""

import os
import shutil
import sys
import textwrap
import threading

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from helpers import onnx_bytes, reference
from helpers.children import BUNDLE, child, in_namespace

import aeedge
from aeedge.cli.group import AeedgeGroup
from aeedge.runtime import session
from aeedge.runtime.methods import Method
from aeedge.runtime.session import Session

LOAD = """
    try:
        aeedge.load(bundle)
    except aeedge.IncompatibleBundleError as error:
        print(error)
"""


def load_with(tmp_path, source=None):
    """What loading says where a folder named onnxruntime comes before the installed one."""
    package = tmp_path / "first" / "onnxruntime"
    package.mkdir(parents=True)
    if source is not None:
        (package / "__init__.py").write_text(textwrap.dedent(source))
    first = f"import sys\nsys.path.insert(0, {str(package.parent)!r})\n"
    if source is None:  # a folder is found last of all
        first += "import os, numpy, aeedge\nfile = '/onnxruntime/__init__.py'\n"
        first += "sys.path[:] = [path for path in sys.path if not os.path.isfile(path + file)]\n"
    return child(LOAD, first=first)[0]


@pytest.mark.parametrize("source", [None, "", "__version__ = '1.32.0'"], ids=["folder", "empty", "version"])
def test_a_half_removed_onnxruntime_is_one_sentence(tmp_path, source):
    message = load_with(tmp_path, source)
    assert message.startswith("onnxruntime is installed in part only")
    assert message.endswith("pip install --force-reinstall onnxruntime")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import no_such_module", "it cannot be imported (No module named 'no_such_module')"),
        ("raise ImportError('DLL load failed while importing onnxruntime_pybind11_state')", "(DLL load failed while"),
        ("import numpy; numpy.no_such_thing", "no attribute 'no_such_thing'"),
        ("raise ModuleNotFoundError(name='onnxruntime')", "is not installed; install it with: pip install onnxruntime"),
    ],
)
def test_an_onnxruntime_that_cannot_be_imported_is_one_sentence(tmp_path, source, expected):
    message = load_with(tmp_path, source)
    assert message.startswith("expected the package onnxruntime, but it ")
    assert expected in message


@pytest.mark.skipif(np.__version__ < "2", reason="of numpy 2")
@pytest.mark.parametrize("version", ["1.12.1", "1.18.1"])
def test_an_onnxruntime_that_numpy_2_would_crash_is_not_imported(tmp_path, version):
    source = f'''
        # a long introduction
        __version__ = "{version}"
        import os
        os.abort()
        '''
    message = load_with(tmp_path, source)
    assert message.startswith(f"onnxruntime {version} is built for numpy 1 and would crash with numpy 2")
    assert message.endswith("pip install 'onnxruntime>=1.19', or go back with: pip install 'numpy<2'")


# What it writes while it is imported


def test_warnings_of_display_adapters_are_kept_back_and_nothing_else(monkeypatch, capfd, tmp_path):
    (tmp_path / "card0" / "device").mkdir(parents=True)
    monkeypatch.setattr(session, "_ADAPTERS", str(tmp_path))

    def import_it():
        with session._without_noise():
            os.write(2, b"before\n[W:onnxruntime:Default, device_discovery.cc:164] discovery failed\nafter\n")

    import_it()
    assert capfd.readouterr().err == "before\nafter\n"
    (tmp_path / "card0" / "device" / "vendor").write_text("0x10de")
    import_it()
    assert "discovery failed" in capfd.readouterr().err


def test_an_import_that_fails_says_so_in_spite_of_that(monkeypatch, capfd, tmp_path):
    (tmp_path / "card1" / "device").mkdir(parents=True)
    monkeypatch.setattr(session, "_ADAPTERS", str(tmp_path))

    def import_it():
        with session._without_noise():
            os.write(2, b"the reason\n")
            raise ImportError

    with pytest.raises(ImportError):
        import_it()
    os.write(2, b"more\n")
    assert capfd.readouterr().err == "the reason\nmore\n"


def test_loading_is_silent_on_a_machine_with_an_adapter_without_vendor():
    mounts = (
        "mount -t tmpfs none /sys; mkdir -p /sys/class/drm/card1/device /sys/devices/system/cpu; "
        "echo 0-1 > /sys/devices/system/cpu/online"
    )
    out, err = child("print(aeedge.load(bundle).encode(np.ones(12)).shape)", wrap=in_namespace(mounts))
    assert (out, err) == ("(3,)", "")


# Graphs at which it fails


def graph_of(*nodes, wide=2):
    """A graph from rows (n, 4) to rows (n, wide) of these nodes: operator, inputs, outputs, integer attributes."""
    made = b""
    for kind, inputs, outputs, attributes in nodes:
        body = b"".join(onnx_bytes.message(1, name) for name in inputs)
        body += b"".join(onnx_bytes.message(2, name) for name in outputs) + onnx_bytes.message(4, kind)
        for name, value in attributes.items():
            entry = onnx_bytes.message(1, name) + onnx_bytes.number(3, value) + onnx_bytes.number(20, 2)
            body += onnx_bytes.message(5, entry)
        made += onnx_bytes.message(1, body)
    held = b"".join(
        onnx_bytes.message(5, onnx_bytes.tensor(name, values))
        for name, values in {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}.items()
    )
    for name, values in {"start": [0, 0], "stop": [1, 2], "flat": [-1]}.items():
        data = np.array(values, np.int64).tobytes()
        kind = onnx_bytes.number(1, len(values)) + onnx_bytes.number(2, 7)
        held += onnx_bytes.message(5, kind + onnx_bytes.message(8, name) + onnx_bytes.message(9, data))
    ends = onnx_bytes.message(11, onnx_bytes.rows("x", 4)) + onnx_bytes.message(12, onnx_bytes.rows("y", wide))
    return onnx_bytes.model(made + onnx_bytes.message(2, "g") + held + ends)


DENSE = ("Gemm", ["x", "w", "b"], ["t"], {})
AS_TOLD = [  # the first two values of the input are the shape of the output
    ("Slice", ["x", "start", "stop"], ["u"], {}),
    ("Reshape", ["u", "flat"], ["v"], {}),
    ("Cast", ["v"], ["s"], {"to": 7}),
    ("Reshape", ["t", "s"], ["y"], {}),
]
ODD_SHAPES = {
    "two rows for each": (graph_of(DENSE, ("Concat", ["t", "t"], ["y"], {"axis": 0})), None),
    "two rows for one": (graph_of(DENSE, *AS_TOLD), lambda n: (2 * n, 1)),
    "one long row": (graph_of(DENSE, *AS_TOLD), lambda n: (1, 2 * n) if n > 1 else (2, 1)),
}


@pytest.fixture
def twice():
    """A method that gives two rows for each."""
    return opened(ODD_SHAPES["two rows for each"][0])


def opened(graph):
    session = Session(graph, "bundle/encoder.onnx", "float32", (4,), (2,))
    return Method("encode", (session,), (4,), "float32", (2,))


@pytest.mark.parametrize("count", [1, 3, 16, 17, 5000])
@pytest.mark.parametrize(("graph", "told"), ODD_SHAPES.values(), ids=ODD_SHAPES.keys())
def test_results_of_another_shape_are_refused_however_they_are_computed(graph, told, count):
    method = opened(graph)
    rows, out = np.ones((count, 4), np.float32), np.full((count, 2), 7, np.float32)
    rows[0, :2] = 1 if told is None else told(count)
    calls = [lambda: method.run(rows), lambda: method.run_into(rows, out)]
    calls += [lambda: method.arrays.run(rows, None)] if count <= 16 else []
    for call in calls:
        with pytest.raises(aeedge.BundleError, match=r"^bundle/encoder\.onnx: .*(shape|run it)"):
            call()
    assert not method.arrays.busy


def test_both_graphs_of_a_call_are_named_where_one_fails(twice):
    stages = (Session(graph_of(("Identity", ["x"], ["y"], {}), wide=4), "good", "float32", (4,), (4,)),)
    method = Method("denoise", stages + twice.stages, (4,), "float32", (2,))
    rows = np.ones((1, 4), np.float32)
    with pytest.raises(aeedge.BundleError, match=r"^good or bundle/encoder\.onnx: onnxruntime .* cannot run it \("):
        method.arrays.run(rows, None)
    with pytest.raises(aeedge.BundleError, match=r"^bundle/encoder\.onnx: expected its output for 1 samples"):
        method.run(rows)


class Fails:
    """A session of onnxruntime whose runs fail."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *_):
        raise self.error


LITTLE = "there is too little memory to run it"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Status Message: it broke"), aeedge.BundleError, "(it broke)"),
        (RuntimeError("/src/a.cc:12 void f(int) it broke."), aeedge.BundleError, "(it broke)"),
        (ValueError("odd"), aeedge.BundleError, "(odd)"),
        (RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer"), MemoryError, LITTLE),
        (RuntimeError("std::bad_alloc"), MemoryError, LITTLE),
        (MemoryError("std::bad_alloc"), MemoryError, LITTLE),
    ],
)
@pytest.mark.parametrize("count", [1, 20, 5000])
def test_an_error_of_onnxruntime_is_typed(monkeypatch, error, kind, message, count):
    monkeypatch.setitem(globals(), "__name__", "onnxruntime.capi.test")  # raised where onnxruntime's are
    with aeedge.load(BUNDLE, threads=1) as model:
        calls = failing(model, monkeypatch, error, count)
        for call in calls:
            with pytest.raises(kind) as caught:
                call()
            assert type(caught.value) is kind
            assert message in str(caught.value)
            assert str(caught.value).startswith(str(BUNDLE))
            assert "\n" not in str(caught.value)
        assert not model._dispatcher._sessions.is_busy()


class MineError(RuntimeError):
    pass


@pytest.mark.parametrize("kind", [TimeoutError, MineError, RuntimeError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("count", [1, 20, 5000])
def test_an_error_of_a_signal_handler_is_not(monkeypatch, kind, count):
    error = kind("mine")
    with aeedge.load(BUNDLE, threads=1) as model:
        calls = failing(model, monkeypatch, error, count)
        for call in calls:
            with pytest.raises(kind) as caught:
                call()
            assert caught.value is error


def failing(model, monkeypatch, error, count):
    """Calls of a model whose runs raise an error, from this module."""
    rows, slot = np.ones((count, 12), np.float32), model.bind(count)
    model.encode(rows)
    method = model._dispatcher._sessions.method("encode")
    for place in ("_run", "_run_bound"):
        monkeypatch.setattr(method.stages[0], place, Fails(error))
    for made in method.arrays.idle:
        made.clear()
    out = np.empty((count, model.latent_size), np.float32)
    return [lambda: model.encode(rows), lambda: model.encode(rows, out=out), lambda: slot.encode()]


# No threads


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_where_no_threads_can_be_started_one_does_it_all(truth):
    if shutil.which("setpriv") is None or shutil.which("prlimit") is None:
        pytest.skip("no setpriv(1) or prlimit(1) here")
    wrap = ["env", "OPENBLAS_NUM_THREADS=1", "prlimit", "--nproc=1"]
    if os.getuid() == 0:  # whom no limit binds
        may = "+dac_override,+dac_read_search"
        who = ["--reuid", "12347", "--regid", "12347", "--clear-groups", "--inh-caps", may, "--ambient-caps", may]
        wrap = ["setpriv", *who, *wrap]
    out, _ = child(
        """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = aeedge.load(bundle, threads=3)
            rows = rows_of(model)
            whole = sum(len(z) for z in model.encode_iter(iter([rows, rows])))
            fine = right(model)
        print(fine, whole, tasks(), {str(w.message).partition(",")[0] for w in caught})
        """,
        wrap=wrap,
    )
    assert out == "True 40000 1 {'no more threads can be started'}"


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_pool_of_which_some_threads_cannot_be_started_is_not_asked_for(monkeypatch, truth, four_cpus, left):
    """onnxruntime hangs there: it waits for those that it has."""
    real, started, opened = threading.Thread.start, [], []

    def start(thread):
        if len(started) >= left:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    options = session._options
    monkeypatch.setattr(session, "_options", lambda *given: opened.append(given) or options(*given))
    with aeedge.load(BUNDLE, threads=4) as model:
        monkeypatch.setattr(threading.Thread, "start", start)
        model._dispatcher.set_policy(model._dispatcher.policy, {"encode": 1.0})
        with pytest.warns(UserWarning, match="no more threads can be started"):
            assert reference.right(model, (1, 300))
        assert {threads for _, threads in opened} == {1}


def test_a_pool_whose_threads_are_refused_after_all_is_done_without(monkeypatch, truth, four_cpus):
    """Another process took them between the trial and the pool."""
    real, refused = onnxruntime.InferenceSession, []

    def refusing(graph, options, **more):
        if options.intra_op_num_threads > 1:
            refused.append(options)
            raise RuntimeError("env.cc:327 onnxruntime::PosixThread(const char*) pthread_create failed, error code: 11")
        return real(graph, options, **more)

    monkeypatch.setitem(globals(), "__name__", "onnxruntime.capi.test")  # raised where onnxruntime's are
    monkeypatch.setattr(onnxruntime, "InferenceSession", refusing)
    with aeedge.load(BUNDLE, threads=2) as model:
        model._dispatcher.set_policy(model._dispatcher.policy, {"encode": 1.0})
        with pytest.warns(UserWarning, match="no more threads can be started"):
            assert reference.right(model, (1, 300))
    assert refused


@pytest.mark.parametrize("text", ["", "PATH: there is too little memory to load it; free some"])
def test_too_little_memory_is_one_sentence_of_the_command(monkeypatch, text):
    def fails(*args):
        raise MemoryError(text)

    monkeypatch.setattr(Session, "_open", fails)
    done = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(BUNDLE)])
    assert done.exit_code == 2
    assert done.stderr == f"Error: {text or 'there is too little memory; free some'}\n"
