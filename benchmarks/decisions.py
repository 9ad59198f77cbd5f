"""Do decisions keep their promise? False alarms, known and unknown products, one ranking for all.

    python benchmarks/decisions.py run DATA BUNDLE [BUNDLE ...] -o docs/results/decisions.json
    python benchmarks/decisions.py generated -o docs/results/decisions-generated.json
    python benchmarks/decisions.py groups DATA BUNDLE -o docs/results/decisions-groups.json
    python benchmarks/decisions.py table docs/results/decisions.json

`run`: for bundles of `snl train DATA`, on the test images of DATA. `generated`: on scores of a
known law, where any deviation is the method's own. `groups`: training images without product names,
parted by the bundle's teacher; needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import betabinom

import snl
from snl import progress
from snl.decision.calibration import MARGIN, Calibration
from snl.decision.conformal import Conformal, log_score_stats
from snl.decision.products import find_groups, fit_prototypes
from snl.evaluation.decision_counts import bounds
from snl.evaluation.metrics import auroc
from snl.files import write_json
from snl.runtime.recalibrate import Survey, normals_of, survey
from snl.training.selection import split

RATES = (0.01, 0.05, 0.1)
RESPLITS = 200
SURVEYED = 100
"""Training images of each product that prototypes are learnt from, as in `snl train`."""


def measure(file: Path, catalog: snl.Catalog) -> dict[str, Any]:
    """All figures of one bundle."""
    inspector = snl.load(file)
    used, held = split(catalog, inspector.network.settings)
    some = [r for p in inspector.products for r in _spread([u for u in used if u.product == p])]
    told = progress.bar(file.name)
    parts = [some, held, list(catalog.test())]
    total, before, found = sum(map(len, parts)), 0, []
    for part in parts:
        start = before
        found.append(survey(inspector, part, [], lambda done, _, s=start: told(s + done, total)))  # type: ignore[misc]
        before += len(part)
    fit, kept, test = found
    calibration = inspector.calibration
    same = normals_of(inspector, kept)
    for product, normals in calibration.normals.items():
        if not np.allclose(np.sort(normals.scores), np.sort(same[product].scores), rtol=1e-3):
            sys.exit(f"{file}: was not trained on {catalog.root}")
    judged = judge(calibration, inspector.prototypes.distances(test.embeddings), test, inspector)
    return {
        "bundle": file.name,
        "method": inspector.network.settings.method,
        "seed": inspector.network.settings.training.seed,
        "held_back": {k: len(n) for k, n in calibration.normals.items()},
        "rates": {f"{rate:g}": false_alarms(calibration, test, judged, rate) for rate in RATES},
        "ranking": ranking(test, judged),
        "recognised": float(np.mean(judged["right"])),
        "unknown_false": {
            label: float(np.mean(judged["foreign"][judged["label"] == label]))
            for label in ("normal", "anomalous")
        },
        "resplit": resplit(calibration, kept, test),
        "left_out": left_out(fit, kept, test, inspector.network.settings.training.seed),
    }


def judge(
    calibration: Calibration, distances: np.ndarray, test: Survey, inspector: snl.Inspector
) -> dict[str, np.ndarray]:
    """Of every test image: p-values with the product given and recognised, and the rest."""
    names = inspector.prototypes.names
    rows: dict[str, list[Any]] = {
        k: [] for k in ("given", "told", "right", "foreign", "calibrated")
    }
    for record, score, row in zip(test.records, test.scores.tolist(), distances, strict=True):
        verdict = calibration.judge(score, dict(zip(names, row.tolist(), strict=True)))
        rows["given"].append(calibration.scores.p_value(score, record.product))
        rows["told"].append(verdict.p_value)
        rows["right"].append(verdict.recognised == record.product)
        rows["foreign"].append(verdict.decision == "unknown product")
        rows["calibrated"].append(verdict.calibrated)
    return {
        **{name: np.array(values) for name, values in rows.items()},
        "label": np.array([str(r.label) for r in test.records]),
        "product": np.array([r.product for r in test.records]),
    }


def false_alarms(
    calibration: Calibration, test: Survey, judged: dict[str, np.ndarray], rate: float
) -> dict[str, Any]:
    """Realised against promised, by product and over all; also with the product not given.

    `bound`: 95 % of alarm counts lie in it if the promise is kept to the letter: beta-binomial, for
    the threshold is an order statistic of n scores (`by` the product, or of all) and the rate it
    has is Beta(l, n + 1 - l), l = floor(rate (n + 1)).
    """
    found: dict[str, Any] = {}
    for product in (*calibration.products, "all products"):
        own = np.ones(len(test.records), bool) if product == "all products" else test.of(product)
        normal, anomalous = (own & (judged["label"] == k) for k in ("normal", "anomalous"))
        count = int(np.sum(judged["given"][normal] <= rate))
        images = int(normal.sum())
        entry: dict[str, Any] = {
            "normal": images,
            "alarms": count,
            "alarms_recognised": int(
                np.sum((judged["told"][normal] <= rate) & ~judged["foreign"][normal])
            ),
            "interval": bounds(count, images),
            "anomalous": int(anomalous.sum()),
            "found": int(np.sum(judged["given"][anomalous] <= rate)),
        }
        if product != "all products":
            _, by = calibration.scores.threshold(rate, product)
            n = len(calibration.normals[product])
            n = n if by == "product" else sum(map(len, calibration.normals.values()))
            entry |= {"by": by, "bound": promised(images, n, rate)}
        found[product] = entry
    return found


def promised(images: int, n: int, rate: float) -> list[int]:
    """The middle 95 % of the alarms among new normal images, see `false_alarms`."""
    allowed = int(np.floor(rate * (n + 1) + 1e-9))
    law = betabinom(images, allowed, n + 1 - allowed)
    return [int(law.ppf(0.025)), int(law.ppf(0.975))]


def ranking(test: Survey, judged: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Image AUROC: mean of the products, pooled by raw and by calibrated scores."""
    normal = judged["label"] == "normal"

    def area(values: np.ndarray, own: np.ndarray) -> float | None:
        return auroc(values[own & normal], values[own & ~normal])

    every = np.ones(len(normal), bool)
    each = [area(test.scores, judged["product"] == p) for p in np.unique(judged["product"])]
    mean = float(np.mean([value for value in each if value is not None]))
    raw, calibrated = area(test.scores, every), area(judged["calibrated"], every)
    closed = None
    if raw is not None and calibrated is not None and mean > raw:
        closed = (calibrated - raw) / (mean - raw)
    return {"mean": mean, "pooled_raw": raw, "pooled_calibrated": calibrated, "gap_closed": closed}


