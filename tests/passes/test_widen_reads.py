"""widen-reads: elements of A that are read together and taken apart in registers."""

from __future__ import annotations

import re
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given
from xdsl.dialects import vector
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import ColumnOp, OuterProductOp
from gemmir.ir.nvgpu import matrix_shape
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

C = "promote{operand=c to=registers}"
VECTORS = f"{C},vectorize{{with=fma width=4}}"
UNROLLED = f"{VECTORS},unroll{{loop=k factor=4}}"


def shapes(module: ModuleOp) -> list[tuple[int, int]]:
    """What is read of A for products, in order."""
    reads = [op for op in module.walk() if isinstance(op, vector.TransferReadOp)]
    products = [op for op in module.walk() if isinstance(op, OuterProductOp)]
    rows = {id(op.rhs.owner) for op in products}
    return [matrix_shape(op.result) for op in reads if id(op) not in rows]


def test_the_last_rows_become_a_block(after: After) -> None:
    module = after(Gemm(m=6, n=4, k=4), f"{UNROLLED},widen-reads{{rows=2}}")
    assert shapes(module) == [(2, 4), *[(4, 1)] * 4]
    columns = [op for op in module.walk() if isinstance(op, ColumnOp)]
    assert [op.at.value.data for op in columns] == [0, 1, 2, 3]


def test_steps_that_are_left_over_stay(after: After) -> None:
    module = after(Gemm(m=6, n=4, k=6), f"{UNROLLED},widen-reads{{rows=2}}")
    assert shapes(module) == [(2, 4), *[(4, 1)] * 4, (6, 1)]


def test_an_iteration_may_have_several_blocks(after: After) -> None:
    schedule = f"{VECTORS},unroll{{loop=k factor=7}},widen-reads{{rows=1 width=2}}"
    module = after(Gemm(m=3, n=8, k=7), schedule)
    assert shapes(module) == [*[(1, 2), (2, 1), (2, 1)] * 3, (3, 1)]


def test_small_tiles_stay(after: After) -> None:
    """Of the last rows there are no more than are read together."""
    schedule = f"tile{{loops=m sizes=4 edges=peel}},{UNROLLED},widen-reads{{rows=2}}"
    found = shapes(after(Gemm(m=6, n=4, k=4), schedule))
    assert found == [(2, 4), *[(2, 1)] * 4, *[(2, 1)] * 4]


@pytest.mark.parametrize(
    ("gemm", "schedule"),
    [
        (Gemm(m=7, n=9, k=11, beta=2, alpha=3, lda=16), UNROLLED),
        (Gemm(m=7, n=9, k=11, batch=2), f"tile{{loops=batch sizes=1}},{UNROLLED}"),
        (
            Gemm(m=9, n=9, k=9, dtype="f64"),
            f"tile{{loops=m,n sizes=5,4 edges=overlap}},{UNROLLED}",
        ),
        (
            Gemm(m=8, n=5, k=20, epilogue="bias+relu"),
            f"tile{{loops=k sizes=8}},{C},fuse-epilogue,vectorize{{with=fma width=4}},"
            "unroll{loop=k factor=8}",
        ),
    ],
    ids=str,
)
def test_the_meaning_stays(after: After, gemm: Gemm, schedule: str) -> None:
    assert any(
        columns == 4 for _, columns in shapes(after(gemm, f"{schedule},widen-reads{{rows=2}}"))
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    gemm = Gemm(
        m=draw(st.integers(2, 18)),
        n=draw(st.integers(1, 20)),
        k=draw(st.integers(8, 30)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        beta=draw(st.sampled_from([0.0, 1.0])),
        trans_b=draw(st.booleans()),
    )
    width = draw(st.sampled_from([2, 4, 8]))
    rows = draw(st.integers(2, gemm.m))
    promote = "promote{operand=b to=l2 layout=panel:8}," if gemm.trans_b else ""
    steps = draw(st.integers(width, 8 if width == 8 else 2 * width))
    edges = draw(st.sampled_from([" edges=peel", ""]))
    return gemm, (
        f"{promote}tile{{loops=m sizes={rows}{edges}}},tile{{loops=n sizes=8}},{C},"
        f"vectorize{{with=fma width=4}},unroll{{loop=k factor={steps}}},"
        f"widen-reads{{rows={draw(st.integers(1, rows - 1))} width={width}}}"
    )


@given(problems())
@examples(0.3)
def test_any_product_is_right_in_every_stage_and_as_code(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    try:
        found = check(gemm, target="cpu:x86-64-v3", schedule=schedule, shrink=False)
    except ScheduleError as error:
        assert error.code in ("GEM0312", "GEM1301"), "too many rows, or none of k whole"
        return
    found.require_ok()


def test_a_core_reads_a_vector_and_shuffles() -> None:
    """LLVM would read each element from memory after all, if it could see where it comes from."""
    schedule = (
        "tile{loops=m,n sizes=16,16},promote{operand=c to=registers},"
        "vectorize{with=fma width=16},unroll{loop=k factor=16},widen-reads{rows=3}"
    )
    lowered = gemmir.lower(Gemm(m=16, n=16, k=16), target="cpu:znver4", schedule=schedule)
    code = assembly(lowered.artifact)
    loads = len(re.findall(r"\(%r\w+[^)]*\)(\{1to16\}|, %zmm\d+$)", code, re.M))
    assert loads == (13 + 1) * 16, "elements of 13 rows of A, and rows of B"
    assert len(re.findall(r"vmovups\s+[^,]*\(%r\w+[^)]*\), %xmm", code)) == 3 * 4
    assert len(re.findall(r"vbroadcastss\s+%xmm", code)) == 3 * 16


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{UNROLLED},widen-reads{{rows=0}}", "GEM1300", "use rows=1 or more"),
        (f"{UNROLLED},widen-reads{{rows=1 width=3}}", "GEM1300", "width=2, 4, 8"),
        (f"{UNROLLED},widen-reads{{rows=6}}", "GEM1300", "use rows=5"),
        (f"{VECTORS},widen-reads{{rows=2}}", "GEM1301", "unroll{loop=k factor=4}"),
        (f"{UNROLLED},widen-reads{{rows=2 width=8}}", "GEM1301", "reads 8 neighbouring"),
        (
            f"promote{{operand=a to=l2 layout=panel:3}},tile{{loops=m sizes=3}},{UNROLLED},"
            "widen-reads{rows=2}",
            "GEM1301",
            "adjacent along k",
        ),
        (f"{UNROLLED},widen-reads{{rows=2}},widen-reads{{rows=2}}", "GEM1301", "no loop reads"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=re.escape(words)) as found:
        after(Gemm(m=6, n=4, k=4), schedule)
    assert found.value.code == code


def test_columns_of_a_are_no_neighbours(after: After) -> None:
    with pytest.raises(ScheduleError, match="adjacent along k") as found:
        after(Gemm(m=6, n=4, k=4, trans_a=True), f"{UNROLLED},widen-reads{{rows=2}}")
    assert found.value.code == "GEM1301"
