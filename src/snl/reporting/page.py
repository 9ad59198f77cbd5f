"""Write the report: one self-contained HTML file in which the false-alarm rate can be changed.

The page contains all numbers once, as JSON, and the thumbnails of each image as base64 in a script
block of their own. The browser decodes a block only when its image is near the visible part of the
page. The page loads nothing: a Content-Security-Policy forbids it, and allows the page's style and
script by their hashes.
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
from pathlib import Path
from typing import IO, Any

import numpy as np

from snl.errors import SnlError
from snl.files import atomic
from snl.reporting.reviews import FORMAT, VERSION
from snl.web import assets

CURVE_POINTS = 256
"""Maximum number of points of a curve; more points are thinned out."""
_SCRIPTS = (
    *("data", "summary", "detection", "charts", "curves", "tables", "pictures"),
    *("gallery", "dialog", "reviews", "controls", "costs"),
)
_POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; "
    "base-uri 'none'; form-action 'none'"
)
_PICTURE_HEADERS = (b"\xff\xd8", b"\x89PNG", b"RIFF")


@dataclass(frozen=True)
class Shown:
    """One test image of the report.

    The page decides as follows: an unknown product if `unknown_p` <= unknown rate, which is at
    least `ReportData.least_unknown_rate`; else uncertain if `p_value` is None or the anomalous rate
    is below the product's `ReportData.deciding_rates`; else anomalous if `p_value` <= anomalous
    rate; else uncertain if `p_value` <= uncertain rate; else normal.
    """

    path: str
    """Path as displayed, relative to the root of the data."""
    product: str
    """True product."""
    label: str
    """`normal` or `anomalous`."""
    defect: str
    """Type of defect; empty for a normal image."""
    score: float
    """Raw anomaly score."""
    calibrated: float | None
    """z-score of the log score, comparable across products."""
    p_value: float | None
    """Share of normal images with at least this score, in [0, 1]; None: no calibration images."""
    unknown_p: float | None
    """p-value of the hypothesis that the image shows a known product; None: product was given."""
    recognised: str | None
    """Recognised product; None: recognition was not used."""
    image: bytes
    """Thumbnail as WebP, JPEG or PNG."""
    overlay: bytes
    """Thumbnail of the anomaly map, transparent where it is not high; the page lays it over the
    image. It may be the blend of both, too."""
    mask: bytes | None
    """Ground truth as a 1-bit PNG; None: unknown, or no defect."""
    part: str = ""
    """Part that the image shows; empty: unknown."""
    detail: bytes | None = None
    """The part of the image around the highest value of its map, or of a defect if its mask is
    known, not reduced; None: the image is hardly larger."""
    frame: tuple[float, float, float, float] | None = None
    """Left, top, width and height of the detail, as shares of the image."""
    sha256: str | None = None
    """Of the image file, for reviews; None: unknown."""


@dataclass(frozen=True)
class ReportData:
    """All contents of the page except the images.

    Values by product and values of all products together are separate fields, because a product
    may have any name.
    """

    title: str
    """Title of the page."""
    created: str
    """ISO 8601 time."""
    rates: Mapping[str, float]
    """Initial rates: `anomalous`, `uncertain` and `unknown`."""
    least_rates: Mapping[str, float]
    """By product: the smallest false-alarm rate that the calibration images allow."""
    pooled_least_rate: float
    """The smallest rate that the calibration images of all products together can guarantee; 1 or
    more if there are no calibration images."""
    calibration_scores: Mapping[str, list[float]]
    """By product: scores of the held-out calibration images."""
    thresholds: Mapping[str, Mapping[str, float | None]]
    """By product: thresholds `anomalous` and `uncertain` at the initial rates."""
    threshold_curves: Mapping[str, list[list[float]]]
    """By product whose thresholds do not follow from its own calibration images alone: rates in
    ascending order and thresholds, as [[rate, ...], [threshold, ...]]."""
    true_rates: Mapping[str, tuple[float, float] | None]
    """By product: the range of the true rate of anomalous at the initial rate; None: not known."""
    metrics: Mapping[str, Any]
    """`products` (a table by product), `mean`, `pooled` and, for the table by kind of defect,
    `detection_rates`; see `Evaluation.to_dict`."""
    curves: Mapping[str, Mapping[str, list[list[float]]]]
    """By product: curves `roc` and `pro`, each as [[x, ...], [y, ...]] in [0, 1]."""
    pooled_curves: Mapping[str, list[list[float]]]
    """`roc` and `pro` over the images of all products."""
    provenance: Mapping[str, Any]
    """Settings, data and versions; nested JSON values."""
    notes: list[str] = field(default_factory=list)
    """Notes for the reader, one sentence each."""
    least_unknown_rate: float = 0.0
    """The smallest rate of unknown products that the calibration images allow."""
    deciding_rates: Mapping[str, float] = field(default_factory=dict)
    """By product: the smallest false-alarm rate at which images are called normal or anomalous; at
    lower ones all are uncertain. Without an entry there is none."""
    reviews: Mapping[str, Any] = field(default_factory=dict)
    """First fields of the file of reviews: which model and data they are of."""


def write_page(path: str | Path, data: ReportData, images: Iterable[Shown]) -> Path:
    """Write the report to a file; an existing file is replaced atomically.

    Args:
        path: HTML file.
        data: numbers, tables and curves.
        images: read one at a time; thumbnails are not kept in memory.

    Returns:
        The path.

    Raises:
        SnlError: the file cannot be written, or a thumbnail has an unknown image format.
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
    """Return the report as text; for many images `write_page` needs much less memory."""
    file, pictures = io.BytesIO(), io.BytesIO()
    _write(file, pictures, data, images)
    return file.getvalue().decode()


