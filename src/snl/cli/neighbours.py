"""Words of neighbouring tools, and misspelt ones, lead to ours."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

VERBS = {
    "inspect": ("predict", "infer", "inference", "detect", "run", "score"),
    "evaluate": ("test", "eval", "validate", "val", "metrics"),
    "train": ("fit", "learn", "finetune"),
    "info": ("list", "show", "ls", "describe", "summary"),
    "bench": ("benchmark", "speed", "profile"),
    "calibrate": ("threshold", "thresholds", "tune"),
    "export": ("convert", "onnx", "openvino", "quantize", "quantise"),
    "serve": ("server", "ui", "gui", "studio", "web", "api", "deploy", "restart"),
    "report": ("plot", "visualize", "visualise", "dashboard", "heatmap"),
    "doctor": ("check", "lint", "verify", "data"),
    "probe": ("interference",),
    "history": ("log", "versions"),
    "undo": ("rollback", "revert"),
    "remove": ("delete", "rm", "drop"),
    "drift": ("monitor", "alarms"),
    "demo": ("example", "quickstart", "tutorial"),
    "--version": ("version",),
    "--help": ("help", "commands"),
}
"""By verb: what others call it."""

OPTIONS = {
    "--out": (
        "--overlay",
        "--overlays",
        "--output-dir",
        "--save-dir",
        "--save",
        "--results",
        "--heatmaps",
    ),
    "--rate": ("--threshold", "--thres", "--conf", "--contamination", "--sensitivity"),
    "--steps": ("--epochs", "--max-epochs", "--iterations", "--max-steps"),
    "--teacher": ("--backbone", "--encoder"),
    "--method": ("--model", "--algorithm", "--arch"),
    "--product": ("--category", "--class", "--label"),
    "--image-size": ("--size", "--resize", "--imgsz", "--input-size"),
    "--batch-size": ("--batch", "--train-batch-size", "--eval-batch-size"),
    "--device": ("--gpu", "--gpus", "--accelerator", "--cuda"),
    "--format": ("--export-type", "--export-mode"),
    "--precision": ("--half", "--fp16", "--amp"),
    "--resume": ("--ckpt", "--checkpoint", "--continue"),
    "--json": ("--save-json", "--jsonl", "--results-json"),
    "--quiet": ("--silent", "-q", "--no-progress"),
    "-o": ("--output", "--save", "--name"),
}
"""By option: what others call it."""

WHY = {"--rate": "; thresholds follow from the false-alarm rate, such as 2%"}
"""By option: what else to say about it."""


def verb_for(word: str, known: Iterable[str]) -> str | None:
    """Return our verb for a word; None: there is none that is like it."""
    word = word.lower()
    for ours, theirs in VERBS.items():
        if word in theirs:
            return ours
    return next(iter(get_close_matches(word, list(known), 1, 0.7)), None)


def option_for(words: Sequence[str], parser: argparse.ArgumentParser) -> str | None:
    """Return what to say about the first of these words that is like an option of a parser."""
    known = [option for action in parser._actions for option in action.option_strings]
    for word in (word.partition("=")[0] for word in words if word.startswith("-")):
        for ours, theirs in OPTIONS.items():
            if word.lower() in theirs and ours in known:
                return f"{word}: use {ours}{WHY.get(ours, '')}"
        if close := get_close_matches(word, [one for one in known if one != "--help"], 1, 0.75):
            return f"{word}: did you mean {close[0]}?"
    return None
