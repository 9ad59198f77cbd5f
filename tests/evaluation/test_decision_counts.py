"""Decisions against labels: counts by a loop, intervals by scipy, the ranking by scikit-learn."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

import snl
from snl.cli.main import main
from snl.decision.calibration import Calibration
from snl.decision.inspection import Verdict
from snl.decision.references import score_factor
from snl.evaluation.decision_counts import (
    DECISIONS,
    decision_counts,
    format_decisions,
    rate_interval,
)
from snl.evaluation.image_score import ImageScore
from snl.evaluation.result import Evaluation
from snl.runtime.engine import Outputs
from tests.evaluation.test_evaluate import Darkness
from tests.trees import save_varied


@pytest.mark.parametrize("total", [1, 2, 7, 40, 1000])
def test_intervals_are_those_of_an_exact_test(total: int) -> None:
    for count in {0, 1, total // 3, total - 1, total}:
        for confidence in (0.95, 0.99):
            test = binomtest(count, total).proportion_ci(confidence, "exact")
            interval = rate_interval(count, total, confidence)
            assert interval == pytest.approx([test.low, test.high], abs=1e-9)
    assert rate_interval(0, 0) is None


def image_score(
    product: str, label: str, decision: str, recognised: str, known: bool = True
) -> ImageScore:
    """Return the result of one image with these values; the others do not matter."""
    verdict = Verdict(
        decision=decision,
        product=recognised,
        product_from="recognised",
        recognised=recognised,
        distance=1.0,
        second_distance=None,
        unknown_distance=None,
        unknown_p=0.5,
        unusual_p=None,
        strangeness=None,
        score=1.0,
        calibrated=0.0,
        p_value=0.5,
        p_value_from="product",
        threshold=2.0,
        uncertain_threshold=1.5,
        threshold_from="product",
        region_threshold=3.0,
    )
    return ImageScore(Path("a.png"), product, label, "", 1.0, verdict, known)


def test_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    names = ["a", "b", "nut"]
    scores = [
        image_score(
            product := str(rng.choice(names)),
            str(rng.choice(["normal", "anomalous"])),
            str(rng.choice(DECISIONS)),
            str(rng.choice(["a", "b"])),
            known=product != "nut",
        )
        for _ in range(300)
    ]
    counts = decision_counts(scores)
    assert counts is not None and list(counts) == ["products", "overall"]
    assert list(counts["products"]) == names
    for name, table in [*counts["products"].items(), (None, counts["overall"])]:
        subset = [s for s in scores if name in (s.product, None)]
        for label in ("normal", "anomalous"):
            expected = Counter(s.verdict.decision for s in subset if s.verdict and s.label == label)
            assert table[label] == {decision: expected[decision] for decision in DECISIONS}
        normals = [s for s in subset if s.label == "normal"]
        alarms = sum(s.verdict is not None and s.verdict.decision == "anomalous" for s in normals)
        assert table["false_alarms"] == alarms
        test = binomtest(alarms, len(normals)).proportion_ci(0.95, "exact")
        assert table["false_alarm_bounds"] == pytest.approx([test.low, test.high])
        known = [s for s in subset if s.product != "nut"]
        correct = [s.verdict is not None and s.verdict.recognised == s.product for s in known]
        assert table["recognised"] == (np.mean(correct) if known else None)
    lines = format_decisions(scores).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[4].split()[0] == "nut" and lines[4].split()[-1] == "-"
    assert lines[-1].split()[2] == str(counts["overall"]["false_alarms"])
    missed = sum(
        s.label == "anomalous" and s.verdict is not None and s.verdict.decision == "normal"
        for s in scores
    )
    end = lines[0].index("missed") + len("missed")
    assert lines[-1][:end].split()[-1] == str(missed)


def test_a_known_product_that_is_never_recognised_has_accuracy_zero() -> None:
    counts = decision_counts(
        [image_score("a", "normal", "normal", "b"), image_score("b", "normal", "normal", "b")]
    )
    assert counts is not None
    assert (counts["products"]["a"]["recognised"], counts["overall"]["recognised"]) == (0.0, 0.5)


def test_one_label_is_enough_and_no_images_give_no_counts() -> None:
    scores = [image_score("a", "anomalous", "uncertain", "a")]
    counts = decision_counts(scores)
    assert counts is not None
    assert counts["products"]["a"]["false_alarm_bounds"] is None
    assert counts["products"]["a"]["false_alarms"] == 0
    assert " - " in format_decisions(scores)
    assert decision_counts([]) is None and format_decisions([]) == ""


def test_a_model_without_calibration_has_no_decisions(varied: Path) -> None:
    result = snl.evaluate(Darkness(), varied)
    assert result.calibrated_auroc is None and all(s.verdict is None for s in result.scores)
    assert decision_counts(result.scores) is None and format_decisions(result.scores) == ""
    assert set(result.to_dict()) == {"products", "mean", "pooled", "detection_rates"}
    assert "image_auroc_calibrated" not in result.to_dict()["pooled"]


def test_a_predictor_without_its_inspector_gives_the_same_scores_and_no_decisions(
    calibrated: Path, varied: Path, result: Evaluation
) -> None:
    inspector = snl.load(calibrated, "cpu")
    plain = snl.evaluate(inspector.predictor, varied)
    assert decision_counts(plain.scores) is None
    # those of the maps: a calibration raises the scores of strange images
    for one, other in zip(plain.scores, result.scores, strict=True):
        assert other.verdict is not None
        assert one.score * score_factor(other.verdict.strangeness) == other.score
    unraised = dataclasses.replace(inspector.calibration, references=None)
    same = snl.evaluate(snl.Inspector(inspector.predictor, [unraised]), varied)
    assert (plain.products, plain.mean, plain.pooled) == (same.products, same.mean, same.pooled)


@pytest.fixture(scope="module")
def result(calibrated: Path, varied: Path) -> Evaluation:
    """Evaluation with recognised products; not to be changed."""
    return snl.evaluate(snl.load(calibrated, "cpu"), varied)


def test_decisions_are_those_of_inspection(
    calibrated: Path, varied: Path, result: Evaluation
) -> None:
    inspector = snl.load(calibrated, "cpu")
    given_products = snl.evaluate(inspector, varied, products_given=True)
    for evaluation, given in ((result, False), (given_products, True)):
        assert len(evaluation.scores) == 60
        for image in evaluation.scores:
            expected = inspector.inspect(image.path, image.product if given else None)
            assert image.verdict is not None and image.score == image.verdict.score
            assert image.score == pytest.approx(expected.score, rel=1e-4)
            assert image.verdict.decision == expected.decision
            assert image.verdict.product == expected.product
            assert image.verdict.product_from == ("given" if given else "recognised")
            assert image.known
    assert all(i.verdict.product == i.product for i in given_products.scores if i.verdict)
    counts = decision_counts(given_products.scores)
    assert counts is not None
    table = counts["overall"]
    assert sum(table["normal"].values()) == 40 and sum(table["anomalous"].values()) == 20
    assert table["normal"]["unknown product"] == table["anomalous"]["unknown product"] == 0


def test_one_ranking_by_calibrated_scores_is_that_of_scikit_learn(
    calibrated: Path, result: Evaluation
) -> None:
    stats = snl.load(calibrated, "cpu").calibration.log_score_stats
    labels = [image.label == "anomalous" for image in result.scores]
    values = []
    for image in result.scores:
        assert image.verdict is not None
        mean, deviation = stats[image.verdict.product]
        values.append((np.log(image.score) - mean) / deviation)
        assert image.verdict.calibrated == pytest.approx(values[-1], rel=1e-9)
    assert result.calibrated_auroc == pytest.approx(roc_auc_score(labels, values))
    pooled = result.to_dict()["pooled"]
    assert pooled["image_auroc_calibrated"] == result.calibrated_auroc


class ScaledPredictor(snl.Predictor):
    """Maps and scores of plates, as recognised by `calibration`, ten times as high."""

    def __init__(self, predictor: snl.Predictor, calibration: Calibration) -> None:
        super().__init__(predictor.engine, predictor.metadata)
        self.calibration_for_products = calibration

    def predict(self, pixels: np.ndarray) -> Outputs:
        maps, scores, embeddings, extra = super().predict(pixels)
        nearest = self.calibration_for_products.prototypes.nearest
        factors = np.array(
            [10.0 if nearest(row)[0] == "plate" else 1.0 for row in embeddings], np.float32
        )
        return Outputs(maps * factors[:, None, None], scores * factors, embeddings, extra)


def test_calibrated_scores_rank_products_of_any_scale(calibrated: Path, varied: Path) -> None:
    plain = snl.load(calibrated, "cpu")
    old = dataclasses.replace(plain.calibration, references=None)  # of the maps alone
    result = snl.evaluate(snl.Inspector(plain.predictor, [old]), varied)
    mean, deviation = old.log_score_stats["plate"]
    plate = old.sets["plate"]
    scaled_set = dataclasses.replace(
        plate, scores=plate.scores * np.float32(10), peaks=plate.peaks * np.float32(10)
    )
    scaled = dataclasses.replace(
        old,
        log_score_stats={**old.log_score_stats, "plate": (mean + np.log(10.0), deviation)},
        sets={**old.sets, "plate": scaled_set},
    )
    inspector = snl.Inspector(ScaledPredictor(plain.predictor, old), [scaled])
    evaluation = snl.evaluate(inspector, varied)
    assert evaluation.pooled["image_auroc"] < result.pooled["image_auroc"]  # type: ignore[operator]
    assert evaluation.calibrated_auroc == pytest.approx(result.calibrated_auroc, abs=0.02)
    before, after = decision_counts(result.scores), decision_counts(evaluation.scores)
    assert before is not None and after is not None
    assert before["overall"]["recognised"] == after["overall"]["recognised"]


def test_the_command_prints_and_writes_decisions(
    calibrated: Path,
    varied: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    result: Evaluation,
) -> None:
    file = tmp_path / "metrics.json"
    for products in ("recognised", "given"):
        words = ["evaluate", str(calibrated), str(varied), "--json", str(file), "--quiet"]
        assert main([*words, "--products", products]) == 0
        output = capsys.readouterr().out
        assert "normal: false alarms" in output and "by raw scores" in output
        written = json.loads(file.read_text())
        assert written["about"]["products"] == products
        if products == "recognised":
            counts = json.loads(json.dumps(decision_counts(result.scores)))
            assert written["decisions"] == counts
        assert list(written["decisions"]) == ["products", "overall"]
        assert list(written["decisions"]["products"]) == ["bolt", "plate"]


def test_images_of_an_unknown_product_are_counted_without_recognition_accuracy(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        save_varied(tmp_path / "nut" / "test" / "good" / f"{n}.png", 9000 + n, product="plate")
        save_varied(tmp_path / "plate" / "test" / "good" / f"{n}.png", 9100 + n, product="plate")
    assert main(["evaluate", str(calibrated), str(tmp_path), "--products", "given", "--quiet"]) == 0
    assert "not products of this inspector: nut" in capsys.readouterr().err
    evaluation = snl.evaluate(snl.load(calibrated, "cpu"), tmp_path, products_given=True)
    counts = decision_counts(evaluation.scores)
    assert counts is not None
    nut, plate = counts["products"]["nut"], counts["products"]["plate"]
    assert nut["recognised"] is None and sum(nut["normal"].values()) == 3
    assert plate["recognised"] == counts["overall"]["recognised"]
    assert {(i.product, i.known) for i in evaluation.scores} == {("nut", False), ("plate", True)}
    origins = {(i.product, i.verdict.product_from) for i in evaluation.scores if i.verdict}
    assert origins == {("nut", "recognised"), ("plate", "given")}  # an unknown one cannot be given
