"""What all verbs have in common, and those that no other module of tests calls."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.cli import demo, options
from snl.cli.common import aligned, table
from snl.cli.main import VERBS, make_parser, parse
from snl.cli.main import main as run_main
from tests.conftest import TINY
from tests.trees import make_mvtec

Capture = pytest.CaptureFixture[str]


def call(*words: object) -> int:
    """Return the exit status of the command, of errors of argparse too."""
    try:
        return run_main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)


# --- the parser ---


@pytest.mark.parametrize("name", VERBS)
def test_options_are_typed(name: str) -> None:
    """`Options` has an annotation for each option and for nothing else."""
    verb = VERBS[name]
    (group,) = make_parser(name)._subparsers._group_actions  # type: ignore[union-attr]
    parser: argparse.ArgumentParser = group.choices[name]  # type: ignore[index]
    names = {action.dest for action in parser._actions} - {"help"}
    names |= set(parser._defaults)
    annotated = {n for c in verb.Options.__mro__ for n in vars(c).get("__annotations__", ())}
    assert names == annotated
    assert issubclass(verb.Options, argparse.Namespace)
    optional = getattr(verb, "OPTIONAL_PATH", None)
    assert [a.dest for a in parser._actions if a.nargs == "?"] == ([optional] if optional else [])


@pytest.mark.parametrize("name", VERBS)
def test_only_the_verb_that_is_called_is_built(name: str) -> None:
    (group,) = make_parser(name)._subparsers._group_actions  # type: ignore[union-attr]
    full = [n for n, parser in group.choices.items() if parser._actions]  # type: ignore[union-attr]
    assert full == [name]


def test_help_of_every_option(capsys: Capture) -> None:
    for name in VERBS:
        assert call(name, "--help") == 0
        assert VERBS[name].SUMMARY[0].islower() and not VERBS[name].SUMMARY.endswith(".")
        (group,) = make_parser(name)._subparsers._group_actions  # type: ignore[union-attr]
        for action in group.choices[name]._actions:  # type: ignore[index]
            assert action.help, (name, action.dest)


def test_train_help_lists_every_setting(capsys: Capture) -> None:
    for name in ("train", "bench"):
        assert call(name, "--help") == 0
        text = capsys.readouterr().out
        for setting in snl.settings.setting_values(snl.resolve()):  # type: ignore[attr-defined]
            assert f"  {setting}=" in text


def test_help_imports_only_what_it_needs() -> None:
    code = (
        "import sys; before = set(sys.modules); "  # the interpreter's start may import some
        "from snl.cli.main import make_parser; make_parser().format_help(); "
        "slow = {'dataclasses', 'inspect', 'json', 'snl.settings', 'snl.files'}; "
        "assert not slow & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_choices_are_those_of_the_library() -> None:
    """They are repeated in the command line, because importing them is slow."""
    from snl.cli import export
    from snl.data.catalog import LAYOUTS
    from snl.exporting.write import FORMATS, PRECISIONS
    from snl.runtime import engine

    assert set(options.LAYOUTS) == {"auto", *LAYOUTS}
    assert options.PRECISIONS == engine.PRECISIONS
    assert (tuple(FORMATS), PRECISIONS) == (export.FORMATS, export.PRECISIONS)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["calibrate", "a.snl"], None),
        (["calibrate", "a.snl", "normals"], "normals"),
        (["calibrate", "a.snl", "--add", "normals"], "normals"),
        (["calibrate", "--rate", "0.1", "a.snl", "--add", "normals", "--quiet"], "normals"),
        (["doctor"], None),
        (["doctor", "data"], "data"),
        (["doctor", "--json", "-", "data", "--quiet"], "data"),
    ],
)
def test_an_optional_argument_may_follow_options(words: list[str], path: str | None) -> None:
    verb, parsed = parse(words)
    assert isinstance(parsed, verb.Options)
    assert getattr(parsed, verb.OPTIONAL_PATH) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("parse_value", "good", "bad"),
    [
        (options.number, {"0": 0.0, "1.5": 1.5}, ["-1", "inf", "nan", "x"]),
        (options.count, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x", ""]),
        (options.index, {"0": 0, "7": 7}, ["-1", "1.5", "x", ""]),
    ],
)
def test_value_types(parse_value: Any, good: dict[str, float], bad: list[str]) -> None:
    assert {text: parse_value(text) for text in good} == good
    for text in bad:
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            parse_value(text)


def test_named_options_become_settings() -> None:
    words = ["train", "data", "-o", "a.snl", "--steps", "7", "--teacher", "resnet18", "--seed", "3"]
    _, parsed = parse([*words, "--set", "cram.form=dense", "--set", "training.steps=9"])
    assert parsed.overrides() == {
        "teacher.name": "resnet18",
        "training.steps": "9",  # --set comes last
        "training.seed": 3,
        "cram.form": "dense",
    }


# --- text ---


def test_tables() -> None:
    rows = [["name", "number"], ["a", "1"], ["long name", "1234567"]]
    assert table(rows) == (
        "name        number\n------------------\na                1\nlong name  1234567"
    )
    assert table(rows, left=2).splitlines()[2] == "a          1"
    assert aligned([("a", "x"), ("long", "y")]) == "a     x\nlong  y"
    assert aligned([]) == ""


# --- verbs that other modules of tests do not call ---


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """With the tiny data set and settings of the tests instead of the demo's."""

    def make(path: Path, seed: int, progress: object) -> None:
        made.append(seed)
        make_mvtec(path)
        (path / "README.txt").write_text("demo")

    made: list[int] = []
    monkeypatch.setattr(snl, "make_demo", make, raising=False)
    monkeypatch.setattr(demo, "SETTINGS", TINY)
    out = tmp_path / "demo"
    for _ in range(2):  # the second time with the images of the first
        assert call("demo", "--out", out, "--seed", "5", "--device", "cpu", "--quiet") == 0
        assert "pooled" in capsys.readouterr().out
    assert made == [5]
    for name in ("demo.snl", "metrics.json", "report.html"):
        assert (out / name).stat().st_size > 1000
    assert len(list((out / "overlays").glob("*.png"))) == 4


