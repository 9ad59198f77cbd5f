"""What a product's held-out images allow, and how many more are needed for the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from snl.decision.calibration import (
    COUNTED_REGIONS,
    ENOUGH,
    Calibration,
    images_needed,
)


@dataclass(frozen=True)
class Promise:
    """Something that a number of held-out images allows.

    Attributes:
        what: it is.
        needed: images of the product, or of all products together.
        have: such images.
        all_products: whether the images of all products count.
    """

    what: str
    needed: int
    have: int
    all_products: bool = False

    @property
    def missing(self) -> int:
        """Number of images that are missing; 0: the promise holds."""
        return max(self.needed - self.have, 0)


def promises(calibration: Calibration, product: str) -> list[Promise]:
    """Return what held-out images of a product allow, in the order of the images it takes.

    The false-alarm rate of anomalous is that in force. For the shared tail few images of the
    product suffice, but there is no guarantee for it alone.

    Args:
        calibration: in force.
        product: a known one.

    Raises:
        SettingsError: an unknown product.
    """
    calibration.check_product(product)
    rates = calibration.rates_for(product)
    own = len(calibration.sets[product])
    everything = sum(map(len, calibration.sets.values()))
    rate, regions = rates.anomalous, rates.regions
    found = [
        Promise(f"decisions at a rate of {rate:g}", images_needed(rate), everything, True),
        Promise("a threshold with a centre of its own", 1, own),
        Promise("a comparison of the image as a whole", ENOUGH, own),
        Promise(
            f"region thresholds of its own ({regions:g} per image)",
            math.ceil(COUNTED_REGIONS / regions - 1e-9) - 1,
            own,
        ),
        Promise(
            f"a guarantee for it alone at {rate:g} (snl calibrate FILE --rule conformal)",
            images_needed(rate),
            own,
        ),
        Promise(
            f"a rate of unknown products of {rates.unknown:g}",
            images_needed(rates.unknown),
            everything,
            True,
        ),
    ]
    return sorted(found, key=lambda one: (one.needed, one.all_products))


def format_missing(calibration: Calibration, product: str, *, all_products: bool = False) -> str:
    """Return what is not allowed yet, and how many images are missing for it; empty: nothing.

    Args:
        calibration: in force.
        product: a known one.
        all_products: say it of the images of all products together, not of those of the product.
    """
    return "; ".join(
        f"{one.missing} more for {one.what}"
        for one in promises(calibration, product)
        if one.missing and one.all_products == all_products
    )
