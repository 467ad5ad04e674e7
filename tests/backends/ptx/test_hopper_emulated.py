"""The PTX of products of warpgroups, run as text: right, and without a fault.

The emulator lets the TMA land late, runs products as late as their wait permits, and raises for
what only happens to be right: a race, a phase that is never over, a proxy without its fence.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm, Schedule
from gemmir.backends.ptx.emulator import Report
from gemmir.backends.ptx.run import run_ptx
from gemmir.machine.gpu import SM_90A
from gemmir.schedule.default import default_schedule
from tests.backends.ptx.hopper import SMALL, SMALL_TILES, Tiles, lowered
from tests.hopper_strategies import hopper_cases, scaled_hopper_cases
from tests.strategies import arrays_for, copied, examples, furthest, surroundings


def run(gemm: Gemm, schedule: Schedule | str, seed: int | None = None) -> Report | None:
    """Emit and run; the numbers are within their bound, and nothing else was written."""
    artifact = gemmir.lower(gemm, target=SM_90A.target, schedule=schedule).artifact
    arrays = arrays_for(gemm)
    outside = {name: surroundings(array) for name, array in arrays.items()}
    found = copied(arrays)
    report = run_ptx(artifact, artifact.text, list(found.values()), seed=seed)
    assert furthest(gemm, arrays, found["c"]) <= 1
    assert {name: surroundings(array) for name, array in found.items()} == outside
    return report


@given(hopper_cases(SM_90A))
@examples(0.5)
def test_drawn_schedules(case: tuple[Gemm, Schedule]) -> None:
    run(*case)


@given(scaled_hopper_cases(SM_90A))
@examples(0.25)
def test_drawn_schedules_with_scales(case: tuple[Gemm, Schedule]) -> None:
    run(*case)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stored", [False, True])
def test_warps_in_any_order(seed: int, stored: bool) -> None:
    gemm = replace(SMALL, epilogue="bias+relu+residual", beta=0.5)
    tiles = replace(SMALL_TILES, epilogue=True, stored=stored)
    run(gemm, tiles.schedule(gemm), seed)


@pytest.mark.parametrize("seed", [1, 2])
def test_blocks_of_a_cluster_in_any_order(seed: int) -> None:
    gemm = replace(SMALL, m=512, n=128)
    tiles = Tiles(cluster=2, n=64, stages=2, blocks=1)
    run(gemm, tiles.schedule(gemm), seed)


EMPTY_BLOCK = (
    "tile{loops=m,n sizes=128,128 over=clusters},tile{loops=n sizes=64 over=blocks},"
    "persist{blocks=2},tile{loops=n sizes=32 over=warpgroups},promote{operand=c to=registers},"
    "tile{loops=k sizes=64},promote{operand=b to=shared layout=swizzle:64},"
    "promote{operand=a to=shared layout=swizzle:128},"
    "pipeline{loop=k stages=2 with=tma specialize=true},vectorize{with=wgmma}"
)


def test_a_block_past_the_edge_copies_from_whole_16_bytes() -> None:
    """Its tile is empty, at n=282; the TMA takes no box that begins there, but 64 behind 256."""
    run(Gemm(m=24, n=282, k=73, dtype="f16", out="f16", lda=80, ldb=288, ldc=288), EMPTY_BLOCK)


@pytest.mark.parametrize("scale_block", [None, 128])
@pytest.mark.parametrize(("m", "n", "k"), [(256, 128, 256), (200, 136, 272)])
def test_sums_in_two_levels(m: int, n: int, k: int, scale_block: int | None) -> None:
    gemm = replace(SMALL, m=m, n=n, k=k, dtype="e4m3", scale_block=scale_block, epilogue="bias")
    run(gemm, replace(SMALL_TILES, twice=True, stored=True, epilogue=True).schedule(gemm), 1)


@pytest.mark.parametrize("swizzle", [32, 64, 128])
@pytest.mark.parametrize("out", ["bf16", "f32"])
def test_rows_that_go_out_lie_in_different_banks(out: str, swizzle: int) -> None:
    gemm = replace(SMALL, out=out)
    text = replace(SMALL_TILES, stored=True).schedule(gemm)
    stored = "promote{operand=c to=shared layout=swizzle:"
    report = run(gemm, text.replace(f"{stored}128}}", f"{stored}{swizzle}}}"))
    assert report is not None
    assert report.worst_bank_conflict == 1


def test_the_producer_is_one_thread() -> None:
    """Of 9 slices of 6 tiles, each of A and B is asked for once."""
    report = run(SMALL, SMALL_TILES.schedule(SMALL))
    assert report is not None
    tiles, slices = 2 * 3, 192 // 64
    assert report.instructions["cp"] == tiles * slices * 2
    text = lowered(SMALL, SMALL_TILES).artifact.text
    assert text.count("cp.async.bulk.tensor") == 2


@pytest.mark.parametrize("shared", ["", "a", "b"])
def test_blocks_that_stay_take_tiles_of_a_batch(shared: str) -> None:
    """By default; a matrix for all of the batch is one of a map with two dimensions."""
    strides = {f"batch_stride_{name}": 0 for name in shared}
    gemm = replace(SMALL, n=264, epilogue="bias+relu", batch=3, **strides)
    schedule = default_schedule(gemm, replace(SM_90A, sms=4))
    assert "loops=batch,m,n" in str(schedule) and "persist{blocks=4}" in str(schedule)
    run(gemm, schedule)
