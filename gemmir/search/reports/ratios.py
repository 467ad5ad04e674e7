"""Speed over that of the best library, problem by problem and class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from gemmir.bench.report import geometric_mean
from gemmir.search.reports.drawing import BLUE, INK, MUTED, VERMILLION, Drawing, Figure, plain_ticks
from gemmir.search.reports.measured import Case, Run
from gemmir.search.reports.tables import Table, Value, columns

ROW_INCHES: Final = 0.32


def ratios(run: Run) -> Figure | None:
    """The plot of all classes of `run`; None where nobody was compared with a library."""
    found = {name: _with_ratio(cases) for name, cases in run.classes.items()}
    found = {name: cases for name, cases in found.items() if cases}
    if not found:
        return None
    every = [case.ratio or 1.0 for cases in found.values() for case in cases]
    mean = geometric_mean(every)
    ahead = sum(ratio >= 1 for ratio in every)
    return Figure(
        slug=f"{run.name}-ratios",
        title="Speed over that of the best peer, by class",
        caption=(
            "Each dot is a problem: the time of the fastest library over that of gemmir. Right of "
            "the line gemmir is faster. Bars are geometric means."
        ),
        alt=(
            f"{len(every)} problems in {len(found)} classes. gemmir is at least as fast as every "
            f"library on {ahead} of them; the geometric mean is {mean:.3f}."
        ),
        table=_table(found),
        size=(8.6, 1.2 + ROW_INCHES * len(found)),
        draw=lambda drawing: _draw(drawing, found),
    )


def _with_ratio(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.ratio is not None]


def _draw(drawing: Drawing, found: dict[str, list[Case]]) -> None:
    axes = drawing.figure.add_subplot()
    axes.set_xscale("log")
    axes.axvline(1.0, color=INK.light, linewidth=1.2, zorder=2)
    for place, (_, cases) in enumerate(found.items()):
        values = [case.ratio or 1.0 for case in cases]
        mean = geometric_mean(values)
        axes.plot(
            [mean] * 2, [place - 0.34, place + 0.34], color=INK.light, linewidth=2.6, zorder=4
        )
        for number, (case, value) in enumerate(
            sorted(zip(cases, values, strict=True), key=_second)
        ):
            shift = 0.16 * (number % 3 - 1)
            (mark,) = axes.plot(
                [value],
                [place + shift],
                linestyle="none",
                marker="o" if value >= 1 else "v",
                color=BLUE.light if value >= 1 else VERMILLION.light,
                markersize=5.5,
                markeredgecolor="none",
                clip_on=False,
                alpha=0.9,
                zorder=3,
            )
            drawing.tip(mark, f"{case.label}: {value:.3f} of {case.best_peer}")
    every = [case.ratio or 1.0 for cases in found.values() for case in cases]
    low, high = min(*every, 0.9), max(*every, 1.1)
    axes.set_xlim(low / 1.06, high * 1.06)
    plain_ticks(axes.xaxis)
    axes.set_xticks(ticks_between(low / 1.06, high * 1.06))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_xlabel("time of the best peer / time of gemmir (logarithmic)")
    for label, colour, marker in (
        ("as fast or faster", BLUE, "o"),
        ("slower", VERMILLION, "v"),
    ):
        axes.plot([], [], linestyle="none", marker=marker, color=colour.light, label=label)
    axes.plot([], [], color=INK.light, linewidth=2.6, label="geometric mean")
    axes.axvspan(low / 1.06, 1.0, color=MUTED.light, alpha=0.10, linewidth=0, zorder=0)
    drawing.figure.legend(loc="outside lower right", ncols=3)


def ticks_between(low: float, high: float) -> list[float]:
    """Round ratios from `low` to `high`, at most about ten."""
    few = [0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100]
    some = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10]
    many = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3]
    for ticks in (many, some, few):
        inside = [tick for tick in ticks if low <= tick <= high]
        if ticks[0] <= low * 1.05 and ticks[-1] >= high / 1.05 and len(inside) <= 12:
            return inside
    return [10.0**power for power in range(-6, 7) if low <= 10.0**power <= high]


def _table(found: dict[str, list[Case]]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for name, cases in found.items():
        values = [case.ratio or math.nan for case in cases]
        worst = min(cases, key=lambda case: case.ratio or math.inf)
        rows.append(
            (
                name,
                len(values),
                geometric_mean(values),
                min(values),
                max(values),
                worst.label,
                worst.best_peer,
            )
        )
    return Table(
        caption="Ratios to the best peer by class",
        columns=columns(
            "class",
            ("problems", "d"),
            ("geometric mean", ".3f"),
            ("least", ".3f"),
            ("most", ".3f"),
            "problem with the least",
            "best peer there",
        ),
        rows=tuple(rows),
    )


def _second(pair: tuple[Case, float]) -> float:
    return pair[1]
