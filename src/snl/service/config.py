"""The configuration file of the service: TOML, checked as a whole before anything starts.

`${NAME}` in a value is replaced by the environment variable NAME, so that secrets need not be in
the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snl.errors import SettingsError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Server(_Part):
    """Section `server`: the options of `snl serve`; the command line comes first."""

    models: list[Path] = []
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data: Path = Path("snl-data")
    store: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    device: str = "auto"
    threads: int = Field(default=0, ge=0, le=1024)
    batch_size: int = Field(default=16, ge=1, le=4096)
    waiting: int = Field(default=64, ge=1, le=10_000)


class Limits(_Part):
    """Section `limits`."""

    body_mib: int = Field(default=64, ge=1, le=4096)
    model_mib: int = Field(default=1024, ge=1, le=65_536)
    answer_seconds: float = Field(default=30.0, gt=0, le=3600)
    body_seconds: float = Field(default=60.0, gt=0, le=3600)
    requests_per_second: float = Field(default=0.0, ge=0, le=1e6)
    burst: int = Field(default=200, ge=1, le=1_000_000)
    connections: int = Field(default=1000, ge=10, le=100_000)


class Retention(_Part):
    """Section `retention`: how long images and maps are kept; rows stay."""

    days: float | None = Field(default=None, gt=0)
    gigabytes: float | None = Field(default=None, gt=0)


class Allow(_Part):
    """Section `allow`: what sources and sinks that are set up through the API may reach."""

    addresses: list[str] = []
    folders: list[Path] = []


class Station(_Part):
    """Section `station`: the web page."""

    words: Path | None = None


class Config(_Part):
    """The configuration file."""

    server: Server = Server()
    limits: Limits = Limits()
    retention: Retention = Retention()
    allow: Allow = Allow()
    station: Station = Station()
    sources: dict[str, dict[str, Any]] = {}
    sinks: dict[str, dict[str, Any]] = {}


def read_config(path: Path) -> Config:
    """Read a configuration file; relative paths in `server` and `allow` are relative to it.

    Raises:
        SettingsError: it cannot be read, is not TOML, or has a wrong or unknown key or value.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); check --config") from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: is not a TOML file ({reason})") from None
    try:
        config = Config.model_validate(_expanded(table, path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(place) for place in first["loc"])
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise SettingsError(f"{path}: {where}: {reason}") from None
    base = path.resolve().parent
    server = config.server
    changes: dict[str, Any] = {
        name: base / value
        for name in ("data", "tls_cert", "tls_key")
        if name in server.model_fields_set and (value := getattr(server, name)) is not None
    }
    changes["models"] = [base / model for model in server.models]
    allow = {"folders": [base / folder for folder in config.allow.folders]}
    words = config.station.words
    return config.model_copy(
        update={
            "station": Station(words=None if words is None else base / words),
            "server": server.model_copy(update=changes),
            "allow": config.allow.model_copy(update=allow),
        }
    )


def _expanded(value: Any, path: Path) -> Any:
    """Return a value with the environment's variables in its texts.

    Raises:
        SettingsError: a variable is not set.
    """
    if isinstance(value, Mapping):
        return {name: _expanded(one, path) for name, one in value.items()}
    if isinstance(value, list):
        return [_expanded(one, path) for one in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise SettingsError(f"{path}: the environment variable {match[1]} is not set") from None

    return _VARIABLE.sub(variable, value)
