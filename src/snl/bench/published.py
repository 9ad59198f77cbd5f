"""MVTec AD and VisA as published: their classes, sizes, and the results of other methods.

The results are class means in percent, each of one model for all classes. They were not measured by
this project. Their protocols differ (input size, teacher, integration of AUPRO), so a difference of
a few tenths means little. The values of the SNL paper are not known to this project, so they are
missing.
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = ("image_auroc", "pixel_auroc", "aupro")
"""Metrics of a published row, in this order."""

MAMBAAD = "MambaAD, arXiv 2404.06564"
ADER = "ADer, arXiv 2406.03262 (100 epochs)"
DINOMALY = "Dinomaly, arXiv 2405.14325"
INP_FORMER = "INP-Former, arXiv 2503.02424"


@dataclass(frozen=True)
class Row:
    """The published results of one method.

    Attributes:
        method: its name.
        values: class means in percent, in the order of `COLUMNS`.
        source: the paper whose comparison contains them.
    """

    method: str
    values: tuple[float, float, float]
    source: str


@dataclass(frozen=True)
class Benchmark:
    """A published data set.

    Attributes:
        name: as in publications.
        layouts: those of `snl.data.catalog.LAYOUTS` in which the data set is distributed.
        classes: names of all classes.
        images: numbers of training, normal test and anomalous test images of the whole data set.
        rows: published results.
    """

    name: str
    layouts: tuple[str, ...]
    classes: tuple[str, ...]
    images: tuple[int, int, int]
    rows: tuple[Row, ...]


BENCHMARKS = {
    "mvtec": Benchmark(
        "MVTec AD",
        ("mvtec",),
        (
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
        (3629, 467, 1258),
        (
            Row("RD4AD", (94.6, 96.1, 91.1), MAMBAAD),
            Row("RD++", (97.9, 97.3, 93.2), ADER),
            Row("UniAD", (96.5, 96.8, 90.7), MAMBAAD),
            Row("SimpleNet", (95.3, 96.9, 86.5), MAMBAAD),
            Row("DeSTSeg", (89.2, 93.1, 64.8), MAMBAAD),
            Row("DiAD", (97.2, 96.8, 90.7), MAMBAAD),
            Row("ViTAD", (98.3, 97.6, 92.0), ADER),
            Row("PatchCore", (98.8, 98.3, 94.2), ADER),
            Row("MambaAD", (98.6, 97.7, 93.1), MAMBAAD),
            Row("Dinomaly-B", (99.6, 98.4, 94.8), DINOMALY),
            Row("INP-Former-B", (99.7, 98.5, 94.9), INP_FORMER),
        ),
    ),
    "visa": Benchmark(
        "VisA",
        ("visa", "mvtec"),
        (
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
            *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
        ),
        (8659, 962, 1200),
        (
            Row("RD4AD", (92.4, 98.1, 91.8), MAMBAAD),
            Row("RD++", (93.9, 98.4, 91.9), ADER),
            Row("UniAD", (88.8, 98.3, 85.5), MAMBAAD),
            Row("SimpleNet", (87.2, 96.8, 81.4), MAMBAAD),
            Row("DeSTSeg", (88.9, 96.1, 67.4), MAMBAAD),
            Row("DiAD", (86.8, 96.0, 75.2), MAMBAAD),
            Row("ViTAD", (90.4, 98.2, 85.7), ADER),
            Row("MambaAD", (94.3, 98.5, 91.0), MAMBAAD),
            Row("Dinomaly-B", (98.7, 98.7, 94.5), DINOMALY),
            Row("INP-Former-B", (98.9, 98.9, 94.4), INP_FORMER),
        ),
    ),
}

NOTE = (
    "Published rows are class means from the sources below, one model for all classes, not "
    "measured by this project; Dinomaly-B and INP-Former-B use a DINOv2 teacher and larger inputs. "
    "The values of the SNL paper are not known to this project, so they are missing."
)
