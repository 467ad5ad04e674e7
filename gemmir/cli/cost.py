"""gemmir cost: measured schedules, and how well the cost model ranks them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import check_writable, note, put_json, put_table, write_file
from gemmir.errors import ParseError

if TYPE_CHECKING:
    from gemmir.search.quality.measurements import Measurements, Plan
    from gemmir.search.quality.ranking import Quality, Summary

RESULTS: Final = Path("bench/results")
"""Where the measurements of the repository are, seen from its root."""

INTERRUPTED: Final = 130


def measure(
    *,
    suite: Annotated[Path, typer.Option(help="The problems, by class.", metavar="FILE.toml")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Written after each problem; what it has is kept."),
    ],
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class of the suite.")
    ] = None,
    target: Annotated[str, typer.Option(help="A CPU, or one like this computer's.")] = "cpu",
    schedules: Annotated[
        int, typer.Option(min=1, help="Of each problem: the default one and others by chance.")
    ] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Timings of each schedule.")] = 5,
    cpu: Annotated[
        int | None, typer.Option(min=0, help="The CPU to time on; by default the idlest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of schedules, operands and orders.")] = 0,
    json: Json = False,
) -> None:
    """Measure schedules of many problems, for gemmir cost quality.

    The schedules are drawn from the space around the default one. Each is compared with float64
    before it is timed; those of a problem are timed in turns, in one process on one CPU. What is in
    the file already is not measured again, so that Ctrl-C loses one problem at most.
    """
    from gemmir.bench import race, results
    from gemmir.bench.suite import read_suite
    from gemmir.machine import CpuMachine, machine_for
    from gemmir.search.quality.measurements import Measurements, Plan, problems, read

    if not isinstance(machine_for(target), CpuMachine):
        raise typer.BadParameter(f"--target {target}: only what runs on this CPU is measured")
    check_writable(output)
    found = read_suite(suite)
    wanted = list(problems(found.only(class_) if class_ else found))
    cpus = race.cpus_for(1, cpu)
    about = results.environment(target=target, threads=1, cpus=cpus, rounds=rounds, seed=seed)
    about.pop("target")
    before = read(output) if output.exists() else None
    if before is not None and before.target != target:
        raise ParseError(
            "GEM1454",
            f"{output} has measurements of {before.target}, not of {target}",
            "write another file with -o",
        )
    cases = before.cases if before is not None else ()
    started = Measurements(target=target, about={**about, "schedules": schedules}, cases=cases)
    plan = Plan(target=target, schedules=schedules, rounds=rounds, seed=seed, cpus=tuple(cpus))
    made = _measured(started, wanted, plan, output)
    lines = [f"{len(case.measured)} of {case.class_}" for case in made.cases]
    if json:
        put_json({"file": str(output), "cases": len(lines), "refused": _refused(made)})
    else:
        note(f"{output}: {len(lines)} problems, {sum(len(c.measured) for c in made.cases)} times")


def _refused(found: Measurements) -> int:
    return sum(len(case.refused) for case in found.cases)


def _measured(
    found: Measurements, wanted: Sequence[tuple[str, object]], plan: Plan, output: Path
) -> Measurements:
    """All that is wanted, with what is there already; the file is written after each problem."""
    from dataclasses import replace

    from gemmir.bench.suite import shape_of
    from gemmir.gemm import Gemm
    from gemmir.search.quality.measurements import drawn
    from gemmir.search.quality.measurements import measure as measure_case

    there = {(case.class_, case.gemm) for case in found.cases}
    missing = [(name, gemm) for name, gemm in wanted if (name, gemm) not in there]
    with _interruptible(output):
        for number, (name, gemm) in enumerate(missing, 1):
            assert isinstance(gemm, Gemm)
            case = measure_case(name, gemm, drawn(gemm, plan), plan)
            found = replace(found, cases=(*found.cases, case))
            write_file(output, found.dump().encode())
            refused = f", {len(case.refused)} refused" if case.refused else ""
            note(
                f"{number} of {len(missing)}: {name} {shape_of(gemm)}, {len(case.measured)} "
                f"schedules{refused}"
            )
    return found


@contextmanager
def _interruptible(output: Path) -> Generator[None]:
    """End with what is done where Ctrl-C is pressed, and say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        note(f"stopped; what is measured is in {output}: the same command goes on")
        raise typer.Exit(INTERRUPTED) from None


