"""The probe of onnxruntime: each way to die is reported in a sentence, and the command survives it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.complaints import messages

import aeedge
from aeedge.bundle.onnx_proto import inspect
from aeedge.cli.doctor import text
from aeedge.doctor import examine
from aeedge.system.ort_probe import GRAPH, failure, probe

DATA = Path(__file__).parents[1] / "data"

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put a package of this source before the true onnxruntime."""

    def write(source, name="onnxruntime"):
        folder = tmp_path / "fake" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder.parent

    return write


def test_the_tiny_graph_is_for_the_oldest_onnxruntime():
    import base64

    info = inspect(base64.b64decode(GRAPH))
    assert (info.ir_version, info.opsets) == (8, {"": 17})


def test_an_illegal_instruction_is_named_by_the_command(tmp_path, fake):
    """As a user meets it: the whole command, in a process of its own, where `import onnxruntime` kills."""
    path = fake("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    code = "import sys, aeedge.cli; sys.exit(aeedge.cli.command(sys.argv[1:]))"
    places = [str(path), str(Path(aeedge.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", str(DATA / "bundle_v1")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    )
    out = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert "no: SIGILL while it is imported" in out
    assert "uses an instruction that this processor (" in out
    assert "does not have; install a build made for it, or another version: pip install 'onnxruntime<" in out
    assert "not opened, because onnxruntime does not work" in out
    assert not list(tmp_path.glob("core*"))


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV", "crashed with an invalid memory access"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", "most likely because memory ran out"),
        ("import os; os.abort()", "SIGABRT", "aborted: no message"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)", "SIGUSR1", "was ended by a signal"),
        (
            "raise ImportError('first\\nlibgomp.so.1: cannot open\\n')",
            "ImportError",
            "used: libgomp.so.1: cannot open;",
        ),
        ("import no_such_module", "ModuleNotFoundError", "No module named 'no_such_module'"),
        ("import sys; sys.exit('stop here')", "exit_code_1", "cannot be used: stop here"),
        ("import os; os._exit(0)", "exit_code_0", "cannot be used: no message"),
        ("import time; time.sleep(60)", "timeout", "gave no answer in 1.5 s"),
        ("__version__ = '0'", "AttributeError", "SessionOptions"),
        (
            "import sys; sys.stderr.write('A module that was compiled using NumPy 1.x cannot'); raise ImportError",
            "ImportError",
            "is built for numpy 1 and fails with numpy 2; upgrade it, or go back with: pip install 'numpy<2'",
        ),
    ],
)
def test_every_end_has_a_sentence(fake, source, how, message):
    fake(source + "\n")
    document = examine(str(DATA / "bundle_v1"), timeout=1.5 if how == "timeout" else 60)
    assert not document["ok"]
    assert document["onnxruntime"]["exit"] == how
    assert document["bundle"] == {"path": str(DATA / "bundle_v1"), "status": "not_opened"}
    (error,) = messages(document, "error")
    assert message in error
    assert f"[{how.replace('_', ' ')} " in error
    text(document)


def test_a_crash_while_opening_a_graph_differs_from_one_while_importing(fake):
    fake(
        "import os, signal\n__version__ = '9.9.9'\n"
        "class SessionOptions: pass\n"
        "def InferenceSession(*args, **options): os.kill(os.getpid(), signal.SIGILL)\n"
    )
    document = examine()
    assert document["onnxruntime"]["stages_done"] == ["numpy_import", "onnxruntime_import"]
    (error,) = messages(document, "error")
    assert "onnxruntime 9.9.9 uses an instruction" in error
    assert error.endswith("'onnxruntime<9.9.9' [SIGILL opening a graph]")


def test_wrong_products_are_found(fake):
    fake(
        "import numpy\n__version__ = '9.9.9'\n"
        "class SessionOptions: pass\n"
        "class InferenceSession:\n"
        "    def __init__(self, *args, **options): pass\n"
        "    def run(self, names, feed): return [numpy.zeros((4, 32))] * 2\n"
    )
    assert "a product of small whole numbers is wrong" in messages(examine(), "error")[0]


def test_a_death_at_the_end_is_a_warning(fake):
    fake(
        "import atexit, os, signal\n__version__ = '9.9.9'\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGSEGV)\n"
        "class SessionOptions: pass\n"
        "class InferenceSession:\n"
        "    def __init__(self, *args, **options): pass\n"
        "    def run(self, names, feed): return [feed['a'] @ feed['b']] * 2\n"
    )
    document = examine()
    assert document["ok"]
    assert messages(document, "warning")[0].startswith("onnxruntime 9.9.9 works, but its process ends with SIGSEGV")


def test_numpy_is_named_where_numpy_is_at_fault(fake):
    fake("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n", name="numpy")
    runtime = probe()
    assert runtime["failed_stage"] == "numpy_import"
    assert failure(runtime, "2.4.6", "Atom", None).startswith(
        "numpy 2.4.6 uses an instruction that this processor (Atom)"
    )


def test_no_onnxruntime_at_all(fake):
    fake("raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n")
    assert messages(examine(), "error") == ["onnxruntime is not installed; install it with: pip install onnxruntime"]


def test_no_process_can_be_started(monkeypatch):
    def refuse(*args, **options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "run", refuse)
    (error,) = messages(examine(), "error")
    assert error.startswith("onnxruntime was not probed: a child process cannot be started: [Errno 12] Cannot")


def test_the_probe_itself_leaves_no_trace_of_telemetry(tmp_path):
    assert probe()["works"]
    assert not (tmp_path / "XDG_CACHE_HOME").exists()
