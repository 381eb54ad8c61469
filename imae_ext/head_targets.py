"""What linear.py knows of its rows: which class, classes or amounts of them each has, and the loss of a chunk's logits.

Two kinds with the same methods: class labels, one or two a row, and amounts of every class. Both write the gradient of
the rows' sum over the chunk's logits, by the kernels that the other losses use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import checks, reference


class Inputs(NamedTuple):
    """The tensors of a call, as the user gave them."""

    x: Tensor  # (..., D)
    head: Tensor  # (C, D)
    bias: Tensor | None  # (C,)
    target: Tensor  # (...), class labels; or (..., C), amounts of the classes
    other: Tensor | None  # (...), second labels
    lam: Tensor | None  # (...), the amount of the first label where there is a second one
    other_lam: Tensor | None  # (...), and that of the second
    weight: Tensor | None  # (C,)
    sample_weight: Tensor | None  # (...)

    @property
    def compute(self) -> torch.dtype:
        """The dtype of the loss."""
        return torch.float64 if self.head.dtype is torch.float64 else torch.float32


class Rows(ABC):
    """What both kinds have; rows are flattened."""

    counts: Tensor  # (N,), which rows have a gradient
    of_mean: Tensor  # (N,), what each adds to the divisor of a mean

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep these rows alone for :meth:`step`."""

    @abstractmethod
    def step(self, at: slice, logits: Tensor, gradient: bool, divisor: bool) -> tuple[Tensor, Tensor | None]:
        """Return the values of a chunk and its part of the divisor of ``normalized``; write the gradient over logits.

        Neither divisor nor gradient is made unless it is asked for.
        """


def rows_of(inputs: Inputs, formula: list[float], ignore_index: int) -> Rows:
    """Return the kind that the target is."""
    kind = Amounts if inputs.target.is_floating_point() else Labels
    return kind(inputs, formula, ignore_index)


class _Part(NamedTuple):
    """One label of each row."""

    target: Tensor
    sample_weight: Tensor | None  # with the label's amount in it
    row_weight: Tensor  # with the class weight, 0 where it does not count

    def at(self, rows: Any) -> _Part:
        return _Part(*(None if t is None else t[rows] for t in self))  # type: ignore[arg-type]


class Labels(Rows):
    """One or two class labels a row."""

    def __init__(self, inputs: Inputs, formula: list[float], ignore_index: int) -> None:
        dtype = inputs.compute
        self.formula, self.ignore_index, self.dtype = formula, ignore_index, dtype
        self.weight = None if inputs.weight is None else inputs.weight.to(dtype)
        samples = None if inputs.sample_weight is None else inputs.sample_weight.reshape(-1).to(dtype)
        target = inputs.target.reshape(-1)
        if inputs.other is None or inputs.lam is None or inputs.other_lam is None:
            self.parts = [self._part(target, samples)]
            self.of_mean, self.counts = self.parts[0].row_weight, self.parts[0].row_weight != 0
            return
        live = checks.not_ignored(target, ignore_index)
        other = torch.where(live, inputs.other.reshape(-1).to(target.dtype), target)
        by = live.new_ones(live.shape, dtype=dtype) if samples is None else samples
        amounts = inputs.lam.reshape(-1).to(dtype), inputs.other_lam.reshape(-1).to(dtype)
        self.parts = [self._part(label, amount * by) for label, amount in zip((target, other), amounts, strict=True)]
        self.of_mean = torch.where(live, by, 0.0)
        self.counts = (self.parts[0].row_weight != 0) | (self.parts[1].row_weight != 0)

    def _part(self, label: Tensor, samples: Tensor | None) -> _Part:
        return _Part(label, samples, reference.row_weights(label, self.weight, samples, self.ignore_index, self.dtype))

    def select(self, rows: Tensor) -> None:
        """Keep these rows alone."""
        self.parts = [part.at(rows) for part in self.parts]

    def step(self, at: slice, logits: Tensor, gradient: bool, divisor: bool) -> tuple[Tensor, Tensor | None]:
        """Do it by the kernels for class labels; for two of them, on a copy of the logits as well."""
        parts = [part.at(at) for part in self.parts]
        if not (gradient or divisor):
            found = [torch.ops.imae_ext.forward(logits, *self._arguments(part), 0) for part in parts]
            return (found[0] if len(found) == 1 else found[0] + found[1]), None
        second = logits.clone() if len(parts) == 2 else None
        values, total = self._one(logits, parts[0], divisor)
        if second is not None:
            more, of_second = self._one(second, parts[1], divisor)
            values = values + more
            total = None if total is None or of_second is None else total + of_second
            logits.add_(second)
        return values, total

    def _arguments(self, part: _Part) -> tuple[Any, ...]:
        return part.target, self.formula, self.weight, part.sample_weight, self.ignore_index

    def _one(self, logits: Tensor, part: _Part, divisor: bool) -> tuple[Tensor, Tensor | None]:
        values, example = torch.ops.imae_ext.forward_backward_(logits, *self._arguments(part))
        if not divisor:
            return values, None
        return values, torch.where(part.row_weight != 0, example.double() * part.row_weight, 0.0).sum()


class Amounts(Rows):
    """An amount of every class: probabilities."""

    def __init__(self, inputs: Inputs, formula: list[float], ignore_index: int) -> None:
        dtype = inputs.compute
        self.formula, self.dtype = formula, dtype
        self.weight = None if inputs.weight is None else inputs.weight.to(dtype)
        self.target = inputs.target.reshape(-1, inputs.target.shape[-1])
        ones = torch.ones(len(self.target), dtype=dtype, device=self.target.device)
        given = inputs.sample_weight
        self.samples = ones if given is None else given.reshape(-1).to(dtype)
        self.of_mean = self.samples
        weighs = self.target != 0 if self.weight is None else (self.target != 0) & (self.weight != 0)
        self.counts = (self.samples != 0) & weighs.any(1)

    def select(self, rows: Tensor) -> None:
        """Keep these rows alone."""
        self.target, self.samples = self.target[rows], self.samples[rows]

    def step(self, at: slice, logits: Tensor, gradient: bool, divisor: bool) -> tuple[Tensor, Tensor | None]:
        """Do it by the kernels for amounts, whose gradient is fresh memory."""
        target, samples = self.target[at].to(self.dtype), self.samples[at]
        arguments = logits, target, self.formula, self.weight, samples, 0.0
        values, one = torch.ops.imae_ext.dense_forward(*arguments, 0)
        total = torch.ops.imae_ext.dense_forward(*arguments, 3)[1].double() if divisor else None
        if gradient:
            one = torch.ones_like(one)
            logits.copy_(torch.ops.imae_ext.dense_backward(*arguments, one, one))
        return values, total
