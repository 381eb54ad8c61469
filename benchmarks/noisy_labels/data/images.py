"""Images in files: decoded when they are asked for, by several threads, all scaled to one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .pixels import read_pixels

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga"),
    *(".tif", ".tiff", ".webp"),
)
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
        images, broken = self.decode(rows)
        if broken:
            raise ValueError(next(iter(broken.values())))
        return images

    def decode(self, rows: Tensor) -> tuple[Tensor, dict[int, str]]:
        """Decode what can be decoded at rows (b,) int64.

        Returns:
            (b, 3, H, W) uint8, black where an image is broken; and by row what is wrong with it.

        """
        broken: dict[int, str] = {}
        pixels = np.zeros((len(rows), *self.size, 3), np.uint8)

        def read(place: int, row: int) -> None:
            try:
                pixels[place] = read_pixels(self.directory / self.names[row], self.size)
            except ValueError as error:
                broken[row] = str(error)

        with ThreadPoolExecutor() as pool:  # Pillow decodes without holding Python's lock
            list(pool.map(read, range(len(rows)), rows.tolist()))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(self.device)
        return images, {row: broken[row] for row in sorted(broken)}

    def to(self, device: torch.device | str, /) -> ImageFiles:
        return replace(self, device=device)

    def subset(self, rows: Tensor) -> ImageFiles:
        return replace(self, names=pick(self.names, rows))

    @property
    def nbytes(self) -> int:
        """What all images take once decoded."""
        return 3 * self.size[0] * self.size[1] * len(self)

    def read(self) -> tuple[Tensor, dict[int, str]]:
        """Decode all images to (n, 3, H, W) uint8, as `decode` does."""
        images = torch.empty((len(self), 3, *self.size), dtype=torch.uint8, device=self.device)
        broken: dict[int, str] = {}
        for rows in torch.split(torch.arange(len(self)), BATCH):
            images[rows], found = self.decode(rows)
            broken |= found
        return images, broken

    def broken(self) -> dict[int, str]:
        """Decode all images, keeping none; return what is wrong with those that cannot be."""
        parts = torch.split(torch.arange(len(self)), BATCH)
        return {row: reason for rows in parts for row, reason in self.decode(rows)[1].items()}


def image_names(directory: Path, folder: Path) -> list[str]:
    """List the image files in a folder, in order, relative to directory; other files are passed over."""
    return relative(directory, (path for path in folder.iterdir() if is_image(path)))


def is_image(path: Path) -> bool:
    """Tell image files by their names; those that begin with a dot are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def relative(directory: Path, paths: Iterable[Path]) -> list[str]:
    """Name paths from a directory on, in order."""
    return sorted(path.relative_to(directory).as_posix() for path in paths)


def other_files(folders: Iterable[Path]) -> list[str]:
    """Say which files in the folders, not below them, are passed over because of their suffix."""
    files = (path for folder in folders for path in folder.iterdir() if path.is_file())
    found = Counter(path.suffix.lower() or "none" for path in files if not is_image(path) and path.name[0] != ".")
    if not found:
        return []
    suffixes = ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(found.items()))
    return [f"{counted(sum(found.values()), 'file')} with another suffix than images have ({suffixes})"]


def counted(count: int, name: str) -> str:
    """Write a number with its noun."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def pick(names: Sequence[str], rows: Tensor) -> tuple[str, ...]:
    return tuple(names[i] for i in rows.tolist())
