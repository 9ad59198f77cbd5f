"""Realised false-alarm rates on scores that are drawn from a known distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.false_alarm_rates import ALL, RATES
from benchmarks.internals import Conformal, binomial_interval, log_score_stats


def generated(runs: int = 2000) -> dict[str, Any]:
    """Return realised rates for log-normal scores of nine products.

    The products differ in the scale of their scores and in their number of held-out images.
    """
    rng = np.random.default_rng(0)
    counts = dict(zip("abcdefghi", (5, 10, 18, 20, 20, 32, 60, 120, 400), strict=True))
    shift = {name: rng.normal() for name in counts}
    width = {name: float(rng.uniform(0.1, 0.6)) for name in counts}
    alarms = {rate: dict.fromkeys(counts, 0) for rate in RATES}
    new = 20
    for _ in range(runs):
        draw = {
            name: np.exp(shift[name] + width[name] * rng.normal(size=100 + n + new))
            for name, n in counts.items()
        }
        conformal = Conformal(
            {name: draw[name][100 : 100 + n] for name, n in counts.items()},
            log_score_stats({name: values[:100] for name, values in draw.items()}),
        )
        for name, n in counts.items():
            p_values = [conformal.p_value(v, name) for v in draw[name][100 + n :].tolist()]
            for rate in RATES:
                alarms[rate][name] += int(np.sum(np.array(p_values) <= rate))
    total = runs * new
    return {
        "runs": runs,
        "new_images_per_product_and_run": new,
        "rates": {
            f"{rate:g}": {
                name: {
                    "held_back": counts[name],
                    "realised": count / total,
                    "interval": binomial_interval(count, total),
                }
                for name, count in by_product.items()
            }
            | {ALL: {"realised": sum(by_product.values()) / total / len(counts)}}
            for rate, by_product in alarms.items()
        },
    }
