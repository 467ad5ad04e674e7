"""The least time that a problem can take: who is faster has not done it.

Two limits hold for any code. The multiply-adds of the problem cannot be made faster than the core
makes independent ones on registers, which is measured. And what it reads and writes has to come
through the first cache once, of which a core loads two vectors a cycle at most; the length of a
cycle follows from the measured multiply-adds and how many of them the machine makes in one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from gemmir.bench.contestants import PEAK, PEERS, Contestant
from gemmir.dtypes import ELEMENTS
from gemmir.gemm import COUNTS, OFFSETS, Gemm
from gemmir.machine import CpuMachine

LOADS_PER_CYCLE: Final = 2
"""Whole vectors that a core loads in a cycle, the most of the shipped CPUs: Software Optimization
Guide for the AMD Zen5 Microarchitecture, publication 58455; Intel's Optimization Reference Manual,
order number 248966."""

WORD_BYTES: Final = 4
"""Products of shorter elements are summed in lanes of this size, several in one."""

SLACK: Final = 1.1
"""Clocks change while a computer runs: a time is impossible where it is so much below the limit."""


class Limit(Protocol):
    """What no call can be faster than."""

    @property
    def flops_per_second(self) -> float: ...

    def forbids(self, gemm: Gemm, seconds: float) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """The limits of one core: `flops_per_second` are those of `element_bytes` elements."""

    flops_per_second: float
    l1_bytes_per_second: float
    element_bytes: int
    threads: int = 1

    @staticmethod
    def of(machine: CpuMachine, gemm: Gemm, flops_per_second: float, threads: int) -> Roofline:
        """The roofline of a core that makes so many operations a second on its sums' type."""
        item = max(ELEMENTS[gemm.accumulator.name].item_bytes, WORD_BYTES)
        hertz = flops_per_second / machine.flops_per_cycle(item)
        return Roofline(
            flops_per_second=flops_per_second,
            l1_bytes_per_second=hertz * LOADS_PER_CYCLE * machine.vector_bytes,
            element_bytes=item,
            threads=threads,
        )

    def seconds(self, gemm: Gemm) -> float:
        """The least seconds of a call.

        Of several products whose rows are said by an operand it is that of none, and so it is where
        nobody has to read A or B: C has no elements, or alpha is 0.
        """
        if gemm.groups is not None or 0 in (gemm.m, gemm.n, gemm.alpha):
            return 0.0
        at_once = max(self.element_bytes // gemm.element.numpy.itemsize, 1)
        products = gemm.flops / (self.flops_per_second * at_once)
        moved = bytes_of(gemm) / self.l1_bytes_per_second
        return max(products, moved) / self.threads

    def forbids(self, gemm: Gemm, seconds: float) -> str:
        """Why a call cannot take so few `seconds`; "" where it can."""
        least = self.seconds(gemm)
        if seconds * SLACK >= least:
            return ""
        return refusal(
            gemm,
            seconds,
            least,
            flops_per_second=self.flops_per_second * self.threads,
            moved=bytes_of(gemm),
            bytes_per_second=self.l1_bytes_per_second * self.threads,
        )


def bytes_of(gemm: Gemm) -> int:
    """What every call has to read or write, each array once, also where products share it."""
    those = [o for o in gemm.operands if o.name not in (OFFSETS, COUNTS)]
    return sum(ELEMENTS[o.dtype].bits * math.prod(o.shape) // 8 for o in those)


def refusal(
    gemm: Gemm,
    seconds: float,
    least: float,
    *,
    flops_per_second: float,
    moved: int,
    bytes_per_second: float,
) -> str:
    """A time that is below the least, and what that one is made of, in words."""
    return (
        f"{seconds * 1e6:.4g} us where {least * 1e6:.4g} us is the least: "
        f"{gemm.flops:,} operations at {flops_per_second / 1e9:.4g} GFLOP/s, "
        f"{moved:,} bytes at {bytes_per_second / 1e9:.4g} GB/s"
    )


def peak_of_one_thread() -> Contestant:
    """Who makes nothing but multiply-adds."""
    return Contestant(name=PEAK, peer=f"{PEERS}.peak")
