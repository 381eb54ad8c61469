"""`python -m benchmarks.gpu_module` sees to a compiled module with kernels for the GPU at hand.

The module in place is taken if no source is newer than it; else that of a wheel in dist/ that is newer than all of
them; else one is built, for TORCH_CUDA_ARCH_LIST alone. MODULE=keep takes the one in place whatever its age, as where
files were copied and have lost their times; MODULE=build builds in any case.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (".h", ".cuh", ".cu", ".cpp")
# In a process of its own: a module that cannot be loaded, or is of other sources, is an error there.
SERVES = """
import torch, imae_ext
from imae_ext import devices
from imae_ext._extension import compiled
card = torch.cuda.get_device_capability()
assert devices.runs_on(compiled.cuda_architectures, card), f"for {compiled.cuda_architectures or 'no GPU'}, not {card}"
"""


def newest_source(root: Path) -> float:
    return max(path.stat().st_mtime for path in (root / "csrc").rglob("*") if path.suffix in SOURCES)


def in_place(root: Path) -> list[Path]:
    return sorted((root / "imae_ext").glob("_C*.so"))


def serves(root: Path) -> str:
    """Return why the module in place does not serve, or nothing."""
    environment = os.environ | {"IMAE_EXT_REQUIRE": "1"}
    done = subprocess.run([sys.executable, "-c", SERVES], cwd=root, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def unpack(wheel: Path, root: Path) -> None:
    """Put the wheel's module in place of another."""
    for old in in_place(root):
        old.unlink()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if Path(name).match("imae_ext/_C*.so"):
                (root / "imae_ext" / Path(name).name).write_bytes(archive.read(name))


def build(root: Path) -> None:
    for old in in_place(root):
        old.unlink()
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=root, env=os.environ | {"IMAE_CUDA": "1"}, check=True)


def see_to_module(root: Path, wish: str) -> str:
    """Return where the module came from."""
    newest = newest_source(root)
    if wish != "build":
        for path in in_place(root):
            if wish != "keep" and path.stat().st_mtime < newest:
                print(f"{path.name}: older than a source", flush=True)
            elif why := serves(root):
                print(f"{path.name}: {why}", flush=True)
            else:
                return f"{path.name}, as it was"
        if wish == "keep":
            raise SystemExit("MODULE=keep, but none that serves is in place")
        for wheel in sorted((root / "dist").glob("*.whl"), key=lambda path: -path.stat().st_mtime):
            if wheel.stat().st_mtime < newest:
                print(f"{wheel.name}: older than a source", flush=True)
                continue
            unpack(wheel, root)
            if not (why := serves(root)):
                return f"of {wheel.name}"
            print(f"{wheel.name}: {why}", flush=True)
    if shutil.which("nvcc") is None:
        raise SystemExit("no nvcc to build it with")
    build(root)
    if why := serves(root):
        raise SystemExit(f"the module that was built does not serve: {why}")
    return f"built for {os.environ.get('TORCH_CUDA_ARCH_LIST')}"


if __name__ == "__main__":
    print("module:", see_to_module(ROOT, os.environ.get("MODULE", "")))
