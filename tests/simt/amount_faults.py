# ruff: noqa: E501
"""Faults to plant in the CUDA kernels for amounts and for two labels, and the numbers that give them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fault import kernel_fault as Fault

if TYPE_CHECKING:
    from kernels import Kernels

THREAD = "thread"
FAULTS = (
    Fault("the top class counts among the others", "dense.cuh", "if (k != top.k) some = merge", "some = merge"),
    Fault("lanes disagree on which of two tops it is", "dense.cuh", "(y.z == x.z && y.k < x.k)", "y.z == x.z"),
    Fault("exponentials relative to the top class", "dense.cuh", "finite_or_zero(top.next)", "finite_or_zero(top.z)"),
    Fault("the top class has no margin of its own", "dense.cuh", "is_top ? u : none", "none"),
    Fault("the plain formula, without the top class apart", "dense.cuh", "(g - b) - p_k * ratio", "g - b"),
    Fault("A with the class's own softmax left in", "dense.cuh", "t_k * (o.a / r_k)", "t_k * o.a"),
    Fault("the top class's pull on the others left out", "dense.cuh", "(r * all.A + all.a_top)", "(r * all.A)"),
    Fault("a weight applied twice", "dense.cuh", "live ? found.value * w : S(0)", "live ? found.value * w * w : S(0)"),
    Fault("a class weight before smoothing", "dense.cuh", "x = (1 - e) * x + e / static_cast<S>(C)", "x = (1 - e) * x"),
    Fault("a row without amounts is looked at", "dense.cuh", "all.live > 0 ? g * factor : S(0)", "g * factor"),
    Fault("a perfect fit has other classes", "dense.cuh", "fit ? S(0) : S(1)", "S(1)"),
    Fault("every lane counts", "targets.cuh", "if (threadIdx.x % kLanes == 0) totals =", "totals ="),
    Fault("warps at the same row", "targets.cuh", "* kRows + threadIdx.x / kLanes", "* kRows"),
    Fault("no barrier before the parts are read (amounts)", "targets.cuh", "__syncthreads();  // every warp's part is", "// every"),
    Fault("no barrier before the parts are written over", "targets.cuh", "__syncthreads();  // the parts of the row before", "//", THREAD),
    Fault("the second label counts among neither", "mixed.cuh", "== first || lane + k * kLanes == second", "== first"),
    Fault("the other label left out of a label's others", "mixed.cuh", "two ? merge(neither, part_of_one(z_other)) : neither", "neither"),
    Fault("an infinite part of one class", "mixed.cuh", "const S x = z - finite_or_zero(z);", "const S x = z - z;"),
    Fault("a label's pull on the other one left out", "mixed.cuh", "two ? a * fast_exp(z_other - found.shift) + b : S(0)", "S(0)"),
    Fault("both labels' pulls relative to one maximum", "mixed.cuh", "fast_exp(p.shift - found.shift)", "S(1)"),
    Fault("classes without mass are rescaled", "mixed.cuh", "neither.sum_exp == 0 ? S(0) : fast_exp", "fast_exp"),
    Fault("a label that comes twice is two labels", "mixed.cuh", "if (t.label[0] == t.label[1]) t.amount[0] += t.amount[1], t.amount[1] = 0;", ""),
    Fault("a label out of range is left out", "mixed.cuh", "known ? t.amount[k] * w : static_cast<S>(NAN)", "known ? t.amount[k] * w : S(0)"),
    Fault("a part that is ignored counts", "mixed.cuh", "if (y[1] == of.ignore_index) t.amount[1] = 0;", ""),
    Fault("one number for all rows is the first row's", "mixed.cuh", "of.other_lam_is_scalar ? 0 : i", "0"),
)  # fmt: skip


def numbers(kernels: Kernels) -> None:
    """Raise if a value or a gradient is off: by the oracle, and with weights and smoothing by the reference."""
    import torch
    from cases import FORMULAS
    from expected import assert_within
    from kernel_calls import NONE, SUM, Machine
    from test_soft import problem, wanted_of

    from imae_ext import soft

    kernels.machine = Machine(7, 3)
    for C, spec in (
        (2, FORMULAS[14]),
        (10, FORMULAS[4]),
        (10, FORMULAS[18]),
        (1100, FORMULAS[4]),
        (1100, FORMULAS[18]),
    ):
        z, t = problem(C, torch.float32, N=14)
        value, grad, _, value_off, grad_off = wanted_of(spec, z, t)
        packed = tuple(spec.build().packed)
        made = kernels.dense(z, t, packed, reduction=NONE)
        back = {"grad_output": torch.ones(14), "divisor": made["divisor"]}
        assert_within(made["loss"], value, value_off + 4e-6 * abs(value), f"amounts, C={C}: loss")
        got = kernels.dense(z, t, packed, **back)["grad"]
        assert_within(got, grad, grad_off[:, None], f"amounts, C={C}: gradient")
        weight, samples = torch.linspace(0.5, 2, C), torch.linspace(-0.5, 2, 14)
        total = kernels.dense(z, t, packed, weight=weight, sample_weight=samples, smoothing=0.1, reduction=SUM)["loss"]
        doubles = (x.double() for x in (z, t, weight, samples))
        exact = soft.robust_loss(*_with(doubles, spec.build()), 0.1, -100, "sum")
        assert torch.allclose(total.double(), exact, rtol=1e-4), f"amounts, C={C}: {total} is not {exact}"
        _special(kernels, C)
        _two_labels(kernels, C)


def _two_labels(kernels: Kernels, C: int) -> None:
    """By the sum of both labels' own losses, and by the oracle where the margins are large."""
    import torch
    from cases import FORMULAS
    from expected import assert_within, expected
    from kernel_calls import NONE, SUM

    for spec in (FORMULAS[4], FORMULAS[18]):
        z, a, b = 3 * torch.randn(14, C), torch.randint(C, (14,)), torch.randint(C, (14,))
        b[::5] = a[::5]
        z[torch.arange(14), b] += torch.linspace(-190, 190, 14)
        lam, other = torch.linspace(-0.5, 1.5, 14), torch.linspace(2, 0.5, 14)
        packed = tuple(spec.build().packed)
        parts = [expected(spec, z, y, sample_weight=t, reduction="none") for y, t in ((a, lam), (b, other))]
        value, value_off, grad, grad_off = (
            sum(getattr(part, name) for part in parts) for name in ("loss", "loss_allowed", "grad", "grad_allowed")
        )
        made = kernels.mixed(z, a, b, lam, packed, other_lam=other, reduction=NONE)
        assert_within(made["loss"], value, value_off, f"two labels, C={C}: loss")
        back = {"grad_output": torch.ones(14), "divisor": made["divisor"]}
        got = kernels.mixed(z, a, b, lam, packed, other_lam=other, **back)["grad"]
        assert_within(got, grad, grad_off, f"two labels, C={C}: gradient")
        total = kernels.mixed(z, a, b, lam, packed, other_lam=other, reduction=SUM)["loss"]
        assert abs(total - float(value.sum())) <= 1e-5 * float(abs(value).sum()), f"two labels, C={C}: sum"
        a[1], b[2], a[3] = -100, -100, C
        z[4] = -float("inf")
        a[4] = (b[4] + 1) % C
        z[4, a[4]], z[4, b[4]] = -150, -140  # and no other class has any mass
        a[6] = (b[6] + 1) % C
        z[6, b[6]] = -float("inf")
        made = kernels.mixed(z, a, b, lam, packed, other_lam=other, reduction=NONE)
        grad = kernels.mixed(z, a, b, lam, packed, other_lam=other, **back)["grad"]
        assert grad.isnan().any(1).nonzero().flatten().tolist() == [3], f"two labels, C={C}: NaN"
        assert (grad[1] == 0).all() and made["loss"][1] == 0, f"two labels, C={C}: an ignored row"
        alone = kernels.mixed(z[2:3], a[2:3], a[2:3], lam[2:3], packed, other_lam=0 * lam[2:3], reduction=NONE)
        assert torch.allclose(made["loss"][2:3], alone["loss"]), f"two labels, C={C}: an ignored part"


