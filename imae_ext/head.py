"""What linear.py computes with: a linear head and its loss, whose logits never exist all at once.

Rows are taken in chunks. A chunk's logits are written into a buffer, the fused kernel writes their gradient over them,
and two products take it to the hidden states and, added up in float32, to the head's weight. The gradient is that of
the rows' sum: what the reduction divides by, and what comes from above, is multiplied once in backward.

With ``reduction="none"`` the upstream gradient differs from row to row, so forward keeps nothing: backward makes the
logits again, with the upstream gradient among the sample weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _torch
from .head_targets import Inputs, rows_of

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]  # of input, linear_weight and linear_bias
Wanted = tuple[bool, bool, bool]  # which of them

# A chunk's logits: a quarter of all if that is small, else a fifth, within these bounds. Fewer rows make the products
# slow and read the head's weight and its gradient more often; more rows take memory and leave the caches.
LEAST_BYTES, SMALL_BYTES, MOST_BYTES, LEAST_ROWS = 8 << 20, 16 << 20, 64 << 20, 128
# Where bfloat16 products are added up in float32 one after another: a part stays in a core's cache.
PART_BYTES = 1 << 20


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
    wished = max(-(-N // 5) * row, min(-(-N // 4) * row, SMALL_BYTES), LEAST_BYTES)
    rows = max(min(wished, most) // row, min(LEAST_ROWS, -(-N // 5)), 1)
    return -(-N // -(-N // rows)) if N else 1


def may_wait(device: torch.device) -> bool:
    """Whether the rows that count may be counted: not while a CUDA graph is recorded, which cannot wait."""
    return device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


class Call:
    """The tensors of a call as the products take them, and what they have in common over all chunks."""

    def __init__(self, inputs: Inputs, options: Head) -> None:
        self.options, self.compute = options, inputs.compute
        x, head, bias = inputs[:3]
        half = head.dtype in (torch.float16, torch.bfloat16)
        on_cpu = head.device.type == "cpu"
        # most CPUs have no products of half precision, and torch's own are then many times slower; the derivative of a
        # softcap, 1 - tanh**2, would lose too much in bfloat16
        native = head.dtype is torch.bfloat16 and options.softcap is None and _torch.multiplies_bfloat16()
        dtype = self.compute if half and on_cpu and not native else head.dtype
        self.adds_parts = on_cpu and dtype is torch.bfloat16  # products of bfloat16, added up in float32 by parts
        self.widens = half and not on_cpu  # products of half precision, their results in float32
        self.head, self.bias = head.to(dtype), None if bias is None else bias.to(dtype)
        self.x, self.rows = x.reshape(-1, x.shape[-1]), rows_of(inputs, options.formula, options.ignore_index)
        self.N, self.counts, self.of_mean = len(self.x), self.rows.counts, self.rows.of_mean
        self.live = None  # the rows that count, where they are not all
        waits = may_wait(head.device)
        if waits and not bool(self.counts.all()):
            self.live = self.counts.nonzero().squeeze(1)
            self.x = self.x[self.live]
            self.rows.select(self.live)
        self.x = self.x.to(dtype)
        if not waits:  # all rows stay, and what those that do not count hold must not reach the weight
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

    def run(self, wanted: Wanted) -> tuple[Tensor, Tensor | None, Gradients]:
        """Return each row's value (0 for rows that do not count), the divisor of ``normalized`` and gradients.

        The gradients are of the rows' sum.
        """
        rows, (C, D) = len(self.x), self.head.shape
        step = self.options.chunk or rows_of_a_chunk(rows, C, D, self.head.element_size())
        normalized = self.options.reduction == "normalized"
        values = self.head.new_zeros(rows, dtype=self.compute)
        divisor = self.head.new_zeros((), dtype=torch.float64) if normalized else None
        made = (rows > 0, self.compute)
        dx, dw, db = (
            _made(self.head, size, *made) if wish else None
            for wish, size in zip(wanted, ((rows, D), (C, D), (C,)), strict=True)
        )
        scale = self.options.logit_scale
        buffer = self.head.new_empty(min(step, rows), C)
        for begin in range(0, rows, step):
            at = slice(begin, begin + step)
            x = self.x[at]
            logits = buffer[: len(x)]
            tanh = self.logits(logits, x)
            values[at], of_chunk = self.rows.step(at, logits, any(wanted), normalized)
            if divisor is not None and of_chunk is not None:
                divisor += of_chunk
            if tanh is not None and any(wanted):
                logits.mul_(tanh.square_().neg_().add_(1))
            if dx is not None:
                self.product(dx[at], logits, self.head, 0)
            if dw is not None:
                self.product(dw, logits.t(), x, 0 if begin == 0 else 1)
            if db is not None:
                db.copy_(torch.sum(logits, 0, dtype=self.compute).mul_(scale).add_(db if begin else 0))
        if self.live is None:
            return values, divisor, (dx, dw, db)
        return self.spread(values), divisor, (None if dx is None else self.spread(dx), dw, db)

    def product(self, to: Tensor, a: Tensor, b: Tensor, keep: int) -> None:
        """Write logit_scale a b over `to`, or add it."""
        scale = self.options.logit_scale
        if self.widens:
            product = torch.mm(a, b, out_dtype=to.dtype)
            to.copy_(product.mul_(scale)) if not keep else to.add_(product, alpha=scale)
        elif self.adds_parts:
            _add_by_parts(to, a, b, keep, scale)
        else:
            torch.addmm(to, a, b, beta=keep, alpha=scale, out=to)

    def spread(self, of_live: Tensor) -> Tensor:
        """Put the rows that count where they were; the others are 0."""
        return of_live.new_zeros(self.N, *of_live.shape[1:]).index_copy_(0, self.live, of_live)  # type: ignore[arg-type]

    def reduce(self, values: Tensor, of_normalized: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the loss and what the gradient of the sum is divided by."""
        divisor = values.new_ones((), dtype=torch.float64)
        if self.options.reduction == "mean":
            divisor = self.of_mean.double().sum()
        elif of_normalized is not None:
            divisor = of_normalized
        return (values.double().sum() / divisor).to(self.compute), divisor.to(self.compute)


def _made(like: Tensor, size: tuple[int, ...], written: bool, dtype: torch.dtype) -> Tensor:
    return like.new_empty(size, dtype=dtype) if written else like.new_zeros(size, dtype=dtype)


def _add_by_parts(to: Tensor, a: Tensor, b: Tensor, keep: int, scale: float) -> None:
    """Do what addmm does, for factors in bfloat16 and a sum in float32: torch has no such product on a CPU.

    A sum of two dtypes would be converted number by number; a part is turned into float32 while it is in the cache.
    """
    step = max(PART_BYTES // (4 * b.shape[1]), 64)
    product, wide = b.new_empty(min(step, len(to)), b.shape[1]), to.new_empty(min(step, len(to)), b.shape[1])
    for begin in range(0, len(to), step):
        part = to[begin : begin + step]
        narrow = torch.mm(a[begin : begin + step], b, out=product[: len(part)])
        if keep:
            part.add_(wide[: len(part)].copy_(narrow), alpha=scale)
        else:
            part.copy_(narrow)
            if scale != 1:
                part.mul_(scale)


def finish(
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
