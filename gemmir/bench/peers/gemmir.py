"""gemmir itself: a compiled kernel, called from a loop of machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gemmir.bench.entrant import Array, Entrant, Settings
from gemmir.bench.loops import kernel_loop
from gemmir.gemm import Gemm

if TYPE_CHECKING:
    from gemmir.compiler import Lowered


@dataclass(frozen=True, kw_only=True)
class Own:
    """The compiler in this process, with a target and a schedule, or the default ones."""

    settings: Settings
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """The kernel for this problem, through the object cache."""
        from gemmir.compiler import lower

        lowered = lower(gemm, self.settings.target, self.settings.schedule, self.settings.threads)
        address, owner = _loaded(lowered)
        names = [argument.name for argument in lowered.artifact.signature.arguments]
        pointers = [arrays[name].ctypes.data for name in names]
        return Entrant(
            repeat=kernel_loop(address, pointers, owner),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"schedule": list(lowered.schedule.steps)},
        )


def _loaded(lowered: Lowered) -> tuple[int, object]:
    """The address of the kernel's entry, and what keeps it alive."""
    from gemmir.backend import backend_for
    from gemmir.cache import ObjectCache, default_path

    signature = lowered.artifact.signature
    object_bytes = lowered.assemble(ObjectCache(default_path()))
    loaded = backend_for(lowered.machine.kind).load(object_bytes, signature)
    address = ctypes.cast(cast("Any", loaded.entry), ctypes.c_void_p).value or 0
    return address, loaded


def find(settings: Settings) -> Own:
    """gemmir, which is always here."""
    from importlib.metadata import version

    return Own(settings=settings, about={"version": version("gemmir")})
