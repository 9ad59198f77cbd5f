"""The inspector: images in, decisions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from snl.data.opening import check_max_pixels
from snl.decision.calibration import Calibration, Rates
from snl.decision.decide import decide
from snl.decision.differences import described
from snl.decision.inspection import Inspection
from snl.decision.recognition import nearest_view, source_of
from snl.dependencies import require
from snl.drawing.panel import panel_size
from snl.errors import BundleError, ImageError, SettingsError
from snl.files import FileState, file_state
from snl.kinds import BUNDLE, model_kind
from snl.limits import MAX_PIXELS
from snl.outputs import Output, check_outputs
from snl.runtime.engine import PRECISIONS, Engine, Outputs
from snl.runtime.history import MOST, Event, event
from snl.runtime.metadata import HISTORY, ModelMetadata, TrainingInfo, events_of
from snl.runtime.predictor import Predictor
from snl.settings import Settings

if TYPE_CHECKING:
    import PIL.Image

    from snl.model.network import Network

    Source = str | Path | PIL.Image.Image | np.ndarray


class Inspector:
    """A predictor with its calibrations: it inspects images.

    An inspector may be shared between threads that inspect; changing its calibration is up to one
    thread.

    Args:
        predictor: computes predictions.
        calibrations: versions, oldest first; the last one is in force.
    """

    def __init__(self, predictor: Predictor, calibrations: Sequence[Calibration]) -> None:
        self.predictor = predictor
        self.calibrations = list(calibrations)
        self._changes: list[Event] = []
        self._read: tuple[Path, FileState] | None = None

    def __repr__(self) -> str:
        s = self.settings
        products = ", ".join(self.products)
        return f"Inspector({s.method}, {s.teacher.name}, {s.image_size} px: {products})"

    @property
    def engine(self) -> Engine:
        """Runs the network."""
        return self.predictor.engine

    @property
    def settings(self) -> Settings:
        """Settings of the model."""
        return self.predictor.settings

    @property
    def training(self) -> TrainingInfo:
        """Facts about the training."""
        return self.predictor.training

    @property
    def network(self) -> Network:
        """The network, where PyTorch runs it; see `Predictor.network`."""
        return self.predictor.network

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.predictor.image_size

    @property
    def max_pixels(self) -> int:
        """Largest allowed height times width of an image; see `Predictor.max_pixels`."""
        return self.predictor.max_pixels

    @property
    def white_level(self) -> int:
        """Sample value that is white, for images whose files do not state it; 0: 65535."""
        return self.predictor.white_level

    @property
    def image_kinds(self) -> tuple[str, ...]:
        """Kinds of the training images; see `Predictor.image_kinds`."""
        return self.predictor.image_kinds

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the known products."""
        return self.calibration.products

    @property
    def calibration(self) -> Calibration:
        """The calibration in force; `recalibrate` replaces it."""
        return self.calibrations[-1]

    @property
    def rates(self) -> Rates:
        """False-alarm rates of all products that have none of their own."""
        return self.calibration.rates

    @property
    def tile(self) -> int:
        """Side in pixels of the tiles that images are processed in; 0: whole images."""
        return self.calibration.tile

    def check_product(self, product: str | None) -> None:
        """Check that a product is known; None is allowed.

        Raises:
            SettingsError: it is not.
        """
        self.calibration.check_product(product)

    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3)."""
        return self.predictor.predict(pixels)

    def threshold(self, product: str | None = None, rate: float | None = None) -> float | None:
        """Return the score that at most a share `rate` of a product's normal images exceeds.

        Args:
            product: may be omitted where there is one product only.
            rate: of anomalous; None: the one in force.

        Returns:
            The threshold; None: too few images were held out for this rate.

        Raises:
            SettingsError: an unknown product, none where there are several, a rate outside 0..1.
        """
        if product is None:
            if len(self.products) > 1:
                raise SettingsError(
                    "every product has its own threshold; give one of the products "
                    f"{', '.join(self.products)}"
                )
            product = self.products[0]
        self.check_product(product)
        rates = self.calibration.rates_for(product).changed(anomalous=rate)
        return self.calibration.scores.threshold(rates.anomalous, product)[0]

    def rates_for(
        self,
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Rates | None:
        """Return the rates in force with some of them changed.

        Returns:
            The rates; None: nothing is changed, and every product has its own rates.

        Raises:
            SettingsError: an unknown product, a rate outside 0..1, or a smaller one than the
                held-out images allow.
        """
        self.check_product(product)
        if rate is None and uncertain_rate is None and unknown_rate is None:
            return None
        changed = self.calibration.rates_for(product).changed(
            anomalous=rate, uncertain=uncertain_rate, unknown=unknown_rate
        )
        if rate is not None or uncertain_rate is not None:
            self.calibration.check_rates(changed, product)
        return changed

    @overload
    def inspect(  # type: ignore[overload-overlap]
        self,
        source: Source,
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Inspection: ...

    @overload
    def inspect(
        self,
        source: Iterable[Any],
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> list[Inspection]: ...

    def inspect(
        self,
        source: Source | Iterable[Any],
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Inspection | list[Inspection]:
        """Inspect one image, or several (a list, tuple or other iterable: a list is returned).

        The result of one image holds it. Of several, images that were read from a file are not
        held: `Inspection.image` and `overlay` read them again.

        Args:
            source: path, PIL image, or array (H, W, 3) RGB or (H, W) grey, uint8 or uint16; see
                docs/images.md.
            product: name of the product, if it is known. None: it is recognised, and an image of
                none of the known products gets the decision `unknown product`.
            rate: share of normal images that may be called anomalous, instead of the one in force.
            uncertain_rate: the same for anomalous or uncertain.
            unknown_rate: share of images of known products that may be called unknown.

        Raises:
            ImageError: an image that cannot be used.
            SettingsError: an unknown product, a rate that the held-out images do not allow.
        """
        rates = self.rates_for(product, rate, uncertain_rate, unknown_rate)
        if _is_image(source):
            stream = self.stream([source], product, rates, keep_images=True)  # type: ignore[list-item]
            return next(stream)
        return list(self.stream(source, product, rates))  # type: ignore[arg-type]

    def stream(
        self,
        sources: Iterable[Source],
        product: str | None = None,
        rates: Rates | None = None,
        batch_size: int = 8,
        on_error: Callable[[ImageError], None] | None = None,
        *,
        tile: int | None = None,
        keep_images: bool = False,
        overlays: bool = False,
    ) -> Iterator[Inspection]:
        """Inspect many images: yield one result at a time, in order, in bounded memory.

        Images are decoded while the network processes the previous ones. An image that is read
        from a file is not kept: it is decoded straight to the network's input, so a large one takes
        little memory, and `Inspection.image` reads the file again. Other images are kept.

        Args:
            sources: any iterable of what `inspect` takes.
            product: as for `inspect`.
            rates: as `rates_for` returns them.
            batch_size: images that the network processes together.
            on_error: called with the error of an unreadable image, which is then skipped; None:
                the error is raised.
            tile: side of the tiles in pixels, 0: whole images; None: as calibrated.
            keep_images: keep every image, so that it can be used without reading its file again.
            overlays: keep what `Inspection.overlay` shows of an image (at most 1024 pixels wide
                and high), so that it is drawn without reading the file again.
        """
        self.check_product(product)
        calibration = self.calibration
        errors: list[ImageError] = []
        predictions = self.predictor.predict_images(
            (source_of(source, calibration, product) for source in sources),
            errors,
            batch_size,
            tile=calibration.tile if tile is None else tile,
            keep_images=keep_images,
            picture=panel_size if overlays else None,
            choose=partial(nearest_view, calibration=calibration),
        )
        for prediction in predictions:
            yield decide(prediction, calibration, product, rates)
            _report(errors, on_error)
        _report(errors, on_error)

    @property
    def events(self) -> tuple[Event, ...]:
        """The history: what was changed, when, by whom and why, oldest first."""
        return (*events_of(self.predictor.metadata), *self._changes)

    def log(self, what: str) -> None:
        """Add a change to the history."""
        self._changes.append(event(what, self.calibration.network, len(self.products)))

    def recalibrate(self, calibration: Calibration) -> None:
        """Put a calibration in force; the previous ones are kept for `undo`."""
        what = described(calibration.reason, self.calibration, calibration)
        self.calibrations = [*self.calibrations, calibration]
        self.log(what)

    def undo(self) -> Calibration:
        """Undo the last change of the calibration; `snl.undo` also undoes those of the network.

        Returns:
            The calibration that is no longer in force.

        Raises:
            SettingsError: there is no earlier one.
        """
        if len(self.calibrations) < 2:
            raise SettingsError("there is no earlier calibration; nothing to undo")
        undone = self.calibrations.pop()
        self.log(f"undone: {undone.reason}")
        return undone

    def save(self, path: str | Path) -> None:
        """Write the model file (bundle or export) with the last ten calibrations.

        The file is complete or not there.

        Raises:
            SettingsError: the name belongs to another kind of file.
            BundleError: the file that this inspector was loaded from has changed since: another
                process has calibrated it, and its calibration would be lost.
            SnlError: the file cannot be written, or another kind of file would be replaced.
        """
        path = Path(path)
        check_outputs([Output("the model", path, model_kind(path))])
        own = self.check_unchanged(path)
        self.engine.save(path, self.metadata)
        if own:
            self._remember(path)

    def check_unchanged(self, path: Path) -> bool:
        """Return whether this inspector was loaded from a file.

        Raises:
            BundleError: it was, and another process has changed the file since.
        """
        own = self._read is not None and path.resolve() == self._read[0]
        if own and self._read is not None and file_state(path) not in (None, self._read[1]):
            raise BundleError(
                f"{path}: was changed by another process after it was loaded; load it again and "
                "repeat the change"
            )
        return own

    def _remember(self, path: Path) -> None:
        """Remember the state of the file that this inspector corresponds to."""
        state = file_state(path)
        self._read = None if state is None else (path.resolve(), state)

    def close(self) -> None:
        """Release the network's memory; the inspector cannot be used afterwards."""
        self.engine.close()

    @property
    def metadata(self) -> ModelMetadata:
        """Everything but the network, with the last ten calibrations."""
        return replace(
            self.predictor.metadata,
            calibrations=self.calibrations[-HISTORY:],
            events=self.events[-MOST:],
        )


