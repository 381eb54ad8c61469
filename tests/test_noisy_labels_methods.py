"""The methods in plain PyTorch: the mathematics of each beside a small computation of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from method_calls import CLASSES, FEATURES, LABELS, ROWS, Array, Bare, batch, epoch, logits, network, setting, softmax
from torch import nn

from benchmarks.noisy_labels.methods import D2L, ELR, SOP, Bilevel, CoTeaching, JointOptimization
from benchmarks.noisy_labels.methods.d2l import mean_lid, turns

pytestmark = pytest.mark.usefixtures("one_thread")

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
