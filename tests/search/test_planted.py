"""Schedules that are faster and wrong, by a pass that only tests have: none is timed, none wins.

`python bench/tuning.py planted` tunes all twenty spaces; here are those of some problems.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import gemmir.passes
from gemmir.cli import main
from gemmir.search.trials import Limits, Trials
from tests.search.planted.spaces import HERE, PLANTED, Planted

QUICK: Final = ("odd", "bytes", "batch")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give this process and all that it starts the pass."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    folders = gemmir.passes.__path__
    monkeypatch.setattr(gemmir.passes, "__path__", [*folders, str(HERE / "passes")])
    yield


@pytest.mark.parametrize("problem", QUICK)
def test_what_is_faster_and_wrong_is_not_timed(problem: str) -> None:
    those = [case for case in PLANTED if case.problem == problem]
    with Trials(those[0].gemm, limits=Limits(rounds=1, sample_seconds=1e-3)) as trials:
        assert trials.run(",".join(those[0].right())).ok
        for case in those:
            found = trials.run(case.wrong())
            assert found.status == "wrong", case.name
            assert "whole numbers: element" in found.detail and found.samples == ()


def test_there_are_twenty() -> None:
    assert len({case.name for case in PLANTED}) == 20
    assert {case.what for case in PLANTED} > {"k_half", "k_short", "last_tile", "drop_store"}


def test_a_tune_takes_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Planted(problem="plain", what="drop_products")
    space, study = tmp_path / "x.space", tmp_path / "s"
    space.write_text(case.space())
    sizes = ("--m", "96", "--n", "80", "--k", "64")
    few = ("--rounds", "1", "--race", "8", "--no-prior")
    files = ("--space", str(space), "--study", str(study))
    assert main(["tune", *sizes, *files, *few, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["outcomes"] == {"ok": 2, "wrong": 2} and found["ended"] == "space"
    assert "hurry" not in found["winner"]
