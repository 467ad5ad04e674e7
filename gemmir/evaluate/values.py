"""What an SSA value is while a module runs, and the NumPy type of an element.

| type in the IR     | value                                             |
|--------------------|---------------------------------------------------|
| index              | `int`                                             |
| i1                 | `bool`                                            |
| iN, bf16, f32, …   | a NumPy scalar of that type                       |
| vector             | a NumPy array that nothing else can write to      |
| memref             | a `View`                                          |

Inside `gemmir.epilogue` a scalar of the IR is an array over the tile; every elementwise op has one
meaning for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    ContainerType,
    IndexType,
    IntegerType,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute

from gemmir.dtypes import ELEMENTS
from gemmir.evaluate.fault import FaultError
from gemmir.ir.build import ELEMENT_TYPES

Array: TypeAlias = npt.NDArray[Any]
Element: TypeAlias = Any
"""An `int`, a `bool`, a NumPy scalar or an array of them: what elementwise ops take and give."""

_DTYPES: Final[Mapping[Attribute, np.dtype[Any]]] = {
    i1: np.dtype(np.bool_),
    i8: np.dtype(np.int8),
    i16: np.dtype(np.int16),
    i32: np.dtype(np.int32),
    i64: np.dtype(np.int64),
    IndexType(): np.dtype(np.int64),
    **{ELEMENT_TYPES[name]: element.numpy for name, element in ELEMENTS.items()},
}


def element_type(of: Attribute) -> Attribute:
    """The element type of a vector or memref type; any other type itself."""
    if not isinstance(of, ContainerType):
        return of
    return cast("ContainerType[Attribute]", of).get_element_type()


def dtype_of(of: Attribute) -> np.dtype[Any]:
    """The NumPy type of an element of type `of`, or of the elements of a vector or memref.

    Faults with GEM0903 where there is none.
    """
    element = element_type(of)
    if element not in _DTYPES:
        raise FaultError("GEM0903", f"{element} has no NumPy type here")
    return _DTYPES[element]


def never_written(dtype: np.dtype[Any]) -> Any:
    """What new memory holds: NaN, or the integer that is furthest from 0.

    Integers are compared exactly, so that it shows wherever it counts.
    """
    if dtype.kind not in "iu":
        return np.nan
    limits = np.iinfo(dtype)
    return limits.min or limits.max


def bits(of: Attribute) -> int:
    """The width of an integer or index type."""
    element = element_type(of)
    return element.bitwidth if isinstance(element, IntegerType) else 64
