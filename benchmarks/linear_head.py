"""The fused linear head against what it replaces: time of forward and backward, and peak memory, side by side.

    python -m benchmarks.linear_head [--shapes 1024x512x32000,...] [--dtype float32] [--threads 2] [--repeats 5]

Shapes are rows x hidden size x classes. Times are medians over rounds in which each way runs once, with the least and
the largest; ratios are to ours. `products` is the floor: the three matrix products of the same chunks alone, into
buffers that are reused. Memory is what a process of its own needs at most beyond inputs and gradients; on a GPU, what
torch's allocator says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imae_ext import CCE, linear_robust_loss
from imae_ext.head import rows_of_a_chunk

SHAPES = "1024x512x32000,2048x512x32000,2048x256x8000"


def inputs(shape: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    N, D, C = map(int, shape.split("x"))
    torch.manual_seed(0)
    x, head = torch.randn(N, D, device=device), torch.randn(C, D, device=device) / D**0.5
    return (*(t.to(dtype).requires_grad_() for t in (x, head)), torch.randint(C, (N,), device=device))


def products(x: Tensor, head: Tensor) -> Callable[[], None]:
    """The three products of all chunks."""
    x, head = x.detach(), head.detach()
    step = rows_of_a_chunk(len(x), *head.shape, head.element_size())
    logits, dx, dw = head.new_empty(step, len(head)), torch.empty_like(x), torch.empty_like(head)

    def run() -> None:
        for begin in range(0, len(x), step):
            rows = x[begin : begin + step]
            chunk = logits[: len(rows)]
            torch.mm(rows, head.t(), out=chunk)
            torch.mm(chunk, head, out=dx[begin : begin + step])
            dw.addmm_(chunk.t(), rows, beta=0 if begin == 0 else 1)

    return run


def ways(x: Tensor, head: Tensor, target: Tensor) -> dict[str, Callable[[], Tensor | None]]:
    made: dict[str, Callable[[], Tensor | None]] = {
        "ours": lambda: linear_robust_loss(x, head, target, CCE()),
        "linear + cross_entropy": lambda: F.cross_entropy(F.linear(x, head), target),
        "products": products(x, head),
    }
    if hasattr(F, "linear_cross_entropy"):
        chunked = nn.LinearCrossEntropyOptions()
        made["linear_cross_entropy"] = lambda: F.linear_cross_entropy(x, head, target, options=chunked)
    return made


def seconds(way: Callable[[], Tensor | None], x: Tensor, head: Tensor) -> float:
    x.grad = head.grad = None
    begin = time.perf_counter()
    loss = way()
    if loss is not None:
        loss.backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak(device: str) -> int:
    """Bytes at most since the last call of this."""
    if device == "cuda":
        found = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return found
    # not getrusage, whose maximum a process takes over from the one that started it
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) * 1024


def extra_memory(way: str, shape: str, dtype: torch.dtype, device: str) -> float:
    """In MB, measured here: of one call after small ones that load what torch loads when first used."""
    small, large = inputs("8x8x64", dtype, device), inputs(shape, dtype, device)
    seconds(ways(*small)[way], *small[:2])
    peak(device)
    before = peak(device)
    seconds(ways(*large)[way], *large[:2])
    return (peak(device) - before - sum(t.nbytes for t in large[:2])) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only-memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    if options.only_memory_of:
        print(extra_memory(options.only_memory_of, options.shapes, dtype, options.device))
        return
    print(f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads")
    for shape in options.shapes.split(","):
        x, head, target = inputs(shape, dtype, options.device)
        all_ways = ways(x, head, target)
        times: dict[str, list[float]] = {name: [] for name in all_ways}
        for turn in range(options.repeats + 1):
            for name, way in all_ways.items():
                taken = seconds(way, x, head)
                if turn:  # the first is to warm up
                    times[name].append(taken)
        for name, found in times.items():
            ratio = median(found) / median(times["ours"])
            middle, least, most = (1e3 * f(found) for f in (median, min, max))
            line = f"{shape:>16}  {name:<24} {middle:9.1f} ms [{least:.1f} to {most:.1f}]"
            line += f"  {ratio:5.2f} of ours"
            if not options.no_memory and name != "products":
                command = [sys.executable, "-m", "benchmarks.linear_head", *sys.argv[1:], "--shapes", shape]
                done = subprocess.run([*command, "--only-memory-of", name], capture_output=True, text=True, check=True)
                line += f"  {float(done.stdout):8.0f} MB more"
            print(line, flush=True)


if __name__ == "__main__":
    main()
