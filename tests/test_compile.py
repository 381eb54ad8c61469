"""torch.compile, export, and the contract of each operator with torch's dispatcher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from calls import FORMULA, REDUCTIONS, batch, gradient, same_bits
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

import imae_ext
from imae_ext import reference

op = torch.ops.imae_ext
SIZES = (8, 16, 5, 33)
pytestmark = pytest.mark.usefixtures("fresh_compiler")


def graphs(counter: CompileCounterWithBackend) -> int:
    """How many graphs with anything in them were compiled."""
    return sum(any(node.op.startswith("call") for node in graph.graph.nodes) for graph in counter.graphs)


@pytest.mark.parametrize(
    ("reduction", "dtype", "dynamic", "allowed"),
    (
        *((reduction, torch.float32, *way) for reduction in REDUCTIONS for way in ((None, 2), (True, 1))),
        ("mean", torch.bfloat16, None, 2),
        ("mean", torch.float16, None, 2),
    ),
)
def test_compiled_without_a_break_or_a_recompile_storm(reduction, dtype, dynamic, allowed):
    """Bitwise what eager mode gives, at every batch size, from one graph (and one before torch sees sizes vary)."""
    counter = CompileCounterWithBackend("aot_eager")
    module = imae_ext.IMAELoss(T=8.0, weight=torch.linspace(0.5, 1.5, 7), reduction=reduction)
    compiled = torch.compile(module, backend=counter, fullgraph=True, dynamic=dynamic)
    for N in SIZES:
        logits, target = batch(N=N, C=7, dtype=dtype, seed=N)
        target[1] = -100
        leaf, upstream = logits.clone().requires_grad_(), -0.75
        loss = compiled(leaf, target)
        (loss * upstream).sum().backward()
        eager = logits.clone().requires_grad_()
        wanted = module(eager, target)
        (wanted * upstream).sum().backward()
        assert same_bits(loss.detach(), wanted.detach())
        assert torch.allclose(leaf.grad.double(), eager.grad.double(), rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert 1 <= graphs(counter) <= allowed


@pytest.mark.parametrize("reduction", ("mean", "normalized"))  # in one pass, in two
def test_compiled_to_machine_code(reduction):
    """A whole training step through the default backend moves the parameters as eager mode does."""
    features, target = batch(N=16, C=6)
    before = torch.linspace(-0.5, 0.5, 36).view(6, 6)
    stepped = []
    for compile_ in (lambda f: f, lambda f: torch.compile(f, fullgraph=True)):
        weight = before.clone().requires_grad_()
        loss = compile_(lambda w: imae_ext.imae_loss(features @ w, target, reduction=reduction).sum())
        for _ in range(2):
            (grad,) = torch.autograd.grad(loss(weight), weight)
            with torch.no_grad():
                weight -= 0.1 * grad
        stepped.append(weight.detach())
    assert torch.allclose(*stepped, rtol=1e-5, atol=1e-6) and not torch.allclose(stepped[0], before, atol=1e-3)


def test_another_formula_is_another_result():
    """A parameter that changes between calls is not baked into the graph."""
    logits, target = batch(dtype=torch.float64)
    compiled = torch.compile(imae_ext.robust_loss, backend="aot_eager", fullgraph=True)
    formulas = (*(imae_ext.IMAE(T) for T in (0.0, 2.0, 4.0, 8.0)), imae_ext.GCE(0.3), 2.0 * imae_ext.NCE())
    for formula in formulas:
        got = gradient(compiled, logits, target, formula)
        wanted = gradient(imae_ext.robust_loss, logits, target, formula)
        assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


def test_compiled_without_gradients():
    logits, target = batch()
    compiled = torch.compile(imae_ext.robust_loss, backend="aot_eager", fullgraph=True)
    wanted = imae_ext.robust_loss(logits, target, FORMULA)
    with torch.no_grad():
        assert torch.equal(compiled(logits.clone().requires_grad_(), target, FORMULA), wanted)
    assert torch.equal(compiled(logits, target, FORMULA), wanted)


def test_compiled_outside_autograd():
    """value_and_grad and row_stats compile too, with the caller's buffer written to."""
    logits, target = batch()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def everything(logits, target, out):
        loss, grad = imae_ext.value_and_grad(logits, target, FORMULA)
        imae_ext.value_and_grad(logits, target, FORMULA, out=out)
        return loss, grad, *imae_ext.row_stats(logits, target, FORMULA)[:2]

    out = torch.full_like(logits, 7.0)
    got = everything(logits, target, out)
    loss, grad = imae_ext.value_and_grad(logits, target, FORMULA)
    wanted = (loss, grad, *imae_ext.row_stats(logits, target, FORMULA)[:2])
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert torch.equal(out, grad)


def test_compiled_call_refuses_what_eager_refuses():
    logits, target = batch()
    compiled = torch.compile(imae_ext.robust_loss, backend="aot_eager")
    with pytest.raises(ValueError, match=r"imae_ext: expected target of shape \(8,\), got \(7,\)"):
        compiled(logits, target[:7], FORMULA)
    with pytest.raises(TypeError, match=r"imae_ext: expected target of dtype"):
        compiled(logits, target.float(), FORMULA)
    with pytest.raises((IndexError, RuntimeError), match="imae_ext"):
        compiled(logits, target + 5, FORMULA)
    with pytest.raises(RuntimeError, match=r"csrc/tensors\.h|csrc/call\.h|csrc/ops\.cpp") as error:
        op.forward(logits, target[1:], FORMULA.packed, None, None, -100, 1)
    assert str(Path(__file__).parents[1]) not in str(error.value)  # not where it was built


