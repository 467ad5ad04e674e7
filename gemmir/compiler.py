"""The road of a GEMM: build, passes, emit, assemble, load.

`prepare` decides machine and passes; `lower` goes on to the emitted text and keeps every stage at
hand; `compile` to a callable, through the object cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as cache_once
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Final

from xdsl.dialects.builtin import ModuleOp

from gemmir.backend import Artifact, Loaded, backend_for
from gemmir.cache import ObjectCache, cache_key, default_path
from gemmir.errors import CallError, ParseError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.arguments import unknown_numbers
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import EpilogueOp
from gemmir.ir.problem import problem_of
from gemmir.kernel import DTYPES, Kernel
from gemmir.lowering import LEVELS, Stages, level_of, run_passes, run_stages, take_remaining
from gemmir.machine import HOST, CpuMachine, GpuMachine, Machine, TpuMachine, machine_for
from gemmir.machine.host import require_runnable
from gemmir.packed import Packing
from gemmir.runtime_kernel import RuntimeKernel
from gemmir.schedule import Schedule, check_fits
from gemmir.schedule.cpu.prepacked import prepacked_passes
from gemmir.schedule.default import default_text, require_one_thread
from gemmir.schedule.prepacked import prepacked_text
from gemmir.signature import Signature
from gemmir.threads import checked, planned, running

KERNELS_KEPT: Final = 1024
"""Kernels that one process keeps for problems it has seen."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be lowered and how, decided and not begun: IR, machine and passes.

    `problem` is the GEMM where it is known: a stage that was read from a file has none. Of the
    epilogue of a text only the operands are known. `threads` is what the caller said of them.
    """

    source: str
    target: str
    machine: Machine
    schedule: Schedule
    problem: Gemm | None
    threads: int | None = None

    @property
    def key(self) -> str:
        """The key of the machine code in an object cache."""
        return cache_key(self.target, str(self.schedule), self.source)

    @cached_property
    def stages(self) -> Stages:
        """The IR before the first pass and after each, by name (`03-tile`) or level (`tiled`)."""
        return Stages(list(run_stages(parse_module(self.source), self.schedule)))

    def lower(self) -> Lowered:
        """Run the passes and emit; `ScheduleError` or `BackendError` where that fails."""
        return _finish(self, parse_module(self.source))


@dataclass(frozen=True, kw_only=True)
class Lowered(Job):
    """A job that is done: `artifact` is the text that the backend emitted."""

    artifact: Artifact

    def assemble(self, cache: ObjectCache | None = None) -> bytes:
        """The object file, also for another computer than this one."""
        return _object(self.machine, self.key, cache, lambda: self.artifact)[0]

    def compile(self, cache: ObjectCache | None = None, *, interpret: Any = False) -> Kernel:
        """A callable on this computer; `cache` keeps the object file, by default on disk.

        `interpret` is as for `gemmir.compile`.
        """
        whole = self.problem if self._says_all else None
        made = _Made(
            machine=self.machine,
            key=self.key,
            purpose=self.key if whole is None else _purpose(whole, self.target, str(self.schedule)),
            artifact=lambda: self.artifact,
            threads=_running(self.machine, self.threads),
            prepacked=None
            if whole is None
            else _prepacked(
                whole,
                self.target,
                str(self.schedule),
                cache,
                _running(self.machine, self.threads),
            ),
        )
        return _load(made, cache, interpret, whole)

    @property
    def _says_all(self) -> bool:
        """Whether the problem is all that the source says: of a text, only its operands may be."""
        return self.problem is not None and str(build(self.problem)) + "\n" == self.source

    def explain(self) -> str:
        """What was decided and what it means on the machine, for a reader."""
        from gemmir.explain import explain

        return explain(self)


def lower(
    gemm: Gemm,
    target: str = HOST,
    schedule: Schedule | str | Path | None = None,
    threads: int | None = None,
) -> Lowered:
    """Take `gemm` through the passes of `schedule` to the text of a backend.

    `schedule` is a value, its text, or the path of a `.schedule` file; by default it is chosen for
    `threads` cores of the target, None for what `gemmir.threads.planned` says. Raises
    `MissingError` for an unknown target, `ScheduleError` where a pass cannot do what it is asked
    or the machine has no room for it.
    """
    return _finish(*_begin(gemm, target, schedule, threads))


def lower_text(
    text: str,
    target: str = HOST,
    stage: str | None = None,
    schedule: Schedule | str | Path | None = None,
    name: str = "<text>",
    threads: int | None = None,
) -> Lowered:
    """Go on from MLIR text: a problem in standard MLIR, or any stage that gemmir has printed.

    A printed stage carries its remaining passes, which `schedule` replaces; a problem gets the
    default schedule for `threads` cores. `stage` is the level that the text must have. Raises
    `ParseError` where the text is not that, `ScheduleError` GEM0314 where no passes are known.
    """
    return _finish(*_begin_text(text, target, stage, schedule, name, threads))


def prepare(
    gemm: Gemm,
    target: str = HOST,
    schedule: Schedule | str | Path | None = None,
    threads: int | None = None,
) -> Job:
    """What `lower` would do, without doing it."""
    return _begin(gemm, target, schedule, threads)[0]


def prepare_text(
    text: str,
    target: str = HOST,
    stage: str | None = None,
    schedule: Schedule | str | Path | None = None,
    name: str = "<text>",
    threads: int | None = None,
) -> Job:
    """What `lower_text` would do, without doing it."""
    return _begin_text(text, target, stage, schedule, name, threads)[0]


def _begin(
    gemm: Gemm, target: str, schedule: Schedule | str | Path | None, threads: int | None
) -> tuple[Job, ModuleOp]:
    machine = machine_for(target)
    _require_sizes(machine, (*gemm.unknown, *gemm.unknown_factors))
    chosen = _schedule(gemm, target, schedule, threads)
    check_fits(chosen, gemm, machine)
    return _job(build(gemm), target, machine, chosen, gemm, threads)


def _begin_text(
    text: str,
    target: str,
    stage: str | None,
    schedule: Schedule | str | Path | None,
    name: str,
    threads: int | None,
) -> tuple[Job, ModuleOp]:
    from gemmir.ir.import_mlir import import_mlir

    machine = machine_for(target)
    module = import_mlir(text, name)
    remaining = take_remaining(module)
    level = level_of(module)
    if stage is not None and stage != level:
        known = "" if stage in LEVELS else f" (levels are {', '.join(LEVELS)})"
        raise ParseError("GEM0206", f"{name} is at level {level}, not {stage}{known}")
    problem = problem_of(module) if level == "gemm" else None
    _require_sizes(machine, unknown_numbers(module))
    if schedule is not None:
        chosen = _given(schedule, machine, threads)
    elif remaining is not None:
        chosen = remaining
    elif problem is not None:
        chosen = Schedule.parse(_default_for(module, problem, target, threads))
    elif level == "vectorized":
        chosen = Schedule()
    else:
        raise ScheduleError(
            "GEM0314",
            f"{name} is at level {level} and carries no schedule",
            "give the passes to run",
        )
    if problem is not None:
        check_fits(chosen, problem, machine)
    return _job(module, target, machine, chosen, problem, threads)


def compile(
    gemm: Gemm,
    target: str = HOST,
    schedule: Schedule | str | Path | None = None,
    threads: int | None = None,
    cache: ObjectCache | None = None,
    *,
    interpret: Any = False,
) -> Kernel:
    """A callable for `gemm` on this computer; the same arguments give the same kernel.

    Machine code is taken from `cache` where it is there, by default the folder that
    `gemmir.cache.default_path` names. Raises as `lower` does, and `MissingError` where this
    computer cannot run the code: GEM0606 its CPU; GEM0607, GEM0609 and GEM0610 its GPU.

    `threads` is the number of cores that the default schedule is for, and on which the kernel runs,
    though never on more than this process may use. By default `gemmir.threads` says it, from the
    environment. With a `schedule` only the kernel heeds it; `ScheduleError` GEM1342 where no loop
    of that is over cores.

    A kernel for a TPU is a `gemmir.tpu_kernel.TpuKernel`, a function of JAX. It runs on a TPU, and
    with `interpret` on any device of JAX, in Pallas's interpreter: True is the quick one,
    `pltpu.InterpretParams(…)` the one that knows of DMA and races. For other targets `interpret`
    is a `CallError` GEM0544.
    """
    machine = machine_for(target)
    _require_sizes(machine, (*gemm.unknown, *gemm.unknown_factors))
    text = str(_schedule(gemm, target, schedule, threads))
    count = _running(machine, threads)
    if cache is not None:
        return _compile(gemm, target, text, cache, interpret, count)
    return _kept(gemm, target, text, interpret, count)


@lru_cache(maxsize=KERNELS_KEPT)
def _kept(gemm: Gemm, target: str, schedule: str, interpret: Any, threads: int) -> Kernel:
    return _compile(gemm, target, schedule, None, interpret, threads)


def _compile(
    gemm: Gemm,
    target: str,
    schedule: str,
    cache: ObjectCache | None,
    interpret: Any,
    threads: int,
) -> Kernel:
    made = _Made(
        machine=machine_for(target),
        key=cache_key(target, schedule, repr(gemm)),
        purpose=_purpose(gemm, target, schedule),
        artifact=lambda: lower(gemm, target, schedule).artifact,
        threads=threads,
        prepacked=_prepacked(gemm, target, schedule, cache, threads),
    )
    return _load(made, cache, interpret, gemm)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What is to be loaded: for which machine, its key in a cache, how it is emitted.

    It runs on so many `threads`, 0 for what the OpenMP runtime says. Kernels of one `purpose` and
    as many threads take each other's packed operands.
    """

    machine: Machine
    key: str
    purpose: str
    artifact: Callable[[], Artifact]
    threads: int
    prepacked: Callable[[], Packing] | None = None


