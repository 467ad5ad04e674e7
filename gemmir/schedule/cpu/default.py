"""The schedule for a CPU: loops over a batch and over cores, and inside them those of a class.

`classes.py` has the table of classes. Sizes that are known in a call only (`runtime.py`) and a B
that is packed before (`prepacked.py`) have schedules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.classes import class_of, plain_class_of
from gemmir.schedule.cpu.cores import outer_loops, share_of
from gemmir.schedule.cpu.direct import DIRECT
from gemmir.schedule.cpu.parts import parts_of
from gemmir.schedule.cpu.runtime import runtime_passes
from gemmir.schedule.cpu.schedule_class import Microkernel, ScheduleClass
from gemmir.schedule.cpu.swapped import (
    SWAPPED,
    has_few_columns,
    is_column,
    is_faster_swapped,
    swapped,
    swapped_cycles,
)
from gemmir.schedule.cpu.transposed import cycles_with_rows, is_transposed


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

    def end(part: Gemm, kernel: Microkernel) -> Iterator[str]:
        return kernel.passes(part, machine, fuse=fuse, expand=expand)

    def passes_of(found: ScheduleClass, share: Gemm, whole: Gemm) -> Iterator[str]:
        yield from found.loops(share, machine)
        yield from end(whole, found.microkernel(share, machine))

    if gemm.unknown or gemm.unknown_factors:

        def static(part: Gemm) -> Iterator[str]:
            return cpu_passes(part, machine, threads, fuse=fuse, expand=expand, version=True)

        yield from runtime_passes(gemm, machine, threads, static=static, end=end)
        return
    threads = 1 if 0 in (gemm.m, gemm.n, gemm.k) else threads
    is_whole = threads == 1 and not version
    is_swapped = is_whole and _is_swapped(gemm, machine)
    parts = parts_of(gemm, machine) if is_whole and not is_swapped else None
    if parts is not None:
        first, last = parts
        yield f"part{{loop=n at={first.gemm.n}}}"
        yield from passes_of(first.of, first.gemm, first.gemm)
        yield "otherwise"
        if last.is_swapped:
            yield "swap-operands"
        yield from passes_of(last.of, last.gemm, last.gemm)
        return
    by_lanes = is_swapped and not is_column(gemm)
    if is_swapped:
        yield "swap-operands"
        gemm = swapped(gemm)
    yield from outer_loops(gemm, machine, threads)
    share, even = share_of(gemm, machine, threads)
    yield from passes_of(SWAPPED if by_lanes else class_of(share, machine, even=even), share, gemm)


def _is_swapped(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether the transpose of C is computed: not where copying A into rows takes less."""
    if not is_faster_swapped(gemm, machine):
        return False
    if not has_few_columns(gemm, machine) and plain_class_of(swapped(gemm), machine) is not DIRECT:
        return False
    in_rows = cycles_with_rows(gemm, machine)
    return not is_transposed(gemm, machine) or swapped_cycles(gemm, machine) < in_rows
