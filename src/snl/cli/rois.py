"""The option --roi: regions of interest of products."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from snl.errors import SettingsError

_NUMBERS = re.compile(r"\s*[0-9]+(\s*,\s*[0-9]+){3}\s*")


class RoiOption(argparse.Namespace):
    """See `add_roi`."""

    roi: list[str] | None


def add_roi(verb: argparse.ArgumentParser) -> None:
    """Add --roi."""
    verb.add_argument(
        "--roi",
        action="append",
        metavar="PRODUCT=X,Y,W,H",
        help="region of interest: only this part of the product's images is inspected (left, top, "
        "width and height in pixels); or PRODUCT=MASK, an image that is white where the product is "
        "inspected; may be repeated",
    )


def rois_of(texts: Sequence[str] | None, product: str | None = None) -> dict[str, str]:
    """Return the regions by product.

    Names and files may contain `=`: a split behind which there are four numbers, or an existing
    file, is preferred.

    Args:
        texts: values of --roi.
        product: of texts without a name; None: every text has one.

    Raises:
        SettingsError: a text without a product, or two of the same product.
    """
    rois: dict[str, str] = {}
    for text in texts or ():
        splits = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "="]
        splits += [(product, text)] if product else []
        good = [(n, v) for n, v in splits if n and (_NUMBERS.fullmatch(v) or Path(v).is_file())]
        name, value = (good + splits + [("", "")])[0]
        if not name or not value:
            raise SettingsError(
                f"--roi {text}: write --roi PRODUCT=X,Y,W,H, such as --roi bottle=40,20,300,200, "
                "or --roi PRODUCT=MASK"
            )
        if name in rois:
            raise SettingsError(f"--roi {text}: {name} has a region of interest already; give one")
        rois[name] = value
    return rois
