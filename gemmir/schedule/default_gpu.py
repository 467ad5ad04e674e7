"""The default schedules for a GPU, with tiles in shared memory.

With tensor cores a warp has its tile of C as a whole, and slices of k are copied into swizzled
tiles while those before are multiplied. Without them, in SIMT, blocks, warps and threads each have
a tile of C; slices of k of A and B are copied into shared memory, where each column of the tile of
a block is adjacent. A warp is 4 x 8 threads, each with a tile of 32 by 32 bytes, and rows of B are
cut into panels of a whole turn of the banks that begin one load apart: then all 128-bit loads of a
warp from shared memory touch every bank at most once. Where C is too small to fill a warp so,
threads are numbered through the block instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine.gpu import GpuMachine
from gemmir.passes.split_k import slice_size
from gemmir.schedule.default_hopper import hopper_passes, takes_warpgroups

LANES_M, LANES_N = 4, 8
"""The threads of a warp along m and n."""

THREAD_BYTES = 32
"""The tile of a thread along m and along n: two 128-bit loads for each. Where C does not fill the
tile of a warp so, half as much."""

BANKS_BYTES = 128
"""One turn of the banks of shared memory, 32 of 4 bytes."""

SLICE_BYTES = 64
"""A slice of k: from each row of a row-major A four 128-bit loads, two sectors of global memory."""

SIMT_SLICES = ((128, 2), (64, 2))
"""Bytes of a slice of k without tensor cores and how many are under way: the first of which shared
memory holds two blocks. For f32 at 4096 cubed on an H200 slices of 32, 64 and 128 bytes gave 44, 48
and 49 TFLOP/s, and a third stage nothing."""

SIMT_SLICE_OF_FEW = (64, 3)
MOST_PRODUCTS_OF_FEW = 1024
"""The slice of blocks of fewer than eight warps, whose unrolled loop would have more products of a
thread than so many, 16 KiB of instructions: presumably few warps share what is fetched. For
f32 at 1024 cubed on an H200 blocks of 32 x 64, 64 x 64 and 64 x 128 took 99, 90 and 80 us with
slices of 128 bytes, and 53, 57 and 55 us so."""

BLOCKS_PER_SM = 2
"""Blocks that should fit a multiprocessor together, so that one computes while another waits."""

BLOCK_OVERHEAD_BYTES = 1024
"""Shared memory that the system takes of each block from compute capability 8.0 on: CUDA C++
Programming Guide, section on shared memory."""

WARPS = ((4, 2), (2, 2), (1, 2), (1, 1))
"""Warps of a block along m and n, the shape with the least traffic first. Two are side by side, for
longer rows of B: f32 at 1024 cubed took 52 us on an H200, and 57 with one below the other."""

LOAD_BYTES = 16
"""The widest load of a thread, and the padding between columns that spreads transposed stores."""


MMA_BLOCKS = ((2, 2, 64, 64), (2, 2, 64, 32), (2, 2, 32, 32), (1, 2, 32, 32), (1, 1, 32, 32))
MMA_BLOCKS_GATHERED = ((2, 4, 64, 32), *MMA_BLOCKS[1:])
MMA_BLOCKS_SMALL = ((2, 4, 32, 32), *MMA_BLOCKS[2:])
"""Warps of a block along m and n with tensor cores, and the tile of a warp: the shapes with the
least traffic first. Of 64 x 64 elements a thread has 128 sums, and 32 products take 8 loads of
`ldmatrix`. Tiles that lanes load for themselves are smaller, and those of f64, whose sums take
twice as many registers, of 8-bit floats, which some machines widen in registers, and of 8 bits that
are gathered one by one. For f16 at 4096 cubed on an H200 four warps of 64 x 64 gave 422 TFLOP/s and
eight of 64 x 32 389."""

MMA_ROWS, MMA_COLUMNS = 16, 8
"""m and n of one product; that of f64 has 8 rows."""

DOUBLES = 8
"""Elements of f64 along k that go together, in two products."""

FRAGMENT_BYTES = 32
"""What a product takes of each row of A, along k, on all but the first of tensor cores."""

LANE_BYTES = 8
"""An element of f64, which lanes load by themselves."""

BYTES_OF_PANELS = 8
"""What rows of panels of 8 bits are aligned to, and so what one store to them moves."""

MMA_SLICES = ((128, 3), (64, 4), (64, 3), (64, 2))
MMA_SLICES_SMALL = MMA_SLICES[2:]
"""Bytes of a slice of k with tensor cores and how many are under way: the first of which shared
memory holds two blocks. For f16 at 4096 cubed on an H200 (128, 3) gave 422 TFLOP/s and (64, 4) 411.
"""

PAIR_BYTES = 2
"""Elements of this size are transposed by `ldmatrix`."""

SWIZZLE_BYTES = (32, 64, 128)
"""Rows of a swizzled tile."""

SPLIT_TILE = (64, 32)
"""The tile of a warp by which the work of the machine is counted."""

FEW_WARPS, ENOUGH_WARPS = 2, 8
"""Warps of a multiprocessor below which k is split, and as many as it then gets. Each of its four
parts issues the instructions of one warp at a time, and needs a second one while that waits."""

SPLIT_BYTES = 1024
"""The least slice of k: 16 copies of 64 bytes of each row, so that a block does more than to fill
and drain its pipeline."""

ASYNC_COPY_BYTES = 4
"""The least that an asynchronous copy moves, and so what rows must be a multiple of."""


def gpu_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool, expand: bool) -> Iterator[str]:
    """The passes for `gemm` on `machine`, one at a time.

    Of several products each is taken to have the same number of rows, and its share of the machine.
    So is each slice of k, where there are several.
    """
    if takes_warpgroups(gemm, machine):
        yield from hopper_passes(gemm, machine, fuse=fuse, expand=expand)
        return
    slices = _slices(gemm, machine)
    if slices > 1:
        yield f"split-k{{factor={slices} order=fixed}}"
        machine = replace(machine, sms=-(-machine.sms // slices))
        gemm = _with_k(gemm, slice_size(gemm.k, slices, gemm.element.item_bytes))
    if gemm.groups is not None:
        machine = replace(machine, sms=-(-machine.sms // gemm.groups))
        gemm = replace(gemm, m=gemm.rows_each)
    if gemm.dtype in machine.mma_dtypes:
        yield from _mma_passes(gemm, machine, fuse=fuse)
    else:
        yield from _simt_passes(gemm, machine, fuse=fuse)
    if expand and gemm.dtype == "f64":
        yield "expand-math"  # of f32 the emitter has them


def _slices(gemm: Gemm, machine: GpuMachine) -> int:
    """Into how many slices k is cut: several where C has too few tiles for the machine.

    Of the numbers from half to twice what would fill the machine, the nearest that cuts k evenly.
    """
    item = gemm.element.item_bytes
    tiles = (gemm.batch or 1) * -(-gemm.m // SPLIT_TILE[0]) * -(-gemm.n // SPLIT_TILE[1])
    most = gemm.k * item // SPLIT_BYTES
    if gemm.scale_block is not None or gemm.groups is not None:
        return 1
    if tiles == 0 or tiles >= FEW_WARPS * machine.sms or most < 2:
        return 1
    wanted = min(-(-ENOUGH_WARPS * machine.sms // tiles), most)
    near = range(wanted // 2 + 1, min(2 * wanted, most) + 1)
    by_distance = sorted(near, key=lambda f: abs(f - wanted))
    even = (f for f in by_distance if gemm.k % slice_size(gemm.k, f, item) == 0)
    return -(-gemm.k // slice_size(gemm.k, next(even, wanted), item))


def _with_k(gemm: Gemm, k: int) -> Gemm:
    """A slice of `gemm`, whose rows are as far apart."""
    leading = {f"ld{name}": gemm.leading(name) for name in "ab"}
    if gemm.batch is None:
        return replace(gemm, k=k, **leading)
    strides = {f"batch_stride_{name}": gemm.batch_stride(name) for name in "ab"}
    return replace(gemm, k=k, **leading, **strides)


def _mma_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool) -> Iterator[str]:
    item = gemm.element.item_bytes
    is_gathered = gemm.trans_a or not gemm.trans_b
    is_small = gemm.dtype in ("f64", "e4m3", "e5m2") or (item == 1 and is_gathered)
    is_small = is_small or gemm.scale_block is not None
    shapes, slices_ = MMA_BLOCKS, MMA_SLICES
    if is_small or (is_gathered and item != PAIR_BYTES):
        shapes = MMA_BLOCKS_SMALL if is_small else MMA_BLOCKS_GATHERED
        slices_ = MMA_SLICES_SMALL
    if gemm.scale_block is not None:
        shapes = tuple((a, b, m, min(n, gemm.scale_block)) for a, b, m, n in shapes)
    warps_m, warps_n, warp_m, warp_n = _mma_block(gemm, machine, shapes)
    depth = machine.mma_k_bytes // item
    block_m, block_n = warps_m * warp_m, warps_n * warp_n
    slice_bytes, stages = _fitting(machine, block_m + block_n, slices_)
    slice_ = min(slice_bytes // item, -(-gemm.k // depth) * depth)
    if gemm.scale_block is not None:
        slice_ = min(slice_, gemm.scale_block)
    pipelined = gemm.k > slice_ and machine.has_async_copies and _copies_asynchronously(gemm)
    yield _blocks(gemm, block_m, block_n)
    yield f"tile{{loops=m,n sizes={warp_m},{warp_n} over=warps}}"
    yield "promote{operand=c to=registers}"
    if gemm.k:
        yield f"tile{{loops=k sizes={slice_}}}"
        yield from _second_sum(gemm)
        for operand, runs_along_k, across in (
            ("a", not gemm.trans_a, block_m),
            ("b", gemm.trans_b, block_n),
        ):
            layout = _mma_layout(item, slice_, across, along_k=runs_along_k)
            yield f"promote{{operand={operand} to=shared layout={layout}}}"
        slices = -(-gemm.k // slice_)
        if pipelined:
            yield f"pipeline{{loop=k stages={min(stages, slices)} with=cp.async}}"
    if fuse:
        yield "fuse-epilogue"
    shape = "" if machine.mma_k_bytes == FRAGMENT_BYTES else f" shape=16,8,{depth}"
    width = BYTES_OF_PANELS if item == 1 and is_gathered and not pipelined else LOAD_BYTES // item
    yield f"vectorize{{with=mma width={width}{shape}}}"
    step = DOUBLES if item == LANE_BYTES and slice_ % DOUBLES == 0 else depth
    if slice_ >= 2 * step:
        yield f"unroll{{loop=k factor={slice_ // step}}}"


def _second_sum(gemm: Gemm) -> Iterator[str]:
    """Slices whose blocks have scales are added to a running sum."""
    if gemm.scale_block is not None and gemm.k > gemm.scale_block:
        yield "promote{operand=c to=registers}"


def _mma_block(
    gemm: Gemm, machine: GpuMachine, shapes: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """The first of `shapes` that gives every multiprocessor a block, no larger than C."""
    found = shapes[0]
    for warps_m, warps_n, most_m, most_n in shapes:
        warp_m = min(most_m, -(-max(gemm.m, 1) // MMA_ROWS) * MMA_ROWS)
        warp_n = min(most_n, -(-max(gemm.n, 1) // MMA_COLUMNS) * MMA_COLUMNS)
        tiles_m, tiles_n = -(-max(gemm.m, 1) // warp_m), -(-max(gemm.n, 1) // warp_n)
        found = (min(warps_m, tiles_m), min(warps_n, tiles_n), warp_m, warp_n)
        blocks = (gemm.batch or 1) * -(-tiles_m // found[0]) * -(-tiles_n // found[1])
        if blocks >= machine.sms:
            break
    return found


def _fitting(machine: GpuMachine, rows: int, slices: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first of `slices`, bytes and stages, that fits with `rows` rows of A and columns of B."""
    for slice_bytes, stages in slices:
        taken = stages * rows * slice_bytes + BLOCK_OVERHEAD_BYTES
        if BLOCKS_PER_SM * taken <= machine.smem_bytes_per_sm:
            return slice_bytes, stages
    return slices[-1]


