"""Memrefs as views: a flat buffer, the extents of a window into it, and how the window lies.

A view checks every access against its own extents. That its extents lie inside the buffer is
checked where a view is made from a buffer (`strided_view`, `panel_view`); a window of a view cannot
leave it. All offsets, extents and strides count elements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from xdsl.dialects.builtin import DYNAMIC_INDEX, MemRefType, NoneAttr, StridedLayoutAttr
from xdsl.ir import Attribute

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.values import Array
from gemmir.ir.attributes import PanelAttr, SwizzleAttr


class Watch(Protocol):
    """Is told which elements of a buffer threads touch, before they do."""

    def read(self, places: Array) -> None:
        """Those at `places`, counted from the first of the buffer, are read."""
        ...

    def write(self, places: Array) -> None:
        """They are written."""
        ...


@dataclass(slots=True, eq=False)
class Buffer:
    """Memory: a 1-D array, whether it must be freed, and whether it still may be used."""

    data: Array
    on_heap: bool = False
    freed: bool = False
    watch: Watch | None = None
    memory: memoryview = field(init=False)

    def __post_init__(self) -> None:
        """The bytes: arrays of types that NumPy lacks do not show theirs."""
        self.memory = self.data.view(np.uint8).data

    def readable(self) -> Array:
        """The memory; faults with GEM0905 after it was freed."""
        if self.freed:
            raise FaultError("GEM0905", "the buffer was freed before")
        return self.data

    def writable(self) -> Array:
        """The memory to write to; faults with GEM0905 as above, GEM0909 where it is read-only."""
        if not self.data.flags.writeable:
            raise FaultError("GEM0909", "the array may only be read")
        return self.readable()


@dataclass(frozen=True, slots=True, eq=False)
class View(ABC):
    """A memref: `sizes` elements of `buffer`, laid out as the subclass says."""

    buffer: Buffer
    sizes: tuple[int, ...]

    @abstractmethod
    def window(self, starts: Sequence[int], shape: tuple[int, ...]) -> View:
        """The tile of `shape` at `starts`; faults with GEM0904 if outside, GEM0906 if no window."""

    @abstractmethod
    def _get(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        """The elements at `starts`; may share memory with the buffer."""

    @abstractmethod
    def _set(self, starts: Sequence[int], shape: tuple[int, ...], elements: Array) -> None:
        """Store `elements`, broadcast to `shape`, at `starts`."""

    @abstractmethod
    def places(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        """Which elements of the buffer those at `starts` are."""

    def all_places(self) -> Array:
        """Which elements of the buffer it shows."""
        return self.places(self._first, self.sizes)

    @property
    def _first(self) -> tuple[int, ...]:
        return (0,) * len(self.sizes)

    def _reads(self, starts: Sequence[int], shape: tuple[int, ...]) -> None:
        if self.buffer.watch is not None:
            self.buffer.watch.read(self.places(starts, shape))

    def _writes(self, starts: Sequence[int], shape: tuple[int, ...]) -> None:
        if self.buffer.watch is not None:
            self.buffer.watch.write(self.places(starts, shape))

    def check(self, starts: Sequence[int], shape: tuple[int, ...]) -> None:
        """Fault with GEM0904 unless `shape` elements at `starts` lie within the extents."""
        for start, extent, size in zip(starts, shape, self.sizes, strict=True):
            if start < 0 or extent < 0 or start + extent > size:
                raise FaultError(
                    "GEM0904", f"{_times(shape)} elements at {list(starts)} of {_times(self.sizes)}"
                )

    def read(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        """A copy of the `shape` elements at `starts`."""
        self.check(starts, shape)
        self._reads(starts, shape)
        return self._get(starts, shape).copy()

    def write(self, starts: Sequence[int], elements: Array) -> None:
        """Store `elements` at `starts`."""
        self.check(starts, elements.shape)
        self._writes(starts, elements.shape)
        self._set(starts, elements.shape, elements)

    def array(self) -> Array:
        """All elements; for reading, before anything is written."""
        self._reads(self._first, self.sizes)
        return self.peek()

    def fill_from(self, elements: Array) -> None:
        """Store into every element; `elements` may share the memory, and is broadcast."""
        self._writes(self._first, self.sizes)
        self.poke(elements)

    def elsewhere(self, buffer: Buffer) -> View:
        """The same of another buffer."""
        return replace(self, buffer=buffer)

    def peek(self) -> Array:
        """All elements, as they are when something else than a thread of the block reads them."""
        return self._get(self._first, self.sizes)

    def poke(self, elements: Array) -> None:
        """Store into every element, as something else than a thread of the block does."""
        self._set(self._first, self.sizes, elements)


@dataclass(frozen=True, slots=True, eq=False)
class StridedView(View):
    """Element (i, j, ..) is at `offset + i * strides[0] + j * strides[1] + ..`."""

    offset: int
    strides: tuple[int, ...]

    def _offset(self, starts: Sequence[int]) -> int:
        return self.offset + sum(i * s for i, s in zip(starts, self.strides, strict=True))

    def window(self, starts: Sequence[int], shape: tuple[int, ...]) -> StridedView:
        self.check(starts, shape)
        return StridedView(self.buffer, shape, self._offset(starts), self.strides)

    def places(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        return self._offset(starts) + _strided_places(shape, self.strides)

    def _elements(self, data: Array, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        if 0 in shape:
            return np.empty(shape, data.dtype)
        size = data.itemsize
        strides = tuple([s * size for s in self.strides])
        return np.ndarray(
            shape, data.dtype, self.buffer.memory, self._offset(starts) * size, strides
        )

    def _get(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        return self._elements(self.buffer.readable(), starts, shape)

    def _set(self, starts: Sequence[int], shape: tuple[int, ...], elements: Array) -> None:
        self._elements(self.buffer.writable(), starts, shape)[...] = elements


@lru_cache(maxsize=64)
def _strided_places(shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Which elements of the buffer those of a window are, counted from the first of them."""
    found: Array = np.array(0)
    for extent, stride in zip(shape, strides, strict=True):
        found = found[..., None] + np.arange(extent) * stride
    return found


