"""Draws a few pictures to begin with: patterns of three kinds. Your own pictures go into the same folders."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 32
CLASSES = ("checks", "lying", "standing")  # squares, and stripes of two kinds
PICTURES = {"train": 100, "test": 25}  # of each class


def draw(kind: str, chance: random.Random) -> Image.Image:
    """Draw one pattern: of some width, in two colours."""
    dark, bright = (tuple(chance.randrange(low, low + 96) for _ in range(3)) for low in (32, 128))
    picture = Image.new("RGB", (SIDE, SIDE), dark)
    pen = ImageDraw.Draw(picture)
    step = chance.randrange(3, 7)
    for row in range(0, SIDE, step):
        for column in range(0, SIDE, step):
            number = {"checks": row + column, "lying": row, "standing": column}[kind] // step
            if number % 2:
                pen.rectangle((column, row, column + step - 1, row + step - 1), fill=bright)
    return picture


def main(folder: Path) -> None:
    """Write the pictures, unless there are some."""
    if (folder / "train").exists():
        sys.exit(f"{folder / 'train'} is there already: nothing was drawn")
    chance = random.Random(1)
    for part, count in PICTURES.items():
        for kind in CLASSES:
            (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                draw(kind, chance).save(folder / part / kind / f"{number:03}.png")
    print(f"{folder}: {len(CLASSES) * sum(PICTURES.values())} pictures of {', '.join(CLASSES)}")


if __name__ == "__main__":
    main(Path(__file__).parent / "data")
