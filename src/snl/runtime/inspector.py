"""The runtime: load a bundle once, then images in, inspections out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from snl.data.stream import Loaded, batches, read
from snl.decision.calibration import Calibration, Rates, Verdict
from snl.decision.inspection import Inspection
from snl.decision.maps import resize_map, resize_mask, score_of
from snl.decision.regions import Region, find_regions
from snl.errors import BundleError, DependencyError, ImageError, SettingsError
from snl.runtime.engine import PRECISIONS, Engine, Prediction
from snl.runtime.model_metadata import Known
from snl.runtime.tiled import predict_tiled
from snl.settings import Settings

if TYPE_CHECKING:
    import PIL.Image

    from snl.model.network import Network
    from snl.runtime.onnx_engine import OnnxEngine
    from snl.runtime.openvino_engine import OpenvinoEngine

    Source = str | Path | PIL.Image.Image | np.ndarray

EXPORTS = (".onnx", ".xml")
VERSIONS = 10
"""Calibrations that a bundle keeps, to take changes back."""


class Inspector:
    """A trained network with its calibration, ready to look at images.

    Args:
        engine: runs the network.
        known: all that is known beside it.
    """

    def __init__(self, engine: Engine, known: Known) -> None:
        self.engine = engine
        self.settings: Settings = known.settings
        self.facts = known.facts
        self.prototypes = known.prototypes
        self.trained_on = known.trained_on
        self.calibrations = list(known.calibrations)
        self._channels = known.mean, known.std

    def __repr__(self) -> str:
        s = self.settings
        products = ", ".join(self.products)
        return f"Inspector({s.method}, {s.teacher.name}, {s.image_size} px: {products})"

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the taught products."""
        return tuple(self.facts.products)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.settings.image_size

    def check_product(self, product: str | None) -> None:
        """Refuse a product that was not taught; None will do.

        Raises:
            SettingsError: there is no such product.
        """
        if product is not None and product not in self.products:
            raise SettingsError(
                f"product '{product}' was not taught; taught: {', '.join(self.products)}"
            )

    @property
    def network(self) -> Network:
        """The network itself, where PyTorch runs it.

        Raises:
            SettingsError: of an export, which has none.
        """
        network: Network | None = getattr(self.engine, "network", None)
        if network is None:
            raise SettingsError(
                f"an export run by {self.engine.device} has no network to train or to write; use "
                "the bundle of snl train"
            )
        return network

    @property
    def calibration(self) -> Calibration:
        """The one that holds; a new one is put in force by `recalibrate`."""
        return self.calibrations[-1]

    @property
    def rates(self) -> Rates:
        """The false-alarm rates of all products that have none of their own."""
        return self.calibration.rates

    @property
    def tile(self) -> int:
        """Side in pixels of the pieces that images are looked at in; 0: whole."""
        return self.calibration.tile

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        return self.engine.predict(pixels)

    def look(
        self,
        sources: Sequence[Source],
        errors: list[ImageError],
        batch_size: int = 16,
        *,
        whole: bool = False,
    ) -> Iterator[tuple[Loaded, np.ndarray, float, np.ndarray]]:
        """Every image in order, with its map (h, w), score and embedding (D,), before any decision.

        Images are decoded while the network looks at those before them. In tiles, the map has the
        image's own size, and each comes with the decoded image; else `whole` asks for that.

        Args:
            sources: what `inspect` takes.
            errors: gets those of images that cannot be used.
            batch_size: images that the network looks at together.
            whole: give the decoded images as well.
        """
        tile = self.tile
        items = read(sources, self.image_size, 1 if tile else None, whole=whole or tile > 0)
        for group, pixels in batches(items, 1 if tile else batch_size, errors):
            if tile:
                assert group[0].image is not None  # asked for above
                found, embedding = predict_tiled(
                    self.predict, group[0].image, tile, self.image_size
                )
                yield group[0], found, self.score_of(found), embedding
                continue
            for loaded, one, value, embedding in zip(group, *self.predict(pixels), strict=True):
                yield loaded, one, float(value), embedding

    def score_of(self, anomaly_map: np.ndarray) -> float:
        """The raw score of one map (h, w)."""
        return score_of(anomaly_map, self.settings.map)

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One map (h, w) to `size` (H, W), bilinear."""
        return resize_map(anomaly_map, size)

    def conclude(
        self,
        anomaly_map: np.ndarray,
        score: float,
        embedding: np.ndarray,
        product: str | None = None,
        rates: Rates | None = None,
    ) -> tuple[np.ndarray, Verdict]:
        """From a prediction to a verdict, and to the map without what is ignored of the product.

        Args:
            anomaly_map: (h, w), of any size.
            score: of the map.
            embedding: (D,).
            product: if it is known, one of `products`.
            rates: instead of those that hold.
        """
        row = self.prototypes.distances(embedding[None])[0]
        distances = dict(zip(self.prototypes.names, row.tolist(), strict=True))
        ignored = self.calibration.ignored.get(product or min(distances, key=distances.__getitem__))
        if ignored is not None:
            anomaly_map = np.where(resize_mask(ignored, anomaly_map.shape), 0, anomaly_map)
            score = self.score_of(anomaly_map)
        return anomaly_map, self.calibration.judge(score, distances, product, rates)

    def threshold(self, product: str | None = None, rate: float | None = None) -> float | None:
        """The score that at most a share `rate` of normal images exceeds; None: too few images.

        Of the product; of the first one where none is given. `rate`: of anomalous, by default the
        one that holds.

        Raises:
            SettingsError: a product that was not taught, a rate outside 0..1.
        """
        self.check_product(product)
        name = product or self.products[0]
        rates = self.calibration.rates_of(name).changed(anomalous=rate)
        return self.calibration.scores.threshold(rates.anomalous, name)[0]

    def rates_for(
        self,
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Rates | None:
        """The rates that hold, with some changed; None: nothing is changed, each product its own.

        Raises:
            SettingsError: a product that was not taught, a rate outside 0..1, or less than the
                held-back images can promise.
        """
        self.check_product(product)
        if rate is None and uncertain_rate is None and unknown_rate is None:
            return None
        changed = self.calibration.rates_of(product).changed(
            anomalous=rate, uncertain=uncertain_rate, unknown=unknown_rate
        )
        if rate is not None or uncertain_rate is not None:
            self.calibration.check(changed, product)
        return changed

    @overload
    def inspect(
        self,
        source: list[Any] | tuple[Any, ...],
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> list[Inspection]: ...

    @overload
    def inspect(
        self,
        source: Source,
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Inspection: ...

    def inspect(
        self,
        source: Source | list[Any] | tuple[Any, ...],
        product: str | None = None,
        rate: float | None = None,
        uncertain_rate: float | None = None,
        unknown_rate: float | None = None,
    ) -> Inspection | list[Inspection]:
        """Look at one image, or at a list of them (then a list comes back).

        Args:
            source: path, PIL image or uint8 array (H, W, 3) RGB or (H, W) grey.
            product: what it shows, if that is known; else it is recognised, and an image of no
                taught product is told as such.
            rate: share of normal images that may be called anomalous, instead of the one that
                holds.
            uncertain_rate: ... anomalous or uncertain.
            unknown_rate: share of images of taught products that may be called unknown.

        Raises:
            ImageError: an image that cannot be used.
            SettingsError: a product that was not taught, a rate that cannot be promised.
        """
        rates = self.rates_for(product, rate, uncertain_rate, unknown_rate)
        if isinstance(source, list | tuple):
            return list(self.stream(source, product, rates))
        return next(self.stream([source], product, rates))

    def stream(
        self,
        sources: Sequence[Source],
        product: str | None = None,
        rates: Rates | None = None,
        batch_size: int = 8,
        on_error: Callable[[ImageError], None] | None = None,
    ) -> Iterator[Inspection]:
        """As `inspect` of a list, one result at a time, in order, in bounded memory; images are
        decoded while the network looks at those before them.

        Args:
            sources, product: as for `inspect`.
            rates: as `rates_for` gives them.
            batch_size: images that the network looks at together.
            on_error: is told of an image that cannot be used, which is then left out; None: raise.
        """
        self.check_product(product)
        errors: list[ImageError] = []
        looked = self.look(sources, errors, batch_size, whole=True)
        for loaded, anomaly_map, score, embedding in looked:
            source, image = sources[loaded.index], loaded.image
            assert image is not None  # asked for
            path = str(source) if isinstance(source, str | Path) else None
            concluded = self.conclude(anomaly_map, score, embedding, product, rates)
            yield self._inspection(image, path, *concluded)
            _tell(errors, on_error)
        _tell(errors, on_error)

    def _inspection(
        self, image: np.ndarray, path: str | None, anomaly_map: np.ndarray, verdict: Verdict
    ) -> Inspection:
        whole = self.resize_map(anomaly_map, (image.shape[0], image.shape[1]))
        regions: tuple[Region, ...] = ()
        if verdict.region_threshold is not None:
            regions = find_regions(
                whole,
                verdict.region_threshold,
                smallest=self.calibration.smallest.get(verdict.product, 1),
                mm_per_pixel=self.calibration.mm_per_pixel.get(verdict.product),
                p_value=lambda peak: self.calibration.tops.p_value(peak, verdict.product),
            )
        return Inspection(
            **vars(verdict),
            regions=regions,
            anomaly_map=whole,
            image=image,
            path=path,
            map_range=self.facts.map_range,
        )

    def recalibrate(self, calibration: Calibration) -> None:
        """Put a calibration in force; the ones before it are kept for `undo`."""
        self.calibrations = [*self.calibrations, calibration]

    def undo(self) -> Calibration:
        """Take the last change of the calibration back.

        Returns:
            What was taken back.

        Raises:
            SettingsError: there is nothing before it.
        """
        if len(self.calibrations) < 2:
            raise SettingsError("there is no earlier calibration; nothing to undo")
        return self.calibrations.pop()

    def save(self, path: str | Path) -> None:
        """Write bundle or export, with the last ten calibrations, whole or not at all.

        Raises:
            SettingsError: a name that belongs to another kind of file.
        """
        path = Path(path)
        write = getattr(self.engine, "write", None)
        if write is not None:
            write(path, self.known)
            return
        if path.suffix.lower() in EXPORTS:
            raise SettingsError(
                f"{path}: the name of an export; a bundle's ends in .snl, and snl export makes it "
                "an export"
            )
        from snl.runtime import bundle

        bundle.save(path, self.network, self.known)

    @property
    def known(self) -> Known:
        """All but the network, with the last ten calibrations."""
        last = self.calibrations[-VERSIONS:]
        return Known(
            self.settings, self.facts, self.prototypes, last, self.trained_on, *self._channels
        )


def _tell(errors: list[ImageError], on_error: Callable[[ImageError], None] | None) -> None:
    """Tell of the errors and forget them, or raise the first."""
    for error in errors:
        if on_error is None:
            raise error
        on_error(error)
    errors.clear()


def load(
    path: str | Path, device: str = "auto", threads: int = 0, precision: str = "fp32"
) -> Inspector:
    """An inspector from a file: of a bundle by PyTorch, of an export without it.

    Args:
        path: `*.snl` of `snl train` or `Inspector.save`; `*.onnx` or `*.xml` of `snl export`, which
            ONNX Runtime or OpenVINO run.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; of OpenVINO also its own names.
        threads: for one inference; 0: the runtime's choice.
        precision: `fp32`; `bf16` or `fp16`, which are faster where the device has them: scores
            change a little, thresholds do not (`snl calibrate --precision` takes them anew).

    Raises:
        BundleError: missing, damaged, foreign or newer file.
        SettingsError: a device that is not there, a precision that device or file lacks.
        DependencyError: the runtime is not installed.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision '{precision}': choose of {', '.join(PRECISIONS)}")
    kind = Path(path).suffix.lower()
    if kind in EXPORTS:
        from snl.runtime.graph_metadata import from_metadata

        engine = _runtime(kind)(path, device, threads, precision)
        known = from_metadata(path, engine.metadata, engine.checksum)
        if known.settings.image_size != engine.size:
            raise BundleError(
                f"{path}: takes images of {engine.size} pixels, and what is written beside it is "
                f"of {known.settings.image_size}; export it again from its bundle"
            )
        return Inspector(engine, known)
    try:
        from snl.model import device as devices
        from snl.runtime import bundle
        from snl.runtime.torch_engine import TorchEngine
    except ImportError as error:
        raise DependencyError(
            f"{path}: a bundle needs PyTorch ({error}): pip install 'snl-ad[train]'; or export it "
            "where PyTorch is, snl export, and load the .onnx file here"
        ) from None
    devices.choose(device)
    network, known = bundle.load(path)
    return Inspector(TorchEngine(network, device, threads, precision), known)


def _runtime(kind: str) -> type[OnnxEngine] | type[OpenvinoEngine]:
    if kind == ".onnx":
        from snl.runtime.onnx_engine import OnnxEngine

        return OnnxEngine
    from snl.runtime.openvino_engine import OpenvinoEngine

    return OpenvinoEngine
