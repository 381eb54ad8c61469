"""Runs of the noisy-label experiments: stored, stopped, gone on with, refused, and what is measured of them."""

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
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import imae_ext
from benchmarks.noisy_labels import __main__ as tool
from benchmarks.noisy_labels import archive, job, report, store
from benchmarks.noisy_labels.baselines import Forward, NoiseAdaptation
from benchmarks.noisy_labels.measures import Measures
from benchmarks.noisy_labels.table import WITH_AUC, paper_table
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import SCHEDULES, Recipe

ROOT = Path(__file__).resolve().parent.parent
TASK = Task()
FILES = ("config.json", "history.csv", "result.json")


class Killed(Exception):
    """Stands for whatever stops a run."""


pytestmark = pytest.mark.usefixtures("one_thread")


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
    words = ["train", "--loss", "imae", "--lr", "0.01", "--epochs", "20", "--measure-every", "1", "--processes", "1"]
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
    np.savetxt(tmp_path / "labels.txt", load_digits().target, fmt="%d")
    task = Task(noise="file", rate=0.0, labels=tmp_path / "labels.txt")
    job.run(task, tmp_path, recipe(epochs=1))
    folder = store.folder_of(tmp_path, task, recipe())
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
    task = Task(noise="none")
    result = job.run(task, tmp_path, recipe(epochs=1))
    assert result.auc is None
    assert all(math.isnan(getattr(result.final, name)) for name in ("noisy_fit", "clean_fit", "hybrid"))
    assert 0 <= result.final.fit <= 100 and 0 <= result.final.test <= 100
    stored = json.loads((store.folder_of(tmp_path, task, recipe()) / "result.json").read_text())
    assert stored["noisy_fit"] is None and stored["auc"] is None and stored["fit"] == result.final.fit
    row = paper_table([result], WITH_AUC).splitlines()[-1].split()
    assert row[2:] == [f"{result.best_test:.1f}", f"{result.final.test:.1f}", "-", "-", "-", "-"]
    report.write([tmp_path], tmp_path / "report", tmp_path / "report", None)
    with (tmp_path / "report" / "table.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert [line[name] for name in ("noisy fit", "clean fit", "hybrid", "AUC")] == ["", "", "", ""]
    assert "nan" not in (tmp_path / "report" / "runs.csv").read_text()
    with pytest.raises(ValueError, match="the true labels are not known here"):
        job.run(task, tmp_path, recipe(name="Forward*", formula=Forward()))


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
