"""With IMAE_EXT_DEBUG=1: whether all processes of a group mean the same call, before they compute together.

Processes that disagree would wait for one another for ever, or silently compute what none of them asked for. So every
call first gathers one signature of fixed size, and raises on all processes alike where two of them differ.
"""

from __future__ import annotations

import os
import struct
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ..formulas import Formula, unpack

PLACES = 48  # of 64 bits: those below, the length of a packed formula, and what is packed
_NUMBERS = 48 - 13
DTYPES = ("torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")
CALLS = (
    "robust_loss",
    "mixed_loss",
    "binary_robust_loss",
    "robust_loss_from_nll",
    "linear_robust_loss",
    "vocab_parallel_robust_loss",
)
REDUCTIONS = ("none", "mean", "sum", "normalized")


class Said(NamedTuple):
    """What the processes have to agree about; -1 where a call has no such thing."""

    call: str
    formula: Formula
    dtype: torch.dtype
    reduction: str
    ignore_index: int = -100
    N: int = -1  # rows, where all processes have the same ones
    C: int = -1
    label_smoothing: float = 0.0
    weight: bool = False
    sample_weight: bool = False
    first_class: int = -1  # where the classes are spread: those of this process
    classes: int = -1


def _encoded(said: Said) -> list[int]:
    packed = said.formula.packed
    numbers = [
        CALLS.index(said.call),
        DTYPES.index(str(said.dtype)),
        REDUCTIONS.index(said.reduction),
        said.ignore_index,
        said.N,
        said.C,
        _bits(said.label_smoothing),
        said.weight,
        said.sample_weight,
        said.first_class,
        said.classes,
        0,
        len(packed),
    ]
    return [*map(int, numbers), *map(_bits, packed), *[0] * (_NUMBERS - len(packed))]


def _bits(x: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


def _float(x: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", x))[0])


def _decoded(row: list[int]) -> Said:
    length = row[12]
    return Said(
        CALLS[row[0]],
        unpack([_float(x) for x in row[13 : 13 + length]]),
        getattr(torch, DTYPES[row[1]].removeprefix("torch.")),
        REDUCTIONS[row[2]],
        row[3],
        row[4],
        row[5],
        _float(row[6]),
        bool(row[7]),
        bool(row[8]),
        row[9],
        row[10],
    )


def agree(group: Any, said: Said) -> None:
    """Raise where the processes of a group do not mean the same call; costs nothing without IMAE_EXT_DEBUG=1."""
    if os.environ.get("IMAE_EXT_DEBUG") != "1" or torch.compiler.is_compiling():
        return
    backend = dist.get_backend(group)
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    own = torch.tensor(_encoded(said), dtype=torch.int64, device=device)
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, own, group=group)
    every = [_decoded(row.tolist()) for row in gathered]
    of_rank = [f"rank {dist.get_global_rank(group, i)}" for i in range(len(every))]
    for name, other in zip(of_rank, every, strict=True):
        for field in Said._fields[: Said._fields.index("first_class")]:
            mine, theirs = getattr(every[0], field), getattr(other, field)
            if mine != theirs:
                raise ValueError(
                    f"imae_ext: the processes of the group disagree about {field}: {of_rank[0]} has {mine!r}, {name} "
                    f"has {theirs!r}; every process has to make the same calls"
                )
    if said.classes >= 0:
        _check_tiling(every, of_rank)


def _check_tiling(every: list[Said], of_rank: list[str]) -> None:
    """Check that each class is on exactly one process."""
    shards = sorted(
        (said.first_class, said.first_class + said.classes, name) for said, name in zip(every, of_rank, strict=True)
    )
    end = 0
    for first, last, name in shards:
        if first == last:
            continue
        if first != end:
            held = ", ".join(f"{who} has [{a}, {b})" for a, b, who in shards)
            raise ValueError(
                f"imae_ext: expected the classes [0, {every[0].C}) once each over the processes of the group, got "
                f"{name}'s from {first} where {end} comes next ({held})"
            )
        end = last
    if end != every[0].C:
        raise ValueError(f"imae_ext: expected the classes [0, {every[0].C}) over the processes, got those up to {end}")
