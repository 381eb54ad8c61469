"""Times forward and backward in every tier against the bytes they move and the copy bandwidth of the same run.

Also the statistics of rows, for which the logits are only read.

python -m benchmarks.gpu_times OUT.json     measures, and writes after every shape
python -m benchmarks.gpu_times --show FILE  prints the table
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import imae_ext

from .speed import machine
from .speed.cases import Case, shape_name
from .speed.results import write

# The tier that the table chooses, the logits' shape and dtype: each tier in both dtypes, at 128 MB of logits or more,
# and last the launch-bound shapes of a training step.
SHAPES: list[tuple[str, tuple[int, ...], str]] = [
    ("row32", (32_768, 1000), "float32"),
    ("row32", (65_536, 1000), "bfloat16"),
    ("tile", (3_400_000, 10), "float32"),
    ("tile", (6_700_000, 10), "bfloat16"),
    ("row8", (340_000, 100), "float32"),
    ("tile", (670_000, 100), "bfloat16"),
    ("row256", (4096, 8192), "float32"),
    ("row256", (4096, 32000), "bfloat16"),
    ("cluster", (1024, 151936), "float32"),
    ("cluster", (1024, 256000), "bfloat16"),
    ("strided", (32, 19, 256, 256), "float32"),
    ("strided", (64, 19, 256, 256), "bfloat16"),
    ("row2", (1_050_000, 32), "float32"),
    ("row2", (1_050_000, 64), "bfloat16"),
    ("row8", (131_072, 512), "bfloat16"),
    ("row128", (16_384, 2048), "float32"),
    ("row128", (16_384, 4096), "bfloat16"),
    ("row32", (131_072, 257), "float32"),
    ("row32", (65_536, 1001), "bfloat16"),
    ("row256", (4096, 50257), "bfloat16"),
    ("cluster", (2048, 128256), "bfloat16"),
    ("tile", (8192, 10), "float32"),
    ("row8", (8192, 100), "float32"),
]
COPIED = Case((2**18, 2**10), device="cuda")


def median_us(call: Callable[[int], object], runs: int = 25) -> float:
    """Median time of one call; call(i) should take another input each time."""
    for i in range(5):
        call(i)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for i, (begin, end) in enumerate(marks):
        begin.record()
        call(i)
        end.record()
    torch.cuda.synchronize()
    return 1e3 * sorted(begin.elapsed_time(end) for begin, end in marks)[runs // 2]


def copy_bandwidth() -> float:
    """Bytes read and written in a second by a copy that no cache holds."""
    source, _ = COPIED.inputs()
    target = torch.empty_like(source)
    return COPIED.copied / median_us(lambda i: target.copy_(source)) * 1e6


def row(case: Case, copy: float) -> dict[str, Any]:
    """Time one shape."""
    nbytes = case.copied // 2
    sets = max(1, min(3, (1 << 31) // nbytes))  # rotate, so that none is in the cache
    inputs = [(z.requires_grad_(), y) for z, y in (case.inputs(seed) for seed in range(sets))]
    grad = torch.empty_like(inputs[0][0])

    def fused(i: int) -> None:
        imae_ext.value_and_grad(*inputs[i % sets], imae_ext.IMAE(), out=grad)

    def autograd(i: int) -> None:
        leaf, y = inputs[i % sets]
        leaf.grad = None
        imae_ext.imae_loss(leaf, y).backward()

    def torch_eager(i: int) -> None:
        leaf, y = inputs[i % sets]
        leaf.grad = None
        cross_entropy(leaf, y).backward()

    def statistics(i: int) -> None:
        leaf, y = inputs[i % sets]
        imae_ext.row_stats(leaf.detach(), y, entropy=True, is_top=True)

    times = {f.__name__: median_us(f) for f in (fused, autograd, torch_eager, statistics)}
    return {
        "shape": list(case.shape),
        "dtype": case.dtype,
        "MB": nbytes / 1e6,
        "us": times,
        "of_copy_bandwidth": case.bytes / times["fused"] * 1e6 / copy,
    }


def measure(path: Path) -> None:
    copy = max(copy_bandwidth() for _ in range(20))  # a card that was idle takes a while to reach its clock rate
    about = machine.describe("cuda") | {"command": " ".join(sys.argv), "copy_GB_per_s": copy / 1e9}
    rows: list[dict[str, Any]] = []
    for tier, shape, dtype in SHAPES:
        try:
            rows.append({"tier": tier, **row(Case(shape, dtype, device="cuda"), copy)})
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        write(path, json.dumps({**about, "rows": rows}, indent=1) + "\n")


def show(result: dict[str, Any]) -> None:
    print(f"{result['machine']['gpu']}, copy {result['copy_GB_per_s']:.0f} GB/s")
    print(
        "tier    logits             dtype       MB   fused us  autograd us  cross_entropy us  statistics us  % of copy"
    )
    for r in result["rows"]:
        us = r["us"]
        print(
            f"{r['tier']:7} {shape_name(r['shape']):18} {r['dtype']:9} {r['MB']:6.0f} {us['fused']:10.1f} "
            f"{us['autograd']:12.1f} {us['torch_eager']:17.1f} {us['statistics']:14.1f} "
            f"{100 * r['of_copy_bandwidth']:10.0f}"
        )


def main() -> None:
    if sys.argv[1] == "--show":
        show(json.loads(Path(sys.argv[2]).read_text()))
    else:
        measure(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
