"""Where the machine around a model is broken: no /tmp, no home, nothing to write, /proc and /sys hidden."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import reference
from helpers.children import BUNDLE, BUNDLES, DATA, TIMEOUT, child, in_namespace, run

import aeedge
import aeedge.system.limits

pytestmark = pytest.mark.usefixtures("truth")


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
    quiet = {"capture_output": True, "text": True, "timeout": TIMEOUT, "check": False}
    if subprocess.run([*wrap, sys.executable, "-c", "import onnxruntime"], **quiet).returncode == -signal.SIGABRT:
        # Some versions of it abort there (1.18, 1.23), with and without aeedge; the doctor reports it.
        done = subprocess.run([*wrap, sys.executable, "-m", "aeedge", "doctor"], **quiet)
        assert done.returncode == 1
        assert "no: SIGABRT while it is imported" in done.stdout
        return
    code = f"""
        assert not any(map(os.listdir, {hidden.split()}))
        model = aeedge.load(bundle)
        print(model.threads >= 1, right(model, (1, 5000)), right(aeedge.load(bundle, threads=2), (1, 5000)))
    """
    assert child(code, DATA / name, wrap=wrap)[0] == "True True True"


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EACCES])
def test_neither_proc_nor_sys_can_be_read(monkeypatch, tmp_path, error):
    real = open

    def deny(path, *args, **options):
        if str(path).startswith(("/proc", "/sys")):
            raise OSError(error, os.strerror(error), path)
        return real(path, *args, **options)

    monkeypatch.setattr("builtins.open", deny)
    monkeypatch.setattr(aeedge.system.limits, "_CGROUP", str(tmp_path / "missing"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    with aeedge.load(BUNDLE) as model:
        assert model.threads == 1
        assert reference.right(model, (1, 5000))


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
        assert reference.right(model) if model.manifest.name == "bundle_v1" else False
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
        rows = reference.rows_of(model, 3000)
        np.save(tmp_path / "rows.npy", rows)
        wrap = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "aeedge"]
        run([*wrap, "encode", str(BUNDLE), "rows.npy", "-o", "latents.npy"], cwd=tmp_path)
        assert reference.same(model, "encode", np.load(tmp_path / "latents.npy"), model.encode(rows))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_on_one_cpu_there_is_one_thread():
    first = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code = "before = tasks(); model = aeedge.load(bundle); print(model.threads, right(model), tasks() - before)"
    assert child(code, first=first)[0] == "1 True 0"
