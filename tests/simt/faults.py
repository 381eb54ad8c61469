# ruff: noqa: E501
"""The faults to plant in the CUDA kernels, and how the emulator notices them; tests/mutation/run.py plants them.

Noticed by: the emulator itself, the numbers against the oracle, or a sanitizer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(folder) for folder in (HERE.parents[1], HERE.parent, HERE.parent / "mutation", HERE)]

import amount_faults  # noqa: E402
import description_faults  # noqa: E402
import emulator  # noqa: E402
from fault import Fault as AnyFault  # noqa: E402
from fault import kernel_fault as Fault  # noqa: E402
from fault import plant  # noqa: E402
from kernels import CSRC, compile_kernels  # noqa: E402

UNDEFINED, THREAD = SANITIZERS = "address,undefined", "thread"
FAULTS = (
    Fault("no barrier before the warps' parts are read", "reduce.h", "__syncthreads();  // every warp's part", "// every"),
    Fault("one buffer for the parts of two rows", "row.cuh", "turn ^= 1", "turn", THREAD),
    Fault("no barrier when the tile is loaded", "tile.cuh", "__syncthreads();  // the tile is there", ""),
    Fault("no barrier before the tile is stored", "tile.cuh", "__syncthreads();  // every row's gradient", "// every"),
    Fault("no barrier before the tile is overwritten", "tile.cuh", "__syncthreads();  // the tile may be", "// the"),
    Fault("no barrier in the block's sum", "reduce.h", "__syncthreads();  // this call's are written", ""),
    Fault("the block's sum overwrites the one before", "reduce.h", "__syncthreads();  // an earlier call's parts", "//", THREAD),
    Fault("no fence before the ticket", "reduce.h", "__threadfence();  // the part is visible", "// the part", THREAD),
    Fault("no fence after the ticket", "reduce.h", "__threadfence();  // the other blocks' parts", "// the other", THREAD),
    Fault("the ticket counts one block too few", "reduce.h", "gridDim.x - 1) == gridDim.x - 1", "gridDim.x - 1) == gridDim.x - 2"),
    Fault("the ticket is never zeroed", "run.h", "else if (r.loss)\n    on.zero(&workspace->ticket);", ""),
    Fault("barrier within a branch", "tile.cuh", "if (Job::kGradient && rows.grad) {\n        const S after", "if (Job::kGradient && rows.grad) {\n        __syncthreads();\n        const S after"),
    Fault("tail of the row left out", "packs.h", "return j < count ? j : -1;", "return j < count - 1 ? j : -1;"),
    Fault("an element behind the row", "packs.h", "return j < count ? j : -1;", "return j <= count ? j : -1;"),
    Fault("a pack too many", "packs.h", "packs = (count - head) / kSize;", "packs = (count - head + kSize - 1) / kSize;", UNDEFINED),
    Fault("loads that ignore alignment", "packs.h", "head = past == 0 ? 0 : kSize - past;", "head = 0; (void)past;", UNDEFINED),
    Fault("stores that ignore alignment", "packs.h", "return reinterpret_cast<uintptr_t>(p) % 16 == 0;", "return p != nullptr;"),
    Fault("mask of the whole warp for part of it", "reduce.h", "return ((1u << (kLanes & 31)) - 1) << (threadIdx.x & 31 & ~(kLanes - 1));", "return 0xffffffffu;"),
    Fault("mask of the wrong lanes", "reduce.h", "(threadIdx.x & 31 & ~(kLanes - 1))", "(threadIdx.x & 31 & ~(2 * kLanes - 1))"),
    Fault("half of the lanes summed", "reduce.h", "step > 0; step /= 2) x += ", "step > 1; step /= 2) x += "),
    Fault("the label counts among the others", "row.cuh", "if (y >= 0) mask(y);", ""),
    Fault("the label counts among the others (tile)", "tile.cuh", "if (j != y) s.add(", "s.add("),
    Fault("a maximum that is too low", "row.cuh", "max.raise_to(x);", "if (x.largest() < 60) max.raise_to(x);"),
    Fault("(-inf) - (-inf)", "device.h", "return max == -Device<S>::infinity() ? S(0) : max;", "return max;"),
    Fault("infinite factor of an empty sum", "reduce.h", "(x.sum_exp == 0 ? S(0) : x.sum_exp * fast_exp(dx))", "(x.sum_exp * fast_exp(dx))"),
    Fault("sums merged without rescaling", "reduce.h", "x.sum_exp * fast_exp(dx)", "x.sum_exp"),
    Fault("offsets of 32 bits", "../rows.h", "return inner == 1 ? i * outer_stride :", "return inner == 1 ? int32_t(i) * int32_t(outer_stride) :"),
    Fault("ignored rows written from their logits", "row.cuh", "held.write(grad, [](S) { return S(0); });", "held.write(grad, [&](S v) { return gradient(c, v); });"),
    Fault("ignored rows count in the mean", "jobs.h", "if (y == rows.ignore_index) return {known, true, S(0)};", "if (y == rows.ignore_index) return {known, true, S(1)};"),
    Fault("labels out of range used", "jobs.h", "y >= 0 && y < rows.C ? static_cast<int>(y) : -1", "static_cast<int>(y)"),
    Fault("class weight left out of the gradient", "jobs.h", "c.g_y * scale}", "o.g_y * scale}"),
    Fault("grad_output of the first row for all", "jobs.h", "rows.grad_output_is_scalar ? 0 : i", "0"),
    Fault("the label's store before its pack's", "row.cuh", "if (mine) narrow(g_y, to[y]);", "(void)g_y;"),
    Fault("blocks start at the same row", "row.cuh", "static_cast<int64_t>(blockIdx.x / blocks.count()) * kRows + threadIdx.x / kLanes;", "threadIdx.x / kLanes;"),
    Fault("the label of the row before", "row.cuh", "label = rows.label(i + step)", "label = rows.label(i)"),
    Fault("maximum folded into the multiplication", "jobs.h", "fast_exp(z - c.shift)", "fast_exp(z) * fast_exp(-c.shift)"),
    Fault("no barrier before the blocks' parts are read", "cluster.cuh", "group_.sync();  // every block's part", "// every"),
    Fault("no barrier before another block's memory is written", "cluster.cuh", "group_.sync();  // no block writes", "// no"),
    Fault("one buffer for the parts of two rows (cluster)", "cluster.cuh", "turn * kMaxCluster", "0 * turn", THREAD),
    Fault("a part in the place of another block's", "cluster.cuh", "map_shared_rank(part + rank()", "map_shared_rank(part + threadIdx.x"),
    Fault("the last block's part left out", "cluster.cuh", "b < count(); ++b", "b < count() - 1; ++b"),
    Fault("the slots begin in the exchange area", "cluster.cuh", "bytes + kExchangeBytes<typename Job::S>", "bytes"),
    Fault("no room for the exchange area", "run.h", "kExchangeBytes<typename Job::S> + 16", "16"),
    Fault("every block of a cluster counts", "row.cuh", "scale, held.lane == 0, totals", "scale, threadIdx.x % kLanes == 0, totals"),
    Fault("blocks of a cluster on different rows", "row.cuh", "static_cast<int64_t>(blockIdx.x / blocks.count())", "static_cast<int64_t>(blockIdx.x)"),
    Fault("rows counted by blocks, not clusters", "row.cuh", "static_cast<int64_t>(gridDim.x / blocks.count())", "static_cast<int64_t>(gridDim.x)"),
    Fault("every block of a cluster holds the same", "row.cuh", "lane(blocks.rank() * kLanes +", "lane(0 * blocks.rank() +"),
    Fault("the ends of a row in every block", "row.cuh", "z.edge(k * lanes + lane)", "z.edge(k * lanes + static_cast<int>(threadIdx.x % kLanes))"),
    Fault("a factor of inf for all rows", "small.cuh", "if (label_of<S>(s, i).ignored) continue;", ""),
    Fault("a factor of inf as any other", "small.cuh", "if (factor - factor != 0) {", "if (false) {"),
    Fault("an upstream gradient of inf in the coefficients", "jobs.h", "finite(upstream(i)) ? upstream(i) * scale : scale", "upstream(i) * scale"),
    Fault("an upstream gradient of inf left out", "jobs.h", "return finite(upstream(i)) ? S(1) : upstream(i);", "return S(1);"),
    Fault("a class of weight 0 is only multiplied by it", "jobs.h", "return {known, weight == 0, weight};", "return {known, false, weight};"),
    *amount_faults.FAULTS,
    *description_faults.FAULTS,
)  # fmt: skip


# Classes and rows: of each kernel some.
SHAPES = (
    (1, 600),
    (3, 600),
    (10, 600),
    (33, 40),
    (32, 40),
    (64, 40),
    (100, 40),
    (129, 20),
    (1001, 9),
    (5000, 4),
    (12281, 3),  # all slots of a cluster of four, but for two
)


def numbers(library: Path) -> None:
    """Run in a process of its own: raises if the emulator complains or a number is off."""
    import torch
    from cases import FORMULAS, Case
    from expected import assert_within, expected, rows
    from kernel_calls import MEAN, NONE, SUM, Machine
    from kernels import Kernels

    torch.set_num_threads(1)
    kernels = Kernels(library)
    reductions = {"mean": MEAN, "none": NONE, "sum": SUM}
    for k, (C, count) in enumerate(SHAPES):
        for dtype, machine in (
            (torch.float32, Machine(7, 3)),
            (torch.bfloat16, Machine(1)),
            (torch.float32, Machine(0, 1, 3, (12 if C >= 5000 else 99) << 10, 0)),
            *[(torch.float32, Machine(seed, 2, 2, 36 << 10)) for seed in (0, 7) if C >= 5000],  # clusters of 2 and 4
        ):
            for values in ("unit", "scale30", "offset1e4"):
                layout = ("contiguous", "offset3", "padded", "transposed")[k % 3 if C > 200 else (k + len(values)) % 4]
                reduction = tuple(reductions)[(k + len(values)) % 3]
                case = Case(
                    FORMULAS[0 if C == 1 else (4, 14, 18)[k % 3]],
                    C,
                    dtype,
                    layout,
                    values,
                    reduction,
                    k % 2 == 0,
                    k % 2 == 1,
                    count,
                )
                logits, target, weight = case.inputs()
                kernels.machine = machine
                options = {"class_weight": weight, "reduction": reductions[reduction]}
                formula = tuple(case.formula.build().packed)
                upstream = 1.0
                if reduction == "none":
                    made = kernels.forward(logits, target, formula, save=True, **options)
                    up = torch.linspace(-1, 2, target.numel()).view(target.shape)
                    made["grad"], upstream = kernels.backward(logits, target, made, up), up.double().numpy()
                else:
                    made = kernels.forward(logits, target, formula, grad=True, **options)
                wanted = expected(
                    case.formula, logits, target, weight=weight, reduction=reduction, grad_output=upstream
                )
                assert_within(made["loss"], wanted.loss, wanted.loss_allowed, f"{case}: loss")
                assert_within(rows(made["grad"]), wanted.grad, wanted.grad_allowed, f"{case}: gradient")
    _special_rows(kernels)
    amount_faults.numbers(kernels)
    description_faults.numbers(kernels)


def _special_rows(kernels) -> None:
    import torch
    from cases import FORMULAS
    from kernel_calls import MEAN, Machine

    kernels.machine = Machine(7, 3)
    formula = tuple(FORMULAS[0].build().packed)
    for C in (10, 300):
        logits = torch.randn(40, C)
        logits[3, 1:] = -float("inf")
        logits[5, : C - 1] = -float("inf")
        target = torch.zeros(40, dtype=torch.int64)
        target[5] = C - 1
        target[7] = C
        logits[9] = -1000.0  # far below 0, for which the maximum of nothing stands
        if C == 10:
            logits = logits.t().contiguous().t()
        made = kernels.forward(logits, target, formula, reduction=MEAN, grad=True)
        wrong = made["grad"].isnan().any(dim=1)
        assert wrong[7] and wrong.sum() == 1, f"C={C}: rows {wrong.nonzero().flatten().tolist()} are NaN, expected 7"
    _rows_left_out(kernels)
    # rows 2^31 elements apart, in memory that is never touched but there
    wide = torch.empty(2, 2**31 + 2**29)[:, :10]
    wide.copy_(torch.randn(2, 10))
    target = torch.tensor([1, 2])
    far = kernels.forward(wide, target, formula, reduction=MEAN, save=True)["coefficients"]
    near = kernels.forward(wide.contiguous(), target, formula, reduction=MEAN, save=True)["coefficients"]
    assert torch.allclose(far, near, rtol=1e-5), "offsets overflow"


def _rows_left_out(kernels) -> None:
    """Ignored, or of a class of weight 0: nothing from above reaches them."""
    import torch
    from cases import FORMULAS
    from kernel_calls import MEAN

    formula = tuple(FORMULAS[0].build().packed)
    for C in (10, 300):
        logits, weight = torch.randn(40, C), torch.ones(C)
        target = torch.arange(40) % 4
        target[::3], weight[3] = -100, 0
        out = (target == -100) | (target == 3)
        logits[out] = float("inf")
        options = {"class_weight": weight, "reduction": MEAN}
        made = kernels.forward(logits, target, formula, grad=True, **options)
        saved = kernels.forward(logits, target, formula, save=True, **options)
        once = made["grad"].clone()
        for value in (float("inf"), float("nan"), 2.0):
            factor = torch.tensor(value)
            made["grad"] = once.clone()
            kernels.scale_(made["grad"], factor, target, class_weight=weight)
            for grad in (made["grad"], kernels.backward(logits, target, saved, factor)):
                assert (grad[out] == 0).all(), f"C={C}, {value}: a row left out"
                live = grad[~out], (once * value)[~out]
                assert torch.allclose(*live, rtol=1e-5, atol=1e-6, equal_nan=True), f"C={C}, {value}: a live row"


def caught(fault: AnyFault | None) -> tuple[str, str]:
    """(what caught it, what it said); ("", "") if nothing did."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(CSRC, folder / "csrc")
        if fault:
            plant(fault, folder)
        for sanitizer in ("", fault.sanitizer) if fault and fault.sanitizer else ("",):
            made = compile_kernels(folder / f"kernels{len(sanitizer)}", folder / "csrc", sanitizer, few_types=True)
            if sanitizer:
                done = emulator.run(made, timeout=300)
                output, code = done.stdout, done.returncode
                by = {UNDEFINED: "ASan/UBSan", THREAD: "TSan"}[sanitizer]
            else:
                command = [sys.executable, __file__, str(made)]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
                output, code = done.stdout, done.returncode
                by = "emulator" if "simt:" in output else "numbers" if "AssertionError" in output else "crash"
            if code:
                said = [
                    line for line in output.splitlines() if "Error" in line or "SUMMARY" in line or "WARNING" in line
                ]
                return by, (said or ["exit " + str(code)])[-1].strip()
    return "", ""


if __name__ == "__main__":
    numbers(Path(sys.argv[1]))
