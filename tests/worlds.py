"""Processes that compute together: a world of gloo processes on this machine runs many cases, and rank 0 tells."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def _process(rank: int, size: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    try:
        found = work(*arguments)
        torch.save(found, f"{folder}/{rank}.pt")
        if not (isinstance(found, dict) and found.get("over")):
            dist.barrier()  # nobody ends while another still waits for an answer
    except BaseException:
        print(f"rank {rank}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        raise
    finally:
        dist.destroy_process_group()


def run(size: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `work(*arguments)` returns on each process of a new world; it is a function of a module."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(_process, (size, str(folder), work, arguments), size)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def message(call: Callable[[], Any]) -> str:
    """Return what an error says, with its type; nothing if there is none."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
