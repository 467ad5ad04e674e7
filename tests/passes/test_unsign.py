"""unsign: i8 by i8 as ui8 by i8, less 128 sums of the columns of B."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import ColumnSumOp, PackOp, memref_type
from gemmir.ir.loops import gemms
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

A, B = "promote{operand=a to=l3 layout=panel:3x4}", "promote{operand=b to=l2 layout=panel:8x4}"
C = "promote{operand=c to=registers}"
TILES = "tile{loops=m,n sizes=3,8}"
DOT = "vectorize{with=dot width=8}"


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=6, n=16, k=8, dtype="i8"),
        Gemm(m=7, n=18, k=11, dtype="i8", alpha=2, beta=3, epilogue="bias+relu"),
        Gemm(m=7, n=18, k=11, dtype="i8", beta=1, trans_a=True, trans_b=True),
        Gemm(m=5, n=9, k=6, dtype="i8", batch=2, batch_stride_b=0),
        Gemm(m=1, n=1, k=1, dtype="i8"),
    ],
    ids=str,
)
def test_the_meaning_stays(after: After, gemm: Gemm) -> None:
    batch = "tile{loops=batch sizes=1}," if gemm.batch else ""
    fuse = "fuse-epilogue," if gemm.steps else ""
    for outer in ("tile{loops=m,k sizes=5,8},", "tile{loops=k,n sizes=4,16},"):
        after(gemm, f"{batch}{outer}{A},{B},{TILES},{C},{fuse}unsign,{DOT}")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Products of i8 and their panels, slices of k in C or in registers."""
    gemm = Gemm(
        m=draw(st.integers(1, 20)),
        n=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 30)),
        dtype="i8",
        beta=draw(st.sampled_from([0.0, 1.0, 3.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    width = draw(st.sampled_from([4, 8, 16]))
    rows, columns = draw(st.integers(1, 4)), width * draw(st.integers(1, 2))
    steps = [f"tile{{loops=k sizes={4 * draw(st.integers(1, 5))}}}"] if draw(st.booleans()) else []
    steps += [f"tile{{loops=n sizes={columns * 2}}}"] if draw(st.booleans()) else []
    steps += [
        f"promote{{operand=b to=l2 layout=panel:{columns}x4}}",
        f"promote{{operand=a to=l2 layout=panel:{rows}x4}}",
        f"tile{{loops=m,n sizes={rows},{columns}}}",
        C,
        *(["fuse-epilogue"] if gemm.epilogue and draw(st.booleans()) else []),
        "unsign",
        f"vectorize{{with=dot width={width}}}",
    ]
    return gemm, ",".join(steps)


@given(problems())
@examples(0.3)
def test_every_schedule_is_right(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    check(gemm, schedule=schedule, target="cpu:znver4", shrink=False).require_ok()


ROWS, COLUMNS = "promote{operand=a to=l2 layout=panel:1}", "promote{operand=b to=l2 layout=panel:1}"


@st.composite
def rows(draw: st.DrawFn) -> tuple[Gemm, str]:
    """Products of i8 with lanes along k, of rows of A that are copied, in slices of k or not."""
    gemm = Gemm(
        m=draw(st.integers(1, 9)),
        n=draw(st.integers(1, 9)),
        k=draw(st.integers(1, 300)),
        dtype="i8",
        beta=draw(st.sampled_from([0.0, 1.0, 3.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(st.sampled_from(["", "bias+relu"])),
    )
    slices = f"tile{{loops=k sizes={draw(st.integers(1, 150))}}}"
    before, behind = draw(st.booleans()), draw(st.booleans())
    steps = [
        *([slices] if before else []),
        *(["tile{loops=m sizes=4}"] if draw(st.booleans()) else []),
        ROWS,
        *([] if gemm.trans_b else [COLUMNS]),
        f"tile{{loops=n,m sizes={draw(st.integers(1, 3))},{draw(st.integers(1, 3))}}}",
        C,
        *([slices] if behind and not before else []),
        *(["fuse-epilogue"] if gemm.epilogue and draw(st.booleans()) else []),
        "unsign",
        f"vectorize{{with=dot width={draw(st.sampled_from([4, 8, 16]))} along=k}}",
    ]
    return gemm, ",".join(steps)


@given(rows())
@examples(0.3)
def test_rows_are_right(drawn: tuple[Gemm, str]) -> None:
    gemm, schedule = drawn
    check(gemm, schedule=schedule, target="cpu:znver4", shrink=False).require_ok()


@pytest.mark.parametrize("first", [-128, 127])
@pytest.mark.parametrize("second", [-128, 127])
def test_the_largest_numbers_of_rows_are_exact(first: int, second: int) -> None:
    gemm = Gemm(m=5, n=12, k=260, dtype="i8", trans_b=True)
    lowered = gemmir.lower(gemm, target="cpu:znver4")
    assert {"unsign", "vectorize{with=dot width=16 along=k}"} <= set(lowered.schedule.steps)
    a, b = np.full((5, 260), first, np.int8), np.full((12, 260), second, np.int8)
    found = np.zeros((5, 12), np.int32)
    evaluate(parse_module(list(lowered.stages.values())[-1].text), [a, b, found])
    assert (found == 260 * first * second).all()
    np.testing.assert_array_equal(gemmir.compile(gemm)(a, b), found)


def test_b_has_no_sign_in_registers_and_nothing_is_subtracted_in_the_loop() -> None:
    gemm = Gemm(m=4, n=40, k=256, dtype="i8", trans_b=True)
    lowered = gemmir.lower(gemm, target="cpu:znver4")
    words = [line.split()[0] for line in assembly(lowered.artifact).splitlines() if line.split()]
    assert words.count("vpdpbusd") == 4 * 5 + 1, "the products of a tile, and the sum of a row"
    assert words.count("vpsubd") <= 4, "one for each row of C"


@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_numbers_are_exact(value: int) -> None:
    """In the very stage that is emitted, evaluated, and where this CPU has VNNI in its code."""
    gemm = Gemm(m=9, n=40, k=260, dtype="i8")
    a = np.full((9, 260), value, np.int8)
    b = np.where(np.arange(40) % 2, np.int8(-128), np.int8(127)) * np.ones((260, 1), np.int8)
    lowered = gemmir.lower(gemm, target="cpu:znver4")
    assert "unsign" in str(lowered.schedule)
    found = np.zeros((9, 40), np.int32)
    evaluate(parse_module(list(lowered.stages.values())[-1].text), [a, b, found])
    np.testing.assert_array_equal(found, a.astype(np.int32) @ b.astype(np.int32))
    np.testing.assert_array_equal(gemmir.compile(gemm)(a, b), found)


def test_sums_are_made_once_a_copy_and_nothing_is_subtracted_in_the_loop() -> None:
    gemm = Gemm(m=64, n=256, k=256, dtype="i8")
    lowered = gemmir.lower(gemm, target="cpu:znver4")
    words = [line.split()[0] for line in assembly(lowered.artifact).splitlines() if line.split()]
    count, less = words.count("vpdpbusd"), words.count("vpsubd")
    assert count > 64, "4 steps of 8 x 2 products"
    assert less <= 2 * 16, "one for each register of sums, where all of it is stored and clipped"


def test_copies_have_no_sign_and_are_summed(after: After) -> None:
    module = after(Gemm(m=6, n=16, k=8, dtype="i8"), f"{A},{B},{TILES},{C},unsign")
    (sums,) = (op for op in module.walk() if isinstance(op, ColumnSumOp))
    copies = [memref_type(op.target) for op in module.walk() if isinstance(op, PackOp)]
    assert [str(t.element_type) for t in copies] == ["ui8", "i8"]
    assert sums.factor.value.data == 128
    (gemm,) = gemms(module)
    assert str(memref_type(gemm.a).element_type) == "ui8"


@pytest.mark.parametrize(
    ("code", "gemm", "schedule", "advice"),
    [
        ("GEM1382", Gemm(m=6, n=16, k=8, dtype="u8", dtype_b="i8"), f"{A},{B},{TILES},{C}", "out"),
        ("GEM1383", Gemm(m=6, n=16, k=8, dtype="i8"), f"{A},{B},{TILES}", "operand=c"),
        ("GEM1383", Gemm(m=6, n=16, k=8, dtype="i8"), f"{B},{TILES},{C}", "operand=a"),
        ("GEM1383", Gemm(m=6, n=16, k=8, dtype="i8"), f"{A},{TILES},{C}", "operand=b"),
        (
            "GEM1383",
            Gemm(m=6, n=16, k=16, dtype="i8"),
            f"{A},{B},tile{{loops=k sizes=8}},{TILES},{C}",
            "tile k before",
        ),
        (
            "GEM1383",
            Gemm(m=6, n=16, k=8, dtype="i8"),
            f"{B},prepack{{operand=b}},{A},{TILES},{C}",
            "leave unsign out",
        ),
        (
            "GEM1383",
            Gemm(m=6, n=16, k=8, dtype="i8"),
            f"{A},{B.replace('x4', 'x2')},{TILES},{C}",
            "layout=panel:16x4",
        ),
        (
            "GEM1383",
            Gemm(m=6, n=16, k=8, dtype="i8"),
            f"{A.replace('x4', 'x2')},{B},{TILES},{C}",
            "promote a with",
        ),
        ("GEM1383", Gemm(m=6, n=16, k=8, dtype="i8"), f"{ROWS},{TILES},{C}", "layout=panel:1"),
        ("GEM1383", Gemm(m=6, n=16, k=8, dtype="i8"), f"{ROWS},{B},{TILES},{C}", "layout=panel:1"),
        (
            "GEM1383",
            Gemm(m=6, n=16, k=16, dtype="i8", trans_b=True),
            f"{ROWS},tile{{loops=k sizes=8}},{TILES},{C}",
            "tile k before promote{operand=a",
        ),
    ],
)
def test_what_is_refused(code: str, gemm: Gemm, schedule: str, advice: str) -> None:
    with pytest.raises(ScheduleError, match=advice) as found:
        gemmir.lower(gemm, "cpu:znver4", f"{schedule},unsign,{DOT}")
    assert found.value.code == code


def test_a_cpu_without_such_products_refuses_them() -> None:
    with pytest.raises(ScheduleError, match="u8 and i8") as found:
        gemmir.lower(
            Gemm(m=6, n=16, k=8, dtype="i8"),
            "cpu:neoverse-n1",
            f"{A},promote{{operand=b to=l2 layout=panel:4x4}},tile{{loops=m,n sizes=3,4}},{C},"
            "unsign,vectorize{with=dot width=4}",
        )
    assert found.value.code == "GEM1328"


def test_a_kernel_packs_b_before_the_call() -> None:
    gemm = Gemm(m=20, n=70, k=50, dtype="i8")
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-128, 128, shape, np.int8) for shape in ((20, 50), (50, 70)))
    kernel = gemmir.compile(gemm)
    exact = a.astype(np.int32) @ b.astype(np.int32)
    np.testing.assert_array_equal(kernel(a, kernel.prepack(b)), exact)
