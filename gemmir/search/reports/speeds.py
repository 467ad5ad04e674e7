"""GFLOP/s of everybody on the problems of one class, up to what is physically possible."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Final

from gemmir.search.reports.drawing import (
    INK,
    MUTED,
    Drawing,
    Figure,
    short,
    style_of,
    thousands,
)
from gemmir.search.reports.measured import Case, Run
from gemmir.search.reports.tables import Table, Value, columns

ABOVE: Final = 1.03
"""The axis goes up to so much of the limit, so that marks at the limit are seen whole."""

ROW_INCHES: Final = 0.34
LINE_INCHES: Final = 0.15

LABEL_CHARACTERS: Final = 34
"""Of a line of a label; longer ones have several."""

MOST_UPRIGHT: Final = 13
"""Sizes that have room beside each other."""


def speeds(run: Run, name: str, number: int) -> Figure:
    """The plot of class `name` of `run`: against size where all are cubes, otherwise by problem."""
    cases = list(run.classes[name])
    sides = {_side(case) for case in cases}
    are_cubes = len(cases) > 2 and None not in sides and len(sides) == len(cases)
    names = everybody(cases)
    best = max((case for case in cases if case.ratio is not None), key=_ratio, default=None)
    worst = min((case for case in cases if case.ratio is not None), key=_ratio, default=None)
    alt = f"Speeds of {len(names)} contestants on {len(cases)} problems."
    if best is not None and worst is not None:
        alt += (
            f" {best.own} is at {_ratio(worst):.2f} to {_ratio(best):.2f} times the speed of the "
            "fastest library."
        )
    limit = next((case.limit_is for case in cases if case.limit_is), "")
    return Figure(
        slug=f"{run.name}-speed-{number}",
        title=f"{name}: GFLOP/s {'against size' if are_cubes else 'by problem'}",
        caption="Medians, with lines from quartile to quartile; more is better."
        + (f" The limit is the {limit}." if limit else "")
        + _common_words(cases),
        alt=alt,
        table=speeds_table(name, cases),
        size=(8.6, 4.2) if are_cubes else (8.6, _height(cases)),
        draw=(lambda d: _by_size(d, cases)) if are_cubes else (lambda d: _by_problem(d, cases)),
    )


def everybody(cases: Sequence[Case]) -> list[str]:
    """All contestants, the fastest first, whoever the cases are of before those."""
    found = list(dict.fromkeys(name for case in cases for name in case.speeds))
    own = {case.own for case in cases}
    return sorted(found, key=lambda name: (name not in own, -_mean_part(name, cases)))


def speeds_table(name: str, cases: Sequence[Case]) -> Table:
    """The numbers of a class."""
    names = everybody(cases)
    heads = columns(
        "problem",
        *((who, ",.1f") for who in names),
        ("limit", ",.1f"),
        ("% of limit", ".1f"),
        "best peer",
        ("ratio", ".3f"),
        "without a figure",
    )
    return Table(
        caption=f"{name}: GFLOP/s at the median, and speed over that of the best peer",
        columns=heads,
        rows=tuple(_row(case, names) for case in cases),
    ).filled


def _row(case: Case, names: Sequence[str]) -> tuple[Value, ...]:
    missing = "; ".join(f"{who}: {why}" for who, why in case.missing.items())
    return (
        case.label,
        *(case.speeds[n].gflops if n in case.speeds else None for n in names),
        case.limit,
        case.percent_of_limit,
        case.best_peer,
        case.ratio,
        missing or None,
    )


def _by_size(drawing: Drawing, cases: Sequence[Case]) -> None:
    """Lines over the sides of cubes, with the limit as the top of the axis."""
    cases = sorted(cases, key=lambda case: _side(case) or 0)
    axes = drawing.figure.add_subplot()
    places = list(range(len(cases)))
    names = everybody(cases)
    own = {case.own for case in cases}
    others = [name for name in names if name not in own]
    for name in reversed(names):
        at = [p for p in places if name in cases[p].speeds]
        colour, marker, dash = _look(name, others)
        is_own = name in own
        axes.plot(
            at,
            [cases[p].speeds[name].gflops for p in at],
            color=colour,
            linestyle=dash,
            linewidth=2.2 if is_own else 1.0,
            alpha=1.0 if is_own else 0.85,
            zorder=4 if is_own else 3,
        )
        for p in at:
            _mark(drawing, axes, name, cases[p], (p, None), (colour, marker, is_own))
    top = _limits(axes, cases, vertical=True)
    axes.set_ylim(0, top * ABOVE)
    thousands(axes.yaxis, top)
    axes.set_xlim(-0.4, len(cases) - 0.6)
    axes.set_xticks(places, [f"{_side(case)}" for case in cases])
    if len(cases) > MOST_UPRIGHT:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlabel("m = n = k")
    axes.set_ylabel("GFLOP/s")
    _legend(drawing, axes, names, others)


def _by_problem(drawing: Drawing, cases: Sequence[Case]) -> None:
    """A line for each problem with everybody's mark on it, and its limit at the end."""
    axes = drawing.figure.add_subplot()
    names = everybody(cases)
    own = {case.own for case in cases}
    others = [name for name in names if name not in own]
    for place, case in enumerate(cases):
        for name in reversed([n for n in names if n in case.speeds]):
            colour, marker, _ = _look(name, others)
            _mark(drawing, axes, name, case, (None, place), (colour, marker, name in own))
    top = _limits(axes, cases, vertical=False)
    axes.set_xlim(0, top * ABOVE)
    thousands(axes.xaxis, top)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_yticks(range(len(cases)), _labels(cases))
    axes.set_xlabel("GFLOP/s")
    axes.grid(axis="y", linewidth=0.7)
    _legend(drawing, axes, names, others)


