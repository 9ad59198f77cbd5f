"""Visual inspection with one model for all products.

    import snl
    inspector = snl.train("parts/", output="parts.snl")
    snl.load("parts.snl").inspect("new.jpg").score

Importing this package imports neither torch nor numpy; every public name is loaded when it is
first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it; importing typing takes longer than this package
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"

_PUBLIC = {
    "Calibration": "snl.decision.calibration",
    "Catalog": "snl.data.catalog",
    "Client": "snl.service.client",
    "DriftMonitor": "snl.monitoring.drift",
    "Inspection": "snl.decision.inspection",
    "Inspector": "snl.runtime.inspector",
    "Prediction": "snl.decision.prediction",
    "Predictor": "snl.runtime.predictor",
    "Settings": "snl.settings",
    "SnlError": "snl.errors",
    "add": "snl.training.add",
    "calibrate": "snl.runtime.recalibrate",
    "decide": "snl.decision.decide",
    "history": "snl.runtime.versions",
    "evaluate": "snl.evaluation.evaluate",
    "export": "snl.exporting.write",
    "load": "snl.runtime.inspector",
    "make_demo": "snl.demo.dataset",
    "probe": "snl.evaluation.probes",
    "register_distance": "snl.registry",
    "register_loss": "snl.registry",
    "register_scorer": "snl.registry",
    "register_student": "snl.registry",
    "remove": "snl.runtime.versions",
    "report": "snl.reporting.collect",
    "resolve": "snl.settings",
    "train": "snl.training.train",
    "undo": "snl.runtime.versions",
}

__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from snl.data.catalog import Catalog as Catalog
    from snl.decision.calibration import Calibration as Calibration
    from snl.decision.decide import decide as decide
    from snl.decision.inspection import Inspection as Inspection
    from snl.decision.prediction import Prediction as Prediction
    from snl.demo.dataset import make_demo as make_demo
    from snl.errors import SnlError as SnlError
    from snl.evaluation.evaluate import evaluate as evaluate
    from snl.evaluation.probes import probe as probe
    from snl.exporting.write import export as export
    from snl.monitoring.drift import DriftMonitor as DriftMonitor
    from snl.registry import register_distance as register_distance
    from snl.registry import register_loss as register_loss
    from snl.registry import register_scorer as register_scorer
    from snl.registry import register_student as register_student
    from snl.reporting.collect import report as report
    from snl.runtime.inspector import Inspector as Inspector
    from snl.runtime.inspector import load as load
    from snl.runtime.predictor import Predictor as Predictor
    from snl.runtime.recalibrate import calibrate as calibrate
    from snl.runtime.versions import history as history
    from snl.runtime.versions import remove as remove
    from snl.runtime.versions import undo as undo
    from snl.service.client import Client as Client
    from snl.settings import Settings as Settings
    from snl.settings import resolve as resolve
    from snl.training.add import add as add
    from snl.training.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'snl' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return __all__
