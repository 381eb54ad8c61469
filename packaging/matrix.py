"""Installs the wheels into bare environments outside the checkout and tries them: ``make matrix``, ``make matrix-row``.

Each row is a Python and a torch, and prints a line of the table in docs/releasing.md. What runs there finds no
compiler. --tests also runs the tests marked short, --without-names runs them once more without each private name of
torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wheels import ROOT, about

OLDEST, NEWEST = "torch==2.11.0", "torch"
NO_TORCH, HERE = "module", "here"
SHARED = ("torch", "numpy", "pytest", "mpmath")  # of this interpreter, for rows with the torch that is here


def wheel_for(python: str, dist: Path) -> Path:
    """Find the wheel of an interpreter."""
    facts = about(python)
    wheels = sorted(dist.glob(f"*-{facts['tag']}-{facts['abi']}-*.whl"))
    if not wheels:
        sys.exit(f"no wheel for {python} in {dist}; build it with: make wheels")
    return wheels[-1]


def pip(inside: Path, *arguments: object, uv: str | None = None) -> None:
    """Install into an environment by this interpreter's pip, so that one without it will do; or by uv."""
    command = [uv, "pip", "install"] if uv else [sys.executable, "-m", "pip", "--python", inside, "install"]
    command += ["--quiet", *arguments, *(["--python", inside] if uv else [])]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(each) for each in command], check=True, env=bare)


def bring(inside: Path, *arguments: object) -> None:
    """Install what is not ours: by uv where there is one, which unpacks once what many rows need."""
    pip(inside, "--no-compile", *arguments, uv=shutil.which("uv"))  # what is imported is compiled soon enough


def bring_torch(inside: Path, torch: str) -> None:
    """Give an environment the torch of its row."""
    if torch == HERE:  # only the folders: what is installed editable in them stays out
        folders = {str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in SHARED}
        (site,) = inside.parents[1].glob("lib/python*/site-packages")
        (site / "here.pth").write_text("\n".join(sorted(folders)))
    elif torch != NO_TORCH:
        bring(inside, torch, "numpy")


def call(inside: Path, *arguments: object, cwd: Path, **variables: str) -> str:
    """Run an environment's Python without a compiler; return what it printed last."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "IMAE_", "CUDA_"))}
    environment = {**kept, "PATH": str(inside.parent), "IMAE_EXT_REQUIRE": "1", "OMP_NUM_THREADS": "1", **variables}
    command = [str(each) for each in (inside, *arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)} {variables}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def tests_there(inside: Path, folder: Path, torch: str, without_names: bool) -> str:
    """Run the tests marked short on a copy of the checkout that has no package beside it."""
    ignored = shutil.ignore_patterns("imae_ext", "build", "dist", ".git", ".venv", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    if torch != HERE:
        bring(inside, "-r", ROOT / "requirements/test.txt")
    tests = [
        path for path in (folder / "tests").glob("test_*.py") if re.search("mark.short|table_params", path.read_text())
    ]
    short = ("-m", "pytest", "-m", "short", "-p", "no:cacheprovider", *sorted(tests))
    said = re.sub(", [0-9]+ deselected.*", "", call(inside, *short, cwd=folder))
    names = re.findall(r'_find\("([\w.]+)"', (ROOT / "imae_ext/_torch.py").read_text()) if without_names else ()
    for name in names:
        call(inside, *short, "-p", "without_name", cwd=folder, PYTHONPATH=str(folder / "tests"), IMAE_WITHOUT=name)
    return f"{said}; as many without any of {len(names)} private names" if names else said


def row(python: str, torch: str, arguments: argparse.Namespace) -> None:
    """Try one Python with one torch, and say what came of it."""
    wheel = wheel_for(python, arguments.dist.resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", "--without-pip", folder / "env"], check=True)
        inside = folder / "env/bin/python"
        began = time.perf_counter()
        pip(inside, "--no-deps", wheel)
        seconds = time.perf_counter() - began
        bring_torch(inside, torch)
        extra = []
        if torch == NO_TORCH:  # the libraries of this interpreter's torch, which know nothing of Python
            extra = ["--module", Path(importlib.util.find_spec("torch").origin).parent / "lib"]
        (folder / "away").mkdir()
        script = shutil.copy(ROOT / "packaging/smoke.py", folder / "away")
        line = f"{call(inside, '-I', script, *extra, cwd=folder / 'away')}; installed in {seconds:.1f} s"
        if arguments.tests and torch != NO_TORCH:
            line += f" | {tests_there(inside, folder / 'away', torch, arguments.without_names)}"
        print(f"| {line} |", flush=True)


def main() -> None:
    """Try every row that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--without-names", action="store_true")
    parser.add_argument(
        "rows",
        nargs="*",
        help=f"PYTHON=TORCH, such as python3.12=torch==2.11.0; {NO_TORCH} for no torch, {HERE} for that of the Python "
        "that runs this",
    )
    arguments = parser.parse_args()
    minors = (f"python3.{each}" for each in ("10", "11", "12", "13", "14", "14t"))
    pythons = [name for name in minors if shutil.which(name)]
    rows = [each.split("=", 1) for each in arguments.rows] or [[p, t] for p in pythons for t in (OLDEST, NEWEST)]
    for python, torch in rows:
        row(shutil.which(python) or python, torch, arguments)


if __name__ == "__main__":
    main()
