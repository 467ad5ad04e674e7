"""What the arguments of a function say of arrays and sizes that are known in a call only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import cast

from xdsl.dialects import func
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    IndexType,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.build import ARGUMENT_NAME, SIZE_NAMES, packed_strides
from gemmir.ir.dialect import GemmOp
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


def unknown_numbers(module: ModuleOp) -> list[str]:
    """The sizes among the arguments of the functions of a module, and alpha and beta if loaded."""
    found: dict[str, None] = {}
    for op in module.walk():
        if isinstance(op, func.FuncOp):
            found.update(dict.fromkeys(size_arguments(op)))
        elif isinstance(op, GemmOp):
            factors = {"alpha": op.alpha_value, "beta": op.beta_value}
            found.update(dict.fromkeys(n for n, value in factors.items() if value is not None))
    return list(found)


def size_arguments(function: func.FuncOp) -> dict[str, SSAValue]:
    """The sizes among the arguments of a function, by name."""
    attributes = function.arg_attrs.data if function.arg_attrs is not None else ()
    found: dict[str, SSAValue] = {}
    for argument, own in zip(function.body.block.args, attributes, strict=False):
        if isinstance(argument.type, IndexType):
            found[_name(own.data)] = argument
    return found


def _strides(
    memref: MemRefType[Attribute], shape: tuple[int, ...], names: Iterator[str]
) -> Iterator[int]:
    layout = memref.layout
    if isinstance(layout, NoneAttr):
        if any(isinstance(n, Unknown) for n in shape[1:]):
            raise VerifyException(f"{memref} has rows of unknown length and says no strides")
        known = not any(isinstance(n, Unknown) for n in shape)
        packed = [math.prod(shape[i + 1 :]) for i in range(len(shape))] if known else ()
        yield from packed or packed_strides(shape)
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
    names = cast("ArrayAttr[Attribute]", found).data
    return [name.data for name in names if isinstance(name, StringAttr)]
