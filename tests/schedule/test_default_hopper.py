"""Default schedules for warpgroups: what they take, that they fit, and what the model prefers."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemmir import Gemm
from gemmir.machine.gpu import SM_80, SM_90A
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_schedule, default_text
from gemmir.schedule.default_hopper import takes_warpgroups
from gemmir.schedule.hopper_model import (
    BARRIER_BYTES,
    DRAM_SHARE,
    LEAST_STAGES,
    MOST_SUMS,
    MOST_SUMS_EXPANDED,
    SUSTAINED_CLOCK_HZ,
    WarpgroupTiles,
    candidates,
    seconds,
    stage_bytes,
    warpgroup_tiles,
)
from tests.strategies import examples

BASE = Gemm(m=512, n=512, k=512, dtype="bf16", trans_b=True)
SIZES = st.one_of(st.integers(64, 1024), st.sampled_from([2048, 4096, 8192, 14336, 28672]))
ROWS = st.one_of(SIZES, st.integers(1, 64))


@st.composite
def problems(draw: st.DrawFn) -> Gemm:
    """Products of every type that warpgroups take, with rows of whole 16 bytes."""
    dtype = draw(st.sampled_from(SM_90A.wgmma_dtypes))
    either = BASE.element.item_bytes == replace(BASE, dtype=dtype).element.item_bytes
    size = {name: draw(ROWS if name == "m" else SIZES) for name in "mnk"}
    rows = {name: -(-size[name] // 16) * 16 for name in "mnk"}
    trans_a, trans_b = (draw(st.booleans()) and either, draw(st.booleans()) or not either)
    return Gemm(
        m=size["m"],
        n=size["n"],
        k=size["k"] if either else rows["k"],
        dtype=dtype,
        out=None if dtype in ("i8", "u8", "tf32") else draw(st.sampled_from([None, "bf16"])),
        trans_a=trans_a,
        trans_b=trans_b,
        lda=rows["m" if trans_a else "k"],
        ldb=rows["k" if trans_b else "n"],
        batch=draw(st.sampled_from([None, None, 3])),
    )


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"trans_b": False}, True),
        ({"trans_a": True}, True),
        ({"dtype": "e4m3"}, True),
        ({"dtype": "e4m3", "trans_b": False}, False),
        ({"dtype": "tf32", "trans_a": True}, False),
        ({"dtype": "i8"}, True),
        ({"dtype": "f32"}, False),
        ({"dtype": "bf16x3"}, False),
        ({"lda": 516}, False),
        ({"lda": 520}, True),
        ({"ldb": 516}, False),
        ({"m": 1}, True),
        ({"m": 63, "n": 63}, False),
        ({"k": 63}, False),
        ({"k": 0}, False),
        ({"n": 0}, False),
        ({"batch": 2, "batch_stride_b": 512 * 512 + 4}, False),
        ({"batch": 2, "batch_stride_b": 0}, True),
        ({"groups": 3}, True),
        ({"groups": 3, "lda": 516}, False),
    ],
)
def test_what_the_tma_copies_and_warpgroups_multiply(change: dict[str, int], taken: bool) -> None:
    gemm = replace(BASE, **change)
    if gemm.dtype not in ("bf16x3",):
        text = default_text(gemm, SM_90A)
        assert ("with=wgmma" in text) == taken
        assert "wgmma" not in default_text(replace(gemm, dtype="bf16"), SM_80)
    assert takes_warpgroups(gemm, SM_90A) == taken


@given(problems())
@examples(0.3)
def test_all_that_is_tried_fits(gemm: Gemm) -> None:
    found = list(candidates(gemm, SM_90A))
    for tiles in found:
        assert tiles.stages >= LEAST_STAGES
        pieces = 2 * 64 * tiles.all_warpgroups * tiles.piece_bytes
        held = tiles.stages * stage_bytes(tiles.m, tiles.n) + pieces + BARRIER_BYTES
        assert held <= SM_90A.smem_bytes_per_block
        assert tiles.m % (64 * tiles.warpgroups) == 0
        assert tiles.sums <= MOST_SUMS
        assert tiles.cluster <= SM_90A.max_blocks_per_cluster
    assert warpgroup_tiles(gemm, SM_90A) in found
    assert warpgroup_tiles(gemm, SM_90A, expand=True).sums <= MOST_SUMS_EXPANDED


@given(problems())
@examples(0.3)
def test_no_product_is_faster_than_the_machine(gemm: Gemm) -> None:
    took = seconds(gemm, SM_90A, warpgroup_tiles(gemm, SM_90A))
    rate = 4096 * 2 // gemm.element.item_bytes * SM_90A.sms * SUSTAINED_CLOCK_HZ
    assert took > gemm.flops / rate
    assert took > gemm.bytes_moved / (SM_90A.dram_bytes_per_second * DRAM_SHARE)


@given(problems(), st.sampled_from(["", "bias+gelu"]))
@examples(0.3)
def test_a_schedule_is_its_text(gemm: Gemm, epilogue: str) -> None:
    if gemm.accumulator.is_integer:
        epilogue = epilogue and "bias"
    schedule = default_schedule(replace(gemm, epilogue=epilogue), SM_90A)
    assert Schedule.parse(str(schedule)) == schedule
    assert ("fuse-epilogue" in str(schedule)) == bool(epilogue)


def chosen(m: int, n: int, k: int, dtype: str = "bf16") -> WarpgroupTiles:
    return warpgroup_tiles(Gemm(m=m, n=n, k=k, dtype=dtype, trans_b=True), SM_90A)


def waste(gemm: Gemm, tiles: WarpgroupTiles) -> float:
    """Which part of the blocks of all waves has no tile, or none in C."""
    blocks = -(-tiles.tiles(gemm) // SM_90A.sms) * SM_90A.sms
    return 1 - gemm.m * gemm.n / (blocks // tiles.split * tiles.m * tiles.n)


@pytest.mark.parametrize("shape", [(512, 14336), (512, 4096), (4096, 14336), (8192, 8192)])
def test_waves_are_full(shape: tuple[int, int]) -> None:
    gemm = Gemm(m=shape[0], n=shape[1], k=4096, dtype="bf16", out="bf16", trans_b=True)
    assert waste(gemm, warpgroup_tiles(gemm, SM_90A)) < 0.05


def test_large_tiles_and_groups_where_there_is_much_to_do() -> None:
    for dtype in ("bf16", "e4m3", "i8"):
        tiles = chosen(8192, 8192, 8192, dtype)
        assert tiles.m * tiles.n >= 128 * (128 if tiles.pingpong else 192)
        assert tiles.group and not tiles.swapped


def test_c_of_16_bits_goes_out_in_pieces() -> None:
    gemm = replace(BASE, m=4096, n=4096, out="bf16")
    assert warpgroup_tiles(gemm, SM_90A).piece_bytes == 128
    assert warpgroup_tiles(replace(gemm, ldc=4100), SM_90A).piece_bytes == 0
    assert warpgroup_tiles(replace(gemm, out="f32"), SM_90A).piece_bytes == 0


@pytest.mark.parametrize("m", [1, 5, 16, 40, 63])
def test_few_rows_are_columns(m: int) -> None:
    tiles = chosen(m, 14336, 4096)
    assert tiles.swapped and tiles.n == -(-m // 8) * 8
    assert not chosen(512, m, 4096).swapped
    text = default_text(Gemm(m=m, n=14336, k=4096, dtype="bf16", trans_b=True), SM_90A)
    assert text.startswith("swap-operands\n")


def test_k_is_cut_where_there_are_few_tiles() -> None:
    assert chosen(64, 512, 28672).split > 1
    assert chosen(16, 4096, 14336).split == 1
    assert chosen(4096, 4096, 14336).split == 1


def test_exponentials_hide_behind_the_products_of_another_tile() -> None:
    gemm = Gemm(m=8192, n=8192, k=8192, dtype="bf16", out="bf16", trans_b=True)
    assert warpgroup_tiles(gemm, SM_90A, expand=True).pingpong
    text = default_text(replace(gemm, epilogue="bias+gelu"), SM_90A)
    assert "persist{blocks=132}" in text and "specialize=true pingpong=true" in text


def test_only_warpgroups_that_have_several_tiles_take_turns() -> None:
    gemm = replace(BASE, m=1024, n=1024)
    assert not any(tiles.pingpong for tiles in candidates(gemm, SM_90A))
    assert any(tiles.pingpong for tiles in candidates(replace(gemm, m=4096), SM_90A))
