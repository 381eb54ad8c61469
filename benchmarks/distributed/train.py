"""Trains one small classifier in several ways over processes, and compares each with one process that has all rows.

    torchrun --nproc-per-node 2 -m benchmarks.distributed.train

The ways: DDP and FSDP2, rows spread unevenly and labels ignored unevenly, with the loss's ``group="world"``; and a head
whose classes are sharded (tensor parallelism), whose logits are a DTensor. Prints how far the weights end from those of
the one process, and fails if that is more than rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import imae_ext

N, FEATURES, CLASSES, STEPS = 90, 16, 10, 5
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Two layers; the second is the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(FEATURES, 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, CLASSES)."""
        return self.head(torch.tanh(self.body(x)))  # type: ignore[no-any-return]


def data() -> tuple[Tensor, Tensor]:
    """Return features and labels, a third of them ignored, most of these in the first rows."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(CLASSES, (N,), generator=generator)
    target[:25] = -100
    target[60:65] = -100
    return torch.randn(N, FEATURES, generator=generator), target


def share(rank: int, size: int) -> slice:
    """Return the rows of a process: the first one has about half of them, the others share the rest."""
    ends = [0, N // 2, *(N // 2 + (N - N // 2) * k // (size - 1) for k in range(1, size))]
    return slice(ends[rank], ends[rank + 1])


def train(model: nn.Module, loss_of: Loss, x: Tensor, y: Tensor) -> None:
    """Take some steps of plain SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    """Return all weights of a model, wherever they are, as one vector."""
    whole = (p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters())
    return torch.cat([p.detach().flatten() for p in whole])


def over_rows(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Compute the loss of the rows of all processes; the gradients are averaged over them afterwards."""
    return imae_ext.imae_loss(model(x), y, reduction="normalized", group="world")


def over_classes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Compute the loss of a DTensor, whose placements say what is where."""
    return imae_ext.imae_loss(model(x), y, reduction="normalized")


def ddp(x: Tensor, y: Tensor, mesh: DeviceMesh) -> Tensor:
    """Train by DDP on this process's rows."""
    model = nn.parallel.DistributedDataParallel(Net())
    rows = share(mesh.get_rank(), mesh.size())
    train(model, over_rows, x[rows], y[rows])
    return weights(model)


def fsdp(x: Tensor, y: Tensor, mesh: DeviceMesh) -> Tensor:
    """Train by FSDP2, which shards the weights as well."""
    model = Net()
    for module in (model.body, model.head, model):
        fully_shard(module, mesh=mesh)
    rows = share(mesh.get_rank(), mesh.size())
    train(model, over_rows, x[rows], y[rows])
    return weights(model)


def tensor_parallel(x: Tensor, y: Tensor, mesh: DeviceMesh) -> Tensor:
    """Train with a head of which each process has some classes; all have the same rows."""
    model = Net()
    plan = {
        "body": ColwiseParallel(output_layouts=Replicate()),
        "head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),
    }
    train(parallelize_module(model, mesh, plan), over_classes, x, y)
    return weights(model)


def main() -> None:
    """Train in every way, and compare."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    x, y = data()
    alone = Net()
    before = weights(alone)
    train(alone, over_classes, x, y)
    wanted, failed = weights(alone), False
    for way in (ddp, fsdp, tensor_parallel):
        found = way(x, y, mesh)
        off = float((found - wanted).norm() / (wanted - before).norm())
        failed |= not off < 1e-5
        if mesh.get_rank() == 0:
            print(f"{way.__name__}: {mesh.size()} processes, off by {off:.1e} of the way that the weights went")
    dist.barrier()
    dist.destroy_process_group()
    sys.exit(failed)


if __name__ == "__main__":
    main()
