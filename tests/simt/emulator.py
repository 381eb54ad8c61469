"""Compiles kernels with the SIMT emulator and runs the programs that come of it."""

import os
import platform
import subprocess
from pathlib import Path

HERE = Path(__file__).parent

# Kernels read the same bytes as several types; device compilers allow that, g++ only so.
# Without -fno-gnu-unique, two libraries in one process would share the shared memory of templates.
FLAGS = ["-std=c++20", "-g", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-fno-strict-aliasing", "-fno-gnu-unique"]
SANITIZERS = {
    "address,undefined": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}
# Stop at the first report. ThreadSanitizer would sleep a second at each exit, and forget the place of older accesses;
# kernels leak nothing, and looking for leaks fails where tracing is forbidden.
ENVIRONMENT = {"TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0:history_size=4", "ASAN_OPTIONS": "detect_leaks=0"}


def compile_library(source: Path, output: Path, *flags: str) -> Path:
    """A shared library for ctypes."""
    return _compile(source, output, "-O2", "-fPIC", "-shared", *flags)


def compile_program(source: Path, output: Path, *flags: str, sanitizer: str = "") -> Path:
    """A program with a `main`; `sanitizer` is a key of SANITIZERS."""
    return _compile(source, output, *SANITIZERS.get(sanitizer, []), *flags)


def run(program: Path, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a compiled program; what the sanitizers say is in its stdout."""
    command = [str(program), *map(str, arguments)]
    done = _run(command, timeout)
    if "unexpected memory mapping" in done.stdout:  # ThreadSanitizer and address space randomisation
        done = _run(["setarch", platform.machine(), "-R", *command], timeout)
    return done


def _compile(source: Path, output: Path, *flags: str) -> Path:
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, *FLAGS, *flags, f"-I{HERE}", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return output


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={**os.environ, **ENVIRONMENT},
    )
