"""Images in files: decoded when they are asked for, by several threads, all scaled to one size."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BATCH = 512  # images decoded at a time when all are


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files, as Inputs.

    Attributes:
        directory: that the names start from.
        names: of the files, relative to it.
        size: (H, W) that images are scaled to, what sticks out of this shape being cut off on both sides.
        device: that images are put on.

    """

    directory: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Decode the images at rows (b,) int64 to (b, 3, H, W) uint8.

        Raises:
            ValueError: a file is missing, broken or no image; the message names it.

        """
        paths = [self.directory / self.names[i] for i in rows.tolist()]
        with ThreadPoolExecutor() as pool:  # Pillow decodes without holding Python's lock
            images = list(pool.map(lambda path: _read(path, self.size), paths))
        pixels = np.stack(images) if images else np.empty((0, *self.size, 3), np.uint8)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(self.device)

    def to(self, device: torch.device | str, /) -> ImageFiles:
        return replace(self, device=device)

    def subset(self, rows: Tensor) -> ImageFiles:
        return replace(self, names=pick(self.names, rows))

    @property
    def nbytes(self) -> int:
        """What all images take once decoded."""
        return 3 * self.size[0] * self.size[1] * len(self)

    def read(self) -> Tensor:
        """Decode all images to (n, 3, H, W) uint8."""
        images = torch.empty((len(self), 3, *self.size), dtype=torch.uint8, device=self.device)
        for rows in torch.split(torch.arange(len(self)), BATCH):
            images[rows] = self[rows]
        return images


def image_names(directory: Path, folder: Path) -> list[str]:
    """List the image files in a folder, in order, relative to directory; other files are passed over."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path.relative_to(directory).as_posix() for path in files)


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def pick(names: Sequence[str], rows: Tensor) -> tuple[str, ...]:
    return tuple(names[i] for i in rows.tolist())


def _read(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Decode a file to (H, W, 3)."""
    height, width = size
    try:
        with Image.open(path) as image:
            image.draft(None, (max(size), max(size)))  # a JPEG far larger than needed is decoded at a fraction
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR))
    except Exception as error:  # on a broken file Pillow raises almost anything
        raise ValueError(f"{path}: not a readable image: {error}") from error
