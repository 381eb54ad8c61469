"""One's own images, from a folder for each class to the labels to look at: nobody vouches for them."""

from __future__ import annotations

import csv
import math
import re
import shlex
import shutil
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from benchmarks.noisy_labels import __main__ as tool
from benchmarks.noisy_labels import archive, noise, options
from benchmarks.noisy_labels.data import CLEAN, DATASETS, load

ROOT = Path(__file__).resolve().parent.parent
Capture = pytest.CaptureFixture[str]
BRIEF = ["--epochs", "2", "--measure-every", "1", "--processes", "1"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 300 digits as images into a folder for each class."""
    root = tmp_path_factory.mktemp("own") / "photos"
    pixels, labels = load_digits(return_X_y=True)
    for i in range(300):
        path = root / f"class {labels[i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[i].reshape(8, 8) * 15).astype("uint8")).save(path)
    return root


def words_for(images: Path) -> list[str]:
    data = ["--data", "folder", "--directory", str(images), "--size", "16", "--network", "small"]
    return [*data, "--batch", "32", *BRIEF]


def test_a_folder_of_images_trains_with_one_command(images: Path, tmp_path: Path) -> None:
    words = [*words_for(images), "--lr", "0.02", "--loss", "gce"]
    tool.main(["train", *words, "--out", str(tmp_path / "as they are")])
    tool.main(["train", *words, "--noise", "symmetric", "--trusted", "--out", str(tmp_path / "trusted")])
    (given,), (noisy,) = (archive.load(tmp_path / name).runs for name in ("as they are", "trusted"))
    assert given.result.auc is None and math.isnan(given.result.final.noisy_fit)
    assert noisy.result.auc is not None and noisy.result.final.noisy_fit >= 0
    folder = next((tmp_path / "as they are").glob("*/seed0"))
    places = ["--directory", str(images)]
    tool.main(["suspects", str(folder), *places, "--to", str(tmp_path / "suspects.csv")])
    with (tmp_path / "suspects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 300 and "true_label" not in lines[0]
    assert [line["trained_by"] for line in lines].count("0") == 60  # a tenth each for validation and test
    assert all((images / line["file"]).parent.name == line["given_label"] for line in lines)


def test_labels_stay_as_they_are_unless_noise_is_asked_for(images: Path, tmp_path: Path) -> None:
    assert {"clothing1m", "animal10n", "mars", "folder", "list"} < set(DATASETS) - set(CLEAN)
    for data in DATASETS:
        expected = ("symmetric", 0.4) if data in CLEAN else ("none", 0.0)
        where = ["--data", data, "--out", "runs"]
        for trusted in ([], ["--trusted"]):
            _, given = tool.parse(["train", *where, "--lr", "0.1", *trusted])
            task = options.task_of(given)
            _, given = tool.parse(["sweep", *where, "--lr", "0.1", "--losses", "cce", *trusted])
            assert options.tasks_of(given) == [task] and (task.noise, task.rate) == expected
    tool.main(["sweep", *words_for(images), "--losses", "cce", "--lr", "0.02", "--seeds", "1", "--out", str(tmp_path)])
    (run,) = archive.load(tmp_path).runs
    assert run.task.title == "folder, labels as they are, small"


def test_noise_on_labels_that_nobody_vouches_for_is_refused(images: Path, tmp_path: Path, capsys: Capture) -> None:
    start, words = "nobody vouches for the labels of folder: expected noise none or file, got ", words_for(images)
    for asked, message in (
        (["train", *words, "--lr", "1", "--noise", "symmetric"], f"{start}symmetric; --trusted says"),
        (["sweep", *words, "--lr", "1", "--losses", "cce", "--noises", "none", "asymmetric:0.2"], f"{start}asymmetric"),
        (
            ["train", *words, "--lr", "1", "--rate", "0.2"],
            "--rate 0.2: it has no effect here, expected --noise symmetric or asymmetric",
        ),
    ):
        with pytest.raises(SystemExit):
            tool.main([*asked, "--out", str(tmp_path / "out")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="nobody vouches"):
        noise.make("symmetric", load("folder", images, size=16), rate=0.4)


def test_suspects_of_other_data_are_refused(images: Path, tmp_path: Path, capsys: Capture) -> None:
    tool.main(["train", *words_for(images), "--lr", "0.02", "--out", str(tmp_path / "runs")])
    other = tmp_path / "other"
    shutil.copytree(images, other)
    first = next((other / "class 3").iterdir())
    first.rename(other / "class 4" / first.name)
    folder = next((tmp_path / "runs").glob("*/seed0"))
    with pytest.raises(SystemExit):
        tool.main(["suspects", str(folder), "--directory", str(other), "--to", str(tmp_path / "suspects.csv")])
    assert "seed0 was trained on other labels than the data" in capsys.readouterr().err
    assert not (tmp_path / "suspects.csv").exists()


def test_the_readmes_example_works(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "benchmarks" / "noisy_labels" / "README.md").read_text()
    commands = r"^python -m benchmarks\.noisy_labels (.* --directory photos .*)$"
    train, suspects = re.findall(commands, readme, re.MULTILINE)
    monkeypatch.chdir(images.parent)
    tool.main([*shlex.split(train), *BRIEF, "--out", str(tmp_path / "runs")])
    folder = Path(shlex.split(suspects)[1])
    assert folder.is_relative_to(shlex.split(train)[-1])
    folder = tmp_path / "runs" / folder.relative_to(shlex.split(train)[-1])
    tool.main(["suspects", str(folder), *shlex.split(suspects)[2:-1], str(tmp_path / "suspects.csv")])
    with (tmp_path / "suspects.csv").open() as file:
        header, first = list(csv.reader(file))[:2]
    assert f"`{', '.join(header)}`" in " ".join(readme.split()) and first[0] == "1"


def test_suspects_of_a_folder_trains_first(images: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["suspects", str(images), "--size", "16", "--epochs", "1", "--measure-every", "1", "--processes", "1"]
    tool.main([*words, "--to", str(tmp_path / "new" / "s.csv")])
    printed = capsys.readouterr().out
    assert printed.startswith("folder: 240 images to train on, 0 for validation, 60 to test; 10 classes (class 0, ")
    assert (
        "300 images, the most suspect first, in " in printed and "have a label with a probability below 0.5" in printed
    )
    assert "The network came to predict" in printed and "(mean of 5 networks)" in printed
    with (tmp_path / "new" / "s.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 300 and {line["trained_by"] for line in lines} == {"4"}  # each was held out once
    runs = sorted(path.parent.name for path in (tmp_path / "new" / "s-runs").glob("*/seed*"))
    assert runs == [f"folder-small-none-fold{k}of5-imae-lr{tool.judging_defaults()['lr']:g}" for k in range(1, 6)]
    # The same again reads what is finished; the runs can be judged by themselves, too.
    tool.main([*words, "--to", str(tmp_path / "new" / "s.csv")])
    tool.main(["suspects", str(tmp_path / "new"), "--directory", str(images), "--to", str(tmp_path / "again.csv")])
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "new" / "s.csv").read_text()
    tool.main([*words, "--all", "--cutoff", "0.9", "--to", str(tmp_path / "all.csv")])
    with (tmp_path / "all.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 300 and {line["trained_by"] for line in lines} == {"1"}
    assert all((line["suspect"] == "yes") == (float(line["p_given"]) < 0.9) for line in lines)


def test_suspects_of_a_folder_and_a_list(images: Path, tmp_path: Path, capsys: Capture) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for path in sorted(images.rglob("*.png"))[::6]:
        shutil.copy(path, flat / path.name)
        rows.append(f"{path.name},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows, ""]))
    words = [
        "suspects",
        str(flat),
        "--size",
        "16",
        "--epochs",
        "1",
        "--measure-every",
        "1",
        "--processes",
        "1",
        "--all",
    ]
    tool.main([*words, "--labels", str(tmp_path / "labels.csv"), "--to", str(tmp_path / "s.csv")])
    assert "list: 50 images to train on" in capsys.readouterr().out
    with (tmp_path / "s.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert sorted(f"{line['file']},{line['given_label']}" for line in lines) == sorted(rows)
    with pytest.raises(SystemExit):
        tool.main([*words, "--to", str(tmp_path / "t.csv")])
    assert "with a file of their labels, take --data list --labels FILE" in capsys.readouterr().err


def test_suspects_refuses_what_has_no_effect(images: Path, tmp_path: Path, capsys: Capture) -> None:
    tool.main(["train", *words_for(images), "--lr", "0.02", "--out", str(tmp_path / "runs")])
    folder = str(next((tmp_path / "runs").glob("*/seed0")))
    for words, message in (
        ([folder, "--epochs", "3"], "--epochs: it has no effect here, the runs are finished"),
        ([folder, "--all"], "--all: it has no effect here, the runs are finished"),
        ([folder, "--directory", str(images), "--labels", "x.npy"], "the run's labels are from no file"),
        ([folder, "--directory", str(images), "--cutoff", "2"], "--cutoff: expected a probability above 0 and up to 1"),
        ([str(images), "--directory", "x"], "--directory x: it has no effect here, the images are in "),
        ([str(images), str(images)], "expected one folder of images, or finished runs, got "),
        ([str(images), "--all", "--fold", "1/2"], "expected --all or --fold, got both"),
        ([str(images), "--validation", "7"], "--validation 7: it has no effect here"),
    ):
        with pytest.raises(SystemExit):
            tool.main(["suspects", *words, "--to", str(tmp_path / "s.csv")])
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "s.csv").exists()


def test_parts_of_their_own_are_judged_as_well(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8), 20 * i).save(tmp_path / "photos" / part / name / f"{i}.png")
    labels = [f"train/a/{i}.png,{'b' if i == 2 else 'a'}" for i in range(6)] + [f"train/b/{i}.png,b" for i in range(5)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *labels, ""]))
    words = ["--size", "8", "--network", "mlp", *BRIEF, "--labels", str(tmp_path / "labels.csv")]
    tool.main(["suspects", str(tmp_path / "photos"), *words, "--to", str(tmp_path / "s.csv")])
    with (tmp_path / "s.csv").open() as file:
        lines = {line["file"]: line for line in csv.DictReader(file)}
    # The label file has none for train/b/5.png; the other parts keep the labels of their folders.
    assert len(lines) == 11 + 6 + 4 and "train/b/5.png" not in lines
    assert lines["train/a/2.png"]["given_label"] == "b" and lines["train/a/2.png"]["index"] == "2"
    assert lines["val/b/0.png"]["given_label"] == "b" and lines["val/b/0.png"]["index"] == ""
    assert {name.split("/")[0]: line["trained_by"] for name, line in lines.items()} == {
        "train": "1",
        "val": "0",
        "test": "0",
    }


def write_shapes(root: Path) -> set[str]:
    """Write 210 images of three shapes, 26 of them into a wrong folder; return the names of these."""
    random = Random(0)
    shapes = ("circle", "square", "triangle")
    wrong, names = set(random.sample(range(210), 26)), set()
    for k in range(210):
        shape = shapes[k // 70]
        image = Image.new("RGB", (64, 64), tuple(random.randrange(110) for _ in range(3)))  # type: ignore[arg-type]
        colour = tuple(random.randrange(140, 256) for _ in range(3))
        x, y, r = random.randrange(24, 40), random.randrange(24, 40), random.randrange(12, 22)
        draw = ImageDraw.Draw(image)
        if shape == "triangle":
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        else:
            {"circle": draw.ellipse, "square": draw.rectangle}[shape]((x - r, y - r, x + r, y + r), fill=colour)
        given = random.choice([other for other in shapes if other != shape]) if k in wrong else shape
        (root / given).mkdir(parents=True, exist_ok=True)
        image.save(root / given / f"{k:03d}.png")
        names |= {f"{given}/{k:03d}.png"} if k in wrong else set()
    return names


@pytest.mark.slow
def test_the_readmes_command_finds_every_wrong_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    readme = (ROOT / "benchmarks" / "noisy_labels" / "README.md").read_text()
    command = re.search(r"^python -m benchmarks\.noisy_labels (suspects photos --all --to .*)$", readme, re.MULTILINE)
    assert command is not None
    monkeypatch.chdir(tmp_path)
    wrong = write_shapes(tmp_path / "photos")
    tool.main(shlex.split(command[1]))
    with (tmp_path / "suspects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 210 and wrong <= {line["file"] for line in lines[:30]}
    assert "that had settled: enough" in capsys.readouterr().out
