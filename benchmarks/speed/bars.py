"""Results of `benchmarks.speed` as bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import BLUE, INK, ORANGE, pyplot, save_figure, style_axes
from benchmarks.speed.markdown import RUNTIME_TITLES, format_number
from benchmarks.speed.plan import TITLES


def _lower(title: str) -> list[str]:
    """Return the titles of a network in lower precisions."""
    return [f"{title}, {precision}" for precision in ("bf16", "int8")]


def plot(results: dict[str, Any], output: Path) -> None:
    """Draw one panel per runtime, one bar per network: milliseconds of one image, and their range.

    A bar more than twice as long as all others is cut off at the edge.
    """
    plt = pyplot()
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
                format_number(middle),
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
        style_axes(axes)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0][0].set_ylim(len(names) - 0.4, -0.6)
    size, threads = results["settings"]["size"], results["settings"]["threads"]
    note = f"One image of {size} px from pixels to map and score, {threads} threads; median, "
    note += "minimum and maximum of the turns; a bar without a range continues beyond the edge."
    save_figure(plt, figure, output, note)
