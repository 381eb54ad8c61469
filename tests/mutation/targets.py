"""Faults of what comes with a target: weights of the rows, a yes or no for each logit, probabilities."""

from __future__ import annotations

from fault import Fault

ROWS = ("test_sample_weight.py",)
BINARY = ("test_binary.py",)
SOFT = ("test_soft.py",)
MIXED = ("test_mixed.py",)

TARGETS = (
    Fault(
        "csrc/cpu/group.h",
        ": S(1)) * (of_row ? of_row[i] : S(1));",
        ": S(1)) * (of_row && !of_class ? of_row[i] : S(1));",
        "weights of the rows are left out beside those of the classes",
        ROWS,
    ),
    Fault(
        "csrc/cpu/backend.cpp",
        "sum += double(of_class ? of_class[y] : S(1)) * (of_row ? of_row[i] : S(1));",
        "sum += double(of_class ? of_class[y] : S(1));",
        "mean divides by the weights of the classes alone",
        ROWS,
    ),
    Fault(
        "imae_ext/reference.py",
        "w = w * sample_weight.to(dtype)",
        "w = w * sample_weight.to(dtype).abs()",
        "the reference takes a negative weight for a positive one",
        ROWS,
    ),
    Fault(
        "imae_ext/modules.py",
        "sample_weight=sample_weight,",
        "sample_weight=None,",
        "a module forgets the weights of the rows",
        ROWS,
    ),
    Fault(
        "imae_ext/functional.py",
        "for w in (weight, sample_weight))",
        "for w in (weight, None))",
        "without the extension value_and_grad forgets the weights of the rows",
        ROWS,
    ),
    Fault(
        "csrc/binary.h",
        "sum.slope = sum.slope - product<M>(rest, other.g_y);",
        "sum.slope = sum.slope + product<M>(rest, other.g_y);",
        "the no of a soft target pulls the wrong way",
        BINARY,
    ),
    Fault(
        "csrc/binary.h",
        "const auto amount = M::select(no, one, pos_weight * t);",
        "const auto amount = M::select(no, pos_weight, pos_weight * t);",
        "pos_weight weighs the no as well",
        BINARY,
    ),
    Fault(
        "csrc/binary.h",
        "fit = u == M::set(M::infinity());",
        "fit = u != u;",
        "an infinite logit that fits is NaN",
        BINARY,
    ),
    Fault(
        "csrc/cpu/binary.h",
        "targets += V::select(counts, of_sample, Real{});",
        "targets += V::select(counts, w, Real{});",
        "a binary mean divides by the weights of the elements",
        BINARY,
    ),
    Fault(
        "csrc/cpu/binary.h",
        "if (++step < from.repeat) continue;",
        "if (++step <= from.repeat) continue;",
        "weights of rows slip by an element",
        BINARY,
    ),
    Fault(
        "csrc/binary_ops.cpp",
        "case ScalarType::Bool: binary.has_ignored = false;",
        "case ScalarType::Bool:",
        "a true is ignored where ignore_index is 1",
        BINARY,
    ),
    Fault(
        "imae_ext/soft.py",
        "top = z.detach().nan_to_num(nan=torch.inf).argmax(-1, keepdim=True) == index",
        "top = z.detach().nan_to_num(nan=torch.inf).argmin(-1, keepdim=True) == index",
        "margins relative to another class than the top",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "top = z.detach().nan_to_num(nan=torch.inf).argmax(-1, keepdim=True) == index",
        "top = z.detach() == z.detach().amax(-1, keepdim=True)",
        "a tie of two tops: both are the top",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "u = torch.where(top, u_m, log_p - torch.log1p(-torch.exp(log_p)))",
        "u = (z - all_of_them) - torch.log1p(-torch.exp((z - all_of_them).clamp(max=-1e-16)))",
        "the naive margins, without the top class's own",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "wanted = t != 0",
        "wanted = t > 0",
        "negative amounts are left out",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "samples = reference.row_weights(y, None, of_rows, ignore_index, dtype)",
        "samples = reference.row_weights(y, None, of_rows, -1, dtype)",
        "an ignored row that is smoothed counts",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "per_row = reference._weighted(_weighed(values, of_class), given.sample_weight)",
        "per_row = reference._weighted(_weighed(values, of_class), given.sample_weight**2)",
        "a weight of rows is applied twice",
        SOFT,
    ),
    Fault(
        "imae_ext/soft.py",
        "t = (1 - label_smoothing) * t + label_smoothing / C",
        "t = (1 - label_smoothing) * t + label_smoothing / (C - 1)",
        "label_smoothing shared among the others",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "for (m_ = k; z_[m_] != top;) ++m_;",
        "m_ = k;",
        "the top class of a vector is its first",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "t_[m_] = 0;",
        "",
        "the top class is counted among the others, too",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "const S along_e = A_ * r_m_ * inverse_ + a_m_",
        "const S along_e = A_ * r_m_ * inverse_",
        "the top class's label does not push the others",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "t * (o.g_y - o.b) - p * ratio",
        "t * o.g_y - p * ratio",
        "a class is pushed by its own label as by another's",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "if (d_.C > 2) {",
        "if (d_.C > 3) {",
        "NCE of three classes as if there were two",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "if (of_class) t *= part(of_class, k);",
        "if (of_class && e == 0) t *= part(of_class, k);",
        "class weights are left out of smoothed amounts",
        SOFT,
    ),
    Fault(
        "csrc/cpu/dense.h",
        "sums.targets += w;",
        "sums.targets += live ? w : 0;",
        "a mean leaves rows of zeros out of its divisor",
        SOFT,
    ),
    Fault(
        "imae_ext/mixed.py",
        "second = 1 - first if other_lam is None",
        "second = first if other_lam is None",
        "both labels get the first one's amount",
        MIXED,
    ),
    Fault(
        "imae_ext/mixed.py",
        "other = torch.where(live, other.to(target.dtype), target)",
        "other = other.to(target.dtype)",
        "the other label of an ignored row counts",
        MIXED,
    ),
)
