"""What the statistics of rows must be, whatever computes them: the kernels of a CPU, those of CUDA, or plain torch.

Each check takes `row_stats`, a function with the call shape of imae_ext.row_stats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from calls import FORMULA, varied_rows
from mpmath import mp, mpf
from torch import Tensor

from imae_ext import RowStats, reference
from imae_ext.distribution import Asked, statistics

ALL = {"log_p": True, "entropy": True, "sum_p2": True, "is_top": True}
Statistics = Callable[..., RowStats]
WALKS = ((9, 16), (9, 17), (5, 1500), (2, 5, 40), (2, 40, 3))


def exact(logits: Tensor, target: Tensor) -> tuple[list[float], list[float], list[float], list[bool]]:
    """Of 60 digits."""
    with mp.workdps(60):
        found = []
        for row, y in zip(logits.double().tolist(), target.tolist(), strict=True):
            z = [mpf(x) for x in row]
            lse = max(z) + mp.log(sum(mp.exp(x - max(z)) for x in z))
            p = [mp.exp(x - lse) for x in z]
            entropy = -sum(q * (x - lse) for q, x in zip(p, z, strict=True) if q > 0)
            found.append((float(z[y] - lse), float(entropy), float(sum(q * q for q in p)), row[y] >= max(row)))
    return tuple(map(list, zip(*found, strict=True)))


def assert_right(row_stats: Statistics, logits: Tensor, target: Tensor, tolerance: float) -> None:
    stats = row_stats(logits, target, FORMULA, **ALL)
    log_p, entropy, sum_p2, is_top = exact(logits, target)
    for got, wanted in ((stats.log_p, log_p), (stats.entropy, entropy), (stats.sum_p2, sum_p2)):
        wanted = torch.tensor(wanted, dtype=torch.float64)
        assert ((got.double() - wanted).abs() <= tolerance * wanted.abs() + 1e-38).all()
    assert stats.is_top.tolist() == is_top


def against_60_digits(row_stats: Statistics, C: int, dtype: torch.dtype) -> None:
    """Relative: at margins of 30 either way, where all but one class nearly vanish."""
    assert_right(row_stats, *varied_rows(C, dtype), tolerance=1e-12 if dtype is torch.float64 else 8e-6)


def large_logits(row_stats: Statistics) -> None:
    """They do not cancel; and far below 0 nothing is relative to the 0 that stands for the maximum of no class."""
    logits, target = varied_rows(7, torch.float32)
    for offset in (1e4, -1e4):
        shifted = (logits + offset).float()
        assert_right(row_stats, shifted, target, 8e-6)
        naive = torch.special.entr(shifted.softmax(1)).sum(1)
        assert torch.allclose(row_stats(shifted, target, entropy=True).entropy, naive, atol=1e-5)


def walk(row_stats: Statistics, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Of each layout: together or alone, what is found is what plain operations find."""
    generator = torch.Generator().manual_seed(len(shape))
    logits = (4 * torch.randn(shape, generator=generator)).to(dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[1] = -100
    wanted = dict(zip(ALL, statistics(logits.double(), target, -100, Asked(**ALL)), strict=True))
    known = reference.row_stats(logits.double(), target, FORMULA)
    tolerance = 1e-12 if dtype is torch.float64 else 4e-6
    together = row_stats(logits, target, FORMULA, **ALL)
    for name, number in {**wanted, "p": known[0], "example_weight": known[1]}.items():
        found = [together] + ([row_stats(logits, target, FORMULA, **{name: True})] if name in ALL else [])
        for got in (getattr(stats, name).double() for stats in found):
            assert torch.allclose(got, number.double().view(got.shape), rtol=tolerance, atol=tolerance), name


def limits(row_stats: Statistics) -> None:
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


def ignored_rows_and_shapes(row_stats: Statistics, same: Callable[[Tensor, Tensor], bool] = torch.equal) -> None:
    logits, target = torch.randn(2, 5, 3), torch.randint(5, (2, 3)).int()
    target[1, 1] = -100
    logits[1, :, 1] = math.nan
    stats = row_stats(logits, target, FORMULA, **ALL)
    assert all(each.shape == (2, 3) and each[1, 1] == 0 and each.isfinite().all() for each in stats)
    flat = row_stats(logits.movedim(1, -1).reshape(-1, 5), target.reshape(-1), FORMULA, **ALL)
    assert all(same(a.reshape(-1), b) for a, b in zip(stats, flat, strict=True))
    assert all(each.shape == () for each in row_stats(torch.randn(5), torch.tensor(1), FORMULA, **ALL))
    assert all(each.shape == (0,) for each in row_stats(torch.zeros(0, 5), torch.zeros(0).long(), FORMULA, **ALL))


def labels_out_of_range(row_stats: Statistics) -> None:
    """Where the host cannot see them: each touches its own row only, which is NaN and on top of nothing."""
    bad = torch.tensor([3, 4, 17, 39])
    for C in (5, 40, 700):
        logits, target = torch.randn(40, C), torch.randint(C, (40,))
        target[bad] = torch.tensor([C, -1, 2**40, -(2**62)])
        stats = row_stats(logits, target, FORMULA, **ALL)
        for got in stats[:5]:
            assert got.isnan().nonzero().flatten().tolist() == bad.tolist()
        assert not stats.is_top[bad].any()
