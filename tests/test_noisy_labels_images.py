"""The data sets of photographs in files: your own folders, Clothing1M and MARS, in small copies."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.noisy_labels import augment
from benchmarks.noisy_labels.data import Dataset, ImageFiles, load

# `benchmarks.noisy_labels.data.load` is the function; its module is found by name alone.
loading = sys.modules[load.__module__]


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> None:
    """Write an image of one colour, of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def colours(dataset: Dataset) -> torch.Tensor:
    """Return the colour of each training image, (n, 3)."""
    return dataset.train.inputs[torch.arange(len(dataset.train))][:, :, 0, 0]


# Image files


def test_images_are_cut_to_shape_and_scaled(tmp_path: Path) -> None:
    # Three upright stripes, the middle one square: it is what remains, with a little of its neighbours at the edges.
    stripes = np.repeat(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8), 40, axis=1)
    Image.fromarray(np.repeat(stripes, 40, axis=0)).save(tmp_path / "wide.png")
    Image.fromarray(np.full((30, 30), 77, np.uint8)).save(tmp_path / "grey.png")
    images = ImageFiles(tmp_path, ("wide.png", "grey.png"), (8, 8))
    decoded = images[torch.tensor([1, 0, 1])]
    assert decoded.shape == (3, 3, 8, 8) and decoded.dtype == torch.uint8 and decoded.is_contiguous()
    assert decoded[0].unique().tolist() == decoded[2].unique().tolist() == [77]
    assert decoded[1, :, :, 1:-1].flatten(1).unique(dim=1).flatten().tolist() == [0, 255, 0]
    assert images[torch.tensor([], dtype=torch.int64)].shape == (0, 3, 8, 8)
    assert ImageFiles(tmp_path, ("wide.png",), (8, 16))[torch.tensor([0])].shape == (1, 3, 8, 16)


def test_large_photographs_and_turned_ones_come_out_right(tmp_path: Path) -> None:
    # A JPEG many times too large is decoded at a fraction; one that a camera marked as turned is set upright.
    ramp = np.linspace(0, 255, 1024).astype(np.uint8)
    image = Image.fromarray(np.repeat(ramp[None], 1024, axis=0))
    image.save(tmp_path / "large.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: upside down
    image.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    large, turned = ImageFiles(tmp_path, ("large.jpg", "turned.jpg"), (16, 16))[torch.arange(2)].int()
    expected = torch.linspace(8, 247, 16)  # the means of 16 equal parts
    assert (large - expected).abs().max() <= 3
    assert (turned - expected.flip(0)).abs().max() <= 3


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing"])
def test_broken_images_are_named(tmp_path: Path, damage: str) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    path = tmp_path / "1.jpg"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not found"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    images = ImageFiles(tmp_path, ("0.jpg", "1.jpg", "2.jpg"), (32, 32))
    with pytest.raises(ValueError, match=r"1\.jpg: not a readable image"):
        images[torch.arange(3)]
    assert images[torch.tensor([0, 2])].shape == (2, 3, 32, 32)


# Folders


def write_folder(root: Path, counts: dict[str, int]) -> None:
    """Write images, each of its own colour: red is its class, green its number."""
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            paint(root / name / f"{i:03d}.png", (label, i, 0))


def test_a_folder_for_each_class_is_split_by_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"apple": 40, "pear": 20})
    (tmp_path / ".cache").mkdir()
    (tmp_path / "apple" / "notes.txt").write_text("no image")
    dataset = load("folder", tmp_path, size=8)
    assert dataset.class_names == ("apple", "pear") and dataset.num_classes == 2
    assert not dataset.truth_known
    assert [part.labels.bincount().tolist() for part in (dataset.train, dataset.validation, dataset.test)] == [
        [32, 16],
        [4, 2],
        [4, 2],
    ]
    found = colours(dataset)
    assert found[:, 0].tolist() == dataset.train.labels.tolist()
    names = [f"{dataset.class_names[red]}/{green:03d}.png" for red, green, _ in found.tolist()]
    assert list(dataset.files) == names  # each file beside its image
    published = dataset.published
    assert published is not None and published.labels.tolist() == [0] * 40 + [1] * 20
    assert torch.equal(published.rows, found[:, 0].long() * 40 + found[:, 1].long())
    parts = (dataset.train, dataset.validation, dataset.test)
    together = torch.cat([part.inputs[torch.arange(len(part))][:, :, 0, 0] for part in parts])
    assert len(torch.unique(together, dim=0)) == 60


