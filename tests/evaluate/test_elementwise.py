"""arith and math, on vectors and on scalars."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import EvaluationError

Array = npt.NDArray[Any]
Compute = Callable[[str, str, Sequence[Array]], Array]
Run = Callable[..., None]

NAN = math.nan


def _row(*values: float, dtype: Any = np.float32) -> Array:
    return np.array([values], dtype)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("arith.addf %x0, %x1", [3.0, -3.0, 1.0, NAN]),
        ("arith.subf %x0, %x1", [-1.0, 1.0, -1.0, NAN]),
        ("arith.mulf %x0, %x1", [2.0, 2.0, 0.0, NAN]),
        ("arith.divf %x0, %x1", [0.5, 0.5, 0.0, NAN]),
        ("arith.maximumf %x0, %x1", [2.0, -1.0, 1.0, NAN]),
        ("arith.minimumf %x0, %x1", [1.0, -2.0, 0.0, NAN]),
        ("arith.negf %x0", [-1.0, 1.0, 0.0, NAN]),
    ],
)
@pytest.mark.parametrize("element", ["f32", "f64"])
def test_floating_point_arithmetic(
    compute: Compute, element: str, op: str, expected: list[float]
) -> None:
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x, y = _row(1, -1, 0, NAN, dtype=dtype), _row(2, -2, 1, 1, dtype=dtype)
    found = compute(f"%y = {op} : VECTOR", element, [x, y])
    np.testing.assert_array_equal(found, _row(*expected, dtype=dtype))


@pytest.mark.parametrize(("op", "negative"), [("maximumf", False), ("minimumf", True)])
def test_zeros_are_ordered_by_sign(compute: Compute, op: str, negative: bool) -> None:
    zeros = [_row(0.0, -0.0), _row(-0.0, 0.0)]
    found = compute(f"%y = arith.{op} %x0, %x1 : VECTOR", "f32", zeros)
    np.testing.assert_array_equal(np.signbit(found), [[negative, negative]])


def test_f32_is_not_widened(compute: Compute) -> None:
    big = _row(2.0**24)
    one = _row(1)
    assert compute("%y = arith.addf %x0, %x1 : VECTOR", "f32", [big, one])[0, 0] == 2.0**24


def test_fma_rounds_once_in_f32(compute: Compute) -> None:
    x = _row(1 + 2.0**-12)
    minus_square = _row(-(1 + 2.0**-11))
    found = compute("%y = math.fma %x0, %x0, %x1 : VECTOR", "f32", [x, minus_square])
    assert found[0, 0] == 2.0**-24


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_exp_and_roundeven(compute: Compute, element: str) -> None:
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x = _row(0.5, 1.5, 2.5, -0.5, NAN, 1e4, dtype=dtype)
    rounded = compute("%y = math.roundeven %x0 : VECTOR", element, [x])
    np.testing.assert_array_equal(rounded, _row(0, 2, 2, 0, NAN, 1e4, dtype=dtype))
    exact = [math.exp(v) for v in (0.5, 1.5, 2.5, -0.5)]
    found = compute("%y = math.exp %x0 : VECTOR", element, [x])
    np.testing.assert_allclose(
        found, _row(*exact, NAN, math.inf, dtype=dtype), rtol=float(np.finfo(dtype).eps)
    )


def test_bits_make_a_power_of_two(compute: Compute) -> None:
    ops = """
      %bits = arith.bitcast %x0 : vector<1x3xf32> to vector<1x3xi32>
      %one = arith.constant dense<1> : vector<1x3xi32>
      %width = arith.constant dense<[[23, 23, 24]]> : vector<1x3xi32>
      %step = arith.shli %one, %width : vector<1x3xi32>
      %next = arith.addi %bits, %step : vector<1x3xi32>
      %y = arith.bitcast %next : vector<1x3xi32> to vector<1x3xf32>
    """
    found = compute(ops, "f32", [_row(1, 3, 1)])
    np.testing.assert_array_equal(found, _row(2, 6, 4))


def test_dense_constants_keep_their_order(compute: Compute) -> None:
    ops = """
      %c = arith.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : VECTOR
      %s = arith.constant dense<10.0> : VECTOR
      %y = arith.addf %c, %s : VECTOR
    """
    found = compute(ops, "f64", [np.zeros((2, 2))])
    np.testing.assert_array_equal(found, [[11, 12], [13, 14]])


_STORE_INDEX = """
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  {ops}
  %i0 = arith.constant 0 : index
  memref.store %y, %m[%i0] : memref<1xf32>
