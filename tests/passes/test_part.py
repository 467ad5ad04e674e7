"""part: rows or columns of C that have passes of their own, both computed."""

from __future__ import annotations

import re
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.check import check
from gemmir.errors import CallError, ScheduleError
from gemmir.ir.build import build
from gemmir.ir.dialect import GemmOp
from gemmir.ir.views import extents
from gemmir.lowering import run_passes
from gemmir.machine import machine_for
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_schedule
from gemmir.sizes import ANY
from tests.strategies import epilogues, examples

After = Callable[[Gemm, str], ModuleOp]

C = "promote{operand=c to=registers}"
VECTORS = f"tile{{loops=m,n sizes=3,8 edges=peel}},{C},vectorize{{with=fma width=4}}"
LANES = (
    f"promote{{operand=b to=l1 layout=panel:1}},tile{{loops=m sizes=2}},{C},"
    "vectorize{with=fma width=4 along=k}"
)


def products(module: ModuleOp) -> dict[str, tuple[int, ...]]:
    """Rows and columns of the product in each function."""
    return {
        function.sym_name.data: tuple(int(str(e)) for e in extents(op.c))
        for function in module.ops
        if isinstance(function, func.FuncOp)
        for op in function.walk()
        if isinstance(op, GemmOp)
    }


@pytest.mark.parametrize(
    ("loop", "at", "sizes"), [("n", 16, [(7, 16), (7, 3)]), ("m", 2, [(2, 19), (5, 19)])]
)
def test_both_parts_are_products_of_their_own(
    after: After, loop: str, at: int, sizes: list[tuple[int, int]]
) -> None:
    gemm = Gemm(m=7, n=19, k=5, alpha=2, beta=3, epilogue="bias+residual", lda=8, ldb=21, ldc=20)
    found = products(after(gemm, f"part{{loop={loop} at={at}}}"))
    assert found == {f"gemm.{loop}{at}": sizes[0], f"gemm.{loop}{at}.rest": sizes[1]}


@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True)])
def test_each_part_has_passes_of_its_own(after: After, trans: tuple[bool, bool]) -> None:
    gemm = Gemm(m=7, n=19, k=13, trans_a=trans[0], trans_b=trans[1], epilogue="bias+relu")
    first = VECTORS.replace("vectorize", "fuse-epilogue,vectorize")
    first = f"promote{{operand=b to=l2 layout=panel:8}},{first}" if gemm.trans_b else first
    rest = VECTORS if gemm.trans_a else LANES
    after(gemm, f"part{{loop=n at=16}},{first},otherwise,{rest}")