@dataclass(frozen=True, slots=True, eq=False)
class PanelView(View):
    """A matrix in a buffer of panels (`PanelAttr`), from `offset` on; its last may be partial."""

    layout: PanelAttr
    offset: int = 0

    @property
    def dim(self) -> int:
        """The dimension that is cut."""
        return self.layout.dim.data

    @property
    def width(self) -> int:
        """Elements of a panel along that."""
        return self.layout.width.data

    @property
    def stride(self) -> int:
        """Elements from one panel to the next."""
        return self.layout.stride.data

    @property
    def pitch(self) -> int:
        """Elements from one row of a panel to the next."""
        return self.layout.pitch.data

    @property
    def depth(self) -> int:
        """Neighbours along the other dimension that are adjacent."""
        return self.layout.depth.data

    def window(self, starts: Sequence[int], shape: tuple[int, ...]) -> View:
        self.check(starts, shape)
        if self.depth > 1:
            return self.leading(starts, shape)
        start, extent = starts[self.dim], shape[self.dim]
        within = start % self.width
        if self.width > 1 and within + extent > self.width:
            raise FaultError(
                "GEM0906",
                f"{extent} elements at {start} of dimension {self.dim} do not lie in one panel "
                f"of {self.width}",
            )
        offset = start // self.width * self.stride + within + self._across(starts)
        along = 1 if self.width > 1 else self.stride
        strides = (along, self.pitch) if self.dim == 0 else (self.pitch, along)
        return StridedView(self.buffer, shape, offset, strides)

    def _across(self, starts: Sequence[int]) -> int:
        return self.offset + starts[1 - self.dim] * self.pitch

    def leading(self, starts: Sequence[int], shape: tuple[int, ...]) -> PanelView:
        """The window of `shape` at `starts`, in the same panels from the first on.

        It may begin with any panel, and in panels of some depth with any group of neighbours.
        """
        self.check(starts, shape)
        start, across = starts[self.dim], starts[1 - self.dim]
        if start % self.width or across % self.depth:
            raise FaultError(
                "GEM0906", f"a tile at {list(starts)} does not keep the panels of its source"
            )
        offset = start // self.width * self.stride + self._across(starts)
        return PanelView(self.buffer, shape, self.layout, offset)

    def whole_panels(self, shape: tuple[int, ...]) -> PanelView:
        """The panels that the leading `shape` touches, to their full width, past the extents.

        So are steps of neighbours that it touches whole, which are groups of `depth` at least.
        """
        full, step = list(shape), self.layout.step.data
        full[1 - self.dim] = -(-shape[1 - self.dim] // step) * step
        full[self.dim] = -(-shape[self.dim] // self.width) * self.width
        return PanelView(self.buffer, tuple(full), self.layout, self.offset)

    def places(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        panel, within = np.divmod(starts[self.dim] + np.arange(shape[self.dim]), self.width)
        group, place = np.divmod(starts[1 - self.dim] + np.arange(shape[1 - self.dim]), self.depth)
        across = group * self.pitch * self.depth + place
        along = self.offset + panel * self.stride + within * self.depth
        return along[:, None] + across if self.dim == 0 else across[:, None] + along

    def _get(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        return self.buffer.readable()[self.places(starts, shape)]

    def _set(self, starts: Sequence[int], shape: tuple[int, ...], elements: Array) -> None:
        self.buffer.writable()[self.places(starts, shape)] = elements


@dataclass(frozen=True, slots=True, eq=False)
class SwizzledView(View):
    """A window at `origin` of a matrix that begins with the buffer and lies as `layout` says."""

    origin: tuple[int, int]
    layout: SwizzleAttr

    def _at(self, starts: Sequence[int]) -> tuple[int, int]:
        return self.origin[0] + starts[0], self.origin[1] + starts[1]

    def window(self, starts: Sequence[int], shape: tuple[int, ...]) -> SwizzledView:
        self.check(starts, shape)
        return SwizzledView(self.buffer, shape, self._at(starts), self.layout)

    def places(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        return _swizzled_places(self.layout, self._at(starts), shape)

    def _get(self, starts: Sequence[int], shape: tuple[int, ...]) -> Array:
        return self.buffer.readable()[self.places(starts, shape)]

    def _set(self, starts: Sequence[int], shape: tuple[int, ...], elements: Array) -> None:
        self.buffer.writable()[self.places(starts, shape)] = elements


@lru_cache(maxsize=64)
def _swizzled_places(layout: SwizzleAttr, at: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """Which elements of the buffer those of a window at `at` are: loops ask again and again."""
    dim, width, chunk = layout.dim.data, layout.width.data, layout.chunk.data
    panel, along = np.divmod(at[dim] + np.arange(shape[dim]), width)
    across = at[1 - dim] + np.arange(shape[1 - dim])
    turn = across // layout.rows_alike % layout.chunks
    place = along // chunk ^ turn[:, None]
    found = panel * layout.stride.data + across[:, None] * width
    found = found + place * chunk + along % chunk
    return found.T if dim == 0 else found


def swizzled_elements(sizes: tuple[int, ...], layout: SwizzleAttr) -> int:
    """Elements of a buffer that holds a matrix of `sizes`.

    Faults with GEM0903 where it is no matrix, GEM0904 where two panels overlap.
    """
    if len(sizes) != 2:
        raise FaultError("GEM0903", f"only a matrix is swizzled, not {_times(sizes)}")
    dim, width, stride = layout.dim.data, layout.width.data, layout.stride.data
    panels = -(-sizes[dim] // width)
    if panels > 1 and sizes[1 - dim] * width > stride:
        raise FaultError("GEM0904", f"panels of {sizes[1 - dim]} rows start every {stride}")
    return panels * stride


def strided_view(
    buffer: Buffer, offset: int, sizes: tuple[int, ...], strides: tuple[int, ...]
) -> StridedView:
    """A view of `buffer`; faults with GEM0904 where it reaches outside."""
    view = StridedView(buffer, sizes, offset, strides)
    if min(sizes, default=0) < 0 or offset < 0 or min(strides, default=0) < 0:
        raise FaultError("GEM0904", f"sizes {sizes}, offset {offset} and strides {strides}")
    end = offset + span(sizes, strides)
    if 0 not in sizes and end > buffer.data.size:
        raise FaultError("GEM0904", f"the view ends at {end} of {buffer.data.size} elements")
    return view


def panel_view(buffer: Buffer, sizes: tuple[int, ...], layout: PanelAttr) -> PanelView:
    """A view of `buffer`, which holds the panels; faults with GEM0904 where two of them overlap."""
    pitch, stride = layout.pitch.data, layout.stride.data
    if sizes[1 - layout.dim.data] * pitch > stride:
        needed = f"{sizes[1 - layout.dim.data]} times {pitch}"
        raise FaultError("GEM0904", f"panels of {needed} elements start every {stride}")
    return PanelView(buffer, sizes, layout)


def panel_elements(sizes: tuple[int, ...], layout: PanelAttr) -> int:
    """Elements of a buffer that holds panels for a matrix of `sizes`.

    Faults with GEM0903 where it is no matrix.
    """
    if len(sizes) != 2:
        raise FaultError("GEM0903", f"only a matrix has panels, not {_times(sizes)}")
    return -(-sizes[layout.dim.data] // layout.width.data) * layout.stride.data


def span(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to one past the last that a strided view can touch."""
    if 0 in sizes:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))


def row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    """The strides of a packed array, the last dimension adjacent."""
    strides: list[int] = []
    size = 1
    for extent in reversed(sizes):
        strides.append(size)
        size *= max(extent, 1)
    return tuple(reversed(strides))


def strides_of(of: MemRefType[Attribute], sizes: Sequence[int]) -> tuple[int | None, ...]:
    """The strides that the strided type `of` states for extents `sizes`; None where dynamic."""
    if isinstance(of.layout, NoneAttr):
        return row_major(sizes)
    assert isinstance(of.layout, StridedLayoutAttr)
    return tuple(of.layout.get_strides())


def same_strides(
    sizes: Sequence[int], strides: Sequence[int], stated: Sequence[int | None]
) -> bool:
    """Whether `strides` are those `stated` where it matters: in dimensions of several elements."""
    return 0 in sizes or all(
        n == 1 or found == expected or expected is None
        for n, found, expected in zip(sizes, strides, stated, strict=True)
    )


def require_type(view: View, of: MemRefType[Attribute]) -> None:
    """Fault with GEM0907 unless `view` has the static extents and layout of the type `of`."""
    for size, stated in zip(view.sizes, of.get_shape(), strict=True):
        if stated not in (size, DYNAMIC_INDEX):
            raise FaultError("GEM0907", f"the extents are {_times(view.sizes)}, not those of {of}")
    if isinstance(view, PanelView):
        if of.layout != view.layout:
            raise FaultError("GEM0907", f"the layout is not that of {of}")
        return
    if isinstance(view, SwizzledView):
        if of.layout != view.layout:
            raise FaultError("GEM0907", f"the layout is not that of {of}")
        return
    assert isinstance(view, StridedView)
    if isinstance(of.layout, PanelAttr | SwizzleAttr) or not same_strides(
        view.sizes, view.strides, strides_of(of, view.sizes)
    ):
        raise FaultError("GEM0907", f"the strides are {list(view.strides)}, not those of {of}")


def _times(extents: Sequence[int]) -> str:
    return "x".join(map(str, extents))
