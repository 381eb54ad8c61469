"""Losses whose rows lie on several processes: what `group` means, and the two numbers that are added up over it.

A mean of the whole group is ``sum of all values / sum of all divisors``. Every process gets that value, and the
gradient of its own rows times a factor: the number of processes where gradients are averaged over the same group
afterwards, as DDP and FSDP do; 1 where they are not.

The divisor is summed up first, since it depends on no gradient; the share ``factor / divisor`` then goes into the call
as a weight of all rows, so that no gradient has to be scaled afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import torch
import torch.distributed as dist
from torch import Tensor

from . import signature

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    Group = Union[ProcessGroup, str, None]  # noqa: UP007 (evaluated by Python 3.10's typing, too)

Groups = tuple[Any, ...]  # of ProcessGroup, which torch lacks where it is built without


def resolve(group: Any) -> Any:
    """Return the process group that an argument means, at this call."""
    if not dist.is_available():
        raise ValueError("imae_ext: expected group=None, since this torch is built without torch.distributed")
    if isinstance(group, str):
        if group != "world":
            raise ValueError(f"imae_ext: expected group to be None, 'world' or a ProcessGroup, got {group!r}")
        if not dist.is_initialized():
            raise ValueError(
                "imae_ext: expected a process group for group='world', got none; call "
                "torch.distributed.init_process_group() before, or pass group=None for this process alone"
            )
        return dist.group.WORLD
    if not isinstance(group, dist.ProcessGroup):
        if group is dist.GroupMember.NON_GROUP_MEMBER or group == dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError(_NOT_A_MEMBER)
        hint = "; pass mesh.get_group()" if type(group).__name__ == "DeviceMesh" else ""
        raise TypeError(
            f"imae_ext: expected group to be None, 'world' or a ProcessGroup, got {type(group).__name__}{hint}"
        )
    if dist.get_rank(group) < 0:
        raise ValueError(_NOT_A_MEMBER)
    return group


_NOT_A_MEMBER = "imae_ext: expected a group that this process belongs to, got one of other processes"


def total(x: Tensor, groups: Groups) -> Tensor:
    """Return the sum over the processes of all groups, as a new tensor, float64 where the device has it."""
    wide = torch.float64 if x.device.type in ("cpu", "cuda", "xpu") else torch.float32
    x = x.detach().to(wide, copy=True)
    for group in groups:
        dist.all_reduce(x, group=group)
    return x


class _Whole(torch.autograd.Function):
    """The group's value, with the gradient of this process's part of it."""

    @staticmethod
    def forward(part: Tensor, whole: Tensor, by: Tensor) -> Tensor:
        return whole.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (by,) = ctx.saved_tensors
        return grad_output * by, None, None


class _Quotient(torch.autograd.Function):
    """The same for a divisor that is differentiated, too: by weights that require a gradient."""

    @staticmethod
    def forward(part: Tensor, divisor: Tensor, whole: Tensor, by_part: Tensor, by_divisor: Tensor) -> Tensor:
        return whole.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        by_part, by_divisor = ctx.saved_tensors
        return grad_output * by_part, grad_output * by_divisor, None, None, None


def reduced(
    groups: Groups,
    factor: int,
    divisor: Tensor,
    weight: Tensor | None,
    weight_shape: tuple[int, ...],
    call: Callable[..., Tensor],
) -> Tensor:
    """Divide the sum of all processes' rows by the sum of their divisors.

    Args:
      groups: over which the rows are spread; one all-reduce of a number in each, twice.
      factor: what this process's gradient is multiplied by.
      divisor: of this process's rows.
      weight: what the caller gave.
      weight_shape: of the weight that is passed on.
      call: computes the loss of this process's rows, with the weight and the reduction that it is given by name.
    """
    whole_divisor = total(divisor, groups)
    if divisor.requires_grad:
        part = call(weight=weight, reduction="sum")
        whole = total(part, groups) / whole_divisor
        numbers = (whole, factor / whole_divisor, -factor * whole / whole_divisor)
        quotient = _Quotient.apply(part, divisor, *(x.to(part.dtype) for x in numbers))  # type: ignore[no-untyped-call]
        return quotient  # type: ignore[no-any-return]
    # a divisor of 0 makes the value NaN or infinite, but the rows that do not count stay 0
    safe = torch.where(whole_divisor == 0, 1.0, whole_divisor)
    by = safe / whole_divisor
    dtypes = [x.dtype for x in (divisor, weight) if x is not None]
    share = (factor / safe).to(torch.float64 if torch.float64 in dtypes else torch.float32)
    shared = share.expand(weight_shape) if weight is None else weight.to(share.dtype) * share
    part = call(weight=shared, reduction="sum")
    return of_all(part, groups, factor, by)


def of_all(part: Tensor, groups: Groups, factor: int, by: Tensor | None = None) -> Tensor:
    """Return the sum of all processes' parts by the factor, with the gradient of this one's; both times `by`."""
    whole = total(part, groups) / factor
    by = whole.new_ones(()) if by is None else by
    whole = (whole * by).to(part.dtype)
    return _Whole.apply(part, whole, by.to(part.dtype))  # type: ignore[no-any-return,no-untyped-call]


def loss(
    group: Any,
    reduction: str,
    said: signature.Said,
    divisor: Callable[[], Tensor],
    weight: Tensor | None,
    weight_shape: tuple[int, ...],
    call: Callable[..., Tensor],
) -> Tensor:
    """Compute a loss of a group's rows, by `call` alone where the processes need not communicate."""
    found = resolve(group)
    signature.agree(found, said)
    if reduction in ("none", "sum"):
        return call(weight=weight, reduction=reduction)
    size = dist.get_world_size(found)
    return reduced((found,), size, divisor(), weight, weight_shape, call)
