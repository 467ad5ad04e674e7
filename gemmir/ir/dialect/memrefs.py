"""Types of memrefs: strides, memories, and what the verifiers ask of several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import DYNAMIC_INDEX, MemRefType, NoneAttr, StridedLayoutAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import base
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect.elements import Number

MEMREF = base(MemRefType)
"""An operand or result that is a memref."""

STAGED = (SpaceAttr(Space.SHARED), SpaceAttr(Space.VMEM))
"""Memories into which tiles are copied in any layout."""

CACHES = tuple(SpaceAttr(space) for space in (Space.L1, Space.L2, Space.L3))
"""Where buffers of panels are meant to stay; a window into one panel is strided."""


def memref_type(value: SSAValue) -> MemRefType[Number]:
    """The type of a memref of numbers; the verifiers guarantee that it is one."""
    found = cast("MemRefType[Number]", value.type)
    assert isinstance(found, MemRefType)
    return found


def strides_of(t: MemRefType[Attribute]) -> tuple[int | None, ...]:
    """Strides in elements of a memref whose layout is strided or absent; None where dynamic."""
    if isinstance(t.layout, NoneAttr):
        strides: list[int | None] = []
        size: int | None = 1
        for extent in reversed(t.get_shape()):
            strides.append(size)
            size = None if size is None or extent == DYNAMIC_INDEX else size * extent
        return tuple(reversed(strides))
    if not isinstance(t.layout, StridedLayoutAttr):
        raise VerifyException(f"{t} is not strided")
    return tuple(t.layout.get_strides())


def static_strides(t: MemRefType[Attribute]) -> tuple[int, ...]:
    """Strides in elements of a memref whose layout is strided or absent, where all are static."""
    found = strides_of(t)
    if any(s is None for s in found):
        raise VerifyException(f"{t} has a dynamic stride")
    return tuple(s for s in found if s is not None)


def in_rows(of: MemRefType[Number]) -> bool:
    """Whether neighbours in a row of a matrix are adjacent, maybe in panels of single rows."""
    layout = of.layout
    if isinstance(layout, PanelAttr):
        return (layout.dim.data, layout.width.data, layout.depth.data) == (0, 1, 1)
    return len(of.get_shape()) == 2 and strides_of(of)[1] == 1


def is_shared(value: SSAValue) -> bool:
    """Whether a memref lies in the shared memory of a block."""
    return memref_type(value).memory_space == SpaceAttr(Space.SHARED)


def require_same_elements(name: str, types: Sequence[MemRefType[Attribute]]) -> None:
    """Raise `VerifyException`, which begins with `name`, if element types differ."""
    if len({t.element_type for t in types}) > 1:
        raise VerifyException(
            f"{name}: element types {[str(t.element_type) for t in types]} differ"
        )


def require_extent(name: str, dimension: str, *extents: int) -> None:
    """Raise `VerifyException` if extents of one `dimension` are known and differ."""
    static = {e for e in extents if e != DYNAMIC_INDEX}
    if len(static) > 1:
        raise VerifyException(f"{name}: extents {sorted(static)} of {dimension} differ")
