"""peel: sums that begin with the products of the first iteration."""

from __future__ import annotations

import re
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import OuterProductOp
from gemmir.ir.index import constant_of
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

C = "promote{operand=c to=registers}"
VECTORS = f"{C},vectorize{{with=fma width=4}}"
PEEL = "peel{loop=k}"


def bounds(module: ModuleOp) -> list[tuple[int | None, ...]]:
    """First, last and step of every loop, in order."""
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp)]
    return [tuple(map(constant_of, (op.lb, op.ub, op.step))) for op in loops]


def products(module: ModuleOp) -> int:
    return sum(isinstance(op, OuterProductOp) for op in module.walk())


def test_the_loop_goes_on_with_the_second_iteration(after: After) -> None:
    module = after(Gemm(m=4, n=4, k=12), f"{VECTORS},unroll{{loop=k factor=4}},{PEEL}")
    assert bounds(module) == [(4, 12, 4)]
    assert products(module) == 8


def test_a_loop_of_one_iteration_is_left_out(after: After) -> None:
    module = after(Gemm(m=4, n=4, k=4), f"{VECTORS},unroll{{loop=k factor=4}},{PEEL}")
    assert bounds(module) == []
    assert products(module) == 4


def test_what_is_left_over_goes_on_with_a_sum(after: After) -> None:
    module = after(Gemm(m=4, n=4, k=6), f"{VECTORS},unroll{{loop=k factor=4}},{PEEL}")
    assert bounds(module) == [(4, 6, 1)]


def test_every_tile_begins_so(after: After) -> None:
    """The one at the edge has a loop of its own."""
    module = after(Gemm(m=6, n=4, k=3), f"tile{{loops=m sizes=4 edges=peel}},{VECTORS},{PEEL}")
    assert [b for b in bounds(module) if b[1] == 3] == [(1, 3, 1), (1, 3, 1)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    gemm = Gemm(
        m=draw(st.integers(1, 12)),
        n=draw(st.integers(1, 20)),
        k=draw(st.integers(1, 20)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(st.sampled_from([1.0, 2.0])),
        beta=draw(st.sampled_from([0.0, 1.0])),
        batch=draw(st.sampled_from([None, 2])),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    steps = draw(st.integers(1, min(gemm.k, 5)))
    unroll = f",unroll{{loop=k factor={steps}}}" if steps > 1 else ""
    edges = draw(st.sampled_from([" edges=peel", ""]))
    batch = "" if gemm.batch is None else "tile{loops=batch sizes=1},"
    fuse = ",fuse-epilogue" if gemm.epilogue else ""
    return gemm, (
        f"{batch}tile{{loops=m,n sizes=3,8{edges}}},{C}{fuse},vectorize{{with=fma width=4}}"
        f"{unroll},{PEEL}"
    )


@given(problems())
@examples(0.3)
def test_any_product_is_right_in_every_stage_and_as_code(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    check(gemm, target="cpu:x86-64-v3", schedule=schedule, shrink=False).require_ok()


def test_the_bits_are_those_of_sums_that_begin_at_zero() -> None:
    """In every element that is not zero: each is rounded as before, in the same order."""
    gemm, rng = Gemm(m=5, n=8, k=9), np.random.default_rng(0)
    a = rng.standard_normal((5, 9)).astype(np.float32)
    b = rng.standard_normal((9, 8)).astype(np.float32)
    plain, peeled = (
        gemmir.compile(gemm, target="cpu:x86-64-v3", schedule=f"{VECTORS}{end}")(a, b)
        for end in ("", f",{PEEL}")
    )
    assert plain.tobytes() == peeled.tobytes()


def test_a_sum_of_negative_zeros_is_one() -> None:
    """As the IR says, and so in the evaluator and in code."""
    gemm = Gemm(m=1, n=4, k=2)
    a, b = np.full((1, 2), -1, np.float32), np.zeros((2, 4), np.float32)
    kernel = gemmir.compile(gemm, target="cpu:x86-64-v3", schedule=f"{VECTORS},{PEEL}")
    assert np.signbit(kernel(a, b)).all()


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_core_multiplies_in_the_first_step(dtype: str) -> None:
    lanes = 16 if dtype == "f32" else 8
    schedule = f"{C},vectorize{{with=fma width={lanes}}},{PEEL}"
    lowered = gemmir.lower(Gemm(m=6, n=lanes, k=9, dtype=dtype), "cpu:znver4", schedule)
    code = assembly(lowered.artifact)
    suffix = "ps" if dtype == "f32" else "pd"
    assert len(re.findall(rf"\tvmul{suffix}\t", code)) == 6
    assert len(re.findall(rf"\tvfmadd\d+{suffix}\t", code)) == 6, "one step of the loop"
    assert "vxorps" not in code, "no register of a sum is cleared"


@pytest.mark.parametrize(
    ("gemm", "schedule"),
    [
        (Gemm(m=4, n=4, k=8), f"{VECTORS},peel{{loop=m}}"),
        (Gemm(m=4, n=4, k=8), f"{VECTORS},{PEEL},{PEEL}"),
        (
            Gemm(m=4, n=8, k=8, trans_b=True),
            f"{C},vectorize{{with=fma width=4 along=k}},{PEEL}",
        ),
    ],
    ids=["no such loop", "twice", "lanes along k"],
)
def test_errors(after: After, gemm: Gemm, schedule: str) -> None:
    with pytest.raises(ScheduleError, match="begins sums of floats at zero") as found:
        after(gemm, schedule)
    assert found.value.code == "GEM1305"


def test_a_k_of_a_call_may_be_none() -> None:
    with pytest.raises(ScheduleError, match="begins sums of floats at zero"):
        gemmir.lower(Gemm(m=4, n=4, k=gemmir.ANY), "cpu:x86-64-v3", f"{VECTORS},{PEEL}")
