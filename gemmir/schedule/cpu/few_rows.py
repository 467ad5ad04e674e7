"""What schedules for few rows of A share: where B comes from, and how long its rows are."""

from __future__ import annotations

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import bytes_of, item_bytes

SLICE_K = 256
"""Rows of B that a tile of columns takes at once, at least: C is added to seldom, and the tile
stays in L2 for the next rows of A (measured on Zen 5)."""

LEAST_WAITING = 12
"""More rows wait for a B that is in L3 with little room to spare, and for short rows of one in
memory."""

SHORT_BYTES = 4096
"""A row of B that is short then: a page."""

LEAST_ROW_BYTES = 384
"""The least length of a row of B that few rows of A meet in slices: 96 elements of f32, and twice
as many where a vector is no line."""

MANY_ROWS = 32
"""From more rows on, there is time enough between two tiles of B to ask for one from memory."""

STREAM_BYTES = 1024
"""The least length of a row of B that is streamed: as far as it is asked for ahead."""


def has_long_rows(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether rows of B are long enough to be streamed, and half of L2 does not hold B."""
    is_long = gemm.n * item_bytes(gemm) >= STREAM_BYTES
    return is_long and bytes_of(gemm, "b") > machine.l2_bytes // 2


def is_near(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B lies in L3, of which half is left for what else there is."""
    return bytes_of(gemm, "b") <= machine.l3_bytes // 2


def is_far(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether B comes from memory: it is larger than L3."""
    return bytes_of(gemm, "b") > machine.l3_bytes