def _with(tensors, formula):
    z, t, weight, samples = tensors
    return z, t, formula, weight, samples


def _special(kernels: Kernels, C: int) -> None:
    import torch
    from cases import FORMULAS
    from kernel_calls import NONE

    z, t = torch.randn(9, C), torch.rand(9, C)
    z[1, 1], z[3], t[3], z[5, 1], t[5, 1] = float("nan"), float("nan"), 0, -float("inf"), 0
    z[7, 1:], t[7], t[7, 0] = -float("inf"), 0, 1
    z[8, 0], t[8, 0] = -float("inf"), 1e-3  # the only one without any probability
    for spec in (FORMULAS[0], FORMULAS[14]):
        formula = tuple(spec.build().packed)
        made = kernels.dense(z, t, formula, reduction=NONE)
        grad = kernels.dense(z, t, formula, grad_output=torch.ones(9), divisor=made["divisor"])["grad"]
        wrong = [made["loss"].isnan().nonzero().flatten().tolist(), grad.isnan().any(1).nonzero().flatten().tolist()]
        assert wrong == [[1], [1]], f"amounts, C={C}, {spec}: rows {wrong} are NaN, expected 1 alone"
        learned = (made["loss"][7], grad[3], grad[7])
        assert not any(map(torch.any, learned)), f"amounts, C={C}, {spec}: a row that has nothing to learn"
