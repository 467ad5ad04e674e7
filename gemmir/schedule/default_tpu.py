"""Default schedules for a TPU: one kernel whose grid walks the blocks of C.

    tile{loops=m,n … over=grid}       blocks of C, all of k
    promote{operand=a to=vmem}        and those of A and B, which are copied
    promote{operand=b to=vmem}
    pipeline{loop=n with=dma}         while the ones before them are multiplied,
    tile{loops=n,m …}                 a part of C at a time, whose sums fit the registers
    promote{operand=c to=vmem}
    vectorize{with=mxu}

Where not all of k fits into VMEM it is cut too, and C is summed there, as it is where it is read.

Blocks are those that `found` has for the problem, or else the cheapest by a model: every step of
the grid takes its matrix units and a fixed time, or the copies that are made meanwhile, whichever
is longer; the blocks of the first step are copied before it and those of the last one after it. A
block is copied only where it is another one than in the step before. It has no idea of what libtpu
makes of the body of a step, beyond that units are filled in whole multiples of their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from gemmir.gemm import Gemm
from gemmir.ir.dialect import most_visits
from gemmir.machine.tpu import TpuMachine
from gemmir.schedule.found import found_blocks

VMEM_SHARE: Final = 3 / 4
"""How much of VMEM blocks may take; the rest is for what libtpu spills and for its own buffers.
That of tokamax's and vLLM's kernels for TPUs (openxla/tokamax, vllm-project/tpu-inference)."""

MOST_STEP_CYCLES: Final = 1 << 15
"""Most cycles of the matrix units in a step. Mosaic unrolls the product of two blocks, and libtpu
0.0.52 takes a minute for four times as much; one per cent of it is gained."""

CYCLES_PER_REGISTER: Final = 1.5
"""What it costs to begin and to end the sum of a tile, each register of 1024 elements of it: 760
cycles for 512 x 1024, by libtpu's schedules with a loop over k."""

COPY_SECONDS: Final = 0.5e-6
"""What a small copy from HBM takes, beside half of what its bytes take by the rate of HBM. By
libtpu's profiler the steps of (128, 3072, 768) in bf16 on v5e, cut along n into 3 to 24, take 776
cycles and 0.53 of what HBM needs."""

PART_ROWS: Final = 128
"""Rows of the part of a block that is multiplied at a time, as wide as a matrix unit. Its sums stay
in the registers: libtpu spills none of 128 x 256 on v6e and tpu7x and few of 128 x 128 on v5e, and
takes as many cycles as for the whole block at once, for which it spills thousands. With 64 rows v6e
would take twice as long, for it would load its units too often."""

SPLIT_BYTES: Final = 4
"""Elements of this size are split into bf16 before they are multiplied: each part would split again
what it shares with others."""

SUM: Final = "promote{operand=c to=vmem}"
"""Where C is summed: of a part of a block that is multiplied once, where the epilogue takes it, and
otherwise of the whole block."""

MOST_PARTS: Final = 24
"""Into so many parts every dimension is tried to be cut, and above it powers of two."""


@dataclass(frozen=True, kw_only=True)
class TpuBlocks:
    """Sizes of the blocks, and the order of the loops over the grid, outermost first.

    All of the operand `whole` is in VMEM before the first step.
    """

    order: str
    m: int
    n: int
    k: int
    whole: str = ""

    def size(self, loop: str) -> int:
        """The size of the blocks along `loop`."""
        return {"m": self.m, "n": self.n, "k": self.k}[loop]


def tpu_passes(gemm: Gemm, machine: TpuMachine, *, fuse: bool) -> Iterator[str]:
    """The passes for `gemm` on `machine`, one at a time."""
    yield from spelled(gemm, machine, _found(gemm, machine) or tpu_blocks(gemm, machine), fuse=fuse)


