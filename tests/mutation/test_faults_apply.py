"""Every planted fault still fits the sources; `make faults` plants them."""

from __future__ import annotations

import pytest
from fault import ROOT, Fault
from faults import FAULTS as HOST_FAULTS
from simt.faults import FAULTS as KERNEL_FAULTS
from simt.faults import SANITIZERS

FAULTS = (*HOST_FAULTS, *KERNEL_FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.why for fault in FAULTS])
def test_fault_applies(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1 and fault.old != fault.new
    assert all((ROOT / "tests" / name).exists() for name in fault.tests)
    assert fault.sanitizer in ("", *SANITIZERS)


def test_each_is_noticed_by_one_kind_of_check() -> None:
    assert all(fault.tests for fault in HOST_FAULTS)
    assert all(fault.emulated and fault.file.startswith("csrc/") for fault in KERNEL_FAULTS)
    assert len({fault.why for fault in FAULTS}) == len(FAULTS)
