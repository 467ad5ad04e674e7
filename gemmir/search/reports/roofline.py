"""The roofline of a run: speeds beside what arithmetic and each level of memory allow.

Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009. The intensity of a problem is its
operations over the bytes of its operands, each moved once, which no schedule can do with less.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemmir.bench.contestants import cpu_model
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, GpuMachine, Machine, TpuMachine, machine_for
from gemmir.search.reports.bandwidth import bandwidths
from gemmir.search.reports.drawing import (
    INK,
    MUTED,
    Drawing,
    Figure,
    plain_ticks,
    short,
    style_of,
)
from gemmir.search.reports.limits import recorded_gflops
from gemmir.search.reports.measured import Case, Run
from gemmir.search.reports.tables import Table, Value, columns

LABEL_GAP: Final = 1.12
"""Roofs nearer to each other than this share a label."""


@dataclass(frozen=True, kw_only=True)
class Roof:
    """The most GFLOP/s of arithmetic, for the types named, and where the number is from."""

    name: str
    gflops: float
    origin: str


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The most GB/s of a level of memory, and where the number is from."""

    name: str
    gbytes: float
    origin: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A problem in the plot: its intensity in flops a byte, and who made how many GFLOP/s."""

    kind: str
    case: Case
    intensity: float
    gflops: float


def roofline(run: Run, *, measure: bool) -> Figure | None:
    """The plot of `run`; `measure` allows to measure this computer where the run is of its CPU.

    None where nothing is known of its arithmetic.
    """
    points = _points(run)
    machine = _machine(run.target)
    roofs, slopes = _roofs(machine, points), _slopes(run, machine, measure=measure)
    if not points or not roofs:
        return None
    kinds = list(dict.fromkeys(point.kind for point in points))
    top = max(points, key=lambda point: point.gflops)
    origins = dict.fromkeys(ceiling.origin for ceiling in (*roofs, *slopes))
    without = "" if slopes else " The bandwidths of this machine's memory are not known here."
    return Figure(
        slug=f"{run.name}-roofline",
        title="Roofline",
        caption=(
            "Filled marks are gemmir's speeds, hollow ones those of the best peer. The intensity "
            "counts each operand once, as if it came from the level furthest away: a problem "
            f"whose operands stay in a cache may be above the line of memory.{without} "
            f"Limits: {'; '.join(origins)}."
        ),
        alt=(
            f"{len(points)} problems of {', '.join(kinds)} under {len(roofs)} arithmetic limits, "
            f"up to {short(max(r.gflops for r in roofs))} GFLOP/s, and {len(slopes)} limits of "
            f"memory. The fastest is {top.case.label} with {short(top.gflops)} GFLOP/s."
        ),
        table=_table(points, roofs, slopes),
        size=(8.6, 4.9),
        draw=lambda drawing: _draw(drawing, points, roofs, slopes),
    )


def _points(run: Run) -> list[Point]:
    found: list[Point] = []
    for cases in run.classes.values():
        for case in cases:
            if case.gemm is None or case.own not in case.speeds or not case.gemm.flops:
                continue
            intensity = case.gemm.flops / max(case.gemm.bytes_moved, 1)
            gflops = case.speeds[case.own].gflops
            kind = kind_of(case.gemm)
            found.append(Point(kind=kind, case=case, intensity=intensity, gflops=gflops))
    return found


def kind_of(gemm: Gemm) -> str:
    """The element types of a problem in a word."""
    return gemm.dtype if gemm.dtype_b in (None, gemm.dtype) else f"{gemm.dtype} x {gemm.dtype_b}"


def _machine(target: str) -> Machine | None:
    try:
        return machine_for(target)
    except GemmirError:
        return None


def _roofs(machine: Machine | None, points: Sequence[Point]) -> list[Roof]:
    """Arithmetic limits, those that are nearly the same under one name, the lowest first."""
    measured: dict[tuple[str, str], list[float]] = {}
    for point in points:
        if point.case.limit is not None:
            measured.setdefault((point.kind, point.case.limit_is), []).append(point.case.limit)
    best: dict[str, Roof] = {}
    for (kind, origin), values in measured.items():
        roof = Roof(name=kind, gflops=statistics.median(values), origin=origin)
        best[kind] = max(best.get(kind, roof), roof, key=lambda one: one.gflops)
    single = [*best.values()]
    if not single and machine is not None:
        dtypes = {point.case.gemm.dtype for point in points if point.case.gemm is not None}
        single = [roof for dtype in sorted(dtypes) for roof in _recorded_roof(machine, dtype)]
    merged: list[Roof] = []
    for roof in sorted(single, key=lambda roof: roof.gflops):
        if merged and roof.gflops < LABEL_GAP * merged[-1].gflops:
            names = dict.fromkeys([*merged[-1].name.split(", "), roof.name])
            merged[-1] = Roof(
                name=", ".join(names),
                gflops=max(merged[-1].gflops, roof.gflops),
                origin=merged[-1].origin,
            )
        else:
            merged.append(roof)
    return merged


def _recorded_roof(machine: Machine, dtype: str) -> list[Roof]:
    """What the record of a GPU or a TPU says."""
    if isinstance(machine, CpuMachine):
        return []
    gflops = recorded_gflops(machine, dtype)
    origin = f"the record of {machine.product}"
    return [] if gflops is None else [Roof(name=dtype, gflops=gflops, origin=origin)]


def _slopes(run: Run, machine: Machine | None, *, measure: bool) -> list[Slope]:
    if isinstance(machine, TpuMachine):
        gbytes = machine.hbm_bytes_per_second / 1e9
        return [Slope(name="HBM", gbytes=gbytes, origin=f"the record of {machine.product}")]
    if isinstance(machine, GpuMachine):
        gbytes = machine.dram_bytes_per_second / 1e9
        return [Slope(name="DRAM", gbytes=gbytes, origin=f"the record of {machine.product}")]
    if isinstance(machine, CpuMachine) and measure and _is_this_computer(run):
        origin = "reads by one core, measured on this computer when the page was made"
        return [
            Slope(name=found.level, gbytes=found.bytes_per_second / 1e9, origin=origin)
            for found in bandwidths()
        ]
    return []


def _is_this_computer(run: Run) -> bool:
    """Whether the run was on a CPU such as the one that the page is made on."""
    cpu = dict(run.facts).get("cpu", "")
    return cpu.startswith(cpu_model())


def _draw(
    drawing: Drawing, points: Sequence[Point], roofs: Sequence[Roof], slopes: Sequence[Slope]
) -> None:
    axes = drawing.figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    top = roofs[-1].gflops
    low, high = _span(points, top, slopes)
    slowest = min(speed for point in points for speed in _speeds(point))
    bottom = min(slowest / 1.5, top / 50)
    for roof in roofs:
        start = max(min(roof.gflops / slope.gbytes for slope in slopes), low) if slopes else low
        axes.plot([start, high], [roof.gflops] * 2, color=INK.light, linewidth=1.4, zorder=2)
        axes.annotate(
            f"{roof.name}: {short(roof.gflops)} GFLOP/s",
            (high, roof.gflops),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for slope in slopes:
        end = top / slope.gbytes
        axes.plot(
            [low, end],
            [low * slope.gbytes, top],
            color=MUTED.light,
            linewidth=1.3,
            linestyle=(0, (5, 2)),
            zorder=2,
        )
        start = 1.12 * max(low, bottom / slope.gbytes)
        axes.text(
            start,
            1.16 * start * slope.gbytes,
            f"{slope.name} {short(slope.gbytes)} GB/s",
            rotation=math.degrees(math.atan(slope.gbytes)),
            rotation_mode="anchor",
            transform_rotates_text=True,
            fontsize=8,
            color=MUTED.light,
        )
    _marks(drawing, axes, points)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top * 1.5)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_xlabel("flops a byte of the operands, each moved once (logarithmic)")
    axes.set_ylabel("GFLOP/s (logarithmic)")
    drawing.figure.legend(loc="outside right upper", handletextpad=0.4)


def _marks(drawing: Drawing, axes: Any, points: Sequence[Point]) -> None:
    kinds = list(dict.fromkeys(point.kind for point in points))
    looks: Mapping[str, tuple[str, str, str]] = {k: style_of(n) for n, k in enumerate(kinds)}
    for point in points:
        colour, marker, _ = looks[point.kind]
        best = point.case.best_peer
        if best is not None:
            peer = point.case.speeds[best].gflops
            axes.plot([point.intensity] * 2, [peer, point.gflops], color=colour, linewidth=0.7)
            (hollow,) = axes.plot(
                [point.intensity],
                [peer],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=0.9,
                zorder=3,
            )
            drawing.tip(hollow, f"{best}: {short(peer)} GFLOP/s\n{point.case.label}")
        (mark,) = axes.plot(
            [point.intensity],
            [point.gflops],
            linestyle="none",
            marker=marker,
            markersize=5.5,
            color=colour,
            markeredgecolor="none",
            zorder=4,
        )
        drawing.tip(
            mark,
            f"{point.case.own}: {short(point.gflops)} GFLOP/s at {short(point.intensity)} flops a "
            f"byte\n{point.case.label}",
        )
    for kind, (colour, marker, _) in looks.items():
        axes.plot([], [], linestyle="none", marker=marker, color=colour, label=kind)
    axes.plot(
        [],
        [],
        linestyle="none",
        marker="o",
        markerfacecolor="none",
        markeredgecolor=INK.light,
        label="best peer (hollow)",
    )


def _speeds(point: Point) -> list[float]:
    """Those that are drawn of a problem."""
    best = point.case.best_peer
    return [point.gflops, *([] if best is None else [point.case.speeds[best].gflops])]


def _span(points: Sequence[Point], top: float, slopes: Sequence[Slope]) -> tuple[float, float]:
    """The intensities from which to which: every line of memory begins well below the top."""
    low = min(point.intensity for point in points)
    high = max(point.intensity for point in points)
    begins = min((top / slope.gbytes for slope in slopes), default=1.0)
    return min(low / 2, begins / 4), high * 3


def _table(points: Sequence[Point], roofs: Sequence[Roof], slopes: Sequence[Slope]) -> Table:
    rows: list[tuple[Value, ...]] = [
        (f"limit: {roof.name}", "arithmetic", None, roof.gflops, None, None, roof.origin)
        for roof in roofs
    ]
    rows += [
        (f"limit: {slope.name}", "memory", None, None, slope.gbytes, None, slope.origin)
        for slope in slopes
    ]
    for point in points:
        best = point.case.best_peer
        peer = None if best is None else point.case.speeds[best].gflops
        gbytes = point.gflops / point.intensity
        rows.append(
            (point.case.label, point.kind, point.intensity, point.gflops, gbytes, peer, best)
        )
    return Table(
        caption="Limits, and every problem's intensity and speed",
        columns=columns(
            "problem or limit",
            "kind",
            ("flops a byte", ".4g"),
            ("GFLOP/s", ",.1f"),
            ("GB/s of operands", ",.1f"),
            ("best peer's GFLOP/s", ",.1f"),
            "best peer, or origin of the limit",
        ),
        rows=tuple(rows),
    )
