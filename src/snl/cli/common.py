"""What the verbs share: exit statuses, messages, progress bars, tables, input and output files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.console import BAD_INPUT as BAD_INPUT
from snl.cli.console import OK as OK
from snl.cli.console import PROBLEMS as PROBLEMS
from snl.cli.console import STOPPED as STOPPED
from snl.cli.console import say as say
from snl.cli.console import show as show
from snl.cli.options import STDOUT
from snl.errors import SnlError
from snl.text import printable

if TYPE_CHECKING:
    from snl.data.catalog import Catalog
    from snl.evaluation.result import Evaluation
    from snl.kinds import Kind
    from snl.runtime.inspector import Inspector


def progress_bar(title: str, quiet: bool, unit: str = "image") -> Any:
    """Return a `progress(done, total)` callback that draws a bar, or None if `quiet`."""
    if quiet:
        return None
    from snl.progress import bar

    return bar(title, unit)


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows as aligned text, the first row as a heading with a rule below it.

    Args:
        rows: the cells, the same number in every row.
        left: the number of leading columns that are aligned to the left; the others are aligned
            to the right.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def aligned(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values as aligned text, one pair per line; without pairs an empty text."""
    rows = [(printable(name), printable(value)) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def show_evaluation(
    evaluation: Evaluation, *, kinds: bool | None = None, all_products: bool = False
) -> None:
    """Print the tables on standard output and the skipped images on standard error.

    Args:
        evaluation: what is printed.
        kinds: with a row for each kind of defect; None: if the table stays short.
        all_products: show every product, not only the worst ones of many.
    """
    from snl.evaluation.decision_counts import LEGEND, format_decisions
    from snl.evaluation.detection_rates import format_detection_rates
    from snl.evaluation.parts import format_parts
    from snl.evaluation.result import format_table, worst_products

    products = None if all_products else worst_products(evaluation)
    show(format_table(evaluation, products))
    if products and len(products) < len(evaluation.products):
        show(
            f"of {len(evaluation.products)} products the {len(products)} with the lowest image "
            "AUROC: snl evaluate --all-products, or --json, has all"
        )
    decisions = format_decisions(evaluation.scores, products)
    if decisions:
        show(f"\n{decisions}\n{LEGEND}")
        raw, calibrated = evaluation.pooled["image_auroc"], evaluation.calibrated_auroc
        if raw is not None and calibrated is not None:
            show(
                f"pooled image AUROC: {100 * raw:.1f} by raw scores, {100 * calibrated:.1f} by "
                "calibrated scores"
            )
    show(f"\n{format_detection_rates(evaluation.detection_rates, kinds, products)}")
    if evaluation.parts:
        show(f"\n{format_parts(evaluation.parts)}")
    say_left_out(evaluation)


def say_left_out(evaluation: Evaluation) -> None:
    """Print one message for each image and each mask that could not be used."""
    say_skipped(evaluation.skipped)
    for error in evaluation.unusable_masks:
        say(f"mask not used: {error}")


def say_skipped(errors: Sequence[str]) -> None:
    """Print one message for each image that could not be used."""
    for error in errors:
        say(f"skipped: {error}")


def about(
    file: str, catalog: Catalog, inspector: Inspector, skipped: Sequence[str]
) -> dict[str, Any]:
    """Return what figures were measured with and on, as JSON values."""
    return {
        "file": Path(file).name,
        "engine": inspector.engine.device,
        "data": {"name": catalog.root.resolve().name, "layout": catalog.layout},
        "settings": inspector.settings.to_dict(),
        "left_out": list(skipped),
    }


def check_json(path: Path | None, kind: Kind, inputs: Iterable[str | Path] = ()) -> None:
    """Check before any work that the file of `--json` can be written.

    Raises:
        SnlError: see `snl.outputs.check_outputs`.
    """
    if path is not None and path != STDOUT:
        from snl.outputs import Output, check_outputs

        check_outputs([Output("--json", path, kind)], inputs)


def show_result(text: str, value: Any, json_path: Path | None) -> None:
    """Print a result as text and write it as JSON, or print it as JSON alone for `--json -`."""
    if json_path == STDOUT:
        import json

        print(json.dumps(value, indent=2, allow_nan=False), flush=True)
        return
    with written_first(json_path, value):
        show(text)


@contextmanager
def written_first(json_path: Path | None, value: Any) -> Iterator[None]:
    """Write a result as JSON before the block prints it: standard output may be closed or full.

    Raises:
        SnlError: the file cannot be written; after the block, so that the result is printed.
    """
    from snl.files import write_json

    failure = None
    if json_path is not None:
        try:
            write_json(json_path, value)
        except SnlError as error:
            failure = error
    yield
    if failure is not None:
        raise failure


def image_files(paths: Sequence[Path], *, quiet: bool = False) -> list[Path]:
    """Return the files given and all images below the folders given, each file once.

    Hidden files, masks in folders and links to other images are not returned; notes say which files
    are left out. A missing file is returned, so that the error names it when it is read.

    Args:
        paths: files and folders.
        quiet: say nothing.

    Raises:
        DataError: a folder without images.
    """
    from snl.data.pairing import images_in
    from snl.data.unused import skipped_in
    from snl.errors import DataError

    note = _ignore if quiet else say
    files: dict[str, Path] = {}
    links: list[tuple[Path, Path]] = []
    for path in paths:
        inside = images_in(path) if path.is_dir() else [path]
        skipped = skipped_in(path, inside) if path.is_dir() else []
        if not inside:
            why = f" ({skipped[0]})" if skipped else ""
            raise DataError(f"{path}: no images in this folder{why}; give images or another folder")
        for text in skipped:
            note(f"note: {text}")
        for file in inside:
            first = files.setdefault(os.path.realpath(file), file)  # accepts loops of links
            if first.absolute() != file.absolute():
                links.append((file, first))
    if links:
        file, first = links[0]
        if len(links) == 1:
            note(f"note: {file} is the same file as {first}; it is used once")
        else:
            note(
                f"note: {len(links)} paths are the same files as others, such as {file} and "
                f"{first}; each file is used once"
            )
    return list(files.values())


def _ignore(text: str) -> None:
    """Say nothing."""


def overlay_png(picture: Any) -> bytes:
    """Return a PIL image as a PNG file that is recognised as snl's."""
    import io

    from snl.kinds import picture_text

    file = io.BytesIO()
    # level 2 takes a third of the time of level 6, and a seventh more space
    picture.save(file, format="PNG", pnginfo=picture_text(), compress_level=2)
    return file.getvalue()


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file, complete or not at all, and return its path."""
    from snl.files import atomic

    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def save_overlay(picture: Any, path: Path) -> Path:
    """Write a PIL image as PNG and return its path."""
    return write_bytes(path, overlay_png(picture))
