"""import_mlir: elementwise linalg after a contraction, as one gemmir.epilogue; what is refused."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.compiler import prepare, prepare_text
from gemmir.errors import ParseError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.import_mlir import import_mlir

EXAMPLE = Path(__file__).parents[2] / "examples" / "mlp.mlir"

SAME, ROW, COLUMN, ALL = "(i, j) -> (i, j)", "(i, j) -> (j)", "(i, j) -> (i)", "(i, j) -> ()"
TURNED = "(i, j) -> (j, i)"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One linalg.generic on C; in `body`, `%s` is the element of C and `%t` that of the operand.

    With `through_ins` C is read as the first input, by `ins_map` if that is not the map of the
    output, and the old element of the output is not used.
    """

    body: str
    operand: str = "4x6xf32"
    name: str = ""
    map: str = SAME
    out_map: str = SAME
    through_ins: bool = False
    ins_map: str = ""
    iterators: str = '"parallel", "parallel"'

    def text(self, kind: str, before: str, result: str, c: str) -> str:
        """The operation; on tensors it reads the value `before` and makes `result`."""
        inputs: list[tuple[str, str, str, str]] = []
        if self.through_ins:
            inputs.append((before, f"{kind}<{c}>", self.ins_map or self.out_map, "s"))
        if self.name:
            inputs.append((f"%{self.name}", f"{kind}<{self.operand}>", self.map, "t"))
        element = c.split("x")[-1].split(",")[0]
        maps = ", ".join(f"affine_map<{m}>" for m in [*(i[2] for i in inputs), self.out_map])
        arguments = [*(i[3] for i in inputs), "old" if self.through_ins else "s"]
        signature = ", ".join(f"%{a}: {element}" for a in arguments)
        values, types = (", ".join(i[column] for i in inputs) for column in (0, 1))
        ins = f"ins({values} : {types}) " if inputs else ""
        bind, arrow = (f"{result} = ", f" -> tensor<{c}>") if kind == "tensor" else ("", "")
        head = f"indexing_maps = [{maps}], iterator_types = [{self.iterators}]"
        return f"""  {bind}linalg.generic {{{head}}}
      {ins}outs({before} : {kind}<{c}>) {{
    ^bb0({signature}):
      {self.body}
    }}{arrow}
"""


def layer(
    *steps: Step,
    kind: str = "memref",
    op: str = "linalg.matmul",
    a: str = "4x8xf32",
    b: str = "8x6xf32",
    c: str = "4x6xf32",
    element: str = "f32",
) -> str:
    """C = steps(A B); on memrefs the contraction is on line 4 and the first step on line 5."""
    types = {"a": a, "b": b, **{step.name: step.operand for step in steps if step.name}, "c": c}
    arguments = ", ".join(f"%{name}: {kind}<{kept}>" for name, kept in types.items())
    on_tensors = kind == "tensor"
    arrow = f" -> tensor<{c}>" if on_tensors else ""
    values = [f"%r{i}" if on_tensors else "%c" for i in range(len(steps) + 1)]
    body = "".join(
        step.text(kind, before, after, c)
        for step, (before, after) in zip(steps, itertools.pairwise(values), strict=True)
    )
    return f"""func.func @gemm({arguments}){arrow} {{
  %zero = arith.constant 0.0 : {element}
  {"%f = " if on_tensors else ""}linalg.fill ins(%zero : {element}) outs(%c : {kind}<{c}>){arrow}
  {"%r0 = " if on_tensors else ""}{op} ins(%a, %b : {kind}<{a}>, {kind}<{b}>) \
outs({"%f" if on_tensors else "%c"} : {kind}<{c}>){arrow}
{body}  return {f"{values[-1]} : tensor<{c}>" if on_tensors else ""}
}}"""


def yielding(*lines: str) -> str:
    """A body of these operations, on f32; the last one makes the result, `%y`."""
    return "\n      ".join([*(f"{line} : f32" for line in lines), "linalg.yield %y : f32"])


def adding(name: str, operand: str, map: str, **others: Any) -> Step:
    return Step(
        body=yielding("%y = arith.addf %s, %t"), name=name, operand=operand, map=map, **others
    )


