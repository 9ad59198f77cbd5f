"""Kind 1: images are what the camera meant."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial as bind
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Outcome, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators import other_images as other
from tests.hostile.generators.png import write_png
from tests.hostile.generators.scene import as_rgb8, quantised, scene
from tests.hostile.generators.tiff import (
    MAX_SAMPLE,
    MIN_SAMPLE,
    PALETTE,
    SEPARATED,
    WHITE_IS_ZERO,
    write_tiff,
)
from tests.hostile.generators.video import turned_video, write_video
from tests.hostile.site import Site

_EXACT = (right(checks.pixels_within(1)),)
_OR_REFUSED = (right(checks.pixels_within(1)), refused())


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _depths(seed)
    yield from _scales(seed)
    yield from _tiff_layouts(seed)
    yield from _transparency()
    yield from _orientations()
    yield from _refused_files()
    yield from _named_formats()
    yield from _range_notes()
    yield from _videos()
    yield from _scores_agree()


def _decode(
    name: str,
    file: str,
    content: Callable[[], tuple[bytes, Any]],
    expected: tuple[Outcome, ...] = _EXACT,
    *,
    fast: bool = False,
) -> Attempt:
    """Return the attempt that decodes a file and compares it with its reference."""

    def make(site: Site) -> Command:
        data, reference = content()
        (site / file).write_bytes(data)
        return checks.decoding(site / file, reference)

    return Attempt(f"image-{name}", 1, make, expected, fast=fast)


def _samples(seed: int, bits: int, *, colour: bool) -> tuple[Any, Any]:
    samples = quantised(scene(seed, colour=colour), 2**bits - 1)
    return samples, as_rgb8(samples, 2**bits - 1)


def _depths(seed: int) -> Iterator[Attempt]:
    """Every depth in which the format itself says what the largest value is."""
    for bits in (1, 2, 4, 8, 16):
        for interlaced in (False, True):
            for colour in (0, 2):
                if colour == 2 and bits < 8:
                    continue

                def png(bits: int = bits, colour: int = colour, lace: bool = interlaced) -> Any:
                    samples, reference = _samples(seed, bits, colour=colour == 2)
                    return write_png(samples, bits, colour, interlaced=lace), reference

                kind = "rgb" if colour else "grey"
                name = f"png-{kind}-{bits}{'-interlaced' if interlaced else ''}"
                yield _decode(name, "a.png", png, fast=bits == 16)
    rng = np.random.default_rng([seed, 1])
    largest = [1, 3, 7, 100, 255, 256, 511, 1000, 1023, 4095, 16383, 65534, 65535]
    largest += [int(x) for x in rng.integers(2, 65536, 12)]
    for number, top in enumerate(dict.fromkeys(largest)):
        for colour in (False, True):
            for plain in (False, True):
                if number > 12 and plain:
                    continue

                def pnm(top: int = top, colour: bool = colour, plain: bool = plain) -> Any:
                    samples = quantised(scene(seed, colour=colour), top)
                    return other.write_pnm(samples, top, plain=plain), as_rgb8(samples, top)

                suffix = "ppm" if colour else "pgm"
                name = f"{suffix}-{top}{'-plain' if plain else ''}"
                yield _decode(name, f"a.{suffix}", pnm, fast=top == 4095 and not plain)


def _scales(seed: int) -> Iterator[Attempt]:
    """Files whose container is wider than their values, and which say so."""
    for bits in (9, 10, 11, 12, 14, 15):
        for colour in (False, True):
            top = 2**bits - 1

            def png(bits: int = bits, colour: bool = colour) -> Any:
                samples, reference = _samples(seed, bits, colour=colour)
                sbit = bytes([bits] * (3 if colour else 1))
                kind = 2 if colour else 0
                return write_png(samples, 16, kind, before=[(b"sBIT", sbit)]), reference

            def scaled_png(bits: int = bits, colour: bool = colour) -> Any:
                """As the PNG standard wants it: scaled up to 16 bits by repeating the high bits."""
                samples, reference = _samples(seed, bits, colour=colour)
                wide = (samples << (16 - bits)) | (samples >> (2 * bits - 16))
                sbit = bytes([bits] * (3 if colour else 1))
                kind = 2 if colour else 0
                return write_png(wide, 16, kind, before=[(b"sBIT", sbit)]), reference

            def tiff(top: int = top, bits: int = bits, colour: bool = colour) -> Any:
                samples, reference = _samples(seed, bits, colour=colour)
                tags = {MIN_SAMPLE: [0] * (3 if colour else 1)}
                tags[MAX_SAMPLE] = [top] * (3 if colour else 1)
                data = write_tiff(samples, 16, 2 if colour else 1, tags=tags)
                return data, reference

            kind = "rgb" if colour else "grey"
            first = bits == 12
            yield _decode(f"png-sbit-{kind}-{bits}", "a.png", png, fast=first)
            yield _decode(f"png-sbit-scaled-{kind}-{bits}", "a.png", scaled_png, fast=first)
            yield _decode(f"tiff-max-sample-{kind}-{bits}", "a.tif", tiff, fast=first)
            if not colour:
                packed = bind(_packed, seed, bits)
                expected = _EXACT if bits == 12 else _OR_REFUSED
                yield _decode(f"tiff-packed-grey-{bits}", "a.tif", packed, expected, fast=first)

    def dark(shift: int) -> Any:
        """One dark image: a decoder must not stretch it to its own maximum."""
        samples = quantised(scene(seed) / 2**shift, 65535)
        return write_png(samples, 16, 0), as_rgb8(samples, 65535)

    for shift in (1, 2, 4):
        yield _decode(f"png-16-dark-{shift}", "a.png", bind(dark, shift), fast=shift == 4)

    def dark_pgm(shift: int) -> Any:
        samples = quantised(scene(seed) / 2**shift, 4095)
        return other.write_pnm(samples, 4095), as_rgb8(samples, 4095)

    for shift in (1, 2, 4):
        yield _decode(f"pgm-4095-dark-{shift}", "a.pgm", bind(dark_pgm, shift))


def _packed(seed: int, bits: int) -> Any:
    samples, reference = _samples(seed, bits, colour=False)
    return write_tiff(samples, bits), reference


def _tiff_layouts(seed: int) -> Iterator[Attempt]:
    """Photometric interpretations, byte orders, planes, tiles, BigTIFF; random combinations."""
    for bits in (1, 2, 4, 8, 16, 32):
        for photometric in (0, 1):

            def grey(bits: int = bits, photometric: int = photometric) -> Any:
                samples, _ = _samples(seed, min(bits, 16), colour=False)
                top = 2 ** min(bits, 16) - 1
                meant = top - samples if photometric == WHITE_IS_ZERO else samples
                if bits == 32:
                    samples = samples * 65537 if photometric == 0 else samples
                    meant = (2**32 - 1 - samples) if photometric == 0 else meant
                    top = 2**32 - 1 if photometric == 0 else top
                return write_tiff(samples, bits, photometric), as_rgb8(meant, top)

            name = f"tiff-{'white' if photometric == 0 else 'black'}-is-zero-{bits}"
            expected = _OR_REFUSED if bits == 32 else _EXACT
            yield _decode(name, "a.tif", grey, expected, fast=bits == 16)
    rng = np.random.default_rng([seed, 2])
    for number in range(24):
        bits = int(rng.choice([8, 16]))
        colour = bool(rng.integers(2))
        options = {
            "big_endian": bool(rng.integers(2)),
            "big_tiff": bool(rng.integers(2)),
            "planar": colour and bool(rng.integers(2)),
            "tile": int(rng.choice([0, 16, 32])),
            "deflate": bool(rng.integers(2)),
        }

        def layout(bits: int = bits, colour: bool = colour, options: Any = options) -> Any:
            samples, reference = _samples(seed, bits, colour=colour)
            return write_tiff(samples, bits, 2 if colour else 1, **options), reference

        words = [k for k, v in options.items() if v]
        name = f"tiff-{number:02}-{'rgb' if colour else 'grey'}-{bits}-{'-'.join(words) or 'plain'}"
        yield _decode(name, "a.tif", layout, _OR_REFUSED)

    def floats(scale: float) -> Any:
        values = scene(seed) * scale
        return write_tiff(values, 32, sample_format=3), as_rgb8(quantised(values, 65535), 65535)

    yield _decode("tiff-float-0-1", "a.tif", bind(floats, 1.0), fast=True)
    yield _decode("tiff-float-0-half", "a.tif", bind(floats, 0.5))
    for name, scale, offset in (("255", 255.0, 0), ("negative", 1.0, -0.5), ("1e30", 1e30, 0)):

        def wild(scale: float = scale, offset: float = offset) -> Any:
            values = scene(seed) * scale + offset
            reference = as_rgb8(quantised(scene(seed), 65535), 65535)
            return write_tiff(values, 32, sample_format=3), reference

        yield _decode(f"tiff-float-{name}", "a.tif", wild, (refused(),))

    def not_finite(value: float) -> Any:
        values = scene(seed)
        values[3, 4] = value
        return write_tiff(values, 32, sample_format=3), as_rgb8(quantised(scene(seed), 255), 255)

    yield _decode("tiff-float-nan", "a.tif", bind(not_finite, np.nan), (refused(),), fast=True)
    yield _decode("tiff-float-inf", "a.tif", bind(not_finite, np.inf), (refused(),))

    def palette() -> Any:
        indices = quantised(scene(seed), 255)
        colours = np.random.default_rng(seed).integers(0, 256, (256, 3))
        table = (colours * 257).T.reshape(-1).tolist()
        return write_tiff(indices, 8, PALETTE, tags={320: table}), colours[indices].astype(np.uint8)

    yield _decode("tiff-palette", "a.tif", palette)

    def cmyk(bits: int) -> Any:
        rgb = scene(seed, colour=True)
        ink = np.concatenate([1 - rgb, np.zeros((*rgb.shape[:2], 1))], axis=2)
        samples = quantised(ink, 2**bits - 1)
        return write_tiff(samples, bits, SEPARATED, tags={332: [1]}), as_rgb8(
            quantised(rgb, 255), 255
        )

    for bits in (8, 16):
        near = (right(checks.pixels_within(2)), refused())
        yield _decode(f"tiff-cmyk-{bits}", "a.tif", bind(cmyk, bits), near)

    def signed() -> Any:
        samples = quantised(scene(seed), 32767)
        return write_tiff(samples, 16, sample_format=2), as_rgb8(samples, 32767)

    # how much of the range a signed sample uses is open: with and without the sign bit
    half = (right(checks.pixels_within(128)), refused())
    yield _decode("tiff-signed-16", "a.tif", signed, half)


def _transparency() -> Iterator[Attempt]:
    """Alpha: blended with black; 0 everywhere means that the writer did not know about it."""
    colour = as_rgb8(quantised(scene(3, colour=True), 255), 255)
    black = np.zeros_like(colour)
    for version in (4, 5):
        for alpha, reference in ((0, colour), (255, colour)):

            def bmp(version: int = version, alpha: int = alpha, reference: Any = reference) -> Any:
                rgba = np.dstack([colour, np.full(colour.shape[:2], alpha, np.uint8)])
                return other.write_bmp(rgba, version), reference

            yield _decode(f"bmp-v{version}-alpha-{alpha}", "a.bmp", bmp, fast=alpha == 0)
    for kind in ("png", "webp", "tiff"):
        for alpha in (0, 128, 255):
            reference = colour if alpha in (0, 255) else (colour * (128 / 255)).round()

            def flat(kind: str = kind, alpha: int = alpha, reference: Any = reference) -> Any:
                rgba = np.dstack([colour, np.full(colour.shape[:2], alpha, np.uint8)])
                options = {"lossless": True, "exact": True} if kind == "webp" else {}
                image = Image.fromarray(rgba)
                return other.encoded(image, kind, **options), reference.astype(np.uint8)

            yield _decode(f"{kind}-alpha-{alpha}-everywhere", f"a.{kind}", flat, fast=alpha == 0)

    def deep(alpha: int) -> Any:
        samples = quantised(scene(3, colour=True), 65535)
        full = np.dstack([samples, np.full(samples.shape[:2], alpha, np.int64)])
        return write_png(full, 16, 6), as_rgb8(samples, 65535)

    for alpha in (0, 65535):
        yield _decode(f"png-rgba-16-alpha-{alpha}", "a.png", bind(deep, alpha))

    def deep_grey(alpha: int) -> Any:
        samples = quantised(scene(3), 65535)
        full = np.dstack([samples, np.full(samples.shape[:2], alpha, np.int64)])
        return write_png(full, 16, 4), as_rgb8(samples, 65535)

    for alpha in (0, 65535):
        yield _decode(f"png-la-16-alpha-{alpha}", "a.png", bind(deep_grey, alpha))

    def hole() -> Any:
        alpha = np.full(colour.shape[:2], 255, np.uint8)
        alpha[5:20, 6:30] = 0
        rgba = np.dstack([colour, alpha])
        return other.encoded(Image.fromarray(rgba), "png"), np.where(
            alpha[:, :, None] > 0, colour, black
        )

    yield _decode("png-alpha-hole", "a.png", hole)

    def key(depth: int) -> Any:
        samples = quantised(scene(4), 2**depth - 1)
        value = int(samples[10, 10])
        before = [(b"tRNS", struct.pack(">H", value))]
        shown = np.where(samples == value, 0, samples)
        return write_png(samples, depth, 0, before=before), as_rgb8(shown, 2**depth - 1)

    yield _decode("png-key-8", "a.png", bind(key, 8))
    yield _decode("png-key-16", "a.png", bind(key, 16))

    def gamma() -> Any:
        samples = quantised(scene(5), 255)
        before = [(b"gAMA", struct.pack(">I", 100000)), (b"tIME", b"\x07\xe8\x01\x01\0\0\0")]
        return write_png(samples, 8, 0, before=before), as_rgb8(samples, 255)

    yield _decode("png-gamma-is-ignored", "a.png", gamma)


def _orientations() -> Iterator[Attempt]:
    """EXIF orientations in every container that has them."""
    colour = as_rgb8(quantised(scene(6, colour=True), 255), 255)
    lossy = (right(checks.pixels_within(40)),)
    for kind in ("jpeg", "png", "webp", "tiff"):
        for orientation in range(1, 9):

            def turned(kind: str = kind, orientation: int = orientation) -> Any:
                options: dict[str, Any] = {"exif": other.exif(orientation)}
                options |= {"lossless": True} if kind == "webp" else {}
                options |= {"quality": 98, "subsampling": 0} if kind == "jpeg" else {}
                data = other.encoded(Image.fromarray(colour), kind, **options)
                return data, other.upright(colour, orientation)

            yield _decode(
                f"exif-{kind}-{orientation}",
                f"a.{kind}",
                turned,
                lossy if kind == "jpeg" else _EXACT,
                fast=orientation == 6,
            )
    for value in (0, 9, 65535):

        def odd(value: int = value) -> Any:
            options = {"exif": other.exif(value), "quality": 98, "subsampling": 0}
            return other.encoded(Image.fromarray(colour), "jpeg", **options), colour

        yield _decode(f"exif-jpeg-{value}", "a.jpg", odd, lossy)


def _refused_files() -> Iterator[Attempt]:
    """Damaged files are refused in one line, alone; among others the rest is inspected."""
    colour = as_rgb8(quantised(scene(7, colour=True), 255), 255)
    image = Image.fromarray(colour)
    whole = {k: other.encoded(image, k) for k in ("png", "jpeg", "bmp", "tiff", "webp", "gif")}
    broken: dict[str, tuple[str, bytes]] = {
        "empty": ("a.png", b""),
        "one-byte": ("a.jpg", b"\xff"),
        "text": ("a.png", b"this is not an image\n" * 20),
        "html": ("a.jpg", b"<!doctype html><title>404</title>"),
        "zeros": ("a.png", b"\0" * 5000),
        "png-bomb": ("a.png", write_png(np.zeros((1, 1), int), 8, 0, size=(60000, 60000))),
        "png-no-pixels": ("a.png", write_png(np.zeros((1, 1), int), 8, 0, size=(0, 10))),
        "png-header-only": ("a.png", whole["png"][:33]),
        "pgm-huge": ("a.pgm", b"P5\n99999 99999\n255\n" + b"\0" * 10),
        "pgm-maxval-0": ("a.pgm", b"P5\n4 4\n0\n" + b"\0" * 16),
        "pgm-maxval-70000": ("a.pgm", b"P5\n4 4\n70000\n" + b"\0" * 32),
        "pgm-over-maxval": ("a.pgm", b"P2\n2 2\n10\n1 2 3 99999999999999\n"),
    }
    for kind, data in whole.items():
        for share in (0.3, 0.6, 0.9):
            name = f"{kind}-cut-{int(100 * share)}"
            broken[name] = (f"a.{kind}", data[: int(len(data) * share)])
    for name, (file, data) in broken.items():

        def alone(site: Site, file: str = file, data: bytes = data) -> Command:
            (site / file).write_bytes(data)
            return checks.decoding(site / file, colour)

        yield Attempt(f"damaged-{name}", 1, alone, (refused(r"a\.\w+"),), fast=name == "png-bomb")

        def among(site: Site, file: str = file, data: bytes = data) -> Command:
            site.bundle()
            site.images("in", 2)
            (site / f"in/{file}").write_bytes(data)
            return Command(["inspect", "parts.snl", "in", "--json", "out.jsonl", "--quiet"])

        yield Attempt(
            f"damaged-among-good-{name}",
            1,
            among,
            (partly(r"a\.\w+", check=checks.inspected(2, "out.jsonl"), status=(1, 2)),),
            writes=("out.jsonl",),
            fast=name in ("empty", "jpeg-cut-60"),
        )
    rng = np.random.default_rng(11)
    for number in range(20):
        kind = str(rng.choice(list(whole)))
        data = bytearray(whole[kind])
        for place in rng.integers(0, len(data), 8):
            data[place] ^= 1 << int(rng.integers(8))

        def flipped(site: Site, kind: str = kind, data: bytes = bytes(data)) -> Command:
            (site / f"a.{kind}").write_bytes(data)
            return checks.decoding(site / f"a.{kind}", colour)

        # flipped pixels cannot be seen without a checksum; a crash or a raw warning can
        yield Attempt(f"flipped-{number:02}-{kind}", 1, flipped, (right(), refused()))
    for lie in ("jpeg", "bmp", "tiff", "webp"):
        near = (right(checks.pixels_within(40)), refused())
        yield _decode(f"png-name-of-{lie}", "a.png", lambda lie=lie: (whole[lie], colour), near)

    def trailing() -> Any:
        return whole["png"] + b"\0garbage" * 10, colour

    yield _decode("png-trailing-bytes", "a.png", trailing)

    def bad_crc() -> Any:
        return whole["png"].replace(b"IEND\xaeB`\x82", b"IEND\0\0\0\0"), colour

    yield _decode("png-bad-end", "a.png", bad_crc, _OR_REFUSED)

    def unknown_chunk() -> Any:
        samples = quantised(scene(8), 255)
        return write_png(samples, 8, 0, before=[(b"prVt", b"x" * 70000)]), as_rgb8(samples, 255)

    yield _decode("png-private-chunk", "a.png", unknown_chunk)

    def text_bomb() -> Any:
        import zlib

        samples = quantised(scene(8), 255)
        bomb = b"Comment\0\0" + zlib.compress(b"x" * 80_000_000)
        return write_png(samples, 8, 0, before=[(b"zTXt", bomb)]), as_rgb8(samples, 255)

    yield _decode("png-text-bomb", "a.png", text_bomb, _OR_REFUSED)


def _named_formats() -> Iterator[Attempt]:
    """Formats that cannot be read are named as unsupported, not as damaged."""
    says = r"not supported|unsupported|cannot be read.*convert|convert it|save it as"
    for suffix, data in other.UNSUPPORTED.items():

        def given(site: Site, suffix: str = suffix, data: bytes = data) -> Command:
            site.bundle()
            (site / f"photo{suffix}").write_bytes(data)
            return Command(["inspect", "parts.snl", f"photo{suffix}", "--quiet"])

        yield Attempt(
            f"unsupported{suffix}", 1, given, (refused(says),), fast=suffix in (".jp2", ".heic")
        )

        def disguised(site: Site, suffix: str = suffix, data: bytes = data) -> Command:
            (site / "photo.png").write_bytes(data)
            return checks.decoding(site / "photo.png", np.zeros((1, 1, 3), np.uint8))

        common = suffix in (".jp2", ".j2k", ".heic", ".avif", ".jxl", ".psd")
        expected = refused(says) if common else refused()
        yield Attempt(f"unsupported-as-png{suffix}", 1, disguised, (expected,))

        def folder(site: Site, suffix: str = suffix, data: bytes = data) -> Command:
            site.bundle()
            site.images("in", 2)
            (site / f"in/photo{suffix}").write_bytes(data)
            return Command(["inspect", "parts.snl", "in", "--json", "out.jsonl", "--quiet"])

        yield Attempt(
            f"unsupported-in-folder{suffix}",
            1,
            folder,
            (partly(r"photo|" + suffix, check=checks.inspected(2, "out.jsonl")),),
            writes=("out.jsonl",),
            fast=suffix == ".heic",
        )

        def doctor(site: Site, suffix: str = suffix, data: bytes = data) -> Command:
            site.data()
            for number in range(3):
                path = site / f"data/bolt/train/good/photo{number}{suffix}"
                path.write_bytes(data)
            return Command(["doctor", "data", "--quiet"])

        yield Attempt(
            f"unsupported-doctor{suffix}",
            1,
            doctor,
            (partly(rf"\{suffix}|photo0|unsupported|not supported"),),
        )


def _range_notes() -> Iterator[Attempt]:
    """Where nothing is stated, doctor and training say that the range is not used."""
    for bits in (10, 12, 14):
        for kind in ("png", "tif"):
            for verb in ("doctor", "train"):
                make = bind(_narrow_range, bits=bits, kind=kind, verb=verb)
                says = rf"{2**bits - 1}|{bits}[ -]bit|white"
                yield Attempt(
                    f"narrow-range-{verb}-{kind}-{bits}",
                    1,
                    make,
                    (partly(says),),
                    writes=("out.snl", "out.snl.*", "out.snl.*/*"),
                    fast=(bits, kind) == (12, "png"),
                )


def _narrow_range(site: Site, bits: int, kind: str, verb: str) -> Command:
    for number in range(6):
        values = scene(number) * 0.98
        samples = quantised(values, 2**bits - 1)
        samples[0, 0] = 2**bits - 1 if number == 0 else samples[0, 0]
        data = write_png(samples, 16, 0) if kind == "png" else write_tiff(samples, 16)
        path = site / f"data/part/train/good/{number}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if verb == "doctor":
        return Command(["doctor", "data", "--quiet"])
    from tests.conftest import TINY_OPTIONS

    return Command(["train", "data", "-o", "out.snl", *TINY_OPTIONS, "--quiet"])


def _videos() -> Iterator[Attempt]:
    """Phones store videos sideways with a display matrix; players and inspectors turn them."""
    for kind in ("mp4", "mov"):
        for angle in (0, 90, 180, 270):

            def turned(site: Site, kind: str = kind, angle: int = angle) -> Command:
                frame = as_rgb8(quantised(scene(9, colour=True), 255), 255)
                frame = np.kron(frame, np.ones((4, 4, 1), np.uint8))
                turned_video(site / f"a.{kind}", [frame] * 3, angle)
                reference = np.ascontiguousarray(np.rot90(frame, -angle // 90))
                return Command(call=lambda: _first_frame(str(site / f"a.{kind}"), reference))

            expected = (right(checks.value_check(_same_frame)),)
            yield Attempt(f"video-turned-{kind}-{angle}", 1, turned, expected, fast=angle == 90)

    def by_inspect(site: Site) -> Command:
        frame = as_rgb8(quantised(scene(9, colour=True), 255), 255)
        frame = np.kron(frame, np.ones((4, 4, 1), np.uint8))
        turned_video(site / "a.mp4", [frame] * 3, 90)
        site.bundle()
        return Command(["inspect", "parts.snl", "a.mp4", "--json", "out.jsonl", "--quiet"])

    def upright(site: Site, _: Any) -> str | None:
        sizes = {(r["width"], r["height"]) for r in site.lines("out.jsonl")}
        return None if sizes == {(160, 192)} else f"frames of {sizes}"

    yield Attempt(
        "video-turned-inspect",
        1,
        by_inspect,
        (right(checks.every(checks.inspected(3, "out.jsonl"), upright)),),
        writes=("out.jsonl",),
        fast=True,
    )
    for kind in ("mp4", "mkv", "avi", "webm", "ts", "mpg"):

        def plain(site: Site, kind: str = kind) -> Command:
            frame = as_rgb8(quantised(scene(9, colour=True), 255), 255)
            frame = np.kron(frame, np.ones((4, 4, 1), np.uint8))
            write_video(site / f"a.{kind}", [frame] * 5)
            site.bundle()
            return Command(["inspect", "parts.snl", f"a.{kind}", "--quiet"])

        yield Attempt(f"video-{kind}", 1, plain, (right(checks.inspected(5)),))


def _first_frame(path: str, reference: Any) -> dict[str, Any]:
    from snl.data.video import frames

    image = next(iter(frames(path))).image
    if image.shape != reference.shape:
        return {"shape": list(image.shape), "difference": 255.0}
    difference = np.abs(image.astype(int) - reference).mean()
    return {"shape": list(image.shape), "difference": float(difference)}


def _same_frame(value: Any) -> str | None:
    if value["difference"] > 12:
        return f"frame differs by {value['difference']:.0f} on average, shape {value['shape']}"
    return None


def _scores_agree() -> Iterator[Attempt]:
    """The same part in other files gets the same score from one bundle, or a message."""
    for name, top in (("png16", 65535), ("pgm12", 4095), ("pgm10", 1023), ("tiff16", 65535)):

        def make(site: Site, name: str = name, top: int = top) -> Command:
            site.bundle()
            eight = site.image("eight.png", 905, defect=True)
            samples = np.asarray(Image.open(eight)).astype(np.int64)
            wide = np.rint(samples / 255 * top).astype(np.int64)
            if name.startswith("pgm"):
                (site / "wide.ppm").write_bytes(other.write_pnm(wide, top))
            elif name.startswith("tiff"):
                (site / "wide.tif").write_bytes(write_tiff(wide, 16, 2))
            else:
                (site / "wide.png").write_bytes(write_png(wide, 16, 2))
            wide_name = next(p.name for p in site.root.glob("wide.*"))
            return Command(["inspect", "parts.snl", "eight.png", wide_name, "--quiet"])

        def same(_: Site, result: Any) -> str | None:
            import json

            a, b = (json.loads(line)["score"] for line in result.out.splitlines())
            return None if abs(a - b) <= 0.02 * abs(a) else f"scores {a} and {b}"

        yield Attempt(f"same-score-{name}", 1, make, (right(same),), fast=name == "pgm12")
