"""build: the gemm-level module of a problem, its text, and what it means."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from xdsl.dialects.builtin import ModuleOp

from gemmir.epilogue_steps import EPILOGUE_STEPS, STEP_OPERANDS
from gemmir.errors import ParseError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.import_mlir import problem_of

SIZES = st.sampled_from([0, 1, 2, 3, 5, 8])
SCALES = st.sampled_from([0.0, 1.0, -1.0, 1 / 3, 1e-40, 3e38, float(2**40 + 1)])


@st.composite
def epilogues(draw: st.DrawFn) -> str:
    steps = draw(st.lists(st.sampled_from(EPILOGUE_STEPS), max_size=4))
    once = [s for i, s in enumerate(steps) if s not in STEP_OPERANDS or s not in steps[:i]]
    return "+".join(once)


@st.composite
def gemms(draw: st.DrawFn) -> Gemm:
    """Any problem of small sizes, with any strides and epilogue."""
    gemm = Gemm(
        m=draw(SIZES),
        n=draw(SIZES),
        k=draw(SIZES),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(SCALES),
        beta=draw(SCALES),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        batch=draw(st.sampled_from([None, 0, 1, 3])),
        epilogue=draw(epilogues()),
    )
    extra = st.sampled_from([None, 0, 3])
    for operand in "abc":
        more = draw(extra)
        if more is not None:
            gemm = replace(gemm, **{f"ld{operand}": gemm.leading(operand) + more})
    if gemm.batch is None:
        return gemm
    for operand in "abc":
        more = draw(extra)
        if more is not None:
            stride = gemm.batch_stride(operand) + more
            gemm = replace(gemm, **{f"batch_stride_{operand}": stride})
    for operand in "ab":
        if draw(st.booleans()):
            gemm = replace(gemm, **{f"batch_stride_{operand}": 0})
    return gemm


def body_of(module: ModuleOp) -> list[str]:
    """The lines of a module's text without the two that open it and the two that close it."""
    return [line.strip() for line in str(module).splitlines()[1:-2]]


def test_plain_text() -> None:
    assert str(build(Gemm(m=4, n=6, k=8, alpha=0.5), "mm")) == (
        "builtin.module {\n"
        '  func.func @mm(%a: memref<4x8xf32> {gemmir.name = "a", gemmir.access = "read"}, '
        '%b: memref<8x6xf32> {gemmir.name = "b", gemmir.access = "read"}, '
        '%c: memref<4x6xf32> {gemmir.name = "c", gemmir.access = "write"}) {\n'
        "    gemmir.gemm %a, %b, %c alpha 5.000000e-01 : f64 beta 0.000000e+00 : f64 "
        ": memref<4x8xf32>, memref<8x6xf32>, memref<4x6xf32>\n"
        "    func.return\n"
        "  }\n"
        "}"
    )


def test_views_text() -> None:
    gemm = Gemm(
        m=4, n=6, k=8, dtype="f64", beta=1, trans_a=True, lda=9, batch=2, batch_stride_b=0, ldc=7
    )
    head, *body = body_of(build(gemm))
    assert re.findall(r"memref<[^ ]*|memref<.*?>>", head) == [
        "memref<2x8x4xf64,",
        "memref<8x6xf64>",
        "memref<2x4x6xf64,",
    ]
    assert head.count("readwrite") == 1 and "strided<[72, 9, 1]>" in head
    assert body == [
        "%a_t = memref.reinterpret_cast %a to offset: [0], sizes: [2, 4, 8], strides: [72, 1, 9] "
        ": memref<2x8x4xf64, strided<[72, 9, 1]>> to memref<2x4x8xf64, strided<[72, 1, 9]>>",
        "%b_shared = memref.reinterpret_cast %b to offset: [0], sizes: [2, 8, 6], "
        "strides: [0, 6, 1] : memref<8x6xf64> to memref<2x8x6xf64, strided<[0, 6, 1]>>",
        "gemmir.gemm %a_t, %b_shared, %c alpha 1.000000e+00 : f64 beta 1.000000e+00 : f64 "
        ": memref<2x4x8xf64, strided<[72, 1, 9]>>, memref<2x8x6xf64, strided<[0, 6, 1]>>, "
        "memref<2x4x6xf64, strided<[28, 7, 1]>>",
        "func.return",
    ]


