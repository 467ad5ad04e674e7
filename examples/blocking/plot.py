"""Draw plot.png and the table of the page from results.db: how fast each block of B is."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Final

from gemmir.machine.cpu import KIB, ZNVER5
from gemmir.search.reports.drawing import BLUE, INK, MUTED, STYLE, VERMILLION

ITEM_BYTES: Final = 4
LEAST_DEPTH: Final = 64
"""Rows of a block from which C comes and goes seldom enough."""

Speeds = dict[tuple[int, int], list[float]]


def speeds(path: Path) -> tuple[Speeds, dict[str, float]]:
    """GFLOP/s of every sample by kc and nc, and the median of every other contestant."""
    blocks: Speeds = defaultdict(list)
    others: dict[str, list[float]] = defaultdict(list)
    rows = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True).execute(
        "SELECT contestant, point, flops, seconds FROM times"
    )
    for name, point, flops, seconds in rows:
        if point is None or not (values := json.loads(point)):
            others[name].append(flops / seconds / 1e9)
        else:
            blocks[values["kc"], values["nc"]].append(flops / seconds / 1e9)
    return blocks, {name: median(found) for name, found in others.items()}


def groups(blocks: Speeds) -> dict[str, list[tuple[int, int]]]:
    """The blocks, by what they have in common."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for kc, nc in sorted(blocks):
        size = kc * nc * ITEM_BYTES
        if kc < LEAST_DEPTH:
            found[f"kc = {kc}"].append((kc, nc))
        elif size <= ZNVER5.l2_bytes // 2:
            found["kc of 64 and more, up to half of L2"].append((kc, nc))
        elif size <= ZNVER5.l2_bytes:
            found["more than half of L2, up to L2"].append((kc, nc))
        elif size < max(blocks)[0] * max(nc for _, nc in blocks) * ITEM_BYTES:
            found["more than L2"].append((kc, nc))
        else:
            found["all of B, 16 MiB"].append((kc, nc))
    return found


def table(path: Path) -> str:
    """Per cent of the peak of each group of blocks, as a table of Markdown."""
    blocks, others = speeds(path)
    peak = others["fma peak"]
    lines = ["| blocks | how many | median | slowest to fastest |", "|---|---|---|---|"]
    for name, members in groups(blocks).items():
        shares = [100 * median(blocks[member]) / peak for member in members]
        between = f"{min(shares):.0f} to {max(shares):.0f}"
        lines.append(f"| {name} | {len(members)} | {median(shares):.0f} % | {between} % |")
    lines.append(f"| the default schedule | 1 | {100 * others['default'] / peak:.0f} % | |")
    return "\n".join(lines)


def chance(path: Path) -> float:
    """Of such a difference between blocks up to half of L2 and larger ones, if there were none.

    The test of Mann and Whitney, over the medians of blocks.
    """
    blocks, _ = speeds(path)
    stats: Any = import_module("scipy.stats")
    members = groups(blocks)
    small = [median(blocks[b]) for b in members["kc of 64 and more, up to half of L2"]]
    names = ("more than half of L2, up to L2", "more than L2", "all of B, 16 MiB")
    large = [median(blocks[b]) for name in names for b in members[name]]
    return float(stats.mannwhitneyu(small, large).pvalue)


def draw(path: Path, to: Path) -> None:
    """A heat map of the medians, and the same against the bytes of a block."""
    blocks, others = speeds(path)
    peak = others["fma peak"]
    import_module("matplotlib").use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    with plots.rc_context(STYLE):
        figure, (left, right) = plots.subplots(
            1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(1, 1.15)
        )
        _map(left, blocks, peak)
        _caches(right, blocks, peak, others["default"])
        figure.savefig(to, dpi=150, facecolor="white")


def _map(axes: Any, blocks: Speeds, peak: float) -> None:
    depths, widths = (sorted({key[i] for key in blocks}) for i in (0, 1))
    shares = [[100 * median(blocks[kc, nc]) / peak for nc in widths] for kc in depths]
    axes.imshow(shares, origin="lower", aspect="auto", cmap="viridis")
    for row, kc in enumerate(depths):
        for column, nc in enumerate(widths):
            share, size = shares[row][column], kc * nc * ITEM_BYTES
            mark = "" if size <= ZNVER5.l2_bytes // 2 else "*" if size <= ZNVER5.l2_bytes else "**"
            colour = "black" if share > 86 else "white"
            axes.text(column, row, f"{share:.0f}{mark}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(widths)), [str(n) for n in widths])
    axes.set_yticks(range(len(depths)), [str(n) for n in depths])
    axes.set_xlabel("nc: columns of B in a block")
    axes.set_ylabel("kc: rows of B in a block")
    axes.set_title("Per cent of the FMA peak (* over half of L2, ** over L2)", fontsize=9)
    axes.grid(visible=False)


def _caches(axes: Any, blocks: Speeds, peak: float, default: float) -> None:
    long = {key: found for key, found in blocks.items() if key[0] >= 64}
    for found, colour, label in (
        (long, BLUE, "kc of 64 and more"),
        ({k: f for k, f in blocks.items() if k not in long}, VERMILLION, "kc of 16 and 32"),
    ):
        sizes = [kc * nc * ITEM_BYTES / KIB for kc, nc in found]
        middles = [median(f) for f in found.values()]
        spread = [
            [m - min(f) for m, f in zip(middles, found.values(), strict=True)],
            [max(f) - m for m, f in zip(middles, found.values(), strict=True)],
        ]
        axes.errorbar(
            sizes, middles, spread, fmt="o", ms=4, lw=0.8, color=colour.light, label=label
        )
    for size, name in (
        (ZNVER5.l1_bytes, "L1"),
        (ZNVER5.l2_bytes // 2, "L2/2"),
        (ZNVER5.l2_bytes, "L2"),
    ):
        axes.axvline(size / KIB, color=MUTED.light, lw=0.9, ls=":")
        axes.text(size / KIB, peak * 1.012, name, ha="center", va="bottom", color=INK.light)
    axes.axhline(peak, color=INK.light, lw=1)
    axes.text(4.2, peak * 0.997, "FMA peak", va="top", color=INK.light)
    axes.axhline(default, color=MUTED.light, lw=1, ls="--")
    axes.text(4.2, default * 1.003, "default schedule", va="bottom", color=INK.light)
    axes.set_xscale("log", base=2)
    ticks = [2**i for i in range(2, 15, 2)]
    axes.set_xticks(ticks, [f"{t} KiB" if t < KIB else f"{t // KIB} MiB" for t in ticks])
    axes.set_xlabel("bytes of a block of B; bars from the slowest to the fastest sample")
    axes.set_ylabel("GFLOP/s of one core")
    axes.set_ylim(bottom=0.55 * peak, top=1.06 * peak)
    axes.legend(loc="lower center")
