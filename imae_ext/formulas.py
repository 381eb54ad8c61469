"""The formulas as values: what a loss computes, apart from how it is reduced.

With ``z`` a row of logits, ``y`` its label and ``p`` the softmax probability of ``y``, every formula below is a
function of ``p`` (``r = 1 - p``) but for LabelSmoothing and NCE, which see all logits. They combine linearly, up to
four at a time, and a combination is evaluated in the same single pass:

>>> 2.0 * NCE() + MAE()
2.0 * NCE() + MAE()

A combination, like a formula, compares by value, hashes and pickles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

from ._extension import compiled

# name -> (id, depends on p_y alone), as csrc/formulas.h has it; empty without the extension
_TABLE: dict[str, tuple[int, bool]] = (
    {name: (identity, margin) for name, identity, margin, _ in compiled.formulas()} if compiled else {}
)
MAX_TERMS: int = compiled.max_terms if compiled else 4


def _parameter(
    default: float, low: float, high: float, *, low_is_open: bool = False, zero_too: bool = False, integer: bool = False
) -> Any:
    """Declare a parameter and its range, which csrc/formulas.h tells the kernels, too."""
    kind = {"low_is_open": low_is_open, "zero_too": zero_too, "integer": integer}  # zero_too: or 0, below low
    return field(default=default, metadata={"low": float(low), "high": float(high), **kind})


def _check(formula: str, name: str, value: object, p: Mapping[str, Any] | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or value - value != 0:
        shape = tuple(getattr(value, "shape", ()))
        shown = f"a {type(value).__name__} of shape {shape}; class weights go to weight=" if shape else repr(value)
        raise ValueError(f"imae_ext: {formula}: expected a finite number for {name}, got {shown}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"imae_ext: {formula}: expected a finite number for {name}, got one beyond 1e308") from None
    if p is None:
        return number
    low, high = p["low"], p["high"]
    above = number > low if p["low_is_open"] else number >= low
    inside = above and number <= high and (not p["integer"] or number == int(number))
    if not (inside or (p["zero_too"] and number == 0)):
        kind = "0 or a number" if p["zero_too"] else "an integer" if p["integer"] else "a number"
        raise ValueError(
            f"imae_ext: {formula}: expected {name} to be {kind} in "
            f"{'(' if p['low_is_open'] else '['}{low:g}, {high:g}], got {value!r}"
        )
    return number


class Loss:
    """A formula or a linear combination of formulas.

    Attributes:
      terms: the ``(coefficient, formula)`` pairs.
      packed: the same as plain numbers, as the operators take it.
    """

    terms: tuple[tuple[float, Formula], ...]
    packed: list[float]

    def __init__(self) -> None:
        """Refuse: the formulas below have what a loss needs."""
        raise TypeError("imae_ext: Loss is what formulas have in common; take one, such as imae_ext.IMAE(8.0)")

    @property
    def margin(self) -> bool:
        """Whether the loss depends on ``p_y`` alone, so that examples have a weight."""
        return all(formula._margin for _, formula in self.terms)

    def __add__(self, other: Loss) -> Combination:
        if not isinstance(other, Loss):
            return NotImplemented
        return Combination(self.terms + other.terms)

    def __mul__(self, coefficient: float) -> Combination:
        if isinstance(coefficient, bool) or not isinstance(coefficient, Real):
            return NotImplemented
        return Combination(tuple((coefficient * c, formula) for c, formula in self.terms))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Combination(Loss):
    """A sum of up to four formulas, each with its coefficient; made by ``+`` and ``*``."""

    terms: tuple[tuple[float, Formula], ...]

    def __post_init__(self) -> None:
        """Check the terms and pack them."""
        for term in self.terms:
            if not isinstance(term, tuple) or len(term) != 2 or not isinstance(term[1], Formula):
                raise TypeError(f"imae_ext: expected pairs of a coefficient and a formula, got {term!r}")
        if not 1 <= len(self.terms) <= MAX_TERMS:
            raise ValueError(f"imae_ext: expected 1 to {MAX_TERMS} formulas in a combination, got {len(self.terms)}")
        packed: list[float] = []
        for coefficient, formula in self.terms:
            identity, _, *parameters = formula.packed
            packed += [identity, _check("Combination", "a coefficient", coefficient), *parameters]
        object.__setattr__(self, "packed", packed)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Pickle the terms: the packed numbers belong to one build of the extension."""
        return type(self), (self.terms,)

    def __repr__(self) -> str:
        return " + ".join(f"{'' if c == 1 else f'{c!r} * '}{formula!r}" for c, formula in self.terms)


