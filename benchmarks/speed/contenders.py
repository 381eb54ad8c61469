"""Who takes part: each contender turns a case's logits and target into one forward and backward pass to be timed.

Every pass that goes through autograd starts without a gradient buffer and gives the one it made back, so that the
allocation, its page faults and its release are part of the time, for all alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy

import imae_ext
from imae_ext import reference
from imae_ext.formulas import Formula

from .cases import Case

IMAE, CCE = imae_ext.IMAE(), imae_ext.CCE()

# The reference integrates 32 points a row and keeps a dozen tensors of that size for its backward pass.
MAX_REFERENCE_ROWS = 100_000
FEW_LOGITS = 2000  # so that a call's own cost shows

LossOf = Callable[[Tensor, Tensor], Tensor]


class Unavailable(Exception):
    """Why a contender cannot run a case."""


@dataclass(frozen=True)
class Step:
    """A contender, ready for one case."""

    run: Callable[[], object]  # what is timed
    gradient: Callable[[], Tensor | None]  # the same once more, returning the gradient; None for a copy


Prepare = Callable[[Case, Tensor, Tensor], Step]


@dataclass(frozen=True)
class Contender:
    """A name in the results, and what to run."""

    key: str
    label: str
    computes: str  # "imae", "cce" or "copy" (none): what its gradient has to be
    prepare: Prepare
    compiled: bool = False


def through_autograd(loss_of: LossOf) -> Prepare:
    """Return a contender's prepare: ``loss_of(logits, target).backward()`` with a fresh gradient."""

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        leaf = logits.detach().requires_grad_()
        scale, is_leaf = case.grad_output, case.leaf

        def backward() -> None:
            loss = loss_of(leaf if is_leaf else leaf.view_as(leaf), target)
            (loss if scale == 1 else loss * scale).backward()

        def run() -> None:
            backward()
            leaf.grad = None

        def gradient() -> Tensor | None:
            backward()
            found, leaf.grad = leaf.grad, None
            return found

        return Step(run, gradient)

    return prepare


def compiled(make: Callable[[Tensor, Tensor], LossOf]) -> Prepare:
    """Return a prepare for torch.compile of a loss: one graph, fixed shapes, compiled when it is first called."""

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        mode = "max-autotune-no-cudagraphs" if case.device == "cuda" else None  # it changes nothing on a CPU
        loss_of = torch.compile(make(logits, target), dynamic=False, fullgraph=True, mode=mode)
        return through_autograd(loss_of)(case, logits, target)

    return prepare


def at_once(formula: Formula) -> Prepare:
    """Return a prepare for value_and_grad, which writes to the same gradient buffer every time."""

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        if case.grad_output != 1 or not case.leaf:
            raise Unavailable("value_and_grad is outside autograd")
        out = torch.zeros_like(logits)

        def run() -> object:
            return imae_ext.value_and_grad(logits, target, formula, out=out)

        def gradient() -> Tensor:
            run()
            return out

        return Step(run, gradient)

    return prepare


def few_rows(prepare: Prepare) -> Prepare:
    """Keep a contender that integrates numerically from filling the memory."""

    def checked(case: Case, logits: Tensor, target: Tensor) -> Step:
        if case.rows > MAX_REFERENCE_ROWS:
            raise Unavailable(f"the quadrature of {case.rows} rows takes too much memory")
        return prepare(case, logits, target)

    return checked


def few_logits(prepare: Prepare) -> Prepare:
    """Keep a contender to the cases in which a call's own cost shows."""

    def checked(case: Case, logits: Tensor, target: Tensor) -> Step:
        if logits.numel() > FEW_LOGITS:
            raise Unavailable("a call's own cost does not show at this size")
        return prepare(case, logits, target)

    return checked


def forward_alone(loss_of: LossOf) -> Prepare:
    """Return a prepare for the loss without its backward pass, which it is ready for."""

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        leaf = logits.detach().requires_grad_()
        return Step(lambda: loss_of(leaf, target), lambda: None)

    return prepare


