"""The state of a bundle before the last change of its network, in the same file.

Adding products changes the network. The state before is kept in the file, so that the change can be
undone: its sections under names that begin with `previous.`, those of the state before that one
under `previous.previous.`, and so on. Of the network, what is equal in two successive states, such
as the weights of teacher and student, is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snl.runtime.sections import NETWORK, Section

_PREFIX = "previous."
_SAME = "same"


@dataclass(frozen=True)
class Previous:
    """A state of a bundle.

    Attributes:
        sections: as in a bundle of its own, with those of the state before it, if there is one.
    """

    sections: Mapping[str, Section]


STATES = 5
"""Most states that a bundle keeps besides the present one."""


def shortened(sections: Mapping[str, Section], most: int = STATES - 1) -> dict[str, Section]:
    """Return the sections of a state with at most `most` states before it."""
    return {
        name: section
        for name, section in sections.items()
        if not name.startswith(_PREFIX * (most + 1))
    }


def belongs(name: str) -> bool:
    """Return whether a section of a file belongs to its previous state."""
    return name.startswith(_PREFIX)


def to_sections(state: Previous, current: Mapping[str, Section]) -> dict[str, Section]:
    """Return the sections of the previous state, as they are stored.

    Args:
        state: to store.
        current: sections of the present state.
    """
    sections = dict(state.sections)
    weights, present = sections[NETWORK].arrays, current[NETWORK].arrays
    same = [
        name
        for name, array in weights.items()
        if name in present and _is_equal(array, present[name])
    ]
    own = {name: array for name, array in weights.items() if name not in same}
    sections[NETWORK] = Section({_SAME: same}, own)
    return {_PREFIX + name: section for name, section in sections.items()}


def from_sections(sections: Mapping[str, Section]) -> Previous | None:
    """Inverse of `to_sections`; None: the file has no previous state.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the sections are damaged.
    """
    found = {
        name.removeprefix(_PREFIX): section for name, section in sections.items() if belongs(name)
    }
    if not found:
        return None
    network, present = found[NETWORK], sections[NETWORK].arrays
    same = {str(name): present[str(name)] for name in network.document[_SAME]}
    found[NETWORK] = Section({}, {**same, **network.arrays})
    return Previous(found)


def _is_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
