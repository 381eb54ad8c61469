"""The faults to plant: each a change of a few characters to one source file; `old` must occur exactly once."""

from __future__ import annotations

from fault import AUTOGRAD, COMPILE, INTERFACE, SHAPES, VALUES, Fault
from shipped import SHIPPED

KERNELS = (
    Fault("csrc/formulas.h", "return {x.nlp, x.r};", "return {x.nlp, x.p};", "CCE pulls by p, not 1 - p", VALUES),
    Fault(
        "csrc/formulas.h",
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
        "csrc/formulas.h",
        "total.b = total.b + t.coefficient * o.b;",
        "total.b = total.b + o.b;",
        "a combination's coefficient left out of one part",
        ("test_case_table.py",),
    ),
    Fault(
        "csrc/formulas.h",
        "u = M::select(z_y == infinity, z_y - z_y, u);",
        "",
        "an infinite label logit is a perfect fit instead of NaN",
        VALUES,
    ),
    Fault(
        "csrc/loss.cpp", "if (lambd == 1) return e;", "if (lambd >= 0.5) return e;", "DM below 1/2 as if even", VALUES
    ),
    Fault(
        "csrc/loss.cpp",
        "if (std::equal(e.terms.begin(), e.terms.end(), terms, terms + count)) return e.loss;",
        "if (e.terms.size() == static_cast<size_t>(count)) return e.loss;",
        "the cache of prepared losses mixes formulas up",
        VALUES,
    ),
    Fault(
        "csrc/loss.cpp",
        "Entry& slot = cache[oldest++ % kEntries];",
        "Entry& slot = cache[oldest++ % kEntries + 1];",
        "the cache of prepared losses writes past its end",
        ("test_ecosystem.py", "test_case_table.py"),
    ),
    Fault(
        "csrc/cpu/elements.h",
        "rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;",
        "rounded = bits >> 16;",
        "bfloat16 gradients cut off instead of rounded",
        VALUES,
    ),
    Fault(
        "csrc/cpu/simd.h",
        "return x < Simd<S>::kExpLow ? Real{} : e.power * e.minus_one + e.power;",
        "return e.power * e.minus_one + e.power;",
        "exp of a very small number wraps around",
        VALUES,
    ),
    Fault(
        "csrc/cpu/simd.h", "return d == Real{} ? x : log(w) * (x / d);", "return log(w);", "log1p as log(1 + x)", VALUES
    ),
    Fault(
        "csrc/cpu/kernels.h",
        "const int64_t shift = inner + kLanes > D ? inner + kLanes - D : 0;",
        "const int64_t shift = 0;",
        "strided rows: the last group runs past the image",
        SHAPES,
    ),
    Fault(
        "csrc/cpu/kernels.h",
        "const Coefficients<S> c{sums.max, o.a * w, o.b * w, o.g_y * w};",
        "const Coefficients<S> c{sums.max, o.a * w, o.b * w, o.g_y};",
        "the class weight left out of the label's gradient",
        ("test_cross_entropy.py", "test_case_table.py"),
    ),
    Fault(
        "csrc/cpu/kernels.h",
        "weight_sum += double(weight[l]) * w[l];",
        "weight_sum += double(weight[l]);",
        "the class weight left out of normalized's divisor",
        ("test_case_table.py",),
    ),
    Fault(
        "csrc/cpu/kernels.h",
        "[b.grad_output_is_scalar ? 0 : i] / divisor;",
        "[b.grad_output_is_scalar ? 0 : i];",
        "normalized and float16: the divisor forgotten in backward",
        AUTOGRAD,
    ),
    Fault(
        "csrc/cpu/sweeps.h",
        "store_one(grad + y, g_y);",
        "store_one(grad + y, from(0)[0] * a + b);",
        "the label's gradient is another class's",
        VALUES,
    ),
    Fault(
        "csrc/cpu/sweeps.h",
        "const auto last = from(C - kLanes) * a + b;  // before its lanes may be overwritten",
        "const auto last = from(C - kLanes) * a;",
        "the last classes of a row lose b",
        VALUES,
    ),
    Fault(
        "csrc/kernels.h",
        "return target_is_int32 ? static_cast<const int32_t*>(target)[i] : static_cast<const int64_t*>(target)[i];",
        "return static_cast<int32_t>(static_cast<const int64_t*>(target)[i]);",
        "labels cut to 32 bits, int32 labels read in pairs",
        ("test_contract_refusals.py", "test_case_table.py"),
    ),
    Fault(
        "csrc/ops.cpp",
        "return w ? sum : static_cast<double>(rows.N - ignored);",
        "return w ? sum : static_cast<double>(rows.N);",
        "mean divides by the ignored rows too",
        SHAPES,
    ),
    Fault(
        "csrc/ops.cpp",
        "if (reduction == kMean) f.scale = 1 / targets;",
        "if (reduction == kMean) f.scale = 1.0 / f.N;",
        "mean's gradient divides by the ignored rows too",
        SHAPES,
    ),
    Fault(
        "csrc/ops.cpp",
        "const Call call(logits, target, ignore_index, out, true,",
        "const Call call(logits, target, ignore_index, std::nullopt, true,",
        "out is not written to",
        SHAPES,
    ),
)

