"""tile{edges=exact}: what remains is one tile, whose size is known where its loop runs."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

import gemmir
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
    "tile{loops=n sizes=4 edges=exact},tile{loops=m sizes=5 edges=exact},"
    "promote{operand=c to=registers},vectorize{with=fma width=4},unroll{loop=k factor=2}"
)


def rows(gemm: Gemm, schedule: str) -> list[int]:
    """Rows of C of every product, in order."""
    module = build(gemm)
    run_passes(module, Schedule.parse(schedule))
    return [memref_type(op.c).get_shape()[0] for op in module.walk() if isinstance(op, GemmOp)]


def test_there_is_a_loop_for_each_size_that_may_remain() -> None:
    cut = "tile{loops=m sizes=6 edges=exact}"
    assert rows(Gemm(m=ANY, n=4, k=3), cut) == [6, 5, 4, 3, 2, 1]
    assert rows(Gemm(m=17, n=4, k=3), cut) == [6, 5]
    assert rows(Gemm(m=18, n=4, k=3), cut) == [6]
    assert rows(Gemm(m=4, n=4, k=3), cut) == [4]


@given(m=st.integers(1, 12), n=st.integers(1, 12), k=st.integers(1, 5), known=st.booleans())
@example(m=9, n=7, k=3, known=False)
@examples(0.1)
def test_every_stage_means_the_same(m: int, n: int, k: int, known: bool) -> None:
    static = Gemm(m=m, n=n, k=k, beta=-2.0)
    gemm = static if known else Gemm(m=ANY, n=ANY, k=ANY, beta=-2.0)
    arrays = arrays_for(static)
    generator = np.random.default_rng(m * n * k)
    for array in arrays.values():
        array[...] = generator.integers(-3, 4, array.shape)
    expected = static.reference(arrays)
    for stage in run_stages(build(gemm), Schedule.parse(SCHEDULE)):
        own = [array.copy() if name == "c" else array for name, array in arrays.items()]
        evaluate(parse_module(stage.text), own)
        np.testing.assert_array_equal(own[-1], expected, err_msg=stage.name)


def test_one_kernel_takes_any_number_of_rows() -> None:
    schedule = SCHEDULE.replace("loops=n sizes=4 edges=exact", "loops=n sizes=8")
    kernel = gemmir.compile(Gemm(m=ANY, n=8, k=6), target="cpu:x86-64-v3", schedule=schedule)
    rng = np.random.default_rng(0)
    b = rng.integers(-3, 4, (6, 8)).astype(np.float32)
    for m in range(1, 12):
        a = rng.integers(-3, 4, (m, 6)).astype(np.float32)
        np.testing.assert_array_equal(kernel(a, b), a @ b)


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        ("tile{loops=k sizes=2 edges=exact}", "GEM0327", "cannot exact"),
        (
            "promote{operand=a to=l3 layout=panel:4},tile{loops=m sizes=4 edges=exact}",
            "GEM1354",
            "tiles are whole panels",
        ),
        ("tile{loops=m sizes=4 edges=exact least=2}", "GEM1361", "goes with edges=halve"),
    ],
)
def test_errors(schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        run_passes(build(Gemm(m=7, n=9, k=5)), Schedule.parse(schedule))
    assert found.value.code == code
