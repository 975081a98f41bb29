"""aeedge stream with a real broker: nothing is lost and nothing taken twice while the one or the other is restarted."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.brokers import Client, Proxy, free_port, running
from helpers.children import TIMEOUT, child_process
from helpers.signals import machine, signal_bundle
from helpers.streams import environment
from helpers.waiting import soon

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge.signals.mqtt import Address, default_client_id

SIGNAL = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0)
EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway"
IN, OUT = "plant/motor", "plant/motor/events"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return signal_bundle(tmp_path_factory.mktemp("mqtt") / "m.aeedge", signal=SIGNAL, rate=0.05)


@pytest.fixture(scope="module")
def samples():
    return machine(1200, seed=3, noise=0.06)


@pytest.fixture
def broker(tmp_path):
    (tmp_path / "broker").mkdir()
    with running(tmp_path / "broker") as found:
        yield found


@pytest.fixture
def sensor(broker):
    client = Client(broker, "sensor")
    yield client
    client.close()


@pytest.fixture
def listener(broker):
    client = Client(broker, "listener", OUT)
    yield client
    client.close()


def streaming(broker, bundle, *options, env=(), scheme="mqtt", first=""):
    """The command after the line of Python `first`, killed at the end if it still runs."""
    url, code = broker.url(IN, scheme), f"{first}\nimport aeedge.cli\naeedge.cli.main()"
    command = [sys.executable, "-c", code, "stream", str(bundle), "--mqtt", url, *map(str, options)]
    return child_process(command, env=environment() | dict(env), stdin=None)


def ended(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out.decode(), err.decode()


def payloads(samples, size=10):
    return [json.dumps(part.tolist()) for part in np.split(samples, range(size, len(samples), size))]


def expected(bundle, samples):
    """Window, start, score and alarm of each event."""
    with aeedge.load(bundle) as model:
        return [(e.index, e.start, e.score, e.alarm) for e in aeedge.Stream(model).push(samples)]


def told(messages):
    """The same of published events; those that came again are left out, and must be the same."""
    found = {}
    order = []
    for message in messages:
        document = json.loads(message)
        if document["window"] not in found:
            order.append(document["window"])
        assert found.setdefault(document["window"], document) == document
    assert order == sorted(order)
    return [tuple(found[number][key] for key in ("window", "start", "score", "alarm")) for number in order]


def is_same(found, wanted):
    assert [(number, alarm) for number, _, _, alarm in found] == [(number, alarm) for number, _, _, alarm in wanted]
    for one in (1, 2):
        np.testing.assert_allclose([event[one] for event in found], [event[one] for event in wanted], rtol=1e-4)
    return True


def test_events_of_messages_are_those_of_the_samples_in_order(broker, sensor, listener, bundle, samples):
    wanted = expected(bundle, samples)
    with streaming(broker, bundle, "--publish", OUT, "--client-id", "me") as process:
        ready(process)
        for payload in payloads(samples):
            sensor.publish(IN, payload)
        assert soon(lambda: len(listener.messages) >= len(wanted))
        code, out, err = ended(process)
    assert (code, out) == (0, "")
    assert is_same(told(listener.messages), wanted)
    assert len(listener.messages) == len(wanted)  # each once
    assert f"{len(samples):,} samples, {len(wanted)} windows" in err


def ready(process):
    """Wait until the command has subscribed, and so the broker keeps messages for it."""
    for line in process.stderr:
        if b"listens to" in line:
            return
    raise AssertionError("the command ended")


@pytest.mark.parametrize("state", [True, False])
def test_nothing_is_lost_or_taken_twice_while_the_broker_is_restarted(
    broker, sensor, listener, bundle, samples, tmp_path, state
):
    wanted, parts = expected(bundle, samples), payloads(samples)
    options = ["--state", tmp_path / "state"] if state else []
    with streaming(broker, bundle, "--publish", OUT, *options) as process:
        ready(process)
        for number, payload in enumerate(parts):
            sensor.publish(IN, payload)
            if number in (30, 80):
                assert sensor.has_sent_all()  # or the sensor sends some twice
                broker.stop()
            if number in (50, 90):
                broker.start()
        assert soon(lambda: len(told(listener.messages)) >= len(wanted))
        code, _, err = ended(process)
    assert code == 0
    assert is_same(told(listener.messages), wanted)
    assert "is lost" in err
    assert f"{len(samples):,} samples" in err


@pytest.fixture
def network(broker):
    found = Proxy(broker)
    yield found
    found.close()


def test_nothing_is_lost_or_taken_twice_where_the_network_breaks(network, sensor, listener, bundle, samples):
    wanted, parts = expected(bundle, samples), payloads(samples)
    with streaming(network, bundle, "--publish", OUT) as process:
        ready(process)
        for number, payload in enumerate(parts):
            sensor.publish(IN, payload)
            if number % 25 == 24:
                before = len(listener.messages)
                assert soon(lambda before=before: len(listener.messages) > before + 2)
                assert soon(lambda: network.connected)  # again: what came may have been on its way before the last cut
                network.cut()
        assert soon(lambda: len(told(listener.messages)) >= len(wanted))
        assert ended(process)[0] == 0
    assert network.cuts == 4
    assert is_same(told(listener.messages), wanted)


def test_nothing_is_lost_or_taken_twice_when_the_command_is_killed(broker, sensor, listener, bundle, samples, tmp_path):
    wanted, parts, state = expected(bundle, samples), payloads(samples), tmp_path / "state"
    for number, step in enumerate(np.split(np.array(parts), 4)):
        with streaming(broker, bundle, "--publish", OUT, "--state", state) as process:
            ready(process)
            before = len(listener.messages)
            for payload in step:
                sensor.publish(IN, payload)
            assert soon(lambda before=before: len(listener.messages) >= before + 5)
            if number == 3:
                assert soon(lambda: len(told(listener.messages)) >= len(wanted))
            process.kill()  # in the middle of the messages
            process.wait(TIMEOUT)
    assert is_same(told(listener.messages), wanted)


@pytest.mark.parametrize("place", ["acknowledge", "settled", "done"])
def test_a_crash_anywhere_between_a_message_and_its_acknowledgement_loses_and_doubles_nothing(
    broker, sensor, listener, bundle, samples, tmp_path, place
):
    wanted, parts, state = expected(bundle, samples), payloads(samples), tmp_path / "state"
    crash = f"import os; from aeedge.signals.mqtt import Broker; Broker.{place} = lambda *_: os._exit(9)"
    with streaming(broker, bundle, "--publish", OUT, "--state", state) as process:
        ready(process)
        for payload in parts[:30]:
            sensor.publish(IN, payload)
        assert soon(lambda: len(listener.messages) > 20)
        assert ended(process)[0] == 0
    for payload in parts[30:]:
        sensor.publish(IN, payload)
    with streaming(broker, bundle, "--publish", OUT, "--state", state, first=crash) as process:
        assert process.wait(TIMEOUT) == 9
    with streaming(broker, bundle, "--publish", OUT, "--state", state):
        assert soon(lambda: len(told(listener.messages)) >= len(wanted))
    assert is_same(told(listener.messages), wanted)


def test_messages_that_came_while_the_command_was_down_are_taken_from_there(
    broker, sensor, listener, bundle, samples, tmp_path
):
    wanted, parts, state = expected(bundle, samples), payloads(samples), tmp_path / "state"
    for step in np.split(np.array(parts), 3):
        for payload in step:
            if state.exists():
                sensor.publish(IN, payload)
        with streaming(broker, bundle, "--publish", OUT, "--state", state) as process:
            ready(process)
            if not state.exists():
                for payload in step:
                    sensor.publish(IN, payload)
            assert sensor.has_sent_all()
            assert soon(state.exists)
            assert ended(process)[0] == 0
    with streaming(broker, bundle, "--publish", OUT, "--state", state):
        assert soon(lambda: len(told(listener.messages)) >= len(wanted))
    assert is_same(told(listener.messages), wanted)


def test_garbage_is_told_of_and_is_missing_samples(broker, sensor, bundle, samples):
    with streaming(broker, bundle) as process:
        ready(process)
        for number, payload in enumerate(payloads(samples[:400])):
            sensor.publish(IN, payload)
            if number == 20:
                for garbage in (b"garbage", b"\xff\x00", b"[1]", b"", b"{", b"[" * 100_000):
                    sensor.publish(IN, garbage)
        assert sensor.has_sent_all()
        count = (210 - 32) // 8 + 1 + 1 + (190 - 32) // 8 + 1
        lines = [json.loads(process.stdout.readline()) for _ in range(count)]
        code, _, err = ended(process)
    assert code == 0
    assert [line["health"][0]["kind"] for line in lines if line["verdict"] == "bad input"] == ["missing"]
    assert "5 unreadable" in err
    assert "topic plant/motor, message" in err
    assert "Traceback" not in err


def test_a_retained_message_is_no_sample(broker, sensor, bundle, samples):
    sensor.publish(IN, json.dumps([[1e3, 1e3]]), retain=True)
    assert sensor.has_sent_all()
    with streaming(broker, bundle) as process:
        ready(process)
        sensor.publish(IN, json.dumps(samples[:32].tolist()))
        document = json.loads(process.stdout.readline())
        assert ended(process)[0] == 0
    assert (document["window"], document["verdict"], document["start"]) == (0, "ok", 0.0)


def test_raw_messages(broker, sensor, bundle, samples):
    with streaming(broker, bundle, "--format", "f32le") as process:
        ready(process)
        sensor.publish(IN, samples[:32].astype("<f4").tobytes())
        assert json.loads(process.stdout.readline())["window"] == 0
        assert ended(process)[0] == 0


def test_the_command_waits_for_a_broker_that_is_not_there_yet(broker, bundle, samples):
    broker.stop()
    with streaming(broker, bundle) as process:
        assert b"channels" in process.stderr.readline()
        assert b"cannot be reached" in process.stderr.readline()
        broker.start()
        ready(process)
        assert ended(process)[0] == 0
    broker.stop()
    with streaming(broker, bundle) as process:
        assert b"channels" in process.stderr.readline()
        assert b"cannot be reached" in process.stderr.readline()
        assert ended(process)[0] == 0


def test_two_commands_with_one_client_id_are_told_so(broker, bundle):
    with streaming(broker, bundle) as first, streaming(broker, bundle):
        said = []
        while not said or b"does another client have the same id" not in said[-1]:
            said.append(first.stderr.readline())  # they push each other out
            assert said[-1]
        assert ended(first)[0] == 0


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A certificate authority, and keys and certificates of a broker and a client."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes", "-batch", "-subj"]
    openssl(*new, "/CN=test authority", "-x509", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ("server", "client"):
        openssl(*new, f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        sign = ["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
        openssl(*sign, "-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", f"{name}.ext")
    return folder


def test_tls_and_credentials_come_from_the_environment(tmp_path, keys, bundle):
    lines = [f"cafile {keys}/ca.crt", f"certfile {keys}/server.crt", f"keyfile {keys}/server.key"]
    lines += ["require_certificate true", "use_identity_as_username true"]
    authority, own = {"AEEDGE_MQTT_CA": f"{keys}/ca.crt"}, {}
    own["AEEDGE_MQTT_CERT"], own["AEEDGE_MQTT_KEY"] = f"{keys}/client.crt", f"{keys}/client.key"
    with running(tmp_path, *lines) as broker:
        with streaming(broker, bundle, scheme="mqtts", env=authority | own) as process:
            ready(process)
            assert ended(process)[0] == 0
        with streaming(broker, bundle, scheme="mqtts") as process:  # an authority that nobody knows
            _, err = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 2
            assert b"cannot be trusted" in err
            assert b"AEEDGE_MQTT_CA" in err


def test_a_broker_that_wants_a_password(tmp_path, bundle):
    import base64
    import hashlib

    salt = b"0123456789ab"
    digest = hashlib.pbkdf2_hmac("sha512", b"secret", salt, 101)
    coded = [base64.b64encode(part).decode() for part in (salt, digest)]
    (tmp_path / "passwords").write_text(f"me:$7$101${coded[0]}${coded[1]}\n")
    (tmp_path / "passwords").chmod(0o600)
    with running(tmp_path, "allow_anonymous false", f"password_file {tmp_path}/passwords") as broker:
        right = {"AEEDGE_MQTT_USERNAME": "me", "AEEDGE_MQTT_PASSWORD": "secret"}
        with streaming(broker, bundle, env=right) as process:
            ready(process)
            assert ended(process)[0] == 0
        for wrong in ({}, right | {"AEEDGE_MQTT_PASSWORD": "guess"}):
            with streaming(broker, bundle, env=wrong) as process:
                _, err = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 2
            assert b"refuses the connection" in err
            assert b"AEEDGE_MQTT_USERNAME" in err
            assert b"guess" not in err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mqtt://me:secret@host/topic", "without a user or password"),
        ("mqtt://me@host/topic", "without a user or password"),
        ("mqtt://host", "expected mqtt://HOST"),
        ("mqtt://host/", "expected mqtt://HOST"),
        ("mqtt:///topic", "expected mqtt://HOST"),
        ("http://host/topic", "expected mqtt://HOST"),
        ("host/topic", "expected mqtt://HOST"),
        ("mqtt://host:port/topic", "expected mqtt://HOST"),
        ("mqtt://host:99999/topic", "expected mqtt://HOST"),
        ("mqtt://host/plant/+/x", "wildcard"),
        ("mqtt://host/plant/#", "wildcard"),
    ],
)
def test_an_address_that_is_none_is_refused(url, words):
    with pytest.raises(InputError) as raised:
        Address.parse(url)
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


def test_addresses():
    assert Address.parse("mqtt://host/a/b") == ("host", 1883, "a/b", False)
    assert Address.parse("mqtts://[::1]:99//a?b") == ("::1", 99, "/a?b", True)
    ids = {default_client_id(bundle, topic) for bundle in "ab" for topic in "xy"}
    assert len(ids) == 4
    assert all(len(each) <= 23 for each in ids)  # as long as every broker allows


@pytest.mark.parametrize(
    ("options", "env", "words"),
    [
        (["--publish", IN], {}, "expected another topic"),
        (["--publish", "a/#"], {}, "--publish: expected one topic"),
        ([], {"AEEDGE_MQTT_PASSWORD": "x"}, "expected AEEDGE_MQTT_USERNAME as well"),
        ([], {"AEEDGE_MQTT_CA": "ca.crt"}, "expected an address with mqtts://"),
        (["file.csv"], {}, "expected SOURCE or --mqtt"),
    ],
)
def test_options_that_do_not_fit_are_refused(bundle, options, env, words, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    command = ["stream", str(bundle), "--mqtt", f"mqtt://127.0.0.1:1/{IN}", *options]
    done = CliRunner().invoke(AeedgeGroup.build(), command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


# examples/gateway


def test_the_broker_takes_the_examples_configuration(tmp_path, keys):
    lines = (EXAMPLE / "mosquitto.conf").read_text()
    lines = lines.replace("#listener 8883", f"listener {free_port()}").replace("#cafile", "cafile")
    lines = lines.replace("#certfile", "certfile").replace("#keyfile", "keyfile")
    lines = lines.replace("/etc/mosquitto/certs", str(keys)).replace("/etc/mosquitto/aeedge.passwords", f"{tmp_path}/p")
    (tmp_path / "p").write_text("")
    (tmp_path / "p").chmod(0o600)
    kept = [line for line in lines.splitlines() if not line.startswith("listener 1883")]
    with running(tmp_path, *kept) as broker:  # on a port of its own
        assert broker.port


def test_the_command_of_the_unit_can_be_called():
    unit = (EXAMPLE / "aeedge-stream@.service").read_text().replace("\\\n", " ")
    command = re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1]
    words = shlex.split(command)
    assert words[0].endswith("/aeedge")
    made = AeedgeGroup.build().get_command(None, words[1]).make_context("stream", words[2:])
    assert made.params["state"]
    assert made.params["publish"] != made.params["mqtt"].split("/", 3)[3]
    assert "Restart=always" in unit
    assert "DynamicUser=yes" in unit
