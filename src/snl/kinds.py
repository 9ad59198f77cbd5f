"""Kinds of files that snl writes: how their names end, and how an earlier file is recognised.

An existing file is replaced only if it is recognisably of the kind that replaces it. All other
files are somebody's work: images, masks, manifests, corrected labels, files of other programs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = 4096
"""Bytes of a file that most kinds are recognised by."""
_MAP_HEAD = re.compile(rb"\x93NUMPY.{4}\{'descr': '<f4', .*'shape': \(\d+, \d+\)", re.DOTALL)
_LARGEST_JSON = 256 * 2**20
_LARGEST_HEADER = 512 * 2**20

_SUFFIXES = {
    "a bundle": {".snl", ".safetensors"},
    "an ONNX file": {".onnx"},
    "an OpenVINO file": {".xml"},
    "OpenVINO's weights": {".bin"},
    "weights": {".pth", ".pt", ".ckpt"},
    "an image": {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"},
    "a video": {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"},
    "a table": {".csv", ".tsv", ".parquet", ".xls", ".xlsx"},
    "a web page": {".html", ".htm"},
    "a JSON file": {".json", ".jsonl", ".ndjson"},
    "an array": {".npy", ".npz"},
    "an archive": {".zip", ".gz", ".tar", ".7z"},
    "a document": {".pdf", ".doc", ".docx", ".odt", ".ppt", ".pptx", ".txt", ".md"},
    "a program": {".py", ".sh", ".exe", ".so", ".dll"},
}
_GROUPS = {suffix: group for group, suffixes in _SUFFIXES.items() for suffix in suffixes}
_MAGIC = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"PAR1", b"PK\3\4"),
    *(b"\x1f\x8b", b"%PDF", b"\x93NUMPY", b"\x7fELF", b"\x1aE\xdf\xa3", b"<?xml", b"<!", b"<html"),
    *(b"{", b"[", b"#!", b"\x08"),  # the last one: ONNX
    *(b"P%d" % number + space for number in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t")),
)
"""First bytes of files that are certainly no bundle."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that snl writes."""

    name: str
    """For messages: `is not NAME`."""
    group: str
    """Key of the suffixes that its names may have; names without a known suffix are allowed."""
    recognise: Callable[[Path, bytes], bool]
    """Whether an existing file, given with its first bytes, is of this kind."""
    only: bool = False
    """Whether its names must have the suffix, because it decides how the file is read."""

    @property
    def suffix(self) -> str:
        """The usual suffix of its names."""
        usual = {
            "a bundle": ".snl", "a JSON file": ".json", "an image": ".png", "a table": ".csv"
        }  # fmt: skip
        return usual.get(self.group) or min(_SUFFIXES[self.group], key=lambda s: (-len(s), s))

    def name_problem(self, path: Path) -> str | None:
        """Return what is wrong with a name, or None."""
        group = _GROUPS.get(path.suffix.lower())
        if group == self.group or (group is None and not self.only):
            return None
        if group is None:
            return f"the name of {self.group} ends in {self.suffix}; rename it"
        return f"is the name of {group}; the name of {self.group} ends in {self.suffix}"

    def is_replaceable(self, path: Path) -> bool:
        """Return whether an existing file may be replaced: it is empty or of this kind.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            head = file.read(HEAD)
        return not head or self.recognise(path, head)


def _is_bundle(path: Path, head: bytes) -> bool:
    """A safetensors file of the kind `bundle`; or a damaged one, if its name says so."""
    size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and size <= _LARGEST_HEADER:
        with path.open("rb") as file:
            file.seek(8)
            header = file.read(size)
        return b'\\"kind\\": \\"bundle\\"' in header
    return path.suffix.lower() == ".snl" and not head.startswith(_MAGIC)


def _is_onnx(path: Path, head: bytes) -> bool:
    """A protobuf message with the metadata that snl adds at its end."""
    return head[:1] == b"\x08" and b"snl.image_size" in path.read_bytes()


def _is_openvino(path: Path, head: bytes) -> bool:
    return b"<net" in head and b"<snl" in path.read_bytes()


def _is_openvino_weights(path: Path, head: bytes) -> bool:
    """The .bin file beside an .xml file of snl; it has no mark of its own."""
    xml = path.with_suffix(".xml")
    return xml.is_file() and OPENVINO.is_replaceable(xml)


def _is_inspections(path: Path, head: bytes) -> bool:
    """JSON lines; the first one is an inspection."""
    with path.open("rb") as file:
        first = _json(file.readline(_LARGEST_JSON))
    return isinstance(first, dict) and {"decision", "score", "path"} <= first.keys()


def _is_parts(path: Path, head: bytes) -> bool:
    """JSON lines; the first one is the decision on a part."""
    with path.open("rb") as file:
        first = _json(file.readline(_LARGEST_JSON))
    return isinstance(first, dict) and {"part", "decision", "views"} <= first.keys()


TABLE_COLUMNS = (
    *("path", "product", "product_from", "decision", "score", "threshold", "uncertain_threshold"),
    *("p_value", "regions", "x", "y", "width", "height", "area", "part", "overlay", "rejected_to"),
    "remarks",
)
"""Columns of the table that `snl inspect --csv` writes."""


def _is_table(path: Path, head: bytes) -> bool:
    """A CSV file whose heading begins as snl's."""
    return head.startswith(",".join(TABLE_COLUMNS[:5]).encode())


