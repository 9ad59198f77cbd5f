"""Images to pretrain on, generated on the fly: textures, shapes, text, objects, photographs.

A canvas is a SIDE x SIDE RGB image that depends only on a seed and its number. Every fourth canvas
is a crop of one of the public-domain photographs in scikit-image; the others are generated, with
photographs as the surface of some shapes.
"""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from textures import SIDE, Field, Rng, gradient, noise, texture

TRAINING_PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "coffee",
    "grass",
    "hubble_deep_field",
    "retina",
    "rocket",
    "text",
)
"""Public domain or CC0, according to the documentation of scikit-image."""
HELD_OUT_PHOTOGRAPHS = ("chelsea", "clock", "gravel")
"""Likewise; used only to measure the error, never for training."""

Picture = NDArray[np.float32]
"""(H, W, 3), 0..1."""


def photograph(name: str) -> NDArray[np.uint8]:
    """Return a photograph of scikit-image, (H, W, 3) uint8."""
    from skimage import data

    image = np.asarray(getattr(data, name)())
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, 2))


class Canvases:
    """Draws canvases: `Canvases([0, 1])(number)` returns (SIDE, SIDE, 3) uint8.

    Args:
        seed: seed of all canvases.
        photographs: names of photographs to use; empty: everything is generated.
    """

    def __init__(
        self, seed: list[int], photographs: tuple[str, ...] = TRAINING_PHOTOGRAPHS
    ) -> None:
        self.seed = seed
        self._photographs = [photograph(name) for name in photographs]

    def __call__(self, number: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([*self.seed, number])
        is_photograph = bool(self._photographs) and number % 4 == 0
        picture = self._photograph(rng) if is_photograph else self._generated(rng)
        return np.clip(picture * 255, 0, 255).astype(np.uint8)

    def _photograph(self, rng: Rng) -> Picture:
        """Return a square crop of a photograph, 0.35 to 1 of its shorter side."""
        image = self._photographs[rng.integers(len(self._photographs))]
        shorter = min(image.shape[:2])
        side = int(shorter * rng.uniform(0.35, 1))
        top, left = (rng.integers(n - side + 1) for n in image.shape[:2])
        part = Image.fromarray(image[top : top + side, left : left + side])
        resized = part.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return _picture(np.asarray(resized) / 255)

    def _generated(self, rng: Rng) -> Picture:
        picture = self._material(rng)
        for _ in range(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15])):
            operation = (self._leaves, self._object, self._blend, _write, _tile)[
                rng.choice(5, p=[0.3, 0.25, 0.15, 0.1, 0.2])
            ]
            picture = operation(rng, picture)
        if rng.random() < 0.5:
            picture = _light(rng, picture)
        return picture

    def _material(self, rng: Rng) -> Picture:
        """Return the surface of a shape: a coloured texture, a plain colour or a photograph."""
        kind = rng.random()
        if kind < 0.2 and self._photographs:
            return self._photograph(rng)
        if kind < 0.35:
            return _plain(rng)
        return _colour(rng, texture(rng))

    def _leaves(self, rng: Rng, picture: Picture) -> Picture:
        """Draw overlapping shapes ("dead leaves") in plain colours and one or two materials."""
        count = int(10 ** rng.uniform(0.5, 2.4))
        largest = SIDE * rng.uniform(0.05, 0.5)
        canvas = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
        draw = ImageDraw.Draw(canvas)
        materials = [
            Image.fromarray((np.clip(self._material(rng), 0, 1) * 255).astype(np.uint8))
            for _ in range(rng.integers(1, 3))
        ]
        palette = rng.uniform(0, 255, (rng.integers(2, 8), 3)).astype(int)
        filled = rng.random() < 0.8
        for number in range(count):
            centre = rng.uniform(0, SIDE, 2)
            radius = largest * rng.uniform(0.08, 1) ** 2 + 2
            outline = _outline(rng, centre, radius)
            if number % 4 == 0 and number < 60:
                mask = Image.new("L", canvas.size)
                ImageDraw.Draw(mask).polygon(outline, fill=255)
                canvas.paste(materials[rng.integers(len(materials))], mask=mask)
                continue
            colour = tuple(int(c) for c in palette[rng.integers(len(palette))])
            if filled:
                draw.polygon(outline, fill=colour)
            else:
                draw.line([*outline, outline[0]], fill=colour, width=int(rng.integers(1, 12)))
        return _picture(np.asarray(canvas) / 255)

    def _object(self, rng: Rng, picture: Picture) -> Picture:
        """Draw one large, symmetric object with holes, a bevel and a shadow."""
        size = SIDE // 2
        mask = Image.new("L", (size, size))
        draw = ImageDraw.Draw(mask)
        middle = np.full(2, size / 2) + rng.normal(0, size * 0.04, 2)
        draw.polygon(_outline(rng, middle, size * rng.uniform(0.2, 0.48)), fill=255)
        folds = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
        for _ in range(rng.integers(1, 5)):
            value = 255 if rng.random() < 0.5 else 0
            distance, radius = size * rng.uniform(0, 0.4), size * rng.uniform(0.02, 0.15)
            turn = rng.uniform(0, 2 * np.pi)
            for fold in range(folds):
                angle = turn + 2 * np.pi * fold / folds
                centre = middle + distance * np.array([np.cos(angle), np.sin(angle)])
                bounds = [*(centre - radius), *(centre + radius)]
                if folds % 2:
                    draw.rectangle(bounds, fill=value)
                else:
                    draw.ellipse(bounds, fill=value)
        shape = np.asarray(mask.resize((SIDE, SIDE)), dtype=np.float32) / 255
        part = self._material(rng)
        bevel = ndimage.gaussian_filter(shape, rng.uniform(2, 20))
        slope = bevel - np.roll(bevel, tuple(rng.integers(-8, 9, 2)), (0, 1))
        part = part + slope[..., None] * rng.uniform(-2, 2)
        shadow = np.roll(bevel, tuple(rng.integers(-15, 16, 2)), (0, 1))
        ground = picture * (1 - shadow * rng.uniform(0, 0.7))[..., None]
        return _picture(ground + (part - ground) * shape[..., None])

    def _blend(self, rng: Rng, picture: Picture) -> Picture:
        """Blend in another material with a texture as mask, with hard or soft edges."""
        mask = texture(rng)
        edge = rng.uniform(0.005, 0.3)
        level = np.quantile(mask[::8, ::8], rng.uniform(0.15, 0.85))
        share = np.clip((mask - level) / edge + 0.5, 0, 1)[..., None]
        return _picture(picture + (self._material(rng) - picture) * share)


