"""The words of the command line: verbs, options, help with examples. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snl import __version__
from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, METHODS, PRESETS, resolve, setting_values


def parser(run: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """The whole command line; `run` has the function of each verb."""
    top = argparse.ArgumentParser(
        prog="snl",
        description="Visual inspection with one model for all products, learnt from images of "
        "normal parts.",
        epilog=_examples(
            "snl demo",
            "snl doctor parts/",
            "snl train parts/ -o parts.snl",
            "snl evaluate parts.snl parts/ --json metrics.json",
            "snl inspect parts.snl new.jpg --out overlays/",
            "snl report parts.snl parts/ -o report.html",
            "snl calibrate parts.snl --rate 0.02",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"snl {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_demo(verbs, run)
    _add_doctor(verbs, run)
    _add_train(verbs, run)
    _add_calibrate(verbs, run)
    _add_inspect(verbs, run)
    _add_evaluate(verbs, run)
    _add_report(verbs, run)
    _add_probe(verbs, run)
    _add_export(verbs, run)
    _add_bench(verbs, run)
    return top


def parse(
    run: Mapping[str, Callable[[argparse.Namespace], int]], arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """The options of a command line; what cannot be understood ends the process with status 2.

    NORMALS of `snl calibrate` may come after options, where argparse no longer looks for it.
    """
    top = parser(run)
    options, rest = top.parse_known_args(arguments)
    if len(rest) == 1 and rest[0][:1] != "-" and vars(options).get("normals", rest) is None:
        options.normals, rest = Path(rest[0]), []
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _add_demo(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "demo",
        run["demo"],
        "make the demo parts, train, evaluate, and save inspector and overlays",
        "snl demo",
        "snl demo --out demo1 --seed 1",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    verb.add_argument("--seed", type=int, default=0, metavar="N")
    _add_common(verb, layout=False)


def _add_train(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "train",
        run["train"],
        "train one model on the normal images of all products",
        "snl train parts/ -o parts.snl",
        "snl train mvtec/ -o mvtec.snl --preset paper --device cuda",
        "snl train parts/ -o fd.snl --method fd --teacher resnet18 --teacher-weights resnet18.pth",
        "snl train parts/ -o a.snl --set cram.form=rebuild --set loss.intra=0",
        "snl train parts/ -o parts.snl --resume",
        more=_settings_help(),
    )
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    _add_settings(verb)
    verb.add_argument("--seed", type=int, metavar="N", help="fixes everything that is random")
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    verb.add_argument("--overwrite", action="store_true", help="replace what is there")
    verb.add_argument(
        "--on-bad-image",
        choices=("skip", "stop"),
        default="skip",
        help="images that cannot be read: leave out and count (default), or stop",
    )
    _add_budget(verb)
    verb.add_argument(
        "--tensorboard", action="store_true", help="scalars into FILE.run/tensorboard"
    )
    _add_common(verb)


def _add_evaluate(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        run["evaluate"],
        "measure detection and localization on labelled test images",
        "snl evaluate parts.snl parts/",
        "snl evaluate parts.snl parts/ --json metrics.json --save-maps maps/",
        "snl evaluate parts.snl parts/ --products given",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("--json", type=Path, metavar="OUT", help="the metrics as JSON")
    verb.add_argument(
        "--save-maps", type=Path, metavar="DIR", help="raw maps at the images' sizes, float32 .npy"
    )
    verb.add_argument(
        "--resolution",
        choices=("input", "original"),
        default="input",
        help="where pixel metrics are taken: at the network's input size as in publications "
        "(default), or at each image's own",
    )
    _add_given(verb)
    _add_precision(verb)
    _add_common(verb)


def _add_given(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--products",
        choices=("recognised", "given"),
        default="recognised",
        help="decide as snl inspect without --product (default), or knowing the product",
    )


def _add_report(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "report",
        run["report"],
        "one self-contained HTML page on labelled test images: decisions, misses, what-if, metrics",
        "snl report parts.snl parts/ -o report.html",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the page")
    _add_given(verb)
    _add_precision(verb)
    _add_common(verb)


def _add_probe(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "probe",
        run["probe"],
        "measure how far products interfere: blends and pasted patches of two must be anomalous",
        "snl probe parts.snl parts/",
        "snl probe parts.snl parts/ --json probes.json --picture probes.png",
        "snl probe parts.snl parts/ --products bottle,screw --images 50",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train: its products are the rows")
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest: the columns")
    verb.add_argument("--json", type=Path, metavar="OUT", help="every pair's figures as JSON")
    verb.add_argument(
        "--picture", type=Path, metavar="OUT", help="heat maps as PNG (needs matplotlib)"
    )
    verb.add_argument("--products", metavar="A,B", help="only these products of DATA")
    verb.add_argument(
        "--images", type=int, default=20, metavar="N", help="per pair and probe (default: 20)"
    )
    verb.add_argument(
        "--share",
        type=float,
        default=0.5,
        metavar="X",
        help="weight of the row's product in a blend (default: 0.5)",
    )
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="fixes what is drawn")
    _add_precision(verb)
    _add_common(verb)


def _add_inspect(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "inspect",
        run["inspect"],
        "look at new images: a JSON line each, overlays if asked for",
        "snl inspect parts.snl new.jpg",
        "snl inspect parts.snl incoming/ --out overlays/ --json results.jsonl",
        "snl inspect parts.snl bottle.png --product bottle --rate 0.06",
        "snl inspect parts.snl incoming/ --monitor drift.json --json today.jsonl",
        "snl inspect parts.onnx camera:0 --batch-size 1",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images or folders; or one video file, rtsp:// address or camera:0, of which frames "
        "are dropped rather than queued where it is live",
    )
    verb.add_argument("--out", type=Path, metavar="DIR", help="overlays as PNG")
    verb.add_argument("--json", type=Path, metavar="OUT", help="JSON lines there, not to stdout")
    verb.add_argument("--coco", type=Path, metavar="OUT", help="regions as COCO JSON")
    verb.add_argument("--labelme", type=Path, metavar="DIR", help="regions as LabelMe JSON files")
    verb.add_argument(
        "--product",
        metavar="NAME",
        help="what the images show; without it the product is recognised, and an image of no "
        "taught product is told",
    )
    _add_rates(verb)
    verb.add_argument(
        "--tile",
        type=index,
        metavar="N",
        help="look at images in tiles of N pixels, 0: whole (default: as calibrated)",
    )
    verb.add_argument(
        "--monitor",
        type=Path,
        metavar="STATE",
        help="watch for drift over this and later runs; the state is kept in this file",
    )
    verb.add_argument(
        "--batch-size",
        type=count,
        default=8,
        metavar="N",
        help="images looked at together (default: 8; 1: each at once)",
    )
    verb.add_argument(
        "--threads",
        type=index,
        default=0,
        metavar="N",
        help="of the network; 0: the runtime's choice (default); snl bench inference measures",
    )
    _add_precision(verb)
    _add_common(verb, layout=False)


def _add_calibrate(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "calibrate",
        run["calibrate"],
        "show the calibration of a bundle, or change it: seconds, no training",
        "snl calibrate parts.snl",
        "snl calibrate parts.snl --rate 0.02 --product bottle",
        "snl calibrate parts.snl normals/ --add",
        "snl calibrate parts.snl --false-alarms ok1.jpg ok2.jpg --product bottle",
        "snl calibrate parts.snl --misses bad1.jpg",
        "snl calibrate parts.snl --ignore bottle=label.png --mm-per-pixel bottle=0.05",
        "snl calibrate parts.snl --undo",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train; it is changed in place")
    verb.add_argument(
        "normals",
        nargs="?",
        type=Path,
        metavar="NORMALS",
        help="normal images, a folder a product (or --product): they replace the held-back ones "
        "of these products",
    )
    verb.add_argument("--add", action="store_true", help="add NORMALS to the held-back images")
    verb.add_argument("--product", metavar="NAME", help="what is given is of this product")
    _add_rates(verb)
    verb.add_argument(
        "--regions-rate",
        type=float,
        metavar="X",
        help="regions marked in a normal image, on average",
    )
    verb.add_argument(
        "--tail",
        choices=("fit", "none"),
        help="fit: rates below what the images can promise come from a fitted tail, as a guess",
    )
    verb.add_argument(
        "--false-alarms",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="flagged images of normal parts: they join the normal ones",
    )
    verb.add_argument(
        "--misses",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="passed images of anomalous parts: the product's rate of uncertain is lifted to catch "
        "them",
    )
    verb.add_argument(
        "--ignore",
        action="append",
        metavar="PRODUCT=MASK",
        help="image, white where the product may look as it likes; none: nowhere",
    )
    verb.add_argument(
        "--mm-per-pixel", action="append", metavar="PRODUCT=X", help="scale, for areas in mm2"
    )
    verb.add_argument(
        "--smallest", action="append", metavar="PRODUCT=N", help="smallest region, in pixels"
    )
    verb.add_argument(
        "--tile",
        type=index,
        metavar="N",
        help="look at images in tiles of N pixels from now on, 0: whole; with NORMALS of all "
        "products",
    )
    verb.add_argument("--undo", action="store_true", help="take the last change back")
    verb.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write there, and leave FILE as it is"
    )
    _add_precision(verb)
    _add_common(verb)


def _add_export(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "export",
        run["export"],
        "write a graph that runs without PyTorch, checked against the bundle",
        "snl export parts.snl -o parts.onnx",
        "snl export parts.snl -o parts.xml",
        "snl export parts.snl -o parts-int8.onnx --precision int8 --data parts/",
        more="snl inspect, evaluate, report and calibrate take the exported file as FILE.",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help=".onnx (ONNX Runtime), .xml (OpenVINO), or a folder",
    )
    verb.add_argument(
        "--format", choices=("onnx", "openvino"), help="default: by the ending of OUT, or onnx"
    )
    verb.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    verb.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="images to check on; int8 takes its ranges from the normal ones, and with labelled "
        "ones AUROC may fall by 0.2 (fp16) or 0.5 points (int8)",
    )
    verb.add_argument(
        "--batch", type=count, metavar="N", help="a fixed number of images (default: any)"
    )
    _add_common(verb)


def _add_rates(verb: argparse.ArgumentParser) -> None:
    """Without them each product's own rates hold."""
    verb.add_argument(
        "--rate", type=float, metavar="X", help="share of normal images called anomalous, at most"
    )
    verb.add_argument(
        "--uncertain-rate", type=float, metavar="X", help="... anomalous or uncertain"
    )
    verb.add_argument(
        "--unknown-rate",
        type=float,
        metavar="X",
        help="share of images of taught products called unknown, at most",
    )


