"""pallas: blocks of a grid, what is copied when, and what is past the edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmir.evaluate import EvaluationError, evaluate
from gemmir.ir.context import parse_module

Array = npt.NDArray[Any]
Run = Callable[..., None]

VMEM = "#gemmir.space<vmem>"
CONSTANTS = """
%zero = arith.constant 0 : index
%one = arith.constant 1 : index
%two = arith.constant 2 : index
%none = arith.constant 0.0 : f32
%ones = arith.constant dense<1.0> : vector<2x4xf32>
"""
MATRIX = "memref<5x4xf32>"
"""Three blocks of 2 x 4, the last of which has one row."""

ROWS = "#pallas.block<[2, 4], affine_map<(d0) -> (d0, 0)>, 2>"
BLOCK = f"memref<2x4xf32, {VMEM}>"
VECTOR = "vector<2x4xf32>"


def iota(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def read(name: str, block: str) -> str:
    """All of a block."""
    return (
        f"%{name} = vector.transfer_read %{block}[%zero, %zero], %none {{in_bounds = [true, true]}}"
        f" : {BLOCK}, {VECTOR}"
    )


def write(name: str, block: str) -> str:
    """All of a block."""
    return (
        f"vector.transfer_write %{name}, %{block}[%zero, %zero] {{in_bounds = [true, true]}}"
        f" : {VECTOR}, {BLOCK}"
    )


def call(
    body: Sequence[str],
    *,
    grid: str = "[3]",
    semantics: str = '["arbitrary"]',
    blocks: Sequence[str] = (ROWS, ROWS),
    scratch: bool = False,
) -> str:
    """A call that reads %x and writes %y, by blocks %in and %out."""
    indices = [f"%i{n}: index" for n in range(grid.count(",") + 1)]
    kept = [f"%kept: {BLOCK}"] if scratch else []
    arguments = ", ".join([*indices, f"%in: {BLOCK}", f"%out: {BLOCK}", *kept])
    lines = "\n".join(body)
    return (
        f"{CONSTANTS}pallas.call grid {grid} semantics {semantics} ins(%x : {MATRIX}) "
        f"outs(%y : {MATRIX}) blocks [{', '.join(blocks)}] {{\n^bb0({arguments}):\n{lines}\n"
        "gemmir.yield\n}"
    )


def run_call(run: Run, text: str, x: Array, y: Array) -> None:
    run(f"%x: {MATRIX}, %y: {MATRIX}", text, x, y)


def test_what_is_past_the_edge_is_not_copied_back(run: Run) -> None:
    x, y = iota(5, 4), np.full((5, 4), np.nan, np.float32)
    run_call(run, call([read("v", "in"), write("v", "out")]), x, y)
    np.testing.assert_array_equal(y, x)


def test_what_is_past_the_edge_is_undefined_where_it_is_read(run: Run) -> None:
    """The second row of the last block is moved to its first."""
    body = [
        f"%row = memref.subview %in[1, 0] [1, 4] [1, 1] : {BLOCK} to "
        f"memref<1x4xf32, strided<[4, 1], offset: 4>, {VMEM}>",
        "%v = vector.transfer_read %row[%zero, %zero], %none {in_bounds = [true, true]} : "
        f"memref<1x4xf32, strided<[4, 1], offset: 4>, {VMEM}>, vector<1x4xf32>",
        "vector.transfer_write %v, %out[%zero, %zero] {in_bounds = [true, true]} : "
        f"vector<1x4xf32>, {BLOCK}",
    ]
    x, y = iota(5, 4), iota(5, 4)
    run_call(run, call(body), x, y)
    np.testing.assert_array_equal(y[[0, 2]], x[[1, 3]])
    assert np.isnan(y[[1, 3, 4]]).all()


def test_an_output_begins_as_undefined_and_is_copied_back_whole(run: Run) -> None:
    y = iota(5, 4)
    run_call(run, call([read("v", "out"), write("v", "out")]), iota(5, 4), y)
    assert np.isnan(y).all()


def test_steps_that_use_the_same_block_find_what_was_left_in_it(run: Run) -> None:
    """Two steps a block: the first writes, the second adds."""
    pairs = "#pallas.block<[2, 4], affine_map<(d0, d1) -> (d0, 0)>, 2>"
    body = [
        "%first = arith.cmpi eq, %i1, %zero : index",
        read("new", "in"),
        read("left", "out"),
        f"%old = arith.select %first, %new, %left : {VECTOR}",
        f"%sum = arith.addf %old, %ones : {VECTOR}",
        write("sum", "out"),
    ]
    text = call(body, grid="[3, 2]", semantics='["parallel", "arbitrary"]', blocks=(pairs, pairs))
    x, y = iota(5, 4), np.zeros((5, 4), np.float32)
    run_call(run, text, x, y)
    np.testing.assert_array_equal(y, x + 2)


def test_a_block_that_is_left_and_used_again_begins_as_undefined(run: Run) -> None:
    """The loop over blocks is the inner one: between two visits of a block there are others."""
    pairs = "#pallas.block<[2, 4], affine_map<(d0, d1) -> (d1, 0)>, 2>"
    body = [
        "%first = arith.cmpi eq, %i0, %zero : index",
        read("new", "in"),
        read("left", "out"),
        f"%old = arith.select %first, %new, %left : {VECTOR}",
        write("old", "out"),
    ]
    text = call(body, grid="[2, 3]", semantics='["arbitrary", "arbitrary"]', blocks=(pairs, pairs))
    y = np.zeros((5, 4), np.float32)
    run_call(run, text, iota(5, 4), y)
    assert np.isnan(y).all()


def test_an_input_is_copied_once_while_its_block_does_not_change(run: Run) -> None:
    """x and y are one array: a step that writes y finds x as it was when its block came."""
    whole = "#pallas.block<[2, 4], affine_map<(d0) -> (0, 0)>, 1>"
    body = [read("v", "in"), f"%w = arith.addf %v, %ones : {VECTOR}", write("w", "out")]
    x = iota(5, 4)
    before = x.copy()
    text = f"{call(body, blocks=(whole, ROWS))}".replace("outs(%y", "outs(%x")
    run(f"%x: {MATRIX}", text, x)
    np.testing.assert_array_equal(x, np.concatenate([before[:2]] * 3)[:5] + 1)


def test_an_array_is_changed_in_place(run: Run) -> None:
    """Blocks that no step uses stay as they are."""
    last = "#pallas.block<[2, 4], affine_map<(d0) -> (2, 0)>, 2>"
    body = [read("v", "in"), f"%w = arith.addf %v, %ones : {VECTOR}", write("w", "out")]
    x = iota(5, 4)
    text = call(body, grid="[1]", blocks=(last, last)).replace("outs(%y", "outs(%x")
    run(f"%x: {MATRIX}", text, x)
    np.testing.assert_array_equal(x[:4], iota(5, 4)[:4])
    np.testing.assert_array_equal(x[4], iota(5, 4)[4] + 1)


COUNT = [
    "%first = arith.cmpi eq, %i0, %START : index",
    f"scf.if %first {{\n{write('ones', 'kept')}\n}}",
    read("v", "kept"),
    write("v", "out"),
    f"%w = arith.addf %v, %ones : {VECTOR}",
    write("w", "kept"),
]
"""Each step stores how many there were before it, and itself."""


def test_scratch_keeps_what_a_step_leaves(run: Run) -> None:
    y = np.zeros((5, 4), np.float32)
    text = call([line.replace("START", "zero") for line in COUNT], scratch=True)
    run_call(run, text, iota(5, 4), y)
    assert y[:, 0].tolist() == [1, 1, 2, 2, 3]


def test_scratch_begins_as_undefined(run: Run) -> None:
    y = np.zeros((5, 4), np.float32)
    run_call(run, call([read("v", "kept"), write("v", "out")], scratch=True), iota(5, 4), y)
    assert np.isnan(y).all()


def test_parallel_steps_run_from_the_last_to_the_first(run: Run) -> None:
    """A step that needs what an earlier one left in scratch shows."""
    forwards = [line.replace("START", "zero") for line in COUNT]
    backwards = [line.replace("START", "two") for line in COUNT]
    y = np.zeros((5, 4), np.float32)
    text = call(forwards, semantics='["parallel"]', scratch=True)
    run_call(run, text, iota(5, 4), y)
    assert np.isnan(y[2:]).all()
    text = call(backwards, semantics='["parallel"]', scratch=True)
    run_call(run, text, iota(5, 4), y)
    assert y[:, 0].tolist() == [3, 3, 2, 2, 1]


def test_a_grid_without_steps_does_nothing(run: Run) -> None:
    y = iota(5, 4)
    run_call(run, call([write("ones", "out")], grid="[0]"), iota(5, 4), y)
    np.testing.assert_array_equal(y, iota(5, 4))


def test_a_read_beyond_a_block_is_a_fault(run: Run) -> None:
    body = [
        "%v = vector.transfer_read %in[%one, %zero], %none {in_bounds = [true, true]} : "
        f"{BLOCK}, {VECTOR}",
        write("v", "out"),
    ]
    with pytest.raises(EvaluationError) as found:
        run_call(run, call(body), iota(5, 4), iota(5, 4))
    assert found.value.code == "GEM0904"


def test_a_matrix_of_a_batch(run: Run) -> None:
    block = "#pallas.block<[1, 2, 4], affine_map<(d0, d1) -> (d0, d1, 0)>, 2>"
    body = "\n".join([read("v", "in"), f"%w = arith.addf %v, %ones : {VECTOR}", write("w", "out")])
    text = (
        f'{CONSTANTS}pallas.call grid [2, 3] semantics ["parallel", "parallel"] '
        f"ins(%x : memref<2x5x4xf32>) outs(%y : memref<2x5x4xf32>) blocks [{block}, {block}] {{\n"
        f"^bb0(%s: index, %i: index, %in: {BLOCK}, %out: {BLOCK}):\n{body}\ngemmir.yield\n}}"
    )
    x, y = iota(2, 5, 4), np.full((2, 5, 4), np.nan, np.float32)
    run("%x: memref<2x5x4xf32>, %y: memref<2x5x4xf32>", text, x, y)
    np.testing.assert_array_equal(y, x + 1)


@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), tile=st.tuples(*[st.integers(1, 5)] * 2)
)
def test_blocks_of_any_size_cover_an_array(rows: int, columns: int, tile: tuple[int, int]) -> None:
    r, c = tile
    shape, of = f"memref<{rows}x{columns}xf32>", f"memref<{r}x{c}xf32, {VMEM}>"
    vector = f"vector<{r}x{c}xf32>"
    block = f"#pallas.block<[{r}, {c}], affine_map<(d0, d1) -> (d0, d1)>, 2>"
    text = f"""
    func.func @f(%x: {shape}, %y: {shape}) {{
      %zero = arith.constant 0 : index
      %none = arith.constant 0.0 : f32
      pallas.call grid [{-(-rows // r)}, {-(-columns // c)}] semantics ["parallel", "parallel"]
          ins(%x : {shape}) outs(%y : {shape}) blocks [{block}, {block}] {{
      ^bb0(%i: index, %j: index, %in: {of}, %out: {of}):
        %v = vector.transfer_read %in[%zero, %zero], %none {{in_bounds = [true, true]}}
           : {of}, {vector}
        vector.transfer_write %v, %out[%zero, %zero] {{in_bounds = [true, true]}} : {vector}, {of}
        gemmir.yield
      }}
      func.return
    }}
    """
    x, y = iota(rows, columns), np.full((rows, columns), np.nan, np.float32)
    evaluate(parse_module(text), [x, y])
    np.testing.assert_array_equal(y, x)


DOT = """
%z = pallas.dot %l, %r PRECISION : vector<2x3xTYPE>, vector<3x4xTYPE> -> vector<2x4xSUM>
vector.transfer_write %z, %c[%zero, %zero] {in_bounds = [true, true]}
  : vector<2x4xSUM>, memref<2x4xSUM>
"""


def dot(run: Run, a: Array, b: Array, element: str, summed: str, precision: str = "") -> Array:
    """a @ b by pallas.dot."""
    c = np.zeros((2, 4), np.int32 if summed == "i32" else np.float32)
    pad = f"%pad = arith.constant {'0' if summed == 'i32' else '0.0'} : {element}"
    reads = "\n".join(
        f"%{v} = vector.transfer_read %{m}[%zero, %zero], %pad {{in_bounds = [true, true]}} : "
        f"memref<{shape}x{element}>, vector<{shape}x{element}>"
        for v, m, shape in (("l", "a", "2x3"), ("r", "b", "3x4"))
    )
    body = DOT.replace("TYPE", element).replace("SUM", summed).replace("PRECISION", precision)
    arguments = f"%a: memref<2x3x{element}>, %b: memref<3x4x{element}>, %c: memref<2x4x{summed}>"
    run(arguments, f"{CONSTANTS}{pad}\n{reads}\n{body}", a, b, c)
    return c


@pytest.mark.parametrize(
    ("element", "summed", "dtype"),
    [
        ("f32", "f32", np.float32),
        ("bf16", "f32", ml_dtypes.bfloat16),
        ("i8", "i32", np.int8),
        ("f8E4M3FN", "f32", ml_dtypes.float8_e4m3fn),
        ("f8E5M2", "f32", ml_dtypes.float8_e5m2),
    ],
)
def test_a_product_is_summed_in_the_accumulator(
    run: Run, element: str, summed: str, dtype: Any
) -> None:
    a, b = (np.arange(n, dtype=np.float32) - 5 for n in (6, 12))
    a, b = a.reshape(2, 3).astype(dtype), b.reshape(3, 4).astype(dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_array_equal(dot(run, a, b, element, summed), expected)


def test_factors_are_rounded_as_the_precision_says(run: Run) -> None:
    """1 + 2^-9 is 1 in bf16; hi + lo has it, and drops only lo lo."""
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 4), np.float32)
    a[0, 0] = b[0, 0] = 1 + 2**-9
    found = [
        dot(run, a, b, "f32", "f32", p)[0, 0]
        for p in ("precision <bf16x1>", "precision <bf16x3>", "")
    ]
    assert found == [1, 1 + 2**-8, np.float32(a[0, 0] * a[0, 0])]
