"""Results of `benchmarks.speed` as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common import markdown_table
from benchmarks.speed.plan import REFERENCE, TITLES

RUNTIME_TITLES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def table(results: dict[str, Any]) -> str:
    """Return all groups as tables, each with a line on how to read it."""
    settings, machine = results["settings"], results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"# {results['title']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{versions}.",
        "Medians over turns, minimum and maximum in brackets. Subjects take turns; a ratio is the "
        "median of the ratios within a turn.",
    ]
    groups = results["groups"]
    batch = settings["batch"]
    runtimes = [name for name in RUNTIME_TITLES if name in groups]
    reference = TITLES[REFERENCE]
    if runtimes:
        for figure, images in (("batch 1", 1), (f"batch {batch}", batch)):
            note = f"Milliseconds per image; speed relative to {reference} with the same runtime."
            lines += ["", f"## {figure.capitalize()}", "", note, ""]
            lines += _by_runtime(groups, runtimes, figure, images, reference)
        lines += ["", "## A file of 512 x 512 pixels to a result", "", "Milliseconds.", ""]
        lines += _by_runtime(groups, runtimes, "file", 1, reference)
        alone = [f"model alone, batch {n}" for n in (1, batch)]
        figures = {**dict(zip(alone, (1, batch), strict=True)), "file, inference mode": 1}
        rows = _figures(groups.get("torch"), figures)
        if len(rows) > 2:
            note = "PyTorch, milliseconds per image; the file with TorchInferencer."
            lines += [
                "",
                "## anomalib's models alone, and its files without gradients",
                "",
                note,
                "",
                *rows,
            ]
        lines += ["", "## Memory", "", f"Peak MB of the process, batch 1 / batch {batch}.", ""]
        lines += _memory(groups, runtimes, ("batch 1", f"batch {batch}"))
    if "training" in groups:
        note = f"Batches of {batch}. Images per second (of the slowest and the fastest step)."
        lines += ["", "## Training", "", note, ""]
        lines += _training(groups["training"]["subjects"], batch, reference)
    if "metrics" in groups:
        lines += ["", "## Metrics", "", "Seconds, peak MB, and the computed values.", ""]
        lines += _metrics(groups["metrics"]["subjects"])
    for name, title in (("start", "Start"), ("memory", "Memory over many images")):
        if name in groups:
            lines += ["", f"## {title}", "", "Whole processes.", ""]
            lines += _programs(groups[name]["subjects"])
    if "sizes" in groups:
        lines += ["", "## Files", "", "MB.", "", *_sizes(groups["sizes"]["subjects"])]
    return "\n".join(lines) + "\n"


def _by_runtime(
    groups: dict[str, Any], runtimes: list[str], figure: str, images: int, reference: str
) -> list[str]:
    subjects = dict.fromkeys(s for name in runtimes for s in groups[name]["subjects"])
    rows = []
    for subject in subjects:
        cells = []
        for runtime in runtimes:
            measured = groups[runtime]["subjects"]
            cell = _cell(measured.get(subject, {}), figure, 1000 / images)
            ratio = ratio_of(measured, subject, reference, figure)
            cells.append(cell + ("" if ratio is None else f", {ratio:.2f} x"))
        if set(cells) != {"-"}:
            rows.append([subject, *cells])
    return markdown_table(["", *(RUNTIME_TITLES[name] for name in runtimes)], rows, numeric=True)


def ratio_of(subjects: dict[str, Any], name: str, reference: str, figure: str) -> float | None:
    """Return the speed relative to the reference: the median of the ratios within a turn."""
    theirs, ours = (subjects.get(n, {}).get("figures", {}).get(figure) for n in (reference, name))
    if theirs is None or ours is None or name == reference:
        return None
    pairs = zip(theirs["turns"], ours["turns"], strict=False)
    return float(statistics.median(slow / fast for slow, fast in pairs))


def _cell(subject: dict[str, Any], figure: str, scale: float) -> str:
    known = subject.get("figures", {}).get(figure)
    if known is None:
        return f"failed: {subject['error']}" if "error" in subject else "-"
    low, high = scale * known["min"], scale * known["max"]
    return _with_range(scale * known["median"], low, high)


def _with_range(value: float, low: float, high: float) -> str:
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def format_number(value: float) -> str:
    """Return three significant digits, without decimals from 100 on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _figures(group: dict[str, Any] | None, figures: dict[str, int]) -> list[str]:
    """Return a row per subject that has a figure; each is divided by a number of images."""
    rows = []
    for name, subject in (group or {"subjects": {}})["subjects"].items():
        cells = [_cell(subject, figure, 1000 / images) for figure, images in figures.items()]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    return markdown_table(["", *figures], rows, numeric=True)


