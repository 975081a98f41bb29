"""Spark, Ray and an S3, real ones on this machine: started, used and stopped, with nothing left behind."""

import logging
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import java
import pytest
from debian_packages import UnavailableError

from helpers.brokers import free_port
from helpers.children import TIMEOUT
from helpers.waiting import soon

TESTS = Path(__file__).parent.parent
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "plant"
_QUIET = """\
rootLogger.level = fatal
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
"""
_SERVE = """\
import os, sys, threading
from moto.server import main

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with who started it
main(sys.argv[1:])
"""


@contextmanager
def object_store():
    """The endpoint of an S3 that forgets; in the environment, too, for this process and those that it starts."""
    from pyarrow.fs import FileSystem

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    null = subprocess.DEVNULL
    command = [sys.executable, "-c", _SERVE, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null)
    try:
        assert soon(lambda: _answers(server, url)), "moto does not start"
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (KEYS | {"AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}).items():
                patch.setenv(name, value)
            files, path = FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
            files.create_dir(path)
            yield url
    finally:
        server.kill()
        server.communicate()


def _answers(server, url):
    assert server.poll() is None, f"moto ended with {server.returncode}"
    with suppress(URLError, ConnectionError), urlopen(url, timeout=5):
        return True
    return False


@contextmanager
def spark_session(master="local-cluster[2,1,512]", **settings):
    """A session; its executors are other JVMs, to which files really travel, and find the modules of tests/.

    Their scraps would be in SPARK_HOME: theirs is a folder of links.
    """
    import pyspark
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory(prefix="spark-") as home, pytest.MonkeyPatch.context() as patch:
        for path in Path(pyspark.__file__).parent.iterdir():
            if path.name not in ("work", "conf"):
                Path(home, path.name).symlink_to(path)
        Path(home, "conf").mkdir()
        Path(home, "conf/log4j2.properties").write_text(_QUIET)
        for name, value in spark_environment(home).items():
            patch.setenv(name, value)
        builder = SparkSession.builder.master(master).appName("tests")
        options = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        } | {name.replace("_", "."): value for name, value in settings.items()}
        for name, value in options.items():
            builder = builder.config(name, value)
        try:
            yield builder.getOrCreate()
        finally:
            stop_spark()


def spark_environment(home=None):
    """What Spark and its Python workers need: a Java, this Python, the modules of tests/, nothing of a network."""
    try:
        found = java.home()
    except UnavailableError as error:
        pytest.skip(f"NOTHING WAS TESTED, there is no Java here: {error}")
    settings = {
        "JAVA_HOME": str(found),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "localhost",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(TESTS),
        "no_proxy": "127.0.0.1,localhost",
    }
    return settings if home is None else settings | {"SPARK_HOME": str(home), "SPARK_LOCAL_DIRS": f"{home}/scraps"}


def stop_spark():
    """The session of this process, and its Java."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        from pyspark.sql import SparkSession

        SparkSession.builder.getOrCreate().stop()
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(TIMEOUT)
        SparkContext._gateway = SparkContext._jvm = None


@contextmanager
def ray_cluster(nodes=2):
    """A cluster of nodes with one CPU each, to which this process is connected; workers find the modules of tests/."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a short path, as names of sockets have to be
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_environment().items():
            patch.setenv(name, value)
        import ray
        from ray.cluster_utils import Cluster

        from aeedge.archive.ray import sigterm_kept

        cluster = None
        try:
            with warnings.catch_warnings(), sigterm_kept():
                cluster = Cluster(
                    initialize_head=True, head_node_args=NODE | {"temp_dir": folder, "include_dashboard": False}
                )
                for _ in range(nodes - 1):
                    cluster.add_node(**NODE)
                warnings.simplefilter("ignore")
                ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield cluster
        finally:
            ray.shutdown()
            if cluster is not None:
                cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def ray_environment():
    """What Ray and its workers need: the modules of tests/, nothing that is reported to its makers."""
    return {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(TESTS), "no_proxy": "127.0.0.1,localhost"}
