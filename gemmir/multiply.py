"""a @ b in one call: the problem is read off the arrays, and kernels are kept by it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir.compiler import compile
from gemmir.dtypes import ELEMENTS
from gemmir.errors import CallError
from gemmir.gemm import DTYPES as OUT_TYPES
from gemmir.gemm import Gemm
from gemmir.kernel import Kernel
from gemmir.machine import HOST
from gemmir.threads import running
from gemmir.thunk import Plans, lie_of

Array = npt.NDArray[Any]

DTYPES: Final = {ELEMENTS[name].numpy: name for name in ("f32", "f64", "f16", "bf16", "i8", "u8")}
"""What a CPU multiplies."""

GPU_DTYPES: Final = {element.numpy: name for name, element in ELEMENTS.items() if name in OUT_TYPES}
"""What GPUs multiply; an array of float32 is taken as it is, and not rounded first."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How a matrix lies: by rows or by columns `lead` elements apart, or in neither way."""

    by_columns: bool
    lead: int | None
    batch_stride: int | None
    is_copied: bool

    def view(self, array: Array) -> Array:
        """The array as the kernel takes it."""
        return self.turned(np.ascontiguousarray(array) if self.is_copied else array)

    def turned(self, array: Any) -> Any:
        """Rows and columns exchanged where it lies by columns."""
        return array.swapaxes(-1, -2) if self.by_columns else array


@dataclass(frozen=True, kw_only=True)
class _Plan:
    kernel: Kernel
    a: Stored
    b: Stored


def matmul(a: Any, b: Any, *, out: Any = None, threads: int | None = None) -> Any:
    """a @ b for matrices, or stacks of them; `b` may be one matrix for a whole stack.

    On a CPU elements are f32, f64, f16 or bf16, whose type the result has, or i8 and u8, of which a
    and b may have one each, and the result is i32. Transposed views and padded rows are read where
    they lie; other strides are copied first. Of arrays on a GPU, whose elements may be of any type
    that its target multiplies, the result has the type of the operands where that is a float, and
    other strides are refused. Raises `CallError` GEM0520 where shapes or types do not fit.
    """
    return _PLANS.call(a, b, out, threads)


def _slow(a: Any, b: Any, out: Any, threads: Any) -> Any:
    """The product where no plan is at hand; one is, the next time, for arrays that lie as these."""
    if not _is_numpy(a):
        return _on_gpu(a, b, out, threads)
    if not _is_numpy(b):
        raise _refused(a, b)
    count = running(threads) or None
    plan = _plan(a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype, HOST, count)
    result = plan.kernel(plan.a.view(a), plan.b.view(b), out=out)
    if not (plan.a.is_copied or plan.b.is_copied):
        _PLANS.remember(plan.kernel, lie_of(a), lie_of(b), threads)
    return result


_PLANS: Final = Plans(_slow)


def _is_numpy(value: object) -> bool:
    return isinstance(value, np.ndarray)


def _refused(a: object, b: object) -> CallError:
    return CallError(
        "GEM0520",
        f"matmul of a {type(a).__name__} and a {type(b).__name__}",
        "use NumPy arrays, or arrays of one library on one GPU",
    )


def _on_gpu(a: Any, b: Any, out: Any, threads: int | None) -> Any:
    """The product of arrays of another library, which must be on a GPU."""
    from gemmir.backends.ptx.driver import find_driver
    from gemmir.device_arrays import view_of
    from gemmir.gpu_kernel import target_for

    if not any(hasattr(a, name) for name in ("__dlpack__", "__cuda_array_interface__")):
        raise _refused(a, b)
    driver = find_driver()
    views = [view_of(name, value, driver) for name, value in (("a", a), ("b", b))]
    shadows = [view.shadow for view in views if view is not None]
    if views[0] is None or len(shadows) < 2:
        raise _refused(a, b)
    target = target_for(driver.gpus()[views[0].gpu])
    x, y = shadows
    plan = _plan(x.shape, x.strides, x.dtype, y.shape, y.strides, y.dtype, target, threads)
    if plan.a.is_copied or plan.b.is_copied:
        raise CallError(
            "GEM0520",
            f"matmul of arrays with strides {x.strides} and {y.strides} in bytes",
            "pass contiguous copies",
        )
    return plan.kernel(plan.a.turned(a), plan.b.turned(b), out=out)


def _are_factors(a: np.dtype[Any], b: np.dtype[Any], target: str) -> bool:
    """Whether such matrices can be multiplied: on a CPU also bytes with and without a sign."""
    return a == b or (target == HOST and {a, b} == {np.dtype(np.int8), np.dtype(np.uint8)})


@lru_cache(maxsize=1024)
def _plan(
    a_shape: tuple[int, ...],
    a_strides: tuple[int, ...],
    a_type: np.dtype[Any],
    b_shape: tuple[int, ...],
    b_strides: tuple[int, ...],
    b_type: np.dtype[Any],
    target: str,
    threads: int | None,
) -> _Plan:
    known = DTYPES if target == HOST else GPU_DTYPES
    if not _are_factors(a_type, b_type, target) or a_type not in known:
        raise CallError(
            "GEM0520",
            f"matmul of {a_type} and {b_type}",
            f"use {' or '.join(dtype.name for dtype in known)} for both",
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
        dtype=known[a_type],
        dtype_b=None if a_type == b_type else known[b_type],
        out=known[a_type] if known[a_type] in OUT_TYPES[known[a_type]] else None,
        trans_a=a.by_columns,
        trans_b=b.by_columns,
        lda=a.lead,
        ldb=b.lead,
        batch=a_shape[0] if stacked else None,
        batch_stride_a=a.batch_stride,
        batch_stride_b=b.batch_stride if len(b_shape) == 3 else 0 if stacked else None,
    )
    return _Plan(kernel=compile(gemm, target, threads=threads), a=a, b=b)


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
