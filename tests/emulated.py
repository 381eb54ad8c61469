"""What the tests of the emulated CUDA kernels share: the compiled kernels, and a case run and held to the oracle.

The library is compiled once for each state of the sources and kept in build/simt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from cases import Case
from expected import assert_within, expected, rows

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "simt"))
from kernel_calls import MEAN, NONE, NORMALIZED, SUM, Machine  # noqa: E402
from kernels import Kernels, compile_kernels  # noqa: E402

REDUCTIONS = {"none": NONE, "mean": MEAN, "sum": SUM, "normalized": NORMALIZED}
ORDERS = (Machine(), Machine(seed=1), Machine(seed=7, resident=3, most_blocks=3))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FORCED = ("row2", "row8", "row32", "row128", "row256", "strided", "cluster")


def state(*folders: str) -> str:
    digest = hashlib.sha256(os.environ.get("CXX", "").encode())
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*")):
        if path.suffix in (".h", ".cuh", ".cpp", ".py"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def emulated() -> Kernels:
    """Return the kernels; processes that want them at once wait for the first."""
    library = ROOT / "build" / "simt" / state("csrc", "tests/simt") / "kernels.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    with (library.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            compile_kernels(library.with_suffix(".new")).rename(library)
    return Kernels(library)


@contextmanager
def tier(name: str | None) -> Iterator[None]:
    if name is not None:
        os.environ["IMAE_EXT_TIER"] = name
    try:
        yield
    finally:
        os.environ.pop("IMAE_EXT_TIER", None)


def run(kernels: Kernels, case: Case, target: torch.Tensor | None = None) -> tuple:
    """Loss, gradient and the wanted: in one pass where the operators do that, else by saved coefficients."""
    logits, labels, weight = case.inputs()
    target = labels if target is None else target
    before = logits.clone()
    reduction = REDUCTIONS[case.reduction]
    packed = tuple(case.formula.build().packed)
    options = {"class_weight": weight, "reduction": reduction}
    if reduction in (MEAN, SUM) and case.dtype != torch.float16:
        made = kernels.forward(logits, target, packed, grad=True, **options)
        upstream = 1.0
    else:
        made = kernels.forward(logits, target, packed, save=True, **options)
        loss = made["loss"]
        upstream = torch.full_like(loss, 0.75)
        if loss.ndim:
            upstream = torch.linspace(-1.5, 2.5, loss.numel(), dtype=loss.dtype).view_as(loss)
        made["grad"] = kernels.backward(logits, target, made, upstream)
        upstream = upstream.double().numpy().reshape(-1) if upstream.ndim else upstream.item()
    assert torch.equal(before.nan_to_num(nan=12345.0), logits.nan_to_num(nan=12345.0)), "the logits were written to"
    wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction, grad_output=upstream)
    return made, wanted


def check(kernels: Kernels, case: Case, machines=ORDERS, target: torch.Tensor | None = None) -> None:
    results = []
    for machine in machines:
        kernels.machine = machine
        made, wanted = run(kernels, case, target)
        loss = made["loss"].reshape(-1) if case.reduction == "none" else made["loss"]
        assert_within(loss, wanted.loss, wanted.loss_allowed, f"loss, {machine}")
        assert_within(rows(made["grad"]), wanted.grad, wanted.grad_allowed, f"gradient, {machine}")
        results.append(made)
    for other in results[1:]:
        for name, value in results[0].items():
            same = (value == other[name]) | (value.isnan() & other[name].isnan())
            assert same.all(), f"{name} depends on the order of threads"
