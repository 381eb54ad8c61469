"""What one call puts in a GPU's queue, and whether the host waits for it, as torch.profiler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

MARK = "benchmarks.speed: the call"


@dataclass(frozen=True)
class Queued:
    """Names, in order: the kernels; copies and fills of memory; the host's waits."""

    kernels: tuple[str, ...]
    memory: tuple[str, ...]
    waits: tuple[str, ...]


def queued(call: Callable[[], object]) -> Queued:
    """Profile one call, after one that was not looked at.

    A profiler that was attached once may slow the process's launches from then on: time first.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            torch.ones(1, device=device)  # it may miss the first kernels
        torch.cuda.synchronize()
        with record_function(MARK):
            call()
        torch.cuda.synchronize()  # or the profiler would miss the kernels; after the mark, so not counted
    return sort(profiler.events() or ())


def sort(events: Iterable[Any]) -> Queued:
    """Tell a profile's events apart, from the mark on; waits within it: the profiler itself waits at its end."""
    events = sorted(events, key=lambda event: event.time_range.start)
    marks = [event.time_range for event in events if event.device_type == DeviceType.CPU and event.name == MARK]
    if len(marks) != 1:
        raise ValueError(f"expected one mark of the call in the profile, got {len(marks)}")
    on_device = [
        event.name
        for event in events
        if event.device_type == DeviceType.CUDA
        and not event.is_user_annotation  # the shadow of a record_function, such as the mark's or an optimizer's
        and event.time_range.start >= marks[0].start
    ]
    memory = tuple(name for name in on_device if name.startswith(("Memcpy", "Memset")))
    waits = tuple(
        event.name
        for event in events
        if event.device_type == DeviceType.CPU
        and "Synchronize" in event.name
        and marks[0].start <= event.time_range.start <= marks[0].end
    )
    return Queued(tuple(name for name in on_device if name not in memory), memory, waits)