def test_folders_of_train_val_and_test_are_the_parts(tmp_path: Path) -> None:
    for part, count in (("train", 30), ("val", 3), ("test", 4)):
        write_folder(tmp_path / part, {"apple": count, "pear": count})
    dataset = load("folder", tmp_path, size=8)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [60, 6, 8]
    assert dataset.files[:2] == ("train/apple/000.png", "train/apple/001.png")
    with pytest.raises(ValueError, match="has a validation part of its own"):
        load("folder", tmp_path, validation=5)
    (tmp_path / "valid").mkdir()  # it would be passed over, and with it what is in it
    with pytest.raises(ValueError, match="expected no folders beside train, val, test, got valid"):
        load("folder", tmp_path)
    (tmp_path / "valid").rmdir()
    write_folder(tmp_path / "test", {"apple": 1, "plum": 1})
    with pytest.raises(ValueError, match=r"test: expected classes that are in train, got plum"):
        load("folder", tmp_path)


def test_a_missing_part_comes_out_of_train(tmp_path: Path) -> None:
    for part, count in (("train", 30), ("test", 4)):
        write_folder(tmp_path / part, {"apple": count, "pear": count})
    dataset = load("folder", tmp_path, validation=10, size=8)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [50, 10, 8]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bus": 10, "train": 10})
    assert load("folder", tmp_path, size=8).class_names == ("bus", "train")


def test_folders_without_classes_or_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ROOT/<class>/<image files>: there is no .*absent"):
        load("folder", tmp_path / "absent")
    write_folder(tmp_path, {"apple": 9})
    with pytest.raises(ValueError, match="a folder for each of 2 or more classes, got 1"):
        load("folder", tmp_path)
    (tmp_path / "pear").mkdir()
    with pytest.raises(ValueError, match=r"got 1 \(apple/\), and without images pear/"):
        load("folder", tmp_path)


def test_large_parts_stay_in_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"apple": 40, "pear": 20})
    small = load("folder", tmp_path, size=8, limit=12)
    monkeypatch.setattr(loading, "MOST_IN_MEMORY", 6 * 3 * 8 * 8)  # validation and test have 6 images, train more
    large = load("folder", tmp_path, size=8, limit=12)
    assert isinstance(small.train.inputs, torch.Tensor) and isinstance(large.validation.inputs, torch.Tensor)
    assert isinstance(large.train.inputs, ImageFiles)
    assert torch.equal(colours(small), colours(large))
    assert small.files == large.files and len(small.files) == 12
    statistics = [augment.statistics(dataset) for dataset in (small, large)]
    assert statistics[0] is not None and statistics[1] is not None
    assert torch.equal(statistics[0].mean, statistics[1].mean)
    assert large.to("meta").train.inputs[torch.arange(2)].device.type == "meta"


# Clothing1M


def write_clothing1m(root: Path, lists: Path) -> dict[str, list[str]]:
    keys = {
        "noisy_train": [f"images/0/0{i % 3}/{i},17.jpg" for i in range(28)],
        "clean_val": [f"images/1/00/{i},18.jpg" for i in range(14)],
        "clean_test": [f"images/1/01/{i},19.jpg" for i in range(14)],
    }
    labels = {name: i % 14 for names in keys.values() for i, name in enumerate(names)}
    for name, label in labels.items():
        paint(root / name, (label, 0, 0))
    lists.mkdir(exist_ok=True)
    for part, names in keys.items():
        (lists / f"{part}_key_list.txt").write_text("\n".join(names) + "\n")
    noisy, clean = keys["noisy_train"], keys["clean_val"] + keys["clean_test"]
    (lists / "noisy_label_kv.txt").write_text("".join(f"{name} {labels[name]}\n" for name in noisy))
    # A photograph of the noisy part that people labelled, too, and otherwise: training keeps the noisy label.
    (lists / "clean_label_kv.txt").write_text("".join(f"{name} {labels[name]}\n" for name in clean) + f"{noisy[0]} 5\n")
    return keys


