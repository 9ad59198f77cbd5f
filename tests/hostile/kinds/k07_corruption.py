"""Kind 7: damage is refused or harmless, never a changed score."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import TINY_OPTIONS
from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Result, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators import bundles
from tests.hostile.generators.environments import grown
from tests.hostile.generators.scene import as_rgb8, quantised, scene
from tests.hostile.generators.video import write_video
from tests.hostile.site import Site


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _flips(seed)
    yield from _export_texts(seed)
    yield from _pieces()
    yield from _absurd_values(seed)
    yield from _absurd_arrays(seed)
    yield from _resume()
    yield from _not_finite()
    yield from _videos()
    yield from _masks_of_another_shape()
    yield from _states(seed)


def _inspect(file: str) -> Command:
    return Command(["inspect", file, "one.png", "--product", "bolt", "--quiet"])


def _prepare(site: Site, kind: str) -> Path:
    """Copy a model file, write one image, and note the true result."""
    file = site.bundle("parts.snl", "plant.snl") if kind == "snl" else site.export(kind)
    site.image("one.png", 903, defect=True)
    truth = site.snl(*_inspect(file.name).arguments or ())
    assert truth.status == 0, truth.err
    (site / "truth").write_text(truth.out)
    return file


def _unchanged(site: Site, result: Result) -> str | None:
    """Check that score, thresholds and decision are those of the undamaged file."""
    wanted, found = json.loads((site / "truth").read_text()), json.loads(result.out)
    different = [k for k in wanted if wanted[k] != found.get(k)]
    shown = [f"{k} {wanted[k]} -> {found.get(k)}" for k in different[:3]]
    return f"accepted with {', '.join(shown)}" if shown else None


_SAME_OR_REFUSED = (refused(), right(_unchanged))


def _flips(seed: int) -> Iterator[Attempt]:
    """One flipped bit at random places of every model file."""
    rng = np.random.default_rng([seed, 70])
    counts = {"parts.snl": 20, "parts.onnx": 25, "parts.xml": 60, "parts.bin": 20}
    for name, count in counts.items():
        for number, place in enumerate(rng.random(count)):
            bit = int(rng.integers(8))

            def make(site: Site, name: str = name, place: float = place, bit: int = bit) -> Command:
                kind = {"parts.snl": "snl", "parts.onnx": "onnx"}.get(name, "xml")
                file = _prepare(site, kind)
                data = bytearray((site / name).read_bytes())
                data[int(place * len(data))] ^= 1 << bit
                (site / name).write_bytes(data)
                return _inspect(file.name)

            yield Attempt(
                f"flip-{name.replace('.', '-')}-{number:02}",
                7,
                make,
                _SAME_OR_REFUSED,
                fast=number < 2,
            )


def _export_texts(seed: int) -> Iterator[Attempt]:
    """Numbers in the readable text of an export changed by an editor: thresholds, topology."""
    rng = np.random.default_rng([seed, 71])
    for kind, count in (("xml", 40), ("onnx", 25)):
        for number, place in enumerate(rng.random(count)):

            def make(site: Site, kind: str = kind, place: float = place) -> Command:
                file = _prepare(site, kind)
                data = bytearray(file.read_bytes())
                digits = [
                    m.start()
                    for m in re.finditer(
                        rb"(?<=[\x20-\x7e]{6})[0-9](?=[\x20-\x7e]{3})", bytes(data)
                    )
                ]
                at = digits[int(place * len(digits))]
                data[at] = ord("0") + (data[at] - ord("0") + 1) % 10
                file.write_bytes(data)
                return _inspect(file.name)

            yield Attempt(f"digit-{kind}-{number:02}", 7, make, _SAME_OR_REFUSED, fast=number < 4)
    for number, place in enumerate(rng.random(40)):

        def topology(site: Site, place: float = place) -> Command:
            """Change one attribute of one operation: a stride, a padding, an axis, a mode."""
            file = _prepare(site, "xml")
            text = file.read_text(encoding="utf-8")
            found = [
                m
                for m in re.finditer(r' (\w+)="([^"]+)"', text)
                if text.rfind("<data ", 0, m.start()) > text.rfind(">", 0, m.start())
                and m.group(1) in _ATTRIBUTES
            ]
            one = found[int(place * len(found))]
            changed = _ATTRIBUTES[one.group(1)](one.group(2))
            file.write_text(text[: one.start(2)] + changed + text[one.end(2) :], encoding="utf-8")
            return _inspect(file.name)

        yield Attempt(f"topology-{number:02}", 7, topology, _SAME_OR_REFUSED, fast=number < 4)
    for number in range(12):

        def metadata(site: Site, number: int = number) -> Command:
            import onnx

            file = _prepare(site, "onnx")
            model = onnx.load(str(file))
            entries = [e for e in model.metadata_props if not e.key.startswith("onnx")]
            entry = entries[number % len(entries)]
            changed = re.sub(
                r"[0-9]", lambda m: str((int(m.group()) + 1) % 10), entry.value, count=1
            )
            entry.value = changed if changed != entry.value else entry.value + " "
            onnx.save(model, str(file))
            return _inspect(file.name)

        yield Attempt(f"onnx-metadata-{number:02}", 7, metadata, _SAME_OR_REFUSED, fast=number < 2)


def _next_digit(text: str) -> str:
    return re.sub(r"[0-9]", lambda m: str((int(m.group()) + 1) % 10), text, count=1)


def _opposite(text: str) -> str:
    return {"true": "false", "false": "true"}.get(text, text)


_ATTRIBUTES: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("offset", "axis", "pads_begin", "pads_end", "strides", "eps"), _next_digit),
    **dict.fromkeys(("keep_dims", "transpose_a", "transpose_b", "special_zero"), _opposite),
    "mode": lambda text: {"bidirectional": "numpy", "half_pixel": "asymmetric"}.get(text, "linear"),
    "auto_broadcast": lambda text: "none",
}
"""Attributes of operations in an OpenVINO graph, with a change that may still load."""


def _pieces() -> Iterator[Attempt]:
    """Files cut, swapped, missing, or of another model."""

    def swap_bin(site: Site) -> Command:
        file = _prepare(site, "xml")
        data = bytearray((site / "parts.bin").read_bytes())
        half = len(data) // 2
        (site / "parts.bin").write_bytes(data[half:] + data[:half])
        return _inspect(file.name)

    def missing_bin(site: Site) -> Command:
        file = _prepare(site, "xml")
        (site / "parts.bin").unlink()
        return _inspect(file.name)

    def empty_bin(site: Site) -> Command:
        file = _prepare(site, "xml")
        (site / "parts.bin").write_bytes(b"")
        return _inspect(file.name)

    def long_bin(site: Site) -> Command:
        file = _prepare(site, "xml")
        with (site / "parts.bin").open("ab") as stream:
            stream.write(b"\0" * 64)
        return _inspect(file.name)

    def folder_bin(site: Site) -> Command:
        file = _prepare(site, "xml")
        (site / "parts.bin").unlink()
        (site / "parts.bin").mkdir()
        return _inspect(file.name)

    def latin_xml(site: Site) -> Command:
        file = _prepare(site, "xml")
        file.write_bytes(file.read_bytes().replace(b"<net ", b"<!-- caf\xe9 --><net ", 1))
        return _inspect(file.name)

    def utf16_xml(site: Site) -> Command:
        file = _prepare(site, "xml")
        file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
        return _inspect(file.name)

    def xml_bomb(site: Site) -> Command:
        file = _prepare(site, "xml")
        entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
        head = f'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a0 "ha">{entities}]><net>&a11;</net>'
        file.write_text(head)
        return _inspect(file.name)

    def deep_xml(site: Site) -> Command:
        file = _prepare(site, "xml")
        file.write_text("<net>" * 100_000 + "</net>" * 100_000)
        return _inspect(file.name)

    for spoil in (
        swap_bin,
        missing_bin,
        empty_bin,
        long_bin,
        folder_bin,
        latin_xml,
        utf16_xml,
        xml_bomb,
        deep_xml,
    ):
        name = f"export-{spoil.__name__.replace('_', '-')}"
        yield Attempt(
            name, 7, spoil, _SAME_OR_REFUSED, timeout=40, fast=spoil in (swap_bin, latin_xml)
        )
    for name in ("parts.snl", "parts.onnx", "parts.xml", "parts.bin"):
        for share in (0.0, 0.1, 0.5, 0.9, 0.999):

            def cut(site: Site, name: str = name, share: float = share) -> Command:
                kind = {"parts.snl": "snl", "parts.onnx": "onnx"}.get(name, "xml")
                file = _prepare(site, kind)
                data = (site / name).read_bytes()
                (site / name).write_bytes(data[: int(share * len(data))])
                return _inspect(file.name)

            yield Attempt(f"cut-{name.replace('.', '-')}-{int(1000 * share)}", 7, cut, (refused(),))
    for kind in ("snl", "onnx", "xml"):
        for other in ("onnx", "xml", "snl", "png", "csv"):
            if kind == other:
                continue

            def renamed(site: Site, kind: str = kind, other: str = other) -> Command:
                file = _prepare(site, kind)
                shutil.move(file, site / f"renamed.{other}")
                return _inspect(f"renamed.{other}")

            yield Attempt(f"renamed-{kind}-to-{other}", 7, renamed, _SAME_OR_REFUSED)


def _absurd_values(seed: int) -> Iterator[Attempt]:
    """A bundle with a valid checksum and an absurd JSON value: refused, or harmless."""
    rng = np.random.default_rng([seed, 72])
    for number in range(90):
        where, which = float(rng.random()), int(rng.integers(len(bundles.VALUES) + 1))

        def make(site: Site, where: float = where, which: int = which) -> Command:
            file = site.bundle("parts.snl", "plant.snl")
            site.image("one.png", 903)
            arrays, facts = bundles.read(file)
            paths = list(bundles.leaves(facts))
            path = paths[int(where * len(paths))]
            if which == len(bundles.VALUES):
                changed = bundles.without(facts, path)
            else:
                changed = bundles.replaced(facts, path, bundles.VALUES[which])
            bundles.write(file, arrays, changed)
            (site / "change").write_text(f"{path} {which}")
            return Command(["inspect", "parts.snl", "one.png", "--quiet"])

        expected = (refused(), right(checks.inspected(1)), partly("error", status=(2,)))
        yield Attempt(f"absurd-value-{number:02}", 7, make, expected, timeout=30, fast=number < 5)
    for number in range(30):
        where, which = float(rng.random()), int(rng.integers(len(bundles.VALUES) + 1))
        for verb in ("info", "calibrate"):

            def other(
                site: Site, where: float = where, which: int = which, verb: str = verb
            ) -> Command:
                make(site, where, which)
                lines = {
                    "info": ["info", "parts.snl", "--json", "-"],
                    "calibrate": ["calibrate", "parts.snl", "--smallest", "bolt=2", "-o", "b.snl"],
                }
                return Command(lines[verb])

            expected = (refused(), right())
            yield Attempt(
                f"absurd-value-{verb}-{number:02}", 7, other, expected, ("b.snl",), timeout=30
            )


def _absurd_arrays(seed: int) -> Iterator[Attempt]:
    """A bundle with a valid checksum and an absurd array: scores stay finite or it is refused."""
    rng = np.random.default_rng([seed, 73])
    for number in range(60):
        where, how = float(rng.random()), bundles.DISTORTIONS[number % len(bundles.DISTORTIONS)]
        part = "network/" if number % 2 else "calibration/"

        def make(site: Site, where: float = where, how: str = how, part: str = part) -> Command:
            file = site.bundle("parts.snl", "plant.snl")
            site.image("one.png", 903)
            arrays, facts = bundles.read(file)
            names = sorted(n for n in arrays if n.startswith(part)) or sorted(arrays)
            name = names[int(where * len(names))]
            arrays[name] = bundles.distorted(arrays[name], how)
            bundles.write(file, arrays, facts)
            (site / "change").write_text(f"{name} {how}")
            return Command(["inspect", "parts.snl", "one.png", "--quiet"])

        expected = (refused(), right(checks.inspected(1)), partly("error", status=(2,)))
        name = f"absurd-array-{part[:-1]}-{how}-{number:02}"
        yield Attempt(name, 7, make, expected, timeout=30, fast=number < 6)


def _resume() -> Iterator[Attempt]:
    """`--resume` after an image changed its pixels but neither its name nor its size."""

    def change_pixels(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-3000:-1000] = bytes(2000)
        path.write_bytes(data)

    def change_one(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x80
        path.write_bytes(data)

    def remove(path: Path) -> None:
        path.unlink()

    def nothing(path: Path) -> None:
        return

    for change in (change_pixels, change_one, remove, nothing):

        def make(site: Site, change: Callable[[Path], None] = change) -> Command:
            for n in range(6):
                site.image(f"data/bolt/{n}.bmp", n)
            line = ["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--steps", "300", "--quiet"]
            stop = (signal.SIGINT, grown(site.root, "a.snl.run/*", 1000, patience=30))
            stopped = site.snl(*line, "--checkpoint-every", "0", stop=stop)
            assert stopped.status == 130, stopped
            change(site / "data/bolt/3.bmp")
            return Command([*line, "--resume"])

        writes = ("a.snl", "a.snl.*", "a.snl.*/*")
        expected = (
            (right(checks.loads("a.snl")),)
            if change is nothing
            else (refused("changed|other|differ"),)
        )
        name = f"resume-{change.__name__.replace('_', '-')}"
        yield Attempt(name, 7, make, expected, writes, timeout=90, fast=change is change_one)


def _not_finite() -> Iterator[Attempt]:
    """Trainings that diverge, networks of NaN weights: no score that is not a number."""
    for lr in ("1e3", "1e10", "1e30", "1e300"):

        def diverge(site: Site, lr: str = lr) -> Command:
            site.data()
            line = ["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--lr", lr, "--quiet"]
            return Command(
                [*line, "--set", "training.gradient_clip=0", "--set", "training.warmup=0"]
            )

        def finite(site: Site, result: Result) -> str | None:
            shutil.copy(site / "data/bolt/train/good/000.png", site / "one.png")
            shown = site.snl("inspect", "a.snl", "one.png", "--quiet")
            if shown.status != 0:
                return f"the bundle of a training with status 0 cannot inspect: {shown.err[-200:]}"
            loss = re.search(r"loss (\S+)", result.err)
            return checks.inspected(1)(site, shown) or (
                f"loss {loss.group(1)}" if loss and loss.group(1) in ("nan", "inf") else None
            )

        writes = ("a.snl", "a.snl.*", "a.snl.*/*")
        diverged = partly("error.*(diverge|finite|nan|learning rate|lr)", status=(2,))
        yield Attempt(
            f"diverged-{lr}", 7, diverge, (diverged, right(finite)), writes, fast=lr == "1e30"
        )
    for share in (0.001, 0.5, 1.0):
        for verb in ("inspect", "evaluate", "report", "calibrate", "export"):

            def broken(site: Site, share: float = share, verb: str = verb) -> Command:
                file = site.bundle("parts.snl", "plant.snl")
                data = site.data()
                arrays, facts = bundles.read(file)
                for name in [n for n in arrays if n.startswith("network/") and arrays[n].ndim == 4]:
                    flat = arrays[name].copy().reshape(-1)
                    flat[: max(1, int(share * flat.size))] = np.nan
                    arrays[name] = flat.reshape(arrays[name].shape)
                bundles.write(file, arrays, facts)
                lines: dict[str, Sequence[Any]] = {
                    "inspect": ["inspect", "parts.snl", data / "bolt/test"],
                    "evaluate": ["evaluate", "parts.snl", "data", "--json", "new.json"],
                    "report": ["report", "parts.snl", "data", "-o", "new.html"],
                    "calibrate": ["calibrate", "parts.snl", "data", "--add"],
                    "export": ["export", "parts.snl", "-o", "new.onnx"],
                }
                return Command([*lines[verb], "--quiet"])

            expected = (
                refused("finite|nan|damaged"),
                partly("error.*(finite|nan|damaged)", status=(2,)),
            )
            fast = share == 0.5 and verb in ("inspect", "evaluate")
            yield Attempt(f"nan-weights-{verb}-{share}", 7, broken, expected, fast=fast)
    for precision in ("fp16", "bf16"):

        def overflow(site: Site, precision: str = precision) -> Command:
            file = site.bundle("parts.snl", "plant.snl")
            site.image("one.png", 903)
            arrays, facts = bundles.read(file)
            for name in [n for n in arrays if n.startswith("network/") and arrays[n].ndim == 4]:
                arrays[name] = arrays[name] * np.float32(300)
            bundles.write(file, arrays, facts)
            line = ["inspect", "parts.snl", "one.png", "--precision", precision, "--quiet"]
            return Command(line)

        expected = (refused(), partly("error", status=(2,)), right(checks.inspected(1)))
        yield Attempt(f"overflow-{precision}", 7, overflow, expected)


def _videos() -> Iterator[Attempt]:
    """A truncated video is said to be incomplete, and its frames are kept."""
    for kind in ("mp4", "mkv", "avi", "webm", "ts", "mov"):
        for share in (0.3, 0.6, 0.9):

            def make(site: Site, kind: str = kind, share: float = share) -> Command:
                site.bundle()
                rng = np.random.default_rng(2)
                still = as_rgb8(quantised(scene(9, colour=True), 255), 255)
                big = np.kron(still, np.ones((4, 4, 1), np.uint8))
                frames = [
                    np.clip(big + rng.integers(0, 60, big.shape), 0, 255).astype(np.uint8)
                    for _ in range(30)
                ]
                options = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
                write_video(site / f"a.{kind}", frames, **options)
                data = (site / f"a.{kind}").read_bytes()
                (site / f"a.{kind}").write_bytes(data[: int(share * len(data))])
                return Command(
                    ["inspect", "parts.snl", f"a.{kind}", "--json", "out.jsonl", "--quiet"]
                )

            def frames_kept(site: Site, _: Result, share: float = share) -> str | None:
                count = len(site.lines("out.jsonl"))
                return None if 30 * share * 0.5 <= count < 30 else f"{count} frames at {share}"

            said = "cut|truncat|incomplete|cannot be read|ends|missing|damaged|fewer|invalid"
            expected = (partly(said, check=frames_kept, status=(1, 2)), refused())
            if kind == "ts":  # a stream may be joined and left anywhere: nothing says its length
                expected += (right(),)
            fast = (kind, share) in (("mp4", 0.6), ("mkv", 0.6))
            yield Attempt(
                f"video-cut-{kind}-{int(100 * share)}", 7, make, expected, ("out.jsonl",), fast=fast
            )


def _masks_of_another_shape() -> Iterator[Attempt]:
    """A mask that does not fit its image is not stretched in silence."""

    def transposed(mask: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(mask.T)

    def cropped(mask: np.ndarray) -> np.ndarray:
        return mask[:30, :20]

    def wide(mask: np.ndarray) -> np.ndarray:
        return np.hstack([mask, mask])

    def tiny(mask: np.ndarray) -> np.ndarray:
        return np.full((1, 1), 255, np.uint8)

    for change in (transposed, cropped, wide, tiny):
        for verb in ("evaluate", "report"):
            for resolution in ("input", "original") if verb == "evaluate" else ("input",):

                def make(
                    site: Site, change: Any = change, verb: str = verb, resolution: str = resolution
                ) -> Command:
                    site.bundle()
                    data = site.data()
                    path = data / "bolt/ground_truth/dent/001_mask.png"
                    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
                    lines = {
                        "evaluate": [
                            "evaluate",
                            "parts.snl",
                            "data",
                            "--json",
                            "out.json",
                            "--resolution",
                            resolution,
                        ],
                        "report": ["report", "parts.snl", "data", "-o", "out.html"],
                    }
                    return Command([*lines[verb], "--quiet"])

                name = f"mask-shape-{change.__name__}-{verb}-{resolution}"
                expected = (partly("001_mask", status=(1, 2)),)
                fast = change is transposed and resolution == "input"
                yield Attempt(name, 7, make, expected, ("out.json", "out.html"), fast=fast)


def _states(seed: int) -> Iterator[Attempt]:
    """Damaged drift states: refused, or the same state."""
    rng = np.random.default_rng([seed, 74])
    for number in range(20):
        where = float(rng.random())
        which = int(rng.integers(len(bundles.VALUES)))

        def make(site: Site, where: float = where, which: int = which) -> Command:
            site.bundle("parts.snl", "plant.snl")
            site.images("in", 3)
            line = [
                "inspect",
                "parts.snl",
                "in",
                "--product",
                "bolt",
                "--monitor",
                "state.json",
                "--quiet",
            ]
            first = site.snl(*line)
            assert first.status == 0, first.err
            state = json.loads((site / "state.json").read_text())
            paths = list(bundles.leaves(state))
            changed = bundles.replaced(state, paths[int(where * len(paths))], bundles.VALUES[which])
            (site / "state.json").write_text(json.dumps(changed))
            return Command(line)

        yield Attempt(
            f"absurd-state-{number:02}", 7, make, (refused("state"), right()), ("state.json",)
        )
    for name, text in {
        "deep": "[" * 5000 + "]" * 5000,
        "deep-objects": '{"a":' * 5000 + "1" + "}" * 5000,
        "empty": "",
        "nan": '{"snl": NaN}',
        "binary": "\0\1\2",
        "list": "[]",
        "long-number": '{"snl": ' + "9" * 10_000 + "}",
    }.items():

        def odd(site: Site, text: str = text) -> Command:
            site.bundle("parts.snl", "plant.snl")
            site.images("in", 3)
            (site / "state.json").write_text(text)
            return Command(["inspect", "parts.snl", "in", "--monitor", "state.json", "--quiet"])

        yield Attempt(f"state-{name}", 8, odd, (refused(r"state\.json"),), fast=name == "deep")
