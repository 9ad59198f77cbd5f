"""Option groups and value types that several verbs share. Imports nothing heavy.

Each group is a pair: a function that adds the options to a parser, and a class that names and
types the attributes these options set. A verb's `Options` class inherits from the groups it uses,
so `run(options)` has typed access.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYOUTS = (
    *("auto", "mvtec", "mvtec-ad-2", "visa", "btad", "mpdd", "loco", "real-iad"),
    *("manifest", "folders"),
)
PRECISIONS = ("fp32", "bf16", "fp16")
STDOUT = Path("-")
"""The value of `--json` that means standard output."""


def new_verb(
    verbs: Any, name: str, summary: str, *examples: str, more: str = ""
) -> argparse.ArgumentParser:
    """Return the parser of a verb with its description and its examples, without options.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
        name: the verb.
        summary: one line in lower case, without a full stop.
        examples: complete command lines.
        more: text below the examples.
    """
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=format_examples(*examples) + (f"\n\n{more}" if more else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return verb


def format_examples(*lines: str) -> str:
    """Return command lines as an indented list with a heading."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


class QuietOption(argparse.Namespace):
    """See `add_quiet`."""

    quiet: bool


def add_quiet(verb: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    verb.add_argument("--quiet", action="store_true", help="show no progress bars")


class LayoutOption(argparse.Namespace):
    """See `add_layout`."""

    layout: str


def add_layout(verb: argparse.ArgumentParser) -> None:
    """Add --layout."""
    verb.add_argument(
        "--layout",
        default="auto",
        metavar="L",
        help=f"folder layout of the data set: {', '.join(LAYOUTS)} (default: auto)",
    )


class PartOption(argparse.Namespace):
    """See `add_part_pattern`."""

    part_pattern: str | None


def add_part_pattern(verb: argparse.ArgumentParser, root: str = "DATA") -> None:
    """Add --part-pattern; `root` is the folder that paths are relative to, for the help."""
    verb.add_argument(
        "--part-pattern",
        type=part_pattern,
        metavar="REGEX",
        help="several images show one part: regular expression that is searched in each path below "
        f"{root}; its first group, or the whole match, names the part",
    )


class PixelsOption(argparse.Namespace):
    """See `add_max_pixels`."""

    max_pixels: int


def add_max_pixels(verb: argparse.ArgumentParser) -> None:
    """Add --max-pixels."""
    from snl.limits import MAX_PIXELS

    verb.add_argument(
        "--max-pixels",
        type=count,
        default=MAX_PIXELS,
        metavar="N",
        help=f"largest width x height of an image (default: {MAX_PIXELS}); larger ones are errors, "
        "because a small file can be an image that fills the memory",
    )


class DeviceOption(argparse.Namespace):
    """See `add_device`."""

    device: str


def add_device(verb: argparse.ArgumentParser) -> None:
    """Add --device."""
    verb.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N, mps (default: auto)"
    )


class PrecisionOption(argparse.Namespace):
    """See `add_precision`."""

    precision: str


def add_precision(verb: argparse.ArgumentParser) -> None:
    """Add --precision of inference."""
    verb.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="number format of the network (default: fp32); snl bench inference shows how much "
        "faster bf16 is on this machine",
    )


class ProductsOption(argparse.Namespace):
    """See `add_products_known`."""

    products: str


def add_products_known(verb: argparse.ArgumentParser) -> None:
    """Add --products, which says whether the product of each test image is known."""
    verb.add_argument(
        "--products",
        choices=("recognised", "given"),
        default="recognised",
        help="recognised: recognise the product of each image, as snl inspect does without "
        "--product (default); given: take the product from DATA",
    )


class RateOptions(argparse.Namespace):
    """See `add_rates`."""

    rate: float | None
    uncertain_rate: float | None
    unknown_rate: float | None


def add_rates(verb: argparse.ArgumentParser) -> None:
    """Add the false-alarm rates; None leaves each product's rate as it is."""
    verb.add_argument(
        "--rate",
        type=rate,
        metavar="X",
        help="false-alarm rate: largest share of normal images that are called anomalous",
    )
    verb.add_argument(
        "--uncertain-rate",
        type=rate,
        metavar="X",
        help="largest share of normal images that are called anomalous or uncertain",
    )
    verb.add_argument(
        "--unknown-rate",
        type=rate,
        metavar="X",
        help="largest share of images of known products that are called unknown product",
    )


class SettingsOptions(argparse.Namespace):
    """See `add_settings`."""

    method: str
    preset: str
    teacher: str | None
    teacher_weights: str | None
    image_size: int | None
    tile: int | None
    steps: int | None
    batch_size: int | None
    lr: float | None
    seed: int | None
    set: list[str]

    def overrides(self) -> dict[str, Any]:
        """Return the settings given as options, then those of --set, by dotted name."""
        from snl.settings import parse_assignments

        named = {
            "teacher.name": self.teacher,
            "teacher.weights": self.teacher_weights,
            "image_size": self.image_size,
            "tile": self.tile,
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "training.lr": self.lr,
            "training.seed": self.seed,
        }
        given = {name: value for name, value in named.items() if value is not None}
        return {**given, **parse_assignments(self.set)}


