"""The default schedule for a GPU without its tensor cores: SIMT, tiles in shared memory.

Blocks, warps and threads each have a tile of C; slices of k of A and B are copied into shared
memory, where each column of the tile of a block is adjacent. A warp is 4 x 8 threads, and the tile
of a thread is 32 bytes high and 16 wide: then all 128-bit loads of a warp from shared memory touch
every bank at most once.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine.gpu import GpuMachine

LANES_M, LANES_N = 4, 8
"""The threads of a warp along m and n."""

THREAD_BYTES_M, THREAD_BYTES_N = 32, 16
"""The tile of a thread: a column of it is two 128-bit loads, a row is one."""

SLICE_BYTES = 64
"""A slice of k: from each row of a row-major A four 128-bit loads, two sectors of global memory."""

WARPS = ((4, 2), (2, 2), (2, 1), (1, 1))
"""Warps of a block along m and n, the shape with the least traffic first."""

LOAD_BYTES = 16
"""The widest load of a thread, and the padding between columns that spreads transposed stores."""


def gpu_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool, expand: bool) -> Iterator[str]:
    """The passes for `gemm` on `machine`, one at a time."""
    item = gemm.element.item_bytes
    thread_m, thread_n = THREAD_BYTES_M // item, THREAD_BYTES_N // item
    warp_m, warp_n = LANES_M * thread_m, LANES_N * thread_n
    warps_m, warps_n = _warps(gemm, machine, warp_m, warp_n)
    block_m, block_n = warps_m * warp_m, warps_n * warp_n
    batch = ("batch,", "1,") if gemm.batch is not None else ("", "")
    yield f"tile{{loops={batch[0]}m,n sizes={batch[1]}{block_m},{block_n} over=blocks}}"
    yield f"tile{{loops=m,n sizes={warp_m},{warp_n} over=warps}}"
    yield f"tile{{loops=m,n sizes={thread_m},{thread_n} over=threads}}"
    yield "promote{operand=c to=registers}"
    if gemm.k:
        pad = LOAD_BYTES // item
        panel_a = block_m + (0 if gemm.trans_a else pad)
        panel_b = block_n + (pad if gemm.trans_b else 0)
        yield f"tile{{loops=k sizes={SLICE_BYTES // item}}}"
        yield f"promote{{operand=a to=shared layout=panel:{panel_a}}}"
        yield f"promote{{operand=b to=shared layout=panel:{panel_b}}}"
    if fuse:
        yield "fuse-epilogue"
    yield f"vectorize{{with=fma width={LOAD_BYTES // item}}}"
    if gemm.k >= 2:
        yield f"unroll{{loop=k factor={min(SLICE_BYTES // item, gemm.k)}}}"
    if expand:
        yield "expand-math"


def _warps(gemm: Gemm, machine: GpuMachine, warp_m: int, warp_n: int) -> tuple[int, int]:
    """The first shape that gives every multiprocessor a block, no larger than C."""
    most_m, most_n = max(-(-gemm.m // warp_m), 1), max(-(-gemm.n // warp_n), 1)
    shapes = [(min(m, most_m), min(n, most_n)) for m, n in WARPS]

    def blocks(shape: tuple[int, int]) -> int:
        return (gemm.batch or 1) * -(-most_m // shape[0]) * -(-most_n // shape[1])

    return next((s for s in shapes if blocks(s) >= machine.sms), shapes[-1])
