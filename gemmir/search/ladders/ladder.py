"""The ladder of a problem on a machine: rungs, each checked, with its figure and what it changes.

found = ladder(gemm, target="cpu", watch=print)
found.steps[0].rung.schedule, found.steps[0].figure.gflops(gemm.flops)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from gemmir.compiler import prepare
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.lowering import run_passes
from gemmir.machine import HOST, CpuMachine, GpuMachine, Machine, machine_for
from gemmir.machine.host import missing_features
from gemmir.search.ladders.changes import changed_counts, op_counts, outline, outline_diff
from gemmir.search.ladders.checking import Checked, check_schedule
from gemmir.search.ladders.cpu import cpu_climb
from gemmir.search.ladders.figure import Figure
from gemmir.search.ladders.gpu import gpu_climb
from gemmir.search.ladders.rungs import Climb, Rung
from gemmir.search.ladders.tpu import tpu_climb

SIZES: Final = {"cpu": 1024, "cuda": 4096, "tpu": 4096}
"""m, n and k where none is given: a second of the naive loops on a CPU, and enough tiles for every
multiprocessor or a long walk of a grid."""

DTYPES: Final = {"cpu": "f32", "cuda": "bf16", "tpu": "bf16"}
"""Element types where none is given: what the fastest units take; T4 has f16 and no bf16."""

GPU_DTYPES: Final = ("f32", "f64", "f16", "bf16")
"""What a thread of a GPU multiplies and adds, and with it the lowest rungs."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rung as it was found: checked, its figure, and what its IR has beside that before.

    `number` counts the rungs of the whole ladder from 1. `ops` counts the ops of its last stage,
    `changed` by how much, and `loops` are the lines of the outline that are gone or new.
    """

    number: int
    rung: Rung
    checked: Checked
    figure: Figure
    ops: Mapping[str, int]
    changed: Mapping[str, int]
    loops: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All rungs, the lowest first; `left_out` says why others are not there."""

    gemm: Gemm
    target: str
    machine: str
    steps: tuple[Step, ...]
    left_out: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether every rung is right."""
        return all(
            step.checked.ok and not step.figure.note.startswith("wrong") for step in self.steps
        )

    def ratio(self, number: int) -> float | None:
        """How many times as fast as the rung before a rung is; None where one is not known."""
        if number == 0:
            return None
        now, before = self.steps[number].figure.seconds, self.steps[number - 1].figure.seconds
        return before / now if now and before else None

    def to_dict(self) -> dict[str, Any]:
        """The ladder as plain values, for JSON."""
        return {
            "ok": self.ok,
            "problem": asdict(self.gemm),
            "target": self.target,
            "machine": self.machine,
            "left_out": dict(self.left_out),
            "rungs": [self._rung(number) for number in range(len(self.steps))],
        }

    def _rung(self, number: int) -> dict[str, Any]:
        step = self.steps[number]
        rung, figure = step.rung, step.figure
        return {
            "number": step.number,
            "name": rung.name,
            "title": rung.title,
            "why": rung.why,
            "schedule": list(rung.steps),
            "edits": [str(edit) for edit in rung.edits],
            "changed_ops": dict(step.changed),
            "changed_loops": list(step.loops),
            "ok": step.checked.ok,
            "checked": step.checked.text,
            "how": figure.how,
            "seconds": figure.seconds,
            "quartiles": [figure.lower, figure.upper],
            "timings": figure.count,
            "gflops": figure.gflops(self.gemm.flops),
            "of_peak": figure.of_peak,
            "ratio_to_before": self.ratio(number),
            "facts": dict(figure.facts),
            "note": figure.note,
        }


def climb(gemm: Gemm, target: str = HOST, threads: int = 1) -> Climb:
    """The rungs for `gemm` on `target`, neither checked nor timed.

    Raises `ParseError` GEM1440 where a ladder has no rungs for such a problem, and `MissingError`
    for an unknown target.
    """
    machine = machine_for(target)
    _require_plain(gemm, machine)
    if isinstance(machine, CpuMachine):
        return cpu_climb(gemm, machine, threads)
    return gpu_climb(gemm, machine) if isinstance(machine, GpuMachine) else tpu_climb(gemm, machine)


def problem_for(target: str, given: Mapping[str, Any]) -> Gemm:
    """The problem that `given` says, and where it does not, sizes and a type for the machine."""
    machine = machine_for(target)
    size, dtype = SIZES[machine.kind], DTYPES[machine.kind]
    if isinstance(machine, GpuMachine) and dtype not in machine.mma_dtypes:
        dtype = machine.mma_dtypes[0]
    chosen: dict[str, Any] = {"m": size, "n": size, "k": size, "dtype": dtype, **given}
    return Gemm(**chosen)


def threads_for(target: str, wanted: int | None) -> int:
    """The cores of the last rung: `wanted`, or those that this process may run on."""
    if wanted is not None or not isinstance(machine_for(target), CpuMachine):
        return wanted or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _require_plain(gemm: Gemm, machine: Machine) -> None:
    """`ParseError` GEM1440 where the rungs do not know the problem."""
    odd = {
        "any": bool(gemm.unknown or gemm.unknown_factors),
        "groups": gemm.groups is not None,
        "scale_block": gemm.scale_block is not None,
        "dtype_b": gemm.dtype_b is not None,
    }
    found = [name for name, is_there in odd.items() if is_there]
    if 0 in (gemm.m, gemm.n, gemm.k):
        found.append("a size of 0")
    if isinstance(machine, GpuMachine) and gemm.dtype not in GPU_DTYPES:
        found.append(f"dtype {gemm.dtype} on a GPU")
    if isinstance(machine, CpuMachine) and gemm.product.precision is not None:
        found.append(f"dtype {gemm.dtype} on a CPU")
    if found:
        raise ParseError(
            "GEM1440",
            f"a ladder has no rungs for {', '.join(found)}",
            "use plain matrices of sizes that are known: "
            + (
                f"dtype {', '.join(GPU_DTYPES)}"
                if isinstance(machine, GpuMachine)
                else "--m --n --k"
            ),
        )


def ladder(
    gemm: Gemm,
    target: str = HOST,
    *,
    threads: int = 1,
    only: str | None = None,
    is_measured: bool = True,
    cpu: int | None = None,
    seed: int = 0,
    watch: Callable[[str], None] = lambda words: None,
) -> Ladder:
    """Climb: check every rung, find how fast it is, and what it changes in the IR.

    `only` names one rung, beside which the one before is looked at too. Without `is_measured`
    nothing is timed, emulated or profiled. `watch` is told what is done. Raises as `climb` does,
    and `ParseError` GEM1442 for a rung that is not on the ladder.
    """
    made, machine = climb(gemm, target, threads), machine_for(target)
    rungs = made.rungs if only is None else _pair(made, only)
    checked: dict[str, Checked] = {}
    for rung in rungs:
        watch(f"{rung.name}: check every stage")
        checked[rung.name] = check_schedule(gemm, rung.schedule, machine, seed=seed)
    right = [rung for rung in rungs if checked[rung.name].ok]
    figures: Mapping[str, Figure] = {}
    if is_measured:
        figures = _figures(gemm, machine, right, threads, cpu, seed, watch)
    missing = "--no-measure" if not is_measured else "it is wrong"
    steps: list[Step] = []
    ops: dict[str, int] = {}
    lines: list[str] = []
    for rung in rungs:
        module = _last_stage(gemm, target, rung)
        counts, outlined = op_counts(module), outline(module)
        steps.append(
            Step(
                number=made.rungs.index(rung) + 1,
                rung=rung,
                checked=checked[rung.name],
                figure=figures.get(rung.name, Figure(how="unknown", note=missing)),
                ops=counts,
                changed=changed_counts(ops, counts),
                loops=outline_diff(lines, outlined),
            )
        )
        ops, lines = counts, outlined
    return Ladder(
        gemm=gemm,
        target=target,
        machine=_machine_name(machine),
        steps=tuple(steps),
        left_out=made.left_out,
    )


def _pair(made: Climb, wanted: str) -> list[Rung]:
    """The rung called `wanted` and the one before it."""
    at = made.rungs.index(made.rung_called(wanted))
    return made.rungs[max(at - 1, 0) : at + 1]


def _last_stage(gemm: Gemm, target: str, rung: Rung) -> Any:
    """The module of the last stage of a rung."""
    job = prepare(gemm, target, rung.schedule)
    module = parse_module(job.source)
    run_passes(module, job.schedule)
    return module


def _machine_name(machine: Machine) -> str:
    """The machine that figures are of."""
    if not isinstance(machine, CpuMachine):
        return f"{machine.target} ({machine.product})"
    from gemmir.bench.contestants import cpu_model

    return f"{cpu_model()}, code for {machine.llvm_cpu}"


def _figures(
    gemm: Gemm,
    machine: Machine,
    rungs: Sequence[Rung],
    threads: int,
    cpu: int | None,
    seed: int,
    watch: Callable[[str], None],
) -> dict[str, Figure]:
    if isinstance(machine, CpuMachine):
        return dict(_on_cpu(gemm, machine, rungs, threads, cpu, seed, watch))
    found: dict[str, Figure] = {}
    for rung in rungs:
        watch(f"{rung.name}: count and reckon")
        if isinstance(machine, GpuMachine):
            from gemmir.search.ladders.emulated import emulated

            found[rung.name] = emulated(gemm, rung.schedule, machine)
        else:
            from gemmir.search.ladders.profiled import profiled

            found[rung.name] = profiled(gemm, rung.schedule, machine, say=watch)
    return found


def _on_cpu(
    gemm: Gemm,
    machine: CpuMachine,
    rungs: Sequence[Rung],
    threads: int,
    cpu: int | None,
    seed: int,
    watch: Callable[[str], None],
) -> Iterator[tuple[str, Figure]]:
    """Times on this computer, or what the cost model predicts for another one."""
    from gemmir.search.ladders.measured import code_facts, measure, predicted

    if missing_features(machine):
        for rung in rungs:
            yield rung.name, predicted(gemm, machine, rung, threads)
        return
    timed = measure(gemm, machine.target, rungs, threads=threads, cpu=cpu, seed=seed, watch=watch)
    for rung in rungs:
        yield rung.name, replace(timed[rung.name], facts=code_facts(gemm, machine, rung))
