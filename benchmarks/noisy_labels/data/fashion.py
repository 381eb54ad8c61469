"""Fashion-MNIST: the four IDX files, compressed as downloaded or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Examples, Published, held_out
from .options import Options, check_labels, refuse_size

PAGE = "https://github.com/zalandoresearch/fashion-mnist"
TRAIN_IMAGES, TEST_IMAGES, SIDE = 60_000, 10_000, 28
VALIDATION = 5_000
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def fashion_mnist(options: Options) -> Dataset:
    """Read Fashion-MNIST; 5,000 of its training images are for validation unless options say otherwise."""
    refuse_size("fashion-mnist", options)
    whole = _examples(options.directory, "train", TRAIN_IMAGES)
    test = _examples(options.directory, "t10k", TEST_IMAGES)
    validation = VALIDATION if options.validation is None else options.validation
    train_rows, validation_rows = held_out(whole.labels, validation, options.seed)
    return Dataset(
        "fashion-mnist",
        len(CLASS_NAMES),
        whole.subset(train_rows),
        whole.subset(validation_rows),
        test,
        class_names=CLASS_NAMES,
        augmentation="pad-crop",
        published=Published(whole.labels, train_rows),
    )


def _examples(directory: Path, part: str, count: int) -> Examples:
    images = _read(_find(directory, f"{part}-images-idx3-ubyte"), (count, SIDE, SIDE))
    path = _find(directory, f"{part}-labels-idx1-ubyte")
    labels = _read(path, (count,)).long()
    check_labels(labels, len(CLASS_NAMES), path)
    return Examples(images[:, None], labels)


def _find(directory: Path, name: str) -> Path:
    """Find a file in the directory, or where torchvision puts it below."""
    for folder in (directory, directory / "FashionMNIST" / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"expected {name} or {name}.gz in {directory}: download the four files from {PAGE}")


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read an IDX file of bytes: 0, 0, 8 (the type), the number of sizes, the sizes as big-endian int32, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: damaged, or not a whole .gz: {error}") from error
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
    if content[: len(header)] != header:
        raise ValueError(f"{path}: expected an IDX file of bytes of shape {shape}, it starts with {content[:16].hex()}")
    expected = len(header) + int(np.prod(shape))
    if len(content) != expected:
        raise ValueError(f"{path}: expected {expected} bytes, got {len(content)}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy())
