"""The cost of a kernel for a CPU, from the IR of its last stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from gemmir.cost.core import (
    CALL_CYCLES,
    LOOP_CYCLES,
    OUTER_LOOP_CYCLES,
    Level,
    core_cycles,
    core_of,
    levels,
    together,
)
from gemmir.cost.indices import Indices
from gemmir.cost.nest import Nest, Reader, entry_of
from gemmir.cost.prediction import Prediction
from gemmir.cost.traffic import Region, fetched, kept_between_calls, regions
from gemmir.machine import CpuMachine


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """What moves into a level of memory: lines by nest, and twice where they have to go back."""

    level: Level
    lines: Mapping[int, float]

    @property
    def bytes(self) -> float:
        """All of it."""
        return sum(self.lines.values()) * self.level.line_bytes


def predict_cpu(
    module: ModuleOp, machine: CpuMachine, *, threads: int = 1, warm: bool = True, unknown: float
) -> Prediction:
    """What a kernel takes on `threads` cores; see `predict`."""
    indices = Indices(unknown=unknown)
    reader = Reader(module=module, vector_bytes=machine.vector_bytes, indices=indices)
    nest = reader.function(entry_of(module))
    moved = [_moved(nest, regions(nest), level, warm=warm) for level in levels(machine)]
    hertz, cycles, flops = core_of(machine).clock_hz, float(CALL_CYCLES), 0.0
    cycles_by: dict[str, float] = {}
    for number, (n, times, shared) in enumerate(_runs(nest, threads)):
        parts = {name: c * shared for name, c in core_cycles(n.work, machine).items()}
        for m in moved:
            parts[m.level.name] = m.lines.get(number, 0.0) * m.level.line_cycles * shared / times
        entries = shared / n.trips if n.variable else 0.0
        around = entries * (LOOP_CYCLES if n.work.sums else OUTER_LOOP_CYCLES)
        cycles += together(parts.values()) + around
        flops += n.work.flops * times
        for name, c in (*parts.items(), ("loops", around)):
            cycles_by[name] = cycles_by.get(name, 0.0) + c
    return Prediction(
        target=machine.target,
        seconds=cycles / hertz,
        bound_by=max(cycles_by, key=lambda name: cycles_by[name]),
        seconds_by={name: c / hertz for name, c in cycles_by.items()},
        bytes_by_level={m.level.name: m.bytes for m in moved},
        flops=flops,
        roof_seconds=cycles_by["products"] / hertz,
    )


def _runs(
    nest: Nest, threads: int, all_: float = 1.0, one: float = 1.0
) -> Iterator[tuple[Nest, float, float]]:
    """Each loop with how often its body runs: in all, and on the core that has most to do."""
    trips = nest.trips
    most = -(-trips // threads) if nest.cores else trips
    all_, one = all_ * nest.share * trips, one * nest.share * most
    yield nest, all_, one
    for inside in nest.nests:
        yield from _runs(inside, threads, all_, one)


def _moved(nest: Nest, region: Region, level: Level, *, warm: bool) -> _Moved:
    """What a level fetches, and sends back, in all of a call."""
    written = {a.array.memory for n in nest.walk() for a in n.accesses if a.kind == "write"}
    lines: dict[int, float] = {}
    for (memory, number), count in fetched(region, level).items():
        gone = 1 - kept_between_calls(region, memory, level) if warm else 1.0
        ways = 2 if memory in written else 1
        lines[number] = lines.get(number, 0.0) + count * gone * ways
    return _Moved(level=level, lines=lines)
