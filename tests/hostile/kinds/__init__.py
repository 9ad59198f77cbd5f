"""All attempts, one module for each kind of fault."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterable

from tests.hostile.attempt import Attempt


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
    return [a for a in found if not kinds or a.kind in set(kinds)]
