"""One table of inputs for every backend: formulas, class counts, dtypes, layouts and values, each with its reason.

A `Case` names everything about one call and builds it afresh, so that a test id is enough to reproduce it.
`table()` is a covering selection, not the full product: every class count meets every formula, every layout
meets every class count and dtype, and every kind of value meets every formula and dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from zlib import crc32

import pytest
import torch
from layouts import LAYOUTS
from oracle import Term
from torch import Tensor

# --- formulas -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A combination of formulas, free of the package: the oracles read `terms`, `build` makes the package's."""

    terms: tuple[Term, ...]

    @staticmethod
    def of(name: str, **params: float) -> Spec:
        return Spec(((1.0, name, tuple(sorted(params.items()))),))

    def __add__(self, other: Spec) -> Spec:
        return Spec(self.terms + other.terms)

    def __rmul__(self, factor: float) -> Spec:
        return Spec(tuple((factor * c, name, params) for c, name, params in self.terms))

    @property
    def margin(self) -> bool:
        """Whether the loss depends on p_y alone."""
        return not {name for _, name, _ in self.terms} & {"LabelSmoothing", "NCE"}

    def build(self):
        import imae_ext

        total = None
        for c, name, params in self.terms:
            formula = getattr(imae_ext, name)(**dict(params))
            part = formula if c == 1.0 and len(self.terms) == 1 else c * formula
            total = part if total is None else total + part
        return total

    def __str__(self) -> str:
        def term(c: float, name: str, params: tuple[tuple[str, float], ...]) -> str:
            arguments = ",".join(f"{k}={v:g}" for k, v in params)
            return ("" if c == 1.0 else f"{c:g}*") + name + (f"({arguments})" if arguments else "")

        return "+".join(term(*t) for t in self.terms)


RCE_A = 9.210340371976184  # -log(1e-4), the published stand-in for -log 0
SCE = 0.1 * Spec.of("CCE") + 1.0 * Spec.of("RCE", A=RCE_A)
APL = 2.0 * Spec.of("NCE") + Spec.of("MAE")
FOUR_TERMS = 0.5 * Spec.of("CCE") + 0.25 * Spec.of("IMAE", T=4.0, eps=1e-8) + 2.0 * Spec.of("NCE") + Spec.of("MSE")

# One of each formula and the combinations of the literature; parameters are the defaults unless said.
FORMULAS: tuple[Spec, ...] = (
    Spec.of("CCE"),
    Spec.of("MAE"),
    Spec.of("MSE"),
    Spec.of("GCE", q=0.7),
    Spec.of("IMAE", T=8.0, eps=1e-8),
    Spec.of("IMAE", T=8.0, eps=0.0),  # the paper to the letter: a value that crosses zero
    Spec.of("DM", beta=8.0, lambd=0.5, eps=1e-8),
    Spec.of("RCE", A=RCE_A),
    Spec.of("Focal", gamma=2.0),
    Spec.of("TaylorCE", t=2),
    Spec.of("AGCE", a=1.0, q=2.0),
    Spec.of("AUL", a=1.5, q=0.9),
    Spec.of("AEL", a=2.5),
    Spec.of("LabelSmoothing", eps=0.1),
    Spec.of("NCE"),
    SCE,
    APL,
    Spec.of("NCE") + Spec.of("RCE", A=RCE_A),
    FOUR_TERMS,  # as many terms as one pass takes
)

