"""The sink `webhook`: every event is an HTTP POST, signed with a shared secret."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar

import httpx
from pydantic import Field, SecretStr, field_validator

from snl import __version__
from snl.service.policy import Policy
from snl.service.sinks.base import (
    DeliveryError,
    Event,
    SinkSettings,
    allowed_address,
    tls_context,
)

AGAIN = (408, 425, 429)
"""Statuses below 500 after which an event is sent again."""
MOST_WAIT = 3600.0
"""Longest `Retry-After` that is followed, in seconds."""
MOST_ANSWER = 64 * 1024
"""Bytes of an answer that are read, so that the connection can be used again."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e]{0,2000}")
_OURS = re.compile(
    r"host|content-.*|transfer-encoding|connection|te|trailer|upgrade|snl-.*", re.IGNORECASE
)


class WebhookSettings(SinkSettings):
    """Settings of a webhook.

    Attributes:
        url: that events are posted to.
        secret: key of the signature; None: events are not signed.
        headers: of every request, such as `Authorization`; their values are secrets.
        timeout: seconds that one request may take.
        ca: PEM file of the authority of the receiver's certificate; empty: those of the system.
    """

    url: str = Field(max_length=2000)
    secret: Annotated[SecretStr, Field(min_length=16, max_length=200)] | None = None
    headers: dict[str, SecretStr] = Field(default={}, max_length=20)
    timeout: float = Field(default=10.0, gt=0, le=120)
    ca: str = Field(default="", max_length=1000)

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or _OURS.fullmatch(name):
                raise ValueError(f"'{name[:40]}' cannot be set")
            if not _VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of {name} must be one line of ASCII")
        return headers


class WebhookSink:
    """Posts events. Redirects are not followed, and proxies of the environment are not used."""

    Settings: ClassVar[type[SinkSettings]] = WebhookSettings
    batch: ClassVar[int] = 1

    def __init__(self, settings: WebhookSettings, policy: Policy | None) -> None:
        address = allowed_address(settings.url, ("https", "http"), policy)
        self.settings = settings
        self._tls = tls_context(settings.ca, policy) if address.scheme == "https" else False
        self._runner: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None

    def deliver(self, events: Sequence[Event]) -> None:
        """Post events one after another."""
        for number, event in enumerate(events):
            try:
                self._post(event)
            except DeliveryError as error:
                error.done = number
                raise

    def test(self, event: Event) -> None:
        """Post an event of the type `test`."""
        self._post(event)

    def close(self) -> None:
        """Close the connection."""
        if self._runner is not None:
            if self._client is not None:
                with suppress(Exception):  # of the transport; it is not used any more
                    self._runner.run(self._client.aclose())
            self._runner.close()
        self._runner = self._client = None

    def _post(self, event: Event) -> None:
        if self._runner is None:
            self._runner = asyncio.Runner()
        seconds = self.settings.timeout
        try:
            # a limit of the whole request, also for a receiver that sends a byte now and then
            answer = self._runner.run(asyncio.wait_for(self._send(event), seconds))
        except TimeoutError:
            raise DeliveryError(f"no answer within {seconds:g} s") from None
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DeliveryError(f"the receiver cannot be reached ({reason})") from None
        _check(*answer)

    async def _send(self, event: Event) -> tuple[int, httpx.Headers, bytes]:
        """Post an event; return status, headers and the beginning of the answer."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._tls,
                timeout=self.settings.timeout,
                follow_redirects=False,
                trust_env=False,
            )
        body = event.body.encode()
        request = self._client.build_request(
            "POST", self.settings.url, content=body, headers=self._headers(event.id, body)
        )
        response = await self._client.send(request, stream=True)
        try:
            content = b""
            async for part in response.aiter_raw():
                content += part
                if len(content) > MOST_ANSWER:
                    break
        finally:
            await response.aclose()
        return response.status_code, response.headers, content

    def _headers(self, id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        headers |= {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Snl-Event-Id": id,
            "Snl-Timestamp": timestamp,
        }
        headers.setdefault("User-Agent", f"snl/{__version__}")
        if self.settings.secret is not None:
            key = self.settings.secret.get_secret_value().encode()
            signature = hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256)
            headers["Snl-Signature"] = f"sha256={signature.hexdigest()}"
        return headers


def _check(status: int, headers: httpx.Headers, content: bytes) -> None:
    """Check that an event was accepted.

    Raises:
        DeliveryError: it was not.
    """
    if 200 <= status < 300:
        return
    text = "".join(c if c.isprintable() else " " for c in content[:300].decode("utf-8", "replace"))
    message = f"the receiver answered {status}: {' '.join(text.split())[:200]}".rstrip(": ")
    if 300 <= status < 400:
        raise DeliveryError(f"the receiver answered {status}, a redirect; it is not followed")
    if status in AGAIN or status >= 500 or status < 200:
        raise DeliveryError(message, retry_after=_seconds(headers.get("retry-after", "")))
    raise DeliveryError(message, permanent=True)


def _seconds(text: str) -> float | None:
    """Return the seconds of a `Retry-After`, which may also be a date."""
    wait: Any = None
    if text.strip().isdecimal():
        wait = float(text.strip()[:10])
    else:
        with suppress(ValueError, TypeError):
            wait = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    return None if wait is None else min(max(wait, 0.0), MOST_WAIT)
