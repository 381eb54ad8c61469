"""The calls that a GPU is checked with: on a CPU they are right, too, and what is wrong there is noticed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_shapes
from benchmarks.gpu_shapes import CALLS, TIERS, Call, check, check_kernel, kernel_of
from benchmarks.speed.queued import Queued

# as a profiler writes them
KERNELS = {
    "tile": "void imae::tile_kernel<imae::ForwardJob<float> >(imae::ForwardJob<float>)",
    **{
        f"row{n}": f"void imae::row_kernel<imae::ForwardJob<__half>, {n}>(imae::ForwardJob<__half>, int)"
        for n in (2, 8, 32, 128, 256)
    },
    "strided": "void imae::strided_kernel<imae::ForwardJob<__nv_bfloat16> >(imae::ForwardJob<__nv_bfloat16>)",
    "cluster": "void imae::cluster_kernel<imae::ForwardJob<float> >(imae::ForwardJob<float>, int)",
}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_calls_agree_with_the_reference(call: Call) -> None:
    check(call, "cpu")


def test_every_tier_has_its_calls() -> None:
    assert {call.tier for call in CALLS} == set(TIERS) == set(KERNELS)
    for tier in TIERS:
        calls = [call for call in CALLS if call.tier == tier]
        assert any(call.weighted for call in calls) and len({call.dtype for call in calls}) > 1
    assert {call.dtype for call in CALLS} == {torch.float64, torch.float32, torch.bfloat16, torch.float16}


@pytest.mark.parametrize("name", ["gradient of mean", "gradient of none", "none", "p", "entropy"])
def test_one_wrong_entry_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    call = Call("row256", (5, 60001))
    found = gpu_shapes.results(call, "cpu")
    found[name].view(-1)[0] *= 1.01  # not at the target, where the gradient is largest
    monkeypatch.setattr(gpu_shapes, "results", lambda *_: found)
    with pytest.raises(AssertionError, match=f"{name} is off by"):
        check(call, "cpu")


def test_each_tier_is_told_by_its_kernels_name() -> None:
    for tier, name in KERNELS.items():
        assert [other for other in TIERS if kernel_of(other).search(name)] == [tier]
        assert kernel_of(tier).search(name.replace(", ", ", (int)"))  # as other demanglers write a number


@pytest.mark.parametrize(
    ("tier", "clusters", "ran"), [("row8", True, "row8"), ("cluster", True, "cluster"), ("cluster", False, "row256")]
)
def test_another_kernel_in_a_tiers_place_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tier: str, clusters: bool, ran: str
) -> None:
    call = SimpleNamespace(tier=tier, inputs=lambda: (torch.zeros(2, 3), torch.zeros(2), None))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(gpu_shapes, "has_clusters", lambda: clusters)
    for name, kernel in KERNELS.items():
        monkeypatch.setattr(gpu_shapes, "queued", lambda call, kernel=kernel: Queued(("count", kernel), (), ()))
        if name == ran:
            check_kernel(call)
        else:
            with pytest.raises(AssertionError, match="expected a kernel like"):
                check_kernel(call)


def test_a_tier_that_fails_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def done(command: list[str], timeout: float, **_: object) -> SimpleNamespace:
        if command[-1] == "row8":
            raise gpu_shapes.subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=1 if command[-1] == "tile" else 0, stderr="its error")

    monkeypatch.setattr(gpu_shapes.subprocess, "run", done)
    with pytest.raises(SystemExit) as ended:
        gpu_shapes.main(["--check", "tile", "row2", "row8", "cluster"])
    assert ended.value.code
    lines = ["tile: FAILED (1)", "its error", "row2: ok", "row8: did not end in 40 s", "cluster: ok"]
    assert capsys.readouterr().out.splitlines() == lines
    with pytest.raises(SystemExit, match="no such tier: row3"):
        gpu_shapes.main(["row3"])
