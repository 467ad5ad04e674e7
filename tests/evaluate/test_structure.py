"""scf, gemmir.forall and functions: what runs, in which order, on which arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import EvaluationError, evaluate
from gemmir.ir.context import parse_module

Array = npt.NDArray[Any]
Run = Callable[..., None]

CONSTANTS = """
%i0 = arith.constant 0 : index
%i1 = arith.constant 1 : index
%i2 = arith.constant 2 : index
%i5 = arith.constant 5 : index
%x0 = arith.constant 0.0 : f32
%x1 = arith.constant 1.0 : f32
"""


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def test_for_carries_values(run: Run) -> None:
    """Fibonacci: the carried values are exchanged at once."""
    body = """
      %a, %b = scf.for %i = %i0 to %i5 step %i1 iter_args(%p = %x0, %q = %x1) -> (f32, f32) {
        %s = arith.addf %p, %q : f32
        scf.yield %q, %s : f32, f32
      }
      memref.store %a, %m[%i0] : memref<2xf32>
      memref.store %b, %m[%i1] : memref<2xf32>
    """
    m = _zeros(2)
    run("%m: memref<2xf32>", CONSTANTS + body, m)
    np.testing.assert_array_equal(m, [5, 8])


def test_for_stops_before_its_end(run: Run) -> None:
    body = """
      scf.for %i = %i1 to %i5 step %i2 {
        memref.store %x1, %m[%i] : memref<6xf32>
      }
      scf.for %i = %i5 to %i0 step %i1 {
        memref.store %x1, %m[%i] : memref<6xf32>
      }
    """
    m = _zeros(6)
    run("%m: memref<6xf32>", CONSTANTS + body, m)
    np.testing.assert_array_equal(m, [0, 1, 0, 1, 0, 0])


@pytest.mark.parametrize("loop", ["scf.for %i = {} ", "gemmir.forall %i = {} over cores "])
@pytest.mark.parametrize("step", ["%i0", "%minus"])
def test_step_must_be_positive(run: Run, loop: str, step: str) -> None:
    body = "%minus = arith.constant -1 : index\n"
    body += loop.format(f"%i0 to %i5 step {step}") + "{}"
    with pytest.raises(EvaluationError, match=r"GEM0908: .*step (0|-1) is not positive"):
        run("%m: memref<1xf32>", CONSTANTS + body, _zeros(1))


def test_if_runs_one_side(run: Run) -> None:
    body = """
      %yes = arith.constant true
      %no = arith.constant false
      scf.if %no {
        memref.store %x1, %m[%i0] : memref<3xf32>
      }
      scf.if %yes {
        memref.store %x1, %m[%i1] : memref<3xf32>
      } else {
        memref.store %x1, %m[%i0] : memref<3xf32>
      }
      %v = scf.if %no -> (f32) {
        scf.yield %x0 : f32
      } else {
        scf.yield %x1 : f32
      }
      memref.store %v, %m[%i2] : memref<3xf32>
    """
    m = _zeros(3)
    run("%m: memref<3xf32>", CONSTANTS + body, m)
    np.testing.assert_array_equal(m, [0, 1, 1])


def test_forall_runs_in_reverse(run: Run) -> None:
    """A sum over iterations, which they must not make, is seen to start at the end."""
    body = """
      gemmir.forall %i = %i0 to %i5 step %i2 over cores {
        %n = memref.load %count[%i0] : memref<1xf32>
        memref.store %n, %m[%i] : memref<6xf32>
        %next = arith.addf %n, %x1 : f32
        memref.store %next, %count[%i0] : memref<1xf32>
      }
    """
    m = _zeros(6)
    run("%m: memref<6xf32>, %count: memref<1xf32>", CONSTANTS + body, m, _zeros(1))
    np.testing.assert_array_equal(m, [2, 0, 1, 0, 0, 0])


def test_the_innermost_op_is_named_once(run: Run) -> None:
    body = """
      scf.for %i = %i0 to %i5 step %i1 {
        %x = memref.load %m[%i] : memref<2xf32>
      }
    """
    with pytest.raises(EvaluationError) as caught:
        run("%m: memref<2xf32>", CONSTANTS + body, _zeros(2))
    assert "memref.load" in caught.value.message
    assert "scf.for" not in caught.value.message
    assert "at [2] of 2" in caught.value.message


SIGNATURE = '%m: memref<2x3xf32, strided<[4, 1]>> {gemmir.name = "c"}'


@pytest.mark.parametrize(
    ("array", "number"),
    [
        (_zeros(2, 3), r"\[12, 4\]"),
        (_zeros(3, 4)[:, :3], "3x3xfloat32"),
        (np.zeros((2, 4))[:, :3], "float64"),
        (_zeros(2, 8)[:, ::2][:, :3], r"\[32, 8\]"),
        (_zeros(4, 2).T[:, :3], r"\[4, 8\]"),
        (np.ndarray((2, 3), np.float32, bytes(64), strides=(16, 5)), r"\[16, 5\]"),
    ],
)
def test_arrays_must_fit(run: Run, array: Array, number: str) -> None:
    with pytest.raises(EvaluationError, match=rf"GEM0902: .*argument 0 \(c\): .*{number}"):
        run(SIGNATURE, "", array)


def test_strides_of_single_rows_do_not_matter(run: Run) -> None:
    body = "memref.store %x1, %m[%i0, %i1] : memref<1x3xf32, strided<[4, 1]>>"
    for m in (_zeros(5, 3)[::5], _zeros(5, 3)[::-5]):
        run("%m: memref<1x3xf32, strided<[4, 1]>>", CONSTANTS + body, m)
        np.testing.assert_array_equal(m, [[0, 1, 0]])


def test_arguments_are_counted(run: Run) -> None:
    with pytest.raises(EvaluationError, match=r"GEM0902: .*2 arrays for 1 arguments"):
        run("%m: memref<1xf32>", "", _zeros(1), _zeros(1))


def test_arguments_are_memrefs(run: Run) -> None:
    with pytest.raises(EvaluationError, match=r"GEM0902: .*f32 is not a memref"):
        run("%m: f32", "", _zeros(1))


TWO = """
func.func @one(%m: memref<1xf32>) {
  %i = arith.constant 0 : index
  %x = arith.constant 1.0 : f32
  memref.store %x, %m[%i] : memref<1xf32>
  func.return
}
func.func @two(%m: memref<1xf32>) {
  %i = arith.constant 0 : index
  %x = arith.constant 2.0 : f32
  memref.store %x, %m[%i] : memref<1xf32>
  func.return
}
"""


def test_symbol_chooses_the_function() -> None:
    m = _zeros(1)
    evaluate(parse_module(TWO), [m], symbol="two")
    assert m[0] == 2


@pytest.mark.parametrize(
    ("text", "symbol", "message"),
    [
        (TWO, None, "2 functions"),
        (TWO, "three", "no function 'three'; known: one, two"),
        ("builtin.module {}", None, "0 functions"),
        ("func.func private @f(memref<1xf32>)", None, "no body"),
        ("func.func @f(%m: memref<1xf32>) -> memref<1xf32> {func.return %m : memref<1xf32>}",
         None, "results"),
    ],
)  # fmt: skip
def test_functions_that_cannot_run(text: str, symbol: str | None, message: str) -> None:
    with pytest.raises(EvaluationError, match=f"GEM0901: .*{message}"):
        evaluate(parse_module(text), [_zeros(1)], symbol=symbol)
