"""What linear.py computes with: a linear head and its loss, whose logits never exist all at once.

Rows are taken in chunks. A chunk's logits are written into a buffer, the fused kernel writes their gradient over them,
and two products take it to the hidden states and, added up in float32, to the head's weight. The gradient is that of
the rows' sum: what the reduction divides by, and what comes from above, is multiplied once in backward.

With ``reduction="none"`` the upstream gradient differs from row to row, so forward keeps nothing: backward makes the
logits again, with the upstream gradient among the sample weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _torch, checks, reference
from .formulas import unpack

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]  # of input, linear_weight and linear_bias

# A chunk's logits: a fifth of all, within these bounds. Fewer rows make the products slow and read the head's weight
# and its gradient more often; more rows take memory and leave the caches.
LEAST_BYTES, MOST_BYTES, LEAST_ROWS = 8 << 20, 64 << 20, 128


class Head(NamedTuple):
    """The options of a call."""

    formula: list[float]  # packed
    ignore_index: int
    reduction: str
    logit_scale: float
    softcap: float | None
    chunk: int | None


def rows_of_a_chunk(N: int, C: int, D: int, itemsize: int) -> int:
    """Choose how many rows to take at a time, so that all chunks are of nearly one size."""
    row = C * itemsize
    most = max(MOST_BYTES, N * D * itemsize)  # there is room for another tensor like the input
    rows = max(min(max(-(-N // 5) * row, LEAST_BYTES), most) // row, min(LEAST_ROWS, -(-N // 5)), 1)
    return -(-N // -(-N // rows)) if N else 1


class Call:
    """The tensors of a call as the products take them, and what they have in common over all chunks."""

    def __init__(
        self,
        x: Tensor,
        head: Tensor,
        bias: Tensor | None,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        options: Head,
    ) -> None:
        self.options = options
        half = head.dtype in (torch.float16, torch.bfloat16)
        on_cpu = head.device.type == "cpu"
        self.compute = torch.float64 if head.dtype is torch.float64 else torch.float32
        # many CPUs have no products of half precision, and torch's own are then many times slower
        dtype = self.compute if half and on_cpu else head.dtype
        self.widens = half and not on_cpu  # products of half precision, their results in float32
        self.head, self.bias = head.to(dtype), None if bias is None else bias.to(dtype)
        self.x, self.target = x.reshape(-1, x.shape[-1]), target.reshape(-1)
        self.weight = None if weight is None else weight.to(self.compute)
        self.sample_weight = None if sample_weight is None else sample_weight.reshape(-1).to(self.compute)
        self.row_weights = reference.row_weights(
            self.target, self.weight, self.sample_weight, options.ignore_index, self.compute
        )
        self.counts = self.row_weights != 0
        self.N = len(self.target)
        self.live = None  # the rows that count, where they are not all
        if on_cpu and not bool(self.counts.all()):
            self.live = self.counts.nonzero().squeeze(1)
            self.x, self.target = self.x[self.live], self.target[self.live]
            if self.sample_weight is not None:
                self.sample_weight = self.sample_weight[self.live]
        self.x = self.x.to(dtype)
        if not on_cpu:  # nobody waits for the device: the rows stay, and what they hold must not reach the weight
            self.x = torch.where(self.counts.unsqueeze(1), self.x, 0)

    def logits(self, out: Tensor, x: Tensor) -> Tensor | None:
        """Write a chunk's logits; return the tanh of a softcap."""
        scale, cap = self.options.logit_scale, self.options.softcap
        if self.bias is not None:
            torch.addmm(self.bias, x, self.head.t(), beta=scale, alpha=scale, out=out)
        elif scale != 1:
            torch.addmm(out, x, self.head.t(), beta=0, alpha=scale, out=out)
        else:
            torch.mm(x, self.head.t(), out=out)
        if cap is None:
            return None
        tanh = out.div_(cap).tanh_().clone()
        out.mul_(cap)
        return tanh

    def run(self, wanted: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Gradients]:
        """Return each row's value and example weight (0 for rows that do not count), and gradients of the sum."""
        rows, (C, D) = len(self.x), self.head.shape
        step = self.options.chunk or rows_of_a_chunk(rows, C, D, self.head.element_size())
        values, example = (self.head.new_zeros(rows, dtype=self.compute) for _ in range(2))
        made = (rows > 0, self.compute)
        dx, dw, db = (
            _made(self.head, size, *made) if wish else None
            for wish, size in zip(wanted, ((rows, D), (C, D), (C,)), strict=True)
        )
        scale = self.options.logit_scale
        buffer = self.head.new_empty(min(step, rows), C)
        for begin in range(0, rows, step):
            at = slice(begin, begin + step)
            x, target = self.x[at], self.target[at]
            logits = buffer[: len(x)]
            tanh = self.logits(logits, x)
            weights = self.weight, None if self.sample_weight is None else self.sample_weight[at]
            arguments = logits, target, self.options.formula, *weights, self.options.ignore_index
            if not any(wanted) and self.options.reduction != "normalized":
                values[at] = torch.ops.imae_ext.forward(*arguments, 0)
                continue
            values[at], example[at] = torch.ops.imae_ext.forward_backward_(*arguments)
            if tanh is not None:
                logits.mul_(tanh.square_().neg_().add_(1))
            if dx is not None:
                self.product(dx[at], logits, self.head, 0)
            if dw is not None:
                self.product(dw, logits.t(), x, 0 if begin == 0 else 1)
            if db is not None:
                db.copy_(torch.sum(logits, 0, dtype=self.compute).mul_(scale).add_(db if begin else 0))
        if self.live is None:
            return values, example, (dx, dw, db)
        return *map(self.spread, (values, example)), (None if dx is None else self.spread(dx), dw, db)  # type: ignore[return-value]

    def product(self, to: Tensor, a: Tensor, b: Tensor, keep: int) -> None:
        """Write logit_scale a b over `to`, or add it."""
        scale = self.options.logit_scale
        if self.widens:
            product = torch.mm(a, b, out_dtype=to.dtype)
            to.copy_(product.mul_(scale)) if not keep else to.add_(product, alpha=scale)
        else:
            torch.addmm(to, a, b, beta=keep, alpha=scale, out=to)

    def spread(self, of_live: Tensor) -> Tensor:
        """Put the rows that count where they were; the others are 0."""
        return of_live.new_zeros(self.N, *of_live.shape[1:]).index_copy_(0, self.live, of_live)  # type: ignore[arg-type]

    def reduce(self, values: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and what the gradient of the sum is divided by."""
        divisor = values.new_ones((), dtype=torch.float64)
        if self.options.reduction == "mean":
            divisor = self.row_weights.double().sum()
        elif self.options.reduction == "normalized":
            divisor = torch.where(self.counts, example.double() * self.row_weights, 0.0).sum()
        return (values.double().sum() / divisor).to(self.compute), divisor.to(self.compute)


def _made(like: Tensor, size: tuple[int, ...], written: bool, dtype: torch.dtype) -> Tensor:
    return like.new_empty(size, dtype=dtype) if written else like.new_zeros(size, dtype=dtype)


def _finish(
    gradients: Gradients, by: Tensor, counts: Tensor, inputs: tuple[Tensor, Tensor, Tensor | None], in_place: bool
) -> Gradients:
    """Multiply the sum's gradients by a number, round once, and give them their shapes and dtypes.

    Rows that do not count, and everything if none does, stay 0 even if it is infinite or NaN.
    """
    dx, dw, db = gradients
    by_all = torch.where(counts.any(), by, 0.0)

    def times(g: Tensor | None, factor: Tensor, like: Tensor | None) -> Tensor | None:
        if g is None or like is None:
            return None
        return (g.mul_(factor) if in_place else g * factor).to(like.dtype).reshape(like.shape)

    x, head, bias = inputs
    if dx is not None:
        factor = torch.where(counts, by, 0.0).unsqueeze(1)
        dx = times(dx, factor, x)
    return dx, times(dw, by_all, head), times(db, by_all, bias)


def reference_loss(
    x: Tensor,
    head: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: Head,
) -> Tensor:
    """Compute it with all logits at once, in plain PyTorch."""
    logits = F.linear(x, head, bias).reshape(-1, len(head))
    if options.logit_scale != 1:
        logits = logits * options.logit_scale
    if options.softcap is not None:
        logits = options.softcap * torch.tanh(logits / options.softcap)
    loss = reference.robust_loss(
        logits,
        target.reshape(-1),
        unpack(options.formula),
        weight=weight,
        sample_weight=None if sample_weight is None else sample_weight.reshape(-1),
        ignore_index=options.ignore_index,
        reduction=options.reduction,
    )
    return loss.reshape(target.shape) if options.reduction == "none" else loss


class _LinearLoss(torch.autograd.Function):
    """The gradients, ready before they are asked for, are no saved tensors: see ops._Loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        target, weight, sample_weight, options = rest
        ctx.save_for_backward(x, head, bias, target, weight, sample_weight)
        ctx.options, ctx.gradients = options, None
        call = Call(x, head, bias, *rest)
        if options.reduction == "none":
            return call.run((False,) * 3)[0].reshape(target.shape)
        # checkpointing drops what it can make again, and offloading would move what is larger than the input
        ahead = not _torch.saving_hooks(False)
        wanted = tuple(wish and ahead for wish in ctx.needs_input_grad[:3])
        values, example, gradients = call.run(wanted)  # type: ignore[arg-type]
        loss, ctx.divisor = call.reduce(values, example)
        ctx.gradients, ctx.counts = gradients if ahead else None, call.counts
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        wanted, options = ctx.needs_input_grad[:3], ctx.options
        x, head, bias, target, weight, sample_weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            loss = reference_loss(x, head, bias, target, weight, sample_weight, options)
            inputs = [t for t, wish in zip((x, head, bias), wanted, strict=True) if wish]
            found = iter(torch.autograd.grad(loss, inputs, grad_output, create_graph=True))
            return *(next(found) if wish else None for wish in wanted), None, None, None, None
        if options.reduction == "none":
            done = _of_none(x, head, bias, target, weight, sample_weight, options, grad_output, wanted)
            return *done, None, None, None, None
        gradients, counts, ctx.gradients = ctx.gradients, ctx.counts, None
        if gradients is None:  # a second time through a retained graph, or not made ahead
            *_, gradients = Call(x, head, bias, target, weight, sample_weight, options).run(wanted)
        done = _finish(gradients, grad_output / ctx.divisor, counts, (x, head, bias), in_place=True)
        return *done, None, None, None, None


def _of_none(
    x: Tensor,
    head: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: Head,
    grad_output: Tensor,
    wanted: tuple[bool, bool, bool],
) -> Gradients:
    """Compute the gradients for an upstream gradient of each row."""
    compute = grad_output.dtype
    w = reference.row_weights(target, weight, sample_weight, options.ignore_index, compute)
    w = torch.where(w != 0, grad_output if sample_weight is None else grad_output * sample_weight.to(compute), 0.0)
    call = Call(x, head, bias, target, weight, w, options)
    *_, gradients = call.run(wanted)
    return _finish(gradients, grad_output.new_ones(()), call.counts, (x, head, bias), in_place=True)


apply = _LinearLoss.apply


# --- for torch.compile: one operator, with a derivative of its own --------------------------------------------------


def like_logits(x: Tensor, head: Tensor) -> Tensor:
    """Return something with the shape of the logits, for the checks."""
    return torch.empty((*x.shape[:-1], len(head)), device="meta").reshape(-1, len(head))


def _options(formula: list[float], ignore_index: int, code: int, scale: float, cap: float, chunk: int) -> Head:
    return Head(formula, ignore_index, list(checks.REDUCTIONS)[code], scale, cap or None, chunk or None)


def _or_empty(gradients: Gradients, like: Tensor) -> list[Tensor]:
    return [like.new_empty(0) if g is None else g for g in gradients]


@torch.library.custom_op("imae_ext::linear_loss", mutates_args=())
def linear_loss(
    x: Tensor,
    head: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    formula: list[float],
    ignore_index: int,
    reduction: int,
    logit_scale: float,
    softcap: float,
    chunk: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the loss, the sum's gradients that are wanted (else empty tensors), and what they are divided by."""
    options = _options(formula, ignore_index, reduction, logit_scale, softcap, chunk)
    checks.check_labels(like_logits(x, head), target, ignore_index)
    call = Call(x, head, bias, target, weight, sample_weight, options)
    values, example, gradients = call.run(tuple(wanted))  # type: ignore[arg-type]
    if options.reduction == "none":
        return values.reshape(target.shape), *_or_empty((None,) * 3, values), values.new_ones(())  # type: ignore[return-value]
    loss, divisor = call.reduce(values, example)
    return loss, *_or_empty(gradients, loss), divisor  # type: ignore[return-value]


@linear_loss.register_fake
def _(x: Any, head: Any, bias: Any, target: Any, weight: Any, sample_weight: Any, formula: Any, *rest: Any) -> Any:
    wanted = rest[-1]
    of = torch.float64 if head.dtype is torch.float64 else torch.float32
    sizes = ((target.numel(), x.shape[-1]), head.shape, head.shape[:1])
    none = rest[1] == 0
    made = [
        head.new_empty(size if wish and not none else 0, dtype=of) for wish, size in zip(wanted, sizes, strict=True)
    ]
    shape = target.shape if none else ()
    return head.new_empty(shape, dtype=of), *made, head.new_empty((), dtype=of)


@torch.library.custom_op("imae_ext::linear_loss_backward", mutates_args=())
def _linear_loss_backward(
    x: Tensor,
    head: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    formula: list[float],
    ignore_index: int,
    logit_scale: float,
    softcap: float,
    chunk: int,
    wanted: list[bool],
    grad_output: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    options = _options(formula, ignore_index, 0, logit_scale, softcap, chunk)
    done = _of_none(x, head, bias, target, weight, sample_weight, options, grad_output, tuple(wanted))  # type: ignore[arg-type]
    return tuple(_or_empty(done, head))  # type: ignore[return-value]


@_linear_loss_backward.register_fake
def _(x: Any, head: Any, bias: Any, *rest: Any) -> Any:
    wanted = rest[-2]
    return tuple(head.new_empty(t.shape if wish else 0) for wish, t in zip(wanted, (x, head, bias), strict=True))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, formula, ignore_index, code, scale, cap, chunk, wanted = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.options, ctx.code, ctx.wanted = (formula, ignore_index, scale, cap, chunk), code, wanted
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    done: Any = (None, None, None)
    x, head, bias, target, weight, sample_weight, *gradients, divisor = ctx.saved_tensors
    if grad_output is not None and ctx.code == 0:
        done = _linear_loss_backward(
            x, head, bias, target, weight, sample_weight, *ctx.options, ctx.wanted, grad_output.contiguous()
        )
    elif grad_output is not None:
        weights = target.reshape(-1), weight, None if sample_weight is None else sample_weight.reshape(-1)
        counts = reference.row_weights(*weights, ctx.options[1], divisor.dtype) != 0
        wished: Any = tuple(g if wish else None for g, wish in zip(gradients, ctx.wanted, strict=True))
        done = _finish(wished, grad_output / divisor, counts, (x, head, bias), in_place=False)
    return *(g if wish else None for g, wish in zip(done, ctx.wanted, strict=True)), *[None] * 10


torch.library.register_autograd("imae_ext::linear_loss", _derivative, setup_context=_save)
