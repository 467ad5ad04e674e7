"""What threads wait for, as far as the order of their turns depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gemmir.backends.ptx.emulator.mbarrier import MBarrier


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Threads go on once `ready`: behind their instruction, or with it `again`.

    `says` is what they wait for, in words; `wants` is the mbarrier, which it is, if any.
    """

    ready: Callable[[], bool]
    says: Callable[[], str]
    again: bool
    wants: tuple[MBarrier, ...] = ()
