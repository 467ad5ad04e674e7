"""The schedule for a CPU: which class a problem is of, and the loops around it.

`class_of` chooses among these, in files of their names. *Direct*: A and B are read in place.
*Transposed*: B is stored n x k, copies of it do not pay, and lanes go along k. *Along k*
(`along_k.py`): one side of C is thin, and lanes go along k. *Narrow*: few columns; A is read
once. *Outer*: short k; C is written once. *Few*, *sliced*, *copied* and *streamed*: few rows; B is
read once. *Deep*: a small C and a long k; slices of k are summed into C. *Down*: A is stored k x m,
and slices of k are read in place. *Packed*: blocks of B are packed into L2, and A is read where it
lies; *packed both*: A is packed too.

Other problems have schedules of their own: sums wider than their factors (`mixed.py`),
a B of small integers that have scales (`weights.py`), scales of blocks (`scaled.py`), sizes
that are known in a call only (`runtime.py`), and a B packed before (`prepacked.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.along_k import ALONG_K, along_k, is_along_k, lane_steps
from gemmir.schedule.cpu.copied import copied, is_copied, outruns_slices
from gemmir.schedule.cpu.deep import deep, is_deep
from gemmir.schedule.cpu.direct import (
    clipped,
    direct,
    is_close,
)
from gemmir.schedule.cpu.down import down, is_down
from gemmir.schedule.cpu.few import few, is_few, steps_of_few
from gemmir.schedule.cpu.last_columns import (
    along_last,
    in_panels_of,
    is_copied_apart,
    last_columns,
    wider_columns,
)
from gemmir.schedule.cpu.mixed import (
    in_panels,
    is_unsigned_by,
    mixed_class,
    steps_of_sums,
    stored,
    unit_of,
)
from gemmir.schedule.cpu.model import (
    CACHE_LINE_BYTES,
    K_SLICE_BYTES,
    K_STEPS_PER_ITERATION,
    item_bytes,
    lanes_of_sum,
    lanes_used,
    round_up,
    rows_in_l1,
    with_size,
)
from gemmir.schedule.cpu.narrow import asks_for_a, is_narrow, narrow
from gemmir.schedule.cpu.outer import is_outer, outer
from gemmir.schedule.cpu.packed import packed, packed_both
from gemmir.schedule.cpu.prepacked import prepacked
from gemmir.schedule.cpu.runtime import runtime_passes
from gemmir.schedule.cpu.scaled import scaled
from gemmir.schedule.cpu.sliced import has_short_rows, is_sliced, sliced, steps_of_slices
from gemmir.schedule.cpu.streamed import (
    STREAM_BYTES,
    STREAM_ROWS,
    outruns_others,
    steps_of,
    streamed,
)
from gemmir.schedule.cpu.swapped import (
    has_few_columns,
    is_column,
    is_turned,
    swapped,
    turned,
    turned_cycles,
)
from gemmir.schedule.cpu.tiles import packed_tile
from gemmir.schedule.cpu.transposed import cycles_with_rows, is_transposed, transposed
from gemmir.schedule.cpu.weights import (
    WEIGHT_STEPS_PER_ITERATION,
    are_dealt,
    steps_along_k,
    weights,
    weights_along_k,
)
from gemmir.schedule.cpu.wide_reads import direct_steps, wide_reads, wide_reads_of_slices

COPIED = 16
"""Multiply-adds that take as long as an element of B that is packed, or one of A that is read for
the first time: at 1024 cubed on Zen 5, half of the rows are 1.4 % slower than half of the columns,
since each of two cores then packs all of B."""


def cpu_passes(
    gemm: Gemm,
    machine: CpuMachine,
    threads: int,
    *,
    fuse: bool,
    expand: bool,
    version: bool = False,
) -> Iterator[str]:
    """The passes for `gemm` on `threads` cores of `machine`, each as text.

    A `version` is one of several of a problem, whose arrays have to stay as they are.
    """

    def end(part: Gemm, steps: int) -> Iterator[str]:
        return _end(part, machine, steps, fuse=fuse, expand=expand)

    if gemm.unknown or gemm.unknown_factors:

        def static(part: Gemm) -> Iterator[str]:
            return cpu_passes(part, machine, threads, fuse=fuse, expand=expand, version=True)

        yield from runtime_passes(gemm, machine, threads, static=static, end=end)
        return
    threads = 1 if 0 in (gemm.m, gemm.n, gemm.k) else threads
    whole = threads == 1 and not version
    is_swapped = whole and _is_swapped(gemm, machine)
    by_lanes = is_swapped and not is_column(gemm)
    if is_swapped:
        yield "swap-operands"
        gemm = swapped(gemm)
    last, along = _last_part(gemm, machine) if whole and not is_swapped else (0, False)
    if last:
        yield from _parts(gemm, machine, last, along=along, fuse=fuse, expand=expand)
        return
    yield from _outer(gemm, machine, threads)
    share, even = _share(gemm, machine, threads)
    shape = class_of(share, machine) if even else packed_both
    if by_lanes:
        shape = direct
    elif _is_mixed(gemm):
        shape = mixed_class(share, machine) if even else in_panels
    elif gemm.groups is not None:
        shape = packed_both
    if gemm.groups is not None and 0 in (gemm.n, gemm.k):
        shape = clipped
    if gemm.scale_block is not None:
        shape = scaled
    unit, depth = unit_of(gemm, machine, shape)
    is_direct = shape is direct and not gemm.has_weights
    steps = direct_steps(share, machine) if is_direct else K_STEPS_PER_ITERATION
    if shape is streamed:
        steps = steps_of(share, machine)
    elif shape is few:
        steps = steps_of_few(share, machine)
    elif shape is sliced:
        steps = steps_of_slices(share, machine)
    along = shape is along_k
    dealt = gemm.has_weights and are_dealt(share, machine, even=even)
    if gemm.has_weights:
        along, steps = weights_along_k(share, machine), WEIGHT_STEPS_PER_ITERATION
        yield from weights(share, machine, even=even)
    else:
        yield from (turned if by_lanes else shape)(share, machine)
    if dealt:
        yield from _end(gemm, machine, 1, fuse=fuse, expand=expand, dealt=True)
    elif shape in (transposed, stored) and not gemm.has_weights:
        yield from _end(gemm, machine, 1, fuse=fuse, expand=expand, along=ALONG_K)
    elif along:
        steps = (steps_along_k if gemm.has_weights else lane_steps)(share, machine)
        yield from _end(gemm, machine, steps, fuse=fuse, expand=expand, along=ALONG_K)
    elif depth > 1:
        steps = steps_of_sums(share, machine, steps)
        unsigned = is_unsigned_by(gemm, machine, shape)
        yield from _end(
            gemm,
            machine,
            steps,
            fuse=fuse,
            expand=expand,
            unit=unit,
            depth=depth,
            unsigned=unsigned,
        )
    elif is_direct or (_has_slices(share, machine, shape) and not gemm.has_weights):
        reads = wide_reads if is_direct else wide_reads_of_slices
        wide = reads(share, machine)
        yield from _end(gemm, machine, steps, fuse=fuse, expand=expand, wide=wide)
    else:
        yield from end(gemm, steps)


def _has_slices(gemm: Gemm, machine: CpuMachine, shape: object) -> bool:
    """Whether a tile reads slices of k, of an A whose lines it does not ask for."""
    return shape is deep or (shape is narrow and not asks_for_a(gemm, machine))


def _is_swapped(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the transpose of C is computed: not where copying A into rows takes less."""
    if not is_turned(gemm, machine):
        return False
    if not has_few_columns(gemm, machine) and class_of(swapped(gemm), machine) is not direct:
        return False
    in_rows = cycles_with_rows(gemm, machine)
    return not is_transposed(gemm, machine) or turned_cycles(gemm, machine) < in_rows


