"""The gemmir dialect. A product is summed in the type of its accumulator.

`gemmir.forall` runs its iterations from the last to the first: they must not depend on each other,
and one that needs what an earlier one wrote shows. Those over the threads of a block run together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from gemmir.evaluate.arith import elementwise
from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.grid import block_barrier, grid_loop
from gemmir.evaluate.math import fused_multiply_add
from gemmir.evaluate.memref import memref_of, new_view
from gemmir.evaluate.nvgpu import begin_copy
from gemmir.evaluate.products import multiply
from gemmir.evaluate.scf import iterations
from gemmir.evaluate.team import is_team, run_team
from gemmir.evaluate.values import Array, dtype_of
from gemmir.evaluate.view import Buffer, PanelView, View, strided_view
from gemmir.ir.dialect import (
    SIGN_TAKEN,
    BarrierOp,
    ColumnOp,
    ColumnSumOp,
    DealOp,
    EpilogueOp,
    ExtendOp,
    ForallOp,
    GemmOp,
    LaneSumOp,
    OuterProductOp,
    PackOp,
    PairProductOp,
    PrefetchOp,
    RowSumOp,
    UnpackOp,
    UnsignedOp,
    UnsignOp,
    VisitsOp,
    memref_type,
)
from gemmir.ir.nvgpu import matrix_shape


def _gemm(frame: Frame, op: GemmOp) -> Step:
    summed = dtype_of(op.summed)
    element = summed.type
    alpha_attribute, beta_attribute = (element(factor.value.data) for factor in (op.alpha, op.beta))
    has_first, has_alpha, has_beta = (
        value is not None for value in (op.first, op.alpha_value, op.beta_value)
    )

    def step(a: View, b: View, c: View, *others: Any) -> tuple[()]:
        _require_product(a.sizes, b.sizes, c.sizes)
        given = iter(others)
        is_first = not has_first or next(given)
        alpha = alpha_attribute * (next(given) if has_alpha else element(1))
        factor = next(given) if has_beta else element(1)
        beta = beta_attribute * factor if is_first else element(1)
        scales = [view.array() for view in given]
        if op.depth is None:
            product = multiply(a.array(), b.array(), summed, op.precision)
        else:
            product = _scaled(op, a.array(), b.array(), scales)
        found = alpha * product
        c.fill_from(found if beta == 0 else found + beta * c.array().astype(summed))
        return ()

    return step


def _scaled(op: GemmOp, a: Array, b: Array, scales: Sequence[Array]) -> Array:
    """The sum of the products of each block of k, times its scales."""
    assert op.depth is not None
    summed, depth = dtype_of(op.summed), op.depth.value.data
    (rows, k), columns = a.shape, b.shape[1]
    total = np.zeros((rows, columns), summed)
    for number, start in enumerate(range(0, k, depth)):
        part = slice(start, start + depth)
        product = multiply(a[:, part], b[part], summed, op.precision)
        factor = np.ones((), summed)
        for scale in scales:
            along_k, along_n, _, size = scale.shape
            if along_k <= number or along_n * size < columns:
                raise FaultError("GEM0907", f"scales {list(scale.shape)} of {k} by {columns}")
            whole = scale[number].swapaxes(0, 1).reshape(rows, along_n * size)
            factor = factor * whole[:, :columns]
        total = total + product * factor
    return total


def _require_product(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> None:
    fits = a[-1] == b[-2] and c[-2:] == (a[-2], b[-1]) and a[:-2] == b[:-2] == c[:-2]
    if not fits:
        raise FaultError("GEM0907", f"{list(a)} by {list(b)} is not {list(c)}")


def _epilogue(frame: Frame, op: EpilogueOp) -> Step:
    body = op.body.block
    is_read = [bool(argument.uses) for argument in body.args]

    def step(*views: View) -> tuple[()]:
        *inputs, output = views
        if any(v.sizes != output.sizes for v in inputs):
            raise FaultError("GEM0907", f"the extents {[list(v.sizes) for v in views]} differ")
        elements = [v.array() if r else v.peek() for v, r in zip(views, is_read, strict=True)]
        (found,) = frame.run(body, elements)
        output.fill_from(found)
        return ()

    return step


def _forall(frame: Frame, op: ForallOp) -> Step:
    body = op.body.block

    def run_block(lb: int, ub: int, step: int) -> tuple[()]:
        run_team(frame, op, lb, ub, step)
        return ()

    def run(lb: int, ub: int, step: int) -> tuple[()]:
        for i in reversed(iterations(lb, ub, step)):
            frame.run(body, (i,))
        return ()

    if is_team(op):
        return run_block
    return grid_loop(frame, op) or run


def _barrier(frame: Frame, op: BarrierOp) -> Step:
    """All threads of a block are in one fiber, so that there is nobody to wait for."""

    def step() -> tuple[()]:
        block_barrier(frame.fibers.current, op.name)
        return ()

    return step


def _pack(frame: Frame, op: PackOp) -> Step:
    is_asynchronous = op.asynchronous is not None
    depth = 0 if op.depth is None else op.depth.value.data
    takes_sign = tuple(memref_type(v).element_type for v in (op.source, op.target)) == SIGN_TAKEN

    def step(source: View, target: View, *scales: View) -> tuple[()]:
        target.check((0, 0), source.sizes)
        touched = target.whole_panels(source.sizes) if isinstance(target, PanelView) else target
        rows, columns = source.sizes
        packed: Array = np.zeros(touched.sizes, target.buffer.data.dtype)
        packed[:rows, :columns] = source.array()
        if takes_sign:
            packed = unsigned(packed.view(np.int8))
        for of_columns in scales:
            if depth * of_columns.sizes[0] < rows or of_columns.sizes[3] != columns:
                raise FaultError("GEM0907", f"scales {list(of_columns.sizes)} of {rows}, {columns}")
            factors = np.repeat(of_columns.array()[:, 0, 0], depth, axis=0)
            packed[:rows, :columns] *= factors[:rows]
        if is_asynchronous:
            begin_copy(frame, touched, lambda: touched.fill_from(packed))
        else:
            touched.fill_from(packed)
        return ()

    return step


def _column_sum(frame: Frame, op: ColumnSumOp) -> Step:
    summed = np.int32(op.factor.value.data)

    def step(source: View, target: View) -> tuple[()]:
        if source.sizes[1] != target.sizes[1]:
            raise FaultError("GEM0907", f"{list(source.sizes)} has not {list(target.sizes)} sums")
        sums = source.array().sum(axis=0, dtype=np.int32, keepdims=True)
        target.fill_from(sums * summed)
        return ()

    return step


def _row_sum(frame: Frame, op: RowSumOp) -> Step:
    summed = np.int32(op.factor.value.data)

    def step(source: View, target: View) -> tuple[()]:
        if source.sizes[0] != target.sizes[0]:
            raise FaultError("GEM0907", f"{list(source.sizes)} has not {list(target.sizes)} sums")
        target.fill_from(source.array().sum(axis=1, dtype=np.int32, keepdims=True) * summed)
        return ()

    return step


def _unsigned_view(frame: Frame, op: UnsignedOp) -> Step:
    """A copy of what the view shows, which may not be written to."""

    def step(source: View) -> tuple[View]:
        elements = unsigned(source.array())
        elements.flags.writeable = False
        strides = tuple(math.prod(source.sizes[d + 1 :]) for d in range(len(source.sizes)))
        return (strided_view(Buffer(elements.ravel()), 0, source.sizes, strides),)

    return step


def _unpack(frame: Frame, op: UnpackOp) -> Step:
    def step(source: View, target: View) -> tuple[()]:
        target.fill_from(source.read((0, 0), target.sizes))
        return ()

    return step


def _prefetch(frame: Frame, op: PrefetchOp) -> Step:
    def step(source: View) -> tuple[()]:
        return ()

    return step


def _visits(frame: Frame, op: VisitsOp) -> Step:
    made, rows, size = memref_of(op.result), op.rows.value.data, op.tile

    def step(offsets: View) -> tuple[View]:
        view = new_view(made, made.get_shape(), on_heap=False)
        columns = list(_visit_columns(offsets.array().tolist(), rows, size))
        count = made.get_shape()[1]
        if len(columns) > count:
            raise FaultError("GEM0907", f"{len(columns)} visits are not {count}")
        if not columns:
            columns = [(offsets.sizes[0] - 2, 0, 0, 0, 1, 0)][:count]
        last = columns[-1] if columns else ()
        columns += [(*last[:2], 0, 0, 0, *last[5:])] * (count - len(columns))
        if count:
            view.fill_from(np.array(columns, np.int32).T)
        return (view,)

    return step


def _visit_columns(offsets: Sequence[int], rows: int, size: int) -> Iterator[tuple[int, ...]]:
    seen, old = -1, 0
    for product, (begin, end) in enumerate(pairwise(offsets)):
        for tile in range(begin // size, -(-end // size) if begin < end else 0):
            start = tile * size
            own = max(begin - start, 0), min(end - start, size)
            takes_old = tile > seen and own != (0, min(rows - start, size))
            old = tile if takes_old or seen < 0 else old
            yield product, tile, *own, int(takes_old), old
            seen = tile


def _extend(frame: Frame, op: ExtendOp) -> Step:
    made = dtype_of(op.result.type)
    factor = made.type(1 if op.exponent is None else 2.0**op.exponent.value.data)

    def step(x: Array) -> tuple[Array]:
        return (x.astype(made) * factor,)

    return step


def _column(frame: Frame, op: ColumnOp) -> Step:
    at = op.at.value.data

    def step(above: Array, block: Array) -> tuple[Array]:
        return (np.concatenate([above, block[:, at : at + 1]]),)

    return step


def _deal(frame: Frame, op: DealOp) -> Step:
    count = len(op.outputs)

    def step(*vectors: Array) -> tuple[Array, ...]:
        lanes = np.concatenate(vectors, axis=1)
        return tuple(lanes[:, first::count] for first in range(count))

    return step


def _unsign(frame: Frame, op: UnsignOp) -> Step:
    def step(x: Array) -> tuple[Array]:
        return (unsigned(x),)

    return step


def _pair_product(frame: Frame, op: PairProductOp) -> Step:
    """Each row of one factor with each of the other; neighbours are added one after another."""
    made, depth = dtype_of(op.result.type), op.depth

    def step(lhs: Array, rhs: Array, acc: Array) -> tuple[Array]:
        x, y = np.repeat(lhs, len(rhs), axis=0), np.tile(rhs, (len(lhs), 1))
        x, y = x.astype(made, copy=False), y.astype(made, copy=False)
        for i in range(depth):
            acc = fused_multiply_add(x[:, i::depth], y[:, i::depth], acc)
        return (acc,)

    return step


def unsigned(x: Array) -> Array:
    """Numbers of i8 with 128 added."""
    return (x.astype(np.int16) + 128).astype(np.uint8)


def _lane_sum(frame: Frame, op: LaneSumOp) -> Step:
    shape = matrix_shape(op.result)

    def step(source: Array) -> tuple[Array]:
        while source.shape[1] > 1:
            half = source.shape[1] // 2
            source = source[:, :half] + source[:, half:]
        return (source.reshape(shape),)

    return step


def _outer_product(frame: Frame, op: OuterProductOp) -> Step:
    """Several products are added one after another; those of bf16 are exact in f32."""
    if op.depth == 1:
        return elementwise(fused_multiply_add)(frame, op)
    made, depth = dtype_of(op.result.type), op.depth

    def step(lhs: Array, rhs: Array, acc: Array) -> tuple[Array]:
        x, y = lhs.astype(made), rhs.astype(made)
        for i in range(depth):
            acc = fused_multiply_add(x[:, i : i + 1], y[i : i + 1], acc)
        return (acc,)

    return step


MEANINGS: Final[Meanings] = {
    BarrierOp: _barrier,
    ColumnOp: _column,
    ColumnSumOp: _column_sum,
    GemmOp: _gemm,
    EpilogueOp: _epilogue,
    DealOp: _deal,
    ExtendOp: _extend,
    ForallOp: _forall,
    PackOp: _pack,
    PrefetchOp: _prefetch,
    RowSumOp: _row_sum,
    UnpackOp: _unpack,
    UnsignOp: _unsign,
    UnsignedOp: _unsigned_view,
    VisitsOp: _visits,
    OuterProductOp: _outer_product,
    PairProductOp: _pair_product,
    LaneSumOp: _lane_sum,
}
