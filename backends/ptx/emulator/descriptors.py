"""Matrix descriptors of wgmma: PTX ISA, section "Asynchronous Warpgroup Level Matrix Shared Memory
Layout", and the canonical layouts of CUTLASS, `cute/arch/mma_sm90_desc.hpp`.

A matrix is made of units of 16 bytes. K-major, a row has two of them, and 8 rows of the width that
is swizzled over are stacked; MN-major, 8 rows along k are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.async_reads import UNIT
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.tensors import swizzled
from gemmir.backends.ptx.emulator.values import Array

SWIZZLES: Final = (0, 128, 64, 32)
"""The bytes that are swizzled over, by the field of a descriptor."""

KNOWN_BITS: Final = 0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The fields of a descriptor, in bytes.

    `leading` is the step between repetitions of the pattern along rows of memory, or between the
    two units of a row where nothing is swizzled; `stride` is that between stacks of 8 rows.
    """

    start: int
    leading: int
    stride: int
    span: int

    def __str__(self) -> str:
        return (
            f"start {self.start:#x}, leading offset {self.leading}, stride offset {self.stride}, "
            f"swizzle {self.span or 'none'}"
        )


def descriptor_of(bits: int) -> Descriptor:
    """`FaultError` GEM1013 for one that is not known here."""
    if bits & ~KNOWN_BITS:
        raise FaultError("GEM1013", f"the matrix descriptor {bits:#x} has bits in no field")
    span = SWIZZLES[bits >> 62]
    start = (bits & 0x3FFF) * UNIT
    if bits >> 49 & 7:
        raise FaultError("GEM1013", f"the matrix descriptor {bits:#x} has a base offset, not 0")
    pattern = 8 * span
    if span and start % pattern // 128 * 128:
        raise FaultError(
            "GEM1013",
            f"the matrix descriptor {bits:#x} starts {start % pattern} bytes into a pattern that "
            f"repeats every {pattern} bytes: swizzled matrices begin at its multiples",
        )
    return Descriptor(start, (bits >> 16 & 0x3FFF) * UNIT, (bits >> 32 & 0x3FFF) * UNIT, span)


@lru_cache(maxsize=4096)
def units_of(found: Descriptor, extent: int, depth_units: int, k_rows: int) -> Array:
    """The addresses of the units of a matrix of `extent` rows or columns.

    K-major (`k_rows` is 0) they are extent by `depth_units`; MN-major `k_rows` by extent / 8.
    """
    if k_rows:
        return _mn_major(found, extent // 8, k_rows)
    rows, units = np.arange(extent)[:, None], np.arange(depth_units)
    _require_apart("rows of 8", found.stride, 8 * (found.span or UNIT), extent > 8, found)
    step = UNIT
    if not found.span:
        step = found.leading
        _require_apart("units of a row", found.leading, 8 * UNIT, depth_units > 1, found)
    pitch = found.span or UNIT
    plain = found.start + rows % 8 * pitch + rows // 8 * found.stride + units * step
    return swizzled(plain, found.span)


def _mn_major(found: Descriptor, chunks: int, k_rows: int) -> Array:
    rows, units = np.arange(k_rows)[:, None], np.arange(chunks)
    if not found.span:
        _require_apart("columns of 8", found.stride, 8 * UNIT, chunks > 1, found)
        _require_apart("rows of 8 along k", found.leading, 8 * UNIT, k_rows > 8, found)
        return found.start + units * found.stride + rows % 8 * UNIT + rows // 8 * found.leading
    wide = found.span // UNIT
    _require_apart("repetitions", found.leading, 8 * found.span, chunks > wide, found)
    _require_apart("rows of 8 along k", found.stride, 8 * found.span, k_rows > 8, found)
    plain = found.start + units % wide * UNIT + units // wide * found.leading
    plain = plain + rows % 8 * found.span + rows // 8 * found.stride
    return swizzled(plain, found.span)


def _require_apart(what: str, step: int, size: int, several: bool, found: Descriptor) -> None:
    if several and step < size:
        raise FaultError(
            "GEM1013",
            f"the matrix of the descriptor ({found}) overlaps itself: {what} begin every {step} "
            f"bytes and take {size}",
        )
