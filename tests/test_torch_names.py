"""Every private name of torch, taken away in a process of its own: right, slower, said once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import imae_ext
from imae_ext import _torch

ROOT = Path(__file__).parents[1]
NAMES = re.findall(r'_find\("([\w.]+)"', Path(_torch.__file__).read_text())

TAKEN_AWAY = """
import warnings
import torch
from without_name import without
said = without("{name}")
assert len(said) == 1 and "torch.{name}" in said[0], said
import imae_ext
from imae_ext import ops, reference
ops.loss = ops.value_and_grad = ops.row_stats = None  # never called
with warnings.catch_warnings():
    warnings.simplefilter("error", RuntimeWarning)
    for reduction in ("none", "mean", "normalized"):
        logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
        target = torch.tensor([0, 1, 2, 3, 4, -100])
        for formula in (imae_ext.IMAE(), imae_ext.GCE()):
            grads = []
            for f in (imae_ext.robust_loss, reference.robust_loss):
                loss = f(logits, target, formula, reduction=reduction).sum()
                grads.append(torch.autograd.grad(loss, logits)[0])
            assert torch.allclose(*grads, rtol=1e-10, atol=1e-13)
            value, grad = imae_ext.value_and_grad(logits, target, formula, reduction=reduction)
            assert torch.allclose(grad, grads[1], rtol=1e-10, atol=1e-13)
print("right")
"""


def test_all_names_are_at_hand():
    assert _torch.missing == [] and len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_without(name):
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_AWAY.format(name=name)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "right" in done.stdout, done.stderr[-2000:]


# Values that change while a program runs are read where they are wanted: a function for it takes a hundredth of a small
# step. _torch.py looks whether they are there.
READ_IN_PLACE = {"ops.py": {"_current_level", "_is_compiling_flag"}}


def test_no_other_module_uses_a_private_name():
    for path in Path(imae_ext.__file__).parent.glob("*.py"):
        if path.name != "_torch.py":
            used = re.findall(r"torch\._C|torch\._dynamo|\b_current_level\b|\b_is_compiling_flag\b", path.read_text())
            assert set(used) == READ_IN_PLACE.get(path.name, set()), path.name
    assert all(any(name.endswith(each) for name in NAMES) for each in READ_IN_PLACE["ops.py"])
