"""Kind 4: outputs that would overwrite inputs: every verb with every output option.

The table is made from the real parsers: a path option that neither OUTPUTS nor INPUTS knows makes
`unknown_options` fail.
"""

from __future__ import annotations

import argparse
import functools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from typing import Any

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Outcome, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.site import Site


@dataclass(frozen=True)
class Output:
    """An output option of a verb: its command without the option, and what it reads.

    Attributes:
        line: arguments; `parts.snl`, `data` and `in` exist.
        folder: the option takes a folder.
        suffix: of the file it writes.
        reads: inputs of the command, among `bundle`, `images`, `masks`, `manifest`.
        more: patterns of what it writes besides.
    """

    line: Sequence[str]
    folder: bool = False
    suffix: str = ".json"
    reads: tuple[str, ...] = ("bundle",)
    more: tuple[str, ...] = ()


_TINY = (
    *("--teacher", "test_resnet", "--teacher-weights", "random", "--image-size", "64"),
    *("--batch-size", "4", "--steps", "2", "--set", "training.precision=fp32"),
    *("--set", "teacher.stages=1,2"),
)
_INSPECT = ("inspect", "parts.snl", "in")
_MEASURED = ("bundle", "images", "masks", "manifest")

OUTPUTS: dict[tuple[str, str], Output] = {
    ("train", "output"): Output(
        ("train", "data", *_TINY, "--overwrite"), suffix=".snl", reads=_MEASURED[1:]
    ),
    ("add", "output"): Output(
        ("add", "parts.snl", "in", "--product", "nut", "--quick", "--force"),
        suffix=".snl",
        reads=("bundle", "images"),
    ),
    ("remove", "output"): Output(("remove", "parts.snl", "bolt"), suffix=".snl"),
    ("undo", "output"): Output(("undo", "parts.snl"), suffix=".snl"),
    ("calibrate", "output"): Output(
        ("calibrate", "parts.snl", "--false-alarms", "in/000.png", "--product", "bolt"),
        suffix=".snl",
        reads=("bundle", "images"),
    ),
    ("inspect", "out"): Output(_INSPECT, folder=True, reads=("bundle", "images")),
    ("inspect", "json"): Output(_INSPECT, suffix=".jsonl", reads=("bundle", "images")),
    ("inspect", "csv"): Output(_INSPECT, suffix=".csv", reads=("bundle", "images")),
    ("inspect", "copy_rejects"): Output(_INSPECT, folder=True, reads=("bundle", "images")),
    ("inspect", "move_rejects"): Output(_INSPECT, folder=True, reads=("bundle", "images")),
    ("inspect", "coco"): Output(_INSPECT, reads=("bundle", "images")),
    ("inspect", "labelme"): Output(_INSPECT, folder=True, reads=("bundle", "images")),
    ("inspect", "monitor"): Output(_INSPECT, reads=("bundle", "images")),
    ("inspect", "parts"): Output(
        (*_INSPECT, "--part-pattern", r"(\d+)"), suffix=".jsonl", reads=("bundle", "images")
    ),
    ("evaluate", "json"): Output(("evaluate", "parts.snl", "data"), reads=_MEASURED),
    ("evaluate", "save_maps"): Output(
        ("evaluate", "parts.snl", "data"), folder=True, reads=_MEASURED
    ),
    ("report", "output"): Output(("report", "parts.snl", "data"), suffix=".html", reads=_MEASURED),
    ("probe", "json"): Output(("probe", "parts.snl", "data", "--images", "1"), reads=_MEASURED[:2]),
    ("probe", "picture"): Output(
        ("probe", "parts.snl", "data", "--images", "1"), suffix=".png", reads=_MEASURED[:2]
    ),
    ("export", "output"): Output(
        ("export", "parts.snl", "--data", "data"), suffix=".onnx", reads=("bundle", "images")
    ),
    ("doctor", "json"): Output(("doctor", "data"), reads=_MEASURED[1:]),
    ("info", "json"): Output(("info", "parts.snl")),
    ("demo", "out"): Output(("demo",), folder=True, reads=()),
    ("bench", "out"): Output(
        ("bench", "mvtec", "data", "--classes", "found", "--seeds", "1", *_TINY),
        folder=True,
        reads=("images",),
    ),
}
"""Every option that writes, by verb and attribute."""

