"""Draw a sheet of generated canvases without photographs: the picture in docs/teacher.md.

python pretraining/sheet.py -o docs/canvases.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

from canvases import Canvases
from snl.files import atomic


def sheet(columns: int, rows: int, side: int) -> Image.Image:
    """Return an image of the canvases 0, 1, ..., row by row, each `side` pixels wide."""
    draw = Canvases([0, 0], photographs=())
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for number in range(columns * rows):
        tile = Image.fromarray(draw(number)).resize((side - 4, side - 4))
        page.paste(tile, (number % columns * side + 2, number // columns * side + 2))
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with atomic(arguments.output) as temporary:
        sheet(9, 4, 112).save(temporary, format="JPEG", quality=85)
    return 0


if __name__ == "__main__":
    sys.exit(main())
