"""The data of `snl bench`: partial data sets, and everything that the protocol cannot use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from snl.bench.dataset import count_images, partial_reasons, read_benchmark
from snl.bench.published import BENCHMARKS
from snl.cli.main import main
from tests.bench.conftest import TINY
from tests.trees import make_mvtec


def test_all_classes_with_other_counts_are_partial(mvtec: Path) -> None:
    benchmark = BENCHMARKS["mvtec"]
    counts = count_images(read_benchmark(benchmark, mvtec))
    assert counts == {name: [4, 2, 2] for name in sorted(benchmark.classes)}
    assert partial_reasons(benchmark, counts) == [
        "60 training images where MVTec AD has 3629",
        "30 normal test images where MVTec AD has 467",
        "30 anomalous test images where MVTec AD has 1258",
    ]
    published = dict(
        zip(benchmark.classes, [[0, 0, 0]] * 14 + [list(benchmark.images)], strict=True)
    )
    assert partial_reasons(benchmark, published) == []


def test_existing_classes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_mvtec(tmp_path / "data", ("bottle", "pill", "nut"))
    words = ["bench", "mvtec", str(root), "-o", str(tmp_path / "out"), "--seeds", "1", *TINY]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert (
        "13 of 15 classes of MVTec AD missing: cable, " in message and "--classes found" in message
    )
    assert main([*words, "--classes", "found"]) == 0
    shown = capsys.readouterr()
    assert "PARTIAL: 2 of 15 classes (bottle, pill)" in shown.out and "RD4AD" not in shown.out
    assert "left out: nut" in shown.err


def test_wrong_input_gets_one_clear_line(
    mvtec: Path, visa: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(root: Path, name: str, product: str) -> Path:
        shutil.copytree(root / product, tmp_path / name / product)
        return tmp_path / name

    unsplit = copy(visa, "unsplit", "candle")
    untested = copy(mvtec, "untested", "bottle")
    shutil.rmtree(untested / "bottle" / "test" / "good")
    unmasked = copy(mvtec, "unmasked", "bottle")
    (unmasked / "bottle" / "ground_truth" / "dent" / "000_mask.png").unlink()
    unreadable = copy(mvtec, "unreadable", "bottle")
    (unreadable / "bottle" / "test" / "dent" / "000.png").write_bytes(b"no image")
    bad_mask = copy(mvtec, "bad-mask", "bottle")
    (bad_mask / "bottle" / "ground_truth" / "dent" / "001_mask.png").write_bytes(b"no image")
    untrained = copy(mvtec, "untrained", "bottle")
    (untrained / "bottle" / "train" / "good" / "000.png").write_bytes(b"no image")
    flat = tmp_path / "flat"
    shutil.copytree(mvtec / "bottle" / "train", flat / "bottle")
    (tmp_path / "empty").mkdir()
    existing = ["--classes", "found"]
    for words, expected in [
        (["mvtec", tmp_path / "missing"], "does not exist"),
        (["mvtec", tmp_path / "empty"], "no images found"),
        (["mvtec", flat], "is not laid out as MVTec AD (found layout 'folders')"),
        (["mvtec", visa], "is not laid out as MVTec AD (found layout 'visa')"),
        (["visa", mvtec], "none of the classes of VisA"),
        (["visa", mvtec], "snl bench mvtec takes them"),
        (["visa", unsplit, *existing], "split_csv/1cls.csv is missing"),
        (["mvtec", parts], "has none of the classes of MVTec AD (found bolt, plate)"),
        (["mvtec", mvtec / "bottle"], "14 of 15 classes of MVTec AD missing"),
        (["mvtec", mvtec, "--classes", "botle"], "did you mean bottle?"),
        (["mvtec", unmasked, "--classes", "bottle,cable"], "1 of 2 classes of MVTec AD missing"),
        (["mvtec", untested, *existing], "class bottle has no normal test images"),
        (["mvtec", unmasked, *existing], "1 anomalous test images of class bottle have no mask"),
        (["mvtec", unreadable, *existing], "1 test images or masks cannot be read"),
        (["mvtec", unreadable, *existing], "bottle/test/dent/000.png"),
        (["mvtec", bad_mask, *existing], "1 test images or masks cannot be read"),
        (["mvtec", bad_mask, *existing], "001_mask.png"),
        (["mvtec", untrained, *existing], "000.png"),
        (["mvtec", mvtec, "--set", "training.seed=3"], "use --seeds for how many"),
        (["mvtec", mvtec, "--seeds", "0"], "in 1..1000"),
        (["mvtec", mvtec, "--seed", "-1"], "whole number in 0.."),
        (["mvtec", mvtec, "--device", "cpu,gpu"], "unknown device 'gpu'"),
        (["mvtec", mvtec, "--method", "sml"], "unknown method"),
        (["mvtec", mvtec, "--out", parts / "bolt/test/good/000.png"], "cannot be written"),
        (["btad", mvtec], "invalid choice"),
    ]:
        try:
            line = ["bench", "--out", tmp_path / "out", *TINY, *words]
            status = main([str(word) for word in line])
        except SystemExit as stop:
            status = int(stop.code or 0)
        messages = capsys.readouterr().err
        assert status == 2, messages
        last = messages.strip().splitlines()[-1]
        assert "error: " in last and expected in last, messages
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
