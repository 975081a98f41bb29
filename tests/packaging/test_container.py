"""The image of packaging/docker: its steps executed without Docker, and its service run as the compose file says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import container_steps
import pytest
import yaml
from helpers.brokers import Client, running
from helpers.waiting import soon

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "packaging" / "docker"
BUNDLE = ROOT / "tests" / "data" / "bundle_v3_spectrum"  # two channels at 1 kHz, windows of 320 samples
SAMPLES = b"0,3\n" * 320
SERVICE = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["motor"]


@pytest.fixture(scope="session")
def context(dist, tmp_path_factory):
    """The folder of the Dockerfile with a wheelhouse."""
    folder = tmp_path_factory.mktemp("docker")
    shutil.copy(DOCKER / "Dockerfile", folder)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--only-binary=:all:"]
    pip += ["-c", str(ROOT / "constraints.txt"), "-d", str(folder / "wheelhouse")]
    subprocess.run([*pip, f"{dist.wheel}[mqtt]"], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def image(context, tmp_path_factory):
    if reason := container_steps.unavailable():
        pytest.skip(f"NOTHING WAS TESTED: {reason}")
    folder = tmp_path_factory.mktemp("image")
    yield container_steps.build(context / "Dockerfile", folder)
    shutil.rmtree(folder)  # hundreds of megabytes


@pytest.fixture
def container(image, tmp_path):
    """Command lines in a container of the service, whose volume outlives each."""
    state = tmp_path / "state"
    shutil.copytree(image.files / "state", state)  # as Docker fills a new volume
    owner = (image.files / "state").stat()
    os.chown(state, owner.st_uid, owner.st_gid)
    volumes = {"./motor.aeedge": BUNDLE, "state": state}
    return lambda *command: image.service(SERVICE, volumes, command)


def output(command, **options):
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_image_says_that_the_machine_is_fit(image):
    assert "yes: imported, opened a graph and ran it" in output(image.enter([*image.entrypoint, *image.command]))


def test_a_bundle_is_verified_by_a_user_without_rights_on_a_read_only_root(container):
    assert "reference outputs are reproduced" in " ".join(output(container("aeedge", "verify", "/bundle")).split())
    status = output(container("sh", "-c", "id -u; cat /proc/self/status"))
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert status.startswith("10001\n")
    assert {fields[name].strip() for name in ("CapEff", "CapBnd", "CapPrm")} == {"0" * 16}
    assert fields["NoNewPrivs"].strip() == "1"


def test_only_the_state_and_memory_can_be_written(container):
    places = ["/opt/aeedge/x", "/bundle/x", "/x", "/etc/x", "/usr/local/x", "/state/x", "/tmp/x", "/run/aeedge/x"]
    tries = "; ".join(f"(: > {place}) 2> /dev/null && echo {place}" for place in places)
    written = output(container("sh", "-c", f"{tries}; true")).split()
    assert written == ["/state/x", "/tmp/x", "/run/aeedge/x"]


def test_a_stream_goes_on_where_the_container_before_it_was_stopped(container):
    command = container("aeedge", "stream", "/bundle", "--state=/state/stream.json")
    windows = [json.loads(output(command, input=SAMPLES))["window"] for _ in range(3)]
    assert windows == [0, 1, 2]


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    with running(tmp_path / "broker") as found:
        yield found


def test_the_service_of_the_compose_file_takes_messages_is_healthy_and_ends(image, container, broker, tmp_path):
    command = [
        part.replace("mqtt://broker/", broker.url("")) for part in SERVICE["command"] if part != "--only=changes"
    ]
    # the health is asked in the same container, as Docker does
    script = f'"$@" & trap "kill -TERM $!; wait $!; exit" TERM; while :; do {image.health}; echo $?; sleep 0.2; done'
    started = container("sh", "-c", script, "sh", *image.entrypoint, *command)
    with (
        closing(Client(broker, "listener", "motor/events")) as listener,
        closing(Client(broker, "sensor")) as sensor,
        subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert next(code for code in iter(process.stdout.readline, "") if code == "0\n")
            assert soon(lambda: sensor.publish("motor", SAMPLES) or time.sleep(0.2) or listener.messages)
            assert soon((tmp_path / "state" / "stream.json").exists)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(listener.messages[0])["window"] == 0


def test_a_gateway_that_hangs_is_not_healthy(image, container):
    check = ["sh", "-c", image.health]
    assert subprocess.run(container(*check), check=False, capture_output=True).returncode
    aged = f"touch -d '2 minutes ago' /run/aeedge/stream.prom; {image.health}"
    assert subprocess.run(container("sh", "-c", aged), check=False, capture_output=True).returncode
    output(container("sh", "-c", f"touch /run/aeedge/stream.prom; {image.health}"))


def test_an_instruction_that_is_not_executed_is_refused(tmp_path):
    (tmp_path / "Dockerfile").write_text("ONBUILD RUN true\n")
    with pytest.raises(ValueError, match="ONBUILD is not executed here"):
        container_steps.build(tmp_path / "Dockerfile", tmp_path / "image")


def test_a_setting_that_is_not_done_is_refused(image):
    for setting in ({"privileged": True}, {"cap_drop": ["NET_RAW"]}, {"security_opt": []}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            image.service(SERVICE | setting, {"./motor.aeedge": BUNDLE, "state": BUNDLE}, ["true"])


def docker_runs():
    return (
        shutil.which("docker") and subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not docker_runs(), reason="Docker does not run here; its steps are executed above")
def test_docker_builds_the_image(context):
    python = f"PYTHON={sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run(["docker", "build", "-q", "-t", "aeedge-test", "--build-arg", python, context], check=True)
    run = ["docker", "run", "--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    assert "reproduced" in output([*run, "-v", f"{BUNDLE}:/bundle:ro", "aeedge-test", "verify", "/bundle"])
