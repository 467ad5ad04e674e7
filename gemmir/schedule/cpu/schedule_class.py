"""What a class of schedules for CPUs is: loops and copies, and a microkernel inside of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import K_STEPS_PER_ITERATION, item_bytes, lanes_of_sum, lanes_used
from gemmir.schedule.cpu.wide_reads import WIDE_BYTES


@dataclass(frozen=True, kw_only=True)
class Microkernel:
    """How a register tile is summed up: what vectors hold, and how far the loop over k is unrolled.

    Lanes go along n, or along k where `along` says so. The `unit` takes `depth` elements of k at
    once, of an A of bytes that `is_unsigned`. Columns of B are dealt to vectors where `is_dealt`.
    Of `wide_rows` rows of A several elements are read at a time, where k is unrolled. Sums begin
    with a product, where the loop over k `is_peeled`. A vector has `lanes`, by default those of the
    machine, or fewer where a row of C is shorter.
    """

    steps: int = K_STEPS_PER_ITERATION
    along: str = "n"
    unit: str = "fma"
    depth: int = 1
    is_unsigned: bool = False
    is_dealt: bool = False
    wide_rows: int = 0
    is_peeled: bool = False
    lanes: int | None = None

    def passes(self, gemm: Gemm, machine: CpuMachine, *, fuse: bool, expand: bool) -> Iterator[str]:
        """The passes behind loops and copies, as text; `fuse` and `expand` are of the epilogue."""
        if fuse:
            yield "fuse-epilogue"
        if self.is_unsigned:
            yield "unsign"
        along = "" if self.along == "n" else f" along={self.along}"
        dealt = " dealt=true" if self.is_dealt else ""
        yield f"vectorize{{with={self.unit} width={self._lanes(gemm, machine)}{along}{dealt}}}"
        steps = min(self.steps, -(-gemm.k // self.depth))
        if steps >= 2:
            yield f"unroll{{loop=k factor={steps}}}"
            if self.wide_rows > 0:
                width = WIDE_BYTES // item_bytes(gemm)
                yield f"widen-reads{{rows={self.wide_rows} width={width}}}"
        if self.is_peeled:
            yield "peel{loop=k}"
        if expand:
            yield "expand-math"

    def _lanes(self, gemm: Gemm, machine: CpuMachine) -> int:
        if self.along != "n":
            return machine.lanes(gemm.accumulator.item_bytes)
        return self.lanes or (lanes_of_sum if gemm.has_weights else lanes_used)(gemm, machine)


def usual_microkernel(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """The one that most classes have, whatever the problem and the machine."""
    return Microkernel()


def microkernel_along_k(gemm: Gemm, machine: CpuMachine) -> Microkernel:
    """A vector along k for each element of C, and so many of them that k is not unrolled."""
    return Microkernel(steps=1, along="k")


@dataclass(frozen=True, kw_only=True)
class ScheduleClass:
    """A way to compute problems of one core: `loops` are passes for loops and copies, as text."""

    name: str
    loops: Callable[[Gemm, CpuMachine], Iterator[str]]
    microkernel: Callable[[Gemm, CpuMachine], Microkernel] = usual_microkernel


Rules = Sequence[tuple[ScheduleClass, Callable[[Gemm, CpuMachine], bool]]]
"""Classes, and when a problem is of one: the first that holds."""


def first_of(rules: Rules, gemm: Gemm, machine: CpuMachine) -> ScheduleClass:
    """The class of `gemm` by `rules`, the last of which holds in any case."""
    return next(found for found, holds in rules if holds(gemm, machine))


def otherwise(gemm: Gemm, machine: CpuMachine) -> bool:
    """In any case."""
    return True
