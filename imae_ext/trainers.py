"""The losses as the function that trainers of the transformers family call: ``(outputs, labels, num_items_in_batch)``.

``transformers.Trainer(..., compute_loss_func=classification_loss(IMAE(8.0)))`` is all there is to it. What such a
trainer leaves to the function is done here: the sum is divided by the number of labels of *all* accumulated
micro-batches, a causal model's labels are moved by one place, and a batch without any label gives 0 and no NaN.
Needs torch alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checks import check_options, check_weight, not_ignored
from .distributed import groups
from .formulas import Formula
from .functional import robust_loss

if TYPE_CHECKING:
    from .distributed.groups import Group


def classification_loss(
    formula: Formula, *, weight: Tensor | None = None, ignore_index: int = -100, group: Group = None
) -> TrainerLoss:
    """Make the ``compute_loss_func`` of a model whose labels stand where its logits do.

    For classifiers of sequences, images and tokens, masked language models and encoder-decoder models. The value is
    ``sum of the rows' losses / n``, with ``n = num_items_in_batch``, or, where the trainer gives none, the number of
    labels that are not ignored; the least ``n`` is 1.

    Args:
      formula: what to compute: ``IMAE(8.0)``, ``NCE() + 0.5 * MAE()``, ...
      weight: ``(C,)``; each row's loss is multiplied by the weight of its label. The sum is divided by the number of
        labels, not of their weights as in F.cross_entropy: the number is all that a trainer counts. It is moved to
        the logits' device in each call.
      ignore_index: rows with this label have loss 0 and gradient 0. Trainers count the labels that are not -100.
      group: the processes whose labels are counted where the trainer gives no number, as in
        :func:`imae_ext.robust_loss`. A number that it does give is that of all processes already.

    Returns:
      A function of ``(outputs, labels, num_items_in_batch=None)``, which can be pickled. Called, it
      returns a scalar, float32 (float64 for float64 logits), on the logits' device. ``outputs`` is a ModelOutput, a
      dict or any object with ``logits``, a tuple, of which it takes the first tensor of two dimensions or more, or the
      logits themselves: ``(N, C)`` for labels ``(N,)``, ``(N, S, C)`` for ``(N, S)``, and so on. ``num_items_in_batch``
      is a number, a tensor of one, 0 or None.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`; called without labels; outputs without logits.
      ValueError: as in :func:`imae_ext.robust_loss`; outputs of a causal language model, see :func:`causal_lm_loss`;
        a ``num_items_in_batch`` below 0 or NaN (a tensor's value is not looked at), or one for each of several GPUs.

    Example:
      >>> from imae_ext import IMAE
      >>> compute_loss = classification_loss(IMAE(T=8.0))
      >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
      >>> loss = compute_loss({"logits": logits}, torch.tensor([0, -100]), num_items_in_batch=4)
      >>> loss.detach()
      tensor(2.5491)
      >>> compute_loss({"logits": logits}, torch.tensor([-100, -100]), num_items_in_batch=0).detach()
      tensor(0.)

    References:
      ``compute_loss_func`` of transformers' Trainer, since 4.46.
    """
    return TrainerLoss(formula, weight, ignore_index, shift=False, causal=False, group=group)


def causal_lm_loss(
    formula: Formula,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    group: Group = None,
    shift: bool = True,
) -> TrainerLoss:
    """Make the ``compute_loss_func`` of a causal language model: the logits at place i answer the label at i + 1.

    The labels are moved by one place and filled up with ``ignore_index``; the logits are read as they are. Cutting off
    the logits' last place instead, as ``logits[:, :-1]`` does, costs several times as much: its derivative makes a
    gradient of the whole size and copies into it. As in :func:`classification_loss` otherwise.

    Args:
      formula: as in :func:`classification_loss`.
      weight: as in :func:`classification_loss`.
      ignore_index: as in :func:`classification_loss`.
      group: as in :func:`classification_loss`.
      shift: False for labels that a collator has moved already, often called ``shift_labels``.

    Returns:
      A function as of :func:`classification_loss`; logits ``(N, S, C)`` for labels ``(N, S)``.

    Raises:
      TypeError: as in :func:`classification_loss`.
      ValueError: as in :func:`classification_loss`.

    Example:
      >>> from imae_ext import CCE
      >>> compute_loss = causal_lm_loss(CCE())
      >>> logits, labels = torch.randn(2, 5, 11), torch.randint(11, (2, 5))
      >>> wanted = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
      >>> torch.allclose(compute_loss((logits,), labels), wanted)
      True

    References:
      ``ForCausalLMLoss`` of transformers.
    """
    return TrainerLoss(formula, weight, ignore_index, shift=bool(shift), causal=True, group=group)


@dataclass(frozen=True, eq=False)
class TrainerLoss:
    """What :func:`classification_loss` and :func:`causal_lm_loss` return; call it as they say."""

    formula: Formula
    weight: Tensor | None
    ignore_index: int
    shift: bool
    causal: bool
    group: Group = None

    def __post_init__(self) -> None:
        """Check what every call would refuse."""
        check_options(self.formula, "sum", self.ignore_index)
        check_weight(self.weight)

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | float | None = None) -> Tensor:
        """Compute the loss of a micro-batch."""
        if not self.causal and "CausalLM" in type(outputs).__name__:
            raise ValueError(
                f"imae_ext: got {type(outputs).__name__} of a causal language model, whose labels belong to the place "
                "before theirs; take imae_ext.trainers.causal_lm_loss"
            )
        logits = _logits(outputs)
        if not isinstance(labels, Tensor):
            raise TypeError(
                f"imae_ext: expected labels to be a Tensor, got {type(labels).__name__}; does the data set have a "
                "column that the trainer takes for labels (its label_names)?"
            )
        labels = labels.to(logits.device)
        if self.shift:
            if labels.dtype is torch.int32:  # which may not be able to hold ignore_index
                labels = labels.long()
            labels = torch.nn.functional.pad(labels, (0, 1), value=self.ignore_index)[..., 1:]
        classes_second = logits if logits.ndim < 3 else logits.movedim(-1, 1)
        own = not_ignored(labels, self.ignore_index).sum()
        if self.group is None or num_items_in_batch is not None:
            number = own if num_items_in_batch is None else num_items_in_batch
            return self._sum(classes_second, labels, self._weight_over(number, logits))
        groups_ = (groups.resolve(self.group),)
        number = groups.total(own, groups_)
        by = self._weight_over(number, logits) * groups_[0].size()
        return groups.of_all(self._sum(classes_second, labels, by), groups_, groups_[0].size())

    def _sum(self, logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        ignored = self.ignore_index
        return robust_loss(logits, labels, self.formula, weight=weight, ignore_index=ignored, reduction="sum")

    def _weight_over(self, number: Tensor | float, logits: Tensor) -> Tensor:
        """Return the class weights divided by the number of labels, (C,).

        To divide the loss instead would cost a pass over the whole gradient, to scale it.
        """
        options: dict[str, Any] = {
            "device": logits.device,
            "dtype": torch.float64 if logits.dtype is torch.float64 else torch.float32,
        }
        share = torch.as_tensor(_at_least_one(number), **options).reciprocal()
        if self.weight is None:
            return share.expand(logits.shape[-1])
        return self.weight.to(**options) * share


def _logits(outputs: Any) -> Tensor:
    """Find the logits in what a model returned."""
    found: Any = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif isinstance(outputs, (tuple, list)) and not hasattr(outputs, "logits"):  # the loss may come first
        found = next((part for part in outputs if isinstance(part, Tensor) and part.ndim >= 2), None)
    elif not isinstance(outputs, Tensor):
        found = getattr(outputs, "logits", None)
    if not isinstance(found, Tensor):
        holds = f" with {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
        raise TypeError(f"imae_ext: expected a model's outputs with logits, got {type(outputs).__name__}{holds}")
    return found


def _at_least_one(number: Tensor | float) -> Tensor | float:
    """Return what to divide by: where there are no labels, that is no reason to divide by 0."""
    if not isinstance(number, Tensor):
        if not number >= 0:
            raise ValueError(f"imae_ext: expected a num_items_in_batch of 0 or more, got {number!r}")
        return max(number, 1)
    if number.numel() != 1:
        raise ValueError(
            f"imae_ext: expected one num_items_in_batch, got a tensor of shape {tuple(number.shape)}, as "
            "torch.nn.DataParallel has it; the trainer would then multiply the loss by the number of GPUs: "
            "start it by torchrun, a process for each GPU"
        )
    return number.reshape(()).clamp(min=1)
