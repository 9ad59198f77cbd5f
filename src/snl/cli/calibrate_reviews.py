"""`snl calibrate --reviews`: verdicts from the report page, as false alarms and misses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from snl.cli.common import say
from snl.errors import DataError, SettingsError

if TYPE_CHECKING:
    from snl.reporting.reviews import Review, Reviews
    from snl.runtime.inspector import Inspector

_SHOWN = 20
_SHORT_ID = 8
"""Characters of a network's name that snl history shows."""


class ReviewOptions:
    """Options of `snl calibrate` that reviews are about."""

    file: str
    product: str | None
    false_alarms: list[Path] | None
    misses: list[Path] | None
    reviews: Path | None
    data: Path | None
    force: bool


Options = TypeVar("Options", bound=ReviewOptions)


class Reviewed(Generic[Options]):
    """Reviews as the options that say the same, one for each product.

    Attributes:
        false_alarms, misses: options with images of one product.
        complete: whether all images were found and are those that were reviewed.
    """

    def __init__(
        self,
        false_alarms: Sequence[Options] = (),
        misses: Sequence[Options] = (),
        complete: bool = True,
    ) -> None:
        self.false_alarms, self.misses, self.complete = false_alarms, misses, complete

    def together(self, options: Options) -> Options:
        """Return the options with all images, given directly or by reviews."""
        merged = copy.copy(options)
        merged.false_alarms = [
            path for one in (options, *self.false_alarms) for path in one.false_alarms or ()
        ]
        merged.misses = [path for one in (options, *self.misses) for path in one.misses or ()]
        return merged


def add_reviews(verb: Any) -> None:
    """Add the options about reviews."""
    verb.add_argument(
        "--reviews",
        type=Path,
        metavar="REVIEWS",
        help="reviews that the page of snl report saved: its false alarms and misses are taken as "
        "by --false-alarms and --misses, each with its product",
    )
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="DATA of the report, where the images of REVIEWS are (default: the folder of REVIEWS)",
    )


def check_data(options: ReviewOptions) -> None:
    """Check that --data comes with --reviews.

    Raises:
        SettingsError: it does not.
    """
    if options.data is not None and options.reviews is None:
        raise SettingsError("--data says where the images of --reviews are; give --reviews, too")


def files_read(options: ReviewOptions) -> list[Path]:
    """Return the file of reviews and the images that it names.

    Raises:
        DataError: the file is malformed.
    """
    if options.reviews is None:
        return []
    root = _root(options)
    _, reviews = _read(options)
    return [options.reviews, *(root / review.path for review in reviews)]


def reviewed(options: Options, inspector: Inspector) -> Reviewed[Options]:
    """Return the false alarms and misses of a file of reviews, and say what is left out.

    Raises:
        DataError: the file is malformed, of another network, or none of its images is there.
    """
    from snl.reporting.reviews import CORRECT, FALSE_ALARM, MISS, find_images

    if options.reviews is None:
        return Reviewed()
    document, chosen = _read(options)
    _check_model(options, inspector, document)
    counts = dict.fromkeys((CORRECT, FALSE_ALARM, MISS), 0)
    for review in chosen:
        counts[review.verdict] += 1
    other = len(document.reviews) - len(chosen)
    say(
        f"{options.reviews}: false alarms {counts[FALSE_ALARM]}, misses {counts[MISS]}, correct "
        f"{counts[CORRECT]}" + (f"; {other} of other products left out" if other else "")
    )
    wanted = [review for review in chosen if review.verdict != CORRECT]
    for name in sorted({review.product for review in wanted}):
        if name not in inspector.products:
            raise DataError(
                f"{options.reviews}: product '{name}' is not known to {options.file}; known: "
                f"{', '.join(inspector.products)}: leave its reviews out with --product NAME"
            )
    found, problems = find_images(wanted, _root(options))
    if problems and not found:
        raise DataError(
            f"{options.reviews}: none of its {len(wanted)} images can be used, first {problems[0]}"
        )
    for text in problems[:_SHOWN]:
        say(text)
    if len(problems) > _SHOWN:
        say(f"and {len(problems) - _SHOWN} more images are missing or have changed")
    return Reviewed(
        [_as(options, name, false_alarms=paths) for name, paths in _of(found, FALSE_ALARM)],
        [_as(options, name, misses=paths) for name, paths in _of(found, MISS)],
        not problems,
    )


def _root(options: ReviewOptions) -> Path:
    """Return the folder that the paths of the reviews are relative to."""
    assert options.reviews is not None
    if options.data is None:
        return options.reviews.parent
    return options.data.parent if options.data.is_file() else options.data


def _read(options: ReviewOptions) -> tuple[Reviews, list[Review]]:
    """Return the file of reviews, and those of --product."""
    from snl.reporting.reviews import read_reviews

    assert options.reviews is not None
    document = read_reviews(options.reviews)
    return document, [r for r in document.reviews if options.product in (None, r.product)]


def _check_model(options: ReviewOptions, inspector: Inspector, document: Reviews) -> None:
    """Check that the reviews are of this network; say if they are of another calibration.

    Raises:
        DataError: they are of another network, and the user does not insist.
    """
    network = inspector.predictor.metadata.network
    given = document.network
    is_same = given == network or (len(given) >= _SHORT_ID and network.startswith(given))
    if given and network and not is_same:
        text = f"{options.reviews}: reviews decisions of another network ({given}) than that of"
        if not options.force:
            raise DataError(
                f"{text} {options.file} ({network}); review a report of this file, or insist with "
                "--force"
            )
        say(f"{text} {options.file}")
    elif document.calibration and document.calibration != inspector.calibration.created:
        say(
            f"{options.reviews}: reviews decisions of the calibration of {document.calibration}; "
            f"the one in force is of {inspector.calibration.created}"
        )


def _of(found: Sequence[tuple[Review, Path]], verdict: str) -> list[tuple[str, list[Path]]]:
    """Return the images with a verdict by product."""
    chosen: dict[str, list[Path]] = {}
    for review, path in found:
        if review.verdict == verdict:
            chosen.setdefault(review.product, []).append(path)
    return sorted(chosen.items())


def _as(options: Options, product: str, **images: list[Path]) -> Options:
    """Return the options with only these images, of one product."""
    changed = copy.copy(options)
    values: dict[str, Any] = {"product": product, "false_alarms": None, "misses": None, **images}
    for name, value in values.items():
        setattr(changed, name, value)
    return changed
