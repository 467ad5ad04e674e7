"""How an instruction reads the bits of a register: PTX ISA, section "Fundamental Types"."""

from __future__ import annotations

import re
import struct
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from gemmir.backends.ptx.emulator.faults import FaultError

Array: TypeAlias = npt.NDArray[Any]

BF16: Final[np.dtype[Any]] = np.dtype(ml_dtypes.bfloat16)

TYPES: Final[dict[str, np.dtype[Any]]] = {
    **{f"{kind}{8 * n}": np.dtype(f"u{n}") for kind in "bu" for n in (1, 2, 4, 8)},
    **{f"s{8 * n}": np.dtype(f"i{n}") for n in (1, 2, 4, 8)},
    "f16": np.dtype(np.float16),
    "f16x2": np.dtype(np.float16),
    "bf16": BF16,
    "bf16x2": BF16,
    "f32": np.dtype(np.float32),
    "f32x2": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "pred": np.dtype(np.bool_),
}
"""A register of a packed type is read as twice as many elements."""

WIDTHS: Final[dict[str, int]] = {
    **{kind: dtype.itemsize for kind, dtype in TYPES.items()},
    "f16x2": 4,
    "bf16x2": 4,
    "f32x2": 8,
}
"""Bytes of a register of each type."""

_FLOAT: Final = re.compile(r"0([fFdD])([0-9a-fA-F]+)")


def bits_of(width: int) -> np.dtype[Any]:
    """The unsigned type of `width` bytes."""
    return np.dtype(f"u{width}")


def is_float(kind: str) -> bool:
    """Whether a type is of floating point, packed or not."""
    return "f" in kind


def require_type(kind: str, *, pairs: bool = False) -> str:
    """`kind` if it is a type that registers can be read as; with `pairs` also as two f32."""
    if kind not in TYPES or (kind == "f32x2" and not pairs):
        raise FaultError("GEM1001", f".{kind} is no type")
    return kind


def number(text: str, kind: str) -> Any:
    """A literal as a value of the NumPy type of `kind`; 0f and 0d give the bits of a float."""
    dtype = TYPES[kind]
    if found := _FLOAT.fullmatch(text):
        wide = found.group(1) in "dD"
        digits = found.group(2)
        if len(digits) != (16 if wide else 8):
            raise FaultError("GEM1001", f"{text} has {len(digits)} digits")
        value = struct.unpack(">d" if wide else ">f", bytes.fromhex(digits))[0]
        bits = np.array([value], np.float64 if wide else np.float32)
        same = not is_float(kind) and dtype.itemsize == bits.itemsize
        return bits.view(dtype)[0] if same else bits.astype(dtype)[0]
    try:
        value = int(text.rstrip("U"), 0)
    except ValueError:
        raise FaultError("GEM1001", f"{text} is no register, symbol or number") from None
    if dtype.kind in "ui":
        wrapped = value % (1 << 8 * dtype.itemsize)
        return np.array([wrapped], bits_of(dtype.itemsize)).view(dtype)[0]
    if dtype.kind == "b":
        return np.bool_(value)
    if WIDTHS[kind] == 2 or WIDTHS[kind] != dtype.itemsize:
        wrapped = value % (1 << 8 * dtype.itemsize)
        return np.array([wrapped], bits_of(dtype.itemsize)).view(dtype)[0]
    return dtype.type(value)
