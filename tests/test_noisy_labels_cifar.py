"""CIFAR's archives, in small copies: what is read of them, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from harmful import Harmful

from benchmarks.noisy_labels.data import cifar, load
from benchmarks.noisy_labels.data.pickles import read_pickle
from benchmarks.noisy_labels.task import Task

CIFAR_TRAIN, CIFAR_TEST = 40, 20  # images in a file of training images, and in the file of test images


@pytest.fixture(autouse=True)
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIFAR10", "CIFAR100"):
        small = dataclasses.replace(getattr(cifar, name), train_images=CIFAR_TRAIN, test_images=CIFAR_TEST)
        monkeypatch.setattr(cifar, name, small)


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 3072), dtype=np.uint8)


def labels_of(count: int, num_classes: int) -> list[int]:
    return [(7 * i) % num_classes for i in range(count)]


def write_cifar(directory: Path, archive: cifar.Archive, protocol: int = 2) -> Path:
    folder = directory / archive.folder
    folder.mkdir(parents=True)
    for seed, name in enumerate((*archive.train, archive.test)):
        count = archive.test_images if name == archive.test else archive.train_images
        batch = {b"data": pixels(count, seed), archive.label_key: labels_of(count, archive.num_classes)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    names = [f"class {i}".encode() for i in range(archive.num_classes)]
    (folder / archive.meta).write_bytes(pickle.dumps({archive.names_key: names}, protocol))
    return folder


def change(path: Path, **changes: object) -> None:
    batch = pickle.loads(path.read_bytes()) | {key.encode(): value for key, value in changes.items()}
    path.write_bytes(pickle.dumps(batch, 2))


# Protocols 2 and 4 write arrays in one way, 5 in another.
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar10_has_its_images_in_their_order(tmp_path: Path, protocol: int) -> None:
    write_cifar(tmp_path, cifar.CIFAR10, protocol)
    dataset = load("cifar10", tmp_path, validation=50)
    assert (dataset.name, dataset.num_classes, dataset.augmentation) == ("cifar10", 10, "pad-crop-flip")
    assert dataset.class_names == tuple(f"class {i}" for i in range(10)) and dataset.truth_known
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [150, 50, 20]
    assert dataset.validation.labels.bincount().tolist() == [5] * 10  # by class

    whole = torch.from_numpy(np.concatenate([pixels(CIFAR_TRAIN, seed) for seed in range(5)]))
    published = dataset.published
    assert published is not None
    assert published.labels.tolist() == 5 * labels_of(CIFAR_TRAIN, 10)
    assert torch.equal(dataset.train.inputs[:], whole.view(-1, 3, 32, 32)[published.rows])  # channels first
    assert torch.equal(dataset.train.labels, published.labels[published.rows])
    assert torch.equal(dataset.test.inputs[:].flatten(1), torch.from_numpy(pixels(CIFAR_TEST, 5)))
    together = torch.cat([dataset.train.inputs[:], dataset.validation.inputs[:]])
    assert len(torch.unique(together.flatten(1), dim=0)) == 200  # the parts have no image in common


def test_the_augmentation_is_the_data_sets_unless_another_is_asked_for(tmp_path: Path) -> None:
    write_cifar(tmp_path, cifar.CIFAR10)
    task = Task("cifar10", "small", "none", directory=tmp_path, validation=50)
    plain = dataclasses.replace(task, augmentation="none")
    assert (task.dataset().augmentation, plain.dataset().augmentation) == ("pad-crop-flip", "none")
    assert "augmentation" not in task.settings and plain.settings["augmentation"] == "none"
    assert task.name != plain.name and plain.title == f"{task.title}, augmentation: none"


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, cifar.CIFAR100)
    change(folder / "train", coarse_labels=[0] * CIFAR_TRAIN)
    dataset = load("cifar100", folder, validation=4)  # the folder itself is found as well
    assert dataset.num_classes == 100 and dataset.class_names[99] == "class 99"
    assert dataset.published is not None and dataset.published.labels.tolist() == labels_of(CIFAR_TRAIN, 100)
    assert len(dataset.train) == CIFAR_TRAIN - 4


def pack(directory: Path) -> Path:
    download = directory / cifar.CIFAR10.download
    with tarfile.open(download, "w:gz") as tar:
        tar.add(write_cifar(directory / "unpacked", cifar.CIFAR10), cifar.CIFAR10.folder)
    return download


def test_cifar_is_read_from_its_archive_without_unpacking(tmp_path: Path) -> None:
    pack(tmp_path)
    packed, unpacked = (load("cifar10", path, validation=50) for path in (tmp_path, tmp_path / "unpacked"))
    assert torch.equal(packed.train.inputs[:], unpacked.train.inputs[:])
    assert torch.equal(packed.test.labels, unpacked.test.labels)


def test_a_pickle_of_python_2_is_read() -> None:
    # As the official archives have it: strings without a type of characters, an array's bytes among them.
    array = np.arange(6, dtype=np.uint8)
    content = (
        b"\x80\x02}U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + (b"T" + struct.pack("<i", array.size) + array.tobytes())
        + b"tbs."
    )
    np.testing.assert_array_equal(read_pickle(content)[b"data"], array.reshape(2, 3))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, cifar.CIFAR10)
    path, ran = folder / "data_batch_3", tmp_path / "ran"
    change(path, batch_label=Harmful(ran))
    with pytest.raises(ValueError, match=r"data_batch_3: .*plain containers, got (posix|nt)\.mkdir"):
        load("cifar10", tmp_path, validation=50)
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # the pickle is as bad as it should be
    change_codec = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7\x86R."
    with pytest.raises(pickle.UnpicklingError, match="expected bytes as latin1, got utf-7"):
        read_pickle(change_codec)


def test_cifar_that_is_not_there_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.tar.gz in .*cs.toronto.edu"):
        load("cifar10", tmp_path)
    folder = write_cifar(tmp_path, cifar.CIFAR10)
    (folder / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected data_batch_4 in it: .*cs.toronto.edu"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": pixels(CIFAR_TRAIN - 1, 0)}, r"uint8 of shape \(40, 3072\), got uint8 of shape \(39, 3072\)"),
        ({"data": pixels(CIFAR_TRAIN, 0).astype(np.float32)}, "expected data to be uint8 .* got float32"),
        ({"data": None}, "expected data to be uint8 .* got NoneType"),
        ({"labels": labels_of(CIFAR_TRAIN - 1, 10)}, "labels to be a list of 40 integers"),
        ({"labels": [0.5] * CIFAR_TRAIN}, "labels to be a list of 40 integers"),
        ({"labels": [10] * CIFAR_TRAIN}, "expected labels from 0 to 9, got 10"),
        ({"labels": [-1] * CIFAR_TRAIN}, "expected labels from 0 to 9, got -1"),
    ],
)
def test_wrong_cifar_files_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = write_cifar(tmp_path, cifar.CIFAR10)
    change(folder / "data_batch_2", **changes)
    with pytest.raises(ValueError, match=f"data_batch_2: .*{message}"):
        load("cifar10", tmp_path, validation=50)


def test_other_files_and_truncated_ones_are_refused_as_cifar(tmp_path: Path) -> None:
    path = write_cifar(tmp_path, cifar.CIFAR10) / "test_batch"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="test_batch: not a file of CIFAR's"):
            load("cifar10", tmp_path, validation=50)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="test_batch: expected a dict, got list"):
        load("cifar10", tmp_path, validation=50)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    download = pack(tmp_path)
    content = download.read_bytes()
    for damaged in (content[: len(content) // 2], content[: len(content) // 10], b"<html>not found</html>"):
        download.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"tar.gz: damaged, or not a whole"):
            load("cifar10", tmp_path, validation=50)


def test_too_few_class_names_are_refused(tmp_path: Path) -> None:
    change(write_cifar(tmp_path, cifar.CIFAR10) / "batches.meta", label_names=[b"cat"])
    with pytest.raises(ValueError, match="label_names to be a list of 10 names"):
        load("cifar10", tmp_path, validation=50)
