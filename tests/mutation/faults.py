"""The faults to plant: each a change of a few characters to one source file; `old` must occur exactly once."""

from __future__ import annotations

from anywhere import ANYWHERE
from cpu_faults import CPU
from formula_faults import FORMULAS
from outlet_faults import OUTLET
from package_faults import PACKAGE
from shipped import SHIPPED
from spread_faults import SPREAD_FAULTS
from statistics_faults import STATISTICS
from targets import TARGETS

FAULTS = (*SHIPPED, *FORMULAS, *CPU, *OUTLET, *PACKAGE, *TARGETS, *STATISTICS, *ANYWHERE, *SPREAD_FAULTS)