def _purpose(gemm: Gemm, target: str, schedule: str) -> str:
    """What a kernel computes and how, whichever way it was compiled."""
    return f"{gemm!r} {target} {schedule}"


def _load(made: _Made, cache: ObjectCache | None, interpret: Any, problem: Gemm | None) -> Kernel:
    machine, key, artifact = made.machine, made.key, made.artifact
    backend = backend_for(machine.backend)
    if isinstance(machine, TpuMachine):
        from gemmir.tpu_kernel import TpuKernel, Way

        object_bytes, signature = _object(machine, key, cache, artifact)

        def again(gemm: Gemm) -> Kernel:
            return compile(gemm, machine.target, cache=cache, interpret=interpret)

        way = Way(machine=machine, interpret=interpret, problem=problem, compile=again)
        return TpuKernel(backend.load(object_bytes, signature), signature, way)
    if interpret is not False:
        raise CallError(
            "GEM0544",
            f"interpret={interpret!r} of a kernel for {machine.target}",
            "only kernels for TPUs have an interpreter; leave it out",
        )
    if isinstance(machine, GpuMachine):
        from gemmir.backends.ptx.driver import require_gpu
        from gemmir.gpu_kernel import GpuKernel

        require_gpu(machine.llvm_cpu)
        object_bytes, signature = _object(machine, key, cache, artifact)
        return GpuKernel(backend.load(object_bytes, signature), signature)
    assert isinstance(machine, CpuMachine)
    require_runnable(machine)
    from gemmir.thunk import with_thunk

    object_bytes, signature = _object(machine, key, cache, artifact)
    loaded = backend.load(object_bytes, signature)
    if loaded.threads is not None:
        loaded.threads.value = made.threads
    if signature.sizes:
        return RuntimeKernel(loaded, signature)
    kernel = with_thunk(loaded, signature, f"{made.purpose} {made.threads}")
    if signature.packs:
        kernel.packing = partial(_packing, loaded, signature)
    elif made.prepacked is not None:
        kernel.packing = made.prepacked
    return kernel


