"""What dense, two-label and binary targets share: operators, and how their losses are differentiated.

mean and sum write the gradient in the forward pass of eager mode, where a kernel does that; backward multiplies it by
grad_output if that is not 1. The other cases (none, normalized, float16, checkpointing, compiled code) read the logits
again in backward. Higher orders go through the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from . import _torch
from .checks import REDUCTIONS


class Kernel(NamedTuple):
    """The operators of one kind of target. They take the logits, the inputs, and then what is named here."""

    forward: Callable[..., tuple[Tensor, Tensor]]  # (reduction) -> loss, divisor
    forward_backward: Callable[..., tuple[Tensor, Tensor]]  # (reduction) -> loss, gradient
    backward: Callable[..., Tensor]  # (divisor, grad_output) -> gradient
    reference: Callable[..., Tensor]  # (logits, inputs, name of the reduction) -> loss, in plain PyTorch
    constants: tuple[int, ...]  # which of the inputs are no tensors


def _save(ctx: Any, kernel: Kernel, logits: Tensor, inputs: tuple[Any, ...], *more: Tensor) -> None:
    tensors = list(inputs)
    ctx.constants = [tensors.pop(i) for i in reversed(kernel.constants)]
    ctx.save_for_backward(logits, *tensors, *more)


def _inputs(ctx: Any, kernel: Kernel, tensors: list[Tensor]) -> list[Any]:
    """Put the inputs together again."""
    inputs: list[Any] = list(tensors)
    for i, x in zip(kernel.constants, reversed(ctx.constants), strict=True):
        inputs.insert(i, x)
    return inputs


def _again(kernel: Kernel, logits: Tensor, inputs: list[Any], code: int, grad_output: Tensor) -> Tensor:
    """Compute the gradient from the logits: for grad_outputs by which a finished one cannot be multiplied."""
    if torch.is_grad_enabled():  # create_graph
        value = kernel.reference(logits, inputs, list(REDUCTIONS)[code])
        (grad,) = torch.autograd.grad(value, logits, grad_output, create_graph=True)
        return grad
    _, divisor = kernel.forward(logits, *inputs, code)
    return kernel.backward(logits, *inputs, divisor, grad_output)


class _OnePass(torch.autograd.Function):
    """For eager mode. The gradient is no saved tensor, as in ops.py: reading one reads all."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, kernel: Kernel, inputs: tuple[Any, ...], code: int) -> Tensor:
        ctx.kernel, ctx.code = kernel, code
        _save(ctx, kernel, logits, inputs)
        loss, ctx.grad = kernel.forward_backward(logits, *inputs, code)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None, None, None]:
        grad, ctx.grad = ctx.grad, None
        simple = grad is not None and not torch.is_grad_enabled() and not _torch.is_batch(grad_output)
        if simple:
            by = grad_output.item()
            if math.isfinite(by):  # else rows that do not count would be NaN
                return grad if by == 1 else grad.mul_(by), None, None, None
        logits, *tensors = ctx.saved_tensors
        inputs = _inputs(ctx, ctx.kernel, tensors)
        return _again(ctx.kernel, logits, inputs, ctx.code, grad_output), None, None, None


_apply = _torch.apply_of(_OnePass)


def _register(name: str, kernel: Kernel) -> None:
    """Give the operator its derivative, for all that is not done in one pass."""
    count = len(kernel.forward._schema.arguments) - 1  # type: ignore[attr-defined]

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, *middle, ctx.code = inputs
        _save(ctx, kernel, logits, tuple(middle), output[1])
        ctx.set_materialize_grads(False)

    def derivative(ctx: Any, grad_output: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = None
        if grad_output is not None:
            logits, *tensors, divisor = ctx.saved_tensors
            inputs = _inputs(ctx, kernel, tensors)
            if torch.is_grad_enabled():
                grad = _again(kernel, logits, inputs, ctx.code, grad_output)
            else:
                grad = kernel.backward(logits, *inputs, divisor, grad_output)
        return grad, *(None,) * count

    torch.library.register_autograd(f"imae_ext::{name}_forward", derivative, setup_context=save)


def kernel_of(name: str, reference: Callable[..., Tensor], constants: tuple[int, ...]) -> Kernel:
    """Return the operators whose names begin with ``name``, the first with its derivative."""
    ops = torch.ops.imae_ext
    forward, forward_backward, backward = (
        getattr(ops, f"{name}_{each}").default for each in ("forward", "forward_backward", "backward")
    )
    kernel = Kernel(forward, forward_backward, backward, reference, constants)
    _register(name, kernel)
    return kernel


def loss(kernel: Kernel, logits: Tensor, inputs: tuple[Any, ...], reduction: str) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    code = REDUCTIONS[reduction]
    if (
        reduction in ("mean", "sum")
        and logits.requires_grad
        and logits.dtype is not torch.float16
        and logits.device.type == "cpu"
        and torch.is_grad_enabled()
        and _torch.has_values(logits)
        and _torch.saving_hooks(False) is None
    ):
        return cast(Tensor, _apply(_torch.unwrap(logits), kernel, inputs, code))
    return kernel.forward(logits, *inputs, code)[0]
