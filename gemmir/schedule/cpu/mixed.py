"""Schedules for CPUs of products that are summed in a wider type than their factors have.

*In panels*: the CPU adds several products of neighbours to a sum at once, and both operands are
packed into panels of that depth; bytes that it cannot multiply so as they are become i16 there, of
which every CPU adds two. Floats of 16 bits that it cannot multiply so become f32 there. *Widened*:
few rows; elements are widened where they are read. *Stored*: rows by a B that is stored n x k are
multiplied where it lies, with lanes along k, of which the CPU adds several at once, too. CPUs with
matrix tiles have a class of their own (`in_tiles.py`).

x86 multiplies bytes of which one has no sign; so A of i8 is made one (`unsign`), and sums of the
columns of B are taken off: 1.3 times as fast as 128 taken off each product (measured on Zen 5).

A C that is narrower than its sums is written once: k is not cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gemmir.dtypes import ELEMENTS
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.edges import peel, peel_loop
from gemmir.schedule.cpu.few_rows import has_long_rows
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    has_narrow_c,
    is_n_x_k,
    lanes_used,
    round_up,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass, microkernel_along_k
from gemmir.schedule.cpu.tiles import RegisterTile, packed_tile

FEW_ROWS = 4
"""Up to this many rows every element of B is read once, and packing it costs more than it saves."""

FEW_ROWS_OF_BYTES = 2
"""The same of bytes, which panels multiply four at a time. On Zen 5 by 64 to 4096 columns and k, 4
rows are 0.9 to 1.8 times as fast in panels, 3 rows 0.8 to 1.6 and 2 rows 0.6 to 1.3 times."""

STORED_ROWS = 16
"""Up to this many rows a B that is stored n x k is read where it lies if its floats are widened: on
Zen 5 by 256 to 4096 columns and k, f16 is 7 to 1.2 times as fast so with AVX-512, and floats are 7
to 1.1 times with AVX2."""

ADDED_CYCLES = 2
"""What it takes to add up the lanes of an element of C with vectors of whole lines, of which each
has to be made up for by a copy of `COPIED_CYCLES` for each element of B. On Zen 4 rows by 64 to
4096 columns and k are as fast in panels from m = k / 16 on for bytes, and from k / 5 for bf16."""

COPIED_CYCLES = {1: 1 / 8, 2: 2 / 5}
"""Of an element of B of so many bytes that is turned on its way into a panel."""

PAIRED_ROWS = 32
PAIRED_K = 8
RAGGED_K = 32
"""Bytes that become i16, B in registers each time it is read: one row of A for so many of k, for
so many more where the last vector along k is not whole, and so many rows at most. Measured as
above with AVX2."""

STORED_SQUARE = 4
"""Rows of A at a time, by as many columns as registers hold."""

FAR = 8
"""Of a B that takes more than one in so many parts of L3 the next rows are asked for, line by line.
On Zen 4 rows by 4096 x 4096 take 0.6 to 0.9 of the time so, and by 2 MiB as long or 1.1 times."""

STREAM_K = 8
"""Rows of B that are streamed together: as many streams as prefetchers follow."""

SUMS_OF_PAIRS = 2
"""One in so many registers holds a sum where products are added by another instruction: a product
then needs one too. Panels of 6 rows, which leave no register, read B from L2 less often: on Zen 5
with AVX2 1024 cubed is 1.09 times as fast so, other squares of 256 to 2048 as fast or up to 1 %
faster."""

FEW_FILLED = 64
"""One row of C in so many may be filling for the taller panels: at 64 and 100 rows, where one in 20
is, they are slower."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """How elements are multiplied: what they become in panels, and how many neighbours at once."""

    as_: str | None
    depth: int
    item_bytes: int

    @property
    def layout(self) -> str:
        """What follows the width of a panel in its layout."""
        return f"x{self.depth}" if self.depth > 1 else ""

    @property
    def conversion(self) -> str:
        """What `promote` is told of the elements."""
        return f" as={self.as_}" if self.as_ else ""


def factors_of(gemm: Gemm, machine: CpuMachine) -> Factors:
    """The unit of `machine` for the elements of `gemm`."""
    pair = (gemm.element.name, gemm.element_b.name)
    if machine.adds_products(*pair):
        item = gemm.element.item_bytes
        return Factors(as_=None, depth=4 // item, item_bytes=item)
    if gemm.accumulator.is_integer:
        return Factors(as_="i16", depth=2, item_bytes=2)
    return Factors(as_="f32", depth=1, item_bytes=ELEMENTS["f32"].item_bytes)


def is_mixed(gemm: Gemm) -> bool:
    """Whether products are summed in a wider type than that of both factors."""
    return gemm.product.is_mixed and not gemm.has_weights


def has_few_rows(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether so few rows read a B that is not stored n x k that panels do not pay."""
    few = FEW_ROWS_OF_BYTES if gemm.accumulator.is_integer else FEW_ROWS
    return gemm.m <= few and not is_n_x_k(gemm)


