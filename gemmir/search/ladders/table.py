"""A ladder as text: a table with a bar for the speed of each rung, and rungs one by one."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Final

from gemmir.explain import described
from gemmir.search.ladders.figure import HOWS, Figure
from gemmir.search.ladders.ladder import Ladder

BAR: Final = 24
"""Characters of a bar that reaches the peak."""

DECADES: Final = 3
"""Powers of ten below the peak at which a bar begins: speeds of the lowest rungs are so far off."""

OPS_SHOWN: Final = 8
WIDTH: Final = 96

COLUMNS: Final = (
    "rung",
    "what",
    " GFLOP/s",
    " of peak",
    " x before",
    "0.1 … 1 … 10 … 100 %",
    "how",
    "check",
)


def rows(found: Ladder) -> Iterator[list[str]]:
    """A row for each rung, in the order of `COLUMNS`."""
    for number, step in enumerate(found.steps):
        figure, ratio = step.figure, found.ratio(number)
        yield [
            step.rung.name,
            step.rung.title,
            _speed(figure, found),
            "-" if figure.of_peak is None else f"{figure.of_peak:.2%}",
            "-" if ratio is None else f"{ratio:.2f}",
            bar(figure.of_peak),
            figure.how if figure.seconds is not None else figure.note[:40],
            "ok" if step.checked.report is not None and step.checked.ok else step.checked.text,
        ]


def bar(of_peak: float | None) -> str:
    """A bar whose length is the logarithm of the part of the peak."""
    if not of_peak:
        return ""
    part = 1 + math.log10(max(of_peak, 1e-9)) / DECADES
    eighths = round(max(0.0, min(part, 1.0)) * BAR * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")


def head(found: Ladder) -> str:
    """What the table is of."""
    return f"{described(found.gemm)}\n{found.machine}"


def foot(found: Ladder) -> Iterator[str]:
    """What the words in the table mean, and which rungs are not there."""
    used = {step.figure.how for step in found.steps}
    yield from (f"{how}: {meaning}" for how, meaning in HOWS.items() if how in used - {"unknown"})
    for name, reason in found.left_out.items():
        yield f"no rung {name}: {reason}"


def lesson(found: Ladder, number: int) -> Iterator[str]:
    """One rung in full: its edits, what they change in the IR, its figure, and why."""
    step = found.steps[number]
    rung, figure, ratio = step.rung, step.figure, found.ratio(number)
    times = "" if ratio is None else f", {ratio:.2f} times the rung before"
    yield f"{rung.name}: {rung.title}"
    yield from (f"    {line}" for edit in rung.edits for line in str(edit).splitlines())
    if figure.seconds is not None:
        peak = "" if figure.of_peak is None else f", {figure.of_peak:.2%} of the peak"
        yield f"  {figure.how}: {_speed(figure, found)} GFLOP/s{peak}{times}"
    elif figure.note:
        yield f"  no figure: {figure.note}"
    if number:
        changed = sorted(step.changed.items(), key=lambda pair: -abs(pair[1]))
        ops = ", ".join(f"{count:+d} {name}" for name, count in changed[:OPS_SHOWN])
        yield f"  IR: {ops or 'the same kinds of ops'}"
        yield from (f"    {line}" for line in step.loops)
    for name, value in figure.facts.items():
        yield f"  {name}: {value if isinstance(value, str) else f'{value:,.4g}'}"
    yield f"  {step.checked.text}"
    yield from textwrap.wrap(rung.why, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _speed(figure: Figure, found: Ladder) -> str:
    speed = figure.gflops(found.gemm.flops)
    return "-" if speed is None else f"{speed:,.4g}" if speed < 1e4 else f"{speed:,.0f}"
