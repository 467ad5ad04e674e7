"""Put a report together: a section for each source, and a viewer for each problem."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Final

from gemmir.bench.contestants import cpu_model
from gemmir.bench.results import commit
from gemmir.search.reports.convergence import convergence, point_text, spelled
from gemmir.search.reports.drawing import Figure
from gemmir.search.reports.finalists import finalists
from gemmir.search.reports.heatmap import heat_maps
from gemmir.search.reports.ladders import rungs
from gemmir.search.reports.measured import Ladder, Run, Study
from gemmir.search.reports.page import Page, Section, slug_of
from gemmir.search.reports.ratios import ratios
from gemmir.search.reports.roofline import roofline
from gemmir.search.reports.samples import samples
from gemmir.search.reports.speeds import speeds
from gemmir.search.reports.stages import Viewer
from gemmir.search.reports.statics import statics, statics_table
from gemmir.search.reports.tables import Column, Table, Value, columns, words

MOST_SAMPLE_PLOTS: Final = 24
"""Problems whose samples are drawn one by one; of more the table of speeds is enough."""


def page_of(
    sources: Sequence[tuple[str, Run | Study | Ladder]],
    viewers: Sequence[Viewer],
    *,
    title: str,
    command: str,
    measure: bool = True,
) -> Page:
    """The page of `sources`, each with the name of its file, and of `viewers`."""
    sections = [
        _section(source, file, number, measure=measure)
        for number, (file, source) in enumerate(sources, 1)
    ]
    return Page(title=title, about=tuple(_about(command)), sections=sections, viewers=viewers)


def title_of(sources: Sequence[tuple[str, Run | Study | Ladder]], viewers: Sequence[Viewer]) -> str:
    """What a report of these is called."""
    names = [source.title for _, source in sources] + [viewer.title for viewer in viewers]
    return names[0] if len(names) == 1 else f"{names[0]}, and {len(names) - 1} more"


def _about(command: str) -> Iterator[tuple[str, str]]:
    yield "command", command
    yield "made", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    yield "on", f"{cpu_model()}, {platform.platform()}"
    revision = commit()
    others = (f"{name} {version(name)}" for name in ("xdsl", "numpy", "matplotlib"))
    own = f"gemmir {version('gemmir')}{f' (git {revision})' if revision else ''}"
    yield "versions", ", ".join((own, *others))


def _section(source: Run | Study | Ladder, file: str, number: int, *, measure: bool) -> Section:
    named = replace(source, name=f"s{number}-{slug_of(source.name)}")
    if isinstance(named, Run):
        return _of_run(named, file, measure=measure)
    if isinstance(named, Ladder):
        return _of_ladder(named, file)
    return _of_study(named, file)


def _of_run(run: Run, file: str, *, measure: bool) -> Section:
    figures: list[Figure | None] = [ratios(run), roofline(run, measure=measure)]
    figures += [
        speeds(run, name, number)
        for number, (name, some) in enumerate(run.classes.items())
        if any(case.speeds for case in some)
    ]
    figures += statics(run)
    cases = [(name, case) for name, some in run.classes.items() for case in some]
    with_samples = [pair for pair in cases if any(s.samples for s in pair[1].speeds.values())]
    notes = [run.note] if run.note else []
    if len(with_samples) > MOST_SAMPLE_PLOTS:
        notes.append(
            f"Samples of {len(with_samples)} problems were kept; those of the first "
            f"{MOST_SAMPLE_PLOTS} are drawn."
        )
    figures += [
        samples(run, name, case, number)
        for number, (name, case) in enumerate(with_samples[:MOST_SAMPLE_PLOTS])
    ]
    return Section(
        slug=run.name,
        title=run.title,
        kind="Speeds",
        source=file,
        command=run.command,
        facts=run.facts,
        notes=tuple(notes),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=tuple(_bars(run)),
        more=(*_schedules(run), *statics_table(run)),
    )


def _bars(run: Run) -> Iterator[Table]:
    if run.bars:
        rows: list[tuple[Value, ...]] = [
            (
                "✓ met" if bar.is_met else "✗ missed",
                bar.what,
                bar.value,
                f"{'at most' if bar.most else 'at least'} {bar.bar:g}",
            )
            for bar in run.bars
        ]
        missed = sum(not bar.is_met for bar in run.bars)
        yield Table(
            caption=f"Bars: {len(rows) - missed} of {len(rows)} met",
            columns=columns("verdict", "figure", ("value", ".3f"), "bar"),
            rows=tuple(rows),
        )


def _schedules(run: Run) -> Iterator[Table]:
    schedules = [
        (case.label, name, speed.gflops, speed.schedule)
        for cases in run.classes.values()
        for case in cases
        for name, speed in case.speeds.items()
        if speed.schedule
    ]
    if schedules:
        heads = columns("problem", "contestant", ("GFLOP/s", ",.1f"))
        yield Table(
            caption=f"The schedules of gemmir's {len(schedules)} kernels",
            columns=(*heads, Column(name="schedule", is_code=True)),
            rows=tuple(schedules),
        )


def _of_study(study: Study, file: str) -> Section:
    figures = [convergence(study), finalists(study), *heat_maps(study)]
    return Section(
        slug=study.name,
        title=study.title,
        kind="A search" if study.is_search else "Points of a space",
        source=file,
        command=study.command,
        facts=study.facts,
        figures=tuple(figure for figure in figures if figure is not None),
        tables=(_outcome(study),),
    )


def _of_ladder(ladder: Ladder, file: str) -> Section:
    return Section(
        slug=ladder.name,
        title=ladder.title,
        kind="A ladder",
        source=file,
        command=ladder.command,
        facts=ladder.facts,
        figures=(rungs(ladder),),
    )


def _outcome(study: Study) -> Table:
    counts = {status: 0 for status in dict.fromkeys(trial.status for trial in study.trials)}
    for trial in study.trials:
        counts[trial.status] += 1
    rows = [("trials", f"{len(study.trials):,}")]
    rows += [(f"trials {status}", f"{count:,}") for status, count in counts.items()]
    rows += study.outcome
    winner = study.winner
    if winner is not None and winner.value is not None:
        word = "winner" if study.outcome else "best"
        rows.append((word, f"trial {winner.number}, {spelled(study, winner.value)}"))
        rows.append((f"point of the {word}", point_text(winner.point)))
        rows.append((f"schedule of the {word}", winner.schedule))
    return words([row for row in rows if row[1]], "What came of it")
