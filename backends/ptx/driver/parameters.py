"""The parameters of a kernel as they lie in memory: its tensor maps, then its pointers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

from gemmir.backends.ptx.driver.tensor_maps import MAP_ALIGNMENT, MAP_BYTES, encode
from gemmir.errors import DeviceError
from gemmir.launch import KernelLaunch

POINTER_BYTES: Final = 8

FIRST_MAP: Final = -0x210 % MAP_ALIGNMENT
"""Where the first tensor map is in a buffer of parameters. That goes to byte 0x210 of a bank of
constants on all GPUs that have tensor maps and run this code, those of sm_90 (EIATTR_PARAM_CBANK of
their cubins), and a map is on a multiple of 64 bytes of that bank, not of the buffer."""


class Parameters:
    """What a kernel is started with, made once and for all its launches.

    `places` is the address of an array of the address of each parameter, as cuLaunchKernel takes
    them. Both live as long as this object.
    """

    def __init__(self, kernel: KernelLaunch, addresses: Sequence[int]) -> None:
        """Raises `DeviceError` GEM0535 where blocks fill no clusters, and as `encode` does."""
        _require_clusters(kernel)
        count = len(kernel.tensor_maps)
        self._has_maps = count > 0
        self._size = count * MAP_BYTES + len(addresses) * POINTER_BYTES
        self._room = (ctypes.c_uint8 * (self._size + MAP_ALIGNMENT))()
        begin = ctypes.addressof(self._room)
        self._start = begin + -begin % MAP_ALIGNMENT
        maps = [self._start + n * MAP_BYTES for n in range(count)]
        for tensor_map, place in zip(kernel.tensor_maps, maps, strict=True):
            encode(tensor_map, addresses[tensor_map.argument], place)
        end = self._start + count * MAP_BYTES
        (ctypes.c_uint64 * len(addresses)).from_address(end)[:] = list(addresses)
        pointers = [end + n * POINTER_BYTES for n in range(len(addresses))]
        self._places = (ctypes.c_void_p * (count + len(addresses)))(*maps, *pointers)
        self.places = ctypes.addressof(self._places)

    def to_bytes(self) -> bytes:
        """All parameters, one behind the other, in the buffer that cuLaunchKernel takes."""
        before = FIRST_MAP if self._has_maps else 0
        return bytes(before) + ctypes.string_at(self._start, self._size)


def _require_clusters(kernel: KernelLaunch) -> None:
    if kernel.blocks % kernel.cluster:
        raise DeviceError(
            "GEM0535",
            f"{kernel.symbol} has {kernel.blocks} blocks, which fill no clusters of "
            f"{kernel.cluster}",
            "use a schedule without clusters",
        )
