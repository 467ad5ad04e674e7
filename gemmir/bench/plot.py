"""A picture of a run: GFLOP/s of everybody, a panel for each class. It needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gemmir.bench.contestants import PEAK
from gemmir.bench.race import Race
from gemmir.bench.report import others, spelled
from gemmir.errors import MissingError

FORMATS: Final = ("png", "svg", "pdf")

COLOURS: Final = 10
"""Colours that matplotlib has by name, C0 to C9, before they are used again."""

INCHES_A_PROBLEM: Final = 0.45
LEAST_WIDTH: Final = 6.0
PANEL_HEIGHT: Final = 3.2


def check_plot(path: Path) -> None:
    """`MissingError` GEM1374 where a plot to `path` could not be drawn."""
    if path.suffix[1:] not in FORMATS:
        raise MissingError(
            "GEM1374",
            f"--plot {path}: the formats are {', '.join(FORMATS)}",
            f"use {path.with_suffix('.png').name}",
        )
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise MissingError(
            "GEM1374",
            "--plot needs matplotlib, which is not installed",
            "pip install 'gemmir[bench]', or leave it out for the plot in the terminal",
        ) from error


def picture(found: Mapping[str, Sequence[Race]], title: str, form: str) -> bytes:
    """The file: dots for the libraries, a line for gemmir and one for the FMA peak."""
    import_module("matplotlib").use("Agg")
    plots: Any = import_module("matplotlib.pyplot")
    classes = {name: races for name, races in found.items() if races}
    most = max((len(races) for races in classes.values()), default=1)
    across = 1 if len(classes) < 3 else 2
    down = max(-(-len(classes) // across), 1)
    width = max(LEAST_WIDTH, INCHES_A_PROBLEM * most + 2)
    figure, panels = plots.subplots(
        down,
        across,
        squeeze=False,
        figsize=(width * across, PANEL_HEIGHT * down),
        layout="constrained",
    )
    everybody = list(dict.fromkeys(n for races in classes.values() for n in others(races)))
    colours = {n: f"C{number % COLOURS}" for number, n in enumerate(everybody)}
    for panel, (name, races) in zip(panels.flat, classes.items(), strict=False):
        _panel(panel, name, races, colours)
    for panel in panels.flat[len(classes) :]:
        panel.set_axis_off()
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form)
    plots.close(figure)
    return buffer.getvalue()


def _panel(panel: Any, name: str, races: Sequence[Race], colours: Mapping[str, str]) -> None:
    own = races[0].own
    panel.plot(*_points(races, own), "k-o", label=own, linewidth=1.5, markersize=4)
    for other in others(races):
        points = _points(races, other)
        panel.plot(*points, "o", color=colours[other], label=other, markersize=3, alpha=0.8)
    panel.plot(*_points(races, PEAK), "--", color="grey", label=PEAK, linewidth=1)
    panel.set_title(name)
    panel.set_ylabel("GFLOP/s")
    panel.set_ylim(bottom=0)
    labels = [spelled(race.gemm) for race in races]
    panel.set_xticks(range(len(races)), labels, rotation=30, ha="right", fontsize=7)
    panel.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _points(races: Sequence[Race], name: str) -> tuple[list[int], list[float]]:
    there = [number for number, race in enumerate(races) if name in race.results]
    return there, [races[number].results[name].gflops for number in there]
