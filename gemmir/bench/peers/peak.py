"""The most FMAs that a core makes: a loop of them on registers, as one more contestant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gemmir.bench.entrant import Array, Entrant, Settings, require
from gemmir.bench.loops import peak_loop
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The FMA unit of one core, with vectors as wide as those of `machine`."""

    machine: CpuMachine
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """FMAs of f64 for f64, and of f32 for all other types; they compute nothing."""
        dtype = "f64" if gemm.dtype == "f64" else "f32"
        repeat, flops = peak_loop(dtype, self.machine)
        return Entrant(
            repeat=repeat, output=lambda: arrays["c"], flops=flops, about={"dtype": dtype}
        )


def find(settings: Settings) -> Peak:
    """The FMA unit of the target."""
    machine = machine_for(settings.target)
    assert isinstance(machine, CpuMachine)
    require(settings.threads == 1, "the peak is that of one core")
    return Peak(machine=machine, about={"vector_bytes": str(machine.vector_bytes)})
