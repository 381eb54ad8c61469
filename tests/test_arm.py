"""The kernels of 64-bit Arm: cross-compiled, proven to be vectors by their disassembly, and run in an emulator.

g++-aarch64-linux-gnu compiles them, qemu-user runs them (both of Debian). torch stays on this side: a small program
around the kernels, arm/driver.cpp, reads the calls and writes what they give. `make test-arm` is this file.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from cases import Case, short_table
from expected import assert_within, expected, rows
from torch import Tensor

ROOT = Path(__file__).parents[1]
COMPILER, EMULATOR, PREFIX = "aarch64-linux-gnu-g++", "qemu-aarch64", "aarch64-linux-gnu-"
FLAGS = ["-O2", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # in the order of the kernels' enum
REDUCTIONS = ("none", "mean", "sum", "normalized")

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no {COMPILER}")


def compiled(source: str, folder: Path) -> Path:
    made = folder / Path(source).with_suffix(".o").name
    subprocess.run([COMPILER, *FLAGS, f"-I{ROOT}/csrc", "-c", ROOT / source, "-o", made], check=True)
    return made


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("csrc/cpu/baseline.cpp", tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def program(kernels: Path) -> Path:
    """Static, so that the emulator needs no other file."""
    made = kernels.with_name("program")
    others = [compiled(source, kernels.parent) for source in ("csrc/prepare.cpp", "tests/arm/driver.cpp")]
    subprocess.run([COMPILER, "-static", kernels, *others, "-o", made], check=True)
    return made


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_exponentials_are_vectors(kernels: Path) -> None:
    """No function of the mathematics library is called; the sweeps make two or four powers of two at once."""
    called = set(re.findall(r"U (\w+)", output(f"{PREFIX}nm", "-u", kernels)))
    of_language = {"__gxx_personality_v0", "_Unwind_Resume", "__stack_chk_fail"}
    assert called <= {"aligned_alloc", "free", "memcpy", "memmove", "memset"} | of_language
    code = output(f"{PREFIX}objdump", "-d", "--no-show-raw-insn", kernels)
    functions = dict(re.findall(r"^\w+ <(\w+)[^>]*>:\n(.*?)(?=\n\n|\Z)", code, re.MULTILINE | re.DOTALL))
    sweeps = {name: body for name, body in functions.items() if re.search("exponentiate_parts|forwardI", name)}
    assert len(sweeps) >= 8
    for name, body in sweeps.items():
        lanes, mantissa = ("2d", 52) if re.search(r"(forwardI|Li\d+E)d", name) else ("4s", 23)
        power = len(re.findall(rf"shl\s+v\d+\.{lanes}, v\d+\.{lanes}, #{mantissa}\b", body))
        assert power > 0, f"{name}: no vector of powers of two"
        polynomial = len(re.findall(rf"fm(?:ul|la|ls)\s+v\d+\.{lanes}", body))
        assert polynomial >= 5 * power, f"{name}: {polynomial} products of vectors for {power} exponentials"


def record(case: Case, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[bytes, Tensor, Tensor]:
    """One call as the program reads it, the gradient that it will write, and what comes from above."""
    wide = torch.float64 if case.dtype == torch.float64 else torch.float32
    grad = torch.empty_like(logits)
    upstream = torch.tensor(1.0 if case.reduction in ("mean", "sum") else 0.75, dtype=wide)
    if case.reduction == "none":
        upstream = torch.linspace(-1.5, 2.5, target.numel(), dtype=wide)
    base = logits.new_empty(0).set_(logits.untyped_storage())
    packed = case.formula.build().packed
    head = (
        *(DTYPES.index(case.dtype), logits.ndim, base.numel(), logits.storage_offset()),
        *(target.dtype == torch.int32, weight is not None, len(packed)),
        *(REDUCTIONS.index(case.reduction), grad.untyped_storage().nbytes() // grad.itemsize),
        *(*logits.shape, *logits.stride(), *grad.stride()),
    )
    parts = [struct.pack(f"={len(head)}q", *map(int, head)), raw(base), raw(target.contiguous())]
    parts += [b"" if weight is None else raw(weight), struct.pack(f"={len(packed)}d", *packed), raw(upstream)]
    return b"".join(parts), grad, upstream


def raw(x: Tensor) -> bytes:
    return bytes(x.reshape(-1).view(torch.uint8).numpy().data) if x.numel() else b""


def take(answer: memoryview, into: Tensor) -> memoryview:
    """Fill a tensor, as it lies in its storage, from the front of the answer."""
    flat = into.new_empty(0).set_(into.untyped_storage())
    size = flat.numel() * flat.itemsize
    flat.copy_(torch.frombuffer(bytearray(answer[:size]), dtype=into.dtype))
    return answer[size:]


@pytest.mark.arm
@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}")
def test_short_cases_in_an_emulator(program: Path) -> None:
    """Against the oracle; where the kernels do not read a layout, on the copy that the operators would make."""
    calls = []
    for case in short_table():
        logits, target, weight = case.inputs()
        for each in (logits, logits.contiguous(), rows(logits).contiguous()):
            shaped = target.reshape(-1) if each.ndim != logits.ndim else target
            calls.append((case, each, shaped, weight, *record(case, each, shaped, weight)))
    asked = b"".join(call[4] for call in calls)
    done = subprocess.run([EMULATOR, program], input=asked, capture_output=True, check=True)
    answer, served = memoryview(done.stdout), set()
    for case, logits, target, weight, _, grad, upstream in calls:
        (in_place,) = struct.unpack("=q", answer[:8])
        loss = torch.empty_like(upstream)
        answer = take(take(answer[8:], loss), grad)
        if not in_place:
            continue
        served.add(case)
        above = upstream.double().numpy() if upstream.ndim else upstream.item()
        wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction, grad_output=above)
        assert_within(loss, wanted.loss, wanted.loss_allowed, f"{case}: loss")
        assert_within(rows(grad), wanted.grad, wanted.grad_allowed, f"{case}: gradient")
    assert not answer and served == set(short_table())
