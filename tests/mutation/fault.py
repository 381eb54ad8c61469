"""What a planted fault is, and the tests that are most likely to notice it."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """A change of a few characters that must be noticed."""

    file: str  # from the project's root
    old: str  # occurs exactly once
    new: str
    why: str
    tests: tuple[str, ...] = ()  # files in tests/, those most likely to notice first; none: the emulator's checks
    sanitizer: str = ""  # of the emulator, if neither itself nor the numbers notice
    only: str = ""  # pytest's -k: those of the tests that need run

    @property
    def emulated(self) -> bool:
        return not self.tests


def kernel_fault(why: str, file: str, old: str, new: str, sanitizer: str = "") -> Fault:
    """Describe a fault of the CUDA kernels, in a file of csrc/cuda, for the emulator to notice."""
    return Fault(posixpath.normpath(f"csrc/cuda/{file}"), old, new, why, sanitizer=sanitizer)


def plant(fault: Fault, root: Path) -> None:
    """Change the file under root; ValueError if it has no single place for that."""
    path = root / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1 or fault.old == fault.new:
        raise ValueError(f"{fault.why}: {text.count(fault.old)} places in {fault.file}")
    path.write_text(text.replace(fault.old, fault.new))


VALUES = ("test_shipped_bugs.py", "test_contract_values.py", "test_case_table.py")
SHAPES = ("test_shipped_bugs.py", "test_contract_shapes.py", "test_case_table.py")
AUTOGRAD = ("test_shipped_bugs.py", "test_contract_autograd.py", "test_contract_precision.py", "test_contexts.py")
INTERFACE = ("test_contract_refusals.py", "test_contract_objects.py", "test_ecosystem.py", "test_cross_entropy.py")
UPSTREAM = ("test_upstream.py",)
COMPILE = ("test_compile.py",)
