"""Packed schedules for CPUs: blocks of B in L2 or L3, and A where it lies or in panels in L3.

*Packed* copies B alone. A panel of rows of A meets all of a block of B, so that A comes from memory
once a block, and the next panel is asked for meanwhile. With many registers that is a line in each
iteration over k, where all slices of k are whole iterations: requests that come together hold up
the loads behind them; and where there are a few hundred rows, the first panel of them fills the
panels of B as it meets them. *Packed both* is the blocking of Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication (ACM TOMS 34(3), 2008), with the roles of A and B exchanged:
for an A whose rows are not adjacent along k, for rows whose number is known at run time, and for
CPUs on which rows that are apart take a register each.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import last_rows, peel_loop
from gemmir.schedule.cpu.model import (
    K_SLICE_BYTES,
    K_STEPS_PER_ITERATION,
    L1_WAY_BYTES,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    equal_slice,
    has_lines,
    is_n_x_k,
    item_bytes,
    lanes_used,
    round_up,
    streams_from_l3,
)
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import (
    MANY_REGISTERS,
    PACKED_ROWS,
    has_even_rows,
    most_rows,
    most_vectors,
    packed_tile,
)

FAR_C = 8
"""How many times L2 a C is that counts as far: every slice of k reads and writes it. With half as
many slices 2048 and 4096 cubed on Zen 5 with AVX-512 are up to 2 % faster, f32 and f64; where C is
nearer 1 % is won or lost, and with AVX2 up to 2 % lost everywhere."""

A_IN_L1 = 2 / 3
"""Of L1: so much may rows of A take that are read together."""

NEAR_A = 2
"""How many times L2 A and C are at most that stay while panels of B go by, with AVX2: on Zen 5
odd squares of 257 to 451 are 3 to 5 % faster than with blocks of B in L2, and none is slower."""

LEAST_SLICE = 5 / 8
"""Of a slice of k, where a shorter one cuts k into equal ones: of 1000 cubed on Zen 5 with AVX-512,
k by 200 is 1.5 % faster than by 252, k by 100 of f64 3 % faster than by 128, and of 640 cubed k by
160 is 2 % faster than by 216."""

L3_SHARE = 1 / 8
"""Of L3: a block of B that streams by from there, as large for each of 8 cores. On Zen 4, whose L3
has 32 MiB, f64 2048 cubed is 1.6 % slower by blocks of 8 MiB than of 4 MiB, and 1.7 % by 2 MiB in
f32."""

FUSED_ROWS = 512
"""Up to this many rows the first tile fills the panels of B. A line of B takes 5 to 12 cycles to be
copied, and half a cycle for each row to be multiplied: on Zen 5 with AVX-512 512 x 3072 x 768 is
4 % faster so. Squares of 768 to 2048 gain up to 1 % where arrays begin on a line, and lose as much
where they do not."""

FUSED_VECTORS = 2
"""Columns of a panel that is filled so, in vectors of a line each: lines come in pairs. Three lines
of each row are slower."""


def has_n_x_k(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B is stored n x k: it must be packed, for its columns are not adjacent."""
    return is_n_x_k(gemm)


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Blocks of B in L2 or L3, each multiplied by all rows of A where they lie."""
    down = gemm.trans_a and min(gemm.m, gemm.k) > 1
    if down or not broadcasts_from_memory(machine):
        yield from packed_both(gemm, machine)
        return
    item, kc = item_bytes(gemm), slice_of(gemm, machine)
    tile, pairs = packed_tile(gemm, machine), packed_tile(gemm, machine, FUSED_VECTORS)
    few = PACKED_ROWS < gemm.m <= FUSED_ROWS and has_lines(gemm, machine)
    few &= not streams_from_l3(machine)
    is_even = round_up(gemm.n, pairs.columns) == round_up(gemm.n, tile.columns)
    fused = few and is_even and asks_in_sums(gemm, machine, kc)
    tile = pairs if fused else tile
    stays = gemm.m * max(gemm.k, gemm.n) * item <= NEAR_A * machine.l2_bytes
    if has_even_rows(machine) and stays and not gemm.trans_b:
        yield from _panel_by_panel(gemm, machine, kc)
        return
    columns = min(tile.columns, gemm.n)
    nc, level = block_of(gemm, machine, kc, columns)
    if nc < gemm.n:
        yield f"tile{{loops=n sizes={nc}{peel_loop(gemm.n, nc)}}}"
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"promote{{operand=b to={level} layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={tile.rows}{peel_loop(gemm.m, tile.rows)}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    several = gemm.m >= 2 * tile.rows
    if not asks_in_sums(gemm, machine, kc):
        if several:
            yield "prefetch{operand=a loop=m ahead=1 to=l1 during=n}"
        yield "promote{operand=c to=registers prefetch=true}"
        return
    is_one_panel = gemm.n <= columns
    yield f"promote{{operand=c to=registers{' prefetch=true' if is_one_panel else ''}}}"
    yield f"tile{{loops=k sizes={K_STEPS_PER_ITERATION}}}"
    if several:
        yield f"prefetch{{operand=a loop=m ahead=1 to=l1 during={'k' if is_one_panel else 'n,k'}}}"
    if not is_one_panel:
        yield "prefetch{operand=c loop=n ahead=0 during=k}"
    if fused:
        yield "fuse-pack{operand=b}"


def block_of(gemm: Gemm, machine: CpuMachine, kc: int, columns: int) -> tuple[int, str]:
    """Columns of a block of B in whole panels of `columns`, and the cache in which it lies."""
    row_bytes = kc * item_bytes(gemm)
    nc = balanced(gemm.n, max(_room(machine) // row_bytes, 1), columns)
    return nc, "l3" if row_bytes * round_up(nc, columns) > machine.l2_bytes else "l2"


def _room(machine: CpuMachine) -> int:
    """Bytes of a block of B."""
    from_l3 = streams_from_l3(machine)
    return int(machine.l3_bytes * L3_SHARE) if from_l3 else machine.l2_bytes // 2


def slice_of(gemm: Gemm, machine: CpuMachine) -> int:
    """Elements of k at a time: equal slices of whole iterations, where a core asks for lines.

    Where B lies in L2 they are longer if all columns of it still fit, and the rows of A that meet
    them into L1: on Zen 5 with AVX-512 16384 x 128 x 1000 is 3 % faster without slices, 1024 x 128
    x 1024 1 %, and none is slower. Where it streams by from L3 a row of A is shorter than a way of
    L1, and slices are so short that blocks have whole rows of B, but not shorter than usual, or
    twice that by many rows: on Zen 4 3000 cubed is 0.4 to 0.8 % faster by k of 500 than of 1000,
    and 200 and 300 x 3072 x 768 2 to 4 % by 384 than by 768.
    """
    item = item_bytes(gemm)
    usual = K_SLICE_BYTES // item
    if machine.vector_registers < MANY_REGISTERS:
        return balanced(gemm.k, usual, K_STEPS_PER_ITERATION)
    is_far = bytes_of(gemm, "c") >= FAR_C * machine.l2_bytes
    all_columns = machine.l2_bytes // 2 // (gemm.n * item)
    most_of_a = int(A_IN_L1 * machine.l1_bytes) // (PACKED_ROWS * item)
    most = max(usual * (2 if is_far else 1), min(all_columns, most_of_a))
    if streams_from_l3(machine):
        whole_rows = _room(machine) // (gemm.n * item)
        least = usual * (2 if gemm.m > FUSED_ROWS else 1)
        most = min((L1_WAY_BYTES - 1) // item, max(whole_rows, least))
    if gemm.k <= most:
        return gemm.k
    equal = equal_slice(gemm.k, most, LEAST_SLICE * usual / most)
    return equal or balanced(gemm.k, most, K_STEPS_PER_ITERATION)


def _panel_by_panel(gemm: Gemm, machine: CpuMachine, kc: int) -> Iterator[str]:
    """An A that stays in L2: all of its rows meet a panel of B, which is packed into L1 for them.

    3 x 32 reads B less often than 6 x 16, and A streams by in 4 bytes a cycle.
    """
    lanes, most = lanes_used(gemm, machine), most_vectors(machine)
    total = -(-gemm.n // lanes)
    vectors = min((min(v, total) for v in (most, most - 1)), key=lambda v: round_up(total, v))
    rows = min(most_rows(machine, vectors), max(gemm.m, 1))
    columns = min(vectors * lanes, gemm.n)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    yield f"tile{{loops=n sizes={columns}{peel_loop(gemm.n, columns)}}}"
    yield f"promote{{operand=b to=l1 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={rows}{last_rows(gemm.m, rows, machine)}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def asks_in_sums(gemm: Gemm, machine: CpuMachine, kc: int) -> bool:
    """Whether all slices of k are whole iterations, of enough multiply-adds to ask for lines too.

    A fifth of the instructions of a 6 x 16 tile of AVX2 would say which line it is.
    """
    is_whole = gemm.k % kc == 0 and kc % K_STEPS_PER_ITERATION == 0
    return is_whole and machine.vector_registers >= MANY_REGISTERS


def packed_both(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2; a sliver of B is as large as L1 and streams by."""
    tile = packed_tile(gemm, machine)
    item = item_bytes(gemm)
    kc = balanced(gemm.k, machine.l1_bytes // (tile.columns * item), K_STEPS_PER_ITERATION)
    mc = balanced(gemm.m, max(machine.l3_bytes // 8 // (kc * item), 1), tile.rows)
    columns = min(tile.columns, gemm.n)
    nc = balanced(gemm.n, max(machine.l2_bytes * 3 // 8 // (kc * item), 1), columns)
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{tile.rows}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"


PACKED = ScheduleClass(name="packed", loops=_loops)


PACKED_BOTH = ScheduleClass(name="packed both", loops=packed_both)
