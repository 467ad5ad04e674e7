"""Tensor maps: which bytes of an array a box is, and where they lie in shared memory.

CUDA Driver API, section "Tensor Map Object Management", has the rules that a map obeys.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.values import Array
from gemmir.launch import TensorMap

MAPS: Final = 1 << 46
"""Where the tensor maps of a kernel seem to lie, above all memory."""

MAP_BYTES: Final = 128

SPANS: Final = {0: 0, 32: 1, 64: 3, 128: 7}
"""By the bytes that are swizzled over: which bits from bit 7 on change those from bit 4 on."""

MOST_IN_BOX: Final = 256


def swizzled(addresses: Array, span: int) -> Array:
    """Where bytes lie that would lie at `addresses` without swizzling."""
    return addresses ^ ((addresses >> 7 & SPANS[span]) << 4)


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """Units of `width` bytes of a box: in global memory, and from the start of the box on."""

    width: int
    source: Array
    offsets: Array


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor map whose array begins at an address of global memory."""

    map: TensorMap
    name: str
    base: int

    @property
    def rank(self) -> int:
        """How many coordinates a box has."""
        return len(self.map.extents)

    def box_at(self, coordinates: Sequence[int]) -> Box:
        """What lies inside the array of the box that begins at `coordinates`."""
        item, box = self.map.item_bytes, self.map.box
        pairs = zip(coordinates, box, self.map.extents, strict=True)
        spans = [(max(0, -c), max(0, -c, min(n, extent - c))) for c, n, extent in pairs]
        pitches = [math.prod(box[:d]) * item for d in range(1, len(box))]
        source = np.zeros(1, np.int64) + self.base + (coordinates[0] + spans[0][0]) * item
        offsets = np.zeros(1, np.int64) + spans[0][0] * item
        outer = zip(spans[1:], coordinates[1:], self.map.strides_bytes, pitches, strict=True)
        for (first, last), start, stride, pitch in outer:
            steps = np.arange(first, last)[:, None]
            source = ((steps + start) * stride + source).reshape(-1)
            offsets = (steps * pitch + offsets).reshape(-1)
        length = (spans[0][1] - spans[0][0]) * item
        if not length or not source.size:
            return Box(16, np.zeros(0, np.int64), np.zeros(0, np.int64))
        every = int(np.bitwise_or.reduce(source | offsets)) | length | 16
        width = every & -every
        steps = np.arange(0, length, width)
        return Box(width, (source[:, None] + steps).ravel(), (offsets[:, None] + steps).ravel())


def tensor_of(found: TensorMap, name: str, start: int, size: int) -> Tensor:
    """The map named `name` of a buffer at `start`; `FaultError` GEM1013 where it breaks a rule."""
    for wrong, why in _rules(found, size):
        if wrong:
            raise FaultError("GEM1013", f"the tensor map {name} {why}")
    return Tensor(found, name, start + found.offset_bytes)


def _rules(found: TensorMap, size: int) -> list[tuple[bool, str]]:
    rank, item = len(found.extents), found.item_bytes
    if not 1 <= rank <= 5 or len(found.strides_bytes) != rank - 1 or len(found.box) != rank:
        return [(True, f"has {rank} extents, {len(found.strides_bytes)} strides, {found.box}")]
    steps = (item, *found.strides_bytes)
    last = sum((n - 1) * s for n, s in zip(found.extents, steps, strict=True)) + item
    row = found.box[0] * item
    return [
        (min(found.extents) < 1, f"has the extents {found.extents}"),
        (any(s % 16 for s in found.strides_bytes), f"has the strides {found.strides_bytes}"),
        (found.offset_bytes % 16 != 0, f"begins at byte {found.offset_bytes}, no multiple of 16"),
        (
            any(not 1 <= n <= MOST_IN_BOX for n in found.box),
            f"has the box {found.box}, not of 1 to {MOST_IN_BOX}",
        ),
        (row % 16 != 0, f"has a box with rows of {row} bytes, no multiple of 16"),
        (found.swizzle_bytes not in SPANS, f"has a swizzle over {found.swizzle_bytes} bytes"),
        (
            found.swizzle_bytes not in (0, row),
            f"has rows of {row} bytes, and is swizzled over {found.swizzle_bytes}",
        ),
        (
            found.offset_bytes + last > size,
            f"reaches to byte {found.offset_bytes + last} of a buffer of {size} bytes",
        ),
    ]


def addresses_of(names: Sequence[str]) -> dict[str, int]:
    """Where each tensor map seems to lie."""
    return dict(zip(names, itertools.count(MAPS, MAP_BYTES), strict=False))
