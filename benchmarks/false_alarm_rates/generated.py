"""Realised false-alarm rates on scores that are drawn from known distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.false_alarm_rates import ALL, RATES
from benchmarks.internals import (
    RULES,
    Conformal,
    SharedTail,
    calibration_of_scores,
    log_score_stats,
    true_rate_interval,
)

COUNTS = (5, 10, 18, 20, 20, 32, 60, 120, 400)
"""Held-out images of the nine products."""
TRAINED, NEW = 100, 100
"""Training images and new normal images of each product in each calibration."""
SHIFTS = (0.0, 1.0, 2.0)
"""How far new and held-out images may score above training images, in standard deviations."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
FAMILIES: dict[str, Draw] = {
    "Gaussian": lambda rng, n: rng.normal(size=n),
    "Student, 3 degrees of freedom": lambda rng, n: rng.standard_t(3, n) / np.sqrt(3),
    "Laplace": lambda rng, n: rng.laplace(size=n) / np.sqrt(2),
    "gamma, shape 2": lambda rng, n: (rng.gamma(2, size=n) - 2) / np.sqrt(2),
    "uniform": lambda rng, n: rng.uniform(-1.7, 1.7, n),
    "two modes, 70 and 30 %": lambda rng, n: np.where(
        rng.random(n) < 0.3, rng.normal(1.5, 0.4, n), rng.normal(-0.64, 0.4, n)
    ),
    "two modes, 90 and 10 %": lambda rng, n: np.where(
        rng.random(n) < 0.1, rng.normal(2.5, 0.3, n), rng.normal(-0.25, 0.7, n)
    ),
    "many ties": lambda rng, n: np.round(rng.normal(size=n)),
    "ties": lambda rng, n: np.round(4 * rng.normal(size=n)) / 4,
}
"""Distributions of standardised log scores, of variance about 1."""


def generated(runs: int = 2000) -> dict[str, Any]:
    """Return mean realised rates by family, rule, nominal rate and product.

    The products differ in the scale of their scores, in their number of held-out images, and in
    how far new images score above training images.
    """
    return {
        "runs": runs,
        "new_images_per_product_and_run": NEW,
        "held_out": list(COUNTS),
        "families": {name: _family(draw, runs, 0) for name, draw in FAMILIES.items()},
        "one product": {
            str(count): _family(FAMILIES["Gaussian"], runs, 1, (count,))
            for count in sorted(set(COUNTS))
        },
        "intervals": {name: _intervals(draw, runs // 10) for name, draw in FAMILIES.items()},
    }


def _intervals(draw: Draw, runs: int) -> dict[str, float]:
    """Return how often the interval of the true rate of 5 % holds it, with 3 x 20 images."""
    rng = np.random.default_rng(2)
    population = np.sort(draw(rng, 100_000))
    inside: dict[str, list[bool]] = {rule: [] for rule in RULES}
    for _ in range(runs):
        scores = {name: np.exp(0.2 * draw(rng, 20)).astype(np.float32) for name in "abc"}
        calibration = calibration_of_scores(scores, dict.fromkeys(scores, (0.0, 0.2)))
        for rule, found in inside.items():
            ruled = dataclasses.replace(calibration, rule=rule)
            limit = ruled.scores.threshold(0.05, "a")[0]
            ends = true_rate_interval(ruled, "a", 0.05)
            if limit is not None and ends is not None:
                above = np.searchsorted(population, np.log(limit) / 0.2, side="right")
                found.append(bool(ends[0] <= 1 - above / len(population) <= ends[1]))
    return {rule: float(np.mean(found)) for rule, found in inside.items()}


def _family(
    draw: Draw, runs: int, seed: int, counts: tuple[int, ...] = COUNTS
) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    names = [f"{i}: {n}" for i, n in enumerate(counts)]
    level, width = rng.normal(size=len(counts)), rng.uniform(0.1, 0.6, len(counts))
    alarms = {rule: {rate: np.zeros((runs, len(counts))) for rate in RATES} for rule in RULES}
    for run in range(runs):
        shift = rng.choice(SHIFTS, len(counts))
        scores: list[dict[str, np.ndarray]] = [{}, {}, {}]
        for i, name in enumerate(names):
            for part, (n, above) in zip(
                scores, ((TRAINED, 0.0), (counts[i], shift[i]), (NEW, shift[i])), strict=True
            ):
                logs = level[i] + width[i] * (draw(rng, n) + above)
                part[name] = np.exp(logs).astype(np.float32)
        stats = log_score_stats(scores[0])
        makers = {"shared-tail": SharedTail, "conformal": Conformal}
        for rule in RULES:
            normal = makers[rule](scores[1], stats)
            for rate in RATES:
                for i, name in enumerate(names):
                    limit, _ = normal.threshold(rate, name)
                    if limit is not None:
                        alarms[rule][rate][run, i] = np.mean(scores[2][name] > limit)
    return {
        rule: {
            f"{rate:g}": {
                ALL: float(values.mean()),
                "standard error": float(values.mean(1).std(ddof=1) / np.sqrt(runs)),
                **dict(zip(names, values.mean(0).tolist(), strict=True)),
            }
            for rate, values in by_rate.items()
        }
        for rule, by_rate in alarms.items()
    }