def _add_doctor(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "doctor",
        run["doctor"],
        "say what is in a data set and everything that is wrong with it",
        "snl doctor parts/",
        "snl doctor visa/ --layout visa --json findings.json",
    )
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("--json", type=Path, metavar="OUT", help="the findings as JSON")
    _add_common(verb, device=False)


def _add_bench(verbs: Any, run: Any) -> None:
    verb = _verb(
        verbs,
        "bench",
        run["bench"],
        "measure a method on MVTec AD or VisA over seeds, beside published results",
        "snl bench mvtec mvtec/ --device cuda",
        "snl bench visa VisA/ --method rd --out visa-rd",
        "snl bench mvtec mvtec/ --device cuda:0,cuda:1,cuda:2",
        "snl bench mvtec mvtec/ --classes bottle,cable --preset compact --seeds 1",
        "snl bench inference parts.onnx",
        more="A stopped run goes on by the same command. training.holdout is 0 here.\n\n"
        + _settings_help(),
    )
    verb.add_argument(
        "benchmark",
        choices=("mvtec", "visa", "inference"),
        help="MVTec AD, VisA; or how fast a bundle or an export is here",
    )
    verb.add_argument(
        "root",
        type=Path,
        metavar="ROOT",
        help="folder of the data set's classes; of inference, the bundle or export",
    )
    verb.add_argument("-o", "--out", type=Path, metavar="DIR", help="default: bench-mvtec, ...")
    verb.add_argument("--seeds", type=count, default=3, metavar="N", help="0..N-1 (default: 3)")
    verb.add_argument(
        "--seed",
        type=index,
        dest="only",
        metavar="K",
        help="this seed alone and no table, as a job of its own",
    )
    verb.add_argument(
        "--classes",
        default="",
        metavar="A,B",
        help="some classes, or found: those that are there; the table is marked as partial",
    )
    _add_settings(verb, "paper")
    verb.add_argument("--overwrite", action="store_true", help="do anew what is there")
    _add_budget(verb)
    verb.add_argument(
        "--device",
        "--devices",
        default="auto",
        metavar="D",
        help="auto (all GPUs, a seed each at a time), cpu, cuda, mps, or several: cuda:0,cuda:1",
    )
    _add_common(verb, layout=False, device=False)
    verb.set_defaults(seed=None)  # which the seeds take the place of


