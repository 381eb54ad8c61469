"""The CUDA kernels' statistics of rows, in the emulator: the cases of the CPU's kernels, by every tier."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import statistics_cases
import torch
from emulated import DTYPES, FORCED, ORDERS, emulated, in_every_order, tier
from statistics_cases import ALL

import imae_ext
from imae_ext import RowStats
from imae_ext.distribution import Asked, statistics

pytestmark = pytest.mark.cuda
TIERS = ("tile", *FORCED)


def row_stats(logits, target, formula=None, machines=ORDERS, **asked) -> RowStats:
    """As imae_ext.row_stats; the same bits in every order of threads."""
    kernels, packed = emulated(), tuple((formula or imae_ext.CCE()).packed)
    return RowStats(**in_every_order(kernels, lambda: kernels.describe(logits, target, packed, *asked), machines))


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize(("C", "dtype"), [(2, torch.float32), (7, torch.float64), (100, torch.bfloat16)], ids=str)
def test_against_60_digits(C, dtype, name):
    with tier(name):
        statistics_cases.against_60_digits(row_stats, C, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", statistics_cases.WALKS, ids=str)
def test_every_walk_of_the_kernels(shape, dtype):
    for name in (None, *TIERS):
        with tier(name):
            statistics_cases.walk(row_stats, shape, dtype)


@pytest.mark.parametrize("name", TIERS)
def test_edges(name):
    with tier(name):
        statistics_cases.large_logits(row_stats)
        statistics_cases.limits(row_stats)
        statistics_cases.ignored_rows_and_shapes(row_stats, torch.allclose)
        statistics_cases.labels_out_of_range(row_stats)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_longer_than_shared_memory_and_in_any_place(dtype):
    """In chunks of a block, whose maxima rise and fall; from every offset, and with rows apart."""
    generator = torch.Generator().manual_seed(2)
    store = (3 * torch.randn(70_000, generator=generator)).to(dtype)
    small = [replace(machine, shared=20 << 10) for machine in ORDERS]
    for (C, offset), rising in itertools.product(((20_001, 0), (20_003, 5)), (True, False)):
        logits = store[offset:][: 3 * (C + 7)].view(3, C + 7)[:, :C] + torch.linspace(-40, 40, C).to(dtype)
        logits = logits if rising else logits.flip(1)
        target = torch.tensor([0, C // 2, C - 1])
        stats = row_stats(logits, target, machines=small, **ALL)
        exact = statistics(logits.double(), target, -100, Asked(**ALL))
        near = 1e-11 if dtype is torch.float64 else 2e-5
        for name, wanted in zip(ALL, exact, strict=True):
            torch.testing.assert_close(
                getattr(stats, name).double(), wanted.double(), rtol=near, atol=1e-30, msg=f"{name}, {C}"
            )


def test_no_rows_write_nothing():
    assert all(each.shape == (0, 3) for each in row_stats(torch.empty(0, 5, 3), torch.empty(0, 3).long(), **ALL))