def test_a_part_may_be_cut_again(after: After) -> None:
    schedule = f"part{{loop=n at=16}},part{{loop=m at=6}},{VECTORS},otherwise,{VECTORS},otherwise"
    after(Gemm(m=8, n=19, k=13), f"{schedule},{LANES}")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    loop = draw(st.sampled_from(["m", "n"]))
    m, n = draw(st.integers(2, 14)), draw(st.integers(2, 40))
    gemm = Gemm(
        m=m,
        n=n,
        k=draw(st.integers(1, 40)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        beta=draw(st.sampled_from([0.0, 1.0, 0.5])),
        ldb=n + draw(st.integers(0, 2)),
        epilogue=draw(epilogues()),
    )
    fuse = "fuse-epilogue," if gemm.epilogue and draw(st.booleans()) else ""
    expand = ",expand-math" if {"gelu", "silu"} & set(gemm.steps) else ""
    first, rest = (s.replace("vectorize", f"{fuse}vectorize") + expand for s in (VECTORS, LANES))
    at = draw(st.integers(1, (m if loop == "m" else n) - 1))
    return gemm, f"part{{loop={loop} at={at}}},{first},otherwise,{rest}"


@given(problems())
@examples(0.3)
def test_any_product_is_right_in_every_stage_and_as_code(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    try:
        found = check(gemm, target="cpu:x86-64-v3", schedule=schedule, shrink=False)
    except ScheduleError as error:
        assert error.code in ("GEM0312", "GEM0313"), "many last columns"
        return
    found.require_ok()


def test_default_schedules_compute_few_last_columns_along_k() -> None:
    for target in ("cpu:znver3", "cpu:znver5", "cpu:x86-64-v3"):
        steps = gemmir.lower(Gemm(m=100, n=100, k=100), target=target).schedule.steps
        assert steps[0] == "part{loop=n at=96}"
        assert "along=k" in steps[-1]
    for gemm in (
        Gemm(m=100, n=96, k=100),
        Gemm(m=100, n=111, k=100),
        Gemm(m=100, n=100, k=10),
        Gemm(m=100, n=100, k=100, batch=2),
        Gemm(m=100, n=4, k=100),
        Gemm(m=ANY, n=100, k=100),
    ):
        assert "part{" not in str(gemmir.lower(gemm, target="cpu:znver5").schedule), gemm
    several = gemmir.lower(Gemm(m=100, n=100, k=100), target="cpu:znver5", threads=2).schedule
    assert "part{" not in str(several)


@pytest.mark.parametrize(
    ("gemm", "target", "is_cut"),
    [
        (Gemm(m=9, n=9, k=9, dtype="f64"), "cpu:znver5", False),
        (Gemm(m=17, n=33, k=9), "cpu:znver5", False),
        (Gemm(m=9, n=9, k=33, dtype="f64"), "cpu:znver5", True),
        (Gemm(m=24, n=18, k=24), "cpu:znver5", True),
        (Gemm(m=5, n=100, k=100), "cpu:znver5", False),
        (Gemm(m=9, n=9, k=9), "cpu:znver3", False),
        (Gemm(m=17, n=17, k=17), "cpu:znver3", True),
    ],
    ids=str,
)
def test_small_products_do_not_pay_for_a_second_function(
    gemm: Gemm, target: str, is_cut: bool
) -> None:
    assert ("part{" in str(default_schedule(gemm, machine_for(target)))) == is_cut


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (Gemm(m=6, n=9, k=4), "part{loop=n at=9}", "GEM1303", "use at=1 to 8"),
        (Gemm(m=6, n=9, k=4), "part{loop=n at=0}", "GEM1303", "use at=1 to 8"),
        (Gemm(m=6, n=9, k=4), "part{loop=k at=2}", "GEM1303", "use m or n"),
        (Gemm(m=6, n=1, k=4), "part{loop=n at=1}", "GEM1303", "leave part out"),
        (Gemm(m=ANY, n=9, k=4), "part{loop=m at=1}", "GEM1303", "known in a call only"),
        (Gemm(m=6, n=9, k=4, batch=2), "part{loop=n at=4}", "GEM1302", "is a batch"),
        (Gemm(m=6, n=9, k=4), "tile{loops=m sizes=3},part{loop=n at=4}", "GEM1302", "first pass"),
    ],
)
def test_errors(gemm: Gemm, schedule: str, code: str, words: str) -> None:
    module = build(gemm)
    with pytest.raises(ScheduleError, match=re.escape(words)) as found:
        run_passes(module, Schedule.parse(schedule))
    assert found.value.code == code


def test_a_gpu_has_one_kernel_for_all_of_c() -> None:
    with pytest.raises(ScheduleError, match="one kernel") as found:
        gemmir.lower(Gemm(m=64, n=80, k=32), "cuda:sm_80", "part{loop=n at=64}")
    assert found.value.code == "GEM1304"


def test_b_of_a_schedule_with_parts_is_not_packed_before_the_calls() -> None:
    schedule = f"part{{loop=n at=16}},{VECTORS},otherwise,{LANES}"
    kernel = gemmir.compile(Gemm(m=7, n=19, k=13), schedule=schedule)
    with pytest.raises(CallError, match="leave part out") as found:
        kernel.prepack(np.zeros((13, 19), np.float32))
    assert found.value.code == "GEM1347"
