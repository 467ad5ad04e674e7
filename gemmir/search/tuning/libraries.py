"""The way to Optuna and SciPy, which are imported when a tune begins, and which most users lack."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gemmir.errors import MissingError


def optuna() -> Any:
    """The module `optuna`, which says nothing of its own; GEM1411 where it is not installed."""
    found = _module("optuna")
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def stats() -> Any:
    """The module `scipy.stats`; GEM1411 where it is not installed."""
    return _module("scipy.stats")


def sqlalchemy_event() -> Any:
    """The module `sqlalchemy.event`, which comes with Optuna."""
    return _module("sqlalchemy.event")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(
            "GEM1411",
            f"a tune needs {name.split('.')[0]}, which is not installed",
            "pip install 'gemmir[experiments]'",
        ) from error
