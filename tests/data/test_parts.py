"""Parts that several images show: the manifest's column, the pattern, and their splits."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from snl.cli.main import main
from snl.data.catalog import Catalog
from snl.data.parts import PartPattern
from snl.errors import DataError
from tests.data.catalogs import touch
from tests.trees import save_part


def parts_of(catalog: Catalog) -> dict[str, str]:
    return {catalog.relative(record.path): record.part for record in catalog.records}


def splits_of(catalog: Catalog) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in catalog.records:
        if record.part:
            splits[record.part].add(record.split)
    return splits


def manifest(root: Path, *lines: str) -> Path:
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_the_column_names_parts(tmp_path: Path) -> None:
    root = manifest(tmp_path, "path,part", "a.png,7", "b.png,7.5", "c.png,", "d.png,NA", "e.png,-")
    assert parts_of(Catalog.read(root)) == {
        "a.png": "7", "b.png": "7.5", "c.png": "", "d.png": "NA", "e.png": "-"
    }  # fmt: skip


def test_parquet_names_the_same_parts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"path": ["a.png", "b.png", "c.png"], "part": [7.0, 7.0, None]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "manifest.parquet")
    assert list(parts_of(Catalog.read(tmp_path)).values()) == ["7", "7", ""]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"S\d+", "S0007"),
        (r"S(\d+)", "0007"),
        (r"^(.*)/", "audiojack/OK/S0007"),
        (r".*/S\d+", "audiojack/OK/S0007"),
        (r"_C(\d)", "3"),
        (r"T(\d)|_C\d", ""),
        (r"NG", ""),
        (r"x*", ""),
    ],
)
def test_a_pattern_names_a_part_by_its_group_or_match(pattern: str, name: str) -> None:
    assert PartPattern(pattern).name("audiojack/OK/S0007/audiojack_0007_OK_C3.jpg") == name


def test_paths_are_relative_to_the_data(tmp_path: Path) -> None:
    """Digits and folders above the data do not count."""
    root = tmp_path / "run9"
    touch(root, "top/1.png", "top/2.png", "side/1.png", "side/2.png")
    catalog = Catalog.read(root, part_pattern=r"\d+")
    assert parts_of(catalog) == {
        "top/1.png": "1", "top/2.png": "2", "side/1.png": "1", "side/2.png": "2"
    }  # fmt: skip
    assert catalog.products == ("side", "top") and catalog.notes == Catalog.read(root).notes


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is not a valid regular expression"),
        ("a{99999999999}", "is not a valid regular expression"),
        ("view", "matches no image; it is searched in paths such as bolt/1_a.png"),
    ],
)
def test_a_wrong_pattern_is_an_error(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path, "bolt/1_a.png", "bolt/1_b.png")
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as caught:
        Catalog.read(tmp_path, part_pattern=pattern)
    assert "\n" not in str(caught.value)


def test_doctor_counts_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1_a", "1_b", "2_a"):
        save_part(tmp_path / "bolt" / f"{name}.png", len(name))
    words = ["doctor", str(tmp_path), "--quiet", "--part-pattern", r"\d"]
    main(words)
    assert "3 images, 2 parts with 1 to 2 images each" in capsys.readouterr().out
    main(words[:3])
    assert "parts with" not in capsys.readouterr().out
    assert main(["doctor", "--part-pattern", r"\d"]) == 2
    assert "--part-pattern has no DATA to read" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["(", "", "a{99999999999}"])
def test_the_command_line_refuses_a_wrong_pattern(
    tmp_path: Path, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "parts.snl", str(tmp_path), "--part-pattern", pattern]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "--part-pattern" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "note"),
    [
        (r"(\d)_", "does not match 2 of 6 images (bolt/x.png, ...); each of them is a part"),
        (r"bolt", "all images show one part, 'bolt'"),
        (r".*", "every part has one image by the part pattern '.*', the first is 'bolt/1_a.png'"),
    ],
)
def test_a_doubtful_pattern_is_noted(tmp_path: Path, pattern: str, note: str) -> None:
    touch(tmp_path, *(f"bolt/{name}.png" for name in ("1_a", "1_b", "2_a", "2_b", "x", "y")))
    notes = Catalog.read(tmp_path, part_pattern=pattern).notes
    assert sum(note in text for text in notes) == 1


def test_a_pattern_does_not_replace_the_column(tmp_path: Path) -> None:
    root = manifest(tmp_path, "path,part", "1_a.png,1", "1_b.png,1")
    with pytest.raises(DataError, match=r"column 'part' .* leave out the part pattern"):
        Catalog.read(root, part_pattern=r"\d")


@pytest.mark.parametrize("by_column", [True, False])
def test_parts_without_a_split_are_split_whole(tmp_path: Path, by_column: bool) -> None:
    """Tested are parts 0-4, which have an anomalous view, and a fifth of the others."""
    lines = ["path,label,part" if by_column else "path,label"]
    for part in range(30):
        for view in range(5):
            label = "bad" if part < 5 and view == 2 else "good"
            lines.append(f"{part}_{view}.png,{label}" + (f",{part}" if by_column else ""))
    root = manifest(tmp_path, *lines)
    catalog = Catalog.read(root, part_pattern=None if by_column else r"(\d+)_")
    splits = splits_of(catalog)
    assert all(len(found) == 1 for found in splits.values())
    tested = {part for part, found in splits.items() if found == {"test"}}
    assert {str(n) for n in range(5)} <= tested and len(tested) == 10
    assert not any("training images" in note for note in catalog.notes)


def test_a_part_with_a_test_image_is_not_trained_on(tmp_path: Path) -> None:
    """Also where the layout states the splits, and where the views are products."""
    for product in ("top", "side"):
        touch(tmp_path, *(f"{product}/train/good/{n}.png" for n in range(6)))
        touch(tmp_path, f"{product}/test/good/6.png")
    touch(tmp_path, "top/test/dent/3.png")
    catalog = Catalog.read(tmp_path, part_pattern=r"(\d+)\.png")
    assert splits_of(catalog)["3"] == {"test"}
    (note,) = [text for text in catalog.notes if "training images" in text]
    assert note.startswith("2 training images show parts that test images show, too ('3')")
    assert len(catalog.train()) == 10
    assert Catalog.read(tmp_path, part_pattern=r".*\d+").records != catalog.records


def test_parts_change_the_fingerprint(tmp_path: Path) -> None:
    touch(tmp_path, "bolt/1_a.png", "bolt/1_b.png", "bolt/2_a.png", "bolt/2_b.png")
    prints = {Catalog.read(tmp_path, part_pattern=p).fingerprint() for p in (None, r"\d", r"^.*\d")}
    assert len(prints) == 3
