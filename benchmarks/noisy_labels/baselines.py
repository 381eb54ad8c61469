"""The corrections that the paper's tables compare with, in plain PyTorch: none of them is a fused loss of imae_ext.

Each is a value, as the formulas of imae_ext are; `PlainLoss` makes the module that training calls. `T` is the
transition matrix, (C, C), `T[i, j]` being the probability that an example of class i is labelled j.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from .noise import NoisyLabels

MOST_CONDITION = 1e6  # of a matrix to invert in float32


@dataclass(frozen=True)
class Baseline(ABC):
    """The base of the losses below; by itself nothing."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) != isinstance(field.default, bool) or not 0 <= value <= 1:
                kind = "True or False" if isinstance(field.default, bool) else "a number in [0, 1]"
                raise ValueError(f"{type(self).__name__}: expected {kind} for {field.name}, got {value!r}")

    @property
    def needs_transition(self) -> bool:
        """Whether the loss has to be given a transition matrix."""
        return False

    def matrix(self, num_classes: int, transition: Tensor | None) -> Tensor | None:
        """Make the (C, C) matrix that `values` is given: None, fixed, or a Parameter to be trained."""
        return None

    @abstractmethod
    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        """Compute each example's loss, (N,), from the log-probabilities (N, C) and the labels (N,)."""


@dataclass(frozen=True)
class BootstrapHard(Baseline):
    """`-beta log p_y - (1 - beta) log p_k`, k the predicted class (Reed et al., ICLR 2015 workshop, Eq. 7)."""

    beta: float = 0.8

    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        return -self.beta * _at(log_p, target) - (1 - self.beta) * log_p.amax(dim=1)


@dataclass(frozen=True)
class BootstrapSoft(Baseline):
    """`-beta log p_y - (1 - beta) sum_k p_k log p_k` (Reed et al., ICLR 2015 workshop, Eq. 6).

    The second term is the entropy of the prediction, which training makes small: the gradient goes through p_k.
    """

    beta: float = 0.95

    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        return -self.beta * _at(log_p, target) - (1 - self.beta) * (log_p.exp() * log_p).sum(dim=1)


@dataclass(frozen=True)
class _Correction(Baseline):
    """Loss correction; `estimated`: the matrix from a first network's predictions, not from the true labels."""

    estimated: bool = False

    @property
    def needs_transition(self) -> bool:
        return True

    def matrix(self, num_classes: int, transition: Tensor | None) -> Tensor | None:
        if transition is None or transition.shape != (num_classes, num_classes):
            got = None if transition is None else tuple(transition.shape)
            raise ValueError(f"{type(self).__name__}: expected a ({num_classes}, {num_classes}) matrix, got {got}")
        return transition


@dataclass(frozen=True)
class Forward(_Correction):
    """`-log sum_i T[i, y] p_i`: predict through the noise (Patrini et al., CVPR 2017, Theorem 2)."""

    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        assert matrix is not None
        return -torch.logsumexp(log_p + matrix.log().t()[target], dim=1)


@dataclass(frozen=True)
class Backward(_Correction):
    """`-sum_j inv(T)[y, j] log p_j`: without bias, but unbounded below (Patrini et al., CVPR 2017, Theorem 1)."""

    def matrix(self, num_classes: int, transition: Tensor | None) -> Tensor | None:
        known = super().matrix(num_classes, transition)
        assert known is not None
        if not torch.linalg.cond(known.double()) < MOST_CONDITION:  # nan and infinity are not, either
            unused = (known.sum(dim=0) == 0).nonzero().flatten().tolist()
            why = f"no label is of class {', '.join(map(str, unused))}" if unused else "its rows are nearly alike"
            raise ValueError(f"Backward inverts the transition matrix, which has no inverse here: {why}; take Forward")
        return torch.linalg.inv(known)

    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        assert matrix is not None
        return -(matrix[target] * log_p).sum(dim=1)


@dataclass(frozen=True)
class NoiseAdaptation(Baseline):
    """`-log sum_i softmax(b_i)[y] p_i`, b (C, C) trained along (Goldberger & Ben-Reuven, ICLR 2017, simple model).

    softmax(b_i) starts as 1 - eps on the diagonal and eps / (C - 1) beside it, their Eq. 9.
    """

    eps: float = 0.1

    def matrix(self, num_classes: int, transition: Tensor | None) -> Tensor | None:
        start = torch.full((num_classes, num_classes), self.eps / (num_classes - 1))
        return nn.Parameter(start.fill_diagonal_(1 - self.eps).log())

    def values(self, log_p: Tensor, target: Tensor, matrix: Tensor | None) -> Tensor:
        assert matrix is not None
        return -torch.logsumexp(log_p + log_softmax(matrix, dim=1).t()[target], dim=1)


class PlainLoss(nn.Module):
    """A baseline as a module, (logits (N, C), target (N,)) -> the mean loss; its matrix, if any, moves with it."""

    matrix: Tensor | None

    def __init__(self, baseline: Baseline, num_classes: int, transition: Tensor | None = None) -> None:
        super().__init__()
        self.baseline = baseline
        matrix = baseline.matrix(num_classes, transition)
        if isinstance(matrix, nn.Parameter):
            self.matrix = matrix
        else:
            self.register_buffer("matrix", matrix)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.baseline.values(log_softmax(logits.float(), dim=1), target, self.matrix).mean()


def known_transition(noise: NoisyLabels, num_classes: int) -> Tensor:
    """Count the transition matrix (C, C) of labels whose truth is known; a class without examples keeps its labels."""
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (noise.clean, noise.labels), 1)
    counts += np.diag(counts.sum(axis=1) == 0)
    return torch.from_numpy(counts / counts.sum(axis=1, keepdims=True)).float()


def anchor_transition(probabilities: Tensor, percentile: float = 97.0) -> Tensor:
    """Estimate the transition matrix (C, C) from predictions (N, C) of a network trained on the noisy labels.

    Row i is the prediction for the anchor of class i: the example with the highest p_i after those at or above its
    97th percentile are left out as outliers (Patrini et al., CVPR 2017, section 4, and their code).
    """
    p = probabilities.double()
    limits = torch.quantile(p, percentile / 100, dim=0, interpolation="higher")
    inside = torch.where(p < limits, p, -1.0)  # all at the limit: the first example stands for the class
    return p[inside.argmax(dim=0)].float()


def _at(log_p: Tensor, target: Tensor) -> Tensor:
    return log_p.gather(1, target.unsqueeze(1)).squeeze(1)
