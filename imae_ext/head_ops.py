"""The derivative of a fused head: for eager mode a Function, for torch.compile one operator with a derivative.

What these cannot differentiate goes to :func:`reference_loss`, with all logits at once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _torch, checks, reference, soft, two_labels
from .formulas import unpack
from .head import Call, Gradients, Head, Wanted, finish
from .head_targets import Inputs, rows_of
from .mixed import mixed_loss


def reference_loss(inputs: Inputs, options: Head) -> Tensor:
    """Compute it with all logits at once, in plain PyTorch."""
    x, head, bias, target, other, lam, other_lam, weight, sample_weight = inputs
    logits = F.linear(x, head, bias).reshape(-1, len(head))
    if options.logit_scale != 1:
        logits = logits * options.logit_scale
    if options.softcap is not None:
        logits = options.softcap * torch.tanh(logits / options.softcap)
    formula, reduction = unpack(options.formula), options.reduction
    samples = None if sample_weight is None else sample_weight.reshape(-1)
    common: dict[str, Any] = {"weight": weight, "sample_weight": samples, "reduction": reduction}
    common["ignore_index"] = options.ignore_index
    if target.is_floating_point():
        values = (formula, weight, samples, 0.0, -100, reduction)
        loss = soft.robust_loss(logits, target.reshape(logits.shape), *values)
    elif other is not None and lam is not None and other_lam is not None:
        labels, amounts = (target.reshape(-1), other.reshape(-1)), (lam.reshape(-1), other_lam.reshape(-1))
        loss = mixed_loss(logits, *labels, amounts[0], formula, other_lam=amounts[1], **common)
    else:
        loss = reference.robust_loss(logits, target.reshape(-1), formula, **common)
    return loss.reshape(x.shape[:-1]) if reduction == "none" else loss


def differentiable(inputs: Inputs, options: Head, grad_output: Tensor, wanted: Wanted) -> Gradients:
    """Return gradients that can be differentiated again, of input, linear_weight and linear_bias."""
    leaves = [t for t, wish in zip(inputs[:3], wanted, strict=True) if wish and t is not None]
    found = iter(torch.autograd.grad(reference_loss(inputs, options), leaves, grad_output, create_graph=True))
    return tuple(next(found) if wish else None for wish in wanted)  # type: ignore[return-value]


class _LinearLoss(torch.autograd.Function):
    """The gradients, ready before they are asked for, are no saved tensors: see ops._Loss."""

    @staticmethod
    def forward(ctx: Any, options: Head, *tensors: Tensor | None) -> Tensor:
        inputs = Inputs(*tensors)  # type: ignore[arg-type]
        ctx.save_for_backward(*inputs)
        ctx.options, ctx.gradients = options, None
        call = Call(inputs, options)
        if options.reduction == "none":
            return call.run((False,) * 3)[0].reshape(inputs.x.shape[:-1])
        # checkpointing drops what it can make again, and offloading would move what is larger than the input
        ahead = not _torch.saving_hooks(False)
        wanted = tuple(wish and ahead for wish in ctx.needs_input_grad[1:4])
        values, divisor, gradients = call.run(wanted)  # type: ignore[arg-type]
        loss, ctx.divisor = call.reduce(values, divisor)
        ctx.gradients, ctx.counts = gradients if ahead else None, call.counts
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        wanted, options, inputs = ctx.needs_input_grad[1:4], ctx.options, Inputs(*ctx.saved_tensors)
        return None, *_LinearLoss.gradients(ctx, grad_output, wanted, options, inputs), *[None] * (len(inputs) - 3)

    @staticmethod
    def gradients(ctx: Any, grad_output: Tensor, wanted: Wanted, options: Head, inputs: Inputs) -> Gradients:
        """Return those of input, linear_weight and linear_bias."""
        if torch.is_grad_enabled():  # create_graph
            return differentiable(inputs, options, grad_output, wanted)
        if options.reduction == "none":
            return of_none(inputs, options, grad_output, wanted)
        gradients, counts, ctx.gradients = ctx.gradients, ctx.counts, None
        if gradients is None:  # a second time through a retained graph, or not made ahead
            *_, gradients = Call(inputs, options).run(wanted)
        return finish(gradients, grad_output / ctx.divisor, counts, inputs[:3], in_place=True)


def of_none(inputs: Inputs, options: Head, grad_output: Tensor, wanted: Wanted) -> Gradients:
    """Compute the gradients for an upstream gradient of each row."""
    counts = rows_of(inputs, options.formula, options.ignore_index).counts
    above = grad_output.reshape(-1)
    if inputs.sample_weight is not None:
        above = above * inputs.sample_weight.reshape(-1).to(above.dtype)
    above = torch.where(counts, above, 0.0).reshape(inputs.x.shape[:-1])
    call = Call(inputs._replace(sample_weight=above), options)
    *_, gradients = call.run(wanted)
    return finish(gradients, grad_output.new_ones(()), call.counts, inputs[:3], in_place=True)


def apply(inputs: Inputs, options: Head) -> Tensor:
    """Compute the loss, differentiable with respect to input, linear_weight and linear_bias."""
    return _LinearLoss.apply(options, *inputs)  # type: ignore[no-any-return,no-untyped-call]


# --- for torch.compile: one operator, with a derivative of its own --------------------------------------------------


def compiled(inputs: Inputs, options: Head, wanted: list[bool]) -> Tensor:
    """Compute the loss as an operator of a graph."""
    code, cap = checks.REDUCTIONS[options.reduction], float(options.softcap or 0)
    numbers = options.formula, options.ignore_index, code, options.logit_scale, cap, options.chunk or 0
    return linear_loss(*inputs, *numbers, wanted)[0]  # type: ignore[no-any-return]


def _options(formula: list[float], ignore_index: int, code: int, scale: float, cap: float, chunk: int) -> Head:
    return Head(formula, ignore_index, list(checks.REDUCTIONS)[code], scale, cap or None, chunk or None)


def _or_empty(gradients: Gradients, like: Tensor) -> list[Tensor]:
    return [like.new_empty(0) if g is None else g for g in gradients]


# Operators have flat arguments: the tensors of Inputs, then what _options takes, then which gradients are wanted.
TENSORS = (
    "Tensor x, Tensor head, Tensor? bias, Tensor target, Tensor? other, Tensor? lam, Tensor? other_lam, "
    "Tensor? weight, Tensor? sample_weight"
)
NUMBERS = "float[] formula, int ignore_index, int reduction, float logit_scale, float softcap, int chunk, bool[] wanted"
_FIRST = len(Inputs._fields)


def _linear_loss(*arguments: Any) -> tuple[Tensor, ...]:
    """Compute the loss, the sum's gradients that are wanted (else empty tensors), and what they are divided by."""
    inputs, (*numbers, wanted) = Inputs(*arguments[:_FIRST]), arguments[_FIRST:]
    options = _options(*numbers)
    check_labels(inputs, options.ignore_index)
    call = Call(inputs, options)
    values, divisor, gradients = call.run((False,) * 3 if options.reduction == "none" else tuple(wanted))
    if options.reduction == "none":
        values = values.reshape(inputs.x.shape[:-1])
        return values, *_or_empty((None,) * 3, values), values.new_ones(())
    loss, divided_by = call.reduce(values, divisor)
    return loss, *_or_empty(gradients, loss), divided_by


