"""Schedules for CPUs of operands whose blocks have scales."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.tiles import packed_tile


def _loops(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Register tiles inside of one block of scales; those of a slice of k and of all of it."""
    tile = packed_tile(gemm, machine)
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


SCALED = ScheduleClass(name="scaled", loops=_loops)