# Parameters at the ends of their ranges and where the formula changes character.
PARAMETER_SWEEP: tuple[Spec, ...] = (
    *(Spec.of("IMAE", T=t, eps=e) for t, e in product((0.0, 0.5, 2.0, 8.0, 16.0, 30.0), (1e-8, 1e-4, 0.0))),
    *(
        Spec.of("DM", beta=b, lambd=a, eps=e)
        for a, b, e in product((0.0, 0.25, 0.5, 1.0, 2.0), (0.5, 2.0, 8.0), (1e-8, 0.0))
    ),
    Spec.of("DM", beta=0.0, lambd=0.5, eps=1e-4),  # no emphasis: the weight is 1
    Spec.of("DM", beta=16.0, lambd=4.0, eps=1e-4),  # emphasis far above p = 1/2
    Spec.of("GCE", q=0.05),  # nearly CCE: 1 - p^q cancels
    Spec.of("GCE", q=1.0),  # MAE / 2
    Spec.of("GCE", q=2.5),  # beyond 1: a low p pulls ever less
    Spec.of("RCE", A=4.0),
    Spec.of("Focal", gamma=0.0),  # CCE
    Spec.of("Focal", gamma=0.5),  # r^(gamma - 1) has a pole at r = 0
    Spec.of("Focal", gamma=5.0),
    Spec.of("TaylorCE", t=1),  # MAE / 2
    Spec.of("TaylorCE", t=6),
    Spec.of("AGCE", a=0.5, q=0.5),  # q < 1
    Spec.of("AGCE", a=6.0, q=1.0),  # MAE / 2
    Spec.of("AUL", a=1.01, q=0.5),  # (a - p)^(q - 1) is steep near p = 1
    Spec.of("AUL", a=6.0, q=1.5),
    Spec.of("AEL", a=0.5),
    Spec.of("LabelSmoothing", eps=0.0),  # CCE
    Spec.of("LabelSmoothing", eps=1.0),  # the target counts for nothing
    Spec.of("NCE") + Spec.of("AGCE", a=6.0, q=1.5),
)

# --- class counts ---------------------------------------------------------------------------------------------

CLASS_COUNTS: dict[int, str] = {
    1: "no other class: p_y is 1 and every gradient 0",
    2: "one other class: its softmax is exactly 1",
    3: "smallest odd row: rows of float32 start off 16-byte alignment",
    7: "below any vector width, odd",
    10: "the digits and CIFAR-10",
    16: "one 512-bit register of float32, no tail",
    17: "one register and a tail of one",
    31: "one lane of a warp idle",
    32: "a warp exactly",
    33: "a warp and one more",
    63: "two warps less one",
    64: "two warps; 16-byte rows in every dtype",
    65: "two warps and one more",
    100: "CIFAR-100: 16-byte rows in float32, not in bfloat16",
    127: "odd, below a power of two",
    128: "a block of 128 threads exactly",
    129: "a block and one more",
    257: "a 256-thread block and one more",
    1000: "ImageNet",
    1001: "ImageNet with a background class: odd and unaligned",
    4097: "longer than one pass of any block",
    32000: "a vocabulary: rounding of a long sum shows",
}

# --- dtypes ---------------------------------------------------------------------------------------------------

DTYPES: dict[torch.dtype, str] = {
    torch.float64: "computed in double, the accuracy of gradcheck",
    torch.float32: "the usual training dtype",
    torch.bfloat16: "8 bits of mantissa, float32's range; computed in float32",
    torch.float16: "11 bits, overflow at 65504, underflow at 6e-8; computed in float32",
}

# --- values ---------------------------------------------------------------------------------------------------


def _normal(x: Tensor, y: Tensor) -> Tensor:
    return x


def _put_target(x: Tensor, y: Tensor, value: float) -> Tensor:
    return x.scatter(1, y[:, None], value)


VALUES: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "unit": ("logits of an untrained network", _normal),
    "equal": ("scale 0: every class ties, each maximum is shared", lambda x, y: 0 * x),
    "scale30": ("confident and wrong rows: p_y from 1e-40 to 1 - 1e-40", lambda x, y: 30 * x),
    "scale1e4": ("every exponential but one underflows; float32 margins are coarse", lambda x, y: 1e4 * x),
    "offset1e4": ("a large common offset must cancel exactly", lambda x, y: x + 1e4),
    "offset-1e4": ("the same below zero: exp of a raw logit underflows", lambda x, y: x - 1e4),
    "fitted": ("target 25 above the rest: 1 - p_y rounds to 0 in float32", lambda x, y: _put_target(x, y, 25.0)),
    "refuted": ("target 25 below the rest: p_y vanishes", lambda x, y: _put_target(x, y, -25.0)),
    "masked": ("-1e30, as masked vocabularies use (its dtype's lowest in float16)", lambda x, y: _mask(x, y, -1e30)),
    "float16max": ("65504, the largest float16, at one class", lambda x, y: _spike(x, 65504.0)),
    "lone": (
        "one class above many alike: rounding the sum errs the same way at each",
        lambda x, y: _spike(0 * x - 12, 0),
    ),
    "tiny": ("subnormal logits: no different from 0", lambda x, y: x * 1e-40),
}


