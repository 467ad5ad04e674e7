"""Schedules for CPUs of a narrow B: A goes by once where it lies, slices of B stay in L2.

Where A comes from memory, each line of a tile of it is asked for while the tile before is
multiplied (`asks_for_a`): to an L1 that has room for it, in slices of k whose B stays there too, or
else to L2, in whole rows. Otherwise, with vectors of whole cache lines, a tile holds all of a row
of C, and slices are as short as requests that come together allow (`_in_l1`).

Vectors have half their lanes where last columns fill no more and halves are as fast (`_lanes`).
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.deep import deep_microkernel
from gemmir.schedule.cpu.edges import peel_loop
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_STEPS_PER_ITERATION,
    balanced,
    broadcasts_from_memory,
    bytes_of,
    has_masks,
    item_bytes,
    lanes_used,
    space_of_next_rows,
)
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.tiles import (
    STREAMS,
    RegisterTile,
    fills_half,
    most_rows,
    streaming_tile,
)

NARROW_VECTORS = 4
"""Up to this many vectors of columns: each element of A is used so often, too seldom for a copy."""

SLICE_BYTES = 512
"""Of each row of A at a time, where B stays in L1: of 8 rows that are as many lines as a core asks
for at once. On Zen 5, 4096 x 32, 48 and 64 x 4096 in f32 are 1.14 to 1.21 times as fast as with B
in L2, and with twice the bytes hardly faster."""

LEAST_ASKED_BYTES = 512
"""Of each row of A at a time, where lines are asked for one by one. Each slice costs C, which comes
and goes with it."""


def is_narrow(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: few columns, and an A that is larger than L2.

    Less than a vector has the lanes of more than half, of an A whose lines are asked for: with
    AVX-512 on Zen 5 4096 x 12 and 15 x 2560 in f32 are 1.5 and 1.6 times as fast as with lanes
    along k, 9 x 2560 1.28 and 10 x 2560 0.92 times, and 4096 x 7 x 1280 in f64 1.7.
    """
    lanes = machine.lanes(item_bytes(gemm))
    is_asked = has_masks(machine) and _asked_depth(gemm, machine) > 0
    least = lanes // 2 + 1 if is_asked else lanes
    large = bytes_of(gemm, "a") > machine.l2_bytes
    fits = least <= gemm.n <= NARROW_VECTORS * lanes
    is_plain = not gemm.trans_a and not gemm.trans_b
    return large and fits and is_plain and gemm.m > 8 * gemm.n


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Slices of k, of which B takes half of L2; in them a few whole rows of A at a time."""
    depth = _asked_depth(gemm, machine)
    if depth:
        yield from _asked(gemm, machine, depth)
        return
    if _stays_in_l1(gemm, machine):
        yield from _in_l1(gemm, machine)
        return
    tile = _tile(gemm, machine)
    rows, columns = tile.rows, tile.columns
    most = machine.l2_bytes // 2 // (gemm.n * item_bytes(gemm))
    kc = balanced(gemm.k, most, K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if gemm.n > columns:
        yield f"promote{{operand=b to=l2 layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={rows}{peel_loop(gemm.m, rows)}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "promote{operand=c to=registers}"


def _lanes(gemm: Gemm, machine: CpuMachine) -> int:
    """Lanes of a vector: half of those there are, where the last columns fill no more.

    On Zen 4 in f32, A from L3, 768 x 20 x 2560 is 1.25 times as fast so, 4096 x 24 x 1024 1.25,
    500 x 40 x 2000 1.18, 1000 x 52 x 1000 1.12; from memory 4096 x 20 x 4096 1.15 to 1.23.
    """
    lanes = lanes_used(gemm, machine)
    return lanes // 2 if fills_half(gemm, machine) else lanes


def _tile(gemm: Gemm, machine: CpuMachine) -> RegisterTile:
    """Streams of whole vectors, or all columns of half ones."""
    lanes = _lanes(gemm, machine)
    if lanes == lanes_used(gemm, machine):
        return streaming_tile(gemm, machine)
    vectors = -(-gemm.n // lanes)
    return RegisterTile(rows=_rows(gemm, machine, vectors), vectors=vectors, lanes=lanes)


def _rows(gemm: Gemm, machine: CpuMachine, vectors: int) -> int:
    return min(STREAMS, most_rows(machine, vectors), gemm.m)


def _asked_depth(gemm: Gemm, machine: CpuMachine) -> int:
    """Elements of k in a slice of whole lines of A, of which B takes half of L1; 0 for none.

    A comes from memory: from L3 the prefetchers bring it in time. Where its next rows do not stay
    in L1, B takes half of L2, and whole rows are fastest: on Zen 4 4096 x 16 x 4096 in f32 has 79
    GFLOP/s in slices by L1, 109 in slices by L2, and 113 in whole rows.
    """
    item = item_bytes(gemm)
    line, least = CACHE_LINE_BYTES // item, LEAST_ASKED_BYTES // item
    is_roomy = space_of_next_rows(machine) == "l1"
    room = machine.l1_bytes if is_roomy else machine.l2_bytes
    most = max(room // 2 // (gemm.n * item), least) // line * line
    fewest = most // 2 if is_roomy else min(most // 2, max(gemm.k, least))
    is_far = bytes_of(gemm, "a") > machine.l3_bytes // 2
    sizes = range(min(most, gemm.k), fewest - 1, -line)
    is_usual = broadcasts_from_memory(machine) and gemm.leading("a") % line == 0
    fits = is_far and is_usual and gemm.m >= 2 * STREAMS
    return next((size for size in sizes if gemm.k % size == 0), 0) if fits else 0


def asks_for_a(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether A comes from memory, and each of its lines is asked for by itself."""
    return is_narrow(gemm, machine) and _asked_depth(gemm, machine) > 0


