"""import_mlir: what standard MLIR text becomes, what it means, and what is refused where."""

import re
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ParseError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.import_mlir import import_mlir

A, B, C = "4x8xf32", "8x6xf32", "4x6xf32"
MAP = "affine_map<(d0, d1, d2) -> (d{}, d{})>"
MAPS = ", ".join(MAP.format(*d) for d in ((0, 2), (2, 1), (0, 1)))
BODY = """{
  ^bb0(%x: f32, %y: f32, %z: f32):
    %p = arith.mulf %x, %y : f32
    %s = arith.addf %z, %p : f32
    linalg.yield %s : f32
  }"""


def on_memrefs(
    op: str, *, a: str = A, b: str = B, c: str = C, tail: str = "", fill: str = ""
) -> str:
    """A function that runs one linalg op on memrefs; the op is on line 3 (4 with a fill)."""
    a, b, c = (f"memref<{t}>" for t in (a, b, c))
    return f"""func.func @mm(%a: {a}, %b: {b}, %c: {c}) {{
  %zero = arith.constant 0.0 : f32
{fill}  {op} ins(%a, %b : {a}, {b}) outs(%c : {c}) {tail}
  return
}}"""


FILL = f"  linalg.fill ins(%zero : f32) outs(%c : memref<{C}>)\n"


def on_tensors(op: str, start: str = "", outs: str = "%c") -> str:
    """A function on tensors whose op, on the line after `start`, begins from `outs`."""
    a, b, c = (f"tensor<{t}>" for t in (A, B, C))
    return f"""func.func @mm(%a: {a}, %b: {b}, %c: {c}) -> {c} {{
  %zero = arith.constant 0.0 : f32
{start}  %r = {op} ins(%a, %b : {a}, {b}) outs({outs} : {c}) -> {c}
  return %r : {c}
}}"""


def arguments_of(module: ModuleOp) -> str:
    """The arguments of the function as `name type access`."""
    found = re.findall(
        r'%(\S+): (memref<.*?>) \{gemmir.name = "(\S+)", gemmir.access = "(\w+)"', str(module)
    )
    assert all(hint == name for hint, _, name, _ in found)
    return ", ".join(f"{name} {kind} {access}" for _, kind, name, access in found)


def body_of(module: ModuleOp) -> list[str]:
    """The operations of the function, without the types after the last colon and the return."""
    lines = [line.strip() for line in str(module).splitlines()[2:-3]]
    return [re.sub(r" (: memref|ins\(|outs\(|alpha 1.0\S* : f64).*", "", line) for line in lines]


ACCUMULATES = "a memref<4x8xf32> read, b memref<8x6xf32> read, c memref<4x6xf32> readwrite"
WRITES = ACCUMULATES.replace("readwrite", "write")
RESIDUAL = WRITES.replace("c memref", "residual memref<4x6xf32> read, c memref")
PLAIN = ["gemmir.gemm %a, %b, %c"]


def viewed(name: str, sizes: str, strides: str) -> str:
    cast = f"memref.reinterpret_cast %{name} to offset: [0], sizes: [{sizes}], strides: [{strides}]"
    return f"%{name}_view = {cast}"


EMPTY = f"  %e = tensor.empty() : tensor<{C}>\n"
FILL_EMPTY = f"  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<{C}>) -> tensor<{C}>\n"
FILL_ARGUMENT = FILL_EMPTY.replace("%e", "%c")
GENERIC = 'linalg.generic {{indexing_maps = [{}], iterator_types = ["parallel", "parallel", {}]}}'
GENERIC_PLAIN = GENERIC.format(MAPS, '"reduction"')

