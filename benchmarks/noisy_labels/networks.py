"""Networks large enough to memorise wrong labels, by name; all take floats, as augment.prepare makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .augment import prepared_shape
from .data import Dataset

SMALL_WIDTHS = (32, 64, 128, 256)
RESNET_WIDTHS = (16, 32, 64)


def build(name: str, example: Dataset | tuple[int, ...], num_classes: int, seed: int) -> nn.Module:
    """Make a network, inputs (N, ...) float32 -> logits (N, num_classes).

    Args:
        name: one of NETWORKS.
        example: the data set, or the shape of one prepared input: (features,) or (channels, H, W).
        num_classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.

    Raises:
        ValueError: an unknown name, or a convolutional network for inputs that are no images.
        ImportError: resnet50 without torchvision.

    """
    if name not in NETWORKS:
        raise ValueError(f"expected a network out of {', '.join(NETWORKS)}, got {name}")
    shape = _shape(example) if isinstance(example, Dataset) else example
    if name != "mlp" and len(shape) != 3:
        raise ValueError(f"{name} takes images, expected a shape (channels, H, W), got {shape}")
    with _seeded(seed):
        return NETWORKS[name](shape, num_classes)


def mlp(features: int, num_classes: int, *, seed: int, hidden: int = 512) -> nn.Sequential:
    """Make two hidden layers of rectified units, (N, features) -> logits (N, num_classes).

    Args:
        features: size of an input.
        num_classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.
        hidden: units in each hidden layer.

    """
    with _seeded(seed):
        return nn.Sequential(*_mlp_layers(features, num_classes, hidden))


def small(shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Make four convolutions, all but the first halving the image, for runs of minutes."""
    layers: list[nn.Module] = []
    for i, width in enumerate(SMALL_WIDTHS):
        channels = SMALL_WIDTHS[i - 1] if i else shape[0]
        layers += [_conv(channels, width, stride=2 if i else 1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(SMALL_WIDTHS[-1], num_classes))


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(channels, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = _conv(width, width), nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        # Every other pixel, and channels of zeros for those that the block adds.
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(residual + shortcut)


def resnet(depth: int, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Make the ResNet of He et al. 2016, section 4.2, for small images: depth 6n + 2 in three stages."""
    blocks, channels = [], RESNET_WIDTHS[0]
    for stage, width in enumerate(RESNET_WIDTHS):
        for i in range((depth - 2) // 6):
            blocks.append(Block(channels, width, stride=2 if stage and not i else 1))
            channels = width
    network = nn.Sequential(
        *(_conv(shape[0], RESNET_WIDTHS[0]), nn.BatchNorm2d(RESNET_WIDTHS[0]), nn.ReLU()),
        *blocks,
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def resnet50(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Make torchvision's ResNet-50, untrained, for photographs of about 224 x 224."""
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError("resnet50 is torchvision's: pip install torchvision, or choose another network") from error
    if shape[0] != 3:
        raise ValueError(f"resnet50 takes images of 3 channels, got {shape[0]}")
    return cast(nn.Module, models.resnet50(num_classes=num_classes))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the while; torch.manual_seed would seed every GPU's, too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _flat_mlp(shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    flatten = [nn.Flatten()] if len(shape) > 1 else []
    return nn.Sequential(*flatten, *_mlp_layers(torch.Size(shape).numel(), num_classes, hidden=512))


def _mlp_layers(features: int, num_classes: int, hidden: int) -> list[nn.Module]:
    return [
        *(nn.Linear(features, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, num_classes),
    ]


def _conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)


def _shape(dataset: Dataset) -> tuple[int, ...]:
    shape = dataset.train.inputs[torch.zeros(1, dtype=torch.int64)].shape[1:]
    return prepared_shape(tuple(shape), dataset.augmentation)


NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "mlp": _flat_mlp,
    "small": small,
    "resnet8": lambda shape, num_classes: resnet(8, shape, num_classes),
    "resnet20": lambda shape, num_classes: resnet(20, shape, num_classes),
    "resnet44": lambda shape, num_classes: resnet(44, shape, num_classes),
    "resnet56": lambda shape, num_classes: resnet(56, shape, num_classes),
    "resnet50": resnet50,
}
