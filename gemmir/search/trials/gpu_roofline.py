"""The least time of a launch on a GPU: who is faster has not done it.

Two limits hold for any kernel. Its multiply-adds are not made faster than the fastest unit for them
makes them, all multiprocessors at once. And what it reads and writes comes from the memory, where
operands were put out of L2 before, or else through L2, each byte once. Cards of one architecture
differ: what the driver says of this one counts where it is more than the machine's record says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gemmir.backends.ptx.driver.figures import Figures
from gemmir.cost.gpu import L2_BYTES_PER_CYCLE, MMA_FLOPS_PER_CYCLE
from gemmir.dtypes import Precision
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.search.trials.roofline import SLACK, bytes_of, refusal

MMA_FLOPS: Final = 1024
"""Of a GPU that `MMA_FLOPS_PER_CYCLE` does not name."""

F64_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True)
class GpuRoofline:
    """The limits of one GPU for one problem, whose operands come from its memory or from L2."""

    flops_per_second: float
    bytes_per_second: float

    @staticmethod
    def of(machine: GpuMachine, gemm: Gemm, figures: Figures, *, is_cold: bool) -> GpuRoofline:
        """The roofline of a GPU; `is_cold` says that no launch finds its operands in L2."""
        sms = max(machine.sms, figures.sms)
        cycles = sms * max(machine.clock_hz, figures.clock_hz)
        memory = max(machine.dram_bytes_per_second, figures.dram_bytes_per_second)
        return GpuRoofline(
            flops_per_second=flops_per_cycle(machine, gemm) * cycles,
            bytes_per_second=memory if is_cold else L2_BYTES_PER_CYCLE * cycles,
        )

    def seconds(self, gemm: Gemm) -> float:
        """The least seconds of a launch.

        Of several products whose rows are said by an operand it is that of none, and so it is where
        nobody has to read A or B: C has no elements, or alpha is 0.
        """
        if gemm.groups is not None or 0 in (gemm.m, gemm.n, gemm.alpha):
            return 0.0
        return max(gemm.flops / self.flops_per_second, bytes_of(gemm) / self.bytes_per_second)

    def forbids(self, gemm: Gemm, seconds: float) -> str:
        """Why a launch cannot take so few `seconds`; "" where it can."""
        least = self.seconds(gemm)
        if seconds * SLACK >= least:
            return ""
        return refusal(
            gemm,
            seconds,
            least,
            flops_per_second=self.flops_per_second,
            moved=bytes_of(gemm),
            bytes_per_second=self.bytes_per_second,
        )


def flops_per_cycle(machine: GpuMachine, gemm: Gemm) -> float:
    """The most operations that a multiprocessor makes in a cycle of products of `gemm`.

    Tensor cores multiply twice as many elements of half the length. Those for f64, where there are
    any, are twice as fast as what is outside of them (A100 Tensor Core GPU Architecture, table 1;
    H100 Tensor Core GPU Architecture, table 1).
    """
    product = gemm.product
    item = product.element.numpy.itemsize
    if item == F64_BYTES:
        return machine.flops_per_cycle(F64_BYTES) * (2.0 if "f64" in machine.mma_dtypes else 1.0)
    if product.element.name == "f32" and product.precision is None:
        return float(machine.flops_per_cycle(item))
    if product.precision in (Precision.BF16X1, Precision.BF16X3):
        item = 2
    halves = MMA_FLOPS_PER_CYCLE.get(machine.target, MMA_FLOPS)
    return max(machine.wgmma_flops_per_cycle_per_sm or 0, halves) * 2.0 / item
