"""Two processes that share the classes: this package beside torch's loss_parallel, in turn, in one run.

    python -m benchmarks.distributed.speed [--rows 1024] [--classes 128256] [--rounds 5] [--store FILE]

Each process has one thread. Printed and stored are medians of forward and backward pass together, of the slower
process; what each contender sends a row; and how much memory it takes at most beside its logits, in units of them. A
file that is there already keeps what it has of other dtypes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import loss_parallel
from torch.utils._python_dispatch import TorchDispatchMode

import imae_ext

from ..speed.machine import describe

PROCESSES = 2
DTYPES = ("float32", "bfloat16")


class Sent(TorchDispatchMode):
    """Counts the numbers that collectives are given."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let DTensor take itself apart, then look at what is done."""
        if any(issubclass(each, DTensor) for each in types):
            return NotImplemented
        if "c10d" in func.namespace and ("all_reduce" in str(func) or "allreduce" in str(func)):
            given = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            self.numbers += sum(each.numel() for each in given)
        return func(*args, **(kwargs or {}))


def contenders(target: Tensor) -> dict[str, Callable[[Any], Tensor]]:
    """Return what computes a loss of DTensor logits; the last one gathers them first, and so is no parallel loss."""

    def of_torch(logits: Any) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, target)

    return {
        "torch": of_torch,
        "CCE": lambda logits: imae_ext.cce_loss(logits, target),
        "IMAE": lambda logits: imae_ext.imae_loss(logits, target),
        "NCE": lambda logits: imae_ext.nce_loss(logits, target),
        "gathered": lambda logits: torch.nn.functional.cross_entropy(logits.full_tensor(), target),
    }


def step(loss_of: Callable[[Any], Tensor], logits: Any) -> None:
    """Take a forward and a backward pass; torch's needs its context in both."""
    logits.grad = None
    with loss_parallel():
        loss_of(logits).backward()


def memory(name: str) -> int:
    """Return a line of this process's status, in bytes."""
    with open("/proc/self/status") as lines:
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def process(rank: int, folder: str, options: argparse.Namespace) -> None:
    """Measure, and let the first process store what the slower one took."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    found = {dtype: measure(mesh, getattr(torch, dtype), options) for dtype in options.dtypes}
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    dist.barrier()  # else the first to end may take the other's connection with it
    dist.destroy_process_group()


def measure(mesh: DeviceMesh, dtype: torch.dtype, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, numbers a row and memory of each contender."""
    torch.manual_seed(mesh.get_rank())
    N, C = options.rows, options.classes
    own = torch.randn(N, C // PROCESSES, dtype=torch.float32).to(dtype)
    logits = DTensor.from_local(own, mesh, [Shard(1)], run_check=False).requires_grad_()
    target = torch.arange(N) * 7919 % C
    those = contenders(target)
    found: dict[str, Any] = {name: {"seconds": []} for name in those}
    for name, loss_of in those.items():  # and warm up
        with Sent() as sent:
            step(loss_of, logits)
        found[name]["numbers_a_row"] = sent.numbers / N
        logits.grad = None
        own.flatten()[::512].sum()  # a system may have taken pages back that were long not read
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        step(loss_of, logits)
        found[name]["memory"] = round((memory("VmHWM") - before) / (own.numel() * own.element_size()), 2)
    for k in range(options.rounds):
        for name, loss_of in those.items():
            if name == "gathered" and k > 0:  # it is here for its memory, and takes long
                continue
            step(loss_of, logits)  # the first pass finds the memory as the contender before has left it
            logits.grad = None
            dist.barrier()
            begin = time.perf_counter()
            step(loss_of, logits)
            took = torch.tensor(time.perf_counter() - begin)
            dist.all_reduce(took, dist.ReduceOp.MAX)
            found[name]["seconds"].append(round(float(took), 4))
    for each in found.values():
        each["median"] = statistics.median(each["seconds"])
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=128256, help="a multiple of two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(process, (folder, options), PROCESSES)
        found = json.loads(Path(folder, "found.json").read_text())
    for dtype, each in found.items():
        by = each["torch"]["median"]
        for name, one in each.items():
            print(
                f"{dtype:9} {name:8} {1e3 * one['median']:8.0f} ms  {by / one['median']:5.1f}x  "
                f"{one['numbers_a_row']:g} numbers a row, {one['memory']:.2f} of the logits' memory"
            )
    if options.store:
        command = shlex.join(["python", "-m", "benchmarks.distributed.speed", *sys.argv[1:]])
        before = json.loads(options.store.read_text()) if options.store.exists() else {"commands": [], "found": {}}
        sizes = {"rows": options.rows, "classes": options.classes}
        commands, every = [*before["commands"], command], {**before["found"], **found}
        stored = {"commands": commands, **describe("cpu"), **sizes, "found": every}
        options.store.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
