"""A small plan that runs once for all tests in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import snl
from benchmarks import ablation

Whole = tuple[Path, list[tuple[str, int]]]
"""Results file of the whole plan, and its trainings."""

PLAN = """
title = "Tiny"
seeds = [0, 1]

[common]
image_size = 64
"teacher.name" = "test_resnet"
"teacher.stages" = [1, 2]
"training.batch_size" = 4
"training.steps" = 4
"training.precision" = "fp32"
"training.holdout" = 0

[[run]]
name = "rd"
method = "rd"

[[run]]
name = "fd"
method = "fd"

[[run]]
name = "rd measured"
method = "rd"
[run.set]
"map.distance" = "standardised"
"map.normalisation_clusters" = 3
"map.stage_weights" = [1, 2]

[[run]]
name = "rd top share"
method = "rd"
set = { "map.score" = "topk", "map.top_share" = 0.05 }

[[run]]
name = "rd sharp"
method = "rd"
set = { "map.sigma" = 0.0 }
"""


class Runner:
    """Runs the plan and records the trainings."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.plan, self.data = folder / "tiny.toml", data
        self.plan.write_text(PLAN, encoding="utf-8")

    def __call__(self, output: Path, only: Sequence[str] = ()) -> list[tuple[str, int]]:
        """Run the plan and return the trainings as (method, seed)."""
        trained: list[tuple[str, int]] = []
        real = snl.train

        def counted(*arguments: Any, **options: Any) -> Any:
            trained.append((options["method"], options["overrides"]["training.seed"]))
            return real(*arguments, **{**options, "quiet": True})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snl, "train", counted)
            ablation.run(self.plan, self.data, {"": "random"}, output, only, (), "cpu")
        return trained


@pytest.fixture(scope="session")
def runner(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("plan"), parts)


@pytest.fixture(scope="session")
def whole(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The results of the whole plan; tests must not change them."""
    output = tmp_path_factory.mktemp("whole") / "tiny.json"
    return output, runner(output)
