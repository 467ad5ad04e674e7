"""What the rungs of a GPU's ladder cost, without a GPU: counted in the emulator, then reckoned.

The PTX of a rung runs in the emulator on a problem of a tile or two, and gives instructions, banks
and sectors for each multiply-add. From these, and what ptxas says of registers, follows a bound: a
multiprocessor issues four instructions of warps a cycle, moves 128 bytes a cycle to and from its
first cache and shared memory, and multiplies at the rate of its units. The longest of these counts,
and beside it what all threads wait for a slice where nothing is copied meanwhile. Products of
warpgroups go by the model of `gemmir.schedule.hopper_model`, which was fitted to an H200.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gemmir.arrays import make_operands
from gemmir.backends.ptx.emulator import Report
from gemmir.backends.ptx.emulator.report import Access
from gemmir.backends.ptx.run import run_ptx
from gemmir.compiler import Lowered, lower
from gemmir.errors import MismatchError
from gemmir.explain_code import MachineCode, machine_code
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.passes.interchange import Interchange
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.tile import Tile
from gemmir.passes.vectorize import Vectorize
from gemmir.reference import reference_of
from gemmir.schedule import Schedule
from gemmir.schedule.hopper_model import WarpgroupTiles, seconds
from gemmir.search.ladders.checking import SMALL_BLOCK, STAYING, block_of, resized
from gemmir.search.ladders.figure import Figure

ISSUED_PER_CYCLE: Final = 4
"""Instructions of warps that a multiprocessor issues in a cycle: one by each of its four parts."""

PIPE_BYTES: Final = 128
"""What a multiprocessor moves in a cycle to or from its first cache and shared memory."""

SECTOR_BYTES: Final = 32

LATENCY_CYCLES: Final = 480
"""From a load of global memory to its value: Luo et al., Benchmarking and Dissecting the Nvidia
Hopper GPU Architecture via Microbenchmarking, 2024, table 4."""

MMA_FLOPS_PER_CYCLE: Final = {
    "sm_75": 1024,
    "sm_80": 2048,
    "sm_86": 512,
    "sm_89": 512,
    "sm_90a": 2580,
    "sm_120": 512,
}
"""Of mma.sync on 16 bits with sums of f32, of a multiprocessor, from the documents that
`gemmir.machine.gpu` names; on Hopper 63 per cent of what wgmma makes, by Luo et al., table 6."""

BLOCKS_PER_SM: Final = 2
"""Blocks that a multiprocessor holds, where no ptxas says so."""

WIDTH: Final = re.compile(r"\.(?:v(?P<count>[248])\.)?[bfus](?P<bits>8|16|32|64)\b")
COPY: Final = re.compile(r"^cp\.async\.c[ag]\S* .*, (?P<bytes>\d+)")
MATRIX: Final = re.compile(r"\.x(?P<count>[124])\b")
LANES: Final = 32


def flops_peak(gemm: Gemm, machine: GpuMachine) -> float:
    """Most operations a second of the fastest unit that `machine` has for `gemm`."""
    return _unit(gemm, machine, "wgmma") * machine.sms * machine.clock_hz


def _unit(gemm: Gemm, machine: GpuMachine, with_: str) -> float:
    """Operations a cycle of a multiprocessor by `with_`, or by the next slower unit it has."""
    item = gemm.element.item_bytes
    by_warpgroups = machine.wgmma_flops_per_cycle_per_sm
    if item == 2:
        if with_ == "wgmma" and by_warpgroups and gemm.dtype in machine.wgmma_dtypes:
            return by_warpgroups
        if with_ in ("wgmma", "mma") and gemm.dtype in machine.mma_dtypes:
            return MMA_FLOPS_PER_CYCLE[machine.name]
        return machine.flops_per_cycle(4)
    faster = item == 8 and gemm.dtype in machine.mma_dtypes and with_ in ("wgmma", "mma")
    return machine.flops_per_cycle(item) * (2 if faster else 1)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the emulator counted for `gemm`: thread instructions, and cycles of the memory pipe.

    `sectors` is the worst access to global memory, in sectors touched over those that are needed,
    `conflicts` the worst to shared memory, in turns of the banks.
    """

    gemm: Gemm
    instructions: int
    pipe_cycles: float
    sectors: float
    conflicts: float


