"""`evaluate` by part: one score, label and decision for all images of a part."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import snl
from snl.cli.main import main
from snl.decision.parts import decide_part
from snl.evaluation.parts import format_parts
from tests.trees import save_varied


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve parts of a bolt and a plate view; of each third part one view is anomalous."""
    root = tmp_path_factory.mktemp("views")
    for n in range(12):
        for product in ("bolt", "plate"):
            bad = n % 3 == 0 and product == ("bolt", "plate")[n % 2]
            folder = root / product / "test" / ("dent" if bad else "good")
            save_varied(folder / f"{n:03}.png", 9000 + n, product=product, defect=bad)
        save_varied(root / "bolt" / "train" / "good" / f"{100 + n}.png", 9500 + n)
    return root


def test_parts_have_one_label_score_and_decision(calibrated: Path, views: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    catalog = snl.Catalog.read(views, part_pattern=r"(\d+)\.png")
    evaluation = snl.evaluate(inspector, catalog)
    images = defaultdict(list)
    for image in evaluation.scores:
        assert image.part == image.path.stem
        images[image.part].append(image)
    assert len(evaluation.parts) == len(images) == 12
    for part in evaluation.parts:
        seen = images[part.part]
        assert part.products == ("bolt", "plate") and part.views == 2
        assert part.label == ("anomalous" if int(part.part) % 3 == 0 else "normal")
        verdicts = [(str(i.path), i.verdict) for i in seen if i.verdict]
        assert part.score == max(v.calibrated for _, v in verdicts)
        assert part.decision == decide_part(part.part, verdicts, inspector.calibration)
    table = evaluation.to_dict()["parts"]
    assert list(table["products"]) == ["bolt + plate"]
    row = table["overall"]
    assert row == table["products"]["bolt + plate"]
    labels = [part.label == "anomalous" for part in evaluation.parts]
    assert row["auroc"] == pytest.approx(
        roc_auc_score(labels, [np.float32(part.score) for part in evaluation.parts])
    )
    assert (row["n_normal"], row["n_anomalous"], row["views"]) == (8, 4, [2, 2])
    assert sum(row["normal"].values()) == 8 and sum(row["anomalous"].values()) == 4
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_images_are_evaluated_as_before(calibrated: Path, views: Path) -> None:
    inspector = snl.load(calibrated, "cpu")
    without = snl.evaluate(inspector, views).to_dict()
    assert "parts" not in without
    named = snl.evaluate(inspector, snl.Catalog.read(views, part_pattern=r"\d+(?=\.png)"))
    assert {k: v for k, v in named.to_dict().items() if k != "parts"} == without


class Brightness:
    """A model without a calibration."""

    image_size = 64

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels.mean(-1).astype(np.float32)
        return maps, maps.mean((1, 2))


def test_without_a_calibration_there_are_scores_only(views: Path) -> None:
    catalog = snl.Catalog.read(views, part_pattern=r"(\d+)\.png")
    evaluation = snl.evaluate(Brightness(), catalog)
    row = evaluation.to_dict()["parts"]["overall"]
    assert list(row) == ["n_normal", "n_anomalous", "views", "auroc"]
    scores = defaultdict(list)
    for image in evaluation.scores:
        scores[image.part].append(image.score)
    assert all(part.score == max(scores[part.part]) for part in evaluation.parts)
    assert " - " in format_parts(evaluation.parts)


def test_unreadable_views_and_images_without_a_part(calibrated: Path, tmp_path: Path) -> None:
    for name in ("1_a", "1_b", "2_a", "2_b", "loose"):
        save_varied(tmp_path / "bolt" / "test" / "good" / f"{name}.png", len(name))
    save_varied(tmp_path / "bolt" / "test" / "dent" / "3_a.png", 5, defect=True)
    save_varied(tmp_path / "bolt" / "train" / "good" / "9_a.png", 5)
    for name in ("1_b", "2_a", "2_b"):
        (tmp_path / "bolt" / "test" / "good" / f"{name}.png").write_bytes(b"no image")
    catalog = snl.Catalog.read(tmp_path, part_pattern=r"(\d)_")
    assert any("does not match 1 of 7 images" in note for note in catalog.notes)
    evaluation = snl.evaluate(snl.load(calibrated, "cpu"), catalog)
    parts = {Path(part.part).name: part for part in evaluation.parts}
    assert sorted(parts) == ["1", "3", "loose.png"]  # nothing of part 2 can be read
    one = parts["1"].decision
    assert one is not None and one.unreadable == 1 and one.decision != "normal"
    assert parts["1"].views == 2 and parts["loose.png"].views == 1


def test_the_command_prints_and_writes_parts(
    calibrated: Path, views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "metrics.json"
    words = ["evaluate", str(calibrated), str(views), "--json", str(file), "--quiet"]
    assert main([*words, "--part-pattern", r"(\d+)\.png"]) == 0
    out, err = capsys.readouterr()
    assert "bolt + plate" in out and "all parts" in out
    assert json.loads(file.read_text())["parts"]["overall"]["n_anomalous"] == 4
    assert "no decision on a part" not in err
    assert main([*words, "--part-pattern", "test"]) == 0
    err = capsys.readouterr().err
    assert "no decision on a part of 24 images at a false-alarm rate of 0.05 is possible" in err
    assert main(words) == 0
    assert "all parts" not in capsys.readouterr().out
