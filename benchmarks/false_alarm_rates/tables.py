"""Results of bundles as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import markdown_table
from benchmarks.false_alarm_rates import ALL, RATES
from benchmarks.internals import RULES, binomial_interval

HEAD = """\
# Decisions: all bundles, all products

    python -m benchmarks.false_alarm_rates table docs/results/decisions.json \\
        -o docs/results/decisions.md

In brackets after the alarms of a product: the middle 95 % of counts if the nominal rate holds
exactly (beta-binomial). After those of all products: the exact 95 % interval of the rate.
`recognised`: alarms when the product is not given. `by`: whose held-out images the threshold comes
from.

"""


def table(results: dict[str, Any]) -> str:
    """Return Markdown: false alarms by product, ranking, recognition, unknown products."""
    runs = results["runs"]
    names = list(runs[0]["rates"]["0.05"])
    parts = [
        _false_alarm_table(runs, names),
        _ranking_table(runs),
        _left_out_table(runs, [name for name in names if name != ALL]),
        _resplit_table(runs, names),
        _rules_table(runs),
        _rates_by_product(runs, names),
        *[_tries_table(runs, group) for group in runs[0]["tries"]],
        _alone_table(runs, [name for name in names if name != ALL]),
    ]
    return HEAD + "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _false_alarm_table(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    heads = ["product", "held out"]
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


def _rules_table(runs: Sequence[dict[str, Any]]) -> list[str]:
    heads = [
        *("rules at 5 %, 200 random splits", "rule", "mean rate", "lowest and highest product"),
        *("standard deviation over products and splits", "defects found", "oracle, same rate"),
        *("conformal, same rate", "plain split: rate", "found"),
    ]
    rows = []
    for run in runs:
        for rule in RULES:
            result = run["rules"][rule]
            rates = [v for name, v in result["rate"].items() if name != ALL]
            plain = result["plain split"].values()
            alarms, normal = (sum(p[key] for p in plain) for key in ("alarms", "normal"))
            low, high = binomial_interval(alarms, normal) or (0.0, 1.0)
            found = np.mean([p["found"] / p["anomalous"] for p in plain if p["anomalous"]])
            same = run["rules"]["conformal at the rate of shared-tail"]
            rows.append(
                [
                    run["bundle"],
                    rule,
                    f"{100 * result['rate'][ALL]:.1f}",
                    f"{100 * min(rates):.1f}, {100 * max(rates):.1f}",
                    f"{100 * result['standard deviation']:.1f}",
                    f"{100 * result['found'][ALL]:.1f}",
                    f"{100 * result['oracle']:.1f}",
                    f"{100 * same:.1f}" if rule == "shared-tail" else "",
                    f"{100 * alarms / normal:.1f} ({100 * low:.1f}..{100 * high:.1f})",
                    f"{100 * found:.1f}",
                ]
            )
    return markdown_table(heads, rows)


def _rates_by_product(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    heads = ["mean rate of 200 random splits, shared-tail at 5 %", *(run["bundle"] for run in runs)]
    rows = [
        [name, *(f"{100 * run['rules']['shared-tail']['rate'][name]:.1f}" for run in runs)]
        for name in names
    ]
    return markdown_table(heads, rows)


def _alone_table(runs: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    heads = ["one product alone", "own normal images decided unknown", "images of the others"]
    rows = []
    for name in names:
        shares = [
            np.mean([run["alone"][name][k] for run in runs]) for k in ("own normal", "others")
        ]
        rows.append([name, *(f"{100 * share:.1f}" for share in shares)])
    return markdown_table(heads, rows)


def _tries_table(runs: Sequence[dict[str, Any]], group: str) -> list[str]:
    columns = {
        "rate": "mean rate",
        "standard deviation": "standard deviation",
        "lowest": "lowest product",
        "highest": "highest",
        "found": "defects found",
    }
    rows = []
    for name in runs[0]["tries"][group]:
        cells = [name]
        for key in columns:
            values = [100 * run["tries"][group][name][key] for run in runs]
            cells.append(
                f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"
            )
        rows.append(cells)
    return markdown_table([f"tries at 5 %, products: {group}", *columns.values()], rows)
