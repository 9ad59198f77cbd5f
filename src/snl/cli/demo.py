"""`snl demo`: generate parts, train on them, and write every kind of result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli.common import OK, progress_bar, save_overlay, say, show_evaluation
from snl.errors import DataError, SettingsError
from snl.limits import STEPS_PER_PRODUCT

if TYPE_CHECKING:
    from snl.evaluation.result import Evaluation
    from snl.runtime.inspector import Inspector

SUMMARY = "generate demo parts, train, evaluate, and save the inspector, overlays and a report"

SETTINGS: dict[str, Any] = {
    "image_size": 192,
    "training.steps": 600,
}
"""Settings that train within three minutes on two cores."""

QUICK_IMAGES: dict[str, Any] = {
    "products": ("blister", "gear", "leather", "wood"),
    "size": 192,
    "n_train": 30,
    "n_good": 8,
    "n_defect": 3,
}
"""The images of `--quick`: two objects and two surfaces, chosen before any result was known."""

QUICK_SETTINGS: dict[str, Any] = {"image_size": 192, "training.steps": 60}
"""Settings with which `--quick` takes less than a minute on two cores."""

GENERATED_SIZE = 128
"""Default side in pixels of the images of generated products, and the network's input: with many
products, drawing and training take long."""

_HAND_MADE = "hand-made"


class Options(shared.DeviceOption, shared.QuietOption):
    """Options of `snl demo`."""

    out: Path | None
    seed: int
    quick: bool
    products: int | None
    size: int | None
    images_only: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "demo",
        SUMMARY,
        "snl demo",
        "snl demo --quick",
        "snl demo --out demo1 --seed 1",
        "snl demo --out demo100 --products 100 --images-only",
    )
    verb.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default: demo; with --quick: demo-quick)",
    )
    verb.add_argument(
        "--seed",
        type=shared.seed,
        default=0,
        metavar="N",
        help="seed of the images and of training (default: 0)",
    )
    verb.add_argument(
        "--quick",
        action="store_true",
        help=f"{len(QUICK_IMAGES['products'])} of the hand-made products with fewer images, and "
        f"{QUICK_SETTINGS['training.steps']} training steps: all results in less than a minute, "
        "with fewer defects found",
    )
    verb.add_argument(
        "--products",
        type=shared.whole(1, 10_000),
        metavar="N",
        help="generate N products with random designs, 1 to 10000, and train for "
        f"{STEPS_PER_PRODUCT} steps per product, at least {SETTINGS['training.steps']}, at "
        f"{GENERATED_SIZE} px (default: eight hand-made products)",
    )
    verb.add_argument(
        "--size",
        type=shared.whole(64, 4096),
        metavar="PX",
        help=f"side of the images in pixels (default: 256; with --products: {GENERATED_SIZE})",
    )
    verb.add_argument(
        "--images-only", action="store_true", help="write the images and stop, without training"
    )
    shared.add_device(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Generate the images, train, evaluate and write all results into one folder."""
    import snl
    from snl.files import write_json
    from snl.reporting.collect import report

    started = time.perf_counter()
    _check_quick(options)
    out = _folder(options)
    data, file, page = out / "parts", out / "demo.snl", out / "report.html"
    if options.images_only:
        _check_folder(out)
        _make_data(options, out, data)
        say(f"images: {data}\nnext: snl train {data} -o {file}", lines=True)
        return OK
    train = snl.train  # fails before any work if PyTorch is missing
    _check_outputs(out)
    _make_data(options, out, data)
    inspector = train(
        data,
        output=file,
        overrides={**_settings(options), "training.seed": options.seed},
        device=options.device,
        overwrite=True,
        quiet=options.quiet,
        note=say,
    )
    catalog = snl.Catalog.read(data)
    evaluation = report(
        inspector, catalog, page, progress=progress_bar("evaluating", options.quiet)
    )
    show_evaluation(evaluation)
    write_json(out / "metrics.json", evaluation.to_dict())
    overlays = _save_overlays(inspector, evaluation, out / "overlays")
    seconds = time.perf_counter() - started
    say(
        f"done in {seconds:.0f} s\n"
        f"  images    {data}\n  inspector {file}\n  metrics   {out / 'metrics.json'}\n"
        f"  overlays  {overlays}\n  report    {page}  (open it in a browser)\n"
        f"next: snl inspect {file} {data / catalog.products[0] / 'test'} --out {out / 'inspected'}",
        lines=True,
    )
    return OK


