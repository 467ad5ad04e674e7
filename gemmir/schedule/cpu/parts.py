"""Parts of C that have loops of their own on a CPU: what fills whole tiles, and last columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.direct import DIRECT
from gemmir.schedule.cpu.last_columns import (
    LAST_COLUMNS,
    in_panels_of,
    is_copied_apart,
    last_columns,
    wider_columns,
)
from gemmir.schedule.cpu.mixed import is_mixed
from gemmir.schedule.cpu.model import lanes_used, with_size
from gemmir.schedule.cpu.outer import OUTER
from gemmir.schedule.cpu.packed import PACKED
from gemmir.schedule.cpu.schedule_class import ScheduleClass
from gemmir.schedule.cpu.swapped import SWAPPED, swapped, swapped_columns


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some columns of C, and the class of their schedule; `is_swapped` if of the transpose."""

    gemm: Gemm
    of: ScheduleClass
    is_swapped: bool = False


def parts_of(gemm: Gemm, machine: CpuMachine) -> tuple[Part, Part] | None:
    """Whole vectors or panels, and behind them last columns; None where C is not cut."""
    is_one = gemm.groups is None and gemm.scale_block is None and 0 not in (gemm.m, gemm.n, gemm.k)
    if not is_one or gemm.has_weights or is_mixed(gemm):
        return None
    found, last = plain_class_of(gemm, machine), last_columns(gemm, machine)
    if found is DIRECT and last:
        return _cut(gemm, last, DIRECT, LAST_COLUMNS)
    if found is DIRECT and (last := swapped_columns(gemm, machine)):
        first, apart = _cut(gemm, last, DIRECT, SWAPPED)
        return first, replace(apart, gemm=swapped(apart.gemm), is_swapped=True)
    if found not in (PACKED, OUTER):
        return None
    if last and found is PACKED and _saves_a_panel(gemm, machine, last):
        return _cut(gemm, last, PACKED, LAST_COLUMNS)
    wider = wider_columns(gemm, machine)
    if not wider:
        return None
    parts = _cut(gemm, wider, found, found)
    columns = sum(_columns_of(part.gemm, machine, found) for part in parts)
    return parts if columns < _columns_of(gemm, machine, found) else None


def _cut(gemm: Gemm, last: int, of: ScheduleClass, of_last: ScheduleClass) -> tuple[Part, Part]:
    return (
        Part(gemm=with_size(gemm, {"n": gemm.n - last}), of=of),
        Part(gemm=with_size(gemm, {"n": last}), of=of_last),
    )


def _columns_of(gemm: Gemm, machine: CpuMachine, found: ScheduleClass) -> int:
    """Columns that are computed, those that fill a last panel included."""
    return in_panels_of(gemm, found.loops(gemm, machine))


def _saves_a_panel(gemm: Gemm, machine: CpuMachine, last: int) -> bool:
    """Whether a vector less is computed of a packed product that has no last columns."""
    first = with_size(gemm, {"n": gemm.n - last})
    if not is_copied_apart(gemm, machine) or plain_class_of(first, machine) is not PACKED:
        return False
    saved = _columns_of(gemm, machine, PACKED) - _columns_of(first, machine, PACKED)
    return saved >= lanes_used(gemm, machine)