def count(gemm: Gemm, schedule: Schedule, machine: GpuMachine) -> Counted:
    """Run a tile or two of `gemm` in the emulator; blocks that stay are one.

    Raises `MismatchError` GEM1441 where what comes out is wrong.
    """
    rows, columns = block_of(schedule)
    few = 2 if rows < SMALL_BLOCK else 1
    small = resized(gemm, (few * rows, few * columns, 256))
    used = Schedule.parse(STAYING.sub("persist{blocks=1}", str(schedule)))
    if "persist" in str(used):
        small = resized(gemm, (2 * rows, columns, 256))
    lowered = lower(small, machine.target, used)
    operands = make_operands(lowered.artifact.signature, 0)
    report = run_ptx(lowered.artifact, lowered.artifact.text, operands.arrays)
    assert report is not None and lowered.artifact.launch is not None
    wrong = reference_of(lowered.source, small, operands, emulated=True).compare(operands.output)
    if wrong.first_wrong is not None:
        raise MismatchError(
            "GEM1441",
            f"{small.m} x {small.n} x {small.k} in the emulator: {wrong.first_wrong}",
            "gemmir bisect says which pass is at fault",
        )
    warps = lowered.artifact.launch.kernels[0].threads // LANES
    return Counted(
        gemm=small,
        instructions=sum(report.instructions.values()),
        pipe_cycles=warps * (_shared_cycles(report) + _global_cycles(report.global_)),
        sectors=max((a.ratio for a in report.global_), default=1.0),
        conflicts=report.worst_bank_conflict,
    )


def _shared_cycles(report: Report) -> float:
    """Cycles of the pipe for what a warp does in shared memory."""
    return sum(
        access.runs * max(_bytes(access.text) * LANES / PIPE_BYTES, 1) * access.ratio
        for access in report.shared
    )


def _global_cycles(accesses: Sequence[Access]) -> float:
    """Cycles for what a warp reads and writes of global memory, by sectors."""
    return sum(
        a.runs * max(_bytes(a.text) * LANES / SECTOR_BYTES, 1) * a.ratio * SECTOR_BYTES / PIPE_BYTES
        for a in accesses
    )


def _bytes(text: str) -> float:
    """Bytes of a lane in one instruction."""
    if copied := COPY.match(text):
        return float(copied["bytes"])
    if "matrix" in text and (pieces := MATRIX.search(text)):
        return 4.0 * int(pieces["count"])
    found = WIDTH.search(text)
    return float(found["bits"]) / 8 * int(found["count"] or 1) if found else 4.0


def emulated(gemm: Gemm, schedule: Schedule, machine: GpuMachine) -> Figure:
    """The figure of one rung: counts of the emulator, registers of ptxas, and a bound on time."""
    counted = count(gemm, schedule, machine)
    lowered = lower(gemm, machine.target, schedule)
    code = machine_code(lowered.artifact, machine)
    found = _Bound(lowered, counted, code, gemm, machine)
    taken = found.warpgroups if found.unit == "wgmma" else found.seconds
    products = counted.gemm.flops / 2
    facts: dict[str, float | str] = {
        "instructions of threads for each multiply-add": counted.instructions / products,
        "worst sectors touched over needed": counted.sectors,
        "worst turns of the banks": counted.conflicts,
        "bound by": found.bound_by,
    }
    if code.kernels:
        kernel = code.kernels[0]
        spilled = kernel.resources.spill_load_bytes + kernel.resources.spill_store_bytes
        facts |= {
            "registers of a thread": kernel.resources.registers,
            "bytes spilled": spilled,
            "warps of a multiprocessor": kernel.occupancy.warps,
        }
    return Figure(
        how="static" if found.unit == "wgmma" else "emulated",
        seconds=taken,
        of_peak=gemm.flops / taken / flops_peak(gemm, machine),
        facts=facts,
        note="; ".join(code.missing[:1]) if not code.kernels else "",
    )


