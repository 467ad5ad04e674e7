"""Products of matrices, whose factors may be rounded before they are multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmir.dtypes import ELEMENTS, Precision
from gemmir.evaluate.values import Array
from gemmir.ir.attributes import PrecisionAttr


def multiply(a: Array, b: Array, summed: np.dtype[Any], precision: PrecisionAttr | None) -> Array:
    """a @ b, or one for each of a batch, summed in `summed`; `precision` is that of the op.

    Sums of integers of 8 and 16 bits are exact in float64, for which NumPy has a fast product.
    """
    if summed.kind in "iu":
        whole = np.matmul(a.astype(np.float64), b.astype(np.float64))
        return whole.astype(np.int64).astype(summed)
    x, y = a.astype(summed), b.astype(summed)
    if precision is None:
        return np.matmul(x, y)
    if precision.data == Precision.TF32:
        return np.matmul(rounded_to_tf32(x), rounded_to_tf32(y))
    x_hi, y_hi = rounded_to_bf16(x), rounded_to_bf16(y)
    product = np.matmul(x_hi, y_hi)
    if precision.data == Precision.BF16X1:
        return product
    x_lo, y_lo = rounded_to_bf16(x - x_hi), rounded_to_bf16(y - y_hi)
    return product + (np.matmul(x_hi, y_lo) + np.matmul(x_lo, y_hi))


def rounded_to_tf32(x: Array) -> Array:
    """f32 numbers with 10 bits behind the point, rounded to nearest, halves away from zero."""
    half, dropped = np.uint32(1 << 12), np.uint32((1 << 13) - 1)
    rounded = ((x.view(np.uint32) + half) & ~dropped).view(np.float32)
    return np.where(np.isnan(x), x, rounded)


def rounded_to_bf16(x: Array) -> Array:
    """f32 numbers with 7 bits behind the point, rounded to nearest, halves to even."""
    return x.astype(ELEMENTS["bf16"].numpy).astype(x.dtype)
