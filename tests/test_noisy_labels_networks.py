"""Networks and what prepares their inputs: parameter counts, seeds, normalisation, crops and flips."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.noisy_labels import augment, networks
from benchmarks.noisy_labels.data import Dataset, Examples, digits
from benchmarks.noisy_labels.training import Prepared

CIFAR = (3, 32, 32)


def images_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def dataset_of(inputs: Tensor, augmentation: str = "none") -> Dataset:
    part = Examples(inputs, torch.arange(len(inputs)) % 2)
    return Dataset("by hand", 2, part, part, part, augmentation=augmentation)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Networks


# He et al. 2016, table 6, says 0.27, 0.66 and 0.85 million for the last three.
@pytest.mark.parametrize(
    ("name", "count"), [("resnet8", 75_290), ("resnet20", 269_722), ("resnet44", 658_586), ("resnet56", 853_018)]
)
def test_resnets_have_the_papers_parameters(name: str, count: int) -> None:
    network = networks.build(name, CIFAR, 10, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == int(name.removeprefix("resnet"))  # and the linear layer
    assert network.eval()(torch.randn(2, *CIFAR)).shape == (2, 10)


def test_a_resnets_stages_halve_the_image() -> None:
    network = networks.build("resnet20", CIFAR, 10, seed=0).eval()
    x = torch.randn(2, *CIFAR)
    shapes = []
    for layer in network:  # type: ignore[attr-defined]
        x = layer(x)
        if isinstance(layer, networks.Block):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == 3 * [(16, 32, 32)] + 3 * [(32, 16, 16)] + 3 * [(64, 8, 8)]


def test_a_blocks_shortcut_has_no_parameters() -> None:
    block = networks.Block(4, 8, stride=2).eval()
    for convolution in (block.conv1, block.conv2):
        torch.nn.init.zeros_(convolution.weight)
    x = torch.rand(2, 4, 6, 6)
    expected = torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 4, 3, 3)], dim=1)
    assert torch.equal(block(x), expected)  # with nothing beside it, the shortcut is the output


@pytest.mark.parametrize("shape", [(1, 28, 28), CIFAR, (3, 56, 56), (3, 8, 8)])
@pytest.mark.parametrize("name", ["mlp", "small", "resnet20"])
def test_networks_take_images_of_any_size(name: str, shape: tuple[int, ...]) -> None:
    network = networks.build(name, shape, 7, seed=0)
    logits = network(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_fits_the_prepared_inputs_of_a_data_set() -> None:
    assert networks.build("mlp", digits(), 10, seed=0)(digits().train.inputs[:2]).shape == (2, 10)
    dataset = dataset_of(images_of((4, 3, 64, 64)), augmentation="crop-flip")
    prepared = augment.prepare(dataset.train.inputs[:], augment.statistics(dataset), None, dataset.augmentation)
    assert networks.build("mlp", dataset, 2, seed=0)(prepared).shape == (4, 2)


def test_images_go_through_with_their_channels_side_by_side() -> None:
    """1.4 times as fast on a CPU; the numbers differ by rounding alone."""
    dataset = dataset_of(images_of((4, 3, 32, 32)))
    network = networks.build("small", dataset, 2, seed=0).eval()
    statistics = augment.statistics(dataset)
    expected = network(augment.prepare(dataset.train.inputs[:], statistics, None, "none"))
    seen: list[bool] = []
    network[0].register_forward_pre_hook(  # type: ignore[index]
        lambda module, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(Prepared(network, dataset)(dataset.train.inputs[:]), expected, atol=1e-4, rtol=1e-4)
    assert seen == [True]
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index,union-attr]


def test_the_mlp_by_name_is_the_one_of_the_demo() -> None:
    ours, theirs = networks.build("mlp", (64,), 10, seed=3), networks.mlp(64, 10, seed=3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["mlp", "small", "resnet20"])
def test_weights_are_seeded_and_leave_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (networks.build(name, CIFAR, 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [next(network.parameters()) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a network out of mlp, .*, got resnet21"):
        networks.build("resnet21", CIFAR, 10, seed=0)
    for name in ("small", "resnet20", "resnet50"):
        with pytest.raises(ValueError, match=rf"{name} takes images, .* got \(64,\)"):
            networks.build(name, digits(), 10, seed=0)


def test_resnet50_comes_from_torchvision_or_says_so() -> None:
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(ImportError, match="pip install torchvision"):
            networks.build("resnet50", (3, 224, 224), 14, seed=0)
    else:
        network = networks.build("resnet50", (3, 224, 224), 14, seed=0).eval()
        assert network(torch.randn(1, 3, 224, 224)).shape == (1, 14)
        with pytest.raises(ValueError, match="3 channels, got 1"):
            networks.build("resnet50", (1, 224, 224), 14, seed=0)


# Inputs


@pytest.mark.parametrize("count", [300, 25_000])  # all of them; every third of them
def test_training_images_have_mean_0_and_spread_1_once_prepared(count: int) -> None:
    scale = torch.tensor([1.0, 0.5, 0.1])[:, None, None]  # channels of unlike mean and spread
    images = (images_of((count, 3, 4, 4)) * scale).byte()
    dataset = dataset_of(images)
    found = augment.statistics(dataset)
    assert found is not None
    used = images[:: 3 if count > augment.MOST_IMAGES else 1]
    prepared = augment.prepare(used, found, None, "none")
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(prepared.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_a_channel_without_variation_stays_finite() -> None:
    dataset = dataset_of(torch.full((5, 1, 4, 4), 9, dtype=torch.uint8))
    found = augment.statistics(dataset)
    assert torch.equal(augment.prepare(dataset.train.inputs[:], found, None, "none"), torch.zeros(5, 1, 4, 4))


def test_features_are_left_as_they_are() -> None:
    features = torch.rand(5, 8)
    assert augment.statistics(dataset_of(features)) is None
    assert augment.prepare(features, None, generator(0), "none") is features
    assert augment.prepared_shape((8,), "none") == (8,)


def unit() -> augment.Statistics:
    return augment.Statistics(torch.tensor([10.0, 20.0, 30.0]), torch.tensor([1.0, 2.0, 4.0]))


def looped(batch: Tensor, kind: str, seed: int) -> Tensor:
    """Augment one image after the other, from the same draws in the same order: tops, lefts, flips."""
    statistics, generator_ = unit(), generator(seed)
    height, width = augment.prepared_shape(tuple(batch.shape[1:]), kind)[1:]
    pad_y, pad_x = (int(augment.KINDS[kind].pad * side) for side in batch.shape[2:])
    spare_y, spare_x = batch.shape[2] + 2 * pad_y - height, batch.shape[3] + 2 * pad_x - width

    def draw(choices: int) -> list[int]:
        return torch.randint(choices, (len(batch), 1), generator=generator_).flatten().tolist()

    tops, lefts = draw(spare_y + 1), draw(spare_x + 1)
    flips = draw(2) if augment.KINDS[kind].flip else [0] * len(batch)
    out = []
    for image, top, left, flip in zip(batch, tops, lefts, flips, strict=True):
        normal = torch.stack([(image[c] - statistics.mean[c]) / statistics.std[c] for c in range(3)])
        cut = F.pad(normal, (pad_x, pad_x, pad_y, pad_y))[:, top : top + height, left : left + width]
        out.append(cut.flip(2) if flip else cut)
    return torch.stack(out)


# Higher than wide, so that rows and columns are not mistaken for each other.
@pytest.mark.parametrize("kind", ["pad-crop", "pad-crop-flip", "crop-flip"])
def test_augmentation_of_a_batch_equals_a_loop_over_its_images(kind: str) -> None:
    batch = images_of((64, 3, 32, 24))
    prepared = augment.prepare(batch, unit(), generator(5), kind)
    assert torch.equal(prepared, looped(batch, kind, 5))
    assert prepared.shape[1:] == augment.prepared_shape((3, 32, 24), kind)


def test_augmentation_is_decided_by_the_generator() -> None:
    batch = images_of((64, 3, 32, 32))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, again, other = (augment.prepare(batch, unit(), generator(seed), "pad-crop-flip") for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.rand(3), expected)  # and by nothing else
    following = generator(1)
    augment.prepare(batch, unit(), following, "pad-crop-flip")
    assert not torch.equal(augment.prepare(batch, unit(), following, "pad-crop-flip"), first)


def test_half_of_the_images_are_flipped_and_all_places_taken() -> None:
    # Columns, and rows, count up from 1, so that an image's first pixel says where it was cut and which way it runs.
    side, count = 16, 4000
    ramp = torch.arange(1, side + 1, dtype=torch.uint8)
    batch = torch.stack([ramp.expand(side, side), ramp.expand(side, side).T]).expand(count, 2, side, side)
    plain = augment.Statistics(torch.zeros(2), torch.ones(2))
    prepared = augment.prepare(batch, plain, generator(0), "crop-flip")
    assert prepared.shape == (count, 2, 14, 14)
    across, down = prepared[:, 0, 0], prepared[:, 1, :, 0]
    flipped = across[:, 0] > across[:, -1]
    assert abs(flipped.float().mean() - 0.5) < 0.03
    assert (down[:, 0] < down[:, -1]).all()  # never upside down
    for firsts in (across.min(dim=1).values, down[:, 0]):
        assert firsts.unique().tolist() == [1, 2, 3]
        assert (firsts.long().bincount()[1:] - count / 3).abs().max() < 150


def test_evaluation_takes_the_middle_and_draws_nothing() -> None:
    batch = images_of((2, 3, 16, 24))
    normal = augment.prepare(batch, unit(), None, "none")
    unused = generator(0)
    assert torch.equal(augment.prepare(batch, unit(), unused, "none"), normal)
    assert torch.equal(unused.get_state(), generator(0).get_state())
    for kind in ("pad-crop", "pad-crop-flip"):
        assert torch.equal(augment.prepare(batch, unit(), None, kind), normal)
    assert torch.equal(augment.prepare(batch, unit(), None, "crop-flip"), normal[:, :, 1:15, 1:22])


def test_augmentation_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an augmentation out of none, .*, got mixup"):
        augment.prepare(images_of((1, 3, 8, 8)), unit(), None, "mixup")
    with pytest.raises(ValueError, match="expected the statistics of the training images, got None"):
        augment.prepare(images_of((1, 3, 8, 8)), None, None, "none")
