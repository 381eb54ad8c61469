"""Every instruction set that this processor has: the same cases through each, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import imae_ext
from imae_ext._extension import compiled

NAMES = ["baseline", "avx2", "avx512"]

# few classes through lanes, many through sweeps, either side of every vector length; rows whose exponentials are kept
# in a near cache, in a far one, and not at all
CLASSES = [1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 257, 1000, 4096, 4097, 9001, 16384, 16385, 270_001]
FORMULAS = [imae_ext.IMAE(), imae_ext.DM(), 2.0 * imae_ext.NCE() + imae_ext.MAE()]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}


def worst_error(dtype: torch.dtype) -> float:
    """Of values, and of gradients relative to the row's largest entry, against the reference in float64."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for C in CLASSES:
        N = 19 if C < 10_000 else 5
        logits = (4 * torch.randn(N, C, generator=generator)).to(dtype)
        logits[3] *= 5
        target = torch.randint(C, (N,), generator=generator)
        target[N // 4] = -100
        for formula in FORMULAS:
            value, grad = imae_ext.value_and_grad(logits, target, formula, reduction="none")
            exact = logits.double().clone().requires_grad_()
            expected = imae_ext.reference.robust_loss(exact, target, formula, reduction="none")
            expected.sum().backward()
            expected = expected.detach()
            scale = exact.grad.abs().amax(dim=1, keepdim=True).clamp(min=1e-4 if dtype is torch.float16 else 1e-30)
            errors = (
                ((grad.double() - exact.grad) / scale).abs().max(),
                ((value - expected).abs() / (1e-3 + expected)).max(),
            )
            worst = max(worst, *(float(e) for e in errors), float(torch.stack(errors).isnan().any()))
    return worst


def differing_in_place(dtype: torch.dtype) -> int:
    """How many calls give another gradient where it is written over the logits, in several layouts."""
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for C in CLASSES:
        N = 19 if C < 10_000 else 3
        logits = (4 * torch.randn(N, C, generator=generator)).to(dtype)
        target = torch.randint(C, (N,), generator=generator)
        target[1] = -100
        for layout in (
            lambda x: x.clone(),
            lambda x: x.t().contiguous().t(),
            lambda x: x.repeat(1, 2)[:, : x.shape[1]],
        ):
            for formula in FORMULAS[1:]:
                options = formula.packed, None, None, -100
                _, wanted = torch.ops.imae_ext.forward_backward(layout(logits), target, *options, 0)
                over = layout(logits)
                torch.ops.imae_ext.forward_backward_(over, target, *options)
                wrong += not torch.equal(over, wanted)
    return wrong


def differing_when_large() -> int:
    """How many gradients of 17 MB, which go past the caches, are not those of their rows in parts, or write beside.

    There are rows that do not count, and rows that are read twice, since their exponentials overflow.
    """
    generator = torch.Generator().manual_seed(0)
    options = imae_ext.IMAE().packed, None, None, -100
    wrong = 0
    for dtype, C, beside in (
        (torch.float32, 257, 0),
        (torch.float32, 2047, 3),
        (torch.float32, 20_011, 0),
        (torch.float64, 259, 5),
    ):
        N = 17 * 2**20 // C // dtype.itemsize
        memory = torch.randn(N, C + beside, generator=generator, dtype=dtype)
        target = torch.randint(C, (N,), generator=generator)
        target[7::100] = -100
        memory[9::100] *= 50
        wanted = memory.clone()
        for rows, labels in zip(wanted[:, beside:].chunk(8), target.chunk(8), strict=True):
            torch.ops.imae_ext.forward_backward_(rows, labels, *options)
        torch.ops.imae_ext.forward_backward_(memory[:, beside:], target, *options)
        wrong += not torch.equal(memory, wanted)
    return wrong


def wrong_halves() -> int:
    """How many of all float16 numbers are not read, multiplied and rounded as torch does it."""
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    wrong = 0
    for factor in torch.tensor([1 / 3, 1e-3, -1e-7, 3.0, 65504.0, 1 + 2**-11, 3 * 2**-12]):
        ours, theirs = halves.clone(), (halves.float() * factor).half()
        torch.ops.imae_ext.scale_(ours, factor, torch.zeros((), dtype=torch.long), None, None, -100)
        equal = ours.view(torch.int16) == theirs.view(torch.int16)
        wrong += int((~(equal | ours.isnan() & theirs.isnan())).sum())
    return wrong


def test_an_instruction_set_in_capital_letters_is_none():
    code = "from imae_ext._extension import compiled; print(compiled.cpu_instruction_set())"
    environment = os.environ | {"IMAE_EXT_CPU": "AVX2", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == compiled.cpu_instruction_set()


@pytest.mark.parametrize("name", NAMES)
def test_instruction_set(name):
    environment = os.environ | {"IMAE_EXT_CPU": name, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    used, halves, in_place, large, *errors = done.stdout.split()
    best = compiled.cpu_instruction_set()
    assert used == min(name, best, key=NAMES.index)
    assert halves == in_place == large == "0"
    for (dtype, tolerance), error in zip(TOLERANCE.items(), errors, strict=True):
        assert float(error) <= tolerance, (dtype, error)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_all_values_of_a_lesser_instruction_set(name):
    """The case table, the ends of every parameter's range, infinities and NaN; other tests run with the best set."""
    if NAMES.index(name) >= NAMES.index(compiled.cpu_instruction_set()):
        pytest.skip("all other tests run with this set, or with a lesser one")
    here = Path(__file__).parent
    files = [
        str(here / f"test_{what}.py") for what in ("case_table", "parameter_ranges", "contract_values", "long_sums")
    ]
    environment = os.environ | {"IMAE_EXT_CPU": name, "PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += [
        "-k",
        "not reference and not plain and not value_and_grad and not a_million",
    ]  # of plain PyTorch, or twice
    done = subprocess.run([*command, *files], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    counts = wrong_halves(), sum(map(differing_in_place, TOLERANCE)), differing_when_large()
    print(compiled.cpu_instruction_set(), *counts, *(worst_error(dtype) for dtype in TOLERANCE))
