"""gemmir report: a page of plots, tables and the IR after every pass."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import check_writable, note, put, put_json, write_file

if TYPE_CHECKING:
    from gemmir.search.reports.page import Page
    from gemmir.search.reports.sources import Source
    from gemmir.search.reports.stages import Viewer

PAGE: Final = Path("report.html")

TEXT: Final = ".mlir"
"""What files end in that say a problem, or a stage of it."""


def report(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results of gemmir bench -o, experiment run, tune and ladder --json, or MLIR.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    problem: ProblemOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page.", metavar="FILE.html")
    ] = PAGE,
    run: Annotated[
        str | None, typer.Option(help="The run of an experiment: its name or number.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="A folder to write every plot to as well.", metavar="DIR")
    ] = None,
    format: Annotated[str, typer.Option(help="Of those plots: png or svg.")] = "png",
    check: Annotated[
        bool, typer.Option(help="Check every stage of the problem, or of a smaller one.")
    ] = True,
    check_flops: Annotated[
        int | None,
        typer.Option(min=1, help="Flops of the largest problem to check; the default takes 1 s."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data of the check.")] = 0,
    bandwidth: Annotated[
        bool,
        typer.Option(help="Measure this computer's memory for a roofline of the same CPU, 1 s."),
    ] = True,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json: Json = False,
) -> None:
    """Write one HTML page of results: plots, their numbers, and the IR after every pass.

    A FILE is read by what it is: speeds of gemmir bench or gemmir experiment, the trials of gemmir
    tune, or the rungs of gemmir ladder. With --m --n --k, or of a FILE.mlir, the page has the way
    of that problem through the passes: the IR after each, what it changed, how long it took, its
    check against float64, and the code at the end. All may be given together.

    The page needs no other file and asks no host for anything. The exit status is 3 where the check
    of a stage fails; the page says which.
    """
    from gemmir.search.reports.libraries import require

    require()
    from gemmir.search.reports.build import page_of, title_of
    from gemmir.search.reports.page import html_of

    texts = [path for path in files or [] if path.suffix == TEXT]
    results = [path for path in files or [] if path.suffix != TEXT]
    _check_options(results, texts, problem, format, plots)
    if not (texts or problem.given):
        _refuse_of_problem({"--no-check": not check, "--check-flops": check_flops, "--seed": seed})
    _refuse_to_overwrite(output, results, texts)
    check_writable(output)
    sources = _sources(results, run)
    target, schedule, threads = problem.target, problem.schedule, problem.threads
    given = [
        ProblemOptions(
            file=path, target=target, schedule=schedule, lock=problem.lock, threads=threads
        )
        for path in texts
    ]
    given += [problem] if problem.given else []
    viewers = [
        _viewer(one, number, is_checked=check, most=check_flops, seed=seed)
        for number, one in enumerate(given, 1)
    ]
    page = page_of(
        sources,
        viewers,
        title=title or title_of(sources, viewers),
        command=shlex.join(["gemmir", *sys.argv[1:]]),
        measure=bandwidth,
    )
    note("drawing")
    content = html_of(page).encode()
    write_file(output, content)
    written = [] if plots is None else _plots(page, plots, format)
    if json:
        put_json(_summary(page, output, content, written, sources))
    else:
        put("".join(f"{path}\n" for path in (output, *written)))
    if open_:
        _show(output)
    _refuse(viewers)


def _check_options(
    results: list[Path],
    texts: list[Path],
    problem: ProblemOptions,
    form: str,
    plots: Path | None,
) -> None:
    """Usage errors for what would change nothing."""
    from gemmir.search.reports.drawing import FORMATS

    if form not in FORMATS:
        raise typer.BadParameter(f"--format {form}: plots are {' or '.join(FORMATS)}")
    if form != FORMATS[0] and plots is None:
        raise typer.BadParameter(f"--format {form} is for --plots DIR, which is not there")
    if not problem.given and not texts:
        names = ("schedule", "lock", "threads")
        said = [name for name in names if getattr(problem, name) is not None]
        said += ["target"] if problem.target != "cpu" else []
        if said:
            raise typer.BadParameter(f"--{said[0]} is of a problem; give --m --n --k as well")
        if not results:
            raise typer.BadParameter("there is nothing to report; give a FILE, or --m --n --k")


def _refuse_to_overwrite(output: Path, results: list[Path], texts: list[Path]) -> None:
    """A usage error where the page would take the place of what it is made of."""
    for path in (*results, *texts):
        if output.exists() and path.exists() and output.samefile(path):
            raise typer.BadParameter(f"--output {output} is read for the page; name another file")


def _refuse_of_problem(said: Mapping[str, object]) -> None:
    """A usage error for an option of a problem, where there is none."""
    for name, value in said.items():
        if value:
            raise typer.BadParameter(f"{name} is of a problem; give --m --n --k as well")


def _sources(files: list[Path], run: str | None) -> list[tuple[str, Source]]:
    from gemmir.search.reports.sources import holds_runs, read

    if run is not None and not any(map(holds_runs, files)):
        raise typer.BadParameter(f"--run {run}: there is no file of gemmir experiment run")
    return [(str(path), source) for path in files for source in read(path, run)]


def _viewer(
    problem: ProblemOptions, number: int, *, is_checked: bool, most: int | None, seed: int
) -> Viewer:
    from gemmir.jax_modules import stay_on_cpu
    from gemmir.search.reports.stages import viewer

    stay_on_cpu()
    job = problem.job()
    with reproducible(job):
        slug = "ir" if number == 1 else f"ir-{number}"
        return viewer(job, slug=slug, is_checked=is_checked, most_flops=most, seed=seed, say=note)


def _plots(page: Page, folder: Path, form: str) -> list[Path]:
    """Write every plot of `page` to `folder`."""
    from gemmir.search.reports.drawing import image

    figures = [figure for section in page.sections for figure in section.figures]
    figures += [viewer.prediction for viewer in page.viewers]
    written: list[Path] = []
    _make(folder)
    for number, figure in enumerate(figures, 1):
        note(f"plot {number}/{len(figures)}: {figure.title}")
        written.append(folder / f"{figure.slug}.{form}")
        write_file(written[-1], image(figure, form))
    return written


def _make(folder: Path) -> None:
    """The folder; `OutputError` GEM1433 where there can be none."""
    from gemmir.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "GEM1433", f"the folder {folder} cannot be made: {error.strerror}", "name another one"
        ) from error


def _summary(
    page: Page,
    output: Path,
    content: bytes,
    plots: list[Path],
    sources: list[tuple[str, Source]],
) -> dict[str, Any]:
    """What was written, for programs."""
    return {
        "page": str(output),
        "bytes": len(content),
        "title": page.title,
        "plots": [str(path) for path in plots],
        "sections": [
            {
                "title": section.title,
                "kind": section.kind,
                "file": file,
                "figures": [{"id": f.slug, "title": f.title} for f in section.figures],
                "tables": len((*section.tables, *section.figures, *section.more)),
            }
            for section, (file, _) in zip(page.sections, sources, strict=True)
        ],
        "problems": [
            {
                "title": viewer.title,
                "target": viewer.target,
                "checked": viewer.checked.about,
                "wrong": viewer.checked.wrong,
                "stages": [
                    {
                        "name": stage.name,
                        "pass": stage.step,
                        "ops": stage.ops,
                        "added": stage.added,
                        "removed": stage.removed,
                        "check": None if stage.check is None else stage.check.status,
                    }
                    for stage in viewer.stages
                ],
            }
            for viewer in page.viewers
        ],
    }


def _show(output: Path) -> None:
    import webbrowser

    if not webbrowser.open(output.resolve().as_uri()):
        note(f"no browser was found; open {output}")


def _refuse(viewers: list[Viewer]) -> None:
    """`MismatchError` GEM1434 where a stage is wrong."""
    from gemmir.errors import MismatchError

    for viewer in viewers:
        for row in viewer.checked.rows.values():
            if not row.ok:
                raise MismatchError(
                    "GEM1434",
                    f"stage {row.name} is wrong: {row.fault}",
                    "gemmir check names the smallest such problem",
                )
