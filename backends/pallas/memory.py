"""Emitters of what reads and writes VMEM: blocks or parts of them, masked where one is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from xdsl.dialects import memref, vector
from xdsl.dialects.builtin import AffineMapAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.ir.affine import AffineMap

from gemmir.backends.pallas.arithmetic import in_order
from gemmir.backends.pallas.emitter import (
    ATOM,
    PRODUCT,
    SUM,
    ZERO,
    Emitter,
    Expr,
    Ref,
    Table,
    element_of,
    shape_of,
)
from gemmir.backends.pallas.types import jax_type
from gemmir.errors import BackendError
from gemmir.ir.index import Extent, constant_of
from gemmir.ir.views import offsets_of, sizes_of

STATEMENT: Final = 80
"""Characters of a block and of what is written into it on one line."""


def _subview(e: Emitter, op: memref.SubviewOp) -> None:
    """A part of a block: where it begins, and how much of it is there."""
    source = e.ref(op.source)
    first, second = (_index(e, offset) for offset in offsets_of(op))
    offsets = _sum(source.offsets[0], first), _sum(source.offsets[1], second)
    rows, columns = sizes_of(op)
    e.values[op.result] = replace(source, offsets=offsets, extents=(rows, columns))


def _index(e: Emitter, extent: Extent) -> Expr:
    """An index as Python has it."""
    known = constant_of(extent)
    if known is not None:
        return Expr(text=str(known), is_literal=True)
    assert not isinstance(extent, int)
    return e.expr(extent)


def _sum(x: Expr, y: Expr) -> Expr:
    if ZERO in (x, y):
        return y if x == ZERO else x
    text = f"{x.within(SUM)} + {y.within(PRODUCT)}"
    return Expr(text=text, level=SUM, is_literal=x.is_literal and y.is_literal)


def _read(e: Emitter, op: vector.TransferReadOp) -> None:
    """A part of a block, with the padding where it is not in bounds."""
    ref, shape = e.ref(op.source), shape_of(op.result)
    cut = {
        axis: _index(e, ref.extents[axis])
        for axis, inside in enumerate(op.in_bounds)
        if not inside.value.data and constant_of(ref.extents[axis]) != shape[axis]
    }
    if any(constant_of(op.indices[axis]) != 0 for axis in cut):
        raise _unreadable(op.source, "a masked read that begins behind the start of a part")
    whole = _part(e, ref, op.source, op.indices, op.permutation_map, shape)
    if not cut:
        e.define(op, (), lambda _: whole)
        return
    for axis in cut:
        own = ref.shape[1 - axis if ref.transposed else axis]
        if ref.offsets[axis] != ZERO and own % shape[axis]:
            raise _unreadable(op.source, f"{shape[axis]} elements at a time of {own}")
    tests = [_inside(whole, axis, end.within(SUM)) for axis, end in cut.items()]
    mask = tests[0] if len(tests) == 1 else " & ".join(f"({test})" for test in tests)

    def make(exprs: Sequence[Expr]) -> Expr:
        return replace(whole, text=f"jnp.where({mask}, {whole.text}, {exprs[0].text})")

    e.define(op, (op.padding,), make)


def _inside(part: Expr, axis: int, end: str) -> str:
    """A mask of what is before `end` along an axis of the IR."""
    along = 1 - axis if part.transposed else axis
    return f"lax.broadcasted_iota(jnp.int32, {part.shape}, {along}) < {end}"


def _write(e: Emitter, op: vector.TransferWriteOp) -> None:
    ref, shape = e.ref(op.source), shape_of(op.vector)
    for inside, extent, size in zip(op.in_bounds, ref.extents, shape, strict=True):
        if not inside.value.data and constant_of(extent) != size:
            raise _unreadable(op.source, "a write that is masked")
    part = _part(e, ref, op.source, op.indices, op.permutation_map, shape)
    value = in_order(e.expr(op.vector), ref.transposed)
    if len(part.text) + len(value.text) > STATEMENT:
        value = e.named("total", value) if value.level < ATOM else value
    if not value.shape:
        element = jax_type(element_of(op.vector))
        text = f"jnp.full({part.shape}, {value.text}, {element})"
    elif value.shape != part.shape:
        text = f"jnp.broadcast_to({value.text}, {part.shape})"
    else:
        text = value.text
    if op.mask is not None:
        mask = in_order(e.expr(op.mask), ref.transposed)
        text = f"jnp.where({mask.text}, {text}, {part.text})"
    e.statement(f"{part.text} = {text}")


def _part(
    e: Emitter,
    ref: Ref,
    source: SSAValue,
    indices: Sequence[SSAValue],
    order: Attribute | None,
    shape: tuple[int, ...],
) -> Expr:
    """The elements of `shape` at `indices` of a part of a block, as they lie."""
    if not isinstance(order, AffineMapAttr) or order.data != AffineMap.identity(2):
        raise _unreadable(source, "a vector that is turned")
    at = [_sum(o, _index(e, i)) for o, i in zip(ref.offsets, indices, strict=True)]
    dims = (1, 0) if ref.transposed else (0, 1)
    slices = [_slice(own, at[d], shape[d]) for own, d in zip(ref.shape, dims, strict=True)]
    if None in slices:
        raise _unreadable(source, f"{list(shape)} elements")
    rows, columns = (1 if own == 1 else shape[d] for own, d in zip(ref.shape, dims, strict=True))
    is_whole = all(word == ":" for word in slices)
    return Expr(
        text=f"{ref.name}[{'...' if is_whole else ', '.join(map(str, slices))}]",
        shape=(rows, columns),
        transposed=ref.transposed,
        reads=True,
    )


def _slice(own: int, at: Expr, size: int) -> str | None:
    """`size` elements of `own`, from `at` on; None where there are not so many."""
    if own == 1 or (at == ZERO and size == own):
        return ":"
    if not at.text.isdigit():
        return f"pl.ds({at.text}, {size})"
    end = int(at.text) + size
    return f"{at.text}:{end}" if end <= own else None


def _unreadable(source: SSAValue, what: str) -> BackendError:
    return BackendError(
        "GEM0464",
        f"{what}, of {source.type}: a kernel reads and writes blocks or parts of them",
        "use sizes that divide the block",
    )


MEMORY: Final[Table] = {
    memref.SubviewOp.name: _subview,
    vector.TransferReadOp.name: _read,
    vector.TransferWriteOp.name: _write,
}
