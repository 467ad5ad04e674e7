"""Arrays for the arguments of a module."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import MemRefType, ModuleOp, NoneAttr, StringAttr

from gemmir.ir.build import ARGUMENT_NAME, packed_strides
from gemmir.ir.dialect import memref_type, static_strides

Array = npt.NDArray[Any]
MakeArrays = Callable[[ModuleOp], dict[str, Array]]


def _random_array(kind: MemRefType[Any], generator: np.random.Generator) -> Array:
    shape = kind.get_shape()
    packed = isinstance(kind.layout, NoneAttr)
    strides = packed_strides(shape) if packed else static_strides(kind)
    dtype = np.dtype({"f32": np.float32, "f64": np.float64}[str(kind.element_type)])
    span = 1 + sum((max(n, 1) - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = generator.uniform(-1, 1, span).astype(dtype)
    return np.ndarray(shape, dtype, memory, strides=[s * dtype.itemsize for s in strides])


def _random_arrays(module: ModuleOp) -> dict[str, Array]:
    (function,) = (op for op in module.ops if isinstance(op, func.FuncOp))
    generator = np.random.default_rng(0)
    assert function.arg_attrs is not None
    found: dict[str, Array] = {}
    for value, attributes in zip(function.body.block.args, function.arg_attrs, strict=True):
        known: Mapping[str, Any] = attributes.data
        name = known[ARGUMENT_NAME]
        assert isinstance(name, StringAttr)
        found[name.data] = _random_array(memref_type(value), generator)
    return found


@pytest.fixture(scope="session")
def random_arrays() -> MakeArrays:
    """Makes arrays by name, in the order of the arguments, laid out as their types say."""
    return _random_arrays
