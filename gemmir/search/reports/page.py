"""One HTML page with everything in it: it asks no other file or host for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import jinja2
from markupsafe import Markup

from gemmir.search.reports.drawing import Figure, colour_variables, svg
from gemmir.search.reports.stages import Viewer
from gemmir.search.reports.tables import Table

PACKAGE: Final = "gemmir.search.reports"


@dataclass(frozen=True, kw_only=True)
class Section:
    """What came of one source: its facts, its plots with their tables, and tables alone.

    `tables` stand before the plots, `more` behind them.
    """

    slug: str
    title: str
    kind: str
    source: str
    command: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    more: tuple[Table, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report: `about` says how and with what it was made."""

    title: str
    about: tuple[tuple[str, str], ...]
    sections: Sequence[Section]
    viewers: Sequence[Viewer]


def html_of(page: Page) -> str:
    """The page as a file."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    given: dict[str, Any] = {
        "page": page,
        "svg": _svg,
        "style": Markup(colour_variables() + "\n" + _resource("page.css")),
        "script": Markup(script),
        "script_hash": digest,
        "safe": Markup,
    }
    return environment.get_template("page.html").render(given)


def _svg(figure: Figure) -> Markup:
    return Markup(svg(figure))


def slug_of(text: str) -> str:
    """`text` as part of the address of a place in a page: letters, digits and dashes."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text).split())


def _resource(name: str) -> str:
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")
