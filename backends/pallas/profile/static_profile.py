"""libtpu's static profile of a program for a TPU: cycles, and what they are spent on.

Nothing here is measured. Cycles are known in up to three ways, the best first:

    simulated      libtpu's profiler executes the code of each op, with a model of the memories; it
                   knows neither TPU v4 nor all programs
    schedule       iterations of the main loop times its bundles, or the bytes that an iteration
                   moves where those take longer, the bundles of the first and last along k, and
                   what is fetched before and written behind them
    hlo-estimate   what XLA expects of its own products; it expects nothing of a Pallas kernel

No way sees the asynchronous copies that XLA puts between ops, nor that fewer cycles than HBM takes
for the bytes that are moved are not possible: the cycles of a profile are at least those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from gemmir.backends.pallas.profile import hlo
from gemmir.backends.pallas.profile.ahead_of_time import (
    LIMIT_SECONDS,
    EndedError,
    attempted,
    compiled,
    versions,
)
from gemmir.backends.pallas.profile.program import Program
from gemmir.backends.pallas.profile.schedule import MATMUL, PASSES, Loop, listings, main_loop
from gemmir.errors import ProfileError
from gemmir.machine.tpu import TpuMachine

Method = Literal["simulated", "schedule", "hlo-estimate"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)
"""How cycles can be known, the best first."""

DUMP: Final = (
    "--xla_jf_dump_to={folder}",
    "--xla_jf_dump_llo_text=true",
    f"--xla_jf_dump_llo_pass_label_regex={PASSES}",
)
SIMULATE: Final = ("--xla_jf_dump_static_llo_profile_to={folder}",)
"""Flags of libtpu: dump the schedule; run the static profiler, which ends the process where it does
not know a program."""

STEPS: Final = "overhead of steps"
WAITS: Final = "prologue and waits"
MXU: Final = "MXU"
HBM: Final = "HBM"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The static profile of one program.

    `cycles` are those of `method`, and at least `hbm_cycles`; `cycles_by` has every figure that
    there is. `copy_bytes` are moved by copies outside of the kernels, in `copy_cycles` that are not
    in `cycles`. `hbm_bytes` counts every block that is fetched where `hbm_bytes_by_block`, and
    otherwise each array once, which is the least. `shares` says what part of the cycles each unit
    is busy or each cause takes; `bound` is the largest. `loop` is None where libtpu dumped no
    code. `refused` is why libtpu did not simulate, where it was asked to.
    """

    target: str
    function: str
    flops: int
    ideal_cycles: int
    method: Method
    cycles: int
    cycles_by: Mapping[Method, int]
    seconds: float
    copy_bytes: int
    copy_cycles: int
    hbm_bytes: int
    hbm_bytes_by_block: bool
    hbm_cycles: int
    vmem_bytes: int
    code_bytes: int
    grid: tuple[int, ...]
    loop: Loop | None
    shares: Mapping[str, float]
    bound: str
    refused: str
    versions: Mapping[str, str]

    @property
    def mxu_utilisation(self) -> float:
        """The part of the cycles that the matrix units need for the products."""
        return self.ideal_cycles / self.cycles

    @property
    def mxu_utilisation_with_copies(self) -> float:
        """The same where the copies outside of the kernels hide behind nothing."""
        return self.ideal_cycles / (self.cycles + self.copy_cycles)

    def utilisation_by(self, method: Method) -> float | None:
        """The utilisation by one method; None where it says nothing."""
        cycles = self.cycles_by.get(method)
        return None if cycles is None else self.ideal_cycles / max(cycles, self.hbm_cycles)

    def to_dict(self) -> dict[str, Any]:
        """This profile as plain values."""
        found = asdict(self)
        found["mxu_utilisation"] = self.mxu_utilisation
        found["mxu_utilisation_with_copies"] = self.mxu_utilisation_with_copies
        return found

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` made; `KeyError` or `TypeError` where it is none."""
        values = {field.name: found[field.name] for field in fields(Profile)}
        loop = values["loop"]
        values["loop"] = None if loop is None else Loop(**loop)
        values["grid"] = tuple(values["grid"])
        return Profile(**values)

    def to_json(self) -> str:
        """This profile as JSON text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Profile:
        """The profile that `to_json` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        return Profile.from_dict(json.loads(text))


def profile(
    machine: TpuMachine,
    program: Program,
    *,
    flops: int,
    dtype: str,
    simulate: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
) -> Profile:
    """Profile `program`, whose products are `flops` operations on elements of `dtype`.

    Simulating takes some twelve seconds for a million cycles. Raises as `compile_for` does, and
    `ProfileError` GEM1106 where libtpu tells nothing of the cycles.
    """
    refused = ""
    if simulate:
        flags = (*DUMP, *SIMULATE)
        try:
            with attempted(machine, program, flags, limit_seconds=limit_seconds) as found:
                return _read(machine, program, *found, flops=flops, dtype=dtype, refused="")
        except EndedError as error:
            refused = error.reason
    with compiled(machine, program, DUMP, limit_seconds=limit_seconds) as found:
        return _read(machine, program, *found, flops=flops, dtype=dtype, refused=refused)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a core does: iterations of its main loop, and those that are the last along k."""

    loop: Loop
    iterations: float
    tiles: float

    @property
    def cycles(self) -> float:
        """Cycles in the bundles of the main loop."""
        return self.iterations * self.loop.bundles


def _read(
    machine: TpuMachine,
    program: Program,
    folder: Path,
    result: Mapping[str, Any],
    *,
    flops: int,
    dtype: str,
    refused: str,
) -> Profile:
    text: str = result["hlo"]
    ops = hlo.ops(text)
    ideal = flops / machine.mxu_flops_per_cycle(dtype) / machine.cores_per_device
    call = _only(result["calls"])
    blocks: Sequence[Mapping[str, int]] | None = call and call["blocks"]
    moved = hlo.hbm_bytes(ops)
    if blocks is not None:
        moved = sum(b["bytes"] for b in blocks) + _beside(ops)
    per_cycle = machine.hbm_bytes_per_cycle_per_core * machine.cores_per_device
    hbm_cycles = moved / per_cycle
    loops = [main_loop(found) for found in listings(folder).values()]
    loop = max(loops, key=lambda found: found.mxu_busy_cycles, default=None)
    work = None
    if loop is not None and loop.mxu_busy_cycles:
        windows = max((op.windows for op in ops), key=len, default=())
        grid = tuple(call["grid"]) if call else windows
        work = _work(machine, loop, grid, blocks, ideal)
    ends = max((op.window_bytes for op in ops), default=0) if call is None else _ends(call)
    cycles_by = _cycles_by(ops, work, hbm_cycles, ends / per_cycle)
    if not cycles_by:
        raise ProfileError(
            "GEM1106",
            f"libtpu {versions()['libtpu']} tells nothing of the cycles of {program.function} for "
            f"{machine.target}",
            "use a version of libtpu that writes schedules",
        )
    method = next(method for method in METHODS if method in cycles_by)
    cycles = max(cycles_by[method], math.ceil(hbm_cycles))
    shares = _shares(work, cycles, ideal, hbm_cycles)
    return Profile(
        target=machine.target,
        function=program.function,
        flops=flops,
        ideal_cycles=math.ceil(ideal),
        method=method,
        cycles=cycles,
        cycles_by=cycles_by,
        seconds=cycles / machine.clock_hz,
        copy_bytes=hlo.copy_bytes(ops),
        copy_cycles=math.ceil(hlo.copy_bytes(ops) / per_cycle),
        hbm_bytes=moved,
        hbm_bytes_by_block=blocks is not None,
        hbm_cycles=math.ceil(hbm_cycles),
        vmem_bytes=hlo.vmem_bytes(text),
        code_bytes=result["code_bytes"],
        grid=tuple(call["grid"]) if call else (),
        loop=loop,
        shares=shares,
        bound=max(shares, key=lambda name: shares[name]),
        refused=refused,
        versions=versions(),
    )


def _only(calls: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The one Pallas kernel of a program; None where there is none, or several."""
    return calls[0] if len(calls) == 1 else None


def _beside(ops: Sequence[hlo.Op]) -> int:
    """Bytes of HBM that ops beside Pallas kernels move."""
    return hlo.hbm_bytes([op for op in ops if op.opcode != "custom-call"])


def _ends(call: Mapping[str, Any]) -> int:
    """Bytes of the blocks that a kernel needs before it can begin, and of one that it writes."""
    return sum(block["first_bytes"] for block in call["blocks"] or ())


def _work(
    machine: TpuMachine,
    loop: Loop,
    grid: tuple[int, ...],
    blocks: Sequence[Mapping[str, int]] | None,
    ideal: float,
) -> _Work:
    """How often the main loop runs on each core.

    Each step of the grid is an iteration; where the kernel has a loop in it, the iterations follow
    from the products that each does.
    """
    cores = machine.cores_per_device
    iterations = ideal / loop.mxu_busy_cycles
    if grid and loop.depth == 1:
        iterations = math.prod(grid) / cores
    tiles = blocks[-1]["copies"] / cores if blocks else iterations / max(grid[-1:], default=1)
    return _Work(loop=loop, iterations=iterations, tiles=tiles)


def _cycles_by(
    ops: Sequence[hlo.Op], work: _Work | None, hbm_cycles: float, ends: float
) -> dict[Method, int]:
    found: dict[Method, float | None] = {
        "simulated": hlo.simulated_cycles(ops),
        "schedule": None,
        "hlo-estimate": hlo.estimated_cycles(ops),
    }
    if work is not None:
        edges = work.tiles * work.loop.edge_bundles
        found["schedule"] = max(work.cycles, hbm_cycles) + edges + ends
    return {method: math.ceil(n) for method, n in found.items() if n is not None}


def _shares(work: _Work | None, cycles: int, ideal: float, hbm_cycles: float) -> dict[str, float]:
    """The part of `cycles` that each unit is busy, and that is lost to each cause."""
    found = {MXU: ideal / cycles, HBM: hbm_cycles / cycles}
    if work is not None:
        part = work.cycles / cycles
        found |= {unit: n * part for unit, n in work.loop.slots.items() if unit != MATMUL}
        found[STEPS] = part * (1 - work.loop.mxu_occupancy)
        found[WAITS] = 1 - part
    return {name: round(max(share, 0.0), 4) for name, share in found.items()}
