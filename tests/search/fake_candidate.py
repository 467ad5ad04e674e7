"""A contestant as the process of a trial imports it.

Its way of calling says what is the matter with it, and behind a colon the name of a file.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemmir.bench.entrant import Entrant, Settings, UnableError
from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm


class Fake:
    """Multiplies with float64 and rounds, unless it is to be wrong."""

    def __init__(self, fault: str, file: str) -> None:
        self.fault, self.file = fault, file

    @property
    def about(self) -> Mapping[str, str]:
        """A version."""
        return {"version": "0"}

    def enter(self, gemm: Gemm, arrays: Mapping[str, Any]) -> Entrant:
        """Ready to be called, or not."""
        if self.fault == "unable":
            raise UnableError("it does not do this one")
        if self.fault == "refused":
            raise ScheduleError("GEM0301", "it does not fit")
        if self.fault == "raises":
            raise KeyError("nothing")
        if self.fault == "hoards":
            np.ones(1 << 34)
        return Entrant(
            repeat=lambda count: self.compute(count, arrays),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"process": os.getpid()},
        )

    def compute(self, count: int, arrays: Mapping[str, Any]) -> None:
        """Compute `count` times, and do what is wrong."""
        a, b, c = (arrays[name] for name in "abc")
        if self.fault == "hangs":
            time.sleep(60)
        if self.fault == "crashes":
            ctypes.string_at(0)
        if self.fault == "shot" or (self.fault == "shot once" and not Path(self.file).exists()):
            Path(self.file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault != "silent":
            c[...] = a.astype("f8") @ b.astype("f8")
        if self.fault == "wrong":
            c[-1, -1] += 1
        if self.fault == "rounds" or (self.fault == "wrong later" and count > 1):
            c[...] = np.nextafter(c, np.float32(9e9)) if self.fault == "rounds" else 0
        if self.fault == "spills":
            ctypes.memset(c.ctypes.data + c.nbytes, 0, 4)
        if self.fault == "changes a":
            a[0, 0] = 7
        end = time.process_time() + (1e-6 if self.fault == "too fast" else 0.003) * count
        while time.process_time() < end:
            pass


def find(settings: Settings) -> Fake:
    """It is there."""
    fault, _, file = settings.call.partition(":")
    return Fake(fault, file)
