"""Check what decisions promise: false-alarm rates, known and unknown products, a common ranking.

    python -m benchmarks.false_alarm_rates run DATA BUNDLE [BUNDLE ...] \
        -o docs/results/decisions.json
    python -m benchmarks.false_alarm_rates generated -o docs/results/decisions-generated.json
    python -m benchmarks.false_alarm_rates groups DATA BUNDLE -o docs/results/decisions-groups.json
    python -m benchmarks.false_alarm_rates table docs/results/decisions.json

`run`: bundles of `snl train DATA` on the test images of DATA. `generated`: scores drawn from a
known distribution, where any deviation is due to the method. `groups`: training images without product
names, grouped by the bundle's teacher; needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import betabinom

import snl
from benchmarks.common import (
    add_output,
    add_table_verb,
    is_installed,
    log,
    markdown_table,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from benchmarks.internals import (
    MARGIN,
    Calibration,
    Conformal,
    ImageSample,
    auroc,
    binomial_interval,
    calibration_sets,
    find_groups,
    learn_prototypes,
    log_score_stats,
    measure_images,
    split,
)
from snl.errors import SnlError
from snl.files import write_json

RATES = (0.01, 0.05, 0.1)
"""Nominal false-alarm rates."""
RESPLITS = 200
PER_PRODUCT = 100
"""Training images per product that prototypes are learned from, as in `snl train`."""
ALL = "all products"


def measure(file: Path, catalog: snl.Catalog) -> dict[str, Any]:
    """Return all figures of one bundle.

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
    for product, normals in calibration.normals.items():
        if not np.allclose(np.sort(normals.scores), np.sort(same[product].scores), rtol=1e-3):
            raise SnlError(f"{file}: was not trained on {catalog.root}; give its own data set")
    judged = judge(calibration, inspector.prototypes.distances(test.embeddings), test, inspector)
    return {
        "bundle": file.name,
        "method": settings.method,
        "seed": settings.training.seed,
        "held_back": {k: len(n) for k, n in calibration.normals.items()},
        "rates": {f"{rate:g}": false_alarms(calibration, test, judged, rate) for rate in RATES},
        "ranking": ranking(test, judged),
        "recognised": float(np.mean(judged["right"])),
        "unknown_false": {
            label: float(np.mean(judged["unknown"][judged["label"] == label]))
            for label in ("normal", "anomalous")
        },
        "resplit": resplit(calibration, kept, test),
        "left_out": left_out(fit, kept, test, settings.training.seed),
    }


def judge(
    calibration: Calibration, distances: np.ndarray, test: ImageSample, inspector: snl.Inspector
) -> dict[str, np.ndarray]:
    """Return arrays (M,) about the decisions on the test images.

    `p_given` and `p_recognised` are p-values with the product given and recognised, `right` tells
    whether the product was recognised correctly, `unknown` whether the decision is `unknown
    product`, `calibrated` is the calibrated score; `label` and `product` are the true ones.
    """
    names = inspector.prototypes.names
    rows: dict[str, list[Any]] = {
        k: [] for k in ("p_given", "p_recognised", "right", "unknown", "calibrated")
    }
    for record, score, row in zip(test.records, test.scores.tolist(), distances, strict=True):
        verdict = calibration.judge(score, dict(zip(names, row.tolist(), strict=True)))
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
            n = len(calibration.normals[product])
            n = n if by == "product" else sum(map(len, calibration.normals.values()))
            result |= {"by": by, "bound": expected_range(images, n, rate)}
        results[product] = result
    return results


def expected_range(images: int, n: int, rate: float) -> list[int]:
    """Return the middle 95 % of alarm counts among new normal images; see `false_alarms`."""
    allowed = int(np.floor(rate * (n + 1) + 1e-9))
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

    Held-back images and normal test images, none of which the network was trained on, are put
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
        counts = {p: len(calibration.normals[p]) for p in together}
        conformal = Conformal({p: v[: counts[p]] for p, v in shuffled.items()}, calibration.usual)
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


def left_out(fit: ImageSample, kept: ImageSample, test: ImageSample, seed: int) -> dict[str, Any]:
    """Leave out each product in turn and return whether its test images are decided unknown.

    Recognition uses the teacher only, so nothing has to be trained again: prototypes and held-back
    images of the other products are the same as without this product.
    """
    results = {}
    for product in sorted({r.product for r in test.records}):
        others = ~fit.of(product)
        names = [r.product for r, other in zip(fit.records, others, strict=True) if other]
        prototypes = learn_prototypes(fit.embeddings[others], names, seed)
        nearest = {
            name: prototypes.distances(sample.embeddings).min(1)
            for name, sample in (("kept", kept), ("test", test))
        }
        known = nearest["kept"][~kept.of(product)]
        unknown = test.of(product)
        p = np.array(
            [(1 + np.sum(known >= d / MARGIN)) / (1 + len(known)) for d in nearest["test"]]
        )
        anomalous = np.array([r.label == "anomalous" for r in test.records], bool)
        results[product] = {
            "auroc": auroc(nearest["test"][~unknown], nearest["test"][unknown]),
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


def generated(runs: int = 2000) -> dict[str, Any]:
    """Return realised rates for log-normal scores of nine products.

    The products differ in the scale of their scores and in their number of held-back images.
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


def groups(file: Path, catalog: snl.Catalog) -> dict[str, Any]:
    """Return the groups found among all training images, and among those of each product.

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
        "groups_of_one_product": {p: int(own.max()) + 1 for p, own in alone.items()},
    }


