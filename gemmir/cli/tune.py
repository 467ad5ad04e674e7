"""gemmir tune: find the fastest schedule of a space."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import alone, check_writable, note, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.gemm import Gemm
    from gemmir.machine import Machine
    from gemmir.search.spaces import Space
    from gemmir.search.tuning.found import Found, Progress
    from gemmir.search.tuning.objective import Objective
    from gemmir.search.tuning.objectives import Wish
    from gemmir.search.tuning.proposer import Sampler

INTERRUPTED: Final = 130
"""What a shell makes of SIGINT."""

MIB: Final = 1 << 20

SHORT_UNITS: Final = {3: "ms", 6: "us", 9: "ns"}
"""Of seconds, by the power of ten that is in them."""

SHOWN: Final = 72
"""Letters of a point in a table; the schedule of the winner is whole below it."""

SAMPLERS: Final = ("tpe", "random", "cmaes", "grid")
OBJECTIVES: Final = ("auto", "time", "static")


def tune(
    *,
    problem: ProblemOptions,
    study: Annotated[
        Path,
        typer.Option(
            help="Where every trial is kept: an SQLite file.", metavar="FILE", show_default=False
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Schedules to try.")] = 64,
    space: Annotated[
        Path | None,
        typer.Option(
            help="Schedules to choose from; by default those around the default one.",
            metavar="FILE.space",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in the study.")
    ] = False,
    sampler: Annotated[
        str, typer.Option(help=f"Who proposes what to try: {' '.join(SAMPLERS)}.")
    ] = "tpe",
    objective: Annotated[
        str,
        typer.Option(
            help="What is made small: time on this computer's CPU or GPU, static what models say; "
            "auto takes time where the target is here.",
            metavar="|".join(OBJECTIVES),
        ),
    ] = "auto",
    prior: Annotated[
        bool,
        typer.Option(
            help="Begin with the default schedule and what the cost model likes best, which are a "
            "quarter of the trials."
        ),
    ] = True,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds of one trial, after which it is ended.")
    ] = 60.0,
    memory_limit: Annotated[
        int, typer.Option(min=64, help="MiB of one trial, beside the arrays of the problem.")
    ] = 4096,
    budget: Annotated[
        float | None,
        typer.Option(min=0.0, help="Seconds of all trials; the race of the best comes after."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of one trial.")] = 5,
    race: Annotated[
        int, typer.Option(min=1, help="Rounds of the race of the best, in steps of 8.")
    ] = 40,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the sampler, the operands and the race.")
    ] = 0,
    cpu: Annotated[
        int | None, typer.Option(min=0, help="The first CPU to run on; by default the idlest.")
    ] = None,
    pin: Annotated[
        Path | None,
        typer.Option(help="Write the winner to a lock file, for --lock.", metavar="FILE"),
    ] = None,
    json: Json = False,
) -> None:
    """Find the fastest schedule of a problem by trying some of a space.

    Each trial has a process of its own: what does not compile, crashes, hangs or is wrong is
    counted and never timed. At the end the best race again, in common rounds, until their order is
    clear or they are equals; of equals a fixed rule chooses, the default schedule first. Ctrl-C
    and even kill -9 lose nothing: --resume goes on.
    """
    from gemmir.search.tuning import result
    from gemmir.search.tuning.found import Request
    from gemmir.search.tuning.tuner import tune as run

    _check_options(problem)
    if pin is not None:
        _pins(pin)
        check_writable(pin)
    gemm = problem.gemm()
    limits = _limits(time_limit, memory_limit, rounds)
    request = Request(
        gemm=gemm,
        space=_space(space, gemm, problem),
        target=problem.target,
        threads=problem.threads or 1,
        trials=trials,
        sampler=_sampler(sampler),
        seed=seed,
        prior=prior,
        limits=limits,
        budget=budget,
        race=race,
    )
    small, about = _objective(request.gemm, problem, _wish(objective), cpu, seed, limits)
    about = {**about, "study": str(study)}
    with _progress() as watch:
        found = run(request, study, small, resume=resume, about=about, watch=watch)
    whole = result.document(found, small, about)
    if json:
        put_json(whole)
    else:
        _put(whole)
    if pin is not None and found.verdict is not None:
        _pin(pin, result.pin_for(found, small))
    if found.ended == "interrupt":
        _say_how_to_go_on(found)
        raise typer.Exit(INTERRUPTED)


def _check_options(problem: ProblemOptions) -> None:
    """A usage error for what a tune would not heed."""
    problem.check_threads()
    for name in ("schedule", "lock", "file"):
        if getattr(problem, name) is not None:
            word = "FILE.mlir" if name == "file" else f"--{name}"
            use = "give --m --n --k" if name == "file" else "a --space says what is tried"
            raise typer.BadParameter(f"{word} says nothing to a tune: {use}")


def _limits(seconds: float, mebibytes: int, rounds: int) -> Any:
    from gemmir.search.trials import Limits

    return Limits(seconds=seconds, memory_bytes=mebibytes * MIB, rounds=rounds)


def _sampler(name: str) -> Sampler:
    from gemmir.search.tuning.proposer import SAMPLERS

    for known in SAMPLERS:
        if name == known:
            return known
    raise typer.BadParameter(f"--sampler {name}: there are {', '.join(SAMPLERS)}")


def _space(path: Path | None, gemm: Gemm, problem: ProblemOptions) -> Space:
    from gemmir.search.spaces import Space

    if path is not None:
        return Space.read(path)
    from gemmir.search.spaces import default_space

    return default_space(gemm, problem.target, problem.threads or 1)


def _wish(name: str) -> Wish:
    from gemmir.search.tuning.objectives import WISHES

    for known in WISHES:
        if name == known:
            return known
    raise typer.BadParameter(f"--objective {name}: there are {', '.join(WISHES)}")


def _objective(
    gemm: Gemm, problem: ProblemOptions, wish: Wish, cpu: int | None, seed: int, limits: Any
) -> tuple[Objective, Mapping[str, Any]]:
    """What is to be small on this target, and where and with what it is found out."""
    from gemmir.bench.race import cpus_for
    from gemmir.bench.results import environment
    from gemmir.machine import CpuMachine, machine_for
    from gemmir.search.tuning.objectives import is_timed, objective_for

    threads, machine = problem.threads or 1, machine_for(problem.target)
    is_measured = wish == "time" or (wish == "auto" and is_timed(machine))
    if cpu is not None and not is_measured:
        raise typer.BadParameter(f"--cpu {cpu}: nothing is measured for {problem.target}")
    is_pinned = cpu is not None or isinstance(machine, CpuMachine)
    cpus = cpus_for(threads, cpu) if is_pinned else []
    about = environment(
        target=problem.target, threads=threads, cpus=cpus, rounds=limits.rounds, seed=seed
    )
    found = objective_for(
        gemm, problem.target, wish=wish, threads=threads, cpus=cpus, seed=seed, limits=limits
    )
    if not isinstance(machine, CpuMachine):
        _say_objective(found, machine, wish)
    keys = ("command", "started", "pinned_to", "load_average_before", "system", "versions")
    return found, {key: about[key] for key in keys}


def _say_objective(found: Objective, machine: Machine, wish: Wish) -> None:
    """Which of the two was taken, and why nothing is measured where that was not asked for."""
    from gemmir.machine import GpuMachine
    from gemmir.search.trials.places import missing_gpu

    how = "measured" if found.is_measured else "not measured"
    why = ""
    if wish == "auto" and not found.is_measured and isinstance(machine, GpuMachine):
        why = f"; {missing_gpu(machine)}"
    note(f"objective: {found.name} ({how}){why}")


# How it goes -------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Generator[Callable[[Progress], None]]:
    """Shows how far a tune is: a bar on a terminal, a line for each new best elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, best="")

        def watch(progress: Any) -> None:
            bar.update(
                task,
                description=progress.doing,
                completed=progress.done,
                total=progress.wanted,
                best=_best(progress.best),
            )

        yield watch


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self) -> None:
        self._best: float | None = None
        self._doing = ""

    def __call__(self, progress: Progress) -> None:
        word = progress.doing.split(",")[0]
        if word != self._doing:
            self._doing = word
            note(f"{word}: {progress.done} of {progress.wanted} {_best(progress.best)}".rstrip())
        elif progress.best is not None and (self._best is None or progress.best < self._best):
            self._best = progress.best
            note(f"  {progress.done} of {progress.wanted}: {_best(progress.best)}")


