"""torch's own samples for cross_entropy and binary_cross_entropy_with_logits, through our CCE.

Documented differences:
- half-precision logits give a float32 loss;
- all rows ignored, or all of weight 0: the same NaN;
- torch's class weights must have the logits' dtype: for half precision ours may be any float, and take its;
- a binary target that is not from 0 to 1 is refused.
"""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from calls import by_dtype
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import imae_ext

(OP,) = (op for op in op_db if op.name == "nn.functional.cross_entropy")
(MODULE,) = (m for m in module_db if m.module_cls is torch.nn.CrossEntropyLoss)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def op_samples(dtype: torch.dtype):
    for sample in OP.sample_inputs("cpu", dtype, requires_grad=True):
        yield sample.input, *sample.args, sample.kwargs


def module_samples(dtype: torch.dtype):
    inputs = MODULE.module_inputs_func(MODULE, device="cpu", dtype=dtype, requires_grad=True, training=True)
    for sample in inputs:
        arguments = sample.forward_input.args
        yield *arguments, sample.constructor_input.kwargs


def category(target: Tensor, options: dict) -> str:
    if target.is_floating_point():
        return "probabilities"
    if options.get("label_smoothing", 0) and options.get("weight") is not None:
        return "smoothed and weighted"
    names = [name for name in ("label_smoothing", "weight", "ignore_index") if options.get(name) is not None]
    return " and ".join(names) or "plain"


def ours(logits: Tensor, target: Tensor, options: dict) -> Tensor:
    return imae_ext.robust_loss(logits, target, imae_ext.CCE(), **options)


def binary_ours(logits: Tensor, target: Tensor, **options: object) -> Tensor:
    return imae_ext.binary_robust_loss(logits, target, imae_ext.CCE(), **options)


def compare(logits: Tensor, target: Tensor, options: dict) -> None:
    """Values and gradients against F.cross_entropy in double, under a grad_output that is not one."""
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}
    results = []
    exact = target.double() if target.is_floating_point() else target
    for loss_function, x, y, o in ((ours, logits, target, options), (F.cross_entropy, logits.double(), exact, wide)):
        leaf = x.detach().clone().requires_grad_()
        loss = loss_function(leaf, y, o) if loss_function is ours else loss_function(leaf, y, **o)
        upstream = torch.linspace(-1, 2, loss.numel() + 1)[1:].view_as(loss).to(loss.dtype)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf, upstream)[0]))
    (loss, grad), (wanted_loss, wanted_grad) = results
    assert loss.shape == wanted_loss.shape and grad.shape == logits.shape and grad.dtype == logits.dtype
    assert loss.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    close = min(TOLERANCE[logits.dtype], 2e-6)
    assert torch.allclose(loss.double(), wanted_loss, rtol=10 * close, atol=10 * close, equal_nan=True)
    tolerance = TOLERANCE[logits.dtype]
    if target.is_floating_point():  # a row's gradient is a sum over its labels, whose weights have both signs here
        tolerance *= max(1.0, max(map(abs, options.get("weight", torch.ones(1)).tolist())))
    assert torch.allclose(grad.double(), wanted_grad, rtol=2 * tolerance, atol=0.1 * tolerance, equal_nan=True)


@by_dtype
@pytest.mark.parametrize("samples", (op_samples, module_samples), ids=("function", "module"))
def test_torchs_samples(samples, dtype):
    """Every sample is computed."""
    ran: Counter[str] = Counter()
    for logits, target, options in samples(dtype):
        kind = category(target, options)
        ran[kind] += 1
        compare(logits, target, options)
    wanted = {"plain", "weight", "ignore_index", "probabilities"}
    if samples is module_samples:
        wanted |= {"label_smoothing", "label_smoothing and ignore_index"}
    assert set(ran) == wanted and min(ran.values()) > 0, ran
    assert sum(ran.values()) >= (20 if samples is op_samples else 90), ran


@by_dtype
def test_torchs_samples_with_label_smoothing(dtype):
    """The function's samples have none: each of them again with three."""
    ran: Counter[str] = Counter()
    for (logits, target, options), eps in itertools.product(list(op_samples(dtype)), (0.1, 0.5, 1.0)):
        options = {**options, "label_smoothing": eps}
        kind = category(target, options)
        ran[kind] += 1
        compare(logits, target, options)
    assert set(ran) == {"label_smoothing", "smoothed and weighted", "label_smoothing and ignore_index", "probabilities"}
    assert ran["smoothed and weighted"] == 9 and ran["label_smoothing"] >= 21, ran