def _last_part(gemm: Gemm, machine: CpuMachine) -> tuple[int, bool]:
    """How many last columns are computed apart, and whether along k; 0 where none are."""
    is_one = gemm.groups is None and gemm.scale_block is None and 0 not in (gemm.m, gemm.n, gemm.k)
    if not is_one or gemm.has_weights or _is_mixed(gemm):
        return 0, False
    shape, last = class_of(gemm, machine), last_columns(gemm, machine)
    if shape not in (packed, outer):
        return (last if shape is direct else 0), True
    whole = in_panels_of(gemm, shape(gemm, machine))
    if last and shape is packed and is_copied_apart(gemm, machine):
        first = with_size(gemm, {"n": gemm.n - last})
        less = in_panels_of(first, packed(first, machine))
        if class_of(first, machine) is packed and whole - less >= lanes_used(gemm, machine):
            return last, True
    wider = wider_columns(gemm, machine)
    parts = (with_size(gemm, {"n": size}) for size in (gemm.n - wider, wider))
    is_less = wider and sum(in_panels_of(part, shape(part, machine)) for part in parts) < whole
    return (wider if is_less else 0), False


def _parts(
    gemm: Gemm, machine: CpuMachine, columns: int, *, along: bool, fuse: bool, expand: bool
) -> Iterator[str]:
    """Whole vectors or panels, and behind them last columns, perhaps with lanes along k."""
    shape = class_of(gemm, machine)
    first = with_size(gemm, {"n": gemm.n - columns})
    last = with_size(gemm, {"n": columns})
    yield f"part{{loop=n at={first.n}}}"
    yield from shape(first, machine)
    if shape is direct:
        steps, wide = direct_steps(first, machine), wide_reads(first, machine)
        yield from _end(first, machine, steps, fuse=fuse, expand=expand, wide=wide)
    else:
        yield from _end(first, machine, K_STEPS_PER_ITERATION, fuse=fuse, expand=expand)
    yield "otherwise"
    if along:
        yield from along_last(last, machine)
        yield from _end(last, machine, 1, fuse=fuse, expand=expand, along=ALONG_K)
    else:
        yield from shape(last, machine)
        yield from _end(last, machine, K_STEPS_PER_ITERATION, fuse=fuse, expand=expand)


