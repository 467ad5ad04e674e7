"""a @ b in one call: the problem is read off the arrays, and kernels are kept by it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir.compiler import compile
from gemmir.errors import CallError
from gemmir.gemm import Gemm
from gemmir.kernel import Kernel

Array = npt.NDArray[Any]

DTYPES: Final = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How a matrix lies: by rows or by columns `lead` elements apart, or in neither way."""

    by_columns: bool
    lead: int | None
    batch_stride: int | None
    is_copied: bool

    def view(self, array: Array) -> Array:
        """The array as the kernel takes it."""
        stored = np.ascontiguousarray(array) if self.is_copied else array
        return stored.swapaxes(-1, -2) if self.by_columns else stored


@dataclass(frozen=True, kw_only=True)
class _Plan:
    kernel: Kernel
    a: Stored
    b: Stored


def matmul(a: Array, b: Array, *, out: Array | None = None, threads: int = 1) -> Array:
    """a @ b for matrices of f32 or f64, or stacks of them; `b` may be one matrix for a whole stack.

    Transposed views and padded rows are read where they lie; other strides are copied first.
    Raises `CallError` GEM0520 where shapes or types do not fit.
    """
    plan = _plan(a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype, threads)
    result: Array = plan.kernel(plan.a.view(a), plan.b.view(b), out=out)
    return result


@lru_cache(maxsize=1024)
def _plan(
    a_shape: tuple[int, ...],
    a_strides: tuple[int, ...],
    a_type: np.dtype[Any],
    b_shape: tuple[int, ...],
    b_strides: tuple[int, ...],
    b_type: np.dtype[Any],
    threads: int,
) -> _Plan:
    if a_type != b_type or a_type not in DTYPES:
        raise CallError(
            "GEM0520", f"matmul of {a_type} and {b_type}", "use float32 or float64 for both"
        )
    stacked = len(a_shape) == 3
    fits = len(a_shape) in (2, 3) and len(b_shape) in (2, len(a_shape))
    if not fits or a_shape[-1] != b_shape[-2] or (len(b_shape) == 3 and a_shape[0] != b_shape[0]):
        raise CallError(
            "GEM0520",
            f"matmul of shapes {a_shape} and {b_shape}",
            "use (m, k) and (k, n), or a stack (s, m, k) and (s, k, n) or (k, n)",
        )
    a = _stored(a_shape, a_strides, a_type.itemsize)
    b = _stored(b_shape, b_strides, b_type.itemsize)
    gemm = Gemm(
        m=a_shape[-2],
        n=b_shape[-1],
        k=a_shape[-1],
        dtype=DTYPES[a_type],
        trans_a=a.by_columns,
        trans_b=b.by_columns,
        lda=a.lead,
        ldb=b.lead,
        batch=a_shape[0] if stacked else None,
        batch_stride_a=a.batch_stride,
        batch_stride_b=b.batch_stride if len(b_shape) == 3 else 0 if stacked else None,
    )
    return _Plan(kernel=compile(gemm, threads=threads), a=a, b=b)


def _stored(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> Stored:
    """Rows if they can be walked as rows, columns if as columns, otherwise a copy."""
    rows, columns = shape[-2:]
    for by_columns in (False, True):
        count, length = (columns, rows) if by_columns else (rows, columns)
        across, along = strides[-2:][::-1] if by_columns else strides[-2:]
        adjacent = length <= 1 or along == itemsize
        apart = count <= 1 or (across >= max(length, 1) * itemsize and across % itemsize == 0)
        lead = across // itemsize if count > 1 and adjacent and apart else max(length, 1)
        matrix = count * lead * itemsize
        stack = strides[0] if len(shape) == 3 else matrix
        stacked = len(shape) == 2 or shape[0] <= 1 or (stack >= matrix and stack % itemsize == 0)
        if adjacent and apart and stacked:
            stride = stack // itemsize if len(shape) == 3 and shape[0] > 1 else None
            return Stored(by_columns=by_columns, lead=lead, batch_stride=stride, is_copied=False)
    return Stored(by_columns=False, lead=None, batch_stride=None, is_copied=True)
