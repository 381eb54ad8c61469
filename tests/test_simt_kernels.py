"""The CUDA kernels, executed by the emulator, against the oracle: every tier, dtype, alignment and reduction.

Each case runs in three thread orders (natural, reversed, drawn) with blocks interleaved in the last; each order must
give the same bits, for the sums' order is part of what the package promises.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from cases import FORMULAS, PARAMETER_SWEEP, Case, table
from emulated import DTYPES, FORCED, MEAN, NONE, ORDERS, REDUCTIONS, Machine, check, emulated, tier
from expected import assert_within, expected

from benchmarks import gpu_shapes

pytestmark = pytest.mark.cuda

# Around lanes, warps, blocks and packs, and the class counts of data sets; above 1025 few rows.
COUNTS = (1, 2, 3, 7, 10, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 257, 1000, 1001, 1023, 1024, 1025, 4097, 32000)


@pytest.fixture(scope="module")
def kernels():
    return emulated()


def by_alignment():
    """Every class count at every dtype, the storage offset running through 0 to 7."""
    for k, (C, dtype) in enumerate(itertools.product(COUNTS, DTYPES)):
        most = 2 if C >= 4097 else 8
        for j in range(most):
            offset = (k + j) % 8
            count = 2 if C >= 4097 else 9 if C > 300 else 37 if j % 2 else 133
            yield Case(
                FORMULAS[(k + 5 * j) % len(FORMULAS)],
                C,
                dtype,
                layout=f"offset{offset}" if offset else "contiguous",
                reduction=("mean", "none", "sum", "normalized")[(k // 4 + j) % 4],
                ignored=(k + j) % 3 == 0,
                weighted=(k + j) % 5 == 0,
                rows=count,
            )


def valid(case: Case) -> Case:
    if case.reduction == "normalized" and not case.formula.margin:
        return replace(case, reduction="none")
    return case


ALIGNMENT = [valid(c) for c in by_alignment() if c.C > 1 or c.formula.margin]
COMMON = table()[::3]
ALL = list(dict.fromkeys([*ALIGNMENT, *COMMON]))


@pytest.mark.parametrize("case", ALL, ids=str)
def test_oracle(kernels, case):
    check(kernels, case)


@pytest.mark.parametrize("case", ALIGNMENT[::7], ids=str)
def test_each_tier_is_right_at_any_class_count(kernels, case):
    check(kernels, replace(case, rows=min(case.rows, 19)), tiers=FORCED)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("KB", [12, 20, 68])
@pytest.mark.parametrize("cluster", [0, 2, 8])
def test_rows_longer_than_shared_memory(kernels, dtype, KB, cluster):
    """Held by clusters of 2, 4 and 8 blocks; else read in chunks by such a cluster or, where there is none, a block."""
    orders = [replace(machine, shared=KB << 10, cluster=cluster) for machine in ORDERS]
    for case in (
        Case(FORMULAS[4], 32000, dtype, reduction="normalized", rows=5),
        Case(FORMULAS[14], 32000, dtype, "offset3", reduction="mean", ignored=True, rows=5),
        Case(FORMULAS[18], 32001, dtype, "padded", reduction="sum", weighted=True, rows=5),
    ):
        check(kernels, case, orders)


@pytest.mark.parametrize("blocks", [2, 4, 8])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_labels_in_the_part_of_every_block(kernels, blocks, reduction):
    """Among the packs of each block, in each of its slots, and at both unaligned ends; eight rows for a cluster."""
    kernels.machine = Machine(shared=20 << 10)  # 2 slots a thread, for each of two blocks
    C = blocks * 2048 - 7
    case = Case(FORMULAS[4], C, layout="offset3", reduction=reduction, rows=24)
    target = torch.linspace(0, C - 1, 24).int()
    assert kernels.cluster(case.inputs()[0], target) == blocks
    assert {(y - 1) // 1024 for y in target.tolist()[1:-1]} == set(range(2 * blocks))
    with tier("cluster"):
        check(kernels, case, [replace(machine, shared=20 << 10) for machine in ORDERS], target)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8])
def test_clusters_of_a_wished_number_of_blocks(kernels, monkeypatch, blocks):
    monkeypatch.setenv("IMAE_EXT_CLUSTER", str(blocks))
    for C in (5001, 12001):  # one block holds 8192, alone; 12001 it takes in chunks
        case = Case(FORMULAS[14], C, layout="offset3", reduction="mean", ignored=True, rows=7)
        logits, target, _ = case.inputs()
        kernels.machine = Machine(shared=36 << 10)
        assert kernels.cluster(logits, target) == blocks
        assert kernels.tier(logits, target, torch.empty_like(logits)) == ("cluster" if blocks > 1 else "row256")
        check(kernels, case, [replace(machine, shared=36 << 10) for machine in ORDERS])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", (None, *FORCED))
def test_a_gradient_over_the_logits(kernels, dtype, name):
    """The same bits as elsewhere: in every tier, in chunks and clusters, at unaligned ends, strided and tiled."""
    cases = [
        Case(FORMULAS[4], 10, dtype, "offset1", reduction="none", ignored=True),
        Case(FORMULAS[18], 1001, dtype, "offset3", reduction="none", weighted=True, rows=5),
        Case(FORMULAS[14], 33, dtype, "transposed", reduction="none", ignored=True),
        Case(FORMULAS[4], 12001, dtype, "offset3", reduction="none", ignored=True, rows=4),
    ]
    with tier(name):
        for case, machine in itertools.product(
            cases, (*ORDERS, Machine(shared=12 << 10, cluster=0), Machine(shared=20 << 10))
        ):
            kernels.machine = machine
            logits, target, weight = case.inputs()
            packed = tuple(case.formula.build().packed)
            options = {"class_weight": weight, "reduction": NONE, "grad": True}
            elsewhere = kernels.forward(logits, target, packed, **options)
            over = kernels.forward(case.inputs()[0], target, packed, over=True, **options)
            for key, value in elsewhere.items():
                assert torch.equal(over[key], value), (key, case, machine)


@pytest.mark.parametrize("formula", PARAMETER_SWEEP, ids=str)
def test_parameters(kernels, formula):
    for dtype, values in itertools.product((torch.float32, torch.float64), ("unit", "scale30")):
        check(kernels, Case(formula, 10, dtype, values=values, reduction="none"))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_mean_over_more_rows_than_are_counted_at_once(kernels, dtype):
    kernels.machine = ORDERS[0]
    N = 256 * 2048 + 777
    target = torch.randint(2, (N,), dtype=dtype)
    target[::3] = -100
    made = kernels.forward(torch.zeros(N, 2), target, tuple(FORMULAS[0].build().packed), reduction=MEAN, grad=True)
    kept = target != -100
    assert (made["grad"][~kept] == 0).all()
    torch.testing.assert_close(made["grad"][kept].abs(), torch.full((int(kept.sum()), 2), 0.5 / kept.sum()))


@pytest.mark.parametrize("case", [c for c in ALIGNMENT if c.formula.margin][::11], ids=str)
def test_row_statistics(kernels, case):
    kernels.machine = ORDERS[1]
    logits, target, _ = case.inputs()
    made = kernels.forward(logits, target, tuple(case.formula.build().packed), stats=True)
    stats = expected(case.formula, logits, target, reduction="none").table
    kept = target.reshape(-1) != -100
    for name, wanted in (("p", stats.p_y), ("example_weight", stats.weight)):
        got = made[name].reshape(-1)
        assert (got[~kept] == 0).all()
        relative = 1e-12 if case.dtype == torch.float64 else 2e-5
        assert_within(got[kept], wanted, relative * abs(wanted) + 1e-37, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", range(8))
def test_scale(kernels, dtype, offset):
    kernels.machine = ORDERS[2]
    for count, by in itertools.product((0, 1, 5, 4100, 9001), (1.0, 0.0, -2.5)):
        store = torch.randn(count + offset + 8).to(dtype)
        wanted = store.clone()
        wanted[offset : offset + count] *= by
        factor = torch.tensor(by, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        kernels.scale_(store[offset : offset + count], factor, torch.zeros((), dtype=torch.long))
        assert torch.equal(store, wanted)


def test_every_tier_was_chosen(kernels):
    chosen = set()
    for case in ALL:
        logits, target, _ = case.inputs()
        chosen.add(kernels.tier(logits, target.contiguous(), torch.empty_like(logits)))
    assert chosen == {"tile", *FORCED, None}


@pytest.mark.parametrize("call", gpu_shapes.CALLS, ids=str)
def test_calls_for_a_gpu_take_the_tier_that_they_name(kernels, call):
    """On an H100; and its rows that several blocks are to hold, or one in chunks, are too long for one."""
    kernels.machine = Machine(shared=227 << 10)
    logits, target, _ = call.inputs()
    with tier(call.tier):
        assert kernels.tier(logits, target, torch.empty_like(logits)) == call.tier
    assert (kernels.cluster(logits, target) > 1) == (call.shape[1] > 60000)


@pytest.mark.parametrize("shared", [163 << 10, 227 << 10])
def test_rows_that_a_gpu_s_tests_expect_in_clusters(kernels, shared):
    kernels.machine = Machine(shared=shared)
    for dtype in (torch.float32, torch.bfloat16):
        for C in (20000, 27648, 27649, 32000, 55296, 55297, 65537, 151936, 256000):
            logits = torch.empty(1, C, dtype=dtype)
            chosen = kernels.tier(logits, torch.zeros(1, dtype=torch.long), torch.empty_like(logits))
            wanted = "cluster" if gpu_shapes.wants_cluster(C * dtype.itemsize, shared) else "row256"
            assert chosen == wanted, (dtype, C)
