"""tile{edges=halve least=…}: halving stops at whole vectors, and one clipped tile remains."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from xdsl.dialects.builtin import DYNAMIC_INDEX

from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import GemmOp, memref_type
from gemmir.lowering import run_passes, run_stages
from gemmir.schedule import Schedule
from gemmir.sizes import ANY
from tests.strategies import arrays_for, examples

SCHEDULE = (
    "tile{loops=n sizes=12 edges=halve least=4},tile{loops=m sizes=4 edges=halve},"
    "promote{operand=c to=registers},vectorize{with=fma width=4}"
)


def columns(gemm: Gemm, schedule: str) -> list[int]:
    """Columns of C of every product, in order."""
    module = build(gemm)
    run_passes(module, Schedule.parse(schedule))
    return [memref_type(op.c).get_shape()[1] for op in module.walk() if isinstance(op, GemmOp)]


def test_what_is_left_is_one_tile_that_is_clipped() -> None:
    cut = "tile{loops=n sizes=48 edges=halve least=16}"
    assert columns(Gemm(m=4, n=ANY, k=3), cut) == [48, 32, 16, DYNAMIC_INDEX]
    assert columns(Gemm(m=4, n=95, k=3), cut) == [48, 32, 15]
    assert columns(Gemm(m=4, n=112, k=3), cut) == [48, 16]
    assert columns(Gemm(m=4, n=96, k=3), cut) == [48]
    assert columns(Gemm(m=4, n=5, k=3), "tile{loops=n sizes=4 edges=halve least=2}") == [4, 1]


def test_without_it_halving_goes_on_to_single_elements() -> None:
    cut = "tile{loops=n sizes=8 edges=halve}"
    assert columns(Gemm(m=4, n=ANY, k=3), cut) == [8, 4, 2, 1]
    assert columns(Gemm(m=4, n=15, k=3), cut) == [8, 4, 2, 1]


@given(
    m=st.integers(1, 9),
    n=st.integers(1, 40),
    k=st.integers(1, 5),
    beta=st.sampled_from([0.0, 1.0, -2.0]),
    known=st.booleans(),
)
@example(m=7, n=23, k=3, beta=-2.0, known=True)
@example(m=7, n=23, k=3, beta=0.0, known=False)
@examples(0.1)
def test_every_stage_means_the_same(m: int, n: int, k: int, beta: float, known: bool) -> None:
    static = Gemm(m=m, n=n, k=k, beta=beta)
    gemm = static if known else Gemm(m=ANY, n=ANY, k=ANY, beta=beta)
    arrays = arrays_for(static)
    generator = np.random.default_rng(m * n * k)
    for array in arrays.values():
        array[...] = generator.integers(-3, 4, array.shape)
    exact = static.reference(arrays)
    for stage in run_stages(build(gemm), Schedule.parse(SCHEDULE)):
        own = [array.copy() if name == "c" else array for name, array in arrays.items()]
        evaluate(parse_module(stage.text), own)
        np.testing.assert_array_equal(own[-1], exact, err_msg=stage.name)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("sizes=48 least=16", "goes with edges=halve"),
        ("sizes=48 edges=peel least=16", "goes with edges=halve"),
        ("sizes=48 edges=halve least=12", "a power of two of 32 at most"),
        ("sizes=48 edges=halve least=64", "a power of two of 32 at most"),
        ("sizes=32 edges=halve least=32", "a power of two of 16 at most"),
        ("sizes=48 edges=halve least=0", "a power of two of 32 at most"),
    ],
)
def test_what_halving_cannot_come_down_to(words: str, hint: str) -> None:
    with pytest.raises(ScheduleError, match=f"GEM1361.*{hint}"):
        columns(Gemm(m=4, n=100, k=3), f"tile{{loops=n {words}}}")
