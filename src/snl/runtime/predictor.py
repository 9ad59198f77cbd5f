"""Predictions for images: an engine with everything known about its network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from snl.data.image_file import ImageFile
from snl.data.images import name_of
from snl.data.opening import check_max_pixels
from snl.data.roi import Crop
from snl.data.stream import Fit, Loaded, batches, read
from snl.decision.prediction import Prediction
from snl.decision.scoring import score_map
from snl.errors import ImageError, NotFiniteError, SettingsError
from snl.limits import MAX_PIXELS
from snl.runtime.engine import Engine, Outputs
from snl.runtime.metadata import ModelMetadata, TrainingInfo
from snl.runtime.tiled import predict_tiled
from snl.settings import MapSettings, Settings

if TYPE_CHECKING:
    import PIL.Image

    from snl.model.network import Network

    Source = str | Path | PIL.Image.Image | np.ndarray | Crop


Choose = Callable[[Sequence[Prediction]], Prediction]
"""From the predictions of an image's regions of interest to one of them."""


class BatchModel(Protocol):
    """Anything that turns a batch of pixels into maps and scores, such as a `Predictor`."""

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""

    def predict(self, pixels: np.ndarray) -> tuple[Any, ...]:
        """Images uint8 (B, size, size, 3) to maps float32 (B, size, size), scores float32 (B,) and
        optionally embeddings float32 (B, D) and a mapping of further outputs."""


