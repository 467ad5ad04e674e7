"""Elementwise ops on tiles, row by row: the sums of a row are dead before the next is begun.

Op by op, every intermediate value of an epilogue would be held for the whole tile of a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from xdsl.dialects import arith, vector
from xdsl.dialects.builtin import NoneAttr, StridedLayoutAttr, VectorType
from xdsl.ir import Operation, SSAValue

from gemmir.backends.llvm.emitter import Emitter, set_rows, shape_of
from gemmir.backends.llvm.memory import store_line
from gemmir.backends.ptx.transfers import loads, parts
from gemmir.ir.dialect import memref_type, static_strides

ELEMENTWISE: Final = frozenset(
    {
        arith.AddfOp.name,
        arith.AddiOp.name,
        arith.AndIOp.name,
        arith.BitcastOp.name,
        arith.DivfOp.name,
        arith.ExtFOp.name,
        arith.MaximumfOp.name,
        arith.MinimumfOp.name,
        arith.MulfOp.name,
        arith.NegfOp.name,
        arith.ShLIOp.name,
        arith.SubfOp.name,
        arith.TruncFOp.name,
        "math.exp",
        "math.fma",
    }
)
"""Ops whose emitters take the rows of their operands one by one."""

EmitRow: TypeAlias = Callable[[int], None]


class RowEmitter(Emitter):
    """An emitter that takes neighbouring elementwise ops of one shape together, row by row."""

    def ops(self, ops: Iterable[Operation]) -> None:
        """Emit ops in order."""
        for run in _runs(ops):
            if len(run) == 1:
                self.op(run[0])
                continue
            emitters = [_by_row(self, op) for op in run]
            for row in range(self.shape(_tile(run[0]))[0]):
                for emit in emitters:
                    emit(row)


def _runs(ops: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Neighbours that can go row by row and have the same shape, and every other op alone."""
    run: list[Operation] = []
    for op in ops:
        is_row_wise = _is_row_wise(op)
        if run and not (is_row_wise and shape_of(_tile(op)) == shape_of(_tile(run[0]))):
            yield run
            run = []
        if is_row_wise:
            run.append(op)
        else:
            yield [op]
    if run:
        yield run


def _tile(op: Operation) -> VectorType:
    found = (op.vector if isinstance(op, vector.TransferWriteOp) else op.results[0]).type
    assert isinstance(found, VectorType)
    return found


def _is_row_wise(op: Operation) -> bool:
    if isinstance(op, vector.TransferReadOp | vector.TransferWriteOp):
        return _has_rows(op.source)
    return op.name in ELEMENTWISE and isinstance(op.results[0].type, VectorType)


def _has_rows(memory: SSAValue) -> bool:
    """Whether memory is strided, and not adjacent along its columns."""
    of = memref_type(memory)
    if not isinstance(of.layout, StridedLayoutAttr | NoneAttr) or len(of.get_shape()) != 2:
        return False
    strides = static_strides(of)
    return strides[0] != 1 or strides[1] == 1


def _by_row(e: Emitter, op: Operation) -> EmitRow:
    """What emits one row of `op`; addresses are found now, once for all rows."""
    if isinstance(op, vector.TransferReadOp):
        load = loads(e, op, _tile(op))
        return lambda row: _set_row(e, op.result, row, load(row))
    if isinstance(op, vector.TransferWriteOp):
        lines, written = parts(e, op, _tile(op)), op.vector
        return lambda row: store_line(e, *lines[row], _row_of(e, written, row))

    def emit(row: int) -> None:
        e.row = row
        e.op(op)
        e.row = None

    return emit


def _row_of(e: Emitter, value: SSAValue, row: int) -> str:
    e.row = row
    (found,) = e.rows(value)
    e.row = None
    return found


def _set_row(e: Emitter, result: SSAValue, row: int, value: str) -> None:
    e.row = row
    set_rows(e, result, [value])
    e.row = None
