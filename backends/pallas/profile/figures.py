"""The figures of a profile, from what libtpu wrote of a program and what its blocks move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

from gemmir.backends.pallas.profile import hlo
from gemmir.backends.pallas.profile.schedule import MATMUL, Loop
from gemmir.machine.tpu import TpuMachine

Method = Literal["simulated", "schedule", "hlo-estimate"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)
"""How cycles can be known, the best first."""

MXU: Final = "MXU"
HBM: Final = "HBM"
STEPS: Final = "overhead of steps"
WAITS: Final = "prologue and waits"


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What the blocks of one array move: how often, the bytes of all, and of the first."""

    copies: int
    bytes: int
    first_bytes: int


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A Pallas kernel: its grid, and what its blocks move, the result last, where that is known."""

    grid: tuple[int, ...]
    blocks: tuple[Moved, ...] | None

    @staticmethod
    def read(found: Mapping[str, Any]) -> Kernel:
        """The kernel that the worker found."""
        blocks = found["blocks"]
        return Kernel(
            grid=tuple(found["grid"]),
            blocks=None if blocks is None else tuple(Moved(**block) for block in blocks),
        )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known of one program; `kernel` is None where it has none, or several.

    `loop` is the main loop of the op `main`, the one that multiplies most. `ideal` are the cycles
    that the matrix units need for the products, on each core.
    """

    machine: TpuMachine
    ops: Sequence[hlo.Op]
    kernel: Kernel | None
    main: str
    loop: Loop | None
    ideal: float

    @property
    def blocks(self) -> tuple[Moved, ...] | None:
        """What the blocks of the kernel move, where that is known."""
        return self.kernel and self.kernel.blocks

    @property
    def hbm_bytes_per_cycle(self) -> float:
        """What all cores can read or write of HBM in a cycle."""
        return self.machine.hbm_bytes_per_cycle_per_core * self.machine.cores_per_device

    @property
    def call(self) -> hlo.Op | None:
        """The op that the kernel is."""
        calls = [op for op in self.ops if op.opcode == hlo.CUSTOM_CALL]
        return calls[0] if len(calls) == 1 else None

    @property
    def fetched(self) -> tuple[Moved, ...] | None:
        """What the blocks of arrays in HBM move, where that is known.

        An array that XLA has copied to VMEM before the kernel begins is not in HBM.
        """
        if self.blocks is None or self.call is None:
            return None
        arrays = (*self.call.operands, *self.call.results)
        pairs = zip(arrays, self.blocks, strict=False)
        return tuple(block for array, block in pairs if array.space == hlo.HBM)

    @property
    def hbm_bytes(self) -> int:
        """Bytes of HBM that are moved: by block in a kernel, and otherwise each array once."""
        if self.fetched is None:
            return hlo.hbm_bytes(self.ops)
        beside = [op for op in self.ops if op is not self.call]
        return sum(block.bytes for block in self.fetched) + hlo.hbm_bytes(beside)

    @property
    def hbm_cycles(self) -> float:
        """The least cycles in which HBM moves so many bytes."""
        return self.hbm_bytes / self.hbm_bytes_per_cycle

    @property
    def copy_cycles(self) -> float:
        """The least cycles of the copies outside of the kernels."""
        return hlo.copy_bytes(self.ops) / self.hbm_bytes_per_cycle

    @property
    def grid(self) -> tuple[int, ...]:
        """The steps along each dimension, k last: of a kernel, or of the windows of XLA's op."""
        if self.kernel is not None:
            return self.kernel.grid
        return max((op.windows for op in self.ops), key=len, default=())

    @property
    def iterations(self) -> float:
        """How often the main loop runs on each core.

        Each step of the grid is an iteration; where the kernel has loops of its own, their number
        follows from the products that each does.
        """
        if self.loop is None or not self.loop.mxu_busy_cycles:
            return 0.0
        if self.grid and self.loop.depth == 1:
            return math.prod(self.grid) / self.machine.cores_per_device
        return self.ideal / self.loop.mxu_busy_cycles

    @property
    def tiles(self) -> float:
        """How many blocks of the result each core makes."""
        if self.blocks:
            return self.blocks[-1].copies / self.machine.cores_per_device
        return self.iterations / max(self.grid[-1:], default=1)

    @property
    def loop_cycles(self) -> float | None:
        """Cycles in the bundles of all loops; None where the code does not multiply.

        What is around a loop in a step of the grid is done once in each.
        """
        if self.loop is None or not self.loop.mxu_busy_cycles:
            return None
        around = math.prod(self.grid) / self.machine.cores_per_device * self.loop.around_bundles
        return self.iterations * self.loop.bundles + around

    @property
    def end_bytes(self) -> int:
        """Bytes that a kernel needs before it can begin, and that it writes when it is done."""
        if self.kernel is None:
            return max((op.window_bytes for op in self.ops), default=0)
        return sum(block.first_bytes for block in self.fetched or ())

    @cached_property
    def cycles_by(self) -> dict[Method, int]:
        """The cycles by each method that says something."""
        found: dict[Method, float | None] = {
            "simulated": hlo.simulated_cycles(self.ops),
            "schedule": self._by_schedule(),
            "hlo-estimate": hlo.estimated_cycles(self.ops),
        }
        return {method: math.ceil(n) for method, n in found.items() if n is not None}

    def _by_schedule(self) -> float | None:
        if self.loop is None or self.loop_cycles is None:
            return None
        edges = self.tiles * self.loop.edge_bundles
        beside = hlo.hbm_bytes([op for op in self.ops if op.is_work and op.name != self.main])
        busy = self.loop_cycles + beside / self.hbm_bytes_per_cycle
        return max(busy, self.hbm_cycles) + edges + self.end_bytes / self.hbm_bytes_per_cycle

    def shares(self, cycles: int) -> dict[str, float]:
        """The part of `cycles` in which each unit is busy, or that is lost to each cause."""
        found = {MXU: self.ideal / cycles, HBM: self.hbm_cycles / cycles}
        if self.loop is not None and self.loop_cycles is not None:
            inner = self.iterations * self.loop.bundles / cycles
            part = self.loop_cycles / cycles
            found |= {unit: n * inner for unit, n in self.loop.slots.items() if unit != MATMUL}
            found[STEPS] = part - inner * self.loop.mxu_occupancy
            found[WAITS] = 1 - part
        return {name: round(max(share, 0.0), 4) for name, share in found.items()}
