"""Speed and memory of snl and of anomalib's models, metrics and command on this machine.

    python -m benchmarks.speed run -o docs/results/speed.json
    python -m benchmarks.speed table docs/results/speed.json -o docs/results/speed.md
    python -m benchmarks.speed plot docs/results/speed.json -o docs/results/speed.png

anomalib (`pip install anomalib==2.7.0`) is no dependency of snl; without it only snl is measured.
Each subject runs in a process of its own. Subjects that are compared take turns (A B A B ...), so
that a change in the machine's speed affects all of them. A figure is the median over turns, its
range their minimum and maximum; a turn is the median of several passes after a warm-up. Memory is
the peak resident set of the whole process, libraries included.

| group | what is measured |
|---|---|
| `torch`, `onnx`, `openvino` | one image and a batch, from uint8 arrays to maps and scores in \
numpy; a file of 512 x 512 pixels to a result; memory of each |
| `training` | one step, with cached teacher features as in `snl train`, and without |
| `metrics` | all metrics of snl, anomalib's AUPRO, pixel AUROC of torchmetrics and scikit-learn |
| `start` | import, help, and load with a first inspection, in fresh processes |
| `sizes` | sizes of files |
| `memory` | `snl evaluate` and `snl inspect --json` of growing numbers of images; a large image \
in tiles |

Conditions: fp32 for all except where a row says otherwise (OpenVINO would choose bf16 by itself
where a CPU supports it), the same number of threads, 256 px. bf16 is `--precision bf16` in snl,
autocast (Lightning's way) in anomalib's Reverse Distillation, and OpenVINO's own setting. The time
of anomalib includes what its inferencers do: normalisation, upsampling, blur and the
post-processor with thresholds, as in its exports; `model alone` is its torch model on prepared
tensors. Where anomalib has no inferencer (ONNX), ONNX Runtime runs its graph. For a file, snl
returns the decision, regions and the map at the size of the image, anomalib the map and mask of
256 x 256. Its TorchInferencer computes gradients, so it is also measured under `inference_mode`.
Its OpenVINOInferencer accepts only images of the size of its graph, so Pillow resizes the image
first, as in snl. Training of anomalib is its `training_step` and optimiser without Lightning's
loop. The weights are random, so only what they cannot influence is measured; for accuracy see
`python -m benchmarks.peers`.

A group that is in the results is measured again only with `--again`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from benchmarks.common import (
    ANOMALIB,
    add_output,
    add_table_verb,
    is_installed,
    log,
    names_of,
    new_parser,
    read_results,
    run_main,
    write_or_print,
)
from benchmarks.speed.plan import QUICK, Plan


def parser() -> argparse.ArgumentParser:
    parser = new_parser("speed", __doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="measure what the results do not have yet")
    add_output(run)
    run.add_argument(
        "--only", type=names_of, default=(), metavar="NAMES", help="groups, comma-separated"
    )
    run.add_argument("--again", action="store_true", help="measure existing groups again")
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--quick", action="store_true", help="few passes, to check that it runs")
    run.add_argument(
        "--work", type=Path, metavar="FOLDER", help="for data and networks (default: runs/speed)"
    )
    add_table_verb(verbs)
    plot = verbs.add_parser("plot", help="bars of the milliseconds per image")
    plot.add_argument("results", type=Path, metavar="RESULTS")
    add_output(plot)
    return parser


def main() -> None:
    options = parser().parse_args()
    if options.verb == "table":
        from benchmarks.speed.markdown import table

        write_or_print(table(read_results(options.results)), options.output)
    elif options.verb == "plot":
        from benchmarks.speed.bars import plot

        plot(read_results(options.results), options.output)
    else:
        from benchmarks.speed.groups import run

        peers = Plan().peers if is_installed("anomalib") else ()
        if not peers:
            log(f"anomalib is not installed (pip install {ANOMALIB}): only snl is measured")
        plan = QUICK if options.quick else Plan()
        plan = dataclasses.replace(plan, threads=options.threads, peers=peers)
        work = options.work or Path("runs") / ("speed-quick" if options.quick else "speed")
        run(plan, options.output, work.resolve(), options.only, again=options.again)


if __name__ == "__main__":
    run_main(main)
