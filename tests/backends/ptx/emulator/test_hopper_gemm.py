"""A whole pipeline of copies and products, and seeded mistakes in it, each found and named."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.hopper_gemm import Edit, nth, product

SEEDS = (None, 0, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [64, 320, 200])
def test_the_pipeline_multiplies(k: int, seed: int | None) -> None:
    """Of the last of 200 only a part is there: zeros stand behind."""
    found, expected = product(k, seed=seed)
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-3)


EDITS: dict[str, tuple[Edit, str]] = {
    "the final wait is missing": (
        nth(r"wgmma\.wait_group\.sync\.aligned 0;", 0, ""),
        r"GEM1015.*cvt.*%a\d+ is read while the wgmma.mma_async of line \d+ in flight writes it",
    ),
    "the wait in the loop is missing": (
        nth(r"wgmma\.wait_group\.sync\.aligned 1;", 0, ""),
        r"GEM1008.*overwrites what the wgmma.mma_async of line \d+ has yet to read",
    ),
    "the wait in the loop leaves one group more": (
        nth(r"wgmma\.wait_group\.sync\.aligned 1;", 0, "wgmma.wait_group.sync.aligned 2;"),
        r"GEM1008.*overwrites what the wgmma.mma_async of line \d+ has yet to read",
    ),
    "an accumulator is read in flight": (
        nth("released:", 0, "add.f32 %r30, %a5, %a5;\nreleased:"),
        r"GEM1015.*%a5 is read while",
    ),
    "an accumulator is written in flight": (
        nth("released:", 0, "mov.b32 %a5, 0;\nreleased:"),
        r"GEM1015.*%a5 is written while",
    ),
    "products do not wait for a fence": (
        nth(r"wgmma\.fence\.sync\.aligned;", 0, ""),
        r"GEM1015.*warp \d has written %a0 since its last wgmma.fence",
    ),
    "products are in no group": (
        nth(r"wgmma\.commit_group\.sync\.aligned;", 0, ""),
        r"GEM1008.*has yet to read|GEM1015.*is read while",
    ),
    "the consumer waits for the wrong parity": (
        nth(r"xor\.b32 %r2, %r2, %r3;", 1, "xor.b32 %r2, %r2, 1;"),
        r"GEM1011.*wait for the mbarrier at byte \d+ of bar|GEM1003|GEM1008",
    ),
    "the consumer begins with the wrong parity": (
        nth(r"mov\.u32 %r2, 0;", 0, "mov.u32 %r2, 1;"),
        r"GEM1008.*yet to fill|GEM1004.*was never written|GEM1003",
    ),
    "the producer begins with the wrong parity": (
        nth(r"mov\.u32 %r2, 1;", 0, "mov.u32 %r2, 0;"),
        r"GEM1011.*mbarrier at byte 16 of bar.*parity 0: in phase 0 0 of 4 arrivals",
    ),
    "the producer does not wait": (
        nth(r"@!%q bra isempty;", 0, ""),
        r"GEM1012.*1 arrive at the mbarrier at byte 0 of bar.*takes only 0 more|GEM100[38]",
    ),
    "fewer bytes are expected": (
        nth("16384;", 0, "8192;"),
        r"GEM1008.*yet to fill|GEM1004.*never written|GEM1011.*bytes more than expected|GEM1003",
    ),
    "more bytes are expected": (
        nth("16384;", 0, "16400;"),
        r"GEM1011.*16 bytes are still expected",
    ),
    "the wrong stage is released": (
        nth(r"\[%r9\+16\]", 0, "[%r4+16]"),
        r"GEM1008.*has yet to read|GEM1003.*whose wait|GEM1012|GEM1011",
    ),
    "a stage is released before the wait": (
        lambda text: text.replace("wgmma.wait_group.sync.aligned 1;", "", 1).replace(
            "released:\n", "released:\nwgmma.wait_group.sync.aligned 1;\n", 1
        ),
        r"GEM1003.*overwrites what .* reads, and whose wait|GEM1008.*overwrites what .*yet to read",
    ),
    "one warp releases for all": (
        lambda text: (
            text.replace("[bar+16], 4;", "[bar+16], 1;")
            .replace("[bar+24], 4;", "[bar+24], 1;")
            .replace("setp.ne.u32 %p, %r10, 0;", "setp.ne.u32 %p, %r50, 128;")
        ),
        r"GEM1003.*overwrites what .* reads, and whose wait|GEM1008.*overwrites what .*yet to read",
    ),
    "three warps are enough": (
        nth(r"\[bar\+16\], 4;", 0, "[bar+16], 3;"),
        r"GEM1003.*overwrites what the wgmma.mma_async of line \d+ reads, and whose wait"
        r"|GEM1012.*ends and the mbarrier at byte 16|GEM1008.*yet to read|GEM1011.*of 3 arrivals",
    ),
    "five warps are needed": (
        nth(r"\[bar\+16\], 4;", 0, "[bar+16], 5;"),
        r"GEM1011.*mbarrier at byte 16 of bar.*4 of 5 arrivals have come",
    ),
    "the mbarriers are not published": (
        nth(r"fence\.mbarrier_init\.release\.cluster;", 0, ""),
        "GEM1014.*no fence.mbarrier_init follows",
    ),
    "nobody waits for the mbarriers": (
        nth(r"bar\.sync 0;", 0, ""),
        "GEM1003.*which another thread initialises without a barrier|GEM1012.*no mbarrier is",
    ),
    "the stride of the descriptor is too small": (
        nth("0x4000004000010000", 0, "0x4000002000010000"),
        r"GEM1013.*overlaps itself: rows of 8 begin every 512 bytes and take 1024",
    ),
    "the descriptor does not swizzle": (
        nth("0x4000004000010000", 0, "0x0000004000080000"),
        r"GEM1013.*says swizzle none, and a copy wrote byte \d+ of tile.* with swizzle 128",
    ),
    "the descriptor begins inside the pattern": (
        nth(r"add\.u64 %e1, %e0, 1024;", 0, "add.u64 %e1, %e0, 1032;"),
        r"GEM1013.*starts 128 bytes into a pattern that repeats every 1024",
    ),
    "the epilogue has no proxy fence": (
        nth(r"fence\.proxy\.async\.shared::cta;", 0, ""),
        r"GEM1014.*the asynchronous proxy reads what thread \d+ writes",
    ),
    "the epilogue has no barrier": (
        nth(r"bar\.sync 1, 128;", 0, ""),
        r"GEM1003.*reads what thread \d+ writes without a barrier|GEM1004.*never written",
    ),
    "the store is not waited for": (
        nth(r"cp\.async\.bulk\.wait_group\.read 0;", 0, ""),
        r"GEM1016.*thread 128 ends and does not wait for its stores",
    ),
    "the store is in no group": (
        nth(r"cp\.async\.bulk\.commit_group;", 0, ""),
        r"GEM1016.*thread 128.*after cp.async.bulk.commit_group",
    ),
    "a warp does not multiply": (
        nth(r"multiply:", 0, "setp.ge.u32 %p, %r50, 224;\n@%p bra end;\nmultiply:"),
        r"GEM1011.*3 of 4 warps of warpgroup 1 issue a product",
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", EDITS)
def test_a_mistake_is_found_and_named(name: str, seed: int | None) -> None:
    edit, message = EDITS[name]
    with pytest.raises(PtxFault, match=message):
        product(448, edit, seed)


@pytest.mark.parametrize("seed", range(8, 12))
def test_each_warp_of_a_warpgroup_must_have_waited(seed: int) -> None:
    """With three slices of k a stage is filled again only once, perhaps between their waits."""
    edit, message = EDITS["one warp releases for all"]
    with pytest.raises(PtxFault, match=message):
        product(192, edit, seed)
