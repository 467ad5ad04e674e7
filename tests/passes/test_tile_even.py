"""tile{edges=even} of an extent that is known at run time: as few tiles as can be, of two sizes."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.arguments import size_arguments
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import GemmOp, enclosing_ops, memref_type
from gemmir.ir.index import enclosing_function
from gemmir.lowering import run_passes, run_stages
from gemmir.schedule import Schedule
from gemmir.sizes import ANY
from tests.index_values import index_value
from tests.strategies import arrays_for, examples

SCHEDULE = (
    "tile{loops=n sizes=4 edges=even},tile{loops=m sizes=5 edges=even},"
    "promote{operand=c to=registers},vectorize{with=fma width=4},unroll{loop=k factor=2}"
)


def cut(gemm: Gemm, size: int) -> ModuleOp:
    """Rows of `gemm` in even tiles of at most so many."""
    module = build(gemm)
    run_passes(module, Schedule.parse(f"tile{{loops=m sizes={size} edges=even}}"))
    return module


def tiles(module: ModuleOp, m: int) -> list[int]:
    """Rows of each tile in the order in which they are computed, where there are m."""
    found: list[int] = []
    for gemm in (op for op in module.walk() if isinstance(op, GemmOp)):
        loop = next(op for op in enclosing_ops(gemm) if isinstance(op, scf.ForOp))
        given_sizes = {size_arguments(enclosing_function(gemm))["m"]: m}
        lb, ub, step = (index_value(v, given_sizes) for v in (loop.lb, loop.ub, loop.step))
        assert lb == sum(found)
        assert memref_type(gemm.c).get_shape()[0] == step
        found += [step] * len(range(lb, ub, step))
    return found


@given(m=st.integers(0, 60), size=st.integers(1, 9))
@example(m=13, size=6)
@example(m=0, size=3)
def test_tiles_are_those_of_a_number_that_is_known(m: int, size: int) -> None:
    found = tiles(cut(Gemm(m=ANY, n=4, k=3), size), m)
    count = -(-m // size)
    assert (sum(found), len(found)) == (m, count)
    assert found == sorted(found, reverse=True)
    assert not found or found[0] - found[-1] <= 1


def test_there_is_a_loop_for_each_size() -> None:
    module = cut(Gemm(m=ANY, n=4, k=3), 6)
    shapes = [memref_type(op.c).get_shape()[0] for op in module.walk() if isinstance(op, GemmOp)]
    assert shapes == [6, 5, 4, 3, 2, 1]


@given(m=st.integers(1, 12), n=st.integers(1, 12), k=st.integers(1, 5))
@example(m=9, n=7, k=3)
@examples(0.1)
def test_every_stage_means_the_same(m: int, n: int, k: int) -> None:
    static = Gemm(m=m, n=n, k=k, beta=-2.0)
    arrays = arrays_for(static)
    generator = np.random.default_rng(m * n * k)
    for array in arrays.values():
        array[...] = generator.integers(-3, 4, array.shape)
    expected = static.reference(arrays)
    for stage in run_stages(build(Gemm(m=ANY, n=ANY, k=ANY, beta=-2.0)), Schedule.parse(SCHEDULE)):
        own = [array.copy() if name == "c" else array for name, array in arrays.items()]
        evaluate(parse_module(stage.text), own)
        np.testing.assert_array_equal(own[-1], expected, err_msg=stage.name)


@pytest.mark.parametrize("clipped", ["", "tile{loops=m sizes=7},"])
def test_one_kernel_takes_any_number_of_rows(clipped: str) -> None:
    schedule = clipped + SCHEDULE.replace("loops=n sizes=4 edges=even", "loops=n sizes=8")
    kernel = gemmir.compile(Gemm(m=ANY, n=8, k=6), target="cpu:x86-64-v3", schedule=schedule)
    rng = np.random.default_rng(0)
    b = rng.integers(-3, 4, (6, 8)).astype(np.float32)
    for m in range(1, 16):
        a = rng.integers(-3, 4, (m, 6)).astype(np.float32)
        np.testing.assert_array_equal(kernel(a, b), a @ b)
