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

from collections.abc import Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine.gpu import GpuMachine
from gemmir.passes.split_k import slice_size

LANES_M, LANES_N = 4, 8
"""The threads of a warp along m and n."""

THREAD_BYTES = 32
"""The tile of a thread along m and along n: two 128-bit loads for each."""

BANKS_BYTES = 128
"""One turn of the banks of shared memory, 32 of 4 bytes."""

SLICE_BYTES = 64
"""A slice of k: from each row of a row-major A four 128-bit loads, two sectors of global memory."""

SIMT_SLICES = (128, 64)
SIMT_STAGES = 2
"""Bytes of a slice of k, the larger one where shared memory holds two blocks so, and how many are
under way. For f32 at 4096 cubed on an H200 slices of 32, 64 and 128 bytes gave 44, 48 and 49
TFLOP/s, and a third stage nothing."""

BLOCKS_PER_SM = 2
"""Blocks that should fit a multiprocessor together, so that one computes while another waits."""

BLOCK_OVERHEAD_BYTES = 1024
"""Shared memory that the system takes of each block from compute capability 8.0 on: CUDA C++
Programming Guide, section on shared memory."""

WARPS = ((4, 2), (2, 2), (2, 1), (1, 1))
"""Warps of a block along m and n, the shape with the least traffic first."""

LOAD_BYTES = 16
"""The widest load of a thread, and the padding between columns that spreads transposed stores."""


MMA_WARPS = ((2, 4), (2, 2), (1, 2), (1, 1))
MMA_TILE = (64, 32)
MMA_TILE_SMALL = (32, 32)
"""Warps of a block and the tile of a warp with tensor cores: 128 x 128 for 8 warps, whose sums take
64 registers of a thread. Half of it for f64, whose sums take twice as many, for 8-bit floats, which
sm_90a widens in registers, for 8 bits that are gathered one by one, and where the write-back reads
the old C and a residual: clipped, it holds both beside the sums, and 64 registers of each are more
than there are."""

BYTE_BLOCKS_PER_SM = 1
"""What keeps ptxas from spilling a few registers so that more blocks fit: it does so of itself
where 8 bits are put together in registers, ptxas 13.0 for sm_90a."""

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

