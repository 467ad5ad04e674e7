"""Which tiles and slices SIMT takes on a GPU; every machine and problem is in test_default."""

from __future__ import annotations

import pytest

from gemmir import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_schedule


@pytest.mark.parametrize(
    ("size", "blocks", "slice_", "stages"),
    [
        (256, "32,64", 16, 3),
        (1024, "32,128", 16, 3),
        (1100, "64,128", 16, 3),
        (2048, "128,128", 32, 2),
    ],
)
def test_blocks_of_few_warps_have_short_loops(
    size: int, blocks: str, slice_: int, stages: int
) -> None:
    """Where the machine has a block of eight warps for each multiprocessor, the longer ones."""
    schedule = str(default_schedule(Gemm(m=size, n=size, k=size), machine_for("cuda:sm_90a")))
    assert f"tile{{loops=m,n sizes={blocks} over=blocks" in schedule
    assert f"tile{{loops=k sizes={slice_}}}" in schedule
    assert f"stages={stages} " in schedule or f"stages={stages}}}" in schedule
    assert schedule.endswith(f"unroll{{loop=k factor={slice_}}}")


def test_small_tiles_of_a_thread_have_the_longer_slice() -> None:
    """A loop of 4 x 4 sums is short."""
    schedule = str(default_schedule(Gemm(m=16, n=4096, k=4096), machine_for("cuda:sm_90a")))
    assert "tile{loops=m,n sizes=4,4 over=threads}" in schedule
    assert "tile{loops=k sizes=32}" in schedule