def _best(value: float | None) -> str:
    return "" if value is None else f"best so far {_spelled(value)}"


def _spelled(value: float, unit: str = "s") -> str:
    """A figure for people: times in the unit in which they are between 1 and 1000."""
    if unit == "s" and 0 < value < 1:
        power = next((p for p in (3, 6, 9) if value * 10**p >= 1), 9)
        return f"{value * 10**power:.4g} {SHORT_UNITS[power]}"
    return f"{value:.4g} {unit}"


# What was found ----------------------------------------------------------------------------------


def _put(whole: Mapping[str, Any]) -> None:
    counted = ", ".join(f"{count} {status}" for status, count in whole["outcomes"].items())
    refused = sum(whole["refused"].values())
    device = whole["machine"]["gpu"] or whole["machine"]["cpu"]
    where = f" ({device})" if whole["objective"]["is_measured"] else ""
    put(f"{whole['problem']} on {whole['target']}{where}\n")
    put(f"trials     {whole['trials_done']} ({counted}), {refused} points refused before\n")
    if whole["winner"] is None:
        put(f"best so far {_figure(whole)}\n{whole['best_so_far'] or 'nothing'}\n")
        return
    numbers = {trial["schedule"]: trial["number"] for trial in whole["convergence"]}
    rows = [_cells(row, whole, numbers.get(row["schedule"])) for row in whole["race"]]
    put_table("", [" " + whole["objective"]["name"], " over the best", "", "trial"], rows)
    put(f"winner     {_figure(whole)}{_against(whole)}\n")
    if _is_behind(whole):
        put("default    is faster, and was not a trial: try more, or keep it\n")
    if whole["tie"]:
        put(f"tie        {len(whole['tied'])} are equals; the rule chose among them\n")
    put("".join(f"{step}\n" for step in _steps(whole["winner"])))


