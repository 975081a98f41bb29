"""Messages from an MQTT broker, and events back to it. The only file that imports paho, the extra aeedge[mqtt].

A message is acknowledged only when the caller says so (`acknowledge`), after its events have arrived at the broker;
what is not acknowledged comes again when broker or client were started again. The broker keeps the session under a
client id that does not change. Messages that come again although they were taken are told by number and content.
"""

from __future__ import annotations

import os
import queue
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aeedge.bundle.manifest import sha256_hex
from aeedge.errors import InputError

_ENVIRONMENT = "AEEDGE_MQTT_"  # USERNAME, PASSWORD, CA, CERT, KEY
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MOST_UNACKNOWLEDGED = 100  # messages that the broker may send before the first is acknowledged
_REMEMBERED = 1000  # messages that are known when they come again
_FOREVER = 2**32 - 1  # seconds that the broker keeps the session
_KEEPALIVE, _POLL, _SHORT = 30, 0.02, 10.0  # seconds
_TAKEN_OVER = 142  # reason code of MQTT 5
_ADVICE = "the user's name and password come from the environment (AEEDGE_MQTT_USERNAME, AEEDGE_MQTT_PASSWORD)"


class Address(NamedTuple):
    """Where a broker is, and the topic to take messages from."""

    host: str
    port: int
    topic: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read mqtt://HOST[:PORT]/TOPIC, or mqtts:// for TLS.

        Raises:
            InputError: something else, with a password, or with a topic of wildcards.
        """
        expected = "mqtt: expected mqtt://HOST[:PORT]/TOPIC, or mqtts:// for TLS"
        place, _, topic = url.partition("://")[2].partition("/")
        if "@" in place:
            raise InputError(f"mqtt: expected an address without a user or password; {_ADVICE}")
        try:
            parts = urlsplit(f"{url.partition('://')[0]}://{place}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"{expected}, got {url!r:.80} ({error})") from None
        if parts.scheme not in _PORTS or not host or not topic or "\0" in topic:
            raise InputError(f"{expected}, got {url!r:.80}")
        check_topic("mqtt", topic)
        return cls(host, port or _PORTS[parts.scheme], topic, parts.scheme == "mqtts")


class Message(NamedTuple):
    """A message, and what tells it from others.

    Attributes:
        payload: its content.
        number: by which it is acknowledged.
        again: whether the broker has sent it before.
        connection: in which one it came, counted.
    """

    payload: bytes
    number: int
    again: bool
    connection: int

    @property
    def digest(self) -> str:
        """Of the content."""
        return sha256_hex(self.payload)[:16]


class Broker:
    """A connection to a broker, which is made anew whenever it is lost.

    Args:
        address: see Address.
        publish: topic of events; None for none.
        client_id: the same after a restart.
        taken: numbers and digests of the latest messages that were taken before a restart, see `taken`.
        warn: called with a sentence when the connection is lost, or cannot be made.
        waiting: entered while this waits.

    Raises:
        InputError: paho is not installed, credentials that do not fit, or a broker that refuses them.
    """

    def __init__(
        self,
        address: Address,
        publish: str | None,
        client_id: str,
        taken: Mapping[int, str],
        warn: Callable[[str], None],
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        if publish is not None:
            check_topic("publish", publish)
            if publish == address.topic:
                raise InputError("publish: expected another topic than messages come from, got the same")
        self.address, self._publish, self._warn, self._waiting = address, publish, warn, waiting
        self.taken = dict(taken)
        self._name = f"{address.host}:{address.port}"
        self._inbox: queue.SimpleQueue[Message | str | InputError] = queue.SimpleQueue()
        self._connection = 0  # counted
        self._since, self._short = 0.0, 0  # when it was connected last, and how often in a row only for a short time
        self._unacknowledged: list[Message] = []
        self._unpublished: dict[int, None] = {}  # numbers of events, in order
        self._published: set[int] = set()  # of which the broker has confirmed these
        self._client = self._made(client_id)
        self._connect()

    # --- for one thread: the caller's

    def take(self, pause: float) -> Message | None:
        """The next message that was not taken before; None where none came for some seconds.

        Raises:
            InputError: the broker refuses the client.
        """
        end = time.monotonic() + pause
        while True:
            try:
                with self._waiting():
                    found = self._inbox.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            if isinstance(found, InputError):
                raise found
            if isinstance(found, str):
                self._warn(found)
            elif found.again and self.taken.get(found.number) == found.digest:
                self._unacknowledged.append(found)
            else:
                return found

    def done(self, message: Message) -> None:
        """Remember that a message was taken, to acknowledge it later."""
        self.taken.pop(message.number, None)
        self.taken[message.number] = message.digest
        while len(self.taken) > _REMEMBERED:
            del self.taken[next(iter(self.taken))]
        self._unacknowledged.append(message)

    @property
    def unacknowledged(self) -> int:
        """Number of messages that were taken, and not acknowledged."""
        return len(self._unacknowledged)

    def publish(self, payload: str) -> None:
        """Send an event; waits while there are many that have not arrived."""
        assert self._publish is not None
        while len(self._unpublished) >= _MOST_UNACKNOWLEDGED:
            self._wait(_POLL)
        self._unpublished[self._client.publish(self._publish, payload, qos=1).mid] = None

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until all events have arrived at the broker; False where that takes too long (seconds)."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._unpublished:
            if end is not None and time.monotonic() > end:
                return False
            self._wait(_POLL)
        return True

    def acknowledge(self) -> None:
        """Tell the broker that it need not send again what was taken."""
        messages, self._unacknowledged = self._unacknowledged, []
        for message in messages:
            if message.connection == self._connection:  # of another one, it comes again
                self._client.ack(message.number, 1)

    def close(self) -> None:
        """End the connection; the broker keeps the session."""
        self._client.disconnect()
        self._client.loop_stop()

    def _wait(self, seconds: float) -> None:
        for number in [number for number in self._unpublished if number in self._published]:
            del self._unpublished[number]
            self._published.discard(number)
        if self._unpublished:
            with self._waiting():
                time.sleep(seconds)

    # --- the client

    def _made(self, client_id: str) -> Any:
        try:
            import paho.mqtt.client as paho
        except ImportError:
            raise InputError("mqtt: needs the package paho-mqtt; install it with: pip install 'aeedge[mqtt]'") from None
        if not hasattr(paho, "CallbackAPIVersion"):
            raise InputError("mqtt: needs paho-mqtt 2 or later; install it with: pip install -U 'aeedge[mqtt]'")
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, manual_ack=True
        )
        client.max_queued_messages_set(0)
        client.reconnect_delay_set(1, 30)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_subscribe = self._on_disconnect, self._on_subscribe
        client.on_message, client.on_publish = self._on_message, self._on_publish
        _secure(client, self.address)
        return client

    def _connect(self) -> None:
        """Connect, as soon as the broker is there."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval, properties.ReceiveMaximum = _FOREVER, _MOST_UNACKNOWLEDGED
        delay = 1.0
        while True:
            try:
                self._client.connect(
                    self.address.host, self.address.port, _KEEPALIVE, clean_start=False, properties=properties
                )
                break
            except ssl.SSLError as error:
                raise InputError(
                    f"mqtt: {self._name} cannot be trusted ({error}); {_ENVIRONMENT}CA names the file of its authority"
                ) from None
            except OSError as error:
                self._warn(f"{self._name} cannot be reached ({error.strerror or error}); it is tried again")
                with self._waiting():
                    time.sleep(delay)
                delay = min(2 * delay, 30.0)
        self._client.loop_start()

    # --- called by the client's thread, which an exception would end

    def _on_connect(self, client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            what = f"{self._name} refuses the connection ({reason})"
            advice = "it has to speak MQTT 5" if "protocol" in str(reason).lower() else _ADVICE
            first = not self._connection
            self._inbox.put(InputError(f"mqtt: {what}; {advice}") if first else f"{what}; it is tried again")
            return
        if self._connection and not flags.session_present:
            self._inbox.put(f"{self._name} has forgotten the session, messages may be lost")
        self._connection, self._since = self._connection + 1, time.monotonic()
        from paho.mqtt.subscribeoptions import SubscribeOptions

        never = SubscribeOptions.RETAIN_DO_NOT_SEND  # an old message, and at each connection
        client.subscribe(self.address.topic, options=SubscribeOptions(qos=1, retainHandling=never))

    def _on_connect_fail(self, *_: Any) -> None:
        self._inbox.put(f"{self._name} cannot be reached; it is tried again")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if getattr(reason, "value", 0) == _TAKEN_OVER:
            self._inbox.put(InputError("mqtt: another client has the same id; give each its own (--client-id)"))
            return
        self._short = self._short + 1 if time.monotonic() - self._since < _SHORT else 0
        hint = "; does another client have the same id (--client-id)?" if self._short >= 3 else ""
        self._inbox.put(f"the connection to {self._name} is lost ({reason}); it is tried again{hint}")

    def _on_subscribe(self, _client: Any, _data: Any, _number: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._inbox.put(InputError(f"mqtt: {self._name} does not give {self.address.topic} ({reasons[0]})"))
        else:
            self._inbox.put(f"listens to {self.address.topic} of {self._name}")

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self._inbox.put(Message(bytes(message.payload), message.mid, message.dup, self._connection))

    def _on_publish(self, _client: Any, _data: Any, number: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._inbox.put(f"{self._name} does not take events ({reason})")
        self._published.add(number)


def check_topic(name: str, topic: str) -> None:
    """Refuse a topic with wildcards.

    Raises:
        InputError: it has one.
    """
    if not topic or "+" in topic or "#" in topic:
        raise InputError(
            f"{name}: expected one topic, for a stream is one signal, got {topic!r:.80} with a wildcard (+ or #)"
        )


def default_client_id(bundle_id: str, topic: str) -> str:
    """A client's id that is the same after a restart, and another one for another bundle or topic."""
    return f"aeedge-{sha256_hex(f'{bundle_id} {topic}'.encode())[:16]}"


def _secure(client: Any, address: Address) -> None:
    """Credentials and TLS from the environment."""
    given = {name: os.environ.get(_ENVIRONMENT + name) for name in ("USERNAME", "PASSWORD", "CA", "CERT", "KEY")}
    if given["PASSWORD"] and not given["USERNAME"]:
        raise InputError(f"mqtt: {_ENVIRONMENT}PASSWORD is set, expected {_ENVIRONMENT}USERNAME as well")
    if given["USERNAME"]:
        client.username_pw_set(given["USERNAME"], given["PASSWORD"])
    files = {name: given[name] for name in ("CA", "CERT", "KEY") if given[name]}
    if not address.tls:
        if files:
            raise InputError(f"mqtt: {_ENVIRONMENT}{next(iter(files))} is set, expected an address with mqtts://")
        return
    try:
        client.tls_set(files.get("CA"), files.get("CERT"), files.get("KEY"))
    except (OSError, ValueError) as error:
        named = ", ".join(f"{_ENVIRONMENT}{name}={path}" for name, path in files.items())
        raise InputError(f"mqtt: the files of TLS cannot be read ({error}): {named}") from None
