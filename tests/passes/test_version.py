"""version: small or special sizes have a function of their own, with passes of its own."""

from __future__ import annotations

from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

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

Array = npt.NDArray[Any]

ANY_ROWS = Gemm(m=ANY, n=8, k=5)
ANY_SIZE = Gemm(m=ANY, n=ANY, k=ANY, lda=ANY, ldb=ANY, ldc=ANY, alpha=ANY, beta=ANY)

DIRECT = (
    "tile{loops=n sizes=8 edges=peel},tile{loops=m sizes=6 edges=halve},"
    "promote{operand=c to=registers},vectorize{with=fma width=4},unroll{loop=k factor=2}"
)
PACKED = (
    "tile{loops=m,k sizes=8,4},promote{operand=a to=l3 layout=panel:4},tile{loops=n sizes=16},"
    "promote{operand=b to=l2 layout=panel:8},tile{loops=m,n sizes=4,8},"
    "promote{operand=c to=registers prefetch=true},vectorize{with=fma width=4}"
)
SEVERAL = (
    f"version{{loops=m,n,k most=6,9,4}},{DIRECT},otherwise,version{{loops=n sizes=3}},{DIRECT},"
    f"otherwise,{PACKED}"
)


def functions(module: ModuleOp) -> dict[str, func.FuncOp]:
    return {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}


def after(gemm: Gemm, schedule: str) -> ModuleOp:
    module = build(gemm)
    run_passes(module, Schedule.parse(schedule))
    return module


def whole_numbers(gemm: Gemm, sizes: dict[str, int], beta: float) -> dict[str, Array]:
    """Arrays of whole numbers from -3 to 3 for these sizes: sums of their products are exact."""
    leads = {name: sizes["m" if name == "lda" and gemm.trans_a else "k"] for name in ["lda"]}
    leads |= {"ldb": sizes["k" if gemm.trans_b else "n"], "ldc": sizes["n"]}
    unknown = {name: sizes.get(name, leads.get(name, 0) + 2) for name in gemm.unknown}
    arrays = arrays_for(gemm.at(**unknown))
    generator = np.random.default_rng(1)
    for array in arrays.values():
        array[...] = generator.integers(-3, 4, array.shape)
    if "beta" in arrays:
        arrays["beta"][...] = beta
    if beta == 0:
        arrays["c"][...] = np.nan
    return arrays


@cache
def stages(gemm: Gemm) -> list[tuple[str, ModuleOp]]:
    """Every stage of `gemm` by `SEVERAL`, parsed from its text."""
    found = run_stages(build(gemm), Schedule.parse(SEVERAL))
    return [(stage.name, parse_module(stage.text)) for stage in found]


def test_the_public_function_decides_and_one_other_waits() -> None:
    found = functions(after(ANY_ROWS, "version{loops=m most=8}"))
    assert list(found) == ["gemm", "gemm.m8", "gemm.more"]
    turns = [str(f.attributes.get("gemmir.turn")) for f in found.values()]
    assert turns == ['"done"', "None", '"waiting"']
    assert not any(isinstance(op, GemmOp) for op in found["gemm"].walk())


def test_passes_work_on_the_version_alone() -> None:
    found = functions(after(ANY_ROWS, f"version{{loops=m most=8}},{DIRECT}"))
    left = [name for name, f in found.items() if any(isinstance(o, GemmOp) for o in f.walk())]
    assert left == ["gemm.more"]


def test_an_exact_size_is_static() -> None:
    found = functions(after(ANY_ROWS, "version{loops=m sizes=3}"))
    (gemm,) = [op for op in found["gemm.m3"].walk() if isinstance(op, GemmOp)]
    assert memref_type(gemm.a).get_shape() == (3, 5)
    assert memref_type(gemm.c).get_shape() == (3, 8)


@given(
    m=st.integers(0, 9),
    n=st.integers(0, 17),
    k=st.integers(0, 6),
    beta=st.sampled_from([0.0, 1.0, -2.0]),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
)
@example(m=6, n=9, k=4, beta=0.0, trans_a=False, trans_b=False)
@example(m=7, n=3, k=4, beta=0.0, trans_a=False, trans_b=True)
@example(m=13, n=17, k=9, beta=-2.0, trans_a=True, trans_b=False)
@examples(0.1)
def test_every_stage_means_the_same_for_all_sizes(
    m: int, n: int, k: int, beta: float, trans_a: bool, trans_b: bool
) -> None:
    gemm = Gemm(
        m=ANY,
        n=ANY,
        k=ANY,
        lda=ANY,
        ldb=ANY,
        ldc=ANY,
        alpha=ANY,
        beta=ANY,
        trans_a=trans_a,
        trans_b=trans_b,
    )
    arrays = whole_numbers(gemm, {"m": m, "n": n, "k": k}, beta)
    exact = gemm.reference(arrays)
    for name, module in stages(gemm):
        own = [array.copy() if key == "c" else array for key, array in arrays.items()]
        evaluate(module, own)
        np.testing.assert_array_equal(own[-1], exact, err_msg=name)


@pytest.mark.parametrize(
    ("gemm", "schedule", "words"),
    [
        (Gemm(m=4, n=8, k=5), "version{loops=m most=8}", "leave version out"),
        (ANY_ROWS, "version{loops=n most=8}", "name each of m at most once"),
        (ANY_ROWS, "version{loops=m}", "neither most nor sizes"),
        (ANY_ROWS, "version{loops=m most=8 sizes=8}", "most and sizes"),
        (ANY_ROWS, "version{loops=m most=0}", "a number of 1 or more"),
        (ANY_SIZE, "version{loops=m,n most=8}", "a number of 1 or more"),
        (ANY_SIZE, "version{loops=m,m most=8,8}", "name each of m, n, k at most once"),
        (ANY_ROWS, "tile{loops=m sizes=4},version{loops=m most=8}", "make it the first pass"),
    ],
)
def test_errors(gemm: Gemm, schedule: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == "GEM1352"


@pytest.mark.parametrize("m", [3, 8, 9, 12, 13, 20])
def test_an_exact_version_of_what_an_earlier_one_has_left(m: int) -> None:
    schedule = (
        f"version{{loops=m most=8}},{DIRECT},otherwise,version{{loops=m sizes=12}},{DIRECT},"
        f"otherwise,{DIRECT}"
    )
    arrays = whole_numbers(ANY_ROWS, {"m": m, "n": 8, "k": 5}, 0.0)
    evaluate(after(ANY_ROWS, schedule), list(arrays.values()))
    assert np.array_equal(arrays["c"], arrays["a"] @ arrays["b"])
