"""The command line of the noisy-label experiments: runs that are stored, stopped, gone on with, and reported."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import imae_ext
from benchmarks.noisy_labels import __main__ as tool
from benchmarks.noisy_labels import archive, job, options, report, store
from benchmarks.noisy_labels.baselines import Forward, NoiseAdaptation
from benchmarks.noisy_labels.losses import parse
from benchmarks.noisy_labels.measures import Measures
from benchmarks.noisy_labels.share import time_step
from benchmarks.noisy_labels.table import WITH_AUC, paper_table
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import SCHEDULES, FusedLoss, Recipe

ROOT = Path(__file__).resolve().parent.parent
TASK = Task()
FILES = ("config.json", "history.csv", "result.json")
Capture = pytest.CaptureFixture[str]
BRIEF = ["--epochs", "2", "--measure-every", "1", "--processes", "1"]


class Killed(Exception):
    """Stands for whatever stops a run."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Train on one thread, as the tool does: a result is the same to the last bit only then."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(**changes: object) -> Recipe:
    base = Recipe("IMAE", imae_ext.IMAE(), 0.01, epochs=4, measure_every=1)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in FILES}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = store.load_state(folder)
    assert state is not None
    return state.parts["network"]


def stop_after(epoch: int) -> object:
    def report(measures: Measures) -> None:
        if measures.epoch == epoch:
            raise Killed

    return report


# Stopping and going on


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "cosine", "weight_decay": 1e-3, "measure_every": 3, "epochs": 5},
        {"formula": imae_ext.GCE(), "name": "GCE", "amp": True},
        {"formula": NoiseAdaptation(), "name": "NoiseAdaptation*", "momentum": 0.5},
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, changes: dict[str, object]) -> None:
    one = recipe(**changes)
    whole = job.run(TASK, tmp_path / "whole", one)
    stopped = tmp_path / "stopped"
    with pytest.raises(Killed):
        job.run(TASK, stopped, one, stop_after(one.measure_every))  # type: ignore[arg-type]
    assert not (store.folder_of(stopped, TASK, one) / "result.json").exists()
    assert job.run(TASK, stopped, one) == whole
    first, second = (store.folder_of(tmp_path / name, TASK, one) for name in ("whole", "stopped"))
    assert contents(first) == contents(second)
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_a_killed_process_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    words = ["train", "--loss", "imae", "--lr", "0.01", "--epochs", "30", "--measure-every", "1", "--processes", "1"]
    folder = store.folder_of(tmp_path / "killed", TASK, recipe())
    command = [sys.executable, "-m", "benchmarks.noisy_labels", *words, "--out", str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while not (folder / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (folder / "result.json").exists()
    for name in ("killed", "whole"):
        tool.main([*words, "--out", str(tmp_path / name)])
    assert contents(folder) == contents(store.folder_of(tmp_path / "whole", TASK, recipe()))


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = job.run(TASK, tmp_path, recipe())
    monkeypatch.setattr(job, "train", None)
    reported: list[Measures] = []
    assert job.run(TASK, tmp_path, recipe(), reported.append) == first
    assert reported == [first.final]


def test_another_configuration_is_refused_by_its_difference(tmp_path: Path) -> None:
    job.run(TASK, tmp_path, recipe(epochs=1))
    with pytest.raises(ValueError, match=r"other settings: epochs is 1 there, got 2; momentum is 0.9 there, got 0.5\."):
        job.run(TASK, tmp_path, recipe(epochs=2, momentum=0.5))
    folder = store.folder_of(tmp_path, TASK, recipe())
    with pytest.raises(ValueError, match=r"rate is 0\.4 there, got 0\.2"):
        job.run_in(folder, dataclasses.replace(TASK, rate=0.2), recipe(epochs=1), lambda measures: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"labels_sha256": "0"}))
    with pytest.raises(ValueError, match="there are others in the data or in the label file"):
        job.run(TASK, tmp_path, recipe(epochs=1))