def _mask(x: Tensor, y: Tensor, value: float) -> Tensor:
    """Every second class masked, never the target."""
    hidden = torch.arange(x.shape[1]) % 2 == 1
    keep = torch.zeros_like(x, dtype=torch.bool).scatter(1, y[:, None], True)
    return x.masked_fill(hidden & ~keep, value)


def _spike(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[torch.arange(len(x)), torch.arange(len(x)) % x.shape[1]] = value
    return x


# --- cases ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    formula: Spec = FORMULAS[0]
    C: int = 10
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    values: str = "unit"
    reduction: str = "mean"
    ignored: bool = False  # every third row carries ignore_index
    weighted: bool = False  # class weights
    rows: int = 12

    def __str__(self) -> str:
        parts = [str(self.formula), f"C{self.C}", str(self.dtype)[6:], self.layout, self.values, self.reduction]
        return "-".join(parts + ["ignored"] * self.ignored + ["weighted"] * self.weighted)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits, target and class weights; the same for the same case, whatever ran before."""
        generator = torch.Generator().manual_seed(crc32(str(self).encode()))
        rows = torch.randn(self.rows, self.C, dtype=torch.float64, generator=generator)
        y = torch.randint(self.C, (self.rows,), generator=generator)
        rows = VALUES[self.values][1](rows, y).clamp(torch.finfo(self.dtype).min, torch.finfo(self.dtype).max)
        if self.ignored:
            y[::3] = -100
            if not self.layout.startswith("expanded"):
                rows[::3] = float("nan")  # an ignored row is never looked at
        logits = LAYOUTS[self.layout][1](rows.to(self.dtype))
        index = y[0] if self.layout == "vector" else y.view(logits.shape[:1] + logits.shape[2:])
        weight = torch.rand(self.C, generator=generator, dtype=torch.float64) + 0.5 if self.weighted else None
        dtype = self.dtype if self.dtype.itemsize >= 4 else torch.float32
        narrow = self.C % 2 == 1  # int32 targets at odd class counts
        return logits, index.int() if narrow else index, None if weight is None else weight.to(dtype)


def _spread(case: Case) -> Case:
    """Give each case a reduction, ignored rows and class weights, chosen by its name: evenly, and independently."""
    kinds = ("none", "sum", "mean", "normalized")
    if not case.formula.margin or case.C == 1 or case.values in ("scale1e4", "float16max"):
        kinds = kinds[:3]  # no weight to normalise by, or every weight may be 0
    draw = crc32(str(case).encode())
    ignored = draw // 16 % 3 == 0 and case.layout != "vector"
    return replace(case, reduction=kinds[draw % len(kinds)], ignored=ignored, weighted=draw // 64 % 5 == 0)


def _by_class_count() -> Iterator[Case]:
    for C, formula in product(CLASS_COUNTS, FORMULAS):
        for dtype in (torch.float32, torch.bfloat16) if C < 4097 else (torch.float32,):
            yield Case(formula, C, dtype, rows=12 if C < 4097 else 3)


def _by_layout() -> Iterator[Case]:
    counts = [C for C in CLASS_COUNTS if C <= 1001]
    for k, (layout, C, dtype) in enumerate(product(LAYOUTS, counts, DTYPES)):
        yield Case(FORMULAS[k % len(FORMULAS)], C, dtype, layout)


def _by_values() -> Iterator[Case]:
    for k, (values, formula, dtype) in enumerate(product(VALUES, FORMULAS, DTYPES)):
        yield Case(formula, (10, 33, 3, 2, 129)[k % 5], dtype, values=values)


def _by_length_of_the_sum() -> Iterator[Case]:
    for (C, layout, rows), formula in product(
        ((1000, "contiguous", 24), (32000, "contiguous", 3), (1000, "transposed", 24), (4097, "transposed", 16)),
        FORMULAS,
    ):
        yield Case(formula, C, torch.float32, layout, "lone", rows=rows)


def table() -> list[Case]:
    """Every case a backend must pass; NCE at C = 1 is 0/0 by definition and left to its own test."""
    cases = (*_by_class_count(), *_by_layout(), *_by_values(), *_by_length_of_the_sum())
    return list(dict.fromkeys(_spread(c) for c in cases if c.C > 1 or c.formula.margin))


def short_table() -> list[Case]:
    """A part of the table for where time is short: of every kind some."""
    return table()[::23]


def table_params() -> list[pytest.param]:
    short = set(short_table())
    return [pytest.param(case, id=str(case), marks=[pytest.mark.short] if case in short else []) for case in table()]