def _cells(row: Mapping[str, Any], whole: Mapping[str, Any], trial: int | None) -> list[str]:
    low, high = row["ratio_interval"]
    marks = ["winner"] if row["schedule"] == whole["winner"] else []
    marks += ["default"] if row["schedule"] == whole["default"] else []
    return [
        _spelled(row["value"], whole["objective"]["unit"]),
        f"{row['ratio_to_best']:.4f} ({low:.4f} to {high:.4f})",
        ", ".join(marks),
        _place(whole, trial),
    ]


def _place(whole: Mapping[str, Any], trial: int | None) -> str:
    """Which trial it was, with its point; the default schedule need not have been one."""
    if trial is None:
        return "not a trial"
    point: Mapping[str, Any] = whole["convergence"][trial]["point"]
    text = " ".join(f"{name}={value}" for name, value in point.items())
    return f"{trial}: {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}"


def _figure(whole: Mapping[str, Any]) -> str:
    objective, value = whole["objective"], whole["value"]
    if value is None:
        return "none"
    how = "measured" if objective["is_measured"] else "static, not measured"
    speed = "" if whole["gflops"] is None else f", {whole['gflops']:.1f} GFLOP/s"
    return f"{_spelled(value, objective['unit'])}{speed} ({objective['name']}, {how})"


def _against(whole: Mapping[str, Any]) -> str:
    if whole["is_default"]:
        return ", the default schedule"
    if whole["ratio_to_default"] is None:
        return ""
    low, high = whole["ratio_to_default_interval"]
    return (
        f", {whole['ratio_to_default']:.3f} times as fast as the default ({low:.3f} to {high:.3f})"
    )


def _is_behind(whole: Mapping[str, Any]) -> bool:
    """Whether the default schedule is faster than all that was tried."""
    interval = whole["ratio_to_default_interval"]
    return interval is not None and interval[1] < 1


def _steps(schedule: str) -> tuple[str, ...]:
    from gemmir.schedule import Schedule

    return Schedule.parse(schedule).steps


def _pins(path: Path) -> Any:
    """What a lock file has, which need not be there yet."""
    from gemmir.lockfile import Lock

    path = path.expanduser()
    return Lock.read(path) if path.exists() else Lock()


def _pin(path: Path, entry: Any) -> None:
    """Put an entry into a lock file, into which another tune may pin at the same time."""
    with alone(path):
        write_file(path, str(_pins(path).with_pin(entry)).encode())
    note(f"pinned in {path}")


def _say_how_to_go_on(found: Found) -> None:
    arguments = [word for word in sys.argv[1:] if word != "--resume"]
    note(f"interrupted after {len(found.done)} of {found.request.trials} trials; go on with")
    note(f"  {shlex.join(['gemmir', *arguments, '--resume'])}")