def test_an_unfinished_run_of_another_version_is_refused_and_a_finished_one_stands(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        job.run(TASK, tmp_path, recipe(), stop_after(1))  # type: ignore[arg-type]
    folder = store.folder_of(tmp_path, TASK, recipe())
    written = (folder / "config.json").read_text()
    older = written.replace(torch.__version__, "2.0.0")
    (folder / "config.json").write_text(older)
    with pytest.raises(ValueError, match=r"torch is 2\.0\.0 there"):
        job.run(TASK, tmp_path, recipe())
    (folder / "config.json").write_text(written)
    finished = job.run(TASK, tmp_path, recipe())
    (folder / "config.json").write_text(older)
    assert job.run(TASK, tmp_path, recipe()) == finished


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"x"]
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: object) -> None:
    with pytest.raises(Killed):
        job.run(TASK, tmp_path, recipe(), stop_after(1))  # type: ignore[arg-type]
    path = store.folder_of(tmp_path, TASK, recipe()) / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .*: delete it, and the run starts anew"):
        job.run(TASK, tmp_path, recipe())
    path.unlink()
    assert job.run(TASK, tmp_path, recipe()) == job.run(TASK, tmp_path / "whole", recipe())


def test_a_write_that_is_cut_short_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        os.ftruncate(descriptor, 10)
        raise OSError("disk full")

    with pytest.raises(Killed):
        job.run(TASK, tmp_path, recipe(), stop_after(1))  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            job.run(TASK, tmp_path, recipe())
    assert job.run(TASK, tmp_path, recipe()) == job.run(TASK, tmp_path / "whole", recipe())


def test_history_is_read_back_exactly_and_empty_where_nothing_was_measured() -> None:
    written = store.write_history([Measures(2, 1 / 3, 50.0, 1e-17, math.nan, math.nan, math.nan, math.inf, 100 / 3)])
    assert written.splitlines()[1] == f"2,{1 / 3!r},50.0,1e-17,,,,inf,{100 / 3!r}"
    assert store.write_history(store.read_history(written)) == written


def test_configuration_tells_versions_and_no_paths(tmp_path: Path) -> None:
    job.run(dataclasses.replace(TASK, directory=tmp_path), tmp_path, recipe(epochs=1))
    folder = store.folder_of(tmp_path, TASK, recipe())
    config = json.loads((folder / "config.json").read_text())
    assert config["versions"]["torch"] == torch.__version__
    assert config["versions"]["imae_ext"] == imae_ext.__version__
    assert config["versions"]["device"].startswith("cpu")
    assert config["recipe"]["formula"] == "IMAE(T=8.0, eps=1e-08)"
    for name in FILES:
        assert str(tmp_path) not in (folder / name).read_text()


# What is measured, and what is not


