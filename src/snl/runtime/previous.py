"""The state of a bundle before the last change of its network, in the same file.

Adding products changes the network. The state before is kept in the file, so that the change can be
undone: its sections under names that begin with `previous.`. What is equal in both states, such as
the teacher's weights, is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snl.runtime import rehearsal
from snl.runtime.rehearsal import Rehearsal
from snl.runtime.sections import NETWORK, REHEARSAL, Section

_PREFIX = "previous."
_SAME, _SHARED = "same", "shared"


@dataclass(frozen=True)
class Previous:
    """A state of a bundle.

    Attributes:
        sections: as in a bundle of its own, without its rehearsal and its own previous state.
        rehearsal: its small copies of normal images; None: it had none.
    """

    sections: Mapping[str, Section]
    rehearsal: Rehearsal | None


def belongs(name: str) -> bool:
    """Return whether a section of a file belongs to its previous state."""
    return name.startswith(_PREFIX)


def to_sections(
    state: Previous, current: Mapping[str, Section], kept: Rehearsal | None
) -> dict[str, Section]:
    """Return the sections of the previous state, as they are stored.

    Args:
        state: to store.
        current: sections of the present state.
        kept: rehearsal of the present state.
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
    if state.rehearsal is not None:
        images: Sequence[rehearsal.Kept] = kept.images if kept is not None else ()
        places = {image: place for place, image in enumerate(images)}
        shared = [places[image] for image in state.rehearsal.images if image in places]
        rest = Rehearsal(tuple(i for i in state.rehearsal.images if i not in places))
        stored = rehearsal.to_section(rest)
        sections[REHEARSAL] = Section({**stored.document, _SHARED: shared}, stored.arrays)
    return {_PREFIX + name: section for name, section in sections.items()}


def from_sections(sections: Mapping[str, Section], kept: Rehearsal | None) -> Previous | None:
    """Inverse of `to_sections`; None: the file has no previous state.

    Args:
        sections: of the file.
        kept: rehearsal of the present state.

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
    stored = found.pop(REHEARSAL, None)
    if stored is None:
        return Previous(found, None)
    images = kept.images if kept is not None else ()
    shared = tuple(images[int(place)] for place in stored.document[_SHARED])
    return Previous(found, Rehearsal(shared + rehearsal.from_section(stored).images))


def _is_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
