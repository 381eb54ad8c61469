"""Each sanitizer names what is planted in a toy, and is silent about the toys without a fault."""

import re
import shutil
import subprocess
from pathlib import Path

import emulator
import pytest
from toy_library import source_lines

pytestmark = pytest.mark.cuda

HERE = Path(__file__).parent


ADDRESS_AND_UNDEFINED = [  # toy, fault, the report, the line that it names
    ("copy", 1, "heap-buffer-overflow", "d.out[i] = d.x[i]"),
    ("reverse", 2, "heap-buffer-overflow", "slice[n] = 0"),
    ("static_overrun", 1, "index 32 out of bounds", "room[threadIdx.x + d.fault]"),
    ("copy4", 1, "misaligned address", "from[i]"),
    ("next_block", 7, "use-after-poison", "= *there"),
]
RACES = [
    ("block_sums", 1, "part["),
    ("block_sums", 2, "part["),
    ("reverse", 1, "slice["),
    ("neighbour", 1, "shared["),
    ("half_warps", 1, "shared["),
    ("copy", 2, "d.out["),
    ("ticket_sum", 1, "d.out[1 +"),
    ("ticket_sum", 2, "d.out[1 +"),
    ("ticket_sum", 3, "d.out[1 +"),
    ("ticket_sum", 4, "d.out[1 +"),
    ("relay", 1, "d.out["),
    ("cluster_sums", 2, "part"),
    ("cluster_sums", 3, "part"),
]
RIGHT = [
    "block_sums", "ticket_sum", "copy", "copy4", "reverse", "stale_shared", "static_overrun", "neighbour",
    "half_warps", "turns", "divergent_barrier", "masks", "trap", "warp_operations", "numbers", "atomics",
    "cluster_sums", "next_block",
]  # fmt: skip


def all_right():
    """The arguments of a run of all toys without a fault: one block after the other, and four at a time."""
    runs = [(toy, 0, seed, resident) for toy in RIGHT for seed, resident in ((0, 1), (2, 4))]
    return [word for run in [*runs, ("relay", 0, 2, 4)] for word in run]


@pytest.mark.parametrize(("toy", "fault", "kind", "line"), ADDRESS_AND_UNDEFINED)
def test_address_and_undefined_behaviour(asan, toy, fault, kind, line):
    done = emulator.run(asan, toy, fault, 2, 1)
    assert done.returncode != 0 and kind in done.stdout, done.stdout
    assert line in source_lines(done.stdout)[0], done.stdout
    if "Address" in done.stdout:
        assert re.search(r"simt: while block \(\d,0,0\) thread \(\d+,0,0\)", done.stdout), done.stdout


@pytest.mark.parametrize("resident", [1, 4])
@pytest.mark.parametrize(("toy", "fault", "line"), RACES)
def test_races(tsan, toy, fault, line, resident):
    done = emulator.run(tsan, toy, fault, 0, resident)
    assert done.returncode != 0 and "data race" in done.stdout, done.stdout
    summary = re.search(r"^SUMMARY.*", done.stdout, re.MULTILINE)
    assert summary and line in source_lines(summary[0])[0], done.stdout
    assert re.search(r"'block \(\d,0,0\) thread \(\d+,0,0\)'", done.stdout), done.stdout


@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_sanitizers_are_silent_about_right_kernels(request, sanitizer):
    program = request.getfixturevalue(sanitizer)
    done = emulator.run(program, *all_right())
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_switching_without_assembly(folder):
    """What processors other than x86-64 use."""
    program = emulator.compile_program(HERE / "toys.cpp", folder / "ucontext", "-O0", "-DSIMT_UCONTEXT=1")
    done = emulator.run(program, *all_right())
    assert done.returncode == 0 and not done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_toys_are_cuda(folder):
    source = folder / "toys.cu"
    source.write_text('#include "toy_results.cuh"\ntemplate __global__ void toys::block_sums<128>(toys::Data);\n')
    command = ["nvcc", "-std=c++17", "-arch=sm_90", f"-I{HERE}", "-c", str(source), "-o", str(folder / "toys.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
