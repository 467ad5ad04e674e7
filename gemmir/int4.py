"""Whole numbers of 4 bits, two in a byte, as arrays of B hold them where `dtype_b` is i4."""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from gemmir.errors import ProblemError

LEAST_INT4: Final = -8
LARGEST_INT4: Final = 7


def pack_int4(elements: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Whole numbers from -8 to 7 as bytes of two, along the last dimension, the first one low.

    They may be of any integer type, and of `ml_dtypes.int4`. Raises `ProblemError` GEM1334 for a
    number out of range, and for a last dimension of odd length.
    """
    found: npt.NDArray[Any] = np.asarray(elements)
    is_whole = found.dtype.kind in "iu" or found.dtype == np.dtype(ml_dtypes.int4)
    if not is_whole or found.ndim == 0 or found.shape[-1] % 2:
        raise ProblemError(
            "GEM1334",
            f"pack_int4 of {found.dtype} of shape {found.shape}",
            "pass integers, an even number of them along the last dimension",
        )
    whole = found.astype(np.int64)
    if whole.size and not LEAST_INT4 <= whole.min() <= whole.max() <= LARGEST_INT4:
        raise ProblemError(
            "GEM1334",
            f"pack_int4 of numbers from {whole.min()} to {whole.max()}",
            f"clip them to {LEAST_INT4} and {LARGEST_INT4}",
        )
    halves = whole.astype(np.uint8) & np.uint8(15)
    return halves[..., ::2] | halves[..., 1::2] << np.uint8(4)


def unpack_int4(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """The numbers that `pack_int4` made bytes of, twice as many along the last dimension.

    Raises `ProblemError` GEM1334 for what is no array of bytes.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim == 0:
        raise ProblemError(
            "GEM1334",
            f"unpack_int4 of {packed.dtype} of shape {packed.shape}",
            "pass an array of uint8, as pack_int4 gives",
        )
    low, high = packed << np.uint8(4), packed & np.uint8(0xF0)
    both = np.stack([low, high], axis=-1).view(np.int8) >> np.int8(4)
    return both.reshape(*packed.shape[:-1], 2 * packed.shape[-1])
