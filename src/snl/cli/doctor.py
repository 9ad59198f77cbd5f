"""`snl doctor`: check a data set, or, without one, the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snl.cli import options as shared
from snl.cli.common import OK, PROBLEMS, aligned, check_json, progress_bar, show_result, table
from snl.errors import SettingsError
from snl.limits import TEST_SHARE

SUMMARY = "check a data set for problems, or, without DATA, the installation"
OPTIONAL_PATH = "data"
"""See `snl.cli.main.parse`."""


class Options(shared.LayoutOption, shared.PartOption, shared.PixelsOption, shared.QuietOption):
    """Options of `snl doctor`."""

    data: Path | None
    json: Path | None
    test_share: float


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = shared.new_verb(
        verbs,
        "doctor",
        SUMMARY,
        "snl doctor",
        "snl doctor parts/",
        "snl doctor visa/ --layout visa --json findings.json",
        "snl doctor --json environment.json",
        more="The exit status is 1 if there are errors in DATA or packages that do not work.",
    )
    verb.add_argument(
        "data",
        nargs="?",
        type=Path,
        metavar="DATA",
        help="folder of products, or a manifest; without it: versions, devices and optional extras "
        "of this installation",
    )
    verb.add_argument(
        "--json", type=Path, metavar="OUT", help="write the result as JSON; -: to stdout, no text"
    )
    shared.add_layout(verb)
    shared.add_part_pattern(verb)
    verb.add_argument(
        "--test-share",
        type=shared.number_in(0, 0.9),
        default=TEST_SHARE,
        metavar="S",
        help="share of the normal images that are test images, of products with anomalous images "
        f"and without a split; as snl train --set training.test_share=S (default: {TEST_SHARE:g})",
    )
    shared.add_max_pixels(verb)
    shared.add_quiet(verb)


def run(options: Options) -> int:
    """Check the data set or the environment; problems make the status 1."""
    return (
        _check_environment(options) if options.data is None else _check_data(options.data, options)
    )


def _check_data(data: Path, options: Options) -> int:
    from snl.data.catalog import Catalog
    from snl.data.diagnosis import format_diagnosis, to_dict
    from snl.data.doctor import diagnose
    from snl.data.inputs import catalog_files
    from snl.kinds import FINDINGS

    catalog = Catalog.read(data, options.layout, options.part_pattern, options.test_share)
    check_json(options.json, FINDINGS, catalog_files(catalog, data))
    diagnosis = diagnose(
        catalog,
        max_pixels=options.max_pixels,
        progress=progress_bar("reading images", options.quiet),
    )
    show_result(format_diagnosis(diagnosis), to_dict(diagnosis), options.json)
    return OK if diagnosis.ok else PROBLEMS


def _check_environment(options: Options) -> int:
    from snl.environment import describe_environment
    from snl.kinds import ENVIRONMENT

    if options.layout != "auto":
        raise SettingsError(f"--layout {options.layout} has no DATA to read; give DATA with it")
    if options.part_pattern:
        raise SettingsError("--part-pattern has no DATA to read; give DATA with it")
    check_json(options.json, ENVIRONMENT)
    report = describe_environment(progress_bar("importing packages", options.quiet, "package"))
    show_result(format_environment(report), report, options.json)
    return PROBLEMS if report["problems"] else OK


def format_environment(report: dict[str, Any]) -> str:
    """Return the report of `snl.environment.describe_environment` as aligned text."""
    blocks = [
        aligned(_machine(report)),
        table(
            [
                ["package", "version", "needed by", "status"],
                *map(_package_row, filter(_is_shown, report["packages"])),
            ],
            left=4,
        ),
        aligned(_devices(report["devices"])),
    ]
    if report["extras"]:
        rows = [["extra", "status", "needed for", "install"]]
        rows += [
            [
                extra["name"],
                "complete" if extra["complete"] else _incomplete(extra),
                extra["needed_for"] or "-",
                "" if extra["complete"] else extra["install"],
            ]
            for extra in report["extras"]
        ]
        blocks.append(table(rows, left=4))
    blocks.append("\n".join(f"problem: {text}" for text in report["problems"]) or "no problems")
    return "\n\n".join(blocks)


def _machine(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    python, cpu = report["python"], report["cpu"]
    yield "snl", report["snl"]
    yield "Python", f"{python['version']} ({python['implementation']}), {python['executable']}"
    yield "OS", report["os"]
    cores = f"{cpu['cores']} logical cores"
    if cpu["usable_cores"] != cpu["cores"]:
        cores += f", {cpu['usable_cores']} of them usable by this process"
    yield "CPU", f"{cpu['name']}, {cores}"
    if cpu["capability"] is None:
        yield "CPU features", "unknown (PyTorch is needed to read them)"
    else:
        features = ", ".join(cpu["features"]) or "none of AVX2, AVX-512, AMX and bf16"
        yield "CPU features", f"{features}; PyTorch uses {cpu['capability']}"


def _devices(devices: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for title, key in (
        ("PyTorch", "torch"),
        ("OpenVINO", "openvino"),
        ("ONNX Runtime", "onnxruntime"),
    ):
        listed = devices[key]
        if listed is None:
            yield f"{title} devices", "not available"
            continue
        words = []
        for device in listed:
            details = [device["name"]] if device.get("name") else []
            if device.get("memory_bytes"):
                details.append(f"{device['memory_bytes'] / 2**30:.1f} GiB")
            words.append(device["device"] + (f" ({', '.join(details)})" if details else ""))
        yield f"{title} devices", ", ".join(words) or "none"


def _package_row(package: dict[str, Any]) -> list[str]:
    status = package["status"] + (f": {package['error']}" if package["error"] else "")
    needed_by = ", ".join(name for name in package["needed_by"] if name != "dev")
    return [package["name"], package["version"] or "-", needed_by or "dev", status]


def _is_shown(package: dict[str, Any]) -> bool:
    """Return False for a missing package that only developers need."""
    return bool(package["status"] != "missing" or package["needed_by"] != ["dev"])


def _incomplete(extra: dict[str, Any]) -> str:
    parts = [f"{r['name']} {r['status']}" for r in extra["requirements"] if r["status"] != "ok"]
    shown = parts[:4] + ([f"{len(parts) - 4} more"] if len(parts) > 4 else [])
    return ", ".join(shown)
