"""Random formulas, their parameters drawn over the whole of their ranges, and random combinations of them."""

from __future__ import annotations

import math
from random import Random

from cases import Spec

# name -> parameters: (lowest, highest, whether 0 is another choice, whether integers only)
RANGES: dict[str, dict[str, tuple[float, float, bool, bool]]] = {
    "CCE": {},
    "MAE": {},
    "MSE": {},
    "GCE": {"q": (1e-3, 16, False, False)},
    "IMAE": {"T": (0, 30, True, False), "eps": (1e-30, 1, True, False)},
    "DM": {"beta": (0, 16, True, False), "lambd": (0.01, 16, True, False), "eps": (1e-30, 1, True, False)},
    "RCE": {"A": (1e-3, 1e4, False, False)},
    "Focal": {"gamma": (0, 64, True, False)},
    "TaylorCE": {"t": (1, 64, False, True)},
    "AGCE": {"a": (1e-6, 100, False, False), "q": (1e-3, 4, False, False)},
    "AUL": {"a": (1 + 1e-4, 100, False, False), "q": (1e-3, 4, False, False)},
    "AEL": {"a": (0.05, 1e4, False, False)},
    "LabelSmoothing": {"eps": (0, 1, True, False)},
    "NCE": {},
}


def parameter(random: Random, low: float, high: float, zero_too: bool, integer: bool) -> float:
    if zero_too and random.random() < 0.2:
        return 0.0
    if integer:
        return random.randint(int(low), int(high))
    if random.random() < 0.15:
        return random.choice((max(low, 1e-30), high))
    if low > 0 and high / low > 1e3 and random.random() < 0.5:
        return math.exp(random.uniform(math.log(low), math.log(high)))
    return random.uniform(low, high)


def draw(random: Random) -> Spec:
    with_series = 0  # any two of these have room in a launch, and more are refused where theirs are long

    def one() -> Spec:
        nonlocal with_series
        name = random.choice([name for name in RANGES if with_series < 2 or name not in ("DM", "IMAE")])
        with_series += name in ("DM", "IMAE")
        return Spec.of(name, **{key: parameter(random, *limits) for key, limits in RANGES[name].items()})

    if random.random() < 0.7:
        return one()
    total = random.choice((0.1, 1.0, 2.5, -1.0, 1e-3, 30.0)) * one()
    for _ in range(random.randint(0, 3)):
        total = total + random.choice((0.1, 1.0, 2.5, -0.5, 1e-3, 30.0)) * one()
    return total
