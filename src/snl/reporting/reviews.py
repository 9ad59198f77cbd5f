"""Files of reviews: what people decided about the images of a report, saved by its page."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snl.errors import DataError

FORMAT = "snl reviews"
VERSION = 1
CORRECT, FALSE_ALARM, MISS = "correct", "false alarm", "miss"
VERDICTS = (CORRECT, FALSE_ALARM, MISS)
"""Verdicts on a decision: it is right; the part is normal; the part is anomalous."""
LARGEST = 2**26
"""Bytes of a file of reviews; the page needs about 200 for an image."""
_SAVE = (
    "save the reviews in the report page again, or give the images with --false-alarms and --misses"
)
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Review:
    """The verdict on one image.

    Attributes:
        path: of the image, absolute or relative to the data of the report.
        product: that the data set says it shows.
        verdict: one of `VERDICTS`.
        sha256: of the image file, 64 hexadecimal digits; None: unknown.
    """

    path: str
    product: str
    verdict: str
    sha256: str | None = None


@dataclass(frozen=True)
class Reviews:
    """A file of reviews.

    Attributes:
        network: version of the network whose decisions were reviewed; empty: unknown.
        calibration: time at which the calibration in force was made; empty: unknown.
        reviews: one for each image.
    """

    network: str
    calibration: str
    reviews: tuple[Review, ...]


def read_reviews(path: str | Path) -> Reviews:
    """Return a file of reviews, as the report page saves it.

    Raises:
        DataError: it cannot be read, is of another format, or contradicts itself; the message says
            where.
    """
    path = Path(path)
    document = _document(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f'{path}: is no file of reviews (its "format" is not "{FORMAT}"); {_SAVE}')
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise DataError(f'{path}: its "version" is not a whole number; {_SAVE}')
    if version > VERSION:
        raise DataError(
            f"{path}: has version {version}, and this snl reads up to {VERSION}; update snl"
        )
    entries = document.get("reviews")
    if not isinstance(entries, list):
        raise DataError(f'{path}: its "reviews" are not a list; {_SAVE}')
    reviews: dict[str, Review] = {}
    for number, entry in enumerate(entries):
        review = _review(f"{path}: review {number + 1}", entry)
        other = reviews.setdefault(review.path, review)
        if other != review:
            raise DataError(
                f"{path}: review {number + 1}: says '{review.verdict}' of {review.path}, and an "
                f"earlier one '{other.verdict}' of {other.product}; leave out one of them"
            )
    return Reviews(
        _text(document.get("network")), _text(document.get("calibration")), tuple(reviews.values())
    )


def find_images(
    reviews: Iterable[Review], root: Path
) -> tuple[list[tuple[Review, Path]], list[str]]:
    """Return the images of reviews, and a sentence for each that is missing or has changed.

    Args:
        reviews: with absolute paths, or paths relative to the root.
        root: folder.
    """
    found, problems = [], []
    for review in reviews:
        path = root / review.path
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except (OSError, ValueError):
            problems.append(
                f"{path}: not found, so its review is left out; name the folder of the report's "
                "images with --data"
            )
            continue
        if not regular:
            problems.append(f"{path}: is not a file, so its review is left out")
        elif review.sha256 is not None and file_sha256(path) != review.sha256:
            problems.append(
                f"{path}: is not the image that was reviewed (its content differs), so its review "
                "is left out; review it again"
            )
        else:
            found.append((review, path))
    return found, problems


def file_sha256(path: str | Path) -> str | None:
    """Return the SHA-256 of a regular file as 64 hexadecimal digits; None: it cannot be read."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _document(path: Path) -> Any:
    """Return the JSON of a file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is not a file; give the file that the report page saved")
        if status.st_size > LARGEST:
            raise DataError(
                f"{path}: is no file of reviews (larger than {LARGEST >> 20} MiB); give the file "
                "that the report page saved"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(
            f"{path}: cannot be read ({reason}); give the file that the report page saved"
        ) from None
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{path}: is no file of reviews (nested too deeply); {_SAVE}") from None
    except ValueError as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "a number"
        raise DataError(f"{path}: is not valid JSON ({where}); {_SAVE}") from None


def _review(where: str, entry: Any) -> Review:
    """Return one review; `where` begins the messages."""
    if not isinstance(entry, dict):
        raise DataError(f"{where}: is not an object; {_SAVE}")
    for name in ("path", "product"):
        value = entry.get(name)
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f'{where}: its "{name}" is not a text; {_SAVE}')
    verdict, sha256 = entry.get("verdict"), entry.get("sha256")
    if verdict not in VERDICTS:
        raise DataError(
            f'{where}: its "verdict" is {_short(verdict)}; it must be one of {", ".join(VERDICTS)}'
        )
    if sha256 is not None and not (isinstance(sha256, str) and _HASH.fullmatch(sha256)):
        raise DataError(f'{where}: its "sha256" is not 64 hexadecimal digits; {_SAVE}')
    return Review(entry["path"], entry["product"], verdict, sha256)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