def _write(file: IO[bytes], pictures: IO[bytes], data: ReportData, images: Iterable[Shown]) -> None:
    """Write the page to a file; `pictures` is a temporary file for the thumbnails.

    The data and the script come before the thumbnails, so that the page can be used while the
    browser still reads the thumbnails.
    """
    columns = _Columns()
    for number, image in enumerate(images):
        pictures.write(_block(f"p{number}", _pictures(image)).encode())
        columns.add(image)
    pictures.seek(0)
    style = assets.style("snl.reporting", "page.css")
    scripts = [*(f"page_{name}.js" for name in _SCRIPTS), "page.js"]
    script = assets.script("snl.reporting", scripts)
    policy = _POLICY.format(style=assets.csp_hash(style), script=assets.csp_hash(script))
    parts = {
        "policy": policy,
        "title": html.escape(_text(data.title)),
        "style": style,
        "script": script,
        "symbols": assets.symbols(),
        "data": _block("data", _page_data(data, columns)),
    }
    for piece in re.split(r"(\{\{\w+\}\})", assets.asset("snl.reporting", "page.html")):
        name = piece[2:-2] if piece.startswith("{{") else ""
        if name == "pictures":
            shutil.copyfileobj(pictures, file)
        else:
            text = parts[name] if name else piece
            file.write(text.encode())


class _Columns:
    """The images' values by column: a third of the size of a list of objects."""

    NAMES = (
        *("path", "product", "label", "defect", "score", "calibrated", "p_value", "unknown_p"),
        *("recognised", "part", "mask", "sha256"),
    )

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in self.NAMES}

    def add(self, image: Shown) -> None:
        for name, column in self.values.items():
            column.append(getattr(image, name) if name != "mask" else image.mask is not None)


def _page_data(data: ReportData, columns: _Columns) -> dict[str, Any]:
    """Return the data that the script reads. Images refer to products by their index."""
    images = dict(columns.values)
    tables = data.metrics.get("products", {})
    products = sorted({*images["product"], *data.calibration_scores, *tables})
    index = {name: n for n, name in enumerate(products)}
    images["product"] = [index[name] for name in images["product"]]
    return {
        "title": data.title,
        "created": data.created,
        "rates": {"anomalous": 0.05, "uncertain": 0.10, "unknown": 0.01, **data.rates},
        "least_unknown_rate": data.least_unknown_rate,
        "deciding_rates": data.deciding_rates,
        "reviews": {**review_head(data, images), **data.reviews},
        "least_rates": data.least_rates,
        "pooled_least_rate": data.pooled_least_rate,
        "calibration": {name: sorted(v) for name, v in data.calibration_scores.items()},
        "thresholds": data.thresholds,
        "threshold_curves": data.threshold_curves,
        "true_rates": data.true_rates,
        "metrics": data.metrics,
        "curves": {name: _thin_all(curves) for name, curves in data.curves.items()},
        "pooled_curves": _thin_all(data.pooled_curves),
        "provenance": data.provenance,
        "notes": data.notes,
        "products": products,
        "images": images,
    }


def review_head(data: ReportData, images: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return the first fields of a file of reviews; `report` is the same for equal contents."""
    content = json.dumps(_plain([data.created, data.title, images["path"], images["score"]]))
    report = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {"format": FORMAT, "version": VERSION, "report": report, "title": data.title}


def _thin_all(curves: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
    return {kind: _thin(*curve) for kind, curve in curves.items() if len(curve) == 2}


def _thin(x: Iterable[float], y: Iterable[float]) -> list[list[float]]:
    """Return about `CURVE_POINTS` points of a curve, evenly distributed along its length."""
    xs, ys = np.asarray(list(x), dtype=float), np.asarray(list(y), dtype=float)
    if len(xs) > CURVE_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
        places = np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS))
        chosen = np.unique(np.concatenate([[0], places, [len(xs) - 1]]).clip(0, len(xs) - 1))
        xs, ys = xs[chosen], ys[chosen]
    return [[round(float(v), 6) for v in xs], [round(float(v), 6) for v in ys]]


def _pictures(image: Shown) -> list[Any]:
    """Return image, overlay and mask as base64; if there is a detail, it and its frame, too."""
    encoded: list[Any] = []
    contents = [image.image, image.overlay, image.mask]
    for content in contents if image.detail is None else [*contents, image.detail]:
        if content is not None and not content.startswith(_PICTURE_HEADERS):
            raise SnlError(
                f"{image.path}: a thumbnail is neither WebP, JPEG nor PNG; make it with thumbnail "
                "or mask_thumbnail of snl.reporting.thumbnails"
            )
        encoded.append(None if content is None else base64.b64encode(content).decode())
    if image.detail is not None and image.frame is not None:
        encoded.append([round(share, 5) for share in image.frame])
    return encoded


def _block(name: str, value: Any) -> str:
    """Return a script block of JSON without <, > and &, so that no content can end the block."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))  # ASCII only
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _plain(value: Any) -> Any:
    """Convert any value to JSON values; numbers that are not finite become None."""
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
    """Replace lone surrogates (bytes of file names that are not UTF-8) by escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()
