"""What people's own image files hold: modes, broken files, nested folders, parts instead of classes, lists."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.noisy_labels.data import ImageFiles, load, said, summary
from benchmarks.noisy_labels.data.broken import BrokenImages
from benchmarks.noisy_labels.data.pixels import read_pixels

loading = sys.modules[load.__module__]
RAMP = np.linspace(0, 65_535, 4_096).reshape(64, 64)
EIGHT = (RAMP / 257).round()


def paint(path: Path, red: int = 0, green: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), (red, green, 0)).save(path)


def write_classes(root: Path, count: int = 20) -> None:
    for label, name in enumerate(("apple", "pear")):
        for i in range(count):
            paint(root / name / f"{i:03d}.png", label, i)


# Modes


def save_pgm(path: Path) -> None:
    path.write_bytes(b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes())


GREYS = {
    "16 bits.png": lambda path: Image.fromarray(RAMP.astype(np.uint16)).save(path),
    "16 bits.tif": lambda path: Image.fromarray(RAMP.astype(np.uint16)).save(path),
    "16 bits.pgm": save_pgm,
    "inverted.tif": lambda path: Image.fromarray((65_535 - RAMP).astype(np.uint16)).save(path, tiffinfo={262: 0}),
    "float.tif": lambda path: Image.fromarray((RAMP / 65_535).astype(np.float32)).save(path),
    "8 bits.png": lambda path: Image.fromarray(EIGHT.astype(np.uint8)).save(path),
    "palette.png": lambda path: Image.fromarray(EIGHT.astype(np.uint8)).convert("P").save(path),
    "cmyk.tif": lambda path: Image.fromarray(EIGHT.astype(np.uint8)).convert("RGB").convert("CMYK").save(path),
}


@pytest.mark.parametrize("name", GREYS)
def test_every_mode_comes_out_as_the_same_grey(tmp_path: Path, name: str) -> None:
    GREYS[name](tmp_path / name)
    found = read_pixels(tmp_path / name, (64, 64)).astype(int)
    assert np.abs(found - EIGHT[:, :, None]).max() <= (3 if name.startswith("palette") else 1)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (255, 0, 0, 0)  # red that nobody sees
    pixels[4:] = (0, 0, 255, 255)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    Image.fromarray(pixels[:, :, [2, 3]]).save(tmp_path / "grey.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.paste(0, (0, 4, 8, 8))
    palette.save(tmp_path / "palette.png", transparency=1)
    for name, below in (("alpha.png", [0, 0, 255]), ("grey.png", [255, 255, 255]), ("palette.png", [0, 0, 255])):
        found = read_pixels(tmp_path / name, (8, 8))
        assert found[0, 0].tolist() == [255, 255, 255] and found[7, 7].tolist() == below, name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.linspace(-1, 400, 64, dtype=np.float32).reshape(8, 8),
            "floats from -1 to 400: expected floats from 0 to 1",
        ),
        (np.full((8, 8), np.nan, np.float32), "expected floats from 0 to 1"),
        (np.arange(64, dtype=np.int32).reshape(8, 8), "32-bit integers, and nothing says which is white"),
    ],
)
def test_modes_without_a_known_white_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    Image.fromarray(values).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=rf"image.tif: not a readable image: .*{message}"):
        read_pixels(tmp_path / "image.tif", (8, 8))


# Broken files


@pytest.mark.parametrize("in_memory", [True, False])
def test_all_broken_images_are_listed_and_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(loading, "MOST_IN_MEMORY", 0)
    write_classes(tmp_path)
    broken = [tmp_path / "apple" / "003.png", tmp_path / "pear" / "001.png", tmp_path / "pear" / "017.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BrokenImages) as error:
        load("folder", tmp_path, size=8)
    message = str(error.value).splitlines()
    assert message[0] == "3 of 40 images cannot be read; --skip-broken goes on without them"
    assert sorted(line.split(":")[0].strip() for line in message[1:]) == sorted(map(str, broken))
    dataset = load("folder", tmp_path, size=8, skip_broken=True)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 37
    assert sorted(dataset.broken) == ["apple/003.png", "pear/001.png", "pear/017.png"]
    assert "3 images that cannot be read (" in dataset.passed[-1] and "3 images that cannot" in said(dataset)
    parts = {"train": dataset.files, **{part: held.files for part, held in dataset.held.items()}}
    for part, files in parts.items():
        inputs = getattr(dataset, part).inputs
        pixels = inputs[torch.arange(len(inputs))][:, :2, 0, 0].tolist()
        names = [f"{('apple', 'pear')[red]}/{green:03d}.png" for red, green in pixels]
        assert names == list(files)  # every image beside its own name
    published = dataset.published
    assert published is not None and [published.files[row] for row in published.rows.tolist()] == list(dataset.files)
    if not in_memory:  # known from the first reading, they are not looked for again
        monkeypatch.setattr(ImageFiles, "broken", None)
        again = load("folder", tmp_path, size=8, skip_broken=True, broken=dataset.broken)
        assert again.files == dataset.files


# Folders


def test_what_a_folder_holds_besides_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "apple" / "a.heic").write_bytes(b"")
    (tmp_path / "apple" / "b.heic").write_bytes(b"")
    (tmp_path / "pear" / "notes.txt").write_bytes(b"")
    (tmp_path / "pear" / ".hidden").write_bytes(b"")
    (tmp_path / "plum").mkdir()
    paint(tmp_path / "pear" / "2021" / "spring" / "new.PNG", 1, 77)
    paint(tmp_path / "loose.png")
    dataset = load("folder", tmp_path, size=8)
    assert dataset.class_names == ("apple", "pear") and len(dataset.published.labels) == 41  # type: ignore[union-attr]
    assert dataset.passed == (
        "plum/: no images",
        "3 files with another suffix than images have (.heic 2, .txt 1)",
        f"1 image right in {tmp_path.name}/, in no folder of a class",
        "no folder below a class: 1 image in such folders are read as of the class above",
    )
    assert summary(dataset)["classes"] == ["apple", "pear"] and summary(dataset)["train"] == 33


@pytest.mark.parametrize(
    "names", [("training", "testing"), ("train", "test"), ("train_images", "test_images"), ("Train-Set", "images_val")]
)
@pytest.mark.parametrize("below", [".", "cat"])
def test_parts_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...], below: str) -> None:
    for name in names:
        for i in range(3):
            paint(tmp_path / name / below / f"{i}.jpg")
            paint(tmp_path / name / ("dog" if below == "cat" else ".") / f"{i}.jpg")
    if names == ("train", "test") and below == "cat":
        assert load("folder", tmp_path, size=8, validation=1).class_names == ("cat", "dog")
        return
    with pytest.raises(ValueError, match=r"look like parts of a set, not like classes: expected ROOT/<class>/<image"):
        load("folder", tmp_path)


def test_folders_above_the_classes_are_refused(tmp_path: Path) -> None:
    for year in ("2021", "2022"):
        write_classes(tmp_path / year, 3)
    with pytest.raises(ValueError, match=r"2021, 2022 all have the folders apple, pear in them: which are the classes"):
        load("folder", tmp_path)
    (tmp_path / "flat").mkdir()
    paint(tmp_path / "flat" / "1.png")
    with pytest.raises(ValueError, match=r"1 image right in .*flat: with a file of their labels, take --data list"):
        load("folder", tmp_path / "flat")


def test_nothing_or_one_fold_can_be_held_out(tmp_path: Path) -> None:
    write_classes(tmp_path, 25)
    everything = load("folder", tmp_path, size=8, fold="none")
    assert [len(everything.train), len(everything.validation), len(everything.test)] == [50, 0, 0]
    tests = [load("folder", tmp_path, size=8, fold=f"{k}/5") for k in range(1, 6)]
    assert all(one.test.labels.bincount().tolist() == [5, 5] and len(one.train) == 40 for one in tests)
    assert sorted(name for one in tests for name in one.held["test"].files) == sorted(everything.files)
    none = load("folder", tmp_path, size=8, validation=0)
    assert [len(none.train), len(none.validation), len(none.test)] == [45, 0, 5]
    for fold in ("6/5", "0/5", "1", "all"):
        with pytest.raises(ValueError, match=f"expected a fold as 2/5, the second of five, or none, got '{fold}'"):
            load("folder", tmp_path, fold=fold)


# Lists


def write_list(path: Path, header: str, lines: list[str]) -> None:
    path.write_text("\n".join([*([header] if header else []), *lines, ""]))


@pytest.mark.parametrize("form", ["csv", "tsv", "txt", "json"])
def test_a_flat_folder_with_a_list_of_labels(tmp_path: Path, form: str) -> None:
    root, table = tmp_path / "photos", tmp_path / f"labels.{form}"
    for i in range(30):
        paint(root / f"{i:03d}.png", i % 3, i)
    names = ("cat", "dog", "emu")
    pairs = [(f"{i:03d}.png", names[i % 3]) for i in reversed(range(30))]
    if form == "json":
        table.write_text("{" + ", ".join(f'"{file}": "{name}"' for file, name in pairs) + "}")
    else:
        separator = {"csv": ",", "tsv": "\t", "txt": " "}[form]
        write_list(
            table, separator.join(("Filename", "Label")) * (form != "txt"), [separator.join(one) for one in pairs]
        )
    dataset = load("list", root, size=8, labels=table)
    assert dataset.class_names == names and [len(dataset.train), len(dataset.validation), len(dataset.test)] == [
        24,
        3,
        3,
    ]
    pixels = dataset.train.inputs[torch.arange(24)][:, 0, 0, 0]
    assert torch.equal(pixels.long(), dataset.train.labels) and not dataset.truth_known


def test_a_list_may_name_parts_leave_out_labels_and_images(tmp_path: Path) -> None:
    for i in range(12):
        paint(tmp_path / "a" / f"{i}.png", i)
    lines = [f"/home/me/a/{i}.png,{'' if i == 3 else i % 2 + 7},{'val' if i > 7 else 'train'}" for i in range(11)]
    write_list(tmp_path / "list.csv", "path,class,split", lines)
    dataset = load("list", tmp_path, size=8, labels=tmp_path / "list.csv", fold="none")
    assert dataset.class_names == ("7", "8") and len(dataset.train) == 7 and len(dataset.validation) == 3
    assert dataset.files[0] == "a/0.png" and len(dataset.test) == 0
    assert dataset.passed == ("1 image that the list does not name", "1 image without a label in the list")


def test_lists_that_are_none_are_refused(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")
    paint(tmp_path / "2.png")
    path = tmp_path / "list.csv"
    for header, lines, message in (
        ("a,b", ["1,2"], "expected a column of file names, one of labels .*; it has a: 1 whole"),
        ("file,a,b", ["1.png,2,3"], "beside the file names it has a: 1 whole numbers from 2 to 2; b"),
        ("file,label", ["1.png,2", "2.png,2"], "expected labels of 2 or more classes, got 2"),
        ("file,label", ["1.png,2", "1.png,3"], "expected each image once, got 1.png more than once"),
        ("file,label,split", ["1.png,2,x", "2.png,3,x"], "expected split out of train, .*, got 'x'"),
    ):
        write_list(path, header, lines)
        with pytest.raises(ValueError, match=message):
            load("list", tmp_path, labels=path)
    with pytest.raises(ValueError, match="expected --labels FILE, got none"):
        load("list", tmp_path)
    write_list(path, "file,label", ["1.png,2", "2.png,3", "gone.png,3"])
    with pytest.raises(BrokenImages, match=r"1 of 3 images cannot be read.*\n.*gone.png: not a readable image"):
        load("list", tmp_path, labels=path, fold="none")
