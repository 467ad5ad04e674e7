"""shfl, vote, redux, elect and activemask, as the PTX ISA defines them."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import kernel, launch, run

U32 = np.uint32
LANES = np.arange(64, dtype=U32)
VALUES = (LANES * 7 + 3).astype(U32)


def shuffled(mode: str, b: int, c: int) -> tuple[list[int], list[bool]]:
    """The semantics in the words of the PTX ISA, section "shfl.sync"."""
    values: list[int] = []
    flags: list[bool] = []
    for thread in range(64):
        lane, bval, cval, mask = thread % 32, b & 31, c & 31, c >> 8 & 31
        highest, lowest = lane & mask | cval & ~mask, lane & mask
        if mode == "up":
            j = lane - bval
            found = j >= highest
        elif mode == "down":
            j = lane + bval
            found = j <= highest
        elif mode == "bfly":
            j = lane ^ bval
            found = j <= highest
        else:
            j = lowest | bval & ~mask
            found = j <= highest
        values.append(int(VALUES[thread // 32 * 32 + (j if found else lane)]))
        flags.append(found)
    return values, flags


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("b", "c"), [(1, 31), (1, 0), (5, 31), (16, 31), (3, 0x181F), (9, 0x1C07)])
def test_shuffles(mode: str, b: int, c: int) -> None:
    found = run(
        f"shfl.sync.{mode}.b32 %r9|%p, %r0, {b}, {c:#x}, -1; selp.b32 %r8, 1, 0, %p;",
        [VALUES],
        [("%r9", U32), ("%r8", U32)],
    )
    values, flags = shuffled(mode, b, c)
    assert found[0].tolist() == values
    assert found[1].astype(bool).tolist() == flags


def test_a_sum_over_a_warp() -> None:
    text = "".join(
        f"shfl.sync.bfly.b32 %r1, %r0, {by}, 31, 0xffffffff; add.u32 %r0, %r0, %r1;"
        for by in (16, 8, 4, 2, 1)
    )
    found = run(text, [VALUES], [("%r0", U32)])[0]
    assert set(found[:32]) == {VALUES[:32].sum()}
    assert set(found[32:]) == {VALUES[32:].sum()}


def test_votes() -> None:
    """Warp 0 has odd lanes only, warp 1 none, warp 2 all."""
    flags = np.concatenate([np.arange(32) % 2, np.zeros(32), np.ones(32)]).astype(U32)
    text = """
        setp.ne.u32 %p, %r0, 0;
        vote.sync.ballot.b32 %r1, %p, -1;
        vote.sync.any.pred %q, %p, -1;
        selp.b32 %r2, 1, 0, %q;
        vote.sync.all.pred %q, %p, -1;
        selp.b32 %r3, 1, 0, %q;
        vote.sync.uni.pred %q, !%p, -1;
        selp.b32 %r4, 1, 0, %q;
    """
    found = [f[::32].tolist() for f in run(text, [flags], [(f"%r{n}", U32) for n in range(1, 5)])]
    assert found == [[0xAAAAAAAA, 0, 0xFFFFFFFF], [1, 0, 1], [0, 0, 1], [0, 1, 1]]


def test_reductions() -> None:
    text = """
        redux.sync.add.u32 %r1, %r0, -1;
        redux.sync.max.s32 %r2, %r0, -1;
        redux.sync.xor.b32 %r3, %r0, -1;
    """
    values = (VALUES - np.uint32(100)).astype(U32)
    found = run(text, [values], [(f"%r{n}", U32) for n in (1, 2, 3)])
    assert found[0][0] == values[:32].sum(dtype=U32)
    assert found[1][0] == values[:32].view(np.int32).max().astype(U32)
    assert found[2][40] == np.bitwise_xor.reduce(values[32:])


def test_one_lane_is_elected() -> None:
    text = "elect.sync %r1|%p, 0xffffffff; selp.b32 %r2, 1, 0, %p; activemask.b32 %r3;"
    found = run(text, [VALUES], [(f"%r{n}", U32) for n in (1, 2, 3)])
    assert found[0].tolist() == [0] * 64
    assert found[1].tolist() == ([1] + [0] * 31) * 2
    assert set(found[2]) == {0xFFFFFFFF}


def test_the_lanes_of_a_mask_exchange_where_others_are_away() -> None:
    text = """
        mov.u32 %r9, 0;
        mov.u32 %r8, 0;
        setp.ge.u32 %p, %r50, 16;
        @%p bra over;
        shfl.sync.bfly.b32 %r9, %r0, 1, 31, 0xffff;
        activemask.b32 %r8;
    over:
    """
    found = run(text, [VALUES[:32]], [("%r9", U32), ("%r8", U32)])
    assert found[0][:16].tolist() == VALUES[np.arange(16) ^ 1].tolist()
    assert set(found[1][:16]) == {0xFFFF}


GUARDED = "setp.lt.u32 %p, %r50, 20;\n@%p {}"


@pytest.mark.parametrize(
    "instruction",
    [
        "shfl.sync.bfly.b32 %r9, %r50, 1, 31, -1;",
        "vote.sync.ballot.b32 %r9, %p, -1;",
        "redux.sync.add.u32 %r9, %r50, -1;",
        "elect.sync %r9|%q, -1;",
        "bar.warp.sync -1;",
    ],
)
def test_a_lane_of_the_mask_that_is_away_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match=r"GEM1009.*0x000fffff of the warp are here"):
        launch(kernel(GUARDED.format(instruction)), [])


def test_a_lane_outside_the_mask_is_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"GEM1009.*the mask is 0x0000000f"):
        launch(kernel("shfl.sync.bfly.b32 %r9, %r50, 1, 31, 15;"), [])


def test_a_read_of_a_lane_that_is_away_is_a_fault() -> None:
    text = GUARDED.format("shfl.sync.idx.b32 %r9, %r50, 25, 31, 0xfffff;")
    with pytest.raises(PtxFault, match=r"GEM1009.*lane 25 is read and not here"):
        launch(kernel(text), [])


@pytest.mark.parametrize(
    "instruction",
    [
        "shfl.bfly.b32 %r9, %r50, 1, 31;",
        "shfl.sync.bfly.b64 %d9, %d0, 1, 31, -1;",
        "shfl.sync.swap.b32 %r9, %r50, 1, 31, -1;",
        "vote.sync.some.pred %p, %q, -1;",
        "redux.sync.and.u32 %r9, %r50, -1;",
    ],
)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        launch(kernel(instruction), [])
