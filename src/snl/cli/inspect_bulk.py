"""`snl inspect -o RESULTS`: many images from anywhere into a folder of Parquet files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.cli.common import BAD_INPUT, OK, say
from snl.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from snl.bulk.inspect import Done
    from snl.decision.calibration import Rates
    from snl.runtime.inspector import Inspector

_OTHERS = (
    *("out", "json", "csv", "coco", "labelme", "monitor", "parts", "part_pattern"),
    *("copy_rejects", "move_rejects"),
)
"""Options of outputs that a bulk inspection does not write."""
_FILES = {
    **dict.fromkeys((".json", ".jsonl"), "for JSON lines give --json OUT"),
    **dict.fromkeys((".csv", ".xlsx", ".tsv"), "for a table give --csv OUT"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "for overlays give --out DIR"),
}
"""By suffix: what somebody who gives such a name to -o looks for."""
_SHOWN = 5
"""Failed shards whose reason is printed."""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of a bulk inspection."""
    verb.add_argument(
        "-o",
        "--output",
        metavar="RESULTS",
        help="write the results as a folder of Parquet files, here or at an address such as "
        "s3://bucket/results; PATHs may then be addresses, tar archives and Parquet files, too. "
        "The same command goes on where it was stopped",
    )
    verb.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="with -o: inspect on the Ray cluster at this address (auto: that of this machine, "
        "local: start one)",
    )
    verb.add_argument(
        "--workers", type=int, default=0, metavar="N", help="with --ray: processes (default: all)"
    )
    verb.add_argument("--maps", action="store_true", help="with -o: store the anomaly maps, too")
    verb.add_argument(
        "--image-column", default="image", metavar="NAME", help="of Parquet files (default: image)"
    )
    verb.add_argument(
        "--id-column", default="", metavar="NAME", help="of Parquet files (default: row numbers)"
    )


def check(options: Any) -> None:
    """Check that options fit together.

    Raises:
        SettingsError: they do not.
    """
    from snl.data.remote import is_address, is_container
    from snl.data.video import is_live

    if options.output:
        given = [name for name in _OTHERS if getattr(options, name, None)]
        if given:
            raise SettingsError(
                f"-o writes all results as Parquet; leave out --{given[0].replace('_', '-')}, or -o"
            )
        suffix = Path(options.output).suffix.lower()
        if suffix in _FILES:
            raise SettingsError(
                f"-o {options.output}: -o writes a folder of Parquet files, whose name does not "
                f"end in {suffix}; {_FILES[suffix]}"
            )
        if options.workers < 0:
            raise SettingsError(f"--workers {options.workers}: give a number of 0 or more")
        return
    if options.ray or options.maps or options.workers:
        raise SettingsError("--ray, --workers and --maps need -o RESULTS")
    for path in options.paths:
        if (is_address(path) and not is_live(path)) or is_container(path):
            raise SettingsError(f"{path}: give a folder for the results, too: -o RESULTS")


def run(options: Any, inspector: Inspector, rates: Rates | None) -> int:
    """Inspect all shards that are not done yet."""
    from snl.bulk import run as running
    from snl.bulk.inspect import Work
    from snl.bulk.results import Results
    from snl.bulk.shards import Columns, find_shards, total, without
    from snl.signals import Stopped

    columns = Columns(options.image_column, options.id_column)
    work = Work(options.product, rates, options.tile, options.batch_size, options.maps, columns)
    results = Results(options.output.rstrip("/"))
    shards = find_shards(options.paths, columns)  # fails before anything is written
    done = results.open(_about(inspector, options, rates))
    if done and total(shards):
        shards = without(shards, results.ids())
    waiting = [shard for shard in shards if shard.key not in done]
    if len(waiting) < len(shards) or (done and not shards):
        say(f"{len(done)} shards are in {options.output} already; {len(waiting)} remain")
    if not waiting:
        say("everything is inspected")
        return OK
    if options.ray:
        loading = running.Loading(
            options.device, options.threads, options.precision, options.max_pixels
        )
        inspector.close()
        stream = running.run_on_ray(
            Path(options.file), loading, waiting, results, work, options.ray, options.workers
        )
    else:
        stream = running.run_here(inspector, waiting, results, work)
    summary = _Summary(len(waiting), options.quiet)
    status = OK
    try:
        for one in stream:
            summary.add(one)
    except Stopped as stop:
        say(f"stopped; {summary.shards} shards are done, the same command goes on with the others")
        status = stop.status
    finally:
        summary.close()
    summary.tell(options.output)
    return status or (BAD_INPUT if summary.failed or summary.errors else OK)


def _about(inspector: Inspector, options: Any, rates: Rates | None) -> dict[str, Any]:
    """Return what must be the same for results to stand in one folder."""
    from dataclasses import asdict

    calibration = inspector.calibration
    return {
        "model": inspector.metadata.network,
        "calibration": calibration.created,
        "product": options.product,
        "rates": asdict(rates or calibration.rates),
        "tile": inspector.tile if options.tile is None else options.tile,
        "maps": options.maps,
    }


class _Summary:
    """Counts what is done, with a progress bar of shards."""

    def __init__(self, shards: int, quiet: bool) -> None:
        from snl.progress import new_bar

        self.shards = self.images = self.failed = 0
        self.errors: list[str] = []
        self.first_error = ""
        self._started = time.monotonic()
        self._bar = new_bar("inspecting", "shard", shards, quiet=quiet)

    def add(self, one: Done) -> None:
        """Count a shard."""
        if one.error:
            self.errors.append(one.error)
        else:
            self.shards += 1
        self.images += one.images
        self.failed += one.failed
        self.first_error = self.first_error or one.first_error
        rate = self.images / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix(images=self.images, img_s=f"{rate:.0f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def tell(self, output: str) -> None:
        """Say what was done."""
        seconds = time.monotonic() - self._started
        say(f"{self.images} images of {self.shards} shards in {seconds:.0f} s: {output}")
        if self.failed:
            say(
                f"{self.failed} images could not be inspected; their rows have the reason in the "
                f"column error, first: {self.first_error}"
            )
        for text in self.errors[:_SHOWN]:
            say(f"error: {text}")
        if len(self.errors) > _SHOWN:
            say(f"error: and {len(self.errors) - _SHOWN} more shards")
