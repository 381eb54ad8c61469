"""The losses inside what people train with: documentation, other packages' signatures, modules, subclasses."""

from __future__ import annotations

import copy
import inspect
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from calls import FORMULA, batch, gradient
from torch import Tensor

import imae_ext

DOCUMENT = Path(__file__).parents[1] / "docs" / "ecosystem.md"
BLOCKS = re.findall(r"^## ([^\n]+)|^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """(heading, code) of every example, in order."""
    found, heading = [], ""
    for title, code in BLOCKS:
        heading = title or heading
        if code:
            found.append((heading, code))
    return found


def run(code: str) -> dict:
    """Run an example of a page, and return its names."""
    for package in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE):
        pytest.importorskip(package)  # tests/ecosystem has them all
    namespace: dict = {"__name__": "example"}
    exec(compile(code, str(DOCUMENT), "exec"), namespace)
    return namespace


def example(heading: str, n: int = 0) -> dict:
    return run([code for title, code in examples() if title == heading][n])


@pytest.mark.parametrize(("heading", "code"), examples(), ids=[f"{k}-{h}" for k, (h, _) in enumerate(examples())])
def test_documented_example_runs(heading, code):
    namespace = run(code)
    assert "imae_ext" in namespace
    if "loss" in namespace:
        assert namespace["loss"].isfinite() and namespace["loss"].ndim == 0


def test_every_tool_has_its_example():
    headings = {heading for heading, _ in examples()}
    tools = {"torch.compile", "transformers", "TRL", "Lightning", "skorch", "timm", "DistributedDataParallel"}
    tools |= {"Mixup and CutMix", "Distillation", "Votes of several annotators", "Multi-label"}
    assert tools <= headings


# --- other packages, by their signatures ------------------------------------------------------------------------


def test_transformers_trainer():
    """Trainer calls compute_loss_func(outputs, labels, num_items_in_batch=...), over accumulated micro-batches."""
    compute = example("transformers")["compute_loss_func"]
    assert list(inspect.signature(compute).parameters) == ["outputs", "labels", "num_items_in_batch"]
    logits, target = batch(N=12)
    target[3] = -100
    whole = gradient(imae_ext.robust_loss, logits, target, FORMULA)
    leaf = logits.clone().requires_grad_()
    items = (target != -100).sum()
    total = 0.0
    for part in (slice(0, 5), slice(5, 12)):
        loss = compute({"logits": leaf[part]}, target[part], num_items_in_batch=items)
        loss.backward()
        total += loss.item()
    assert torch.allclose(leaf.grad, whole[1], rtol=1e-5, atol=1e-7) and abs(total - whole[0].item()) < 1e-4
    assert torch.equal(compute(SimpleNamespace(logits=logits), target), whole[0])


def test_transformers_causal_language_model():
    compute = example("transformers", 1)["causal_loss_func"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 11, generator=generator)
    labels = torch.randint(11, (2, 6), generator=generator)
    labels[0, 4:] = -100
    rows, shifted = logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1)
    wanted = gradient(imae_ext.robust_loss, rows, shifted, FORMULA)
    loss, grad = gradient(lambda x, y, _: compute({"logits": x}, y), logits, labels, None)
    assert torch.allclose(loss, wanted[0], rtol=1e-6)
    assert torch.allclose(grad[:, :-1].reshape(-1, 11), wanted[1], rtol=1e-5, atol=1e-8) and (grad[:, -1] == 0).all()
    items = (shifted != -100).sum()
    assert torch.allclose(compute({"logits": logits}, labels, num_items_in_batch=items), loss, rtol=1e-6)


def test_lightning_module():
    """training_step(batch, batch_idx) returns a loss; parameters and buffers are those of the module."""
    module = example("Lightning")["Classifier"]()
    assert list(inspect.signature(module.training_step).parameters) == ["batch", "batch_idx"]
    assert "criterion.weight" in module.state_dict()
    optimizer = module.configure_optimizers()
    data = (torch.randn(64, 16), torch.randint(10, (64,)))
    losses = []
    for step in range(20):
        loss = module.training_step(data, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_timm_criterion():
    """criterion(output, target), moved to the device as timm's train.py moves it."""
    criterion = example("timm")["train_loss_fn"]
    logits, target = batch(C=10)
    wanted = imae_ext.robust_loss(logits, target, 2.0 * imae_ext.NCE() + imae_ext.MAE())
    assert torch.equal(criterion(logits, target), wanted) and criterion.training
    amounts = torch.rand(8, 10).softmax(1)  # as timm's Mixup makes them
    wanted = imae_ext.robust_loss(logits, amounts, 2.0 * imae_ext.NCE() + imae_ext.MAE())
    assert torch.equal(criterion(logits, amounts), wanted)


def test_the_signature_is_cross_entropys():
    """Whatever both take has the same name and default."""
    theirs = inspect.signature(torch.nn.functional.cross_entropy).parameters
    for name in ("imae", "cce", "mae", "gce", "dm", "sce", "nce", "focal"):
        ours = inspect.signature(getattr(imae_ext, f"{name}_loss")).parameters
        for option in ("weight", "ignore_index", "reduction"):
            assert ours[option].default == theirs[option].default
        assert list(ours)[1] == list(theirs)[1] == "target"


# --- modules ----------------------------------------------------------------------------------------------------


def test_class_weights_follow_the_module():
    logits, target = batch(dtype=torch.float64)
    weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    wanted = imae_ext.robust_loss(logits, target, FORMULA, weight=weight)
    module = imae_ext.IMAELoss(weight=weight.float())
    assert module.to(torch.float64).weight.dtype == torch.float64
    assert torch.allclose(module(logits, target), wanted, rtol=1e-7)
    assert module.to("meta").weight.device.type == "meta"
    restored = imae_ext.IMAELoss(weight=torch.zeros(5, dtype=torch.float64))
    buffer = io.BytesIO()
    torch.save(imae_ext.IMAELoss(weight=weight).state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(restored(logits, target), wanted)
    assert list(imae_ext.IMAELoss().state_dict()) == [] and list(restored.parameters()) == []


@pytest.mark.parametrize("name", ("IMAE", "CCE", "MAE", "GCE", "DM", "SCE", "NCE", "Focal"))
def test_module_is_the_function_with_its_options(name):
    """Every option of every module arrives, and each changes the result."""
    logits, target = batch(N=20)
    function, module = getattr(imae_ext, f"{name.lower()}_loss"), getattr(imae_ext, f"{name}Loss")
    plain = function(logits, target)
    assert torch.equal(module()(logits, target), plain)
    for options in ({"weight": torch.linspace(0.5, 1.5, 5)}, {"ignore_index": 2}, {"reduction": "sum"}):
        wanted = function(logits, target, **options)
        assert torch.equal(module(**options)(logits, target), wanted) and not torch.equal(wanted, plain)


def test_parameters_of_named_losses_are_those_of_the_formulas():
    logits, target = batch(N=20)
    for name, formula, parameters in (
        ("imae", imae_ext.IMAE, {"T": 3.0, "eps": 1e-3}),
        ("gce", imae_ext.GCE, {"q": 0.3}),
        ("dm", imae_ext.DM, {"beta": 2.0, "lambd": 3.0, "eps": 1e-3}),
        ("sce", imae_ext.SCE, {"alpha": 0.3, "beta": 0.2}),
        ("focal", imae_ext.Focal, {"gamma": 0.7}),
    ):
        wanted = imae_ext.robust_loss(logits, target, formula(**parameters))
        assert torch.equal(getattr(imae_ext, f"{name}_loss")(logits, target, **parameters), wanted)
        module = getattr(imae_ext, f"{name.upper() if name != 'focal' else 'Focal'}Loss")
        assert torch.equal(module(**parameters)(logits, target), wanted)


def test_combinations_are_linear():
    """A combination times a factor, and sums of combinations, keep every coefficient."""
    logits, target = batch(dtype=torch.float64)
    nce, mae, cce = (imae_ext.robust_loss(logits, target, f) for f in (imae_ext.NCE(), imae_ext.MAE(), imae_ext.CCE()))
    formula = 3 * (2.0 * imae_ext.NCE() + imae_ext.MAE() * 0.5) + (imae_ext.CCE() + imae_ext.MAE()) * -0.25
    wanted = 6 * nce + 1.5 * mae - 0.25 * cce - 0.25 * mae
    assert torch.allclose(imae_ext.robust_loss(logits, target, formula), wanted, rtol=1e-12)


def test_whole_module_through_torch_save():
    logits, target = batch()
    module = imae_ext.RobustLoss(2.0 * imae_ext.NCE() + imae_ext.MAE(), weight=torch.linspace(1, 2, 5))
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded(logits, target), module(logits, target)) and loaded.formula == module.formula


def test_deepcopied_model_shares_nothing():
    """As an exponential moving average of a model does it."""
    module = imae_ext.IMAELoss(weight=torch.ones(5))
    twin = copy.deepcopy(module)
    twin.weight.mul_(3)
    logits, target = batch()
    assert torch.equal(module.weight, torch.ones(5))
    assert torch.allclose(
        twin.float()(logits, target), imae_ext.imae_loss(logits, target, weight=torch.full((5,), 3.0))
    )


# --- tensor subclasses ------------------------------------------------------------------------------------------


class Counted(Tensor):
    """Sees every torch function that is called on it."""

    seen: int = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen += 1
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("reduction", ("none", "mean", "sum", "normalized"))
def test_subclass_with_torch_function(reduction):
    """The right values and gradient, and the subclass is asked."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
    leaf = logits.clone().as_subclass(Counted).requires_grad_()
    before = Counted.seen
    loss = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
    assert Counted.seen > before
    loss.sum().backward()
    assert torch.equal(loss.detach().as_subclass(Tensor), wanted[0])
    assert torch.equal(leaf.grad.as_subclass(Tensor), wanted[1])


def test_subclass_with_torch_dispatch():
    """A wrapper around two tensors: both parts get their own right gradient."""
    from torch.testing._internal.two_tensor import TwoTensor

    logits, target = batch()
    for reduction in ("mean", "none"):
        leaf = TwoTensor(logits.clone(), 2 * logits).requires_grad_()
        imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction).sum().backward()
        for part, value in ((leaf.grad.a, logits), (leaf.grad.b, 2 * logits)):
            wanted = gradient(imae_ext.robust_loss, value, target, FORMULA, reduction=reduction)[1]
            assert torch.equal(part, wanted)
