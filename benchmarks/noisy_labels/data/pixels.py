"""One image file to 8-bit RGB, whatever it holds: scaled by what its mode says is white, or refused.

Pillow's own `convert("RGB")` cuts 16-bit and float images off at 255, which leaves them white or black, and shows the
colours that lie hidden below transparency.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

WHITE_IS_ZERO = 0  # of TIFF's tag PhotometricInterpretation
PHOTOMETRIC = 262
SIXTEEN_BITS = 65_535


def read_pixels(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Decode a file to (H, W, 3), upright, cut and scaled to size.

    Args:
        path: of the file.
        size: (H, W).

    Raises:
        ValueError: the file is missing, broken, no image, or of a mode without a known white; the message names it.

    """
    height, width = size
    try:
        with Image.open(path) as image:
            image.draft(None, (max(size), max(size)))  # a JPEG far larger than needed is decoded at a fraction
            upright = rgb(image)
            return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
    except Exception as error:  # on a broken file Pillow raises almost anything
        raise ValueError(f"{path}: not a readable image: {error}") from error


def rgb(image: Image.Image) -> Image.Image:
    """Turn an open image upright and to 8-bit RGB; what is transparent becomes white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        return _grey(_floats(np.asarray(upright)))
    if upright.mode.startswith("I"):
        return _grey(_integers(image, np.asarray(upright)))
    if upright.has_transparency_data:
        pixels = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return upright.convert("RGB")


def _integers(image: Image.Image, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Scale 16-bit integers to [0, 1]; Pillow gives those of PGM and of older PNG in 32 bits."""
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError("its pixels are 32-bit integers, and nothing says which is white: expected 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    scaled = values.astype(np.float64) / SIXTEEN_BITS
    return 1 - scaled if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else scaled


def _floats(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    scaled = values.astype(np.float64)
    if not (np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 1):
        low, high = scaled.min(), scaled.max()
        raise ValueError(
            f"its pixels are floats from {low:g} to {high:g}: expected floats from 0 to 1, or 8 or 16 bits"
        )
    return scaled


def _grey(scaled: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((255 * scaled).round().astype(np.uint8)).convert("RGB")
