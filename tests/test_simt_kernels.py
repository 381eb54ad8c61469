"""The CUDA kernels, executed by the emulator, against the oracle: every tier, dtype, alignment and reduction.

Each case runs in three thread orders (natural, reversed, drawn) with blocks interleaved in the last; each order must
give the same bits, for the sums' order is part of what the package promises.
"""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import FORMULAS, PARAMETER_SWEEP, Case, table
from expected import assert_within, expected, rows

from benchmarks import gpu_shapes

sys.path.append(str(Path(__file__).parent / "simt"))
import emulator
from kernels import MEAN, NONE, NORMALIZED, SUM, Kernels, Machine, compile_kernels

pytestmark = pytest.mark.cuda

REDUCTIONS = {"none": NONE, "mean": MEAN, "sum": SUM, "normalized": NORMALIZED}
ORDERS = (Machine(), Machine(seed=1), Machine(seed=7, resident=3, most_blocks=3))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Around lanes, warps, blocks and packs, and the class counts of data sets; above 1025 few rows.
COUNTS = (1, 2, 3, 7, 10, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 257, 1000, 1001, 1023, 1024, 1025, 4097, 32000)
FORCED = ("row2", "row8", "row32", "row128", "row256", "strided", "cluster")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return Kernels(compile_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))


@contextmanager
def tier(name: str | None):
    if name is not None:
        os.environ["IMAE_EXT_TIER"] = name
    try:
        yield
    finally:
        os.environ.pop("IMAE_EXT_TIER", None)


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
assert len(ALL) >= 1000


def run(kernels: Kernels, case: Case, target: torch.Tensor | None = None):
    """Loss, gradient and the wanted: in one pass where the operators do that, else by saved coefficients."""
    logits, labels, weight = case.inputs()
    target = labels if target is None else target
    before = logits.clone()
    reduction = REDUCTIONS[case.reduction]
    packed = tuple(case.formula.build().packed)
    options = {"class_weight": weight, "reduction": reduction}
    if reduction in (MEAN, SUM) and case.dtype != torch.float16:
        made = kernels.forward(logits, target, packed, grad=True, **options)
        upstream = 1.0
    else:
        made = kernels.forward(logits, target, packed, save=True, **options)
        loss = made["loss"]
        upstream = torch.full_like(loss, 0.75)
        if loss.ndim:
            upstream = torch.linspace(-1.5, 2.5, loss.numel(), dtype=loss.dtype).view_as(loss)
        made["grad"] = kernels.backward(logits, target, made, upstream)
        upstream = upstream.double().numpy().reshape(-1) if upstream.ndim else upstream.item()
    assert torch.equal(before.nan_to_num(nan=12345.0), logits.nan_to_num(nan=12345.0)), "the logits were written to"
    wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction, grad_output=upstream)
    return made, wanted


def check(kernels: Kernels, case: Case, machines=ORDERS, target: torch.Tensor | None = None) -> None:
    results = []
    for machine in machines:
        kernels.machine = machine
        made, wanted = run(kernels, case, target)
        loss = made["loss"].reshape(-1) if case.reduction == "none" else made["loss"]
        assert_within(loss, wanted.loss, wanted.loss_allowed, f"loss, {machine}")
        assert_within(rows(made["grad"]), wanted.grad, wanted.grad_allowed, f"gradient, {machine}")
        results.append(made)
    for other in results[1:]:
        for name, value in results[0].items():
            same = (value == other[name]) | (value.isnan() & other[name].isnan())
            assert same.all(), f"{name} depends on the order of threads"


@pytest.mark.parametrize("case", ALL, ids=str)
def test_oracle(kernels, case):
    check(kernels, case)


@pytest.mark.parametrize("name", FORCED)
@pytest.mark.parametrize("case", ALIGNMENT[::7], ids=str)
def test_each_tier_is_right_at_any_class_count(kernels, case, name):
    with tier(name):
        check(kernels, replace(case, rows=min(case.rows, 19)))


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


@pytest.mark.parametrize("formula", PARAMETER_SWEEP, ids=str)
def test_parameters(kernels, formula):
    for dtype, values in itertools.product((torch.float32, torch.float64), ("unit", "scale30")):
        check(kernels, Case(formula, 10, dtype, values=values, reduction="none"))


@pytest.mark.parametrize("name", [None, *FORCED])
@pytest.mark.parametrize("C", [5, 40, 700])
def test_labels_out_of_range_touch_their_own_row_only(kernels, C, name):
    """Their loss and gradient are NaN; nothing beyond the row is read or written (the sanitizers run this, too)."""
    kernels.machine = ORDERS[2]
    logits = torch.randn(40, C)
    target = torch.randint(C, (40,))
    bad = torch.tensor([3, 4, 17, 39])
    target[bad] = torch.tensor([C, -1, 2**40, -(2**62)])
    packed = tuple(FORMULAS[4].build().packed)
    weight = torch.rand(C) + 0.5
    with tier(name):
        for class_weight in (None, weight):
            made = kernels.forward(logits, target, packed, class_weight=class_weight, reduction=MEAN, grad=True)
            wrong = made["grad"].isnan()
            assert wrong[bad].all() and wrong.sum() == bad.numel() * C
            assert made["loss"].isnan()
            values = kernels.forward(logits, target, packed, class_weight=class_weight, reduction=NONE)["loss"]
            assert values[bad].isnan().all() and values.isnan().sum() == bad.numel()


