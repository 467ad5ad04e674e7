"""The way to the libraries that reports are made with, which gemmir itself does not need.

matplotlib and pygments are untyped here: their own types are not complete.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from gemmir.errors import MissingError

NEEDED: Final = ("jinja2", "matplotlib", "pygments")


def require() -> None:
    """`MissingError` GEM1430 where a library that a report is made with is not installed."""
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingError(
                "GEM1430",
                f"a report needs {name}, which is not installed",
                "pip install 'gemmir[experiments]'",
            ) from error


def matplotlib(module: str = "") -> Any:
    """The package matplotlib, or a module of it; call `require` first."""
    return import_module(f"matplotlib.{module}" if module else "matplotlib")


def pygments(module: str) -> Any:
    """A module of the package pygments; call `require` first."""
    return import_module(f"pygments.{module}")