IMPORTED = {
    "accumulates": (on_memrefs("linalg.matmul"), ACCUMULATES, PLAIN),
    "filled": (on_memrefs("linalg.matmul", fill=FILL), WRITES, PLAIN),
    "maps before ins": (
        on_memrefs(f"linalg.matmul indexing_maps = [{MAPS}]"),
        ACCUMULATES,
        PLAIN,
    ),
    "maps in a dictionary": (
        on_memrefs(f"linalg.matmul {{indexing_maps = [{MAPS}]}}"),
        ACCUMULATES,
        PLAIN,
    ),
    "transposed by a map": (
        on_memrefs(
            "linalg.matmul indexing_maps = ["
            + ", ".join(MAP.format(*d) for d in ((0, 2), (1, 2), (0, 1)))
            + "]",
            b="6x8xf32",
        ),
        ACCUMULATES.replace("8x6", "6x8"),
        [viewed("b", "8, 6", "1, 8"), "gemmir.gemm %a, %b_view, %c"],
    ),
    "matmul_transpose_a": (
        on_memrefs("linalg.matmul_transpose_a", a="8x4xf32"),
        ACCUMULATES.replace("4x8", "8x4"),
        [viewed("a", "4, 8", "1, 4"), "gemmir.gemm %a_view, %b, %c"],
    ),
    "matmul_transpose_b": (
        on_memrefs("linalg.matmul_transpose_b", b="6x8xf32"),
        ACCUMULATES.replace("8x6", "6x8"),
        [viewed("b", "8, 6", "1, 8"), "gemmir.gemm %a, %b_view, %c"],
    ),
    "batch_matmul": (
        on_memrefs("linalg.batch_matmul", a="2x4x8xf64", b="2x8x6xf64", c="2x4x6xf64"),
        "a memref<2x4x8xf64> read, b memref<2x8x6xf64> read, c memref<2x4x6xf64> readwrite",
        PLAIN,
    ),
    "batch_matmul_transpose_a": (
        on_memrefs("linalg.batch_matmul_transpose_a", a="2x8x4xf32", b="2x8x6xf32", c="2x4x6xf32"),
        "a memref<2x8x4xf32> read, b memref<2x8x6xf32> read, c memref<2x4x6xf32> readwrite",
        [viewed("a", "2, 4, 8", "32, 1, 4"), "gemmir.gemm %a_view, %b, %c"],
    ),
    "batch_matmul_transpose_b": (
        on_memrefs("linalg.batch_matmul_transpose_b", a="2x4x8xf32", b="2x6x8xf32", c="2x4x6xf32"),
        "a memref<2x4x8xf32> read, b memref<2x6x8xf32> read, c memref<2x4x6xf32> readwrite",
        [viewed("b", "2, 8, 6", "48, 1, 8"), "gemmir.gemm %a, %b_view, %c"],
    ),
    "shared by a map": (
        on_memrefs(
            "linalg.batch_matmul indexing_maps = [affine_map<(b, m, n, k) -> (b, m, k)>, "
            "affine_map<(b, m, n, k) -> (k, n)>, affine_map<(b, m, n, k) -> (b, m, n)>]",
            a="2x4x8xf32",
            c="2x4x6xf32",
        ),
        "a memref<2x4x8xf32> read, b memref<8x6xf32> read, c memref<2x4x6xf32> readwrite",
        [viewed("b", "2, 8, 6", "0, 6, 1"), "gemmir.gemm %a, %b_view, %c"],
    ),
    "generic": (on_memrefs(GENERIC_PLAIN, tail=BODY), ACCUMULATES, PLAIN),
    "generic with an alias": (
        "#map = affine_map<(d0, d1, d2) -> (d2, d1)>\n"
        + on_memrefs(GENERIC_PLAIN.replace(MAP.format(2, 1), "#map"), tail=BODY),
        ACCUMULATES,
        PLAIN,
    ),
    "generic by a trait": (
        f"#trait = {GENERIC_PLAIN.removeprefix('linalg.generic ')}\n"
        + on_memrefs("linalg.generic #trait", tail=BODY),
        ACCUMULATES,
        PLAIN,
    ),
    "generic with iterator attributes": (
        on_memrefs(re.sub(r'"(\w+)"', r"#linalg.iterator_type<\1>", GENERIC_PLAIN), tail=BODY),
        ACCUMULATES,
        PLAIN,
    ),
    "factors in the other order": (
        on_memrefs(
            GENERIC.format(
                ", ".join(MAP.format(*d) for d in ((2, 1), (0, 2), (0, 1))), '"reduction"'
            ),
            a=B,
            b=A,
            tail=BODY.replace("%x, %y", "%y, %x"),
        ),
        "a memref<8x6xf32> read, b memref<4x8xf32> read, c memref<4x6xf32> readwrite",
        ["gemmir.gemm %b, %a, %c"],
    ),
    "columns of the output contiguous": (
        on_memrefs("linalg.matmul", c="4x6xf32, strided<[1, 4]>"),
        "a memref<4x8xf32> read, b memref<8x6xf32> read, c memref<4x6xf32, strided<[1, 4]>> "
        "readwrite",
        [
            viewed("b", "6, 8", "1, 6"),
            viewed("a", "8, 4", "1, 8"),
            viewed("c", "6, 4", "4, 1"),
            "gemmir.gemm %b_view, %a_view, %c_view",
        ],
    ),
    "leading dimension": (
        on_memrefs("linalg.matmul", a="4x8xf32, strided<[9, 1]>"),
        ACCUMULATES.replace("4x8xf32", "4x8xf32, strided<[9, 1]>"),
        PLAIN,
    ),
    "contract": (
        on_memrefs(f"linalg.contract indexing_maps = [{MAPS}]", fill=FILL),
        WRITES,
        PLAIN,
    ),
    "tensor from zero": (
        on_tensors("linalg.matmul", EMPTY + FILL_EMPTY, "%f").replace(f", %c: tensor<{C}>", ""),
        WRITES,
        PLAIN,
    ),
    "tensor whose argument is filled": (
        on_tensors("linalg.matmul", FILL_ARGUMENT, "%f"),
        WRITES,
        PLAIN,
    ),
    "tensor from an argument": (
        on_tensors("linalg.matmul"),
        RESIDUAL,
        [
            *PLAIN,
            "gemmir.epilogue",
            "^bb0(%residual_element: f32, %c_element: f32):",
            "%sum = arith.addf %c_element, %residual_element : f32",
            "gemmir.yield %sum : f32",
            "}",
        ],
    ),
    "only one function has a contraction": (
        f"func.func private @other()\n{on_memrefs('linalg.matmul')}",
        ACCUMULATES,
        PLAIN,
    ),
}