STAGES = 3
"""Slices of k that are under way at once: two are copied while one is multiplied. With slices of 64
bytes and blocks of 128 x 128 they fill the 48 KiB that a kernel may declare."""

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
    slices = _slices(gemm, machine)
    if slices > 1:
        yield f"split-k{{factor={slices} order=fixed}}"
        machine = replace(machine, sms=-(-machine.sms // slices))
        gemm = _with_k(gemm, slice_size(gemm.k, slices, gemm.element.item_bytes))
    if gemm.groups is not None:
        machine = replace(machine, sms=-(-machine.sms // gemm.groups))
        gemm = replace(gemm, m=max(-(-gemm.m // gemm.groups), 1))
    if gemm.dtype in machine.mma_dtypes:
        yield from _mma_passes(gemm, machine, fuse=fuse)
    else:
        yield from _simt_passes(gemm, machine, fuse=fuse, expand=expand)
    if expand:
        yield "expand-math"


def _slices(gemm: Gemm, machine: GpuMachine) -> int:
    """Into how many slices k is cut: several where C has too few tiles for the machine.

    Of the numbers from half to twice what would fill the machine, the nearest that cuts k evenly.
    """
    item = gemm.element.item_bytes
    tiles = (gemm.batch or 1) * -(-gemm.m // SPLIT_TILE[0]) * -(-gemm.n // SPLIT_TILE[1])
    most = gemm.k * item // SPLIT_BYTES
    if gemm.groups is not None or tiles == 0 or tiles >= FEW_WARPS * machine.sms or most < 2:
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
    is_small = (
        gemm.dtype in ("f64", "e4m3", "e5m2")
        or (item == 1 and is_gathered)
        or (gemm.beta != 0 and "residual" in gemm.steps)
    )
    tile = MMA_TILE_SMALL if is_small else MMA_TILE
    warp_m = min(tile[0], -(-max(gemm.m, 1) // MMA_ROWS) * MMA_ROWS)
    warp_n = min(tile[1], -(-max(gemm.n, 1) // MMA_COLUMNS) * MMA_COLUMNS)
    depth = machine.mma_k_bytes // item
    warps_m, warps_n = _warps(gemm, machine, warp_m, warp_n, MMA_WARPS)
    block_m, block_n = warps_m * warp_m, warps_n * warp_n
    slice_ = min(SLICE_BYTES // item, -(-gemm.k // depth) * depth)
    pipelined = gemm.k > slice_ and machine.has_async_copies and _copies_asynchronously(gemm)
    yield _blocks(gemm, block_m, block_n, BYTE_BLOCKS_PER_SM if item == 1 else 0)
    yield f"tile{{loops=m,n sizes={warp_m},{warp_n} over=warps}}"
    yield "promote{operand=c to=registers}"
    if gemm.k:
        yield f"tile{{loops=k sizes={slice_}}}"
        for operand, runs_along_k, across in (
            ("a", not gemm.trans_a, block_m),
            ("b", gemm.trans_b, block_n),
        ):
            layout = _mma_layout(item, slice_, across, along_k=runs_along_k)
            yield f"promote{{operand={operand} to=shared layout={layout}}}"
        slices = -(-gemm.k // slice_)
        if pipelined:
            yield f"pipeline{{loop=k stages={min(STAGES, slices)} with=cp.async}}"
    if fuse:
        yield "fuse-epilogue"
    shape = "" if machine.mma_k_bytes == FRAGMENT_BYTES else f" shape=16,8,{depth}"
    width = BYTES_OF_PANELS if item == 1 and is_gathered and not pipelined else LOAD_BYTES // item
    yield f"vectorize{{with=mma width={width}{shape}}}"
    step = DOUBLES if item == LANE_BYTES and slice_ % DOUBLES == 0 else depth
    if slice_ >= 2 * step:
        yield f"unroll{{loop=k factor={slice_ // step}}}"


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


def _blocks(gemm: Gemm, block_m: int, block_n: int, per_sm: int = 0) -> str:
    batch = ("batch,", "1,") if gemm.batch is not None else ("", "")
    if gemm.groups is not None:
        batch = ("group,", "1,")
    held = f" per_sm={per_sm}" if per_sm else ""
    return f"tile{{loops={batch[0]}m,n sizes={batch[1]}{block_m},{block_n} over=blocks{held}}}"


def _simt_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool, expand: bool) -> Iterator[str]:
    item = gemm.element.item_bytes
    thread_m, thread_n = (min(THREAD_BYTES // item, _power_of_two(x)) for x in (gemm.m, gemm.n))
    lanes_m, lanes_n = _lanes(-(-gemm.m // thread_m), -(-gemm.n // thread_n))
    warp_m, warp_n = lanes_m * thread_m, lanes_n * thread_n
    warps_m, warps_n = _warps(gemm, machine, warp_m, warp_n, WARPS)
    block_m, block_n = warps_m * warp_m, warps_n * warp_n
    is_even = gemm.m % block_m == 0 and gemm.n % block_n == 0 and not expand
    is_even &= gemm.groups is None
    yield _blocks(gemm, block_m, block_n, BLOCKS_PER_SM if is_even else 1)
    is_full = gemm.m > warp_m - thread_m and gemm.n > warp_n - thread_n
    if is_full and lanes_m * lanes_n == machine.threads_per_warp:
        yield f"tile{{loops=m,n sizes={warp_m},{warp_n} over=warps}}"
    yield f"tile{{loops=m,n sizes={thread_m},{thread_n} over=threads}}"
    yield "promote{operand=c to=registers}"
    slice_ = SLICE_BYTES // item
    if gemm.k:
        is_async = machine.has_async_copies and _copies_asynchronously(gemm)
        if is_async and not gemm.trans_b:
            slice_ = _simt_slice(machine, block_m + block_n) // item
        yield f"tile{{loops=k sizes={slice_}}}"
        yield f"promote{{operand=a to=shared layout=panel:{block_m + LOAD_BYTES // item}}}"
        yield f"promote{{operand=b to=shared layout=panel:{max(BANKS_BYTES // item, thread_n)}}}"
        slices = -(-gemm.k // slice_)
        if slices > 1 and is_async:
            yield f"pipeline{{loop=k stages={min(SIMT_STAGES, slices)} with=cp.async}}"
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


def _simt_slice(machine: GpuMachine, rows: int) -> int:
    """Bytes of a slice of k of which all stages, of `rows` rows of A and columns of B, fit."""
    for slice_bytes in SIMT_SLICES:
        taken = SIMT_STAGES * rows * slice_bytes + BLOCK_OVERHEAD_BYTES
        if BLOCKS_PER_SM * taken <= machine.smem_bytes_per_sm:
            return slice_bytes
    return SIMT_SLICES[-1]


def _warps(
    gemm: Gemm,
    machine: GpuMachine,
    warp_m: int,
    warp_n: int,
    shapes_of_blocks: tuple[tuple[int, int], ...],
) -> tuple[int, int]:
    """The first shape that gives every multiprocessor a block, no larger than C."""
    most_m, most_n = max(-(-gemm.m // warp_m), 1), max(-(-gemm.n // warp_n), 1)
    shapes = [(min(m, most_m), min(n, most_n)) for m, n in shapes_of_blocks]

    def blocks(shape: tuple[int, int]) -> int:
        return (gemm.batch or 1) * -(-most_m // shape[0]) * -(-most_n // shape[1])

    return next((s for s in shapes if blocks(s) >= machine.sms), shapes[-1])
