"""Every plausible mistake in the passes and the emitter is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
TABLE: Final = HERE / "mutants.toml"
LEAST: Final = 30

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants run in forked children")


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, str]:
    """What became of each mutant, by name, and of the unchanged tree."""
    command = [sys.executable, str(HERE / "harness.py"), str(TABLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {entry["name"]: entry["outcome"] for entry in found}


def test_the_unchanged_tree_passes(outcomes: Mapping[str, str]) -> None:
    assert outcomes["unchanged"] == "survived"


def test_every_mutant_runs(outcomes: Mapping[str, str]) -> None:
    names = set(tomllib.loads(TABLE.read_text()))
    assert len(names) >= LEAST
    assert names | {"unchanged"} == set(outcomes)


def test_every_mutant_still_has_its_place(outcomes: Mapping[str, str]) -> None:
    assert [name for name, what in outcomes.items() if what.startswith("stale")] == []


def test_every_mutant_is_caught(outcomes: Mapping[str, str]) -> None:
    survivors = [name for name, what in outcomes.items() if what == "survived"]
    assert survivors == ["unchanged"]


def test_none_is_caught_by_an_edit_that_cannot_run(outcomes: Mapping[str, str]) -> None:
    """A mistake in the table would be caught too, and prove nothing."""
    broken = ("SyntaxError", "NameError", "ImportError", "AttributeError", "TypeError")
    assert [name for name, what in outcomes.items() if what.startswith(broken)] == []
