"""What a product must come to, in wider arithmetic, and how far a correct one may be from it.

The bound of a sum is gamma(depth) * |alpha| |op(A)| |op(B)|, Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gemmir.epilogue_steps import STEP_ROUNDINGS, STEP_SLOPES, apply_step, scale_of
from gemmir.int4 import unpack_int4

if TYPE_CHECKING:
    from gemmir.gemm import Gemm

Array = npt.NDArray[Any]


def reference(gemm: Gemm, arrays: Mapping[str, Array]) -> Array:
    """The right answer of one product, or of a batch, for `arrays` by operand name.

    `c` is read if beta != 0. Computed in `wide_type`; integers wrap to 32 bits wherever a kernel
    may hold them.
    """
    if gemm.accumulator.is_integer:
        return _exact_reference(gemm, arrays)
    wide = _widened(gemm, arrays)
    x = gemm.alpha * _times(gemm, _scaled(gemm, wide, "a"), _scaled(gemm, wide, "b"))
    if gemm.beta:
        x = x + gemm.beta * wide["c"]
    for step in gemm.steps:
        x = apply_step(step, x, wide)
    return x


def _exact_reference(gemm: Gemm, arrays: Mapping[str, Array]) -> Array:
    """Sums of products of 8 bits are exact in float64 for any k that memory has room for."""
    a, b = (arrays[name].astype(np.float64) for name in "ab")
    x = _wrapped(_times(gemm, _op(a, gemm.trans_a), _op(b, gemm.trans_b)))
    x = _wrapped(x * int(gemm.alpha))
    if gemm.beta:
        x = _wrapped(x + arrays["c"].astype(np.int64) * int(gemm.beta))
    for step in gemm.steps:
        x = _wrapped(apply_step(step, x, arrays))
    return x


def error_bound(
    gemm: Gemm, arrays: Mapping[str, Array], depth: int | None = None, *, emulated: bool = False
) -> Array:
    """Elementwise a-priori bound of |computed - exact| for a correct implementation.

    Of one product, or of a batch. `depth` is the number of roundings on the longest path of the
    reduction, by default k plus one for each operation around it. Operands that are rounded first
    add two roundings of theirs, and may underflow. Scales of blocks add three roundings, and their
    product may underflow. Each epilogue step magnifies the error by its largest slope and adds its
    own roundings. Where C is narrower than the sum, it may be rounded before the epilogue and again
    after it. Of integers it is 0.

    Tensor cores sum products of 8-bit floats in fewer bits than f32 has; `emulated` is the bound of
    the evaluator and of the emulator, which do not.
    """
    if gemm.accumulator.is_integer:
        return np.zeros(gemm.operands[-1].shape)
    roundings = (gemm.k if depth is None else depth) + gemm.roundings
    gamma = gemm.product.gamma(roundings, emulated=emulated)
    wide = _widened(gemm, arrays)
    op_a, op_b = _scaled(gemm, wide, "a"), _scaled(gemm, wide, "b")
    magnitude = abs(gemm.alpha) * _times(gemm, np.abs(op_a), np.abs(op_b))
    x = gemm.alpha * _times(gemm, op_a, op_b)
    if gemm.beta:
        magnitude = magnitude + abs(gemm.beta) * np.abs(wide["c"])
        x = x + gemm.beta * wide["c"]
    underflow = abs(gemm.alpha) * _underflow(gemm, wide)
    bound = _stored(gemm, gamma * magnitude + underflow, x)
    unit = gemm.product.ieee_unit
    for step in gemm.steps:
        y, slope, lost = apply_step(step, x, wide), STEP_SLOPES.get(step), unit
        if slope is None:
            slope, lost = np.abs(scale_of(wide)), gemm.accumulator.least_normal
        slack = STEP_ROUNDINGS[step] * (lost * np.abs(x) + unit * np.abs(y))
        bound, x = slope * bound + slack, y
    if gemm.steps:
        bound = _stored(gemm, bound, x)
    return bound + gemm.accumulator.least_normal * (gemm.k + 4)


def _scaled(gemm: Gemm, wide: Mapping[str, Array], name: str) -> Array:
    """op(A) or op(B), times the scales of its blocks if it has any."""
    transposed = gemm.trans_a if name == "a" else gemm.trans_b
    factor = _op(wide[name], transposed)
    if gemm.scale_block is None and not (gemm.has_weights and name == "b"):
        return factor
    scale = _op(wide[f"scale_{name}"], transposed)
    sizes = (1, gemm.scale_depth) if name == "a" else (gemm.scale_depth, gemm.scale_block or 1)
    for axis, size in enumerate(sizes):
        scale = np.repeat(scale, size, axis)
    return factor * scale[: factor.shape[0], : factor.shape[1]]


def _widened(gemm: Gemm, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The elements of all arrays in the type of the reference."""
    whole = dict(arrays)
    if gemm.element_b.per_byte > 1:
        whole["b"] = unpack_int4(arrays["b"])
    return {name: array.astype(wide_type(gemm)) for name, array in whole.items()}


def _underflow(gemm: Gemm, wide: Mapping[str, Array]) -> Array:
    """How far the sum may be off because factors, products of scales or blocks underflow."""
    a, b = _op(wide["a"], gemm.trans_a), _op(wide["b"], gemm.trans_b)
    found = gemm.product.underflow(a, b)
    if gemm.scale_block is None and not gemm.has_weights:
        return found
    largest = np.abs(wide["scale_b"]).max()
    if gemm.scale_block is not None:
        largest = np.abs(wide["scale_a"]).max() * largest
    least = gemm.accumulator.least_normal
    return found * largest + least * (np.abs(a) @ np.abs(b) + gemm.k)


def _stored(gemm: Gemm, bound: Array, x: Array) -> Array:
    """The bound after a sum that is `x`, off by `bound`, is rounded to the type of C."""
    if gemm.result is gemm.accumulator:
        return bound
    return bound + gemm.result.unit * (np.abs(x) + bound) + gemm.result.least


def _times(gemm: Gemm, a: Array, b: Array) -> Array:
    """a @ b in the shape of C, of which both may be one matrix for a whole batch."""
    return np.broadcast_to(a @ b, gemm.operands[-1].shape)


def wide_type(gemm: Gemm) -> type[np.signedinteger[Any] | np.floating[Any]]:
    """The type of the right answer, wider than that of the sum."""
    if gemm.accumulator.is_integer:
        return np.int64
    return np.longdouble if gemm.dtype == "f64" else np.float64


def _op(x: Array, transposed: bool) -> Array:
    return np.swapaxes(x, -1, -2) if transposed else x


def _wrapped(x: Array) -> Array:
    """The numbers that 32 bits hold of `x`, in 64."""
    return x.astype(np.int64).astype(np.int32).astype(np.int64)
