"""The engine that Ray is: nodes that end, sessions, and what is said where Ray cannot run."""

import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from helpers import engines
from helpers.brokers import free_port
from helpers.children import child
from helpers.parts import Work, parts
from helpers.waiting import soon

from aeedge.archive.engines import make_engine
from aeedge.archive.packing import pack
from aeedge.archive.ray import RayEngine, sigterm_kept
from aeedge.cli.archive import progress_line
from aeedge.errors import InputError


@pytest.fixture
def packed(bundle):
    return pack(bundle)


def test_a_node_that_ends_takes_no_part_along(ray_session, packed, tmp_path):
    import ray

    work = Work(str(tmp_path), None, "end_node", seconds=0.1)
    try:
        outcomes = list(RayEngine().run(work, parts(20), packed))
    finally:
        with sigterm_kept():
            ray_session.add_node(**engines.NODE)  # for the tests that follow
        assert soon(lambda: ray.cluster_resources()["CPU"] == 2), "the node that ended is still counted"
    assert work.happened() == 1
    assert Counter(outcome.number for outcome in outcomes) == Counter(range(20))
    assert not any(outcome.error for outcome in outcomes)


def test_the_cluster_of_the_user_goes_on(ray_session, packed, tmp_path):
    import ray

    list(RayEngine().run(Work(str(tmp_path)), parts(2), packed))
    assert ray.get(ray.remote(lambda: 3).remote()) == 3
    with pytest.raises(InputError, match="workers: are those of the cluster that is in use"):
        RayEngine(workers=2)
    assert RayEngine(ray_session.address).workers == 2
    with pytest.raises(InputError, match=f"is connected to {ray_session.address}, got '127.0.0.1:1'; leave it out"):
        RayEngine("127.0.0.1:1")


def test_what_ray_prints_is_not_among_results(capsys):
    with progress_line("encode"):
        print("(raylet) A worker died")
    assert capsys.readouterr().out == ""


def test_clusters_of_our_own_end_and_others_do_not(ray_session, bundle, tmp_path):
    """In another process: one of our own, that of the user by its address, one without aeedge, and one without CPUs."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/pyarrow.py").write_text("raise ModuleNotFoundError('No module named pyarrow', name='pyarrow')")
    code = f"""
    import logging
    import signal
    import ray
    from aeedge.archive.packing import pack
    from aeedge.archive.ray import RayEngine, sigterm_kept
    from aeedge.errors import InputError
    from helpers.parts import Work, parts

    mine = lambda *given: None
    signal.signal(signal.SIGTERM, mine)
    work, packed = Work({str(tmp_path)!r}, 1, "end"), pack(bundle)
    for address, workers in ((None, 2), ({ray_session.address!r}, None)):
        engine = RayEngine(address, workers)
        print("told", sorted(outcome.number for outcome in engine.run(work, parts(3), packed)), engine.workers)
        assert not ray.is_initialized()
    assert work.happened() == 1
    assert signal.getsignal(signal.SIGTERM) is mine

    place = os.pathsep.join([{str(tmp_path / "bare")!r}, os.environ["PYTHONPATH"]])
    settings = {{"env_vars": {{"PYTHONPATH": place}}}}
    ray.init({ray_session.address!r}, runtime_env=settings, log_to_driver=False, logging_level=logging.ERROR)
    print("told", *{{outcome.error for outcome in RayEngine().run(work, parts(2), packed)}})
    ray.shutdown()

    ray.init("local", num_cpus=0, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        list(RayEngine(patience=2).run(work, parts(3), packed))
    except InputError as error:
        print("told", error)
    ray.shutdown()
    """
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as scraps, pytest.MonkeyPatch.context() as patch:
        for name, value in (engines.ray_environment() | {"RAY_TMPDIR": scraps}).items():
            patch.setenv(name, value)
        lines = child(code, bundle)[0].splitlines()  # Ray's own among them
    own, given, bare, none = [line.removeprefix("told ") for line in lines if line.startswith("told ")]
    assert own == "[0, 1, 2] 2"
    assert given == "[0, 1, 2] 2"
    assert bare.startswith("worker ")
    assert "cannot import pyarrow (No module named pyarrow); install 'aeedge[arrow]' there" in bare
    assert none == "Ray: no worker of the cluster took a part for 2 s; does it have nodes with a CPU free?"


@pytest.fixture
def no_session(monkeypatch):
    """As in a process that is not connected; it may be."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_session")
class TestRayThatCannotStart:
    def test_no_ray(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(InputError, match=r"needs ray, which is not installed; pip install 'aeedge\[ray\]'"):
            make_engine("ray")

    @pytest.mark.parametrize("scheme", ["", "ray://"])
    def test_an_address_that_does_not_answer(self, scheme):
        address = f"{scheme}127.0.0.1:{free_port()}"
        with pytest.raises(InputError, match=f"address: {address} does not answer .*refused"):
            make_engine("ray", address=address).workers  # noqa: B018

    def test_an_address_without_a_port(self):
        with pytest.raises(InputError, match="expected HOST:PORT"):
            make_engine("ray", address="127.0.0.1").workers  # noqa: B018

    def test_something_else_at_the_address(self, monkeypatch):
        monkeypatch.setattr("aeedge.archive.ray._HEALTH", 3)
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(InputError, match=f"address: {address} is no Ray cluster; .*is its port right"):
                make_engine("ray", address=address).workers  # noqa: B018

    def test_a_cluster_that_ended_without_a_word(self, monkeypatch):
        """It left the address behind that "auto" looks for; without an address, nobody looks."""
        monkeypatch.setattr("aeedge.archive.ray._HEALTH", 5)
        with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
            place = Path(folder, "ray/ray_current_cluster")
            place.parent.mkdir()
            place.write_text(f"127.0.0.1:{free_port()}")
            monkeypatch.setenv("RAY_TMPDIR", folder)
            with pytest.raises(InputError, match="address: no Ray runs on this machine; is the cluster running"):
                make_engine("ray", address="auto").workers  # noqa: B018

    def test_an_address_of_the_environment_that_does_not_answer(self, monkeypatch):
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
        with pytest.raises(InputError, match="does not answer"):
            make_engine("ray").workers  # noqa: B018

    def test_workers_and_an_address(self):
        with pytest.raises(InputError, match="workers: are those of the cluster auto; leave it out"):
            make_engine("ray", address="auto", workers=2)