def _outline(rng: Rng, centre: NDArray[np.float64], radius: float) -> list[tuple[float, float]]:
    """Return the corners of an ellipse, polygon, star, rectangle or blob."""
    kind = rng.integers(5)
    corners = [48, int(rng.integers(3, 9)), 2 * int(rng.integers(4, 16)), 4, 32][kind]
    angle = np.arange(corners) * 2 * np.pi / corners
    reach = np.full(corners, radius)
    if kind == 1 and rng.random() < 0.5:
        reach *= rng.uniform(0.4, 1, corners)
    if kind == 2:
        reach[1::2] *= rng.uniform(0.4, 0.95)
    if kind == 3:
        angle = angle + np.pi / 4
    if kind == 4:
        reach *= 1 + 0.3 * np.sin(angle * rng.integers(2, 6) + rng.uniform(0, 6))
    flattening = rng.uniform(0.1, 1) if rng.random() < 0.5 else 1.0
    turn = rng.uniform(0, 2 * np.pi)
    u, v = reach * np.cos(angle), reach * np.sin(angle) * flattening
    x = centre[0] + u * np.cos(turn) - v * np.sin(turn)
    y = centre[1] + u * np.sin(turn) + v * np.cos(turn)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _write(rng: Rng, picture: Picture) -> Picture:
    """Draw up to eleven lines of random letters and digits."""
    canvas = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    characters = string.ascii_letters + string.digits + ".,:;-+/()  "
    for _ in range(rng.integers(1, 12)):
        font = ImageFont.load_default(size=float(rng.uniform(10, 110)))
        text = "".join(rng.choice(list(characters), rng.integers(1, 24)))
        position = tuple(float(v) for v in rng.uniform(-40, SIDE - 40, 2))
        draw.text(position, text, font=font, fill=tuple(int(c) for c in rng.integers(0, 256, 3)))  # type: ignore[arg-type]
    return _picture(np.asarray(canvas) / 255)


def _tile(rng: Rng, picture: Picture) -> Picture:
    """Repeat a part of the picture, plain or mirrored, with smooth variations of brightness."""
    side = int(rng.choice([32, 64, 128, 256]))
    top, left = rng.integers(0, SIDE - side + 1, 2)
    motif = picture[top : top + side, left : left + side]
    if rng.random() < 0.5:
        motif = np.concatenate([motif, motif[:, ::-1]], 1)
        motif = np.concatenate([motif, motif[::-1]], 0)
    repeat = -(-SIDE // motif.shape[0])
    tiled = np.tile(motif, (repeat, repeat, 1))[:SIDE, :SIDE]
    return _picture(tiled * (1 + (noise(rng, 2.0)[..., None] - 0.5) * rng.uniform(0, 0.4)))


def _light(rng: Rng, picture: Picture) -> Picture:
    """Apply uneven lighting to the whole picture."""
    light = gradient(rng) if rng.random() < 0.5 else noise(rng, 3.0)
    low = rng.uniform(0.2, 0.9)
    return _picture(picture * (low + (rng.uniform(1, 1.4) - low) * light)[..., None])


def _plain(rng: Rng) -> Picture:
    """Return a single colour with a little grain."""
    colour = rng.uniform(0, 1, 3) if rng.random() < 0.6 else np.repeat(rng.uniform(0, 1), 3)
    grain = (noise(rng, rng.uniform(0.3, 2))[..., None] - 0.5) * rng.uniform(0, 0.2)
    return _picture(colour + grain)


def _colour(rng: Rng, field: Field) -> Picture:
    """Colour a texture with a palette of two to five colours, grey in a third of the cases."""
    stops = np.sort(rng.uniform(0, 1, rng.integers(2, 6)))
    colours = rng.uniform(0, 1, (len(stops), 3))
    if rng.random() < 0.35:
        colours[:] = colours[:, :1]
    elif rng.random() < 0.5:
        colours = colours[:1] + rng.normal(0, 0.15, colours.shape)
    return _picture(np.stack([np.interp(field, stops, colours[:, c]) for c in range(3)], -1))


def _picture(values: NDArray[np.floating]) -> Picture:
    return np.asarray(values, dtype=np.float32)
