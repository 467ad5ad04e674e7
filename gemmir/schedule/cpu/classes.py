"""The classes of schedules for CPUs, and which of them a problem of one core is of.

*Direct*: A and B are read in place. *Transposed*: B is stored n x k, copies of it do not pay, and
lanes go along k. *Lanes along k*: so they do where one side of C is thin. *Narrow*: few columns; A
is read once. *Outer*: short k; C is written once. *Few*, *sliced*, *copied* and *streamed*: few
rows; B is read once. *Deep*: a small C and a long k; slices of k are summed into C. *Down*: A is
stored k x m, and slices of k are read in place. *Packed*: blocks of B are packed into L2, and A is
read where it lies; *packed both*: A is packed too.

Products that are summed in a wider type than that of their factors have classes of their own, so
has a B of small integers that have scales, and so have blocks of elements that have scales.
"""

from __future__ import annotations

from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.along_k import ALONG_K, is_along_k
from gemmir.schedule.cpu.copied import COPIED, is_copied, outruns_slices
from gemmir.schedule.cpu.deep import DEEP, is_deep
from gemmir.schedule.cpu.direct import CLIPPED, DIRECT, is_close, is_in_l2
from gemmir.schedule.cpu.down import DOWN, is_down
from gemmir.schedule.cpu.few import FEW, is_few
from gemmir.schedule.cpu.in_tiles import IN_TILES, fits_tiles, has_tiles
from gemmir.schedule.cpu.mixed import (
    IN_PANELS,
    STORED,
    WIDENED,
    fits_panels,
    has_few_rows,
    is_mixed,
    is_stored,
)
from gemmir.schedule.cpu.narrow import NARROW, asks_for_a, is_narrow
from gemmir.schedule.cpu.outer import OUTER, is_outer
from gemmir.schedule.cpu.packed import PACKED, PACKED_BOTH, has_n_x_k
from gemmir.schedule.cpu.scaled import SCALED
from gemmir.schedule.cpu.schedule_class import Rules, ScheduleClass, first_of, otherwise
from gemmir.schedule.cpu.sliced import SLICED, is_sliced
from gemmir.schedule.cpu.streamed import STREAMED, is_streamed, outruns_others
from gemmir.schedule.cpu.streamed_panels import STREAMED_PANELS, goes_in_panels
from gemmir.schedule.cpu.transposed import TRANSPOSED, is_transposed
from gemmir.schedule.cpu.weights import EVEN_WEIGHTS, UNEVEN_WEIGHTS


def is_empty(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether there is nothing to compute but the epilogue or beta C."""
    return 0 in (gemm.m, gemm.n, gemm.k)


PLAIN: Final[Rules] = (
    (DIRECT, is_empty),
    (TRANSPOSED, is_transposed),
    (NARROW, asks_for_a),
    (ALONG_K, is_along_k),
    (NARROW, is_narrow),
    (OUTER, is_outer),
    (PACKED, has_n_x_k),
    (FEW, is_few),
    (DIRECT, is_in_l2),
    (STREAMED, outruns_others),
    (COPIED, outruns_slices),
    (SLICED, is_sliced),
    (COPIED, is_copied),
    (STREAMED, is_streamed),
    (DEEP, is_deep),
    (DIRECT, is_close),
    (DOWN, is_down),
    (PACKED, otherwise),
)
"""Products of one type."""

MIXED: Final[Rules] = (
    (WIDENED, is_empty),
    (IN_TILES, fits_tiles),
    (STORED, is_stored),
    (STREAMED_PANELS, goes_in_panels),
    (WIDENED, has_few_rows),
    (IN_PANELS, fits_panels),
    (WIDENED, otherwise),
)
"""Products that are summed in a wider type than that of both factors."""


def class_of(gemm: Gemm, machine: CpuMachine, *, even: bool) -> ScheduleClass:
    """The class of a problem of one core; `even` says that every core has as much.

    Otherwise some have fewer rows or columns, which panels of A and B are filled up for.
    """
    if gemm.scale_block is not None:
        return SCALED
    if not even and 0 in (gemm.n, gemm.k):
        return CLIPPED
    if gemm.has_weights:
        return first_of(EVEN_WEIGHTS if even else UNEVEN_WEIGHTS, gemm, machine)
    if is_mixed(gemm):
        packed = IN_TILES if has_tiles(gemm, machine) else IN_PANELS
        return first_of(MIXED, gemm, machine) if even else packed
    return plain_class_of(gemm, machine) if even else PACKED_BOTH


def plain_class_of(gemm: Gemm, machine: CpuMachine) -> ScheduleClass:
    """The class of a product of one type on one core."""
    return first_of(PLAIN, gemm, machine)