def predict_images(
    model: BatchModel,
    sources: Iterable[Any],
    errors: list[ImageError],
    batch_size: int = 16,
    *,
    tile: int = 0,
    scoring: MapSettings | None = None,
    keep_images: bool = False,
    picture: Fit | None = None,
    max_pixels: int = MAX_PIXELS,
    choose: Choose | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction of every readable image, in order, in bounded memory.

    An image whose result is not finite is treated as one that cannot be read: its error is appended
    to `errors`, and the other images of its batch are not affected. Images are decoded while the
    model processes the previous ones.

    Args:
        model: any `BatchModel`.
        sources: paths, PIL images, or arrays (H, W, 3) RGB or (H, W) grey, uint8 or uint16, or
            crops of them; any iterable.
        errors: list to which the errors of unreadable images, and of results that are not finite,
            are appended.
        batch_size: images per call of the model.
        tile: side in pixels of the tiles that images are processed in; 0: whole images. With tiles,
            maps have the images' own sizes.
        scoring: how a score follows from the map of tiles.
        keep_images: keep the decoded images with the predictions; without it only those that were
            not read from a file. `Prediction.file` reads the others again.
        picture: the size of the pictures that are kept, by the size of the image; None: none is.
        max_pixels: largest allowed height times width of an image.
        choose: returns one of the predictions of an image's regions of interest; None: the first.
    """
    loaded = read(
        sources,
        model.image_size,
        1 if tile else None,
        whole=keep_images or tile > 0,
        picture=picture,
        max_pixels=max_pixels,
        white_level=_white_level(model),
    )
    for group, pixels in batches(loaded, 1 if tile else batch_size, errors):
        results = (
            _tiled(model, group, tile, scoring or MapSettings(), keep_images)
            if tile
            else _whole(model, group, pixels)
        )
        for item, found in results:
            chosen = found[0] if choose is None else choose(found)
            del found
            result = _complete(model, item, chosen, max_pixels)
            del chosen
            if isinstance(result, NotFiniteError):
                errors.append(result)
            else:
                yield result


def predict_loaded(
    model: BatchModel,
    group: Sequence[Loaded],
    *,
    tile: int = 0,
    scoring: MapSettings | None = None,
    choose: Choose | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[Prediction | NotFiniteError]:
    """Return the predictions of images that are decoded already, processed together.

    Args:
        model: any `BatchModel`.
        group: as `snl.data.stream.load` returns them; with `tile` each has its whole image.
        tile, scoring, choose, max_pixels: as for `predict_images`.
    """
    if tile:
        results = [
            pair
            for item in group
            for pair in _tiled(model, [item], tile, scoring or MapSettings(), False)
        ]
    else:
        results = list(_whole(model, group, np.stack([item.pixels for item in group])))
    return [
        _complete(model, item, found[0] if choose is None else choose(found), max_pixels)
        for item, found in results
    ]


def _complete(
    model: BatchModel, item: Loaded, chosen: Prediction, max_pixels: int
) -> Prediction | NotFiniteError:
    """Return the prediction with everything about its image, or the error of one whose numbers are
    not finite."""
    outputs = chosen.outputs.values()
    values: list[Any] = [chosen.anomaly_map, chosen.score, chosen.embedding, *outputs]
    if not all(bool(np.isfinite(value).all()) for value in values):
        return not_finite(model, item.source)
    return replace(
        chosen,
        file=_file(item, chosen, max_pixels, _white_level(model)),
        remarks=_remarks(item, model),
    )


def _whole(
    model: BatchModel, group: Sequence[Loaded], pixels: np.ndarray
) -> Iterator[tuple[Loaded, list[Prediction]]]:
    """Yield the images of a batch with the predictions of their regions of interest."""
    maps, scores, *rest = model.predict(pixels)
    embeddings = rest[0] if rest else np.empty((len(maps), 0), np.float32)
    extra = rest[1] if len(rest) > 1 else {}
    for row, item in enumerate(group):
        prediction = Prediction(
            anomaly_map=maps[row],
            score=float(scores[row]),
            embedding=embeddings[row],
            size=item.original,
            path=_path(item),
            outputs={name: values[row] for name, values in extra.items()},
            image=item.image,
            picture=item.picture,
            pixels=item.pixels,
            index=item.index,
            roi=item.roi,
        )
        others: list[Prediction] = []
        if item.others:
            views = [replace(item, pixels=view, roi=roi, others=()) for view, roi in item.others]
            stacked = np.stack([view.pixels for view in views])
            others = [one for _, (one,) in _whole(model, views, stacked)]
        yield item, [prediction, *others]


def _tiled(
    model: BatchModel, group: list[Loaded], tile: int, scoring: MapSettings, keep: bool
) -> Iterator[tuple[Loaded, list[Prediction]]]:
    """Yield the only image of a batch with the predictions of its regions of interest."""
    item = group.pop()
    assert item.image is not None  # requested for tiles
    predictions = []
    for roi in (item.roi, *(roi for _, roi in item.others)):
        part = item.image if roi is None else roi.window(item.original).of(item.image)
        anomaly_map, embedding = predict_tiled(model.predict, part, tile, model.image_size)
        predictions.append(
            Prediction(
                anomaly_map=anomaly_map,
                score=score_map(anomaly_map, scoring),
                embedding=embedding,
                size=item.original,
                path=_path(item),
                image=item.image if keep or _path(item) is None else None,
                picture=item.picture,
                index=item.index,
                roi=roi,
            )
        )
    item = replace(item, image=None)  # it may be large
    del part
    yield item, predictions


def not_finite(model: BatchModel, source: object) -> NotFiniteError:
    """Return the error of an image for which a model's result is not finite."""
    engine = getattr(model, "engine", None)
    if getattr(engine, "precision", "fp32") != "fp32":
        remedy = "its numbers are too large for this precision; use --precision fp32"
    elif engine is not None and not hasattr(engine, "network"):
        remedy = "its numbers are too large for this export; use one of --precision fp32"
    else:
        remedy = "its numbers are too large for the network; leave the image out"
    return NotFiniteError(f"the network's result for {name_of(source)} is not finite: {remedy}")


def _path(item: Loaded) -> str | None:
    return str(item.source) if isinstance(item.source, str | Path) else None


def _file(item: Loaded, chosen: Prediction, max_pixels: int, white_level: int) -> ImageFile | None:
    """Return what reads the image of a file again; its input is compared with what it was."""
    if chosen.path is None:
        return None
    # in tiles, the input is that of the first region of interest
    pixels, roi = (item.pixels, item.roi) if chosen.pixels is None else (chosen.pixels, chosen.roi)
    return ImageFile(chosen.path, item.original, pixels, max_pixels, white_level, roi)


def _white_level(model: BatchModel) -> int:
    return int(getattr(model, "white_level", 0))


def _remarks(item: Loaded, model: BatchModel) -> tuple[str, ...]:
    """Return the remarks about an image, among them that the model was not trained on its kind."""
    kinds: Collection[str] = getattr(model, "image_kinds", ())
    if item.kind is None or not kinds or item.kind in kinds:
        return item.remarks
    article = "an" if item.kind.startswith("8") else "a"
    trained_on = " and ".join(sorted(kinds))
    other = f"is {article} {item.kind} image, but the model was trained on {trained_on} images"
    return (*item.remarks, other)


class Predictor:
    """A network that is ready to run, with its settings and training facts; it decides nothing.

    Args:
        engine: runs the network.
        metadata: of the network; its calibrations are not used here.
        max_pixels: largest allowed height times width of an image.

    Raises:
        SettingsError: `max_pixels` is not a whole number of at least 1.
    """

    def __init__(
        self, engine: Engine, metadata: ModelMetadata, *, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.engine = engine
        self.metadata = metadata
        self.max_pixels = max_pixels

    @property
    def max_pixels(self) -> int:
        """Largest allowed height times width of an image; it can be set.

        It protects the memory of this machine, so it is not stored with the network.
        """
        return self._max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int) -> None:
        check_max_pixels(value)
        self._max_pixels = value

    @property
    def settings(self) -> Settings:
        """Settings of the model."""
        return self.metadata.settings

    @property
    def training(self) -> TrainingInfo:
        """Facts about the training."""
        return self.metadata.training

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.metadata.settings.image_size

    @property
    def white_level(self) -> int:
        """Sample value that is white, for images whose files do not state it; 0: 65535."""
        return self.metadata.settings.white_level

    @property
    def image_kinds(self) -> tuple[str, ...]:
        """Kinds of the training images, such as `12-bit grey`; empty: unknown (older files)."""
        kinds = self.training.facts.get("image_kinds")
        return tuple(map(str, kinds)) if isinstance(kinds, Mapping) else ()

    @property
    def embedding_width(self) -> int:
        """D of the embeddings, as a first call of the engine shows it."""
        side = self.image_size
        return int(self.predict(np.zeros((1, side, side, 3), np.uint8)).embeddings.shape[1])

    @property
    def network(self) -> Network:
        """The network itself, where PyTorch runs it.

        Raises:
            SettingsError: an exported graph, which cannot be trained or exported.
        """
        network: Network | None = getattr(self.engine, "network", None)
        if network is None:
            raise SettingsError(
                f"an export run by {self.engine.device} has no network to train or to write; use "
                "the bundle of snl train"
            )
        return network

    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3).

        Values that are not finite are returned as they are; `predict_images` reports them.
        """
        return self.engine.predict(pixels)

    def predict_images(
        self,
        sources: Iterable[Source],
        errors: list[ImageError],
        batch_size: int = 16,
        *,
        tile: int = 0,
        keep_images: bool = False,
        picture: Fit | None = None,
        choose: Choose | None = None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of every readable image; see `predict_images` of this module."""
        return predict_images(
            self,
            sources,
            errors,
            batch_size,
            tile=tile,
            scoring=self.settings.map,
            keep_images=keep_images,
            picture=picture,
            max_pixels=self.max_pixels,
            choose=choose,
        )
