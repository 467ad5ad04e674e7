"""Addresses in tiles that are strided, cut into panels or swizzled.

What is the same in every iteration is found before the loops.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import memref
from xdsl.ir import SSAValue

from gemmir.backends.llvm.emitter import Emitter, Pointer
from gemmir.backends.llvm.memory import subview
from gemmir.backends.llvm.text import FunctionText, is_literal, scalar_type
from gemmir.ir.attributes import SWIZZLE_ROWS, PanelAttr, SwizzleAttr
from gemmir.ir.dialect import memref_type, static_strides
from gemmir.ir.views import offsets_of, sizes_of


def swizzle_of(value: SSAValue) -> SwizzleAttr | None:
    """The layout of a memref, None where it is not swizzled."""
    layout = memref_type(value).layout
    return layout if isinstance(layout, SwizzleAttr) else None


def panels_of(value: SSAValue) -> PanelAttr | None:
    """The layout of a memref, None where it is not cut into panels."""
    layout = memref_type(value).layout
    return layout if isinstance(layout, PanelAttr) else None


def address_of(e: Emitter, memory: SSAValue, indices: Sequence[str]) -> str:
    """The address of element `indices` of a memref of any layout."""
    if swizzle_of(memory) is not None:
        return swizzled_address(e, memory, indices)
    source = memref_type(memory)
    layout = panels_of(memory)
    terms = (
        list(zip(indices, static_strides(source), strict=True))
        if layout is None
        else _panel_terms(e, layout, indices)
    )
    return e.text.address(e.pointer(memory).address, scalar_type(source.element_type), terms)


def _panel_terms(e: Emitter, layout: PanelAttr, indices: Sequence[str]) -> list[tuple[str, int]]:
    """Panel, place in it and row; whole panels that an index is ahead by are a constant."""
    dim, width, stride = (f.data for f in (layout.dim, layout.width, layout.stride))
    base, constant = e.text.sums.get(indices[dim], (indices[dim], 0))
    base = e.text.binary("add", base, str(constant % width))
    panel = e.text.binary("udiv", base, str(width))
    within = e.text.binary("urem", base, str(width))
    ahead = str(constant // width)
    terms = [(panel, stride), (ahead, stride), (within, 1), (indices[1 - dim], layout.pitch.data)]
    return _early_summed(e.text, terms)


def _early_summed(text: FunctionText, terms: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """`terms` with those that are known early as one, so that a loop adds it and not each."""
    total = "0"
    rest: list[tuple[str, int]] = []
    for index, stride in terms:
        base, constant = text.sums.get(index, (index, 0))
        if base not in text.early_names:
            rest.append((index, stride))
            continue
        total = text.add(total, text.mul(base, str(stride)))
        rest.append((str(constant), stride))
    return [*rest, (total, 1)]


def window(e: Emitter, op: memref.SubviewOp) -> None:
    """A subview: of a swizzled tile it is the same address, and where in the tile it begins."""
    if panels_of(op.source) is not None:
        address = address_of(e, op.source, [e.extent(o) for o in offsets_of(op)])
        e.values[op.result] = Pointer(address, tuple(e.extent(s) for s in sizes_of(op)))
        return
    if swizzle_of(op.source) is None:
        subview(e, op)
        return
    source = e.pointer(op.source)
    rows, columns = (
        e.text.add(at, e.extent(offset))
        for at, offset in zip(source.origin, offsets_of(op), strict=True)
    )
    sizes = tuple(e.extent(s) for s in sizes_of(op))
    e.values[op.result] = Pointer(source.address, sizes, (rows, columns))


def swizzled_address(e: Emitter, memory: SSAValue, indices: Sequence[str]) -> str:
    """The address of element `indices` of a swizzled memref.

    Of the origin of its window only whole periods of the pattern are left out of what is permuted:
    then that part is the same in every iteration, and is found before the loops.
    """
    layout, pointer, text = swizzle_of(memory), e.pointer(memory), e.text
    assert layout is not None
    dim, width, chunk = (f.data for f in (layout.dim, layout.width, layout.chunk))
    begin, slow = pointer.origin[1 - dim], indices[1 - dim]
    if text.divisor(begin) % SWIZZLE_ROWS:
        begin, slow = "0", text.add(begin, slow)
    base, constant = ("0", int(slow)) if is_literal(slow) else text.sums.get(slow, (slow, 0))
    if constant % SWIZZLE_ROWS:
        base, constant = slow, 0
    along = text.binary("add", pointer.origin[dim], indices[dim])
    place = text.binary("udiv", text.binary("urem", along, str(width)), str(chunk))
    turn = text.binary("udiv", base, str(layout.rows_alike))
    exchanged = text.binary("xor", place, text.binary("urem", turn, str(layout.chunks)))
    panel = text.binary("mul", text.binary("udiv", along, str(width)), str(layout.stride.data))
    offset = text.binary("mul", base, str(width))
    offset = text.binary("add", offset, text.binary("mul", exchanged, str(chunk)))
    offset = text.binary("add", offset, panel)
    if text.divisor(along) % chunk:
        offset = text.binary("add", offset, text.binary("urem", along, str(chunk)))
    scalar = scalar_type(memref_type(memory).element_type)
    address = text.address(pointer.address, scalar, [(offset, 1), (begin, width)])
    return text.offset(address, scalar, constant * width)
