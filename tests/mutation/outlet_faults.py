"""Faults in how rows of a large gradient are sent past the caches."""

from __future__ import annotations

from fault import Fault

SETS, ONLY = ("test_instruction_sets.py",), "test_instruction_set"

OUTLET = (
    Fault(
        "csrc/cpu/outlet.h",
        "__builtin_memcpy(at, from, before * sizeof(T));",
        "",
        "the beginning of a row is not sent",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/outlet.h",
        "__builtin_memcpy(at + end, from + end, (C_ - end) * sizeof(T));",
        "",
        "the end of a row is not sent",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/outlet.h",
        "for (int i = 0; i < kSlots; ++i) send(i).all();",
        "",
        "the rows that wait at the end are not sent",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/outlet.h",
        "if (j < end)",
        "if (j <= end)",
        "more is sent than the row has",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/reading.h",
        "waiting.all();",
        "",
        "a row that does not count holds back the row that waits in its slot",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/sweeps.h",
        "{row.to + begin, row.from + begin, row.end - begin}",
        "row",
        "each part of a long row sends the first one",
        SETS,
        only=ONLY,
    ),
    Fault(
        "csrc/cpu/mixed.h",
        "waiting.all();",
        "",
        "with two labels, a row that does not count holds back the row that waits in its slot",
        ("test_mixed.py",),
    ),
)
