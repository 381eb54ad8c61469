"""Other packages' kernels for a GPU. They have no robust loss: what they are timed at is cross-entropy."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from .cases import Case
from .contenders import Contender, Step, Unavailable, through_autograd


def _package(case: Case, name: str, module: str) -> ModuleType:
    if case.device != "cuda":
        raise Unavailable(f"{name} needs a CUDA device")
    if len(case.shape) != 2:
        raise Unavailable(f"{name} takes logits of shape (N, C) only")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{name} could not be imported: {error}") from error


def liger(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Prepare liger-kernel's cross-entropy. It writes the gradient over the logits, so it gets its own each time.

    What is timed works on whatever the pass before left there: the same bytes and the same arithmetic.
    """
    loss_of = _package(case, "liger-kernel", "liger_kernel.transformers.functional").liger_cross_entropy
    prepare = through_autograd(loss_of)
    return Step(prepare(case, logits.clone(), target).run, lambda: prepare(case, logits.clone(), target).gradient())


def quack(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Prepare QuACK's cross-entropy through autograd."""
    loss_of = _package(case, "quack-kernels", "quack.cross_entropy").cross_entropy
    return through_autograd(loss_of)(case, logits, target)


def quack_at_once(case: Case, logits: Tensor, target: Tensor) -> Step:
    """Prepare QuACK's kernel that writes each row's own gradient in the forward pass."""
    forward = _package(case, "quack-kernels", "quack.cross_entropy").cross_entropy_fwd
    if case.grad_output != 1 or not case.leaf:
        raise Unavailable("cross_entropy_fwd is outside autograd")

    def gradient() -> Tensor:
        of_rows: Tensor = forward(logits, target, return_dx=True)[-1]
        return of_rows / case.rows

    return Step(lambda: forward(logits, target, return_dx=True), gradient)


PEERS: tuple[Contender, ...] = (
    Contender("liger", "liger-kernel", "cce", liger),
    Contender("quack", "quack-kernels", "cce", quack),
    Contender("quack_at_once", "quack-kernels, forward with dx", "cce", quack_at_once),
)
