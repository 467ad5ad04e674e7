"""A ladder of `gemmir ladder --json`: how fast each rung is, and what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gemmir.bench.report import spelled
from gemmir.gemm import Gemm
from gemmir.search.reports.drawing import (
    BLUE,
    VERMILLION,
    Drawing,
    Figure,
    plain_ticks,
    short,
)
from gemmir.search.reports.measured import Ladder, Rung
from gemmir.search.reports.tables import Column, Table, columns

ROW_INCHES: Final = 0.32

MANY: Final = 300.0
"""An axis whose ends are so many times apart has room for the numbers of powers of ten alone."""


def ladder_of(found: Mapping[str, Any], path: Path) -> Ladder:
    """The ladder in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    rungs = tuple(_rung(entry) for entry in found["rungs"])
    if not rungs:
        raise ValueError("it has no rungs")
    problem, target = Gemm(**found["problem"]), str(found["target"])
    left_out: Mapping[str, Any] = found.get("left_out") or {}
    return Ladder(
        name=path.stem,
        title=f"A ladder for {spelled(problem)} on {target}",
        target=target,
        command=str(found.get("command", "")),
        facts=(
            ("machine", str(found.get("machine", ""))),
            *((f"left out: {name}", str(why)) for name, why in left_out.items()),
        ),
        rungs=rungs,
    )


def _rung(entry: Mapping[str, Any]) -> Rung:
    def number(name: str) -> float | None:
        value = entry.get(name)
        if value is not None and not 0 < float(value) < float("inf"):
            raise ValueError(f"{name} of rung {entry['name']} is {value}")
        return None if value is None else float(value)

    return Rung(
        name=str(entry["name"]),
        title=str(entry["title"]),
        why=str(entry["why"]),
        edits=tuple(str(edit) for edit in entry["edits"]),
        schedule=",".join(str(step) for step in entry["schedule"]),
        is_right=bool(entry["ok"]),
        checked=str(entry["checked"]),
        how=str(entry["how"]),
        gflops=number("gflops"),
        of_peak=number("of_peak"),
        ratio=number("ratio_to_before"),
        note=str(entry.get("note") or ""),
    )


def rungs(found: Ladder) -> Figure:
    """The plot of a ladder."""
    timed = [rung for rung in found.rungs if rung.gflops is not None]
    ways = ", ".join(dict.fromkeys(rung.how for rung in timed)) or "not timed"
    words = "" if not timed or "measured" in ways else "; nothing was measured"
    whole = ""
    if len(timed) > 1 and timed[0].gflops and timed[-1].gflops:
        whole = (
            f" The last is {timed[-1].gflops / timed[0].gflops:,.0f} times as fast as the first."
        )
    return Figure(
        slug=f"{found.name}-rungs",
        title="Every rung changes one thing in the one before",
        caption=(
            f"Speeds, {ways}{words}; the numbers say how many times as fast as the rung before."
        ),
        alt=f"{len(found.rungs)} rungs, of which {len(timed)} have a speed.{whole}",
        table=_table(found),
        size=(8.6, 1.1 + ROW_INCHES * len(found.rungs)),
        draw=lambda drawing: _draw(drawing, found.rungs),
    )


def _draw(drawing: Drawing, those: tuple[Rung, ...]) -> None:
    axes = drawing.figure.add_subplot()
    speeds = [rung.gflops for rung in those if rung.gflops is not None] or [1.0]
    low, high = min(speeds) / 2, max(speeds) * 5
    axes.set_xscale("log")
    are_mixed = len({rung.how for rung in those if rung.gflops is not None}) > 1
    for place, rung in enumerate(those):
        if rung.gflops is None:
            axes.text(low * 1.05, place, rung.note or "not timed", va="center", fontsize=8)
            continue
        colour = BLUE if rung.is_right else VERMILLION
        (bar,) = axes.barh(
            place, rung.gflops - low, left=low, height=0.62, color=colour.light, zorder=2
        )
        drawing.tip(bar, f"{rung.title}: {short(rung.gflops)} GFLOP/s\n{rung.why}")
        ratio = "" if rung.ratio is None else f", x {rung.ratio:.2f}"
        ratio += f", {rung.how}" if are_mixed else ""
        axes.annotate(
            f"{short(rung.gflops)}{ratio}{'' if rung.is_right else ', wrong'}",
            (rung.gflops, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    plain_ticks(axes.xaxis, (1.0,) if high / low > MANY else (1.0, 2.0, 5.0))
    axes.set_xlim(low, high)
    axes.set_ylim(len(those) - 0.5, -0.5)
    axes.set_yticks(range(len(those)), [rung.title for rung in those])
    axes.set_xlabel("GFLOP/s (logarithmic)")


def _table(found: Ladder) -> Table:
    heads = columns(
        "rung",
        ("GFLOP/s", ",.4g"),
        ("% of peak", ".2f"),
        ("over the rung before", ",.3f"),
        "edits",
        "why",
        "checked",
        "how",
        "note",
    )
    return Table(
        caption="Rungs from the lowest to the highest",
        columns=(*heads, Column(name="schedule", is_code=True)),
        rows=tuple(
            (
                f"{rung.name}: {rung.title}",
                rung.gflops,
                None if rung.of_peak is None else 100 * rung.of_peak,
                rung.ratio,
                "; ".join(rung.edits) or None,
                rung.why,
                rung.checked,
                rung.how,
                rung.note or None,
                rung.schedule or None,
            )
            for rung in found.rungs
        ),
    ).filled
