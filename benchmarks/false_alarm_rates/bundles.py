"""Realised false-alarm rates, ranking and recognition of bundles on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import betabinom

import snl
from benchmarks.common import is_installed, log
from benchmarks.false_alarm_rates import ALL, RATES
from benchmarks.false_alarm_rates.rules import compare_rules
from benchmarks.false_alarm_rates.tries import tries
from benchmarks.internals import (
    Calibration,
    Conformal,
    ImageSample,
    auroc,
    binomial_interval,
    calibration_sets,
    find_groups,
    learn_prototypes,
    measure_images,
    split,
)
from benchmarks.internals import (
    judge as verdict_on,
)
from snl.errors import SnlError

RESPLITS = 200
PER_PRODUCT = 100
"""Training images per product that prototypes are learned from, as in `snl train`."""


def measure(file: Path, catalog: snl.Catalog, choose: Sequence[str] = ()) -> dict[str, Any]:
    """Return all figures of one bundle.

    Args:
        file: of `snl train` on the catalog.
        catalog: with test images.
        choose: products by which choices were made; the others confirm them.

    Raises:
        SnlError: the bundle was not trained on this data set.
    """
    inspector = snl.load(file)
    settings = inspector.network.settings
    used, held = split(catalog, settings)
    subset = [r for p in inspector.products for r in _spread([u for u in used if u.product == p])]
    log(file.name)
    fit, kept, test = (measure_images(inspector, part) for part in (subset, held, catalog.test()))
    calibration = inspector.calibration
    same = calibration_sets(inspector, kept)
    for product, data in calibration.sets.items():
        expected, scores = np.sort(data.scores), np.sort(same[product].scores)
        if len(scores) != len(expected) or not np.allclose(expected, scores, rtol=1e-3):
            raise SnlError(
                f"{file}: was not trained on {catalog.root}; give the data set of its training"
            )
    distances = calibration.prototypes.distances(test.embeddings)
    judged = judge(calibration, distances, test, inspector)
    return {
        "bundle": file.name,
        "method": settings.method,
        "seed": settings.training.seed,
        "held_back": {k: len(n) for k, n in calibration.sets.items()},
        "rates": {f"{rate:g}": false_alarms(calibration, test, judged, rate) for rate in RATES},
        "ranking": ranking(test, judged),
        "recognised": float(np.mean(judged["right"])),
        "unknown_false": {
            label: float(np.mean(judged["unknown"][judged["label"] == label]))
            for label in ("normal", "anomalous")
        },
        "resplit": resplit(calibration, kept, test),
        "rules": compare_rules(calibration, kept, test),
        "tries": {
            group: tries(calibration, kept, test, names)
            for group, names in (
                ("choose", list(choose)),
                ("confirm", [p for p in calibration.products if choose and p not in choose]),
            )
            if names
        },
        "left_out": left_out(calibration, fit, kept, test, settings.training.seed),
        "alone": one_product(calibration, kept, test),
    }


def judge(
    calibration: Calibration, distances: np.ndarray, test: ImageSample, inspector: snl.Inspector
) -> dict[str, np.ndarray]:
    """Return arrays (M,) about the decisions on the test images.

    `p_given` and `p_recognised` are p-values with the product given and recognised, `right` tells
    whether the product was recognised correctly, `unknown` whether the decision is `unknown
    product`, `calibrated` is the calibrated score; `label` and `product` are the true ones.
    """
    names = inspector.calibration.prototypes.names
    rows: dict[str, list[Any]] = {
        k: [] for k in ("p_given", "p_recognised", "right", "unknown", "calibrated")
    }
    for record, score, row in zip(test.records, test.scores.tolist(), distances, strict=True):
        verdict = verdict_on(calibration, score, dict(zip(names, row.tolist(), strict=True)))
        rows["p_given"].append(calibration.scores.p_value(score, record.product))
        rows["p_recognised"].append(verdict.p_value)
        rows["right"].append(verdict.recognised == record.product)
        rows["unknown"].append(verdict.decision == "unknown product")
        rows["calibrated"].append(verdict.calibrated)
    return {
        **{name: np.array(values) for name, values in rows.items()},
        "label": np.array([str(r.label) for r in test.records]),
        "product": np.array([r.product for r in test.records]),
    }


def false_alarms(
    calibration: Calibration, test: ImageSample, judged: dict[str, np.ndarray], rate: float
) -> dict[str, Any]:
    """Return realised and nominal false alarms by product and in total.

    `alarms`: with the product given; `alarms_recognised`: with the product recognised. `bound`: if
    the nominal rate holds exactly, 95 % of alarm counts lie within it. The count is beta-binomial:
    the threshold is an order statistic of n scores (`by` says whether they are those of the product
    or of all products), so its true rate is Beta(l, n + 1 - l) with l = floor(rate (n + 1)).
    """
    results: dict[str, Any] = {}
    for product in (*calibration.products, ALL):
        selected = np.ones(len(test.records), bool) if product == ALL else test.of(product)
        normal, anomalous = (selected & (judged["label"] == k) for k in ("normal", "anomalous"))
        count = int(np.sum(judged["p_given"][normal] <= rate))
        images = int(normal.sum())
        result: dict[str, Any] = {
            "normal": images,
            "alarms": count,
            "alarms_recognised": int(
                np.sum((judged["p_recognised"][normal] <= rate) & ~judged["unknown"][normal])
            ),
            "interval": binomial_interval(count, images),
            "anomalous": int(anomalous.sum()),
            "found": int(np.sum(judged["p_given"][anomalous] <= rate)),
        }
        if product != ALL:
            _, by = calibration.scores.threshold(rate, product)
            n = len(calibration.sets[product])
            n = n if by == "product" else sum(len(data) for data in calibration.sets.values())
            result |= {"by": by, "bound": expected_range(images, n, rate)}
        results[product] = result
    return results


def expected_range(images: int, n: int, rate: float) -> list[int]:
    """Return the middle 95 % of alarm counts among new normal images; see `false_alarms`."""
    allowed = int(np.floor(rate * (n + 1) + 1e-9))
    if not allowed:  # too few scores for this rate: the threshold is infinite
        return [0, 0]
    distribution = betabinom(images, allowed, n + 1 - allowed)
    return [int(distribution.ppf(0.025)), int(distribution.ppf(0.975))]


def ranking(test: ImageSample, judged: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Return image AUROCs: mean over products, pooled by raw and by calibrated scores."""
    normal = judged["label"] == "normal"

    def area(values: np.ndarray, selected: np.ndarray) -> float | None:
        return auroc(values[selected & normal], values[selected & ~normal])

    everything = np.ones(len(normal), bool)
    each = [area(test.scores, judged["product"] == p) for p in np.unique(judged["product"])]
    mean = float(np.mean([value for value in each if value is not None]))
    raw, calibrated = area(test.scores, everything), area(judged["calibrated"], everything)
    closed = None
    if raw is not None and calibrated is not None and mean > raw:
        closed = (calibrated - raw) / (mean - raw)
    return {"mean": mean, "pooled_raw": raw, "pooled_calibrated": calibrated, "gap_closed": closed}


