"""Draw plot.png and the tables of the page from results.db: one tile on three machines."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Final

from gemmir.search.reports.drawing import BLUE, INK, MUTED, STYLE, VERMILLION

PRODUCTS: Final = 2
"""vdpbf16ps adds two products to a sum where a multiply-add of f32 adds one, at the same rate: AMD,
Software Optimization Guide for the AMD Zen5 Microarchitecture, publication 58455."""

Figures = dict[str, float]

MEASURED: Final = "SELECT contestant, point, flops / seconds / 1e9 FROM times"
STATIC: Final = """
SELECT points.target, contestants.point, figures.name, figures.value
FROM figures JOIN cells ON cells.id = figures.cell JOIN points ON points.id = cells.point
  JOIN contestants ON contestants.id = points.contestant
"""


def measured(path: Path) -> tuple[dict[int, list[float]], dict[str, float]]:
    """GFLOP/s of every sample by the size of the tile, and the medians of what has none."""
    tiles: dict[int, list[float]] = defaultdict(list)
    others: dict[str, list[float]] = defaultdict(list)
    for name, point, speed in sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True
    ).execute(MEASURED):
        values = json.loads(point or "{}")
        if "tile" in values:
            tiles[values["tile"]].append(speed)
        else:
            others[name].append(speed)
    ordered = {tile: tiles[tile] for tile in sorted(tiles)}
    return ordered, {name: median(found) for name, found in others.items()}


def static(path: Path, kind: str) -> dict[int, Figures]:
    """The figures of targets that begin so, by the size of the tile; 0 is the default schedule."""
    found: dict[int, Figures] = defaultdict(dict)
    for target, point, name, value in sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True
    ).execute(STATIC):
        if target.startswith(kind):
            found[json.loads(point or "{}").get("tile", 0)][name] = value
    return {tile: found[tile] for tile in sorted(found)}


def cpu(path: Path) -> str:
    """The CPU's speeds as a table."""
    tiles, others = measured(path)
    peak = PRODUCTS * others["fma peak"]
    lines = ["| tile | A and B of a slice | GFLOP/s | of the peak |", "|---|---|---|---|"]
    for tile, speeds in tiles.items():
        kib = 2 * tile * 512 * 2 // 1024
        speed = median(speeds)
        lines.append(f"| {tile} | {kib} KiB | {speed:.0f} | {speed / peak:.0%} |")
    default = others["default"]
    lines.append(f"| default schedule | | {default:.0f} | {default / peak:.0%} |")
    return "\n".join(lines)


def gpu(path: Path) -> str:
    """What ptxas says, as a table."""
    lines = [
        "| tile | products of 100 instructions | registers | spilled | shared memory | warps |",
        "|---|---|---|---|---|---|",
    ]
    for tile, f in static(path, "cuda").items():
        products = 100 * f["loop: multiply-adds"] / f["loop: instructions"]
        lines.append(
            f"| {tile or 'default schedule'} | {products:.0f} | {f['registers']:.0f} "
            f"| {f['spilled']:.0f} bytes | {f['shared memory'] / 1024:.0f} KiB "
            f"| {f['warps of a multiprocessor']:.0f} |"
        )
    return "\n".join(lines)


def tpu(path: Path) -> str:
    """What libtpu's static profile and gemmir's model say, as a table."""
    lines = [
        "| tile | matrix units busy, by libtpu | by gemmir's model | traffic of HBM | VMEM |",
        "|---|---|---|---|---|",
    ]
    for tile, f in static(path, "tpu").items():
        lines.append(
            f"| {tile or 'default schedule'} | {f['MXU utilisation']:.1%} "
            f"| {f['predicted MXU utilisation']:.1%} | {f['traffic of HBM'] / 2**20:.0f} MiB "
            f"| {f['VMEM'] / 2**20:.1f} MiB |"
        )
    return "\n".join(lines)


def draw(path: Path, to: Path) -> None:
    """A panel for each machine, all against the size of the tile."""
    import_module("matplotlib").use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    with plots.rc_context(STYLE):
        figure, (left, middle, right) = plots.subplots(
            1, 3, figsize=(11, 3.6), layout="constrained", sharex=True
        )
        _cpu(left, path)
        _gpu(middle, path)
        _tpu(right, path)
        ticks = [64, 128, 256, 512, 1024, 2048]
        left.set_xscale("log", base=2)
        left.set_xticks(ticks, [str(t) for t in ticks])
        for axes in (left, middle, right):
            axes.set_xlabel("m and n of the tile")
        figure.savefig(to, dpi=150, facecolor="white")


def _cpu(axes: Any, path: Path) -> None:
    tiles, others = measured(path)
    peak = PRODUCTS * others["fma peak"]
    shares = {tile: [100 * s / peak for s in speeds] for tile, speeds in tiles.items()}
    axes.plot([*shares], [median(s) for s in shares.values()], "o-", color=BLUE.light)
    for tile, found in shares.items():
        axes.plot([tile] * len(found), found, "_", color=BLUE.light, alpha=0.5)
    axes.axhline(100 * others["default"] / peak, color=MUTED.light, ls="--", lw=1)
    axes.text(64, 100 * others["default"] / peak, "default schedule", va="bottom")
    axes.set_ylim(bottom=0, top=108)
    axes.axhline(100, color=INK.light, lw=1)
    axes.set_title("CPU, Zen 5: per cent of the peak of bf16, measured", fontsize=9)


def _gpu(axes: Any, path: Path) -> None:
    tiles = static(path, "cuda")
    products = {
        t: 100 * f["loop: multiply-adds"] / f["loop: instructions"] for t, f in tiles.items()
    }
    sizes = [t for t in products if t]
    axes.plot(sizes, [products[t] for t in sizes], "o-", color=BLUE.light)
    for tile in sizes:
        spilled = tiles[tile]["spilled"]
        if spilled:
            axes.plot(tile, products[tile], "X", color=VERMILLION.light, ms=11)
            text = f"{spilled:.0f} bytes of a\nthread spilled"
            axes.annotate(text, (tile, products[tile]), (tile * 1.25, products[tile] - 6), va="top")
    axes.axhline(products[0], color=MUTED.light, ls="--", lw=1)
    axes.text(2048, products[0] + 1, "default schedule", va="bottom", ha="right")
    axes.set_ylim(bottom=0, top=60)
    axes.set_title("GPU, sm_80: products of 100 instructions", fontsize=9)


def _tpu(axes: Any, path: Path) -> None:
    tiles = static(path, "tpu")
    sizes = [t for t in tiles if t]
    for name, marker, colour, label in (
        ("MXU utilisation", "o-", BLUE, "libtpu's static profile"),
        ("predicted MXU utilisation", "s:", VERMILLION, "gemmir's model"),
    ):
        shares = [100 * tiles[t][name] for t in sizes]
        axes.plot(sizes, shares, marker, color=colour.light, label=label)
    default = 100 * tiles[0]["MXU utilisation"]
    axes.axhline(default, color=MUTED.light, ls="--", lw=1)
    axes.text(64, default, "default schedule", va="bottom")
    axes.set_ylim(bottom=0, top=108)
    axes.axhline(100, color=INK.light, lw=1)
    axes.legend(loc="lower right")
    axes.set_title("TPU v5e: per cent of the matrix units' cycles", fontsize=9)
