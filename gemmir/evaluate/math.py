"""The math dialect: exp, roundeven and fma, each element on its own.

In f32, exp and fma are computed in float64 and rounded once.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from xdsl.dialects import math

from gemmir.evaluate.arith import elementwise
from gemmir.evaluate.frame import Meanings
from gemmir.evaluate.values import Element


def fused_multiply_add(a: Element, b: Element, c: Element) -> Element:
    """a * b + c. In f32 the product is exact and the sum is rounded to f64, then to f32.

    In f64 product and sum round separately: NumPy has no wider type on every machine.
    """
    if a.dtype == np.float32:
        return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)
    return a * b + c


def _exp(x: Element) -> Element:
    return np.exp(x, dtype=np.float64).astype(x.dtype)


MEANINGS: Final[Meanings] = {
    math.ExpOp: elementwise(_exp),
    math.RoundEvenOp: elementwise(np.rint),
    math.FmaOp: elementwise(fused_multiply_add),
}
