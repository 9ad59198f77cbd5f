"""What the verbs share: exit statuses, words to a person, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.settings import parse_assignments

if TYPE_CHECKING:
    from snl.data.catalog import Catalog
    from snl.evaluation.evaluate import Evaluation
    from snl.runtime.inspector import Inspector

OK, PROBLEMS, BAD_INPUT, STOPPED = 0, 1, 2, 130


def say(text: str) -> None:
    """To a person, on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr, flush=True)


def progress_bar(title: str, quiet: bool) -> Any:
    if quiet:
        return None
    from snl.progress import bar

    return bar(title)


def show(evaluation: Evaluation) -> None:
    """The tables on standard output, what was left out on standard error."""
    from snl.evaluation.decision_counts import format_decisions
    from snl.evaluation.evaluate import format_table

    print(format_table(evaluation), flush=True)
    decided = format_decisions(evaluation.scores)
    if decided:
        print(f"\n{decided}", flush=True)
        raw, calibrated = evaluation.pooled["image_auroc"], evaluation.calibrated_auroc
        if raw is not None and calibrated is not None:
            print(
                f"pooled image AUROC: {100 * raw:.1f} by raw scores, {100 * calibrated:.1f} by "
                "calibrated ones",
                flush=True,
            )
    for line in evaluation.skipped:
        say(f"left out: {line}")


def about(
    options: argparse.Namespace, catalog: Catalog, inspector: Inspector, left_out: Sequence[str]
) -> dict[str, Any]:
    """What a file of figures was measured with and on."""
    return {
        "file": Path(options.file).name,
        "engine": inspector.engine.device,
        "data": {"name": catalog.root.resolve().name, "layout": catalog.layout},
        "settings": inspector.settings.to_dict(),
        "left_out": list(left_out),
    }


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given as options of their own, then those of --set."""
    named = {
        "teacher.name": options.teacher,
        "teacher.weights": options.teacher_weights,
        "image_size": options.image_size,
        "tile": options.tile,
        "training.steps": options.steps,
        "training.batch_size": options.batch_size,
        "training.lr": options.lr,
        "training.seed": options.seed,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return {**given, **parse_assignments(options.set)}


def save_overlay(picture: Any, path: Path) -> Path:
    from snl.files import atomic

    with atomic(path) as temporary:
        picture.save(temporary, format="PNG")
    return path
