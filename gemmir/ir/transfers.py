"""Reading and writing the elements of memrefs as vectors."""

from __future__ import annotations

from xdsl.builder import Builder
from xdsl.dialects import vector
from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    BoolAttr,
    VectorType,
)
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineMap

from gemmir.ir.dialect import memref_type
from gemmir.ir.index import Extent, as_index, entry_zero

_IDENTITY = AffineMapAttr(AffineMap.identity(2))
_FLAGS = {
    (p, q): ArrayAttr([BoolAttr.from_bool(p), BoolAttr.from_bool(q)])
    for p in (False, True)
    for q in (False, True)
}


def read(
    builder: Builder,
    anchor: Operation,
    source: SSAValue,
    at: tuple[Extent, Extent],
    shape: tuple[int, int],
    in_bounds: tuple[bool, bool],
) -> SSAValue:
    """The elements of `shape` at `at` of `source`; zeros where those are not `in_bounds`."""
    element = memref_type(source).element_type
    read = vector.TransferReadOp(
        source,
        [as_index(anchor, i) for i in at],
        entry_zero(anchor, element),
        VectorType(element, shape),
        _FLAGS[in_bounds],
        _IDENTITY,
    )
    return builder.insert(read).result


def write(
    builder: Builder,
    anchor: Operation,
    value: SSAValue,
    target: SSAValue,
    at: tuple[Extent, Extent],
    in_bounds: tuple[bool, bool],
) -> None:
    """Store `value` at `at` of `target`; what is not `in_bounds` is left out."""
    indices = [as_index(anchor, i) for i in at]
    flags = _FLAGS[in_bounds]
    builder.insert(vector.TransferWriteOp(value, target, indices, flags, permutation_map=_IDENTITY))