def spelled(gemm: Gemm, machine: TpuMachine, blocks: TpuBlocks, *, fuse: bool) -> Iterator[str]:
    """The passes that make a kernel of `blocks`."""
    loops, sizes = list(blocks.order), [blocks.size(loop) for loop in blocks.order]
    if gemm.groups is not None:
        loops, sizes = ["n", "group", "m"], [blocks.n, 1, blocks.m]
    elif gemm.batch is not None:
        loops, sizes = ["batch", *loops], [1, *sizes]
    is_cut = blocks.k < gemm.k
    copied = [f"promote{{operand={name} to=vmem}}" for name in "ab" if name != blocks.whole]
    epilogue = ["fuse-epilogue"] if fuse else []
    parts = list(_parts(gemm, machine, blocks))
    by_part = parts and not is_cut and gemm.beta == 0 and gemm.groups is None
    if blocks.whole:
        yield f"promote{{operand={blocks.whole} to=vmem}}"
    yield f"tile{{loops={','.join(loops)} sizes={','.join(map(str, sizes))} over=grid}}"
    if not by_part:
        yield SUM
    if is_cut:
        yield f"tile{{loops=k sizes={blocks.k}}}"
    yield from [*copied, *epilogue]
    last = "k" if is_cut else "group" if gemm.groups is not None else loops[-1]
    yield f"pipeline{{loop={last} stages=2 with=dma}}"
    yield from parts
    if by_part:
        yield from [SUM, *epilogue]
    yield "vectorize{with=mxu}"


def _parts(gemm: Gemm, machine: TpuMachine, blocks: TpuBlocks) -> Iterator[str]:
    """The loops over the parts of a block that are multiplied at a time, where they divide it.

    Each part transposes again what it shares with others: on v6e parts of 128 rows take 1.4 times
    as long where B is transposed, and parts of 256 columns 1.1 times where A is.
    """
    if gemm.element.item_bytes == SPLIT_BYTES or 0 in (gemm.m, gemm.n, gemm.k):
        return
    sizes = {"n": machine.mxu_size, "m": gemm.m if gemm.trans_b else PART_ROWS}
    found = {
        loop: size
        for loop, size in sizes.items()
        if blocks.size(loop) > size and blocks.size(loop) % size == 0 and not gemm.trans_a
    }
    if found:
        yield f"tile{{loops={','.join(found)} sizes={','.join(map(str, found.values()))}}}"


def _found(gemm: Gemm, machine: TpuMachine) -> TpuBlocks | None:
    """The blocks that were found for a problem by profiling many, where there are some.

    They are those of one product of dense matrices as they lie; an epilogue changes nothing, but
    one with an operand as large as C takes memory that they may not leave.
    """
    if gemm.batch is not None or gemm.groups is not None or gemm.trans_a or gemm.trans_b:
        return None
    entry = found_blocks(machine.target, gemm.dtype, (gemm.m, gemm.n, gemm.k))
    if entry is None:
        return None
    blocks = TpuBlocks(order=entry.order, m=entry.m, n=entry.n, k=entry.k, whole=entry.whole)
    fits = vmem_bytes(gemm, blocks) <= machine.vmem_bytes_per_core * VMEM_SHARE
    return blocks if fits else None


def tpu_blocks(gemm: Gemm, machine: TpuMachine) -> TpuBlocks:
    """The blocks with which the model says that `gemm` takes least time.

    Where none fits, as on a machine with little VMEM, those that take least of it.
    """
    ranked = ranked_blocks(gemm, machine)
    if not ranked:
        return min(_candidates(gemm, machine), key=lambda blocks: vmem_bytes(gemm, blocks))
    return ranked[0]


def ranked_blocks(gemm: Gemm, machine: TpuMachine) -> Sequence[TpuBlocks]:
    """All blocks that fit, by the time that the model says `gemm` takes with them."""
    fitting = (
        blocks
        for blocks in _candidates(gemm, machine)
        if vmem_bytes(gemm, blocks) <= machine.vmem_bytes_per_core * VMEM_SHARE
        and step_cycles(gemm, machine, blocks) <= MOST_STEP_CYCLES
    )
    return sorted(fitting, key=lambda blocks: (cycles(gemm, machine, blocks), blocks.order))


def _candidates(gemm: Gemm, machine: TpuMachine) -> Iterator[TpuBlocks]:
    item = min(gemm.element.item_bytes, gemm.result.item_bytes)
    rows = machine.lanes if gemm.trans_a else machine.sublanes * 4 // min(item, 4)
    sizes_k = _sizes(gemm.k, machine.lanes)
    even = [k for k in sizes_k if gemm.k % k == 0]
    for m, n, k, order in product(
        _sizes(gemm.m, rows),
        _sizes(gemm.n, machine.lanes),
        even if len(even) > 1 else sizes_k,
        ("mn", "nm") if gemm.groups is None else ("nm",),
    ):
        yield TpuBlocks(order=order, m=m, n=n, k=k)


