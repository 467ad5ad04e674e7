"""What the cost model says of a kernel: its time, and how long each resource alone would take."""

from __future__ import annotations

from typing import Final

from gemmir.compiler import Lowered
from gemmir.cost import Prediction, predict
from gemmir.ir.context import parse_module
from gemmir.search.reports.drawing import BLUE, INK, MUTED, VERMILLION, Drawing, Figure, short
from gemmir.search.reports.samples import unit_of
from gemmir.search.reports.tables import Table, Value, columns

ROW_INCHES: Final = 0.28

LEAST_PART: Final = 1e-4
"""Resources that take less of the whole time than this are in the table only."""


CAPTION: Final = (
    "By the static cost model, from the IR of the last stage; nothing is measured. Each bar is how "
    "long a resource alone would take: they work at the same time, so that the whole takes at "
    "least the longest."
)


def prediction_of(lowered: Lowered) -> Prediction:
    """The prediction from the last stage of `lowered`."""
    module = parse_module([*lowered.stages.values()][-1].text)
    return predict(module, lowered.machine, threads=lowered.threads or 1)


def time_of_resources(found: Prediction, slug: str) -> Figure:
    """The plot of a prediction."""
    by_time = sorted(found.seconds_by.items(), key=lambda item: -item[1])
    shown = [(name, s) for name, s in by_time if s >= LEAST_PART * found.seconds]
    factor, unit = unit_of(found.seconds)
    return Figure(
        slug=f"{slug}-predicted",
        title="What the time is predicted to go for",
        caption=CAPTION,
        alt=(
            f"Predicted {short(found.seconds * factor)} {unit}, bound by {found.bound_by}, "
            f"{found.of_roof:.0%} of the arithmetic peak."
        ),
        table=_table(found, factor, unit),
        size=(8.6, 1.2 + ROW_INCHES * max(len(shown), 3)),
        draw=lambda drawing: _draw(drawing, found, shown, factor, unit),
    )


def _draw(
    drawing: Drawing, found: Prediction, shown: list[tuple[str, float]], factor: float, unit: str
) -> None:
    axes = drawing.figure.add_subplot()
    for place, (name, seconds) in enumerate(shown):
        colour = VERMILLION if name == found.bound_by else BLUE
        (bar,) = axes.barh(place, seconds * factor, height=0.62, color=colour.light)
        drawing.tip(bar, f"{name}: {short(seconds * factor)} {unit}")
    for seconds, colour, dash, label in (
        (found.seconds, INK, "-", "predicted time"),
        (found.roof_seconds, MUTED, "--", "arithmetic peak"),
    ):
        axes.axvline(seconds * factor, color=colour.light, linestyle=dash, linewidth=1.6)
        axes.plot([], [], color=colour.light, linestyle=dash, linewidth=1.6, label=label)
    axes.plot([], [], "s", color=VERMILLION.light, label="what binds")
    axes.plot([], [], "s", color=BLUE.light, label="others")
    longest = max([found.seconds, *(s for _, s in shown)])
    axes.set_xlim(0, 1.04 * longest * factor or 1.0)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set_xlabel(f"time of a call, {unit}")
    drawing.figure.legend(loc="outside right upper")


def _table(found: Prediction, factor: float, unit: str) -> Table:
    rows: list[tuple[Value, ...]] = [
        ("predicted time", "all", found.seconds * factor, 1.0, None, None),
        ("arithmetic peak", "limit", found.roof_seconds * factor, found.of_roof, None, None),
    ]
    rows += [
        (name, "resource", s * factor, s / found.seconds, None, None)
        for name, s in sorted(found.seconds_by.items(), key=lambda item: -item[1])
    ]
    rows += [
        (f"bytes of {level}", "traffic", None, None, size, found.flops / size if size else None)
        for level, size in found.bytes_by_level.items()
    ]
    return Table(
        caption=f"The prediction, bound by {found.bound_by}; and the bytes that move",
        columns=columns(
            "what",
            "kind",
            (unit, ",.4g"),
            ("of the whole", ".3f"),
            ("bytes", ",.0f"),
            ("flops a byte", ",.4g"),
        ),
        rows=tuple(rows),
    )
