"""The methods in plain PyTorch: the mathematics of each beside a small computation of its own; and methods in runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from benchmarks.noisy_labels import job, store
from benchmarks.noisy_labels.data import load
from benchmarks.noisy_labels.losses import label, parse
from benchmarks.noisy_labels.measures import Measures
from benchmarks.noisy_labels.methods import (
    D2L,
    ELR,
    METHODS,
    SOP,
    Batch,
    Bilevel,
    CoTeaching,
    Epoch,
    JointOptimization,
    Masking,
    Method,
    Setting,
)
from benchmarks.noisy_labels.methods.d2l import mean_lid, turns
from benchmarks.noisy_labels.noise import NoisyLabels
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import Prepared, Recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")

Array = npt.NDArray[np.float64]
LABELS = torch.tensor([2, 0, 1, 1, 2, 0, 1, 2])  # of eight examples
ROWS = torch.tensor([3, 0, 6])  # of a batch of three
CLASSES, FEATURES = 3, 5
TASK = Task(limit=200)
DIGITS = TASK.dataset()
TELLING = ("ELR", "JointOptimization", "SOP", "D2L", "Bilevel")  # those that are told nothing of the truth


def setting(**changes: Any) -> Setting:
    base = Setting(CLASSES, LABELS, epochs=20, seed=0, build=network)
    return dataclasses.replace(base, **changes)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, CLASSES))


class Bare(Prepared):
    """A network that takes its inputs as they are."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network, self.amp = network, False

    def prepare(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return batch


def epoch(number: int, network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Epoch:
    return Epoch(number, Bare(network), DIGITS, optimizer or torch.optim.SGD(network.parameters()))


def batch(inputs: Tensor, rows: Tensor = ROWS) -> Batch:
    return Batch(rows, inputs, LABELS[rows], Bare(nn.Identity()))


def softmax(logits: Tensor) -> Array:
    z = logits.detach().double().numpy()
    e: Array = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def logits(seed: int = 0, count: int = 3) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(count, CLASSES, generator=drawn).requires_grad_()


# Early-learning regularization


def test_elr_averages_predictions_and_pulls_towards_them() -> None:
    procedure = ELR(lambd=2.0, beta=0.6).start(setting())
    first, z = logits(1), logits(2)
    procedure.on_batch(first, batch(first))
    loss = procedure.on_batch(z, batch(z))
    loss.backward()
    p, y = softmax(z), np.eye(CLASSES)[LABELS[ROWS]]
    t = 0.6 * 0.4 * softmax(first) + 0.4 * p
    inner = (p * t).sum(axis=1)
    assert float(loss.detach()) == pytest.approx(
        np.mean(-np.log((p * y).sum(axis=1)) + 2 * np.log(1 - inner)), rel=1e-5
    )
    # The paper's gradient is p - y + lambd g, g_c = p_c / (1 - <p, t>) sum_k (t_k - t_c) p_k.
    g = p / (1 - inner[:, None]) * (inner[:, None] - t)
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), (p - y + 2 * g) / 3, atol=1e-6)
    targets = procedure.state_dict()["targets"].numpy()
    np.testing.assert_allclose(targets[ROWS], t, atol=1e-6)
    assert (targets[[1, 2, 4, 5, 7]] == 0).all()


# Joint optimisation


