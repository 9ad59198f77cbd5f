"""The sink `mqtt`: every event is a message to a broker, which has to acknowledge it (QoS 1)."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import Field, SecretStr, field_validator

from snl.service.policy import Policy
from snl.service.sinks.base import (
    DeliveryError,
    Event,
    SinkSettings,
    allowed_address,
    tls_context,
)

KEEPALIVE = 30
"""Seconds after which a broker that is silent is asked whether it lives."""
OVERHEAD = 64
"""Bytes of a message besides topic and content, at the most."""
FAILURE, TOO_LARGE = 0x80, 0x95
PERMANENT = (0x87, 0x90, TOO_LARGE, 0x99)
"""Reasons of a broker (MQTT 5) that a second try would not change: no permission for the topic,
topic or content not accepted, message too large."""
_FIELD = re.compile(r"\{(\w*)\}")
_FIELDS = ("product", "decision", "model")


class MqttSettings(SinkSettings):
    """Settings of an MQTT broker.

    Attributes:
        url: `mqtt://HOST:PORT`, or `mqtts://HOST:PORT` with TLS.
        topic: with the fields {product}, {decision} and {model}.
        username, password: for the broker; empty: none.
        version: of MQTT; only with 5 does a broker say that a message was refused.
        timeout: seconds for connecting, and for the acknowledgement.
        ca: PEM file of the authority of the broker's certificate; empty: those of the system.
    """

    url: str = Field(max_length=2000)
    topic: str = Field(default="snl/{product}/{decision}", min_length=1, max_length=200)
    username: str = Field(default="", max_length=500)
    password: SecretStr = SecretStr("")
    version: Literal["5", "3.1.1"] = "5"
    timeout: float = Field(default=10.0, gt=0, le=120)
    ca: str = Field(default="", max_length=1000)

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, topic: str) -> str:
        unknown = [name for name in _FIELD.findall(topic) if name not in _FIELDS]
        if unknown or re.search(r"[{}]", _FIELD.sub("", topic)):
            raise ValueError("the fields are {" + "}, {".join(_FIELDS) + "}")
        if re.search(r"[+#\x00-\x1f\x7f]", topic) or topic.startswith("$"):
            raise ValueError("it must not have + or # or begin with $")
        return topic


class MqttSink:
    """Publishes events. A connection that has failed is never used again."""

    Settings: ClassVar[type[SinkSettings]] = MqttSettings
    batch: ClassVar[int] = 16

    def __init__(self, settings: MqttSettings, policy: Policy | None) -> None:
        self.settings = settings
        self._address = allowed_address(settings.url, ("mqtt", "mqtts"), policy)
        uses_tls = self._address.scheme == "mqtts"
        self._tls = tls_context(settings.ca, policy) if uses_tls else None
        self._connection: _Connection | None = None

    def deliver(self, events: Sequence[Event]) -> None:
        """Publish events, and wait until the broker has acknowledged all of them."""
        if self._connection is None or not self._connection.is_open:
            self.close()
            self._connection = _Connection(self.settings, self._address, self._tls)
        for number, event in enumerate(events):
            try:
                self._connection.publish(topic_of(self.settings.topic, event), event.body.encode())
            except DeliveryError as error:
                error.done = number
                if not error.permanent:
                    self.close()  # what it has not sent must not be sent later, behind others
                raise

    def test(self, event: Event) -> None:
        """Publish an event of the type `test`, with product and decision `test`."""
        self.deliver([event])

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """A connection to a broker.

    Raises:
        DeliveryError: it cannot be reached, or refuses.
    """

    def __init__(self, settings: MqttSettings, address: Any, tls: Any) -> None:
        self.seconds = settings.timeout
        self._changed = threading.Condition()
        self._open = False
        self._refused = ""
        self._acknowledged: dict[int, int] = {}
        self._largest = 0
        self._ended: int | None = None
        self.client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"snl-{secrets.token_hex(8)}",
            protocol=paho.MQTTv5 if settings.version == "5" else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self.seconds
        if settings.username:
            client.username_pw_set(settings.username, settings.password.get_secret_value() or None)
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        try:
            client.connect(address.host, address.port, KEEPALIVE)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DeliveryError(f"the broker cannot be reached ({reason})") from None
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._refused, self.seconds)
            reason = self._refused or f"no answer within {self.seconds:g} s"
            if self._open:
                return
        self.close()
        raise DeliveryError(f"the broker refuses the connection ({reason})")

    @property
    def is_open(self) -> bool:
        """Whether messages can be published."""
        return self._open

    def publish(self, topic: str, content: bytes) -> None:
        """Publish a message, and wait for its acknowledgement.

        Raises:
            DeliveryError: it was not acknowledged.
        """
        if self._largest and len(topic.encode()) + len(content) + OVERHEAD > self._largest:
            raise DeliveryError(
                f"the message is larger than the broker takes ({self._largest} bytes)",
                permanent=True,
            )
        number = self.client.publish(topic, content, qos=1).mid
        with self._changed:
            self._changed.wait_for(
                lambda: number in self._acknowledged or not self._open, self.seconds
            )
            code = self._acknowledged.pop(number, None)
        if code is None and self._ended == TOO_LARGE:
            raise DeliveryError("the message is larger than the broker takes", permanent=True)
        if code is None:
            what = "no acknowledgement" if self._open else "the broker has closed the connection"
            raise DeliveryError(what)
        if code >= FAILURE:
            raise DeliveryError(
                f"the broker refuses the message (reason {code:#x})", permanent=code in PERMANENT
            )

    def close(self) -> None:
        """Close the connection."""
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(self, _: Any, __: Any, ___: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._largest = getattr(properties, "MaximumPacketSize", 0)
            if reason.is_failure:
                self._refused = str(reason)
            else:
                self._open = True
            self._changed.notify_all()

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        with self._changed:
            self._open, self._ended = False, reason.value
            self._refused = self._refused or str(reason)
            self._changed.notify_all()

    def _on_publish(self, _: Any, __: Any, number: int, reason: Any, ___: Any) -> None:
        with self._changed:
            self._acknowledged[number] = reason.value
            self._changed.notify_all()


def topic_of(template: str, event: Event) -> str:
    """Return the topic of an event; what a topic cannot have is replaced by `_`."""
    inspection = event.inspection
    return _FIELD.sub(lambda field: level(str(inspection.get(field[1], "test"))), template)


def level(text: str) -> str:
    """Return a text as one level of a topic."""
    safe = "".join("_" if c in "/+#" or c.isspace() or not c.isprintable() else c for c in text)
    return f"_{safe[1:]}" if safe.startswith("$") else safe or "_"
