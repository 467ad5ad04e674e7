"""How a search went: the best so far after every trial, and what became of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gemmir.search.reports.drawing import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILLION,
    Colour,
    Drawing,
    Figure,
    short,
)
from gemmir.search.reports.measured import Study, Trial
from gemmir.search.reports.samples import unit_of
from gemmir.search.reports.tables import Column, Table, Value, columns

LOOKS: Final[Mapping[str, tuple[Colour, str]]] = {
    "illegal": (ORANGE, "x"),
    "wrong": (VERMILLION, "v"),
    "timeout": (PURPLE, "s"),
    "crashed": (VERMILLION, "P"),
    "impossible": (GREEN, "*"),
    "unable": (MUTED, "d"),
}
"""Colour and marker of trials that have no time."""

FAR: Final = 4.0
"""Trials that take so many times as long as the best are drawn at the edge, with their number."""


def convergence(study: Study) -> Figure | None:
    """The plot of `study`; None where nothing was tried."""
    if not study.trials:
        return None
    counts = Counter(trial.status for trial in study.trials)
    timed = [t for t in study.trials if t.value is not None]
    best = min(timed, key=lambda t: t.value or 0.0, default=None)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    reached = (
        ""
        if best is None or best.value is None
        else f" The best was found in trial {best.number}: {spelled(study, best.value)}."
    )
    line = ", the line is the best so far" if study.is_search else ""
    return Figure(
        slug=f"{study.name}-convergence",
        title="Convergence: the best so far after every trial"
        if study.is_search
        else "All points, in the order of measuring",
        caption=(
            f"Dots are trials{line}; less is better. Marks at the foot are trials without a "
            f"value. Those more than {FAR:g} times as slow as the best stand at the upper edge."
        ),
        alt=f"{len(study.trials)} trials: {told}.{reached}",
        table=_table(study),
        size=(8.6, 4.2),
        draw=lambda drawing: _draw(drawing, study, timed),
    )


def spelled(study: Study, value: float) -> str:
    """A value of `study` in the unit that suits it."""
    factor, unit = scale_of(study, value)
    return f"{short(value * factor)} {unit}"


def axis_label(study: Study, unit: str) -> str:
    """What is searched for, for an axis."""
    what = f"time of a call, {unit}" if study.unit == "s" else unit
    return what if study.is_measured else f"{what} (not measured)"


def scale_of(study: Study, value: float) -> tuple[float, str]:
    """The factor and the unit in which the values of `study` are shown."""
    return unit_of(value) if study.unit == "s" else (1.0, study.unit)


def _draw(drawing: Drawing, study: Study, timed: Sequence[Trial]) -> None:
    axes = drawing.figure.add_subplot()
    values = [t.value or 0.0 for t in timed]
    least = min(values, default=1.0)
    factor, unit = scale_of(study, least)
    known = [least, *([study.baseline] if study.baseline else [])]
    top = max(min(max(values, default=1.0), FAR * least), *known) * factor
    low = least * factor
    room = max(top - low, 0.02 * top)
    foot, edge = low - 0.16 * room, top + 0.06 * room
    for trial in timed:
        value = (trial.value or 0.0) * factor
        (mark,) = axes.plot(
            [trial.number],
            [min(value, edge)],
            linestyle="none",
            marker="o" if value <= edge else "^",
            color=BLUE.light,
            markersize=5.0,
            alpha=0.8,
            markeredgecolor="none",
            clip_on=False,
        )
        drawing.tip(mark, f"trial {trial.number}: {short(value)} {unit}\n{point_text(trial.point)}")
    if study.is_search:
        _best_so_far(axes, timed, factor, study.trials[-1].number)
    axes.plot([], [], linestyle="none", marker="o", color=BLUE.light, label="timed")
    _failed(drawing, axes, study, foot)
    if study.baseline:
        baseline = study.baseline * factor
        axes.axhline(baseline, color=MUTED.light, linestyle="--", linewidth=1.3)
        axes.plot([], [], color=MUTED.light, linestyle="--", label="default schedule")
    if study.winner is not None and study.winner.value is not None:
        (mark,) = axes.plot(
            [study.winner.number],
            [min(study.winner.value * factor, edge)],
            linestyle="none",
            marker="o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=INK.light,
            markeredgewidth=1.6,
            clip_on=False,
            label="winner" if study.is_search else "fastest",
        )
        drawing.tip(mark, f"the best, trial {study.winner.number}")
    numbers = [trial.number for trial in study.trials]
    axes.set_xlim(min(numbers) - 1, max(numbers) + 1)
    axes.set_ylim(foot - 0.07 * room, edge)
    axes.set_xlabel("trial")
    axes.set_ylabel(axis_label(study, unit))
    drawing.figure.legend(loc="outside right upper")


def _best_so_far(axes: Any, timed: Sequence[Trial], factor: float, last: int) -> None:
    steps: list[tuple[int, float]] = []
    for trial in timed:
        value = (trial.value or 0.0) * factor
        if not steps or value < steps[-1][1]:
            steps.append((trial.number, value))
    if steps:
        steps.append((last, steps[-1][1]))
        axes.step(
            *zip(*steps, strict=True), where="post", color=INK.light, lw=2.0, label="best so far"
        )


def _failed(drawing: Drawing, axes: Any, study: Study, foot: float) -> None:
    seen: set[str] = set()
    for trial in study.trials:
        if trial.value is not None:
            continue
        colour, marker = LOOKS.get(trial.status, (MUTED, "d"))
        (mark,) = axes.plot(
            [trial.number],
            [foot],
            linestyle="none",
            marker=marker,
            color=colour.light,
            markersize=6.0,
            markeredgecolor=colour.light if marker == "x" else "none",
            label=None if trial.status in seen else trial.status,
        )
        seen.add(trial.status)
        drawing.tip(
            mark, f"trial {trial.number}: {trial.status}\n{trial.detail}\n{point_text(trial.point)}"
        )


def point_text(point: Mapping[str, int | float | str], most: int | None = None) -> str:
    """The values of the holes in a line, each in at most so many characters."""
    return " ".join(f"{name}={shortened(value, most)}" for name, value in point.items())


def shortened(value: float | str, most: int | None) -> str:
    """A value of a hole in at most so many characters; quotes stand for an empty one."""
    text = str(value) or "''"
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"


def _table(study: Study) -> Table:
    holes = list(dict.fromkeys(name for trial in study.trials for name in trial.point))
    best = min((t.value for t in study.trials if t.value is not None), default=None)
    factor, unit = scale_of(study, best or 1.0)
    rows: list[tuple[Value, ...]] = [
        (
            trial.number,
            trial.status,
            trial.source or None,
            None if trial.value is None else trial.value * factor,
            None if trial.value is None or not best else trial.value / best,
            *(trial.point.get(name) for name in holes),
            trial.detail or None,
            trial.schedule or None,
        )
        for trial in study.trials
    ]
    heads = (
        *columns(
            ("trial", "d"),
            "status",
            "proposed by",
            (unit, ",.4g"),
            ("over the best", ".3f"),
            *holes,
        ),
        Column(name="detail"),
        Column(name="schedule", is_code=True),
    )
    return Table(caption=f"All trials, in {unit}", columns=heads, rows=tuple(rows)).filled