def test_epilogue_text() -> None:
    body = body_of(build(Gemm(m=4, n=6, k=8, epilogue="bias+gelu+relu")))
    assert body[2:] == [
        "%bias_rows = memref.reinterpret_cast %bias to offset: [0], sizes: [4, 6], strides: [0, 1] "
        ": memref<6xf32> to memref<4x6xf32, strided<[0, 1]>>",
        "gemmir.epilogue ins(%bias_rows : memref<4x6xf32, strided<[0, 1]>>) "
        "outs(%c : memref<4x6xf32>) {",
        "^bb0(%bias_rows_element: f32, %c_element: f32):",
        "%sum = arith.addf %c_element, %bias_rows_element : f32",
        "%square = arith.mulf %sum, %sum : f32",
        "%cube = arith.mulf %square, %sum : f32",
        "%cst = arith.constant 4.471500e-02 : f32",
        "%cubic = arith.mulf %cst, %cube : f32",
        "%inner = arith.addf %sum, %cubic : f32",
        "%cst_1 = arith.constant -1.59576917 : f32",
        "%minus_2u = arith.mulf %cst_1, %inner : f32",
        "%exp = math.exp %minus_2u : f32",
        "%cst_2 = arith.constant 1.000000e+00 : f32",
        "%denominator = arith.addf %cst_2, %exp : f32",
        "%gelu = arith.divf %sum, %denominator : f32",
        "%cst_3 = arith.constant 0.000000e+00 : f32",
        "%relu = arith.maximumf %gelu, %cst_3 : f32",
        "gemmir.yield %relu : f32",
        "}",
        "func.return",
    ]


def test_an_empty_packed_array_needs_no_layout() -> None:
    assert "strided" not in str(build(Gemm(m=2, n=0, k=3, batch=2)))


@given(gemms())
@settings(deadline=None, max_examples=100)
def test_print_parse_print(gemm: Gemm) -> None:
    text = str(build(gemm))
    assert str(parse_module(text)) == text


@given(gemms())
@settings(deadline=None, max_examples=150)
@example(Gemm(m=3, n=5, k=2, batch=3, batch_stride_a=0, trans_a=True, epilogue="residual+silu"))
@example(Gemm(m=3, n=5, k=2, dtype="f64", epilogue="bias+gelu+residual+silu+relu"))
def test_meaning(random_arrays: Callable[[ModuleOp], dict[str, Any]], gemm: Gemm) -> None:
    gemm = replace(gemm, alpha=max(min(gemm.alpha, 2.0), -2.0), beta=max(min(gemm.beta, 2.0), -2.0))
    module = build(gemm)
    arrays = random_arrays(module)
    assert list(arrays) == [operand.name for operand in gemm.operands]
    expected, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    evaluate(module, list(arrays.values()))
    assert np.all(np.abs(arrays["c"] - expected) <= bound)


@given(gemms())
@settings(deadline=None, max_examples=150)
def test_problem_of_is_the_inverse_of_build(gemm: Gemm) -> None:
    found = problem_of(build(gemm))
    fields = ("m", "n", "k", "dtype", "alpha", "beta", "batch", "flops")
    assert [getattr(found, f) for f in fields] == [getattr(gemm, f) for f in fields]
    assert found.steps == gemm.steps
    if 0 in (gemm.m, gemm.n, gemm.k, gemm.batch) or gemm.batch == 1:
        return
    for operand, expected in zip("ab", gemm.operands, strict=False):
        here = next(o for o in found.operands if o.name == operand)
        if 1 not in expected.shape:
            assert here == expected
            trans = f"trans_{operand}"
            assert getattr(found, trans) == getattr(gemm, trans)
    assert found.operands[-1] == gemm.operands[-1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("func.func @f() {\n func.return\n}", "0 gemmir.gemm"),
        (
            "func.func @f(%a: memref<?x?xf32>) {\n  gemmir.gemm %a, %a, %a alpha 1.0 : f64 "
            "beta 0.0 : f64 : memref<?x?xf32>, memref<?x?xf32>, memref<?x?xf32>\n  func.return\n}",
            "not at the gemm level",
        ),
    ],
)
def test_problem_of_refuses(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason) as caught:
        problem_of(parse_module(text))
    assert caught.value.code == "GEM0204"
