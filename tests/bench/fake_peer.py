"""A peer as a process of a race imports it; FAKE says what is the matter with it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemmir.bench.entrant import Entrant, Settings, UnableError
from gemmir.gemm import Gemm

FAULT = os.environ.get("FAKE", "")


class Fake:
    """Multiplies with float64 and rounds, unless it is to be wrong."""

    @property
    def about(self) -> Mapping[str, str]:
        """A version."""
        return {"version": "0"}

    def enter(self, gemm: Gemm, arrays: Mapping[str, Any]) -> Entrant:
        """Each call is written down in the file LOG."""
        if FAULT == "unable":
            raise UnableError("it does not do this one")
        a, b, c = (arrays[name] for name in "abc")

        def repeat(count: int) -> None:
            if FAULT == "dies" and not np.isnan(c[0, 0]):
                os._exit(7)
            if FAULT == "compiles" and np.isnan(c[0, 0]):
                time.sleep(0.2)
            if FAULT == "hangs":
                time.sleep(60)
            if FAULT != "silent":
                c[...] = a.astype("f8") @ b.astype("f8")
            if FAULT == "rounds":
                c[...] = c.astype("f4")
            if FAULT == "wrong":
                c[-1, -1] += 1
            end = time.process_time() + 0.003 * count
            while time.process_time() < end:
                pass
            if "LOG" in os.environ:
                with Path(os.environ["LOG"]).open("a") as log:
                    log.write(f"{os.environ['NAME']}\n")

        return Entrant(
            repeat=repeat, output=lambda: c, flops=gemm.flops, about={"process": os.getpid()}
        )


def find(settings: Settings) -> Fake:
    """It is there, unless it is missing."""
    if FAULT == "missing":
        raise UnableError("it is not installed")
    return Fake()
