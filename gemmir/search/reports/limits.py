"""The most that a GPU or a TPU computes, by its record."""

from __future__ import annotations

from typing import Final

from gemmir.machine import GpuMachine, TpuMachine

WGMMA_BITS: Final = {"bf16": 16, "f16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "i8": 8, "u8": 8}
"""Bits of an element as warpgroups multiply it: of shorter ones they take more at once."""


def recorded_gflops(machine: GpuMachine | TpuMachine, dtype: str) -> float | None:
    """Of products of `dtype` on the whole device; None where the record does not say it."""
    if isinstance(machine, TpuMachine):
        return machine.mxu_flops_per_second(dtype) / 1e9 or None
    if dtype in machine.wgmma_dtypes and machine.wgmma_flops_per_cycle_per_sm:
        per_cycle = machine.wgmma_flops_per_cycle_per_sm * 16 / WGMMA_BITS[dtype]
    else:
        fma = {"f32": machine.fma_f32_per_cycle_per_sm, "f64": machine.fma_f64_per_cycle_per_sm}
        per_cycle = 2.0 * fma.get(dtype, 0)
    return per_cycle * machine.sms * machine.clock_hz / 1e9 or None