def test_joint_optimization_has_the_three_terms_of_the_paper() -> None:
    procedure = JointOptimization(alpha=1.5, beta=0.7).start(setting())
    z = logits()
    loss = procedure.on_batch(z, batch(z))
    s, y = softmax(z), np.eye(CLASSES)[LABELS[ROWS]]
    prior = -np.log(s.mean(axis=0)).sum() / CLASSES
    expected = -(y * np.log(s)).sum() / 3 + 1.5 * prior - 0.7 * (s * np.log(s)).sum() / 3
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_joint_optimization_relabels_by_ten_epochs_and_then_begins_anew() -> None:
    """Of 20 epochs the first 14 are the first step; labels follow predictions after 12 of them."""
    procedure = JointOptimization(begin=0.857, retrain=0.3).start(setting())
    model = Bare(network(5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    given = torch.nn.functional.one_hot(LABELS, CLASSES).float()
    seen = []
    for number in range(1, 16):
        procedure.before_epoch(epoch(number, model.network, optimizer))
        targets = procedure.state_dict()["targets"]
        if number <= 12:
            assert torch.equal(targets, given)
        else:
            np.testing.assert_allclose(targets, np.mean(seen[-10:], axis=0), atol=1e-6)
        if number < 15:
            z = logits(number, 8)
            loss = procedure.on_batch(z, batch(z, torch.arange(8)))
            seen.append(softmax(z))
            optimizer.zero_grad()
            model(torch.ones(1, FEATURES)).sum().backward()
            optimizer.step()
            assert optimizer.state
    assert torch.equal(model.network[0].weight, network(0)[0].weight) and not optimizer.state  # type: ignore[index]
    loss = procedure.on_batch(z, batch(z, torch.arange(8)))
    assert float(loss.detach()) == pytest.approx(
        -(np.mean(seen[-10:], axis=0) * np.log(softmax(z))).sum() / 8, rel=1e-5
    )


# Co-teaching


def test_coteaching_learns_from_what_the_other_network_finds_easy() -> None:
    procedure = CoTeaching(forget=0.4, gradual=4).start(setting())
    inputs = torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(3))
    ours = network(7)
    procedure.before_epoch(epoch(3, ours))
    procedure.on_batch(ours(inputs), batch(inputs, torch.arange(8))).backward()
    (group,) = procedure.groups()
    theirs = nn.Linear(FEATURES, CLASSES)
    theirs.load_state_dict(dict(zip(("weight", "bias"), group["params"], strict=True)))
    kept = int((1 - 0.4 * 2 / 4) * 8)  # in the third epoch two steps of four are done
    assert kept == 6
    losses = [-np.log(softmax(net(inputs))[np.arange(8), LABELS]) for net in (ours, theirs)]
    x, y = inputs.double().numpy(), np.eye(CLASSES)[LABELS]
    for net, judge, weight in ((ours, losses[1], next(ours.parameters())), (theirs, losses[0], group["params"][0])):
        chosen = np.argsort(judge)[:kept]
        expected = (softmax(net(inputs)) - y)[chosen].T @ x[chosen] / kept
        np.testing.assert_allclose(weight.grad.numpy(), expected, atol=1e-6)
    assert set(np.argsort(losses[0])[:kept]) != set(np.argsort(losses[1])[:kept])  # else the test could not tell


def test_coteaching_takes_the_known_noise_rate_or_a_guess() -> None:
    procedure = CoTeaching().start(setting(noise_rate=0.25))
    procedure.before_epoch(epoch(99, network(0)))
    assert procedure.kept == 0.75  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the noise rate is not known here: give it forget=SHARE, got forget=0"):
        CoTeaching().start(setting())


# Sparse over-parameterization


def test_sop_trains_u_by_the_first_term_and_v_by_the_second() -> None:
    procedure: Any = SOP(rate_u=0.5, rate_v=0.25).start(setting())
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        procedure.u.copy_(0.5 * torch.rand(8, 1, generator=generator))
        procedure.v.copy_(0.2 * torch.rand(8, CLASSES, generator=generator))
    u, v = (part.detach().double().numpy().copy() for part in (procedure.u, procedure.v))
    z = logits(6)
    p, y, rows = softmax(z), np.eye(CLASSES)[LABELS[ROWS]], ROWS.numpy()
    decided = np.eye(CLASSES)[p.argmax(axis=1)]

    def first(u: Array) -> float:
        q = np.maximum(p + u[rows] ** 2 * y - v[rows] ** 2 * (1 - y), 1e-4)
        return float(np.mean(-np.log((q / q.sum(axis=1, keepdims=True) * y).sum(axis=1))))

    def second(v: Array) -> float:
        return float(np.mean(((decided + u[rows] ** 2 * y - v[rows] ** 2 * (1 - y) - y) ** 2).sum(axis=1)))

    def slope(function: Any, at: Array) -> Array:
        found = np.zeros_like(at)
        for place in np.ndindex(at.shape):
            step = np.zeros_like(at)
            step[place] = 1e-6
            found[place] = (function(at + step) - function(at - step)) / 2e-6
        return found

    loss = procedure.on_batch(z, batch(z))
    assert float(loss.detach()) == pytest.approx(first(u) + second(v), rel=1e-5)
    procedure.on_gradient(loss, [])
    np.testing.assert_allclose(procedure.u.detach(), u - 0.5 * slope(first, u), atol=1e-5)
    np.testing.assert_allclose(procedure.v.detach(), v - 0.25 * slope(second, v), atol=1e-5)
    assert z.grad is not None and (z.grad != 0).any()


# Dimensionality-driven learning


def test_lid_is_that_of_the_paper_and_the_dimension_of_uniform_points() -> None:
    points = np.random.default_rng(0).normal(size=(30, 4))
    expected = []
    for i in range(30):
        r = np.sort([math.dist(points[i], points[j]) for j in range(30) if j != i])[:6]
        expected.append(-1 / np.mean(np.log(r / r[-1])))
    assert mean_lid([torch.tensor(points)], k=6) == pytest.approx(np.mean(expected), rel=1e-9)
    for dimension in (1, 3):
        flat = np.zeros((1500, 8))
        flat[:, :dimension] = np.random.default_rng(1).uniform(size=(1500, dimension))
        assert mean_lid([torch.tensor(flat)], k=20) == pytest.approx(dimension, rel=0.15)
    assert math.isnan(mean_lid([torch.zeros(10, 3)], k=4))


@pytest.mark.parametrize(
    ("lids", "found"),
    [
        ([5.0, 4.0, 3.9, 4.1, 4.0, 4.18], True),  # 0.18 above a mean whose spread is 0.08
        ([5.0, 4.0, 3.9, 4.1, 4.0, 4.1], False),  # 0.1
        ([4.0, 3.9, 4.1, 9.0], False),  # too early: two epochs are for warming up
        ([5.0, 9.0, 3.9, 4.1, 4.0, 3.8], False),
    ],
)
def test_d2l_turns_where_the_dimension_leaves_its_window(lids: list[float], found: bool) -> None:
    assert turns(torch.tensor(lids, dtype=torch.float64), window=3, warm=2) is found


def test_d2l_goes_back_an_epoch_and_trusts_predictions_more(monkeypatch: pytest.MonkeyPatch) -> None:
    coming = iter([5.0, 4.0, 4.1, 4.0, 6.0, 6.0])
    monkeypatch.setattr("benchmarks.noisy_labels.methods.d2l.features", lambda *given: [])
    monkeypatch.setattr("benchmarks.noisy_labels.methods.d2l.mean_lid", lambda *given: next(coming))
    procedure: Any = D2L(window=3, warm=1).start(setting())
    model = Bare(network(0))
    for number in range(1, 7):
        with torch.no_grad():
            model.network[0].weight.fill_(number - 1.0)  # type: ignore[index]
        procedure.before_epoch(epoch(number, model.network))
        went_back = number == 5
        assert model.network[0].weight[0, 0] == (3.0 if went_back else number - 1)  # type: ignore[index]
        assert procedure.share == pytest.approx(1.0 if number < 5 else math.exp(-(number - 1) / 20 * 6 / 4))
    z = logits()
    p, a = softmax(z), procedure.share
    y = a * np.eye(CLASSES)[LABELS[ROWS]] + (1 - a) * np.eye(CLASSES)[p.argmax(axis=1)]
    assert float(procedure.on_batch(z, batch(z)).detach()) == pytest.approx(-(y * np.log(p)).sum() / 3, rel=1e-5)


# Deep bilevel learning


def test_bilevel_weighs_parts_by_how_they_agree_with_the_first() -> None:
    procedure = Bilevel(parts=3, mu=0.02).start(setting())
    model = network(2)
    inputs = torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(5))
    loss = procedure.on_batch(model(inputs), batch(inputs, torch.arange(8)))
    procedure.on_gradient(loss, list(model.parameters()))
    order = np.argsort(LABELS.numpy(), kind="stable")
    x, y, p = inputs.double().numpy(), np.eye(CLASSES)[LABELS], softmax(model(inputs))
    gradients = []
    for i in range(3):
        rows = order[i::3]
        error = (p - y)[rows] / len(rows)
        gradients.append(np.concatenate([(error.T @ x[rows]).ravel(), error.sum(axis=0)]))
    w = np.array([gradients[0] @ g / (g @ g + 0.02) for g in gradients[1:]])
    expected = sum(weight * g for weight, g in zip(w / np.abs(w).sum(), gradients[1:], strict=True))
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sorted(LABELS[order[0::3]].tolist()) == [0, 1, 2]  # each part has each label