def gradient_handed_on(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Compute loss and gradient at once, and go on with ``logits.backward(grad)``."""
    leaf = logits.detach().requires_grad_()

    def run() -> Tensor | None:
        _, grad = imae_ext.value_and_grad(leaf, target, IMAE)
        leaf.backward(grad if case.grad_output == 1 else grad * case.grad_output)
        found, leaf.grad = leaf.grad, None
        return found

    return Step(run, run)


def copy_into(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Copy the logits to a buffer that is used again: the same bytes as a forward and backward pass, and no more."""
    out = torch.zeros_like(logits)
    return Step(lambda: out.copy_(logits), lambda: None)


def clone(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Copy the logits to a fresh buffer."""
    return Step(lambda: logits.clone(), lambda: None)


def eager_reference(logits: Tensor, target: Tensor) -> Tensor:
    return reference.robust_loss(logits, target, IMAE)


def traced_reference(logits: Tensor, target: Tensor) -> LossOf:
    """Return the reference as one graph of operators.

    torch.compile takes the reference as it is, too, but makes the nodes of the quadrature anew in every call; traced
    beforehand, they are constants, and it runs about a tenth faster.
    """

    def unchecked(logits: Tensor, target: Tensor) -> Tensor:
        row, live, _ = reference.rows(logits, target, ignore_index=-100, needs_all_logits=False)
        values = reference.VALUE[type(IMAE)](row, *IMAE.packed[2:])
        return torch.where(live, values, 0.0).sum() / live.sum()

    return make_fx(unchecked)(logits.detach(), target)


def imae_by_hand(logits: Tensor, target: Tensor) -> Tensor:
    """Return a loss with IMAE's gradient as one would write it without this package: weighted cross-entropy.

    The value is not IMAE's loss: the integral behind it is what the reference computes.
    """
    nlp = cross_entropy(logits.float(), target, reduction="none")
    p, r = torch.exp(-nlp.detach()), -torch.expm1(-nlp.detach())
    return (torch.exp(IMAE.T * p * r) / (2 * r + IMAE.eps) * nlp).mean()


def imae(logits: Tensor, target: Tensor) -> Tensor:
    return imae_ext.robust_loss(logits, target, IMAE)


CONTENDERS: tuple[Contender, ...] = (
    Contender("imae", "IMAE", "imae", through_autograd(imae)),
    Contender("imae_handed_on", "IMAE, gradient handed on", "imae", few_logits(gradient_handed_on)),
    Contender("imae_forward", "IMAE, forward alone", "copy", few_logits(forward_alone(imae))),
    Contender("imae_out", "IMAE, reused buffer", "imae", at_once(IMAE)),
    Contender("cce", "CCE", "cce", through_autograd(lambda z, y: imae_ext.robust_loss(z, y, CCE))),
    Contender("cce_out", "CCE, reused buffer", "cce", at_once(CCE)),
    Contender("reference", "IMAE reference", "imae", few_rows(through_autograd(eager_reference))),
    Contender("reference_compiled", "IMAE reference, compiled", "imae", few_rows(compiled(traced_reference)), True),
    Contender("by_hand", "IMAE by hand", "imae", through_autograd(imae_by_hand)),
    Contender("by_hand_compiled", "IMAE by hand, compiled", "imae", compiled(lambda z, y: imae_by_hand), True),
    Contender("cross_entropy", "F.cross_entropy", "cce", through_autograd(cross_entropy)),
    Contender("cross_entropy_compiled", "F.cross_entropy, compiled", "cce", compiled(lambda z, y: cross_entropy), True),
    Contender("cross_entropy_forward", "F.cross_entropy, forward", "copy", few_logits(forward_alone(cross_entropy))),
    Contender("copy", "copy, reused buffer", "copy", copy_into),
    Contender("clone", "copy, fresh buffer", "copy", clone),
)


def expected_gradient(computes: str, case: Case, logits: Tensor, target: Tensor) -> Tensor | None:
    """Return what every contender's gradient is held against before it is timed, in float32; None for a copy."""
    if computes == "copy":
        return None
    loss_of: LossOf = imae_by_hand if computes == "imae" else cross_entropy
    return through_autograd(loss_of)(case, logits.float(), target).gradient()