@pytest.mark.parametrize("case", IMPORTED)
def test_imported_text(case: str) -> None:
    text, arguments, body = IMPORTED[case]
    module = import_mlir(text, "f.mlir")
    assert "func.func @mm(" in str(module)
    assert arguments_of(module) == arguments
    assert body_of(module) == body
    beta = "1.000000e+00" if "readwrite" in arguments else "0.000000e+00"
    assert f"beta {beta} : f64" in str(module)


def test_generic_form() -> None:
    text = """"builtin.module"() ({
      "func.func"() <{sym_name = "mm", function_type = (memref<4x8xf32>, memref<8x6xf32>,
          memref<4x6xf32>) -> ()}> ({
      ^bb0(%a: memref<4x8xf32>, %b: memref<8x6xf32>, %c: memref<4x6xf32>):
        "linalg.matmul"(%a, %b, %c) <{operandSegmentSizes = array<i32: 2, 1>}> ({
        ^bb0(%x: f32, %y: f32, %z: f32):
          %p = "arith.mulf"(%x, %y) <{fastmath = #arith.fastmath<none>}> : (f32, f32) -> f32
          %s = "arith.addf"(%z, %p) <{fastmath = #arith.fastmath<none>}> : (f32, f32) -> f32
          "linalg.yield"(%s) : (f32) -> ()
        }) : (memref<4x8xf32>, memref<8x6xf32>, memref<4x6xf32>) -> ()
        "func.return"() : () -> ()
      }) : () -> ()
    }) : () -> ()"""
    assert str(import_mlir(text, "f")) == str(import_mlir(on_memrefs("linalg.matmul"), "f"))


