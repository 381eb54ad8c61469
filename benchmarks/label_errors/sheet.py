"""A picture of the first suspects: each image with the label given and the label predicted.

`python -m benchmarks.label_errors.sheet SUSPECTS.csv IMAGES --to sheet.png` takes the list that
`python -m imae_ext.label_errors` or `python -m benchmarks.noisy_labels suspects` wrote. IMAGES is a .npy file of
(N, H, W) or (N, H, W, 3), to which the column index belongs, or the folder to which the column file belongs.
Without arguments but --to, it draws scikit-learn's digits with 20% of the labels wrong.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TILE, MARGIN, LINE = 72, 12, 15  # pixels: an image's side, between two of them, a line of text
HEAD = 48  # pixels above the images
COLUMNS, COUNT = 10, 100
RED, GREEN, GREY, BLACK = "#b00020", "#00702a", "#777777", "#000000"


@dataclass(frozen=True)
class Suspect:
    """A label to look at.

    Attributes:
        image: (H, W) or (H, W, 3) uint8.
        given: label.
        predicted: label.
        p: probability of the given label.
        true: label, where it is known.

    """

    image: npt.NDArray[np.uint8]
    given: str
    predicted: str
    p: float
    true: str | None = None


def draw(suspects: Sequence[Suspect], title: str, columns: int = COLUMNS) -> Image.Image:
    """Draw the suspects in rows from left to right; the given label is red, the predicted one green.

    Where the true label is known, a third line has it: green if it is the predicted one, red if the given label was
    right after all.
    """
    if not suspects:
        raise ValueError("expected at least one suspect, got none")
    lines = 3 if any(suspect.true is not None for suspect in suspects) else 2
    width, height = TILE + MARGIN, TILE + lines * LINE + MARGIN
    rows = -(-len(suspects) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + HEAD + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    legend = "Below each: the given label (red) with its probability, the predicted label"
    legend += ", the true label (green where it is the predicted one)" if lines == 3 else ""
    pen.text((MARGIN, 6), title, BLACK, ImageFont.load_default(14))
    pen.text((MARGIN, 26), legend, GREY, font)
    for i, suspect in enumerate(suspects):
        x, y = MARGIN + i % columns * width, HEAD + i // columns * height
        sheet.paste(_tile(suspect.image), (x, y))
        pen.rectangle((x - 1, y - 1, x + TILE, y + TILE), outline=GREY)
        p = f"{suspect.p:.2f}"
        pen.text((x, y + TILE + 1), _cut(pen, suspect.given, font, TILE - 30), RED, font)
        pen.text((x + TILE, y + TILE + 1), p, GREY, font, anchor="ra")
        pen.text((x, y + TILE + 1 + LINE), _cut(pen, suspect.predicted, font, TILE + MARGIN - 2), GREEN, font)
        if suspect.true is not None:
            colour = {suspect.given: RED, suspect.predicted: GREEN}.get(suspect.true, BLACK)
            true = _cut(pen, f"true {suspect.true}", font, TILE + MARGIN - 2)
            pen.text((x, y + TILE + 1 + 2 * LINE), true, colour, font)
    return sheet


def _tile(image: npt.NDArray[np.uint8]) -> Image.Image:
    """Scale an image to a square tile, on white: small ones without smoothing, so that their pixels can be seen."""
    picture = Image.fromarray(image).convert("RGB")
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if max(picture.size) <= 16 else Image.Resampling.BICUBIC
    tile = Image.new("RGB", (TILE, TILE), "white")
    tile.paste(picture.resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _cut(pen: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """Cut a label that is too long for its tile."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def read(suspects: Path, images: Path, count: int) -> list[Suspect]:
    """Read the first of a list of suspects, with their images."""
    with suspects.open(newline="", encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]
    needed = {"given_label", "predicted_label", "p_given", "file" if images.is_dir() else "index"}
    if not rows or needed - set(rows[0]):
        raise ValueError(f"{suspects}: expected the columns {', '.join(sorted(needed))}, and a line below them")
    pictures = None if images.is_dir() else _read_array(images)
    found = []
    for row in rows:
        if pictures is None:
            with Image.open(images / row["file"]) as file:
                image = np.asarray(file.convert("RGB"))
        elif int(row["index"]) < len(pictures):
            image = pictures[int(row["index"])]
        else:
            raise ValueError(f"{images}: expected an image {row['index']}, got {len(pictures)} images")
        true = row.get("true_label")
        found.append(Suspect(image, row["given_label"], row["predicted_label"], float(row["p_given"]), true))
    return found


def _read_array(path: Path) -> npt.NDArray[np.uint8]:
    pictures = np.load(path, allow_pickle=False)
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.shape[3:] not in ((), (3,)):
        raise ValueError(
            f"{path}: expected uint8 images of shape (N, H, W) or (N, H, W, 3), got {pictures.dtype} of shape "
            f"{pictures.shape}"
        )
    return pictures


def digits(count: int, rate: float = 0.2, seed: int = 0) -> list[Suspect]:
    """Find the first suspects among scikit-learn's digits, some of them labelled wrong."""
    from sklearn.datasets import load_digits

    import imae_ext
    from benchmarks.noisy_labels.noise import symmetric

    features, labels = load_digits(return_X_y=True)
    made = symmetric(labels, rate, 10, seed)
    found = imae_ext.find_label_errors(features, made.labels)
    print(found.how)
    images = 255 - (features * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8)
    return [
        Suspect(images[i], str(made.labels[i]), str(found.predicted[i]), found.p[i], str(made.clean[i]))
        for i in found.order[:count]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_errors.sheet", description=__doc__)
    parser.add_argument("suspects", metavar="SUSPECTS", nargs="?", type=Path, help="CSV file")
    parser.add_argument("images", metavar="IMAGES", nargs="?", type=Path, help=".npy file or folder")
    parser.add_argument("--to", type=Path, required=True, help="picture to write, .png or .jpg")
    parser.add_argument("--count", type=int, default=COUNT, help="how many suspects (default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.suspects is None) != (options.images is None):
        parser.error("expected both SUSPECTS and IMAGES, or none of them")
    if options.count < 1:
        parser.error(f"expected a --count of at least 1, got {options.count}")
    if options.suspects is None:
        found = digits(options.count)
        title = f"Digits, 20% labelled wrong: the {len(found)} least believed labels"
    else:
        found = read(options.suspects, options.images, options.count)
        title = f"The {len(found)} least believed labels"
    draw(found, title).save(options.to)
    print(f"{options.to}: {len(found)} images")


if __name__ == "__main__":
    main()