def test_report(bundle: Path, parts: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "deep" / "report.html"
    assert call("report", bundle, parts, "-o", page, "--quiet") == 0
    assert page.read_text().startswith("<!doctype html>")
    output = capsys.readouterr()
    assert output.out == "" and f"report: {page} (8 images, " in output.err


def test_calibrate(calibrated: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.snl"
    assert call("calibrate", calibrated, "--rate", "0.2", "-o", file) == 0
    assert snl.load(file, "cpu").rates.anomalous == 0.2
    capsys.readouterr()
    assert call("info", file, "--json", "-") == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert [version["reason"] for version in history] == ["training", "rates"]


def test_bench_inference(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from snl.bench import inference

    monkeypatch.setattr(inference, "SECONDS", 0.0)
    monkeypatch.setattr(inference, "BATCHES", (1,))
    assert call("bench", "inference", bundle, "--device", "cpu", "--quiet") == 0
    assert "fp32" in capsys.readouterr().out


def test_export_to_a_folder(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snl.cli import export

    for suffix, name in (("", "parts.onnx"), (".onnx", "a.onnx"), (".xml", "a.xml")):
        words = ["export", str(bundle), "-o", str(tmp_path / f"a{suffix}")]
        _, parsed = parse(words)
        file, kind = export._target(parsed)  # type: ignore[arg-type]
        assert file.name == name and kind == ("openvino" if suffix == ".xml" else "onnx")
        _, parsed = parse([*words, "--format", "openvino"])
        assert export._target(parsed)[1] == "openvino"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "{bundle}", "{parts}"], "required: -o"),
        (["report", "{bundle}", "{parts}", "-o", "{parts}"], "is a folder"),
        (["report", "{bundle}", "{parts}", "-o", "{bundle}"], "would overwrite what is read"),
        (["report", "{missing}", "{parts}", "-o", "{new}"], "no such file"),
        (["report", "{bundle}", "{missing}", "-o", "{new}"], "does not exist"),
        (["report", "{bundle}", "{parts}", "-o", "{new}", "--products", "x"], "invalid choice"),
        (["export", "{bundle}"], "required: -o"),
        (["export", "{missing}", "-o", "{new}.onnx"], "no such file"),
        (["export", "{bundle}", "-o", "{bundle}"], "would overwrite what is read"),
        (["export", "{bundle}", "-o", "{new}", "--precision", "int4"], "invalid choice"),
        (["export", "{bundle}", "-o", "{new}", "--batch", "0"], "in 1..4096"),
        (["calibrate", "{missing}"], "no such file"),
        (["calibrate", "{bundle}", "--undo", "--tail", "fit"], "leave out --tail"),
        (["bench", "mvtec"], "required: ROOT"),
        (["bench", "mvtec", "{missing}"], "does not exist"),
        (["bench", "inference", "{missing}"], "no such file"),
        (["demo", "--seed", "x"], "x is not a whole number in 0.."),
        (["--verbose"], "required: VERB"),
        (["inspect"], "required: FILE, PATH"),
    ],
)
def test_wrong_input_gets_one_line(
    bundle: Path, parts: Path, tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    places = {
        "bundle": bundle,
        "parts": parts,
        "missing": tmp_path / "missing.snl",
        "new": tmp_path / "new",
    }
    before = bundle.read_bytes()
    assert call(*(word.format(**places) for word in words)) == 2
    output = capsys.readouterr()
    last = output.err.strip().splitlines()[-1]
    assert "error: " in last and message in last and output.out == "", output.err
    assert bundle.read_bytes() == before and not (tmp_path / "new").exists()


# --- errors ---


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped\n"),
        (MemoryError(), 2, "snl: error: out of memory; close other programs\n"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "snl: error: out of memory; close other"),
        (ModuleNotFoundError("x", name="timm.layers"), 2, "pip install 'snl-ad[train]'\n"),
        (ModuleNotFoundError("x", name="scipy"), 2, "scipy is not installed: pip install snl-ad\n"),
        (snl.SnlError("a\n  b"), 2, "snl: error: a b\n"),
    ],
)
def test_errors_of_a_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, status: int,
    message: str,
) -> None:  # fmt: skip
    def fail(parsed: object) -> int:
        raise error

    monkeypatch.setattr(VERBS["info"], "run", fail)
    assert call("info", "a.snl") == status
    text = capsys.readouterr().err
    assert message in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ModuleNotFoundError("x", name="x")])
def test_defects_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path, error: Exception
) -> None:
    def fail(parsed: object) -> int:
        raise error

    monkeypatch.setattr(VERBS["info"], "run", fail)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert call("info", "a.snl") == 70
    text = capsys.readouterr().err
    (details,) = (tmp_path / "snl").iterdir()
    name = type(error).__name__
    assert text == f"snl: internal error: {name}: {error}; details: {details}\n"
    assert f"{name}: {error}" in details.read_text() and "in fail" in details.read_text()
