"""The sections of a bundle, read and written without its network; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from snl.errors import BundleError, SettingsError
from snl.files import load_tensors, save_tensors
from snl.runtime import previous
from snl.runtime.convert import is_format_2, sections_of_format_2
from snl.runtime.engine import Outputs
from snl.runtime.metadata import ModelMetadata, from_sections, to_sections
from snl.runtime.sections import NETWORK, Section, join_sections, split_sections

KIND = "bundle"
EXPORTS = (".onnx", ".xml")


def write_sections(
    path: str | Path, sections: Mapping[str, Section], metadata: ModelMetadata
) -> None:
    """Write the sections of a bundle, and those of its previous state.

    Args:
        path: of the bundle.
        sections: of its present state.
        metadata: has the previous one.
    """
    if metadata.previous is not None:
        before = previous.to_sections(metadata.previous, sections)
        sections = {**sections, **before}
    document, arrays = join_sections(sections)
    save_tensors(path, arrays, KIND, document)


def read_sections(path: str | Path) -> dict[str, Section]:
    """Return the sections of a bundle of this or the previous format.

    Raises:
        BundleError: missing, damaged, foreign or of a newer format.
    """
    arrays, document = load_tensors(path, KIND)
    try:
        if is_format_2(document):
            return sections_of_format_2(document, arrays)
        return split_sections(document, arrays)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from None


def damaged(path: str | Path, error: Exception) -> BundleError:
    """Return the error of a bundle whose parts contradict each other."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
    return BundleError(
        f"{path}: its description and its weights do not fit each other ({reason}); it was "
        "edited, or made by another version of snl or timm: train it again"
    )


class BundleFile:
    """The engine of a bundle whose network is not run: everything but `predict` works.

    It keeps the network as it is stored, so calibrations are read, changed and written in a
    fraction of a second; see `snl.runtime.engine.Engine`.

    Args:
        path: of the bundle.

    Raises:
        BundleError: missing, damaged, foreign or of a newer format.
    """

    precision, device = "fp32", "none"

    def __init__(self, path: Path) -> None:
        sections = read_sections(path)
        try:
            self.metadata = from_sections(sections)
        except (SettingsError, LookupError, TypeError, ValueError, AttributeError,
                ArithmeticError, RecursionError) as error:  # fmt: skip
            raise damaged(path, error) from None
        self._network = sections[NETWORK]

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.metadata.settings.image_size

    def predict(self, pixels: object) -> Outputs:
        """Fail: there is no network."""
        raise SettingsError("the network of this inspector was not loaded; use snl.load")

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write a bundle with the network as it was stored."""
        check_name(path)
        write_sections(path, {NETWORK: self._network, **to_sections(metadata)}, metadata)

    def close(self) -> None:
        """Release the network's memory."""
        self._network = replace(self._network, arrays={})


def check_name(path: Path) -> None:
    """Check the name of a bundle.

    Raises:
        SettingsError: it is the name of an export.
    """
    if path.suffix.lower() in EXPORTS:
        raise SettingsError(
            f"{path}: the name of an export; a bundle's ends in .snl, and snl export makes it an "
            "export"
        )