def quality(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="What gemmir cost measure wrote, or gpu-h200.json and tpu-static.json of "
            "bench/results; by default all of those.",
            metavar="[FILE]...",
            show_default=False,
        ),
    ] = None,
    problems: Annotated[
        bool, typer.Option("--problems", help="A line for each problem, not only each class.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how well the cost model ranks schedules that were measured.

    Kendall's tau and Spearman's rho of predicted and measured times, and regret@k: how much slower
    than the best schedule of all the best of those k is that the model likes best. Each is a mean
    over problems; the worst problem stands beside it.
    """
    from gemmir.search.quality.measurements import is_measured, read
    from gemmir.search.quality.ranking import quality as quality_of
    from gemmir.search.quality.stored import stored_quality

    chosen = files or _stored()
    found: list[Quality] = []
    for path in chosen:
        if is_measured(path):
            found.append(quality_of(read(path), _progress(path)))
        else:
            found.extend(stored_quality(path))
    if json:
        put_json([one.to_dict() for one in found])
        return
    for one in found:
        _put(one, problems=problems)


def _stored() -> list[Path]:
    """The stored times of the repository."""
    found = [*sorted(RESULTS.glob("cost-*.json"))]
    found += [p for name in ("gpu-h200", "tpu-static") if (p := RESULTS / f"{name}.json").exists()]
    if not found:
        raise typer.BadParameter(f"there are no measurements in {RESULTS}; name a file")
    return found


def _progress(path: Path) -> Callable[[str], None]:
    def say(text: str) -> None:
        if text.split(" of ")[0].endswith("0"):
            note(f"{path.name}: predicted {text}")

    return say


COLUMNS: Final = [
    "",
    " schedules",
    " tau",
    " worst",
    " rho",
    " regret@1",
    " @4",
    " @8",
    " worst @8",
    " predicted / measured",
]


def _put(found: Quality, *, problems: bool) -> None:
    rows = [_row(one, found) for one in (*found.classes, found.whole)]
    title = f"{found.target}: {found.about.get('times', found.about.get('cpu', ''))}"
    put_table(title, COLUMNS, rows)
    if not problems:
        return
    put_table(
        "",
        ["class", "problem", *COLUMNS[1:3], *COLUMNS[4:8], COLUMNS[9]],
        [
            [
                r.class_,
                r.problem,
                str(r.schedules),
                f"{r.tau:.2f}",
                f"{r.rho:.2f}",
                *(f"{r.regret[k]:.1%}" for k in r.regret),
                _ratio(r.ratio, r.ratio_spread),
            ]
            for r in found.rankings
        ],
    )


def _row(one: Summary, found: Quality) -> list[str]:
    """One line; where each problem has one schedule only, there is none to choose."""
    name = one.name if one.problems == 1 else f"{one.name}, {one.problems}"
    regrets = [
        f"{regret:.1%}" for regret in (*one.regret.values(), max(one.worst_regret.items())[1])
    ]
    return [
        name,
        str(one.schedules),
        f"{one.tau:.2f}",
        f"{one.worst_tau:.2f}",
        f"{one.rho:.2f}",
        *(["-"] * len(regrets) if "problems" in found.about else regrets),
        _ratio(one.ratio, one.ratio_spread),
    ]


def _ratio(ratio: float, spread: float) -> str:
    """The middle ratio, and the factor within which two of three are."""
    return f"{ratio:.2f}, within {spread:.2f}"
