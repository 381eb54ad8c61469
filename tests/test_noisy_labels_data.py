"""Fashion-MNIST's files, in small copies; the digits; what all data sets share."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.noisy_labels.data import Dataset, Examples, digits, fashion, load, order_by_class

FASHION_TRAIN, FASHION_TEST = 200, 50  # images of the small copies


@pytest.fixture(autouse=True)
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "TRAIN_IMAGES", FASHION_TRAIN)
    monkeypatch.setattr(fashion, "TEST_IMAGES", FASHION_TEST)


# Fashion-MNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(directory: Path, suffix: str = "") -> dict[str, np.ndarray]:
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        arrays[f"{part}-images-idx3-ubyte"] = generator.integers(256, size=(count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        content = idx(array)
        (directory / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])  # as downloaded, and where torchvision keeps them
def test_fashion_mnist_is_read(tmp_path: Path, suffix: str, below: str) -> None:
    arrays = write_fashion(tmp_path / below, suffix)
    dataset = load("fashion-mnist", tmp_path, validation=20)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [180, 20, 50]
    assert dataset.num_classes == len(dataset.class_names) == 10
    assert dataset.published is not None
    images = torch.from_numpy(arrays["train-images-idx3-ubyte"])[:, None]
    assert torch.equal(dataset.train.inputs[:], images[dataset.published.rows])
    assert torch.equal(dataset.test.inputs[:], torch.from_numpy(arrays["t10k-images-idx3-ubyte"])[:, None])
    assert torch.equal(dataset.test.labels, torch.arange(50) % 10)


def test_wrong_fashion_files_are_refused(tmp_path: Path) -> None:
    arrays = write_fashion(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    labels = arrays[path.name]
    cases = [
        (idx(labels)[:-1], "train-labels-idx1-ubyte: expected 208 bytes, got 207"),
        (idx(labels) + b"\0", "expected 208 bytes, got 209"),
        (idx(labels[:-1]), r"expected an IDX file of bytes of shape \(200,\)"),
        (b"\0\0\x0c" + idx(labels)[3:], "expected an IDX file of bytes"),  # 12: int32
        (b"", "expected an IDX file of bytes"),
        (idx(labels + 1), "train-labels-idx1-ubyte: expected labels from 0 to 9, got 10"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load("fashion-mnist", tmp_path, validation=20)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-labels-idx1-ubyte.gz in .*zalandoresearch"):
        load("fashion-mnist", tmp_path, validation=20)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(labels))[:-9])
    with pytest.raises(ValueError, match=r"ubyte.gz: damaged"):
        load("fashion-mnist", tmp_path, validation=20)


# All data sets


def test_the_first_of_an_order_by_class_hold_each_class_in_its_proportion() -> None:
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    order = order_by_class(labels, seed=1)
    assert torch.equal(order.sort().values, torch.arange(1000))
    for size in (10, 100, 777):
        counts = labels[order[:size]].bincount(minlength=3)
        assert (counts - size * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 1
    assert torch.equal(order, order_by_class(labels, seed=1))
    assert not torch.equal(order, order_by_class(labels, seed=2))


def test_a_limit_keeps_part_of_the_training_set_and_nests(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    whole, larger, smaller = (load("fashion-mnist", tmp_path, validation=20, limit=limit) for limit in (None, 60, 20))
    assert len(smaller.train) == 20 and smaller.train.labels.bincount().tolist() == [2] * 10
    for dataset in (larger, smaller):
        assert torch.equal(dataset.validation.inputs[:], whole.validation.inputs[:])
        assert len(dataset.test) == FASHION_TEST
        published = dataset.published
        assert published is not None and whole.published is not None
        assert torch.equal(published.labels, whole.published.labels)
        assert torch.equal(dataset.train.labels, published.labels[published.rows])
    assert set(smaller.published.rows.tolist()) < set(larger.published.rows.tolist())  # type: ignore[union-attr]
    for limit in (0, 181):
        with pytest.raises(ValueError, match=f"a limit from 1 to 180 training examples, got {limit}"):
            load("fashion-mnist", tmp_path, validation=20, limit=limit)


def test_a_data_set_made_by_hand_is_its_own_published_order() -> None:
    part = Examples(torch.arange(8.0)[:, None], torch.tensor([0, 1] * 4))
    limited = Dataset("by hand", 2, part, part, part).limited(4, seed=0)
    published = limited.published
    assert published is not None
    assert torch.equal(limited.train.inputs[:, 0], published.rows.float())  # type: ignore[call-overload]
    assert limited.train.labels.tolist().count(1) == 2


def test_the_split_is_decided_by_the_seed(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    first, again, other = (load("fashion-mnist", tmp_path, validation=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.inputs[:], again.train.inputs[:])
    assert not torch.equal(first.train.inputs[:], other.train.inputs[:])


def test_digits_need_no_files_and_know_their_published_order() -> None:
    dataset = load("digits")
    assert torch.equal(dataset.train.inputs[:], digits().train.inputs[:])
    assert dataset.published is not None and len(dataset.published.labels) == 1797
    assert torch.equal(dataset.published.labels[dataset.published.rows], dataset.train.labels)
    assert len(load("digits", limit=50).train) == 50


def test_a_data_set_moves_with_all_its_parts() -> None:
    moved = digits().to("meta")
    for part in (moved.train, moved.validation, moved.test):
        assert part.labels.device.type == part.inputs[:].device.type == "meta"  # type: ignore[index]


def test_arguments_that_do_not_suit_a_data_set_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    refused: list[tuple[str, dict[str, int], str]] = [
        ("cifar11", {}, "expected a data set out of digits, .*, folder, list, got cifar11"),
        ("digits", {"validation": 10}, "digits has a validation part of its own"),
        ("digits", {"size": 32}, "digits has images of one size"),
        ("cifar10", {"size": 64}, "cifar10 has images of one size"),
        ("fashion-mnist", {"size": 64}, "fashion-mnist has images of one size"),
        ("folder", {"size": 0}, "expected a size of at least 1 pixel, got 0"),
        ("fashion-mnist", {"validation": -1}, "hold out from 0 to 199 of 200 examples, got -1"),
        ("fashion-mnist", {"validation": 200}, "hold out from 0 to 199 of 200 examples, got 200"),
    ]
    for name, arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            load(name, None if name == "digits" else tmp_path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="digits come with scikit-learn: expected no directory"):
        load("digits", tmp_path)
    with pytest.raises(ValueError, match="cifar10 is read from files: expected --directory DIR"):
        load("cifar10")