def _common(cases: Sequence[Case]) -> set[str]:
    """Words that all labels have, which tell no problem from another."""
    if len(cases) < 2:
        return set()
    first, *others = (case.label.split() for case in cases)
    return {w for w in first if w not in ("x", "*", "->") and all(w in other for other in others)}


def _common_words(cases: Sequence[Case]) -> str:
    common = _common(cases)
    words = [word for word in cases[0].label.split() if word in common and not word.isdigit()]
    return f" All problems are {' '.join(words)}." if words else ""


def _labels(cases: Sequence[Case]) -> list[str]:
    """The labels without what all have in common, in lines."""
    common = {word for word in _common(cases) if not word.isdigit()}
    shorter = [" ".join(w for w in case.label.split() if w not in common) for case in cases]
    return [textwrap.fill(label.rstrip(" x*->"), LABEL_CHARACTERS) for label in shorter]


def _height(cases: Sequence[Case]) -> float:
    lines = max(label.count("\n") for label in _labels(cases))
    return 1.3 + (ROW_INCHES + LINE_INCHES * lines) * max(len(cases), 3)


def _mark(
    drawing: Drawing,
    axes: Any,
    name: str,
    case: Case,
    place: tuple[int | None, int | None],
    look: tuple[str, str, bool],
) -> None:
    """One mark with its quartiles; the part of `place` that is None is the speed."""
    speed = case.speeds[name]
    colour, marker, is_own = look
    x, y = (speed.gflops if p is None else p for p in place)
    ends = [speed.lower, speed.upper]
    fixed = [p for p in place if p is not None] * 2
    line = (ends, fixed) if place[0] is None else (fixed, ends)
    axes.plot(*line, color=colour, linewidth=1.2, zorder=2, solid_capstyle="butt")
    (mark,) = axes.plot(
        [x],
        [y],
        linestyle="none",
        marker=marker,
        color=colour,
        markersize=7.5 if is_own else 5.0,
        markeredgecolor="none",
        clip_on=False,
        zorder=5 if is_own else 3,
    )
    of_limit = "" if not case.limit else f", {speed.gflops / case.limit:.0%} of the limit"
    drawing.tip(mark, f"{name}: {short(speed.gflops)} GFLOP/s{of_limit}\n{case.label}")


def _limits(axes: Any, cases: Sequence[Case], *, vertical: bool) -> float:
    """Draw the limits; the largest of them, or of the speeds where one is more."""
    fastest = max((s.upper for case in cases for s in case.speeds.values()), default=1.0)
    known = [(p, case.limit) for p, case in enumerate(cases) if case.limit is not None]
    for place, limit in known:
        span = [place - 0.42, place + 0.42]
        line = (span, [limit] * 2) if vertical else ([limit] * 2, span)
        axes.plot(*line, color=MUTED.light, linewidth=2.0, zorder=1, solid_capstyle="butt")
    return max([fastest, *(limit for _, limit in known)])


def _look(name: str, others: Sequence[str]) -> tuple[str, str, str]:
    return style_of(others.index(name)) if name in others else (INK.light, "D", "-")


def _legend(drawing: Drawing, axes: Any, names: Sequence[str], others: Sequence[str]) -> None:
    for name in names:
        colour, marker, _ = _look(name, others)
        axes.plot([], [], linestyle="none", marker=marker, color=colour, label=name)
    axes.plot([], [], color=MUTED.light, linewidth=2.0, label="physical limit")
    drawing.figure.legend(loc="outside right upper", handletextpad=0.4, borderaxespad=0.2)


def _side(case: Case) -> int | None:
    """The side of a cube, or None."""
    gemm = case.gemm
    if gemm is None or gemm.batch is not None or not gemm.m == gemm.n == gemm.k:
        return None
    return int(gemm.m)


def _mean_part(name: str, cases: Sequence[Case]) -> float:
    """The geometric mean of the speeds of `name`, each over the fastest of its problem."""
    parts = [
        case.speeds[name].gflops / max(s.gflops for s in case.speeds.values())
        for case in cases
        if name in case.speeds
    ]
    return math.exp(sum(map(math.log, parts)) / len(parts)) if parts else 0.0


def _ratio(case: Case) -> float:
    return case.ratio or math.nan
