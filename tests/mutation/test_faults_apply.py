"""Every planted fault still fits the sources; `python tests/mutation/run.py` plants them."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import FAULTS
from shipped import SHIPPED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.why for fault in FAULTS])
def test_fault_applies(fault):
    assert (ROOT / fault.file).read_text().count(fault.old) == 1 and fault.old != fault.new
    assert fault.tests and all((ROOT / "tests" / name).exists() for name in fault.tests)


def test_there_are_enough():
    assert len(FAULTS) >= 30 and len(SHIPPED) >= 15
    assert len({fault.why for fault in FAULTS}) == len(FAULTS)
    assert {Path(fault.file).parts[0] for fault in FAULTS} == {"csrc", "imae_ext"}
