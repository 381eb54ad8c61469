"""The formulas as values: what a loss computes, apart from how it is reduced.

With ``z`` a row of logits, ``y`` its label and ``p`` the softmax probability of ``y``, every formula below is a
function of ``p`` (``r = 1 - p``) but for LabelSmoothing and NCE, which see all logits. They combine linearly, up to
four at a time, and a combination is evaluated in the same single pass:

>>> 2.0 * NCE() + MAE() / 2
2.0 * NCE() + 0.5 * MAE()
>>> sum([CCE(), RCE()]) - 0.5 * MAE()
CCE() + RCE(A=9.210340371976182) - 0.5 * MAE()

A combination, like a formula, compares by value, hashes, pickles, and is what its ``repr`` says.

The same losses under the names that others give them, equal in gradient, and in value unless said:

==============================================  ==================================================================
DFT, ``-sg(p) log p`` (arXiv 2508.05629)        ``GCE(1.0)``, which is ``0.5 * MAE()``; the value is another
softmax (multi-class) focal loss                ``Focal(gamma)``
Poly-1, ``-log p + eps (1 - p)``                ``CCE() + (eps / 2) * MAE()``
NCE+MAE, NCE+RCE (Ma et al., ICML 2020)         ``NCE() + 0.5 * MAE()``, ``NCE() + RCE()``; for CIFAR-100
                                                ``10 * NCE() + 0.5 * MAE()``
``1 - p``, often called MAE, or unhinged        ``0.5 * MAE()``
``-p**q``, a family in fine-tuning              ``q * GCE(q)``, up to ``q = 16``; the value is 1 more
==============================================  ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ._extension import compiled, stale
from .arithmetic import Combination as Combination
from .arithmetic import Formula as Formula
from .arithmetic import SingleFormula as SingleFormula
from .arithmetic import check as _check
from .arithmetic import known
from .arithmetic import parameter as _parameter


@dataclass(frozen=True, eq=False)
class CCE(SingleFormula):
    """Categorical cross entropy, ``-log p``. Weight ``2 r``: the examples that fit worst pull most.

    Poly-1, ``-log p + eps (1 - p)``, is ``CCE() + (eps / 2) * MAE()``.
    """

    number = 0


@dataclass(frozen=True, eq=False)
class MAE(SingleFormula):
    """Mean absolute error against the one-hot label, ``2 r`` (Ghosh et al., AAAI 2017). Weight ``4 p r``.

    Scale: the sum over all classes of ``|one-hot - p|``, as in that paper. What the authors of NCE+MAE and many others
    call MAE is ``1 - p``, half of it: ``0.5 * MAE()``. That is ``GCE(1.0)``, too, and has the gradient of DFT (dynamic
    fine-tuning, arXiv 2508.05629: ``-log p`` times a ``p`` that is held constant), whose value is another.
    """

    number = 1


@dataclass(frozen=True, eq=False)
class MSE(SingleFormula):
    """Squared error of the labelled class, ``r**2`` (arXiv 1905.11233). Weight ``4 p r**2``.

    Not the Brier score, which adds the squares of the other classes' probabilities.
    """

    number = 2


@dataclass(frozen=True, eq=False)
class GCE(SingleFormula):
    """Generalised cross entropy, ``(1 - p**q) / q`` (Zhang & Sabuncu, NeurIPS 2018, Eq. 6), on the paper's scale.

    CCE as ``q`` tends to 0, half of MAE at ``q = 1``. ``GCE(1.0)`` has the gradient of DFT (dynamic fine-tuning, arXiv
    2508.05629). Beyond 1, where a low ``p`` pulls ever less, it is the family of arXiv 2510.00526: its ``-p**10`` is
    ``10 * GCE(10.0)`` less 1.

    Args:
      q: in (0, 16]; the paper has (0, 1].
    """

    number = 3
    q: float = _parameter(0.7, 0, 16, low_is_open=True)


@dataclass(frozen=True, eq=False)
class IMAE(SingleFormula):
    """IMAE (arXiv 1903.12141, Table 2): weight ``exp(T p r)``; the paper recommends ``T = 8``.

    The slope is ``(expm1(T p r) + r / (r + eps/2)) / 2``, and the value its exact integral from the margin to
    infinity: not negative, and 0 for a perfect fit. ``eps`` lets the pull of a fitted example fade. Its default, 1e-8,
    is the constant in the authors' code. With ``eps = 0`` the weight is the paper's to the letter, and its integral
    diverges: a perfectly fitted example still pulls with weight 1, so that logits grow without bound and training
    collapses. The value is then anchored at ``p = 1/2``, and negative for fitted examples.

    The value is well above that of CCE, and for well fitted examples still is: watch accuracy, not the value.

    Scale: the weight is the L1 norm of a row's gradient, as in the paper; ``reduction="normalized"`` divides by their
    sum, as the authors do. Weights go up to ``exp(T/4)``, 7.4 for ``T = 8``: use a learning rate several times below
    that of CCE.

    Args:
      T: in [0, 30]; 0 weighs all examples alike.
      eps: 0 or in [1e-30, 1].
    """

    number = 4
    T: float = _parameter(8.0, 0, 30)
    eps: float = _parameter(1e-8, 1e-30, 1, zero_too=True)


@dataclass(frozen=True, eq=False)
class DM(SingleFormula):
    """Derivative manipulation (arXiv 1905.11233, Eq. 12): weight ``exp(beta p**lambd r)``.

    Value, scale and ``eps`` as in IMAE, which is ``lambd = 1``.

    Args:
      beta: in [0, 16].
      lambd: 0 or in [0.01, 16].
      eps: 0 or in [1e-30, 1].
    """

    number = 5
    beta: float = _parameter(8.0, 0, 16)
    lambd: float = _parameter(0.5, 0.01, 16, zero_too=True)
    eps: float = _parameter(1e-8, 1e-30, 1, zero_too=True)


@dataclass(frozen=True, eq=False)
class RCE(SingleFormula):
    """Reverse cross entropy, ``A r``: the label's log-zero is clipped to ``-A`` (Wang et al., ICCV 2019, Eq. 6).

    Scale: the default is that of the authors' code, which clips the label at 1e-4. ``A / 2`` times MAE.

    Args:
      A: in (0, 1e4]; positive, where the paper writes a negative number.
    """

    number = 6
    A: float = _parameter(-math.log(1e-4), 0, 1e4, low_is_open=True)


@dataclass(frozen=True, eq=False)
class Focal(SingleFormula):
    """Focal loss, ``-r**gamma log p`` (Lin et al., ICCV 2017, Eq. 4), over the softmax of all classes.

    The softmax, or multi-class, focal loss; its alpha is ``weight=``. The sigmoid focal loss of object detectors is
    another.

    Args:
      gamma: in [0, 64]; 0 is CCE.
    """

    number = 7
    gamma: float = _parameter(2.0, 0, 64)


@dataclass(frozen=True, eq=False)
class TaylorCE(SingleFormula):
    """The first ``t`` terms of the series of CCE, ``sum_k r**k / k`` (Feng et al., IJCAI 2020, Eq. 5).

    Args:
      t: an integer in [1, 64]; 1 is half of MAE.
    """

    number = 8
    t: int = _parameter(2, 1, 64, integer=True)


@dataclass(frozen=True, eq=False)
class AGCE(SingleFormula):
    """Asymmetric GCE, ``((a+1)**q - (a+p)**q) / q`` (Zhou et al., ICML 2021, Eq. 10), on the scale of authors' code.

    Args:
      a: in [1e-6, 100].
      q: in (0, 4].
    """

    number = 9
    a: float = _parameter(1.0, 1e-6, 100)
    q: float = _parameter(2.0, 0, 4, low_is_open=True)


@dataclass(frozen=True, eq=False)
class AUL(SingleFormula):
    """Asymmetric unhinged loss, ``((a-p)**q - (a-1)**q) / q`` (Zhou et al., ICML 2021, Eq. 11); scale as AGCE.

    Args:
      a: in (1, 100].
      q: in (0, 4].
    """

    number = 10
    a: float = _parameter(1.5, 1, 100, low_is_open=True)
    q: float = _parameter(0.9, 0, 4, low_is_open=True)


@dataclass(frozen=True, eq=False)
class AEL(SingleFormula):
    """Asymmetric exponential loss, ``exp(-p / a)`` (Zhou et al., ICML 2021, Eq. 12); scale as AGCE.

    Args:
      a: in [0.05, 1e4].
    """

    number = 11
    a: float = _parameter(2.5, 0.05, 1e4)


@dataclass(frozen=True, eq=False)
class LabelSmoothing(SingleFormula):
    """CCE against the label smoothed by ``eps``: ``-(1-eps) log p_y - eps/C sum_j log p_j`` (CVPR 2016).

    As ``F.cross_entropy(label_smoothing=eps)``; with class weights it differs: the whole row is multiplied by the
    weight of its label.

    Args:
      eps: in [0, 1].
    """

    number = 12
    _needs_all_logits = True
    eps: float = _parameter(0.1, 0, 1)


@dataclass(frozen=True, eq=False)
class NCE(SingleFormula):
    """Normalised cross entropy, ``log p_y / sum_j log p_j`` (Ma et al., ICML 2020, Eq. 6).

    Scale of combinations: the published NCE+MAE is ``NCE() + 0.5 * MAE()``, for CIFAR-100 ``10 * NCE() + 0.5 *
    MAE()``, since its MAE is ``1 - p``; the published NCE+RCE is ``NCE() + RCE()``.
    """

    number = 13
    _needs_all_logits = True


FORMULAS: dict[int, type[SingleFormula]] = {kind.number: kind for kind in SingleFormula.__subclasses__()}
known.update(FORMULAS)


def SCE(alpha: float = 0.1, beta: float = 1.0) -> Combination:
    """Symmetric cross entropy, ``alpha * CCE() + beta * RCE()`` (Wang et al., ICCV 2019, Eq. 9).

    On the scale of the authors' code; see :class:`RCE`.

    Args:
      alpha: coefficient of the cross entropy.
      beta: coefficient of the reverse cross entropy.
    """
    return _check("SCE", "alpha", alpha) * CCE() + _check("SCE", "beta", beta) * RCE()


def unpack(packed: list[float]) -> Combination:
    """Return the formula that these numbers stand for."""
    terms, at = [], 0
    while at < len(packed):
        kind, coefficient = FORMULAS[int(packed[at])], packed[at + 1]
        count = len(fields(kind))  # type: ignore[arg-type]
        terms.append((coefficient, kind(*packed[at + 2 : at + 2 + count])))
        at += 2 + count
    return Combination(tuple(terms))


def signatures() -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    """Yield name, number and parameters of each formula, which are those of the compiled module."""
    for number, kind in FORMULAS.items():
        yield kind.__name__, number, [{"name": each.name, **each.metadata} for each in fields(kind)]  # type: ignore[arg-type]


if compiled and sorted(signatures()) != sorted((name, n, parameters) for name, n, _, parameters in compiled.formulas()):
    raise stale("has other formulas")
