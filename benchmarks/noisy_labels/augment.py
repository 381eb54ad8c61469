"""From stored inputs to what networks take: floats of mean 0 and spread 1, in training cropped and flipped.

All of a batch at once, on its device. Every draw comes from the generator that the caller seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import Dataset

MOST_IMAGES = 10_000  # for the statistics; more would move them by less than a hundredth of the spread


@dataclass(frozen=True)
class Kind:
    """A way to vary images.

    Attributes:
        pad: the share of an image's side by which it is padded on every side before the crop.
        crop: the share of an image's side that is left of it.
        flip: mirror each image or not, with equal chances.

    """

    pad: float = 0.0
    crop: float = 1.0
    flip: bool = False


KINDS: dict[str, Kind] = {
    "none": Kind(),
    "pad-crop": Kind(pad=1 / 8),
    "pad-crop-flip": Kind(pad=1 / 8, flip=True),  # 4 of 32 pixels, as He et al. 2016 for CIFAR
    "crop-flip": Kind(crop=7 / 8, flip=True),  # 224 of 256 pixels
}


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the training images' pixels, by channel: mean and standard deviation, (channels,) float32, from 0 to 255."""

    mean: Tensor
    std: Tensor


def statistics(dataset: Dataset) -> Statistics | None:
    """Measure the training images, at most MOST_IMAGES of them at even distances; None for features."""
    count = len(dataset.train)
    sums: list[Tensor] = []
    total = 0
    for rows in torch.split(torch.arange(0, count, -(-count // MOST_IMAGES)), 500):
        batch = dataset.train.inputs[rows]
        if batch.is_floating_point():
            return None
        pixels = batch.double()
        sums.append(torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))]))
        total += pixels[:, 0].numel()
    mean, square = torch.stack(sums).sum(0) / total
    std = (square - mean.square()).clamp(min=1.0).sqrt()  # a constant channel stays finite
    return Statistics(mean.float(), std.float())


def prepare(batch: Tensor, statistics: Statistics | None, generator: torch.Generator | None, kind: str) -> Tensor:
    """Normalise a batch and, in training, vary it.

    Args:
        batch: features (b, f) float, returned as they are, or images (b, channels, H, W) uint8.
        statistics: of the training images, on the device of the batch.
        generator: draws crops and flips; None in evaluation, which takes the middle of the image.
        kind: one of KINDS.

    Returns:
        (b, f), or (b, channels, h, w) float32.

    """
    if kind not in KINDS:
        raise ValueError(f"expected an augmentation out of {', '.join(KINDS)}, got {kind}")
    if batch.is_floating_point():
        return batch
    if statistics is None:
        raise ValueError("expected the statistics of the training images, got None")
    images = (batch.float() - statistics.mean[:, None, None]) / statistics.std[:, None, None]
    height, width = prepared_shape(tuple(images.shape[1:]), kind)[1:]
    if generator is None or KINDS[kind] == Kind():
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        return images[:, :, top : top + height, left : left + width]
    pad_y, pad_x = (int(KINDS[kind].pad * side) for side in images.shape[2:])
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))  # by zeros, the mean colour
    return _crop(padded, height, width, KINDS[kind].flip, generator)


def prepared_shape(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Return the shape of an input once prepared, of an input's shape (features,) or (channels, H, W)."""
    return (shape[0], *(int(KINDS[kind].crop * side) for side in shape[1:]))


def _crop(images: Tensor, height: int, width: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Cut (height, width) out of each image at a place of its own, mirrored by chance if flip says so."""
    count, channels, _, full_width = images.shape

    def draw(choices: int) -> Tensor:
        drawn = torch.randint(choices, (count, 1), generator=generator, device=generator.device)
        return drawn.to(images.device, non_blocking=True)

    y, x = (torch.arange(side, device=images.device) for side in (height, width))
    rows = draw(images.shape[2] - height + 1) + y  # (count, height)
    columns = draw(full_width - width + 1) + (torch.where(draw(2) == 1, width - 1 - x, x) if flip else x)
    images = images.gather(2, rows[:, None, :, None].expand(count, channels, height, full_width))
    return images.gather(3, columns[:, None, None, :].expand(count, channels, height, width))
