"""Pages and plots of what was found.

`require` comes first: what the other names of this package are made with may not be installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from gemmir.search.reports.libraries import require

if TYPE_CHECKING:
    from gemmir.search.reports import drawing
    from gemmir.search.reports.build import page_of
    from gemmir.search.reports.page import html_of
    from gemmir.search.reports.sources import read
    from gemmir.search.reports.stages import viewer

__all__ = ["drawing", "html_of", "page_of", "read", "require", "viewer"]

HOMES: Final = {
    "drawing": "drawing",
    "html_of": "page",
    "page_of": "build",
    "read": "sources",
    "viewer": "stages",
}
"""The module of each name, which is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require()
    module = import_module(f"{__name__}.{HOMES[name]}")
    return module if name == HOMES[name] else getattr(module, name)