@pytest.mark.parametrize("below", [".", "annotations"])
def test_clothing1m_is_read_by_its_lists(tmp_path: Path, below: str) -> None:
    keys = write_clothing1m(tmp_path, tmp_path / below)
    dataset = load("clothing1m", tmp_path, size=32)
    assert dataset.num_classes == len(dataset.class_names) == 14 and not dataset.truth_known
    assert dataset.files == tuple(keys["noisy_train"])
    assert dataset.train.labels.tolist() == [i % 14 for i in range(28)]
    assert dataset.validation.labels.tolist() == dataset.test.labels.tolist() == list(range(14))
    assert dataset.train.inputs[torch.arange(28)].shape == (28, 3, 32, 32)
    assert (colours(dataset)[:, 0] - dataset.train.labels).abs().max() <= 2  # JPEG


def test_clothing1m_with_missing_or_wrong_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected images/ in .*github.com/Cysu/noisy_label"):
        load("clothing1m", tmp_path)
    keys = write_clothing1m(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="clothing1m has a validation part of its own"):
        load("clothing1m", tmp_path, validation=5)
    kv, key_list = tmp_path / "clean_label_kv.txt", tmp_path / "clean_val_key_list.txt"
    content = kv.read_text()
    for broken, message in (
        (content + "images/5/x.jpg 14\n", "clean_label_kv.txt: expected labels from 0 to 13, got 14"),
        (content + "images/5/x.jpg\n", "clean_label_kv.txt, line 30: expected a file name and a label"),
        (content.split("\n", 1)[1], f"expected images that have a label, got {keys['clean_val'][0]}"),
    ):
        kv.write_text(broken)
        with pytest.raises(ValueError, match=message):
            load("clothing1m", tmp_path)
    kv.write_text(content)
    key_list.write_text("")
    with pytest.raises(ValueError, match="got no images"):
        load("clothing1m", tmp_path)
    key_list.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected clean_val_key_list\.txt or clean_val\.txt in"):
        load("clothing1m", tmp_path)


# MARS


def write_mars(root: Path) -> None:
    """Write persons 1, 4 and 9 with 10 tracklets of 2 to 4 frames; red is the person, green the tracklet."""
    for person in (1, 4, 9):
        for tracklet in range(1, 11):
            for frame in range(1, 3 + tracklet % 3):
                name = f"{person:04d}C{1 + tracklet % 6}T{tracklet:04d}F{frame:03d}.jpg"
                paint(root / "bbox_train" / f"{person:04d}" / name, (20 * person, 20 * tracklet, 0), (16, 32))


def test_mars_holds_out_whole_tracklets_of_each_person(tmp_path: Path) -> None:
    write_mars(tmp_path)
    dataset = load("mars", tmp_path, size=8)
    assert dataset.class_names == ("0001", "0004", "0009") and not dataset.truth_known
    assert dataset.train.inputs[torch.arange(2)].shape == (2, 3, 16, 8)

    def tracklets(part: str) -> set[tuple[int, int]]:
        examples = getattr(dataset, part)
        greens = (examples.inputs[torch.arange(len(examples))][:, 1, 0, 0].float() / 20).round().long()
        return set(zip(examples.labels.tolist(), greens.tolist(), strict=True))

    parts = [tracklets(part) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [24, 3, 3]
    assert len(set.union(*parts)) == 30
    persons = [int(name.split("/")[1]) for name in dataset.files]
    assert [(1, 4, 9)[label] for label in dataset.train.labels.tolist()] == persons
    for seed in range(4):  # no chance hits each person's tracklets every time
        dataset = load("mars", tmp_path, size=8, seed=seed)
        assert {person for person, _ in tracklets("validation")} == {0, 1, 2}
        assert {person for person, _ in tracklets("test")} == {0, 1, 2}
    larger = load("mars", tmp_path, size=8, validation=6)
    assert len({name[: name.index("F")] for name in larger.files}) == 30 - 6 - 3


def test_mars_without_its_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected bbox_train/ in .*zheng-lab"):
        load("mars", tmp_path)
    (tmp_path / "bbox_train" / "0001").mkdir(parents=True)
    with pytest.raises(ValueError, match="found no images"):
        load("mars", tmp_path)
    write_mars(tmp_path)
    paint(tmp_path / "bbox_train" / "0001" / "0002C1T0001F001.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match=r"0002C1T0001F001.jpg: expected a name as 0001C1T0001F001.jpg"):
        load("mars", tmp_path)
