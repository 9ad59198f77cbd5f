"""The history of a model file: what was changed, when, by whom, and why."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snl.decision.fit import timestamp
from snl.runtime.sections import Section

MOST = 1000
"""Changes that a file remembers."""
USER = "SNL_USER"
"""Environment variable that names who makes a change."""


@dataclass(frozen=True)
class Event:
    """One change of a model file.

    Attributes:
        when: ISO time in UTC.
        who: name of the user.
        what: the change, with its reason.
        network: version of the network after it.
        products: number of products after it.
    """

    when: str
    who: str
    what: str
    network: str
    products: int


def event(what: str, network: str, products: int) -> Event:
    """Return a change that is made now by the user of this process."""
    return Event(timestamp(), user(), what, network, products)


def user() -> str:
    """Return the name of the user: `SNL_USER`, or the one that is logged in."""
    named = os.environ.get(USER, "").strip()
    if named:
        return named[:100]
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""


def to_section(events: Sequence[Event]) -> Section:
    """Return the section of a model file."""
    return Section({"events": [asdict(one) for one in events[-MOST:]]})


def from_section(section: Section) -> tuple[Event, ...]:
    """Inverse of `to_section`.

    Raises:
        LookupError, TypeError, ValueError: the section is damaged.
    """
    return tuple(_event(one) for one in section.document["events"])


def _event(values: Mapping[str, Any]) -> Event:
    when, who, what, network = (str(values[name]) for name in ("when", "who", "what", "network"))
    return Event(when, who, what, network, int(values["products"]))
