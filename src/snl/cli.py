"""The command `snl`: one function a verb, heavy imports inside the verbs so that help is fast."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.arguments import parser
from snl.errors import DataError, ImageError, SettingsError, SnlError
from snl.settings import parse_assignments

if TYPE_CHECKING:
    from snl.data.catalog import Catalog
    from snl.deployment.inspector import Inspector
    from snl.evaluation.evaluate import Evaluation

OK, PROBLEMS, BAD_INPUT, STOPPED = 0, 1, 2, 130

DEMO_SETTINGS: dict[str, Any] = {
    "image_size": 192,
    "training.steps": 600,
}
"""Of `snl demo`: what fits into three minutes on two cores."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: done and found problems; 2: bad input, told in one line; 130: stopped by Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the console cannot show is no crash
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
    except (MemoryError, RuntimeError) as error:
        told = f"{type(error).__name__} {error}".lower()
        if not any(words in told for words in ("memoryerror", "out of memory", "allocate memory")):
            raise
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
        held = sum(map(len, inspector.calibration.values()))
        say(
            f"{held} normal images were held back; a threshold at a false-alarm rate of 0.05 needs "
            "19, so decisions will be 'uncertain'. Ways out: more normal images, "
            "--set training.holdout=0.3 here, or "
            f"snl inspect --rate {math.ceil(100 / (held + 1)) / 100:g} or more"
        )
    return OK


def evaluate(options: argparse.Namespace) -> int:
    """`snl evaluate`."""
    import snl
    from snl.files import check_output, write_json

    inspector = snl.load(options.file, options.device)
    catalog = snl.Catalog.read(options.data, options.layout)
    if options.json:
        check_output(options.json, [options.file])
    untaught = sorted(set(catalog.products) - set(inspector.products))
    if untaught:
        say(f"note: not taught to this inspector: {', '.join(untaught)}")
    evaluation = snl.evaluate(
        inspector,
        catalog,
        resolution=options.resolution,
        save_maps=options.save_maps,
        progress=_progress("evaluating", options.quiet),
    )
    show(evaluation)
    if options.json:
        about = _about(options, catalog, inspector, evaluation.skipped)
        about["resolution"] = options.resolution
        write_json(options.json, {**evaluation.to_dict(), "about": about})
        say(f"metrics: {options.json}")
    if options.save_maps:
        say(f"maps: {options.save_maps}")
    return PROBLEMS if evaluation.skipped else OK


def probe(options: argparse.Namespace) -> int:
    """`snl probe`."""
    import snl
    from snl.evaluation.interference import format_probes
    from snl.files import check_output, write_json

    if options.picture:
        from snl.report.plots import check_matplotlib, draw_probes

        check_matplotlib()
    for path in filter(None, (options.json, options.picture)):
        check_output(path, [options.file, options.data])
    if options.json and options.picture and options.json.resolve() == options.picture.resolve():
        raise SettingsError(f"{options.json}: is both --json and --picture; give two names")
    inspector = snl.load(options.file, options.device)
    catalog = snl.Catalog.read(options.data, options.layout)
    result = snl.probe(
        inspector,
        catalog,
        products=options.products.split(",") if options.products else None,
        images=options.images,
        share=options.share,
        seed=options.seed,
        progress=_progress("probing", options.quiet),
    )
    print(format_probes(result), flush=True)
    for text in result.notes:
        say(f"note: {text}")
    for text in result.skipped:
        say(f"left out: {text}")
    if options.json:
        about = _about(options, catalog, inspector, result.skipped)
        write_json(options.json, {**result.to_dict(), "about": about})
        say(f"figures: {options.json}")
    if options.picture:
        say(f"picture: {draw_probes(result, options.picture, Path(options.file).name)}")
    return PROBLEMS if result.skipped else OK


def inspect(options: argparse.Namespace) -> int:
    """`snl inspect`."""
    import snl
    from snl.files import check_output, write_text

    inspector = snl.load(options.file, options.device)
    inspector.threshold(options.product, options.rate)  # a bad product or rate, before any work
    paths = _image_files(options.paths)
    if options.json:
        check_output(options.json, [options.file, *paths])
    overlays = _overlay_files(paths, options.out, options.file) if options.out else {}
    progress = _progress("inspecting", options.quiet or not options.json)
    lines: list[str] = []
    bad, status = 0, OK
    try:
        for number, path in enumerate(paths, 1):
            try:
                result = inspector.inspect(path, options.product, options.rate)
            except ImageError as error:
                bad += 1
                say(f"error: {error}")
                continue
            record = result.to_dict()
            if options.out:
                record["overlay"] = str(_save_overlay(result.overlay(), overlays[path]))
            lines.append(json.dumps(record, allow_nan=False))
            if not options.json:
                print(lines[-1], flush=True)
            elif progress:
                progress(number, len(paths))
    except KeyboardInterrupt:  # what was looked at is not lost
        say(f"stopped after {len(lines) + bad} of {len(paths)} images")
        status = STOPPED
    if options.json:
        write_text(options.json, "".join(line + "\n" for line in lines))
        say(f"{len(lines)} inspections: {options.json}")
    if options.out:
        say(f"{len(lines)} overlays: {options.out}")
    if lines and options.product and json.loads(lines[0])["threshold_from"] != "product":
        say(
            f"note: too few images of '{options.product}' were held back for a threshold of its "
            f"own at rate {options.rate:g}; the one of all products was used"
        )
    if bad:
        say(f"{bad} of {len(paths)} images could not be inspected")
    return status or (BAD_INPUT if bad else OK)


