"""Photographs as their makers publish them: small made files of the exact layout and names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.noisy_labels.data import Dataset, load, said, summary


def paint(path: Path, red: int, green: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (red, green, 0)).save(path, "PNG")  # a JPEG by its name alone: colours stay exact


def reds(dataset: Dataset, part: str = "train") -> list[int]:
    inputs = getattr(dataset, part).inputs
    return inputs[torch.arange(len(inputs))][:, 0, 0, 0].tolist()


def labels(dataset: Dataset, part: str = "train") -> list[int]:
    return getattr(dataset, part).labels.tolist()


def write_lists(root: Path, lists: Mapping[str, list[str]]) -> None:
    for name, lines in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join([*lines, ""]))


# ANIMAL-10N


@pytest.mark.parametrize("below", [".", "raw_image"])
def test_animal_10n(tmp_path: Path, below: str) -> None:
    for i in range(40):
        paint(tmp_path / below / "training" / f"{i % 10}_{i}.jpg", red=i % 10)
    for i in range(10):
        paint(tmp_path / below / "testing" / f"{i}_{1000 + i}.jpg", red=i)
    dataset = load("animal10n", tmp_path, validation=10)
    assert dataset.num_classes == 10 and dataset.class_names[0::9] == ("cat", "guinea pig") and not dataset.truth_known
    assert reds(dataset) == labels(dataset) and sorted(labels(dataset)) == sorted([*range(10)] * 3)
    assert labels(dataset, "test") == list(range(10)) and reds(dataset, "validation") == labels(dataset, "validation")
    assert dataset.train.inputs[torch.arange(1)].shape == (1, 3, 64, 64)  # type: ignore[index]
    with pytest.raises(ValueError, match=r"testing, training look like parts .* --data animal10n"):
        load("folder", tmp_path / below)
    paint(tmp_path / below / "training" / "cat.jpg", red=0)
    with pytest.raises(ValueError, match=r"cat.jpg: expected a name as 0_17.jpg"):
        load("animal10n", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected training in .*dm.kaist.ac.kr"):
        load("animal10n", tmp_path / "other")


# Food-101N


def write_food(root: Path, header: bool = True) -> None:
    classes = ["apple_pie", "baby_back_ribs", "waffles"]
    names = [f"{classes[i % 3]}/{i:032x}.jpg" for i in range(30)]
    for i, name in enumerate(names):
        paint(root / "images" / name, red=i % 3, green=i)
    lists = {
        "meta/classes.txt": ["class_name"] * header + classes,
        "meta/imagelist.tsv": ["class_name/key", *names],
        "meta/verified_train.tsv": [
            "class_name/key\tverification_label",
            *(f"{name}\t{int(i % 2)}" for i, name in enumerate(names[:9])),
            "waffles/ffffffffffffffffffffffffffffffff.jpg\t1",  # under another class in the list of images
        ],
        "meta/verified_val.tsv": [
            "class_name/key\tverification_label",
            *(f"{name}\t{int(i % 5 != 0)}" for i, name in enumerate(names[15:])),
        ],
    }
    write_lists(root, lists)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_food_101n(tmp_path: Path, beside: bool, header: bool) -> None:
    write_food(tmp_path / "Food-101N_release", header)
    place = tmp_path if beside else tmp_path / "Food-101N_release"
    names = [f"{name}/{i}" for i, name in enumerate(("waffles", "apple_pie"))]
    for i, name in enumerate(names):
        paint(tmp_path / "food-101" / "images" / f"{name}.jpg", red=(2, 0)[i])
    write_lists(tmp_path / "food-101", {"meta/test.txt": names})
    dataset = load("food101n", place, size=8)
    assert dataset.class_names == ("apple_pie", "baby_back_ribs", "waffles") and not dataset.truth_known
    assert labels(dataset) == reds(dataset) == [i % 3 for i in range(15)]
    assert dataset.verified is not None
    assert dataset.verified.tolist() == [i % 2 for i in range(9)] + [-1] * 6
    assert len(dataset.validation) == 12  # of 15, 3 were found wrong
    assert labels(dataset, "validation") == reds(dataset, "validation")
    assert labels(dataset, "test") == reds(dataset, "test") == [2, 0]
    assert "15 images of verified_val.tsv, kept out of training" in dataset.passed
    assert "1 line of verified_train.tsv about images that are not trained on" in dataset.passed
    assert summary(dataset)["verified"] == {"right": 4, "wrong": 5, "unknown": 6}
    assert "verified labels: 4 right, 5 wrong, 6 not" in said(dataset)


def test_food_101n_without_food_101_tests_on_verified_images(tmp_path: Path) -> None:
    write_food(tmp_path / "Food-101N_release")
    dataset = load("food101n", tmp_path / "Food-101N_release", size=8)
    assert len(dataset.validation) == len(dataset.test) == 6
    assert any("half of verified_val is instead" in reason for reason in dataset.passed)
    with pytest.raises(ValueError, match="food101n has a validation part of its own"):
        load("food101n", tmp_path / "Food-101N_release", validation=3)
    (tmp_path / "Food-101N_release" / "meta" / "verified_val.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected verified_val.tsv in .*Food-101N"):
        load("food101n", tmp_path / "Food-101N_release")


# WebVision


def write_webvision(root: Path, classes: int = 60) -> None:
    google = [f"google/q{label:04d}/G{label}_{i}.jpg {label}" for label in range(classes) for i in range(2)]
    flickr = [f"flickr/q{label:04d}/F{label}.jpg {label}" for label in range(classes)]
    val = [f"val{label:06d}.jpg {label}" for label in range(classes)]
    lists = {
        "train_filelist_google.txt": google,
        "train_filelist_flickr.txt": flickr,
        "val_filelist.txt": val,
        "synsets.txt": [f"n{label:08d} thing {label}, other words" for label in range(classes)],
    }
    write_lists(root / "info", lists)
    for line in (*google, *flickr):
        paint(root / line.split()[0], red=int(line.split()[1]))
    for line in val:
        paint(root / "val_images_256" / line.split()[0], red=int(line.split()[1]))


def test_webvision_and_its_first_50_classes(tmp_path: Path) -> None:
    write_webvision(tmp_path)
    mini = load("mini-webvision", tmp_path, size=8, validation=10)
    assert mini.num_classes == 50 and len(mini.train) == 90 and mini.class_names[3] == "n00000003 thing 3, other words"
    assert reds(mini) == labels(mini) and labels(mini, "test") == reds(mini, "test") == list(range(50))
    assert mini.passed == ("20 images of classes from 50 on",)
    assert {name.split("/")[0] for name in mini.files} == {"google"}
    for split, expected in ((None, 180), ("google", 120), ("flickr", 60)):
        whole = load("webvision", tmp_path, size=8, validation=5, split=split)
        assert len(whole.train) == expected - 5 and whole.num_classes == 60
    with pytest.raises(ValueError, match=r"expected a split out of google, flickr, google\+flickr, got bing"):
        load("webvision", tmp_path, split="bing")
    # The folders of queries by themselves would be a class each.
    with pytest.raises(ValueError, match=r"q0000, ... are WebVision's queries, not its classes: take --data webvision"):
        load("folder", tmp_path / "google")
    (tmp_path / "info" / "val_filelist.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected info/val_filelist.txt or val_filelist.txt in .*info.tar"):
        load("webvision", tmp_path)


# Red and Blue Mini-ImageNet


def write_mini_imagenet(root: Path, layout: str) -> None:
    clean = [f"n01532829{i:08d}.jpg" for i in range(120)]
    web = [f"{i:016x}.jpg" for i in range(20)]
    blue = [(name, (i + 1) % 100 if i < 12 else i % 100) for i, name in enumerate(clean)]
    red = [(name, i % 100) for i, name in enumerate(clean[20:], start=20)] + [(name, i) for i, name in enumerate(web)]
    test = [(f"ILSVRC2012_val_{i:08d}.jpg", i) for i in range(100)]
    names = {
        "blue_noise_nl_0.0": [(name, i % 100) for i, name in enumerate(clean)],
        "blue_noise_nl_0.1": blue,
        "red_noise_nl_0.2": red,
        "clean_validation": test,
    }
    lists = {f"split/{name}": [f"{file} {label}" for file, label in pairs] for name, pairs in names.items()}
    mini = root / "mini-imagenet"
    write_lists(mini, lists | {"class_name.txt": [f"class {label}" for label in range(100)]})
    annotations = [
        [{"image/id": Path(name).stem, "image/uri": "x", "image/class/label": i, "image/class/label/is_clean": i % 2}]
        for i, name in enumerate(web)
    ]
    (root / "mini-imagenet-annotations.json").write_text(json.dumps({"data": annotations}))
    training, noisy = mini / "all_images", root / "noisy_images" if layout == "tfds" else mini / "all_images"
    for i, name in enumerate(clean):
        paint(training / name, red=i % 100)
    for i, name in enumerate(web):
        paint(noisy / name, red=i)
    for name, label in test:
        paint(mini / "validation" / (str(label) if layout == "by class" else ".") / name, red=label)


@pytest.mark.parametrize("layout", ["flat", "by class", "tfds"])
def test_red_and_blue_mini_imagenet(tmp_path: Path, layout: str) -> None:
    write_mini_imagenet(tmp_path, layout)
    red = load("mini-imagenet", tmp_path, split="red_noise_nl_0.2", validation=20)
    assert red.num_classes == 100 and red.class_names[7] == "class 7" and len(red.train) == 100
    assert reds(red) == labels(red) and labels(red, "test") == reds(red, "test") == list(range(100))
    assert red.train.inputs[torch.arange(1)].shape == (1, 3, 32, 32)  # type: ignore[index]
    assert red.verified is not None
    web = [not Path(name).name.startswith("n") for name in red.files]
    expected = [label % 2 if web_image else 1 for web_image, label in zip(web, labels(red), strict=True)]
    assert any(web) and red.verified.tolist() == expected
    blue = load("mini-imagenet", tmp_path / "mini-imagenet", split="blue_noise_nl_0.1", validation=20)
    assert blue.verified is not None
    assert blue.verified.tolist() == [int(a == b) for a, b in zip(reds(blue), labels(blue), strict=True)]
    with pytest.raises(ValueError, match=r"expected --split out of blue_noise_nl_0.0, .*, red_noise_nl_0.2, got none"):
        load("mini-imagenet", tmp_path)


# Tiny ImageNet


def write_tiny(root: Path, sorted_into_folders: bool) -> None:
    wnids = ["n02124075", "n01443537", "n04067472"]  # not in order, as published
    labels = {wnid: label for label, wnid in enumerate(sorted(wnids))}
    words = ["n01443537\tgoldfish, Carassius auratus", "n02124075\tEgyptian cat", "n04067472\treel", "n09999999\tnone"]
    val = [(f"val_{i}.JPEG", wnid) for i, wnid in enumerate(wnids * 2)]
    lists = {"wnids.txt": wnids, "words.txt": words}
    lists["val/val_annotations.txt"] = [f"{name}\t{wnid}\t0\t32\t44\t62" for name, wnid in val]
    write_lists(root, lists)
    for wnid in wnids:
        for i in range(10):
            paint(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", red=labels[wnid])
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    for name, wnid in val:
        paint(root / "val" / (wnid if sorted_into_folders else "images") / name, red=labels[wnid])
    paint(root / "test" / "images" / "test_0.JPEG", red=9)


@pytest.mark.parametrize("sorted_into_folders", [False, True])
def test_tiny_imagenet(tmp_path: Path, sorted_into_folders: bool) -> None:
    write_tiny(tmp_path / "tiny-imagenet-200", sorted_into_folders)
    dataset = load("tiny-imagenet", tmp_path, validation=6)
    assert dataset.class_names == ("goldfish", "Egyptian cat", "reel") and dataset.truth_known
    assert len(dataset.train) == 24 and labels(dataset) == reds(dataset)
    assert len(dataset.test) == 6 and labels(dataset, "test") == reds(dataset, "test")
    assert not dataset.held
    with pytest.raises(ValueError, match="laid out as its makers publish tiny-imagenet: take --data tiny-imagenet"):
        load("folder", tmp_path / "tiny-imagenet-200")


# Clothing1M in its other packing


@pytest.mark.parametrize("below", [".", "annotations"])
@pytest.mark.parametrize("start", ["images/", "", "/data/clothing1m/images/"])
def test_clothing1m_with_a_list_of_paths_and_labels_for_each_part(tmp_path: Path, below: str, start: str) -> None:
    lists = {}
    for part, count in (("noisy_train", 28), ("clean_val", 14), ("clean_test", 14)):
        names = [f"{i % 3}/{part}/{i},17.jpg" for i in range(count)]
        lists[f"{below}/{part}.txt"] = [f"{start}{name} {i % 14}" for i, name in enumerate(names)] + [""]
        for i, name in enumerate(names):
            paint(tmp_path / "images" / name, red=i % 14)
    write_lists(tmp_path, lists)
    dataset = load("clothing1m", tmp_path, size=8)
    assert dataset.num_classes == 14 and [len(dataset.train), len(dataset.validation), len(dataset.test)] == [
        28,
        14,
        14,
    ]
    for part in ("train", "validation", "test"):
        assert labels(dataset, part) == reds(dataset, part)
    assert dataset.files[0] == "images/0/noisy_train/0,17.jpg"


def test_lists_with_wrong_lines_are_refused_by_line(tmp_path: Path) -> None:
    write_webvision(tmp_path)
    path = tmp_path / "info" / "train_filelist_google.txt"
    for text, message in (
        (
            "google/q0001/a.jpg 1\n\ngoogle/q0001/b.jpg\n",
            "line 3: expected a file name and a label, got 'google/q0001/b.jpg'",
        ),
        ("google/q0001/a.jpg 60\n", "train_filelist_google.txt: expected labels from 0 to 59, got 60"),
        ("\n\n", "expected images and their labels, a line for each, got none"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load("webvision", tmp_path, split="google")
