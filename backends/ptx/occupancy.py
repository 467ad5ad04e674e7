"""How many blocks of a kernel a multiprocessor holds at once, and what limits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gemmir.launch import KernelLaunch
from gemmir.machine.gpu import GpuMachine

PARTS: Final = 4
"""Parts of a multiprocessor, each with its share of the registers, which a warp has from one."""

REGISTERS_AT_ONCE: Final = 256
SHARED_BYTES_AT_ONCE: Final = 128
"""Registers of a warp and shared memory of a block are given out in these amounts:
cuda_occupancy.h of the CUDA toolkit. 7.5 gives out 256 bytes at once, so that a block may be
counted there that would just not fit."""


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """Blocks that one multiprocessor holds: `blocks`, the least of `blocks_by`.

    `bound_by` names what allows no more; `warps` is how many of `max_warps` there are then.
    """

    blocks: int
    blocks_by: dict[str, int]
    bound_by: tuple[str, ...]
    warps: int
    max_warps: int


def occupancy(launch: KernelLaunch, registers: int, machine: GpuMachine) -> Occupancy:
    """What `machine` holds of a kernel whose threads have `registers` each."""
    warps = _ceil(launch.threads, machine.threads_per_warp)
    blocks_by = {
        "registers": _warps_by_registers(registers, machine) // warps,
        "shared memory": machine.smem_bytes_per_sm // _shared_bytes(launch, machine),
        "threads": machine.max_threads_per_sm // (warps * machine.threads_per_warp),
        "blocks": machine.max_blocks_per_sm,
    }
    blocks = min(blocks_by.values())
    return Occupancy(
        blocks=blocks,
        blocks_by=blocks_by,
        bound_by=tuple(name for name, count in blocks_by.items() if count == blocks),
        warps=blocks * warps,
        max_warps=machine.max_threads_per_sm // machine.threads_per_warp,
    )


def _warps_by_registers(registers: int, machine: GpuMachine) -> int:
    """Warps whose registers fit into the parts of the register file."""
    of_warp = _up(max(registers, 1) * machine.threads_per_warp, REGISTERS_AT_ONCE)
    return machine.registers_per_sm // PARTS // of_warp * PARTS


def _shared_bytes(launch: KernelLaunch, machine: GpuMachine) -> int:
    """What a block takes of shared memory, with what the system keeps of it for each block.

    That is why a block may have less than all of a multiprocessor.
    """
    reserved = machine.smem_bytes_per_sm - machine.smem_bytes_per_block
    return max(_up(launch.smem_bytes_per_block + reserved, SHARED_BYTES_AT_ONCE), 1)


def _up(number: int, step: int) -> int:
    return _ceil(number, step) * step


def _ceil(number: int, step: int) -> int:
    return -(-number // step)
