"""`snl train`: train one model on the normal images of all products."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli import options as shared
from snl.cli import rois
from snl.cli.common import OK, say
from snl.cli.console import BAD_INPUT
from snl.errors import SettingsError

if TYPE_CHECKING:
    from snl.runtime.inspector import Inspector

SUMMARY = "train one model on the normal images of all products"


class Options(
    shared.SettingsOptions,
    shared.BudgetOptions,
    shared.LayoutOption,
    shared.PartOption,
    rois.RoiOption,
    shared.PixelsOption,
    shared.DeviceOption,
    shared.QuietOption,
):
    """Options of `snl train`."""

    data: str
    output: Path
    resume: bool
    overwrite: bool
    on_bad_image: str
    tensorboard: bool
    devices: str | None
    data_cache: Path | None


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "train",
        SUMMARY,
        "snl train parts/ -o parts.snl",
        "snl train mvtec/ -o mvtec.snl --preset paper --device cuda",
        "snl train parts/ -o fd.snl --method fd --teacher resnet18 --teacher-weights resnet18.pth",
        "snl train parts/ -o a.snl --set cram.form=centres --set loss.intra=0",
        "snl train parts/ -o parts.snl --resume",
        "snl train parts/ -o parts.snl --devices 0,1",
        "snl train parts/ -o parts.snl --roi bottle=40,20,300,200",
        "snl train s3://plant/parts -o parts.snl",
        more=shared.format_settings(),
    )
    verb.add_argument(
        "data",
        metavar="DATA",
        help="folder of products, or a manifest; also a tar "
        "archive, or an address such as s3://plant/parts, which is copied first",
    )
    verb.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="bundle to write (.snl)"
    )
    shared.add_settings(verb)
    verb.add_argument("--seed", type=shared.seed, metavar="N", help="seed of all random numbers")
    verb.add_argument(
        "--resume", action="store_true", help="continue an interrupted run from its last checkpoint"
    )
    verb.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    verb.add_argument(
        "--on-bad-image",
        choices=("skip", "stop"),
        default="skip",
        help="what to do with an unreadable image: skip and count it (default), or stop",
    )
    shared.add_budget(verb)
    verb.add_argument(
        "--tensorboard", action="store_true", help="write scalars to FILE.run/tensorboard"
    )
    verb.add_argument(
        "--data-cache",
        type=Path,
        metavar="DIR",
        help="folder for copies of data from an address or an archive; what has not changed is not "
        "fetched again (default: snl/data in the user's cache folder)",
    )
    shared.add_layout(verb)
    shared.add_part_pattern(verb)
    rois.add_roi(verb)
    shared.add_max_pixels(verb)
    shared.add_device(verb)
    verb.add_argument(
        "--devices",
        metavar="LIST",
        help="train in one process for each of these GPUs, such as 0,1 (or cpu,cpu); the result is "
        "that of one process with the same batch size",
    )
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Train, write the bundle, and show what its calibration allows."""
    import snl
    from snl.model.ranks import FailedElsewhereError
    from snl.signals import Stopped
    from snl.training import distributed, launch
    from snl.training.cache import CacheBudget

    started = time.perf_counter()
    device = options.device
    if options.devices:
        if device != "auto":
            raise SettingsError("give --device or --devices, not both")
        devices = launch.parse_devices(options.devices)
        if not distributed.is_started_by_torchrun() and len(devices) > 1:
            return launch.launch(vars(options)["arguments"], devices)
        device = _own_device(devices)
    is_first = distributed.is_first()
    try:
        inspector = snl.train(
            options.data,
            output=options.output,
            method=options.method,
            preset=options.preset,
            overrides=options.overrides(),
            layout=options.layout,
            part_pattern=options.part_pattern,
            rois=rois.rois_of(options.roi),
            data_cache=options.data_cache,
            device=device,
            resume=options.resume,
            overwrite=options.overwrite,
            cache=CacheBudget(options.cache_memory, options.cache_disk),
            skip_bad=options.on_bad_image == "skip",
            checkpoint_every=options.checkpoint_every,
            tensorboard=options.tensorboard,
            max_pixels=options.max_pixels,
            quiet=options.quiet,
            note=say,
        )
    except FailedElsewhereError:
        return BAD_INPUT
    except distributed.LostError:
        if launch.LAUNCHED in os.environ:
            return BAD_INPUT
        raise
    except Stopped as stop:
        if not is_first:
            return stop.status
        say(f"{stop}; to continue, run the same command with --resume")
        return stop.status
    if not is_first:
        return OK
    training = inspector.training.facts
    seconds = time.perf_counter() - started
    say(
        f"{options.output}: {training['steps']} steps, {seconds:.0f} s, loss {training['loss']:.4f}"
    )
    _report_calibration(options, inspector)
    say(f"next: snl inspect {options.output} IMAGES")
    return OK


def _own_device(devices: Sequence[str]) -> str:
    """Return the device of this process, the only one or one of several, of those in a list."""
    if devices[0] == "cpu":
        return "cpu"
    return f"cuda:{devices[0]}" if len(devices) == 1 else "cuda"


def _report_calibration(options: Options, inspector: Inspector) -> None:
    """Say which products have too few held-out images for the false-alarm rate."""
    from snl.decision.calibration import images_needed

    calibration, rate = inspector.calibration, inspector.rates.anomalous
    held_back = sum(len(data) for data in calibration.sets.values())
    if not calibration.can_decide(rate):
        needed = images_needed(rate)
        ways = [
            f"add {needed - held_back} or more with snl calibrate {options.output} NORMALS --add"
        ]
        if _most_held_out(inspector) >= needed:
            ways.append("train with --set training.holdout=0.5")
        if (possible := calibration.possible_rate()) is not None:
            ways.append(f"allow more false alarms with snl inspect --rate {possible:g}")
        say(
            f"note: {held_back} normal images were held out, and a false-alarm rate of {rate:g} "
            f"needs {needed}, so every decision will be 'uncertain': {', or '.join(ways)}"
        )
        return
    few = [name for name in calibration.products
           if calibration.scores.threshold(rate, name)[1] == "all products"]  # fmt: skip
    if few:
        names = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        say(
            f"note: {names}: too few images were held out for a false-alarm rate of {rate:g} per "
            "product; the threshold comes from the images of all products together"
        )


def _most_held_out(inspector: Inspector) -> int:
    """Return how many images a training would hold out that holds out half of them."""
    from dataclasses import replace

    from snl.training.selection import held_out_count

    half = replace(inspector.settings.training, holdout=0.5)
    trained = inspector.training.products
    return sum(
        held_out_count(trained.get(name, 0) + len(held), half)
        for name, held in inspector.calibration.sets.items()
    )
