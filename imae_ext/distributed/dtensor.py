"""Losses of DTensor logits: rows sharded, classes sharded, replicated, or several of these over a mesh.

Every process computes with what it has, and its gradient goes back with the logits' placement. What DTensor itself
would do, to redistribute an operand, never happens: each tensor is taken apart here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from . import groups, rows, signature
from .spread import Spread
from .spread import loss as spread_loss

# formula, weight, sample_weight, label_smoothing, ignore_index, reduction
Options = rows.Options


def is_dtensor(x: object) -> bool:
    """Whether a tensor is a DTensor; without an import of what makes them."""
    return isinstance(x, Tensor) and type(x).__name__ == "DTensor" and hasattr(x, "placements")


def refuse_group(group: object) -> None:
    """A DTensor says by itself over which processes it is spread."""
    if group is not None:
        raise ValueError(
            "imae_ext: expected no group for DTensor logits, whose mesh says where the rows are, got one; for rows "
            "beyond the mesh, pass logits.to_local()"
        )


class Layout(NamedTuple):
    """Where a process's part of the logits is in the whole."""

    mesh: Any
    shape: torch.Size  # of the whole logits
    begin: tuple[int, ...]  # of the part
    size: tuple[int, ...]
    placements: tuple[Any, ...]  # of the logits
    row_placements: tuple[Any, ...]  # of what has a number for each row
    classes: groups.Groups  # the groups that share a row's classes
    rows: groups.Groups  # the groups that have other rows
    dim: int  # where the classes are

    def part_of(self, name: str, x: Tensor, has_classes: bool = False) -> Tensor:
        """Return this process's part of what belongs to rows: a DTensor, the whole, or already the part."""
        dims = [k for k in range(len(self.shape)) if has_classes or k != self.dim]
        whole = tuple(self.shape[k] for k in dims)
        here = tuple(self.size[k] for k in dims)
        if not isinstance(x, Tensor):
            checks.expect_tensor(name, x)
        if is_dtensor(x):
            x = self._local(name, x, has_classes)
            if tuple(x.shape) == here:
                return x
        if tuple(x.shape) == whole:
            for k, dim in enumerate(dims):
                x = x.narrow(k, self.begin[dim], self.size[dim])
            return x
        if tuple(x.shape) == here:
            return x
        parts = "" if whole == here else f", or {here}, this process's part"
        raise ValueError(f"imae_ext: expected {name} of shape {whole}{parts}, got {tuple(x.shape)}")

    def _local(self, name: str, x: Any, has_classes: bool) -> Tensor:
        replicated = all(each.is_replicate() for each in x.placements)
        fits = self.placements if has_classes else self.row_placements
        if x.device_mesh != self.mesh or not (replicated or tuple(x.placements) == fits):
            raise ValueError(
                f"imae_ext: expected {name} with placements {fits} on the logits' mesh, or replicated, got "
                f"{tuple(x.placements)} on {x.device_mesh}; pass {name}.redistribute(...)"
            )
        return x.to_local()  # type: ignore[no-any-return]