def _verb(
    verbs: Any, name: str, run: Any, summary: str, *examples: str, more: str = ""
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=_examples(*examples) + (f"\n\n{more}" if more else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def _add_settings(verb: argparse.ArgumentParser, preset: str = DEFAULT_PRESET) -> None:
    """What makes a model, but for its seed."""
    verb.add_argument(
        "--method",
        default=DEFAULT_METHOD,
        metavar="M",
        help=f"{', '.join(METHODS)} (default: {DEFAULT_METHOD})",
    )
    verb.add_argument(
        "--preset",
        default=preset,
        metavar="P",
        help=f"{', '.join(PRESETS)} (default: {preset})",
    )
    verb.add_argument(
        "--teacher", metavar="NAME", help="snl_compact, or a timm network with feature maps"
    )
    verb.add_argument(
        "--teacher-weights",
        metavar="FILE",
        help=".safetensors or .pth; pretrained: the network's own (default); random: untrained",
    )
    verb.add_argument("--image-size", type=int, metavar="N", help="side of the network's input")
    verb.add_argument(
        "--tile",
        type=int,
        metavar="N",
        help="cut large images into squares of N x N pixels, each an input (default: 0, whole)",
    )
    verb.add_argument("--steps", type=int, metavar="N", help="the whole budget")
    verb.add_argument("--batch-size", type=int, metavar="N")
    verb.add_argument("--lr", type=float, metavar="X", help="largest learning rate")
    verb.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, see below"
    )


def _add_budget(verb: argparse.ArgumentParser) -> None:
    """How training is carried out."""
    verb.add_argument(
        "--cache-memory",
        type=number,
        default=4.0,
        metavar="GIB",
        help="memory for teacher features (default: 4; 0: none)",
    )
    verb.add_argument(
        "--cache-disk",
        type=number,
        default=20.0,
        metavar="GIB",
        help="disk beside FILE for them where memory does not do (default: 20; 0: none)",
    )
    verb.add_argument(
        "--checkpoint-every",
        type=number,
        default=60.0,
        metavar="SECONDS",
        help="default: 60",
    )


def _add_precision(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="of the networks (default: fp32); snl bench inference says what bf16 gains here",
    )


def _add_common(verb: argparse.ArgumentParser, *, layout: bool = True, device: bool = True) -> None:
    if layout:
        verb.add_argument(
            "--layout",
            default="auto",
            metavar="L",
            help="auto, mvtec, visa, btad, mpdd, loco, real-iad, manifest, folders",
        )
    if device:
        verb.add_argument(
            "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N, mps"
        )
    verb.add_argument("--quiet", action="store_true", help="no progress bars")


def _settings_help() -> str:
    lines = ["settings for --set, as they are by default:"]
    for name, value in setting_values(resolve()).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"  {name}={shown}")
    return "\n".join(lines)


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def number(text: str) -> float:
    """An option's value: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def count(text: str) -> int:
    """An option's value: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def index(text: str) -> int:
    """An option's value: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return int(text)
