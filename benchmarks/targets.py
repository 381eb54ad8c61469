"""`python -m benchmarks.targets`: what probabilities, two labels and binary targets cost, beside torch's own.

Forward and backward of a mean, a fresh gradient each time, float32; the contenders of a row take turns. Prints the
medians with their quartiles in ms, and the ratios that the project asks for; --output writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import imae_ext
from imae_ext import CCE, IMAE

SHAPES = ((8192, 100), (8192, 1000), (1024, 32000))
BINARY_SHAPE = (8192, 100)
# what is compared: first / second, and the ratio that is asked for
RATIOS = {
    "probabilities": (("torch", "cce", "at least 3"), ("imae", "cce", "at most 3")),
    "two labels": (("mixed cce", "label cce", "at most 1.25"), ("mixed imae", "label imae", "at most 1.25")),
    "binary": (("torch", "imae", "at least 1.5"), ("torch", "cce", "-")),
}
Times = dict[str, list[float]]


def timed(losses: dict[str, Callable[[], Tensor]], logits: Tensor, seconds: float) -> Times:
    """Let the contenders take turns; each entry is the time of a forward and backward pass in ms."""
    times: Times = {name: [] for name in losses}
    end = time.perf_counter() + seconds
    for count in range(10_000):
        for name, loss in losses.items():
            logits.grad = None
            begin = time.perf_counter()
            loss().backward()
            if count >= 2:  # the first ones warm up
                times[name].append(1e3 * (time.perf_counter() - begin))
        if count >= 8 and time.perf_counter() > end:
            break
    return times


def contenders(kind: str, shape: tuple[int, int]) -> tuple[dict[str, Callable[[], Tensor]], Tensor]:
    """Make the losses of one kind of target, and the logits that they differentiate."""
    N, C = shape
    logits = torch.randn(N, C, requires_grad=True)
    if kind == "probabilities":
        t = torch.randn(N, C).softmax(1)
        return {
            "torch": lambda: F.cross_entropy(logits, t),
            "cce": lambda: imae_ext.robust_loss(logits, t, CCE()),
            "imae": lambda: imae_ext.robust_loss(logits, t, IMAE()),
        }, logits
    if kind == "two labels":
        a, b = torch.randint(C, (N,)), torch.randint(C, (N,))
        return {
            "label cce": lambda: imae_ext.robust_loss(logits, a, CCE()),
            "mixed cce": lambda: imae_ext.mixed_loss(logits, a, b, 0.3, CCE()),
            "label imae": lambda: imae_ext.robust_loss(logits, a, IMAE()),
            "mixed imae": lambda: imae_ext.mixed_loss(logits, a, b, 0.3, IMAE()),
        }, logits
    yes = (torch.rand(N, C) < 0.2).float()
    return {
        "torch": lambda: F.binary_cross_entropy_with_logits(logits, yes),
        "cce": lambda: imae_ext.binary_robust_loss(logits, yes, CCE()),
        "imae": lambda: imae_ext.binary_robust_loss(logits, yes, IMAE()),
    }, logits


def compared(kind: str, times: Times) -> dict[str, str]:
    """Divide medians by one another."""
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {f"{a} / {b}": f"{medians[a] / medians[b]:.2f} ({goal})" for a, b, goal in RATIOS[kind]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=RATIOS, default=list(RATIOS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default: %(default)s)")
    parser.add_argument("--shapes", nargs="+", help="such as 8192x100")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    asked = [tuple(map(int, text.split("x"))) for text in options.shapes or ()]
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for kind in options.kinds:
            for shape in asked or ((BINARY_SHAPE,) if kind == "binary" else SHAPES):
                times = timed(*contenders(kind, shape), options.seconds)
                quartiles = {name: [round(q, 3) for q in statistics.quantiles(each)] for name, each in times.items()}
                row = {"kind": kind, "shape": shape, "threads": threads, "ms": quartiles}
                rows.append({**row, "ratios": compared(kind, times)})
                print(f"{kind} {shape[0]}x{shape[1]}, {threads} thread(s)", flush=True)
                for name, (low, middle, high) in quartiles.items():
                    print(f"  {name:<12} {middle:9.3f} ms  [{low:.3f}, {high:.3f}]")
                for name, ratio in rows[-1]["ratios"].items():
                    print(f"  {name}: {ratio}")
    if options.output:
        found = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "rows": rows}
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
