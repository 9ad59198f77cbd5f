"""All attempts, one module for each kind of fault."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.hostile.attempt import Attempt

_FAST_PER_KIND = 5


def all_attempts(seed: int = 0, kinds: Iterable[int] = ()) -> list[Attempt]:
    """Return all attempts, or those of some kinds, in a fixed order.

    Args:
        seed: of the random variations.
        kinds: numbers; empty: all.
    """
    found: list[Attempt] = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        found += importlib.import_module(f"{__name__}.{module.name}").attempts(seed)
    repeated = [name for name, count in Counter(a.id for a in found).items() if count > 1]
    if repeated:
        raise ValueError(f"several attempts are called {repeated[:3]}")
    return [a for a in _fewer_fast(found) if not kinds or a.kind in set(kinds)]


def _fewer_fast(attempts: Iterable[Attempt]) -> Iterator[Attempt]:
    """Leave at most `_FAST_PER_KIND` attempts of each kind in the fast part, evenly chosen."""
    attempts = list(attempts)
    fast: dict[int, list[str]] = defaultdict(list)
    for one in attempts:
        if one.fast:
            fast[one.kind].append(one.id)
    chosen = {
        name
        for names in fast.values()
        for name in names[:: max(1, -(-len(names) // _FAST_PER_KIND))]
    }
    for one in attempts:
        yield replace(one, fast=one.id in chosen)