def resplit(
    calibration: Calibration, kept: ImageSample, test: ImageSample
) -> dict[str, dict[str, float]]:
    """Return mean realised rates where calibration and test images are exchangeable.

    Held-back images and normal test images, which the network was not trained on, are put
    together and split at random, 200 times.
    """
    rng = np.random.default_rng(0)
    normal = np.array([r.label == "normal" for r in test.records], bool)
    together = {
        p: np.concatenate([kept.scores[kept.of(p)], test.scores[test.of(p) & normal]])
        for p in calibration.products
    }
    rates: dict[str, dict[str, list[float]]] = {f"{rate:g}": {} for rate in RATES}
    for _ in range(RESPLITS):
        shuffled = {p: rng.permutation(v) for p, v in together.items()}
        counts = {p: len(calibration.sets[p]) for p in together}
        conformal = Conformal(
            {p: v[: counts[p]] for p, v in shuffled.items()}, calibration.log_score_stats
        )
        pooled: list[float] = []
        for p, values in shuffled.items():
            p_values = [conformal.p_value(v, p) or 0.0 for v in values[counts[p] :].tolist()]
            pooled += p_values
            for rate in RATES:
                share = float(np.mean(np.array(p_values) <= rate))
                rates[f"{rate:g}"].setdefault(p, []).append(share)
        for rate in RATES:
            share = float(np.mean(np.array(pooled) <= rate))
            rates[f"{rate:g}"].setdefault(ALL, []).append(share)
    return {
        rate: {p: float(np.mean(v)) for p, v in by_product.items()}
        for rate, by_product in rates.items()
    }


