"""`snl inspect --csv`, `--copy-rejects`, `--move-rejects`, and what it says about regions."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snl
from snl.cli.inspect_rejects import Rejects
from snl.cli.main import main
from snl.cli.remarks import Remarks
from snl.kinds import TABLE_COLUMNS
from snl.runtime.inspector import Inspector

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def incoming(plant: Path, tmp_path: Path) -> Path:
    """Normal and dented bolts in two folders, with equal names in both."""
    folder = tmp_path / "incoming"
    for kind in ("good", "dent"):
        (folder / kind).mkdir(parents=True)
        for number, file in enumerate(sorted((plant / "bolt" / "test" / kind).glob("*.png"))):
            shutil.copy(file, folder / kind / f"{number}.png")
    return folder


def run(*words: object) -> int:
    return main(["inspect", *map(str, words), "--device", "cpu", "--quiet", "--product", "bolt"])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- the table ---


def test_the_table_has_the_values_of_the_json_lines(
    trained: Path, incoming: Path, tmp_path: Path
) -> None:
    table, results = tmp_path / "r.csv", tmp_path / "r.jsonl"
    (incoming / "good" / "=cmd(), \n1.png").write_bytes((incoming / "good" / "0.png").read_bytes())
    assert run(trained, incoming, "--csv", table, "--json", results) == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == TABLE_COLUMNS
    records = lines(results)
    assert len(rows) == len(records) > 10
    for row, record in zip(rows, records, strict=True):
        assert row["path"] == record["path"].replace("\n", " ")
        assert row["decision"] == record["decision"] and row["product"] == "bolt"
        for name in ("score", "threshold", "p_value"):
            assert float(row[name]) == pytest.approx(record[name], rel=1e-6)
            assert len(row[name]) <= 12, "no more digits than mean anything"
        assert int(row["regions"]) == len(record["regions"])
        box = [row[name] for name in ("x", "y", "width", "height")]
        first = record["regions"][0]["box"] if record["regions"] else [""] * 4
        assert box == [str(value) for value in first]
    assert any(row["x"] for row in rows) and not any(row["rejected_to"] for row in rows)


def test_a_table_of_formulas_is_text(trained: Path, incoming: Path, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(incoming / "good")
    Path("0.png").rename("=1+1.png")
    assert run(trained, "=1+1.png", "--csv", tmp_path / "r.csv") == 0
    (row,) = csv.DictReader((tmp_path / "r.csv").open(newline=""))
    assert row["path"] == "'=1+1.png"


def test_only_an_earlier_table_is_replaced(
    trained: Path, incoming: Path, tmp_path: Path, capsys: Capture
) -> None:
    image, table = incoming / "good" / "0.png", tmp_path / "r.csv"
    for _ in range(2):
        assert run(trained, image, "--csv", table) == 0
        assert len(table.read_text().splitlines()) == 2
    earlier = table.read_bytes()
    assert run(trained, tmp_path / "missing.png", "--csv", table) == 2
    assert table.read_bytes() == earlier, "a run without results leaves an earlier table"
    capsys.readouterr()
    table.write_text("order,customer\n1,Smith\n")
    assert run(trained, image, "--csv", table) == 2
    assert "is not a table of snl inspect" in capsys.readouterr().err
    assert table.read_text() == "order,customer\n1,Smith\n"
    assert run(trained, image, "--csv", "-") == 2
    assert "--csv -: " in capsys.readouterr().err and not Path("-").exists()


# --- rejects ---


def test_rejects_are_copied_by_decision(
    trained: Path, incoming: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = contents(incoming)
    rejects, results = tmp_path / "rejects", tmp_path / "r.jsonl"
    command = (trained, incoming, "--copy-rejects", rejects, "--json", results)
    assert run(*command) == 0
    assert contents(incoming) == before
    expected = {}
    for record in lines(results):
        inside = Path(record["path"]).relative_to(incoming).as_posix()
        if record["decision"] == "normal":
            assert "rejected_to" not in record
            continue
        name = f"{record['decision'].replace(' ', '-')}/{inside}"
        assert Path(record["rejected_to"]) == rejects / name
        expected[name] = before[inside]
    assert contents(rejects) == expected and len(expected) > 5
    assert f"{len(expected)} rejects copied: {rejects}" in capsys.readouterr().err
    assert run(*command) == 0
    assert contents(rejects) == expected, "the same images are not copied twice"


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "another file system"])
def test_rejects_are_moved_and_nothing_is_replaced(
    trained: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
    before = contents(incoming)
    rejects, results = tmp_path / "rejects", tmp_path / "r.jsonl"
    other = rejects / "anomalous" / "dent" / "0.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of somebody else")
    os.utime(incoming / "dent" / "1.png", (1e9, 1e9))
    assert run(trained, incoming, "--move-rejects", rejects, "--json", results) == 0
    records = lines(results)
    flagged = {r["path"]: r for r in records if r["decision"] != "normal"}
    assert (
        str(incoming / "dent" / "0.png") in flagged and str(incoming / "dent" / "1.png") in flagged
    )
    assert other.read_bytes() == b"of somebody else"
    for record in records:
        inside = Path(record["path"]).relative_to(incoming).as_posix()
        moved = record["path"] in flagged
        assert Path(record["path"]).exists() is not moved
        now = Path(record["rejected_to"]) if moved else incoming / inside
        assert hashlib.sha256(now.read_bytes()).hexdigest() == before[inside]
    where = Path(flagged[str(incoming / "dent" / "0.png")]["rejected_to"])
    assert where == other.with_name("0-2.png")
    kept = Path(flagged[str(incoming / "dent" / "1.png")]["rejected_to"])
    assert kept.stat().st_mtime == 1e9
    assert not list(rejects.rglob(".*")), "no temporary file is left"


def test_an_image_stays_if_it_cannot_be_moved(
    inspector: Inspector, incoming: Path, tmp_path: Path
) -> None:
    source = incoming / "dent" / "0.png"
    (result,) = inspector.stream([source], "bolt")
    folder = tmp_path / "rejects"
    folder.mkdir()
    (folder / result.decision.replace(" ", "-")).write_text("a file where a folder should be")
    sink = Rejects(folder, {source: folder / "0.png"}, move=True)
    with pytest.raises(snl.SnlError, match="could not be moved"):
        sink.add(result, {})
    assert source.exists() and "0 rejects moved" in str(sink.summary())


def test_a_link_is_moved_as_the_image(trained: Path, incoming: Path, tmp_path: Path) -> None:
    image = incoming / "dent" / "0.png"
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "link.png").symlink_to(image)
    assert run(trained, folder, "--move-rejects", tmp_path / "rejects") == 0
    (moved,) = (tmp_path / "rejects").rglob("*.png")
    assert not moved.is_symlink() and moved.read_bytes() == image.read_bytes()
    assert not (folder / "link.png").is_symlink()


def bad() -> Iterator[Any]:
    copy, move = ("--copy-rejects", "rejects"), ("--move-rejects", "rejects")
    yield pytest.param((*copy, "--move-rejects", "b"), "not allowed with", id="both")
    yield pytest.param((*copy, "--part-pattern", r"(\d+)"), "--part-pattern", id="parts")
    yield pytest.param((*move, "--coco", "c.json"), "--coco", id="coco")
    yield pytest.param((*move, "--labelme", "l"), "--labelme", id="labelme")
    yield pytest.param(("--move-rejects", "incoming/rejects"), "is inside", id="inside")
    yield pytest.param(("--copy-rejects", "incoming"), "is inside", id="the same")
    yield pytest.param(("--copy-rejects", "link/rejects"), "is inside", id="inside by a link")
    yield pytest.param(("--copy-rejects", "-"), "--copy-rejects -", id="standard output")
    yield pytest.param((*copy, "-o", "results"), "--copy-rejects", id="bulk")


@pytest.mark.parametrize(("words", "says"), [*bad()])
def test_options_that_do_not_fit(
    trained: Path, incoming: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(incoming)
    before = contents(tmp_path)
    try:
        status = run(trained, "incoming", *words)
    except SystemExit as error:  # of argparse
        status = int(str(error.code))
    assert status == 2 and says in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert not list(incoming.glob("rejects")), "a refused command creates no folder"


# --- overlays ---


def test_overlays_are_all_there_at_the_end_and_failures_are_counted(
    trained: Path, incoming: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snl.cli import inspect_sinks

    write, folder, results = inspect_sinks.write_bytes, tmp_path / "o", tmp_path / "r.jsonl"

    def full(path: Path, content: bytes) -> Path:
        if path.name == "1.png":
            raise snl.SnlError(f"{path}: cannot be written (No space left on device)")
        return write(path, content)

    monkeypatch.setattr(inspect_sinks, "write_bytes", full)
    assert run(trained, incoming, "--out", folder, "--json", results) == 2
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
    wanted = {file.relative_to(incoming).as_posix() for file in incoming.rglob("*.png")}
    assert written == {name for name in wanted if not name.endswith("/1.png")}
    said = capsys.readouterr().err
    assert f"{len(written)} overlays: {folder}" in said
    assert "--out: 2 files could not be written" in said
    assert said.count("No space left") == 1 and "the other outputs are written" in said
    assert len(lines(results)) == len(wanted)
    assert {line["path"] for line in lines(results) if "overlay" not in line} == {
        str(incoming / kind / "1.png") for kind in ("good", "dent")
    }


def test_a_stopped_run_keeps_the_results_whose_overlays_wait(
    trained: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snl.signals import Stopped

    stream, seen = Inspector.stream, []

    def stopped(self: Inspector, *words: Any, **options: Any) -> Any:
        for number, result in enumerate(stream(self, *words, **options)):
            if number == 7:
                raise Stopped(15)
            seen.append(result)
            yield result

    def slow(self: snl.Inspection, *words: Any) -> Any:
        time.sleep(0.05)
        return draw(self, *words)

    draw = snl.Inspection.overlay
    monkeypatch.setattr(Inspector, "stream", stopped)
    monkeypatch.setattr(snl.Inspection, "overlay", slow)
    results = tmp_path / "r.jsonl"
    assert run(trained, incoming, "--out", tmp_path / "o", "--json", results) == 143
    assert [line["path"] for line in lines(results)] == [result.path for result in seen]
    assert len(seen) == 7 and all(Path(line["overlay"]).is_file() for line in lines(results))


def test_overlays_show_images_that_are_moved(trained: Path, incoming: Path, tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    command = (trained, incoming, "--out", overlays, "--move-rejects", tmp_path / "rejects")
    assert run(*command) == 0
    assert not (incoming / "dent" / "0.png").exists()
    assert (overlays / "dent" / "0.png").stat().st_size > 1000


# --- regions ---


def test_a_reason_where_an_anomalous_image_has_no_region(
    inspector: Inspector, incoming: Path
) -> None:
    (result,) = inspector.stream([incoming / "dent" / "0.png"], "bolt")
    assert result.regions and result.regions_note is None
    assert not any("marked region" in text for text in result.remarks)
    highest = float(result.prediction.anomaly_map.max())

    def changed(**changes: Any) -> snl.Inspection:
        from dataclasses import replace

        return replace(result, **{"strangeness": 0.0, **changes})

    weak = changed(region_threshold=2 * highest)
    assert "below the threshold" in str(weak.regions_note)
    assert any("--regions-rate" in text for text in weak.remarks)
    small = changed(min_region_area=10**6)
    assert "smaller than 1000000 px" in str(small.regions_note)
    assert "held-out" in str(changed(region_threshold=None).regions_note)
    whole = changed(region_threshold=2 * highest, strangeness=50.0)
    assert "as a whole" in str(whole.regions_note)
    assert changed(decision="normal", region_threshold=2 * highest).regions_note is None
    assert any("without a marked region" in text for text in weak.to_dict()["remarks"])


def test_remarks_that_differ_in_numbers_are_one_kind(capsys: Capture) -> None:
    remarks = Remarks()
    for number in range(50):
        remarks.add(f"{number}.png", [f"is far away ({number}.5 deviations, limit 8)", "is odd"])
    remarks.summarise()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[2] == "note: 50 images: each is far away (... deviations, limit ...)"