def epilogue_of(module: ModuleOp) -> list[str]:
    """The lines between gemmir.gemm and the return, from `=` or the name of an op on."""
    lines = [line.strip() for line in str(module).splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("gemmir.gemm"))
    return lines[first + 1 : lines.index("func.return")]


def without_hints(module: ModuleOp) -> str:
    """The text without the names that say where a value is from."""
    return re.sub(r"%bias_(rows|view)", "%bias_2d", str(module))


BUILT_BODIES = {
    "relu": ("%zero_here = arith.constant 0.0", "%y = arith.maximumf %s, %zero_here"),
    "silu": (
        "%minus_x = arith.negf %s",
        "%exp = math.exp %minus_x",
        "%cst = arith.constant 1.0",
        "%denominator = arith.addf %cst, %exp",
        "%y = arith.divf %s, %denominator",
    ),
    "gelu": (
        "%square = arith.mulf %s, %s",
        "%cube = arith.mulf %square, %s",
        "%c0 = arith.constant 0.044715",
        "%cubic = arith.mulf %c0, %cube",
        "%inner = arith.addf %s, %cubic",
        "%c1 = arith.constant -1.59576912",
        "%u = arith.mulf %c1, %inner",
        "%exp = math.exp %u",
        "%one = arith.constant 1.0",
        "%denominator = arith.addf %one, %exp",
        "%y = arith.divf %s, %denominator",
    ),
}
BUILT_STEPS = {
    "bias": adding("bias", "6xf32", ROW),
    "residual": adding("residual", "4x6xf32", SAME),
    **{name: Step(body=yielding(*lines)) for name, lines in BUILT_BODIES.items()},
}


@pytest.mark.parametrize("kind", ["memref", "tensor"])
@pytest.mark.parametrize("through_ins", [False, True])
@pytest.mark.parametrize(
    "epilogue",
    ["bias", "relu", "gelu", "residual", "silu", "bias+gelu", "bias+relu+residual"],
)
def test_same_ir_as_build(epilogue: str, kind: str, through_ins: bool) -> None:
    found = [BUILT_STEPS[name] for name in epilogue.split("+")]
    steps = [
        Step(body=s.body, operand=s.operand, name=s.name, map=s.map, through_ins=through_ins)
        for s in found
    ]
    module = import_mlir(layer(*steps, kind=kind), "f.mlir")
    wanted = build(Gemm(m=4, n=6, k=8, epilogue=epilogue))
    anonymous = [re.sub(r"%\w+", "%", without_hints(m)) for m in (module, wanted)]
    assert anonymous[0] == anonymous[1]
    # The names, which the comparison leaves out, in the order in which they first appear.
    uses = [list(_numbered(without_hints(m))) for m in (module, wanted)]
    assert uses[0] == uses[1]


