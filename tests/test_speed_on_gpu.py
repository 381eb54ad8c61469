"""The speed tool's parts for a GPU, run on a CPU with the device's own functions replaced."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

from benchmarks import gpu_times
from benchmarks.speed import __main__ as tool
from benchmarks.speed import measure as measuring
from benchmarks.speed import on_gpu, readme, results, table
from benchmarks.speed.cases import Case
from benchmarks.speed.contenders import Unavailable, expected_gradient
from benchmarks.speed.measure import Plan, look_into_queue, measure
from benchmarks.speed.queued import MARK, Queued, queued, sort
from benchmarks.speed.results import CaseResult, Run, Timing

ROOT = Path(__file__).parents[1]
CONTENDERS = {contender.key: contender for contender in on_gpu.ON_GPU}
KERNELS = Queued(("row", "scale"), ("Memset (Device)",), ())


class FakeGraph:
    """Counts its replays: what was captured has run once already, when it was captured."""

    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1


class FakeEvent:
    """Tells the time by the number of events that were recorded."""

    recorded = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.recorded += 1
        self.at = FakeEvent.recorded

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at - self.at


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A "cuda" whose tensors are the CPU's and whose streams, events, graphs and counters do nothing of their own."""
    stream = SimpleNamespace(wait_stream=lambda other: None)

    def entered(_: object) -> AbstractContextManager[None]:
        return nullcontext()

    replaced = dict(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=entered,
        graph=entered,
        CUDAGraph=FakeGraph,
        Event=FakeEvent,
        synchronize=lambda: None,
        reset_peak_memory_stats=lambda: None,
        memory_allocated=lambda: 1000,
        max_memory_allocated=lambda: 4000,
        get_device_properties=lambda _: SimpleNamespace(L2_cache_size=1 << 20),
    )
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(measuring, "queued", lambda run: (run(), KERNELS)[1])
    FakeGraph.replays = FakeEvent.recorded = 0

    def inputs(self: Case, seed: int = 0) -> tuple[Tensor, Tensor]:
        return of_cpu(Case(self.shape, self.dtype), seed)

    of_cpu = Case.inputs
    monkeypatch.setattr(Case, "inputs", inputs)


def on_device(shape: tuple[int, ...] = (128, 10), **options: object) -> Case:
    return Case(shape, device="cuda", **options)


@pytest.mark.usefixtures("fake_device")
def test_every_contender_is_measured_with_its_memory_and_queue() -> None:
    timed = measure(on_device(), on_gpu.ON_GPU, Plan(seconds=0.01, min_rounds=3, compile="none"))
    assert all(timing.queued is None for timing in timed.timings.values())
    result = look_into_queue(timed, on_gpu.ON_GPU)
    assert not result.not_run and set(result.timings) == set(CONTENDERS)
    for key, timing in result.timings.items():
        assert timing.peak_bytes == 3000 and timing.queued == KERNELS
        assert (timing.gradient_error is None) == key.startswith("step_")
    text = table.timing_table([result], tool.labels())
    assert re.search(r"IMAE, CUDA graph .* 3 +0 +0\.00$", text, re.MULTILINE), text


