"""The emulated CUDA kernels on rows that do not count, are no numbers, or are weighed; and under the sanitizers."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FORMULAS, Case
from emulated import DTYPES, FORCED, MEAN, NONE, ORDERS, REDUCTIONS, SUM, compile_kernels, emulated, emulator, tier
from expected import assert_within, expected

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def kernels():
    return emulated()


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


@pytest.mark.parametrize("name", [None, *FORCED])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_of_rows(kernels, reduction, name):
    """Beside class weights, of both signs; a row of weight 0 is left out whatever it holds."""
    for C, dtype in ((5, torch.float32), (40, torch.bfloat16), (700, torch.float64)):
        case = Case(FORMULAS[4], C, dtype, reduction=reduction, rows=41)
        logits, target, _ = case.inputs()
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        weight, sample_weight = torch.linspace(0.5, 2, C, dtype=wide), torch.linspace(-0.5, 2, 41, dtype=wide)
        sample_weight[[3, 17]] = 0
        options = {"class_weight": weight, "sample_weight": sample_weight, "reduction": REDUCTIONS[reduction]}
        wanted = expected(case.formula, logits, target, weight=weight, sample_weight=sample_weight, reduction=reduction)
        logits[3], logits[17] = NAN, INF
        for machine, one_pass in itertools.product(ORDERS, (True, False)):
            kernels.machine = machine
            with tier(name):
                if one_pass and reduction in ("mean", "sum"):
                    made = kernels.forward(logits, target, tuple(case.formula.build().packed), grad=True, **options)
                else:
                    made = kernels.forward(logits, target, tuple(case.formula.build().packed), save=True, **options)
                    made["grad"] = kernels.backward(logits, target, made, torch.ones_like(made["loss"]))
            assert_within(made["loss"], wanted.loss, wanted.loss_allowed, "loss")
            assert_within(made["grad"], wanted.grad, wanted.grad_allowed, "gradient")


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_report_nothing(tmp_path, sanitizer):
    done = emulator.run(compile_kernels(tmp_path / "program", sanitizer=sanitizer, few_types=True), timeout=300)
    assert done.returncode == 0 and done.stdout == "done\n", done.stdout
