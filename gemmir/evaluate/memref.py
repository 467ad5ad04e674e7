"""The memref dialect: buffers and views of them.

New buffers hold NaN (or the least integer), so that what is read before it is written shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import numpy as np
from xdsl.dialects import memref
from xdsl.dialects.builtin import DYNAMIC_INDEX, DenseArrayBase, MemRefType
from xdsl.ir import Attribute, SSAValue

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.shared import watch
from gemmir.evaluate.turns import SharedTouches
from gemmir.evaluate.values import Element, dtype_of, never_written
from gemmir.evaluate.view import (
    Buffer,
    PanelView,
    StridedView,
    SwizzledView,
    View,
    panel_elements,
    panel_view,
    require_type,
    span,
    strided_view,
    strides_of,
    swizzled_elements,
)
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr, SwizzleAttr

Fill = Callable[[Sequence[int]], tuple[int, ...]]
"""From the values of the dynamic entries of a list to the whole list."""


def memref_of(value: SSAValue) -> MemRefType[Attribute]:
    """The type of a memref; faults with GEM0903 where `value` is none."""
    of: Attribute = value.type
    if isinstance(of, MemRefType):
        return cast("MemRefType[Attribute]", of)
    raise FaultError("GEM0903", f"{of} is not a memref")


def _fill(static: Sequence[int]) -> Fill:
    def fill(dynamic: Sequence[int]) -> tuple[int, ...]:
        values = iter(dynamic)
        return tuple([next(values) if s == DYNAMIC_INDEX else s for s in static])

    return fill


def new_view(of: MemRefType[Attribute], sizes: tuple[int, ...], *, on_heap: bool) -> View:
    """A view of type `of` and extents `sizes` onto a new buffer that nothing has written to."""
    dtype = dtype_of(of)
    unwritten = never_written(dtype)
    if min(sizes, default=0) < 0:
        raise FaultError("GEM0904", f"sizes {list(sizes)} are negative")
    if isinstance(of.layout, PanelAttr):
        elements = panel_elements(sizes, of.layout)
        buffer = Buffer(np.full(elements, unwritten, dtype), on_heap=on_heap)
        return panel_view(buffer, sizes, of.layout)
    if isinstance(of.layout, SwizzleAttr):
        elements = swizzled_elements(sizes, of.layout)
        buffer = Buffer(np.full(elements, unwritten, dtype), on_heap=on_heap)
        return SwizzledView(buffer, sizes, (0, 0), of.layout)
    strides = tuple([0 if s is None else s for s in strides_of(of, sizes)])
    buffer = Buffer(np.full(span(sizes, strides), unwritten, dtype), on_heap=on_heap)
    return strided_view(buffer, 0, sizes, strides)


def _alloc(frame: Frame, op: memref.AllocOp) -> Step:
    of = memref_of(op.memref)
    sizes_of = _fill(of.get_shape())
    on_heap = of.memory_space != SpaceAttr(Space.REGISTERS)

    def step(*dynamic: int) -> tuple[View]:
        view = new_view(of, sizes_of(dynamic), on_heap=on_heap)
        if on_heap:
            frame.heap[view.buffer] = op
        return (view,)

    return step


def _alloca(frame: Frame, op: memref.AllocaOp) -> Step:
    of = memref_of(op.memref)
    sizes_of = _fill(of.get_shape())
    if of.memory_space != SpaceAttr(Space.SHARED):
        return lambda *dynamic: (new_view(of, sizes_of(dynamic), on_heap=False),)

    def shared(*dynamic: int) -> tuple[View]:
        view = new_view(of, sizes_of(dynamic), on_heap=False)
        if frame.watched:
            watch(view, frame.fibers)
            frame.fibers.current.block.made[op] = view
        else:
            view.buffer.watch = SharedTouches(frame.turn, view.buffer.data.size)
        return (view,)

    return shared


def _dealloc(frame: Frame, op: memref.DeallocOp) -> Step:
    def step(view: View) -> tuple[()]:
        buffer = view.buffer
        buffer.readable()
        if not buffer.on_heap:
            raise FaultError("GEM0905", "the buffer is not on the heap")
        buffer.freed = True
        del frame.heap[buffer]
        return ()

    return step


class _Window:
    """Decodes the mixed static and dynamic offsets, sizes and strides of a view op."""

    def __init__(self, op: memref.SubviewOp | memref.ReinterpretCastOp) -> None:
        self._cuts = (len(op.offsets), len(op.offsets) + len(op.sizes))
        self._fills = [
            _fill(_integers(list_))
            for list_ in (op.static_offsets, op.static_sizes, op.static_strides)
        ]

    def __call__(
        self, dynamic: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        first, second = self._cuts
        offsets, sizes, strides = self._fills
        return offsets(dynamic[:first]), sizes(dynamic[first:second]), strides(dynamic[second:])


def _integers(attribute: DenseArrayBase[Any]) -> tuple[int, ...]:
    return tuple(map(int, attribute.get_values()))


def _subview(frame: Frame, op: memref.SubviewOp) -> Step:
    decode = _Window(op)
    of = memref_of(op.result)
    rank = of.get_num_dims()
    keeps_panels = isinstance(of.layout, PanelAttr)

    def step(source: View, *dynamic: int) -> tuple[View]:
        offsets, sizes, strides = decode(dynamic)
        if any(s != 1 for s in strides):
            raise FaultError("GEM0903", f"strides {list(strides)} are not all 1")
        view = _panels(source, offsets, sizes) if keeps_panels else source.window(offsets, sizes)
        view = drop_leading(view, len(sizes) - rank)
        require_type(view, of)
        return (view,)

    return step


def _panels(source: View, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> View:
    if not isinstance(source, PanelView):
        raise FaultError("GEM0907", "the source of the panels has none")
    return source.leading(offsets, sizes)


def drop_leading(view: View, count: int) -> View:
    """`view` without its first `count` dimensions, each of one element."""
    if not count:
        return view
    if any(n != 1 for n in view.sizes[:count]) or not isinstance(view, StridedView):
        raise FaultError("GEM0907", f"the first {count} of {list(view.sizes)} cannot be dropped")
    return StridedView(view.buffer, view.sizes[count:], view.offset, view.strides[count:])


def _reinterpret_cast(frame: Frame, op: memref.ReinterpretCastOp) -> Step:
    decode = _Window(op)
    of = memref_of(op.result)

    def step(source: View, *dynamic: int) -> tuple[View]:
        (offset,), sizes, strides = decode(dynamic)
        if not isinstance(source, StridedView) or source.offset != 0:
            raise FaultError("GEM0903", "only a whole array or strided buffer can be cast")
        view = strided_view(source.buffer, offset, sizes, strides)
        require_type(view, of)
        return (view,)

    return step


def _load(frame: Frame, op: memref.LoadOp) -> Step:
    def step(source: View, *indices: int) -> tuple[Element]:
        return (source.read(indices, (1,) * len(indices)).reshape(())[()],)

    return step


def _store(frame: Frame, op: memref.StoreOp) -> Step:
    def step(value: Element, target: View, *indices: int) -> tuple[()]:
        target.write(indices, np.reshape(value, (1,) * len(indices)))
        return ()

    return step


MEANINGS: Final[Meanings] = {
    memref.AllocOp: _alloc,
    memref.AllocaOp: _alloca,
    memref.DeallocOp: _dealloc,
    memref.SubviewOp: _subview,
    memref.ReinterpretCastOp: _reinterpret_cast,
    memref.LoadOp: _load,
    memref.StoreOp: _store,
}
