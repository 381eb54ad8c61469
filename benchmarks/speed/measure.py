"""Times the contenders of one case in turns: a round runs each once, in a new order, so that drift hits all alike."""

from __future__ import annotations

import gc
import itertools
import math
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch._dynamo.utils
from torch import Tensor

from .cases import Case, worth_compiling
from .contenders import Contender, Step, Unavailable, expected_gradient
from .queued import queued
from .results import CaseResult, Timing

BLOCK = 1e-3  # seconds that one timing lasts at least, by repeating short passes
UNTIMED_BELOW = 20e-3  # seconds; a faster pass runs once untimed first, and finds the caches as it leaves them itself
MAX_ROUNDS = 75
SLOW = 1 / 20  # share of a case's seconds; a slower contender sits out after SLOW_ROUNDS
SLOW_ROUNDS = 7
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 3e-2}  # of the largest gradient: the same thing is timed


@dataclass(frozen=True)
class Plan:
    """How long to measure a case."""

    seconds: float = 3.0
    min_rounds: int = 21
    compile: str = "some"  # "none", "some": where cases.worth_compiling says so, or "all"


@dataclass
class _Runner:
    """A contender that is ready, with what was learned while warming it up."""

    steps: Iterator[Step]
    calls: int  # passes in one timing
    cost: float  # seconds of one timing
    untimed: int  # passes before it
    gradient_error: float | None
    peak_bytes: int | None


def measure(case: Case, contenders: Sequence[Contender], plan: Plan) -> CaseResult:
    """Time every contender that can run the case; the others are returned with their reasons."""
    torch.set_num_threads(case.threads)
    torch._dynamo.reset()  # else a function compiled for many shapes falls back to eager mode
    inputs = [case.inputs(seed) for seed in range(_input_sets(case))]
    expected = {computes: expected_gradient(computes, case, *inputs[0]) for computes in ("imae", "cce", "copy")}
    runners: dict[str, _Runner] = {}
    not_run: dict[str, str] = {}
    for contender in contenders:
        try:
            runners[contender.key] = _warm_up(contender, case, plan, inputs, expected[contender.computes])
        except Exception as error:  # a peer may fail in any way of its own; what it says is the result
            not_run[contender.key] = _reason(error)
    del expected  # memory for the passes
    graphs = _compilations()
    with no_garbage_collection():
        rounds = _run_rounds(case, runners, plan)
    if _compilations() != graphs:
        raise RuntimeError(f"{case.name}: something was compiled while it was timed")
    timings = {
        key: Timing(runner.calls, tuple(rounds[key]), runner.gradient_error, runner.peak_bytes)
        for key, runner in runners.items()
    }
    return CaseResult(case, timings, not_run)


def look_into_queue(result: CaseResult, contenders: Sequence[Contender]) -> CaseResult:
    """Add what each contender that was timed puts in a GPU's queue. For when nothing is timed any more: see queued."""
    torch._dynamo.reset()
    inputs = result.case.inputs()
    timings = dict(result.timings)
    for contender in contenders:
        if contender.key not in timings:
            continue
        try:
            seen = queued(contender.prepare(result.case, *inputs).run)
        except Exception as error:  # the times stand without it
            warnings.warn(f"{result.case.name}, {contender.label}: not profiled: {_reason(error)}", stacklevel=2)
        else:
            timings[contender.key] = replace(timings[contender.key], queued=seen)
    return replace(result, timings=timings)


def _run_rounds(case: Case, runners: dict[str, _Runner], plan: Plan) -> dict[str, list[float | None]]:
    """Return each contender's microseconds, round by round."""
    rounds: dict[str, list[float | None]] = {key: [] for key in runners}
    order = list(runners)
    shuffle = random.Random(0).shuffle
    clock = _clock(case.device)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS):
        if done >= plan.min_rounds and time.perf_counter() - start > plan.seconds:
            break
        shuffle(order)
        for key in order:
            runner = runners[key]
            if done >= min(SLOW_ROUNDS, plan.min_rounds) and runner.cost > SLOW * plan.seconds:
                rounds[key].append(None)
                continue
            for step in itertools.islice(runner.steps, runner.untimed):
                step.run()
            taken = clock(runner.steps, runner.calls)
            rounds[key].append(float(f"{1e6 * taken:.4g}"))
    return rounds


def _warm_up(
    contender: Contender, case: Case, plan: Plan, inputs: Sequence[tuple[Tensor, Tensor]], expected: Tensor | None
) -> _Runner:
    """Prepare and compile a contender, check its gradient, and find how often to repeat it."""
    if contender.compiled and not (plan.compile == "all" or (plan.compile == "some" and worth_compiling(case))):
        raise Unavailable("not compiled at this shape by default")
    prepared = [contender.prepare(case, logits, target) for logits, target in inputs]
    gradient_error = _gradient_error(case, prepared[0].gradient(), expected)
    steps = itertools.cycle(prepared)
    for step in itertools.islice(steps, len(prepared)):
        step.run()
    clock = _clock(case.device)
    once = clock(steps, 1)
    if once < 1e-1:
        once = min(once, clock(steps, 1), clock(steps, 1))
    peak_bytes = _peak_bytes(prepared[0]) if case.device == "cuda" else None
    calls = max(1, math.ceil(BLOCK / once))
    untimed = 1 if once < UNTIMED_BELOW else 0
    return _Runner(steps, calls, (calls + untimed) * once, untimed, gradient_error, peak_bytes)


def _gradient_error(case: Case, found: Tensor | None, expected: Tensor | None) -> float | None:
    """Return the largest error of the gradient, relative to the largest gradient; refuse one that is off."""
    if found is None or expected is None:
        return None
    error = float((found.float() - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCE[case.dtype]:
        raise Unavailable(f"its gradient is off by {error:.1e} of the largest")
    return float(f"{error:.2g}")


def _input_sets(case: Case) -> int:
    """Return how many inputs to take turns with: on a GPU, enough that no cache holds those of the last pass.

    A small batch stays one: it comes out of the cache in training too.
    """
    if case.device == "cpu":
        return 1
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return 1 if case.bytes < cache / 4 else max(1, math.ceil(2 * cache / case.bytes))


def _clock(device: str) -> Callable[[Iterator[Step], int], float]:
    return _seconds_cpu if device == "cpu" else _seconds_cuda


def _seconds_cpu(steps: Iterator[Step], calls: int) -> float:
    """Return the seconds of one pass, over several calls."""
    chosen = [step.run for step in itertools.islice(steps, calls)]
    start = time.perf_counter()
    for run in chosen:
        run()
    return (time.perf_counter() - start) / calls


def _seconds_cuda(steps: Iterator[Step], calls: int) -> float:
    """Return the same by the device's clock; the pass before keeps the queue filled, as in training."""
    chosen = [step.run for step in itertools.islice(steps, calls)]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for run in chosen:
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3 / calls


def _peak_bytes(step: Step) -> int:
    """Return the memory that one pass takes beyond what is there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _compilations() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _reason(error: Exception) -> str:
    """Return the first line of what went wrong, without the places of files."""
    text = str(error).strip().partition("\n")[0]
    text = re.sub(r"(/[\w.+-]+){2,}", "(a file)", text)[:200]
    return text if isinstance(error, Unavailable) else f"{type(error).__name__}: {text}"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
