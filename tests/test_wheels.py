"""What wheels need of the sources: a binary that asks for an old glibc, with CUDA's runtime linked in, too."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
from pathlib import Path

import pytest
from test_cuda_static import ROOT, TOOLKIT
from torch.utils import cpp_extension

RUNTIME = next(
    (path for name in ("lib64", "lib") for path in (TOOLKIT or ROOT).glob(f"{name}/libcudart_static.a")), None
)
USER = """
#include <cuda_runtime.h>
extern "C" int version_of_runtime() {
  int version = 0, devices = 0;
  cudaGetDeviceCount(&devices);  // loads the driver, if there is one: dlopen, dlsym, threads
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : -1;
}
"""


by_runtime = pytest.mark.skipif(
    RUNTIME is None or platform.machine() != "x86_64", reason="no static CUDA runtime for x86-64"
)


@pytest.mark.cuda
@by_runtime
def test_the_gpu_backend_asks_for_an_old_standard_library(tmp_path: Path) -> None:
    (abi,) = re.findall(r'^STABLE_ABI = "(\w+)"', (ROOT / "setup.py").read_text(), re.MULTILINE)
    folders = (*cpp_extension.include_paths(), f"{TOOLKIT}/include")
    subprocess.run(
        [
            *("g++", "-std=c++20", "-fPIC", "-c", str(ROOT / "csrc/cuda/backend.cpp"), "-o", "backend.o"),
            *("-include", str(ROOT / "csrc/old_glibc.h"), f"-DTORCH_TARGET_VERSION={abi}", '-DIMAE_CUDA_ARCHS="9.0"'),
            *(f"-I{each}" for each in folders),
        ],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    asked = subprocess.run(["nm", "-u", tmp_path / "backend.o"], capture_output=True, text=True, check=True).stdout
    assert "aoti_torch" in asked and "basic_stringbuf" not in asked and "__libc_single_threaded" not in asked


@pytest.mark.cuda
@by_runtime
def test_the_cuda_runtime_asks_for_an_old_glibc(tmp_path: Path) -> None:
    (tmp_path / "user.cpp").write_text(USER)
    library = tmp_path / "library.so"
    subprocess.run(
        [
            *("g++", "-shared", "-fPIC", f"-I{TOOLKIT}/include", "user.cpp", str(ROOT / "csrc/cuda/old_glibc.cpp")),
            *("-o", str(library), str(RUNTIME), "-lrt", "-lpthread", "-ldl"),
        ],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    versions = {(int(major), int(minor)) for major, minor in re.findall(r"@+GLIBC_(\d+)\.(\d+)", symbols.stdout)}
    assert versions and max(versions) <= (2, 28), sorted(versions)
    assert "pthread_create" in symbols.stdout and "dlopen" in symbols.stdout
    assert ctypes.CDLL(str(library)).version_of_runtime() >= 12000
