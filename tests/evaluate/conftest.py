"""Running snippets of IR on arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import evaluate
from gemmir.ir.context import parse_module

Array = npt.NDArray[Any]


def _run(arguments: str, body: str, *arrays: Array) -> None:
    text = f"func.func @f({arguments}) {{\n{body}\nfunc.return\n}}"
    evaluate(parse_module(text), arrays)


def _compute(ops: str, types: str, inputs: Sequence[Array]) -> Array:
    """%y, as `ops` compute it from %x0, %x1 ..; `types` is the one element type, f32 or f64."""
    shape = "x".join(map(str, inputs[0].shape))
    vector, memref = f"vector<{shape}x{types}>", f"memref<{shape}x{types}>"
    arguments = [f"%m{i}: {memref}" for i in range(len(inputs))]
    reads = [
        f"%x{i} = vector.transfer_read %m{i}[%zero, %zero], %pad {{in_bounds = [true, true]}} "
        f": {memref}, {vector}"
        for i in range(len(inputs))
    ]
    body = [
        "%zero = arith.constant 0 : index",
        f"%pad = arith.constant 0.0 : {types}",
        *reads,
        ops.replace("VECTOR", vector),
        f"vector.transfer_write %y, %out[%zero, %zero] {{in_bounds = [true, true]}} "
        f": {vector}, {memref}",
    ]
    out = np.full_like(inputs[0], np.nan)
    _run(", ".join([*arguments, f"%out: {memref}"]), "\n".join(body), *inputs, out)
    return out


@pytest.fixture(scope="session")
def run() -> Callable[..., None]:
    """run(arguments, body, *arrays) evaluates a function of that text."""
    return _run


@pytest.fixture(scope="session")
def compute() -> Callable[[str, str, Sequence[Array]], Array]:
    """compute(ops, element, inputs) evaluates `ops` on vectors."""
    return _compute
