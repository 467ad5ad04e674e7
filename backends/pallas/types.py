"""Element types and numbers, as JAX spells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from xdsl.dialects.builtin import AnyFloat, FixedBitwidthType, Float32Type, IndexType, IntegerType
from xdsl.ir import Attribute

from gemmir.errors import BackendError

JAX_TYPES: Final[Mapping[str, str]] = {
    "f32": "jnp.float32",
    "bf16": "jnp.bfloat16",
    "f8E4M3FN": "jnp.float8_e4m3fn",
    "f8E5M2": "jnp.float8_e5m2",
    "i8": "jnp.int8",
    "i32": "jnp.int32",
    "i1": "jnp.bool_",
}
"""What a TPU has registers for, by its spelling in the IR."""


def jax_type(element: Attribute) -> str:
    """The type `element` in JAX; `BackendError` GEM0462 where a TPU has none."""
    if isinstance(element, IndexType):
        return "jnp.int32"
    found = JAX_TYPES.get(str(element))
    if found is None:
        raise BackendError(
            "GEM0462",
            f"a TPU has no elements of type {element}",
            f"use {', '.join(t for t in JAX_TYPES if t != 'i1')}",
        )
    return found


def item_bytes(element: Attribute) -> int:
    """Bytes of an element in memory."""
    assert isinstance(element, FixedBitwidthType)
    return element.size


def jax_number(value: float, element: Attribute) -> str:
    """A number of the type `element`, in no more digits than that has."""
    if isinstance(element, IntegerType | IndexType):
        return str(int(value))
    assert isinstance(element, AnyFloat)
    if not math.isfinite(value):
        return f'float("{value}")'
    rounded = np.float32(value) if isinstance(element, Float32Type) else value
    return repr(float(str(rounded)))