"""


def _scalar(run: Run, ops: str) -> float:
    found = np.full(1, NAN, np.float32)
    run("%m: memref<1xf32>", _STORE_INDEX.format(ops=ops), found)
    return float(found[0])


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("addi", 7, -3, 4),
        ("subi", 7, -3, 10),
        ("muli", 7, -3, -21),
        ("minsi", 7, -3, -3),
        ("remsi", -7, 3, -1),
        ("remsi", 7, -3, 1),
        ("andi", 6, 3, 2),
        ("ori", 6, 3, 7),
        ("shli", 3, 2, 12),
    ],
)
@pytest.mark.parametrize("integer", ["index", "i32", "i64"])
def test_integer_arithmetic(run: Run, integer: str, op: str, a: int, b: int, expected: int) -> None:
    ops = f"""
      %a = arith.constant {a} : {integer}
      %b = arith.constant {b} : {integer}
      %x = arith.{op} %a, %b : {integer}
      %expected = arith.constant {expected} : {integer}
      %same = arith.cmpi eq, %x, %expected : {integer}
      %y = arith.select %same, %one, %zero : f32
    """
    assert _scalar(run, ops) == 1


def test_i32_wraps(run: Run) -> None:
    ops = """
      %a = arith.constant 2147483647 : i32
      %b = arith.constant 1 : i32
      %x = arith.addi %a, %b : i32
      %negative = arith.cmpi slt, %x, %b : i32
      %y = arith.select %negative, %one, %zero : f32
    """
    assert _scalar(run, ops) == 1


_INTEGER_ANSWERS = {
    "eq": (False, False, True),
    "ne": (True, True, False),
    "slt": (True, False, False),
    "sle": (True, False, True),
    "sgt": (False, True, False),
    "sge": (False, True, True),
    "ult": (False, True, False),
    "ule": (False, True, True),
    "ugt": (True, False, False),
    "uge": (True, False, True),
}


@pytest.mark.parametrize("integer", ["index", "i32"])
@pytest.mark.parametrize("predicate", _INTEGER_ANSWERS)
def test_integer_comparisons(run: Run, integer: str, predicate: str) -> None:
    for (a, b), expected in zip(
        [(-1, 1), (1, -1), (2, 2)], _INTEGER_ANSWERS[predicate], strict=True
    ):
        ops = f"""
          %a = arith.constant {a} : {integer}
          %b = arith.constant {b} : {integer}
          %c = arith.cmpi {predicate}, %a, %b : {integer}
          %y = arith.select %c, %one, %zero : f32
        """
        assert _scalar(run, ops) == expected


# Answers for (1, 2), (2, 1), (1, 1) and (NaN, 1).
_FLOAT_ANSWERS = {
    "false": (False, False, False, False),
    "oeq": (False, False, True, False),
    "ogt": (False, True, False, False),
    "oge": (False, True, True, False),
    "olt": (True, False, False, False),
    "ole": (True, False, True, False),
    "one": (True, True, False, False),
    "ord": (True, True, True, False),
    "ueq": (False, False, True, True),
    "ugt": (False, True, False, True),
    "uge": (False, True, True, True),
    "ult": (True, False, False, True),
    "ule": (True, False, True, True),
    "une": (True, True, False, True),
    "uno": (False, False, False, True),
    "true": (True, True, True, True),
}


@pytest.mark.parametrize("predicate", _FLOAT_ANSWERS)
def test_float_comparisons_on_scalars_and_tiles(run: Run, predicate: str) -> None:
    """The body of an epilogue is evaluated on whole tiles at once."""
    x = np.array([[1, 2, 1, NAN]], np.float32)
    y = np.array([[2, 1, 1, 1]], np.float32)
    out = np.full((1, 4), NAN, np.float32)
    body = f"""
      gemmir.epilogue ins(%x, %y : memref<1x4xf32>, memref<1x4xf32>) outs(%z : memref<1x4xf32>) {{
      ^bb0(%a: f32, %b: f32, %old: f32):
        %zero = arith.constant 0.0 : f32
        %one = arith.constant 1.0 : f32
        %c = arith.cmpf {predicate}, %a, %b : f32
        %r = arith.select %c, %one, %zero : f32
        gemmir.yield %r : f32
      }}
    """
    run("%x: memref<1x4xf32>, %y: memref<1x4xf32>, %z: memref<1x4xf32>", body, x, y, out)
    np.testing.assert_array_equal(out[0], _FLOAT_ANSWERS[predicate])
    ops = f"""
      %c = arith.cmpf {predicate}, %zero, %one : f32
      %y = arith.select %c, %one, %zero : f32
    """
    assert _scalar(run, ops) == _FLOAT_ANSWERS[predicate][0]


def test_conversions(run: Run) -> None:
    """Rounds towards zero; what does not fit, and NaN, become the least integer."""
    body = """
      gemmir.epilogue outs(%m : memref<1x5xf32>) {
      ^bb0(%x: f32):
        %i = arith.fptosi %x : f32 to i8
        %w = arith.extsi %i : i8 to i32
        %r = arith.bitcast %w : i32 to f32
        gemmir.yield %r : f32
      }
    """
    m = np.array([[1.9, -1.9, 127.5, 128, NAN]], np.float32)
    run("%m: memref<1x5xf32>", body, m)
    np.testing.assert_array_equal(m.view(np.int32), [[1, -1, 127, -128, -128]])


def test_i1_extends_to_minus_one(run: Run) -> None:
    ops = """
      %c = arith.cmpf olt, %zero, %one : f32
      %w = arith.extsi %c : i1 to i32
      %minus = arith.constant -1 : i32
      %same = arith.cmpi eq, %w, %minus : i32
      %y = arith.select %same, %one, %zero : f32
    """
    assert _scalar(run, ops) == 1


def test_remainder_of_zero_is_an_error(run: Run) -> None:
    ops = """
      %a = arith.constant 1 : index
      %b = arith.constant 0 : index
      %x = arith.remsi %a, %b : index
      %y = arith.constant 0.0 : f32
    """
    with pytest.raises(EvaluationError, match=r"GEM0903: .*arith\.remsi"):
        _scalar(run, ops)


def test_an_op_without_a_meaning_is_named(run: Run) -> None:
    body = "%c = arith.constant 1 : index\n%d = arith.floordivsi %c, %c : index"
    with pytest.raises(EvaluationError, match=r"GEM0903: .*no meaning for arith\.floordivsi"):
        run("%m: memref<1xf32>", body, np.zeros(1, np.float32))
