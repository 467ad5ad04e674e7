"""Numbers about compiled code that are no times: of a profile, of a model, of the code itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gemmir.search.reports.drawing import LARGE, Drawing, Figure, short, style_of
from gemmir.search.reports.libraries import matplotlib
from gemmir.search.reports.measured import Run, Static
from gemmir.search.reports.tables import Column, Table, Value, columns

ROW_INCHES: Final = 0.34
MOST_PLOTS: Final = 6
"""Numbers that are drawn: the first in the order of the file in which contestants differ."""

MOST_NAMES: Final = 12
"""Contestants that are drawn; all are in the table."""


def statics(run: Run) -> list[Figure]:
    """The plots of those numbers of `run` in which its contestants differ."""
    by_name: dict[str, list[Static]] = {}
    for static in run.statics:
        by_name.setdefault(static.name, []).append(static)
    differing = [some for some in by_name.values() if len({one.value for one in some}) > 1]
    return [_figure(run, some, number) for number, some in enumerate(differing[:MOST_PLOTS])]


def _figure(run: Run, some: Sequence[Static], number: int) -> Figure:
    name, unit = some[0].name, some[0].unit
    labels = list(dict.fromkeys(one.label for one in some))
    low, high = (pick(some, key=lambda one: one.value) for pick in (min, max))
    return Figure(
        slug=f"{run.name}-static-{number}",
        title=f"{name[:1].upper()}{name[1:]}",
        caption="Medians of what was measured."
        if some[0].is_measured
        else "Not measured: read from the compiled code, its profile or a model.",
        alt=(
            f"{name} of {len({one.contestant for one in some})} contestants on {len(labels)} "
            f"problems, from {short(low.value)} ({low.contestant}) to {short(high.value)} "
            f"({high.contestant}) {unit}."
        ),
        table=Table(
            caption=_named(name, unit),
            columns=columns("problem", "contestant", (unit or "value", ",.6g")),
            rows=tuple((one.label, one.contestant, one.value) for one in some),
        ),
        size=(8.6, 1.2 + ROW_INCHES * max(len(labels), 3)),
        draw=lambda drawing: _draw(drawing, some, labels),
    )


def _draw(drawing: Drawing, some: Sequence[Static], labels: Sequence[str]) -> None:
    axes = drawing.figure.add_subplot()
    names = list(dict.fromkeys(one.contestant for one in some))[:MOST_NAMES]
    for one in some:
        if one.contestant not in names:
            continue
        colour, marker, _ = style_of(names.index(one.contestant))
        (mark,) = axes.plot(
            [one.value],
            [labels.index(one.label)],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=6.0,
            markeredgecolor="none",
            clip_on=False,
        )
        drawing.tip(mark, f"{one.contestant}: {short(one.value)} {one.unit}\n{one.label}")
    low, high = (pick(one.value for one in some) for pick in (min, max))
    axes.set_xlim(low - 0.15 * (high - low) if low > high / 2 else min(low, 0), high * 1.02)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    if high >= LARGE:
        axes.xaxis.set_major_formatter(matplotlib("ticker").EngFormatter(sep=""))
    axes.set_xlabel(_named(some[0].name, some[0].unit))
    for place, name in enumerate(names):
        colour, marker, _ = style_of(place)
        axes.plot([], [], linestyle="none", marker=marker, color=colour, label=name)
    drawing.figure.legend(loc="outside right upper", handletextpad=0.4)


def _named(name: str, unit: str) -> str:
    """A number with its unit, where its name does not end in it."""
    return name if not unit or name.endswith(unit) else f"{name}, {unit}"


def statics_table(run: Run) -> list[Table]:
    """All such numbers of each contestant in a line; nothing where there are none."""
    if not run.statics:
        return []
    names = {one.name: one.unit for one in run.statics}
    places = list(dict.fromkeys((one.label, one.contestant) for one in run.statics))
    values = {(one.label, one.contestant, one.name): one.value for one in run.statics}
    rows: list[tuple[Value, ...]] = [
        (*place, *(values.get((*place, name)) for name in names)) for place in places
    ]
    heads = [Column(name=_named(name, unit), form=",.6g") for name, unit in names.items()]
    return [
        Table(
            caption="Numbers that are no speeds",
            columns=(*columns("problem", "contestant"), *heads),
            rows=tuple(rows),
        )
    ]
