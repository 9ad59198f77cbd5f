"""`snl inspect --part-pattern`: decisions on parts, their file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.decision.parts import decide_part
from tests.trees import save_varied

Capture = pytest.CaptureFixture[str]
RATE = ("--rate", "0.2", "--uncertain-rate", "0.4")


def inspect(*words: object) -> int:
    return main(["inspect", *map(str, words), "--quiet"])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Part 1 normal, 2 with a dent in one view, 3 with noise in one view, 4 in one image only."""
    root = tmp_path / "incoming"
    for part in (1, 2, 3):
        save_varied(root / "top" / f"{part}.png", 6000 + part)
        save_varied(root / "side" / f"{part}.png", 6010 + part, product="plate", defect=part == 2)
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "side" / "3.png")
    save_varied(root / "top" / "4.png", 6004)
    return root


def test_parts_are_decided_and_written(calibrated: Path, images: Path, capsys: Capture) -> None:
    file = images.parent / "parts.jsonl"
    pattern = ("--part-pattern", r"(\d+)\.png")
    assert inspect(calibrated, images, *RATE, *pattern, "--parts", file) == 0
    out, err = capsys.readouterr()
    results, parts = lines(out), lines(file.read_text())
    assert len(results) == 7 and [r["part"] for r in results] == list("1231234")
    assert sorted(part["part"] for part in parts) == list("1234")
    inspector = snl.load(calibrated, "cpu")
    rates = inspector.rates_for(None, 0.2, 0.4)
    for part in parts:
        paths = [r["path"] for r in results if r["part"] == part["part"]]
        views = [(path, inspector.inspect(path, None, 0.2, 0.4).verdict()) for path in paths]
        expected = decide_part(part["part"], views, inspector.calibration, rates)
        assert list(part) == list(expected.to_dict())
        assert part["decision"] == expected.decision
        # another batch size
        assert part["p_value"] == pytest.approx(expected.p_value, rel=1e-4)
        assert part["score"] == pytest.approx(expected.score, rel=1e-4)
        assert [view["path"] for view in part["views"]] == paths
        assert part["rate"] == 0.2 and part["uncertain_rate"] == 0.4
    decisions = {part["part"]: part["decision"] for part in parts}
    assert decisions["2"] == "anomalous" and decisions["3"] == "unknown product"
    assert next(p for p in parts if p["part"] == "2")["worst"] == str(images / "side" / "2.png")
    assert "parts: 4: " in err and "2: anomalous, p-value" in err and f"4 parts: {file}" in err