def _memory(groups: dict[str, Any], runtimes: list[str], figures: tuple[str, str]) -> list[str]:
    rows = []
    for subject in groups[runtimes[0]]["subjects"]:
        cells = []
        for runtime in runtimes:
            measured = groups[runtime]["subjects"].get(subject, {}).get("figures", {})
            memory = [f"{measured[name]['memory']:.0f}" for name in figures if name in measured]
            cells.append(" / ".join(memory) or "-")
        rows.append([subject, *cells])
    return markdown_table(["", *(RUNTIME_TITLES[name] for name in runtimes)], rows, numeric=True)


def _training(subjects: dict[str, Any], batch: int, reference: str) -> list[str]:
    rows = []
    for name, subject in subjects.items():
        known = subject.get("figures", {}).get("step")
        if known is None:
            rows.append([name, f"failed: {subject.get('error')}", "", "", ""])
            continue
        low, high = batch / known["max"], batch / known["min"]
        ratio = ratio_of(subjects, name, reference, "step")
        rows.append(
            [
                name,
                known["value"]["precision"],
                _with_range(batch / known["median"], low, high),
                "" if ratio is None else f"{ratio:.2f} x",
                f"{known['memory']:.0f}",
            ]
        )
    return markdown_table(
        ["", "precision", "images/s", f"relative to {reference}", "peak MB"], rows, numeric=True
    )


def _metrics(subjects: dict[str, Any]) -> list[str]:
    figures = dict.fromkeys(f for s in subjects.values() for f in s.get("figures", {}))
    rows = []
    for name, subject in subjects.items():
        cells = [name]
        for figure in figures:
            known = subject.get("figures", {}).get(figure)
            cells += [_cell(subject, figure, 1), "-" if known is None else f"{known['memory']:.0f}"]
            values = [
                f"{metric} {known['value'][metric]:.6f}"
                for metric in ("pixel_auroc", "aupro")
                if known and known["value"].get(metric) is not None
            ]
            cells.append(", ".join(values))
        rows.append(cells)
    return markdown_table(
        ["", *(h for f in figures for h in (f"{f}, s", "MB", "value"))], rows, numeric=True
    )


def _programs(subjects: dict[str, Any]) -> list[str]:
    rows = []
    for name, subject in subjects.items():
        for figure, known in subject.get("figures", {}).items():
            title = name if figure == "whole" else f"{name}, {figure}"
            rows.append([title, _cell(subject, figure, 1), f"{known['memory']:.0f}"])
        if "error" in subject:
            rows.append([name, f"failed: {subject['error']}", ""])
    return markdown_table(["", "seconds", "peak MB"], rows, numeric=True)


def _sizes(subjects: dict[str, Any]) -> list[str]:
    kinds = list(dict.fromkeys(k for s in subjects.values() for k in s["megabytes"]))
    rows = [
        [name, *(str(subject["megabytes"].get(kind, "-")) for kind in kinds)]
        for name, subject in subjects.items()
    ]
    titles = {"torch": "bundle / .pt"}
    return markdown_table(["", *(titles.get(kind, kind) for kind in kinds)], rows, numeric=True)
