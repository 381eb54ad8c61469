"""What the package is meant to reach, and whether a run shows it. Each is a ratio within the same rounds.

A ratio of times; or, against a copy, which moves no labels, of bandwidths: a row's labels are the bytes of two classes
in float32, of four in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cases import LARGE, Case, Shape
from .results import CaseResult, Spread


@dataclass(frozen=True)
class Target:
    """A bound for the time of one contender over that of another, in the cases that it is about."""

    says: str
    numerator: str
    denominator: str
    bound: float
    at_least: bool  # else at most
    about: Callable[[Case], bool]
    bandwidth: bool = False  # the denominator's over that of the numerator, a copy

    def met(self, ratio: float) -> bool:
        """Tell whether a measured ratio is within the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    @property
    def wants(self) -> str:
        """The bound, in short."""
        return f"{'>=' if self.at_least else '<='} {self.bound:.3g}"


@dataclass(frozen=True)
class Outcome:
    """A target in one case. Without a ratio it was not measured, and the reason says why."""

    target: Target
    case: Case
    ratio: Spread | None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``pass``, ``short`` or ``not measured``."""
        if self.ratio is None:
            return "not measured"
        return "pass" if self.target.met(self.ratio.median) else "short"


def _at(*shapes: Shape) -> Callable[[Case], bool]:
    return lambda case: case.shape in shapes


def _many_classes(case: Case) -> bool:
    return case.classes >= 100


CPU_TARGETS: tuple[Target, ...] = (
    Target("F.cross_entropy / IMAE", "cross_entropy", "imae", 2, True, _at((8192, 10))),
    Target("F.cross_entropy / IMAE", "cross_entropy", "imae", 4, True, _at((8192, 100))),
    Target("F.cross_entropy / IMAE", "cross_entropy", "imae", 3, True, _at((8192, 1000))),
    Target("F.cross_entropy / IMAE, reused buffer", "cross_entropy", "imae_out", 6, True, _at((1024, 32000))),
    Target("F.cross_entropy / IMAE", "cross_entropy", "imae", 1.8, True, _at((1024, 32000))),
    Target("reference / IMAE", "reference", "imae", 8, True, _at((8192, 10), (8192, 100), (8192, 1000))),
    Target("reference / IMAE", "reference", "imae", 5, True, _at((1024, 32000))),
    Target(
        "compiled reference / IMAE",
        "reference_compiled",
        "imae",
        3,
        True,
        _at((8192, 10), (8192, 100), (8192, 1000), (1024, 32000)),
    ),
    Target(
        "IMAE, reused buffer / copy",
        "imae_out",
        "copy",
        2,
        False,
        lambda case: case.shape == (8192, 1000) and case.dtype == "float32" and case.threads == 2,
    ),
    Target("IMAE / CCE", "imae", "cce", 1.1, False, _many_classes),
    Target("IMAE / CCE, reused buffers", "imae_out", "cce_out", 1.1, False, _many_classes),
    Target("IMAE / F.cross_entropy, a call's cost", "imae", "cross_entropy", 1.25, False, _at((8, 10), (128, 10))),
    Target(
        "gradient handed on / F.cross_entropy", "imae_handed_on", "cross_entropy", 1, False, _at((8, 10), (128, 10))
    ),
    Target("forward alone, IMAE / F.c.e.", "imae_forward", "cross_entropy_forward", 2, False, _at((8, 10), (128, 10))),
)


def _few_classes_large(case: Case) -> bool:
    return case.classes in (10, 14, 100, 365) and case.bytes >= 2 * LARGE


def _many_classes_large(case: Case) -> bool:
    return case.classes >= 1000 and case.bytes >= 2 * LARGE


def _against_peers() -> tuple[Target, ...]:
    targets = []
    for key in ("by_hand_compiled", "cross_entropy_compiled", "liger", "quack"):
        targets += [
            Target(f"{key} / IMAE", key, "imae", 2, True, lambda case: case.classes <= 1000),
            Target(f"{key} / IMAE", key, "imae", 1.4, True, lambda case: case.classes >= 4096),
        ]
    return tuple(targets)


GPU_TARGETS: tuple[Target, ...] = (
    Target("bandwidth of IMAE, reused buffer / copy", "copy", "imae_out", 0.9, True, _many_classes_large, True),
    Target("bandwidth of IMAE, reused buffer / copy", "copy", "imae_out", 0.85, True, _few_classes_large, True),
    Target("reference / IMAE", "reference", "imae", 5, True, lambda case: True),
    Target("compiled reference / IMAE", "reference_compiled", "imae", 1.4, True, lambda case: True),
    *_against_peers(),
)


def check(results: Sequence[CaseResult]) -> list[Outcome]:
    """Hold every case against the targets about it."""
    outcomes = []
    for device, targets in (("cpu", CPU_TARGETS), ("cuda", GPU_TARGETS)):
        for target in targets:
            for result in results:
                case = result.case
                if case.device == device and case.grad_output == 1 and case.leaf and target.about(case):
                    outcomes.append(_outcome(target, result))
    return outcomes


def _outcome(target: Target, result: CaseResult) -> Outcome:
    ratio = result.ratio(target.numerator, target.denominator)
    if ratio and target.bandwidth:
        more = result.case.bytes / result.case.copied
        ratio = Spread(more * ratio.median, more * ratio.low, more * ratio.high)
    missing = [key for key in (target.numerator, target.denominator) if key not in result.timings]
    reason = "; ".join(f"{key}: {result.not_run.get(key, 'not a contender')}" for key in missing)
    return Outcome(target, result.case, ratio, reason)
