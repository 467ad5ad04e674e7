"""Asking Linux for the registers of matrix tiles, which a process has only then.

Without that the first instruction on a tile ends the process: Linux, Documentation/arch/x86/
xstate.rst, "Using dynamically enabled XSTATE features in user space applications".
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

from gemmir.errors import MissingError

ARCH_PRCTL: Final = 158
"""The number of the system call on x86-64."""

ARCH_REQ_XCOMP_PERM: Final = 0x1023
TILE_DATA: Final = 18
"""The state component of tiles, XTILEDATA."""


def ask_for_tiles() -> None:
    """Let all threads of this process use tiles; asking again changes nothing.

    Other systems than Linux give them without being asked. Raises `MissingError` GEM0632 where
    Linux refuses.
    """
    if sys.platform != "linux":
        return
    system = ctypes.CDLL(None, use_errno=True)
    asked = [ctypes.c_long(n) for n in (ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA)]
    if system.syscall(*asked) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MissingError(
            "GEM0632",
            f"Linux does not give this process the registers of matrix tiles: {reason}",
            "use Linux 5.16 or newer on a CPU with amx-tile, or vectorize{with=dot}",
        )
