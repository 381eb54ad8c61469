"""The emulator itself: toys give the right results in every order, and every fault planted in one is reported."""

import re
import shutil

import numpy as np
import pytest
import torch
from toy_library import Library, source_lines

pytestmark = pytest.mark.cuda

SEEDS = range(8)

# ---- Right results


@pytest.mark.parametrize("resident", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_block_sums(toys, seed, resident):
    error, x, out = toys.run("block_sums", seed=seed, resident=resident)
    slices = x.reshape(4, 256)
    assert error is None
    np.testing.assert_array_equal(out[:8].reshape(4, 2), np.stack([slices.sum(1), (slices**2).sum(1)], 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_dynamic_shared_memory_and_residents_that_share_none(toys, seed):
    for resident in (1, 2):
        error, x, out = toys.run("reverse", seed=seed, resident=resident)
        assert error is None
        np.testing.assert_array_equal(out, x.reshape(2, 64)[:, ::-1].ravel())


@pytest.mark.parametrize("seed", range(3))
def test_warp_operations(toys, seed):
    error, x, out = toys.run("warp_operations", seed=seed)
    lane, x = np.arange(32), x[:32]
    group = lane // 8 * 8
    ones = np.ones(32)
    expected = [
        x[5] * ones,
        x[group + (lane + 3) % 8],
        x[lane ^ 9],
        x[lane ^ 3],
        x[np.where(lane >= 3, lane - 3, lane)],
        x[np.where(lane - group >= 3, lane - 3, lane)],
        x[np.where(lane < 29, lane + 3, lane)],
        x[np.where(lane - group < 5, lane + 3, lane)],
        (x > 0).sum() * ones,
        ones,  # any: one lane, none
        ones,  # all: every lane, all but one
        (lane - 16).sum() * ones,
        -16 * ones,
        31 * ones,
        11 * ones,  # multiples of 3
        2 * ones,
        32 * ones,
        ones,  # double
        ones,  # int64
        x[lane ^ 1] + 100 * (lane ^ 1),  # a pair
        x[2] * ones,  # half
        x[2] * ones,  # bfloat16
        x[np.where(lane >= 16, 20, 4)],  # two masks
    ]
    assert error is None
    np.testing.assert_array_equal(out.reshape(23, 32), np.stack(expected))


@pytest.mark.parametrize("seed", range(4))
def test_atomics(toys, seed):
    error, _, out = toys.run("atomics", seed=seed)
    total = sum(range(64))
    assert error is None
    assert out.tolist() == [32, 16, -total, -63, 63, total, 64 % 5, 64, -77 + total]


def test_numbers(toys):
    half, bfloat16 = np.float16(0.1).astype(np.float32), np.float32(0.10009765625)
    expected = [9, 41040, 31 + 6300, -1.5, 2.5, 0.625, 3 + 5 + 1 + 7, 2 + 3 + 1, 2718 + 8 + 4, 3 + 1, 21, 62]
    error, _, out = toys.run("numbers")
    assert error is None
    np.testing.assert_array_equal(out, np.array([*expected, half - bfloat16, 2 + 3], np.float32))


def test_ticket_pattern_gives_the_same_bits_in_every_order(toys):
    for seed in SEEDS:
        for resident in (1, 3, 8):
            error, x, out = toys.run("ticket_sum", seed=seed, resident=resident)
            assert error is None
            assert out[0] == x.sum()
            np.testing.assert_array_equal(out[1:9], x.reshape(8, 128).sum(1))


def test_resident_blocks_interleave(toys):
    """Each block waits for the one before: that ends in any order only if they take turns."""
    for seed in SEEDS:
        error, x, out = toys.run("relay", seed=seed, resident=4)
        assert error is None
        np.testing.assert_array_equal(out[:4], x[:4].cumsum())
    error, _, _ = toys.run("relay", seed=1, resident=1)
    assert error.startswith("simt: livelock") and "atomicAdd" in error


def test_orders(toys):
    orders = {seed: toys.run("turns", seed=seed)[2].astype(int).tolist() for seed in SEEDS}
    assert orders[0] == list(range(128))
    assert orders[1] == list(range(127, -1, -1))
    assert all(sorted(order) == orders[0] for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    assert toys.run("turns", seed=5)[2].astype(int).tolist() == orders[5], "a seed repeats"


@pytest.mark.parametrize("seed", SEEDS)
def test_clusters(toys, seed):
    for resident in (1, 2):
        error, x, out = toys.run("cluster_sums", seed=seed, resident=resident)
        assert error is None
        sums = np.stack([x.reshape(2, 256).sum(1), (x.reshape(2, 256) ** 2).sum(1)], 1)
        np.testing.assert_array_equal(out[:16].reshape(8, 2), sums.repeat(4, axis=0))
        error, x, out = toys.run("next_block", seed=seed, resident=resident)
        assert error is None
        np.testing.assert_array_equal(out, np.roll(x.reshape(2, 4, 64), -1, axis=1).ravel())


# ---- Faults seen without sanitizers


def test_static_shared_memory_is_poisoned_for_every_block(toys):
    for resident in (1, 2):
        error, _, out = toys.run("stale_shared", resident=resident)
        assert error is None and np.isnan(out).all()


def test_dynamic_shared_memory_is_poisoned(toys):
    _, _, out = toys.run("reverse", fault=3)
    assert np.flatnonzero(np.isnan(out)).tolist() == [58, 122]


@pytest.mark.parametrize(("fault", "seed_that_shows_it"), [(1, 0), (2, 1)])
def test_missing_barriers_show_in_several_orders(toys, fault, seed_that_shows_it):
    """1: partial sums read too early, the poison shows. 2: overwritten too early, by a warp that ran ahead."""
    right = toys.run("block_sums")[2]
    outs = {seed: toys.run("block_sums", fault, seed)[2] for seed in SEEDS}
    wrong = [seed for seed in SEEDS if not np.array_equal(outs[seed], right)]
    assert seed_that_shows_it in wrong and len(wrong) >= 3, wrong
    assert any(np.isnan(out).any() for out in outs.values()) == (fault == 1)


@pytest.mark.parametrize(("toy", "fault"), [("cluster_sums", 2), ("cluster_sums", 3), ("next_block", 7)])
def test_missing_cluster_barriers_show_in_several_orders(toys, toy, fault):
    """As above; and shared memory is NaN again once its block has exited."""
    right = toys.run(toy)[2]
    outs = [toys.run(toy, fault, seed)[2] for seed in SEEDS]
    wrong = [seed for seed in SEEDS if not np.array_equal(outs[seed], right)]
    assert len(wrong) >= 3, wrong
    assert any(np.isnan(out).any() for out in outs) == (fault != 3)


REPORTS = [  # toy, fault, kind of report, part of the line that it names
    ("divergent_barrier", 1, "divergent barrier", "threadIdx.x < 7) __syncthreads"),
    ("divergent_barrier", 2, "barrier after exit", "__syncthreads"),
    ("masks", 1, "calling lane not in mask", "__shfl_sync"),
    ("masks", 2, "mask names a missing lane", "__shfl_sync"),
    ("masks", 3, "source lane not in mask", "__shfl_sync"),
    ("masks", 4, "different masks meet", "__shfl_sync"),
    ("masks", 5, "different warp operations meet", "__any_sync"),
    ("masks", 6, "deadlock", "__syncthreads"),
    ("masks", 7, "fault: a shuffle width", "__shfl_sync"),
    ("copy4", 2, "fault: misaligned access", "__ldg"),
    ("trap", 1, "fault: __trap", "__trap"),
    ("cluster_sums", 1, "fault: access to a block that may not have begun", "map_shared_rank"),
    ("next_block", 1, "divergent barrier", "rank == 1) cluster.sync"),
    ("next_block", 2, "barrier after exit", "cluster.sync"),
    ("next_block", 3, "deadlock", "__syncthreads"),
    ("next_block", 4, "fault: a rank", "map_shared_rank"),
    ("next_block", 5, "fault: an address", "map_shared_rank"),
    ("next_block", 6, "", "map_shared_rank"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("toy", "fault", "kind", "line"), REPORTS)
def test_reports_name_place_and_thread(toys, toy, fault, kind, line, seed):
    error, _, _ = toys.run(toy, fault, seed)
    assert error is not None and error.startswith(f"simt: {kind}"), error
    assert any(line in named for named in source_lines(error)), error
    assert re.search(r"block \(\d+,0,0\) thread \(\d+,0,0\) \(lane \d+ of warp \d+\)", error), error
    assert toys.run("block_sums", seed=seed)[0] is None, "the emulator works on after an error"


def test_other_reports(toys):
    assert "fault: exception" in toys.run("trap", fault=2)[0]
    assert "thrown by a toy" in toys.run("trap", fault=2)[0]
    assert "shared memory overrun: block (0,0,0)" in toys.run("reverse", fault=2)[0]
    exits = [toys.run("next_block", fault=6, seed=seed)[0] for seed in SEEDS]
    assert any("early exit" in error for error in exits) and any("has exited" in error for error in exits)
    for toy in ("no_threads", "many_threads", "tall_grid", "much_shared", "odd_clusters", "large_cluster"):
        assert toys.run(toy)[0].startswith("simt: invalid launch"), toy


def test_exited_threads_may_count_as_having_arrived(toys):
    error, _, out = toys.run("divergent_barrier", fault=2, exited_threads_count=1)
    assert error is None and (out == 1).sum() == 63
    for toy in ("masks", "next_block"):
        assert toys.run(toy, fault=2, exited_threads_count=1)[0] is None


def test_two_libraries_in_one_process(toys, library_file, folder):
    other = Library(shutil.copy(library_file, folder / "copy.so"))
    for library in (toys, other):
        assert library.run("block_sums")[0] is None
        assert np.isnan(library.run("stale_shared")[2]).all()


# ---- float16 and bfloat16


def interesting_floats():
    """All values of both formats, all midpoints between neighbours, their neighbours in float, random bits."""
    bits = np.arange(65536, dtype=np.uint32)
    bfloat16 = bits << 16
    half = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    centres = np.concatenate([bfloat16, bfloat16 + 0x8000, half, half + 0x1000])
    tiny = (np.arange(4096, dtype=np.float32) * np.float32(2**-26)).view(np.uint32)  # midpoints of subnormals
    random = np.random.default_rng(1).integers(0, 2**32, 1 << 20, dtype=np.uint32)
    around = np.concatenate([centres, tiny])
    return np.concatenate([around - 1, around, around + 1, random]).view(np.float32)


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
def test_conversions_are_those_of_torch(toys, name, dtype):
    patterns = np.arange(65536, dtype=np.uint16)
    wide = toys.convert(f"{name}_to_float", patterns, np.float32)
    torch_wide = torch.from_numpy(patterns.view(np.int16)).view(dtype).float().numpy()
    np.testing.assert_array_equal(np.isnan(wide), np.isnan(torch_wide))
    number = ~np.isnan(wide)
    np.testing.assert_array_equal(wide.view(np.uint32)[number], torch_wide.view(np.uint32)[number])

    floats = interesting_floats()
    narrow = toys.convert(f"float_to_{name}", floats, np.uint16)
    torch_narrow = torch.from_numpy(floats).to(dtype).view(torch.int16).numpy().view(np.uint16)
    number = ~np.isnan(floats)
    np.testing.assert_array_equal(narrow[number], torch_narrow[number])
    assert (narrow[~number] == 0x7FFF).all(), "CUDA's NaN"
