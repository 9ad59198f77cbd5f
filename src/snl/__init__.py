"""Visual inspection with one model for all products.

>>> import snl
>>> inspector = snl.train("parts/", output="parts.snl")     # doctest: +SKIP
>>> snl.load("parts.snl").inspect("new.jpg").score           # doctest: +SKIP

Importing this package imports neither torch nor numpy; every public name is loaded when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Catalog": "snl.data.catalog",
    "Inspection": "snl.deployment.inspection",
    "Inspector": "snl.deployment.inspector",
    "Settings": "snl.settings",
    "SnlError": "snl.errors",
    "evaluate": "snl.evaluation.evaluate",
    "load": "snl.deployment.inspector",
    "make_demo": "snl.data.demo",
    "probe": "snl.evaluation.probes",
    "resolve": "snl.settings",
    "train": "snl.api",
}

__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from snl.api import train as train
    from snl.data.catalog import Catalog as Catalog
    from snl.data.demo import make_demo as make_demo
    from snl.deployment.inspection import Inspection as Inspection
    from snl.deployment.inspector import Inspector as Inspector
    from snl.deployment.inspector import load as load
    from snl.errors import SnlError as SnlError
    from snl.evaluation.evaluate import evaluate as evaluate
    from snl.evaluation.probes import probe as probe
    from snl.settings import Settings as Settings
    from snl.settings import resolve as resolve


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'snl' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