def doctor(options: argparse.Namespace) -> int:
    """`snl doctor`."""
    from snl.data.catalog import Catalog
    from snl.data.doctor import diagnose, format_diagnosis, to_dict
    from snl.files import check_output, write_json

    catalog = Catalog.read(options.data, options.layout)
    if options.json:
        check_output(options.json)
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
    if out.is_file():
        raise DataError(f"{out}: is a file; choose another folder by --out")
    if out.exists() and any(out.iterdir()):
        if not (out / "parts" / "README.txt").is_file():
            raise DataError(f"{out}: is not empty and no demo; choose another folder by --out")
        say(f"{data}: the demo images are there already")
    else:
        snl.make_demo(data, seed=options.seed, progress=_progress("drawing parts", options.quiet))
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


def _about(
    options: argparse.Namespace, catalog: Catalog, inspector: Inspector, left_out: Sequence[str]
) -> dict[str, Any]:
    """What a file of figures was measured with and on."""
    return {
        "file": Path(options.file).name,
        "data": {"name": catalog.root.resolve().name, "layout": catalog.layout},
        "settings": inspector.network.settings.to_dict(),
        "left_out": list(left_out),
    }


def bench(options: argparse.Namespace) -> int:
    """`snl bench`."""
    from snl import bench
    from snl.training.cache import CacheBudget

    task = bench.Task(
        options.benchmark,
        options.root,
        options.out or Path(f"bench-{options.benchmark}"),
        options.method,
        options.preset,
        _overrides(options),
        tuple(name.strip() for name in options.classes.split(",") if name.strip()),
        options.seeds,
        options.device,
        CacheBudget(options.cache_memory, options.cache_disk),
        options.checkpoint_every,
        options.overwrite,
        options.quiet,
        say,
    )
    try:
        if options.only is not None:
            print(bench.run_seed(task, options.only))
            return OK
        print(bench.run(task))
    except KeyboardInterrupt as stop:
        again = " without --overwrite" if options.overwrite else ""
        say(f"{str(stop) or 'stopped'}; the same command{again} goes on from there")
        return STOPPED
    say(f"results: {task.output}")
    return OK


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given as options of their own, then those of --set."""
    named = {
        "teacher.name": options.teacher,
        "teacher.weights": options.teacher_weights,
        "image_size": options.image_size,
        "tile": options.tile,
        "training.steps": options.steps,
        "training.batch_size": options.batch_size,
        "training.lr": options.lr,
        "training.seed": options.seed,
    }
    given = {name: value for name, value in named.items() if value is not None}
    return {**given, **parse_assignments(options.set)}


def _image_files(paths: Sequence[Path]) -> list[Path]:
    """Files as given, each once; of folders all images below, without hidden files and masks."""
    from snl.data.layouts import images_in

    found: dict[Path, Path] = {}
    for path in paths:
        inside = images_in(path) if path.is_dir() else [path]  # a missing file is told later
        if not inside:
            raise DataError(f"{path}: no images in this folder; give images or another folder")
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _overlay_files(paths: Sequence[Path], folder: Path, bundle: Path) -> dict[Path, Path]:
    """Where each overlay goes: the images' paths below what they have in common, as .png; a
    number is added where two would be the same file.

    Raises:
        DataError: an overlay would take the place of an image.
    """
    whole = {path: path.resolve() for path in paths}
    anchors = {path.anchor for path in whole.values()}
    common = os.path.commonpath([p.parent for p in whole.values()]) if len(anchors) == 1 else None
    files: dict[Path, Path] = {}
    taken: set[str] = set()
    for path, full in whole.items():
        place = full.relative_to(common) if common else Path(full.name)
        name, number = place.with_suffix(".png"), 1
        while str(name).lower() in taken:
            number += 1
            name = place.with_name(f"{place.stem}-{number}.png")
        taken.add(str(name).lower())
        files[path] = folder / name
    if {file.resolve() for file in files.values()} & {*whole.values(), Path(bundle).resolve()}:
        raise DataError(f"{folder}: overlays would overwrite images there; choose another --out")
    return files


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
    "probe": probe,
    "inspect": inspect,
    "doctor": doctor,
    "bench": bench,
}
