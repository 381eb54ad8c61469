"""Each header of csrc compiles by itself, so that an editor, clang-tidy and a reader can take any of them first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

CSRC = Path(__file__).parents[1] / "csrc"
SIMT = Path(__file__).parent / "simt"
# launch.h asks for the CUDA runtime. float32.cu and its siblings begin with it: nvcc compiles it by itself.
NEEDS_CUDA = {"cuda/launch.h"}
HEADERS = sorted(str(path.relative_to(CSRC)) for path in [*CSRC.rglob("*.h"), *CSRC.rglob("*.cuh")])
FLAGS = ["-std=c++20", "-fsyntax-only", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]


def compile_alone(header: str) -> subprocess.CompletedProcess[str]:
    """Compile a file that has nothing but this header; for CUDA the emulator stands in for the toolkit."""
    command = [os.environ.get("CXX", "g++"), *FLAGS, "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    if header.startswith("cuda/"):
        command += ["-include", str(SIMT / "simt.h"), "-Wno-unknown-pragmas"]
    command += [f"-I{CSRC}", *(f"-isystem{path}" for path in include_paths())]
    source = f'#include "{header}"\n'
    return subprocess.run([*command, "-xc++", "-"], input=source, capture_output=True, text=True)


@pytest.mark.parametrize("header", [each for each in HEADERS if each not in NEEDS_CUDA])
def test_header_compiles_alone(header: str) -> None:
    done = compile_alone(header)
    assert done.returncode == 0, done.stderr


def test_excluded_headers_come_first_where_they_are_compiled() -> None:
    for header in NEEDS_CUDA:
        assert (CSRC / header).exists()
        name = Path(header).name
        users = [path for path in CSRC.rglob("*.cu") if f'"{name}"' in path.read_text()]
        assert users
        for user in users:
            first = next(line for line in user.read_text().splitlines() if line.startswith("#include"))
            assert first == f'#include "{name}"'