def test_names_of_the_text_are_kept_and_unique() -> None:
    text = on_tensors("linalg.matmul", FILL_ARGUMENT, "%f")
    text = re.sub(r"%b\b", "%c_1", re.sub(r"%a\b", "%0", text))
    assert arguments_of(import_mlir(text, "f")).split()[::3] == ["a", "c2", "c"]


def test_native_text_comes_back_as_it_is() -> None:
    text = str(build(Gemm(m=4, n=6, k=8, epilogue="gelu")))
    assert str(import_mlir(text, "f.mlir")) == text


MIXED = BODY.replace("%x: f32, %y: f32", "%x: f16, %y: f16").replace(
    "    %p = arith.mulf %x, %y",
    "    %u = arith.extf %x : f16 to f32\n    %v = arith.extf %y : f16 to f32\n"
    "    %p = arith.mulf %u, %v",
)
SQUARED = BODY.replace("mulf %x, %y", "mulf %x, %x")
MATMUL = "linalg.matmul"

REFUSED = {
    "mixed precision body": (
        on_memrefs(GENERIC_PLAIN, a="4x8xf16", b="8x6xf16", tail=MIXED),
        5,
        "arith.extf: the body of linalg.generic may only have arith.mulf and arith.addf",
    ),
    "mixed precision": (on_memrefs(MATMUL, a="4x8xf64"), 3, "mixed precision (f64, f32, f32)"),
    "half precision": (on_memrefs(MATMUL, a="4x8xbf16"), 3, "operand 1 has elements of bf16"),
    "other body": (on_memrefs(GENERIC_PLAIN, tail=SQUARED), 3, "the body is not out + in1 * in2"),
    "dynamic": (on_memrefs(MATMUL, a="?x8xf32"), 3, "operand 1 is memref<?x8xf32>, whose shape"),
    "dynamic stride": (
        on_memrefs(MATMUL, a="4x8xf32, strided<[?, 1]>"),
        3,
        "whose strides are dynamic",
    ),
    "dynamic offset": (
        on_memrefs(MATMUL, a="4x8xf32, strided<[8, 1], offset: ?>"),
        3,
        "the offset must be 0",
    ),
    "other layout": (
        on_memrefs(MATMUL, a="4x8xf32, affine_map<(d0, d1) -> (d1, d0)>"),
        3,
        "whose layout is not strided",
    ),
    "memory space": (on_memrefs(MATMUL, a="4x8xf32, 3 : i32"), 3, "have no memory space"),
    "output overlaps": (on_memrefs(MATMUL, c="4x6xf32, strided<[5, 1]>"), 3, "output overlap"),
    "extents": (
        on_memrefs(MATMUL, b="7x6xf32"),
        3,
        "dimension d2 is 8 in an operand before and 7 in operand 2",
    ),
    "rank": (on_memrefs(MATMUL, a="4xf32"), 3, "operand 1 has rank 1; its map has 2"),
    "too few maps": (
        on_memrefs(f"{MATMUL} indexing_maps = [{MAP.format(0, 2)}]"),
        3,
        "has 1 indexing_",
    ),
    "no maps": (on_memrefs("linalg.contract"), 3, "has no indexing_maps"),
    "map is not a map": (on_memrefs(f"{MATMUL} indexing_maps = [1, 2, 3]"), 3, "affine maps"),
    "map computes": (
        on_memrefs(f"{MATMUL} indexing_maps = [{MAPS.replace('(d0, d2)>', '(d0 + 1, d2)>')}]"),
        3,
        "must list distinct dimensions",
    ),
    "map repeats": (
        on_memrefs(f"{MATMUL} indexing_maps = [{MAPS.replace('(d0, d2)>', '(d0, d0)>')}]"),
        3,
        "must list distinct dimensions",
    ),
    "sum over one operand": (
        on_memrefs(
            GENERIC.format(MAPS.replace("(d2, d1)", "(d0, d1)"), '"reduction"'),
            b="4x6xf32",
            tail=BODY,
        ),
        3,
        "dimension d2 is used by one operand only",
    ),
    "elementwise": (
        on_memrefs(
            "linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> "
            '(i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}',
            a=C,
            b=C,
            tail=BODY,
        ),
        1,
        "func.func: no linalg contraction in @mm",
    ),
    "parallel reduction": (
        on_memrefs(GENERIC.format(MAPS, '"parallel"'), tail=BODY),
        3,
        "dimension d2 is parallel, but acts as k",
    ),
    "attribute": (on_memrefs(f'{MATMUL} {{library_call = "x"}}'), 3, "attribute library_call"),
    "output is an input": (
        on_memrefs(MATMUL, a="4x4xf32", b="4x4xf32", c="4x4xf32").replace("ins(%a", "ins(%c"),
        3,
        "reads and writes %c",
    ),
    "fill by one": (
        on_memrefs(MATMUL, fill=FILL).replace("0.0", "1.0"),
        3,
        "linalg.fill: the output may only be filled with the constant 0.0",
    ),
    "fill after": (
        on_memrefs(MATMUL, tail="\n" + FILL),
        4,
        "linalg.fill: overwrites the result of linalg.matmul",
    ),
    "fill of an input": (
        on_memrefs(MATMUL, fill=FILL.replace("%c", "%a").replace(C, A)),
        3,
        "linalg.fill: writes %a, which is not the output",
    ),
    "second contraction": (
        on_memrefs(
            MATMUL,
            tail="\n  linalg.matmul ins(%a, %b : memref<4x8xf32>, memref<8x6xf32>) "
            "outs(%c : memref<4x6xf32>)",
        ),
        4,
        "linalg.matmul: is a second contraction",
    ),
    "other operation": (
        on_memrefs(MATMUL, tail="\n  memref.dealloc %c : memref<4x6xf32>"),
        4,
        "memref.dealloc: cannot be imported beside a contraction",
    ),
    "unused argument": (
        on_memrefs(MATMUL).replace("%c: memref", "%s: f32, %c: memref"),
        1,
        "func.func: argument %s is not used by linalg.matmul",
    ),
    "undefined start": (
        on_tensors(MATMUL, EMPTY, "%e").replace(f", %c: tensor<{C}>", ""),
        4,
        "adds to tensor.empty, which is neither an argument nor filled with 0.0",
    ),
    "returns something else": (
        on_tensors(MATMUL, FILL_ARGUMENT, "%f").replace("return %r", "return %f"),
        5,
        "func.return: the function must return the result of linalg.matmul",
    ),
    "several functions": (
        on_memrefs(MATMUL) + "\n" + on_memrefs(MATMUL).replace("@mm", "@nn"),
        6,
        "several functions have a contraction: @mm, @nn",
    ),
    "no contraction": ("\nfunc.func @f() {\n  return\n}", 2, "no linalg contraction in @f"),
    "no function": ("module {\n}", 1, "has no func.func"),
    "mixed dialects": (
        str(build(Gemm(m=4, n=6, k=8))).replace(
            "    func.return",
            f"    linalg.matmul ins(%a, %b : memref<{A}>, memref<{B}>) outs(%c : memref<{C}>)\n"
            "    func.return",
        ),
        4,
        "linalg.matmul: cannot stand in a module that is already in gemmir's dialect",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_line(case: str) -> None:
    text, line, reason = REFUSED[case]
    with pytest.raises(ParseError, match=rf"^GEM0203: f.mlir: line {line}: ") as caught:
        import_mlir(text, "f.mlir")
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        (on_memrefs(MATMUL).replace("outs(", "out("), "GEM0201", "line 3, column "),
        (on_memrefs(MATMUL).replace("ins(%a, ", "ins("), "GEM0201", "line 3, column "),
        (on_memrefs(MATMUL).replace("outs(%c", "outs(%d"), "GEM0201", "line "),
        (on_memrefs("linalg.matvec"), "GEM0201", "line 3, column 3: Operation linalg.matvec is "),
        (on_memrefs(MATMUL).replace("  return\n", ""), "GEM0202", "line 3: does not verify"),
    ],
)
def test_broken(text: str, code: str, where: str) -> None:
    with pytest.raises(ParseError, match=f"^{code}: f.mlir: {where}"):
        import_mlir(text, "f.mlir")