def resplit(calibration: Calibration, kept: Survey, test: Survey) -> dict[str, dict[str, float]]:
    """Mean realised rates where held-back and unseen normal images ARE exchangeable: both are put
    together and parted anew at random, 200 times. The network has seen none of them."""
    rng = np.random.default_rng(0)
    normal = np.array([r.label == "normal" for r in test.records], bool)
    both = {
        p: np.concatenate([kept.scores[kept.of(p)], test.scores[test.of(p) & normal]])
        for p in calibration.products
    }
    rates: dict[str, dict[str, list[float]]] = {f"{rate:g}": {} for rate in RATES}
    for _ in range(RESPLITS):
        shuffled = {p: rng.permutation(v) for p, v in both.items()}
        counts = {p: len(calibration.normals[p]) for p in both}
        law = Conformal({p: v[: counts[p]] for p, v in shuffled.items()}, calibration.usual)
        every: list[float] = []
        for p, values in shuffled.items():
            ps = [law.p_value(v, p) or 0.0 for v in values[counts[p] :].tolist()]
            every += ps
            for rate in RATES:
                rates[f"{rate:g}"].setdefault(p, []).append(float(np.mean(np.array(ps) <= rate)))
        for rate in RATES:
            share = float(np.mean(np.array(every) <= rate))
            rates[f"{rate:g}"].setdefault("all products", []).append(share)
    return {rate: {p: float(np.mean(v)) for p, v in own.items()} for rate, own in rates.items()}


def left_out(fit: Survey, kept: Survey, test: Survey, seed: int) -> dict[str, Any]:
    """Each product in turn is not taught: are its test images told as unknown?

    Recognition uses the teacher alone, so nothing is trained anew: prototypes and held-back images
    of the others are what they would be without the product.
    """
    found = {}
    for product in sorted({r.product for r in test.records}):
        names = [r.product for r, own in zip(fit.records, fit.of(product), strict=True) if not own]
        prototypes = fit_prototypes(fit.embeddings[~fit.of(product)], names, seed)
        near = {
            name: prototypes.distances(part.embeddings).min(1)
            for name, part in (("kept", kept), ("test", test))
        }
        known = near["kept"][~kept.of(product)]
        own = test.of(product)
        p = np.array([(1 + np.sum(known >= d / MARGIN)) / (1 + len(known)) for d in near["test"]])
        anomalous = np.array([r.label == "anomalous" for r in test.records], bool)
        found[product] = {
            "auroc": auroc(near["test"][~own], near["test"][own]),
            **{
                f"{name}_at_{rate:g}": float(np.mean(p[which] <= rate))
                for rate in (0.01, 0.05)
                for name, which in (
                    ("unknown", own),
                    ("known_normal", ~own & ~anomalous),
                    ("known_anomalous", ~own & anomalous),
                )
            },
        }
    return found


def generated(runs: int = 2000) -> dict[str, Any]:
    """Log-normal scores of nine products whose scales and numbers of images differ."""
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
        law = Conformal(
            {name: draw[name][100 : 100 + n] for name, n in counts.items()},
            log_score_stats({name: values[:100] for name, values in draw.items()}),
        )
        for name, n in counts.items():
            ps = np.array([law.p_value(v, name) for v in draw[name][100 + n :].tolist()])
            for rate in RATES:
                alarms[rate][name] += int(np.sum(ps <= rate))
    total = runs * new
    return {
        "runs": runs,
        "new_images_per_product_and_run": new,
        "rates": {
            f"{rate:g}": {
                name: {
                    "held_back": counts[name],
                    "realised": count / total,
                    "interval": bounds(count, total),
                }
                for name, count in own.items()
            }
            | {"all products": {"realised": sum(own.values()) / total / len(counts)}}
            for rate, own in alarms.items()
        },
    }


