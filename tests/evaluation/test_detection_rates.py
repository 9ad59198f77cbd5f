"""What the scores allow: quantiles by brute force, shares by scikit-learn's ROC curve."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

import snl
from snl.cli.main import main
from snl.decision.inspection import ANOMALOUS, NORMAL, UNCERTAIN, UNKNOWN
from snl.evaluation.detection_rates import (
    DetectionRates,
    QuantileThreshold,
    detection_rates,
    format_detection_rates,
    quantile_threshold,
)
from snl.evaluation.image_score import ImageScore
from tests.evaluation.test_decision_counts import image_score
from tests.evaluation.test_evaluate import Darkness
from tests.trees import make_mvtec

LIMITS = {"at_1": Fraction(1, 100), "at_5": Fraction(1, 20)}


def scored(
    score: float, product: str = "a", defect: str = "good", decision: str | None = None
) -> ImageScore:
    """Return an image with a score; normal if its defect is `good`."""
    label = "normal" if defect == "good" else "anomalous"
    if decision is None:
        return ImageScore(Path("a.png"), product, label, defect, score)
    image = image_score(product, label, decision, product)
    return dataclasses.replace(image, defect=defect, score=score)


def rates_of(normal: list[float], anomalous: list[float]) -> DetectionRates:
    images = [scored(s) for s in normal] + [scored(s, defect="cut") for s in anomalous]
    return detection_rates(images)


def most_detected(normal: list[float], anomalous: list[float], rate: Fraction) -> float:
    """Return the most that any threshold detects at a rate, by trying all thresholds."""
    best = Fraction(0)
    for threshold in {*normal, *anomalous, min(normal) - 1}:
        alarms = sum(score > threshold for score in normal)
        if Fraction(alarms, len(normal)) <= rate:
            detected = sum(score > threshold for score in anomalous)
            best = max(best, Fraction(detected, len(anomalous)))
    return float(best)


few_values = st.integers(0, 12).map(lambda n: n / 4)  # many ties, exact in float32


@given(
    st.lists(few_values, min_size=1, max_size=130), st.lists(few_values, min_size=1, max_size=30)
)
def test_no_threshold_detects_more(normal: list[float], anomalous: list[float]) -> None:
    product = rates_of(normal, anomalous).products["a"]
    for key, rate in LIMITS.items():
        assert getattr(product.anomalous, key) == most_detected(normal, anomalous, rate)
        limit = getattr(product, key)
        assert limit.false_alarms == sum(s > limit.threshold for s in normal) <= rate * len(normal)
        lower = [s for s in normal if s < limit.threshold]  # the next smaller one allows too many
        if lower:
            assert sum(s > max(lower) for s in normal) > rate * len(normal)
        assert limit.resolved == (len(normal) >= 1 / rate)


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("n_normal", [19, 20, 99, 100, 101, 777])
def test_shares_are_those_of_scikit_learn(n_normal: int, decimals: int) -> None:
    rng = np.random.default_rng(n_normal)
    normal = rng.normal(0, 1, n_normal).round(decimals).astype(np.float32)
    anomalous = rng.normal(1.5, 1, 200).round(decimals).astype(np.float32)
    product = rates_of(normal.tolist(), anomalous.tolist()).products["a"]
    labels = np.repeat([0, 1], [n_normal, 200])
    false_positives, true_positives, _ = roc_curve(
        labels, np.concatenate([normal, anomalous]), drop_intermediate=False
    )
    for key, rate in LIMITS.items():
        expected = true_positives[false_positives <= float(rate) + 1e-12].max()
        assert getattr(product.anomalous, key) == pytest.approx(expected)


@pytest.mark.parametrize("percent", [1, 5, 7, 29, 57])
def test_a_rate_that_is_no_binary_fraction_allows_exactly_its_share(percent: int) -> None:
    for n in (100, 200, 1000, 70_000):
        limit = quantile_threshold(np.arange(n), percent / 100)
        assert limit is not None and limit.false_alarms == percent * n // 100
    almost = quantile_threshold(np.arange(99), percent / 100)
    assert almost is not None and almost.false_alarms == percent * 99 // 100


def test_few_normal_images_give_the_share_without_false_alarms_and_a_mark() -> None:
    rates = rates_of([float(n) for n in range(20)], [18.5, 19.0, 19.5, 30.0])
    product = rates.products["a"]
    assert product.at_1 == QuantileThreshold(19.0, 0, resolved=False)
    assert product.at_5 == QuantileThreshold(18.0, 1, resolved=True)
    assert (product.anomalous.at_1, product.anomalous.at_5) == (0.5, 1.0)
    text = format_detection_rates(rates)
    assert text.splitlines()[2].split()[-2:] == ["*50.0", "100.0"]
    assert "fewer than 100 normal test images cannot resolve 1 %" in text
    assert "cannot resolve 5 %" not in text


def test_equal_scores_are_neither_detected_nor_false_alarms() -> None:
    rates = rates_of([1.0] * 150, [1.0, 1.0])
    assert rates.products["a"].at_5 == QuantileThreshold(1.0, 0, resolved=True)
    assert rates.products["a"].anomalous.at_5 == 0
    assert rates_of([1.0] * 150, [1.0, 2.0]).products["a"].anomalous.at_1 == 0.5


def test_scores_are_compared_as_float32() -> None:
    rates = rates_of([0.1], [float(np.float32(0.1))])  # 0.1 in float32 is above 0.1
    assert rates.products["a"].anomalous.at_5 == 0


def test_without_normal_or_without_anomalous_images() -> None:
    no_normals = rates_of([], [1.0, 2.0])
    product = no_normals.products["a"]
    assert product.at_1 is product.at_5 is product.anomalous.at_1 is product.false_alarms is None
    assert (product.n_normal, product.anomalous.n, product.anomalous.n_compared) == (0, 2, 0)
    assert no_normals.overall.at_1 is None and no_normals.overall.anomalous.at_5 is None
    assert "without products that have no normal test images" in format_detection_rates(no_normals)
    no_defects = rates_of([1.0], [])
    product = no_defects.products["a"]
    assert product.at_1 == QuantileThreshold(1.0, 0, resolved=False)
    assert product.anomalous.n == 0 and product.anomalous.at_1 is None and product.kinds == {}
    assert "*" not in format_detection_rates(no_defects)
    nothing = detection_rates([])
    assert nothing.products == {} and nothing.overall.n_normal == 0
    for rates in (no_normals, no_defects, nothing):
        json.dumps(rates.to_dict(), allow_nan=False)
        format_detection_rates(rates)


def several() -> list[ImageScore]:
    """Return random images of three products; `c` has no normal images and does not name kinds."""
    rng = np.random.default_rng(3)
    decisions = [NORMAL, UNCERTAIN, ANOMALOUS, UNKNOWN]
    counts = {
        "a": {"good": 130, "cut": 9, "hole": 4, "": 3},
        "b": {"good": 25, "cut": 7},
        "c": {"": 5},
    }
    return [
        scored(float(rng.normal(kind != "good")), product, kind, str(rng.choice(decisions)))
        for product, kinds in counts.items()
        for kind, count in kinds.items()
        for _ in range(count)
    ]


def test_kinds_and_all_products_are_those_of_loops() -> None:
    images = several()
    rates = detection_rates(images)
    above: dict[str, list[bool]] = {"at_1": [], "at_5": []}
    for name, product in rates.products.items():
        own = [i for i in images if i.product == name]
        normal = [i for i in own if i.label == "normal"]
        defects = [i for i in own if i.label == "anomalous"]
        assert list(product.kinds) == sorted({i.defect for i in defects})
        assert product.n_normal == len(normal)
        alarms = [i.verdict is not None and i.verdict.decision == ANOMALOUS for i in normal]
        assert product.false_alarms == (np.mean(alarms) if alarms else None)
        for kind, detected in [(None, product.anomalous), *product.kinds.items()]:
            chosen = [i for i in defects if kind in (None, i.defect)]
            decisions = [i.verdict.decision for i in chosen if i.verdict]
            assert detected.n == len(chosen) == len(decisions)
            for decision, share in (
                (ANOMALOUS, detected.decided),
                (UNCERTAIN, detected.uncertain),
                (UNKNOWN, detected.unknown),
            ):
                assert share == decisions.count(decision) / len(chosen)
            for key in above:
                limit = getattr(product, key)
                if limit is None:
                    assert getattr(detected, key) is None and name == "c"
                    continue
                higher = [i.score > limit.threshold for i in chosen]
                assert getattr(detected, key) == np.mean(higher)
                above[key] += higher if kind is None else []
    overall = rates.overall
    assert (overall.n_normal, overall.anomalous.n, overall.anomalous.n_compared) == (155, 28, 23)
    assert overall.kinds == {}
    for key, higher in above.items():
        assert getattr(overall.anomalous, key) == np.mean(higher)
    assert overall.at_5 is not None and overall.at_5.threshold is None
    assert overall.at_5.false_alarms == 6 + 1 and overall.at_5.resolved
    assert overall.at_1 is not None and overall.at_1.false_alarms == 1
    assert not overall.at_1.resolved  # `b` has 25 normal images


def test_an_anomalous_image_called_good_by_its_data_set_has_no_kind() -> None:
    image = dataclasses.replace(scored(1.0), label="anomalous")
    assert list(detection_rates([image]).products["a"].kinds) == [""]


def names(text: str) -> list[str]:
    """Return the first column."""
    return [line.split("  ")[0] for line in text.splitlines()]


def test_a_short_table_has_a_row_for_each_kind() -> None:
    lines = names(format_detection_rates(detection_rates(several())))
    rule = next(line for line in lines if line.startswith("---"))
    assert lines[1 : lines.index("all products") + 1] == [
        rule,
        *("a", "- (kind not named)", "- cut", "- hole", "b", "- cut", "c"),  # c: one unnamed kind
        rule,
        "all products",
    ]


@pytest.mark.parametrize("products", [9, 150])
def test_a_long_table_has_kinds_on_request(products: int) -> None:
    rates = detection_rates(
        scored(float(k), f"p{n:03d}", "good" if k == 0 else f"kind {k}")
        for n in range(products)
        for k in range(7)
    )
    text = format_detection_rates(rates)
    assert f"{6 * products} rows by kind of defect: snl evaluate --kinds, or --json" in text
    table = names(text)[: names(text).index("all products") + 1]
    assert len(table) == products + 4  # heading, two rules, total
    full = names(format_detection_rates(rates, kinds=True))
    assert sum(name.startswith("- kind") for name in full) == 6 * products
    table_lines = format_detection_rates(rates, kinds=True).splitlines()[: 7 * products + 4]
    assert len({len(line) for line in table_lines}) == 1 and len(table_lines[0]) < 140


def test_a_model_without_calibration_has_limits_but_no_decisions(tmp_path: Path) -> None:
    evaluation = snl.evaluate(Darkness(), make_mvtec(tmp_path / "tree"))
    for product in evaluation.detection_rates.products.values():
        assert product.false_alarms is None and product.anomalous.decided is None
        assert product.anomalous.at_5 is not None and product.kinds
    assert evaluation.to_dict()["detection_rates"] == evaluation.detection_rates.to_dict()


def test_the_command_prints_and_writes_them(
    calibrated: Path, varied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics.json"
    words = ["evaluate", str(calibrated), str(varied), "--json", str(file), "--quiet"]
    assert main(words) == 0
    output = capsys.readouterr().out
    evaluation = snl.evaluate(snl.load(calibrated, "cpu"), varied)
    rates = evaluation.detection_rates
    assert format_detection_rates(rates) in output
    written = json.loads(file.read_text())
    assert written["detection_rates"] == json.loads(json.dumps(rates.to_dict()))
    for name, product in rates.products.items():
        counts = written["decisions"]["products"][name]
        assert product.false_alarms == counts["false_alarms"] / product.n_normal
        assert product.anomalous.decided == counts["anomalous"][ANOMALOUS] / product.anomalous.n
    assert main([*words, "--kinds"]) == 0
    assert format_detection_rates(rates, kinds=True) in capsys.readouterr().out
