"""The picture of the README: of every product the anomalous test image of median score.

python benchmarks/picture.py parts.snl demo/parts -o docs/overlays.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import snl
from snl.drawing.overlay import heat
from snl.files import atomic

SIDE, GAP = 200, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    inspector = snl.load(arguments.file)
    evaluation = snl.evaluate(inspector, arguments.data)
    tiles = []
    for product in evaluation.products:
        scores = [s for s in evaluation.scores if (s.product, s.label) == (product, "anomalous")]
        middle = sorted(scores, key=lambda s: s.score)[len(scores) // 2]
        result = inspector.inspect(middle.path, product)
        marked = Image.fromarray(heat(result.image, result.anomaly_map, result.map_range))
        pair = Image.new("RGB", (2 * SIDE + 2, SIDE), "white")
        pair.paste(Image.fromarray(result.image).resize((SIDE, SIDE)), (0, 0))
        pair.paste(marked.resize((SIDE, SIDE)), (SIDE + 2, 0))
        tiles.append(pair)
    rows = -(-len(tiles) // 2)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (2 * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, ((number % 2) * (width + GAP), (number // 2) * (height + GAP)))
    with atomic(arguments.output) as temporary:
        sheet.quantize(255).save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
