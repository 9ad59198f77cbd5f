"""The report: one self-contained HTML file that answers "what if the rate were another?".

The page holds every figure once as JSON, and every image's thumbnails as base64 in a script block
of its own, which the browser reads only when that image comes near the window. It loads nothing:
a Content-Security-Policy forbids it, and style and script are allowed by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from snl.errors import SnlError
from snl.files import atomic

LONGEST = 144
"""Longer side of a thumbnail in pixels."""
QUALITY = 70
CURVE_POINTS = 256
"""A curve is thinned to this many points."""
_SCRIPTS = ("data", "summary", "charts", "curves", "tables", "gallery", "dialog", "controls")
_POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; "
    "base-uri 'none'; form-action 'none'"
)
_PICTURES = (b"\xff\xd8", b"\x89PNG", b"RIFF")


@dataclass(frozen=True)
class Shown:
    """One test image.

    An image is `anomalous` where `p_value` <= rate, else `uncertain` where it is <= the uncertain
    rate or None, else `normal`; an `unknown_p` <= the unknown rate makes it an unknown product.
    """

    path: str
    """As shown, relative to the data's root."""
    product: str
    label: str
    """`normal` or `anomalous`."""
    defect: str
    score: float
    calibrated: float | None
    """The score made comparable over products."""
    p_value: float | None
    """Share of normal images that score as high, 0..1; None: too few images to say."""
    unknown_p: float | None
    """P-value of belonging to a taught product; None: the product was given."""
    recognised: str | None
    image: bytes
    """Thumbnail, WebP, JPEG or PNG."""
    overlay: bytes
    """The map as heat over the image."""
    mask: bytes | None
    """The ground truth, a 1-bit PNG; None: unknown, or nothing to mark."""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page but the images."""

    title: str
    created: str
    rates: Mapping[str, float]
    """`anomalous`, `uncertain`, `unknown`: where the sliders begin."""
    least_rates: Mapping[str, float]
    """Smallest rate that a product's own held-back images can promise; also `all products`."""
    calibration_scores: Mapping[str, list[float]]
    """Scores of held-back normal images by product."""
    thresholds: Mapping[str, Mapping[str, float | None]]
    """By product `anomalous` and `uncertain`, at the rates above."""
    metrics: Mapping[str, Any]
    """`products`, `mean` and `pooled`, as `Evaluation.to_dict` gives them."""
    curves: Mapping[str, Mapping[str, list[list[float]]]]
    """By product and `pooled`: `roc` and `pro`, each [[x ...], [y ...]] in 0..1."""
    provenance: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)


def thumbnail(image: np.ndarray, longest: int = LONGEST) -> bytes:
    """A small WebP of an image, its sides in proportion; never enlarged.

    Args:
        image: uint8 (H, W, 3).
        longest: of the longer side, in pixels.
    """
    picture = Image.fromarray(image)
    size = _size(picture.height, picture.width, longest)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


def mask_thumbnail(mask: np.ndarray, longest: int = LONGEST) -> bytes:
    """A small 1-bit PNG of a mask, as large as the image's thumbnail; no thin defect gets lost.

    Args:
        mask: bool (H, W).
        longest: of the longer side, in pixels.
    """
    share = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.float32))
    share = share.resize(_size(share.height, share.width, longest), Image.Resampling.BOX)
    file = io.BytesIO()
    Image.fromarray(np.asarray(share) > 1e-6).convert("1").save(file, "PNG", optimize=True)
    return file.getvalue()


def write_page(path: str | Path, data: ReportData, images: Iterable[Shown]) -> Path:
    """Write the report to a file, whole or not at all.

    Args:
        path: of the HTML file; replaced whole.
        data: figures, tables, curves.
        images: taken one at a time; their pictures go straight to the disk.

    Raises:
        SnlError: the file cannot be written, or a thumbnail is no picture.
    """
    path = Path(path)
    with (
        atomic(path) as temporary,
        temporary.open("wb") as file,
        tempfile.TemporaryFile(dir=path.parent) as pictures,
    ):
        _write(file, pictures, data, images)
    return path


def render(data: ReportData, images: Iterable[Shown]) -> str:
    """The report as text; for many images `write_page` takes far less memory."""
    file, pictures = io.BytesIO(), io.BytesIO()
    _write(file, pictures, data, images)
    return file.getvalue().decode()


