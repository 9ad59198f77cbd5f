"""After a short training, the built-in teacher finds defects and an untrained one does not."""

from __future__ import annotations

from pathlib import Path

import snl
from snl.demo.dataset import make_demo

SMALL = {"image_size": 128, "training.steps": 60, "training.holdout": 0}


def test_the_builtin_teacher_beats_an_untrained_one(tmp_path: Path) -> None:
    data = make_demo(
        tmp_path / "parts", size=128, n_train=16, n_good=8, n_defect=3, products=["plate", "wood"]
    )
    auroc = {}
    for kind in ("pretrained", "random"):
        inspector = snl.train(
            data, method="rd", overrides={**SMALL, "teacher.weights": kind}, quiet=True
        )
        auroc[kind] = snl.evaluate(inspector, data).mean["pixel_auroc"]
    assert auroc["pretrained"] > 0.85
    assert auroc["pretrained"] > auroc["random"] + 0.1
