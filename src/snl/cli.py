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

from snl.arguments import parser
from snl.errors import DataError, ImageError, SnlError
from snl.settings import parse_assignments

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
    options = parser(VERBS).parse_args(arguments)
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


VERBS = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "inspect": inspect,
    "doctor": doctor,
}
