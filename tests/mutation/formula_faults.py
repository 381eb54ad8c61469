"""Faults of what every kernel shares: the formulas, their preparation, the operators' checks."""

from __future__ import annotations

from fault import SHAPES, VALUES, Fault

FORMULAS = (
    Fault("csrc/formulas.h", "return {x.nlp, x.r};", "return {x.nlp, x.p};", "CCE pulls by p, not 1 - p", VALUES),
    Fault(
        "csrc/steps.h",
        "x.p = M::select(u >= M::set(0), big, small);\n  x.r = M::select(u >= M::set(0), small, big);",
        "x.p = M::select(u >= M::set(0), big, small);\n  x.r = S(1) - x.p;",
        "1 - p_y by subtraction: 0 for a fitted row",
        VALUES,
    ),
    Fault(
        "csrc/formulas.h",
        "S(0.5) * (rise + x.r / (x.r + t.d))",
        "S(0.5) * (rise + S(1))",
        "IMAE without its eps: a fitted row still pulls",
        VALUES,
    ),
    Fault(
        "csrc/combination.h",
        "total.b = total.b + t.coefficient * o.b;",
        "total.b = total.b + o.b;",
        "a combination's coefficient left out of one part",
        ("test_case_table.py",),
    ),
    Fault(
        "csrc/steps.h",
        "return M::select(row.z_y == M::set(M::infinity()), row.z_y - row.z_y, u);",
        "return u;",
        "an infinite label logit is a perfect fit instead of NaN",
        VALUES,
    ),
    Fault(
        "csrc/prepare.cpp",
        "if (lambd == 1) return series;",
        "if (lambd >= 0.5) return series;",
        "DM below 1/2 as if even",
        VALUES,
    ),
    Fault(
        "csrc/prepare.cpp",
        "if (std::equal(e.terms.begin(), e.terms.end(), terms, terms + count)) return e.formula;",
        "if (e.terms.size() == static_cast<size_t>(count)) return e.formula;",
        "the cache of prepared losses mixes formulas up",
        VALUES,
    ),
    Fault(
        "csrc/prepare.cpp",
        "Entry& slot = cache[oldest++ % kEntries];",
        "Entry& slot = cache[oldest++ % kEntries + 1];",
        "the cache of prepared losses writes past its end",
        ("test_ecosystem.py", "test_case_table.py"),
    ),
    Fault(
        "csrc/rows.h",
        "return target_is_int32 ? static_cast<const int32_t*>(target)[i] : static_cast<const int64_t*>(target)[i];",
        "return static_cast<int32_t>(static_cast<const int64_t*>(target)[i]);",
        "labels cut to 32 bits, int32 labels read in pairs",
        ("test_contract_refusals.py", "test_case_table.py"),
    ),
    Fault(
        "csrc/arithmetic.h",
        "M::select(y >= M::set(sizeof(S) == 4 ? S(1e-8) : S(1e-16)), -M::expm1(-y) / q, x)",
        "-M::expm1(-y) / q",
        "a power so small that float32 takes it for 0",
        ("test_parameter_ranges.py",),
    ),
    Fault(
        "csrc/prepare.cpp",
        "t.constant = t.parameter[0] - 1;",
        "t.constant = static_cast<float>(t.parameter[0]) - 1;",
        "AUL's a - 1 taken in float32",
        ("test_parameter_ranges.py",),
    ),
    Fault(
        "csrc/ops.cpp",
        "ignore_index, Want::kOut, out);",
        "ignore_index, Want::kFresh);",
        "out is not written to",
        SHAPES,
    ),
    Fault(
        "csrc/call.h",
        "if (to && (!to->is_contiguous() || classes_last_))",
        "if (to && !to->is_contiguous())",
        "a gradient with its classes last, taken for one with its positions last",
        SHAPES,
    ),
    Fault(
        "csrc/call.h",
        "shape.C() > 0 && shape.C() <= INT32_MAX / 2",
        "shape.C() > 0",
        "labels beyond 2^31 wrap around",
        ("test_contract_refusals.py",),
    ),
    Fault(
        "csrc/formulas.h",
        "M::select(x.p < x.r, x.p - (S(1) - eps), eps - x.r);",
        "eps - x.r;",
        "a label's gradient from 1 - p where p is small",
        ("test_long_sums.py",),
    ),
)
