"""The arrays of a problem, the same in the process of every contestant."""

from __future__ import annotations

from gemmir.arrays import Operands, make_operands
from gemmir.backend import Argument, Signature
from gemmir.gemm import Gemm


def make(gemm: Gemm, seed: int) -> Operands:
    """Random operands of `gemm`, and an output of what no result is."""
    arguments = tuple(
        Argument(
            name=operand.name,
            dtype=operand.dtype,
            shape=operand.shape,
            strides=operand.strides,
            access=operand.access,
        )
        for operand in gemm.operands
    )
    return make_operands(Signature(symbol="", arguments=arguments), seed)