@pytest.mark.parametrize("formula", (imae_ext.DM(), imae_ext.NCE()), ids=repr)
def test_reference_compiles_into_one_graph(formula):
    logits, target = batch(dtype=torch.float64)
    compiled = torch.compile(reference.robust_loss, backend="aot_eager", fullgraph=True)
    results = []
    for loss_of in (reference.robust_loss, compiled):
        leaf = logits.clone().requires_grad_()
        loss = loss_of(leaf, target, formula)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*results, strict=True))
    assert compiled(logits, target + 5, formula).isnan()


def test_class_weights_that_want_a_gradient_in_one_graph():
    logits, target = batch(dtype=torch.float64)
    results = []
    for loss_of in (imae_ext.robust_loss, torch.compile(imae_ext.robust_loss, backend="aot_eager", fullgraph=True)):
        weight = torch.linspace(0.5, 1.5, logits.shape[1], dtype=torch.float64, requires_grad=True)
        loss_of(logits, target, FORMULA, weight=weight).backward()
        results.append(weight.grad)
    assert torch.allclose(*results, rtol=1e-12) and (results[0] != 0).any()


def test_derivative_of_a_traced_gradient_is_refused():
    logits, target = batch()
    leaf = logits.clone().requires_grad_()
    loss, grad = op.traced_forward_backward(leaf, target, FORMULA.packed, None, None, -100, 1)
    with pytest.raises(RuntimeError, match="derivative of the loss alone"):
        (loss + grad.square().sum()).backward()


@pytest.mark.parametrize("module", (imae_ext.IMAELoss(), imae_ext.CCELoss(weight=torch.linspace(1, 2, 5))), ids=repr)
def test_export(module):
    """Exported with a free batch size, the program gives the module's values at others."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.criterion = torch.nn.Linear(5, 5), module

        def forward(self, features, target):
            return self.criterion(self.layer(features), target)

    model, N = Model(), torch.export.Dim("N", min=2)
    shapes = {"features": {0: N}, "target": {0: N}}
    program = torch.export.export(model, batch(N=8), dynamic_shapes=shapes)
    for size in (8, 3, 21):
        features, target = batch(N=size, seed=size)
        assert torch.equal(program.module()(features, target), model(features, target))


def layouts(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 10, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.tensor([0, 9, 4, -100, 2, 3])
    image = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64).to(dtype)
    return {
        "contiguous": (x, y),
        "transposed": (x.t().contiguous().t(), y.int()),
        "sliced": (x.repeat(2, 2)[::2, ::2], y.repeat(2)[::2]),
        "image": (image, torch.randint(5, (2, 3, 4), generator=generator)),
        "channels_last": (image.to(memory_format=torch.channels_last), torch.zeros(2, 3, 4).long()),
        "one_row": (x[0], y[1]),
    }


TESTS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [(layout, (torch.float64, torch.float16)[k % 2]) for k, layout in enumerate(layouts(torch.float32))],
)
def test_opcheck(layout, dtype):
    """Every operator: its schema says what it writes, and its fake kernel says what it returns."""
    logits, target = layouts(dtype)[layout]
    C = logits.shape[min(1, logits.dim() - 1)]
    weight = torch.linspace(0.5, 1.5, C, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    samples = torch.linspace(0.5, 1.5, target.numel(), dtype=weight.dtype).view(target.shape)
    packed = FORMULA.packed
    checked = set()

    def check(name, *arguments):
        checked.add(name)
        opcheck(getattr(op, name).default, arguments, test_utils=TESTS)

    for code in (0, 1, 2):
        check("forward", logits, target, packed, weight, samples, -100, code)
        check("forward_backward", logits, target, packed, None, None, -100, code)
    check("forward_backward_mean", logits, target, packed)
    check("forward", logits, target, packed, None, samples, -100, 3)
    check("forward_backward_out", logits, target, packed, weight, samples, -100, 1, torch.empty_like(logits))
    check("forward_save", logits, target, packed, weight, samples, -100, 3)
    loss, rows, divisor = op.forward_save(logits, target, packed, None, None, -100, 0)
    check("traced_forward_backward", logits, target, packed, weight, samples, -100, 1)
    check("traced_forward_save", logits, target, packed, weight, samples, -100, 0)
    check("backward", logits, target, rows, divisor, torch.ones_like(loss), -100)
    grad = torch.ones_like(logits, memory_format=torch.contiguous_format)
    check("scale_", grad, loss.new_tensor(3.0), target, weight, samples, -100)
    check("row_stats", logits, target, packed, -100)
    check("describe_rows", logits, target, packed, -100, True, False, True, logits.dtype == torch.float64)
    registered = {
        name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("imae_ext::")
    }
    ways = ("forward", "forward_backward", "backward")
    elsewhere = {f"{kind}_{way}" for kind in ("binary", "dense", "mixed") for way in ways}
    of_the_head = {"forward_backward_", "linear_loss", "linear_loss_backward"}
    # those are checked in test_binary_contract.py, test_soft_contract.py, test_mixed.py and test_linear.py
    assert checked | elsewhere | of_the_head == registered


def test_parameter_that_changes_between_calls():
    def eager(logits, target, T):
        return imae_ext.imae_loss(logits, target, T=T)

    logits, target = batch()
    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    for T in (8.0, 4.0, 2.5, 16.0):
        assert torch.equal(compiled(logits, target, T), eager(logits, target, T))
        got, wanted = (gradient(call, logits, target, T) for call in (compiled, eager))
        assert torch.equal(got[1], wanted[1])
