"""A device made in Python alone, on torch's place for private ones: its tensors keep their values in CPU tensors.

Run as a script, it tries the losses there: nothing but plain torch operations can reach such a device.
"""

import os
import sys

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import imae_ext
from imae_ext import devices

NAME = "elsewhere"
backend_registration._setup_privateuseone_for_python_backend(rename=NAME)


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=f"{NAME}:0"
        )

    def __init__(self, values):
        self.values = values

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        assert not str(function).startswith("imae_ext"), "a kernel was called"
        inner = lambda x: x.values if isinstance(x, OnDevice) else x  # noqa: E731
        written = {id(x.values): x for x in arguments if isinstance(x, OnDevice)}
        keywords = {k: "cpu" if k == "device" else inner(v) for k, v in (keywords or {}).items()}
        result = function(*tree_map(inner, arguments), **keywords)
        outer = lambda x: written.get(id(x), OnDevice(x)) if isinstance(x, torch.Tensor) else x  # noqa: E731
        return tree_map(outer, result)


class NewTensorsOnDevice(TorchDispatchMode):
    """torch.tensor(..., device=...) and the like, which have no tensor to dispatch on."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        if getattr(keywords.get("device"), "type", None) == NAME:
            return OnDevice(function(*arguments, **{**keywords, "device": "cpu"}))
        return function(*arguments, **keywords)


def main() -> None:
    torch.manual_seed(0)
    assert devices.reason(NAME) == f"there are no kernels for {NAME}"
    for formula in (imae_ext.IMAE(), imae_ext.DM(), imae_ext.GCE(), 2.0 * imae_ext.NCE() + imae_ext.MAE()):
        for dtype in (torch.float32, torch.bfloat16):
            logits, target = torch.randn(6, 5).to(dtype), torch.tensor([0, 4, -100, 2, 3, 7])
            weight = torch.linspace(0.5, 1.5, 5)
            on_cpu = logits[:5].clone().requires_grad_()
            wanted = imae_ext.robust_loss(on_cpu, target[:5], formula, weight=weight, reduction="none")
            wanted.sum().backward()
            there = OnDevice(logits).requires_grad_()
            with NewTensorsOnDevice():
                loss = imae_ext.robust_loss(there, OnDevice(target), formula, weight=OnDevice(weight), reduction="none")
                (grad,) = torch.autograd.grad(loss.sum(), there)
            assert loss.device.type == grad.device.type == NAME and grad.dtype == dtype
            assert torch.allclose(loss.values[:5], wanted, rtol=1e-5, atol=1e-6)
            assert torch.allclose(grad.values[:5].float(), on_cpu.grad.float(), rtol=1e-2, atol=1e-6)
            assert loss.values[5].isnan() and grad.values[5].isnan().all()  # a label out of range, and nobody looked
    for name, call in CALLS.items():
        held(name, call)
    print("all right on", NAME)


# The other losses of logits z and labels y, each of a device without kernels; `put` brings other tensors there.
CALLS = {
    "probabilities": lambda z, y, put: imae_ext.robust_loss(z, put(AMOUNTS), imae_ext.GCE(), reduction="normalized"),
    "smoothed labels": lambda z, y, put: imae_ext.robust_loss(z, y, imae_ext.IMAE(), label_smoothing=0.1),
    "two labels": lambda z, y, put: imae_ext.mixed_loss(z, y, y.roll(1), 0.7, imae_ext.IMAE()),
    "yes or no": lambda z, y, put: imae_ext.binary_robust_loss(z, put(AMOUNTS), imae_ext.IMAE()),
    "head": lambda z, y, put: imae_ext.linear_robust_loss(z, put(HEAD), y, imae_ext.IMAE()),
    "head, probabilities": lambda z, y, put: imae_ext.linear_robust_loss(
        z, put(HEAD), put(AMOUNTS), imae_ext.GCE(), reduction="normalized"
    ),
    "head, two labels": lambda z, y, put: imae_ext.linear_robust_loss(
        z, put(HEAD), y, imae_ext.IMAE(), other=y.roll(1), lam=0.7
    ),
    "log-probabilities": lambda z, y, put: imae_ext.robust_loss_from_nll(z.logsumexp(1), imae_ext.GCE(), target=y),
    "statistics": lambda z, y, put: imae_ext.row_stats(z, y, imae_ext.IMAE(), entropy=True).entropy.sum(),
}
AMOUNTS, HEAD = torch.rand(6, 5), torch.randn(5, 5)


def held(name: str, call: object) -> None:
    """Hold a loss there, and its gradient, to what they are on the CPU."""
    logits, target = torch.randn(6, 5).abs(), torch.tensor([0, 4, 1, 2, 3, 3])
    on_cpu, there = logits.clone().requires_grad_(), OnDevice(logits.clone()).requires_grad_()
    wanted = call(on_cpu, target, lambda x: x)
    with NewTensorsOnDevice():
        loss = call(there, OnDevice(target), OnDevice)
        (grad,) = torch.autograd.grad(loss, there)
    assert loss.device.type == grad.device.type == NAME, name
    assert torch.allclose(loss.values, wanted, rtol=1e-5, atol=1e-6), name
    assert torch.allclose(grad.values, torch.autograd.grad(wanted, on_cpu)[0], rtol=1e-4, atol=1e-6), name


main()
# Without Python's own way out: torch's thread for the device may still be freeing tensors made in Python, and ends the
# process with an error when it asks a Python that is closing down for its lock.
sys.stdout.flush()
os._exit(0)
