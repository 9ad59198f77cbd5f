"""The kinds of sinks: built-in ones, and those of other packages.

A package adds a kind by an entry point whose name is that of the kind, and whose value is a class
as `snl.service.sinks.base.Sink` describes it:

    [project.entry-points."snl.sinks"]
    opcua = "snl_opcua:OpcUaSink"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snl.errors import PluginError, SnlError
from snl.service.connectors import Kinds, shown
from snl.service.policy import Policy
from snl.service.sinks.base import Sink, SinkSettings

KINDS = Kinds(
    "sink",
    "snl.sinks",
    {
        "webhook": "snl.service.sinks.webhook:WebhookSink",
        "mqtt": "snl.service.sinks.mqtt:MqttSink",
        "jsonl": "snl.service.sinks.files:JsonLinesSink",
        "csv": "snl.service.sinks.files:CsvSink",
    },
)


@dataclass(frozen=True)
class Plan:
    """A sink that can be made.

    Attributes:
        name: of the sink.
        kind: its kind.
        settings: of the kind's class.
        policy: what it may reach; None: anything.
    """

    name: str
    kind: str
    settings: SinkSettings
    policy: Policy | None

    def make(self) -> Sink:
        """Return a new sink.

        Raises:
            SettingsError: it may not reach what the settings say.
            PluginError: a sink of another package has failed.
        """
        found: type[Sink] = KINDS.get(self.kind)
        try:
            return found(self.settings, self.policy)
        except SnlError as error:
            raise type(error)(f"sink {self.name}: {error}") from None
        except Exception as error:  # a package of somebody else may raise anything
            if self.kind in KINDS.builtin:
                raise
            raise PluginError(
                f"sink {self.name}: its kind '{self.kind}' has failed ({one_line(error)})"
            ) from error

    def shown(self) -> dict[str, Any]:
        """Return the settings without secrets."""
        return shown(self.settings)


def plan(name: str, given: Mapping[str, Any], policy: Policy | None) -> Plan:
    """Check the settings of a sink.

    Args:
        name: of the sink, for messages.
        given: `kind` and its settings.
        policy: what it may reach; None: anything.

    Raises:
        SettingsError: a setting is wrong.
        PluginError: there is no such kind, or its package is broken.
    """
    kind = given.get("kind")
    if isinstance(kind, str):
        cls = getattr(KINDS.get(kind), "Settings", None)
        if not (isinstance(cls, type) and issubclass(cls, SinkSettings)):
            raise PluginError(
                f"the sink kind '{kind}' has no `Settings`, a class derived from SinkSettings"
            )
    kind, settings = KINDS.settings(name, given)
    assert isinstance(settings, SinkSettings)
    return Plan(name, kind, settings, policy)


def one_line(error: Exception) -> str:
    """Return class and text of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
