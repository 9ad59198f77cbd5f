"""Which product an image shows, where products may have regions of interest.

A product with a region of interest is recognised by that part of the image alone. Where it is not
known which product an image shows, the parts of all products are processed, and the one that is
nearest to a product with that region is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snl.data.roi import Crop, Roi, distinct
from snl.decision.calibration import Calibration
from snl.decision.products import Nearest, Prototypes

if TYPE_CHECKING:
    from snl.decision.prediction import Prediction


def source_of(image: Any, calibration: Calibration, product: str | None = None) -> Any:
    """Return what is to be read of an image: the image itself, or regions of interest of it.

    Args:
        image: anything that can be inspected.
        calibration: with the regions.
        product: that the image shows; None: it is recognised.
    """
    products = calibration.products if product is None else [product]
    wanted = distinct(products, calibration.rois)
    return image if wanted == (None,) else Crop(image, wanted)


def recognise(prediction: Prediction, calibration: Calibration) -> Nearest:
    """Return the product that an image is nearest to, of those with its region of interest."""
    prototypes = comparable(calibration.prototypes, calibration.rois, prediction.roi)
    return prototypes.nearest(prediction.embedding)


def nearest_view(predictions: Sequence[Prediction], calibration: Calibration) -> Prediction:
    """Return the prediction of the region of interest that is nearest to a product."""
    if len(predictions) == 1:
        return predictions[0]
    return min(predictions, key=lambda one: recognise(one, calibration).distance)


def comparable(prototypes: Prototypes, rois: Mapping[str, Roi], roi: Roi | None) -> Prototypes:
    """Return the prototypes of the products with a region of interest; all, if there are none."""
    same = [name for name in prototypes.names if rois.get(name) == roi]
    return prototypes.select(same) if same and rois else prototypes
