"""A program that was exported and stored runs in every later version; and what torch says where imae_ext is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from stored_program import by_reference, inputs

# it is the package that registers the operators, which stored_program imports
STORED = Path(__file__).parent / "data/program_0_1_0.pt2"


@pytest.fixture(scope="module")
def program():
    return torch.export.load(STORED).module()


def test_it_holds_a_call_of_each_operator(program):
    graphs = [module.graph for module in program.modules() if isinstance(module, torch.fx.GraphModule)]
    held = {str(node.target) for graph in graphs for node in graph.nodes if "imae_ext" in str(node.target)}
    assert held == {
        f"imae_ext.{name}.default"
        for name in (
            *("forward", "traced_forward_backward", "traced_forward_save", "forward_backward", "row_stats"),
            *("dense_forward", "binary_forward", "linear_loss"),
        )
    }


@pytest.mark.parametrize("N", (2, 21))
def test_a_stored_program_gives_what_the_reference_gives(program, N):
    features, target, sample_weight = inputs(N)
    logits, *got = program(features, target, sample_weight)
    z = F.linear(features.double(), program.layer.weight.double(), program.layer.bias.double())
    torch.testing.assert_close(logits, z.float())
    differentiable = 0
    for ours, wanted in zip(got, by_reference(z, target, sample_weight), strict=True):
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=1e-6)
        assert ours.requires_grad == wanted.requires_grad
        if wanted.requires_grad:
            by = program.layer.weight
            grads = [torch.autograd.grad(loss.sum(), by, retain_graph=True)[0] for loss in (ours, wanted)]
            torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)
            differentiable += 1
    assert differentiable == 5


def test_without_the_import_torch_names_the_operator_and_asks_for_it():
    """docs/ecosystem.md tells the same."""
    done = subprocess.run(
        [sys.executable, "-c", f"import torch; torch.export.load({str(STORED)!r})"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "torch.ops.imae_ext" in done.stderr and "Please import the custom op" in done.stderr
