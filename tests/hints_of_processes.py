"""Hints for DTensor logits, by a group of one process."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from hint_calls import Hint, ce, logits, target
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from imae_ext import CCE, row_stats, value_and_grad


def of_spread(call: Callable[[DTensor], torch.Tensor]) -> torch.Tensor:
    """What a call makes of the logits as a DTensor."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        made = call(distribute_tensor(logits, init_device_mesh("cpu", (1,)), [Shard(0)]))
        return made.full_tensor() if isinstance(made, DTensor) else made
    finally:
        dist.destroy_process_group()


OF_PROCESSES = {
    "out_of_a_dtensor": Hint(
        lambda: of_spread(lambda z: value_and_grad(z, target, CCE(), out=torch.empty_like(logits))[0]),
        "leave it out",
        lambda: of_spread(lambda z: value_and_grad(z, target, CCE())[0]),
        ce,
    ),
    "statistics_of_a_dtensor": Hint(
        lambda: of_spread(lambda z: row_stats(z, target).p),
        "pass logits.full_tensor()",
        lambda: of_spread(lambda z: row_stats(z.full_tensor(), target).p),
        lambda: logits.softmax(1)[torch.arange(6), target],
        TypeError,
    ),
}