def _packing(loaded: Loaded, signature: Signature) -> Packing:
    """The functions for the operand that code packs before a call."""
    from gemmir.thunk import with_thunk

    pack = signature.packs[-1]
    filled, compute = signature.of_pack(pack), signature.of_compute(pack)
    return Packing(
        operand=pack.operand,
        pack=with_thunk(loaded.others[pack.symbol], filled),
        compute=with_thunk(loaded.others[pack.compute], compute),
        elements=pack.elements,
        dtype=DTYPES[filled.arguments[-1].dtype],
    )


def _prepacked(
    gemm: Gemm, target: str, schedule: str, cache: ObjectCache | None, threads: int
) -> Callable[[], Packing] | None:
    """How a kernel of `gemm` gets its B packed before a call: another kernel does it.

    None where it cannot be.
    """
    if gemm.unknown or gemm.has_weights or gemm.scale_block is not None:
        return None

    @cache_once
    def packing() -> Packing:
        text = _prepacked_schedule(gemm, target, schedule, threads)
        kernel = _compile(gemm, target, text, cache, False, threads)
        assert kernel.packing is not None
        return kernel.packing()

    return packing


def _prepacked_schedule(gemm: Gemm, target: str, schedule: str, threads: int) -> str:
    """The schedule in whose place `schedule` stands once B is packed before the calls.

    A default schedule gives way to a default one; of another what does not copy B stays.
    """
    machine = machine_for(target)
    is_plain = not gemm.product.is_mixed and gemm.groups is None
    if isinstance(machine, CpuMachine) and is_plain and 0 not in (gemm.m, gemm.n, gemm.k):
        for cores in (1, max(threads, 1)):
            default = Schedule.parse(default_text(gemm, machine, cores))
            if str(default) == schedule:
                return "\n".join(prepacked_passes(gemm, machine, cores))
    return prepacked_text(Schedule.parse(schedule), gemm.n)


