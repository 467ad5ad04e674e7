"""Emitters of what reads and writes VMEM: whole blocks, with a mask where one is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

from xdsl.dialects import memref, vector
from xdsl.dialects.builtin import AffineMapAttr, VectorType
from xdsl.ir import Attribute, SSAValue
from xdsl.ir.affine import AffineMap

from gemmir.backends.pallas.arithmetic import in_order
from gemmir.backends.pallas.emitter import Emitter, Expr, Ref, Table
from gemmir.backends.pallas.types import jax_type
from gemmir.errors import BackendError
from gemmir.ir.index import Extent, constant_of
from gemmir.ir.views import offsets_of, sizes_of


def _subview(e: Emitter, op: memref.SubviewOp) -> None:
    """The first rows and columns of a block: the same block, of which less is there."""
    source = e.ref(op.source)
    if any(_number(o) != 0 for o in offsets_of(op)):
        raise _not_whole(op.result, "a part that begins behind the start of a block")
    first, second = sizes_of(op)
    e.values[op.result] = replace(source, extents=(first, second))


def _number(extent: Extent) -> int | None:
    return extent if isinstance(extent, int) else constant_of(extent)


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    ref = e.ref(op.source)
    shape = _whole_shape(op.source, op.indices, op.permutation_map, op.result.type)
    whole = Expr(text=f"{ref.name}[...]", shape=ref.shape, transposed=ref.transposed, reads=True)
    cut = [
        axis
        for axis, inside in enumerate(op.in_bounds)
        if not inside.value.data and _number(ref.extents[axis]) != shape[axis]
    ]
    _require_block(op.source, ref, shape)
    if not cut:
        e.define(op, (), lambda _: whole)
        return
    limits = [ref.extents[axis] for axis in cut]
    dynamic = [limit for limit in limits if not isinstance(limit, int)]

    def make(exprs: Sequence[Expr]) -> Expr:
        values = iter(exprs[1:])
        ends = [str(n) if isinstance(n, int) else next(values).within(1) for n in limits]
        tests = [_inside(ref, axis, end) for axis, end in zip(cut, ends, strict=True)]
        mask = tests[0] if len(tests) == 1 else " & ".join(f"({test})" for test in tests)
        return replace(whole, text=f"jnp.where({mask}, {whole.text}, {exprs[0].text})")

    e.define(op, (op.padding, *dynamic), make)


def _inside(ref: Ref, axis: int, end: str) -> str:
    """A mask of what is before `end` along an axis of the IR."""
    along = 1 - axis if ref.transposed else axis
    return f"lax.broadcasted_iota(jnp.int32, {ref.shape}, {along}) < {end}"


def _write(e: Emitter, op: vector.TransferWriteOp) -> None:
    ref = e.ref(op.source)
    shape = _whole_shape(op.source, op.indices, op.permutation_map, op.vector.type)
    if tuple(_number(extent) for extent in ref.extents) != shape:
        raise _not_whole(op.source, "a write to a part of a block")
    _require_block(op.source, ref, shape)
    value = in_order(e.expr(op.vector), ref.transposed)
    if not value.shape:
        element = jax_type(cast("VectorType[Attribute]", op.vector.type).element_type)
        text = f"jnp.full({ref.shape}, {value.text}, {element})"
    elif value.shape != ref.shape:
        text = f"jnp.broadcast_to({value.text}, {ref.shape})"
    else:
        text = value.text
    e.statement(f"{ref.name}[...] = {text}")


def _whole_shape(
    source: SSAValue, indices: Sequence[SSAValue], order: Attribute | None, kind: Attribute
) -> tuple[int, ...]:
    """The shape of a vector that is all of a matrix."""
    assert isinstance(kind, VectorType)
    is_identity = isinstance(order, AffineMapAttr) and order.data == AffineMap.identity(2)
    if not is_identity or any(constant_of(index) != 0 for index in indices):
        raise _not_whole(source, "a vector that begins elsewhere than the block, or is turned")
    return kind.get_shape()


def _require_block(source: SSAValue, ref: Ref, shape: tuple[int, ...]) -> None:
    """A vector has the shape of the block, or 1 along an axis where that is the same everywhere."""
    lying = shape[::-1] if ref.transposed else shape
    if any(own not in (1, needed) for own, needed in zip(ref.shape, lying, strict=True)):
        raise _not_whole(source, f"a vector of {list(shape)}")


def _not_whole(source: SSAValue, what: str) -> BackendError:
    return BackendError(
        "GEM0464",
        f"{what}, of {source.type}: a kernel reads and writes whole blocks",
        "tile so that each block is one vector",
    )


MEMORY: Final[Table] = {
    memref.SubviewOp.name: _subview,
    vector.TransferReadOp.name: _read,
    vector.TransferWriteOp.name: _write,
}
