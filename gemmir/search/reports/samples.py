"""The raw samples of a run: every time that was taken, not only its median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from gemmir.measure import timing_of
from gemmir.search.reports.drawing import INK, Drawing, Figure, plain_ticks, short, style_of
from gemmir.search.reports.measured import Case, Run, Speed
from gemmir.search.reports.tables import Table, Value, columns

ROW_INCHES: Final = 0.3

MOST_ROWS: Final = 40
"""More contestants than these are left to the table: the plot would be longer than a screen."""

UNITS: Final = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s"))
"""Seconds below the first number are shown as so many of the unit."""


def samples(run: Run, name: str, case: Case, number: int) -> Figure | None:
    """The plot of one problem; None where no samples were kept."""
    there = sorted((s for s in case.speeds.values() if s.samples), key=lambda s: -s.gflops)
    if not there:
        return None
    shown = there[:MOST_ROWS]
    left_out = len(there) - len(shown)
    every = sum(len(speed.samples) for speed in there)
    return Figure(
        slug=f"{run.name}-samples-{number}",
        title=f"Samples: {case.label}" + (f", {name}" if name != case.label else ""),
        caption=(
            "Each dot is one timing, bars are medians, boxes go from quartile to quartile; less is "
            f"better.{f' {left_out} slower contestants are in the table only.' if left_out else ''}"
        ),
        alt=(
            f"{every} timings of {len(there)} contestants. The fastest is {shown[0].name} with a "
            f"median of {_spelled(statistics.median(shown[0].samples))}."
        ),
        table=_table(there),
        size=(8.6, 1.1 + ROW_INCHES * len(shown)),
        draw=lambda drawing: _draw(drawing, case, shown),
    )


def unit_of(seconds: float) -> tuple[float, str]:
    """How many of a unit a second is, and the unit that suits `seconds`."""
    return next((factor, unit) for most, factor, unit in UNITS if seconds < most)


def _spelled(seconds: float) -> str:
    factor, unit = unit_of(seconds)
    return f"{short(seconds * factor)} {unit}"


def _draw(drawing: Drawing, case: Case, shown: Sequence[Speed]) -> None:
    axes = drawing.figure.add_subplot()
    factor, unit = unit_of(shown[0].samples[0])
    every = [s * factor for speed in shown for s in speed.samples]
    is_wide = max(every) > 3 * min(every)
    if is_wide:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    for place, speed in enumerate(shown):
        is_own = speed.name not in case.peers
        colour = INK.light if is_own else style_of(0)[0]
        timing = timing_of(speed.samples)
        axes.barh(
            place,
            (timing.upper - timing.lower) * factor,
            left=timing.lower * factor,
            height=0.56,
            color=colour,
            alpha=0.22,
            linewidth=0,
            zorder=2,
        )
        axes.plot([timing.seconds * factor] * 2, [place - 0.3, place + 0.3], color=colour, lw=2.0)
        count = len(speed.samples)
        for number, seconds in enumerate(speed.samples):
            shift = 0.22 * ((number * 7 % 11) / 5 - 1) if count > 1 else 0.0
            (mark,) = axes.plot(
                [seconds * factor],
                [place + shift],
                linestyle="none",
                marker="o",
                markersize=3.4,
                color=colour,
                alpha=0.75,
                markeredgecolor="none",
                clip_on=False,
                zorder=3,
            )
            drawing.tip(mark, f"{speed.name}: {_spelled(seconds)}, sample {number + 1}")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [speed.name for speed in shown])
    axes.set_xlabel(f"time of a call, {unit}" + (" (logarithmic)" if is_wide else ""))


def _table(there: Sequence[Speed]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for speed in there:
        timing = timing_of(speed.samples)
        rows.append(
            (
                speed.name,
                timing.count,
                1e6 * min(speed.samples),
                1e6 * timing.lower,
                1e6 * timing.seconds,
                1e6 * timing.upper,
                1e6 * max(speed.samples),
                100 * (timing.upper - timing.lower) / timing.seconds,
                speed.gflops,
            )
        )
    return Table(
        caption="Samples of each contestant, in µs of a call",
        columns=columns(
            "contestant",
            ("samples", "d"),
            ("least", ",.4g"),
            ("lower quartile", ",.4g"),
            ("median", ",.4g"),
            ("upper quartile", ",.4g"),
            ("most", ",.4g"),
            ("quartiles apart, %", ".1f"),
            ("GFLOP/s", ",.1f"),
        ),
        rows=tuple(rows),
    )