def _is_coco(path: Path, head: bytes) -> bool:
    """COCO JSON whose description is snl's."""
    return head.startswith(b'{"info": {"description": "defect regions detected by snl')


def _is_labelme(path: Path, head: bytes) -> bool:
    """LabelMe JSON of snl that nobody has changed since."""
    document = _document(path)
    return isinstance(document, dict) and document.get("snl") == labelme_digest(document)


def labelme_digest(document: dict[str, Any]) -> str:
    """Return a hash of what people edit in LabelMe JSON: flags and shapes."""
    content = [document.get("flags"), document.get("shapes")]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_page(path: Path, head: bytes) -> bool:
    return b"<!doctype html>" in head[:200] and b"Content-Security-Policy" in head


def _is_picture(path: Path, head: bytes) -> bool:
    return head.startswith(b"\x89PNG") and b"tEXtSoftware\0snl" in head


def _is_map(path: Path, head: bytes) -> bool:
    """A float32 array of two dimensions."""
    return _MAP_HEAD.match(head) is not None


def _has(*keys: str) -> Callable[[Path, bytes], bool]:
    """A JSON object with these keys."""

    def recognise(path: Path, head: bytes) -> bool:
        document = _document(path) if head.lstrip()[:1] == b"{" else None
        return isinstance(document, dict) and set(keys) <= document.keys()

    return recognise


def _is_drift(path: Path, head: bytes) -> bool:
    document = _document(path)
    return isinstance(document, dict) and document.get("kind") == "drift"


def _document(path: Path) -> Any:
    with path.open("rb") as file:
        return _json(file.read(_LARGEST_JSON))


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_kind(verb: str, *keys: str) -> Kind:
    return Kind(f"a result of snl {verb}", "a JSON file", _has(*keys))


BUNDLE = Kind("a bundle of snl", "a bundle", _is_bundle)
ONNX = Kind("an ONNX file of snl", "an ONNX file", _is_onnx, only=True)
OPENVINO = Kind("an OpenVINO file of snl", "an OpenVINO file", _is_openvino, only=True)
OPENVINO_WEIGHTS = Kind(
    "the weights of an OpenVINO file of snl", "OpenVINO's weights", _is_openvino_weights, only=True
)
INSPECTIONS = Kind("a result of snl inspect", "a JSON file", _is_inspections)
TABLE = Kind("a table of snl inspect", "a table", _is_table)
PARTS = Kind("part decisions of snl inspect", "a JSON file", _is_parts)
COCO = Kind("a COCO file of snl", "a JSON file", _is_coco)
LABELME = Kind("a LabelMe file as snl wrote it", "a JSON file", _is_labelme)
DRIFT = Kind("the state of a drift monitor", "a JSON file", _is_drift)
PAGE = Kind("a report of snl", "a web page", _is_page)
PICTURE = Kind("a picture of snl", "an image", _is_picture)
MAP = Kind("an anomaly map", "an array", _is_map)
METRICS = _json_kind("evaluate", "products", "mean", "pooled")
PROBES = _json_kind("probe", "rows", "columns", "pairs")
BENCHMARK = _json_kind("bench", "benchmark", "data", "settings")
DESCRIPTION = _json_kind("info", "file", "model", "history")
FINDINGS = _json_kind("doctor DATA", "layout", "fingerprint", "problems")
ENVIRONMENT = _json_kind("doctor", "packages", "extras")


def model_kind(path: Path) -> Kind:
    """Return the kind of a model file by its name."""
    return {".onnx": ONNX, ".xml": OPENVINO}.get(path.suffix.lower(), BUNDLE)


def picture_text() -> Any:
    """Return the PNG text by which `PICTURE` recognises a file, for `Image.save(pnginfo=...)`."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", "snl")
    return text
