"""Draw plot.png and the table of the page from results.db: what each pass buys."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from importlib import import_module
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from gemmir.search.reports.drawing import INK, MUTED, SERIES, STYLE

PASSES: Final = {
    "slices": "tile k by 256",
    "copy": "promote blocks of B to L2",
    "ask_a": "prefetch the next rows of A",
    "ask_c": "prefetch C",
    "unroll": "unroll k by 4",
}
ON: Final = ("yes", "true")

Which = frozenset[str]
"""The passes that a schedule has."""

Times = dict[str, dict[Which, float]]


def times(path: Path) -> tuple[Times, dict[str, dict[str, float]]]:
    """Median seconds of each problem: of every set of passes, and of every other contestant."""
    found: dict[tuple[str, Which], list[float]] = defaultdict(list)
    others: dict[tuple[str, str], list[float]] = defaultdict(list)
    rows = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True).execute(
        "SELECT problem, contestant, point, seconds FROM times"
    )
    for problem, name, point, seconds in rows:
        if point is None or not (values := json.loads(point)):
            others[problem, name].append(seconds)
        else:
            found[problem, frozenset(p for p in PASSES if values[p] in ON)].append(seconds)
    passes: Times = defaultdict(dict)
    rest: dict[str, dict[str, float]] = defaultdict(dict)
    for (problem, which), samples in found.items():
        passes[problem][which] = median(samples)
    for (problem, name), samples in others.items():
        rest[problem][name] = median(samples)
    return passes, rest


def gains(found: Mapping[Which, float], name: str) -> dict[str, float]:
    """How many times as fast a pass makes: alone, beside all others, and over all that may be."""
    without = [which for which in found if name not in which]
    all_ = {which: found[which] / found[which | {name}] for which in without}
    return {
        "alone": all_[frozenset()],
        "beside all others": all_[frozenset(PASSES) - {name}],
        "mean": exp(fmean(log(gain) for gain in all_.values())),
        "least": min(all_.values()),
        "most": max(all_.values()),
    }


def table(path: Path) -> str:
    """The gains as a table of Markdown."""
    passes, _ = times(path)
    lines = [
        "| problem | pass | alone | beside all others | mean | least to most |",
        "|---|---|---|---|---|---|",
    ]
    for problem, found in sorted(passes.items()):
        for name, said in PASSES.items():
            gain = gains(found, name)
            cells = [f"{gain[k]:.3f}" for k in ("alone", "beside all others", "mean")]
            between = f"{gain['least']:.3f} to {gain['most']:.3f}"
            lines.append(f"| {problem} | {said} | {' | '.join(cells)} | {between} |")
    return "\n".join(lines)


def noise(path: Path) -> str:
    """How far two processes with the same schedule are apart, in a sentence."""
    samples: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True).execute(
        "SELECT problem, contestant, repetition, seconds FROM times WHERE kind = 'schedule'"
    )
    for problem, name, repetition, seconds in rows:
        samples[problem, name][repetition].append(seconds)
    apart = sorted(
        abs(log(median(one) / median(other))) for one, other in map(_pair, samples.values())
    )
    middle, most = (exp(apart[len(apart) * part // 10]) - 1 for part in (5, 9))
    return (
        f"Two processes with one and the same schedule are {middle:.1%} apart in the middle, and "
        f"one pair in ten more than {most:.1%}."
    )


def _pair(found: Mapping[int, list[float]]) -> tuple[list[float], list[float]]:
    one, other = found.values()
    return one, other


def speeds(path: Path) -> str:
    """GFLOP/s on the way from one multiply-add at a time to all passes, as a table."""
    passes, others = times(path)
    problems = sorted(passes)
    rows: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        found, rest = passes[problem], others[problem]
        for name, seconds in {
            "naive: one multiply-add at a time": rest["naive"],
            "a row of C in one vector": rest["vectors"],
            "a register tile of 8 x 32": found[frozenset()],
            "and all five passes": found[frozenset(PASSES)],
            "the best of the 32": min(found.values()),
            "NumPy": rest["numpy"],
            "FMA peak": rest["fma peak"],
        }.items():
            rows[name].append(f"{_flops(problem) / seconds / 1e9:.1f}")
    lines = [f"| | {' | '.join(problems)} |", f"|---|{'---|' * len(problems)}"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def _flops(problem: str) -> int:
    m, n, k = (int(word) for word in problem.split(" ")[:5:2])
    return 2 * m * n * k


def draw(path: Path, to: Path) -> None:
    """A row for each pass: alone, beside all others, and between all that may be beside it."""
    passes, _ = times(path)
    import_module("matplotlib").use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    with plots.rc_context(STYLE):
        figure, panels = plots.subplots(
            1, len(passes), figsize=(11, 3.4), layout="constrained", sharey=True, sharex=True
        )
        for axes, (problem, found) in zip(panels, sorted(passes.items()), strict=True):
            _panel(axes, found)
            axes.set_title(problem, fontsize=9)
            axes.set_xlabel("times as fast as without the pass")
        panels[0].set_yticks(range(len(PASSES)), list(PASSES.values()))
        panels[0].invert_yaxis()
        panels[0].legend(loc="lower right")
        figure.savefig(to, dpi=150, facecolor="white")


def _panel(axes: Any, found: Mapping[Which, float]) -> None:
    axes.axvline(1, color=INK.light, lw=1)
    marks = (("alone", "o", 0), ("beside all others", "s", 1), ("mean", "D", 2))
    for row, name in enumerate(PASSES):
        gain = gains(found, name)
        axes.plot([gain["least"], gain["most"]], [row, row], color=MUTED.light, lw=2, alpha=0.6)
        for key, marker, colour in marks:
            label = {"mean": "mean of 16 schedules, and their range"}.get(key, key)
            axes.plot(
                gain[key],
                row + (colour - 1) * 0.18,
                marker,
                color=SERIES[colour].light,
                ms=6,
                label=label if row == 0 else None,
            )
