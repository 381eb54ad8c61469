"""Options that would have no effect, names that --help knows without torch, and pictures without matplotlib."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.noisy_labels import __main__ as tool
from benchmarks.noisy_labels import archive, augment, losses, names, networks, options, rules, training
from benchmarks.noisy_labels.data import DATASETS, digits

ROOT = Path(__file__).resolve().parent.parent
Capture = pytest.CaptureFixture[str]
TRAIN = ["train", "--lr", "0.1", "--out", "q"]
SWEEP = ["sweep", "--losses", "cce", "mae", "--out", "q"]
BRIEF = ["--epochs", "1", "--processes", "1"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [*TRAIN, "--noise", "symmetric", "--labels", "x.npy"],
            "--labels x.npy: it has no effect here, expected --noise",
        ),
        (
            [*TRAIN, "--noise", "none", "--key", "worse_label"],
            "--key worse_label: it has no effect here, expected --labels",
        ),
        ([*TRAIN, "--key", "worse_label"], "--key worse_label: it has no effect here"),
        ([*TRAIN, "--order", "x.npy"], "--order x.npy: it has no effect here, expected --labels FILE"),
        ([*TRAIN, "--targets", "majority"], "--targets majority: it has no effect here"),
        (
            [*TRAIN, "--noise", "none", "--rate", "0.2"],
            "--rate 0.2: it has no effect here, expected --noise symmetric or",
        ),
        ([*TRAIN, "--noise", "none", "--meant"], "--meant: it has no effect here, expected noise symmetric or"),
        ([*TRAIN, "--trusted"], "--trusted: it has no effect here, expected labels that nobody vouches for"),
        ([*TRAIN, "--size", "32"], "--size 32: it has no effect here, expected a data set of image files"),
        ([*TRAIN, "--skip-broken"], "--skip-broken: it has no effect here"),
        (
            [*TRAIN, "--augmentation", "none"],
            "--augmentation none: it has no effect here, expected a data set of images",
        ),
        ([*TRAIN, "--validation", "9"], "--validation 9: it has no effect here, expected a data set without"),
        ([*TRAIN, "--split", "google"], "--split google: it has no effect here, expected --data webvision or"),
        ([*TRAIN, "--fold", "none"], "--fold none: it has no effect here, expected --data folder or list"),
        ([*TRAIN, "--data", "folder", "--fold", "1/5", "--validation", "9"], "and no --fold"),
        ([*TRAIN, "--data", "list", "--labels", "x.csv", "--key", "a"], "--key a: it has no effect here"),
        ([*SWEEP, "--lr", "1", "--labels", "x.pt", "--noises", "none"], "--labels x.pt: it has no effect here"),
        ([*SWEEP, "--lr", "1", "--labels", "x.pt", "--noises", "file:a", "--key", "b"], "(else file:KEY)"),
        ([*SWEEP, "--lr", "1", "--grid", "0.1", "0.2"], "--grid 0.1 0.2: it has no effect here, expected --lr search"),
        ([*SWEEP, "--lr", "1", "--search-seeds", "2"], "--search-seeds 2: it has no effect here"),
        ([*SWEEP, "--lr", "1", "--search-epochs", "2"], "--search-epochs 2: it has no effect here"),
        ([*SWEEP, "--lr", "1", "2"], "--lr 2: expected one rate for all losses, or `search` over --grid; got two"),
        ([*SWEEP, "--lr", "cce=1", "cce=2", "mae=1"], "--lr cce=2: expected one rate for cce, got two"),
        ([*SWEEP, "--lr", "0.5", "cce=1", "mae=1"], "--lr: every loss has a rate of its own"),
        (["sweep", "--losses", "cce", "cce", "--lr", "1", "--out", "q"], "--losses: expected each once, got cce again"),
        ([*SWEEP, "--lr", "1", "--noises", "none", "none"], "--noises: expected each once, got none again"),
        (["share", "--epochs", "3"], "--epochs 3: it has no effect here, expected the command train"),
        (["share", "--reference"], "--reference: it has no effect here"),
        (["suspects", "q", "--to", "q.csv", "--noise", "symmetric"], "--noise symmetric: it has no effect here"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        tool.main(words)
    assert exit.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("words", "option"), [(["--seeds", "4"], "--seeds"), (["--out", "q"], "--out")])
def test_the_demos_search_refuses_what_it_does_not_heed(words: list[str], option: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        tool.main(["demo", "--search", *words])
    assert f"{option}: it has no effect with --search" in capsys.readouterr().err


def test_options_at_their_defaults_are_refused_alike() -> None:
    _, given = tool.parse([*TRAIN, "--targets", names.TARGETS[0]])
    assert given.explicit == {"lr", "out", "targets"}
    _, given = tool.parse(TRAIN)
    rules.check(given)


def test_every_rule_is_about_options_that_there_are() -> None:
    _, commands = tool.build()
    for rule in rules.RULES:
        for name in rule.commands or ("train", "sweep", "share", "suspects"):
            known = {word.lstrip("-") for action in commands[name]._actions for word in action.option_strings}
            for option in rule.options:
                assert (
                    option in known
                    or not rule.commands
                    or (name, option)
                    in {
                        ("sweep", "rate"),  # in --noises
                        ("share", "split"),
                    }
                ), (name, option)


def test_a_file_of_labels_implies_the_noise(tmp_path: Path) -> None:
    dataset = digits()
    assert dataset.published is not None
    labels = dataset.published.labels.numpy()
    np.save(tmp_path / "labels.npy", np.where(np.arange(1797) % 4 == 0, (labels + 1) % 10, labels))
    words = ["--labels", str(tmp_path / "labels.npy"), "--lr", "0.1", *BRIEF]
    tool.main(["train", *words, "--loss", "cce", "--out", str(tmp_path / "train")])
    tool.main(["sweep", *words, "--losses", "cce", "--seeds", "1", "--out", str(tmp_path / "sweep")])
    for name in ("train", "sweep"):
        (run,) = archive.load(tmp_path / name).runs
        assert run.task.noise == "file" and run.task.title == "digits, labels from a file, mlp"
        read = run.config["data"]
        assert read["train"] == 1200 and read["labels"]["changed"] == pytest.approx(450 / 1797)
        assert read["labels"]["file"] == "labels.npy" and str(tmp_path) not in str(run.config)
        assert "fold" not in run.config["task"]  # what older records do not have is written where it was asked for


def test_files_that_are_absent_are_not_passed_over(tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--labels", "/does/not/exist.npy", "--key", "nothing", "--loss", "imae", "--lr", "0.005", *BRIEF]
    with pytest.raises(SystemExit):
        tool.main([*words, "--out", str(tmp_path / "q")])
    assert "expected a label file, got /does/not/exist.npy, which is not there" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_a_rate_is_searched_for_on_a_validation_part_only(tmp_path: Path, capsys: Capture) -> None:
    from PIL import Image

    for i in range(24):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    words = ["sweep", "--data", "folder", "--directory", str(tmp_path / "photos"), "--size", "8", "--validation", "0"]
    with pytest.raises(SystemExit):
        tool.main([*words, "--losses", "cce", "--lr", "search", *BRIEF, "--seeds", "1", "--out", str(tmp_path / "q")])
    assert "on the validation part: expected one, got --validation 0" in capsys.readouterr().err


# Names


def test_the_names_are_those_of_the_tables() -> None:
    assert tuple(DATASETS) == names.DATASETS
    assert tuple(networks.NETWORKS) == names.NETWORKS
    assert tuple(augment.KINDS) == names.AUGMENTATIONS
    assert tuple(training.SCHEDULES) == names.SCHEDULES
    assert tuple(training.OPTIMIZERS) == names.OPTIMIZERS
    assert losses.catalogue() == names.LOSSES
    assert tuple(losses.parameter_names()) == names.PARAMETERS
    listed = (names.CLEAN, names.IN_MEMORY, names.OWN_VALIDATION, names.WITH_SPLITS, names.OWN, names.WITHOUT_IMAGES)
    for group in listed:
        assert set(group) <= set(names.DATASETS)


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\n"
        "from benchmarks.noisy_labels import __main__ as tool\n"
        "for words in (['--help'], *([name, '--help'] for name in tool.build()[1] if name != 'demo')):\n"
        "    try:\n"
        "        tool.main(words)\n"
        "    except SystemExit as exit:\n"
        "        assert exit.code == 0\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_only_pictures_need_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"  # as if it were not installed
        "from benchmarks.noisy_labels import __main__ as tool\n"
        "tool.main(['train', '--loss', 'cce', '--lr', '0.1', '--epochs', '1', '--processes', '1', '--out', "
        f"{str(tmp_path / 'q')!r}])\n"
        f"folder = next(__import__('pathlib').Path({str(tmp_path / 'q')!r}).glob('*/seed0'))\n"
        f"tool.main(['suspects', str(folder), '--to', {str(tmp_path / 's.csv')!r}])\n"
        f"tool.main(['report', {str(tmp_path / 'q')!r}, '--to', {str(tmp_path / 'to')!r}])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].endswith(
        "pictures are drawn by matplotlib: pip install -r requirements/demo.txt"
    )
    assert (tmp_path / "s.csv").exists() and (tmp_path / "to" / "table.md").exists()


def test_directory_is_named_where_it_is_missing(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        tool.main([*TRAIN, "--data", "cifar10"])
    assert re.search(r"cifar10 is read from files: expected --directory DIR, .*got none", capsys.readouterr().err)


def test_backward_correction_without_an_inverse_is_refused() -> None:
    from benchmarks.noisy_labels.baselines import Backward, PlainLoss

    transition = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0]])
    with pytest.raises(ValueError, match="which has no inverse here: no label is of class 2; take Forward"):
        PlainLoss(Backward(), 3, transition)
    with pytest.raises(ValueError, match="no inverse here: its rows are nearly alike; take Forward"):
        PlainLoss(Backward(), 2, torch.full((2, 2), 0.5))
    PlainLoss(Backward(), 2, torch.tensor([[0.9, 0.1], [0.2, 0.8]]))


def test_options_are_read_into_the_task() -> None:
    words = ["--data", "mini-imagenet", "--split", "red_noise_nl_0.4", "--skip-broken", "--network", "small"]
    _, given = tool.parse([*TRAIN, *words])
    rules.check(given)
    task = options.task_of(given)
    assert (
        task.split == "red_noise_nl_0.4"
        and task.skip_broken
        and task.name == "mini-imagenet-red_noise_nl_0.4-small-none"
    )
