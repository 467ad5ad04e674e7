"""Measured schedules: their file, and a few that are really measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule import Schedule
from gemmir.search.quality.measurements import (
    Case,
    Measured,
    Measurements,
    Plan,
    changed,
    drawn,
    is_measured,
    measure,
    read,
    split_passes,
)

TEXT = "tile{loops=m,n sizes=8,8},promote{operand=c to=registers},vectorize{with=fma width=8}"
FOUND = Measurements(
    target="cpu:znver3",
    about={"cpu": "none"},
    cases=(
        Case(
            class_="small",
            gemm=Gemm(m=8, n=8, k=8, dtype="f64", epilogue="bias"),
            measured=(Measured(schedule=TEXT, seconds=1e-6, least=9e-7, most=2e-6),),
            refused={"unroll{loop=k factor=2}": "GEM0301: no"},
        ),
    ),
)


def test_a_file_says_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(FOUND.dump())
    assert read(path) == FOUND and is_measured(path)
    assert not is_measured(Path(__file__).parents[3] / "bench/results/tpu-static.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', FOUND.dump()[:-30]])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ParseError, match="GEM1451"):
        read(path)
    with pytest.raises(ParseError, match="GEM1451"):
        read(tmp_path / "missing.json")


def test_passes_are_split_outside_of_braces() -> None:
    schedule = Schedule.parse(TEXT)
    assert split_passes(str(schedule)) == list(schedule.steps)


def test_a_problem_is_stored_by_what_is_said_of_it() -> None:
    gemm = Gemm(m=1, n=2, k=3, trans_b=True)
    assert changed(gemm) == {"m": 1, "n": 2, "k": 3, "trans_b": True}


def test_drawn_schedules_are_different_and_begin_with_the_default() -> None:
    gemm = Gemm(m=64, n=64, k=64)
    found = drawn(gemm, Plan(target="cpu:x86-64-v3", schedules=6))
    assert len(set(found)) == len(found) == 6
    assert found == drawn(gemm, Plan(target="cpu:x86-64-v3", schedules=6))


def test_right_schedules_are_timed_and_others_are_not() -> None:
    """A sum in slices of k is rounded to bf16 after each, which the bound does not allow for."""
    machine_for("cpu")
    plan = Plan(target="cpu", rounds=2)
    bad = "promote{operand=c to=registers}"
    case = measure("small", Gemm(m=8, n=8, k=8), [TEXT, bad], plan)
    assert [m.schedule for m in case.measured] == [TEXT]
    assert 0 < case.measured[0].least <= case.measured[0].seconds <= case.measured[0].most < 1
    assert case.refused[bad].startswith("GEM")