def _mma_layout(item: int, depth: int, across: int, *, along_k: bool) -> str:
    """How the tile of a block lies: `depth` elements of k and `across` of m or n.

    `ldmatrix` reads swizzled rows of any length, and so do lanes that load 128 bits of f64. Where
    tiles of other than 16 bits do not run along k, lanes load element by element, from panels that
    are so far apart that 4 of them along k are in different banks.
    """
    if item == 2 or along_k:
        row_bytes = item * (depth if along_k else across)
        return f"swizzle:{max((s for s in SWIZZLE_BYTES if s <= row_bytes), default=32)}"
    rows = -(-across // MMA_ROWS) * MMA_ROWS
    return f"panel:{rows + (2 if item == LANE_BYTES else 8)}"


def _copies_asynchronously(gemm: Gemm) -> bool:
    """Whether all rows and matrices of A and B begin where an asynchronous copy can."""
    strides = [s for name in "ab" for s in (gemm.leading(name), gemm.batch_stride(name))]
    return all(s * gemm.element.item_bytes % ASYNC_COPY_BYTES == 0 for s in strides)


def _blocks(gemm: Gemm, block_m: int, block_n: int) -> str:
    """The loops over blocks; conditions at edges take registers of a second block."""
    batch = ("batch,", "1,") if gemm.batch is not None else ("", "")
    if gemm.groups is not None:
        batch = ("group,", "1,")
    is_even = gemm.m % block_m == 0 and gemm.n % block_n == 0 and gemm.groups is None
    sizes = f"{batch[1]}{block_m},{block_n} over=blocks per_sm={BLOCKS_PER_SM if is_even else 1}"
    return f"tile{{loops={batch[0]}m,n sizes={sizes}}}"


def _simt_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool) -> Iterator[str]:
    item = gemm.element.item_bytes
    most = THREAD_BYTES // item
    if gemm.m < LANES_M * most or gemm.n < LANES_N * most or gemm.scale_block is not None:
        most //= 2
    thread_m, thread_n = (min(most, _power_of_two(x)) for x in (gemm.m, gemm.n))
    lanes_m, lanes_n = _lanes(-(-gemm.m // thread_m), -(-gemm.n // thread_n))
    warp_m, warp_n = lanes_m * thread_m, lanes_n * thread_n
    warps_m, warps_n = _warps(gemm, machine, warp_m, warp_n)
    block_m, block_n = warps_m * warp_m, warps_n * warp_n
    yield _blocks(gemm, block_m, block_n)
    is_full = gemm.m > warp_m - thread_m and gemm.n > warp_n - thread_n
    if is_full and lanes_m * lanes_n == machine.threads_per_warp:
        yield f"tile{{loops=m,n sizes={warp_m},{warp_n} over=warps}}"
    yield f"tile{{loops=m,n sizes={thread_m},{thread_n} over=threads}}"
    yield "promote{operand=c to=registers}"
    slice_, stages = SLICE_BYTES // item, SIMT_SLICES[0][1]
    if gemm.k:
        is_async = machine.has_async_copies and _copies_asynchronously(gemm)
        if is_async:
            slice_ = _fitting(machine, block_m + block_n, SIMT_SLICES)[0] // item
            are_few = warps_m * warps_n < math.prod(WARPS[0])
            if are_few and thread_m * thread_n * slice_ > MOST_PRODUCTS_OF_FEW:
                slice_, stages = SIMT_SLICE_OF_FEW[0] // item, SIMT_SLICE_OF_FEW[1]
        slice_ = min(slice_, gemm.scale_block or slice_)
        yield f"tile{{loops=k sizes={slice_}}}"
        yield from _second_sum(gemm)
        yield f"promote{{operand=a to=shared layout=panel:{block_m + LOAD_BYTES // item}}}"
        yield f"promote{{operand=b to=shared layout=panel:{max(BANKS_BYTES // item, thread_n)}}}"
        slices = -(-gemm.k // slice_)
        if slices > 1 and is_async:
            yield f"pipeline{{loop=k stages={min(stages, slices)} with=cp.async}}"
    if fuse:
        yield "fuse-epilogue"
    yield f"vectorize{{with=fma width={LOAD_BYTES // item}}}"
    if gemm.k >= 2:
        yield f"unroll{{loop=k factor={min(slice_, gemm.k)}}}"


def _power_of_two(extent: int) -> int:
    """The least power of two that is not less than `extent`."""
    return 1 << max(extent - 1, 0).bit_length()


def _lanes(threads_m: int, threads_n: int) -> tuple[int, int]:
    """Threads of a warp along m and n, where C takes so many; fewer than a warp if it is small."""
    lanes_m = min(LANES_M, _power_of_two(threads_m))
    lanes_n = min(LANES_M * LANES_N // lanes_m, _power_of_two(threads_n))
    return min(LANES_M * LANES_N // lanes_n, _power_of_two(threads_m)), lanes_n


def _warps(gemm: Gemm, machine: GpuMachine, warp_m: int, warp_n: int) -> tuple[int, int]:
    """The first of `WARPS` that gives every multiprocessor a block, no larger than C."""
    most_m, most_n = max(-(-gemm.m // warp_m), 1), max(-(-gemm.n // warp_n), 1)
    shapes = [(min(m, most_m), min(n, most_n)) for m, n in WARPS]

    def blocks(shape: tuple[int, int]) -> int:
        return (gemm.batch or 1) * -(-most_m // shape[0]) * -(-most_n // shape[1])

    return next((s for s in shapes if blocks(s) >= machine.sms), shapes[-1])
