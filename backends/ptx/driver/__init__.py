"""The driver of NVIDIA's GPUs, through PyCUDA or, where that is not installed, `cuda-bindings`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final

from gemmir.backends.ptx.driver.base import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    Driver,
    Gpu,
    Memory,
    as_bytes,
)
from gemmir.backends.ptx.driver.bindings import BindingsDriver
from gemmir.backends.ptx.driver.pycuda import PycudaDriver
from gemmir.errors import MissingError

__all__ = [
    "LEGACY_STREAM",
    "PER_THREAD_STREAM",
    "Driver",
    "Gpu",
    "Memory",
    "as_bytes",
    "find_driver",
    "require_gpu",
    "runs",
]

DRIVERS: Final[dict[str, Callable[[], Driver]]] = {
    "pycuda": PycudaDriver,
    "cuda-bindings": BindingsDriver,
}
"""How to make each driver, by the package that it needs; the first that works is taken."""


@cache
def find_driver() -> Driver:
    """The driver of this process.

    Raises `MissingError`: GEM0607 where neither package is installed, GEM0609 where one is, and
    there is no driver or no GPU.
    """
    found: dict[str, str] = {}
    for package, make in DRIVERS.items():
        try:
            driver = make()
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            found[package] = " ".join(str(error).split())
            continue
        if driver.gpus():
            return driver
        found[package] = "the driver knows no GPU"
    if not found:
        raise MissingError(
            "GEM0607",
            "no package is installed that loads kernels onto a GPU",
            "pip install gemmir[cuda-bindings], or gemmir[cuda] for PyCUDA; without a GPU, "
            "gemmir check runs the kernel in the emulator",
        )
    said = "; ".join(f"{package}: {text}" for package, text in found.items())
    raise MissingError(
        "GEM0609",
        f"there is no NVIDIA GPU, or no driver of it ({said})",
        "gemmir check runs the kernel in the emulator; gemmir compile --emit ptx writes it",
    )


_TARGET: Final = re.compile(r"sm_(\d+)(\d)([af]?)")


def runs(target: str, gpu: Gpu) -> bool:
    """Whether PTX for `target`, such as sm_80 or sm_90a, runs on `gpu`.

    It runs on newer GPUs too, but with an `a` it has instructions that only this one has.
    """
    found = _TARGET.fullmatch(target)
    assert found is not None
    own = int(found.group(1)), int(found.group(2))
    return gpu.capability == own if found.group(3) else gpu.capability >= own


def require_gpu(target: str, gpu: Gpu | None = None) -> Driver:
    """The driver, if `gpu`, or any GPU, runs code for `target`; GEM0610 where none does.

    Otherwise raises as `find_driver` does.
    """
    driver = find_driver()
    gpus = driver.gpus() if gpu is None else (gpu,)
    if any(runs(target, gpu) for gpu in gpus):
        return driver
    there = ", ".join(f"{gpu.name} ({gpu.sm})" for gpu in gpus)
    raise MissingError(
        "GEM0610",
        f"code for {target} does not run on {there}",
        f"compile for cuda:{gpus[0].sm} or an older one; gemmir targets lists them",
    )