def test_bilevel_takes_a_batch_too_small_to_part() -> None:
    procedure = Bilevel().start(setting())
    model = network(2)
    inputs = torch.ones(1, FEATURES)
    procedure.on_gradient(procedure.on_batch(model(inputs), batch(inputs, ROWS[:1])), list(model.parameters()))
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


# Masking


TRANSITION = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])


def masking(pretrain: int, estimate: Tensor = TRANSITION) -> Any:
    return Masking(pretrain=pretrain).start(setting(transition=TRANSITION, estimate=lambda: estimate))


def test_masking_begins_with_the_estimate_and_knows_the_structure() -> None:
    procedure = masking(900)
    assert procedure.structure.tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    with torch.no_grad():
        drawn = procedure.matrices(64)
    torch.testing.assert_close(drawn.sum(dim=2), torch.ones(64, 3))
    torch.testing.assert_close(drawn.mean(dim=0), TRANSITION, atol=0.06, rtol=0.0)


def test_masking_corrects_each_example_by_a_matrix_of_its_own() -> None:
    procedure = masking(0)
    with torch.no_grad():
        matrices = procedure.matrices(3)
    z = logits()
    p = softmax(z)
    each = [-np.log(p[i] @ matrices[i].double().numpy()[:, int(LABELS[ROWS][i])]) for i in range(3)]
    loss = procedure._correct(z.softmax(dim=1), matrices, LABELS[ROWS])
    assert float(loss.detach()) == pytest.approx(np.mean(each), rel=1e-5)