def check_labels(inputs: Inputs, ignore_index: int) -> None:
    """Check that labels are classes or ignored; waits for the device."""
    like_logits = torch.empty((1, len(inputs.head)), device="meta")
    if inputs.target.is_floating_point():
        return
    if inputs.other is None:
        checks.check_labels(like_logits, inputs.target, ignore_index)
    else:
        two_labels.check_values(like_logits, inputs.target, inputs.other, ignore_index)


def _linear_loss_backward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs, (*numbers, wanted, grad_output) = Inputs(*arguments[:_FIRST]), arguments[_FIRST:]
    return tuple(_or_empty(of_none(inputs, _options(*numbers), grad_output, tuple(wanted)), inputs.head))


linear_loss = torch.library.custom_op(
    "imae_ext::linear_loss",
    _linear_loss,
    mutates_args=(),
    schema=f"({TENSORS}, {NUMBERS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
linear_loss_backward = torch.library.custom_op(
    "imae_ext::linear_loss_backward",
    _linear_loss_backward,
    mutates_args=(),
    schema=f"({TENSORS}, {NUMBERS}, Tensor grad_output) -> (Tensor, Tensor, Tensor)",
)


@linear_loss.register_fake
def _(*arguments: Any) -> Any:
    inputs, (_, _, code, *_, wanted) = Inputs(*arguments[:_FIRST]), arguments[_FIRST:]
    x, head, of = inputs.x, inputs.head, inputs.compute
    sizes = ((x.numel() // x.shape[-1], x.shape[-1]), head.shape, head.shape[:1])
    made = [
        head.new_empty(size if wish and code != 0 else 0, dtype=of) for wish, size in zip(wanted, sizes, strict=True)
    ]
    return head.new_empty(x.shape[:-1] if code == 0 else (), dtype=of), *made, head.new_empty((), dtype=of)


@linear_loss_backward.register_fake
def _(*arguments: Any) -> Any:
    inputs, wanted = Inputs(*arguments[:_FIRST]), arguments[-2]
    return tuple(
        inputs.head.new_empty(t.shape if wish and t is not None else 0)
        for wish, t in zip(wanted, inputs[:3], strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.numbers = inputs[_FIRST:]
    ctx.save_for_backward(*inputs[:_FIRST], *output[1:])
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    rest = [None] * (_FIRST - 3 + len(ctx.numbers))
    if grad_output is None:
        return None, None, None, *rest
    inputs, found = Inputs(*ctx.saved_tensors[:_FIRST]), ctx.saved_tensors[_FIRST:]
    *numbers, made = ctx.numbers
    # An exported program may be differentiated by what nobody wanted while it was traced
    needed: Any = tuple(ctx.needs_input_grad[:3])
    if torch.is_grad_enabled():  # create_graph
        return *differentiable(inputs, _options(*numbers), grad_output, needed), *rest
    none = numbers[2] == checks.REDUCTIONS["none"]
    missing = [wish and (none or not had) for wish, had in zip(needed, made, strict=True)]
    done: Any = (None, None, None)
    if not none:
        counts = rows_of(inputs, numbers[0], numbers[1]).counts
        grad_output = grad_output / found[3]
        ready: Any = tuple(g if wish and had else None for g, wish, had in zip(found[:3], needed, made, strict=True))
        done = finish(ready, grad_output, counts, inputs[:3], in_place=False)
        grad_output = grad_output.expand(inputs.x.shape[:-1])
    if any(missing):
        again = linear_loss_backward(*inputs, *numbers, missing, grad_output.contiguous())
        done = (new if wish else old for old, new, wish in zip(done, again, missing, strict=True))
    return *done, *rest


torch.library.register_autograd("imae_ext::linear_loss", _derivative, setup_context=_save)
