"""The fused linear head against what it replaces: time of forward and backward, and peak memory, side by side.

    python -m benchmarks.linear_head [--shapes 1024x512x32000,...] [--dtype float32] [--threads 2] [--out FILE]
    python -m benchmarks.linear_head --device cuda --preset small --out FILE
    ONEDNN_MAX_CPU_ISA=AVX512_CORE python -m benchmarks.linear_head --dtype bfloat16      as without native bfloat16

Shapes are rows x hidden size x classes. Times are medians over rounds in which each way runs once, with the least and
the largest; ratios are medians of those within a round, to ours. `products` is the floor: the three matrix products of
the same chunks alone, into buffers that are reused. Memory is what a process of its own needs at most beyond inputs
and gradients; on a GPU, what torch's allocator says. Liger's and Apple's heads take part where they are installed and
run: Liger's own kernels need a GPU, on a CPU it is its scaled cross entropy, which has a fallback in torch.

--out adds to a JSON file of one machine; benchmarks/linear_head_page.py makes table and picture of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.machine import describe
from imae_ext import CCE, linear_robust_loss
from imae_ext.head import rows_of_a_chunk

PRESETS = {  # what must be shown; what a picture shows; seconds on a GPU; a test
    "main": "1024x512x32000,2048x512x32000,2048x256x8000",
    "vocabulary": ",".join(f"512x256x{C}" for C in (2000, 8000, 32000, 64000, 128000)),
    "small": "4096x1024x32000,2048x1024x128000",
    "tiny": "64x16x200",
}
Way = Callable[[], Tensor | None]
Results = dict[str, Any]


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


def ways(x: Tensor, head: Tensor, target: Tensor) -> dict[str, Way]:
    made: dict[str, Way] = {
        "ours": lambda: linear_robust_loss(x, head, target, CCE()),
        "linear + cross_entropy": lambda: F.cross_entropy(F.linear(x, head), target),
        "products": products(x, head),
    }
    if hasattr(F, "linear_cross_entropy"):
        chunked = nn.LinearCrossEntropyOptions()
        made["linear_cross_entropy"] = lambda: F.linear_cross_entropy(x, head, target, options=chunked)
    return made | peers(x, head, target)


def peers(x: Tensor, head: Tensor, target: Tensor) -> dict[str, Way]:
    """The heads of other packages, where these are."""
    made: dict[str, Way] = {}
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError:
        pass
    else:
        kind = "cce" if x.is_cuda and x.dtype is not torch.float32 else "torch_compile"
        made[f"cut_cross_entropy, {kind}"] = lambda: linear_cross_entropy(x, head, target, impl=kind)
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction as Fused
        from liger_kernel.ops.fused_linear_scaled_cross_entropy import (
            LigerFusedLinearScaledCrossEntropyFunction as Scaled,
        )
    except ImportError:
        return made
    if x.is_cuda:
        made["liger"] = lambda: Fused.apply(x, head, target)[0]
    else:
        made["liger, scaled"] = lambda: Scaled.apply(x, head, target).mean()
    return made


def seconds(way: Way, x: Tensor, head: Tensor) -> tuple[float, Tensor | None]:
    x.grad = head.grad = None
    begin = time.perf_counter()
    loss = way()
    if loss is not None:
        loss.backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin, loss


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
    for small in ("8x8x64", "16x8x72"):  # of two sizes: code for any size is compiled at the second
        x, head, target = inputs(small, dtype, device)
        seconds(ways(x, head, target)[way], x, head)
    large = inputs(shape, dtype, device)
    peak(device)
    before = peak(device)
    seconds(ways(*large)[way], *large[:2])
    return (peak(device) - before - sum(t.nbytes for t in large[:2])) / 2**20


def agree(found: dict[str, float]) -> None:
    """Refuse to time ways that compute something else; 5%: torch's chunked head is 2.6% off in bfloat16 on a CPU."""
    wrong = [name for name, loss in found.items() if abs(loss - found["ours"]) > 0.05 * abs(found["ours"])]
    if wrong:
        raise RuntimeError(f"{', '.join(wrong)} give another loss: {found}")


