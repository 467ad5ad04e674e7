"""parse_module: text that is broken in any way gives a ParseError that names the place."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import DIALECTS, make_context, parse_module
from gemmir.ir.import_mlir import import_mlir

TEXT = str(build(Gemm(m=2, n=3, k=4, trans_b=True, batch=2, epilogue="bias+silu")))
MATMUL = """#map = affine_map<(d0, d1, d2) -> (d0, d2)>
func.func @mm(%a: tensor<4x8xf32>, %b: tensor<8x6xf32>, %c: tensor<4x6xf32>) -> tensor<4x6xf32> {
  %r = linalg.matmul indexing_maps = [#map, affine_map<(i, j, k) -> (k, j)>,
    affine_map<(i, j, k) -> (i, j)>] ins(%a, %b : tensor<4x8xf32>, tensor<8x6xf32>)
    outs(%c : tensor<4x6xf32>) -> tensor<4x6xf32>
  return %r : tensor<4x6xf32>
}"""

BROKEN = {
    "empty": ("", "GEM0201", "line 1, column 1"),
    "cut off": ("func.func @f(%a: memref<2x", "GEM0201", "line 1, column 27"),
    "unknown op": ("func.func @f() {\n  foo.bar\n}", "GEM0201", "line 2, column 3: Operation foo"),
    "unknown dialect": ("\nlinalg.copy", "GEM0201", "line 2, column 1: Operation linalg.copy"),
    "unknown value": ("func.func @f() {\n  func.return %x : f32\n}", "GEM0201", "line"),
    "bad layout": (
        "func.func @f(%a: memref<2x2xf32, #gemmir.panel<7, 1, 1>>) {\n  func.return\n}",
        "GEM0201",
        "line 1, column 56: panel dimension 7 is not 0 or 1",
    ),
    "negative stride list": ("func.func @f(%a: memref<2xf32, strided<[]", "GEM0201", "line 1"),
    "bad first token": ("\n  ;", "GEM0201", "line 2, column 3"),
    "open string": ('// a "\n  "a" "' + "a" * 99, "GEM0201", "line 2, column 7: the string is not"),
    "wrong extents": (
        "func.func @f(%a: memref<2x3xf32>) {\n\n  gemmir.gemm %a, %a, %a alpha 1.0 : f64 "
        "beta 0.0 : f64 : memref<2x3xf32>, memref<2x3xf32>, memref<2x3xf32>\n  func.return\n}",
        "GEM0202",
        r"line 3: does not verify: gemmir.gemm: extents \[2, 3\] of k differ",
    ),
    "no terminator": ("func.func @f() {\n  %0 = arith.constant 1 : i32\n}", "GEM0202", "line 2"),
    "use above definition": (
        "func.func @f() {\n  %y = arith.addi %x, %x : i32\n  %x = arith.constant 1 : i32\n"
        "  func.return\n}",
        "GEM0202",
        "line 2: arith.addi uses a value that is not defined above it",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text(case: str) -> None:
    text, code, where = BROKEN[case]
    with pytest.raises(ParseError, match=f"{code}: f.mlir: {where}") as caught:
        parse_module(text, "f.mlir")
    assert caught.value.code == code and "\n" not in str(caught.value)


def test_reading_twice_gives_the_same() -> None:
    assert str(parse_module(TEXT)) == TEXT


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """`text` with a piece cut out and another put in."""
    start = draw(st.integers(0, len(text)))
    end = min(len(text), start + draw(st.integers(0, 12)))
    piece = draw(
        st.sampled_from(["", "0", "-1", "%", "x", "[", ">", "}", ",", "?", "memref<", '"'])
    )
    return text[:start] + piece + text[end:]


@given(damaged(TEXT))
@settings(deadline=None, max_examples=300)
def test_damaged_text_is_read_or_refused(text: str) -> None:
    try:
        module = parse_module(text)
    except ParseError as error:
        assert error.code in ("GEM0201", "GEM0202")
    else:
        module.verify()


@given(damaged(MATMUL))
@settings(deadline=None, max_examples=300)
def test_damaged_linalg_is_imported_or_refused(text: str) -> None:
    try:
        module = import_mlir(text, "f.mlir")
    except ParseError as error:
        assert error.code in ("GEM0201", "GEM0202", "GEM0203")
    else:
        assert "gemmir.gemm" in str(module)


def test_dialects_are_exactly_those_of_the_ir() -> None:
    context = make_context()
    assert not list(context.loaded_dialects)
    assert set(context.registered_dialect_names) == set(DIALECTS)
    for name in DIALECTS:
        context.load_registered_dialect(name)
    assert {dialect.name for dialect in context.loaded_dialects} == set(DIALECTS)
