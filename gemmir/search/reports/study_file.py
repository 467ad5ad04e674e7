"""Read what `gemmir tune` has written: the JSON of `--json`, or the file of its study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemmir.search.reports.measured import Study


def study_of(found: Mapping[str, Any], path: Path) -> Study:
    """The study in the JSON `found`; KeyError, TypeError or ValueError where it is none."""
    raise ValueError("it has no trials")


def holds_study(path: Path) -> bool:
    """Whether the SQLite file at `path` is a study of Optuna."""
    return False


def read_study(path: Path) -> Study:
    """The study in the SQLite file at `path`."""
    raise ValueError("it has no trials")
