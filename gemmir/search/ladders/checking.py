"""Every stage of a rung against wider arithmetic, on a problem that is small enough.

The schedule is that of the rung. A problem has edges of tiles where the schedule takes them, and
whole tiles otherwise; only a kernel whose blocks stay gets fewer of them, for C is smaller too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from gemmir.check import Report, check
from gemmir.errors import ProblemError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, GpuMachine, Machine
from gemmir.passes.tile import Tile
from gemmir.passes.vectorize import Vectorize
from gemmir.schedule import Schedule
from gemmir.search.ladders.cpu import blocks_of

STAYING: Final = re.compile(r"persist\{blocks=\d+\}")

GRID: Final = (136, 264, 200)
"""Sizes for a TPU: a few blocks of one matrix unit, and what is left of one."""

WHOLE_PARTS: Final = (256, 512, 136)
"""Others, for blocks of whole parts."""

SMALL_BLOCK: Final = 64
"""Blocks of a GPU of fewer rows than this are checked at the edges of several of them. Of larger
ones whose threads each run a loop, which the evaluator takes minutes for, a part of one is; the
emulator compares whole ones when it counts."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found of a rung: the report of `gemmir.check`, of `gemm` with `schedule`.

    `report` is None where no small problem suits the schedule; `note` then says why.
    """

    gemm: Gemm
    schedule: Schedule
    report: Report | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.report is None or self.report.ok

    @property
    def text(self) -> str:
        """What was checked, in a few words."""
        if self.report is None:
            return f"not checked: {self.note}"
        size = f"{self.gemm.m} x {self.gemm.n} x {self.gemm.k}"
        if self.report.first_wrong is not None:
            row = self.report.first_wrong
            return f"WRONG at {size}: {row.name}: {row.fault}"
        run = [row for row in self.report.rows if row.status == "ok"]
        skipped = [f"{r.name} skipped: {r.message}" for r in self.report.rows if r.status != "ok"]
        return "; ".join([f"{len(run)} stages right at {size}", *skipped])


def check_schedule(gemm: Gemm, schedule: Schedule, machine: Machine, *, seed: int = 0) -> Checked:
    """Check `schedule` on the first of some small problems like `gemm` that it takes."""
    refusal = ""
    used = _smaller_grid(schedule)
    for sizes in small_sizes(gemm, schedule, machine):
        small = resized(gemm, sizes)
        try:
            report = check(small, target=machine.target, schedule=used, seed=seed, shrink=False)
        except (ScheduleError, ProblemError) as error:
            refusal = error.message
            continue
        return Checked(gemm=small, schedule=used, report=report)
    return Checked(gemm=gemm, schedule=used, note=refusal)


def _smaller_grid(schedule: Schedule) -> Schedule:
    """The same schedule with one block that stays, where some do: small problems have few tiles."""
    return Schedule.parse(STAYING.sub("persist{blocks=1}", str(schedule)))


def resized(gemm: Gemm, sizes: tuple[int, int, int]) -> Gemm:
    """`gemm` with other sizes, whose matrices lie without gaps."""
    m, n, k = (
        min(size, extent) for size, extent in zip(sizes, (gemm.m, gemm.n, gemm.k), strict=True)
    )
    names = [*(f"ld{name}" for name in "abc"), *(f"batch_stride_{name}" for name in "abc")]
    batch = None if gemm.batch is None else min(gemm.batch, 2)
    return replace(gemm, m=m, n=n, k=k, batch=batch, **dict.fromkeys(names))


def small_sizes(gemm: Gemm, schedule: Schedule, machine: Machine) -> Iterator[tuple[int, int, int]]:
    """m, n and k to check at, those with edges of tiles first."""
    if isinstance(machine, CpuMachine):
        blocks = blocks_of(gemm, machine)
        rows, columns = blocks.mr, min(blocks.nr, gemm.n)
        yield rows + 1, columns + 5, 5
        yield 2 * rows, 2 * columns, 6
        yield 2 * rows + 1, 3 * columns, 64
        yield 8 * rows, 4 * columns, 64
    elif isinstance(machine, GpuMachine):
        rows, columns = block_of(schedule)
        if rows < SMALL_BLOCK:
            yield rows + 8, columns + 8, 40
        elif any(isinstance(p, Vectorize) and p.with_ == "fma" for p in schedule.passes):
            yield 40, 72, 40
        yield rows + 8, columns + 16, 136
        yield 2 * rows, 2 * columns, 256
    else:
        yield GRID
        yield WHOLE_PARTS
        yield 2 * WHOLE_PARTS[0], 2 * WHOLE_PARTS[1], 512


def block_of(schedule: Schedule) -> tuple[int, int]:
    """Rows and columns of the largest tile of C that blocks or clusters have."""
    for p in schedule.passes:
        if isinstance(p, Tile) and {"m", "n"} <= set(p.loops):
            size = dict(zip(p.loops, p.sizes, strict=True))
            return size["m"], size["n"]
    return 1, 1