def _is_image(source: Any) -> bool:
    """Return whether this is one image rather than several."""
    if isinstance(source, str | Path | np.ndarray):
        return True
    return not isinstance(source, Iterable) or hasattr(source, "getbbox")  # a PIL image


def _report(errors: list[ImageError], on_error: Callable[[ImageError], None] | None) -> None:
    """Pass the errors on and clear them, or raise the first."""
    for error in errors:
        if on_error is None:
            raise error
        on_error(error)
    errors.clear()


def load(
    path: str | Path,
    device: str = "auto",
    threads: int = 0,
    precision: str = "fp32",
    *,
    max_pixels: int = MAX_PIXELS,
) -> Inspector:
    """Load an inspector from a file: PyTorch runs a bundle, other runtimes run an export.

    Args:
        path: `*.snl` of `snl train` or `Inspector.save`; `*.onnx` or `*.xml` of `snl export`, which
            ONNX Runtime or OpenVINO run.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; for OpenVINO also its own names.
        threads: of one call; 0: the runtime's choice.
        precision: `fp32`; `bf16` or `fp16`, which are faster where the device has them. Scores
            change a little, thresholds do not (`snl calibrate --precision` measures them again).
        max_pixels: largest allowed height times width of an image; `Predictor.max_pixels` changes
            it later. It is not stored in files.

    Raises:
        BundleError: missing, damaged, foreign or newer file.
        PluginError: a plug-in that the file needs is not installed.
        SettingsError: a device that is not available, a precision that device or file lacks.
        DependencyError: the runtime is not installed.

    Example:
        >>> snl.load("parts.snl").inspect("new.png").decision
        'uncertain'
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision '{precision}': choose of {', '.join(PRECISIONS)}")
    check_max_pixels(max_pixels)
    path = Path(path)
    before = file_state(path)
    engine, metadata = _load_engine(path, device, threads, precision)
    predictor = Predictor(engine, metadata, max_pixels=max_pixels)
    inspector = Inspector(predictor, metadata.calibrations)
    if before is not None:
        inspector._read = path.resolve(), before
    return inspector


def open_file(path: str | Path, device: str = "auto", *, max_pixels: int = MAX_PIXELS) -> Inspector:
    """Load an inspector whose calibration is read and changed, not its network run.

    The network of a bundle stays as it is stored, so that no PyTorch is loaded. An export is loaded
    by its runtime, as by `load`.

    Args:
        path: as for `load`.
        device: of an export.
        max_pixels: as for `load`.

    Raises:
        BundleError, SettingsError, DependencyError: as `load`.
    """
    path = Path(path)
    if model_kind(path) is not BUNDLE:
        return load(path, device, max_pixels=max_pixels)
    from snl.runtime.bundle_file import BundleFile

    before = file_state(path)
    engine = BundleFile(path)
    inspector = Inspector(
        Predictor(engine, engine.metadata, max_pixels=max_pixels), engine.metadata.calibrations
    )
    if before is not None:
        inspector._read = path.resolve(), before
    return inspector


def _load_engine(
    path: Path, device: str, threads: int, precision: str
) -> tuple[Engine, ModelMetadata]:
    """Return the engine and metadata of a file, chosen by its extension."""
    kind = path.suffix.lower()
    if kind == ".onnx":
        from snl.runtime.onnx_engine import load_onnx

        return load_onnx(path, device, threads, precision)
    if kind == ".xml":
        from snl.runtime.openvino_engine import load_openvino

        return load_openvino(path, device, threads, precision)
    require(
        ("torch",),
        "train",
        f"{path}: a bundle",
        "; or export it where PyTorch is installed, snl export, and load the .onnx file here",
    )
    from snl.model import device as devices
    from snl.runtime import bundle
    from snl.runtime.torch_engine import TorchEngine

    devices.choose(device)
    network, metadata = bundle.load(path)
    return TorchEngine(network, device, threads, precision), metadata
