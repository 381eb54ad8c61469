"""Installs the wheels into bare environments outside the checkout and tries them: ``make matrix``, ``make matrix-row``.

Each row is a Python and a torch. --tests also runs the tests marked short there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wheels import ROOT, about

OLDEST, NEWEST = "torch==2.11.0", "torch"
NO_TORCH = "module"


def wheel_for(python: str, dist: Path) -> Path:
    """Find the wheel of an interpreter."""
    facts = about(python)
    wheels = sorted(dist.glob(f"*-{facts['tag']}-{facts['abi']}-*.whl"))
    if not wheels:
        sys.exit(f"no wheel for {python} in {dist}; build it with: make wheels")
    return wheels[-1]


def environment(folder: Path, python: str, torch: str) -> Path:
    """Make a bare environment; pip from outside, so that an interpreter without it will do."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    inside = folder / "bin/python"
    if torch != NO_TORCH:
        pip(inside, "--no-compile", torch, "numpy")  # what is imported is compiled soon enough
    return inside


def pip(inside: Path, *arguments: object) -> None:
    """Install into an environment by this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet", *arguments]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(each) for each in command], check=True, env=bare)


def tests_there(inside: Path, folder: Path) -> str:
    """Run the tests marked short on a copy that has no package beside it."""
    ignored = shutil.ignore_patterns("imae_ext", "build", "dist", ".git", ".venv", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    pip(inside, "--no-compile", "-r", ROOT / "requirements/demo.txt", "-r", ROOT / "requirements/test.txt")
    command = [inside, "-m", "pytest", "-q", "-m", "short", "tests"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-1000:])
    return last


def row(python: str, torch: str, dist: Path, tests: bool) -> None:
    """Try one Python with one torch, and say what came of it."""
    wheel = wheel_for(python, dist)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside = environment(folder / "env", python, torch)
        began = time.perf_counter()
        pip(inside, "--no-deps", wheel)
        seconds = time.perf_counter() - began
        script = shutil.copy(ROOT / "packaging/smoke.py", folder)
        extra = []
        if torch == NO_TORCH:  # the libraries of this interpreter's torch, which know nothing of Python
            import torch as own

            extra = ["--module", str(Path(own.__file__).parent / "lib")]
        done = subprocess.run([inside, "-I", script, *extra], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{python}, {torch}: failed\n{done.stdout}{done.stderr}")
        print(f"{done.stdout.strip().splitlines()[-1]}; installed in {seconds:.1f} s", flush=True)
        if tests and torch != NO_TORCH:
            print(f"  tests marked short: {tests_there(inside, folder)}", flush=True)


def main() -> None:
    """Try every row that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--tests", action="store_true")
    parser.add_argument(
        "rows", nargs="*", help=f"PYTHON=TORCH, such as python3.12=torch==2.11.0, or PYTHON={NO_TORCH} for no torch"
    )
    arguments = parser.parse_args()
    minors = (f"python3.{each}" for each in ("10", "11", "12", "13", "14", "14t"))
    pythons = [name for name in minors if shutil.which(name)]
    rows = [each.split("=", 1) for each in arguments.rows] or [[p, t] for p in pythons for t in (OLDEST, NEWEST)]
    for python, torch in rows:
        row(shutil.which(python) or python, torch, arguments.dist.resolve(), arguments.tests)


if __name__ == "__main__":
    main()
