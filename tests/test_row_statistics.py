"""log p, entropy, sum of squares and whether the label is on top, against 60 digits."""

from __future__ import annotations

import math

import pytest
import torch
from calls import FORMULA, varied_rows
from mpmath import mp, mpf
from torch import Tensor

import imae_ext
from imae_ext import row_stats
from imae_ext.distribution import Asked, statistics

ALL = {"log_p": True, "entropy": True, "sum_p2": True, "is_top": True}


def exact(logits: Tensor, target: Tensor) -> tuple[list[float], list[float], list[float], list[bool]]:
    with mp.workdps(60):
        found = []
        for row, y in zip(logits.double().tolist(), target.tolist(), strict=True):
            z = [mpf(x) for x in row]
            lse = max(z) + mp.log(sum(mp.exp(x - max(z)) for x in z))
            p = [mp.exp(x - lse) for x in z]
            entropy = -sum(q * (x - lse) for q, x in zip(p, z, strict=True) if q > 0)
            found.append((float(z[y] - lse), float(entropy), float(sum(q * q for q in p)), row[y] >= max(row)))
    return tuple(map(list, zip(*found, strict=True)))


def assert_right(logits: Tensor, target: Tensor, tolerance: float) -> None:
    stats = row_stats(logits, target, FORMULA, **ALL)
    log_p, entropy, sum_p2, is_top = exact(logits, target)
    for got, wanted in ((stats.log_p, log_p), (stats.entropy, entropy), (stats.sum_p2, sum_p2)):
        wanted = torch.tensor(wanted, dtype=torch.float64)
        assert ((got.double() - wanted).abs() <= tolerance * wanted.abs() + 1e-38).all()
    assert stats.is_top.tolist() == is_top


@pytest.mark.parametrize("C", (2, 3, 7, 100))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_against_60_digits(C, dtype):
    """Relative: at margins of 30 either way, where all but one class nearly vanish."""
    assert_right(*varied_rows(C, dtype), tolerance=1e-12 if dtype is torch.float64 else 8e-6)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("shape", ((9, 16), (9, 17), (5, 1500), (2, 5, 40), (2, 40, 3)), ids=str)
def test_every_walk_of_the_kernels(shape, dtype):
    """Vectors along the classes, in parts, and across rows: what each finds is what plain operations find."""
    generator = torch.Generator().manual_seed(len(shape))
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[1] = -100
    exact = statistics(logits.double(), target, -100, Asked(**ALL))
    tolerance = 1e-12 if dtype is torch.float64 else 4e-6
    for name, wanted in zip(ALL, exact, strict=True):
        alone = getattr(row_stats(logits, target, **{name: True}), name)
        for got in (alone, getattr(row_stats(logits, target, FORMULA, **ALL), name)):
            assert torch.allclose(got.double(), wanted.double(), rtol=tolerance, atol=tolerance)


def test_large_logits_do_not_cancel():
    logits, target = varied_rows(7, torch.float32)
    shifted = (logits + 1e4).float()
    assert_right(shifted, target, 8e-6)
    naive = torch.special.entr(shifted.softmax(1)).sum(1)
    assert torch.allclose(row_stats(shifted, target, entropy=True).entropy, naive, atol=1e-5)


def test_only_what_is_asked_for():
    logits, target = varied_rows(5)
    assert row_stats(logits, target)[1:] == (None,) * 5
    for name in ALL:
        stats = row_stats(logits, target, FORMULA, **{name: True})
        assert {each for each in stats._fields if getattr(stats, each) is not None} == {"p", "example_weight", name}
    plain = row_stats(logits, target, FORMULA)
    assert torch.equal(row_stats(logits, target).p, plain.p)
    weights = row_stats(logits, target, FORMULA, **ALL).example_weight
    torch.testing.assert_close(weights, plain.example_weight, rtol=1e-13, atol=0)  # relative to another logit


def test_the_limits():
    inf = math.inf
    logits = torch.tensor(
        [[0.0, -inf, -inf], [-inf, 0.0, 0.0], [0.0, 1.0, -inf], [math.nan, 0.0, 0.0], [2.0, 2.0, 0.0]]
    )
    stats = row_stats(logits, torch.zeros(5, dtype=torch.long), **ALL)
    assert stats.log_p[:2].tolist() == [0.0, -inf] and stats.log_p[3].isnan()
    assert torch.allclose(stats.entropy[:3], torch.tensor([0.0, math.log(2), 0.582203])) and stats.entropy[3].isnan()
    assert torch.allclose(stats.sum_p2[:3], torch.tensor([1.0, 0.5, 0.606776])) and stats.sum_p2[3].isnan()
    assert stats.is_top.tolist() == [True, False, False, False, True]
    masked = torch.full((2, 40), -inf)  # long enough for vectors along the classes
    masked[:, 3], masked[1, 4] = -5.0, -5.0
    stats = row_stats(masked, torch.tensor([3, 3]), **ALL)
    assert stats.is_top.all() and torch.allclose(stats.entropy, torch.tensor([0.0, math.log(2)]))
    assert torch.allclose(stats.sum_p2, torch.tensor([1.0, 0.5]))
    alone = row_stats(torch.zeros(2, 1), torch.tensor([0, -100]), **ALL)
    assert (alone.entropy == 0).all() and alone.sum_p2.tolist() == [1, 0] and alone.is_top.tolist() == [True, False]


