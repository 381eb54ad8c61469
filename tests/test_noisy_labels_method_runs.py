"""Methods in runs: stopped and gone on with, told nothing of the truth, refused; and the task of pairs of digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_calls import DIGITS, TASK
from torch import Tensor

from benchmarks.noisy_labels import job, store
from benchmarks.noisy_labels.data import load
from benchmarks.noisy_labels.losses import label, parse
from benchmarks.noisy_labels.measures import Measures
from benchmarks.noisy_labels.methods import (
    D2L,
    ELR,
    METHODS,
    SOP,
    Bilevel,
    CoTeaching,
    JointOptimization,
    Masking,
    Method,
    Setting,
)
from benchmarks.noisy_labels.noise import NoisyLabels
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import Recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")

TELLING = ("ELR", "JointOptimization", "SOP", "D2L", "Bilevel")  # those that are told nothing of the truth


def recipe(method: Method, **changes: Any) -> Recipe:
    base = Recipe(label(method), method, 0.05, epochs=4, measure_every=2, batch_size=64)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    "method",
    [
        ELR(),
        JointOptimization(begin=0.5, retrain=0.25),
        CoTeaching(gradual=2),
        SOP(),
        D2L(window=2, warm=0),
        Masking(pretrain=5),
        Bilevel(parts=3),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, method: Method) -> None:
    one = recipe(method)
    whole = job.run(TASK, tmp_path / "whole", one)

    class Killed(Exception):
        pass

    def stop(measures: Measures) -> None:
        raise Killed

    with pytest.raises(Killed):
        job.run(TASK, tmp_path / "stopped", one, stop)
    assert job.run(TASK, tmp_path / "stopped", one) == whole
    kept = [store.load_state(store.folder_of(tmp_path / name, TASK, one)) for name in ("whole", "stopped")]
    (first, second) = [state.parts["criterion"] for state in kept if state is not None]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first if isinstance(first[name], Tensor))


@pytest.mark.parametrize("name", TELLING)
def test_no_method_looks_at_the_truth(name: str) -> None:
    """Other true labels, and another validation part, leave what is trained as it is."""
    dataset = DIGITS
    given = TASK.noisy_labels(seed=0).labels
    lies = np.roll(given, 1)
    trained = []
    for truth in (dataset.train.labels, torch.from_numpy(lies)):
        told = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, labels=truth))
        one = recipe(parse(name))  # type: ignore[arg-type]
        model = TASK.build(seed=0)
        start = Setting(10, torch.from_numpy(given), epochs=4, seed=0, build=TASK.build)
        criterion = one.formula.start(start)  # type: ignore[union-attr]
        train(one, model, told, NoisyLabels(given, truth.numpy()), criterion=criterion)
        kept = [value for value in criterion.state_dict().values() if isinstance(value, Tensor)]  # D2L's LIDs, say
        trained.append(torch.cat([value.flatten().double() for value in (*model.state_dict().values(), *kept)]))
    assert torch.equal(*trained)


def test_what_needs_the_truth_is_refused_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untold = dataclasses.replace(TASK.dataset(), truth_known=False)
    noise = TASK.noisy_labels(seed=0)
    monkeypatch.setattr(Task, "dataset", lambda self: untold)
    monkeypatch.setattr(Task, "noisy_labels", lambda self, seed: noise)
    for method, message in ((CoTeaching(), "give it forget=SHARE"), (Masking(), "the structure of their noise")):
        with pytest.raises(ValueError, match=message):
            job.run(TASK, tmp_path, recipe(method))
    job.run(TASK, tmp_path, recipe(CoTeaching(forget=0.3), epochs=1))


def test_the_second_network_decays_and_what_is_not_a_network_does_not(tmp_path: Path) -> None:
    one = recipe(CoTeaching(), epochs=1, weight_decay=1e-3)
    job.run(TASK, tmp_path, one)
    state = store.load_state(store.folder_of(tmp_path, TASK, one))
    assert state is not None
    assert [group["weight_decay"] for group in state.parts["optimizer"]["param_groups"]] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("elr(beta=1.5)", r"ELR: expected beta to be a number in \[0, 1\], got 1.5"),
        ("d2l(k=2.5)", r"D2L: expected k to be a whole number in \[2, 127\], got 2.5"),
        ("bilevel(parts=True)", r"Bilevel: expected parts to be a whole number in \[2, 1024\], got True"),
        ("sop(rate_u=1e999)", r"SOP: expected rate_u to be a number in \[0, 1e\+06\], got inf"),
        ("2*elr", "expected fused losses in a sum, got ELR"),
    ],
)
def test_impossible_options_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_methods_state_their_claim_and_are_marked() -> None:
    for method in METHODS:
        assert "Claim, to be seen on the digits" in (method.__doc__ or "")
        assert label(method()).endswith("*")


def test_pairs_are_of_digits_of_their_own_part_and_none_is_there_twice() -> None:
    pairs, singles = load("digit-pairs"), load("digits")
    seen: set[bytes] = set()
    for part in ("train", "validation", "test"):
        inputs, labels = getattr(pairs, part).inputs, getattr(pairs, part).labels
        of = {row.numpy().tobytes(): int(y) for row, y in zip(*vars(getattr(singles, part)).values(), strict=True)}
        sides = inputs.view(-1, 8, 16)
        for pair, y in zip(sides, labels, strict=True):
            left, right = (of[pair[:, at : at + 8].flatten().numpy().tobytes()] for at in (0, 8))
            assert 10 * left + right == y
        whole = {row.numpy().tobytes() for row in inputs}
        assert len(whole) == len(inputs) and not whole & seen
        seen |= whole
        assert labels.bincount().tolist() == [len(inputs) // 100] * 100
    assert [len(pairs.train), len(pairs.validation), len(pairs.test)] == [6000, 1000, 2000]
    assert torch.equal(load("digit-pairs").train.inputs, pairs.train.inputs)
    with pytest.raises(ValueError, match="come with scikit-learn: expected no directory"):
        load("digit-pairs", Path("."))
