"""Files of reviews: read, refused, and found images; `snl calibrate --reviews`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.cli.main import main
from snl.errors import DataError
from snl.reporting.reviews import Review, Reviews, file_sha256, find_images, read_reviews
from tests.trees import save_varied

GOOD: dict[str, Any] = {"path": "bolt/a.png", "product": "bolt", "verdict": "miss"}
HASH = "0" * 64
Capture = pytest.CaptureFixture[str]
Images = tuple[Path, list[Path], list[Path]]


def document(*reviews: object, **changes: object) -> dict[str, Any]:
    return {"format": "snl reviews", "version": 1, "reviews": list(reviews), **changes}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(content: object, name: str = "reviews.json") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return save


def test_a_file_is_read(saved: Callable[..., Path]) -> None:
    path = saved(
        document(
            GOOD,
            {**GOOD, "path": "<b>&.png", "verdict": "false alarm", "sha256": HASH, "more": [1]},
            GOOD,  # twice the same
            network="abc",
            calibration="2026",
        )
    )
    assert read_reviews(path) == Reviews(
        "abc",
        "2026",
        (
            Review("bolt/a.png", "bolt", "miss"),
            Review("<b>&.png", "bolt", "false alarm", HASH),
        ),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON (line 1)"),
        (b"{\n\n]", "is not valid JSON (line 3)"),
        (b"\xff\xfe\x00", "cannot be read (it is not UTF-8 text)"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 10_000, "is not valid JSON (a number)"),
        (b"[]", 'its "format" is not "snl reviews"'),
        ({"format": "COCO"}, 'its "format" is not "snl reviews"'),
        (document(version=2), "has version 2, and this snl reads up to 1; update snl"),
        (document(version=True), 'its "version" is not a whole number'),
        (document(version="1"), 'its "version" is not a whole number'),
        ({**document(), "reviews": {}}, 'its "reviews" are not a list'),
        (document(GOOD, "a.png"), "review 2: is not an object"),
        (document({**GOOD, "path": 3}), 'review 1: its "path" is not a text'),
        (document({**GOOD, "path": ""}), 'review 1: its "path" is not a text'),
        (document({**GOOD, "path": "a\0.png"}), 'review 1: its "path" is not a text'),
        (document({**GOOD, "product": None}), 'review 1: its "product" is not a text'),
        (document({**GOOD, "verdict": "ok"}), 'its "verdict" is "ok"; it must be one of correct'),
        (document({**GOOD, "verdict": ["miss"] * 99}), 'its "verdict" is ["miss", "miss"'),
        (document({**GOOD, "sha256": "0" * 63}), 'its "sha256" is not 64 hexadecimal digits'),
        (document({**GOOD, "sha256": 0}), 'its "sha256" is not 64 hexadecimal digits'),
        (
            document(GOOD, {**GOOD, "verdict": "false alarm"}),
            "review 2: says 'false alarm' of bolt/a.png, and an earlier one 'miss'",
        ),
    ],
)
def test_a_malformed_file_is_refused(
    saved: Callable[..., Path], content: object, message: str
) -> None:
    path = saved(content)
    with pytest.raises(DataError) as caught:
        read_reviews(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text
    assert len(text) < len(str(path)) + 160


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "is not a file")):
        with pytest.raises(DataError, match=reason):
            read_reviews(path)


def test_images_are_found_by_path_and_content(tmp_path: Path) -> None:
    image = tmp_path / "data/a b.png"
    image.parent.mkdir()
    image.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert file_sha256(image) == digest
    reviews = [
        Review("data/a b.png", "bolt", "miss", digest),
        Review(str(image), "bolt", "miss"),
        Review("data/a b.png", "bolt", "miss", HASH),
        Review("gone.png", "bolt", "miss"),
        Review("data", "bolt", "miss"),
        Review("\ud800.png", "bolt", "miss"),
    ]
    found, problems = find_images(reviews, tmp_path)
    assert [path for _, path in found] == [image, image]
    assert [text.split(": ")[1].split(",")[0] for text in problems] == [
        "is not the image that was reviewed (its content differs)",
        "not found",
        "is not a file",
        "not found",
    ]


# --- snl calibrate --reviews ---


@pytest.fixture
def file(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(calibrated, tmp_path / "parts.snl"))


@pytest.fixture(scope="module")
def images(calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """A folder, and its flagged and unflagged images of normal parts, one of each product."""
    folder = tmp_path_factory.mktemp("reviewed")
    inspector, flagged, missed = snl.load(calibrated, "cpu"), [], []
    for product in ("bolt", "plate"):
        paths = [
            save_varied(folder / f"{product}/{n}.png", 5000 + n, product=product) for n in range(60)
        ]
        results = inspector.inspect(paths, product)
        flagged.append(next(Path(str(r.path)) for r in results if r.decision == "anomalous"))
        missed.append(
            next(
                Path(str(r.path))
                for r in results
                if r.decision == "normal" and (r.p_value or 1) < 0.15
            )
        )
    return folder, flagged, missed


def review(path: Path, verdict: str, root: Path | None = None) -> dict[str, Any]:
    name = str(path) if root is None else path.relative_to(root).as_posix()
    return {
        "path": name,
        "product": path.parent.name,
        "verdict": verdict,
        "sha256": file_sha256(path),
    }


def sets(file: Path) -> dict[str, Any]:
    """Return held-out hashes and rates by product."""
    calibration = snl.load(file, "cpu").calibration
    return {
        product: (sorted(data.hashes.tolist()), calibration.rates_for(product))
        for product, data in calibration.sets.items()
    }


def test_reviews_do_what_false_alarms_and_misses_do(
    file: Path, images: Images, tmp_path: Path, saved: Callable[..., Path], capsys: Capture
) -> None:
    """Of each product, compared with the options; in one version, which --undo takes back."""
    root, flagged, missed = images
    before, other = sets(file), Path(shutil.copy(file, tmp_path / "other.snl"))
    path = saved(
        document(
            *(review(image, "false alarm", root) for image in flagged),
            *(review(image, "miss") for image in missed),  # absolute
            review(root / "bolt/1.png", "correct", root),
        ),
        "downloads/reviews.json",
    )
    line = ["calibrate", str(file), "--reviews", str(path), "--data", str(root), "--quiet"]
    assert main(line) == 0
    output = capsys.readouterr()
    assert f"{path}: false alarms 2, misses 2, correct 1" in output.err
    assert f"{flagged[0]}: normal image of bolt from now on" in output.err
    for one in flagged:
        main(["calibrate", str(other), "--false-alarms", str(one), "--product", one.parent.name])
    for one in missed:
        main(["calibrate", str(other), "--misses", str(one), "--product", one.parent.name])
    assert sets(file) == sets(other) != before
    assert main(["calibrate", str(file), "--undo", "--quiet"]) == 0
    assert sets(file) == before


def test_images_are_sought_beside_the_file_and_those_that_are_gone_are_named(
    file: Path, images: Images, saved: Callable[..., Path], capsys: Capture
) -> None:
    root, flagged, _ = images
    path = saved(
        document(
            review(flagged[0], "false alarm", root),
            {**review(flagged[1], "false alarm", root), "sha256": HASH},
            {"path": "bolt/gone.png", "product": "bolt", "verdict": "miss"},
        ),
        str(root / "reviews.json"),
    )
    assert main(["calibrate", str(file), "--reviews", str(path), "--quiet"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum("is not the image that was reviewed" in line for line in lines) == 1
    assert sum(f"{root / 'bolt/gone.png'}: not found" in line for line in lines) == 1
    held = snl.load(file, "cpu").calibration.sets
    assert (len(held["bolt"]), len(held["plate"])) == (21, 20)


def test_reviews_that_cannot_be_taken_change_nothing(
    file: Path, tmp_path: Path, saved: Callable[..., Path], capsys: Capture
) -> None:
    image = save_varied(tmp_path / "bolt/a.png", 5000)
    alarm, before = review(image, "false alarm", tmp_path), file.read_bytes()
    strange = {**alarm, "product": "<b>nut</b>\x1b[31m"}
    for content, words, message in (
        (document(alarm, network="other"), [], "reviews decisions of another network ("),
        (document(strange), [], "product '<b>nut</b>\\x1b[31m' is not known to"),
        (document({**alarm, "path": "gone.png"}), [], "none of its 1 images can be used, first"),
        (document({**alarm, "path": "gone.png"}), ["--data", tmp_path / "x"], "not found"),
        (document(alarm), ["--misses", image, "--product", "bolt"], "is given both as normal and"),
        (document(alarm), ["--undo"], "leave out --reviews"),
        (document(alarm), ["-o", image], "would overwrite what is read"),
        (b"{", [], "is not valid JSON"),
    ):
        path = saved(content)
        line = ["calibrate", file, "--reviews", path, *words, "--quiet"]
        assert main([str(word) for word in line]) == 2
        output = capsys.readouterr()
        last = output.err.splitlines()[-1]
        assert last.startswith("snl: error: ") and message in last and "\x1b" not in output.err
        assert file.read_bytes() == before
    assert main(["calibrate", str(file), "--data", str(tmp_path)]) == 2
    assert "give --reviews, too" in capsys.readouterr().err
    path = saved(document(alarm, network="other", calibration="2020"))
    assert main(["calibrate", str(file), "--reviews", str(path), "--force", "--quiet"]) == 0
    assert "another network" in capsys.readouterr().err and file.read_bytes() != before


def test_reviews_of_one_product_alone(
    file: Path, images: Images, saved: Callable[..., Path], capsys: Capture
) -> None:
    _, flagged, _ = images
    path = saved(document(*(review(image, "false alarm") for image in flagged)))
    line = ["calibrate", str(file), "--reviews", str(path), "--product", "plate", "--quiet"]
    assert main(line) == 0
    assert "1 of other products left out" in capsys.readouterr().err
    held = snl.load(file, "cpu").calibration.sets
    assert (len(held["bolt"]), len(held["plate"])) == (20, 21)


def test_only_correct_verdicts_change_nothing(
    file: Path, tmp_path: Path, saved: Callable[..., Path]
) -> None:
    path, before = saved(document({**GOOD, "verdict": "correct"})), file.read_bytes()
    assert main(["calibrate", str(file), "--reviews", str(path), "--quiet"]) == 0
    assert file.read_bytes() == before
