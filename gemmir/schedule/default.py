"""The schedule that is used when none is given, chosen by rules from the problem and the machine.

Two shapes of schedule cover the CPU. *Direct*: small problems whose operands stay in the second
cache level; register tiles read A and B where they lie. *Packed*: the blocking of Goto and van de
Geijn (ACM TOMS 34(3), 2008) with sizes after Low et al., Analytical Modeling Is Enough for
High-Performance BLIS (ACM TOMS 43(2), 2016): a sliver of packed B stays in L1, a block of packed A
in L2, a panel of packed B in L3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gemmir.gemm import Gemm
from gemmir.machine.cpu import CpuMachine
from gemmir.schedule.schedule import Schedule

FMA_LATENCY_CYCLES = 4
"""Cycles until the sum of a fused multiply-add can be added to again: 4 on every CPU of the last
ten years (uops.info, VFMADD231PS: Haswell 5, Skylake to Sapphire Rapids 4, Zen 2 to 4 4)."""

LOADS_PER_CYCLE = 2
"""Vector loads a cycle on the same CPUs."""

TILE_OVERHEAD_CYCLES = 24
"""Cycles a register tile costs beside its multiply-adds: filling and draining the pipeline."""

EXPONENTIAL = {"gelu", "silu"}
"""Steps of an epilogue that need `expand-math`."""

K_STEPS_PER_ITERATION = 4
"""Unrolling of the k loop: loop control is then below 1 % of the instructions of a 6 x 16 tile."""


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
    """Every tile whose sums, row of B and broadcast element of A fit the registers."""
    for vectors in range(1, machine.vector_registers // 2):
        most = (machine.vector_registers - 1 - vectors) // vectors
        for rows in range(1, most + 1):
            yield RegisterTile(rows=rows, vectors=vectors, lanes=lanes)


def default_schedule(gemm: Gemm, machine: CpuMachine, threads: int = 1) -> Schedule:
    """The schedule for `gemm` on one core of `machine`, or on `threads` cores."""
    return Schedule.parse(default_text(gemm, machine, threads))


def default_text(
    gemm: Gemm,
    machine: CpuMachine,
    threads: int = 1,
    *,
    fuse: bool | None = None,
    expand: bool | None = None,
) -> str:
    """The text of `default_schedule`, one pass a line.

    `fuse` and `expand` say whether there is an epilogue and whether it has exponentials, where the
    epilogue of `gemm` does not tell.
    """
    passes = list(_passes(gemm, machine, threads))
    if fuse if fuse is not None else bool(gemm.steps):
        passes.append("fuse-epilogue")
    passes.append(f"vectorize{{with=fma width={_lanes(gemm, machine)}}}")
    if gemm.k >= 2:
        passes.append(f"unroll{{loop=k factor={min(K_STEPS_PER_ITERATION, gemm.k)}}}")
    if expand if expand is not None else bool(EXPONENTIAL & set(gemm.steps)):
        passes.append("expand-math")
    return "\n".join(passes)


def _passes(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The passes up to the accumulator tile."""
    parallel_batch = threads > 1 and gemm.batch is not None and gemm.batch >= threads
    if gemm.batch is not None:
        yield f"tile{{loops=batch sizes=1{' over=cores' if parallel_batch else ''}}}"
    if threads > 1 and not parallel_batch:
        name = "m" if gemm.m >= gemm.n else "n"
        extent = max(gemm.m, gemm.n)
        unit = _packed_tile(gemm, machine)
        step = unit.rows if name == "m" else unit.columns
        share = _round_up(-(-extent // threads), step)
        yield f"tile{{loops={name} sizes={max(share, 1)} over=cores}}"
        size = {name: min(share, extent)}
        gemm = _with_size(gemm, size)
    if _is_direct(gemm, machine):
        yield from _direct(gemm, machine)
    else:
        yield from _packed(gemm, machine)


def _with_size(gemm: Gemm, size: dict[str, int]) -> Gemm:
    return replace(
        gemm, **size, lda=gemm.leading("a"), ldb=gemm.leading("b"), ldc=gemm.leading("c")
    )


def _item_bytes(gemm: Gemm) -> int:
    return gemm.numpy_dtype(0).itemsize


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


def _is_direct(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether A and B are best read where they lie."""
    if 0 in (gemm.m, gemm.n, gemm.k):
        return True
    if gemm.trans_b and gemm.k > 1 and gemm.n > 1:
        return False
    tile = _direct_tile(gemm, machine)
    if gemm.beta != 0 and (gemm.m % tile.rows or gemm.n % tile.columns):
        return False
    return (gemm.m + gemm.n) * gemm.k * _item_bytes(gemm) <= machine.l2_bytes


def _direct_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """The tile that takes the fewest cycles by the model, last tiles counted whole."""
    lanes = _lanes(gemm, machine)
    columns = max(gemm.n, 1)

    def cycles(tile: RegisterTile) -> float:
        tiles = -(-gemm.m // tile.rows) * -(-columns // tile.columns)
        return tiles * (gemm.k * tile.cycles_per_k(machine) + TILE_OVERHEAD_CYCLES)

    fitting = (
        t
        for t in register_tiles(machine, lanes)
        if t.rows <= max(gemm.m, 1) and t.columns <= columns
    )
    return min(fitting, key=cycles)


def _direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    tile = _direct_tile(gemm, machine)
    even = gemm.m % tile.rows == 0 and gemm.n % tile.columns == 0
    edges = "" if even or gemm.beta != 0 else " edges=overlap"
    yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}{edges}}}"
    yield "promote{operand=c to=registers}"


def _packed_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """Two vectors wide and as many rows as the registers hold: 6 x 16 for f32 on AVX2."""
    lanes = _lanes(gemm, machine)
    vectors = 2 if gemm.n > lanes else 1
    rows = (machine.vector_registers - 1 - vectors) // vectors
    return RegisterTile(rows=min(rows, max(gemm.m, 1)), vectors=vectors, lanes=lanes)


def _packed(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    tile = _packed_tile(gemm, machine)
    item = _item_bytes(gemm)
    kc = _balanced(gemm.k, machine.l1_bytes // (tile.columns * item), K_STEPS_PER_ITERATION)
    mc = _balanced(gemm.m, max(machine.l2_bytes // 3 // (kc * item), 1), tile.rows)
    nc = _balanced(gemm.n, max(machine.l3_bytes // 8 // (kc * item), 1), tile.columns)
    yield f"tile{{loops=n,k sizes={nc},{kc}}}"
    yield f"promote{{operand=b to=l3 layout=panel:{tile.columns}}}"
    yield f"tile{{loops=m sizes={mc}}}"
    yield f"promote{{operand=a to=l2 layout=panel:{tile.rows}}}"
    yield f"tile{{loops=n,m sizes={tile.columns},{tile.rows}}}"
    yield "promote{operand=c to=registers prefetch=true}"