def test_masking_takes_mistakes_away_that_the_structure_rules_out() -> None:
    """The generator begins with 0.1 where no mistake is possible; the labels, and the game, take it away."""
    spread = torch.tensor([[0.55, 0.35, 0.1], [0.1, 0.6, 0.3], [0.2, 0.1, 0.7]])
    procedure = masking(500, spread)
    generator = torch.Generator().manual_seed(0)
    ruled_out = TRANSITION == 0
    before = float(procedure.matrices(64).detach()[:, ruled_out].mean())
    for _ in range(60):
        truth = torch.randint(3, (64,), generator=generator)
        labels = torch.multinomial(TRANSITION[truth], 1, generator=generator).squeeze(1)
        procedure._play(torch.nn.functional.one_hot(truth, 3).float(), labels)
    after = float(procedure.matrices(64).detach()[:, ruled_out].mean())
    assert before > 0.07 and after < before / 2
    assert all(((w >= -0.01) & (w <= 0.005)).all() for w in procedure.discriminator.parameters())


def test_masking_generates_what_the_discriminator_takes_for_the_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    procedure = masking(100)
    monkeypatch.setattr("benchmarks.noisy_labels.methods.masking.JUDGED", 0)
    monkeypatch.setattr(procedure, "_correct", lambda p, matrices, labels: 0 * matrices.sum())
    judged = []
    for _ in range(40):
        judged.append(float(procedure._judge(procedure.matrices(256)).detach().mean()))
        procedure._play(torch.full((64, 3), 1 / 3), torch.zeros(64, dtype=torch.int64))
    assert judged[-1] > judged[0] + 0.005


# In runs


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


# Pairs of digits


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