def left_out(
    calibration: Calibration, fit: ImageSample, kept: ImageSample, test: ImageSample, seed: int
) -> dict[str, Any]:
    """Leave out each product in turn and return whether its test images are decided unknown.

    Recognition uses the teacher only, so nothing has to be trained again: prototypes and held-out
    images of the other products are the same as without this product.
    """
    results = {}
    anomalous = np.array([r.label == "anomalous" for r in test.records], bool)
    for product in calibration.products:
        others = ~fit.of(product)
        names = [r.product for r, other in zip(fit.records, others, strict=True) if other]
        prototypes = learn_prototypes(fit.embeddings[others], names, seed)
        without = without_product(calibration, prototypes, kept, product)
        p, distance = unknown_p_values(without, test.embeddings)
        unknown = test.of(product)
        results[product] = {
            "auroc": auroc(distance[~unknown], distance[unknown]),
            **{
                f"{name}_at_{rate:g}": float(np.mean(p[which] <= rate))
                for rate in (0.01, 0.05)
                for name, which in (
                    ("unknown", unknown),
                    ("known_normal", ~unknown & ~anomalous),
                    ("known_anomalous", ~unknown & anomalous),
                )
            },
        }
    return results


def without_product(
    calibration: Calibration, prototypes: Any, kept: ImageSample, product: str
) -> Calibration:
    """Return the calibration of all products but one."""
    nearest = prototypes.distances(kept.embeddings).min(1).astype(np.float32)
    sets = {
        name: dataclasses.replace(data, distances=nearest[kept.of(name)])
        for name, data in calibration.sets.items()
        if name != product
    }
    stats = {name: calibration.log_score_stats[name] for name in sets}
    return dataclasses.replace(
        calibration, sets=sets, prototypes=prototypes, log_score_stats=stats, product_rules={}
    )


def unknown_p_values(
    calibration: Calibration, embeddings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `unknown_p` (M,) and the relative distance (M,) to the nearest product."""
    nearest = [calibration.prototypes.nearest(row) for row in embeddings]
    p = [calibration.unknown_p(*n) for n in nearest]
    scale = {k: float(np.median(v.distances)) for k, v in calibration.sets.items()}
    return np.array(p, float), np.array([n.distance / scale[n.product] for n in nearest])


def one_product(
    calibration: Calibration, kept: ImageSample, test: ImageSample
) -> dict[str, dict[str, float]]:
    """Return the share of images decided unknown by a calibration of one product alone, among its
    normal test images and among all images of the other products."""
    results = {}
    normal = np.array([r.label == "normal" for r in test.records], bool)
    for product in calibration.products:
        own = [i for i, owner in enumerate(calibration.prototypes.owners) if owner == product]
        prototypes = dataclasses.replace(
            calibration.prototypes,
            centres=calibration.prototypes.centres[own],
            owners=(product,) * len(own),
        )
        nearest = prototypes.distances(kept.embeddings[kept.of(product)]).min(1)
        data = dataclasses.replace(calibration.sets[product], distances=nearest.astype(np.float32))
        alone = dataclasses.replace(
            calibration,
            sets={product: data},
            log_score_stats={product: calibration.log_score_stats[product]},
            prototypes=prototypes,
            product_rules={},
        )
        p, _ = unknown_p_values(alone, test.embeddings)
        unknown = p <= alone.unknown_rate()
        results[product] = {
            "own normal": float(np.mean(unknown[test.of(product) & normal])),
            "others": float(np.mean(unknown[~test.of(product)])),
        }
    return results


def groups(file: Path, catalog: snl.Catalog) -> dict[str, Any]:
    """Return the groups of all training images, and of those of each product.

    Raises:
        SnlError: scikit-learn is not installed.
    """
    if not is_installed("sklearn"):
        raise SnlError("this needs scikit-learn, which is not installed: pip install scikit-learn")
    from sklearn.metrics import adjusted_rand_score

    inspector = snl.load(file)
    sample = measure_images(inspector, list(catalog.train()))
    names = np.array([record.product for record in sample.records])
    labels = find_groups(sample.embeddings, 0)
    alone = {p: find_groups(sample.embeddings[names == p], 0) for p in np.unique(names).tolist()}
    return {
        "data": catalog.root.name,
        "teacher": inspector.settings.teacher.name,
        "images": len(names),
        "products": len(alone),
        "groups": int(labels.max()) + 1,
        "adjusted_rand_index": float(adjusted_rand_score(names, labels)),
        "groups_of_one_product": {p: int(groups.max()) + 1 for p, groups in alone.items()},
    }


def _spread(records: list[Any]) -> list[Any]:
    """Return at most PER_PRODUCT records, evenly spaced."""
    return records[:: max(1, -(-len(records) // PER_PRODUCT))]
