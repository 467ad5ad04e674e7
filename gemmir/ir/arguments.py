"""What the arguments of a function say of arrays and sizes that are known in a call only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    MemRefType,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
)
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.build import ARGUMENT_NAME, SIZE_NAMES, packed_strides
from gemmir.sizes import Layout, Unknown


def layout_of(memref: MemRefType[Attribute], attributes: Mapping[str, Attribute]) -> Layout:
    """The shape and strides of an argument; what its type leaves open has the name of a size.

    `VerifyException` where `gemmir.sizes` does not name each dynamic extent and stride, and where
    its layout is not strided or has an offset.
    """
    names = iter(_names(attributes))
    shape = tuple(Unknown(next(names, "")) if n == DYNAMIC_INDEX else n for n in memref.get_shape())
    strides = tuple(_strides(memref, shape, names))
    found = Layout(name=_name(attributes), shape=shape, strides=strides)
    if "" in found.unknown or next(names, None) is not None:
        raise VerifyException(f"{SIZE_NAMES} does not name each ? of {memref}")
    return found


def _strides(
    memref: MemRefType[Attribute], shape: tuple[int, ...], names: Iterator[str]
) -> Iterator[int]:
    layout = memref.layout
    if isinstance(layout, NoneAttr):
        if any(isinstance(n, Unknown) for n in shape[1:]):
            raise VerifyException(f"{memref} has rows of unknown length and says no strides")
        yield from packed_strides(shape)
        return
    if not isinstance(layout, StridedLayoutAttr) or layout.get_offset() != 0:
        raise VerifyException(f"{memref} is not strided from offset 0")
    for stride in layout.get_strides():
        yield Unknown(next(names, "")) if stride is None else stride


def _name(attributes: Mapping[str, Attribute]) -> str:
    found = attributes.get(ARGUMENT_NAME)
    return found.data if isinstance(found, StringAttr) else ""


def _names(attributes: Mapping[str, Attribute]) -> list[str]:
    found = attributes.get(SIZE_NAMES)
    if not isinstance(found, ArrayAttr):
        return []
    return [n.data for n in found.data if isinstance(n, StringAttr)]
