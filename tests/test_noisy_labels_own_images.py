"""One's own images, from a folder for each class to the labels to look at: nobody vouches for them."""

from __future__ import annotations

import csv
import math
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
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
