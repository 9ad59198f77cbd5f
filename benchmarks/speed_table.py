"""Results of `speed.py` as Markdown and as bars."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from speed_subjects import REFERENCE, TITLES

RUNTIME_TITLES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def table(results: dict[str, Any]) -> str:
    """Every group as a table with a line on how to read it."""
    settings, machine = results["settings"], results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"# {results['title']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{versions}.",
        "Medians of turns, smallest and largest in brackets; subjects take turns, and a ratio is "
        "the median of the ratios within a turn.",
    ]
    groups = results["groups"]
    batch = settings["batch"]
    runtimes = [name for name in RUNTIME_TITLES if name in groups]
    reference = TITLES[REFERENCE]
    if runtimes:
        for figure, images in (("batch 1", 1), (f"batch {batch}", batch)):
            note = f"Milliseconds an image; speed relative to {reference} by the same runtime."
            lines += ["", f"## {figure.capitalize()}", "", note, ""]
            lines += _by_runtime(groups, runtimes, figure, images, reference)
        lines += ["", "## A file of 512 x 512 pixels to a result", "", "Milliseconds.", ""]
        lines += _by_runtime(groups, runtimes, "file", 1, reference)
        alone = [f"model alone, batch {n}" for n in (1, batch)]
        apart = {**dict(zip(alone, (1, batch), strict=True)), "file, inference mode": 1}
        rows = _figures(groups.get("torch"), apart)
        if len(rows) > 2:
            note = "PyTorch, milliseconds an image; the file by TorchInferencer."
            lines += ["", "## anomalib's models alone, and without gradients", "", note, "", *rows]
        lines += ["", "## Memory", "", f"Peak MB of the process, batch 1 / batch {batch}.", ""]
        lines += _memory(groups, runtimes, ("batch 1", f"batch {batch}"))
    if "training" in groups:
        note = f"Batches of {batch}. Images a second (of the slowest and fastest step)."
        lines += ["", "## Training", "", note, ""]
        lines += _training(groups["training"]["subjects"], batch, reference)
    if "metrics" in groups:
        lines += ["", "## Metrics", "", "Seconds, peak MB, and what was found.", ""]
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
            own = groups[runtime]["subjects"]
            cell = _cell(own.get(subject, {}), figure, 1000 / images)
            ratio = ratio_of(own, subject, reference, figure)
            cells.append(cell + ("" if ratio is None else f", {ratio:.2f} x"))
        if set(cells) != {"-"}:
            rows.append([subject, *cells])
    return markdown(["", *(RUNTIME_TITLES[name] for name in runtimes)], rows)


def ratio_of(subjects: dict[str, Any], name: str, reference: str, figure: str) -> float | None:
    """How many times as fast as the reference, turn by turn; the median."""
    both = [subjects.get(n, {}).get("figures", {}).get(figure) for n in (reference, name)]
    if None in both or name == reference:
        return None
    pairs = zip(both[0]["turns"], both[1]["turns"], strict=False)
    return float(statistics.median(theirs / own for theirs, own in pairs))


def _cell(subject: dict[str, Any], figure: str, scale: float) -> str:
    known = subject.get("figures", {}).get(figure)
    if known is None:
        return f"failed: {subject['error']}" if "error" in subject else "-"
    low, high = scale * known["min"], scale * known["max"]
    return f"{_number(scale * known['median'])} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _figures(group: dict[str, Any] | None, figures: dict[str, int]) -> list[str]:
    """Rows of subjects that have one of the figures, each divided by a number of images."""
    rows = []
    for name, subject in (group or {"subjects": {}})["subjects"].items():
        cells = [_cell(subject, figure, 1000 / images) for figure, images in figures.items()]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    return markdown(["", *figures], rows)


def _memory(groups: dict[str, Any], runtimes: list[str], figures: tuple[str, str]) -> list[str]:
    rows = []
    for subject in groups[runtimes[0]]["subjects"]:
        cells = []
        for runtime in runtimes:
            own = groups[runtime]["subjects"].get(subject, {}).get("figures", {})
            known = [f"{own[figure]['memory']:.0f}" for figure in figures if figure in own]
            cells.append(" / ".join(known) or "-")
        rows.append([subject, *cells])
    return markdown(["", *(RUNTIME_TITLES[name] for name in runtimes)], rows)


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
                f"{_number(batch / known['median'])} [{_number(low)}, {_number(high)}]",
                "" if ratio is None else f"{ratio:.2f} x",
                f"{known['memory']:.0f}",
            ]
        )
    return markdown(["", "precision", "images/s", f"of {reference}", "peak MB"], rows)


def _metrics(subjects: dict[str, Any]) -> list[str]:
    figures = dict.fromkeys(f for s in subjects.values() for f in s.get("figures", {}))
    rows = []
    for name, subject in subjects.items():
        cells = [name]
        for figure in figures:
            known = subject.get("figures", {}).get(figure)
            cells += [_cell(subject, figure, 1), "-" if known is None else f"{known['memory']:.0f}"]
            told = [
                f"{metric} {known['value'][metric]:.6f}"
                for metric in ("pixel_auroc", "aupro")
                if known and known["value"].get(metric) is not None
            ]
            cells.append(", ".join(told))
        rows.append(cells)
    return markdown(["", *(h for f in figures for h in (f"{f}, s", "MB", "found"))], rows)


def _programs(subjects: dict[str, Any]) -> list[str]:
    rows = []
    for name, subject in subjects.items():
        for figure, known in subject.get("figures", {}).items():
            title = name if figure == "whole" else f"{name}, {figure}"
            rows.append([title, _cell(subject, figure, 1), f"{known['memory']:.0f}"])
        if "error" in subject:
            rows.append([name, f"failed: {subject['error']}", ""])
    return markdown(["", "seconds", "peak MB"], rows)


def _sizes(subjects: dict[str, Any]) -> list[str]:
    kinds = list(dict.fromkeys(k for s in subjects.values() for k in s["megabytes"]))
    rows = [
        [name, *(str(subject["megabytes"].get(kind, "-")) for kind in kinds)]
        for name, subject in subjects.items()
    ]
    titles = {"torch": "bundle / .pt"}
    return markdown(["", *(titles.get(kind, kind) for kind in kinds)], rows)


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table, its first column to the left."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _lower(title: str) -> list[str]:
    """A network's titles in lower precisions."""
    return [f"{title}, {precision}" for precision in ("bf16", "int8")]


