"""How plots look: one palette and one style, as SVG for a page or as a file of their own.

Colours are told apart with any kind of colour vision (Okabe and Ito, Color Universal Design, 2008),
and every series has a marker of its own as well. In an SVG a colour is a CSS variable, so that a
page may be light or dark; text stays text.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gemmir.search.reports.libraries import matplotlib
from gemmir.search.reports.tables import Table

FORMATS: Final = ("png", "svg")

DOTS_PER_INCH: Final = 160


@dataclass(frozen=True, kw_only=True)
class Colour:
    """One colour: its name as a CSS variable, and what it is on white and on black."""

    name: str
    light: str
    dark: str


INK: Final = Colour(name="ink", light="#1c2024", dark="#eceef0")
MUTED: Final = Colour(name="muted", light="#5c656e", dark="#a3abb3")
GRID: Final = Colour(name="grid", light="#d9dde1", dark="#33393f")
PAPER: Final = Colour(name="paper", light="#fefefe", dark="#15181b")

BLUE: Final = Colour(name="blue", light="#0072b2", dark="#4aa8e6")
VERMILLION: Final = Colour(name="vermillion", light="#d55e00", dark="#ff8a4c")
GREEN: Final = Colour(name="green", light="#009e73", dark="#2fc79c")
PURPLE: Final = Colour(name="purple", light="#b8568f", dark="#e59ac5")
ORANGE: Final = Colour(name="orange", light="#c28800", dark="#f0bd4a")
SKY: Final = Colour(name="sky", light="#3597cf", dark="#9ad6f7")

COLOURS: Final = (INK, MUTED, GRID, PAPER, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
SERIES: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS: Final = "os^DvPX<>*hp"
LARGE: Final = 10_000

DASHES: Final = ("-", "--", ":", "-.")

STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gemmir",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "text.color": INK.light,
    "text.parse_math": False,
    "axes.edgecolor": MUTED.light,
    "axes.labelcolor": INK.light,
    "axes.titlecolor": INK.light,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID.light,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "xtick.labelcolor": INK.light,
    "ytick.labelcolor": INK.light,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK.light,
}


@dataclass
class Drawing:
    """What a plot is drawn on; `tips` are what a reader sees who points at a mark."""

    figure: Any
    tips: list[str] = field(default_factory=list[str])

    def tip(self, artist: Any, text: str) -> None:
        """Let `artist` say `text`."""
        artist.set_gid(f"tip{len(self.tips)}")
        self.tips.append(text)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One plot with its numbers.

    `slug` names it in a page and as a file, `alt` says in words what is to be seen, `draw` draws
    it; `size` is in inches.
    """

    slug: str
    title: str
    caption: str
    alt: str
    table: Table
    size: tuple[float, float]
    draw: Callable[[Drawing], None]


def svg(figure: Figure) -> str:
    """`figure` to stand within a page, in the colours of that page."""
    text, drawing = _drawn(figure, "svg")
    return _inline(text.decode(), figure, drawing.tips)


def image(figure: Figure, form: str) -> bytes:
    """`figure` as a file of one of `FORMATS`: an SVG is as light or dark as its reader wants it."""
    if form == "svg":
        return _standalone(svg(figure)).encode()
    return _drawn(figure, form)[0]


def style_of(number: int) -> tuple[str, str, str]:
    """Colour, marker and dash of the series `number`; the first twelve are all different."""
    return (
        SERIES[number % len(SERIES)].light,
        MARKERS[number % len(MARKERS)],
        DASHES[number // len(SERIES) % len(DASHES)],
    )


def short(value: float) -> str:
    """A number in three digits, for a label."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def plain_ticks(axis: Any, parts: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Numbers such as 0.5, 2 and 1,000 on a logarithmic axis in place of powers.

    `parts` are those of each power of ten that are numbered.
    """
    ticker = matplotlib("ticker")
    axis.set_major_locator(ticker.LogLocator(subs=parts, numticks=24))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.12g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def thousands(axis: Any, most: float) -> None:
    """Numbers such as 250,000 on a linear axis that goes up to `most`, in place of 0.25 of 1e6."""
    if most >= LARGE:
        axis.set_major_formatter(matplotlib("ticker").StrMethodFormatter("{x:,.0f}"))


def colour_variables() -> str:
    """The declarations of all colours in a light page, and then in a dark one."""
    return "\n".join(
        (
            ":root { " + " ".join(f"--{c.name}: {c.light};" for c in COLOURS) + " }",
            "@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { "
            + " ".join(f"--{c.name}: {c.dark};" for c in COLOURS)
            + " } }",
            ":root[data-theme=dark] { "
            + " ".join(f"--{c.name}: {c.dark};" for c in COLOURS)
            + " }",
        )
    )


def _drawn(figure: Figure, form: str) -> tuple[bytes, Drawing]:
    with matplotlib().rc_context(STYLE):
        drawing = Drawing(
            figure=matplotlib("figure").Figure(figsize=figure.size, layout="constrained")
        )
        figure.draw(drawing)
        buffer = io.BytesIO()
        given: dict[str, Any] = {"format": form, "dpi": DOTS_PER_INCH}
        if form == "svg":
            given["metadata"] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        else:
            given["facecolor"] = PAPER.light
        drawing.figure.savefig(buffer, **given)
    return buffer.getvalue(), drawing


_ROOT: Final = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
_METADATA: Final = re.compile(r"<metadata>.*?</metadata>\s*", re.S)
_TIP: Final = re.compile(r'<g id="tip(\d+)">')
_LONG: Final = re.compile(r"(\d\.\d\d)\d+")
"""Hundredths of a point are enough for coordinates."""

_NO_EDGE: Final = "; stroke: #000000; stroke-opacity: 0; stroke-linejoin: miter"
"""How matplotlib says that a mark has no edge, which is what a mark is without it."""


def _inline(text: str, figure: Figure, tips: Sequence[str]) -> str:
    """The `svg` element of a file of matplotlib, with names of its own and colours of the page."""
    root = _ROOT.search(text)
    assert root is not None
    body = _METADATA.sub("", text[root.end() :])
    body = _TIP.sub(lambda found: f"<g><title>{html.escape(tips[int(found[1])])}</title>", body)
    name = figure.slug
    body = body.replace(' id="', f' id="{name}-').replace('href="#', f'href="#{name}-')
    body = body.replace("url(#", f"url(#{name}-")
    body = _LONG.sub(r"\1", body).replace(_NO_EDGE, "")
    for colour in COLOURS:
        body = body.replace(colour.light, f"var(--{colour.name})")
    width, height = (float(found) for found in root.groups())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width * 4 / 3:.0f}" '
        f'height="{height * 4 / 3:.0f}" role="img" '
        f'aria-label="{html.escape(f"{figure.title}. {figure.alt}")}">{body.strip()}'
    )


def _standalone(text: str) -> str:
    first, rest = text.split(">", 1)
    paper = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return f"{first}><style>{colour_variables()}</style>{paper}{rest}\n"
