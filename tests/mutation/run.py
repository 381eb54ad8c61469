"""Plants each fault of both lists in a copy of the project and demands that a test fails: make faults.

tests/mutation/faults.py lists the faults of C++ and Python, tests/simt/faults.py those of the CUDA kernels. The copy
has the kernels of the baseline instruction set only, unoptimised; ninja recompiles only what a fault touches. The
CUDA kernels run in the emulator. Tests that fail without any fault are left out. Exits with 1 if a fault is not
noticed, does not apply or does not build.

    make faults                           all of them, about an hour on two cores
    make faults ARGS="offset imae_ext/"   those whose description or file has one of the words
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fault import ROOT, Fault, plant
from faults import FAULTS as HOST_FAULTS

sys.path.append(str(ROOT / "tests"))
from simt.faults import FAULTS as KERNEL_FAULTS
from simt.faults import caught

DISPATCH = """#include "instruction_sets.h"
namespace imae {
extern const CpuKernels baseline_kernels;
const CpuKernels& cpu_kernels() { return baseline_kernels; }
}  // namespace imae
"""
ENVIRONMENT = {
    **os.environ,
    "IMAE_CUDA": "0",
    "IMAE_CXXFLAGS": "-O0",
    "IMAE_EXT_REQUIRE": "1",
    "OMP_NUM_THREADS": "1",
    "MAX_JOBS": "2",
}


class Copy:
    """The project in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("csrc", "imae_ext", "tests", "docs"):
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "simt", "mutation")
            shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
        for file in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy2(ROOT / file, root / file)
        (root / "csrc/cpu/dispatch.cpp").write_text(DISPATCH)
        setup = (root / "setup.py").read_text()
        for other in ("avx2", "avx512"):
            setup = setup.replace(f'    "cpu/{other}.cpp",\n', "")
        (root / "setup.py").write_text(setup)

    def run(self, *command: str, timeout: int) -> subprocess.CompletedProcess[str]:
        environment = {**ENVIRONMENT, "PYTHONPATH": str(self.root)}
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )

    def build(self) -> str | None:
        """Build in place; what went wrong, if anything."""
        done = self.run("setup.py", "--quiet", "build_ext", "--inplace", timeout=900)
        return done.stdout[-2000:] if done.returncode else None

    def save(self) -> None:
        """Keep the sound build, to go back to."""
        shutil.rmtree(self.root / "sound", ignore_errors=True)
        shutil.copytree(self.root / "build", self.root / "sound/build")
        for library in (self.root / "imae_ext").glob("*.so"):
            shutil.copy2(library, self.root / "sound")

    def restore(self) -> None:
        shutil.rmtree(self.root / "build")
        shutil.copytree(self.root / "sound/build", self.root / "build")
        for library in (self.root / "sound").glob("*.so"):
            shutil.copy2(library, self.root / "imae_ext")

    def failing(self, tests: tuple[str, ...]) -> list[str]:
        """Name the tests that fail as things are."""
        done = self.run("-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", *tests, timeout=3600)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout[-3000:])
        return [line[7:].split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")]

    def first_failure(self, tests: tuple[str, ...], known: list[str]) -> str | None:
        """Name the first test that fails, stopping there; None if all pass."""
        deselected = [f"--deselect={name}" for name in known]
        try:
            done = self.run(
                "-m", "pytest", "-x", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", *deselected, *tests, timeout=900
            )
        except subprocess.TimeoutExpired:
            return "(no end)"
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"(signal {-done.returncode})"
        if done.returncode != 1:
            raise RuntimeError(done.stdout[-1500:])
        return next(line[7:].split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED "))


def try_on(copy: Copy, fault: Fault, known: list[str]) -> tuple[str, str]:
    """Plant a fault of C++ or Python: what became of it, and a detail."""
    path = copy.root / fault.file
    sound, stat = path.read_text(), path.stat()
    compiled = fault.file.startswith("csrc")
    try:
        plant(fault, copy.root)
        problem = copy.build() if compiled else None
        if problem:
            return "DOES NOT BUILD", problem
        noticed = copy.first_failure(tuple(f"tests/{name}" for name in fault.tests), known)
        return ("caught", noticed) if noticed else ("SURVIVED", ", ".join(fault.tests))
    except ValueError as error:
        return "DOES NOT APPLY", str(error)
    except RuntimeError as error:
        return "DID NOT RUN", str(error)
    finally:
        path.write_text(sound)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        if compiled:
            copy.restore()


def try_emulated(fault: Fault) -> tuple[str, str]:
    """Plant a fault of the CUDA kernels: what became of it, and a detail."""
    try:
        by, said = caught(fault)
    except ValueError as error:
        return "DOES NOT APPLY", str(error)
    except AssertionError as error:
        return "DOES NOT BUILD", str(error)[-2000:]
    return ("caught", f"{by}: {said[:100]}") if by else ("SURVIVED", "emulator and numbers")


def report(fault: Fault, outcome: str, detail: str) -> bool:
    print(f"{outcome:14} {fault.file:24} {fault.why}\n{'':15}{detail}", flush=True)
    return outcome == "caught"


def run_host(faults: list[Fault]) -> int:
    """Count the caught ones."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Copy(Path(folder))
        problem = copy.build()
        if problem:
            raise SystemExit(problem)
        copy.save()
        known = copy.failing(tuple(f"tests/{name}" for name in dict.fromkeys(t for f in faults for t in f.tests)))
        if known:
            print(f"left out, {len(known)} tests that fail without a fault: {', '.join(known[:5])} ...", flush=True)
        return sum(report(fault, *try_on(copy, fault, known)) for fault in faults)


def run_emulated(faults: list[Fault]) -> int:
    """Count the caught ones; without a fault there must be nothing to catch."""
    by, said = caught(None)
    if by:
        raise SystemExit(f"without a fault: {by}: {said}")
    with ThreadPoolExecutor(2) as pool:
        return sum(report(fault, *result) for fault, result in zip(faults, pool.map(try_emulated, faults), strict=True))


def main() -> int:
    words = sys.argv[1:]
    begin = time.monotonic()
    chosen = [f for f in (*HOST_FAULTS, *KERNEL_FAULTS) if not words or any(word in f.why + f.file for word in words)]
    host = [fault for fault in chosen if not fault.emulated]
    emulated = [fault for fault in chosen if fault.emulated]
    count = (run_host(host) if host else 0) + (run_emulated(emulated) if emulated else 0)
    print(f"{count} of {len(chosen)} caught in {(time.monotonic() - begin) / 60:.0f} minutes")
    return 0 if chosen and count == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