def table(results: dict[str, Any]) -> str:
    """Return Markdown: false alarms by product, ranking, recognition, unknown products."""
    runs = results["runs"]
    names = list(runs[0]["rates"]["0.05"])
    parts = [
        _false_alarm_table(runs, names),
        _ranking_table(runs),
        _left_out_table(runs, [name for name in names if name != ALL]),
        _resplit_table(runs, names),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _false_alarm_table(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    heads = ["product", "held back"]
    for rate in RATES:
        heads += [f"{100 * rate:g} %: alarms (95 % bound)", "recognised", "by"]
    heads += ["detected at 5 %"]
    rows = []
    for run in runs:
        rows.append([f"**{run['bundle']}**", *[""] * (len(heads) - 1)])
        for name in names:
            cells = [name, str(run["held_back"].get(name, sum(run["held_back"].values())))]
            for rate in RATES:
                result = run["rates"][f"{rate:g}"][name]
                bound = result.get("bound")
                limits = f" ({bound[0]}..{bound[1]})" if bound else _percent(result["interval"])
                cells += [
                    f"{result['alarms']} of {result['normal']}{limits}",
                    str(result["alarms_recognised"]),
                    result.get("by", ""),
                ]
            result = run["rates"]["0.05"][name]
            cells.append(f"{result['found']} of {result['anomalous']}")
            rows.append(cells)
    return markdown_table(heads, rows)


def _percent(interval: Sequence[float] | None) -> str:
    return f" ({100 * interval[0]:.1f}..{100 * interval[1]:.1f} %)" if interval else ""


def _ranking_table(runs: Sequence[dict[str, Any]]) -> list[str]:
    heads = ["bundle", "mean", "pooled, raw", "pooled, calibrated", "gap closed", "recognised"]
    rows = []
    for run in runs:
        result = run["ranking"]
        values = [result[name] for name in ("mean", "pooled_raw", "pooled_calibrated")]
        closed = result["gap_closed"]
        rows.append(
            [
                run["bundle"],
                *("-" if value is None else f"{100 * value:.1f}" for value in values),
                "-" if closed is None else f"{100 * closed:.0f} %",
                f"{100 * run['recognised']:.2f} %",
            ]
        )
    return markdown_table(heads, rows)


def _left_out_table(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    columns = {
        "auroc": "AUROC",
        "unknown_at_0.01": "decided unknown, rate 1 %",
        "unknown_at_0.05": "rate 5 %",
        "known_normal_at_0.05": "known normal images decided unknown, 5 %",
        "known_anomalous_at_0.01": "known anomalous images decided unknown, 1 %",
        "known_anomalous_at_0.05": "5 %",
    }
    rows = []
    for name in names:
        cells = [name]
        for key in columns:
            values = [run["left_out"][name][key] for run in runs]
            defined = [100 * value for value in values if value is not None]
            cells.append(f"{np.mean(defined):.1f}" if defined else "-")
        rows.append(cells)
    return markdown_table(["left out", *columns.values()], rows)


def _resplit_table(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    heads = ["exchangeable: mean rate of 200 random splits", *(f"{100 * r:g} %" for r in RATES)]
    rows = []
    for name in names:
        means = [np.mean([run["resplit"][f"{rate:g}"][name] for run in runs]) for rate in RATES]
        rows.append([name, *(f"{100 * mean:.1f}" for mean in means)])
    return markdown_table(heads, rows)


def _spread(records: list[Any]) -> list[Any]:
    """Return at most PER_PRODUCT records, evenly spaced."""
    return records[:: max(1, -(-len(records) // PER_PRODUCT))]


def parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="bundles on the test images of their data set")
    run.add_argument("data", type=Path)
    run.add_argument("bundles", type=Path, nargs="+")
    add_output(run)
    add_output(verbs.add_parser("generated", help="scores drawn from a known distribution"))
    mixed = verbs.add_parser("groups", help="training images without product names")
    mixed.add_argument("data", type=Path)
    mixed.add_argument("bundle", type=Path)
    add_output(mixed)
    add_table_verb(verbs)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        write_or_print(table(read_results(options.results)), options.output)
    elif options.verb == "generated":
        write_json(options.output, generated())
    elif options.verb == "groups":
        write_json(options.output, groups(options.bundle, snl.Catalog.read(options.data)))
    else:
        catalog = snl.Catalog.read(options.data)
        results: dict[str, Any] = {"title": "Decisions", "data": catalog.root.name, "runs": []}
        for file in options.bundles:
            results["runs"].append(measure(file, catalog))
            write_json(options.output, results)


if __name__ == "__main__":
    run_main(main)