def _write(file: IO[bytes], pictures: IO[bytes], data: ReportData, images: Iterable[Shown]) -> None:
    """The figures come before the pictures, so that the page lives before it has read them all."""
    columns = _Columns()
    for number, image in enumerate(images):
        pictures.write(_block(f"p{number}", _pictures(image)).encode())
        columns.add(image)
    pictures.seek(0)
    style, script = _asset("page.css"), _script()
    policy = _POLICY.format(style=_hash(style), script=_hash(script))
    parts = {
        "policy": policy,
        "title": html.escape(_text(data.title)),
        "style": style,
        "script": script,
        "facts": _block("facts", _facts(data, columns)),
    }
    for piece in re.split(r"(\{\{\w+\}\})", _asset("page.html")):
        name = piece[2:-2] if piece.startswith("{{") else ""
        if name == "pictures":
            shutil.copyfileobj(pictures, file)
        else:
            text = parts[name] if name else piece
            file.write(text.encode())


class _Columns:
    """The images' figures by column, which is a third of the size of a list of objects."""

    NAMES = (
        *("path", "product", "label", "defect", "score", "calibrated", "p_value", "unknown_p"),
        *("recognised", "mask"),
    )

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in self.NAMES}

    def add(self, image: Shown) -> None:
        for name, column in self.values.items():
            column.append(getattr(image, name) if name != "mask" else image.mask is not None)


def _facts(data: ReportData, columns: _Columns) -> dict[str, Any]:
    """What the script reads. Names of products stand once, images refer to them by number."""
    images = dict(columns.values)
    tables = data.metrics.get("products", {})
    products = sorted({*images["product"], *data.calibration_scores, *tables})
    number = {name: n for n, name in enumerate(products)}
    images["product"] = [number[name] for name in images["product"]]
    return {
        "title": data.title,
        "created": data.created,
        "rates": {"anomalous": 0.05, "uncertain": 0.10, "unknown": 0.01, **data.rates},
        "least_rates": data.least_rates,
        "calibration": {name: sorted(v) for name, v in data.calibration_scores.items()},
        "thresholds": data.thresholds,
        "metrics": data.metrics,
        "curves": {
            name: {kind: _thin(*curve) for kind, curve in kinds.items() if len(curve) == 2}
            for name, kinds in data.curves.items()
        },
        "provenance": data.provenance,
        "notes": data.notes,
        "products": products,
        "images": images,
    }


def _thin(x: Iterable[float], y: Iterable[float]) -> list[list[float]]:
    """A curve by at most `CURVE_POINTS` of its points, evenly along its length."""
    xs, ys = np.asarray(list(x), dtype=float), np.asarray(list(y), dtype=float)
    if len(xs) > CURVE_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
        places = np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS))
        chosen = np.unique(np.concatenate([[0], places, [len(xs) - 1]]).clip(0, len(xs) - 1))
        xs, ys = xs[chosen], ys[chosen]
    return [[round(float(v), 6) for v in xs], [round(float(v), 6) for v in ys]]


def _pictures(image: Shown) -> list[str | None]:
    """Image, overlay and mask as base64."""
    encoded: list[str | None] = []
    for content in (image.image, image.overlay, image.mask):
        if content is not None and not content.startswith(_PICTURES):
            raise SnlError(
                f"{image.path}: a thumbnail is neither WebP, JPEG nor PNG; use snl.report.page's "
                "thumbnail and mask_thumbnail"
            )
        encoded.append(None if content is None else base64.b64encode(content).decode())
    return encoded


def _block(name: str, value: Any) -> str:
    """A script block of JSON that no content can end early: it has no <, > or &, all is ASCII."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _plain(value: Any) -> Any:
    """JSON values of whatever settings and measurements hold; what is not finite becomes None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_text(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | Iterator):
        return [_plain(item) for item in value]
    return _text(str(value))


def _text(text: str) -> str:
    """Bytes of a file's name that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(width, height) of a thumbnail."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _script() -> str:
    """The page's script: its files in a row, hidden from the page's own names by a function."""
    parts = [_asset(f"page_{name}.js") for name in _SCRIPTS] + [_asset("page.js")]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();\n"


def _asset(name: str) -> str:
    return resources.files("snl.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
