"""gemmir bench: race gemmir against the libraries that are installed."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.options import Json, ProblemOptions, read_text, schedule_of
from gemmir.cli.output import check_writable, note, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.bench.contestants import Contestant
    from gemmir.bench.race import Field, Race
    from gemmir.bench.report import Verdict
    from gemmir.bench.suite import Class, Suite

BAR_MISSED: Final = 1

ROUNDS: Final = 15
QUICK_ROUNDS: Final = 5


def bench(
    *,
    problem: ProblemOptions,
    against: Annotated[
        str | None,
        typer.Option(
            help="Libraries joined by commas: numpy openblas mkl onednn blis libxsmm torch jax. "
            "By default all that are installed."
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
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Timings of each contestant: 15, or 5 with --quick.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer timings, for a first look.")
    ] = False,
    cpu: Annotated[
        int | None, typer.Option(min=0, help="The first CPU to run on; by default the idlest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random operands.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write every number to a JSON file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture.", metavar="FILE.png|svg|pdf")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="What -o wrote once, to compare with.", metavar="OLD.json")
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
    from gemmir.bench import plot as plots
    from gemmir.bench import race, report, results

    if quick and rounds is not None:
        raise typer.BadParameter("--quick sets the --rounds")
    if json and compare is not None:
        raise typer.BadParameter("--compare prints a table, for which --json leaves no room")
    chosen = _suite(problem, suite, class_ or [])
    old = _old(compare)
    if plot is not None:
        plots.check_plot(plot)
    for path in (output, plot):
        if path is not None:
            check_writable(path)
    those = _contestants(problem, against, also or [], chosen)
    threads = 1 if problem.threads is None else problem.threads
    cpus = race.cpus_for(threads, cpu)
    before = results.environment(
        target=problem.target,
        threads=threads,
        cpus=cpus,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        seed=seed,
    )
    with (
        race.on_cpus(cpus),
        race.Field(those, target=problem.target, threads=threads, cpus=cpus) as field,
    ):
        if not json:
            _put_head(before, field)
        found = {c.name: _run(c, field, before["rounds"], seed) for c in chosen.classes}
        verdicts = report.verdicts(chosen, found)
        whole = results.document(before, field, found, verdicts)
    title = f"gemmir on {before['cpu']}, {before['target']}"
    if output is not None:
        _write(output, results.text_of(whole).encode())
    if plot is not None:
        _write(plot, plots.picture(found, title, plot.suffix[1:]))
    if json:
        put_json(whole)
    else:
        _put_tables(chosen, found, verdicts, old)
    _refuse(found, field.unable)
    if strict and not all(verdict.is_met for verdict in verdicts):
        raise typer.Exit(BAR_MISSED)


def _write(path: Path, content: bytes) -> None:
    write_file(path, content)
    note(f"wrote {path}")


def _contestants(
    problem: ProblemOptions, against: str | None, also: Sequence[str], suite: Suite
) -> list[Contestant]:
    from gemmir.bench.contestants import GEMMIR, contestants
    from gemmir.machine import CpuMachine, machine_for
    from gemmir.machine.host import require_runnable

    machine = machine_for(problem.target)
    if not isinstance(machine, CpuMachine):
        raise typer.BadParameter(f"--target {problem.target}: races are on this computer's CPU")
    require_runnable(machine)
    schedules = {GEMMIR: _own(problem, suite)}
    for schedule in also:
        name = f"{GEMMIR}:{_label(schedule)}"
        if name in schedules:
            raise typer.BadParameter(f"two --also would both be called {name}")
        schedules[name] = schedule
    return contestants(
        against=None if against is None else against.split(","),
        machine=machine,
        threads=problem.threads or 1,
        schedules={name: _text(schedule) for name, schedule in schedules.items()},
        kinds={c.kind for c in suite.classes},
    )


def _own(problem: ProblemOptions, suite: Suite) -> str | None:
    """The schedule of gemmir itself: a lock file has one for each problem of a suite."""
    if problem.lock is None:
        return problem.schedule
    gemms = [gemm for of in suite.classes for gemm in of.problems]
    if len(gemms) != 1:
        raise typer.BadParameter(f"--lock is for one problem, and there are {len(gemms)}")
    found = problem.schedule_for(gemms[0])
    return None if found is None else str(found)


def _suite(problem: ProblemOptions, path: Path | None, only: Sequence[str]) -> Suite:
    """The suite of a file, or one of the problem that the options say."""
    from gemmir.bench.suite import Bars, Class, Suite, read_suite

    problem.check_threads()
    if path is not None:
        if problem.given or problem.file is not None:
            said = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(problem.given))
            raise typer.BadParameter(
                f"{said or problem.file} would change nothing: {path} says the problems"
            )
        found = read_suite(path)
        return found.only(only) if only else found
    if only:
        raise typer.BadParameter("--class chooses among the classes of a --suite")
    gemm = replace(problem, lock=None).job().problem
    if gemm is None:
        raise typer.BadParameter(f"{problem.file} does not say the problem; give --m --n --k")
    if gemm.unknown or gemm.unknown_factors:
        raise typer.BadParameter("a race is of known sizes; a suite has classes of kind 'any m'")
    bars = Bars()
    return Suite(classes=(Class(name="given", problems=(gemm,), bars=bars),), bars=bars)


def _label(schedule: str) -> str:
    path = schedule_of(schedule)
    return path.stem if isinstance(path, Path) else schedule


def _text(schedule: str | None) -> str | None:
    """The passes of a schedule, also of one in a file."""
    path = schedule_of(schedule)
    return read_text(path) if isinstance(path, Path) else path


def _old(path: Path | None) -> Mapping[str, Any]:
    """What a results file says; `ParseError` GEM1375 where it is none."""
    from gemmir.errors import ParseError

    if path is None:
        return {}
    try:
        found: dict[str, Any] = json_module.loads(read_text(path))
        if not found["classes"]:
            raise ValueError("it has no classes")
    except (ValueError, TypeError, KeyError) as error:
        raise ParseError("GEM1375", f"{path} is no results file: {error}") from error
    return found


def _run(of: Class, field: Field, rounds: int, seed: int) -> list[Race]:
    from gemmir.bench.report import spelled

    found: list[Race] = []
    for number, gemm in enumerate(of.problems, start=1):
        note(f"{of.name} {number}/{len(of.problems)}: {spelled(gemm)}")
        found.append(field.race(gemm, rounds=rounds, seed=seed, kind=of.kind))
        for who, fault in found[-1].wrong.items():
            note(f"  {who} is wrong: {fault}")
    return found


def _put_head(before: Mapping[str, Any], field: Field) -> None:
    from gemmir.bench.contestants import FROM_PYTHON

    keys = ("cpu", "pinned_to", "load_average_before", "target", "threads", "rounds", "seed")
    rows = [[key.replace("_", " "), str(before[key])] for key in keys]
    for name, about in field.about.items():
        words = (about.get("version", ""), about.get("code_path", ""))
        python = "called from Python" if name in FROM_PYTHON else ""
        rows.append([name, ", ".join(word for word in (*words, python) if word)])
    rows += [[name, f"missing: {reason}"] for name, reason in field.unable.items()]
    put_table("", ["this run", ""], rows)


def _put_tables(
    suite: Suite,
    found: Mapping[str, Sequence[Race]],
    verdicts: Sequence[Verdict],
    old: Mapping[str, Any],
) -> None:
    from gemmir.bench import report

    for of in suite.classes:
        races, names = found[of.name], report.others(found[of.name])
        rows = [report.cells(race, names, of.bars) for race in races]
        put_table(f"{of.name}, GFLOP/s", report.columns(names), rows)
        plot = report.ratios_text(races) if len(races) > 1 else report.speeds_text(races[0])
        put("".join(f"{line}\n" for line in plot))
        for reason, who in _reasons(races).items():
            put(f"  without a figure: {', '.join(who)} ({reason})\n")
    if old:
        columns = ["compared", " old", " new", " old ratio", " new ratio", " new over old"]
        put_table("", columns, report.compared(found, old))
    columns = ["time of the best peer over gemmir's", " figure", "bar", ""]
    put_table("", columns, [verdict.cells for verdict in verdicts])


def _reasons(races: Sequence[Race]) -> dict[str, list[str]]:
    """Who has no result in any of these races, by the reason why."""
    there = {name for race in races for name in race.results}
    found: dict[str, list[str]] = {}
    for name, reason in {n: w for r in races for n, w in r.unable.items()}.items():
        if name not in there:
            found.setdefault(reason, []).append(name)
    return found


def _refuse(found: Mapping[str, Sequence[Race]], missing: Mapping[str, str]) -> None:
    """`MismatchError` GEM1372 where a result is wrong, `BackendError` GEM1376 without gemmir's."""
    from gemmir.bench.report import spelled
    from gemmir.errors import BackendError, MismatchError

    races = [race for some in found.values() for race in some]
    for race in races:
        for name, fault in race.wrong.items():
            raise MismatchError("GEM1372", f"{name} of {spelled(race.gemm)} is wrong: {fault}")
    for race in races:
        reasons = {**missing, **race.unable}
        if race.own in reasons:
            raise BackendError(
                "GEM1376",
                f"gemmir did not compute {spelled(race.gemm)}: {reasons[race.own]}",
                "gemmir compile says more",
            )
