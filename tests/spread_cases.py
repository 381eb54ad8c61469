"""Losses whose classes or rows are spread over processes: what each of them has, and every kind of case."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.distributed as dist
from cases import FORMULAS, Spec
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import imae_ext

N, C = 14, 11  # no number of processes here divides either; two processes of four have no 4 rows apart
Found = tuple[Tensor, Tensor]  # value and gradient of the whole
PLACEMENTS = {
    "rows": ((Shard(0),), None),
    "classes": ((Shard(1),), None),
    "replicated": ((Replicate(),), None),
    "rows and classes": ((Shard(0), Shard(1)), (2, 2)),
    "classes and rows": ((Shard(1), Shard(0)), (2, 2)),
    "classes twice": ((Shard(1), Shard(1)), (2, 2)),
    "rows, copies": ((Shard(0), Replicate()), (2, 2)),
    "classes, copies": ((Replicate(), Shard(1)), (2, 2)),
}


def whole(dtype: torch.dtype = torch.float64, n: int = N, classes: int = C) -> dict[str, Tensor]:
    """A batch with labels in every shard, with rows ignored unevenly."""
    generator = torch.Generator().manual_seed(n + classes)
    target = torch.arange(n) * 5 % classes
    target[1:4] = -100
    target[-1] = -100
    return {
        "logits": (4 * torch.randn(n, classes, generator=generator)).to(dtype),
        "target": target,
        "weight": torch.rand(classes, generator=generator).to(dtype),
        "sample_weight": torch.rand(n, generator=generator).to(dtype),
        "probabilities": torch.rand(n, classes, generator=generator).softmax(1).to(dtype),
        "other": torch.randint(classes, (n,), generator=generator),
        "lam": torch.rand(n, generator=generator).to(dtype),
    }


def single(formula: Any, data: dict[str, Tensor], reduction: str, **options: Any) -> Found:
    """What one process computes."""
    leaf = data["logits"].clone().requires_grad_()
    value = imae_ext.robust_loss(leaf, data["target"], formula, reduction=reduction, **options)
    value.backward(upstream(value))
    return value.detach(), leaf.grad


def upstream(value: Tensor) -> Tensor:
    """Another number for each row, where there are rows."""
    return torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)


def mesh_of(shape: tuple[int, ...] | None) -> Any:
    return init_device_mesh("cpu", shape or (dist.get_world_size(),))


def spread(
    formula: Any, data: dict[str, Tensor], placement: str, reduction: str, meshes: dict[Any, Any], **options: Any
) -> Found:
    """The same of DTensor logits; value and gradient put together again."""
    placements, shape = PLACEMENTS[placement]
    mesh = meshes.setdefault(shape, None) or mesh_of(shape)
    meshes[shape] = mesh
    leaf = distribute_tensor(data["logits"].clone(), mesh, placements).requires_grad_()
    value = imae_ext.robust_loss(leaf, data["target"], formula, reduction=reduction, **options)
    assert isinstance(value, DTensor)
    above = upstream(torch.empty(value.shape, dtype=value.dtype))
    value.backward(distribute_tensor(above, mesh, value.placements))
    assert leaf.grad.placements == leaf.placements
    return value.detach().full_tensor(), leaf.grad.full_tensor()


def vocab(formula: Any, data: dict[str, Tensor], ends: tuple[int, ...], reduction: str, **options: Any) -> Found:
    """Classes over a plain group; each process has those up to its end."""
    rank = dist.get_rank()
    begin, end = (0, *ends)[rank : rank + 2]
    leaf = data["logits"][:, begin:end].clone().requires_grad_()
    given = {"first_class": begin, "num_classes": data["logits"].shape[1], "group": "world", **options}
    value = imae_ext.vocab_parallel_robust_loss(leaf, data["target"], formula, reduction=reduction, **given)
    value.backward(upstream(value))
    grad = torch.zeros_like(data["logits"])
    grad[:, begin:end] = leaf.grad
    dist.all_reduce(grad)
    return value.detach(), grad


def reductions(spec: Spec) -> tuple[str, ...]:
    return ("mean", "sum", "none", "normalized") if spec.margin else ("mean", "sum", "none")


def product_of_all() -> list[tuple[int, str, str, str]]:
    """(formula, placement, reduction, weights) of everything."""
    every = [(i, r) for i, spec in enumerate(FORMULAS) for r in reductions(spec)]
    return [(i, p, r, w) for (i, r), p, w in product(every, PLACEMENTS, ("", "weighed"))]


def selection() -> list[tuple[int, str, str, str]]:
    """Each formula with each placement, each reduction with each placement; the rest in turn."""
    chosen = []
    for i, spec in enumerate(FORMULAS):
        for k, placement in enumerate(PLACEMENTS):
            of = reductions(spec)
            chosen.append((i, placement, of[(i + k) % len(of)], ("", "weighed")[(i // 2 + k) % 2]))
    return chosen


def options_of(weights: str, data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: data[name] for name in ("weight", "sample_weight")} if weights else {}
