"""The command `snl`: one function a verb, heavy imports inside the verbs so that help is fast."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl import __version__
from snl.errors import DataError, ImageError, SnlError
from snl.settings import (
    DEFAULT_METHOD,
    DEFAULT_PRESET,
    METHODS,
    PRESETS,
    parse_assignments,
    resolve,
    setting_values,
)

if TYPE_CHECKING:
    from snl.deployment.inspector import Inspector
    from snl.evaluation.evaluate import Evaluation

OK, PROBLEMS, BAD_INPUT, STOPPED = 0, 1, 2, 130

DEMO_SETTINGS: dict[str, Any] = {
    "image_size": 128,
    "training.steps": 300,
    "teacher.weights": "random",
}
"""Of `snl demo`: what fits into a few minutes on two cores, without a pretrained teacher."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: done and found problems; 2: bad input, told in one line; 130: stopped by Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SnlError as error:
        return _complain(" ".join(str(error).split()))
    except KeyboardInterrupt:
        say("stopped")
        return STOPPED
    except BrokenPipeError:  # the reader (head, less) has gone; nothing is left to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except MemoryError:
        return _complain("out of memory; lower --image-size, --batch-size or --cache-memory")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("torch", "torchvision", "timm"):
            return _complain(f"{error.name} is not installed: pip install 'snl-ad[train]'")
        raise


def train(options: argparse.Namespace) -> int:
    """`snl train`."""
    import snl
    from snl.training.cache import CacheBudget
    from snl.training.loop import Interrupted

    began = time.perf_counter()
    try:
        inspector = snl.train(
            options.data,
            output=options.output,
            method=options.method,
            preset=options.preset,
            overrides=_overrides(options),
            layout=options.layout,
            device=options.device,
            resume=options.resume,
            overwrite=options.overwrite,
            cache=CacheBudget(options.cache_memory, options.cache_disk),
            skip_bad=options.on_bad_image == "skip",
            checkpoint_every=options.checkpoint_every,
            tensorboard=options.tensorboard,
            quiet=options.quiet,
            note=say,
        )
    except Interrupted as stop:
        say(f"{stop}; the same command with --resume goes on from there")
        return STOPPED
    facts = inspector.facts.training
    seconds = time.perf_counter() - began
    say(f"{options.output}: {facts['steps']} steps, {seconds:.0f} s, loss {facts['loss']:.4f}")
    if inspector.threshold() is None:
        say("too few normal images were held back for a threshold: decisions will be 'uncertain'")
    return OK


def evaluate(options: argparse.Namespace) -> int:
    """`snl evaluate`."""
    import snl
    from snl.files import write_json

    inspector = snl.load(options.file, options.device)
    catalog = snl.Catalog.read(options.data, options.layout)
    evaluation = snl.evaluate(
        inspector,
        catalog,
        resolution=options.resolution,
        save_maps=options.save_maps,
        progress=_progress("evaluating", options.quiet),
    )
    show(evaluation)
    if options.json:
        write_json(options.json, evaluation.to_dict())
        say(f"metrics: {options.json}")
    if options.save_maps:
        say(f"maps: {options.save_maps}")
    return PROBLEMS if evaluation.skipped else OK


def inspect(options: argparse.Namespace) -> int:
    """`snl inspect`."""
    import snl

    inspector = snl.load(options.file, options.device)
    lines = []
    bad = 0
    paths = list(_image_files(options.paths))
    names = _overlay_names(paths) if options.out else {}
    inspector.threshold(options.product, options.rate)  # a bad product or rate, before any work
    for path in paths:
        try:
            result = inspector.inspect(path, options.product, options.rate)
        except ImageError as error:
            bad += 1
            say(f"error: {error}")
            continue
        record = result.to_dict()
        if options.out:
            record["overlay"] = str(_save_overlay(result.overlay(), options.out / names[path]))
        lines.append(json.dumps(record, allow_nan=False))
        if not options.json:
            print(lines[-1], flush=True)
    if options.json:
        from snl.files import write_text

        write_text(options.json, "".join(line + "\n" for line in lines))
        say(f"{len(lines)} inspections: {options.json}")
    if options.out:
        say(f"{len(lines)} overlays: {options.out}")
    if bad:
        say(f"{bad} of {len(paths)} images could not be inspected")
    return BAD_INPUT if bad else OK


