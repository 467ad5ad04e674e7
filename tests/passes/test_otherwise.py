"""otherwise: the passes behind it work on the sizes that the last version has left."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.dialect import GemmOp
from gemmir.lowering import run_passes
from gemmir.schedule import Schedule
from gemmir.sizes import ANY
from tests.strategies import arrays_for

ANY_ROWS = Gemm(m=ANY, n=8, k=5)
LOWERED = "promote{operand=c to=registers},vectorize{with=fma width=4}"
SMALL = f"version{{loops=m most=4}},{LOWERED}"


def after(gemm: Gemm, schedule: str) -> ModuleOp:
    module = build(gemm)
    run_passes(module, Schedule.parse(schedule))
    return module


def turns(module: ModuleOp) -> dict[str, str | None]:
    found = [op for op in module.ops if isinstance(op, func.FuncOp)]
    named = {f.sym_name.data: f.attributes.get("gemmir.turn") for f in found}
    return {name: None if turn is None else str(turn) for name, turn in named.items()}


def test_turns_follow_one_another() -> None:
    module = after(ANY_ROWS, f"{SMALL},otherwise")
    assert turns(module) == {"gemm": '"done"', "gemm.m4": '"done"', "gemm.more": None}


def test_unroll_does_not_find_the_loops_of_a_version_that_is_done() -> None:
    """Otherwise it would say that those are unrolled already."""
    unrolled = "unroll{loop=k factor=2}"
    after(ANY_ROWS, f"{SMALL},{unrolled},otherwise,tile{{loops=m sizes=4}},{LOWERED},{unrolled}")


@given(m=st.integers(0, 12))
def test_versions_of_versions_keep_the_meaning(m: int) -> None:
    schedule = (
        f"version{{loops=m sizes=1}},{LOWERED},otherwise,{SMALL},otherwise,"
        f"tile{{loops=m sizes=4 edges=overlap}},{LOWERED}"
    )
    module = after(ANY_ROWS, schedule)
    assert not any(isinstance(op, GemmOp) for op in module.walk())
    arrays = arrays_for(ANY_ROWS.at(m=m))
    evaluate(module, list(arrays.values()))
    bound = ANY_ROWS.error_bound(arrays)
    assert np.all(np.abs(arrays["c"] - ANY_ROWS.reference(arrays)) <= bound)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("otherwise", "put version or part, and passes, before it"),
        (f"{SMALL},otherwise,tile{{loops=m sizes=4}},{LOWERED},otherwise", "no version or part"),
        ("version{loops=m most=4},otherwise", "put vectorize before it"),
    ],
)
def test_errors(schedule: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(ANY_ROWS, schedule)
    assert found.value.code == "GEM1355"