@pytest.mark.usefixtures("fake_device")
def test_nothing_is_profiled_before_everything_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profiler may slow launches from then on, most those who launch most."""
    did: list[str] = []
    timed = measuring._run_rounds
    monkeypatch.setattr(measuring, "_run_rounds", lambda *rest: (did.append("timed"), timed(*rest))[1])
    monkeypatch.setattr(measuring, "queued", lambda run: (did.append("profiled"), KERNELS)[1])
    about = made_up_run().about
    monkeypatch.setattr(tool.machine, "describe", lambda device: {**about, "machine": {"cpu_kernels": "avx2"}})
    words = ["--device", "cuda", "--quick", "--seconds", "0.01", "--shapes", "8x3", "9x3", "--only", "imae", "cce"]
    tool.main([*words, "--output", str(tmp_path / "run.json")])
    assert did == ["timed"] * 2 + ["profiled"] * 4
    for result in results.load(tmp_path / "run.json").results:
        assert [timing.queued for timing in result.timings.values()] == [KERNELS] * 2


@pytest.mark.usefixtures("fake_device")
def test_a_contender_that_cannot_be_profiled_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: object) -> Queued:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(measuring, "queued", fails)
    result = made_up_run().results[0]
    with pytest.warns(UserWarning, match="128x10, IMAE, CUDA graph: not profiled: RuntimeError: out of memory"):
        assert look_into_queue(result, [CONTENDERS["imae_graph"]]) == result


@pytest.mark.usefixtures("fake_device")
@pytest.mark.parametrize("key", ["imae_graph", "step_imae_graph"])
def test_a_graph_is_captured_once_and_then_replayed(key: str) -> None:
    calls = []
    case = on_device()
    loss_of = torch.nn.functional.cross_entropy

    def counted(logits: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        return loss_of(logits, target)

    inner = on_gpu.training_step if key.startswith("step_") else on_gpu.through_autograd
    step = on_gpu.replayed(inner(counted))(case, *case.inputs())
    assert len(calls) == 3 + 1 and FakeGraph.replays == 0  # on the side stream, then the capture
    step.run()
    gradient = step.gradient()
    assert len(calls) == 4 and FakeGraph.replays == 2
    if key == "imae_graph":
        torch.testing.assert_close(gradient, expected_gradient("cce", case, *case.inputs()))


@pytest.mark.usefixtures("fake_device")
@pytest.mark.parametrize("case", [on_device(), on_device((64, 7), grad_output=0.5, leaf=False)], ids=lambda c: c.name)
@pytest.mark.parametrize("name", ["imae", "cross_entropy"])
def test_each_row_has_the_gradient_of_the_mean(name: str, case: Case) -> None:
    contender = CONTENDERS[f"{name}_none"]
    found = contender.prepare(case, *case.inputs()).gradient()
    torch.testing.assert_close(found, expected_gradient(contender.computes, case, *case.inputs()))


@pytest.mark.usefixtures("fake_device")
def test_the_network_learns() -> None:
    case, losses = on_device(), []

    def watched(logits: Tensor, target: Tensor) -> Tensor:
        losses.append(torch.nn.functional.cross_entropy(logits, target))
        return losses[-1]

    step = on_gpu.training_step(watched)(case, *case.inputs())
    for _ in range(50):
        step.run()
    assert losses[-1] < losses[0] - 0.01


def test_they_say_where_they_do_not_run() -> None:
    large, other = on_device((8192, 1001)), on_device((8192, 10))
    for contender in on_gpu.ON_GPU:
        with pytest.raises(Unavailable, match=r"needs a CUDA device$"):
            contender.prepare(Case((128, 10)), *Case((128, 10)).inputs())
        if contender.key.startswith("step_"):
            with pytest.raises(Unavailable, match="128x10"):
                contender.prepare(other, *Case((8192, 10)).inputs())
        elif contender.key.endswith("_graph"):
            with pytest.raises(Unavailable, match="at this size"):
                contender.prepare(large, torch.empty(1, 1), torch.empty(1))


def test_events_of_a_profile_are_told_apart() -> None:
    def event(
        name: str, start: float, device: DeviceType = DeviceType.CPU, end: float = 0, note: bool = False
    ) -> object:
        time_range = SimpleNamespace(start=start, end=end or start)
        return SimpleNamespace(name=name, device_type=device, time_range=time_range, is_user_annotation=note)

    gpu = DeviceType.CUDA
    events = [
        event("cudaDeviceSynchronize", 50),  # the profiler's own
        event("void at::native::fill_kernel<float>", 0.5, gpu),  # before the call
        event("void imae::scale_kernel<float>", 12, gpu),
        event("void imae::tile_kernel<float>", 11, gpu),
        event("Memset (Device)", 10, gpu),
        event(MARK, 10, gpu, note=True),  # the mark's shadow on the device
        event("Optimizer.step#SGD.step", 11, gpu, note=True),
        event(MARK, 1, end=9, note=True),
        event("cudaStreamSynchronize", 5),
        event("cudaLaunchKernelExC", 4),
    ]
    kernels = "void imae::tile_kernel<float>", "void imae::scale_kernel<float>"
    assert sort(events) == Queued(kernels, ("Memset (Device)",), ("cudaStreamSynchronize",))
    with pytest.raises(ValueError, match="expected one mark"):
        sort(events[:5])


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_call_is_profiled_once_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nothing is queued; the profile has its mark all the same."""
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("synchronised"))
    assert queued(lambda: calls.append("called")) == Queued((), (), ())
    assert calls == ["called", "synchronised", "synchronised", "called", "synchronised"]


