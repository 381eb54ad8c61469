"""What a planted fault is, and the tests that are most likely to notice it."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]  # files in tests/, those most likely to notice first


VALUES = ("test_shipped_bugs.py", "test_contract_values.py", "test_case_table.py")
SHAPES = ("test_shipped_bugs.py", "test_contract_shapes.py", "test_case_table.py")
AUTOGRAD = ("test_shipped_bugs.py", "test_contract_autograd.py", "test_contract_precision.py", "test_contexts.py")
INTERFACE = ("test_contract_refusals.py", "test_contract_objects.py", "test_ecosystem.py", "test_cross_entropy.py")
UPSTREAM = ("test_upstream.py",)
COMPILE = ("test_compile.py",)
