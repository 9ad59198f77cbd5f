"""Sources and sinks: their kinds, their settings, and those that were set up through the API."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from snl.errors import DependencyError, PluginError, SettingsError
from snl.service.store import NotThereError, Store, audit
from snl.service.tables import ConnectorRow, PausedRow

NAME = re.compile(r"\w[\w .+-]{0,79}")
"""Name of a source or sink."""
_LOGIN = re.compile(r"//\S*@")
_SECRET = re.compile(
    r"([?&][^=&\s]*(?:pass|pwd|token|key|secret|auth|user)[^=&\s]*=)[^&#\s]*", re.I
)
MASK = "**********"
"""What pydantic shows instead of a secret."""


class ConnectorSettings(BaseModel):
    """Base class of the settings of a kind; a secret is a `pydantic.SecretStr`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Kinds:
    """The kinds of sources or of sinks: built in, and of other packages.

    A kind is a class with an attribute `Settings`, a subclass of `ConnectorSettings`. A package
    adds one with an entry point whose name is the kind and whose value is `module:Class`.

    Args:
        role: `source` or `sink`.
        group: of the entry points.
        builtin: `module:Class` by kind.
    """

    def __init__(self, role: str, group: str, builtin: Mapping[str, str]) -> None:
        self.role, self.group, self.builtin = role, group, builtin

    def names(self) -> list[str]:
        """Return the kinds, built-in ones first."""
        return list(dict.fromkeys([*self.builtin, *sorted(self._installed())]))

    def get(self, kind: str) -> Any:
        """Return the class of a kind.

        Raises:
            PluginError: there is none, or it cannot be imported.
        """
        target = self.builtin.get(kind) or self._installed().get(kind)
        if target is None:
            raise PluginError(
                f"there is no kind of {self.role} '{kind[:40]}'; installed: "
                f"{', '.join(self.names())}"
            )
        module, _, name = target.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except Exception as error:  # a package of somebody else may raise anything
            if kind in self.builtin and isinstance(error, ImportError):
                raise DependencyError(
                    f"the {self.role} kind '{kind}' needs {error.name}: "
                    "pip install 'snl-ad[service]'"
                ) from None
            if kind in self.builtin:
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise PluginError(
                f"the {self.role} kind '{kind}' ({target}) cannot be imported ({reason}); repair "
                "or uninstall its package"
            ) from None

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of the settings of each kind that can be imported."""
        found = {}
        for kind in self.names():
            with suppress(DependencyError, PluginError):
                found[kind] = self.get(kind).Settings.model_json_schema()
        return found

    def settings(self, name: str, given: Mapping[str, Any]) -> tuple[str, ConnectorSettings]:
        """Return the kind and the checked settings of a mapping with `kind`.

        Args:
            name: of the source or sink, for messages.
            given: `kind` and its settings.

        Raises:
            SettingsError: something is missing, unknown or wrong.
            PluginError: there is no such kind, or it cannot be imported.
        """
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"{self.role} '{name[:40]}': give a name of up to 80 letters, digits, spaces, . + -"
            )
        values = dict(given)
        kind = values.pop("kind", None)
        if not isinstance(kind, str):
            raise SettingsError(
                f"{self.role} {name}: give its kind, one of {', '.join(self.names())}"
            )
        settings: type[ConnectorSettings] = self.get(kind).Settings
        if _has(values, MASK):
            raise SettingsError(
                f"{self.role} {name}: give secrets in full; {MASK} only stands for one"
            )
        try:
            return kind, settings.model_validate(values)
        except ValidationError as error:
            raise SettingsError(f"{self.role} {name}: {_first(error, settings)}") from None

    def _installed(self) -> dict[str, str]:
        from importlib.metadata import entry_points  # slow to import

        return {point.name: point.value for point in entry_points(group=self.group)}


class Rows:
    """The rows of sources or sinks that were set up through the API, and of paused ones.

    Args:
        store: of the rows.
        role: `source` or `sink`.
    """

    def __init__(self, store: Store, role: str) -> None:
        self.store, self.role = store, role

    def all(self) -> Sequence[ConnectorRow]:
        """Return the rows by name."""
        query = select(ConnectorRow).where(ConnectorRow.role == self.role)
        with self.store.reading() as session:
            return session.scalars(query.order_by(ConnectorRow.name)).all()

    def put(self, name: str, given: Mapping[str, Any], shown: Mapping[str, Any], who: str) -> None:
        """Add or replace one, with an audit row.

        Args:
            name: of it.
            given: `kind` and its settings.
            shown: the settings without secrets, for the audit row.
            who: wants it.
        """
        values = dict(given)
        row = ConnectorRow(
            role=self.role, name=name, kind=values.pop("kind"), settings=values,
            created=datetime.now(UTC), who=who,
        )  # fmt: skip
        with self.store.writing() as session:
            known = session.get(ConnectorRow, (self.role, name)) is not None
            session.merge(row)
            action = f"{self.role} {'replace' if known else 'add'}"
            session.add(audit(who, action, name, {"kind": row.kind, **shown}))

    def delete(self, name: str, who: str) -> None:
        """Delete one, with an audit row.

        Raises:
            NotThereError: there is none.
        """
        with self.store.writing() as session:
            row = session.get(ConnectorRow, (self.role, name))
            if row is None:
                raise NotThereError(f"there is no {self.role} {name[:100]}")
            session.delete(row)
            paused = session.get(PausedRow, (self.role, name))
            if paused is not None:
                session.delete(paused)
            session.add(audit(who, f"{self.role} remove", name, {"kind": row.kind}))

    def paused(self) -> set[str]:
        """Return the names of those that a person has paused."""
        query = select(PausedRow.name).where(PausedRow.role == self.role)
        with self.store.reading() as session:
            return set(session.scalars(query))

    def note(self, name: str, action: str, who: str, paused: bool | None = None) -> None:
        """Write an audit row, and whether it is paused from now on; None: as it was."""
        with self.store.writing() as session:
            row = session.get(PausedRow, (self.role, name))
            if paused and row is None:
                session.add(PausedRow(role=self.role, name=name))
            elif paused is False and row is not None:
                session.delete(row)
            session.add(audit(who, f"{self.role} {action}", name))


def shown(settings: ConnectorSettings) -> dict[str, Any]:
    """Return settings as they may be shown: without passwords."""
    values: dict[str, Any] = _masked(settings.model_dump(mode="json"))
    return values


def masked(text: str) -> str:
    """Return text in which no URL has a user, a password or another secret."""
    return _SECRET.sub(r"\1...", _LOGIN.sub("//...@", text))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return masked(value) if isinstance(value, str) else value


def _has(value: Any, text: str) -> bool:
    if isinstance(value, Mapping):
        return any(_has(one, text) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_has(one, text) for one in value)
    return bool(value == text)


def _first(error: ValidationError, settings: type[ConnectorSettings]) -> str:
    """Return the first thing that is wrong, without the value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(place) for place in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{where[:40]}'; known: {', '.join(settings.model_fields)}"
    if first["type"] == "missing":
        return f"give the setting '{where}'"
    text = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {text}" if where else text