def layout(logits: Any) -> Layout:
    """Read the placements; refuse those that are no part of the whole."""
    from torch.distributed.tensor import Replicate, Shard

    mesh, shape = logits.device_mesh, logits.shape
    if logits.dim() == 0:
        raise ValueError("imae_ext: expected logits of shape (N, C), (C,) or (N, C, d1, ...), got a scalar")
    dim = min(1, logits.dim() - 1)
    if mesh.get_coordinate() is None:
        raise ValueError("imae_ext: expected logits on a mesh that this process belongs to")
    begin, size = [0] * len(shape), list(shape)
    row_placements: list[Any] = []
    of_classes: list[Any] = []
    of_rows: list[Any] = []
    for k, (placement, at) in enumerate(zip(logits.placements, mesh.get_coordinate(), strict=True)):
        if placement.is_replicate():
            row_placements.append(Replicate())
            continue
        if type(placement) is not Shard:
            raise ValueError(
                f"imae_ext: expected logits whose placements are Shard or Replicate, got {tuple(logits.placements)}; "
                "pass logits.redistribute(placements=...)"
            )
        sharded = placement.dim % len(shape)
        chunk = -(-size[sharded] // mesh.size(k))  # as torch.chunk divides: the last ones are shorter, or empty
        first = min(at * chunk, size[sharded])
        begin[sharded] += first
        size[sharded] = min(chunk, size[sharded] - first)
        (of_classes if sharded == dim else of_rows).append(mesh.get_group(k))
        row_placements.append(Replicate() if sharded == dim else Shard(sharded - (sharded > dim)))
    part = tuple(begin), tuple(size), tuple(logits.placements), tuple(row_placements)
    return Layout(mesh, shape, *part, tuple(of_classes), tuple(of_rows), dim)


def loss(robust_loss: Callable[..., Tensor], logits: Any, target: Tensor, options: Options) -> Tensor:
    """Compute :func:`imae_ext.robust_loss`, which is passed for the parts, of DTensor logits."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    checks.check_options(formula, reduction, ignore_index)
    checks.expect_logits(logits, target)
    at = layout(logits)
    weight = _whole(weight)
    is_soft = isinstance(target, Tensor) and target.is_floating_point()
    if at.classes and (is_soft or label_smoothing != 0):
        asked = "probabilities as target" if is_soft else "label_smoothing="
        instead = "" if is_soft else "; the formula LabelSmoothing does it"
        raise ValueError(
            f"imae_ext: expected class labels for logits whose classes are sharded, got {asked}{instead}; else shard "
            "the rows: logits.redistribute(placements=[Shard(0)])"
        )
    labels = at.part_of("target", target, has_classes=is_soft)
    samples = None if sample_weight is None else at.part_of("sample_weight", sample_weight)
    local = logits.to_local()
    _agree(at, logits, options)
    if at.classes:
        like = torch.empty((), dtype=local.dtype, device=local.device).expand(_whole_rows(local, at))
        checks.check(like, labels, formula, weight, samples, ignore_index, reduction)
        found = (formula, weight, samples, checks.as_label(ignore_index), reduction)
        spread = Spread(at.begin[at.dim], at.shape[at.dim], at.classes, at.rows)
        return _placed(spread_loss(local, labels, found, spread), at, reduction)
    given = (formula, weight, samples, label_smoothing, ignore_index, reduction)
    rows.check(local, labels, given)

    call = rows.with_options(robust_loss, local, labels, given)
    return _of_rows(at, reduction, lambda: rows.divisor(local, labels, given), weight, call)


def mixed(
    mixed_loss: Callable[..., Tensor],
    divisor: Callable[..., Tensor],
    logits: Any,
    labels: tuple[Any, ...],
    options: tuple[Any, ...],
) -> Tensor:
    """Compute :func:`imae_ext.mixed_loss`, which is passed with what computes its divisor, of DTensor logits."""
    formula, weight, sample_weight, ignore_index, reduction = options
    checks.check_options(formula, reduction, ignore_index)
    at = layout(logits)
    if at.classes:
        raise ValueError(
            "imae_ext: expected one label a row for logits whose classes are sharded, got two; shard the rows: "
            "logits.redistribute(placements=[Shard(0)])"
        )
    local, weight = logits.to_local(), _whole(weight)
    named = zip(("target", "other", "lam", "other_lam", "sample_weight"), (*labels, sample_weight), strict=True)
    *here, samples = (at.part_of(name, x) if isinstance(x, Tensor) and x.dim() > 0 else x for name, x in named)
    target, other, lam, other_lam = here
    _agree(at, logits, (formula, weight, sample_weight, 0.0, ignore_index, reduction), "mixed_loss")
    more = {"other_lam": other_lam, "sample_weight": samples, "ignore_index": ignore_index}
    call = partial(mixed_loss, local, target, other, lam, formula, **more)
    given = (formula, weight, samples, ignore_index, reduction)
    return _of_rows(at, reduction, lambda: divisor(local, here, given), weight, call)


def _of_rows(
    at: Layout,
    reduction: str,
    divisor: Callable[[], Tensor],
    weight: Tensor | None,
    call: Callable[..., Tensor],
) -> Tensor:
    """Reduce whole rows over the processes that have others; `call` and `divisor` know of those that are here."""
    if reduction == "none" or not at.rows:
        return _placed(call(weight=weight, reduction=reduction), at, reduction)
    if reduction == "sum":
        return _placed(groups.of_all(call(weight=weight, reduction="sum"), at.rows, 1), at, reduction)
    return _placed(groups.reduced(at.rows, 1, divisor(), weight, (at.shape[at.dim],), call), at, reduction)


def _whole(weight: Any) -> Any:
    """Return class weights on every process."""
    return weight.full_tensor() if is_dtensor(weight) else weight


def _whole_rows(local: Tensor, at: Layout) -> list[int]:
    shape = list(local.shape)
    shape[at.dim] = at.shape[at.dim]
    return shape


def _placed(value: Tensor, at: Layout, reduction: str) -> Tensor:
    """Return a scalar that is the same everywhere, or what each row has with the rows' placement."""
    from torch.distributed.tensor import DTensor, Replicate

    if reduction != "none":
        return DTensor.from_local(value, at.mesh, [Replicate()] * at.mesh.ndim, run_check=False)
    shape = torch.Size(n for k, n in enumerate(at.shape) if k != at.dim)
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(value, at.mesh, at.row_placements, run_check=False, shape=shape, stride=stride)


def _agree(at: Layout, logits: Any, options: Options, call: str = "robust_loss") -> None:
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    weights = weight is not None, sample_weight is not None
    C, N = at.shape[at.dim], math.prod(at.shape) // max(at.shape[at.dim], 1)
    said = signature.Said(call, formula, logits.dtype, reduction, int(ignore_index), N, C, label_smoothing, *weights)
    for group in (*at.classes, *at.rows):
        signature.agree(group, said)
