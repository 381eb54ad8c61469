"""Tests the extension under AddressSanitizer and UndefinedBehaviorSanitizer: python tests/sanitize.py [test files].

Builds a copy of the project, with the CPU kernels of every instruction set, and stops at the first report. First of
all a read out of bounds must be reported, or silence would prove nothing.
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
        IMAE_CXXFLAGS=f"-O1 -g {SANITIZERS} -fno-sanitize-recover=all",
        IMAE_LDFLAGS=SANITIZERS,
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])


def sanitized(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return run(
        root,
        *command,
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


def main() -> int:
    tests = sys.argv[1:] or [f"tests/{name}" for name in TESTS]
    # plain and reference are PyTorch's own operations
    chosen = [] if sys.argv[1:] else ["-k", "not plain and not reference", "-p", "sample"]
    with tempfile.TemporaryDirectory(prefix="sanitize-") as folder:
        root = Path(folder)
        for name in ("csrc", "imae_ext", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy2(ROOT / name, root)
        (root / "sample.py").write_text(SAMPLE)
        build(root)
        sanitized(root, "-c", OUT_OF_BOUNDS)
        if "heap-buffer-overflow" not in reports(root):
            print("FAILED: a read out of bounds was not reported")
            return 1
        done = sanitized(root, "-m", "pytest", "-x", "-n", "auto", "-p", "no:cacheprovider", *chosen, *tests)
        print(done.stdout[-3000:], reports(root))
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
