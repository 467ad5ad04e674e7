"""What a core takes for the instructions of a loop, and the figures of each CPU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gemmir.cost.nest import Work
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import CACHE_LINE_BYTES, L1_WAY_BYTES, L2_WAY_BYTES, has_masks
from gemmir.schedule.cpu.tiles import FMA_LATENCY_CYCLES, LOADS_PER_CYCLE, OVERLAP

MASKED_STORE_CYCLES: Final = 8
"""A store of part of a vector without mask registers: uops.info, VMASKMOVPS of Zen 3 and Zen 5."""

MASKED_ELEMENT_INSTRUCTIONS: Final = 3
"""Instructions beside the load of an element that may not be there. On Zen 5 rows that are clipped
take 1 to 2.6 cycles for each element of A, in tiles of 9 to 13 rows."""

FORESEEN_TRIPS: Final = 32
"""A loop of so few iterations ends where the CPU foresees it."""

WINDOW: Final = 448
"""Instructions that are under way at once, so that sums of several tiles go on together: Software
Optimization Guide for the AMD Zen5 Microarchitecture, section 2.1; 512 on Golden Cove."""

ISSUED_PER_CYCLE: Final = 8
"""Instructions a cycle: Software Optimization Guide for the AMD Zen5 Microarchitecture, section
2.1, and six or more on the others."""

LOOP_CYCLES: Final = 16
"""What it takes to enter a loop that sums and to leave it, where its end is not foreseen."""

OUTER_LOOP_CYCLES: Final = 2
"""The same of a loop whose end is foreseen."""

CALL_CYCLES: Final = 8
"""A call of a kernel from a loop of machine code, which begins before the one before has ended."""


TILE_PRODUCT_CYCLES: Final = 16
"""One product of tiles after another, and TILE_LATENCY_CYCLES until the next can be added to its
sum: Intel 64 and IA-32 Architectures Optimization Reference Manual, order number 248966, chapter on
Intel AMX."""

TILE_LATENCY_CYCLES: Final = 52


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level of memory that keeps `bytes` in lines, and what a line costs from its `source`.

    `way_bytes` is how far apart addresses share a set, 0 where they are hashed. `start_cycles` are
    added for each run of lines that nobody foresees, and `latency_cycles` waited for.
    """

    name: str
    source: str
    bytes: int
    line_bytes: int = CACHE_LINE_BYTES
    way_bytes: int = 0
    line_cycles: float
    start_cycles: float
    latency_cycles: float


@dataclass(frozen=True, kw_only=True)
class Core:
    """One core: its clock, and what lines cost that come from L2, from L3 and from memory.

    docs/cost-model.md has the measurement that each is from.
    """

    clock_hz: float
    l2_line_cycles: float
    l3_line_cycles: float
    dram_line_cycles: float
    l2_start_cycles: float
    l3_start_cycles: float
    dram_start_cycles: float
    l2_latency_cycles: float
    l3_latency_cycles: float
    dram_latency_cycles: float


ZEN: Final = Core(
    clock_hz=3.4e9,
    l2_line_cycles=2.0,
    l3_line_cycles=3.0,
    dram_line_cycles=9.0,
    l2_start_cycles=3.5,
    l3_start_cycles=8,
    dram_start_cycles=8,
    l2_latency_cycles=14,
    l3_latency_cycles=50,
    dram_latency_cycles=400,
)
"""Cores that were not measured: the clock of an EPYC of Zen 3, and twice the cycles for lines
of L2 or of memory, since L2 sends 32 bytes a cycle on Zen 3."""

ZEN5: Final = Core(
    clock_hz=4.1e9,
    l2_line_cycles=1.1,
    l3_line_cycles=2.4,
    dram_line_cycles=5.0,
    l2_start_cycles=3.5,
    l3_start_cycles=8,
    dram_start_cycles=8,
    l2_latency_cycles=14,
    l3_latency_cycles=50,
    dram_latency_cycles=400,
)
"""An EPYC of Zen 5, measured."""

CORES: Final = {"znver5": ZEN5}
"""Cores by LLVM's name of the CPU."""


def core_of(machine: CpuMachine) -> Core:
    """The figures of a CPU, or those of one like it."""
    return CORES.get(machine.llvm_cpu, ZEN)


def levels(machine: CpuMachine) -> tuple[Level, ...]:
    """The caches of a CPU, nearest first."""
    core = core_of(machine)
    return (
        Level(
            name="l1",
            source="L2",
            bytes=machine.l1_bytes,
            way_bytes=L1_WAY_BYTES,
            line_cycles=core.l2_line_cycles,
            start_cycles=core.l2_start_cycles,
            latency_cycles=core.l2_latency_cycles,
        ),
        Level(
            name="l2",
            source="L3",
            bytes=machine.l2_bytes,
            way_bytes=L2_WAY_BYTES,
            line_cycles=core.l3_line_cycles,
            start_cycles=core.l3_start_cycles,
            latency_cycles=core.l3_latency_cycles,
        ),
        Level(
            name="l3",
            source="memory",
            bytes=machine.l3_bytes,
            line_cycles=core.dram_line_cycles,
            start_cycles=core.dram_start_cycles,
            latency_cycles=core.dram_latency_cycles,
        ),
    )


def core_cycles(work: Work, machine: CpuMachine) -> dict[str, float]:
    """Cycles of one iteration, by what they are spent on; all go on at the same time."""
    masked = 0 if has_masks(machine) else MASKED_STORE_CYCLES
    return {
        "products": work.products / machine.fma_per_cycle
        + work.tile_products * TILE_PRODUCT_CYCLES,
        "loads": (work.loads + work.split_loads) / LOADS_PER_CYCLE,
        "stores": work.stores + work.split_stores + work.masked_stores * masked,
        "latency": work.chain * FMA_LATENCY_CYCLES + work.tile_chain * TILE_LATENCY_CYCLES,
        "other instructions": (
            work.arithmetic + work.shuffles + work.masked_elements * MASKED_ELEMENT_INSTRUCTIONS
        )
        / 2,
        "issue": instructions(work) / ISSUED_PER_CYCLE,
    }


def instructions(work: Work) -> float:
    """Instructions of one iteration."""
    memory = work.loads + work.stores + work.prefetches
    products = work.products + work.tile_products
    return products + memory + work.arithmetic + work.shuffles


def together(parts: Iterable[float]) -> float:
    """What parts take that go on at the same time: the longest, and more where another is as long.

    It is a norm of high degree, as in `RegisterTile.cycles_per_k`.
    """
    values = [part for part in parts if part > 0]
    most = max(values, default=0.0)
    return most * sum((part / most) ** OVERLAP for part in values) ** (1 / OVERLAP) if values else 0
