"""The schedule that is used when none is given, chosen by rules from the problem and the machine.

For a GPU see `default_gpu`, for a TPU `default_tpu`. There are five classes of schedule for a CPU.
*Direct*: A and B are read where they lie. *Half packed*: a B that fits the second cache level is
packed into it. *Deep*: a small C and a long k; slices of k are summed into C. *Streamed*: few rows
of A; B is read once, a few rows at a time. *Packed*: the blocking of Goto and van de Geijn, Anatomy
of High-Performance Matrix Multiplication (ACM TOMS 34(3), 2008), with the roles of A and B
exchanged: panels of A are packed into L3 and blocks of B into L2, and a sliver of B as large as L1
streams through it.
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, Machine, TpuMachine, targets
from gemmir.schedule.default_gpu import gpu_passes
from gemmir.schedule.default_tpu import tpu_passes
from gemmir.schedule.schedule import Schedule

FMA_LATENCY_CYCLES = 4
"""Cycles until the sum of a fused multiply-add can be added to again: 4 on every CPU of the last
ten years (uops.info, VFMADD231PS: Haswell 5, Skylake to Sapphire Rapids 4, Zen 2 to 4 4)."""

LOADS_PER_CYCLE = 2
"""Vector loads a cycle on the same CPUs."""

TILE_OVERHEAD_CYCLES = 8
"""Cycles a register tile costs beside its multiply-adds, where the next one can begin early:
fitted on Zen 3 to the best tiles of 16 to 127 cubed."""

L1_WAY_BYTES = 4096
"""Addresses this far apart share a set of the L1 cache: 64 sets of 64-byte lines, on every CPU
whose L1 is indexed within a page."""

CACHE_LINE_BYTES = 64
"""A cache line of every CPU that is shipped here."""

STREAM_ROWS = 8
"""Up to this many rows of A, packing B costs more than it saves (measured on Zen 3)."""

STREAM_K = 8
"""Rows of B that are streamed together: as many streams as the prefetchers of Zen 3 follow."""

HALF_PACKED_ROWS = 48
"""From this many rows of A on, packing a B that fits L2 pays (measured on Zen 3)."""

EXPONENTIAL = {"gelu", "silu"}
"""Steps of an epilogue that need `expand-math`."""

K_STEPS_PER_ITERATION = 4
"""Unrolling of the k loop: of the 86 instructions of a 6 x 16 tile, 2 are then loop control."""

DIRECT_K_STEPS = 16
"""Unrolling where nothing is packed: a k of 16 needs no loop at all."""


@dataclass(frozen=True, kw_only=True)
class RegisterTile:
    """An accumulator tile of `rows` by `vectors` vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return self.vectors * self.lanes

    def cycles_per_k(self, machine: CpuMachine) -> float:
        """Cycles for one step of k: multiply-adds, loads, or the latency of one sum."""
        products = self.rows * self.vectors / machine.fma_per_cycle
        loads = (self.rows + self.vectors) / LOADS_PER_CYCLE
        return max(products, loads, FMA_LATENCY_CYCLES)