@pytest.mark.parametrize("name", [None, *FORCED])
def test_rows_that_are_not_numbers_stay_alone(kernels, name):
    kernels.machine = ORDERS[2]
    inf = float("inf")
    logits = torch.randn(36, 37)
    target = torch.randint(1, 37, (36,))
    target[9] = -100
    logits[9] = float("nan")
    logits[2, 0], logits[3, 0], logits[5] = float("nan"), inf, -inf
    logits[7, 0] = -inf  # another class without probability: fine
    packed = tuple(FORMULAS[0].build().packed)
    with tier(name):
        made = kernels.forward(logits, target, packed, reduction=MEAN, grad=True)
        wrong = made["grad"].isnan()
        assert wrong[[2, 3]].all() and wrong[5].any() and wrong.any(dim=1).sum() == 3
        assert (made["grad"][9] == 0).all() and made["grad"][7, 0] == 0
        values = kernels.forward(logits, target, packed, reduction=NONE)["loss"]
        assert values.isnan().sum() == 3 and values[9] == 0


def test_no_rows_and_all_rows_ignored(kernels):
    kernels.machine = ORDERS[0]
    packed = tuple(FORMULAS[0].build().packed)
    none = torch.empty(0, 5), torch.empty(0, dtype=torch.int64)
    assert kernels.forward(*none, packed, reduction=MEAN, grad=True)["loss"].isnan()
    assert kernels.forward(*none, packed, reduction=SUM)["loss"] == 0
    with tier("cluster"):  # of several blocks even so
        assert kernels.forward(*none, packed, reduction=MEAN, grad=True)["loss"].isnan()
    logits, target = torch.randn(300, 5), torch.full((300,), -100)
    for save in (False, True):
        made = kernels.forward(logits, target, packed, reduction=MEAN, grad=not save, save=save)
        if save:
            made["grad"] = kernels.backward(logits, target, made, torch.tensor(1.0))
        assert made["loss"].isnan() and (made["grad"] == 0).all()


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


INF, NAN = float("inf"), float("nan")
LEFT_OUT_SHAPES = [(300, 5), (37, 37), (9, 700), (4, 30, 6, 6), (40, 6), (3, 9001)]


def problem_with_rows_left_out(dtype, shape, seed=0):
    """Ignored labels, and a class of weight 0; the logits there are not finite."""
    logits = torch.randn(shape).to(dtype)
    target = torch.randint(shape[1], (*shape[:1], *shape[2:]))
    target.view(-1)[::3] = -100
    target.view(-1)[1] = 3
    weight = torch.rand(shape[1], dtype=torch.float64 if dtype == torch.float64 else torch.float32) + 0.5
    weight[3] = 0
    out = ((target == -100) | (target == 3)).unsqueeze(1).expand(shape)
    filler = torch.tensor([INF, NAN, -INF], dtype=dtype)[torch.arange(out.numel()).reshape(shape) % 3]
    return torch.where(out, filler, logits), target, weight, out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", LEFT_OUT_SHAPES, ids=str)
@pytest.mark.parametrize("name", [None, *FORCED])
def test_rows_left_out_are_0_whatever_comes_from_above(kernels, dtype, shape, name):
    """Written in one pass and scaled, or from saved coefficients; other rows are the gradient times the factor."""
    kernels.machine = ORDERS[2]
    logits, target, weight, out = problem_with_rows_left_out(dtype, shape)
    packed = tuple(FORMULAS[4].build().packed)
    options = {"class_weight": weight, "reduction": MEAN}
    with tier(name):
        made = kernels.forward(logits, target, packed, grad=True, **options)
        saved = kernels.forward(logits, target, packed, save=True, **options)
        values = kernels.forward(logits, target, packed, class_weight=weight, reduction=NONE)["loss"]
        assert made["loss"].isfinite() and torch.equal(saved["loss"], made["loss"])
        assert (made["grad"][out] == 0).all() and made["grad"][~out].isfinite().all()
        assert (values == 0).eq(out[:, 0]).all()
        once = kernels.backward(logits, target, saved, torch.ones_like(saved["loss"]))
        for value in (INF, -INF, NAN, 0.0, 1.0, 2.0):
            factor = torch.full_like(saved["loss"], value)
            scaled = made["grad"].clone()
            kernels.scale_(scaled, factor, target, class_weight=weight)
            for grad in (scaled, kernels.backward(logits, target, saved, factor)):
                assert (grad[out] == 0).all(), value
                near = 4 * torch.finfo(dtype).eps
                torch.testing.assert_close(grad[~out], (once * value)[~out], rtol=near, atol=1e-6, equal_nan=True)


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


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_report_nothing(tmp_path, sanitizer):
    done = emulator.run(compile_kernels(tmp_path / "program", sanitizer=sanitizer, few_types=True), timeout=300)
    assert done.returncode == 0 and done.stdout == "done\n", done.stdout
