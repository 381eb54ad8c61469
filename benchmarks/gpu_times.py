"""Times forward and backward in every tier against the bytes they move and the copy bandwidth of the same run.

python benchmarks/gpu_times.py OUT.json     measures
python benchmarks/gpu_times.py --show FILE  prints the table
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# (N, C, dtype): at least 128 MB of logits, and the launch-bound shapes of a training step
SHAPES = [
    (3_400_000, 10, "float32"),
    (6_700_000, 10, "bfloat16"),
    (340_000, 100, "float32"),
    (670_000, 100, "bfloat16"),
    (131_072, 257, "float32"),
    (131_072, 512, "bfloat16"),
    (32_768, 1000, "float32"),
    (65_536, 1000, "bfloat16"),
    (65_536, 1001, "bfloat16"),
    (16_384, 4096, "bfloat16"),
    (4096, 32000, "bfloat16"),
    (4096, 50257, "bfloat16"),
    (2048, 128256, "bfloat16"),
    (1024, 151936, "float32"),
    (1024, 256000, "bfloat16"),
    (8192, 10, "float32"),
    (8192, 100, "float32"),
]


def median_us(call: Callable[[int], object], runs: int = 25) -> float:
    """Median time of one call; call(i) should take another input each time."""
    import torch

    for i in range(5):
        call(i)
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for i, (begin, end) in enumerate(marks):
        begin.record()
        call(i)
        end.record()
    torch.cuda.synchronize()
    return 1e3 * sorted(begin.elapsed_time(end) for begin, end in marks)[runs // 2]


def measure() -> dict:
    import torch

    import imae_ext

    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / median_us(lambda i, source=source, target=target: target.copy_(source)) * 1e6
    del source, target
    rows = []
    for N, C, name in SHAPES:
        dtype = getattr(torch, name)
        nbytes = N * C * dtype.itemsize
        sets = max(1, min(3, (1 << 31) // nbytes))  # rotate, so that none is in the cache
        z = [torch.randn(N, C, device="cuda").to(dtype).requires_grad_() for _ in range(sets)]
        y = torch.randint(C, (N,), device="cuda")
        grad = torch.empty_like(z[0])

        def fused(i: int, z=z, y=y, grad=grad, sets=sets) -> None:
            imae_ext.value_and_grad(z[i % sets], y, imae_ext.IMAE(), out=grad)

        def autograd(i: int, z=z, y=y, sets=sets) -> None:
            leaf = z[i % sets]
            leaf.grad = None
            imae_ext.imae_loss(leaf, y).backward()

        def torch_eager(i: int, z=z, y=y, sets=sets) -> None:
            leaf = z[i % sets]
            leaf.grad = None
            torch.nn.functional.cross_entropy(leaf, y).backward()

        times = {f.__name__: median_us(f) for f in (fused, autograd, torch_eager)}
        of_copy = 2 * nbytes / times["fused"] * 1e6 / copy
        rows.append({"N": N, "C": C, "dtype": name, "MB": nbytes / 1e6, "us": times, "of_copy_bandwidth": of_copy})
        del z, y, grad

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    return {
        "card": torch.cuda.get_device_name(),
        "driver": said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "imae_ext": imae_ext.__version__,
        "commit": said("git", "rev-parse", "HEAD"),
        "command": " ".join(sys.argv),
        "copy_GB_per_s": copy / 1e9,
        "rows": rows,
    }


def show(result: dict) -> None:
    print(f"{result['card']}, copy {result['copy_GB_per_s']:.0f} GB/s")
    print("        N        C dtype       MB   fused us  autograd us  cross_entropy us  % of copy")
    for r in result["rows"]:
        us = r["us"]
        print(
            f"{r['N']:9} {r['C']:8} {r['dtype']:9} {r['MB']:6.0f} {us['fused']:10.1f} {us['autograd']:12.1f} "
            f"{us['torch_eager']:17.1f} {100 * r['of_copy_bandwidth']:10.0f}"
        )


def main() -> None:
    if sys.argv[1] == "--show":
        show(json.loads(Path(sys.argv[2]).read_text()))
    else:
        Path(sys.argv[1]).write_text(json.dumps(measure(), indent=1) + "\n")


if __name__ == "__main__":
    main()
