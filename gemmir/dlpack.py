"""DLPack capsules: how Python libraries show each other where their arrays lie.

Only what the arrays of a GPU need: reading the capsule that another library makes, and making one.
The structures are those of dlpack.h 1.1 (github.com/dmlc/dlpack).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

CUDA: Final = 2
CUDA_MANAGED: Final = 13
"""Device types of arrays that a GPU can use: kDLCUDA, kDLCUDAManaged."""

READ_ONLY: Final = 1
"""The flag of an array that may not be written: DLPACK_FLAG_BITMASK_READ_ONLY."""

DTYPES: Final[dict[tuple[int, int], np.dtype[Any]]] = {
    (0, 8): np.dtype(np.int8),
    (0, 32): np.dtype(np.int32),
    (1, 8): np.dtype(np.uint8),
    (2, 16): np.dtype(np.float16),
    (2, 32): np.dtype(np.float32),
    (2, 64): np.dtype(np.float64),
    (4, 16): np.dtype(ml_dtypes.bfloat16),
    (10, 8): np.dtype(ml_dtypes.float8_e4m3fn),
    (12, 8): np.dtype(ml_dtypes.float8_e5m2),
}
"""NumPy's type of DLDataTypeCode and bits."""

_CODES: Final = {dtype: key for key, dtype in DTYPES.items()}


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""What ends an array that was handed over, or a capsule."""


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An array as its library shows it; strides in bytes.

    What is at `address` stays while the `capsule` is kept.
    """

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    gpu: int
    is_read_only: bool
    capsule: object


_api: Final = ctypes.pythonapi
_is_valid: Final = _api.PyCapsule_IsValid
_is_valid.argtypes, _is_valid.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int
_pointer: Final = _api.PyCapsule_GetPointer
_pointer.argtypes, _pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
_new: Final = _api.PyCapsule_New
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_new.restype = ctypes.py_object

_PLAIN: Final = b"dltensor"
_WITH_VERSION: Final = b"dltensor_versioned"


def read(capsule: object) -> Exported:
    """What a capsule says; `ValueError` where that is no array that we know."""
    if _is_valid(capsule, _WITH_VERSION):
        whole = _Versioned.from_address(_pointer(capsule, _WITH_VERSION))
        tensor, read_only = whole.tensor, bool(whole.flags & READ_ONLY)
    elif _is_valid(capsule, _PLAIN):
        tensor, read_only = _Managed.from_address(_pointer(capsule, _PLAIN)).tensor, False
    else:
        raise ValueError("it is not a DLPack capsule, or another library has taken it")
    kind = tensor.dtype
    dtype = DTYPES.get((kind.code, kind.bits))
    if dtype is None or kind.lanes != 1:
        raise ValueError(f"its elements are of DLPack type {kind.code} with {kind.bits} bits")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(tensor.strides[i] for i in range(tensor.ndim))
    else:
        strides = packed_strides(shape)
    return Exported(
        address=(tensor.data or 0) + tensor.byte_offset,
        dtype=dtype,
        shape=shape,
        strides=tuple(s * dtype.itemsize for s in strides),
        gpu=tensor.device.number,
        is_read_only=read_only,
        capsule=capsule,
    )


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of an array without gaps, the last dimension adjacent."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


_exported: Final[dict[int, tuple[object, ...]]] = {}
"""What each capsule that was made keeps alive, until whoever takes it gives it back."""


@_Deleter
def _give_back(managed: int) -> None:
    _exported.pop(managed, None)


# A capsule that ends has no references, and must not get one again: it is named by its address.
_address_is_valid: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_pointer_at: Final = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)


@_Deleter
def _drop(capsule: int) -> None:
    """The end of a capsule: what nobody has taken is given back."""
    if _address_is_valid(capsule, _PLAIN):
        _give_back(_pointer_at(capsule, _PLAIN))


def make(
    address: int,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    strides: Sequence[int],
    gpu: int,
    owner: object,
) -> object:
    """A capsule of an array on a GPU, strides in elements, which keeps `owner` alive."""
    count = len(shape)
    extents, steps = (ctypes.c_int64 * count)(*shape), (ctypes.c_int64 * count)(*strides)
    code, bits = _CODES[dtype]
    pointer = ctypes.POINTER(ctypes.c_int64)
    managed = _Managed(
        tensor=_Tensor(
            data=address,
            device=_Device(kind=CUDA, number=gpu),
            ndim=count,
            dtype=_DataType(code=code, bits=bits, lanes=1),
            shape=ctypes.cast(extents, pointer),
            strides=ctypes.cast(steps, pointer),
            byte_offset=0,
        ),
        context=None,
        deleter=_give_back,
    )
    place = ctypes.addressof(managed)
    _exported[place] = (managed, extents, steps, owner)
    return _new(place, _PLAIN, ctypes.cast(_drop, ctypes.c_void_p))