def add_settings(verb: argparse.ArgumentParser, preset: str | None = None) -> None:
    """Add everything that defines a model except its seed; `preset` is the default preset."""
    from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, METHODS, PRESETS

    preset = preset or DEFAULT_PRESET
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
        "--teacher", metavar="NAME", help="snl_compact, or any timm network with feature maps"
    )
    verb.add_argument(
        "--teacher-weights",
        metavar="FILE",
        help=".safetensors or .pth file; pretrained: the network's published weights (default); "
        "random: no training",
    )
    verb.add_argument(
        "--image-size",
        type=setting("image_size"),
        metavar="N",
        help="side of the network's input in pixels",
    )
    verb.add_argument(
        "--tile",
        type=tile,
        metavar="N",
        help="cut images into tiles of N x N pixels, each one an input (default: 0, whole images)",
    )
    verb.add_argument(
        "--steps", type=setting("training.steps"), metavar="N", help="number of training steps"
    )
    verb.add_argument(
        "--batch-size",
        type=setting("training.batch_size"),
        metavar="N",
        help="images of a training step",
    )
    verb.add_argument(
        "--lr", type=setting("training.lr"), metavar="X", help="largest learning rate"
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change any setting; all of them are listed below",
    )


def format_settings() -> str:
    """Return all settings with their default values, then those of the installed plug-ins."""
    from snl.registry import REGISTRIES, failed_plugins
    from snl.settings import plugin_values, resolve, setting_values

    def rows(values: dict[str, Any]) -> list[str]:
        shown = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in values.items()}
        return [f"  {name}={value}" for name, value in shown.items()]

    lines = ["settings for --set with their default values:", *rows(setting_values(resolve()))]
    parts = [part for r in REGISTRIES.values() for part in r.parts() if part.package]
    if parts:
        lines += ["", "installed plug-ins:"]
        lines += [f"  {part.kind} {part.name} (of {part.package})" for part in parts]
        lines += rows(plugin_values())
    lines += [f"  {name} could not be imported: {why}" for name, why in failed_plugins().items()]
    return "\n".join(lines)


class BudgetOptions(argparse.Namespace):
    """See `add_budget`."""

    cache_memory: float
    cache_disk: float
    checkpoint_every: float


def add_budget(verb: argparse.ArgumentParser) -> None:
    """Add the memory, disk and checkpoint options of training."""
    verb.add_argument(
        "--cache-memory",
        type=number_in(0, 1e6),
        default=4.0,
        metavar="GIB",
        help="memory for cached teacher features (default: 4; 0: none)",
    )
    verb.add_argument(
        "--cache-disk",
        type=number_in(0, 1e6),
        default=20.0,
        metavar="GIB",
        help="disk space next to the output for teacher features that do not fit into memory "
        "(default: 20; 0: none)",
    )
    verb.add_argument(
        "--checkpoint-every",
        type=number_in(0, 1e9),
        default=60.0,
        metavar="SECONDS",
        help="time between two checkpoints (default: 60)",
    )


def number_in(low: float, high: float) -> Callable[[str], float]:
    """Return the type of an option whose value is a number in low..high, both included."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not a number in {low:g}..{high:g}")
        return value

    return convert


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option whose value is a whole number in low..high, both included."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # also of more than 4300 digits
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{_shown(text)} is not a whole number in {low}..{high}"
            )
        return value

    return convert


def setting(name: str) -> Callable[[str], Any]:
    """Return the type of an option that is a setting, with the range of this setting."""

    def convert(text: str) -> Any:
        from snl.errors import SettingsError
        from snl.settings import resolve, setting_values

        try:
            return setting_values(resolve(overrides={name: text}))[name]
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def rate(text: str) -> float:
    """Return an option's value as a rate, `0.02` or `2%`: between 0 and 1, both excluded."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        meant = f"; {value / 100:g} or {value:g}%?" if 1 <= value < 100 and not percent else ""
        if number.count(",") == 1 and number.replace(",", "").isdecimal():
            meant = f"; with a decimal point: {text.strip().replace(',', '.')}?"
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is not a rate; give a number between 0 and 1, without 0 and 1, or a "
            f"percentage{meant}"
        )
    return value


def part_pattern(text: str) -> str:
    """Return an option's value if it is a regular expression that is not empty."""
    from snl.data.parts import PartPattern
    from snl.errors import DataError

    if not text:
        raise argparse.ArgumentTypeError("the part pattern is empty")
    try:
        return PartPattern(text).text
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


number = number_in(0, 1e9)
"""Type of a number of at least 0."""
count = whole(1, 2**31 - 1)
"""Type of a whole number of at least 1."""
index = whole(0, 2**31 - 1)
"""Type of a whole number of at least 0."""
batch_size = whole(1, 4096)
"""Type of the number of images in a batch of inference."""
threads = whole(0, 1024)
"""Type of a number of threads; 0: chosen by the runtime."""
seed = whole(0, 2**63 - 1)
"""Type of the seed of random numbers."""
tile = setting("tile")
"""Type of a tile size; 0: whole images."""


def _shown(text: str) -> str:
    """Return an option's value for a message, quoted if it is empty, and not too long."""
    text = text if len(text) <= 60 else f"{text[:40]}...{text[-10:]}"
    return text if text.strip() else repr(text)
