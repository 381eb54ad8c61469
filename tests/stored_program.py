"""The exported program in tests/data, with a call of each operator: python tests/stored_program.py FILE makes one.

It was made by 0.1.0 and torch 2.11 and is not to be made again: later versions must go on to run it. One that adds an
operator stores a program of its own beside it.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import imae_ext
from imae_ext import GCE, IMAE, MAE, NCE, binary_robust_loss, linear_robust_loss, ops, reference, robust_loss

WEIGHT = torch.linspace(0.5, 1.5, 5)
SUM = IMAE(8.0) + 0.5 * NCE()


class Model(torch.nn.Module):
    """A linear layer, and losses of its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 5)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 30).sin().view(5, 6))
            self.layer.bias.copy_(torch.linspace(0.5, -0.5, 5))
        self.register_buffer("weight", WEIGHT)

    def forward(self, features: Tensor, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, ...]:
        logits = self.layer(features)
        with torch.no_grad():
            value = robust_loss(logits, target, MAE(), reduction="sum")
        options = {"weight": self.weight, "sample_weight": sample_weight}
        return (
            logits,
            value,
            robust_loss(logits, target, SUM, **options),
            robust_loss(logits, target, GCE(0.5), reduction="none", ignore_index=2),
            robust_loss(logits, logits.detach().softmax(1), IMAE(8.0), reduction="sum"),
            binary_robust_loss(logits, (logits.detach() > 0.25).float(), IMAE(4.0)),
            linear_robust_loss(features, self.layer.weight, target, SUM, linear_bias=self.layer.bias),
            *imae_ext.value_and_grad(logits, target, IMAE(8.0)),
            *imae_ext.row_stats(logits, target, IMAE(8.0))[:2],
        )


def by_reference(z: Tensor, target: Tensor, sample_weight: Tensor) -> tuple[Tensor, ...]:
    """What the program gives behind its logits, here of float64, by plain operations."""
    options = {"weight": WEIGHT.double(), "sample_weight": sample_weight.double()}
    leaf = z.detach().requires_grad_()
    loss = reference.robust_loss(leaf, target, IMAE(8.0))
    p = leaf.detach().softmax(1).gather(1, target[:, None]).squeeze(1)
    return (
        reference.robust_loss(leaf, target, MAE(), reduction="sum").detach(),
        reference.robust_loss(z, target, SUM, **options),
        reference.robust_loss(z, target, GCE(0.5), reduction="none", ignore_index=2),
        imae_ext.soft.robust_loss(z, z.detach().softmax(1), IMAE(8.0), None, None, 0.0, -100, "sum"),
        reference.binary_robust_loss(z, (z.detach() > 0.25).double(), IMAE(4.0)),
        reference.robust_loss(z, target, SUM),
        loss.detach(),
        torch.autograd.grad(loss, leaf)[0],
        p,
        torch.exp(8 * p * (1 - p)),
    )


def inputs(N: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(N)
    features, target = torch.randn(N, 6, generator=generator), torch.randint(5, (N,), generator=generator)
    return features, target, torch.linspace(0.25, 2, N)


def exported() -> torch.export.ExportedProgram:
    ops._MAY_KEEP_GRADIENT = True  # so that torch 2.11, too, writes the operator that newer ones take
    N = torch.export.Dim("N", min=2)
    shapes = {"features": {0: N}, "target": {0: N}, "sample_weight": {0: N}}
    program = torch.export.export(Model(), inputs(8), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of whoever makes it
    return program


if __name__ == "__main__":
    torch.export.save(exported(), sys.argv[1])
