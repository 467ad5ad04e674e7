"""gemmir ladder: the road from the naive loop to the finished kernel, rung by rung."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.compile import KINDS, OF_MACHINE
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import note, progress, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.gemm import Gemm
    from gemmir.search.ladders import Ladder, Rung

SCHEDULE: Final = "schedule"
WRONG: Final = 3
"""The exit status where a rung is wrong."""


def ladder(
    *,
    problem: ProblemOptions,
    rung: Annotated[
        str | None, typer.Option(help="One rung in full, beside the one before.", metavar="NAME")
    ] = None,
    emit: Annotated[
        str | None,
        typer.Option(
            help="Print this of the --rung: schedule, or a text that compile emits.",
            metavar="KIND",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Time the rungs on a CPU, reckon those of a GPU or TPU.")
    ] = True,
    why: Annotated[
        bool, typer.Option("--why", help="Every rung in full: edits, IR, counts, and why.")
    ] = False,
    cpu: Annotated[int | None, typer.Option(help="The CPU to be timed on.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random arrays.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write each rung's passes to a file there.", metavar="DIR"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Climb from the naive loop to the shipped schedule, one edit at a time.

    Each rung is a schedule that changes one thing in the one before. Every stage of it is checked
    on a small problem; then it is timed on this computer's CPU, in turns with the others, after its
    whole result was compared with float64. Of a GPU the PTX emulator counts instructions, sectors
    and banks, and ptxas registers, from which a bound on the time is reckoned; of a TPU it is
    libtpu's static profile where that is installed, and the model of explain otherwise. The table
    says which.

    Without sizes the problem is 1024 cubed in f32 on a CPU and 4096 cubed in bf16 elsewhere. The
    exit status is 3 where a rung is wrong.
    """
    from gemmir.jax_modules import stay_on_cpu
    from gemmir.search.ladders import climb, problem_for, threads_for
    from gemmir.search.ladders import ladder as climb_all

    if problem.file or problem.schedule is not None or problem.lock is not None:
        raise typer.BadParameter("a ladder has schedules of its own: say the problem by its sizes")
    if emit is not None and rung is None:
        raise typer.BadParameter("--emit needs --rung, which says of what")
    problem.check_threads()
    if emit is not None:
        _refuse_beside_emit(
            {"--no-measure": not measure, "--why": why, "--json": json, "-o": output is not None}
            | {"--cpu": cpu is not None}
        )
    if not measure and cpu is not None:
        raise typer.BadParameter("--cpu is of timings, and --no-measure asks for none")
    stay_on_cpu()
    _refuse_of_cpus(problem, cpu)
    if output is not None:
        _make(output)
    gemm = problem_for(problem.target, problem.given)
    threads = threads_for(problem.target, problem.threads)
    if emit is not None and rung is not None:
        made = climb(gemm, problem.target, threads)
        put(_emitted(gemm, problem.target, made.rung_called(rung), emit))
        return
    with progress() as watch:
        found = climb_all(
            gemm,
            problem.target,
            threads=threads,
            only=rung,
            is_measured=measure,
            cpu=cpu,
            seed=seed,
            watch=watch,
        )
    if output is not None:
        _write(found, output)
    if json:
        put_json({**_about(problem.target, threads, cpu, seed), **found.to_dict()})
    else:
        _print(found, in_full=why or rung is not None)
    if not found.ok:
        raise typer.Exit(WRONG)


def _about(target: str, threads: int, cpu: int | None, seed: int) -> dict[str, Any]:
    """When and with what it was found."""
    from gemmir.bench.results import environment

    cpus = [] if cpu is None else [cpu]
    found = environment(target=target, threads=threads, cpus=cpus, rounds=0, seed=seed)
    keys = ("command", "started", "cpu", "system", "versions", "threads", "seed")
    return {key: found[key] for key in keys}


def _refuse_beside_emit(said: Mapping[str, bool]) -> None:
    """A usage error for an option that would change nothing of one text."""
    for name, is_said in said.items():
        if is_said:
            raise typer.BadParameter(f"--emit prints one text alone; leave {name} out")


def _refuse_of_cpus(problem: ProblemOptions, cpu: int | None) -> None:
    """A usage error for what is of a CPU, where the ladder is of another machine."""
    from gemmir.machine import CpuMachine, machine_for

    if isinstance(machine_for(problem.target), CpuMachine):
        return
    for name, value in {"--threads": problem.threads, "--cpu": cpu}.items():
        if value is not None:
            raise typer.BadParameter(f"{name} is of a CPU, and --target is {problem.target}")


def _make(folder: Path) -> None:
    """The folder, before anything is timed; `OutputError` GEM1445 where there can be none."""
    from gemmir.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "GEM1445", f"the folder {folder} cannot be made: {error.strerror}", "name another one"
        ) from error


def _emitted(gemm: Gemm, target: str, rung: Rung, kind: str) -> str:
    from gemmir.compiler import lower

    lowered = lower(gemm, target, rung.schedule)
    legal = [k for k in OF_MACHINE.get(lowered.machine.kind, tuple(KINDS)) if KINDS[k].is_text]
    if kind == SCHEDULE:
        return rung.text
    if kind not in legal:
        raise typer.BadParameter(f"--emit {kind}: the kinds are {', '.join((SCHEDULE, *legal))}")
    return KINDS[kind].make(lowered).decode()


def _write(found: Ladder, folder: Path) -> None:
    for step in found.steps:
        name = f"{step.number:02}-{step.rung.name}.schedule"
        write_file(folder / name, step.rung.text.encode())
    note(f"wrote {len(found.steps)} schedules to {folder}")


def _print(found: Ladder, *, in_full: bool) -> None:
    from gemmir.search.ladders import table

    put(table.head(found) + "\n")
    put_table("", list(table.COLUMNS), list(table.rows(found)))
    if in_full:
        for number in range(len(found.steps)):
            put("\n".join(table.lesson(found, number)) + "\n\n")
    put("\n".join(table.foot(found)) + "\n")
