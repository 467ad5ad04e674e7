"""Operands on a GPU, in as many places as it takes for no launch to find its own in L2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gemmir.arrays import GUARD, Operands, guarded_bytes
from gemmir.backends.ptx.driver import LEGACY_STREAM, Driver, Memory, as_bytes
from gemmir.kernel import DTYPES
from gemmir.signature import Argument

L2_TIMES: Final = 4
"""So many times the L2 lies between two launches on one place. A cache that replaces lines at
random still has a fifth of what was read two sizes ago, and a fiftieth of what was four ago."""

LEAST_PLACES: Final = 2
MOST_PLACES: Final = 1024
"""Each is a launch with parameters of its own."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """How many places operands have, and whether those are enough for L2 to have lost them."""

    places: int
    is_cold: bool

    @staticmethod
    def of(bytes_each: int, l2_bytes: int) -> Rotation:
        """The rotation of operands of so many bytes."""
        wanted = max(math.ceil(L2_TIMES * l2_bytes / max(bytes_each, 1)) + 1, LEAST_PLACES)
        return Rotation(places=min(wanted, MOST_PLACES), is_cold=wanted <= MOST_PLACES)


class OnGpu:
    """Room on a GPU for operands with what lies around them."""

    def __init__(self, driver: Driver, gpu: int, arguments: Sequence[Argument]) -> None:
        self._driver = driver
        self._memories = {a.name: Memory(driver, gpu, guarded_bytes(a)) for a in arguments}
        self.addresses = [
            self._memories[a.name].address + GUARD * DTYPES[a.dtype].itemsize for a in arguments
        ]

    def send(self, operands: Operands) -> None:
        """Copy everything over; it is there for whatever stream comes next."""
        for name, operand in operands.by_name.items():
            self._driver.copy_in(self._memories[name].address, as_bytes(operand.memory))
        self._driver.synchronize(LEGACY_STREAM)

    def receive(self, operands: Operands) -> None:
        """Copy everything back, also what nobody should have written."""
        for name, operand in operands.by_name.items():
            self._driver.copy_out(as_bytes(operand.memory), self._memories[name].address)