def doctor(options: argparse.Namespace) -> int:
    """`snl doctor`."""
    from snl.data.catalog import Catalog
    from snl.data.doctor import diagnose, format_diagnosis, to_dict
    from snl.files import write_json

    catalog = Catalog.read(options.data, options.layout)
    diagnosis = diagnose(catalog, progress=_progress("reading images", options.quiet))
    print(format_diagnosis(diagnosis))
    if options.json:
        write_json(options.json, to_dict(diagnosis))
    return OK if diagnosis.ok else PROBLEMS


def demo(options: argparse.Namespace) -> int:
    """`snl demo`."""
    import snl
    from snl.files import write_json

    began = time.perf_counter()
    fit = snl.train  # says at once if PyTorch is missing
    out = Path(options.out)
    data, file = out / "parts", out / "demo.snl"
    if out.exists() and any(out.iterdir()):
        if not (out / "parts" / "README.txt").is_file():
            raise DataError(f"{out}: is not empty and no demo; choose another folder by --out")
        say(f"{data}: the demo images are there already")
    else:
        snl.make_demo(data, seed=options.seed, progress=_progress("drawing parts", options.quiet))
    say(
        "the teacher of this demo is UNTRAINED (random weights), so that it runs offline: a "
        "pretrained one (snl train --teacher-weights) finds far more"
    )
    inspector = fit(
        data,
        output=file,
        overrides={**DEMO_SETTINGS, "training.seed": options.seed},
        device=options.device,
        overwrite=True,
        quiet=options.quiet,
        note=say,
    )
    catalog = snl.Catalog.read(data)
    evaluation = snl.evaluate(inspector, catalog, progress=_progress("evaluating", options.quiet))
    show(evaluation)
    write_json(out / "metrics.json", evaluation.to_dict())
    overlays = _demo_overlays(inspector, evaluation, out / "overlays")
    seconds = time.perf_counter() - began
    say(
        f"done in {seconds:.0f} s\n"
        f"  images    {data}\n  inspector {file}\n  metrics   {out / 'metrics.json'}\n"
        f"  overlays  {overlays}\n"
        f"next: snl inspect {file} {data / catalog.products[0] / 'test'} --out {out / 'inspected'}"
    )
    return OK


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
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
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"snl {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_demo(verbs)
    _add_train(verbs)
    _add_evaluate(verbs)
    _add_inspect(verbs)
    _add_doctor(verbs)
    return top


def _add_demo(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "demo",
        demo,
        "make the demo parts, train, evaluate, and save inspector and overlays",
        "snl demo",
        "snl demo --out /tmp/demo --seed 1",
    )
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    verb.add_argument("--seed", type=int, default=0, metavar="N")
    _add_common(verb, layout=False)


def _add_train(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "train",
        train,
        "train one model on the normal images of all products",
        "snl train parts/ -o parts.snl",
        "snl train mvtec/ -o mvtec.snl --preset paper --device cuda",
        "snl train parts/ -o fd.snl --method fd --teacher-weights resnet18.safetensors",
        "snl train parts/ -o a.snl --set cram.form=rebuild --set loss.intra=0",
        "snl train parts/ -o parts.snl --resume",
        more=_settings_help(),
    )
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    verb.add_argument(
        "--method",
        default=DEFAULT_METHOD,
        metavar="M",
        help=f"{', '.join(METHODS)} (default: {DEFAULT_METHOD})",
    )
    verb.add_argument(
        "--preset",
        default=DEFAULT_PRESET,
        metavar="P",
        help=f"{', '.join(PRESETS)} (default: {DEFAULT_PRESET})",
    )
    verb.add_argument("--teacher", metavar="NAME", help="a timm network with feature maps")
    verb.add_argument(
        "--teacher-weights",
        metavar="FILE",
        help=".safetensors or .pth; hub: timm's own; random: untrained",
    )
    verb.add_argument("--image-size", type=int, metavar="N", help="side of the network's input")
    verb.add_argument("--steps", type=int, metavar="N", help="the whole budget")
    verb.add_argument("--batch-size", type=int, metavar="N")
    verb.add_argument("--lr", type=float, metavar="X", help="largest learning rate")
    verb.add_argument("--seed", type=int, metavar="N", help="fixes everything that is random")
    verb.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, see below"
    )
    verb.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    verb.add_argument("--overwrite", action="store_true", help="replace what is there")
    verb.add_argument(
        "--on-bad-image",
        choices=("skip", "stop"),
        default="skip",
        help="images that cannot be read: leave out and count (default), or stop",
    )
    verb.add_argument(
        "--cache-memory",
        type=_positive,
        default=4.0,
        metavar="GIB",
        help="memory for teacher features (default: 4; 0: none)",
    )
    verb.add_argument(
        "--cache-disk",
        type=_positive,
        default=20.0,
        metavar="GIB",
        help="disk beside FILE for them where memory does not do (default: 20; 0: none)",
    )
    verb.add_argument(
        "--checkpoint-every",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="default: 60",
    )
    verb.add_argument(
        "--tensorboard", action="store_true", help="scalars into FILE.run/tensorboard"
    )
    _add_common(verb)