@dataclass(frozen=True)
class _Bound:
    """Seconds that each resource needs for the whole problem."""

    lowered: Lowered
    counted: Counted
    code: MachineCode
    gemm: Gemm
    machine: GpuMachine

    @property
    def unit(self) -> str:
        """What multiplies: fma, mma or wgmma."""
        return next(p.with_ for p in self.lowered.schedule.passes if isinstance(p, Vectorize))

    @property
    def seconds_by(self) -> dict[str, float]:
        """Each resource on its own."""
        machine, counted = self.machine, self.counted
        cycles = self.gemm.flops / counted.gemm.flops / machine.sms / machine.clock_hz
        rate = _unit(self.gemm, machine, self.unit) * machine.sms * machine.clock_hz
        return {
            "instructions": counted.instructions / LANES / ISSUED_PER_CYCLE * cycles,
            "shared memory and L1": counted.pipe_cycles * cycles,
            "products": self.gemm.flops / rate,
            "device memory": self.gemm.bytes_moved / machine.dram_bytes_per_second,
        }

    @property
    def waiting(self) -> float:
        """Seconds in which all threads wait for a slice, where none is copied meanwhile."""
        passes = self.lowered.schedule.passes
        slices = [
            -(-self.gemm.k // p.sizes[p.loops.index("k")])
            for p in passes
            if isinstance(p, Tile) and "k" in p.loops
        ]
        if not slices or any(isinstance(p, Pipeline) for p in passes):
            return 0.0
        rows, columns = block_of(self.lowered.schedule)
        blocks = (self.gemm.batch or 1) * -(-self.gemm.m // rows) * -(-self.gemm.n // columns)
        held = self.code.kernels[0].occupancy.blocks if self.code.kernels else BLOCKS_PER_SM
        turns = blocks / (self.machine.sms * max(held, 1))
        return turns * slices[0] * LATENCY_CYCLES / self.machine.clock_hz

    @property
    def seconds(self) -> float:
        """The longest, and the waiting."""
        return max(self.seconds_by.values()) + self.waiting

    @property
    def bound_by(self) -> str:
        """What takes longest."""
        if self.unit == "wgmma":
            return "products, stores and power, by the model of Hopper"
        by = self.seconds_by
        longest = max(by, key=lambda name: by[name])
        return "waiting for slices" if self.waiting > by[longest] else longest

    @property
    def warpgroups(self) -> float:
        """Seconds by the model of Hopper."""
        return seconds(self.gemm, self.machine, warpgroup_tiles_of(self.lowered.schedule))


def warpgroup_tiles_of(schedule: Schedule) -> WarpgroupTiles:
    """The tiles that the passes of a schedule for warpgroups make."""
    block = block_of(schedule)
    cluster = {"m": block[0], "n": block[1]}
    size, found = dict(cluster), WarpgroupTiles(m=1, n=1, warpgroups=1, stages=2)
    for p in schedule.passes:
        if isinstance(p, Tile) and p.over == "blocks":
            size |= {n: s for n, s in zip(p.loops, p.sizes, strict=True) if n in size}
        elif isinstance(p, Tile) and p.over == "warpgroups":
            found = replace(found, warpgroups=size["m"] // p.sizes[0])
        elif isinstance(p, Interchange):
            found = replace(found, group=p.group or 0)
        elif isinstance(p, Pipeline):
            found = replace(found, stages=p.stages, pingpong=p.pingpong)
    return replace(
        found,
        m=size["m"],
        n=size["n"],
        cluster_m=cluster["m"] // size["m"],
        cluster_n=cluster["n"] // size["n"],
    )