INPUTS = {
    *(
        ("add", "normals"),
        ("train", "data"),
        ("calibrate", "file"),
        ("calibrate", "normals"),
        ("inspect", "paths"),
    ),
    *(("calibrate", "false_alarms"), ("calibrate", "misses"), ("calibrate", "ignore")),
    *(("calibrate", "reviews"), ("calibrate", "data")),
    *(("export", "data"), ("doctor", "data"), ("info", "file"), ("bench", "root")),
    *(("bench", "task"), ("evaluate", "data"), ("report", "data"), ("probe", "data")),
    # the service's own folder: a database, and files that are named by the hash of their content
    *(("serve", "files"), ("serve", "config"), ("serve", "tls_cert"), ("serve", "tls_key")),
    *(("serve", "data"), ("token", "data"), ("backup", "data")),
    # refused unless it is a backup, or new; and unless it is empty
    *(("backup", "backup"), ("restore", "backup"), ("restore", "data")),
    # a cache: only folders in it that are named by an address's hash are written
    ("train", "data_cache"),
    # read, and written only if it is a drift state
    ("drift", "state"),
}
"""Options that are paths and only read, or that write nothing a user names."""

_WRITES = ("OUT", "DIR", "STATE")
"""Placeholders of outputs in the help."""


def unknown_options() -> list[str]:
    """Return the path options of the parsers that have no row in the table."""
    return [
        f"{verb} {action.dest}"
        for verb, action in _options()
        if _is_path(action) and (verb, action.dest) not in {*OUTPUTS, *INPUTS}
    ]


def _options() -> Iterator[tuple[str, argparse.Action]]:
    from snl.cli.main import VERBS, make_parser

    for verb in VERBS:
        parser = make_parser(verb)
        groups = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        for action in groups.choices[verb]._actions:
            yield verb, action


@functools.cache
def option_strings() -> frozenset[str]:
    """Return every option of every verb."""
    found = {text for _, action in _options() for text in action.option_strings}
    return frozenset(found | {"--version", "--help"})


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in _WRITES


def flag_of(verb: str, dest: str) -> str:
    """Return the option string of an output, the long one if there is one."""
    for name, action in _options():
        if (name, action.dest) == (verb, dest):
            return max(action.option_strings, key=len)
    raise KeyError(f"{verb} {dest}")


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""

    def known(site: Site) -> Command:
        return Command(call=unknown_options)

    yield Attempt(
        "outputs-table-is-complete",
        4,
        known,
        (right(checks.value_check(lambda v: f"no row for {v}" if v else None)),),
        fast=True,
    )
    for (verb, dest), output in OUTPUTS.items():
        for name, (target, reads) in _targets(output).items():
            if name == "plain" and verb in ("bench", "demo"):
                continue  # minutes, and no hostile file
            make = bind(_aimed, verb=verb, dest=dest, target=target)
            expected, writes = _expected(verb, dest, output, name, reads)
            yield Attempt(
                f"output-{verb}-{dest.replace('_', '-')}-{name}",
                4,
                make,
                expected,
                writes,
                fast=name in ("image", "bundle") and verb in ("inspect", "evaluate", "calibrate"),
            )
    yield from _each_other()
    yield from _exports()
    yield from _labelme()
    yield from _file_modes()


Target = Callable[[Site], str]