def _adds_apart(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether products of i16 are added by an instruction of their own."""
    return factors_of(gemm, machine).as_ == "i16" and not machine.adds_products("u8", "i8")


def panel_tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """That of f32, or a lower one where products have registers of their own.

    Panels are filled up to whole tiles, whose rows are of even sizes therefore: 12 rows by 8 would
    be multiplied as 16.
    """
    tile = packed_tile(gemm, machine)
    most = tile.rows
    if _adds_apart(gemm, machine):
        rows = machine.vector_registers // SUMS_OF_PAIRS // tile.vectors
        if (round_up(gemm.m, tile.rows) - gemm.m) * FEW_FILLED > gemm.m:
            most = min(tile.rows, rows)
    return replace(tile, rows=balanced(max(gemm.m, 1), most, 1))


def fits_panels(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the panels of all of k, which a narrow C asks for, have room in the last cache."""
    tile, item = panel_tile(gemm, machine), factors_of(gemm, machine).item_bytes
    widest = max(tile.rows, tile.columns) * gemm.k * item
    return not has_narrow_c(gemm) or widest <= machine.l3_bytes // 4


def is_stored(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether rows of B lie along k, and those of A are few."""
    across = is_n_x_k(gemm) and broadcasts_from_memory(machine)
    return across and gemm.m <= _stored_rows(gemm, machine)


def _stored_rows(gemm: Gemm, machine: CpuMachine) -> int:
    """How many rows of A take less time by a B where it lies than in panels."""
    factors = factors_of(gemm, machine)
    if factors.depth == 1:
        return STORED_ROWS if gemm.k >= 2 * machine.lanes(gemm.accumulator.item_bytes) else 0
    if factors.as_ is None:
        most = int(gemm.k * COPIED_CYCLES[factors.item_bytes] / ADDED_CYCLES)
    else:
        is_whole = gemm.k % machine.lanes(factors.item_bytes) == 0
        most = min(gemm.k // (PAIRED_K if is_whole else RAGGED_K), PAIRED_ROWS)
    row_bytes = gemm.k * factors.item_bytes
    near, far = machine.l2_bytes // 2 // row_bytes, machine.l3_bytes // 4 // row_bytes
    return min(most, max(near, min(far, STORED_SQUARE)))


def _stored(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """A vector along k for each element of C, of an A in rows of their own, which may be wider.

    A few rows of B are read at a time, each of which meets all of A. Where B comes from afar, the
    next rows are asked for meanwhile.
    """
    factors = factors_of(gemm, machine)
    room = machine.vector_registers - 1
    rows = balanced(gemm.m, STORED_SQUARE, 1)
    columns = min((room - rows) // (rows + 1), machine.vector_registers // 4, gemm.n)
    fits = gemm.m * gemm.k * factors.item_bytes <= machine.l2_bytes // 2
    space = "l2" if fits else "l3"
    yield f"promote{{operand=a to={space} layout=panel:1{factors.conversion}}}"
    yield f"tile{{loops=n,m sizes={columns},{rows}{peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"
    line = CACHE_LINE_BYTES // gemm.element_b.item_bytes
    if gemm.k % line == 0 and _asks_for_rows(gemm, machine, columns):
        yield f"tile{{loops=k sizes={line}}}"
        yield "prefetch{operand=b loop=n ahead=1 to=l2 during=k}"


def _asks_for_rows(gemm: Gemm, machine: CpuMachine, columns: int) -> bool:
    """Whether B comes from afar, and L2 holds its next rows beside these."""
    row_bytes = gemm.k * gemm.element_b.item_bytes
    is_far = gemm.n * row_bytes > machine.l3_bytes // FAR and gemm.n > columns
    return is_far and 2 * columns * row_bytes <= machine.l2_bytes // 2


def _microkernel_of_stored(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """A vector along k for each element of C, of as many products at once as the CPU adds."""
    depth = factors_of(gemm, machine).depth
    whole = microkernel_along_k(gemm, machine)
    if depth == 1:
        return whole
    return replace(whole, unit="dot", depth=depth, is_unsigned=takes_sign(gemm, machine, depth))


def takes_sign(gemm: Gemm, machine: CpuMachine, depth: int) -> bool:
    """Whether bytes that have a sign are multiplied: of two x86 takes one without."""
    are_signed = depth == 4 and gemm.element.name == gemm.element_b.name == "i8"
    return are_signed and machine.llvm_triple.startswith("x86_64")


def _in_panels(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Panels of A in L3 and blocks of B in L2, as products of f32 have them."""
    tile, factors = panel_tile(gemm, machine), factors_of(gemm, machine)
    item, columns = factors.item_bytes, min(tile.columns, gemm.n)
    step = 4 * factors.depth
    kc = gemm.k
    if not has_narrow_c(gemm):
        kc = min(balanced(gemm.k, machine.l1_bytes // (tile.columns * item), step), gemm.k)
    mc = balanced(gemm.m, max(machine.l3_bytes // 8 // (kc * item), 1), tile.rows)
    nc = balanced(gemm.n, max(machine.l2_bytes * 3 // 8 // (kc * item), 1), columns)
    space = "l2" if nc * kc * item <= machine.l2_bytes // 2 else "l3"
    how = f"{factors.layout}{factors.conversion}"
    yield f"tile{{loops=m,k sizes={mc},{kc}}}"
    yield f"promote{{operand=a to=l3 layout=panel:{tile.rows}{how}}}"
    yield f"tile{{loops=n sizes={nc}}}"
    yield f"promote{{operand=b to={space} layout=panel:{columns}{how}}}"
    yield f"tile{{loops=m,n sizes={tile.rows},{columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"


def microkernel_of_panels(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """As much of k at once as the panels have.

    Where products are added by an instruction of their own, k is not unrolled: LLVM's code
    generator adds such products of several steps to each other first, and has no registers for them
    (measured on AVX2: 4 x 16 is 1.04 times as fast, 6 x 16 1.2 times).
    """
    depth = factors_of(gemm, machine).depth
    if depth == 1:
        return Microkernel()
    return Microkernel(
        steps=1 if _adds_apart(gemm, machine) else K_STEPS_PER_ITERATION,
        unit="dot",
        depth=depth,
        is_unsigned=takes_sign(gemm, machine, depth),
    )


def is_long_and_far(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B takes more than one in `FAR` parts of L3, and its rows are long."""
    is_far = bytes_of(gemm, "b") > machine.l3_bytes // FAR
    return is_far and has_long_rows(gemm, machine)


def _sums_in_cache(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether few rows sum a narrow C in a cache, in the type of its sums, and round it at last.

    Else k cannot be cut, and a tile reads a short piece of all rows of B, each of another page:
    on Zen 4 1 to 4 rows by 4096 x 4096 of bf16 and of f16 are 1.1 to 2.3 times as fast so, 2.7 to
    4.1 times where arrays do not begin on a line.
    """
    few = has_few_rows(gemm, machine) and gemm.k > STREAM_K
    return has_narrow_c(gemm) and few and is_long_and_far(gemm, machine)


def _widened(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Elements are widened where they are read; B is read once where rows are few."""
    lanes = lanes_used(gemm, machine)
    rows = max(min(gemm.m, FEW_ROWS), 1)
    vectors = max(min((machine.vector_registers - 1) // (rows + 1), 4), 1)
    columns = min(vectors * lanes, -(-max(gemm.n, 1) // lanes) * lanes)
    in_cache = _sums_in_cache(gemm, machine)
    if in_cache:
        kept = machine.l2_bytes // 2 // (rows * gemm.accumulator.item_bytes)
        block = balanced(gemm.n, kept, columns)
        if block < gemm.n:
            yield f"tile{{loops=n sizes={block}{peel_loop(gemm.n, block)}}}"
        yield f"promote{{operand=c to=l2 layout=panel:{columns}}}"
    if in_cache or (not has_narrow_c(gemm) and gemm.k > STREAM_K):
        yield f"tile{{loops=k sizes={STREAM_K}}}"
    yield f"tile{{loops=n,m sizes={columns},{rows}{peel(gemm, rows, columns)}}}"
    yield "promote{operand=c to=registers}"


def _microkernel_of_widened(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """All of a slice of k is an iteration where C is summed in a cache."""
    if _sums_in_cache(gemm, machine):
        return Microkernel(steps=STREAM_K)
    return Microkernel()


STORED = ScheduleClass(name="stored", loops=_stored, microkernel=_microkernel_of_stored)


IN_PANELS = ScheduleClass(name="in panels", loops=_in_panels, microkernel=microkernel_of_panels)


WIDENED = ScheduleClass(name="widened", loops=_widened, microkernel=_microkernel_of_widened)
