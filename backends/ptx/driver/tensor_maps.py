"""Tensor maps, by which the copy engine of a GPU finds its way in an array, as the driver codes
them.

CUDA Driver API, "Tensor Map Object Management", cuTensorMapEncodeTiled, has the limits and the
numbers of the enumerations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

from gemmir.backends.ptx.driver import libcuda
from gemmir.dtypes import Precision
from gemmir.errors import DeviceError
from gemmir.launch import TensorMap

MAP_BYTES: Final = 128
MAP_ALIGNMENT: Final = 64
"""Size and alignment of a CUtensorMap."""

UNSIGNED: Final = {1: 0, 2: 1, 4: 2, 8: 4}
"""CU_TENSOR_MAP_DATA_TYPE_UINT8 to _UINT64 by their bytes: what is copied bit by bit."""

TFLOAT32: Final = 11
"""CU_TENSOR_MAP_DATA_TYPE_TFLOAT32: f32, rounded to tf32 as it is copied."""

SWIZZLES: Final = {0: 0, 32: 1, 64: 2, 128: 3}
"""CU_TENSOR_MAP_SWIZZLE_NONE to _128B."""

NO_INTERLEAVE: Final = 0
L2_PROMOTION_128B: Final = 2
ZEROS: Final = 0
"""CU_TENSOR_MAP_INTERLEAVE_NONE, _L2_PROMOTION_L2_128B, _FLOAT_OOB_FILL_NONE.

128 bytes are a row of most boxes; for products of 16 rows on an H200 they were 2 % faster than 256.
"""

GRAIN_BYTES: Final = 16
"""What an address, a stride and a row of a box are multiples of."""

MAX_RANK: Final = 5
MAX_EXTENT: Final = 1 << 32
MAX_BOX: Final = 256
STRIDE_END: Final = 1 << 40


def encode(tensor_map: TensorMap, address: int, place: int) -> None:
    """Write the map of an array that begins at `address` to `place`, which is aligned to 64 bytes.

    Raises `DeviceError`: GEM0527 to GEM0532 where there can be no such map, each with the numbers,
    GEM0533 where the driver refuses it all the same, GEM0534 where the driver is too old.
    """
    start = address + tensor_map.offset_bytes
    _require_possible(tensor_map, start)
    rank = len(tensor_map.extents)
    is_tf32 = tensor_map.item == Precision.TF32
    try:
        call = libcuda.library().cuTensorMapEncodeTiled
    except AttributeError:
        raise DeviceError(
            "GEM0534",
            "the driver knows no tensor maps, which the kernel needs",
            "use a driver of CUDA 12 or newer",
        ) from None
    status = call(
        ctypes.c_void_p(place),
        TFLOAT32 if is_tf32 else UNSIGNED[tensor_map.item_bytes],
        rank,
        ctypes.c_void_p(start),
        (ctypes.c_uint64 * rank)(*tensor_map.extents),
        (ctypes.c_uint64 * rank)(*tensor_map.strides_bytes),
        (ctypes.c_uint32 * rank)(*tensor_map.box),
        (ctypes.c_uint32 * rank)(*(1,) * rank),
        NO_INTERLEAVE,
        SWIZZLES[tensor_map.swizzle_bytes],
        L2_PROMOTION_128B,
        ZEROS,
    )
    if status:
        raise DeviceError(
            "GEM0533",
            f"the driver refuses the tensor map of {tensor_map} at address {start:#x} "
            f"(status {status})",
            "use a schedule with other tiles",
        )


def _require_possible(tensor_map: TensorMap, start: int) -> None:
    """What the driver would refuse without a word about why."""
    extents, strides, box = tensor_map.extents, tensor_map.strides_bytes, tensor_map.box
    said = f"a tensor map of {tensor_map}"
    if not 1 <= len(extents) <= MAX_RANK or {len(box), len(strides) + 1} != {len(extents)}:
        raise DeviceError(
            "GEM0527",
            f"{said} has {len(extents)} extents, {len(strides)} strides and a box of {len(box)}",
            f"give as many of a box as of extents, 1 to {MAX_RANK}, and one stride less",
        )
    if not _all_within(extents, 1, MAX_EXTENT):
        raise DeviceError("GEM0528", f"{said} has an extent that is not in 1 to {MAX_EXTENT}")
    if any(s % GRAIN_BYTES for s in strides) or not _all_within(strides, 0, STRIDE_END - 1):
        raise DeviceError(
            "GEM0529",
            f"{said} has a stride that is no multiple of {GRAIN_BYTES} bytes below 2**40",
            f"pad the rows of the array to a multiple of {GRAIN_BYTES} bytes",
        )
    if not _all_within(box, 1, MAX_BOX):
        raise DeviceError("GEM0530", f"{said} has a side of its box that is not in 1 to {MAX_BOX}")
    swizzle, row = tensor_map.swizzle_bytes, box[0] * tensor_map.item_bytes
    if row % GRAIN_BYTES or swizzle not in SWIZZLES or (swizzle and row > swizzle):
        raise DeviceError(
            "GEM0531",
            f"{said} has rows of {row} bytes in its box",
            f"rows are multiples of {GRAIN_BYTES} bytes and at most the swizzle, one of "
            f"{', '.join(map(str, SWIZZLES))}",
        )
    if start % GRAIN_BYTES:
        raise DeviceError(
            "GEM0532",
            f"{said} starts at address {start:#x}, which is no multiple of {GRAIN_BYTES} bytes",
            "pass a copy of the array",
        )


def _all_within(values: Sequence[int], least: int, most: int) -> bool:
    return all(least <= n <= most for n in values)
