"""The engine that Spark is: executors that end, sessions, and what is said where Spark cannot run."""

import sys
from collections import Counter

import pytest
from helpers import engines
from helpers.brokers import free_port
from helpers.children import child
from helpers.parts import Work, parts

from aeedge.archive.engines import make_engine
from aeedge.archive.packing import pack
from aeedge.archive.spark import SparkEngine
from aeedge.errors import InputError


@pytest.fixture
def packed(bundle):
    return pack(bundle)


@pytest.fixture
def no_session(monkeypatch):
    """As in a process that has not started Spark; it may have."""
    from pyspark import SparkContext

    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    monkeypatch.setattr(SparkContext, "_gateway", None)
    for name in ("JAVA_HOME", "PYSPARK_GATEWAY_PORT", "SPARK_REMOTE", "HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def program(tmp_path):
    """Makes a program."""

    def make(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.usefixtures("spark")
def test_an_executor_that_ends_takes_no_part_along(packed, tmp_path):
    work = Work(str(tmp_path), 3, "end_executor", seconds=0.05)
    outcomes = list(SparkEngine().run(work, parts(8), packed))
    assert work.happened() == 1
    assert Counter(outcome.number for outcome in outcomes) == Counter(range(8))
    assert not any(outcome.error for outcome in outcomes)


def test_the_session_of_the_user_goes_on(spark, packed, tmp_path):
    list(SparkEngine().run(Work(str(tmp_path)), parts(2), packed))
    assert spark.sparkContext.parallelize([1, 2], 2).sum() == 3


def test_the_session_of_the_user_is_the_one(spark):
    assert SparkEngine("local-cluster[2,1,512]").workers == 2
    with pytest.raises(InputError, match=r"master: Spark runs on local-cluster\[2,1,512\] already, got 'local'"):
        SparkEngine("local")
    with pytest.raises(InputError, match="workers: are those of local-cluster"):
        SparkEngine(workers=2)


def test_workers_with_another_python_are_told(spark, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(spark.sparkContext, "pythonVer", "3.8")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(InputError, match=rf"have Python {here}, expected 3\.8 as here; set PYSPARK_PYTHON"):
        list(SparkEngine().run(Work(str(tmp_path)), parts(2), packed))


def test_workers_without_that_python_are_told(spark, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(spark.sparkContext, "pythonExec", "/opt/nothing/python")
    with pytest.raises(InputError, match="cannot start /opt/nothing/python; set PYSPARK_PYTHON"):
        list(SparkEngine().run(Work(str(tmp_path)), parts(2), packed))


def test_workers_without_aeedge_are_told(spark, packed, tmp_path, monkeypatch, program):
    bare = program("python", f'exec {sys.executable} -S "$@"')
    monkeypatch.setattr(spark.sparkContext, "pythonExec", str(bare))
    outcomes = list(SparkEngine().run(Work(str(tmp_path)), parts(2), packed))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert outcome.error.startswith("worker ")
        assert "cannot import " in outcome.error
        assert "install 'aeedge[arrow]' there" in outcome.error


def test_sessions_of_our_own_end_and_a_cluster_without_workers_is_told(bundle, tmp_path):
    code = f"""
    import warnings
    from pyspark import SparkConf, SparkContext
    from aeedge.archive.packing import pack
    from aeedge.archive.spark import SparkEngine
    from aeedge.errors import InputError
    from helpers.parts import Work, parts

    work, packed = Work({str(tmp_path)!r}, 1, "end"), pack(bundle)
    for master, workers in (("local[1]", None), (None, 2)):
        engine = SparkEngine(master, workers)
        print(sorted(outcome.number for outcome in engine.run(work, parts(3), packed)), engine.workers)
        assert SparkContext._active_spark_context is None
    assert work.happened() == 1

    SparkContext(conf=SparkConf().setMaster("local-cluster[0,1,1024]").setAppName("no workers"))
    try:
        list(SparkEngine(patience=2).run(work, parts(3), packed))
    except InputError as error:
        print(error)
    """
    settings = engines.spark_environment()
    del settings["PYSPARK_PYTHON"]  # the engine knows where aeedge is
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        first, second, error = child(code, bundle)[0].splitlines()
    assert first == "[0, 1, 2] 1"
    assert second == "[0, 1, 2] 2"
    assert error.startswith("Spark: no worker of local-cluster[0,1,1024] took a part for 2 s; are workers running")


@pytest.mark.usefixtures("no_session")
class TestSparkThatCannotStart:
    def test_no_pyspark(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyspark", None)
        with pytest.raises(InputError, match=r"needs pyspark, which is not installed; pip install 'aeedge\[spark\]'"):
            make_engine("spark")

    def test_no_java(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="Spark needs Java 17 or newer, there is none on the PATH; install it"):
            make_engine("spark")

    def test_no_java_at_java_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        with pytest.raises(InputError, match=r"Java 17 or newer, .*/bin/java does not start .*set JAVA_HOME"):
            make_engine("spark")

    @pytest.mark.parametrize(("said", "release"), [('version "1.8.0_372"', "8"), ('version "11.0.2"', "11")])
    def test_an_old_java(self, said, release, monkeypatch, program):
        monkeypatch.setenv("PATH", str(program("java", f"echo 'openjdk {said}' >&2").parent))
        with pytest.raises(InputError, match=f"Java 17 or newer, .*/java is {release}; install it"):
            make_engine("spark")

    @pytest.mark.parametrize("master", ["spark://127.0.0.1:{}", "spark://127.0.0.1:{},localhost:{}"])
    def test_a_master_that_does_not_answer(self, master):
        master = master.format(free_port(), free_port())
        with pytest.raises(InputError, match=f"master: {master} does not answer .*refused"):
            make_engine("spark", master=master)

    @pytest.mark.parametrize("master", ["spark://127.0.0.1", "spark://:7077", "spark://127.0.0.1:web"])
    def test_a_master_without_a_port(self, master):
        with pytest.raises(InputError, match="expected HOST:PORT"):
            make_engine("spark", master=master)

    def test_an_unknown_master(self):
        with pytest.raises(InputError, match=r"master: expected a cluster \(spark://HOST:PORT, .*got 'mesos://x'"):
            make_engine("spark", master="mesos://x")

    def test_spark_connect(self):
        with pytest.raises(InputError, match="got Spark Connect; give the cluster behind it"):
            make_engine("spark", master="sc://127.0.0.1:15002")

    def test_yarn_without_settings(self):
        with pytest.raises(InputError, match="set HADOOP_CONF_DIR or YARN_CONF_DIR"):
            make_engine("spark", master="yarn")

    def test_workers_and_a_master(self):
        with pytest.raises(InputError, match=r"workers: are those of local; leave it out, or give local\[2\]"):
            make_engine("spark", master="local", workers=2)
