"""Tests the extension under AddressSanitizer and UndefinedBehaviorSanitizer: python tests/sanitize.py [test files].

Builds a copy of the project, with the CPU kernels of every instruction set, and stops at the first report. First of
all a read out of bounds must be reported, or silence would prove nothing. The copy is not optimised, which would take
ten minutes; so its roundings are a little larger, and the test that goes to their limits stays outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SANITIZERS = "-fsanitize=address,undefined"
TESTS = (
    "test_binary.py",
    "test_binary_contract.py",
    "test_case_table.py",
    "test_contract_autograd.py",
    "test_contract_parameters.py",
    "test_contract_refusals.py",
    "test_contract_shapes.py",
    "test_contract_values.py",
    "test_instruction_sets.py",
    "test_mixed.py",
    "test_shipped_bugs.py",
    "test_soft.py",
    "test_soft_contract.py",
)
# Again with each lesser instruction set that the processor has.
AGAIN = ("test_case_table.py", "test_contract_values.py", "test_long_sums.py", "test_mixed.py", "test_soft.py")
# Of the case table every third case: its formulas differ in numbers, and a sanitizer sees addresses.
SAMPLE = """
def pytest_collection_modifyitems(config, items):
    left_out = [item for n, item in enumerate(items) if item.path.name == "test_case_table.py" and n % 3]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]
"""
# numpy lets a view reach behind its memory
OUT_OF_BOUNDS = """
import imae_ext, numpy, torch
beyond = numpy.lib.stride_tricks.as_strided(numpy.zeros((8, 40), numpy.float32), (9, 40))
print(imae_ext.cce_loss(torch.from_numpy(beyond), torch.zeros(9, dtype=torch.int64)))
"""


def library(name: str) -> str:
    """Find a runtime of the compiler's; it must be in the process before anything else."""
    compiler = os.environ.get("CXX", "g++")
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()


def run(root: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "2", **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def build(root: Path) -> None:
    done = run(
        root,
        *("setup.py", "--quiet", "build_ext", "--inplace"),
        IMAE_CUDA="0",
        IMAE_CXXFLAGS=f"-O0 -g1 {SANITIZERS} -fno-sanitize-recover=all",
        IMAE_LDFLAGS=SANITIZERS,
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])


def sanitized(root: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(
        root,
        *command,
        **environment,
        LD_PRELOAD=f"{library('libasan.so')} {library('libstdc++.so')}",
        ASAN_OPTIONS=f"detect_leaks=0:log_path={root}/report",  # Python and torch keep what they have until the end
        UBSAN_OPTIONS=f"print_stacktrace=1:log_path={root}/report",
        IMAE_EXT_REQUIRE="1",
    )


def reports(root: Path) -> str:
    """Take what the sanitizers have reported."""
    text = ""
    for file in root.glob("report.*"):
        text += file.read_text(errors="replace")[:6000]
        file.unlink()
    return text


def lesser_sets(root: Path) -> list[str]:
    best = "from imae_ext._extension import compiled; print(compiled.cpu_instruction_set())"
    names = ["baseline", "avx2", "avx512"]
    return names[: names.index(sanitized(root, "-c", best).stdout.split()[-1])]


def passes(root: Path, *arguments: str, **environment: str) -> bool:
    """Whether tests pass without a report; what they print is printed."""
    command = ("-m", "pytest", "-x", "-n", "auto", "-p", "no:cacheprovider", "-p", "sample", *arguments)
    done = sanitized(root, *command, **environment)
    print(*environment.values(), done.stdout[-3000:], reports(root), flush=True)
    return done.returncode == 0


def main() -> int:
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="sanitize-") as folder:
        root = Path(folder)
        for name in ("csrc", "imae_ext", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy2(ROOT / name, root)
        (root / "sample.py").write_text("" if chosen else SAMPLE)
        build(root)
        sanitized(root, "-c", OUT_OF_BOUNDS)
        if "heap-buffer-overflow" not in reports(root):
            print("FAILED: a read out of bounds was not reported")
            return 1
        if chosen:
            return 0 if passes(root, *chosen) else 1
        # plain and reference are PyTorch's own operations
        ours = ("-k", "not plain and not reference and not all_values_of_a_lesser")
        fine = passes(root, *ours, *(f"tests/{name}" for name in TESTS)) and all(
            passes(root, *ours, *(f"tests/{name}" for name in AGAIN), IMAE_EXT_CPU=name) for name in lesser_sets(root)
        )
        return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