def test_image_lines_are_as_without_parts_but_for_the_name(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    assert inspect(calibrated, images) == 0
    before = lines(capsys.readouterr().out)
    assert inspect(calibrated, images, "--part-pattern", r"(\d+)\.png") == 0
    after = lines(capsys.readouterr().out)
    assert [list(a) for a in after] == [[*b, "part"] for b in before]
    for one, other in zip(after, before, strict=True):
        assert {k: v for k, v in one.items() if k != "part"} == other


def test_a_part_is_written_when_its_last_image_was_inspected(
    calibrated: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the end of the run; views need not be adjacent."""
    from snl.cli.inspect_outputs import Outputs

    events: list[str] = []
    add, add_part = Outputs.add, Outputs.add_part

    def seen(self: Outputs, result: Any, record: dict[str, Any]) -> None:
        events.append(record["part"])
        add(self, result, record)

    def decided(self: Outputs, record: dict[str, Any]) -> None:
        events.append(f"part {record['part']}")
        add_part(self, record)

    monkeypatch.setattr(Outputs, "add", seen)
    monkeypatch.setattr(Outputs, "add_part", decided)
    pattern = ("--part-pattern", r"(\d+)\.png")
    assert inspect(calibrated, images, *pattern, "--json", images.parent / "a.jsonl") == 0
    assert events == [*("1", "2", "3", "1", "part 1", "2", "part 2", "3", "part 3", "4", "part 4")]


def test_a_view_that_cannot_be_read(calibrated: Path, images: Path, capsys: Capture) -> None:
    """Its part is decided by the others, and never normal; the last one may be missing, too."""
    for name in ("side/1.png", "top/4.png"):
        (images / name).write_bytes(b"no image")
    file = images.parent / "parts.jsonl"
    words = ("--part-pattern", r"(\d+)\.png", "--parts", file)
    assert inspect(calibrated, images, *RATE, *words) == 2
    parts = {part["part"]: part for part in lines(file.read_text())}
    assert {name: part["unreadable"] for name, part in parts.items()} == {
        "1": 1, "2": 0, "3": 0, "4": 1
    }  # fmt: skip
    assert parts["1"]["decision"] != "normal" and len(parts["1"]["views"]) == 1
    four = parts["4"]
    assert (four["decision"], four["views"], four["score"]) == ("uncertain", [], None)
    assert "part 4: uncertain, 1 images not inspected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "p.jsonl"], "--parts needs --part-pattern"),
        (
            ["--part-pattern", "none"],
            "matches no image; it is searched in paths such as side/1.png",
        ),
        (["--part-pattern", r"\d", "--parts", "p.png"], "is the name of an image"),
        (["--part-pattern", r"\d", "--parts", "a.json", "--json", "a.json"], "is both"),
    ],
)
def test_what_is_refused(
    calibrated: Path,
    images: Path,
    words: list[str],
    message: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(images.parent)
    assert inspect(calibrated, images, *words) == 2
    out, err = capsys.readouterr()
    assert message in err and not out


def test_only_an_earlier_file_of_parts_is_replaced(
    calibrated: Path, images: Path, capsys: Capture
) -> None:
    file = images.parent / "parts.jsonl"
    words = (calibrated, images, *RATE, "--part-pattern", r"\d", "--parts", file)
    assert inspect(*words) == 0
    first = file.read_text()
    assert inspect(*words) == 0
    assert file.read_text() == first
    file.write_text('{"path": "a.png", "decision": "normal", "score": 1}\n')
    assert inspect(*words) == 2
    assert "is not part decisions of snl inspect" in capsys.readouterr().err


def test_paths_are_relative_to_what_contains_all_of_them(
    calibrated: Path, images: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    for given in (["top", "side"], ["top/1.png", "side/1.png"]):
        assert inspect(calibrated, *given, "--part-pattern", r"^(\w+)/") == 0
        assert {r["part"] for r in lines(capsys.readouterr().out)} == {"top", "side"}
    assert inspect(calibrated, "top", "--part-pattern", r"^(\d)") == 0
    assert [r["part"] for r in lines(capsys.readouterr().out)] == list("1234")


def test_too_few_held_out_images_are_noted(calibrated: Path, images: Path, capsys: Capture) -> None:
    """40 images are held out; two views at 5 % need 39, three need 59."""
    assert inspect(calibrated, images, "--part-pattern", r"(\d+)\.png") == 0
    assert "no decision on a part" not in capsys.readouterr().err
    save_varied(images / "back" / "1.png", 6020)
    assert inspect(calibrated, images, "--part-pattern", r"(\d+)\.png") == 0
    err = capsys.readouterr().err
    assert "with 40 held-out normal images no decision on a part of 3 images" in err
    assert "59 are needed" in err
    rate = err.split("--rate ")[1].split()[0]
    words = ("--part-pattern", r"(\d+)\.png", "--rate", rate)
    assert inspect(calibrated, images, *words) == 0
    assert "no decision on a part" not in capsys.readouterr().err


def test_a_video_has_no_parts(calibrated: Path, capsys: Capture) -> None:
    assert inspect(calibrated, "camera:0", "--part-pattern", r"\d") == 2
    assert "without --coco, --labelme and --part-pattern" in capsys.readouterr().err
