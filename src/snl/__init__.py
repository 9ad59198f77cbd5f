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
    "Inspection": "snl.decision.inspection",
    "Inspector": "snl.runtime.inspector",
    "Settings": "snl.settings",
    "SnlError": "snl.errors",
    "evaluate": "snl.evaluation.evaluate",
    "load": "snl.runtime.inspector",
    "make_demo": "snl.demo.dataset",
    "probe": "snl.evaluation.probes",
    "resolve": "snl.settings",
    "train": "snl.training.train",
}

__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from snl.data.catalog import Catalog as Catalog
    from snl.decision.inspection import Inspection as Inspection
    from snl.demo.dataset import make_demo as make_demo
    from snl.errors import SnlError as SnlError
    from snl.evaluation.evaluate import evaluate as evaluate
    from snl.evaluation.probes import probe as probe
    from snl.runtime.inspector import Inspector as Inspector
    from snl.runtime.inspector import load as load
    from snl.settings import Settings as Settings
    from snl.settings import resolve as resolve
    from snl.training.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'snl' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
