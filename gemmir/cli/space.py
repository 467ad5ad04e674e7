"""gemmir space: what a schedule with holes leaves open, and which points of it are legal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import put, put_json, put_table

if TYPE_CHECKING:
    from gemmir.gemm import Gemm
    from gemmir.search.spaces import BoundSpace, Census, Point

SHOWN_VALUES: Final = 12
"""Values of a hole that are shown to people."""

SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="A schedule with holes, or a file of it; by default that around the default schedule.",
        metavar="TEXT|FILE.space",
        show_default=False,
    ),
]
Lower = Annotated[
    bool,
    typer.Option(
        help="Ask the passes and the backend too, beside the rules and the sizes: 10 to 200 ms."
    ),
]


def show(
    *,
    problem: ProblemOptions,
    space: SpaceOption = None,
    text: Annotated[
        bool, typer.Option("--text", help="Print the text of the space only, to begin one with.")
    ] = False,
    lower: Lower = False,
    most: Annotated[
        int, typer.Option(min=1, help="Points that are looked at; more are counted by chance.")
    ] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Of that chance.")] = 0,
    json: Json = False,
) -> None:
    """Show a space of schedules: its holes with their values, its rules, how many points are legal,
    and how many are not for which reason.

    With --schedule it says which point of the space that schedule is.
    """
    bound, said = _bound(problem, space)
    if text:
        if json:
            put_json({"space": said})
        else:
            put(said)
        return
    with _progress(bound.size, "points") as progress:
        census = bound.count(lower=lower, most=most, seed=seed, progress=progress)
    point = None if problem.schedule is None else _point(bound, problem)
    if json:
        put_json(
            _facts(bound, said, census) | ({} if problem.schedule is None else {"point": point})
        )
        return
    put(said + "\n")
    rows = [[f"?{n}", str(len(v)), _shown(v)] for n, v in bound.holes.items()]
    put_table("", ["hole", " values", "which; searches begin with the first"], rows)
    put_table("", ["", " points"], [[*row] for row in _counted(census)])
    if problem.schedule is not None:
        put(
            f"The schedule is {_line(point)}.\n"
            if point
            else "The schedule is not in this space.\n"
        )


def list(
    *,
    problem: ProblemOptions,
    space: SpaceOption = None,
    limit: Annotated[int | None, typer.Option(min=0, help="No more points than so many.")] = None,
    lower: Lower = False,
    json: Json = False,
) -> None:
    """List the legal points of a space in the order of their values, with their schedules."""
    _refuse_schedule(problem)
    bound, _ = _bound(problem, space)
    _put_points(bound, islice(bound.points(lower=lower), limit), json=json)


def sample(
    *,
    problem: ProblemOptions,
    space: SpaceOption = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same points.")] = 0,
    lower: Lower = True,
    json: Json = False,
) -> None:
    """Draw different legal points of a space, all of which are as likely, with their schedules."""
    _refuse_schedule(problem)
    bound, _ = _bound(problem, space)
    _put_points(bound, iter(bound.sample(count, seed, lower=lower)), json=json)


def _bound(problem: ProblemOptions, space: str | None) -> tuple[BoundSpace, str]:
    """The space for the problem, and its text."""
    from gemmir.search.spaces import Space, default_space

    problem.check_threads()
    if problem.lock is not None:
        raise typer.BadParameter("--lock would change nothing: the space says the passes")
    gemm = _gemm(problem)
    if space is None:
        chosen = default_space(gemm, problem.target, problem.threads or 1)
    elif problem.threads is not None:
        raise typer.BadParameter("--threads would change nothing: --space says on what loops run")
    else:
        is_path = space.endswith(".space") or ("{" not in space and Path(space).is_file())
        chosen = Space.read(space) if is_path else Space.parse(space)
    return chosen.bind(gemm, problem.target), chosen.text


def _gemm(problem: ProblemOptions) -> Gemm:
    """The problem, which a file of MLIR may say too."""
    if problem.file is None:
        return problem.gemm()
    if problem.file.suffix == ".space":
        raise typer.BadParameter(f"{problem.file} is a space; write --space {problem.file}")
    found = problem.job().problem
    if found is None:
        raise typer.BadParameter(f"{problem.file} is a stage, and a space is of a whole problem")
    return found


def _refuse_schedule(problem: ProblemOptions) -> None:
    if problem.schedule is not None:
        raise typer.BadParameter("--schedule would change nothing: the space says the passes")


def _point(bound: BoundSpace, problem: ProblemOptions) -> Point | None:
    from gemmir.schedule import Schedule

    given = problem.schedule or ""
    is_path = given.endswith(".schedule") or ("{" not in given and Path(given).is_file())
    return bound.point_of(Schedule.parse(Path(given).read_text() if is_path else given))


def _put_points(bound: BoundSpace, points: Iterator[Point], *, json: bool) -> None:
    """A line for each point: its values, and behind a tab its schedule."""
    if json:
        put_json([{"point": point, "schedule": str(bound.schedule(point))} for point in points])
        return
    for point in points:
        put(f"{_line(point)}\t{bound.schedule(point)}\n")


def _facts(bound: BoundSpace, said: str, census: Census) -> dict[str, Any]:
    return {
        "target": bound.target,
        "space": said,
        "holes": {name: [*values] for name, values in bound.holes.items()},
        "first": bound.first,
        "rules": [*bound.rules],
        "size": census.size,
        "examined": census.examined,
        "exact": census.is_exact,
        "legal": census.legal,
        "share": census.share,
        "uncertainty": census.uncertainty,
        "refused": dict(census.refused),
        "lowered": census.lowered,
    }


def _counted(census: Census) -> Iterator[Sequence[str]]:
    """The census in words, the legal ones first."""
    yield "all points", f"{census.size:,}"
    if not census.is_exact:
        about, off = (share * census.size for share in (census.share, census.uncertainty))
        yield "legal, about", f"{about:,.0f} ± {off:,.0f}"
        yield "looked at, by chance", f"{census.examined:,}"
    yield "legal" if census.lowered else "legal, by the rules and the sizes", f"{census.legal:,}"
    for reason, points in census.refused.items():
        yield f"refused: {reason}", f"{points:,}"


def _shown(values: Sequence[int | str]) -> str:
    shown = ", ".join(str(value) or "''" for value in values[:SHOWN_VALUES])
    return shown + (f", … {values[-1]}" if len(values) > SHOWN_VALUES else "")


def _line(point: Mapping[str, int | str] | None) -> str:
    words = {name: str(value) for name, value in (point or {}).items()}
    return " ".join(f"{n}='{w}'" if not w or " " in w else f"{n}={w}" for n, w in words.items())


@contextmanager
def _progress(size: int, what: str) -> Generator[Callable[[int], None]]:
    """A bar on a terminal, for what takes longer than a moment."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=size)

        def advance(points: int) -> None:
            bar.advance(task, points)

        yield advance
