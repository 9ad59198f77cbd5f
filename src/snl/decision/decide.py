"""From a prediction to a decision: pure functions of a prediction and a calibration."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from snl.decision.calibration import Calibration, Rates
from snl.decision.inspection import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN, Inspection, Verdict
from snl.decision.maps import resize_mask
from snl.decision.prediction import Prediction
from snl.decision.recognition import recognise
from snl.decision.references import score_factor
from snl.decision.scoring import score_map


def decide(
    prediction: Prediction,
    calibration: Calibration,
    product: str | None = None,
    rates: Rates | None = None,
) -> Inspection:
    """Decide on one image.

    It needs neither the network nor the image, so stored predictions can be decided again under
    another calibration.

    Args:
        prediction: of the network.
        calibration: of the same network.
        product: name of the product if it is known; None: it is recognised, and the image may be of
            an unknown product.
        rates: instead of those of the calibration.

    Raises:
        SettingsError: a product that the calibration does not know.

    Example:
        >>> inspector, errors = snl.load("parts.snl"), []
        >>> prediction = next(inspector.predictor.predict_images(["new.png"], errors))
        >>> again = snl.Prediction.from_bytes(prediction.to_bytes())
        >>> snl.decide(again, inspector.calibration).score == inspector.inspect("new.png").score
        True
    """
    calibration.check_product(product)
    nearest = recognise(prediction, calibration)
    name = product or nearest.product
    mask = calibration.ignore_masks.get(name)
    if mask is not None:
        ignored = resize_mask(mask, prediction.anomaly_map.shape)
        anomaly_map = np.where(ignored, 0, prediction.anomaly_map)
        score = score_map(anomaly_map, calibration.scoring)
        prediction = dataclasses.replace(prediction, anomaly_map=anomaly_map, score=score)
    strangeness = calibration.strangeness(name, prediction.embedding)
    if (raised := score_factor(strangeness)) > 1:
        prediction = dataclasses.replace(prediction, score=prediction.score * raised)
    verdict = judge(
        calibration, prediction.score, nearest.product, nearest.distance, product, rates,
        second=nearest.second, strangeness=strangeness,
    )  # fmt: skip
    return Inspection(
        **vars(verdict),
        prediction=prediction,
        map_range=calibration.map_range,
        min_region_area=calibration.min_region_area.get(name, 1),
        mm_per_pixel=calibration.mm_per_pixel.get(name),
        maxima=calibration.max_scores,
    )


def judge(
    calibration: Calibration,
    score: float,
    recognised: str,
    distance: float,
    product: str | None = None,
    rates: Rates | None = None,
    *,
    second: float = math.inf,
    strangeness: float | None = None,
) -> Verdict:
    """Return the verdict on a score and a distance.

    Args:
        calibration: of the network.
        score: of a map without ignored pixels, raised where the image as a whole is strange.
        recognised: the product with the nearest prototype.
        distance: to that prototype.
        product: name of the product if it is known.
        rates: instead of those of the calibration.
        second: distance to the nearest prototype of any other product; infinite: there is none.
        strangeness: see `Calibration.strangeness`.
    """
    name = product or recognised
    rates = rates or calibration.rates_for(name)
    p = calibration.scores.p_value(score, name)
    unknown_p = calibration.unknown_p(recognised, distance, second)
    unknown = not product and unknown_p is not None and unknown_p <= calibration.unknown_rate(rates)
    threshold, basis = calibration.scores.threshold(rates.anomalous, name)
    uncertain_threshold, _ = calibration.scores.threshold(rates.uncertain, name)
    return Verdict(
        decision=UNKNOWN if unknown else decision_at(p, rates, threshold),
        product=name,
        product_from="given" if product else "recognised",
        recognised=recognised,
        distance=distance,
        second_distance=second if math.isfinite(second) else None,
        unknown_distance=calibration.unknown_distance(recognised, rates),
        unknown_p=unknown_p,
        unusual_p=calibration.unusual_p(recognised, distance),
        strangeness=strangeness,
        score=score,
        calibrated=calibration.scores.standardise(score, name),
        p_value=p,
        p_value_from=calibration.scores.p_value_from(score, name),
        threshold=threshold,
        uncertain_threshold=uncertain_threshold,
        threshold_from=basis,
        region_threshold=calibration.region_threshold(rates.regions, name),
    )


def decision_at(p: float | None, rates: Rates, threshold: float | None) -> str:
    """Return the decision for a p-value; without a threshold of anomalous it is `uncertain`."""
    if p is None or threshold is None:
        return UNCERTAIN
    if p <= rates.anomalous:
        return ANOMALOUS
    return UNCERTAIN if p <= rates.uncertain else NORMAL
