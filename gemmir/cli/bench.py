"""gemmir bench: race gemmir against the libraries that are installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmir.cli.options import Json, ProblemOptions, schedule_of
from gemmir.cli.output import note, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.bench.race import Field, Race
    from gemmir.bench.report import Verdict
    from gemmir.bench.suite import Suite

BAR_MISSED = 1


def bench(
    *,
    problem: ProblemOptions,
    against: Annotated[
        str | None,
        typer.Option(
            help="Libraries, joined by commas: numpy openblas mkl onednn blis libxsmm torch jax; "
            "by default all that are installed."
        ),
    ] = None,
    suite: Annotated[
        Path | None, typer.Option(help="Problems and bars.", metavar="FILE.toml")
    ] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class of the suite.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="One more schedule in the race.", metavar="TEXT|FILE"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each contestant.")] = 15,
    cpu: Annotated[
        int | None, typer.Option(min=0, help="The CPU to run on; default the idlest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random operands.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write every number to a JSON file.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a bar is missed.")
    ] = False,
    json: Json = False,
) -> None:
    """Race gemmir against the libraries that are installed.

    Each contestant has a process of its own, and all take turns on one CPU. Results are compared
    with float64 before they are timed; the exit status is 3 where one is not within its error
    bound. The ratio is the time of the best library over gemmir's: more than 1 means that gemmir
    is faster.
    """
    from gemmir.bench import contestants, race, results
    from gemmir.machine import CpuMachine, machine_for

    threads = problem.threads or 1
    machine = machine_for(problem.target)
    if not isinstance(machine, CpuMachine):
        raise typer.BadParameter(f"--target {problem.target}: races are on this computer's CPU")
    chosen = _suite(problem, suite, class_ or [])
    schedules = {contestants.GEMMIR: problem.schedule}
    schedules |= {f"{contestants.GEMMIR}:{_label(s)}": s for s in also or []}
    cpus = race.cpus_for(threads, cpu)
    those = contestants.contestants(
        against=None if against is None else against.split(","),
        machine=machine,
        threads=threads,
        schedules=schedules,
    )
    before = results.environment(
        target=problem.target, threads=threads, cpus=cpus, rounds=rounds, seed=seed
    )
    with (
        race.on_cpus(cpus),
        race.Field(those, target=problem.target, threads=threads, cpus=cpus) as field,
    ):
        if not json:
            _put_head(before, field)
        found = {
            c.name: _run(c.name, c.problems, field, rounds=rounds, seed=seed)
            for c in chosen.classes
        }
        verdicts = _verdicts(chosen, found)
        whole = results.document(before, field, found, verdicts)
    if output is not None:
        write_file(output, results.text_of(whole).encode())
        note(f"wrote {output}")
    if json:
        put_json(whole)
    else:
        _put_tables(chosen, found, verdicts)
    _refuse_wrong(found)
    if strict and not all(verdict.is_met for verdict in verdicts):
        raise typer.Exit(BAR_MISSED)


def _suite(problem: ProblemOptions, path: Path | None, only: Sequence[str]) -> Suite:
    """The suite of a file, or one of the problem that the options say."""
    from gemmir.bench.suite import Bars, Class, Suite, read_suite

    if path is not None:
        if problem.given:
            said = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(problem.given))
            raise typer.BadParameter(f"{said} would change nothing: {path} says the problems")
        found = read_suite(path)
        return found.only(only) if only else found
    if only:
        raise typer.BadParameter("--class chooses among the classes of a --suite")
    gemm = problem.job().problem
    if gemm is None:
        raise typer.BadParameter(f"{problem.file} does not say the problem; give --m --n --k")
    bars = Bars()
    return Suite(classes=(Class(name="given", problems=(gemm,), bars=bars),), bars=bars)


def _label(schedule: str) -> str:
    path = schedule_of(schedule)
    return path.stem if isinstance(path, Path) else schedule


def _run(name: str, problems: Sequence[Any], field: Field, *, rounds: int, seed: int) -> list[Race]:
    from gemmir.bench.report import spelled

    found: list[Race] = []
    for number, gemm in enumerate(problems, start=1):
        note(f"{name} {number}/{len(problems)}: {spelled(gemm)}")
        found.append(field.race(gemm, rounds=rounds, seed=seed))
        for who, fault in found[-1].wrong.items():
            note(f"  {who} is wrong: {fault}")
    return found


def _verdicts(suite: Suite, found: dict[str, list[Race]]) -> list[Verdict]:
    from gemmir.bench.report import class_verdicts, suite_verdict

    verdicts = [v for c in suite.classes for v in class_verdicts(c, found[c.name])]
    whole = suite_verdict(suite, [race for races in found.values() for race in races])
    return [*verdicts, *([whole] if whole else [])]


def _put_head(before: dict[str, Any], field: Field) -> None:
    keys = ("cpu", "pinned_to", "load_average_before", "target", "threads", "rounds", "seed")
    rows = [[key.replace("_", " "), str(before[key])] for key in keys]
    for name, about in field.about.items():
        words = (about.get("version", ""), about.get("code_path", ""))
        rows.append([name, ", ".join(word for word in words if word)])
    rows += [[name, f"missing: {reason}"] for name, reason in field.unable.items()]
    put_table("", ["this run", ""], rows)


def _put_tables(suite: Suite, found: dict[str, list[Race]], verdicts: Sequence[Verdict]) -> None:
    from gemmir.bench import report

    for of in suite.classes:
        races = found[of.name]
        names = list(dict.fromkeys(n for race in races for n in report.others_of(race)))
        rows = [report.cells(race, names, of.bars) for race in races]
        put_table(f"{of.name}, GFLOP/s", report.columns(names), rows)
    if len(suite.classes) == 1 and len(suite.classes[0].problems) == 1:
        (race,) = found[suite.classes[0].name]
        put("".join(f"{line}\n" for line in report.bars_text(race)))
        return
    rows = [
        [v.what, f"{v.value:.3f}", f">= {v.bar:g}", "met" if v.is_met else "MISSED"]
        for v in verdicts
    ]
    columns = ["time of the best peer over gemmir's", " figure", "bar", ""]
    put_table("", columns, rows)


def _refuse_wrong(found: dict[str, list[Race]]) -> None:
    """`MismatchError` GEM1372 where a result is out of its bound."""
    from gemmir.bench.report import spelled
    from gemmir.errors import MismatchError

    for races in found.values():
        for race in races:
            for name, fault in race.wrong.items():
                raise MismatchError("GEM1372", f"{name} of {spelled(race.gemm)} is wrong: {fault}")
