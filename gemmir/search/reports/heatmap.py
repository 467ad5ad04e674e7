"""A space seen from above: two holes against the time, the others at their best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from gemmir.search.reports.convergence import scale_of, shortened
from gemmir.search.reports.drawing import MUTED, Drawing, Figure, short
from gemmir.search.reports.libraries import matplotlib
from gemmir.search.reports.measured import Study, Trial
from gemmir.search.reports.tables import Table, Value, columns

MOST_MAPS: Final = 6
"""Pairs of holes that are drawn: those in which the best times of the cells differ most."""

MOST_COLUMNS_WITH_NUMBERS: Final = 14
MOST_CELLS_WITH_NUMBERS: Final = 160

MOST_TICKS: Final = 20

FAR: Final = 2.0
"""The scale ends at so many times the best: what is slower has the colour of its end."""
LEAST_VALUES: Final = 2

COLOURS: Final = 40
"""Steps of the scale: a scale of more is drawn as an image."""

Place = tuple[int | float | str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Map:
    """Two holes with their values, and the best trial of each cell that was timed.

    `bad` counts the trials of cells in which none has a time.
    """

    across: str
    up: str
    columns: tuple[int | float | str, ...]
    rows: tuple[int | float | str, ...]
    best: Mapping[Place, Trial]
    bad: Mapping[Place, int]

    @property
    def values(self) -> list[float]:
        """Those of all cells that have one, the best first."""
        return sorted(trial.value or 0.0 for trial in self.best.values())

    @property
    def weight(self) -> float:
        """How much the two holes decide, in how much of the map that is known.

        A slow cell here and there says little: it is the ninth of ten that counts.
        """
        values = self.values
        known = len(values) / (len(self.columns) * len(self.rows))
        ninth = values[int(0.9 * (len(values) - 1))]
        return known * math.log(ninth / values[0]) if values[0] > 0 else 0.0


def heat_maps(study: Study) -> list[Figure]:
    """The plots of the pairs of holes that decide most."""
    found = [_map(study, *pair) for pair in combinations(_holes(study), 2)]
    found = [m for m in found if len(m.best) > 2]
    chosen = sorted(found, key=lambda m: -m.weight)[:MOST_MAPS]
    return [_figure(study, m, number) for number, m in enumerate(chosen)]


def _holes(study: Study) -> list[str]:
    """Holes of which trials have several values."""
    values: dict[str, set[int | float | str]] = {}
    for trial in study.trials:
        for name, value in trial.point.items():
            values.setdefault(name, set()).add(value)
    return [name for name, some in values.items() if len(some) >= LEAST_VALUES]


def _map(study: Study, across: str, up: str) -> Map:
    best: dict[Place, Trial] = {}
    bad: dict[Place, int] = {}
    for trial in study.trials:
        if across not in trial.point or up not in trial.point:
            continue
        place = (trial.point[across], trial.point[up])
        if trial.value is None:
            bad[place] = bad.get(place, 0) + 1
        elif place not in best or trial.value < (best[place].value or 0.0):
            best[place] = trial
    places = [*best, *bad]
    return Map(
        across=across,
        up=up,
        columns=_ordered([place[0] for place in places]),
        rows=_ordered([place[1] for place in places]),
        best=best,
        bad={place: count for place, count in bad.items() if place not in best},
    )


def _ordered(values: Sequence[int | float | str]) -> tuple[int | float | str, ...]:
    """Each value once: numbers by size, then words."""
    return tuple(
        sorted(
            set(values), key=lambda v: (isinstance(v, str), 0 if isinstance(v, str) else v, str(v))
        )
    )


def _figure(study: Study, found: Map, number: int) -> Figure:
    fastest = min(found.best.items(), key=lambda item: item[1].value or 0.0)
    (column, row), trial = fastest
    factor, unit = scale_of(study, trial.value or 1.0)
    width = min(8.6, 3.6 + 0.5 * len(found.columns))
    return Figure(
        slug=f"{study.name}-map-{number}",
        title=f"{found.across} and {found.up}",
        caption=(
            "Each cell has the best time of the trials with these two values, whatever the others "
            "are; darker is faster. Crosses are values of which no trial has a time, and empty "
            f"cells were not tried. Colours end at {FAR:g} times the best. The frame "
            "is the fastest."
        ),
        alt=(
            f"{len(found.best)} cells with a time, {len(found.bad)} without. The fastest is "
            f"{found.across}={column}, {found.up}={row} with "
            f"{short((trial.value or 0) * factor)} {unit}; the slowest cell takes "
            f"{found.values[-1] / (trial.value or 1.0):.2f} times as long."
        ),
        table=_table(found, factor, unit),
        size=(max(width, 5.0), min(1.6 + 0.34 * len(found.rows), 9.0)),
        draw=lambda drawing: _draw(drawing, found, factor, unit),
    )


def _draw(drawing: Drawing, found: Map, factor: float, unit: str) -> None:
    axes = drawing.figure.add_subplot()
    axes.grid(visible=False)
    times = {place: (trial.value or 0.0) * factor for place, trial in found.best.items()}
    low, high = _scale(times)
    grid = [
        [times.get((column, row), float("nan")) for column in found.columns] for row in found.rows
    ]
    colours = matplotlib().colormaps["viridis"].resampled(COLOURS)
    mesh = axes.pcolormesh(grid, cmap=colours, vmin=low, vmax=high, edgecolors="none")
    beyond = "max" if max(times.values()) > high else "neither"
    bar = drawing.figure.colorbar(mesh, ax=axes, pad=0.02, extend=beyond)
    bar.set_label(f"best time, {unit}")
    bar.outline.set_visible(False)
    _numbers(drawing, axes, found, times)
    fastest = min(times, key=lambda place: times[place])
    x, y = found.columns.index(fastest[0]), found.rows.index(fastest[1])
    axes.plot([x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y], color="#d55e01", linewidth=2.2)
    axes.set_xticks(*_ticks(found.columns))
    axes.set_yticks(*_ticks(found.rows))
    if max(map(len, _words(found.columns))) > 4 or len(found.columns) > 12:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_xlabel(found.across)
    axes.set_ylabel(found.up)


def _scale(times: Mapping[Place, float]) -> tuple[float, float]:
    """The values at the ends of the colours."""
    low, high = min(times.values()), max(times.values())
    return low, max(min(high, FAR * low), 1.01 * low)


def _numbers(drawing: Drawing, axes: Any, found: Map, times: Mapping[Place, float]) -> None:
    """The times in their cells where there is room, and crosses where there is none to show."""
    low, high = _scale(times)
    has_room = (
        len(found.columns) <= MOST_COLUMNS_WITH_NUMBERS
        and len(found.columns) * len(found.rows) <= MOST_CELLS_WITH_NUMBERS
    )
    digits = max(0, 3 - math.floor(math.log10(low))) if low > 0 else 3
    for (column, row), value in times.items():
        x, y = found.columns.index(column) + 0.5, found.rows.index(row) + 0.5
        part = (value - low) / max(high - low, 1e-30)
        if has_room:
            colour = "#000000" if part > 0.55 else "#ffffff"
            axes.text(
                x, y, f"{value:.{digits}f}", ha="center", va="center", fontsize=7.5, color=colour
            )
    for column, row in found.bad:
        x, y = found.columns.index(column) + 0.5, found.rows.index(row) + 0.5
        (mark,) = axes.plot([x], [y], marker="x", color=MUTED.light, linestyle="none", markersize=6)
        drawing.tip(mark, f"{found.across}={column} {found.up}={row}: no trial has a time")


def _ticks(values: Sequence[int | float | str]) -> tuple[list[float], list[str]]:
    """Where values stand along an axis, and in words: all, or of many every other one."""
    step = -(-len(values) // MOST_TICKS)
    return [place + 0.5 for place in range(0, len(values), step)], _words(values[::step])


def _words(values: Sequence[int | float | str]) -> list[str]:
    return [shortened(value, 24) for value in values]


def _table(found: Map, factor: float, unit: str) -> Table:
    best = min(trial.value or 0.0 for trial in found.best.values())
    rows: list[tuple[Value, ...]] = []
    for (column, row), trial in found.best.items():
        others = {n: v for n, v in trial.point.items() if n not in (found.across, found.up)}
        told = " ".join(f"{name}={value}" for name, value in others.items())
        value = trial.value or 0.0
        rows.append((column, row, value * factor, value / best, trial.number, told or None))
    rows += [
        (column, row, None, None, None, f"{count} without a time")
        for (column, row), count in found.bad.items()
    ]
    return Table(
        caption=f"Cells, and the trial behind each; times in {unit}",
        columns=columns(
            found.across,
            found.up,
            (unit, ",.4g"),
            ("over the best", ".3f"),
            ("trial", "d"),
            "the other holes",
        ),
        rows=tuple(rows),
    )
