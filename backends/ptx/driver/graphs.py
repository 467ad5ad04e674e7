"""Many launches as one: a graph of CUDA, which the GPU goes through without asking the CPU.

What a launch costs the CPU, some microseconds, would else be the time of a short kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Final

from gemmir.backends.ptx.driver import libcuda
from gemmir.backends.ptx.driver.base import LEGACY_STREAM, failed

_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING."""

_THREAD_LOCAL: Final = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL."""


def new_stream() -> int:
    """A stream of the current context whose launches can be recorded."""
    made = ctypes.c_void_p()
    libcuda.require("cuStreamCreate", ctypes.byref(made), _NON_BLOCKING)
    assert made.value is not None
    return made.value


def recorded(calls: Sequence[Callable[[], int]], stream: int) -> Callable[[], None]:
    """A call that does all that `calls` start on `stream`, in order, on the legacy stream.

    They must have been made before, for nothing can be loaded meanwhile. The graph stays until the
    process ends. `DeviceError` GEM0526 where one of them cannot be recorded.
    """
    handle = ctypes.c_void_p(stream)
    graph, made = ctypes.c_void_p(), ctypes.c_void_p()
    libcuda.require("cuStreamBeginCapture_v2", handle, _THREAD_LOCAL)
    try:
        for call in calls:
            call()
    finally:
        libcuda.require("cuStreamEndCapture", handle, ctypes.byref(graph))
    libcuda.require("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_uint64(0))
    launch = libcuda.library().cuGraphLaunch
    legacy = ctypes.c_void_p(LEGACY_STREAM)

    def replay() -> None:
        status = launch(made, legacy)
        if status:
            raise failed("cuGraphLaunch", f"status {status}")

    return replay