def _add_evaluate(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        evaluate,
        "measure detection and localization on labelled test images",
        "snl evaluate parts.snl parts/",
        "snl evaluate parts.snl parts/ --json metrics.json --save-maps maps/",
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
    _add_common(verb)


def _add_inspect(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "inspect",
        inspect,
        "look at new images: a JSON line each, overlays if asked for",
        "snl inspect parts.snl new.jpg",
        "snl inspect parts.snl incoming/ --out overlays/ --json results.jsonl",
        "snl inspect parts.snl bottle.png --product bottle --rate 0.01",
    )
    verb.add_argument("file", metavar="FILE", help="bundle of snl train")
    verb.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="images or folders")
    verb.add_argument("--out", type=Path, metavar="DIR", help="overlays as PNG")
    verb.add_argument("--json", type=Path, metavar="OUT", help="JSON lines there, not to stdout")
    verb.add_argument("--product", metavar="NAME", help="use this product's own threshold")
    verb.add_argument(
        "--rate", type=float, default=0.05, metavar="X", help="false-alarm rate (default: 0.05)"
    )
    _add_common(verb, layout=False)


def _add_doctor(verbs: Any) -> None:
    verb = _verb(
        verbs,
        "doctor",
        doctor,
        "say what is in a data set and everything that is wrong with it",
        "snl doctor parts/",
        "snl doctor visa/ --layout visa --json findings.json",
    )
    verb.add_argument("data", metavar="DATA", help="folder of products, or a manifest")
    verb.add_argument("--json", type=Path, metavar="OUT", help="the findings as JSON")
    _add_common(verb, device=False)


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


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given as options of their own, then those of --set."""
    named = {
        "teacher.name": options.teacher,
        "teacher.weights": options.teacher_weights,
        "image_size": options.image_size,
        "training.steps": options.steps,
        "training.batch_size": options.batch_size,
        "training.lr": options.lr,
        "training.seed": options.seed,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return {**given, **parse_assignments(options.set)}


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as given; of folders all images below, sorted."""
    from snl.data.layouts import EXTENSIONS

    for path in paths:
        if not path.is_dir():
            yield path  # a missing file is told like every other image that cannot be read
            continue
        inside = sorted(
            p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in EXTENSIONS
        )
        if not inside:
            raise DataError(f"{path}: no images in this folder; give images or another folder")
        yield from inside


def _overlay_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """Where each overlay goes: the images' paths below what they have in common, as .png; a
    number is added where two would be the same file."""
    folders = [str(path.absolute().parent) for path in paths]
    common = (
        Path(os.path.commonpath(folders)) if len({Path(f).anchor for f in folders}) == 1 else None
    )
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        place = path.absolute().relative_to(common) if common else Path(path.name)
        name, number = place.with_suffix(".png"), 1
        while str(name).lower() in taken:
            number += 1
            name = place.with_name(f"{place.stem}-{number}.png")
        taken.add(str(name).lower())
        names[path] = name
    return names


def _save_overlay(picture: Any, path: Path) -> Path:
    from snl.files import atomic

    with atomic(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def _demo_overlays(inspector: Inspector, evaluation: Evaluation, folder: Path) -> Path:
    """The normal and the anomalous image of median score of each product."""
    for product in evaluation.products:
        for label in ("normal", "anomalous"):
            scores = [s for s in evaluation.scores if (s.product, s.label) == (product, label)]
            middle = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
            result = inspector.inspect(middle.path, product)
            _save_overlay(result.overlay(), folder / f"{product}-{label}.png")
    return folder


def show(evaluation: Evaluation) -> None:
    """The table on standard output, what was left out on standard error."""
    from snl.evaluation.evaluate import format_table

    print(format_table(evaluation), flush=True)
    for line in evaluation.skipped:
        say(f"left out: {line}")


def say(text: str) -> None:
    """To a person, on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr, flush=True)


def _complain(text: str) -> int:
    say(f"snl: error: {text}")
    return BAD_INPUT


def _progress(title: str, quiet: bool) -> Any:
    if quiet:
        return None
    from snl.progress import bar

    return bar(title)


def _settings_help() -> str:
    lines = ["settings for --set, as they are by default:"]
    for name, value in setting_values(resolve()).items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"  {name}={shown}")
    return "\n".join(lines)


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value
