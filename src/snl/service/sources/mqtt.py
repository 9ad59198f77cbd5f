"""A topic of an MQTT broker, whose messages are images.

A message is acknowledged to the broker only after its inspection is in the store. The session is
persistent: what is published while the service is away waits at the broker. The broker may deliver
a message again; the same content of the same topic is inspected once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import queue
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import Field, SecretStr, field_validator

from snl.data.listing import shown
from snl.errors import DataError, ImageError
from snl.service.policy import Policy
from snl.service.sinks.base import allowed_address, tls_context
from snl.service.sources.base import MOST_BYTES, Source, SourceImage, SourceSettings

KEEPALIVE = 30
"""Seconds after which a broker that is silent is asked whether it lives."""
CONNECT_SECONDS = 10.0
"""Within which a broker must answer."""
WAITING = 64
"""Messages that may wait here; the broker keeps the others."""
LOOK_SECONDS = 0.2
"""How often a thread that waits looks whether the source was closed."""
_TEXTS = {"name": 300, "part": 200, "product": 200, "id": 200}
"""Texts of a JSON message beside the image, and their largest lengths."""


class MqttSettings(SourceSettings):
    """Settings of a topic.

    Attributes:
        url: `mqtt://HOST:PORT`, or `mqtts://HOST:PORT` with TLS.
        topic: that is subscribed; + and # as usual.
        username, password: for the broker; empty: none.
        client_id: by which the broker knows the session; empty: `snl-` and the source's name. Two
            services on a broker need different ones.
        ca: PEM file of the authority of the broker's certificate; empty: those of the system.
    """

    url: str = Field(max_length=2000)
    topic: str = Field(min_length=1, max_length=1000)
    username: str = Field(default="", max_length=500)
    password: SecretStr = SecretStr("")
    client_id: str = Field(default="", max_length=200)
    ca: str = Field(default="", max_length=1000)

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, topic: str) -> str:
        levels = topic.split("/")
        if any("#" in level for level in levels[:-1]) or "\0" in topic or any(
            len(level) > 1 and ("+" in level or "#" in level) for level in levels
        ):  # fmt: skip
            raise ValueError("it is no topic; + is a whole level, and # the whole last one")
        return topic


@dataclass(frozen=True)
class Message:
    """What the payload of a message says.

    Attributes:
        content: of the image file.
        name, part: for the inspection.
        product: that the image shows; None: not said.
        id: by which the sender knows the image; empty: by its content.
    """

    content: bytes
    name: str = ""
    part: str = ""
    product: str | None = None
    id: str = ""


class MqttSource(Source):
    """Yields the images of a topic in the order in which they come."""

    Settings = MqttSettings
    settings: MqttSettings

    def __init__(self, name: str, settings: MqttSettings, policy: Policy | None) -> None:
        super().__init__(name, settings, policy)
        self._address = allowed_address(settings.url, ("mqtt", "mqtts"), policy)
        secure = self._address.scheme == "mqtts"
        self._tls = tls_context(settings.ca, policy) if secure else None
        self._arrived: queue.Queue[paho.MQTTMessage] = queue.Queue(WAITING)
        self._problem = ""
        self._connected: queue.Queue[str] = queue.Queue()
        self._client: paho.Client | None = None

    def open(self) -> None:
        """Connect and subscribe.

        Raises:
            DataError: the broker cannot be reached, or refuses.
        """
        settings = self.settings
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or f"snl-{self.name}",
            clean_session=False,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_SECONDS
        if settings.username:
            client.username_pw_set(settings.username, settings.password.get_secret_value() or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        try:
            client.connect(self._address.host, self._address.port, KEEPALIVE)
        except (OSError, ValueError, ssl.SSLError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"the broker cannot be reached ({reason})") from None
        client.loop_start()
        try:
            problem = self._connected.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            problem = f"no answer within {CONNECT_SECONDS:g} s"
        if problem:
            raise DataError(f"the broker refuses: {problem}")

    def images(self) -> Iterator[SourceImage]:
        """Yield images until the connection ends.

        Raises:
            DataError: it ended.
        """
        while not self.closing.is_set():
            try:
                message = self._arrived.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                if self._problem:
                    raise DataError(
                        f"the connection to the broker ended ({self._problem})"
                    ) from None
                continue
            yield self._image(message)

    def stored(self, image: SourceImage) -> None:
        """Acknowledge a message."""
        if self._client is not None:
            self._client.ack(*image.token)

    def refused(self, image: SourceImage, why: str) -> bool:
        """Acknowledge a message that is no image: it would come again for ever."""
        self.stored(image)
        return True

    def close(self) -> None:
        """Disconnect; the broker keeps what was not acknowledged."""
        super().close()
        self._connected.put("the source was closed")
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _image(self, message: paho.MQTTMessage) -> SourceImage:
        token = message.mid, message.qos
        digest = hashlib.sha256(message.topic.encode("utf-8", "replace") + b"\0")
        try:
            said = read_message(bytes(message.payload))
        except ImageError as error:
            return SourceImage(partial(_raise, error), shown(message.topic), token=token)
        digest.update(f"id {said.id}".encode() if said.id else message.payload)
        content: Callable[[], bytes] = partial(bytes, said.content)
        return SourceImage(
            content,
            said.name or shown(message.topic),
            f"source:{self.name}/{digest.hexdigest()}",
            part=said.part,
            product=said.product,
            token=token,
        )

    # --- calls of paho, in its thread ---

    def _on_connect(self, client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            self._connected.put(str(reason))
        else:
            client.subscribe(self.settings.topic, qos=1)

    def _on_subscribe(self, _: Any, __: Any, ___: Any, reasons: Any, ____: Any) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self._connected.put(f"{failed[0]} (the topic)" if failed else "")

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        """Queue a message. While the queue is full nothing is read, so the broker keeps the rest;
        of messages that it does not keep (QoS 0), what comes is dropped."""
        while not self.closing.is_set():
            try:
                self._arrived.put(message, timeout=LOOK_SECONDS if message.qos else 0.001)
                return
            except queue.Full:
                if not message.qos:
                    self.dropped += 1
                    return

    def _on_disconnect(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self._connected.put(str(reason))
        self._problem = str(reason) or "closed"


def read_message(payload: bytes) -> Message:
    """Return what a payload says: an image file, or JSON with an image in base64.

    Raises:
        ImageError: it is neither.
    """
    if len(payload) > MOST_BYTES:
        raise ImageError(f"the message is larger than {MOST_BYTES // 2**20} MiB")
    if not payload[:100].lstrip().startswith(b"{"):
        return Message(payload)
    try:
        said = json.loads(payload)
        content = base64.b64decode(said.pop("image"), validate=True)
        texts = {name: said.pop(name) for name in _TEXTS if said.get(name) is not None}
        if said.keys() - _TEXTS:
            raise ImageError(f"the message has an unknown key: {shown(next(iter(said)))[:40]}")
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > _TEXTS[name]:
                raise ImageError(f"the message's {name} is not a text of {_TEXTS[name]} characters")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise ImageError(
            'the message is not JSON such as {"image": "<base64>", "name": "1.png"}'
        ) from None
    return Message(content, **{name: shown(text) for name, text in texts.items()})


def _raise(error: Exception) -> bytes:
    raise error