def test_ignored_rows_and_shapes():
    logits, target = torch.randn(2, 5, 3), torch.randint(5, (2, 3)).int()
    target[1, 1] = -100
    logits[1, :, 1] = math.nan
    stats = row_stats(logits, target, FORMULA, **ALL)
    assert all(each.shape == (2, 3) and each[1, 1] == 0 and each.isfinite().all() for each in stats)
    flat = row_stats(logits.movedim(1, -1).reshape(-1, 5), target.reshape(-1), FORMULA, **ALL)
    assert all(torch.equal(a.reshape(-1), b) for a, b in zip(stats, flat, strict=True))
    assert all(each.shape == () for each in row_stats(torch.randn(5), torch.tensor(1), FORMULA, **ALL))
    assert all(each.shape == (0,) for each in row_stats(torch.zeros(0, 5), torch.zeros(0).long(), FORMULA, **ALL))


def test_log_p_and_entropy_are_differentiable():
    logits, target = varied_rows(5)
    logits, target = logits[5:-5].requires_grad_(), target[5:-5]
    target[3] = -100
    kinds = {"log_p": True, "entropy": True}
    assert torch.autograd.gradcheck(lambda z: row_stats(z, target, **kinds)[2:4], logits)
    (grad,) = torch.autograd.grad(row_stats(logits, target, entropy=True).entropy.sum(), logits)
    p = logits.softmax(1)
    by_hand = -p * (p.log() + torch.special.entr(p).sum(1, keepdim=True))
    assert torch.allclose(grad, by_hand * (target != -100).unsqueeze(1), atol=1e-10)
    masked = torch.tensor([[0.0, 1.0, -math.inf], [0.0, -math.inf, -math.inf]], requires_grad=True)
    stats = row_stats(masked, torch.tensor([0, 0]), **kinds)
    (grad,) = torch.autograd.grad((stats.entropy + stats.log_p).sum(), masked)
    assert grad.isfinite().all() and grad[0, 0] != 0


def test_derivatives_in_graphs_and_of_second_order():
    """In torch.compile, in a program that was traced when nobody wanted a derivative, and of a derivative."""
    logits, target = varied_rows(5)
    logits, target = logits[8:-8], target[8:-8]

    class Both(torch.nn.Module):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            stats = row_stats(z, y, log_p=True, entropy=True, is_top=True)
            return stats.entropy * stats.p - 0.5 * stats.log_p

    def derivatives(function) -> list[Tensor]:
        z = logits.clone().requires_grad_()
        value = function(z, target)
        (grad,) = torch.autograd.grad(value.sum(), z)
        return [value.detach(), grad]

    eager = derivatives(Both())
    with torch.no_grad():
        program = torch.export.export(Both(), (logits, target)).module()
    assert any("describe_rows" in str(node.target) for node in program.graph.nodes)
    for function in (program, torch.compile(Both(), backend="aot_eager", fullgraph=True)):
        for got, wanted in zip(derivatives(function), eager, strict=True):
            assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-14)
    few = logits[20:23].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: row_stats(z, target[20:23], entropy=True).entropy, few)


def test_what_is_refused():
    logits, target = varied_rows(5)
    target[2] = 5
    with pytest.raises(IndexError, match=r"imae_ext: .*got 5"):
        row_stats(logits, target, **ALL)
    with pytest.raises(ValueError, match=r"imae_ext: .* got NCE"):
        row_stats(logits, target.clamp(max=4), imae_ext.NCE(), entropy=True)


def test_without_the_extension(monkeypatch):
    logits, target = varied_rows(5)
    wanted = row_stats(logits, target, FORMULA, **ALL)
    monkeypatch.setattr("imae_ext.devices.has_kernels", lambda _: False)
    for a, b in zip(row_stats(logits, target, FORMULA, **ALL), wanted, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-9)
    assert imae_ext.RowStats(*wanted) == wanted
