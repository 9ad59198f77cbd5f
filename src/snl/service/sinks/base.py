"""What a sink is, for those of the project and for plug-ins."""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from snl.errors import SettingsError, SnlError
from snl.service.connectors import ConnectorSettings
from snl.service.policy import Address, Policy, parse, real_path

Decision = Literal["normal", "uncertain", "anomalous", "unknown product"]


class DeliveryError(SnlError):
    """An event could not be delivered.

    Args:
        message: why, in one line; administrators see it.
        permanent: whether it would be the same the next time: the event becomes a dead letter.
        done: events of the call before it, which were delivered.
        retry_after: seconds that the receiver asks to wait; None: it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        done: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.permanent, self.done, self.retry_after = permanent, done, retry_after


@dataclass(frozen=True)
class Event:
    """What a sink delivers.

    Attributes:
        id: by which a receiver knows an event that it has got before.
        body: one line of JSON: `id`, `type`, `created`, `inspection`.
    """

    id: str
    body: str

    @property
    def inspection(self) -> dict[str, Any]:
        """The inspection; empty for an event of another type."""
        found: dict[str, Any] = json.loads(self.body).get("inspection", {})
        return found


class SinkSettings(ConnectorSettings):
    """Settings of every kind of sink; a kind adds its own.

    Attributes:
        decisions: inspections with another decision are left out; empty: all are delivered.
        products: likewise.
    """

    decisions: tuple[Decision, ...] = ()
    products: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()

    def wants(self, decision: str, product: str) -> bool:
        """Return whether an inspection is delivered."""
        return (not self.decisions or decision in self.decisions) and (
            not self.products or product in self.products
        )


class Sink(Protocol):
    """A receiver of events. Making one connects to nothing; `deliver` does.

    The class has the settings as `Settings`, and is called with them and with what they may reach:
    a `Policy` where the API has set them, None where the configuration file has. All methods are
    called by one thread.
    """

    Settings: ClassVar[type[SinkSettings]]
    batch: ClassVar[int]
    """Events of one `deliver`, at the most."""

    def __init__(self, settings: Any, policy: Policy | None) -> None: ...

    def deliver(self, events: Sequence[Event]) -> None:
        """Deliver events in their order; when it returns, the receiver has all of them.

        Raises:
            DeliveryError: one was not delivered; those after it were not tried.
        """

    def test(self, event: Event) -> None:
        """Find out whether events would be delivered; `event` is one of the type `test`.

        Raises:
            DeliveryError: they would not.
        """

    def close(self) -> None:
        """Release connections and files."""


def allowed_address(url: str, schemes: Sequence[str], policy: Policy | None) -> Address:
    """Return an address that the policy allows.

    Raises:
        SettingsError: it is not allowed, or of another scheme.
    """
    address = parse(url)
    if address.scheme not in schemes:
        raise SettingsError(f"url: give an address that begins with {' or '.join(schemes)}")
    if policy is not None:
        policy.check_address(url)
    return address


def allowed_path(path: str, policy: Policy | None) -> Path:
    """Return the real path of a file that the policy allows.

    Raises:
        SettingsError: it is not allowed.
    """
    return real_path(path) if policy is None else policy.check_folder(path)


def tls_context(ca: str, policy: Policy | None) -> ssl.SSLContext:
    """Return what certificates are checked with.

    Args:
        ca: PEM file of the authority; empty: those of the system.
        policy: that allows the file.

    Raises:
        SettingsError: the file cannot be used.
    """
    if not ca:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(allowed_path(ca, policy)))
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"ca: {ca[:120]} cannot be used; give a PEM file with the authority's certificate"
        ) from None
