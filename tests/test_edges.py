"""Edges that random calls found, each as a kind: at every entry point, eager and compiled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calls import REDUCTIONS, by_reduction

import imae_ext
from imae_ext import CCE, DM, GCE, IMAE, MAE, NCE, RCE, LabelSmoothing, reference

INF = float("inf")


def loss(logits, target, formula=None, **options):
    return imae_ext.robust_loss(logits, target, formula or CCE(), **options)


def backward(logits, target, **options):
    leaf = logits.detach().requires_grad_()
    value = loss(leaf, target, **options)
    value.sum().backward()
    assert leaf.grad.shape == logits.shape
    return value.detach()


def differentiated(logits, target, **options):
    return torch.func.grad_and_value(lambda z: loss(z, target, **options).sum())(logits)[1]


def mapped(logits, target, **options):
    return torch.func.vmap(lambda z: loss(z, target, **options))(logits[None])[0]


def module(logits, target, **options):
    return imae_ext.RobustLoss(CCE(), **options)(logits, target)


def value_and_grad(logits, target, **options):
    return imae_ext.value_and_grad(logits, target, CCE(), **options)[0]


def with_out(logits, target, **options):
    return imae_ext.value_and_grad(logits, target, CCE(), out=torch.empty_like(logits), **options)[0]


def by_reference(logits, target, **options):
    return reference.robust_loss(logits, target, CCE(), **options)


def traced(logits, target, **options):
    torch.compiler.reset()
    return torch.compile(loss, backend="aot_eager")(logits, target, **options)


def named(logits, target, **options):
    return imae_ext.cce_loss(logits, target, **options)


WAYS = (loss, backward, differentiated, mapped, module, value_and_grad, with_out, by_reference, traced, named)


def by_way(name, values, traced_too):
    """Each value in each way; compiled code, which takes a second, is tried with some alone."""
    pairs = [(way, value) for value in values for way in WAYS if way is not traced or value in traced_too]
    return pytest.mark.parametrize(
        ("way", name), [pytest.param(w, values[v], id=f"{v}-{w.__name__}") for w, v in pairs]
    )


EMPTY = {
    "classes apart": torch.zeros(65, 8).t()[:0],
    "many classes apart": torch.zeros(2000, 8).t()[:0],
    "images": torch.zeros(0, 65, 3, 2),
    "no pixels": torch.zeros(2, 65, 0),
    "channels last": torch.zeros(0, 3, 65).transpose(1, 2),
}


@by_way("logits", EMPTY, ("classes apart", "no pixels"))
def test_an_empty_batch_in_any_layout(way, logits):
    target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.long)
    for reduction in REDUCTIONS[:3] if way is differentiated else REDUCTIONS:
        value = way(logits, target, reduction=reduction)
        if reduction == "sum" or (way is differentiated and reduction == "none"):
            assert value == 0
        elif reduction == "none":
            assert value.shape == target.shape
        else:
            assert value.isnan()
    p, weight, *_ = imae_ext.row_stats(logits, target, CCE())
    assert p.shape == weight.shape == target.shape


FAR = {"-2^63": -(2**63), "2^63-1": 2**63 - 1, "2^31": 2**31, "2^32": 2**32, "-2^32": -(2**32), "2^32+1": 2**32 + 1}


@by_way("ignore_index", FAR, ("-2^63", "2^32"))
def test_an_ignore_index_that_int32_labels_cannot_hold_ignores_none(way, ignore_index):
    logits, target = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 1], dtype=torch.int32)
    wanted = torch.nn.functional.cross_entropy(logits, target.long(), reduction="sum")
    torch.testing.assert_close(way(logits, target, ignore_index=ignore_index, reduction="sum"), wanted)
    for stats in (imae_ext.row_stats, reference.row_stats):
        assert (stats(logits, target, CCE(), ignore_index=ignore_index)[0] > 0).all()


@pytest.mark.parametrize(
    "way", [w for w in WAYS if w not in (differentiated, mapped, traced)], ids=lambda w: w.__name__
)
@pytest.mark.parametrize("ignore_index", [2**32 + 7, -(2**32) + 7])
def test_such_an_ignore_index_hides_no_wrong_label(way, ignore_index):
    logits, target = torch.zeros(2, 3), torch.tensor([0, 7], dtype=torch.int32)
    with pytest.raises(IndexError, match=r"^imae_ext: .* got 7 at row 1"):
        way(logits, target, ignore_index=ignore_index)


NO_INTEGERS = {
    "float tensor": torch.tensor(1.7),
    "bool": True,
    "bool tensor": torch.tensor(True),
    "numpy bool": np.True_,
    "float": 1.0,
    "numpy float": np.float64(1.0),
    "one-element tensor": torch.tensor([1]),
    "None": None,
    "str": "1",
}


@by_way("ignore_index", NO_INTEGERS, ("float tensor", "bool", "None"))
def test_an_ignore_index_that_is_no_integer_is_refused(way, ignore_index):
    with pytest.raises(TypeError, match=r"^imae_ext: expected ignore_index to be an int, got"):
        way(torch.zeros(2, 3), torch.tensor([0, 1]), ignore_index=ignore_index)
    for stats in (imae_ext.row_stats, reference.row_stats):
        with pytest.raises(TypeError, match=r"^imae_ext: expected ignore_index"):
            stats(torch.zeros(2, 3), torch.tensor([0, 1]), CCE(), ignore_index=ignore_index)


INTEGERS = {
    "int": 1,
    "int64": np.int64(1),
    "int8": np.int8(1),
    "tensor": torch.tensor(1),
    "int8 tensor": torch.tensor(1).char(),
}


@by_way("ignore_index", INTEGERS, ("int64", "tensor"))
def test_an_integer_of_any_kind_is_an_ignore_index(way, ignore_index):
    assert "ignore_index=1," in repr(imae_ext.IMAELoss(ignore_index=ignore_index))
    logits, target = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(way(logits, target, ignore_index=ignore_index), torch.tensor(0.2395447))


OUTS = {
    "another dtype": (lambda z: torch.zeros_like(z, dtype=torch.float64), ValueError, "like the logits"),
    "larger": (lambda z: torch.zeros(4, *z.shape), ValueError, "like the logits"),
    "smaller": (lambda z: torch.zeros(z.shape[1]), ValueError, "like the logits"),
    "elsewhere": (lambda z: torch.empty_like(z, device="meta"), ValueError, "like the logits"),
    "the logits": (lambda z: z, ValueError, "no memory with the logits"),
    "a view of the logits": (lambda z: z[:], ValueError, "no memory with the logits"),
    "behind the logits": (lambda z: z.as_strided(z.shape, z.stride(), 9), ValueError, "no memory with the logits"),
    "before the logits": (lambda z: z.as_strided(z.shape, z.stride(), 1), ValueError, "no memory with the logits"),
    "that wants a gradient": (lambda z: torch.zeros_like(z, requires_grad=True), ValueError, "does not require"),
    "expanded": (lambda z: torch.zeros(1, z.shape[1]).expand_as(z), ValueError, "a place for each number"),
    "windows": (lambda z: torch.zeros(9).as_strided(z.shape, (2, 1)), ValueError, "a place for each number"),
    "sparse": (lambda z: torch.zeros_like(z).to_sparse(), TypeError, "dense"),
    "no tensor": (lambda z: 3, TypeError, "to be a Tensor"),
}


# torch does not compile a sparse one; a graph cannot be told of the logits: the next test holds that all is right
TRACED_OUTS = [out for out in OUTS if out != "sparse" and not out.endswith("the logits")]


@pytest.mark.parametrize(
    ("out", "reduction", "compiled"),
    [
        *((out, reduction, False) for out in OUTS for reduction in REDUCTIONS),
        *((out, reduction, True) for out in TRACED_OUTS for reduction in ("mean", "normalized")),
    ],
)
def test_an_out_that_does_not_fit(out, reduction, compiled):
    make, error, said = OUTS[out]

    def call(logits, target, out):
        return imae_ext.value_and_grad(logits, target, IMAE(), reduction=reduction, out=out)

    torch.compiler.reset()
    call = torch.compile(call, backend="aot_eager") if compiled else call
    logits = torch.randn(16)[5:11].view(2, 3)
    before = logits.clone()
    with pytest.raises(error, match=f"^imae_ext: .*{said}"):
        call(logits, torch.tensor([0, 1]), make(logits))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("view", [lambda z: z, lambda z: z[:]], ids=["the logits", "a view of the logits"])
@by_reduction
def test_compiled_an_out_over_the_logits_gets_the_gradient(view, reduction):
    @torch.compile(backend="aot_eager", fullgraph=True)
    def call(logits, target, out):
        return imae_ext.value_and_grad(logits, target, IMAE(), reduction=reduction, out=out)[1]

    logits, target = torch.randn(2, 3), torch.tensor([0, 1])
    wanted = imae_ext.value_and_grad(logits, target, IMAE(), reduction=reduction)[1]
    assert torch.equal(call(logits, target, view(logits)), wanted)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("call", [loss, value_and_grad, lambda z, y, **_: imae_ext.row_stats(z, y, NCE())])
def test_example_weights_of_a_general_formula_are_refused(call, compiled):
    if call is loss or call is value_and_grad:
        entry = imae_ext.robust_loss if call is loss else imae_ext.value_and_grad

        def call(z, y):
            return entry(z, y, NCE(), reduction="normalized")

    torch.compiler.reset()
    for wrapped in (torch.compile(call, backend="aot_eager"),) if compiled else (call, vmapped(call)):
        with pytest.raises(ValueError, match=r"^imae_ext: example weights"):
            wrapped(torch.randn(2, 3), torch.tensor([0, 1]))


def vmapped(call):
    return lambda z, y: torch.func.vmap(lambda z: call(z, y))(z[None])


@by_reduction
def test_a_wrong_label_in_compiled_code(reduction):
    torch.compiler.reset()
    call = torch.compile(lambda z, y: loss(z, y, reduction=reduction), backend="aot_eager", fullgraph=True)
    with pytest.raises((RuntimeError, IndexError), match=r"^imae_ext: expected labels in .* got 9 at row 1"):
        call(torch.randn(2, 3), torch.tensor([0, 9]))


@by_reduction
def test_logits_and_weights_whose_negative_bit_is_set(reduction):
    logits, target, weight = torch.randn(4, 3), torch.tensor([0, 1, 2, 1]), torch.rand(3) + 0.5
    negated, options = torch._neg_view(-logits), {"reduction": reduction}
    assert negated.is_neg()
    for way in (loss, value_and_grad, by_reference, module):
        wanted = way(logits, target, weight=weight, **options)
        got = way(negated, target, weight=torch._neg_view(-weight), **options)
        torch.testing.assert_close(got, wanted)
    out = torch._neg_view(torch.zeros(4, 3))
    if reduction != "normalized":
        with pytest.raises(ValueError, match=r"^imae_ext: .*negative"):
            imae_ext.value_and_grad(logits, target, CCE(), out=out, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("eps", [1e-30, 1e-39, 1e-45, 1e-46, 1e-310, 5e-324])
def test_little_smoothing_of_a_masked_class(dtype, eps):
    """Infinite, as eps times infinity is, unless eps is 0 in this dtype; never NaN."""
    logits, target = torch.tensor([[2.0, 0.0, -INF]], dtype=dtype), torch.tensor([0])
    wanted = INF if torch.tensor(eps, dtype=dtype) > 0 else 0.126928
    for value in (
        loss(logits, target, LabelSmoothing(eps)),
        reference.robust_loss(logits, target, LabelSmoothing(eps)),
    ):
        assert float(value) == pytest.approx(wanted, rel=1e-5)
    grad = imae_ext.value_and_grad(logits, target, LabelSmoothing(eps))[1]
    torch.testing.assert_close(grad, torch.tensor([[-0.119203, 0.119203, 0.0]], dtype=dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [1e-45, 1e-46, 5e-324])
def test_a_tiny_exponent_is_cross_entropy(q):
    logits, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    for ours, wanted in zip(
        imae_ext.value_and_grad(logits, target, GCE(q)), imae_ext.value_and_grad(logits, target, CCE()), strict=True
    ):
        torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(reference.robust_loss(logits, target, GCE(q)), loss(logits, target))


@pytest.mark.parametrize("coefficient", [1e31, -1e36, 1e39, 1e300])
def test_a_coefficient_beyond_float32_is_refused(coefficient):
    with pytest.raises(ValueError, match=r"^imae_ext: .* coefficient"):
        coefficient * CCE()


STEEP = IMAE(8.0, eps=0), DM(8.0, 0.5, eps=0), CCE(), MAE(), RCE(), IMAE(30.0, 1e-30)


@pytest.mark.parametrize("C", [10, 100, 1000])
@pytest.mark.parametrize("formula", STEEP, ids=repr)
@pytest.mark.parametrize("coefficient", [1.0, 1e10, 1e20, 1e29])
def test_a_large_coefficient_multiplies_as_any_other(coefficient, formula, C):
    """Also where the row is steep, so that what multiplies its exponentials would overflow."""
    logits = torch.zeros(7, C)
    logits[:, 3] = torch.tensor([0.0, 10.0, 30.0, 50.0, 60.0, 65.0, 80.0])
    logits += 0.1 * torch.randn(7, C)
    target = torch.full((7,), 3)
    value, grad = imae_ext.value_and_grad(logits, target, coefficient * formula, reduction="none")
    wanted_value, wanted = imae_ext.value_and_grad(logits.double(), target, coefficient * formula, reduction="none")
    scale = wanted.abs().amax(1, keepdim=True)
    assert grad.isfinite().all() and ((grad - wanted).abs() <= 1e-4 * scale + 1e-37 * coefficient).all()
    torch.testing.assert_close(value.double(), wanted_value, rtol=1e-4, atol=1e-37 * coefficient)
