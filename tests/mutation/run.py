"""Plants each fault of both lists in a copy of the project and demands that a test fails: make faults.

tests/mutation/faults.py lists the faults of C++ and Python, tests/simt/faults.py those of the CUDA kernels. The copy
in build/faults stays there: ninja recompiles what a fault touches, and the next run begins with what this one compiled.
It has the kernels of the baseline instruction set only, unoptimised and without inlining, which compile in a quarter of
the time that -O0 alone takes. Each fault meets the tests that are named for it, up to the first that fails; that one
must pass without the fault, else it is left out and the fault tried again. The CUDA kernels run in the emulator. Exits
with 1 if a fault is not noticed, does not apply or does not build.

    make faults                           all of them
    make faults ARGS="offset imae_ext/"   those whose description or file has one of the words
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from fault import ROOT, Fault, plant
from faults import FAULTS as HOST_FAULTS

sys.path.append(str(ROOT / "tests"))
from simt.faults import FAULTS as KERNEL_FAULTS
from simt.faults import caught

COPY = ROOT / "build/faults"
CPU_SECONDS = 900  # of one command: a fault may make a loop that never ends
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
    "IMAE_WERROR": "0",  # a fault may leave a variable unused
    "OMP_NUM_THREADS": "1",
    "MAX_JOBS": "2",
    "PYTHONPATH": str(COPY),
}


def quick_to_compile() -> dict[str, str]:
    """Name the files that the copy has in another form, each with its text."""
    inlined = "#define IMAE_INLINE inline __attribute__((always_inline))"
    isa, setup = (ROOT / "csrc/cpu/isa.h").read_text(), (ROOT / "setup.py").read_text()
    assert inlined in isa
    for other in ("avx2", "avx512"):
        assert f'    "cpu/{other}.cpp",\n' in setup
        setup = setup.replace(f'    "cpu/{other}.cpp",\n', "")
    return {
        "csrc/cpu/dispatch.cpp": DISPATCH,
        "csrc/cpu/isa.h": isa.replace(inlined, "#define IMAE_INLINE inline"),
        "setup.py": setup,
    }


class Copy:
    """The project in a folder of its own, as it is now."""

    def __init__(self) -> None:
        other = quick_to_compile()
        wanted = ["setup.py", "pyproject.toml", "README.md"]
        for folder in ("csrc", "imae_ext", "tests", "docs"):
            files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
            wanted += [f.as_posix() for f in files if f.suffix not in (".so", ".pyc")]
        for name in wanted:
            text = other[name].encode() if name in other else (ROOT / name).read_bytes()
            path = COPY / name
            if not path.exists() or path.read_bytes() != text:  # else it keeps its time, which ninja goes by
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
        for folder in ("csrc", "imae_ext", "tests"):
            for path in (COPY / folder).rglob("*"):
                if path.suffix in (".py", ".h", ".cpp") and path.relative_to(COPY).as_posix() not in wanted:
                    path.unlink()
        problem = self.build()
        if problem:
            raise SystemExit(problem)
        self.save()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=COPY,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS)),
        )

    def build(self) -> str | None:
        """Build in place; what went wrong, if anything."""
        done = self.run("setup.py", "--quiet", "build_ext", "--inplace")
        return done.stdout[-2000:] if done.returncode else None

    def save(self) -> None:
        """Keep the sound build, to go back to."""
        shutil.rmtree(COPY / "sound", ignore_errors=True)
        shutil.copytree(COPY / "build", COPY / "sound/build")
        for library in (COPY / "imae_ext").glob("*.so"):
            shutil.copy2(library, COPY / "sound")

    def restore(self) -> None:
        shutil.rmtree(COPY / "build")
        shutil.copytree(COPY / "sound/build", COPY / "build")
        for library in (COPY / "sound").glob("*.so"):
            shutil.copy2(library, COPY / "imae_ext")

    def failing(self, tests: Iterable[str], *options: str) -> list[str]:
        """Name the tests that fail as things are; what else ended the run, in brackets."""
        done = self.run("-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *options, *tests)
        if done.returncode == 0:
            return []
        if done.returncode < 0:
            return [f"(signal {-done.returncode})"]
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if done.returncode != 1 or not failed:
            raise RuntimeError(done.stdout[-1500:])
        return [line.split(" ", 1)[1].split(" - ")[0] for line in failed]


def try_on(copy: Copy, fault: Fault, known: list[str]) -> tuple[str, str]:
    """Plant a fault of C++ or Python: what became of it, and a detail."""
    path = COPY / fault.file
    sound, stat = path.read_text(), path.stat()
    compiled = fault.file.startswith("csrc")
    try:
        plant(fault, COPY)
        problem = copy.build() if compiled else None
        if problem:
            return "DOES NOT BUILD", problem
        options = ["-x", *(["-k", fault.only] if fault.only else []), *(f"--deselect={name}" for name in known)]
        noticed = copy.failing([f"tests/{name}" for name in fault.tests], *options)
        return ("caught", noticed[0]) if noticed else ("SURVIVED", ", ".join(fault.tests))
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
    copy = Copy()
    known: list[str] = []
    count, again = 0, faults
    while again:
        caught_by: dict[str, list[Fault]] = {}
        for fault in again:
            outcome, detail = try_on(copy, fault, known)
            if report(fault, outcome, detail):
                caught_by.setdefault(detail, []).append(fault)
        failing = copy.failing(name for name in caught_by if name[0] != "(") if caught_by else []
        again = [fault for name in failing for fault in caught_by[name]]
        known += failing
        count += sum(map(len, caught_by.values())) - len(again)
        if again:
            print(f"once more, since these tests fail without a fault, too: {', '.join(failing)}", flush=True)
    return count


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
