"""libcuda itself, by ctypes: what a Python library does not show, or is slow to call.

It is the library that both use, so that handles of theirs are handles here. Contexts are a matter
of the driver and not of who calls it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from gemmir.backends.ptx.driver.base import failed


@cache
def library() -> ctypes.CDLL:
    """The driver; `OSError` where there is none."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def require(call: str, *arguments: Any) -> None:
    """Make a call of the driver; `DeviceError` GEM0526 where it fails."""
    status = getattr(library(), call)(*arguments)
    if status:
        raise failed(call, f"status {status}")


def current_context() -> int | None:
    """The context of this thread."""
    found = ctypes.c_void_p()
    require("cuCtxGetCurrent", ctypes.byref(found))
    return found.value


def inside(
    use: Callable[[], AbstractContextManager[None]], start: Callable[[], int]
) -> Callable[[], int]:
    """`start` as a call for any thread, in the context that is current now.

    Asking for the context of a thread takes 0.2 us, and most have it already: where it is another
    one, the call enters `use()`.
    """
    context = current_context()
    ask, place, reference = library().cuCtxGetCurrent, ctypes.c_void_p, ctypes.byref

    def call() -> int:
        found = place()
        ask(reference(found))
        if found.value == context:
            return start()
        with use():
            return start()

    return call
