"""The formulas of the docstrings become mathematics on the page of the API."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import imae_ext

sys.path.append(str(Path(__file__).parents[1] / "docs/api"))
from typeset import latex


@pytest.mark.parametrize(
    ("written", "typeset"),
    [
        ("-log p", r"-\log\left(p\right)"),
        ("2 r", r"2\,r"),
        ("(1 - p**q) / q", r"\frac{1 - p^{q}}{q}"),
        ("exp(T p r)", r"\exp\left(T\,p\,r\right)"),
        ("T (1 - p)", r"T\,\left(1 - p\right)"),
        ("1e-6 <= a <= 100", r"10^{-6} \le a \le 100"),
        ("sum_k r**k / k", r"\frac{\sum_{k}\,r^{k}}{k}"),
        ("a - (b - 1)", r"a - \left(b - 1\right)"),
        ("expm1(beta p**lambd r)", r"\operatorname{expm1}\left(\beta\,p^{\lambda}\,r\right)"),
    ],
)
def test_latex(written: str, typeset: str) -> None:
    assert latex(written) == typeset


@pytest.mark.parametrize(
    "written", ["weight", "none", "(N, C)", "(N, C, d1, ...)", "F.cross_entropy", "a = torch.ones(2)"]
)
def test_what_is_no_formula_stays_code(written: str) -> None:
    assert latex(written) is None


def test_every_formula_with_a_value_has_one_typeset() -> None:
    """In its docstring's first paragraph; DM, whose value is an integral, has its weight."""
    for name in imae_ext.__all__:
        kind = getattr(imae_ext, name)
        if isinstance(kind, type) and imae_ext.formulas.SingleFormula in kind.__bases__:
            spans = re.findall(r"``([^`]+)``", kind.__doc__ or "")
            assert any(latex(span.replace("\n", " ")) for span in spans), name
