"""What formulas have in common: parameters within their ranges, and sums of them with coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar

import torch

from . import hints
from ._extension import compiled

MAX_TERMS: int = compiled.max_terms if compiled else 4
known: dict[int, type[SingleFormula]] = {}  # by number; formulas.py puts them there


def parameter(
    default: float, low: float, high: float, *, low_is_open: bool = False, zero_too: bool = False, integer: bool = False
) -> Any:
    """Declare a parameter and its range, which csrc/formulas.h tells the kernels, too."""
    kind = {"low_is_open": low_is_open, "zero_too": zero_too, "integer": integer}  # zero_too: or 0, below low
    return field(default=default, metadata={"low": float(low), "high": float(high), **kind})


def check(formula: str, name: str, value: object, p: Mapping[str, Any] | None = None) -> float:
    """Return the number as a float, or an int if the parameter is one, so that its repr can be read back."""
    if isinstance(value, bool) or not isinstance(value, Real) or value - value != 0:
        shown = hints.not_a_number(value)
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
    return int(number) if p["integer"] else number


# so that float32 has room for what it multiplies
_COEFFICIENT = {"low": -1e30, "high": 1e30, "low_is_open": False, "zero_too": False, "integer": False}


class Formula:
    """A formula or a linear combination of formulas: ``+``, ``-``, ``*`` and ``/`` by numbers, and ``sum`` make more.

    Attributes:
      terms: the ``(coefficient, formula)`` pairs.
      packed: the same as plain numbers, as the operators take it.
    """

    terms: tuple[tuple[float, SingleFormula], ...]
    packed: list[float]

    def __init__(self) -> None:
        raise TypeError(
            f"imae_ext: {type(self).__name__} is what formulas have in common; take one, such as imae_ext.IMAE(8.0)"
        )

    @property
    def needs_all_logits(self) -> bool:
        """Whether the loss sees more of a row than ``p_y``; then examples have no weight."""
        return any(formula._needs_all_logits for _, formula in self.terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(tuple(self.packed))

    def __add__(self, other: Formula) -> Combination:
        if not isinstance(other, Formula):
            raise TypeError(f"imae_ext: expected a formula to add to {self!r}, {hints.not_a_formula(other)}")
        return Combination(self.terms + other.terms)

    def __radd__(self, other: object) -> Formula:
        """Let ``sum`` begin, with its 0."""
        if isinstance(other, bool) or not isinstance(other, int) or other != 0:
            raise TypeError(f"imae_ext: expected a formula to add {self!r} to, {hints.not_a_formula(other)}")
        return self

    def __sub__(self, other: Formula) -> Combination:
        if not isinstance(other, Formula):
            raise TypeError(f"imae_ext: expected a formula to take from {self!r}, {hints.not_a_formula(other)}")
        return self + -other

    def __neg__(self) -> Combination:
        return self * -1.0

    def __mul__(self, coefficient: float) -> Combination:
        c = self._coefficient(coefficient)
        return Combination(tuple((c * own, formula) for own, formula in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Combination:
        d = self._coefficient(divisor)
        if d == 0:
            raise ZeroDivisionError(f"imae_ext: {self!r} was divided by 0")
        return Combination(tuple((own / d, formula) for own, formula in self.terms))

    def _coefficient(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(
                f"imae_ext: expected a number to multiply or divide {self!r} by, {hints.not_a_coefficient(value)}"
            )
        return check("Combination", "a coefficient", value)


@dataclass(frozen=True, eq=False, repr=False)
class Combination(Formula):
    """A sum of up to four formulas, each with its coefficient; made by ``+``, ``-``, ``*``, ``/`` and ``sum``."""

    terms: tuple[tuple[float, SingleFormula], ...]

    def __post_init__(self) -> None:
        for term in self.terms:
            if not isinstance(term, tuple) or len(term) != 2 or not isinstance(term[1], SingleFormula):
                raise TypeError(f"imae_ext: expected pairs of a coefficient and a formula, got {term!r}")
        if not 1 <= len(self.terms) <= MAX_TERMS:
            raise ValueError(f"imae_ext: expected 1 to {MAX_TERMS} formulas in a combination, got {len(self.terms)}")
        terms = tuple((check("Combination", "a coefficient", c, _COEFFICIENT), formula) for c, formula in self.terms)
        packed: list[float] = []
        for coefficient, formula in terms:
            number, _, *parameters = formula.packed
            packed += [number, coefficient, *parameters]
        if compiled and not torch.compiler.is_compiling():  # traced, the operators refuse it when they run
            try:
                compiled.check_formula(packed)
            except ValueError as error:
                raise ValueError(f"imae_ext: {error}") from None
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "packed", packed)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.terms,)

    def __repr__(self) -> str:
        (first, formula), *others = self.terms
        shown = f"{'' if first == 1 else f'{first!r} * '}{formula!r}"
        for c, formula in others:
            shown += f" {'-' if c < 0 else '+'} {'' if abs(c) == 1 else f'{abs(c) if c < 0 else c!r} * '}{formula!r}"
        return shown


class SingleFormula(Formula):
    """One formula; the base of the dataclasses below.

    Attributes:
      number: what stands for the formula in exported models. No number is ever given another meaning or used again,
        and what its parameters are never changes: a formula that needs another parameter is another number.
    """

    number: ClassVar[int]
    _needs_all_logits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if type(self) is not known.get(getattr(self, "number", -1)):
            raise TypeError(f"imae_ext: the kernels know no formula {name}; combine those they know by + and *")
        packed: list[float] = [float(self.number), 1.0]
        for each in fields(self):  # type: ignore[arg-type]
            value = check(name, each.name, getattr(self, each.name), each.metadata)
            object.__setattr__(self, each.name, value)
            packed.append(float(value))
        object.__setattr__(self, "terms", ((1.0, self),))
        object.__setattr__(self, "packed", packed)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]
