"""docs/adding_a_formula.md: its diff applies to the sources, and what comes of that builds and passes its tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("csrc", "imae_ext", "tests", "docs", "benchmarks", "requirements")
FILES = ("setup.py", "pyproject.toml", "README.md", "CITATION.cff", "CHANGELOG.md")
# Those that meet every formula by its name or its number.
TESTS = (
    "test_case_table",
    "test_package",
    "test_contract_parameters",
    "test_mathematics",
    "test_gradcheck",
    "test_oracle",
)
# One row with a p below 1/tau and one above, by the reference alone, since nothing was compiled.
WITHOUT_KERNELS = """
import torch, imae_ext
for row, label in (([0.0, 5.0, 0.0], 0), ([0.0, 0.0], 1)):
    logits = torch.tensor([row], dtype=torch.float64, requires_grad=True)
    loss = imae_ext.phuber_loss(logits, torch.tensor([label]))
    loss.backward()
    print(f"{loss.item():.4f} {logits.grad[0, label].item():.4f}")
"""


def apply(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Apply the page's diff to a folder, whole or not at all."""
    (diff,) = re.findall(
        r"^```diff\n(.*?)^```", (ROOT / "docs/adding_a_formula.md").read_text(), re.MULTILINE | re.DOTALL
    )
    command = ["git", "apply", "-p1", *options, "-"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}  # outside of any repository
    return subprocess.run(command, cwd=folder, input=diff, env=environment, capture_output=True, text=True)


def copied(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "results", "html")
        )
    for name in FILES:
        shutil.copy2(ROOT / name, folder)
    return folder


def test_the_diff_applies(tmp_path: Path) -> None:
    root = copied(tmp_path)
    done = apply(root)
    assert done.returncode == 0, done.stderr
    assert "kPHuber" in (root / "csrc/formulas.h").read_text()
    assert "kPHuber" not in (ROOT / "csrc/formulas.h").read_text()
    for path in (root / "imae_ext").glob("*.py"):  # a name in an annotation is never looked up when the tests run
        text = path.read_text()
        for name in set(re.findall(r"Unpack\[(\w+)\]", text)):
            assert len(re.findall(rf"\b{name}\b(?!\])", text)) > 0, (path.name, name)
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERNELS],
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != "IMAE_EXT_REQUIRE"}
        | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["3.2361", "-0.0660", "0.6931", "-0.5000"]


@pytest.mark.slow
def test_the_new_formula_builds_and_passes_its_tests(tmp_path: Path) -> None:
    root = copied(tmp_path)
    assert apply(root).returncode == 0
    environment = os.environ | {"PYTHONPATH": str(root), "IMAE_CUDA": "0", "IMAE_EXT_REQUIRE": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=1500,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    run("setup.py", "--quiet", "build_ext", "--inplace")
    files = [f"tests/{name}.py" for name in TESTS]
    passed = run(
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "PHuber or phuber or everywhere or names_every or docstrings",
        *files,
    )
    assert int(re.findall(r"(\d+) passed", passed)[-1]) > 100
