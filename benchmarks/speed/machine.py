"""Where a run took place: processor, versions, commit. No host name and no path."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import imae_ext
from imae_ext._extension import compiled

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "triton", "liger-kernel", "quack-kernels")


def describe(device: str) -> dict[str, Any]:
    """Return date, commit, machine and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **_sources(),
        "machine": _machine(device),
        "versions": _versions(),
    }


def _sources() -> dict[str, Any]:
    """Return the commit and whether the sources differ from it; None is unknown.

    In a copy without git's data, IMAE_COMMIT and IMAE_DIRTY (0 or 1) may say so.
    """
    commit = _output("git", "rev-parse", "HEAD") if (ROOT / ".git").exists() else None
    if commit:
        changes = _output("git", "status", "--porcelain", "--untracked-files=no")
        return {"commit": commit, "commit_is_modified": None if changes is None else changes != ""}
    dirty = {"0": False, "1": True}.get(os.environ.get("IMAE_DIRTY", ""))
    return {"commit": os.environ.get("IMAE_COMMIT") or None, "commit_is_modified": dirty}


def load() -> float:
    """Return how many processes wanted to run in the last minute, by this machine's count."""
    return round(os.getloadavg()[0], 2)


def _machine(device: str) -> dict[str, Any]:
    machine: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cpu_kernels": compiled.cpu_instruction_set() if compiled else "none",
        "torch_cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "huge_pages": _huge_pages(),
        "load_before": load(),
    }
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(0)
        machine["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or None
    return machine


def cpu_model() -> str:
    """Return the processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "unknown"


def _huge_pages() -> str | None:
    """Return how the system hands out transparent huge pages: always, madvise or never."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0]


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "imae_ext": imae_ext.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return versions


def _output(*command: str) -> str | None:
    """Return what a command prints; None if it is not there or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
