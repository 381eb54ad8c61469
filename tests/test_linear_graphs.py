"""The fused linear head in exported programs and on tensors without values."""

from __future__ import annotations

import pytest
import torch
from test_linear import assert_alike, results, tensors
from torch import Tensor, nn

from imae_ext import GCE, linear_robust_loss

SAMPLE_WEIGHT = torch.linspace(0.5, 2, 37).double()


class Head(nn.Module):
    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, head: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        options = {"linear_bias": bias, "sample_weight": SAMPLE_WEIGHT, "reduction": self.reduction, "chunk": 10}
        return linear_robust_loss(x, head, target, GCE(0.7), **options)


@pytest.mark.parametrize("reduction", ("mean", "normalized", "none"))
def test_exported_for_inference_then_differentiated(reduction):
    """Nobody wanted a gradient while the program was traced; whoever wants one later gets all of it."""
    inputs, target = tensors()
    module = Head(reduction)
    with torch.no_grad():
        program = torch.export.export(module, (*inputs, target)).module()
    assert any("linear_loss" in str(node.target) for node in program.graph.nodes)

    def call(x: Tensor, head: Tensor, target: Tensor, formula: GCE, linear_bias: Tensor) -> Tensor:
        return program(x, head, linear_bias, target)

    upstream = torch.linspace(-1, 2, 37).double() if reduction == "none" else torch.tensor(0.3).double()
    options = {"sample_weight": SAMPLE_WEIGHT, "reduction": reduction}
    wanted = results(linear_robust_loss, inputs, target, GCE(0.7), upstream, **options)
    assert_alike(results(call, inputs, target, GCE(0.7), upstream), wanted, 1e-11)
    x, head, bias = inputs  # one of them alone, and that twice differentiated
    penalties = []
    for loss_of in (program, module):
        leaf = head.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss_of(x, leaf, bias, target).sum(), leaf, create_graph=True)
        penalties.append(torch.autograd.grad(grad.square().sum(), leaf)[0])
    assert_alike(penalties[:1], penalties[1:], 1e-9)


@pytest.mark.parametrize("reduction", ("mean", "none"))
def test_on_meta(reduction):
    """Shapes and dtypes, as of a model that is built before it has memory."""
    x, head = (torch.zeros(*size, device="meta", requires_grad=True) for size in ((4, 8), (100, 8)))
    loss = linear_robust_loss(x, head, torch.zeros(4, device="meta").long(), GCE(0.7), reduction=reduction)
    loss.sum().backward()
    assert loss.shape == ((4,) if reduction == "none" else ()) and loss.device.type == "meta"
    assert x.grad.shape == (4, 8) and head.grad.shape == (100, 8)
