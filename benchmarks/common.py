"""What several benchmarks share: results files, the environment, tables, arguments and drawing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from snl.errors import SnlError
from snl.files import atomic, write_text

REPOSITORY = Path(__file__).resolve().parents[1]
ANOMALIB = "anomalib==2.7.0"
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#9AA0A6", "#202124"
"""Colours of Okabe and Ito, which colour-blind readers can distinguish."""

RENAMED_SETTINGS = {
    "loss.easy": "loss.hard_mining",
    "loss.flat": "loss.global_cosine",
    "map.levels": "map.normalisation_clusters",
}
"""Names of settings in older results files, and the names that replace them."""

COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pooled_image_auroc": "pooled image AUROC",
    "pooled_pixel_auroc": "pooled pixel AUROC",
}
"""Columns of a table of runs: metric, title. `pooled_`: over all products together."""


def log(text: str) -> None:
    """Print a line of progress with the time of day to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run_main(main: Callable[[], None]) -> None:
    """Run a benchmark; print an error that the user can fix in one line and exit with status 2."""
    try:
        main()
    except SnlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


# -- the environment


def is_installed(package: str) -> bool:
    """Return whether a top-level package can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # sys.modules says that it is not to be imported
        return False


def machine(**more: Any) -> dict[str, Any]:
    """Return facts about this machine, followed by the facts given."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), **more}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {name: metadata.version(name) for name in packages if is_installed(name)}


# -- results files


def read_results(path: Path) -> dict[str, Any]:
    """Return the document of a results file.

    Raises:
        SnlError: the file is missing or is not a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SnlError(
            f"{path}: cannot be read ({error.strerror}); give the JSON file of the verb run"
        ) from None
    except ValueError as error:
        raise SnlError(f"{path}: is not JSON ({error}); give the file of the verb run") from None
    if not isinstance(document, dict):
        raise SnlError(f"{path}: holds no JSON object; give the JSON file of the verb run")
    return document


def write_runs(path: Path, results: Mapping[str, Any]) -> None:
    """Write a results document as JSON; a list of plain values takes one line."""
    text = json.dumps(results, indent=1, allow_nan=False)
    # JSON strings contain no line breaks, so this pattern matches lists only
    write_text(path, re.sub(r"\[\n[^\[\]{}]*\n *\]", _one_line, text) + "\n")


def _one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\n *", " ", match[0][1:-1]).strip() + "]"


def write_or_print(text: str, output: Path | None) -> None:
    """Write text to a file, or print it where no file is given."""
    if output:
        write_text(output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")


# -- results that are lists of runs, which an interrupted benchmark resumes


def resume_runs(output: Path, title: str, plan: str) -> dict[str, Any]:
    """Return a results document with the runs that the file already has."""
    runs = read_results(output)["runs"] if output.is_file() else []
    return {"title": title, "plan": plan, "runs": runs}


def is_done(results: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    """Return whether the results contain the run with this key."""
    return any(same_run(run, key, key) for run in results["runs"])


def same_run(one: Mapping[str, Any], other: Mapping[str, Any], fields: Iterable[str]) -> bool:
    """Return whether two runs agree in all the fields; settings may have their older names."""
    return all(_comparable(one.get(name)) == _comparable(other.get(name)) for name in fields)


def _comparable(value: Any) -> Any:
    return current_settings(value) if isinstance(value, dict) else value


def current_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their current names; see RENAMED_SETTINGS."""
    return {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}


def add_run(
    results: dict[str, Any], run: dict[str, Any], output: Path, order: Sequence[str]
) -> None:
    """Add a run to the results, in the order of the names given, write them and print its row."""
    place = {name: number for number, name in enumerate(order)}
    results["runs"].append(run)
    results["runs"].sort(key=lambda r: place.get(r["name"], -1))
    write_runs(output, results)
    print(run_row(run["name"], [run]), flush=True)


# -- tables


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False
) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        head: titles of the columns.
        rows: cells of each row.
        numeric: align all columns but the first to the right.
    """
    rule = "|--:" if numeric else "|---"
    lines = [f"| {' | '.join(head)} |", "|---" + rule * (len(head) - 1) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def value_of(run: Mapping[str, Any], column: str) -> float | None:
    """Return a metric of a run in percent (mean over products, or pooled); None: undefined."""
    pooled = column.startswith("pooled_")
    value = run["pooled" if pooled else "mean"][column.removeprefix("pooled_")]
    return None if value is None else 100 * float(value)


def run_cells(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table row of runs that differ in the seed: mean, and spread over seeds."""
    cells = [name]
    for column in COLUMNS:
        values = [v for v in (value_of(run, column) for run in runs) if v is not None]
        cells.append(mean_and_spread(values))
    seconds = statistics.mean(run["training"]["seconds"] for run in runs)
    return [*cells, str(len(runs)), f"{seconds:.0f}"]


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation of several values; `-` where there are none."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}" if values else "-"


def run_row(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return `run_cells` as a line of Markdown."""
    return f"| {' | '.join(run_cells(name, runs))} |"


# -- arguments


def new_parser(name: str, document: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark; its help shows the first line of the module's docstring."""
    description = (document or "").strip().partition("\n")[0]
    return argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)


def add_output(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `-o FILE`."""
    parser.add_argument("-o", "--output", type=Path, required=required, metavar="FILE")


def add_table_verb(verbs: Any) -> argparse.ArgumentParser:
    """Add the verb `table RESULTS [-o FILE]`."""
    table: argparse.ArgumentParser = verbs.add_parser("table", help="results as Markdown")
    table.add_argument("results", type=Path, metavar="RESULTS")
    add_output(table, required=False)
    return table


def names_of(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers_of(text: str) -> list[int]:
    """Return the integers of a comma-separated list."""
    return [int(part) for part in names_of(text)]


def named_weights(text: str) -> tuple[str, str]:
    """Return `NAME=FILE` or `FILE` as (name, file); the name of the latter is empty."""
    name, equals, file = text.partition("=")
    return (name, file) if equals else ("", text)


def require_anomalib() -> None:
    """Exit with one line where anomalib is not installed."""
    if not is_installed("anomalib"):
        raise SnlError(f"this needs anomalib, which is not installed: pip install {ANOMALIB}")


# -- drawing


def pyplot() -> Any:
    """Return matplotlib.pyplot with a back end that opens no window.

    Raises:
        SnlError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise SnlError(f"this needs matplotlib ({error}): pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def style_axes(axes: Any) -> None:
    """Give the axes of a bar chart small labels, no ticks, and only the left spine."""
    axes.tick_params(axis="both", length=0, labelsize=8.5, labelcolor=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(GREY)


def save_figure(plt: Any, figure: Any, output: Path, note: str) -> None:
    """Write a figure as PNG with a note below it, and close it."""
    figure.tight_layout(rect=(0, 0.25 / figure.get_figheight(), 1, 1))
    figure.text(0.01, 0.06 / figure.get_figheight(), note, fontsize=8, color="#5F6368")
    with atomic(output) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
