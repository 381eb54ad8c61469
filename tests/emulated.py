"""What the tests of the emulated CUDA kernels share: the compiled kernels, and a case run and held to the oracle.

The library is compiled once for each state of the sources and kept in build/simt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from cases import Case
from expected import Expected, assert_within, expected, rows

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "simt"))
import emulator  # noqa: E402, F401
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


def upstream_of(case: Case, target: torch.Tensor) -> torch.Tensor | None:
    """What comes from above; None where the operators write the gradient in one pass."""
    if case.reduction in ("mean", "sum") and case.dtype != torch.float16:
        return None
    dtype = torch.float64 if case.dtype == torch.float64 else torch.float32
    if case.reduction != "none":
        return torch.tensor(0.75, dtype=dtype)
    return torch.linspace(-1.5, 2.5, target.numel(), dtype=dtype).view(target.shape)


def run(kernels: Kernels, case: Case, inputs: tuple, upstream: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Loss and gradient: in one pass, or by saved coefficients."""
    logits, target, weight = inputs
    before = logits.clone()
    packed = tuple(case.formula.build().packed)
    options = {"class_weight": weight, "reduction": REDUCTIONS[case.reduction]}
    if upstream is None:
        made = kernels.forward(logits, target, packed, grad=True, **options)
    else:
        made = kernels.forward(logits, target, packed, save=True, **options)
        made["grad"] = kernels.backward(logits, target, made, upstream)
    assert torch.equal(before.nan_to_num(nan=12345.0), logits.nan_to_num(nan=12345.0)), "the logits were written to"
    return made


def wanted_of(case: Case, inputs: tuple, upstream: torch.Tensor | None) -> Expected:
    logits, target, weight = inputs
    above = 1.0 if upstream is None else upstream.double().numpy().reshape(-1) if upstream.ndim else upstream.item()
    return expected(case.formula, logits, target, weight=weight, reduction=case.reduction, grad_output=above)


def in_every_order(
    kernels: Kernels, compute: Callable[[], dict[str, torch.Tensor]], machines: Sequence[Machine] = ORDERS
) -> dict[str, torch.Tensor]:
    """Return what is computed, whose bits must be the same whichever thread runs first."""
    results = []
    for machine in machines:
        kernels.machine = machine
        results.append(compute())
    for other in results[1:]:
        for name, value in results[0].items():
            same = (value == other[name]) | (value.isnan() & other[name].isnan())
            assert same.all(), f"{name} depends on the order of threads"
    return results[0]


def check(
    kernels: Kernels,
    case: Case,
    machines: Sequence[Machine] = ORDERS,
    target: torch.Tensor | None = None,
    tiers: Sequence[str | None] = (None,),
) -> None:
    """Hold every tier's results to the oracle, and those of all orders of threads to each other's bits."""
    logits, labels, weight = case.inputs()
    inputs = (logits, labels if target is None else target, weight)
    upstream = upstream_of(case, inputs[1])
    wanted = wanted_of(case, inputs, upstream)
    for name in tiers:
        with tier(name):
            made = in_every_order(kernels, lambda: run(kernels, case, inputs, upstream), machines)
        loss = made["loss"].reshape(-1) if case.reduction == "none" else made["loss"]
        assert_within(loss, wanted.loss, wanted.loss_allowed, f"loss, tier {name}")
        assert_within(rows(made["grad"]), wanted.grad, wanted.grad_allowed, f"gradient, tier {name}")
