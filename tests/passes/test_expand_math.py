"""expand-math: exp on vectors as arithmetic, to the last bit or two."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects import math
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.context import make_context, parse_module
from gemmir.passes.expand_math import F32, F64, ExpandMath, ExpFormat

After = Callable[[Gemm, str], ModuleOp]
Array = npt.NDArray[Any]

C = "promote{operand=c to=registers}"
V = "vectorize{with=fma width=4}"

EXP = """
func.func @f(%x: memref<1x{n}x{t}>, %y: memref<1x{n}x{t}>) {{
  %0 = arith.constant 0 : index
  %pad = arith.constant 0.0 : {t}
  %v = vector.transfer_read %x[%0, %0], %pad {{in_bounds = [true, true]}}
    : memref<1x{n}x{t}>, vector<1x{n}x{t}>
  %e = math.exp %v : vector<1x{n}x{t}>
  vector.transfer_write %e, %y[%0, %0] {{in_bounds = [true, true]}}
    : vector<1x{n}x{t}>, memref<1x{n}x{t}>
  func.return
}}
"""


def expanded_exp(values: Sequence[float] | Array, element: str) -> Array:
    """exp of `values`, as the expanded arithmetic computes it."""
    x = np.array([values], {"f32": np.float32, "f64": np.float64}[element])
    module = parse_module(EXP.format(n=x.size, t=element))
    ExpandMath().apply(make_context(), module)
    module.verify()
    y = np.full_like(x, np.nan)
    evaluate(module, [x, y])
    return y[0]


@pytest.mark.parametrize(("element", "format_"), [("f32", F32), ("f64", F64)])
def test_the_error_is_below_two_units_in_the_last_place(element: str, format_: ExpFormat) -> None:
    generator = np.random.default_rng(0)
    near, far = generator.uniform(-1, 1, 4000), generator.uniform(format_.low, format_.high, 4000)
    dtype = np.float32 if element == "f32" else np.float64
    x = np.concatenate([near, far, [0.0, format_.low, format_.high]]).astype(dtype)
    exact = np.exp(x.astype(np.longdouble))
    error = np.abs(expanded_exp(x, element) - exact) / np.spacing(exact.astype(dtype))
    assert error.max() < 2


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_exp_of_zero_is_one(element: str) -> None:
    assert expanded_exp([0.0, -0.0], element).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_far_out_it_stays_finite_and_positive(element: str) -> None:
    low, high = expanded_exp([-np.inf, np.inf], element)
    assert 0 < low < 1e-37
    assert 1e38 < high < np.inf


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_nan_stays_nan(element: str) -> None:
    assert np.isnan(expanded_exp([np.nan], element)).all()


@pytest.mark.parametrize("epilogue", ["gelu", "silu", "bias+gelu+residual", "silu+gelu"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_meaning_stays(after: After, epilogue: str, dtype: str) -> None:
    gemm = Gemm(m=5, n=7, k=3, dtype=dtype, epilogue=epilogue)
    module = after(gemm, f"tile{{loops=m,n sizes=3,4}},{C},fuse-epilogue,{V},expand-math")
    assert not any(isinstance(op, math.ExpOp) for op in module.walk())


@pytest.mark.parametrize(
    "schedule",
    ["expand-math", f"{C},expand-math", f"{C},{V},expand-math,expand-math"],
)
def test_errors(after: After, schedule: str) -> None:
    with pytest.raises(ScheduleError, match="put it after vectorize") as found:
        after(Gemm(m=3, n=4, k=3, epilogue="gelu"), schedule)
    assert found.value.code == "GEM0385"
