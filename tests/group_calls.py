"""Calls with `group=`: each entry of the package on the rows of one process, or on all of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from calls import batch
from torch import Tensor
from torch.nn.functional import log_softmax

import imae_ext
from imae_ext import CCE, IMAE, MAE, NCE, LabelSmoothing

N, C = 23, 7


class Rows:
    """What a process has of the whole: logits, labels and whatever belongs to rows."""

    def __init__(self, begin: int = 0, end: int = N, dtype: torch.dtype = torch.float64) -> None:
        logits, target = batch(N, C, dtype)
        target[2:8] = -100  # unevenly spread
        target[20] = -100
        generator = torch.Generator().manual_seed(1)
        made = {
            "logits": logits,
            "target": target,
            "samples": torch.rand(N, generator=generator).to(dtype),
            "probabilities": torch.rand(N, C, generator=generator).softmax(1).to(dtype),
            "other": torch.randint(C, (N,), generator=generator),
            "lam": torch.rand(N, generator=generator).to(dtype),
            "binary": torch.randint(2, (N, C), generator=generator),
            "hidden": torch.randn(N, 5, generator=generator).to(dtype),
        }
        made["binary"][:3] = -100
        self.weight = torch.rand(C, generator=generator).to(dtype)
        self.head = torch.randn(C, 5, generator=generator).to(dtype)
        for name, value in made.items():
            setattr(self, name, value[begin:end].clone())

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


Found = tuple[Tensor, dict[str, Tensor]]  # value, gradients: of "rows", and of what all processes "shared"


def differentiated(call: Callable[..., Tensor], rows: Tensor, shared: Tensor | None = None) -> Found:
    leaves = {"rows": rows, "shared": shared}
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items() if leaf is not None}
    value = call(*leaves.values())
    value.sum().backward()
    return value.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def labels(formula, **more):
    def call(r: Rows, **options: Any) -> Found:
        for name, of in (("weight", "weight"), ("sample_weight", "samples")):
            if more.get(name):
                options[name] = getattr(r, of)
        if more.get("label_smoothing"):
            options["label_smoothing"] = more["label_smoothing"]
        target = r.probabilities if more.get("soft") else r.target
        return differentiated(lambda z: imae_ext.robust_loss(z, target, formula, **options), r.logits)

    return call


def trained_weight(r: Rows, **options: Any) -> Found:
    return differentiated(
        lambda z, w: imae_ext.robust_loss(z, r.target, IMAE(), weight=w, **options), r.logits, r.weight
    )


def mixed(r: Rows, **options: Any) -> Found:
    options |= {"weight": r.weight, "sample_weight": r.samples}
    return differentiated(lambda z: imae_ext.mixed_loss(z, r.target, r.other, r.lam, IMAE(), **options), r.logits)


def binary(r: Rows, **options: Any) -> Found:
    options |= {"weight": r.weight, "pos_weight": r.weight + 1, "sample_weight": r.samples}
    return differentiated(lambda z: imae_ext.binary_robust_loss(z, r.binary, IMAE(), **options), r.logits)


def from_nll(r: Rows, **options: Any) -> Found:
    def call(z: Tensor) -> Tensor:
        nll = -log_softmax(z, 1).gather(1, r.target.clamp(min=0)[:, None])[:, 0]
        return imae_ext.robust_loss_from_nll(nll, IMAE(), target=r.target, weight=r.weight, **options)

    return differentiated(call, r.logits)


def linear(r: Rows, **options: Any) -> Found:
    options |= {"weight": r.weight, "sample_weight": r.samples}
    return differentiated(lambda x, w: imae_ext.linear_robust_loss(x, w, r.target, IMAE(), **options), r.hidden, r.head)


def value_and_grad(r: Rows, **options: Any) -> Found:
    out = torch.empty_like(r.logits)
    value, grad = imae_ext.value_and_grad(r.logits, r.target, IMAE(), weight=r.weight, out=out, **options)
    assert grad is out
    return value, {"rows": grad}


def module(r: Rows, **options: Any) -> Found:
    criterion = imae_ext.IMAELoss(weight=r.weight, **options)
    criterion = pickle.loads(pickle.dumps(criterion))
    return differentiated(lambda z: criterion(z, r.target), r.logits)


CALLS = {
    "labels": labels(IMAE()),
    "weighed": labels(2 * CCE() + MAE(), weight=True, sample_weight=True),
    "probabilities": labels(IMAE(), soft=True, weight=True, sample_weight=True),
    "plain probabilities": labels(IMAE(), soft=True),
    "smoothed": labels(IMAE(), label_smoothing=0.1, weight=True),
    "trained weight": trained_weight,
    "mixed": mixed,
    "binary": binary,
    "from nll": from_nll,
    "linear": linear,
    "value and gradient": value_and_grad,
    "module": module,
}
MEAN_ONLY = {"all logits": labels(NCE() + LabelSmoothing(0.2), weight=True)}
CASES = [*product(CALLS, ("mean", "normalized", "sum", "none")), *product(MEAN_ONLY, ("mean", "none"))]
SINGLE = {"float32": 1e-6, "bfloat16": 2e-2}
