"""One check of all outputs: inputs, links, each other, files of other kinds, names, permissions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snl.errors import SnlError
from snl.kinds import (
    BUNDLE,
    COCO,
    DRIFT,
    INSPECTIONS,
    LABELME,
    MAP,
    METRICS,
    ONNX,
    OPENVINO,
    PAGE,
    PICTURE,
    Kind,
    labelme_digest,
    picture_text,
)
from snl.outputs import Output, check_outputs

LINE = json.dumps({"path": "a.png", "decision": "normal", "score": 1.0}) + "\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8)).save(path)
    return path


def check(path: Path, kind: Kind = INSPECTIONS, inputs: tuple[Path, ...] = ()) -> None:
    check_outputs([Output("--json", path, kind)], inputs)


def test_a_new_file_gets_its_folders(tmp_path: Path) -> None:
    check(tmp_path / "new" / "deep" / "r.jsonl")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


@pytest.mark.parametrize("way", ["same", "dots", "link", "hard", "folder link"])
def test_inputs_are_refused_by_every_name(tmp_path: Path, way: str) -> None:
    """The input is a file that could be replaced by its kind."""
    source = tmp_path / "in" / "r.jsonl"
    source.parent.mkdir()
    source.write_text(LINE)
    target = tmp_path / "out.jsonl"
    if way == "same":
        target = source
    elif way == "dots":
        target = tmp_path / "in" / ".." / "in" / "r.jsonl"
    elif way == "link":
        target.symlink_to(source)
    elif way == "hard":
        os.link(source, target)
    else:
        (tmp_path / "way").symlink_to("in")
        target = tmp_path / "way" / "r.jsonl"
    with pytest.raises(SnlError, match=r"would overwrite what is read .*for --json"):
        check(target, inputs=(source,))
    check(target)  # only because it is read


def test_reading_an_xml_file_reads_the_bin_file(tmp_path: Path) -> None:
    for name in ("x.xml", "x.bin"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SnlError, match="would overwrite what is read"):
        check(tmp_path / "x.bin", inputs=(tmp_path / "x.xml",))


def test_writing_an_xml_file_writes_the_bin_file(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"a person's file")
    with pytest.raises(SnlError, match=r"x\.bin: exists and is not the weights"):
        check(tmp_path / "x.xml", OPENVINO)
    with pytest.raises(SnlError, match="would overwrite what is read"):
        check(tmp_path / "x.xml", OPENVINO, (tmp_path / "x.bin",))


def write(kind: Kind, path: Path) -> None:
    """Write an earlier output of a kind."""
    from snl.monitoring.drift import DriftMonitor
    from snl.reporting.annotations import coco_file

    if kind is INSPECTIONS:
        path.write_text(LINE)
    elif kind is METRICS:
        path.write_text(json.dumps({"products": {}, "mean": {}, "pooled": {}, "about": {}}))
    elif kind is COCO:
        with coco_file(path):
            pass
    elif kind is LABELME:
        document = {"version": "5", "flags": {"normal": True}, "shapes": []}
        path.write_text(json.dumps({**document, "snl": labelme_digest(document)}))
    elif kind is DRIFT:
        DriftMonitor({"bolt": np.arange(8.0).reshape(4, 2)}).save(path)
    elif kind is PICTURE:
        Image.new("RGB", (8, 8)).save(path, format="PNG", pnginfo=picture_text())
    elif kind is MAP:
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 4), np.float32))
    elif kind is PAGE:
        path.write_text('<!doctype html>\n<meta http-equiv="Content-Security-Policy">')
    elif kind is BUNDLE:
        from snl.files import save_tensors

        save_tensors(path, {"a": np.zeros(3)}, "bundle", {})
    elif kind is ONNX:
        path.write_bytes(b"\x08\x08 graph \x72 snl.image_size 64")
    elif kind is OPENVINO:
        path.write_text(
            '<?xml version="1.0"?><net name="a"><rt_info><snl value="" /></rt_info></net>'
        )


KINDS = {
    "a.jsonl": INSPECTIONS, "m.json": METRICS, "c.json": COCO, "l.json": LABELME, "d.json": DRIFT,
    "p.png": PICTURE, "n.npy": MAP, "r.html": PAGE, "b.snl": BUNDLE, "e.onnx": ONNX,
    "e.xml": OPENVINO,
}  # fmt: skip


@pytest.mark.parametrize("own", KINDS)
def test_only_files_of_the_same_kind_are_replaced(tmp_path: Path, own: str) -> None:
    """Every kind over every other, under its own name, so that only the contents differ."""
    kind = KINDS[own]
    for name, other in KINDS.items():
        path = tmp_path / name / own
        path.parent.mkdir()
        write(other, path.with_name(name))
        path.with_name(name).rename(path)
        if other is kind:
            check(path, kind)
        else:
            with pytest.raises(SnlError, match=r"exists and is not .*move it away, or choose"):
                check(path, kind)


@pytest.mark.parametrize(
    "content",
    [b"path,label\na.png,good\n", b"{}", b"[1, 2]", b'{"dependencies": {}}', b"\xff\xd8\xff", b"\0",
     b"{" * 5000, b'{"a":' * 5000],
)  # fmt: skip
def test_foreign_contents_are_kept(tmp_path: Path, content: bytes) -> None:
    for name, kind in KINDS.items():
        path = tmp_path / name
        path.write_bytes(content)
        if kind is BUNDLE and content in (b"\0", b"path,label\na.png,good\n"):
            continue  # damaged .snl files; train replaces them with --overwrite
        with pytest.raises(SnlError, match="exists and is not"):
            check(path, kind)
        path.write_bytes(b"")
        if kind is not OPENVINO:
            check(path, kind)


def test_a_label_file_that_a_person_edited_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(LABELME, path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "lineColor": 3}))  # other keys say nothing
    check(path, LABELME)
    document["shapes"].append({"label": "scratch", "points": [[1, 2], [3, 4], [5, 6]]})
    path.write_text(json.dumps(document))
    with pytest.raises(SnlError, match="is not a LabelMe file as snl wrote it"):
        check(path, LABELME)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.onnx", BUNDLE, "is the name of an ONNX file; the name of a bundle ends in .snl"),
        ("a.xml", BUNDLE, "is the name of an OpenVINO file"),
        ("A.ONNX", BUNDLE, "is the name of an ONNX file"),
        ("a.jpg", INSPECTIONS, "is the name of an image; the name of a JSON file ends in .json"),
        ("a.csv", METRICS, "is the name of a table"),
        ("a.snl", PAGE, "is the name of a bundle; the name of a web page ends in .html"),
        ("a.txt", ONNX, "the name of an ONNX file ends in .onnx"),
        ("a.json", PICTURE, "the name of an image ends in .png"),
        ("x" * 256, BUNDLE, "name is longer than 255 bytes|too long"),
    ],
)
def test_names_of_other_kinds(tmp_path: Path, name: str, kind: Kind, message: str) -> None:
    with pytest.raises(SnlError, match=message):
        check(tmp_path / name, kind)
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_the_same_or_inside_each_other(tmp_path: Path) -> None:
    a, b, folder = tmp_path / "a.json", tmp_path / "x" / ".." / "a.json", tmp_path / "a.json"
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("a.json")
    for other in (a, b, tmp_path / "link"):
        with pytest.raises(SnlError, match="is both --json and --coco; give two names"):
            check_outputs([Output("--json", a, INSPECTIONS), Output("--coco", other, COCO)])
    for below in (folder, folder / "deep"):
        for files in ((), (below / "1.png",)):
            with pytest.raises(SnlError, match="both the file of --json and a folder of --out"):
                check_outputs(
                    [Output("--json", a, INSPECTIONS), Output("--out", below, PICTURE, files)]
                )
    with pytest.raises(SnlError, match="is both --labelme and --json"):
        check_outputs(
            [
                Output("--labelme", tmp_path / "l", LABELME, (tmp_path / "l" / "1.json",)),
                Output("--json", tmp_path / "l" / "1.json", INSPECTIONS),
            ]
        )
    check_outputs(  # a file beside those of a folder
        [
            Output("--json", tmp_path / "o" / "r.jsonl", INSPECTIONS),
            Output("--out", tmp_path / "o", PICTURE, (tmp_path / "o" / "1.png",)),
        ]
    )


def test_places_that_cannot_be_written(tmp_path: Path, image: Path) -> None:
    protected = tmp_path / "p.jsonl"
    protected.write_text(LINE)
    protected.chmod(0o444)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dead").symlink_to("/nowhere/at/all.json")
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (protected, "write-protected"),
        (tmp_path / "loop", "loop"),
        (tmp_path / "dead", "folder does not exist"),
        (tmp_path / "pipe", "device or a pipe"),
        (tmp_path, "is a folder; give the path of a file"),
        (image / "r.jsonl", "cannot be written"),
        (Path(), "is a folder"),
    ):
        with pytest.raises(SnlError, match=message):
            check(path)
    with pytest.raises(SnlError, match=r"it is a file\); give --out the path of a folder"):
        check_outputs([Output("--out", image, PICTURE, ())])
    check(Path("/dev/null"))
    with pytest.raises(SnlError, match="device"):
        check(Path("/dev/null"), BUNDLE)


def test_many_files_are_checked_fast(tmp_path: Path) -> None:
    files = tuple(tmp_path / "o" / f"{n % 50}" / f"{n}.png" for n in range(20_000))
    check_outputs([Output("--out", tmp_path / "o", PICTURE, files)], files)