@st.composite
def contractions(draw: st.DrawFn) -> tuple[str, str]:
    """A random linalg.generic and the einsum that says what it computes."""
    dims = draw(st.permutations("mnkb"))
    extents = {d: draw(st.sampled_from([0, 1, 2, 3, 5])) for d in dims}
    batched = draw(st.sampled_from(["", "ab", "a", "b"]))
    indices = ["mk" + "b" * ("a" in batched), "kn" + "b" * ("b" in batched), "mn" + "b"]
    if not batched:
        dims, indices[2] = [d for d in dims if d != "b"], "mn"
    indices = ["".join(draw(st.permutations(i))) for i in indices]
    if draw(st.booleans()):
        indices[:2] = indices[1::-1]
    element = draw(st.sampled_from(["f32", "f64"]))
    kind = draw(st.sampled_from(["memref", "tensor"]))
    types = [f"{kind}<{''.join(f'{extents[d]}x' for d in i)}{element}>" for i in indices]
    maps = [f"affine_map<({', '.join(dims)}) -> ({', '.join(i)})>" for i in indices]
    iterators = ['"reduction"' if d == "k" else '"parallel"' for d in dims]
    result = f" -> {types[2]}" if kind == "tensor" else ""
    fill, start = "", "%c"
    if draw(st.booleans()):
        bind, start = ("%f = ", "%f") if kind == "tensor" else ("", "%c")
        fill = f"{bind}linalg.fill ins(%zero : {element}) outs(%c : {types[2]}){result}"
    text = f"""func.func @g(%a: {types[0]}, %b: {types[1]}, %c: {types[2]}){result} {{
      %zero = arith.constant 0.0 : {element}
      {fill}
      {"%r = " if result else ""}linalg.generic {{indexing_maps = [{", ".join(maps)}],
        iterator_types = [{", ".join(iterators)}]}} ins(%a, %b : {types[0]}, {types[1]})
        outs({start} : {types[2]}) {BODY.replace("f32", element)}{result}
      return {f"%r : {types[2]}" if result else ""}
    }}"""
    return text, f"{indices[0]},{indices[1]}->{indices[2]}"


@given(contractions())
@settings(deadline=None, max_examples=200)
def test_meaning_is_that_of_einsum(
    random_arrays: Callable[[ModuleOp], dict[str, Any]], case: tuple[str, str]
) -> None:
    text, einsum = case
    module = import_mlir(text, "g.mlir")
    arrays = random_arrays(module)
    assert list(arrays) in (["a", "b", "c"], ["a", "b", "residual", "c"])
    start = (
        0 if "linalg.fill" in text else arrays.get("residual", arrays["c"]).astype(np.longdouble)
    )
    wide = [arrays[name].astype(np.longdouble) for name in "ab"]
    expected = start + np.einsum(einsum, *wide)
    evaluate(module, list(arrays.values()))
    # At most 5 products and one sum of numbers of at most 1: gamma(6) * 6 with gamma = 6 eps / 2.
    bound = 18 * float(np.finfo(arrays["c"].dtype).eps)
    assert np.all(np.abs(arrays["c"] - expected) <= bound)