def _targets(output: Output) -> dict[str, tuple[Target, str]]:
    """Return the targets of an option by name, with the input that each is: `` for none."""

    def fixed(name: str) -> Target:
        return lambda site: name

    inside = any(part in ("in", "in/000.png") for part in output.line)
    image = "in/000.png" if inside else "data/bolt/train/good/000.png"

    def symlink(site: Site) -> str:
        (site / "link").symlink_to(image if "images" in output.reads else "parts.snl")
        return "link"

    def symlink_folder(site: Site) -> str:
        (site / "way").symlink_to(Path(image).parent, target_is_directory=True)
        return "way/000.png"

    def hard(site: Site) -> str:
        os.link(site / image, site / f"hard{output.suffix}")
        return f"hard{output.suffix}"

    def folder(site: Site) -> str:
        (site / f"folder{output.suffix}").mkdir()
        return f"folder{output.suffix}"

    def device(site: Site, minor: int) -> str:
        name = f"device{output.suffix}"
        os.mknod(site / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        return name

    def pipe(site: Site) -> str:
        os.mkfifo(site / f"pipe{output.suffix}")
        return f"pipe{output.suffix}"

    def read_only(site: Site) -> str:
        return f"/proc/nowhere/out{output.suffix}"

    def file_as_folder(site: Site) -> str:
        return f"parts.snl/out{output.suffix}"

    def long_name(site: Site) -> str:
        return "x" * 260 + output.suffix

    targets: dict[str, tuple[Target, str]] = {
        "plain": (fixed("new/out" + ("" if output.folder else output.suffix)), ""),
        "bundle": (fixed("parts.snl"), "bundle"),
        "bundle-dotted": (fixed("./new/../parts.snl"), "bundle"),
        "image": (fixed(image), "images"),
        "symlink": (symlink, "any"),
        "read-only": (read_only, "bad"),
        "file-as-folder": (file_as_folder, "bad"),
        "long-name": (long_name, "bad"),
        "pipe": (pipe, "special"),
    }
    if os.geteuid() == 0:
        targets["full"] = (bind(device, minor=7), "special")
        targets["null"] = (bind(device, minor=3), "special")
    if not output.folder:
        targets |= {
            "folder": (folder, "bad"),
            "empty-name": (fixed(""), "bad"),
            "symlink-folder": (symlink_folder, "images"),
            "hard-link": (hard, "hard"),
        }
    if "masks" in output.reads:
        targets["test-image"] = (fixed("data/bolt/test/dent/001.png"), "images")
        targets["mask"] = (fixed("data/bolt/ground_truth/dent/000_mask.png"), "masks")
    return targets


def _expected(
    verb: str, dest: str, output: Output, name: str, reads: str
) -> tuple[tuple[Outcome, ...], tuple[str, ...]]:
    """Return the outcomes and the files that may be written, for an option and a target."""
    place = "new/out" + ("" if output.folder else output.suffix)
    base = f"new/out{output.suffix}"
    written = (base, f"{base}.*", f"{base}.*/*", "new/out/*", "new/out.bin")
    done = (0, 1)
    if name == "plain":
        check = None if output.folder else checks.exists(place)
        return (right(check, status=done),), written
    if name == "hard-link":
        # replacing a file leaves the other name of its content alone
        hard = f"hard{output.suffix}"
        return (right(status=done), refused()), (hard, f"{hard}.*", f"{hard}.*/*")
    if name.startswith("bundle") and (verb, dest) == ("calibrate", "output"):
        return (right(checks.loads("parts.snl")), refused()), ("parts.snl",)
    if verb == "export" and name in ("folder", "empty-name"):
        return (refused(), right()), ("folder.onnx/*", "parts.onnx")  # a folder is allowed there
    if name == "null":
        return (right(status=done), refused(), partly(r"device")), ()
    if name.startswith("bundle") and verb in ("train", "doctor", "bench", "demo"):
        # not read by this verb: replacing it is what was asked for
        writes = ("parts.snl", "parts.snl.*", "parts.snl.*/*")
        return (refused(), right(status=done)), writes if verb != "demo" else ()
    unread = reads == "images" and "images" not in output.reads
    if unread or (name == "symlink" and "images" not in output.reads and not output.reads):
        return (refused(), right(status=done)), ("in/000.png", "data/*", "link")
    return (refused(),), ()


def _aimed(site: Site, verb: str, dest: str, target: Target) -> Command:
    output = OUTPUTS[verb, dest]
    site.bundle()
    site.data()
    site.images("in", 2)
    return Command([*output.line, flag_of(verb, dest), target(site), *_quiet(verb)])


def _quiet(verb: str) -> list[str]:
    return [] if verb == "info" else ["--quiet"]


def _each_other() -> Iterator[Attempt]:
    """Two outputs of one command in one file."""
    files = [d for (v, d), o in OUTPUTS.items() if v == "inspect" and not o.folder]
    pairs = [("inspect", a, b) for i, a in enumerate(files) for b in files[i + 1 :]]
    pairs += [("probe", "json", "picture")]
    for verb, first, second in pairs:
        for spelling in ("out.json", "./out.json", "link"):

            def make(
                site: Site, verb: str = verb, a: str = first, b: str = second, other: str = spelling
            ) -> Command:
                site.bundle()
                site.data()
                site.images("in", 2)
                if other == "link":
                    (site / "link").symlink_to("out.json")
                line = [*OUTPUTS[verb, a].line, flag_of(verb, a), "out.json"]
                return Command([*line, flag_of(verb, b), other, "--quiet"])

            name = f"outputs-equal-{verb}-{first}-{second}-{spelling.strip('./').split('.')[0]}"
            yield Attempt(
                name + ("-dot" if spelling[0] == "." else ""),
                4,
                make,
                (refused(),),
                fast=spelling == "out.json" and second == "coco",
            )
    folders = {
        "json-in-out": ("inspect", "--out", "dir", "--json", "dir/000.png"),
        "json-in-labelme": ("inspect", "--labelme", "dir", "--json", "dir/000.json"),
        "coco-in-labelme": ("inspect", "--labelme", "dir", "--coco", "dir/001.json"),
        "monitor-in-labelme": ("inspect", "--labelme", "dir", "--monitor", "dir/001.json"),
        "coco-in-out": ("inspect", "--out", "dir", "--coco", "dir/001.png"),
        "out-is-json": ("inspect", "--out", "dir", "--json", "dir"),
        "labelme-below-json": ("inspect", "--labelme", "dir/x", "--json", "dir"),
        "out-is-input-folder": ("inspect", "--out", "in"),
        "out-has-bundle": ("inspect", "--out", "in", "--json", "in/a.jsonl"),
    }
    for name, (_, *line) in folders.items():

        def both(site: Site, line: Sequence[str] = line) -> Command:
            site.bundle()
            site.images("in", 2)
            return Command([*_INSPECT, *line, "--quiet"])

        yield Attempt(f"outputs-{name}", 4, both, (refused(),))

    def maps(site: Site) -> Command:
        site.bundle()
        site.data()
        first = site.snl("evaluate", "parts.snl", "data", "--save-maps", "maps", "--quiet")
        assert first.status in (0, 1), first.err
        one = next((site / "maps").rglob("*.npy"))
        for path in (site / "maps").rglob("*.npy"):
            path.unlink()
        target = one.relative_to(site.root)
        line = ["evaluate", "parts.snl", "data", "--save-maps", "maps", "--json", target]
        return Command([*line, "--quiet"])

    yield Attempt("outputs-json-in-maps", 4, maps, (refused(),))


def _exports() -> Iterator[Attempt]:
    """The files of OpenVINO and ONNX exports, as targets of the verbs that run them."""
    lines: dict[str, tuple[Sequence[str], str]] = {
        "inspect-json": (("inspect", "{}", "in"), "--json"),
        "inspect-coco": (("inspect", "{}", "in"), "--coco"),
        "inspect-monitor": (("inspect", "{}", "in"), "--monitor"),
        "evaluate-json": (("evaluate", "{}", "data"), "--json"),
        "report-output": (("report", "{}", "data"), "--output"),
        "info-json": (("info", "{}"), "--json"),
        "probe-json": (("probe", "{}", "data", "--images", "1"), "--json"),
        "calibrate-output": (("calibrate", "{}", "--smallest", "bolt=3"), "--output"),
    }
    for name, (line, flag) in lines.items():
        for kind, target in (("xml", "parts.bin"), ("xml", "parts.xml"), ("onnx", "parts.onnx")):
            if name == "calibrate-output" and target != "parts.bin":
                continue  # the file itself, in place

            def make(
                site: Site,
                line: Sequence[str] = line,
                flag: str = flag,
                kind: str = kind,
                target: str = target,
            ) -> Command:
                graph = site.export(kind).name
                site.data(source="plant")
                site.images("in", 2)
                filled = [part.replace("{}", graph) for part in line]
                return Command([*filled, flag, target, *_quiet(line[0])])

            fast = name == "inspect-json" and target == "parts.bin"
            yield Attempt(
                f"output-export-{name}-{target.replace('.', '-')}", 4, make, (refused(),), fast=fast
            )
    for kind, target in (("onnx", "parts.snl"), ("xml", "parts.snl"), ("xml", "in/000.xml")):

        def export(site: Site, kind: str = kind, target: str = target) -> Command:
            site.bundle()
            site.images("in", 1)
            if target == "in/000.xml":
                (site / "in/000.bin").write_bytes(b"a person's file")
            line = ["export", "parts.snl", "-o", target, "--format", _FORMATS[kind], "--quiet"]
            return Command(line)

        yield Attempt(
            f"output-export-over-{kind}-{target.replace('/', '-')}", 4, export, (refused(),)
        )


_FORMATS = {"onnx": "onnx", "xml": "openvino"}


def _labelme() -> Iterator[Attempt]:
    """A person's LabelMe file beside the image is kept; one that snl wrote may be replaced."""
    import json

    from tests.hostile.kinds.k02_masks import labelme
    from tests.trees import draw

    for place in ("in", "labels"):
        for option in ("--labelme", "--json", "--coco"):

            def make(site: Site, place: str = place, option: str = option) -> Command:
                site.bundle()
                image = site.image("in/000.png", 201, defect=True)
                mask = draw(201, defect=True)[1]
                (site / place).mkdir(exist_ok=True)
                document = labelme(image, mask)
                (site / place / "000.json").write_text(json.dumps(document))
                target = place if option == "--labelme" else f"{place}/000.json"
                return Command([*_INSPECT, option, target, "--quiet"])

            # --json and --coco name one file in a folder that is not read: replacing it was asked
            asked = option != "--labelme" and place == "labels"
            expected = (refused(), right()) if asked else (refused(), partly(r"000\.json"))
            writes = ("labels/000.json",) if asked else ()
            yield Attempt(
                f"labelme-kept-{place}{option}", 4, make, expected, writes, fast=not asked
            )

    def again(site: Site) -> Command:
        site.bundle()
        site.images("in", 2)
        site.snl(*_INSPECT, "--labelme", "labels", "--quiet")
        return Command([*_INSPECT, "--labelme", "labels", "--quiet"])

    yield Attempt("labelme-own-again", 4, again, (right(checks.inspected(2)),), ("labels/*",))


def _file_modes() -> Iterator[Attempt]:
    """An output that exists keeps its mode; a link stays a link, and its target is replaced."""
    for (verb, dest), output in OUTPUTS.items():
        if output.folder or verb in ("bench", "demo"):
            continue
        for way in ("mode", "link"):
            make = bind(_existing, verb=verb, dest=dest, way=way)
            check = bind(_kept, way=way, suffix=output.suffix)
            place = f"real/out{output.suffix}"
            writes = (place, f"{place}.*", "real/out.bin", f"out{output.suffix}.*")
            writes += (f"out{output.suffix}.*/*", f"{place}.*/*")
            expected = (right(check, status=(0, 1)), refused())
            name = f"output-keeps-{way}-{verb}-{dest}"
            fast = (verb, dest) in (("calibrate", "output"), ("inspect", "json"))
            yield Attempt(name, 9, make, expected, writes, fast=fast)
    for way in ("mode", "link"):

        def in_place(site: Site, way: str = way) -> Command:
            (site / "real").mkdir()
            bundle = site.bundle("real/out.snl")
            if way == "mode":
                bundle.chmod(0o600)
            (site / "out.snl").symlink_to("real/out.snl")
            return Command(["calibrate", "out.snl", "--smallest", "bolt=3"])

        check = bind(_kept, way=way, suffix=".snl")
        expected = (right(checks.every(check, checks.loads("out.snl"))),)
        yield Attempt(
            f"output-keeps-{way}-in-place", 9, in_place, expected, ("real/out.snl",), fast=True
        )


def _existing(site: Site, verb: str, dest: str, way: str) -> Command:
    output = OUTPUTS[verb, dest]
    site.bundle()
    site.data()
    site.images("in", 2)
    (site / "real").mkdir()
    file = site / f"real/out{output.suffix}"
    if dest == "monitor":
        site.snl(*_INSPECT, "--monitor", file, "--quiet")
    elif output.suffix in (".snl", ".onnx"):
        site.bundle(f"real/out{output.suffix}")
    else:
        file.write_text("{}\n")
    if way == "mode":
        file.chmod(0o600)
    (site / f"out{output.suffix}").symlink_to(f"real/out{output.suffix}")
    target = f"out{output.suffix}" if way == "link" else f"real/out{output.suffix}"
    return Command([*output.line, flag_of(verb, dest), target, *_quiet(verb)])


def _kept(site: Site, _: Any, way: str, suffix: str) -> str | None:
    link, real = site / f"out{suffix}", site / f"real/out{suffix}"
    if way == "link" and not link.is_symlink():
        return "the link was replaced by a file"
    if way == "mode" and (mode := stat.S_IMODE(real.stat().st_mode)) != 0o600:
        return f"mode 600 became {mode:o}"
    return None
