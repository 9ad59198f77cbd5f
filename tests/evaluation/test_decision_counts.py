"""How decisions fared: counts by a loop, bounds by scipy's test, one ranking by scikit-learn."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

import snl
from snl.cli.main import main
from snl.decision.calibration import Verdict
from snl.evaluation.decision_counts import KINDS, bounds, decisions, format_decisions
from snl.evaluation.evaluate import Evaluation, ImageScore
from tests.evaluation.test_evaluate import Darkness
from tests.trees import save_varied


@pytest.mark.parametrize("total", [1, 2, 7, 40, 1000])
def test_bounds_are_those_of_an_exact_test(total: int) -> None:
    for count in {0, 1, total // 3, total - 1, total}:
        for confidence in (0.95, 0.99):
            test = binomtest(count, total).proportion_ci(confidence, "exact")
            found = bounds(count, total, confidence)
            assert found == pytest.approx([test.low, test.high], abs=1e-9)
    assert bounds(0, 0) is None


def image_score(
    product: str, label: str, decision: str, recognised: str, taught: bool = True
) -> ImageScore:
    verdict = Verdict(
        decision, recognised, "recognised", recognised, 1.0, 0.5, 1.0, 0.0, 0.5, 2.0, 1.5,
        "product", 3.0,
    )  # fmt: skip
    return ImageScore(Path("a.png"), product, label, "", 1.0, verdict, taught)


def test_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    names = ["a", "b", "nut"]
    scores = [
        image_score(
            product := str(rng.choice(names)),
            str(rng.choice(["normal", "anomalous"])),
            str(rng.choice(KINDS)),
            str(rng.choice(["a", "b"])),
            taught=product != "nut",
        )
        for _ in range(300)
    ]
    found = decisions(scores)
    assert list(found) == ["a", "b", "nut", "all products"]
    for name, table in found.items():
        own = [s for s in scores if name in (s.product, "all products")]
        for label in ("normal", "anomalous"):
            wanted = Counter(s.verdict.decision for s in own if s.verdict and s.label == label)
            assert table[label] == {kind: wanted[kind] for kind in KINDS}
        normals = [s for s in own if s.label == "normal"]
        alarms = sum(s.verdict is not None and s.verdict.decision == "anomalous" for s in normals)
        assert table["false_alarms"] == alarms
        test = binomtest(alarms, len(normals)).proportion_ci(0.95, "exact")
        assert table["false_alarm_bounds"] == pytest.approx([test.low, test.high])
        taught = [s for s in own if s.product != "nut"]
        right = [s.verdict is not None and s.verdict.recognised == s.product for s in taught]
        assert table["recognised"] == (np.mean(right) if taught else None)
    lines = format_decisions(scores).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[4].split()[0] == "nut" and lines[4].split()[-1] == "-"
    assert lines[-1].split()[2] == str(found["all products"]["false_alarms"])


def test_a_taught_product_that_is_never_recognised_counts_as_such() -> None:
    scores = [image_score("a", "normal", "normal", "b"), image_score("b", "normal", "normal", "b")]
    found = decisions(scores)
    assert (found["a"]["recognised"], found["all products"]["recognised"]) == (0.0, 0.5)


def test_one_kind_of_image_is_enough_and_none_is_nothing() -> None:
    found = decisions([image_score("a", "anomalous", "uncertain", "a")])
    assert found["a"]["false_alarm_bounds"] is None and found["a"]["false_alarms"] == 0
    assert " - " in format_decisions([image_score("a", "anomalous", "uncertain", "a")])
    assert decisions([]) == {} and format_decisions([]) == ""


def test_a_predictor_that_does_not_decide_has_no_decisions(varied: Path) -> None:
    result = snl.evaluate(Darkness(), varied)
    assert result.calibrated_auroc is None and all(s.verdict is None for s in result.scores)
    assert decisions(result.scores) == {} and format_decisions(result.scores) == ""
    assert set(result.to_dict()) == {"products", "mean", "pooled"}
    assert "image_auroc_calibrated" not in result.to_dict()["pooled"]


@pytest.fixture(scope="module")
def result(calibrated: Path, varied: Path) -> Evaluation:
    return snl.evaluate(snl.load(calibrated, "cpu"), varied)


def test_decisions_are_those_of_inspection(
    calibrated: Path, varied: Path, result: Evaluation
) -> None:
    inspector = snl.load(calibrated, "cpu")
    known = snl.evaluate(inspector, varied, products_given=True)
    for evaluation, given in ((result, False), (known, True)):
        assert len(evaluation.scores) == 60
        for one in evaluation.scores:
            wanted = inspector.inspect(one.path, one.product if given else None)
            assert one.verdict is not None and one.score == one.verdict.score
            assert one.score == pytest.approx(wanted.score, rel=1e-4)
            assert one.verdict.decision == wanted.decision
            assert one.verdict.product == wanted.product
            assert one.verdict.product_from == ("given" if given else "recognised")
    assert all(one.verdict.product == one.product for one in known.scores if one.verdict)
    table = decisions(known.scores)["all products"]
    assert sum(table["normal"].values()) == 40 and sum(table["anomalous"].values()) == 20
    assert table["normal"]["unknown product"] == table["anomalous"]["unknown product"] == 0


def test_one_ranking_by_calibrated_scores_is_that_of_scikit_learn(
    calibrated: Path, result: Evaluation
) -> None:
    usual = snl.load(calibrated, "cpu").calibration.usual
    labels = [one.label == "anomalous" for one in result.scores]
    values = []
    for one in result.scores:
        assert one.verdict is not None
        mean, deviation = usual[one.verdict.product]
        values.append((np.log(one.score) - mean) / deviation)
        assert one.verdict.calibrated == pytest.approx(values[-1], rel=1e-9)
    assert result.calibrated_auroc == pytest.approx(roc_auc_score(labels, values))
    pooled = result.to_dict()["pooled"]
    assert pooled["image_auroc_calibrated"] == result.calibrated_auroc


class Shifted(snl.Inspector):
    """Scores of plates ten times as high, by the same factor in what they usually are."""

    factor = 10.0

    def conclude(self, anomaly_map: Any, score: float, embedding: Any, *rest: Any) -> Any:
        recognised, _ = super().conclude(anomaly_map, score, embedding, *rest)
        product = super().conclude(anomaly_map, score, embedding, *rest)[1].product
        by = self.factor if product == "plate" else 1.0
        return super().conclude(recognised * by, score * by, embedding, *rest)


def test_calibrated_scores_rank_products_of_any_scale(
    calibrated: Path, varied: Path, result: Evaluation
) -> None:
    import dataclasses

    plain = snl.load(calibrated, "cpu")
    inspector = Shifted(plain.engine, plain.known)
    old = inspector.calibration
    mean, deviation = old.usual["plate"]
    plate = old.normals["plate"]
    inspector.recalibrate(
        dataclasses.replace(
            old,
            usual={**old.usual, "plate": (mean + np.log(10.0), deviation)},
            normals={
                **old.normals,
                "plate": dataclasses.replace(
                    plate, scores=plate.scores * np.float32(10), peaks=plate.peaks * np.float32(10)
                ),
            },
        )
    )
    found = snl.evaluate(inspector, varied)
    assert found.pooled["image_auroc"] < result.pooled["image_auroc"]  # type: ignore[operator]
    assert found.calibrated_auroc == pytest.approx(result.calibrated_auroc, abs=0.02)


def test_the_command_prints_and_writes_decisions(
    calibrated: Path, varied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    result: Evaluation,
) -> None:  # fmt: skip
    file = tmp_path / "metrics.json"
    for products in ("recognised", "given"):
        words = ["evaluate", str(calibrated), str(varied), "--json", str(file), "--quiet"]
        assert main([*words, "--products", products]) == 0
        told = capsys.readouterr().out
        assert "normal: false alarms" in told and "by raw scores" in told
        written = json.loads(file.read_text())
        assert written["about"]["products"] == products
        if products == "recognised":
            assert written["decisions"] == json.loads(json.dumps(decisions(result.scores)))
        assert list(written["decisions"]) == ["bolt", "plate", "all products"]


def test_images_of_an_untaught_product_are_counted_but_not_told(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        save_varied(tmp_path / "nut" / "test" / "good" / f"{n}.png", 9000 + n, product="plate")
        save_varied(tmp_path / "plate" / "test" / "good" / f"{n}.png", 9100 + n, product="plate")
    assert main(["evaluate", str(calibrated), str(tmp_path), "--products", "given", "--quiet"]) == 0
    assert "not products of this inspector: nut" in capsys.readouterr().err
    found = snl.evaluate(snl.load(calibrated, "cpu"), tmp_path, products_given=True)
    table = decisions(found.scores)
    assert table["nut"]["recognised"] is None and sum(table["nut"]["normal"].values()) == 3
    assert table["plate"]["recognised"] == table["all products"]["recognised"]
    origins = {one.verdict.product_from for one in found.scores if one.verdict}
    assert origins == {"given", "recognised"}  # what was not taught cannot be given
