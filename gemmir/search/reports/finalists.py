"""The race of the best at the end of a search: who won, and who is its equal."""

from __future__ import annotations

from typing import Final

from gemmir.search.reports.convergence import axis_label, point_text, scale_of
from gemmir.search.reports.drawing import BLUE, INK, MUTED, Drawing, Figure, short
from gemmir.search.reports.measured import Finalist, Study
from gemmir.search.reports.tables import Column, Table, Value, columns

ROW_INCHES: Final = 0.36
VALUE: Final = 14
LONGEST: Final = 46
"""Characters of a schedule that stand beside its mark; all of it is in the table."""


def finalists(study: Study) -> Figure | None:
    """The plot of the race of `study`; None where there was none."""
    if not study.finalists:
        return None
    winner = next((f for f in study.finalists if f.is_winner), study.finalists[0])
    tied = sum(f.is_tied for f in study.finalists)
    equal = "no other is its equal" if tied <= 1 else f"{tied - 1} others are its equals"
    factor, unit = scale_of(study, winner.value)
    return Figure(
        slug=f"{study.name}-finalists",
        title="The race of the best",
        caption=(
            "Medians with their confidence intervals, of common rounds; less is better. Filled "
            "marks are the winner and those that it cannot be told from: a fixed rule chose."
        ),
        alt=(
            f"{len(study.finalists)} schedules. The winner has "
            f"{short(winner.value * factor)} {unit}, and {equal}."
        ),
        table=_table(study, factor, unit),
        size=(8.6, 1.1 + ROW_INCHES * len(study.finalists)),
        draw=lambda drawing: _draw(drawing, study, factor, unit),
    )


def _draw(drawing: Drawing, study: Study, factor: float, unit: str) -> None:
    axes = drawing.figure.add_subplot()
    those = _ordered(study)
    for place, found in enumerate(those):
        colour = INK.light if found.is_winner else BLUE.light if found.is_tied else MUTED.light
        ends = [end * factor for end in found.interval]
        axes.plot(ends, [place] * 2, color=colour, linewidth=2.0, solid_capstyle="butt")
        (mark,) = axes.plot(
            [found.value * factor],
            [place],
            linestyle="none",
            marker="D" if found.is_winner else "o",
            markersize=7.0,
            markerfacecolor=colour if found.is_tied or found.is_winner else "none",
            markeredgecolor=colour,
            clip_on=False,
        )
        drawing.tip(mark, f"{short(found.value * factor)} {unit}\n{found.schedule}")
    axes.set_ylim(len(those) - 0.5, -0.5)
    axes.set_yticks(range(len(those)), [_label(study, found) for found in those])
    axes.set_xlabel(axis_label(study, unit))
    for word, marker, colour, is_filled in (
        ("winner", "D", INK, True),
        ("its equal", "o", BLUE, True),
        ("slower", "o", MUTED, False),
    ):
        axes.plot(
            [],
            [],
            linestyle="none",
            marker=marker,
            markerfacecolor=colour.light if is_filled else "none",
            markeredgecolor=colour.light,
            label=word,
        )
    drawing.figure.legend(loc="outside lower right", ncols=3)


def _ordered(study: Study) -> list[Finalist]:
    return sorted(study.finalists, key=lambda found: found.value)


def _label(study: Study, found: Finalist) -> str:
    """The values of the holes, or the schedule of one that was no trial."""
    tried = (point_text(t.point, VALUE) for t in study.trials if t.schedule == found.schedule)
    text = next(tried, "") or found.schedule
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"default: {text}" if found.is_default else text


def _table(study: Study, factor: float, unit: str) -> Table:
    rows: list[tuple[Value, ...]] = [
        (
            "winner" if found.is_winner else "equal" if found.is_tied else "slower",
            found.is_default,
            found.value * factor,
            found.interval[0] * factor,
            found.interval[1] * factor,
            found.ratio,
            f"{found.ratio_interval[0]:.4f} to {found.ratio_interval[1]:.4f}",
            found.rounds,
            found.schedule,
        )
        for found in _ordered(study)
    ]
    heads = columns(
        "place",
        "default",
        (unit, ",.5g"),
        ("from", ",.5g"),
        ("to", ",.5g"),
        ("over the best", ".4f"),
        "interval of that",
        ("rounds", "d"),
    )
    return Table(
        caption=f"The race of the best, in {unit}",
        columns=(*heads, Column(name="schedule", is_code=True)),
        rows=tuple(rows),
    )