def _sizes(extent: int, step: int) -> Sequence[int]:
    """Block sizes along a dimension: all of it, or equal parts that are multiples of `step`."""
    counts = [*range(2, MOST_PARTS + 1), *(1 << e for e in range(5, extent.bit_length()))]
    parts = (_round_up(-(-extent // count), step) for count in counts)
    return [max(extent, 1), *dict.fromkeys(size for size in parts if size < extent)]


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def step_cycles(gemm: Gemm, machine: TpuMachine, blocks: TpuBlocks) -> float:
    """Cycles of the matrix units for the product of two blocks.

    A unit holds a square of one operand, whose loading hides behind as many rows of the other.
    """
    unit = machine.mxu_size
    volume = max(blocks.m, unit) * _round_up(blocks.n, unit) * _round_up(blocks.k, unit)
    return 2 * volume / machine.mxu_flops_per_cycle(gemm.dtype)


def vmem_bytes(gemm: Gemm, blocks: TpuBlocks) -> int:
    """VMEM that the kernel takes: two buffers of every block, the sum, and what f32 is split into.

    Rows are padded to whole registers. Of a bias there is one row in each buffer.
    """
    item, out = gemm.element.item_bytes, gemm.result.item_bytes
    a, b = _padded(blocks.m, blocks.k, item), _padded(blocks.k, blocks.n, item)
    c = _padded(blocks.m, blocks.n, out)
    like_c = _blocks_like_c(gemm)
    bias = _padded(1, blocks.n, out) if "bias" in gemm.steps else 0
    total = _padded(blocks.m, blocks.n, gemm.accumulator.item_bytes)
    split = a + b if gemm.element.item_bytes == SPLIT_BYTES else 0
    copied = {"a": 2 * a, "b": 2 * b}
    if blocks.whole:
        rows, columns = (gemm.m, gemm.k) if blocks.whole == "a" else (gemm.k, gemm.n)
        copied[blocks.whole] = _padded(rows, columns, item)
    return sum(copied.values()) + 2 * (like_c * c + bias) + total + split


def _blocks_like_c(gemm: Gemm) -> int:
    """Blocks of the size of C that a step has: C, old elements that are read or kept, residual."""
    is_read = gemm.beta != 0 or gemm.groups is not None
    return 1 + is_read + ("residual" in gemm.steps)


def _padded(rows: int, columns: int, item_bytes: int) -> int:
    """Bytes of an array in VMEM, which lies in registers of 8 x 128 times 32 bits."""
    return _round_up(max(rows, 1), 32 // item_bytes) * _round_up(max(columns, 1), 128) * item_bytes


def cycles(gemm: Gemm, machine: TpuMachine, blocks: TpuBlocks) -> float:
    """Cycles of one core for the whole product, its share of it where several cores work.

    Of several products each has its block of B, and tiles of rows in which one ends are visited
    again. Old elements that only such tiles keep are left out.
    """
    item, out = gemm.element.item_bytes, gemm.result.item_bytes
    rate = machine.hbm_bytes_per_cycle_per_core
    counts = {
        loop: max(-(-extent // blocks.size(loop)), 1)
        for loop, extent in (("m", gemm.m), ("n", gemm.n), ("k", gemm.k))
    }
    if gemm.groups is not None:
        counts["m"] = max(most_visits(gemm.groups, gemm.m, blocks.m), 1)
    tiles = max((gemm.batch or 1) * counts["m"] * counts["n"] / machine.cores_per_device, 1)
    steps = tiles * counts["k"]
    read = _blocks_like_c(gemm) - (gemm.groups is not None and gemm.beta == 0)
    tile_copy = read * blocks.m * blocks.n * out / rate
    copy = {"m": blocks.m * blocks.k * item / rate, "n": blocks.k * blocks.n * item / rate}

    work = step_cycles(gemm, machine, blocks) + machine.grid_step_overhead_cycles
    registers = blocks.m * blocks.n / (machine.sublanes * machine.lanes)
    ends = registers * CYCLES_PER_REGISTER if counts["k"] > 1 else 0.0
    outer, inner = blocks.order
    turns = max(tiles / counts[inner] * min(gemm.groups or 1, counts["m"]), 1)
    both = copy["m"] + copy["n"]

    def step(copied: float) -> float:
        return max(work, copied, COPY_SECONDS * machine.clock_hz + copied / 2)

    if counts["k"] > 1:
        moving = (steps - 1) * step(both + tile_copy / counts["k"])
    else:
        moved = copy[inner] if counts[inner] > 1 else 0.0
        moving = (tiles - turns) * step(moved + tile_copy)
        moving += (turns - 1) * step(copy[outer] + moved + tile_copy)
    return both + moving + work + tiles * ends + tile_copy