def groups(file: Path, catalog: snl.Catalog) -> dict[str, Any]:
    """The groups found among all training images, and among those of each product alone."""
    from sklearn.metrics import adjusted_rand_score

    inspector = snl.load(file)
    records = list(catalog.train())
    found = survey(inspector, records, [], progress.bar("images"))
    names = np.array([record.product for record in found.records])
    labels = find_groups(found.embeddings, 0)
    alone = {p: find_groups(found.embeddings[names == p], 0) for p in np.unique(names).tolist()}
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
    """Markdown: false alarms by product, ranking, recognition, unknown products."""
    runs = results["runs"]
    names = list(runs[0]["rates"]["0.05"])
    heads = [f"{100 * rate:g} %: alarms (95 % bound) | recognised | by" for rate in RATES]
    lines = [
        "| product | held back | " + " | ".join(heads) + " | found at 5 % |",
        "|---" * (3 + 3 * len(RATES)) + "|",
    ]
    for run in runs:
        lines.append(f"| **{run['bundle']}** |" + " |" * (2 + 3 * len(RATES)))
        for name in names:
            cells = [name, str(run["held_back"].get(name, sum(run["held_back"].values())))]
            for rate in RATES:
                one = run["rates"][f"{rate:g}"][name]
                bound = one.get("bound")
                limits = f" ({bound[0]}..{bound[1]})" if bound else _percent(one["interval"])
                cells += [f"{one['alarms']} of {one['normal']}{limits}",
                          str(one["alarms_recognised"]), one.get("by", "")]  # fmt: skip
            one = run["rates"]["0.05"][name]
            cells.append(f"{one['found']} of {one['anomalous']}")
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| bundle | mean | pooled, raw | pooled, calibrated | gap closed | recognised |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for run in runs:
        r = run["ranking"]
        lines.append(
            f"| {run['bundle']} | {100 * r['mean']:.1f} | {100 * r['pooled_raw']:.1f} | "
            f"{100 * r['pooled_calibrated']:.1f} | {100 * r['gap_closed']:.0f} % | "
            f"{100 * run['recognised']:.2f} % |"
        )
    lines += [
        "",
        "| left out | AUROC | told as unknown, rate 1 % | rate 5 % | known normals told so, 5 % | "
        "known anomalous told so, 1 % | 5 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (n for n in names if n != "all products"):
        ones = [run["left_out"][name] for run in runs]

        def mean(key: str, ones: list[dict[str, float]] = ones) -> str:
            return f"{100 * np.mean([one[key] for one in ones]):.1f}"

        lines.append(
            f"| {name} | {mean('auroc')} | {mean('unknown_at_0.01')} | {mean('unknown_at_0.05')} | "
            f"{mean('known_normal_at_0.05')} | {mean('known_anomalous_at_0.01')} | "
            f"{mean('known_anomalous_at_0.05')} |"
        )
    lines += ["", "| exchangeable: mean rate of 200 partings | " + " | ".join(
        f"{100 * r:g} %" for r in RATES) + " |", "|---" * (1 + len(RATES)) + "|"]  # fmt: skip
    for name in names:
        values = [f"{100 * np.mean([run['resplit'][f'{r:g}'][name] for run in runs]):.1f}"
                  for r in RATES]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _percent(interval: Sequence[float] | None) -> str:
    return f" ({100 * interval[0]:.1f}..{100 * interval[1]:.1f} %)" if interval else ""


def _spread(records: list[Any]) -> list[Any]:
    return records[:: max(1, -(-len(records) // SURVEYED))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("data", type=Path)
    run.add_argument("bundles", type=Path, nargs="+")
    run.add_argument("-o", "--output", type=Path, required=True)
    mixed = commands.add_parser("groups")
    mixed.add_argument("data", type=Path)
    mixed.add_argument("bundle", type=Path)
    mixed.add_argument("-o", "--output", type=Path, required=True)
    known = commands.add_parser("generated")
    known.add_argument("-o", "--output", type=Path, required=True)
    shown = commands.add_parser("table")
    shown.add_argument("results", type=Path)
    options = parser.parse_args()
    if options.command == "table":
        print(table(json.loads(options.results.read_text())))
    elif options.command == "groups":
        write_json(options.output, groups(options.bundle, snl.Catalog.read(options.data)))
    elif options.command == "generated":
        write_json(options.output, generated())
    else:
        catalog = snl.Catalog.read(options.data)
        results: dict[str, Any] = {"title": "Decisions", "data": catalog.root.name, "runs": []}
        for file in options.bundles:
            results["runs"].append(measure(file, catalog))
            write_json(options.output, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