def test_without_the_truth_the_noise_measures_are_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untold = dataclasses.replace(TASK.dataset(), truth_known=False)
    monkeypatch.setattr(Task, "dataset", lambda self: untold)
    result = job.run(TASK, tmp_path, recipe(epochs=1))
    assert result.auc is None
    assert all(math.isnan(getattr(result.final, name)) for name in ("noisy_fit", "clean_fit", "hybrid"))
    assert 0 <= result.final.fit <= 100 and 0 <= result.final.test <= 100
    stored = json.loads((store.folder_of(tmp_path, TASK, recipe()) / "result.json").read_text())
    assert stored["noisy_fit"] is None and stored["auc"] is None and stored["fit"] == result.final.fit
    row = paper_table([result], WITH_AUC).splitlines()[-1].split()
    assert row[2:] == [f"{result.best_test:.1f}", f"{result.final.test:.1f}", "-", "-", "-", "-"]
    report.write([tmp_path], tmp_path / "report", tmp_path / "report", None)
    with (tmp_path / "report" / "table.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert [line[name] for name in ("noisy fit", "clean fit", "hybrid", "AUC")] == ["", "", "", ""]
    assert "nan" not in (tmp_path / "report" / "runs.csv").read_text()
    with pytest.raises(ValueError, match="the true labels are not known here"):
        job.run(TASK, tmp_path, recipe(name="Forward*", formula=Forward()))


def test_fit_is_that_of_all_labels_and_auc_ranks_the_wrong_ones_first(tmp_path: Path) -> None:
    result = job.run(TASK, tmp_path, recipe(name="GCE", formula=imae_ext.GCE(), learning_rate=0.05, epochs=15))
    final = result.final
    assert final.fit == pytest.approx(0.4 * final.noisy_fit + 0.6 * final.clean_fit)
    assert result.auc is not None and 80 < result.auc < 100  # by then it has learned more than half of the digits


def test_the_loss_is_the_mean_over_the_examples(tmp_path: Path) -> None:
    result = job.run(TASK, tmp_path, recipe(learning_rate=1e-30, epochs=1))  # 1,200 examples: the last batch is short
    logits = TASK.build(seed=0)(TASK.dataset().train.inputs)
    expected = imae_ext.imae_loss(logits, torch.from_numpy(TASK.noisy_labels(seed=0).labels))
    assert result.final.loss == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_diverged_run_is_stored_all_the_same(tmp_path: Path) -> None:
    result = job.run(TASK, tmp_path, recipe(learning_rate=1e30, epochs=2))
    assert math.isnan(result.final.loss) and result.auc is None
    (stored,) = archive.load(tmp_path).runs
    assert stored.result.history[-1].test == result.final.test


def test_an_estimated_transition_comes_from_a_first_network(tmp_path: Path) -> None:
    one = recipe(name="Forward*", formula=Forward(estimated=True), epochs=20)
    first = job.run(TASK, tmp_path, one)
    folder = store.folder_of(tmp_path, TASK, one)
    assert json.loads((folder / "estimate" / "config.json").read_text())["recipe"]["epochs"] == 2
    state = store.load_state(folder)
    assert state is not None
    matrix = state.parts["criterion"]["matrix"]
    torch.testing.assert_close(matrix.sum(1), torch.ones(10))
    known = job.run(TASK, tmp_path / "known", recipe(name="Forward*", formula=Forward(), epochs=20))
    assert first.history != known.history
    assert [run.result for run in archive.load(tmp_path).runs if run.task == TASK] == [known, first]


@pytest.mark.parametrize(
    ("name", "shares"), [("constant", [1, 1, 1, 1]), ("step", [1, 1, 0.1, 0.01]), ("cosine", [1, 0.8535, 0.5, 0.1464])]
)
def test_schedules(name: str, shares: list[float]) -> None:
    assert [SCHEDULES[name](done) for done in (0, 0.25, 0.5, 0.75)] == pytest.approx(shares, abs=1e-4)


def test_schedule_and_weight_decay_reach_the_optimizer(tmp_path: Path) -> None:
    one = recipe(name="NoiseAdaptation*", formula=NoiseAdaptation(), schedule="step", weight_decay=1e-3)
    job.run(TASK, tmp_path, one)
    state = store.load_state(store.folder_of(tmp_path, TASK, one))
    assert state is not None
    network, criterion = state.parts["optimizer"]["param_groups"]
    assert network["lr"] == criterion["lr"] == pytest.approx(0.01 * 0.01)  # in the last quarter
    assert (network["weight_decay"], criterion["weight_decay"]) == (1e-3, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "expected epochs of at least 1, got 0"),
        ({"batch_size": 0}, "expected batch_size of at least 1"),
        ({"learning_rate": 0.0}, "expected a learning rate above 0"),
        ({"schedule": "linear"}, "expected a schedule of constant, step, cosine, got 'linear'"),
        ({"formula": Forward(), "use_reference": True}, "plain PyTorch: it has no reference"),
        ({"formula": Forward(), "reduction": "normalized"}, "no reduction but mean"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


# The command line


def test_train_runs_every_seed_and_reference_gives_the_same_curve(tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--loss", "imae", "--T", "4", "--lr", "0.01", "--seeds", "2", *BRIEF, "--out", str(tmp_path)]
    tool.main(words)
    tool.main([*words, "--reference"])
    assert "IMAE(T=4)  0.01" in capsys.readouterr().out
    fused, plain = ([run.result for run in archive.load(tmp_path).runs][i : i + 2] for i in (0, 2))
    assert [one.recipe.seed for one in fused] == [0, 1]
    assert {one.recipe.name for one in plain} == {"IMAE(T=4), reference"}
    assert [FusedLoss(one.recipe).loss_of for one in plain] == [imae_ext.reference.robust_loss] * 2
    for ours, theirs in zip(fused, plain, strict=True):
        for a, b in zip(ours.history, theirs.history, strict=True):
            assert (a.loss, a.max_logit) == pytest.approx((b.loss, b.max_logit), rel=1e-4)
            assert a.test == pytest.approx(b.test, abs=0.6)  # two of the 360 test images
    commands = (tmp_path / "commands.txt").read_text().splitlines()
    assert len(commands) == 2 and str(tmp_path) not in commands[0]
    assert commands[0].startswith("python -m benchmarks.noisy_labels train --loss imae --T 4 --lr 0.01")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep three losses over two noises, with two rates to choose from for one of them."""
    out = tmp_path_factory.mktemp("swept")
    losses = ["--losses", "cce", "imae(T=2)", "bootstrap_hard", "--lr", "search", "cce=0.05", "bootstrap_hard=0.05"]
    noises = ["--noises", "none", "asymmetric:0.3"]
    words = [*noises, *losses, "--grid", "0.005", "0.02", "--search-seeds", "1", "--seeds", "2"]
    tool.main(["sweep", *words, *BRIEF, "--out", str(out)])
    return out


def test_sweep_chooses_the_rates_and_runs_every_seed(swept: Path) -> None:
    runs = archive.load(swept).runs
    searched = [run.result.recipe for run in runs if run.searching]
    assert {(one.name, one.learning_rate, one.seed) for one in searched} == {
        ("IMAE(T=2)", 0.005, 1001),
        ("IMAE(T=2)", 0.02, 1001),
    }
    for title in ("digits, labels as they are, mlp", "digits, 30% asymmetric noise, mlp"):
        final = [run.result.recipe for run in runs if run.task.title == title and not run.searching]
        names = [(one.name, one.seed) for one in final]
        assert names == [(name, seed) for name in ("CCE", "IMAE(T=2)", "BootstrapHard*") for seed in (0, 1)]
        (chosen,) = {one.learning_rate for one in final if one.name == "IMAE(T=2)"}
        # Nothing fits its labels in two epochs: the rule takes the highest accuracy on the validation images.
        tried = {
            run.result.recipe.learning_rate: run.result.final.validation
            for run in runs
            if run.searching and run.task.title == title
        }
        assert tried[chosen] == max(tried.values())


def test_report_writes_tables_pictures_and_the_readme(swept: Path, tmp_path: Path, capsys: Capture) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    words = ["report", str(swept), "--to", str(tmp_path / "to"), "--pictures", str(tmp_path / "docs")]
    tool.main([*words, "--readme", str(readme), "--archive", str(tmp_path)])
    printed = capsys.readouterr().out
    text = (tmp_path / "to" / "table.txt").read_text()
    assert text.startswith(printed.strip().partition("\n\nArchive: ")[0]) and "AUC: how well" in text
    assert "digits, 30% asymmetric noise, mlp, 2 epochs, 2 seeds" in text and report.PLAIN_NOTE in text
    noisy, clean = (line.split() for line in text.splitlines() if line.startswith("BootstrapHard*  0.05"))
    assert len(noisy) == 2 + 6 * 3 and len(clean) == 2 + 4 * 3 + 2  # six means ± spreads; without noise two are "-"
    assert clean[8] == clean[-1] == "-"
    for name in (f"{swept.name}-{rest}.png" for rest in ("digits-mlp-none", "digits-mlp-asymmetric30", "weights")):
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")
        assert f"](docs/{name})" in readme.read_text()
    filled = readme.read_text()
    assert filled.startswith(f"before\n{report.BEGIN}\n```\npython -m benchmarks.noisy_labels sweep")
    assert filled.endswith(f"{report.END}\nafter\n") and "old" not in filled
    assert "| BootstrapHard\\* | 0.05 |" in filled
    with (tmp_path / "to" / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(archive.load(swept).runs) and {line["for"] for line in lines} == {"search", "table"}
    assert "chosen" in (tmp_path / "to" / "search.txt").read_text()
    # The archive tells the same.
    tool.main(["report", str(tmp_path / f"{swept.name}.json"), "--to", str(tmp_path / "again")])
    for name in ("table.txt", "table.md", "table.csv", "runs.csv", "search.txt"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "to" / name).read_text()


def test_suspects_are_listed_the_least_probable_first(swept: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = swept / "digits-mlp-asymmetric30-cce-lr0.05" / "seed0"
    tool.main(["suspects", str(folder), "--to", str(tmp_path / "suspects.csv")])
    assert "AUC of finding the wrong ones" in capsys.readouterr().out
    with (tmp_path / "suspects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 1200
    p = [float(line["p_given"]) for line in lines]
    assert p == sorted(p) and lines[0]["given_label"] != lines[0]["true_label"]


def test_a_folder_of_images_trains_with_one_command(tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    for i in range(300):
        path = tmp_path / "images" / f"class {labels[i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[i].reshape(8, 8) * 15).astype("uint8")).save(path)
    data = ["--data", "folder", "--directory", str(tmp_path / "images"), "--size", "16", "--network", "small"]
    words = [*data, "--lr", "0.02", "--loss", "gce", "--batch", "32", *BRIEF]
    tool.main(["train", *words, "--noise", "none", "--out", str(tmp_path / "as they are")])
    tool.main(["train", *words, "--noise", "symmetric", "--trusted", "--out", str(tmp_path / "trusted")])
    (given,), (noisy,) = (archive.load(tmp_path / name).runs for name in ("as they are", "trusted"))
    assert given.result.auc is None and math.isnan(given.result.final.noisy_fit)
    assert noisy.result.auc is not None and noisy.result.final.noisy_fit >= 0
    folder = next((tmp_path / "as they are").glob("*/seed0"))
    places = ["--directory", str(tmp_path / "images")]
    tool.main(["suspects", str(folder), *places, "--to", str(tmp_path / "suspects.csv")])
    with (tmp_path / "suspects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 240 and "true_label" not in lines[0]  # a tenth each for validation and test
    assert all((tmp_path / "images" / line["file"]).parent.name == line["given_label"] for line in lines)


def test_share_times_every_part(capsys: Capture) -> None:
    tool.main(["share", "--loss", "gce", "--seconds", "0.01"])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["fused", "reference", "F.cross_entropy"]
    for share in time_step(TASK, recipe(), 0.01):
        assert len(share.parts) == 4 and min(share.parts) > 0 and 0 < share.of_step < 100
    with pytest.raises(ValueError, match="Forward is plain PyTorch: expected a fused loss"):
        time_step(TASK, recipe(name="Forward", formula=Forward()), 0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--lr", "0.1", "--loss", "imea"], "no loss is called 'imea'"),
        (["train", "--lr", "0.1", "--loss", "imae", "--q", "2"], "IMAE has no parameter 'q'"),
        (["train", "--lr", "0.1", "--noise", "file"], "expected --labels FILE, got none"),
        (["train", "--lr", "0.1", "--device", "cuda"], "expected a GPU for --device cuda, found none"),
        (["train", "--lr", "0.1", "--data", "cifar10"], "cifar10 is read from files"),
        (["train", "--lr", "0.1", "--network", "resnet20"], "resnet20 takes images"),
        (["train", "--lr", "0.1", "--seeds", "0"], "expected a number of at least 1, got '0'"),
        (["sweep", "--losses", "cce", "mae", "--lr", "cce=0.1"], "expected a rate for mae, or `search`"),
        (["sweep", "--losses", "cce", "--lr", "mae=0.1"], "expected a loss out of cce"),
        (["sweep", "--losses", "cce", "--lr", "fast"], "expected a number, got 'fast'"),
        (["sweep", "--losses", "cce", "--lr", "1", "--noises", "symmetric"], "--noises: expected none, symmetric:RATE"),
    ],
)
def test_wrong_requests_are_refused_in_a_line(tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as exit:
        tool.main([*words, "--processes", "1", "--out", str(tmp_path / "out")])
    assert exit.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("python -m benchmarks.noisy_labels") and message in error
    assert not (tmp_path / "out").exists()


def test_nothing_to_report_and_no_markers_are_refused(tmp_path: Path, swept: Path, capsys: Capture) -> None:
    (tmp_path / "README.md").write_text("no markers")
    for words, message in [
        ([str(tmp_path), "--to", str(tmp_path / "to")], "expected finished runs"),
        ([str(tmp_path / "none"), "--to", str(tmp_path / "to")], "expected a folder of runs or a file of them"),
        (
            [str(swept), "--to", str(tmp_path / "to"), "--readme", str(tmp_path / "README.md")],
            "expected one <!-- noisy",
        ),
    ]:
        with pytest.raises(SystemExit):
            tool.main(["report", *words])
        assert message in capsys.readouterr().err


def test_every_command_has_help_and_demo_stays(capsys: Capture) -> None:
    for words in (
        ["--help"],
        *([name, "--help"] for name in ("train", "sweep", "report", "suspects", "share", "demo")),
    ):
        with pytest.raises(SystemExit) as exit:
            tool.main(words)
        assert exit.value.code == 0
        assert "usage: python -m benchmarks.noisy_labels" in capsys.readouterr().out


def test_the_plan_for_a_gpu_asks_for_what_there_is(tmp_path: Path) -> None:
    python = tmp_path / "python"  # notes its arguments
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    command = ["bash", "benchmarks/noisy_labels/cifar10.sh", str(tmp_path), str(python), str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": str(python)}, check=True)
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    noises = set()
    for words in asked:
        assert words[:2] == ["-m", "benchmarks.noisy_labels"]
        _, given = tool.parse(words[2:])
        if given.run is tool.run_sweep:
            noises |= {task.title for task in options.tasks_of(given)}
            assert given.device == "cuda" and all(parse(loss) for loss in given.losses)
            options.rates_of(given, {loss: loss for loss in given.losses})
    assert asked[-1][2] == "report"
    assert noises == {
        f"cifar10, {noise}, resnet20"
        for noise in (
            *("labels as they are", "40% symmetric noise", "80% symmetric noise", "40% asymmetric noise"),
            "labels worse_label",
        )
    }
