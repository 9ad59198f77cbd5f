"""Bulk inspection on this machine: what is found and written, what is left out, wrong input."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import snl
from snl.bulk.shards import FILES, PARQUET, TAR, Columns, Shard, find_shards, items_of
from snl.cli.main import main
from snl.errors import DataError

Capture = pytest.CaptureFixture[str]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return all rows, read by pyarrow alone."""
    files = sorted(folder.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def images_of(plant: Path) -> list[Path]:
    return sorted(p for p in plant.rglob("*.png") if "ground_truth" not in p.parts)


def make_tar(path: Path, images: list[Path], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for number, image in enumerate(images):
            archive.add(image, f"{number:03d}{image.suffix}")
    return path


def make_parquet(path: Path, images: list[Path], **options: Any) -> Path:
    table = pa.table({
        "image": [{"bytes": image.read_bytes(), "path": image.name} for image in images],
        "serial": [f"part {number}" for number in range(len(images))],
    })  # fmt: skip
    pq.write_table(table, path, **options)
    return path


def bulk(capsys: Capture, *words: object) -> tuple[int, str]:
    status = main(["inspect", *map(str, words), "--quiet", "--device", "cpu"])
    return status, capsys.readouterr().err


# --- shards ---


def test_every_kind_of_source(plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(plant)
    folder = tmp_path / "in"
    folder.mkdir()
    make_tar(folder / "a.tar", images[:4])
    make_tar(folder / "b.tar.gz", images[4:6], "w:gz")
    make_parquet(folder / "c.parquet", images[:5], row_group_size=2)
    Image.open(images[0]).save(folder / "d.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    shards = find_shards([str(folder)])
    kinds = [shard.kind for shard in shards]
    assert [kinds.count(kind) for kind in (TAR, PARQUET, FILES)] == [2, 3, 1]
    assert len({shard.key for shard in shards}) == 6
    names = [item.name for shard in shards for item in items_of(shard, Columns())]
    assert len(names) == len(set(names)) == 4 + 2 + 5 + 1
    assert all(Path(name.partition("#")[0]).is_absolute() for name in names)
    assert f"{folder}/c.parquet#4" in names and f"{folder}/a.tar/003.png" in names
    for shard in shards:
        assert Shard.from_json(shard.to_json()) == shard
    # given twice, from elsewhere, and one of them alone
    monkeypatch.chdir(folder)
    assert find_shards([".", str(folder), "a.tar"]) == shards


def test_masks_and_hidden_files_are_left_out(plant: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(plant, ".")
    for source in (plant, tmp_path / "all.tar"):
        shards = find_shards([str(source)])
        names = [item.name for shard in shards for item in items_of(shard, Columns())]
        assert len(names) == len(images_of(plant))
        assert not any("ground_truth" in name for name in names)


def test_files_are_divided(plant: Path) -> None:
    shards = find_shards([str(plant)], per_shard=7)
    count = len(images_of(plant))
    assert [len(s.files) for s in shards] == [7] * (count // 7) + [count % 7][: count % 7]
    assert len({s.key for s in shards}) == len(shards)


# --- results ---


def test_rows_are_those_of_inspection(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "results"
    status, said = bulk(capsys, trained, plant, "-o", out, "--maps")
    assert status == 0 and "images of 1 shards" in said
    rows = rows_of(out)
    inspector = snl.load(trained, "cpu")
    assert [row["id"] for row in rows] == [str(path) for path in images_of(plant)]
    expected = inspector.inspect(images_of(plant))
    for row, result in zip(rows, expected, strict=True):
        record = result.to_dict()
        assert row["error"] is None
        for key in ("decision", "product", "p_value", "threshold", "width", "height", "remarks"):
            assert row[key] == record[key]
        assert row["score"] == pytest.approx(record["score"], rel=1e-4)
        assert len(row["regions"]) == len(record["regions"])
        stored = np.load(io.BytesIO(row["map"]))
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, result.prediction.anomaly_map, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_unusable_images_are_rows_in_their_places(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture, batch: int
) -> None:
    images = images_of(plant)[:9]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.png"
    cut.write_bytes(images[0].read_bytes()[:200])
    order = [bad, images[0], empty, images[1], images[2], cut, *images[3:], bad]
    make_tar(tmp_path / "a.tar", order)
    make_parquet(tmp_path / "b.parquet", order)
    for name in ("a.tar", "b.parquet"):
        out = tmp_path / f"{name}.out"
        status, said = bulk(capsys, trained, tmp_path / name, "-o", out, "--batch-size", batch)
        assert status == 2 and "4 images could not be inspected" in said
        rows = rows_of(out)
        wrong = [i for i, row in enumerate(rows) if row["error"]]
        assert len(rows) == len(order) and wrong == [0, 2, 5, len(order) - 1]
        for i in wrong:  # the reason names the image, not a temporary file
            assert rows[i]["decision"] is None
            assert rows[i]["id"] in rows[i]["error"] and "snl-bulk" not in rows[i]["error"]
        assert all(rows[i]["decision"] for i in range(len(rows)) if i not in wrong)


def test_names_from_a_column(trained: Path, plant: Path, tmp_path: Path, capsys: Capture) -> None:
    file = make_parquet(tmp_path / "a.parquet", images_of(plant)[:5], row_group_size=2)
    out = tmp_path / "out"
    assert bulk(capsys, trained, file, "-o", out, "--id-column", "serial")[0] == 0
    assert sorted(row["id"] for row in rows_of(out)) == [f"part {n}" for n in range(5)]


# --- going on ---


def test_nothing_is_inspected_twice(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    images = images_of(plant)
    make_tar(folder / "a.tar", images[:4])
    Image.open(images[5]).save(folder / "x.png")
    assert bulk(capsys, trained, folder, "-o", out)[0] == 0
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    status, said = bulk(capsys, trained, folder, "-o", out)
    assert status == 0 and "everything is inspected" in said
    make_tar(folder / "b.tar", images[6:9])  # new work: an archive, and a file before the old one
    Image.open(images[9]).save(folder / "a.png")
    status, said = bulk(capsys, trained, folder, "-o", out)
    assert status == 0 and "4 images of 2 shards" in said
    names = [row["id"] for row in rows_of(out)]
    assert len(names) == len(set(names)) == 4 + 1 + 3 + 1
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())


def test_a_killed_run_goes_on(trained: Path, plant: Path, tmp_path: Path, capsys: Capture) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    images = images_of(plant)
    for number in range(40):
        make_tar(folder / f"{number:02d}.tar", images)
    command = [sys.executable, "-m", "snl", "inspect", str(trained), str(folder), "-o", str(out)]
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE, text=True)
        before = len(list(out.glob("*.parquet"))) if out.exists() else 0
        while not out.exists() or len(list(out.glob("*.parquet"))) < before + 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (-9 if number == signal.SIGKILL else 143), said
        assert "Traceback" not in said
    assert bulk(capsys, trained, folder, "-o", out)[0] == 0
    names = [row["id"] for row in rows_of(out)]
    assert len(names) == len(set(names)) == 40 * len(images)


# --- wrong input ---


@pytest.mark.parametrize("keep", [100, 511, 1024, 2600])
def test_an_archive_that_is_cut_off(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture, keep: int
) -> None:
    images = images_of(plant)
    whole = make_tar(tmp_path / "whole.tar", images[:3])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:keep])
    out = tmp_path / "out"
    status, said = bulk(capsys, trained, cut, whole, "-o", out)
    assert status == 2 and said.count("error:") == 1 and "cut off" in said, said
    assert "Traceback" not in said and len(rows_of(out)) == 3  # of the other one
    make_tar(cut, images[3:5])
    assert bulk(capsys, trained, cut, whole, "-o", out)[0] == 0
    assert len(rows_of(out)) == 5


def test_wrong_sources(trained: Path, plant: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    table = make_parquet(tmp_path / "a.parquet", images_of(plant)[:2])
    damaged = tmp_path / "b.parquet"
    damaged.write_bytes(table.read_bytes()[:-20])
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, message in (
        ((tmp_path / "missing",), "does not exist"),
        ((tmp_path / "missing.tar",), "does not exist"),
        ((empty,), "no images"),
        ((table, "--image-column", "picture"), "no column 'picture', only image, serial"),
        ((table, "--id-column", "nr"), "no column 'nr'"),
        ((damaged,), "no readable Parquet"),
        ((plant, "--json", tmp_path / "a.jsonl"), "leave out --json"),
        ((plant, "--workers", "-1"), "--workers -1"),
        (("nothing://bucket/a",), "nothing"),
    ):
        status, said = bulk(capsys, trained, *words, "-o", out)
        assert status == 2 and message in said and said.count("\n") == 1, said
        assert not out.exists()
    for words, message in (
        ((table,), "-o RESULTS"),
        (("s3://bucket/images",), "-o RESULTS"),
        ((plant, "--ray", "auto"), "need -o"),
        ((plant, "--maps"), "need -o"),
    ):
        status, said = bulk(capsys, trained, *words)
        assert status == 2 and message in said and said.count("\n") == 1, said


def test_results_of_another_model_are_kept(
    trained: Path, plant: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.snl"
    images = images_of(plant)[:2]
    assert bulk(capsys, trained, *images, "-o", out)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    inspector = snl.load(trained, "cpu")
    snl.calibrate(inspector, rate=0.3)
    inspector.save(other)
    for words in ((other, *images), (trained, *images, "--product", "bolt"),
                  (trained, *images, "--maps"), (trained, *images, "--rate", "0.3")):  # fmt: skip
        status, said = bulk(capsys, *words, "-o", out)
        assert status == 2 and "choose another -o" in said and said.count("\n") == 1, said
    full = tmp_path / "full"
    full.mkdir()
    (full / "work.txt").write_text("mine")
    status, said = bulk(capsys, trained, *images, "-o", full)
    assert status == 2 and "holds other files" in said
    (out / "_snl.json").write_text("{")
    status, said = bulk(capsys, trained, *images, "-o", out)
    assert status == 2 and "damaged" in said
    before["_snl.json"] = b"{"
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [p.name for p in full.iterdir()] == ["work.txt"]


def test_shards_say_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(items_of(Shard(TAR, str(tmp_path / "a.tar")), Columns()))
    assert json.loads(Shard(TAR, "a").to_json())["kind"] == "tar"
