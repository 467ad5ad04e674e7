"""The way to what only some experiments need: SciPy to compare, DuckDB for Parquet, Dask to spread.

Each is imported when it is first needed. They are untyped here: their own types are not complete.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gemmir.errors import MissingError


def scipy_stats() -> Any:
    """The module `scipy.stats`; `MissingError` GEM1426 where SciPy is not installed."""
    return _module("scipy.stats", "comparing runs")


def duckdb() -> Any:
    """The module `duckdb`; `MissingError` GEM1426 where it is not installed."""
    return _module("duckdb", "writing Parquet")


def distributed() -> Any:
    """The module `distributed` of Dask; `MissingError` GEM1426 where it is not installed."""
    return _module("distributed", "--workers")


def _module(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(
            "GEM1426",
            f"{what} needs {name.partition('.')[0]}: {error}",
            "pip install 'gemmir[experiments]'",
        ) from error