def register_tiles(machine: CpuMachine, lanes: int) -> Iterator[RegisterTile]:
    """Every tile that leaves room for a row of B and elements of A beside its sums."""
    for vectors in range(1, machine.vector_registers // 2):
        for rows in range(1, _most_rows(machine, vectors) + 1):
            yield RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def _most_rows(machine: CpuMachine, vectors: int) -> int:
    """Rows of a tile `vectors` wide: its sums take three quarters of the registers at most.

    More would fit, but LLVM loads ahead and would spill them.
    """
    registers = machine.vector_registers
    return min(registers - 1 - vectors, registers * 3 // 4) // vectors


def default_schedule(gemm: Gemm, machine: Machine, threads: int = 1) -> Schedule:
    """The schedule for `gemm` on one core of `machine`, or on `threads` cores."""
    return Schedule.parse(default_text(gemm, machine, threads))


def default_text(
    gemm: Gemm,
    machine: Machine,
    threads: int = 1,
    *,
    fuse: bool | None = None,
    expand: bool | None = None,
) -> str:
    """The text of `default_schedule`, one pass a line.

    `fuse` and `expand` say whether there is an epilogue and whether it has exponentials, where the
    epilogue of `gemm` does not tell.
    """
    _require_unit(gemm, machine)
    fuse = bool(gemm.steps) if fuse is None else fuse
    expand = bool(EXPONENTIAL & set(gemm.steps)) if expand is None else expand
    if not isinstance(machine, CpuMachine):
        if threads != 1:
            raise ScheduleError(
                "GEM0317",
                f"threads={threads} are cores of a CPU, and {machine.target} has none",
                "leave threads out: a kernel has all of the machine",
            )
        if isinstance(machine, TpuMachine):
            return "\n".join(tpu_passes(gemm, machine, fuse=fuse))
        return "\n".join(gpu_passes(gemm, machine, fuse=fuse, expand=expand))
    threads = 1 if 0 in (gemm.m, gemm.n, gemm.k) else threads
    passes = list(_outer(gemm, machine, threads))
    share, even = _share(gemm, machine, threads)
    shape = _class(share, machine) if even else _packed
    if gemm.groups is not None:
        shape = _clipped if 0 in (gemm.n, gemm.k) else _packed
    if gemm.scale_block is not None:
        shape = _scaled
    passes.extend(shape(share, machine))
    if fuse:
        passes.append("fuse-epilogue")
    passes.append(f"vectorize{{with=fma width={_lanes(gemm, machine)}}}")
    steps = DIRECT_K_STEPS if shape in (_direct, _deep) else K_STEPS_PER_ITERATION
    if gemm.k >= 2:
        passes.append(f"unroll{{loop=k factor={min(steps, gemm.k)}}}")
    if expand:
        passes.append("expand-math")
    return "\n".join(passes)


def _require_unit(gemm: Gemm, machine: Machine) -> None:
    """`ScheduleError` GEM0316 where `machine` has no unit that sums products of the type."""
    if gemm.dtype in _unit_dtypes(machine):
        return
    if not gemm.product.is_mixed and not isinstance(machine, TpuMachine):
        return
    known = [name for name, m in targets() if gemm.dtype in _unit_dtypes(m)]
    own = ", ".join(dict.fromkeys(("f32", *_unit_dtypes(machine))))
    raise ScheduleError(
        "GEM0316",
        f"{machine.target} has no schedule for products of {gemm.dtype}",
        f"use dtype {own}" + (f", or a target of {', '.join(known)}" if known else ""),
    )


def _unit_dtypes(machine: Machine) -> tuple[str, ...]:
    """What the matrix units of a machine multiply; none where it has no such units."""
    if isinstance(machine, CpuMachine):
        return ()
    return machine.mxu_dtypes if isinstance(machine, TpuMachine) else machine.mma_dtypes


def _outer(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The loops over the batch and over the cores."""
    if gemm.groups is not None:
        yield from ["parallelize{loop=group}"] if threads > 1 else []
        return
    by_batch = _shares_batch(gemm, threads)
    if gemm.batch is not None:
        yield f"tile{{loops=batch sizes=1{' over=cores' if by_batch else ''}}}"
    if threads > 1 and not by_batch:
        name, size = _cut(gemm, machine, threads)
        yield f"tile{{loops={name} sizes={size} over=cores}}"


def _shares_batch(gemm: Gemm, threads: int) -> bool:
    return threads > 1 and gemm.batch is not None and gemm.batch >= threads


def _cut(gemm: Gemm, machine: CpuMachine, threads: int) -> tuple[str, int]:
    """The longer dimension of C, and the part of it that each core gets: whole register tiles."""
    tile = _packed_tile(gemm, machine)
    by_rows = gemm.m >= gemm.n or gemm.scale_block is not None
    extent, step = (gemm.m, tile.rows) if by_rows else (gemm.n, tile.columns)
    return "m" if by_rows else "n", max(_round_up(-(-extent // threads), step), 1)


def _share(gemm: Gemm, machine: CpuMachine, threads: int) -> tuple[Gemm, bool]:
    """The problem of one core, and whether that of every core has the same size."""
    if gemm.groups is not None:
        return replace(gemm, m=gemm.rows_each, groups=None, masked=False), False
    if threads == 1 or _shares_batch(gemm, threads):
        return gemm, True
    name, size = _cut(gemm, machine, threads)
    extent = gemm.m if name == "m" else gemm.n
    return _with_size(gemm, {name: min(size, extent)}), extent % size == 0


def _with_size(gemm: Gemm, size: dict[str, int]) -> Gemm:
    return replace(
        gemm, **size, lda=gemm.leading("a"), ldb=gemm.leading("b"), ldc=gemm.leading("c")
    )


def _item_bytes(gemm: Gemm) -> int:
    return gemm.element.item_bytes


def _lanes(gemm: Gemm, machine: CpuMachine) -> int:
    """Lanes of the vectors used: those of the machine, or fewer where a row of C is shorter."""
    lanes = machine.lanes(_item_bytes(gemm))
    while lanes > max(gemm.n, 1):
        lanes //= 2
    return lanes


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _balanced(extent: int, most: int, step: int) -> int:
    """A tile of at most `most`, a multiple of `step`, that cuts `extent` into equal parts."""
    parts = max(-(-extent // most), 1)
    return max(min(_round_up(-(-extent // parts), step), _round_up(most, step)), 1)


def _class(gemm: Gemm, machine: CpuMachine) -> Callable[[Gemm, CpuMachine], Iterator[str]]:
    """The shape of schedule for a problem."""
    item = _item_bytes(gemm)
    if 0 in (gemm.m, gemm.n, gemm.k):
        return _direct
    if gemm.trans_b and min(gemm.n, gemm.k) > 1:
        return _half_packed if gemm.n * gemm.k * item <= machine.l2_bytes // 2 else _packed
    bytes_b = gemm.n * gemm.k * item
    small = (gemm.m + gemm.n) * gemm.k * item <= machine.l2_bytes // 2
    if small and gemm.k <= _rows_in_l1(gemm.leading("b") * item, machine):
        return _direct
    few = gemm.m <= STREAM_ROWS and gemm.n * item >= L1_WAY_BYTES
    if few and bytes_b > machine.l2_bytes // 2:
        return _streamed
    if gemm.m * gemm.n * item <= machine.l1_bytes and not small:
        return _deep
    if bytes_b <= machine.l2_bytes // 2 and gemm.beta == 0 and gemm.m >= HALF_PACKED_ROWS:
        return _half_packed
    return _packed


def _rows_in_l1(row_bytes: int, machine: CpuMachine) -> int:
    """How many rows of a matrix can each keep a cache line in L1: few if they are a power of 2
    apart, because the sets of the cache repeat every `L1_WAY_BYTES`."""
    return machine.l1_bytes // pymath.gcd(row_bytes, L1_WAY_BYTES)


def _direct_tile(gemm: Gemm, machine: CpuMachine, kc: int) -> RegisterTile:
    """The tile that takes the fewest cycles for `kc` steps of k, last tiles counted whole."""
    lanes = _lanes(gemm, machine)
    columns = max(gemm.n, 1)

    def cycles(tile: RegisterTile) -> float:
        tiles = -(-gemm.m // tile.rows) * -(-columns // tile.columns)
        return tiles * (kc * tile.cycles_per_k(machine) + TILE_OVERHEAD_CYCLES)

    fitting = (
        t
        for t in register_tiles(machine, lanes)
        if t.rows <= max(gemm.m, 1) and t.columns <= columns
    )
    return min(fitting, key=cycles)


def _direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles read A and B where they lie; the operand that stays in L1 is walked inside."""
    tile = _direct_tile(gemm, machine, gemm.k)
    edges = _edges(gemm, tile)
    if gemm.n * gemm.k * _item_bytes(gemm) <= machine.l1_bytes // 2:
        yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}{edges}}}"
    else:
        yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}{edges}}}"
    yield "promote{operand=c to=registers}"


