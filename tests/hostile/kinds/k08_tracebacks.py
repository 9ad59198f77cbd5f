"""Kind 8: absurd arguments, hostile names and environments end in a result or one line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import TINY_OPTIONS
from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Outcome, Result, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators import environments, names
from tests.hostile.kinds.k04_outputs import _options
from tests.hostile.site import Site

_ANY: tuple[Outcome, ...] = (right(status=(0, 1)), refused(), partly("error", status=(2,)))

NUMBERS = (
    *(
        "-1",
        "0",
        "1e200",
        "nan",
        "inf",
        "-inf",
        "99999999999999999999999999",
        "",
        "x",
        "\uff11\uff12",
        "1_0",
    ),
    *("0x10", " 5 ", "1e-320", "--", "1\n2", "2147483648", "\x1b[31m"),
)
"""Absurd values of number options."""


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _numbers()
    yield from _words()
    yield from _names()
    yield from _environments()
    yield from _streams()
    yield from _limits()
    yield from _json()
    yield from _paths()


_LINES: dict[str, Sequence[str]] = {
    "inspect": ("inspect", "parts.snl", "in"),
    "calibrate": ("calibrate", "parts.snl"),
    "evaluate": ("evaluate", "parts.snl", "data"),
    "export": ("export", "parts.snl", "-o", "new.onnx"),
    "probe": ("probe", "parts.snl", "data"),
    "train": ("train", "data", "-o", "new.snl", *TINY_OPTIONS),
    "demo": ("demo", "--out", "parts.snl"),
    "bench": ("bench", "mvtec", "in"),
}
"""A command of each verb that has numbers; `demo` and `bench` stop at once."""

_SLOW = {
    ("train", "steps"), ("train", "cache_memory"), ("train", "cache_disk"), ("bench", "seeds"),
}  # fmt: skip
"""Options where a large number is a long run that somebody asked for, or no limit."""


_FAST_NUMBERS = {("threads", 6), ("mm_per_pixel", 2), ("batch_size", 6), ("rate", 3)}


def _is_number(action: argparse.Action) -> bool:
    simple = action.type is not None and action.type is not Path
    pair = "=X" in (action.metavar or "") or "=N" in (action.metavar or "")  # type: ignore[operator]
    return bool(action.option_strings) and action.nargs != 0 and (simple or pair)


def _numbers() -> Iterator[Attempt]:
    """Every number option of every verb with every absurd value."""
    for position, (verb, action) in enumerate(_options()):
        if verb not in _LINES or not _is_number(action) or (verb, action.dest) in _SLOW:
            continue
        flag = max(action.option_strings, key=len)
        for number, value in enumerate(NUMBERS):
            fast = (action.dest, number) in _FAST_NUMBERS
            if (number + position) % 3 and not fast:
                continue
            given = f"bolt={value}" if "=" in str(action.metavar) else value

            def make(site: Site, verb: str = verb, flag: str = flag, given: str = given) -> Command:
                site.bundle()
                site.data()
                site.images("in", 2)
                return Command([*_LINES[verb], f"{flag}={given}", "--quiet"])

            writes = ("parts.snl", "new.*", "new.snl.*/*") if verb != "demo" else ()
            yield Attempt(
                f"number-{verb}-{action.dest.replace('_', '-')}-{number:02}",
                8,
                make,
                _ANY,
                writes,
                timeout=40,
                fast=fast,
            )


def _words() -> Iterator[Attempt]:
    """Words where others are expected: products, devices, layouts, settings, methods."""
    lines: dict[str, Sequence[str]] = {
        "product": ("inspect", "parts.snl", "in", "--product", "{}"),
        "device": ("inspect", "parts.snl", "in", "--device", "{}"),
        "layout": ("doctor", "data", "--layout", "{}"),
        "setting": ("train", "data", "-o", "new.snl", *TINY_OPTIONS, "--set", "{}"),
        "method": ("train", "data", "-o", "new.snl", "--method", "{}"),
        "teacher": (
            "train",
            "data",
            "-o",
            "new.snl",
            "--teacher",
            "{}",
            "--teacher-weights",
            "random",
        ),
        "weights": (
            "train",
            "data",
            "-o",
            "new.snl",
            "--teacher",
            "test_resnet",
            "--teacher-weights",
            "{}",
        ),
        "ignore": ("calibrate", "parts.snl", "--ignore", "{}"),
        "products": ("probe", "parts.snl", "data", "--products", "{}"),
        "classes": ("bench", "mvtec", "data", "--classes", "{}"),
        "format": ("export", "parts.snl", "-o", "new", "--format", "{}"),
        "verb": ("{}",),
        "paths": ("inspect", "parts.snl", "{}"),
        "file": ("info", "{}"),
    }
    words = (
        "",
        " ",
        "x" * 5000,
        "\x1b[31mred\x1b[0m",
        "a\nb",
        "none",
        "=",
        "bolt=",
        "=1",
        "../..",
        "\udcff",
    )
    for name, line in lines.items():
        for number, word in enumerate(words):

            def make(site: Site, line: Sequence[str] = line, word: str = word) -> Command:
                site.bundle()
                site.data()
                site.images("in", 1)
                quiet = [] if line[0] in ("info", "{}") else ["--quiet"]
                return Command([word if part == "{}" else part for part in line] + quiet)

            fast = name in ("product", "setting") and number in (3, 4)
            # `--ignore none` of no product, `..` as a folder of images, and the like
            expected = (refused(), right(status=(0, 1)), partly("error", status=(2,)))
            yield Attempt(
                f"word-{name}-{number:02}", 8, make, expected, ("parts.snl",), timeout=40, fast=fast
            )


def _names() -> Iterator[Attempt]:
    """Hostile file names: results and messages keep to their lines."""
    for name, file in names.HOSTILE.items():

        def good(site: Site, file: str = file) -> Command:
            site.bundle()
            site.image("a.png").rename(_in(site, file))
            site.image("in/zz.png")
            return Command(
                [
                    "inspect",
                    "parts.snl",
                    "in",
                    "--out",
                    "overlays",
                    "--labelme",
                    "labels",
                    "--quiet",
                ]
            )

        def named(site: Site, result: Result, file: str = file) -> str | None:
            found = [
                json.loads(line)["path"] for line in result.out.splitlines() if line[:1] == "{"
            ]
            ends = any(path.endswith(file) for path in found)
            return checks.inspected(2)(site, result) or (
                None if ends else f"no result of {file!r}: {found}"
            )

        writes = ("overlays/*", "labels/*")
        fast = name in ("escape", "newline", "longest")
        yield Attempt(f"name-{name}", 8, good, (right(named, status=(0, 2)),), writes, fast=fast)

        def bad(site: Site, file: str = file) -> Command:
            site.bundle()
            _in(site, file).write_bytes(b"\x89PNG\r\n\x1a\n")
            site.image("in/zz.png")
            return Command(["inspect", "parts.snl", "in", "--json", "out.jsonl", "--quiet"])

        expected = (partly("error", check=checks.inspected(1, "out.jsonl"), status=(1, 2)),)
        yield Attempt(
            f"name-damaged-{name}", 8, bad, expected, ("out.jsonl",), fast=name == "escape"
        )

        def given(site: Site, file: str = file) -> Command:
            site.bundle()
            site.image("a.png").rename(site / file)
            return Command(["inspect", "parts.snl", f"./{file}", "--quiet"])

        yield Attempt(f"name-given-{name}", 8, given, (right(checks.inspected(1)),))

        def product(site: Site, file: str = file) -> Command:
            folder = Path(file).stem
            for n in range(4):
                site.image(f"data/{folder}/train/good/{n}.png", n)
                site.image(f"data/bolt/train/good/{n}.png", n + 50)
            return Command(["doctor", "data", "--quiet"])

        yield Attempt(f"name-product-{name}", 8, product, (right(status=(0, 1)), refused()))

        def trained(site: Site, file: str = file) -> Command:
            folder = Path(file).stem
            for n in range(4):
                site.image(f"data/{folder}/train/good/{n}.png", n)
            return Command(["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--quiet"])

        writes = ("a.snl", "a.snl.*", "a.snl.*/*")
        yield Attempt(f"name-trained-{name}", 8, trained, (right(status=(0, 1)), refused()), writes)

    def not_utf8(site: Site) -> Command:
        site.bundle()
        site.image("in/zz.png")
        os.rename(site.image("a.png"), os.fsencode(site / "in") + b"/" + names.NOT_UTF8)  # noqa: PTH104
        return Command(
            ["inspect", "parts.snl", "in", "--json", "out.jsonl", "--out", "overlays", "--quiet"]
        )

    expected = (
        right(checks.inspected(2, "out.jsonl")),
        partly("caf", check=checks.inspected(1, "out.jsonl")),
    )
    yield Attempt("name-not-utf-8", 8, not_utf8, expected, ("out.jsonl", "overlays/*"), fast=True)
    for verb in ("doctor", "train", "evaluate", "report", "calibrate"):

        def other(site: Site, verb: str = verb) -> Command:
            site.bundle()
            data = site.data()
            for folder in ("train/good", "test/dent"):
                place = data / "bolt" / folder
                os.rename(place / "000.png", os.fsencode(place) + b"/" + names.NOT_UTF8)  # noqa: PTH104
            lines: dict[str, Sequence[str]] = {
                "doctor": ["doctor", "data", "--json", "out.json"],
                "train": ["train", "data", "-o", "out.snl", *TINY_OPTIONS],
                "evaluate": [
                    "evaluate",
                    "parts.snl",
                    "data",
                    "--json",
                    "out.json",
                    "--save-maps",
                    "maps",
                ],
                "report": ["report", "parts.snl", "data", "-o", "out.html"],
                "calibrate": ["calibrate", "parts.snl", "data", "--add", "-o", "out.snl"],
            }
            return Command([*lines[verb], "--quiet"])

        writes = ("out.*", "out.*/*", "maps/*")
        yield Attempt(f"name-not-utf-8-{verb}", 8, other, (right(status=(0, 1)), refused()), writes)


def _in(site: Site, file: str) -> Path:
    (site / "in").mkdir(exist_ok=True)
    return site / "in" / file


def _environments() -> Iterator[Attempt]:
    """Environments, always in a new interpreter."""
    for name, variables in environments.VARIABLES.items():
        for verb in ("inspect", "train", "doctor"):
            if verb != "inspect" and name not in ("no-home", "tmpdir-missing", "posix-ascii"):
                continue

            def make(site: Site, verb: str = verb, variables: Any = variables) -> Command:
                site.bundle()
                site.data("dätä")
                site.image("ñ/ä.png")
                lines: dict[str, Sequence[str]] = {
                    "inspect": ["inspect", "parts.snl", "ñ", "--out", "öut"],
                    "train": ["train", "dätä", "-o", "neu.snl", *TINY_OPTIONS],
                    "doctor": ["doctor", "dätä"],
                }
                return Command([*lines[verb], "--quiet"], real=True, environment=variables)

            expected = (right(status=(0, 1)),)
            if name.startswith("tmpdir"):
                expected += (refused(),)
            fast = (name, verb) in (("no-home", "inspect"), ("posix-ascii", "inspect"))
            writes = ("öut/*", "neu.snl", "neu.snl.*", "neu.snl.*/*")
            yield Attempt(f"environment-{name}-{verb}", 8, make, expected, writes, fast=fast)
    for verb in ("inspect", "doctor", "info", "train"):

        def gone(site: Site, verb: str = verb) -> Command:
            bundle, data = site.bundle(), site.data()
            lines: dict[str, Sequence[Any]] = {
                "inspect": ["inspect", bundle, data / "bolt/test/good"],
                "doctor": ["doctor", data],
                "info": ["info", bundle],
                "train": ["train", data, "-o", "new.snl", *TINY_OPTIONS],
            }
            quiet = [] if verb == "info" else ["--quiet"]
            before = environments.folder_gone(site / "gone")
            return Command([*lines[verb], *quiet], before=before)

        expected = (right(status=(0, 1)), refused())
        yield Attempt(f"folder-gone-{verb}", 8, gone, expected, fast=verb == "inspect")
    yield from _unprivileged()


def _unprivileged() -> Iterator[Attempt]:
    """A user without rights: unreadable files and folders, nowhere to write."""

    def bundle_unreadable(site: Site) -> Sequence[Any]:
        site.bundle().chmod(0)
        return ["inspect", "parts.snl", "in", "--quiet"]

    def image_unreadable(site: Site) -> Sequence[Any]:
        site.bundle()
        (site / "in/000.png").chmod(0)
        return ["inspect", "parts.snl", "in", "--quiet"]

    def folder_unreadable(site: Site) -> Sequence[Any]:
        site.bundle()
        (site / "in").chmod(0)
        return ["inspect", "parts.snl", "in", "--quiet"]

    def subfolder_unreadable(site: Site) -> Sequence[Any]:
        site.bundle()
        (site / "in/below").mkdir(mode=0)
        return ["inspect", "parts.snl", "in", "--quiet"]

    def product_unreadable(site: Site) -> Sequence[Any]:
        (site.data() / "plate").chmod(0)
        return ["doctor", "data", "--quiet"]

    def kind_unreadable(site: Site) -> Sequence[Any]:
        site.bundle()
        (site.data() / "bolt/test/dent").chmod(0)
        return ["evaluate", "parts.snl", "data", "--quiet"]

    def mask_unreadable(site: Site) -> Sequence[Any]:
        site.bundle()
        (site.data() / "bolt/ground_truth/dent/000_mask.png").chmod(0)
        return ["evaluate", "parts.snl", "data", "--quiet"]

    def output_unwritable(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["inspect", "parts.snl", "in", "--json", "out.jsonl", "--quiet"]

    def calibrate_unwritable(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["calibrate", "parts.snl", "--smallest", "bolt=2"]

    def export_unwritable(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["export", "parts.snl", "-o", "out.onnx", "--quiet"]

    def train_unwritable(site: Site) -> Sequence[Any]:
        site.data()
        return ["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--quiet"]

    refusing = {bundle_unreadable, folder_unreadable, output_unwritable, calibrate_unwritable}
    refusing |= {export_unwritable, train_unwritable}
    for spoil in (
        *(bundle_unreadable, image_unreadable, folder_unreadable, subfolder_unreadable),
        *(product_unreadable, kind_unreadable, mask_unreadable, output_unwritable),
        *(calibrate_unwritable, export_unwritable, train_unwritable),
    ):

        def make(site: Site, spoil: Callable[[Site], Sequence[Any]] = spoil) -> Command:
            site.images("in", 2)
            return Command(
                spoil(site), before=environments.unprivileged, environment={"HOME": "/nowhere"}
            )

        says = (
            "permission|denied|read-only|cannot be"
            if spoil is not bundle_unreadable
            else "permission|denied"
        )
        expected = (
            (refused(says),) if spoil in refusing else (partly(says, status=(1, 2)), refused(says))
        )
        name = f"unprivileged-{spoil.__name__.replace('_', '-')}"
        yield Attempt(name, 8, make, expected, fast=spoil in (bundle_unreadable, image_unreadable))


def _streams() -> Iterator[Attempt]:
    """Closed and full standard streams, in a new interpreter."""
    lines: dict[str, Sequence[str]] = {
        "inspect": ("inspect", "parts.snl", "in", "--quiet"),
        "inspect-json": ("inspect", "parts.snl", "in", "--json", "out.jsonl"),
        "info": ("info", "parts.snl"),
        "doctor": ("doctor", "data", "--quiet"),
        "help": ("--help",),
        "calibrate": ("calibrate", "parts.snl", "--smallest", "bolt=2"),
    }
    for name, line in lines.items():
        for stream, target in (
            ("stdout", "/dev/full"),
            ("stdout", "closed"),
            ("stderr", "closed"),
            ("stderr", "/dev/full"),
        ):

            def make(
                site: Site, line: Sequence[str] = line, stream: str = stream, target: str = target
            ) -> Command:
                site.bundle()
                site.data()
                site.images("in", 2)
                where = {"stdout": target} if stream == "stdout" else {"stderr": target}
                return Command(line, real=True, **where)

            writes = ("out.jsonl", "parts.snl")
            kept = checks.inspected(2, "out.jsonl") if name == "inspect-json" else None
            if name == "inspect" and stream == "stderr":
                kept = checks.inspected(2)
            expected: tuple[Outcome, ...] = (right(kept, status=(0, 1)),)
            if target == "/dev/full" and stream == "stdout" and name != "inspect-json":
                # the results are lost for want of space: that has to be said
                expected = (
                    refused("space|stdout|output|written"),
                    partly("space|stdout|output|written", status=(1, 2)),
                )
            elif target == "closed" and stream == "stdout":
                done = partly("stdout|output|closed", check=kept, status=(1, 2))
                expected = (right(kept, status=(0, 1)), refused(), done)
            elif stream == "stderr":
                expected = (right(kept, status=(0, 1, 2)),)
            short = "full" if target == "/dev/full" else "closed"
            fast = (name, short, stream) in (
                ("inspect", "full", "stdout"),
                ("info", "closed", "stdout"),
            )
            yield Attempt(f"{stream}-{short}-{name}", 8, make, expected, writes, fast=fast)


def _limits() -> Iterator[Attempt]:
    """Limits of the process: file sizes as on a full disk, open files, memory."""
    lines: dict[str, Sequence[str]] = {
        "train": ("train", "data", "-o", "new.snl", *TINY_OPTIONS, "--quiet"),
        "calibrate": ("calibrate", "parts.snl", "--smallest", "bolt=2"),
        "export": ("export", "parts.snl", "-o", "new.onnx", "--quiet"),
        "report": ("report", "parts.snl", "data", "-o", "new.html", "--quiet"),
        "evaluate": ("evaluate", "parts.snl", "data", "--json", "new.json", "--quiet"),
        "maps": ("evaluate", "parts.snl", "data", "--save-maps", "new", "--quiet"),
        "doctor": ("doctor", "data", "--json", "new.json", "--quiet"),
        "picture": (
            "probe",
            "parts.snl",
            "data",
            "--images",
            "1",
            "--picture",
            "new.png",
            "--quiet",
        ),
    }
    for name, line in lines.items():
        limit = 2_000 if name not in ("doctor", "evaluate") else 1_500

        def full(site: Site, line: Sequence[str] = line, limit: int = limit) -> Command:
            site.bundle()
            site.data()
            return Command(line, before=environments.file_size(limit))

        said = partly("space|written|large", status=(1, 2))
        fast = name in ("train", "calibrate")
        yield Attempt(f"disk-full-{name}", 8, full, (said,), ("new.snl.run/*", "new/*"), fast=fast)
    for limit in (8, 16, 24):
        for verb in ("inspect", "train", "doctor"):

            def few(site: Site, limit: int = limit, verb: str = verb) -> Command:
                site.bundle()
                site.data()
                site.images("in", 30)
                commands: dict[str, Sequence[str]] = {
                    "inspect": ("inspect", "parts.snl", "in", "--quiet"),
                    "train": lines["train"],
                    "doctor": ("doctor", "data", "--quiet"),
                }
                return Command(commands[verb], before=environments.open_files(limit))

            writes = ("new.snl", "new.snl.*", "new.snl.*/*")
            yield Attempt(f"open-files-{verb}-{limit}", 8, few, _ANY, writes)


def _json() -> Iterator[Attempt]:
    """JSON that is read: LabelMe masks, lists of data sets; nested deep, huge, wrong."""
    texts = {
        "deep": "[" * 5000 + "]" * 5000,
        "deep-objects": '{"train":' * 5000 + "1" + "}" * 5000,
        "empty": "",
        "list": "[]",
        "null": "null",
        "text": '"x"',
        "binary": "\x00\x01",
        "numbers": '{"train": [1, 2], "test": {"a": 1}, "meta": null}',
        "shapes": '{"shapes": [{"points": [["x", 1e999]], "label": 1}], "imageHeight": -1}',
        "huge-shape": '{"shapes": [{"points": [[-1e300, 0], [9, 1e300], [9, 0]], "label": "a"}]}',
    }
    for name, text in texts.items():

        def labelme(site: Site, text: str = text) -> Command:
            data = site.data()
            mask = data / "bolt/ground_truth/dent/000_mask.png"
            mask.unlink()
            mask.with_name("000.json").write_text(text)
            site.bundle()
            return Command(["evaluate", "parts.snl", "data", "--quiet"])

        yield Attempt(
            f"json-labelme-{name}",
            8,
            labelme,
            (right(status=(0, 1)), refused(), partly("000", status=(1, 2))),
        )

        def real_iad(site: Site, text: str = text) -> Command:
            from tests.trees import make_real_iad

            root = make_real_iad(site / "data")
            next((root / "realiad_jsons").iterdir()).write_text(text)
            return Command(["doctor", "data", "--layout", "real-iad", "--quiet"])

        yield Attempt(
            f"json-real-iad-{name}",
            8,
            real_iad,
            (refused(), right(status=(0, 1))),
            fast=name == "deep",
        )


def _paths() -> Iterator[Attempt]:
    """Paths that lead nowhere, or not where they should."""
    paths = {
        "long": "x" * 300 + ".png",
        "longer": "a/" * 3000 + "b.png",
        "nul": "a\0b.png",
        "device": "/dev/zero",
        "null": "/dev/null",
        "root": "/",
        "proc": "/proc/self/mem",
        "pipe": "pipe.png",
        "dots": "../../../../../../../../..",
        "missing": "no/such/file.png",
        "glob": "*.png",
        "video-folder": "d.ts",
        "video-missing": "gone.mp4",
        "video-text": "text.mp4",
        "video-pipe": "pipe.mp4",
        "url": "http://127.0.0.1:9/a.mp4",
        "rtsp": "rtsp://127.0.0.1:9/a",
        "camera": "camera:77",
        "file-url": "file:///etc/passwd",
    }
    verbs: dict[str, Sequence[str]] = {
        "inspect": ("inspect", "parts.snl", "{}"),
        "model": ("inspect", "{}", "in"),
        "doctor": ("doctor", "{}"),
        "normals": ("calibrate", "parts.snl", "{}", "--product", "bolt"),
        "false-alarms": ("calibrate", "parts.snl", "--false-alarms", "{}", "--product", "bolt"),
        "ignore": ("calibrate", "parts.snl", "--ignore", "bolt={}"),
        "weights": (
            "train",
            "in",
            "-o",
            "n.snl",
            "--teacher",
            "test_resnet",
            "--teacher-weights",
            "{}",
        ),
    }
    for name, path in paths.items():
        for verb, line in verbs.items():
            if name == "nul" or (
                name in ("root", "dots")
                and verb in ("inspect", "doctor", "normals", "false-alarms")
            ):
                continue  # arguments cannot hold it; the whole disk of this machine

            def make(site: Site, line: Sequence[str] = line, path: str = path) -> Command:
                site.bundle()
                site.images("in", 2)
                site.image("d.ts/a.png")
                os.mkfifo(site / "pipe.png")
                os.mkfifo(site / "pipe.mp4")
                (site / "text.mp4").write_text("no video")
                return Command([part.replace("{}", path) for part in line] + ["--quiet"])

            expected: tuple[Outcome, ...] = (refused(), partly("error", status=(2,)))
            if name == "video-folder" and verb == "inspect":
                expected = (right(checks.inspected(1)),)
            elif name in ("video-folder", "root", "dots"):
                expected += (right(status=(0, 1)),)
            fast = (name, verb) in (
                ("pipe", "false-alarms"),
                ("video-folder", "inspect"),
                ("device", "model"),
            )
            writes = ("parts.snl",) if name == "video-folder" else ()
            yield Attempt(f"path-{name}-{verb}", 8, make, expected, writes, timeout=30, fast=fast)
