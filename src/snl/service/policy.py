"""What the API may let the service reach: only addresses and folders of the configuration.

Who may set up a sink or a source through the API must not make the service send to, read from or
write to places that its operator has not allowed (server-side request forgery). Addresses are
compared as a whole, after a strict parser of our own: what two parsers could read differently is
refused. Redirects are never followed, so an allowed address cannot lead to another one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from snl.errors import SettingsError

PORTS = {
    "http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883, "rtsp": 554, "rtsps": 322,
    "opc.tcp": 4840,
}  # fmt: skip
"""Default ports by scheme; an address of another scheme states its port."""
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#]*)(?P<rest>[/?#].*)?", re.I)
_PLACE = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?", re.I)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2000}")


@dataclass(frozen=True)
class Address:
    """The part of a URL that says whom it reaches, in its normal form.

    Attributes:
        scheme: in lower case.
        host: name in lower case, or IP address without brackets.
        port: also where the URL leaves it out.
        rest: path and query.
    """

    scheme: str
    host: str
    port: int
    rest: str = ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be equal to that of an allowed address."""
        return self.scheme, self.host, self.port


@dataclass(frozen=True)
class Policy:
    """Addresses and folders that the configuration allows; empty: none.

    Attributes:
        addresses: such as `https://mes.plant:8443`, `mqtt://broker` or `rtsp://10.1.2.3`; scheme,
            host and port, without user, path or query.
        folders: everything inside is allowed.

    Raises:
        SettingsError: an address is not one.
    """

    addresses: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for url in self.addresses:
            if parse(url).rest not in ("", "/"):
                raise SettingsError(
                    f"allowed address {_short(url)}: give scheme, host and port alone, such as "
                    "https://mes.plant:8443"
                )

    def check_address(self, url: str) -> None:
        """Check that a URL reaches an allowed address.

        Raises:
            SettingsError: it does not, or it is no URL.
        """
        address = parse(url)
        if address.origin not in {parse(allowed).origin for allowed in self.addresses}:
            host = f"[{address.host}]" if ":" in address.host else address.host
            raise SettingsError(
                f"{address.scheme}://{host}:{address.port} is not allowed; allow this address in "
                "the configuration file of the service"
            )

    def check_folder(self, path: str) -> Path:
        """Return the real path of a file or folder inside an allowed folder; it may be missing.

        Raises:
            SettingsError: it is outside, also by `..` or a symbolic link.
        """
        real = real_path(path)
        if not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
            raise SettingsError(
                f"{_short(path)} is in no allowed folder; allow its folder in the configuration "
                "file of the service"
            )
        return real


def parse(url: str) -> Address:
    """Return whom a URL reaches.

    Raises:
        SettingsError: it is no URL, has a user, or its host can be read in more than one way.
    """
    match = _URL.fullmatch(url) if _PRINTABLE.fullmatch(url) and "\\" not in url else None
    if match is None:
        raise SettingsError(
            f"address '{_short(url)}': give one such as https://mes.plant:8443/path, in ASCII and "
            "without spaces"
        )
    if "@" in match["place"]:
        raise SettingsError(
            "an address has no user and password before its host; give them as settings of their "
            "own"
        )
    place = _PLACE.fullmatch(match["place"])
    scheme = match["scheme"].lower()
    host = _host(place["host"]) if place else ""
    if place is None or not host:
        raise SettingsError(
            f"address '{_short(url)}': the host must be a name such as mes.plant, an IPv4 address "
            "such as 10.1.2.3 or an IPv6 address in [ ]"
        )
    port = int(place["port"]) if place["port"] else PORTS.get(scheme, 0)
    if not 0 < port < 65536:
        raise SettingsError(f"address '{_short(url)}': give a port of 1 to 65535 after the host")
    return Address(scheme, host, port, match["rest"] or "")


def real_path(path: str) -> Path:
    """Return an absolute path without symbolic links and `..`.

    Raises:
        SettingsError: it is relative, or no path.
    """
    try:
        given = Path(path)
        if "\0" in path or not given.is_absolute():
            raise SettingsError(f"path '{_short(path)}': give an absolute path")
        return given.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, for example
        raise SettingsError(f"path '{_short(path)}': cannot be resolved") from error


def _host(text: str) -> str:
    """Return a host in its normal form; empty: it is none, or not a clear one."""
    text = text.lower()
    try:
        if text.startswith("["):
            return str(ipaddress.IPv6Address(text[1:-1]))
        labels = text.split(".")
        if _NUMBER.fullmatch(labels[-1]):  # some read 2130706433, 0x7f.1 or 127.1 as an address
            return str(ipaddress.IPv4Address(text))
    except ValueError:
        return ""
    if len(text) > 253 or any(
        not _LABEL.fullmatch(label) or label.startswith("xn--") for label in labels
    ):
        return ""
    return text


def _short(text: str) -> str:
    """Return a text as a message can show it, without what could be a password."""
    shown = re.sub(r"//[^/]*@", "//...@", text)
    return "".join(c if c.isprintable() else "?" for c in shown[:120])