def times_of(shape: str, dtype: torch.dtype, options: argparse.Namespace) -> list[Results]:
    x, head, target = inputs(shape, dtype, options.device)
    all_ways = {name: way for name, way in ways(x, head, target).items() if name not in options.skip}
    losses: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in all_ways}
    for turn in range(options.repeats + 1):
        for name, way in all_ways.items():
            taken, loss = seconds(way, x, head)
            if turn:  # the first is to warm up
                times[name].append(1e3 * taken)
            elif loss is not None:
                losses[name] = loss.item()
        agree(losses)
    return [
        {
            "way": name,
            "ms": [round(f(found), 2) for f in (median, min, max)],
            "of_ours": round(median(a / b for a, b in zip(found, times["ours"], strict=True)), 3),
        }
        for name, found in times.items()
    ]


def memory_of(shape: str, options: argparse.Namespace) -> list[Results]:
    """What each way needs, each in a process of its own."""
    known = ways(*inputs("8x8x64", getattr(torch, options.dtype), options.device))
    names = [name for name in known if name not in ("products", *options.skip)]
    rows = []
    for name in names:
        fixed = ["--dtype", options.dtype, "--device", options.device, "--threads", str(options.threads)]
        command = [sys.executable, "-m", "benchmarks.linear_head", *fixed, "--shapes", shape, "--only-memory-of", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"way": name, "mb": round(float(done.stdout.splitlines()[-1]), 1)})
    return rows


def about(options: argparse.Namespace) -> Results:
    found = describe(options.device)
    for key in ("load_before", "huge_pages"):
        found["machine"].pop(key, None)
    for package in ("cut-cross-entropy", "liger-kernel"):
        try:
            found["versions"][package] = version(package)
        except PackageNotFoundError:
            found["versions"].pop(package, None)
    found["versions"] = {name: number for name, number in found["versions"].items() if number}
    return found


def add(path: Path, described: Results, command: str, rows: Sequence[Results]) -> None:
    """Write rows to a file, in the place of those of the same case."""
    stored: Results = json.loads(path.read_text()) if path.exists() else {"commands": [], "rows": []}
    if stored["rows"] and stored["about"]["machine"] != described["machine"]:
        raise SystemExit(f"{path} is of another machine: {stored['about']['machine']}")
    keys = ("shape", "dtype", "threads", "limit", "way")
    kept = {tuple(row.get(key) for key in keys): row for row in stored["rows"]}
    for row in rows:
        key = tuple(row.get(each) for each in keys)
        kept[key] = kept.get(key, {}) | row
    if stored["rows"]:  # what this run lacks, another one's rows are of
        described = {**described, "versions": {**stored["about"]["versions"], **described["versions"]}}
    commands = sorted({*stored["commands"], command})
    lines = ",\n".join(json.dumps(row) for row in kept.values())
    head = json.dumps({"about": described, "commands": commands})[:-1]
    path.write_text(f'{head}, "rows": [\n{lines}\n]}}\n')


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linear_head", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shapes", help="rows x hidden size x classes, separated by commas")
    parser.add_argument("--preset", default="main", choices=PRESETS, help="shapes by name (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip", nargs="+", default=[], help="ways to leave out")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file to add to")
    parser.add_argument("--only-memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    shapes = options.shapes or PRESETS[options.preset]
    if options.only_memory_of:
        print(extra_memory(options.only_memory_of, shapes, dtype, options.device))
        return
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    print(f"torch {torch.__version__}, {options.device}, {options.dtype}, {options.threads} threads, {limit or 'all'}")
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(word for i, word in enumerate(given) if "--out" not in (word, *given[max(i - 1, 0) : i]))
    for shape in shapes.split(","):
        case = {"shape": shape, "dtype": options.dtype, "threads": options.threads} | (
            {"limit": limit} if limit else {}
        )
        rows = [] if options.no_times else times_of(shape, dtype, options)
        by_way = {row["way"]: row for row in rows}
        for row in [] if options.no_memory else memory_of(shape, options):
            by_way[row["way"]] = by_way.get(row["way"], {}) | row
        for name, row in by_way.items():
            time_of = "{:9.1f} ms [{:.1f} to {:.1f}]".format(*row["ms"]) if "ms" in row else ""
            ratio = f"{row['of_ours']:6.2f} of ours" if "of_ours" in row else ""
            memory = f"{row['mb']:8.0f} MB more" if "mb" in row else ""
            print(f"{shape:>16}  {name:<32} {time_of} {ratio} {memory}", flush=True)
        if options.out:
            prefix = f"ONEDNN_MAX_CPU_ISA={limit} " if limit else ""
            full = f"{prefix}python -m benchmarks.linear_head {command}".strip()
            add(options.out, about(options), full, [case | row for row in by_way.values()])


if __name__ == "__main__":
    main()
