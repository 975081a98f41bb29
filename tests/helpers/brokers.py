"""A real MQTT broker that tests start, stop and start again, and clients of it."""

import getpass
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress

import mosquitto
import paho.mqtt.client as paho
import pytest
from debian_packages import UnavailableError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from helpers.children import TIMEOUT
from helpers.waiting import soon


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """A broker with a port and a folder of its own, which keeps sessions when it is stopped."""

    def __init__(self, folder, *lines):
        try:
            self._program, self._environment = mosquitto.command()
        except UnavailableError as error:
            pytest.skip(f"NOTHING WAS TESTED, there is no mosquitto here: {error}")
        self.port = free_port()
        settings = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/"]
        settings += [f"user {getpass.getuser()}", *(lines or ["allow_anonymous true"])]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(settings) + "\n")
        self._process = None

    def url(self, topic, scheme="mqtt"):
        return f"{scheme}://127.0.0.1:{self.port}/{topic}"

    def start(self):
        command = [self._program, "-c", str(self._config)]
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=self._environment, stdout=null, stderr=null)
        assert soon(self._listens), "mosquitto does not start"

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(TIMEOUT)
            self._process = None

    def _listens(self):
        assert self._process.poll() is None, f"mosquitto ended with {self._process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running(folder, *lines):
    """A broker that runs, and is stopped at the end."""
    broker = Mosquitto(folder, *lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Proxy:
    """A port that leads to a broker, and can be cut: connections end in the middle of what they carry."""

    def __init__(self, broker):
        self._target, self._open, self._pumps, self.cuts = broker.port, [], [], 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def url(self, topic, scheme="mqtt"):
        return f"{scheme}://127.0.0.1:{self.port}/{topic}"

    @property
    def connected(self):
        return bool(self._open)

    def cut(self):
        ends, self._open = self._open, []
        self.cuts += bool(ends)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.join()

    def _accept(self):
        with suppress(OSError):
            while True:
                near = self._server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    self._pumps.append(threading.Thread(target=self._pump, args=(source, target)))
                    self._pumps[-1].start()

    @staticmethod
    def _pump(source, target):
        with source, suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Client:
    """Publishes with QoS 1, and keeps what it gets of a topic, over restarts of the broker."""

    def __init__(self, broker, name, topic=None, secure=None):
        self.messages, self._sent, self._confirmed, self._subscribed = [], [], set(), False
        self._topic = topic
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        client.max_queued_messages_set(0)
        client.reconnect_delay_set(1, 1)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_publish, client.on_subscribe = self._on_publish, self._on_subscribe
        if secure is not None:
            secure(client)
        self._client = client
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", broker.port, clean_start=False, properties=properties)
        client.loop_start()
        assert topic is None or soon(lambda: self._subscribed)

    def publish(self, topic, payload, *, retain=False):
        self._sent.append(self._client.publish(topic, payload, qos=1, retain=retain).mid)

    def has_sent_all(self):
        return soon(lambda: self._confirmed >= set(self._sent))

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # it closes its sockets now, where a collection of garbage would warn of them

    def _on_connect(self, client, _data, _flags, _reason, _properties):
        if self._topic is not None:
            client.subscribe(self._topic, qos=1)

    def _on_message(self, _client, _data, message):
        self.messages.append(message.payload)

    def _on_publish(self, _client, _data, number, _reason, _properties):
        self._confirmed.add(number)

    def _on_subscribe(self, *_):
        self._subscribed = True
