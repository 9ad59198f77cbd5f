"""Changes of a model file as a whole: remove products, undo the last change, show the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snl.decision.differences import described
from snl.decision.edit import remove_products
from snl.errors import SettingsError
from snl.kinds import BUNDLE
from snl.outputs import Output, check_outputs
from snl.runtime.bundle_file import write_sections
from snl.runtime.describe import metadata_of
from snl.runtime.history import MOST, Event, event
from snl.runtime.inspector import Inspector, open_file
from snl.runtime.metadata import ModelMetadata, events_of, from_sections, to_sections
from snl.runtime.sections import MODEL, NETWORK


def remove(inspector: Inspector, products: str | Sequence[str]) -> None:
    """Remove products from an inspector: their calibration, and names and hashes of their images.

    The network stays, and with it the decisions about the other products. `Inspector.save` makes it
    permanent. It cannot be undone, because the images are gone; earlier versions, which know the
    products, are given up with them.

    Args:
        inspector: to change.
        products: their names.

    Raises:
        SettingsError: an unknown product, or no product would remain.

    Example:
        >>> inspector = snl.load("parts.snl")
        >>> snl.remove(inspector, "bolt")
        >>> "bolt" in inspector.products
        False
    """
    names = [products] if isinstance(products, str) else list(products)
    calibration = remove_products(inspector.calibration, names)
    metadata = inspector.predictor.metadata
    training = metadata.training
    counts = {name: count for name, count in training.products.items() if name not in names}
    inspector.predictor.metadata = replace(
        metadata,
        training=replace(training, products=counts),
        previous=None,
    )
    inspector.calibrations = [calibration]
    inspector.log(calibration.reason)


def history(file: str | Path) -> tuple[Event, ...]:
    """Return what was changed in a model file, when, by whom and why, oldest first.

    Args:
        file: `*.snl`, `*.onnx` or `*.xml`.

    Raises:
        BundleError: a missing, damaged or foreign file.

    Example:
        >>> snl.history("parts.snl")[0].what
        'training'
    """
    return events_of(metadata_of(file))


def undo(file: str | Path, output: str | Path | None = None) -> str:
    """Undo the last change of a model file: of its calibration, or the addition of products.

    Args:
        file: `*.snl`, `*.onnx` or `*.xml`.
        output: file to write; None: `file` is changed.

    Returns:
        What was undone, and for a change of the calibration what that changes.

    Raises:
        BundleError: a missing, damaged or foreign file, or another process has changed it.
        SettingsError: there is nothing to undo.

    Example:
        >>> inspector = snl.load("parts.snl")
        >>> _ = snl.calibrate(inspector, rate=0.5)
        >>> inspector.save("parts.snl")
        >>> snl.undo("parts.snl")
        'rates (false-alarm rate 0.5 -> 0.05, uncertain rate 0.5 -> 0.1)'
    """
    target = Path(output or file)
    inspector = open_file(file)
    if len(inspector.calibrations) > 1:
        undone = inspector.undo()
        inspector.save(target)
        return described(undone.reason, undone, inspector.calibration)
    what = inspector.calibration.reason
    if inspector.metadata.previous is None:
        why = "there is no earlier version"
        if inspector.calibration.retired:
            why = "products were removed, and the earlier versions with them"
        raise SettingsError(f"{file}: {why}; nothing to undo")
    inspector.check_unchanged(target)
    check_outputs([Output("the model", target, BUNDLE)])
    _restore(target, inspector.metadata, what)
    return what


def _restore(target: Path, metadata: ModelMetadata, what: str) -> None:
    """Write a bundle with the state before the last change of its network."""
    before = metadata.previous
    assert before is not None
    state = from_sections(before.sections)
    network, count = str(before.sections[MODEL].document["network"]), len(state.training.products)
    events = (*metadata.events, event(f"undone: {what}", network, count))
    metadata = replace(state, events=events[-MOST:])
    sections = {NETWORK: before.sections[NETWORK], **to_sections(metadata)}
    write_sections(target, sections, metadata)
