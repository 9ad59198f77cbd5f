"""`snl drift`: show the state of a drift monitor, and acknowledge its alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, say, show, table
from snl.cli.inspect_outputs import MONITOR_BUSY
from snl.errors import SnlError

SUMMARY = "show what a drift monitor has found, and acknowledge its alarms"


class Options(shared.QuietOption):
    """Options of `snl drift`."""

    state: Path
    acknowledge: list[str] | None
    json: bool


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "drift",
        SUMMARY,
        "snl drift drift.json",
        "snl drift drift.json --acknowledge bottle",
        "snl drift drift.json --acknowledge",
        more="The exit status is 1 while an alarm stands. Acknowledge one when its cause is found: "
        "the product is then\nmonitored from the calibration on again. If what changed is the new "
        "normal state, calibrate again\n(snl calibrate FILE NORMALS) and start a new state file.",
    )
    verb.add_argument("state", type=Path, metavar="FILE", help="of snl inspect --monitor")
    verb.add_argument(
        "--acknowledge",
        nargs="*",
        metavar="PRODUCT",
        help="end the alarms of these products; without a product: all alarms",
    )
    verb.add_argument("--json", action="store_true", help="print JSON")
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Acknowledge alarms if asked, and print the state."""
    import json
    from dataclasses import asdict

    from snl.locks import locked
    from snl.monitoring.drift import DriftMonitor

    if options.acknowledge is None:
        monitor = DriftMonitor.load(options.state)
    else:
        if not options.state.exists():
            DriftMonitor.load(options.state)  # says so; a lock would create its folder
        with locked(options.state, MONITOR_BUSY):
            monitor = DriftMonitor.load(options.state)
            _acknowledge(monitor, options)
    status = monitor.status()
    if options.json:
        show(json.dumps([asdict(one) for one in status.values()], indent=2, ensure_ascii=False))
    else:
        rows = [
            [
                one.product,
                str(one.images),
                "ALARM" if one.alarm else "-",
                f"image {one.since} ({one.since_when})" if one.alarm else "-",
                one.reason or "-",
            ]
            for one in sorted(status.values(), key=lambda one: (not one.alarm, one.product))
        ]
        show(table([["product", "images", "drift", "since", "reason"], *rows], left=5))
    return PROBLEMS if any(one.alarm for one in status.values()) else OK


def _acknowledge(monitor: Any, options: Options) -> None:
    """Start products with an alarm again, and save the state.

    Raises:
        SnlError: a product that is not monitored, or has no alarm.
    """
    status = monitor.status()
    named = list(dict.fromkeys(options.acknowledge or ()))
    for product in named:
        if product not in status:
            known = ", ".join(status) or "none"
            raise SnlError(f"{product}: is not monitored in {options.state}; it has: {known}")
        if not status[product].alarm:
            raise SnlError(f"{product}: has no alarm in {options.state}; nothing was changed")
    ended = named or [product for product, one in status.items() if one.alarm]
    if not ended:
        say("no alarm stands; nothing was changed")
        return
    for product in ended:
        monitor.reset(product)
    monitor.save(options.state)
    for product in ended:
        one = status[product]
        say(f"{product}: acknowledged after {one.images} images: {one.reason}")
