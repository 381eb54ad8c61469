"""`python -m benchmarks.speed.kinds`: other targets, reductions and dtypes than those of the matrix, in turns.

A line for each ratio of times, the median over the rounds with its quartiles, and what the package is meant to reach.
The contenders of a kind share their inputs and make a fresh gradient in every pass. With the lesser instruction set on
both sides: IMAE_EXT_CPU=avx2 ATEN_CPU_CAPABILITY=avx2.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from imae_ext import binary_robust_loss, mixed_loss, robust_loss

from . import machine
from .cases import Shape, shape_name
from .contenders import CCE, IMAE
from .measure import BLOCK, no_garbage_collection
from .results import Spread

Pass = Callable[[], object]


@dataclass(frozen=True)
class Goal:
    """A bound for the time of one contender over that of another; without a bound it is only told."""

    numerator: str
    denominator: str
    bound: float | None = None
    at_least: bool = True

    def line(self, times: dict[str, list[float]]) -> str:
        """Write the ratio, and whether it is within the bound."""
        pairs = zip(times[self.numerator], times[self.denominator], strict=True)
        ratio = Spread.of([above / below for above, below in pairs])
        says = f"{self.numerator + ' / ' + self.denominator:40} {ratio.median:6.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        if self.bound is None:
            return says
        met = ratio.median >= self.bound if self.at_least else ratio.median <= self.bound
        return f"{says:62} wanted {'>=' if self.at_least else '<='} {self.bound:g}{'' if met else ', short'}"


@dataclass(frozen=True)
class Kind:
    """Contenders that are timed in turns at some shapes, and the goals at each."""

    prepare: Callable[[Shape], dict[str, Pass]]
    goals: dict[Shape, tuple[Goal, ...]]


def backward(loss_of: Callable[[Tensor], Tensor], logits: Tensor) -> Pass:
    """Return a forward and backward pass that frees its gradient."""
    leaf = logits.detach().requires_grad_()
    loss = loss_of(leaf).detach()
    given = torch.ones_like(loss) if loss.dim() else None  # a scalar needs none

    def run() -> None:
        loss_of(leaf).backward(given)
        leaf.grad = None

    return run


def labelled(shape: Shape) -> tuple[Tensor, Tensor]:
    return torch.randn(shape), torch.randint(shape[1], (shape[0], *shape[2:]))


def labels(shape: Shape) -> dict[str, Pass]:
    z, y = labelled(shape)
    return {
        "F.cross_entropy": backward(lambda z: F.cross_entropy(z, y), z),
        "IMAE": backward(lambda z: robust_loss(z, y, IMAE), z),
    }


def reductions(shape: Shape) -> dict[str, Pass]:
    z, y = labelled(shape)
    return {
        "mean": backward(lambda z: robust_loss(z, y, IMAE), z),
        "none": backward(lambda z: robust_loss(z, y, IMAE, reduction="none"), z),
        "normalized": backward(lambda z: robust_loss(z, y, IMAE, reduction="normalized"), z),
        "float16": backward(lambda z: robust_loss(z, y, IMAE), z.half()),
    }


def probabilities(shape: Shape) -> dict[str, Pass]:
    z, t = torch.randn(shape), torch.randn(shape).softmax(1)
    return {
        "F.cross_entropy": backward(lambda z: F.cross_entropy(z, t), z),
        "CCE": backward(lambda z: robust_loss(z, t, CCE), z),
        "IMAE": backward(lambda z: robust_loss(z, t, IMAE), z),
    }


def two_labels(shape: Shape) -> dict[str, Pass]:
    z, y = labelled(shape)
    _, other = labelled(shape)
    return {
        "one, CCE": backward(lambda z: robust_loss(z, y, CCE), z),
        "two, CCE": backward(lambda z: mixed_loss(z, y, other, 0.3, CCE), z),
        "one, IMAE": backward(lambda z: robust_loss(z, y, IMAE), z),
        "two, IMAE": backward(lambda z: mixed_loss(z, y, other, 0.3, IMAE), z),
    }


def binary(shape: Shape) -> dict[str, Pass]:
    z, yes = torch.randn(shape), (torch.rand(shape) < 0.2).float()
    return {
        "F.binary_cross_entropy_with_logits": backward(lambda z: F.binary_cross_entropy_with_logits(z, yes), z),
        "CCE": backward(lambda z: binary_robust_loss(z, yes, CCE), z),
        "IMAE": backward(lambda z: binary_robust_loss(z, yes, IMAE), z),
    }


def torch_by_ours(bound: float) -> tuple[Goal, ...]:
    return (Goal("F.cross_entropy", "IMAE", bound),)


SMALL, MEDIUM, LARGE, LONG = (8192, 10), (8192, 100), (8192, 1000), (1024, 32000)
SOFT = (Goal("F.cross_entropy", "CCE", 3), Goal("F.cross_entropy", "IMAE"), Goal("IMAE", "CCE", 3, at_least=False))
TWICE = tuple(Goal(f"two, {name}", f"one, {name}", 1.25, at_least=False) for name in ("CCE", "IMAE"))
KINDS = {
    "labels": Kind(
        labels,
        {
            (8, 10): torch_by_ours(1 / 1.2),
            (128, 10): torch_by_ours(1 / 1.2),
            SMALL: torch_by_ours(2),
            MEDIUM: torch_by_ours(3),
            LARGE: torch_by_ours(4),
            LONG: torch_by_ours(6),
            (4, 19, 256, 256): torch_by_ours(3),
        },
    ),
    "reductions": Kind(
        reductions,
        {MEDIUM: tuple(Goal(name, "mean", 1.5, at_least=False) for name in ("none", "normalized", "float16"))},
    ),
    "probabilities": Kind(probabilities, dict.fromkeys((MEDIUM, LARGE, LONG), SOFT)),
    "two_labels": Kind(two_labels, dict.fromkeys((MEDIUM, LARGE, LONG), TWICE)),
    "binary": Kind(
        binary,
        {
            MEDIUM: (
                Goal("F.binary_cross_entropy_with_logits", "CCE"),
                Goal("F.binary_cross_entropy_with_logits", "IMAE", 1.5),
            )
        },
    ),
}


def in_turns(passes: dict[str, Pass], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return each contender's microseconds, round by round; a round runs each, once untimed, in a new order."""
    calls = {}
    for name, run in passes.items():
        run()
        begin = time.perf_counter()
        run()
        calls[name] = max(1, int(BLOCK / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {name: [] for name in passes}
    order, end = list(passes), time.perf_counter() + seconds
    shuffle = random.Random(0).shuffle
    while len(times[order[0]]) < rounds or time.perf_counter() < end:
        shuffle(order)
        for name in order:
            passes[name]()
            begin = time.perf_counter()
            for _ in range(calls[name]):
                passes[name]()
            times[name].append(1e6 * (time.perf_counter() - begin) / calls[name])
    return times


def report(name: str, shape: Shape, goals: Sequence[Goal], seconds: float, rounds: int = 7) -> Iterator[str]:
    """Measure a kind at a shape and yield the lines to print."""
    torch.manual_seed(0)
    with no_garbage_collection():
        times = in_turns(KINDS[name].prepare(shape), seconds, rounds)
    medians = ", ".join(f"{key} {Spread.of(each).median:,.4g} us" for key, each in times.items())
    yield f"{name} {shape_name(shape)}, {len(next(iter(times.values())))} rounds: {medians}"
    for goal in goals:
        yield f"  {goal.line(times)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.kinds", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: 1 2")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape; default: 4")
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    about = machine.describe("cpu")
    commit = f"{about['commit'] or 'unknown'}"[:10] + (", changed" if about["commit_is_modified"] else "")
    of, versions = about["machine"], about["versions"]
    print(f"{of['cpu']}, torch {versions['torch']}, commit {commit}, {about['date']}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        both = f"imae_ext {of['cpu_kernels']}, torch {of['torch_cpu_kernels']}"
        print(f"\n{both}, {threads} thread{'s' if threads > 1 else ''}")
        for name in options.kinds or KINDS:
            for shape, goals in KINDS[name].goals.items():
                print("\n".join(report(name, shape, goals, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
