"""CIFAR-10 and CIFAR-100: the official archives for Python, unpacked or as they were downloaded.

Files are checked by shape, type and range of labels, not by a checksum: images that were encoded anew are
welcome. The order of the images is what label files, such as CIFAR-10N's, count on.
"""

from __future__ import annotations

import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Examples, Published, held_out
from .options import Options, as_labels, check_labels, refuse_size
from .pickles import read_pickle

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
VALIDATION = 5_000
PIXELS = (3, 32, 32)


@dataclass(frozen=True)
class Archive:
    """The layout of an official archive.

    Attributes:
        name: of the data set.
        num_classes: of its labels.
        download: the archive's file name.
        folder: that it unpacks to.
        train: its files of training images, in order.
        test: its file of test images.
        meta: its file of class names.
        label_key: where a file of images has its labels.
        names_key: where the file of class names has them.
        train_images: in each file of training images.
        test_images: in the file of test images.

    """

    name: str
    num_classes: int
    download: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_key: bytes
    names_key: bytes
    train_images: int
    test_images: int = 10_000


CIFAR10 = Archive(
    name="cifar10",
    num_classes=10,
    download="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    label_key=b"labels",
    names_key=b"label_names",
    train_images=10_000,
)
CIFAR100 = Archive(
    name="cifar100",
    num_classes=100,
    download="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    label_key=b"fine_labels",
    names_key=b"fine_label_names",
    train_images=50_000,
)


def cifar10(options: Options) -> Dataset:
    """Read CIFAR-10; 5,000 of the 50,000 training images are for validation unless options say otherwise."""
    return _read(CIFAR10, options)


def cifar100(options: Options) -> Dataset:
    """Read CIFAR-100 with its 100 fine classes; split as CIFAR-10."""
    return _read(CIFAR100, options)


def _read(archive: Archive, options: Options) -> Dataset:
    refuse_size(archive.name, options)
    source, contents = _contents(archive, options.directory)
    parts = [_images(archive, source / name, contents[name], archive.train_images) for name in archive.train]
    whole = Examples(torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))
    test = Examples(*_images(archive, source / archive.test, contents[archive.test], archive.test_images))
    validation = VALIDATION if options.validation is None else options.validation
    train_rows, validation_rows = held_out(whole.labels, validation, options.seed)
    return Dataset(
        archive.name,
        archive.num_classes,
        whole.subset(train_rows),
        whole.subset(validation_rows),
        test,
        class_names=_class_names(archive, source / archive.meta, contents[archive.meta]),
        augmentation="pad-crop-flip",
        published=Published(whole.labels, train_rows),
    )


def _contents(archive: Archive, directory: Path) -> tuple[Path, dict[str, bytes]]:
    """Read the files of an archive, by name, and where they are."""
    names = (*archive.train, archive.test, archive.meta)
    download = directory / archive.download
    folder = next((path for path in (directory / archive.folder, directory) if (path / names[0]).is_file()), None)
    if folder is None and not download.is_file():
        raise FileNotFoundError(
            f"expected {archive.folder}/ or {archive.download} in {directory}: "
            f"download the archive for Python from {PAGE}"
        )
    source = folder or download
    found = (
        _unpack(download, archive.folder)
        if folder is None
        else {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    )
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(
            f"{source}: expected {', '.join(missing)} in it: download {archive.download} from {PAGE}"
        )
    return source, found


def _unpack(download: Path, folder: str) -> dict[str, bytes]:
    """Read all files of an archive in one pass: to look them up one by one would decompress it again for each."""
    found = {}
    try:
        with tarfile.open(download, "r:gz") as tar:
            for member in tar:
                path = Path(member.name)
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None and path.parent.name == folder:
                    found[path.name] = content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{download}: damaged, or not a whole .tar.gz ({error})") from error
    return found


def _images(archive: Archive, path: Path, content: bytes, count: int) -> tuple[Tensor, Tensor]:
    """Read a file of images as (count, 3, 32, 32) uint8 and (count,) int64."""
    batch = _dict(path, content)
    data, labels = batch.get(b"data"), batch.get(archive.label_key)
    shape = (count, int(np.prod(PIXELS)))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != shape:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{path}: expected data to be uint8 of shape {shape}, got {found}")
    if not isinstance(labels, list) or len(labels) != count or not all(type(label) is int for label in labels):
        raise ValueError(f"{path}: expected {archive.label_key.decode()} to be a list of {count} integers")
    classes = as_labels(labels)
    check_labels(classes, archive.num_classes, path)
    return torch.from_numpy(data.reshape(-1, *PIXELS).copy()), classes


def _class_names(archive: Archive, path: Path, content: bytes) -> tuple[str, ...]:
    names = _dict(path, content).get(archive.names_key)
    if not isinstance(names, list) or len(names) != archive.num_classes:
        raise ValueError(f"{path}: expected {archive.names_key.decode()} to be a list of {archive.num_classes} names")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def _dict(path: Path, content: bytes) -> dict[Any, Any]:
    try:
        loaded = read_pickle(content)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: not a file of CIFAR's: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a dict, got {type(loaded).__name__}")
    return loaded