def prepacked_passes(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The passes for a product of one type, without scales, whose B is packed before the calls."""
    by_batch = _shares_batch(gemm, threads)
    if gemm.batch is not None:
        yield f"tile{{loops=batch sizes=1{' over=cores' if by_batch else ''}}}"
    yield from prepacked(gemm, machine, 1 if by_batch else threads)
    is_exponential = bool({"gelu", "silu"} & set(gemm.steps))
    yield from _end(
        gemm, machine, K_STEPS_PER_ITERATION, fuse=bool(gemm.steps), expand=is_exponential
    )


def _end(
    gemm: Gemm,
    machine: CpuMachine,
    steps: int,
    *,
    fuse: bool,
    expand: bool,
    along: str | None = None,
    unit: str = "fma",
    depth: int = 1,
    unsigned: bool = False,
    dealt: bool = False,
    wide: Iterable[str] = (),
) -> Iterator[str]:
    """The passes behind loops and copies; `along` is the dimension of lanes where not n.

    The `unit` takes so much of k at once as `depth` says, of an A that is made `unsigned`; columns
    of B may be `dealt` to vectors; `wide` comes where k is unrolled.
    """
    if fuse:
        yield "fuse-epilogue"
    if unsigned:
        yield "unsign"
    lanes = lanes_of_sum(gemm, machine) if gemm.has_weights else lanes_used(gemm, machine)
    if along is None:
        yield f"vectorize{{with={unit} width={lanes}{' dealt=true' if dealt else ''}}}"
    else:
        lanes = machine.lanes(gemm.accumulator.item_bytes)
        yield f"vectorize{{with=fma width={lanes} along={along}}}"
    groups = -(-gemm.k // depth)
    if min(steps, groups) >= 2:
        yield f"unroll{{loop=k factor={min(steps, groups)}}}"
        yield from wide
    if expand:
        yield "expand-math"


def _is_mixed(gemm: Gemm) -> bool:
    """Whether products are summed in a wider type than that of both factors."""
    return gemm.product.is_mixed and not gemm.has_weights


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
    """The dimension of C that is cut, and the part of it that each core gets.

    Equal parts are better than others, then those with the least work, then those of the longer
    dimension.
    """
    extents = {"m": gemm.m} if gemm.scale_block is not None else {"m": gemm.m, "n": gemm.n}
    return min(
        ((name, _part(gemm, machine, threads, name)) for name in extents),
        key=lambda cut: (
            extents[cut[0]] % cut[1] != 0,
            _work(with_size(gemm, {cut[0]: min(cut[1], extents[cut[0]])}), machine),
            -extents[cut[0]],
        ),
    )


def _part(gemm: Gemm, machine: CpuMachine, threads: int, name: str) -> int:
    """What each core gets of a dimension: equal parts, or else whole register tiles.

    Columns of weights are not cut within a tile, nor within a byte.
    """
    tile = packed_tile(gemm, machine)
    extent, step = (gemm.m, tile.rows) if name == "m" else (gemm.n, tile.columns)
    if extent % threads == 0 and not (name == "n" and gemm.has_weights):
        return extent // threads
    return max(round_up(-(-extent // threads), step), 1)


def _work(share: Gemm, machine: CpuMachine) -> int:
    """What a core does for each step of k, in multiply-adds, with what its tiles do in vain.

    Whoever packs copies its columns of B, and reads its rows of A once for every block of them.
    """
    lanes = lanes_used(share, machine)
    if not _is_mixed(share) and class_of(share, machine) is direct:
        return share.m * round_up(share.n, lanes)
    tile = packed_tile(share, machine)
    rows, columns = round_up(share.m, tile.rows), round_up(share.n, tile.columns)
    blocks = -(-columns // max(machine.l2_bytes // 2 // K_SLICE_BYTES, 1))
    return rows * columns + COPIED * (columns + rows * blocks)


def _share(gemm: Gemm, machine: CpuMachine, threads: int) -> tuple[Gemm, bool]:
    """The problem of one core, and whether that of every core has the same size."""
    if gemm.groups is not None:
        return replace(gemm, m=gemm.rows_each, groups=None, masked=False), False
    if threads == 1 or _shares_batch(gemm, threads):
        return gemm, True
    name, size = _cut(gemm, machine, threads)
    extent = gemm.m if name == "m" else gemm.n
    return with_size(gemm, {name: min(size, extent)}), extent % size == 0


def class_of(gemm: Gemm, machine: CpuMachine) -> Callable[[Gemm, CpuMachine], Iterator[str]]:
    """The shape of schedule for a problem."""
    item = item_bytes(gemm)
    if 0 in (gemm.m, gemm.n, gemm.k):
        return direct
    if is_transposed(gemm, machine):
        return transposed
    if is_along_k(gemm, machine) and not asks_for_a(gemm, machine):
        return along_k
    if is_narrow(gemm, machine):
        return narrow
    if is_outer(gemm, machine):
        return outer
    if gemm.trans_b and min(gemm.n, gemm.k) > 1:
        return packed
    if is_few(gemm, machine):
        return few
    bytes_b = gemm.n * gemm.k * item
    small = (gemm.m + gemm.n) * gemm.k * item <= machine.l2_bytes // 2
    whole_lines = machine.vector_bytes >= CACHE_LINE_BYTES
    if small and (whole_lines or gemm.k <= rows_in_l1(gemm.leading("b") * item, machine)):
        return direct
    is_long = gemm.n * item >= STREAM_BYTES and bytes_b > machine.l2_bytes // 2
    if is_long and outruns_others(gemm, machine):
        return streamed
    if not is_long and has_short_rows(gemm, machine):
        return sliced
    copies = is_long and is_copied(gemm, machine)
    if is_long and is_sliced(gemm, machine) and not (copies and outruns_slices(gemm, machine)):
        return sliced
    if copies:
        return copied
    if is_long and gemm.m <= STREAM_ROWS:
        return streamed
    if is_deep(gemm, machine):
        return deep
    if is_close(gemm, machine):
        return direct
    return down if is_down(gemm, machine) else packed
