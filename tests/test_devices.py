"""Which path a call takes: the kernels, or plain torch where a device has none or they are switched off."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imae_ext import __main__, devices

ROOT = Path(__file__).parents[1]


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


CPU = """
import torch, imae_ext
from imae_ext import devices, ops
from torch.utils._python_dispatch import TorchDispatchMode
ops.loss = ops.value_and_grad = ops.row_stats = None  # never called

class NoKernels(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        assert not str(function).startswith("imae_ext"), function
        return function(*arguments, **(keywords or {}))

logits, target = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, -100])
with NoKernels():
    imae_ext.imae_loss(logits, target).backward()
    _, grad = imae_ext.value_and_grad(logits, target, imae_ext.IMAE(), reduction="normalized")
    imae_ext.row_stats(logits, target, imae_ext.IMAE())
    amounts, head = torch.rand(4, 3), torch.randn(3, 3)
    imae_ext.robust_loss(logits, amounts, imae_ext.IMAE()).backward()
    imae_ext.robust_loss(logits, target, imae_ext.IMAE(), label_smoothing=0.1).backward()
    imae_ext.mixed_loss(logits, target, target.roll(1), 0.7, imae_ext.IMAE()).backward()
    imae_ext.binary_robust_loss(logits, amounts, imae_ext.IMAE()).backward()
    for given in (target, amounts):
        imae_ext.linear_robust_loss(logits, head, given, imae_ext.IMAE()).backward()
try:
    imae_ext.imae_loss(logits, target + 5)
except IndexError as error:
    print(error)
print(devices.reason("cpu"))
"""


def test_kernels_are_switched_off_by_an_environment_variable():
    said = python(CPU, IMAE_EXT_DEVICES="")
    assert "IMAE_EXT_DEVICES leaves it out" in said and "got 5 at row 0 of target" in said
    assert devices.path_of("cpu") == devices.KERNELS


def test_the_command_says_that_kernels_are_switched_off(monkeypatch):
    assert __main__.cpu().startswith("kernels for ")
    monkeypatch.setenv("IMAE_EXT_DEVICES", "cuda")
    monkeypatch.setattr(devices, "_SERVED", frozenset({"cuda"}))
    assert __main__.cpu() == "plain torch, slower: IMAE_EXT_DEVICES leaves it out"


def test_a_wrong_device_list_is_refused():
    code = "try:\n  import imae_ext\nexcept ValueError as error:\n  print(error)"
    assert "IMAE_EXT_DEVICES to name, of cpu, cuda," in python(code, IMAE_EXT_DEVICES="cpu,gpu")


def test_a_device_without_kernels_is_announced_once(caplog, monkeypatch):
    monkeypatch.setattr(devices, "_announced", set())
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    elsewhere = type("Logits", (), {"device": torch.device("xpu", 0)})()
    with caplog.at_level(logging.WARNING):
        assert [devices.has_kernels(x) for x in (logits, elsewhere, elsewhere)] == [True, False, False]
    (record,) = caplog.records
    assert "on xpu the losses run in plain torch" in record.getMessage() and target.device.type == "cpu"


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    (
        ("8.0;9.0+PTX", (7, 5), False),
        ("8.0;9.0+PTX", (8, 9), True),
        ("8.0", (9, 0), False),
        ("8.0;9.0+PTX", (12, 1), True),
        ("8.0;9.0;10.0;12.0+PTX", (11, 0), False),
        ("8.6", (8, 0), False),
    ),
)
def test_which_gpus_a_build_serves(architectures, capability, runs):
    assert devices.runs_on(architectures, capability) is runs


OTHER_DEVICE = Path(__file__).with_name("python_device.py")


def test_on_a_device_made_in_python():
    """A PrivateUse1 device whose tensors keep their values on the CPU: neither kernels nor a build know of it."""
    said = python(OTHER_DEVICE.read_text())
    assert "all right on elsewhere" in said and said.count("on elsewhere the losses run in plain torch") == 1
