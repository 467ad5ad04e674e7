"""What the driver says of how large and fast a GPU is, for cards of one architecture differ."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from gemmir.backends.ptx.driver import libcuda

ATTRIBUTES: Final = {
    "sms": 16,
    "clock_khz": 13,
    "memory_khz": 36,
    "memory_bus_bits": 37,
    "l2_bytes": 38,
}
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _CLOCK_RATE, _MEMORY_CLOCK_RATE,
_GLOBAL_MEMORY_BUS_WIDTH and _L2_CACHE_SIZE of cuda.h."""

PER_CLOCK: Final = 2
"""Transfers of each wire of the memory in a cycle of its clock, as the driver counts it."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The multiprocessors of a GPU, its highest clocks, its second cache and its memory bus."""

    sms: int
    clock_khz: int
    memory_khz: int
    memory_bus_bits: int
    l2_bytes: int

    @property
    def clock_hz(self) -> int:
        """Cycles a second of a multiprocessor."""
        return 1000 * self.clock_khz

    @property
    def dram_bytes_per_second(self) -> int:
        """What the wires of the memory carry."""
        return PER_CLOCK * 1000 * self.memory_khz * self.memory_bus_bits // 8


def figures(gpu: int) -> Figures:
    """Those of a GPU by its number; `DeviceError` GEM0526 where the driver does not say one."""
    device = ctypes.c_int()
    libcuda.require("cuDeviceGet", ctypes.byref(device), gpu)

    def asked(attribute: int) -> int:
        found = ctypes.c_int()
        libcuda.require("cuDeviceGetAttribute", ctypes.byref(found), attribute, device)
        return found.value

    return Figures(**{name: asked(attribute) for name, attribute in ATTRIBUTES.items()})