def _require_sizes(machine: Machine, unknown: Sequence[str]) -> None:
    """`ScheduleError` GEM1353 where numbers are unknown that `machine` must know."""
    if unknown and not isinstance(machine, CpuMachine):
        raise ScheduleError(
            "GEM1353",
            f"{machine.target} needs all numbers before the call, and {', '.join(unknown)} "
            f"{'is' if len(unknown) == 1 else 'are'} known in a call only",
            f"give {', '.join(unknown)}, or use a CPU",
        )


def _object(
    machine: Machine, key: str, cache: ObjectCache | None, artifact: Callable[[], Artifact]
) -> tuple[bytes, Signature]:
    cache = ObjectCache(default_path()) if cache is None else cache
    found = cache.get(key)
    if found is None:
        made = artifact()
        found = backend_for(machine.backend).assemble(made), made.signature
        cache.put(key, *found)
    return found


def _schedule(
    gemm: Gemm, target: str, schedule: Schedule | str | Path | None, threads: int | None
) -> Schedule:
    """The passes, given or by default."""
    machine = machine_for(target)
    if schedule is not None:
        return _given(schedule, machine, threads)
    return Schedule.parse(default_text(gemm, machine, _planned(target, threads)))


def _planned(target: str, threads: int | None) -> int:
    """For how many threads the default schedule is: the environment speaks of this computer."""
    if target == HOST:
        return planned(threads)
    return 1 if threads is None else checked(threads)


def _running(machine: Machine, threads: int | None) -> int:
    return running(threads) if isinstance(machine, CpuMachine) else 0


def _given(schedule: Schedule | str | Path, machine: Machine, threads: int | None) -> Schedule:
    """A schedule of the caller; `ScheduleError` where `threads` would mean nothing with it."""
    chosen = _read(schedule)
    if threads is None:
        return chosen
    if not isinstance(machine, CpuMachine):
        require_one_thread(machine, threads)
    elif checked(threads) > 1 and not chosen.is_threaded:
        raise ScheduleError(
            "GEM1342",
            f"threads={threads} beside a schedule without a loop over cores",
            "add parallelize{loop=m}, or leave threads out",
        )
    return chosen


def _read(given: Schedule | str | Path) -> Schedule:
    if isinstance(given, Schedule):
        return given
    if isinstance(given, str):
        return Schedule.parse(given)
    try:
        return Schedule.parse(given.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ParseError("GEM0315", f"the schedule {given} cannot be read: {error}") from error


def _default_for(module: ModuleOp, problem: Gemm, target: str, threads: int | None) -> str:
    """The default for a module whose epilogue is known by its ops only."""
    ops = list(module.walk())
    has_exp = any(op.name == "math.exp" for op in ops)
    has_epilogue = any(isinstance(op, EpilogueOp) for op in ops)
    machine, count = machine_for(target), _planned(target, threads)
    return default_text(problem, machine, count, fuse=has_epilogue, expand=has_exp)


def _job(
    module: ModuleOp,
    target: str,
    machine: Machine,
    schedule: Schedule,
    problem: Gemm | None,
    threads: int | None,
) -> tuple[Job, ModuleOp]:
    job = Job(
        source=str(module) + "\n",
        target=target,
        machine=machine,
        schedule=schedule,
        problem=problem,
        threads=threads,
    )
    return job, module


def _finish(job: Job, module: ModuleOp) -> Lowered:
    """Run the passes over `module`, which is that of `job`, and emit."""
    run_passes(module, job.schedule)
    return Lowered(
        source=job.source,
        target=job.target,
        machine=job.machine,
        schedule=job.schedule,
        problem=job.problem,
        threads=job.threads,
        artifact=backend_for(job.machine.backend).emit(module, job.machine),
    )
