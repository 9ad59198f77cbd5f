"""Tokens and roles: who may do what."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from snl.errors import SettingsError
from snl.service.store import Store
from snl.service.tables import TokenRow

ROLES = ("read", "inspect", "review", "admin")
"""Every role may do what those before it may."""
_PREFIX = "snl"
_DUMMY = hashlib.sha256(b"no token").hexdigest()


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: of the token; `local` where the server has none.
        role: one of ROLES.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Return whether the caller has a role, or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Caller("local", "admin")
"""Anybody on this machine, where no token was created."""


def create(store: Store, name: str, role: str, who: str = "local") -> str:
    """Create a token and return it; only its hash is stored, so it is shown once.

    Raises:
        SettingsError: an unknown role, or an empty or long name.
    """
    if role not in ROLES:
        raise SettingsError(f"role '{role}': choose of {', '.join(ROLES)}")
    if not name.strip() or len(name) > 100:
        raise SettingsError(f"token name '{name[:40]}': give 1 to 100 characters")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    token = TokenRow(
        id=id, name=name.strip(), role=role, hash=_hash(secret), created=datetime.now(UTC)
    )
    store.add_token(token, who)
    return f"{_PREFIX}_{id}_{secret}"


def caller_of(store: Store, token: str) -> Caller | None:
    """Return whose token this is; None: nobody's, or it was revoked.

    The hash is compared in constant time, also where there is no token with this id.
    """
    prefix, _, rest = token.partition("_")
    id, _, secret = rest.partition("_")
    row = store.token(id) if prefix == _PREFIX and 0 < len(id) <= 16 else None
    same = hmac.compare_digest(_hash(secret), row.hash if row else _DUMMY)
    if row is None or not same or row.revoked is not None:
        return None
    return Caller(row.name, row.role)


def is_loopback(host: str) -> bool:
    """Return whether a host, by name or address, is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()