class Formula(Loss):
    """One formula; the base of the dataclasses below."""

    _margin: bool

    def __post_init__(self) -> None:
        """Check the parameters, and pack them."""
        name = type(self).__name__
        if Formula not in type(self).__bases__ or (_TABLE and name not in _TABLE):
            raise TypeError(f"imae_ext: the kernels know no formula {name}; combine those they know by + and *")
        declared = fields(self)  # type: ignore[arg-type]
        parameters = [_check(name, each.name, getattr(self, each.name), each.metadata) for each in declared]
        identity, margin = _TABLE.get(name, (-1, name not in ("LabelSmoothing", "NCE")))
        for attribute, value in (
            ("terms", ((1.0, self),)),
            ("packed", [float(identity), 1.0, *parameters]),
            ("_margin", margin),
        ):
            object.__setattr__(self, attribute, value)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Pickle the parameters: the packed numbers belong to one build of the extension."""
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CCE(Formula):
    """Categorical cross entropy, ``-log p``. Weight ``2 r``: the examples that fit worst pull most."""


@dataclass(frozen=True)
class MAE(Formula):
    """Mean absolute error against the one-hot label, ``2 r`` (Ghosh et al., AAAI 2017). Weight ``4 p r``."""


@dataclass(frozen=True)
class MSE(Formula):
    """Squared error of the labelled class, ``r**2`` (arXiv 1905.11233). Weight ``4 p r**2``."""


@dataclass(frozen=True)
class GCE(Formula):
    """Generalised cross entropy, ``(1 - p**q) / q`` with ``0 < q <= 1`` (Zhang & Sabuncu, NeurIPS 2018, Eq. 6).

    CCE as ``q`` tends to 0, half of MAE at ``q = 1``.
    """

    q: float = _parameter(0.7, 0, 1, low_is_open=True)


@dataclass(frozen=True)
class IMAE(Formula):
    """IMAE (arXiv 1903.12141, Table 2): weight ``exp(T p r)``, ``0 <= T <= 30``; the paper recommends ``T = 8``.

    The slope is ``(expm1(T p r) + r / (r + eps/2)) / 2``, and the value its exact integral from the margin to
    infinity: not negative, and 0 for a perfect fit. ``eps``, 0 or in [1e-30, 1], lets the pull of a fitted example
    fade. Its default, 1e-8, is the constant in the authors' code. With ``eps = 0`` the weight is the paper's to the
    letter, and its integral diverges: a perfectly fitted example still pulls with weight 1, so that logits grow without
    bound and training collapses. The value is then anchored at ``p = 1/2``, and negative for fitted examples.

    The value is well above that of CCE, and for well fitted examples still is: watch accuracy, not the value.

    Weights go up to ``exp(T/4)``, 7.4 for ``T = 8``: use a learning rate several times below that of CCE.
    """

    T: float = _parameter(8.0, 0, 30)
    eps: float = _parameter(1e-8, 1e-30, 1, zero_too=True)


@dataclass(frozen=True)
class DM(Formula):
    """Derivative manipulation (arXiv 1905.11233, Eq. 12): weight ``exp(beta p**lambd r)``.

    ``0 <= beta <= 16``, ``0.01 <= lambd <= 16`` or 0; ``eps`` and the value as in IMAE, which is ``lambd = 1``.
    """

    beta: float = _parameter(8.0, 0, 16)
    lambd: float = _parameter(0.5, 0.01, 16, zero_too=True)
    eps: float = _parameter(1e-8, 1e-30, 1, zero_too=True)


@dataclass(frozen=True)
class RCE(Formula):
    """Reverse cross entropy, ``A r``: the label's log-zero is clipped to ``-A`` (Wang et al., ICCV 2019, Eq. 6)."""

    A: float = _parameter(-math.log(1e-4), 0, 1e4, low_is_open=True)


@dataclass(frozen=True)
class Focal(Formula):
    """Focal loss, ``-r**gamma log p``, ``0 <= gamma <= 64`` (Lin et al., ICCV 2017, Eq. 4)."""

    gamma: float = _parameter(2.0, 0, 64)


@dataclass(frozen=True)
class TaylorCE(Formula):
    """The first ``t`` terms of the series of CCE, ``sum_k r**k / k``, integer ``1 <= t <= 64`` (IJCAI 2020, Eq. 5)."""

    t: int = _parameter(2, 1, 64, integer=True)


@dataclass(frozen=True)
class AGCE(Formula):
    """Asymmetric GCE, ``((a+1)**q - (a+p)**q) / q``, ``1e-6 <= a <= 100``, ``0 < q <= 4`` (Zhou et al., ICML 2021)."""

    a: float = _parameter(1.0, 1e-6, 100)
    q: float = _parameter(2.0, 0, 4, low_is_open=True)


@dataclass(frozen=True)
class AUL(Formula):
    """Asymmetric unhinged loss, ``((a-p)**q - (a-1)**q) / q``, ``1 < a <= 100``, ``0 < q <= 4`` (as AGCE)."""

    a: float = _parameter(1.5, 1, 100, low_is_open=True)
    q: float = _parameter(0.9, 0, 4, low_is_open=True)


@dataclass(frozen=True)
class AEL(Formula):
    """Asymmetric exponential loss, ``exp(-p / a)``, ``0.05 <= a <= 1e4`` (as AGCE)."""

    a: float = _parameter(2.5, 0.05, 1e4)


@dataclass(frozen=True)
class LabelSmoothing(Formula):
    """CCE against the label smoothed by ``eps`` in [0, 1]: ``-(1-eps) log p_y - eps/C sum_j log p_j`` (CVPR 2016).

    As ``F.cross_entropy(label_smoothing=eps)``; with class weights it differs: the whole row is multiplied by the
    weight of its label.
    """

    eps: float = _parameter(0.1, 0, 1)


@dataclass(frozen=True)
class NCE(Formula):
    """Normalised cross entropy, ``log p_y / sum_j log p_j`` (Ma et al., ICML 2020, Eq. 6)."""


def SCE(alpha: float = 0.1, beta: float = 1.0) -> Combination:
    """Symmetric cross entropy, ``alpha * CCE() + beta * RCE()`` (Wang et al., ICCV 2019, Eq. 9)."""
    return _check("SCE", "alpha", alpha) * CCE() + _check("SCE", "beta", beta) * RCE()


def unpack(packed: list[float]) -> Combination:
    """Return the formula that these numbers stand for."""
    kinds = {_TABLE[kind.__name__][0]: kind for kind in Formula.__subclasses__() if kind.__name__ in _TABLE}
    terms, at = [], 0
    while at < len(packed):
        kind, coefficient = kinds[int(packed[at])], packed[at + 1]
        count = len(fields(kind))  # type: ignore[arg-type]
        terms.append((coefficient, kind(*packed[at + 2 : at + 2 + count])))
        at += 2 + count
    return Combination(tuple(terms))