def _numbered(text: str) -> list[int]:
    """Every use of a value as the number of the value, counted from its first appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in re.findall(r"%\w+", text)]


def cast(name: str, sizes: str, strides: str) -> str:
    source = f"memref.reinterpret_cast %{name} to offset: [0]"
    return f"%{name}_view = {source}, sizes: [{sizes}], strides: [{strides}]"


BATCHED = {"a": "2x4x8xf32", "b": "2x8x6xf32", "c": "2x4x6xf32", "op": "linalg.batch_matmul"}
THREE = '"parallel", "parallel", "parallel"'

VIEWED = {
    "row": (layer(adding("x", "6xf32", ROW)), cast("x", "4, 6", "0, 1")),
    "column": (layer(adding("x", "4xf32", COLUMN)), cast("x", "4, 6", "1, 0")),
    "one for all": (layer(adding("x", "f32", ALL)), cast("x", "4, 6", "0, 0")),
    "one row": (layer(adding("x", "1x6xf32", "(i, j) -> (0, j)")), cast("x", "4, 6", "0, 1")),
    "transposed": (layer(adding("x", "6x4xf32", TURNED)), cast("x", "4, 6", "1, 4")),
    "leading dimension": (
        layer(adding("x", "4x6xf32, strided<[20, 2]>", SAME)),
        "gemmir.epilogue ins(%x : memref<4x6xf32, strided<[20, 2]>>)",
    ),
    "loops in the other order": (
        layer(adding("x", "6xf32", "(i, j) -> (i)", out_map=TURNED)),
        cast("x", "4, 6", "0, 1"),
    ),
    "columns of the output contiguous": (
        layer(adding("x", "6xf32", ROW), c="4x6xf32, strided<[1, 4]>"),
        cast("x", "6, 4", "1, 0"),
    ),
    "batch": (
        layer(
            adding("x", "6xf32", "(b, i, j) -> (j)", out_map="(b, i, j) -> (b, i, j)",
                   iterators=THREE),
            **BATCHED,
        ),
        cast("x", "2, 4, 6", "0, 0, 1"),
    ),
    "alone in the batch": (
        layer(
            adding("x", "2x6xf32", "(b, i, j) -> (b, j)", out_map="(b, i, j) -> (b, i, j)",
                   iterators=THREE),
            **BATCHED,
        ),
        cast("x", "2, 4, 6", "6, 0, 1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VIEWED)
def test_operand_is_a_view(case: str) -> None:
    text, line = VIEWED[case]
    found = epilogue_of(import_mlir(text, "f.mlir"))
    assert any(line in one for one in found[:2]), found
    x, c = re.findall(r"%(\w+)_element", next(one for one in found if one.startswith("^bb0")))
    assert found[-3:] == [
        f"%y = arith.addf %{c}_element, %{x}_element : f32",
        "gemmir.yield %y : f32",
        "}",
    ]


TWICE = Step(body=yielding("%y = arith.mulf %s, %two"))
WITH_TWO = "  %zero = arith.constant 0.0 : f32\n  %two = arith.constant 2.0 : f32"


def with_two(text: str) -> str:
    return text.replace("  %zero = arith.constant 0.0 : f32", WITH_TWO)


def test_a_constant_outside_of_the_body_is_copied_once() -> None:
    found = epilogue_of(import_mlir(with_two(layer(TWICE, TWICE)), "f.mlir"))
    assert found == [
        "gemmir.epilogue outs(%c : memref<4x6xf32>) {",
        "^bb0(%c_element: f32):",
        "%two = arith.constant 2.000000e+00 : f32",
        "%y = arith.mulf %c_element, %two : f32",
        "%y_1 = arith.mulf %y, %two : f32",
        "gemmir.yield %y_1 : f32",
        "}",
    ]


def test_a_constant_may_be_an_operand() -> None:
    operand = adding("two", "f32", ALL)
    text = with_two(layer(operand)).replace("%two: memref<f32>, ", "")
    text = text.replace("ins(%two : memref<f32>)", "ins(%two : f32)")
    found = epilogue_of(import_mlir(text, "f.mlir"))
    assert found[2:4] == [
        "%two = arith.constant 2.000000e+00 : f32",
        "%y = arith.addf %c_element, %two : f32",
    ]


def test_an_operand_read_twice_is_one_operand() -> None:
    step = adding("x", "6xf32", ROW)
    (header, *_) = (o for o in epilogue_of(import_mlir(layer(step, step), "f")) if "ins(" in o)
    assert header.count("%x_view") == 1


def test_one_array_in_two_ways_is_two_operands(
    random_arrays: Callable[[ModuleOp], dict[str, Any]],
) -> None:
    steps = adding("x", "6x6xf32", SAME), adding("x", "6x6xf32", TURNED)
    module = import_mlir(layer(*steps, a="6x8xf32", c="6x6xf32"), "f.mlir")
    arrays = random_arrays(module)
    wanted = arrays["a"] @ arrays["b"] + arrays["x"] + arrays["x"].T
    evaluate(module, list(arrays.values()))
    np.testing.assert_allclose(arrays["c"], wanted, rtol=0, atol=1e-5)


def test_the_steps_of_a_tensor_may_meet_again(
    random_arrays: Callable[[ModuleOp], dict[str, Any]],
) -> None:
    """exp(C) * C, where C goes into two operations; what they write to is never read."""
    maps = ", ".join([f"affine_map<{SAME}>"] * 3)
    text = layer(Step(body=yielding("%y = math.exp %s"), through_ins=True), kind="tensor")
    text = text.replace("outs(%r0 ", "outs(%c ").replace(
        "  return %r1",
        f"""  %p = linalg.generic {{
      indexing_maps = [{maps}], iterator_types = ["parallel", "parallel"]}}
      ins(%r0, %r1 : tensor<4x6xf32>, tensor<4x6xf32>) outs(%e : tensor<4x6xf32>) {{
    ^bb0(%s: f32, %t: f32, %u: f32):
      %v = arith.mulf %s, %t : f32
      linalg.yield %v : f32
    }} -> tensor<4x6xf32>
  return %p""",
    )
    text = text.replace("  %zero", "  %e = tensor.empty() : tensor<4x6xf32>\n  %zero")
    module = import_mlir(text, "f.mlir")
    arrays = random_arrays(module)
    assert list(arrays) == ["a", "b", "c"]
    product = arrays["a"].astype(np.float64) @ arrays["b"]
    evaluate(module, list(arrays.values()))
    np.testing.assert_allclose(arrays["c"], np.exp(product) * product, rtol=1e-5, atol=1e-5)


def test_the_start_of_a_tensor_is_added_first(
    random_arrays: Callable[[ModuleOp], dict[str, Any]],
) -> None:
    text = layer(BUILT_STEPS["relu"], kind="tensor").replace("outs(%f :", "outs(%c :")
    module = import_mlir(re.sub(r"  %f = .*\n", "", text), "f.mlir")
    assert str(module).count("gemmir.epilogue") == 1
    arrays = random_arrays(module)
    assert list(arrays) == ["a", "b", "residual", "c"]
    wanted = np.maximum(arrays["a"] @ arrays["b"] + arrays["residual"], 0)
    evaluate(module, list(arrays.values()))
    np.testing.assert_allclose(arrays["c"], wanted, rtol=0, atol=1e-5)


# meaning

UNARY: dict[str, tuple[Sequence[str], Callable[[Any], Any]]] = {
    "negate": (["%y = arith.negf %s"], lambda c: -c),
    "exponential": (["%y = math.exp %s"], np.exp),
    "maximum": (["%k = arith.constant 0.25", "%y = arith.maximumf %k, %s"],
                lambda c: np.maximum(0.25, c)),
    "itself": ([], lambda c: c),
}  # fmt: skip
BINARY: dict[str, tuple[Sequence[str], Callable[[Any, Any], Any]]] = {
    "sum": (["%y = arith.addf %s, %t"], lambda c, x: c + x),
    "difference": (["%y = arith.subf %t, %s"], lambda c, x: x - c),
    "product": (["%y = arith.mulf %t, %s"], lambda c, x: x * c),
    "quotient": (["%k = arith.constant 2.0", "%d = arith.addf %k, %t", "%y = arith.divf %s, %d"],
                 lambda c, x: c / (2 + x)),
}  # fmt: skip


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, Callable[[dict[str, Any]], Any]]:
    """A random layer, batched or not, and what it computes of arrays by name."""
    extents = {d: draw(st.sampled_from([1, 2, 3, 5])) for d in "bijk"}
    dims = draw(st.sampled_from(["ij", "bij"]))
    element = draw(st.sampled_from(["f32", "f64"]))

    def array(letters: Sequence[str]) -> str:
        return "".join(f"{extents[d]}x" for d in letters) + element

    batch = dims.removesuffix("ij")
    steps: list[Step] = []
    functions: list[Callable[[Any, dict[str, Any]], Any]] = []
    for number in range(draw(st.integers(1, 3))):
        loops = ", ".join(draw(st.permutations(dims)))
        common: dict[str, Any] = {
            "through_ins": draw(st.booleans()),
            "out_map": f"({loops}) -> ({', '.join(dims)})",
            "iterators": ", ".join(['"parallel"'] * len(dims)),
        }
        if draw(st.booleans()):
            lines, unary = UNARY[draw(st.sampled_from(sorted(UNARY)))]
            body = _typed(lines, element)
            functions.append(lambda c, arrays, unary=unary: unary(c))
            steps.append(Step(body=body, **common))
            continue
        lines, binary = BINARY[draw(st.sampled_from(sorted(BINARY)))]
        letters = [d for d in draw(st.permutations(dims)) if draw(st.booleans())]
        name = f"x{number}"
        steps.append(
            Step(
                body=_typed(lines, element),
                name=name,
                operand=array(letters),
                map=f"({loops}) -> ({', '.join(letters)})",
                **common,
            )
        )
        present = "".join(letters)
        functions.append(
            lambda c, arrays, binary=binary, name=name, present=present: binary(
                c, np.einsum(f"{present},{dims}->{dims}", arrays[name], np.ones_like(c))
            )
        )
    text = layer(
        *steps,
        kind=draw(st.sampled_from(["memref", "tensor"])),
        op="linalg.batch_matmul" if batch else "linalg.matmul",
        a=array([*batch, "i", "k"]),
        b=array([*batch, "k", "j"]),
        c=array(dims),
        element=element,
    )

    def expected(arrays: dict[str, Any]) -> Any:
        c = arrays["a"] @ arrays["b"]
        for function in functions:
            c = function(c, arrays)
        return c

    return text, expected


def _typed(lines: Sequence[str], element: str) -> str:
    result = "%y" if lines else "%s"
    return "\n".join([*(f"{x} : {element}" for x in lines), f"linalg.yield {result} : {element}"])


@given(layers())
@settings(deadline=None, max_examples=150)
def test_meaning_is_that_of_numpy(
    random_arrays: Callable[[ModuleOp], dict[str, Any]],
    case: tuple[str, Callable[[dict[str, Any]], Any]],
) -> None:
    text, expected = case
    module = import_mlir(text, "f.mlir")
    assert str(module).count("gemmir.epilogue") == 1
    arrays = random_arrays(module)
    wanted = expected({name: array.astype(np.longdouble) for name, array in arrays.items()})
    evaluate(module, list(arrays.values()))
    # exp of exp of a sum of 5 may be as large as any number: all that is large may be off by more.
    epsilon = float(np.finfo(arrays["c"].dtype).eps)
    finite = np.abs(wanted) < 1e3
    assert np.all(np.abs(arrays["c"] - wanted)[finite] <= 1e6 * epsilon)


# the example


def test_example_is_the_layer_of_the_python_door() -> None:
    gemm = Gemm(m=128, n=3072, k=768, epilogue="bias+gelu")
    text = EXAMPLE.read_text()
    job = prepare_text(text, "cpu:x86-64-v3")
    assert str(job.schedule) == str(prepare(gemm, "cpu:x86-64-v3").schedule)
    assert {"fuse-epilogue", "expand-math"} <= set(job.schedule.steps)
    found, wanted = job.lower().artifact, gemmir.lower(gemm, "cpu:x86-64-v3").artifact
    assert [a.name for a in found.signature.arguments] == ["x", "w", "bias", "h"]
    assert found.text.replace("@mlp(", "@gemm(") == wanted.text


def test_example_gives_the_same_bits() -> None:
    generator = np.random.default_rng(0)
    a, b, bias = (
        generator.uniform(-1, 1, shape).astype(np.float32)
        for shape in ((128, 768), (768, 3072), (3072,))
    )
    kernel = gemmir.lower_text(EXAMPLE.read_text()).compile()
    wanted = gemmir.compile(Gemm(m=128, n=3072, k=768, epilogue="bias+gelu"))(a, b, bias)
    assert np.array_equal(kernel(a, b, bias), wanted)


# refusals

RELU = BUILT_STEPS["relu"]
BIAS = BUILT_STEPS["bias"]
SUM = layer(BIAS)


ZERO_C = "  linalg.fill ins(%zero : f32) outs(%c : memref<4x6xf32>)"


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def swapped(text: str) -> str:
    """The contraction after the operation that follows it."""
    lines = text.splitlines()
    return "\n".join([*lines[:3], *lines[4:-2], lines[3], *lines[-2:]])


REFUSED = {
    "maxnumf": (
        layer(Step(body=yielding("%y = arith.maxnumf %s, %s"))),
        8,
        "arith.maxnumf: the body of an elementwise linalg.generic may only have",
        "use arith.maximumf, which keeps NaN, instead",
    ),
    "tanh": (
        layer(RELU, Step(body=yielding("%k = arith.mulf %s, %s", "%y = math.tanh %k"))),
        16,
        "math.tanh: the body",
        "use math.exp, by tanh(u) = 2 / (1 + exp(-2 u)) - 1, instead",
    ),
    "select": (
        layer(Step(body=yielding("%p = arith.cmpf ogt, %s, %s", "%y = arith.addf %s, %s"))),
        8,
        "arith.cmpf: the body",
    ),
    "integer": (
        layer(Step(body="%i = arith.constant 1 : i32\n      linalg.yield %s : f32")),
        8,
        "arith.constant: gives i32; the elements are f32",
    ),
    "yields two": (
        layer(Step(body="linalg.yield %s, %s : f32, f32")),
        8,
        "linalg.yield: gives f32, f32; the elements are f32",
    ),
    "scalar argument": (
        replaced(layer(TWICE), "%c: memref<4x6xf32>)", "%c: memref<4x6xf32>, %two: f32)"),
        8,
        "arith.mulf: uses a value from outside of the body that is not a constant",
    ),
    "other precision": (
        replaced(
            layer(Step(body=yielding("%y = arith.negf %s"), name="x", operand="6xf64", map=ROW)),
            "%t: f32",
            "%t: f64",
        ),
        5,
        "the body needs 2 arguments of f32, one an operand; it has f64, f32",
    ),
    "operand of other precision": (
        replaced(SUM, "memref<6xf32>", "memref<6xf64>"),
        5,
        "operand 1 has elements of f64; the product has f32",
    ),
    "half precision": (
        replaced(SUM, "memref<6xf32>", "memref<6xbf16>"),
        5,
        "operand 1 has elements of bf16",
    ),
    "extent": (
        layer(adding("x", "5xf32", ROW)),
        5,
        "dimension d1 is 6 in the output and 5 in operand 1",
    ),
    "rank": (
        layer(adding("x", "4x6xf32", ROW)),
        5,
        "operand 1 has rank 2; its map (d0, d1) -> (d1) differs",
    ),
    "dynamic": (layer(adding("x", "?xf32", ROW)), 5, "operand 1 is memref<?xf32>, whose shape"),
    "map computes": (
        layer(adding("x", "6xf32", "(i, j) -> (i + j)")),
        5,
        "must list distinct dimensions, or 0",
    ),
    "diagonal": (
        layer(adding("x", "4x4xf32", "(i, j) -> (i, i)")),
        5,
        "must list distinct dimensions, or 0",
    ),
    "first of none": (
        layer(adding("x", "0x6xf32", "(i, j) -> (0, j)")),
        5,
        "must list distinct dimensions, or 0",
    ),
    "output written along its diagonal": (
        layer(Step(body=yielding("%y = arith.addf %s, %s"), out_map="(i, j) -> (i, i)")),
        5,
        "of the output must list every dimension once",
    ),
    "too few maps": (
        replaced(SUM, f"affine_map<{ROW}>, ", ""),
        5,
        "has 1 indexing_maps; expected one for each of 2",
    ),
    "dimensions": (
        layer(adding("x", "6xf32", "(i, j, k) -> (j)")),
        5,
        "its indexing_maps differ in the number of dimensions from iterator_types",
    ),
    "reads the output turned": (
        layer(
            Step(body=yielding("%y = arith.addf %s, %s"), through_ins=True, ins_map=TURNED),
            a="6x8xf32",
            c="6x6xf32",
        ),
        5,
        "reads %c at another place than it writes",
    ),
    "tensor is turned": (
        replaced(
            layer(
                Step(body=yielding("%y = arith.negf %s"), through_ins=True, ins_map=TURNED),
                kind="tensor",
            ),
            "outs(%r0 : tensor<4x6xf32>)",
            "outs(%e : tensor<6x4xf32>)",
        )
        .replace("} -> tensor<4x6xf32>\n", "} -> tensor<6x4xf32>\n")
        .replace("{\n  %zero", "{ %e = tensor.empty() : tensor<6x4xf32>\n  %zero")
        .replace("return %r1 : tensor<4x6xf32>", "return %r1 : tensor<6x4xf32>")
        .replace(") -> tensor<4x6xf32> {", ") -> tensor<6x4xf32> {"),
        5,
        "reads %r0 at another place than it writes",
    ),
    "two outputs": (
        replaced(
            SUM, "outs(%c : memref<4x6xf32>) {", "outs(%c, %c : memref<4x6xf32>, memref<4x6xf32>) {"
        ),
        5,
        "has 2 outputs; expected 1",
    ),
    "arguments of the body": (
        replaced(SUM, "%t: f32, %s: f32", "%s: f32").replace("%s, %t", "%s, %s"),
        5,
        "the body needs 2 arguments of f32, one an operand; it has f32",
    ),
    "overwrites": (
        layer(Step(body=yielding("%y = arith.negf %t"), name="x")),
        5,
        "linalg.generic: does not read the result of linalg.matmul",
    ),
    "before the contraction": (
        swapped(layer(RELU)),
        4,
        "linalg.generic: stands before linalg.matmul",
    ),
    "writes another array": (
        replaced(
            layer(Step(body=yielding("%y = arith.negf %s"), through_ins=True)),
            "outs(%c : memref<4x6xf32>) {",
            "outs(%d : memref<4x6xf32>) {",
        ).replace("%c: memref", "%d: memref<4x6xf32>, %c: memref", 1),
        5,
        "writes %d, which is not the output of linalg.matmul",
    ),
    "into a temporary": (
        replaced(SUM, "  linalg.fill", "  %d = memref.alloc() : memref<4x6xf32>\n  linalg.fill"),
        3,
        "memref.alloc: cannot be imported beside a contraction",
    ),
    "fill between": (
        replaced(SUM, "  linalg.generic", f"{ZERO_C}\n  linalg.generic"),
        5,
        "linalg.fill: overwrites the result of linalg.matmul",
    ),
    "reduction": (
        layer(RELU, Step(body=RELU.body, iterators='"parallel", "reduction"')),
        12,
        "is neither elementwise nor the first contraction, after linalg.matmul",
    ),
    "attribute": (
        replaced(layer(RELU), "iterator_types =", 'library_call = "x", iterator_types ='),
        5,
        "attribute library_call is not supported",
    ),
    "argument is not used": (
        layer(Step(body=yielding("%y = arith.negf %s"), name="x")),
        1,
        "func.func: argument %x is not used by linalg.matmul",
    ),
    "both kinds": (
        replaced(SUM, "memref<6xf32>", "tensor<6xf32>"),
        5,
        "has both memref and tensor operands",
    ),
    "tensor that is not defined": (
        replaced(layer(BIAS, kind="tensor"), "ins(%bias :", "ins(%e :")
        .replace("%bias: tensor<6xf32>, ", "")
        .replace("  %zero", "  %e = tensor.empty() : tensor<6xf32>\n  %zero"),
        6,
        "reads what tensor.empty makes; it may read arguments and the product",
    ),
    "contraction of a result": (
        replaced(swapped(layer(RELU, kind="tensor")), "outs(%r0 :", "outs(%a :")
        .replace("linalg.matmul ins(%a", "linalg.matmul ins(%r1")
        .replace("4x8xf32", "4x6xf32")
        .replace("8x6xf32", "6x6xf32"),
        11,
        "linalg.matmul: operand 1 is made by linalg.generic; it must be an argument",
    ),
    "tensor of the product": (
        replaced(layer(RELU, kind="tensor"), "return %r1", "return %r0"),
        12,
        "func.return: the function must return the result of linalg.generic and nothing else",
    ),
    "step that leads nowhere": (
        replaced(layer(RELU, BIAS, kind="tensor"), "outs(%r1 :", "outs(%r0 :"),
        5,
        "linalg.generic: its result is not used",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_line(case: str) -> None:
    text, line, *reasons = REFUSED[case]
    with pytest.raises(ParseError, match=rf"^GEM0203: f.mlir: line {line}: ") as caught:
        import_mlir(text, "f.mlir")
    for reason in reasons:
        assert reason in caught.value.message