def made_up_run(device: str = "cuda") -> Run:
    about = {
        "machine": {"cpu": "A processor", "cores": 2, "cpu_kernels": "avx2", "gpu": "A card"},
        "versions": {"torch": "2", "python": "3"},
        **{"commit": "0123456789abcdef", "commit_is_modified": False, "date": "today", "command": "a command"},
    }
    times = {"imae": 8.0, "imae_graph": 2.0, "cross_entropy": 9.0, "cross_entropy_graph": 3.0, "step_imae": 1.0}
    timings = {key: Timing(1, (us, us), None, 4096, KERNELS) for key, us in times.items()}
    return Run(about, tool.labels(), [CaseResult(Case((128, 10), device=device), timings, {})])


def test_a_rival_is_compared_with_ours_in_kind(tmp_path: Path) -> None:
    run = made_up_run()
    assert results.losses(run.results) == []  # the graph is faster than IMAE without one, not than its graph
    assert "| 3.00 µs (1.5x) |" in readme.speed_page(run)
    results.save(run, tmp_path / "run.json")
    assert results.load(tmp_path / "run.json") == run


def test_each_device_has_a_section_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    empty = "".join(f"{begin}\n{end}\n" for begin, end in readme.MARKERS.values())
    path.write_text(empty)
    readme.update(path, made_up_run())
    assert readme.section_of(path.read_text(), "cpu")[1] == "\n"
    assert "A card; torch 2" in readme.section_of(path.read_text(), "cuda")[1]


@pytest.mark.parametrize("device", readme.MARKERS)
def test_readme_has_the_numbers_of_the_committed_results_or_none(device: str) -> None:
    section = readme.section_of((ROOT / "README.md").read_text(), device)[1].strip()
    page = ROOT / "docs" / {"cpu": "speed.md", "cuda": "speed_gpu.md"}[device]
    file = results.FOLDER / f"{device}.json"
    if not (ROOT / ".git").exists():
        pytest.skip("git tells which results are committed")
    committed = subprocess.run(["git", "ls-files", "--error-unmatch", file], cwd=ROOT, capture_output=True)
    run = results.load(file) if committed.returncode == 0 else None
    assert section == (readme.speed_section(run) if run else "")
    assert (page.read_text() if page.exists() else None) == (readme.speed_page(run) if run else None)


@pytest.mark.usefixtures("fake_device")
def test_the_times_of_the_tiers_are_written_after_every_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, timed = tmp_path / "times.json", gpu_times.row

    def stopped(case: Case, copy: float) -> dict[str, object]:
        if case.classes == 5:
            raise KeyboardInterrupt
        return timed(case, copy)

    monkeypatch.setattr(
        gpu_times,
        "SHAPES",
        [("tile", (64, 3), "float32"), ("strided", (4, 4, 2, 4), "bfloat16"), ("tile", (8, 5), "float32")],
    )
    monkeypatch.setattr(gpu_times, "COPIED", Case((8, 8)))
    monkeypatch.setattr(gpu_times, "row", stopped)
    monkeypatch.setattr(gpu_times.machine, "describe", lambda device: {"machine": {"gpu": "A card"}, "commit": "0123"})
    with pytest.raises(KeyboardInterrupt):
        gpu_times.measure(path)
    result = json.loads(path.read_text())
    found = [(row["tier"], row["shape"], row["dtype"]) for row in result["rows"]]
    assert found == [("tile", [64, 3], "float32"), ("strided", [4, 4, 2, 4], "bfloat16")]
    assert result["commit"] == "0123"
    for row in result["rows"]:  # every call takes a millisecond by the fake clock
        assert row["us"] == dict.fromkeys(("fused", "autograd", "torch_eager", "statistics"), 1000)
    gpu_times.show(result)
    assert capsys.readouterr().out.startswith("A card, copy 0 GB/s\n")