def _asked(gemm: Gemm, machine: CpuMachine, depth: int) -> Iterator[str]:
    """Slices of k, and in them rows of A, each line of which the tile before asks for.

    On Zen 5, in GFLOP/s before and so, 4096 x n x 4096 in f32: with AVX2 8 columns 63 and 94, 16
    113 and 129, 32 120 and 133; with AVX-512 16 columns 165 and 173, 32 218 and 250, 64 246 and
    261.
    """
    item, lanes = item_bytes(gemm), _lanes(gemm, machine)
    vectors = -(-gemm.n // lanes)
    rows, columns = _rows(gemm, machine, vectors), vectors * lanes
    if depth < gemm.k:
        yield f"tile{{loops=k sizes={depth}}}"
    if gemm.leading("b") != columns:
        space = "l1" if depth * columns * item <= machine.l1_bytes else "l2"
        yield f"promote{{operand=b to={space} layout=panel:{columns}}}"
    yield f"tile{{loops=m sizes={rows}{peel_loop(gemm.m, rows)}}}"
    yield f"tile{{loops=n sizes={columns}}}"
    yield "promote{operand=c to=registers}"
    yield f"tile{{loops=k sizes={CACHE_LINE_BYTES // item}}}"
    yield f"prefetch{{operand=a loop=m ahead=1 to={space_of_next_rows(machine)} during=k}}"


def _stays_in_l1(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B is cut into slices for L1: where A comes from memory, which bears no wait for L2.

    Each slice of k costs C, which comes and goes with it, so that where A stays in L3 this is 2 to
    5 % slower.
    """
    several = gemm.n > lanes_used(gemm, machine)
    from_memory = bytes_of(gemm, "a") > machine.l3_bytes // 2
    return machine.vector_bytes >= CACHE_LINE_BYTES and several and from_memory


def _in_l1(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Short slices of k: B in L1, and of A a few pieces of rows, asked for one tile ahead."""
    lanes = _lanes(gemm, machine)
    vectors = -(-gemm.n // lanes)
    rows = _rows(gemm, machine, vectors)
    kc = balanced(gemm.k, SLICE_BYTES // item_bytes(gemm), K_STEPS_PER_ITERATION)
    if kc < gemm.k:
        yield f"tile{{loops=k sizes={kc}}}"
    if gemm.leading("b") != vectors * lanes:
        yield f"promote{{operand=b to=l1 layout=panel:{vectors * lanes}}}"
    yield f"tile{{loops=m sizes={rows}{peel_loop(gemm.m, rows)}}}"
    yield f"tile{{loops=n sizes={vectors * lanes}}}"
    if gemm.m >= 2 * rows:
        yield "prefetch{operand=a loop=m ahead=1}"
    yield "promote{operand=c to=registers prefetch=true}"


def _microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    lanes = _lanes(gemm, machine)
    if lanes < lanes_used(gemm, machine) or asks_for_a(gemm, machine):
        return Microkernel(lanes=lanes)
    return deep_microkernel(gemm, machine)


NARROW = ScheduleClass(name="narrow", loops=_loops, microkernel=_microkernel)
