"""The cost of a kernel for a CPU, from the IR of its last stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from gemmir.cost.core import (
    CALL_CYCLES,
    FORESEEN_TRIPS,
    LOOP_CYCLES,
    OUTER_LOOP_CYCLES,
    WINDOW,
    Level,
    core_cycles,
    core_of,
    instructions,
    levels,
    together,
)
from gemmir.cost.indices import Indices
from gemmir.cost.nest import Nest, Reader, entry_of
from gemmir.cost.prediction import Prediction
from gemmir.cost.traffic import Region, fetched, kept_between_calls, regions, streams_of
from gemmir.machine import CpuMachine


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """What moves into a level of memory: lines by nest, and twice where they have to go back."""

    level: Level
    lines: Mapping[int, float]
    cycles: Mapping[int, float]
    awaited: Mapping[int, float]

    @property
    def bytes(self) -> float:
        """All of it."""
        return sum(self.lines.values()) * self.level.line_bytes


def predict_cpu(
    module: ModuleOp, machine: CpuMachine, *, threads: int = 1, warm: bool = True, unknown: float
) -> Prediction:
    """What a kernel takes on `threads` cores; see `predict`."""
    return cost_of(nest_of(module, machine, unknown), machine, threads=threads, warm=warm)


def nest_of(module: ModuleOp, machine: CpuMachine, unknown: float) -> Nest:
    """The loops of the function that callers call."""
    indices = Indices(unknown=unknown)
    reader = Reader(module=module, vector_bytes=machine.vector_bytes, indices=indices)
    return reader.function(entry_of(module))


def cost_of(nest: Nest, machine: CpuMachine, *, threads: int, warm: bool) -> Prediction:
    """What the loops of a kernel take."""
    moved = [_moved(nest, regions(nest), level, warm=warm) for level in levels(machine)]
    hertz, cycles, flops = core_of(machine).clock_hz, float(CALL_CYCLES), 0.0
    cycles_by: dict[str, float] = {}
    units: dict[int, dict[str, float]] = {}
    merged = _units(nest)
    for number, (n, times, shared) in enumerate(_runs(nest, threads)):
        parts = {name: c * shared for name, c in core_cycles(n.work, machine).items()}
        parts["latency"] /= max(WINDOW / max(instructions(n.work) * n.trips, 1), 1)
        windows = instructions(n.work) * shared / WINDOW
        for m in moved:
            part = shared / times
            parts[f"lines of {m.level.source}"] = m.cycles.get(number, 0.0) * part
            waits = min(m.awaited.get(number, 0.0) * part, windows)
            parts[f"waits for {m.level.source}"] = waits * m.level.latency_cycles
        entries = shared / n.trips if n.variable and n.trips > 1 else 0.0
        around = entries * (LOOP_CYCLES if n.trips > FORESEEN_TRIPS else OUTER_LOOP_CYCLES)
        flops += n.work.flops * times
        cycles += around
        unit = units.setdefault(merged[id(n)], {})
        for name, c in parts.items():
            unit[name] = unit.get(name, 0.0) + c
            cycles_by[name] = cycles_by.get(name, 0.0) + c
        cycles_by["loops"] = cycles_by.get("loops", 0.0) + around
    cycles += sum(together(unit.values()) for unit in units.values())
    return Prediction(
        target=machine.target,
        seconds=cycles / hertz,
        bound_by=max(cycles_by, key=lambda name: cycles_by[name]),
        seconds_by={name: c / hertz for name, c in cycles_by.items()},
        bytes_by_level={m.level.name: m.bytes for m in moved},
        flops=flops,
        roof_seconds=cycles_by["products"] / hertz,
    )


def _units(nest: Nest) -> dict[int, int]:
    """The loop with which each goes on at the same time: that around the innermost ones."""
    found: dict[int, int] = {}
    for n in nest.walk():
        found.setdefault(id(n), id(n))
        alike = len({bool(inside.work.products) for inside in n.nests}) == 1
        if alike and not any(inside.nests for inside in n.nests):
            found |= {id(inside): id(n) for inside in n.nests}
    return found


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
    cycles: dict[int, float] = {}
    awaited: dict[int, float] = {}
    streams = streams_of(region)
    for (memory, number), count in fetched(region, level).items():
        gone = 1 - kept_between_calls(region, memory, level) if warm else 1.0
        ways = 2 if memory in written else 1
        lines[number] = lines.get(number, 0.0) + count * gone * ways
        stream = streams[memory, number]
        each = level.line_cycles * ways + level.start_cycles * stream.starts
        cycles[number] = cycles.get(number, 0.0) + count * gone * each
        awaited[number] = awaited.get(number, 0.0) + count * gone * stream.unforeseen
    return _Moved(level=level, lines=lines, cycles=cycles, awaited=awaited)
