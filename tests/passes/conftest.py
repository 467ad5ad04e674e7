"""Running passes one by one over a problem whose answer is exact in every order of summation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import ModuleOp

from gemmir.dtypes import ELEMENTS
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm, Operand
from gemmir.int4 import pack_int4
from gemmir.ir.build import build
from gemmir.lowering import run_pass
from gemmir.schedule import Schedule

Array = npt.NDArray[Any]


def _array(operand: Operand, generator: np.random.Generator) -> Array:
    """Whole numbers from -3 to 3, laid out as `operand` says: sums of their products are exact."""
    element = ELEMENTS[operand.dtype]
    memory = generator.integers(-3, 4, operand.span).astype(element.numpy)
    if element.per_byte > 1:
        memory = pack_int4(memory)
    strides = [s * memory.itemsize for s in element.stored_strides(operand.strides)]
    return np.ndarray(element.stored_shape(operand.shape), memory.dtype, memory, strides=strides)


def _require_meaning(module: ModuleOp, gemm: Gemm, step: str) -> None:
    generator = np.random.default_rng(0)
    arrays = {o.name: _array(o, generator) for o in gemm.operands}
    exact = gemm.reference(arrays)
    if not gemm.beta and arrays["c"].dtype.kind not in "iu":
        arrays["c"][...] = np.nan
    evaluate(module, list(arrays.values()))
    bound = gemm.error_bound(arrays) if {"gelu", "silu"} & set(gemm.steps) else 0
    wrong = ~(np.abs(arrays["c"] - exact) <= bound)
    assert not wrong.any(), f"after {step or 'build'}, first at {np.argwhere(wrong)[0]}"


def _after(gemm: Gemm, schedule: str) -> ModuleOp:
    module = build(gemm)
    _require_meaning(module, gemm, "")
    chosen = Schedule.parse(schedule)
    for step, p in zip(chosen.steps, chosen.passes, strict=True):
        run_pass(p, module, verify=True)
        _require_meaning(module, gemm, step)
    return module


@pytest.fixture(scope="session")
def after() -> Callable[[Gemm, str], ModuleOp]:
    """after(gemm, schedule): the module after all passes.

    After each of them it must verify and still compute `gemm`: to the bit, or within the bound
    where an epilogue has exponentials. An output that is not read is NaN before.
    """
    return _after