PYTHON = (
    Fault(
        "imae_ext/ops.py",
        "return code in (1, 2) and logits.dtype is not torch.float16",
        "return code in (1, 2)",
        "float16 gradients rounded before the loss scale: underflow",
        ("test_contract_precision.py", "test_transforms.py"),
    ),
    Fault(
        "imae_ext/ops.py",
        "grad, ctx.grad = ctx.grad, None",
        "grad = ctx.grad",
        "a second backward scales the first one's gradient again",
        AUTOGRAD,
    ),
    Fault(
        "imae_ext/ops.py",
        "if torch.is_grad_enabled():  # create_graph",
        "if False:  # create_graph",
        "gradient penalties silently left out",
        ("test_transforms.py",),
    ),
    Fault(
        "imae_ext/ops.py",
        "return (grad.to(grad_output.dtype) * grad_output).to(grad.dtype)",
        "return grad.clone()",
        "grad_output ignored under torch.compile",
        COMPILE,
    ),
    Fault(
        "csrc/cpu/kernels.h",
        "kept ? kept->row(r, g, l) : nullptr",
        "kept ? kept->row(r, g, 0) : nullptr",
        "the exponentials of one row kept where another's are",
        ("test_case_table.py",),
    ),
    Fault(
        "csrc/cpu/sweeps.h",
        "ahead -= Int(kUnroll * kLanes)",
        "ahead -= Int(kLanes)",
        "the label of a later vector taken for another class",
        ("test_case_table.py",),
    ),
    Fault(
        "imae_ext/ops.py",
        "forward_ad._current_level >= 0",
        "False",
        "forward mode silently dropped",
        ("test_transforms.py",),
    ),
    Fault(
        "imae_ext/fake.py",
        "dtype=torch.float64 if logits.dtype is torch.float64 else torch.float32",
        "dtype=logits.dtype",
        "the fake loss of half-precision logits has another dtype than the real one",
        COMPILE,
    ),
    Fault(
        "imae_ext/fake.py",
        "target.shape if reduction == 0 else ()",
        "()",
        "the fake loss of reduction none is a scalar",
        COMPILE,
    ),
    Fault(
        "imae_ext/checks.py",
        '"mean": 1, "sum": 2,',
        '"mean": 2, "sum": 1,',
        "mean and sum swapped",
        ("test_cross_entropy.py",),
    ),
    Fault(
        "imae_ext/checks.py",
        "(labels < 0) | (labels >= C)",
        "(labels < 0) | (labels > C)",
        "the label C is not explained",
        ("test_contract_refusals.py",),
    ),
    Fault(
        "imae_ext/checks.py",
        "row = int(wrong.int().argmax())",
        "row = int(wrong.sum())",
        "the bad label's row misnamed",
        ("test_contract_refusals.py",),
    ),
    Fault(
        "imae_ext/formulas.py",
        "tuple((coefficient * c, formula) for c, formula in self.terms)",
        "tuple((coefficient, formula) for c, formula in self.terms)",
        "a combination times a factor forgets its own factors",
        ("test_mathematics.py", "test_ecosystem.py"),
    ),
    Fault(
        "imae_ext/formulas.py",
        "value - value != 0",
        "value != value",
        "an infinite parameter is accepted",
        ("test_contract_refusals.py",),
    ),
    Fault(
        "imae_ext/modules.py",
        'self.register_buffer("weight", weight)',
        "self.weight = weight",
        "class weights stay behind when the module moves",
        INTERFACE,
    ),
    Fault(
        "imae_ext/modules.py",
        "            ignore_index=self.ignore_index,\n",
        "",
        "the module forgets ignore_index",
        INTERFACE,
    ),
    Fault(
        "imae_ext/reference.py",
        "z = torch.where(live.unsqueeze(-1), z, 0.0)",
        "z = z * live.unsqueeze(-1)",
        "the reference lets an ignored row's NaN through",
        ("test_contract_shapes.py",),
    ),
    Fault(
        "imae_ext/reference.py",
        "return values.sum() / w.sum()",
        "return values.sum() / live.sum()",
        "the reference's mean ignores class weights",
        ("test_cross_entropy.py",),
    ),
)

FAULTS = (*SHIPPED, *KERNELS, *PYTHON)