def _settings(options: Options) -> dict[str, Any]:
    """Return the settings of training for the products that were asked for."""
    if options.quick:
        return QUICK_SETTINGS
    if options.products is None:
        return SETTINGS
    steps = max(SETTINGS["training.steps"], STEPS_PER_PRODUCT * options.products)
    return {**SETTINGS, "image_size": GENERATED_SIZE, "training.steps": steps}


def _folder(options: Options) -> Path:
    """Return the output folder: a quick demo does not take the place of a full one."""
    return options.out or Path("demo-quick" if options.quick else "demo")


def _check_quick(options: Options) -> None:
    """Check that no option contradicts `--quick`.

    Raises:
        SettingsError: one does.
    """
    given = [f"--{name}" for name in ("products", "size") if getattr(options, name) is not None]
    if options.quick and given:
        raise SettingsError(
            f"--quick has its own products and sizes; leave out {' and '.join(given)}, or --quick"
        )


def _check_folder(out: Path) -> None:
    """Check before any work that the folder is new, empty, or holds an earlier demo.

    Raises:
        DataError: a file, or a folder with something other than a demo.
    """
    if out.is_file():
        raise DataError(f"{out}: is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not _has_demo(out):
        raise DataError(f"{out}: is not empty and holds no demo; choose another folder with --out")


def _check_outputs(out: Path) -> None:
    """Check also that nothing would be replaced except files of an earlier demo.

    Raises:
        DataError: see `_check_folder`.
        SnlError: see `snl.outputs.check_outputs`.
    """
    from snl import kinds
    from snl.outputs import Output, check_outputs

    _check_folder(out)
    if not _has_demo(out):
        return
    files = (
        ("demo.snl", kinds.BUNDLE),
        ("report.html", kinds.PAGE),
        ("metrics.json", kinds.METRICS),
    )
    outputs = [Output("--out", out / name, kind) for name, kind in files]
    overlays = (out / "overlays").glob("*.png")
    outputs.append(Output("--out", out / "overlays", kinds.PICTURE, tuple(overlays)))
    check_outputs(outputs)


def _has_demo(out: Path) -> bool:
    return (out / "parts" / "README.txt").is_file()


def _make_data(options: Options, out: Path, data: Path) -> None:
    """Generate the demo images, unless an earlier demo has generated the same ones.

    Raises:
        DataError: the folder holds images of other products or of another size.
    """
    import snl

    wanted: dict[str, Any] = {"seed": options.seed}
    if options.quick:
        wanted |= {**QUICK_IMAGES, "products": list(QUICK_IMAGES["products"])}
    if options.products is not None:
        wanted |= {"products": options.products, "size": GENERATED_SIZE}
    if options.size is not None:
        wanted["size"] = options.size
    if _has_demo(out):
        _check_same(data, wanted)
        say(f"{data}: using the demo images that exist")
        return
    snl.make_demo(data, **wanted, progress=progress_bar("drawing parts", options.quiet))


def _check_same(data: Path, wanted: dict[str, Any]) -> None:
    """Check that the images in a folder are those that `make_demo(data, **wanted)` would make."""
    from snl.demo.dataset import PRODUCTS, made_with

    made = made_with(data)
    compared = dict(wanted)
    if not isinstance(wanted.get("products"), int):
        del compared["seed"]  # the hand-made products are the same with every seed
    if "products" not in wanted and "products" in made:
        compared["products"] = list(PRODUCTS)
    differing = [name for name, value in compared.items() if made.get(name) != value]
    if differing:
        has = ", ".join(f"{name} {_shown(made.get(name))}" for name in differing)
        asked = ", ".join(f"{name} {_shown(compared[name])}" for name in differing)
        raise DataError(
            f"{data}: holds other demo images ({has}) than those asked for ({asked}); "
            "choose another folder with --out"
        )


def _shown(value: Any) -> str:
    """Return an argument of `make_demo` for a message."""
    if isinstance(value, list):
        from snl.demo.dataset import PRODUCTS

        return _HAND_MADE if value == list(PRODUCTS) else ", ".join(map(str, value))
    return "unknown" if value is None else str(value)


def _save_overlays(inspector: Inspector, evaluation: Evaluation, folder: Path) -> Path:
    """Save the normal and the anomalous image of median score of each product."""
    for product in evaluation.products:
        for label in ("normal", "anomalous"):
            scores = [s for s in evaluation.scores if (s.product, s.label) == (product, label)]
            median = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
            result = inspector.inspect(median.path)
            save_overlay(result.overlay(), folder / f"{product}-{label}.png")
    return folder