def _edges(gemm: Gemm, tile: RegisterTile) -> str:
    """Full tiles everywhere if elements may be computed twice, otherwise smaller last tiles."""
    if gemm.m % tile.rows == 0 and gemm.n % tile.columns == 0:
        return ""
    return " edges=peel" if gemm.beta != 0 else " edges=overlap"


def _deep(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Small C and long k: slices of k, short enough for L1, are summed into C where it lies."""
    item = _item_bytes(gemm)
    rows = min(
        _rows_in_l1(gemm.leading("b") * item, machine), machine.l2_bytes // 4 // (gemm.n * item)
    )
    kc = min(_balanced(gemm.k, max(rows, DIRECT_K_STEPS), DIRECT_K_STEPS), gemm.k)
    tile = _direct_tile(gemm, machine, kc)
    yield f"tile{{loops=k sizes={kc}}}"
    peel = _peel(gemm, tile.rows, tile.columns)
    yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}{peel}}}"
    yield "promote{operand=c to=registers}"


def _streamed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Few rows: B is read once, a few whole rows at a time, and C is summed in the cache."""
    lanes = _lanes(gemm, machine)
    rows = gemm.m if gemm.m <= STREAM_ROWS // 2 + 2 else -(-gemm.m // 2)
    vectors = max(min((machine.vector_registers - 1) // (rows + 1), 4), 1)
    columns = min(vectors * lanes, _round_up(gemm.n, lanes))
    yield f"tile{{loops=k sizes={min(STREAM_K, gemm.k)}}}"
    yield f"tile{{loops=n,m sizes={columns},{rows}{_peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"


def _peel(gemm: Gemm, rows: int, columns: int) -> str:
    return "" if gemm.m % rows == 0 and gemm.n % columns == 0 else " edges=peel"


def _packed_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """Two vectors and a cache line wide, and as many rows as the registers hold.

    That is 6 x 16 for f32 on AVX2 and NEON, and 12 x 32 on AVX-512.
    """
    lanes = _lanes(gemm, machine)
    vectors = min(max(2, CACHE_LINE_BYTES // machine.vector_bytes), -(-max(gemm.n, 1) // lanes))
    rows = min(_most_rows(machine, vectors), max(gemm.m, 1))
    return RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def _clipped(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles of rows whose number is known at run time."""
    tile = _packed_tile(gemm, machine)
    yield f"tile{{loops=m,n sizes={tile.rows},{tile.columns}}}"
    yield "promote{operand=c to=registers}"


def _scaled(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles inside of one block of scales; those of a slice of k and of all of it."""
    tile = _packed_tile(gemm, machine)
    rows, block = max(tile.rows // 2, 1), gemm.scale_block
    assert block is not None
    columns = next(c for c in (block, *_halves(block)) if c <= tile.columns)
    yield f"tile{{loops=m,n sizes={rows},{columns}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={block}}}"
    if gemm.k > block:
        yield "promote{operand=c to=registers}"


def _halves(size: int) -> Iterator[int]:
    """The smaller powers of two."""
    while size > 1:
        size //= 2
        yield size


def _half_packed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """All of B packed into L2, A read where it lies."""
    tile = _packed_tile(gemm, machine)
    edges = "" if gemm.m % tile.rows == 0 else " edges=peel" if gemm.beta else " edges=overlap"
    columns = min(tile.columns, gemm.n)
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{edges}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def _packed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2; a sliver of B is as large as L1 and streams by."""
    tile = _packed_tile(gemm, machine)
    item = _item_bytes(gemm)
    kc = _balanced(gemm.k, machine.l1_bytes // (tile.columns * item), K_STEPS_PER_ITERATION)
    mc = _balanced(gemm.m, max(machine.l3_bytes // 8 // (kc * item), 1), tile.rows)
    columns = min(tile.columns, gemm.n)
    nc = _balanced(gemm.n, max(machine.l2_bytes * 3 // 8 // (kc * item), 1), columns)
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{tile.rows}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"