def plot(results: dict[str, Any], output: Path) -> None:
    """One panel a runtime, one bar a network: milliseconds of one image, and their range. A bar
    more than twice as long as all others is cut off at the edge."""
    from plots import BLUE, GREY, INK, ORANGE, _matplotlib, _save

    plt = _matplotlib()
    groups = results["groups"]
    runtimes = [name for name in RUNTIME_TITLES if name in groups]
    names = list(dict.fromkeys(s for runtime in runtimes for s in groups[runtime]["subjects"]))
    titles = list(TITLES.values())  # a network's precisions side by side
    names.sort(key=lambda name: next(i for i, t in enumerate(titles) if name in (t, *_lower(t))))
    figure, panels = plt.subplots(
        1,
        len(runtimes),
        figsize=(3.2 * len(runtimes) + 2.4, 0.36 * len(names) + 1.3),
        sharey=True,
        squeeze=False,
    )
    for axes, runtime in zip(panels[0], runtimes, strict=True):
        highs = sorted(
            1000 * subject["figures"]["batch 1"]["max"]
            for subject in groups[runtime]["subjects"].values()
            if "batch 1" in subject.get("figures", {})
        )
        longest = highs[-1] if highs else 1.0
        if len(highs) > 1 and longest > 2 * highs[-2]:
            longest = 1.25 * highs[-2]
        for row, name in enumerate(names):
            subject = groups[runtime]["subjects"].get(name, {})
            known = subject.get("figures", {}).get("batch 1")
            if known is None:
                continue
            middle, low, high = (1000 * known[key] for key in ("median", "min", "max"))
            peer = name.startswith("anomalib")
            axes.barh(
                row,
                min(middle, longest),
                height=0.64,
                color=ORANGE if peer else BLUE,
                alpha=0.75,
                hatch="//" if peer else None,
                edgecolor="white",
            )
            errors = [[middle - low], [high - middle]]
            if high <= longest:
                axes.errorbar(middle, row, xerr=errors, ecolor=INK, elinewidth=1.1, capsize=2.5)
            axes.annotate(
                _number(middle),
                (min(high, longest), row),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=INK,
            )
        axes.set_xlim(0, 1.22 * longest)
        title = f"{RUNTIME_TITLES[runtime]}, ms"
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.tick_params(axis="both", length=0, labelsize=8.5, labelcolor=INK)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.spines["left"].set_color(GREY)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0][0].set_ylim(len(names) - 0.4, -0.6)
    size, threads = results["settings"]["size"], results["settings"]["threads"]
    note = f"One image of {size} px from pixels to map and score, {threads} threads; median, "
    note += "smallest and largest of the turns; a bar without them goes on beyond the edge."
    _save(plt, figure, output, note)
