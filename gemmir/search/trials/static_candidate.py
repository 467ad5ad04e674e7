"""The process of a trial for a machine that is not here: compiled, emulated, and weighed.

    prepare gemm    compile; what the compiler says of the code
    check seed      compute a smaller problem by the same schedule, in an emulator, and compare
    weigh           the seconds of a call that a static model says

A GPU's PTX runs in the emulator and is assembled by ptxas, where that is found; a TPU's kernel runs
in Pallas's interpreter, and libtpu profiles it if it is to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import prod
from typing import TYPE_CHECKING, Any, Final

from gemmir.errors import EmulationError, MissingError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine, TpuMachine
from gemmir.passes.persist import Persist
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.split_k import SplitK
from gemmir.passes.tile import Tile
from gemmir.schedule import PassPipeline, Schedule
from gemmir.search.trials.candidate import answered

if TYPE_CHECKING:
    from gemmir.backends.ptx.assemble import Resources
    from gemmir.compiler import Lowered

TILES: Final = 2
"""A smaller problem has so many tiles in each direction, where the whole one has."""

UNTILED: Final = 256
"""Of a direction that no pass tiles it has so many elements."""


class StaticCandidate:
    """One schedule: `spec` has its settings, and whether libtpu is to profile it."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.settings: Mapping[str, Any] = spec["settings"]
        self.lowered: Lowered | None = None

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing, and say if it cannot be done."""
        return answered(self, asked)

    def prepare(self, gemm: Mapping[str, Any]) -> dict[str, Any]:
        """Compile; of a GPU also to machine code, where ptxas is found."""
        problem = Gemm(**gemm)
        self.lowered = self._lower(problem, Schedule.parse(self.settings["schedule"]))
        kernels = self._kernels(self.lowered)
        for symbol, kernel in kernels.items():
            if kernel.spills:
                spilled = kernel.spill_store_bytes + kernel.spill_load_bytes
                return {"illegal": f"ptxas spills {spilled} bytes of the registers of {symbol}"}
        about = {"ptxas": {symbol: asdict(kernel) for symbol, kernel in kernels.items()}}
        return {"flops": problem.flops, "about": about if kernels else {}}

    def check(self, seed: int) -> dict[str, Any]:
        """Compute a smaller problem; what is wrong, "" for nothing, and the largest error."""
        from gemmir.arrays import make_operands
        from gemmir.reference import reference_of_gemm

        assert self.lowered is not None and self.lowered.problem is not None
        gemm, schedule = smaller(self.lowered.problem, self.lowered.schedule)
        words = f"m={gemm.m} n={gemm.n} k={gemm.k}"
        try:
            lowered = self._lower(gemm, schedule)
        except ScheduleError as error:
            raise ScheduleError(
                error.code, f"it cannot be checked with {words}: {error.message}", error.hint
            ) from error
        before = make_operands(lowered.artifact.signature, seed)
        after = before.copy()
        try:
            counts = _computed(lowered, after.arrays)
        except EmulationError as error:
            return {"fault": f"{words}: {error}", "error": None, "about": {}}
        compared = reference_of_gemm(gemm, before).compare(after.output)
        fault = after.damage(before) or str(compared.first_wrong or "")
        return {
            "fault": f"{words}: {fault}" if fault else "",
            "error": None if compared.largest is None else compared.largest.ratio,
            "about": {"checked": words, **counts},
        }

    def weigh(self, limit_seconds: float) -> dict[str, Any]:
        """Seconds of a call, and what they are made of."""
        from gemmir.cost import predict_schedule

        lowered = self.lowered
        assert lowered is not None and lowered.problem is not None
        if self.settings["profile"]:
            return _profiled(lowered, limit_seconds)
        found = predict_schedule(lowered.source, lowered.schedule, lowered.machine)
        about = {"bound_by": found.bound_by, "seconds_by": dict(found.seconds_by)}
        return {"value": found.seconds, "about": about}

    def _lower(self, gemm: Gemm, schedule: Schedule) -> Lowered:
        from gemmir.compiler import lower

        return lower(gemm, self.settings["target"], schedule)

    def _kernels(self, lowered: Lowered) -> Mapping[str, Resources]:
        """What each kernel takes of a GPU, where ptxas says it."""
        if not isinstance(lowered.machine, GpuMachine):
            return {}
        from gemmir.backends.ptx.assemble import cubin

        try:
            return cubin(lowered.artifact.text, lowered.artifact.cpu).kernels
        except MissingError:
            return {}


def smaller(gemm: Gemm, schedule: Schedule) -> tuple[Gemm, Schedule]:
    """A problem of a few tiles, with the last ones as they are in `gemm`, and its schedule.

    That is the same, except that blocks which persist are fewer than the tiles.
    """
    largest = {"m": 0, "n": 0, "k": 0}
    for p in schedule.passes:
        if isinstance(p, Tile):
            for name, size in zip(p.loops, p.sizes, strict=True):
                largest[name] = max(largest[name], size)
    stages = max((p.stages for p in schedule.passes if isinstance(p, Pipeline)), default=1)
    slices = prod(p.factor for p in schedule.passes if isinstance(p, SplitK))
    whole = {name: getattr(gemm, name) for name in "mnk"}
    counts = {"m": TILES, "n": TILES, "k": (stages + 1) * slices}
    sizes = {name: _shortened(whole[name], largest[name], counts[name]) for name in "mnk"}
    tiles = prod(-(-sizes[name] // (largest[name] or sizes[name])) for name in "mn")
    passes = [
        replace(p, blocks=min(p.blocks, max(tiles - 1, 1))) if isinstance(p, Persist) else p
        for p in schedule.passes
    ]
    batch = None if gemm.batch is None else min(gemm.batch, TILES)
    return replace(gemm, **sizes, batch=batch), PassPipeline(passes)


def _shortened(whole: int, tile: int, count: int) -> int:
    """So many tiles, with the same remainder as `whole` has."""
    if not tile:
        return min(whole, UNTILED)
    if whole <= count * tile:
        return whole
    return (count - 1) * tile + (whole % tile or tile)


def _computed(lowered: Lowered, arrays: list[Any]) -> dict[str, Any]:
    """Run the code on `arrays`; what the emulator counts."""
    if isinstance(lowered.machine, TpuMachine):
        from gemmir.backends.pallas.run import run_pallas

        run_pallas(lowered.artifact, lowered.artifact.text, arrays)
        return {}
    from gemmir.backends.ptx.run import run_ptx

    report = run_ptx(lowered.artifact, lowered.artifact.text, arrays)
    if report is None:
        return {}
    conflicts = report.worst_bank_conflict
    return {"emulated": {**report.instructions}, "worst_bank_conflict": conflicts}


def _profiled(lowered: Lowered, limit_seconds: float) -> dict[str, Any]:
    """The seconds of libtpu's static profile, with the copies outside of the kernel."""
    from gemmir.backends.pallas.profile import profile
    from gemmir.tpu_profile import programs

    machine, gemm = lowered.machine, lowered.problem
    assert isinstance(machine, TpuMachine) and gemm is not None
    ours, _ = programs(gemm, lowered.artifact)
    found = profile(machine, ours, flops=gemm.flops, dtype=gemm.dtype, limit_seconds=limit_seconds)
    cycles = max(found.cycles, found.hbm_cycles) + found.copy_cycles
    about = {"method": found.method, "bound_by": found.bound, "vmem_bytes": found.vmem_bytes}
    return {"value": found.seconds * cycles / found.cycles, "about": about}