@by_dtype
def test_torchs_samples_of_binary_cross_entropy(dtype):
    """With weight and pos_weight of every shape that they broadcast from. Half precision: of a float32 loss."""
    (op,) = (op for op in op_db if op.name == "nn.functional.binary_cross_entropy_with_logits")
    ran: Counter[str] = Counter()
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        logits, (target,), options = sample.input, sample.args, dict(sample.kwargs)
        options = {k: v.detach() if isinstance(v, Tensor) else v for k, v in options.items()}
        wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}
        t = target.detach().clamp(0, 1)  # theirs are any numbers; ours refuses those
        results = []
        for loss_function, x, y, o in (
            (binary_ours, logits, t, options),
            (F.binary_cross_entropy_with_logits, logits.double(), t.double(), wide),
        ):
            leaf = x.detach().clone().requires_grad_()
            loss = loss_function(leaf, y, **o)
            results.append((loss.detach(), torch.autograd.grad(loss.sum() * 0.5, leaf)[0]))
        (loss, grad), (wanted_loss, wanted_grad) = results
        tolerance = TOLERANCE[dtype]
        assert loss.shape == wanted_loss.shape and grad.dtype == dtype
        assert torch.allclose(loss.double(), wanted_loss, rtol=2e-5, atol=2e-5, equal_nan=True)
        assert torch.allclose(grad.double(), wanted_grad, rtol=4 * tolerance, atol=tolerance, equal_nan=True)
        ran.update([name for name in ("weight", "pos_weight") if options.get(name) is not None] or ["plain"])
    assert set(ran) >= {"plain", "weight", "pos_weight"}, ran


@by_dtype
def test_torchs_samples_in_other_layouts(dtype):
    """Each sample transposed, with gaps between its elements, and off alignment."""
    ran = 0
    for logits, target, options in op_samples(dtype):
        if target.is_floating_point():
            continue
        wide = torch.full([2 * n for n in logits.shape], float("nan"), dtype=dtype)
        gaps = wide[tuple(slice(None, None, 2) for _ in logits.shape)].copy_(logits.detach())
        strided = logits.detach().transpose(0, 1).contiguous().transpose(0, 1)
        for other in (gaps, strided):
            loss = ours(other, target, options)
            assert torch.allclose(loss, ours(logits.detach(), target, options), rtol=1e-6, atol=1e-6, equal_nan=True)
            ran += 1
    assert ran >= 20


# what F.cross_entropy refuses of a valid (4, 3) call, each with the error that ours is
ERRORS = {
    "batch sizes that differ": ({"target": torch.zeros(3).long()}, ValueError),
    "too many target dimensions": ({"target": torch.zeros(4, 1).long()}, ValueError),
    "label too large": ({"target": torch.tensor([0, 1, 2, 3])}, IndexError),
    "label negative": ({"target": torch.tensor([0, 1, 2, -1])}, IndexError),
    "weight of another length": ({"weight": torch.ones(4)}, ValueError),
    "weight with two dimensions": ({"weight": torch.ones(3, 1)}, ValueError),
    "unknown reduction": ({"reduction": "median"}, ValueError),
    "label smoothing out of range": ({"label_smoothing": 1.5}, ValueError),
    "integer logits": ({"logits": torch.zeros(4, 3).long()}, TypeError),
    "boolean target": ({"target": torch.zeros(4).bool()}, TypeError),
    "scalar logits": ({"logits": torch.tensor(1.0), "target": torch.tensor(0)}, ValueError),
    "probabilities of another shape": ({"target": torch.zeros(4, 2)}, TypeError),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_torch_refuses_is_refused(name):
    """torch has no error inputs for cross_entropy (checked below), so here is what it raises for, by hand."""
    changed, error = ERRORS[name]
    options = {"logits": torch.zeros(4, 3), "target": torch.zeros(4).long(), **changed}
    logits, target = options.pop("logits"), options.pop("target")
    with pytest.raises((ValueError, IndexError, RuntimeError, TypeError, NotImplementedError)):
        F.cross_entropy(logits, target, **options)
    with pytest.raises(error, match=r"^imae_ext: "):
        ours(logits, target, options)


def test_torchs_error_inputs():
    """Those of the function: none so far. Those of the module: each that concerns class indices is refused too."""
    assert OP.error_inputs_func is None, "torch has error inputs now: run them here"
    if MODULE.module_error_inputs_func is None:
        pytest.skip("torch has error inputs of the module from 2.12 on")
    inputs = MODULE.module_error_inputs_func(MODULE, "cpu", torch.float32, requires_grad=False, training=True)
    ran = 0
    for case in inputs:
        options = dict(case.module_error_input.constructor_input.kwargs)
        arguments = case.module_error_input.forward_input.args
        with pytest.raises((TypeError, ValueError, IndexError)):
            ours(*arguments, options)
        ran += 1
    assert ran > 0
