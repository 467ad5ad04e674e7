"""gemmir itself: a compiled kernel, called from a loop of machine code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gemmir.bench.contestants import ANY_M
from gemmir.bench.entrant import Array, Entrant, Settings
from gemmir.bench.loops import kernel_loop
from gemmir.gemm import Gemm
from gemmir.sizes import ANY

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

        settings = self.settings
        problem = replace(gemm, m=ANY) if settings.call == ANY_M else gemm
        lowered = lower(problem, settings.target, settings.schedule, settings.threads)
        address, owner = _loaded(lowered, settings.threads)
        signature = lowered.artifact.signature
        pointers = [arrays[argument.name].ctypes.data for argument in signature.arguments]
        sizes = [_size(gemm, name) for name in signature.sizes]
        return Entrant(
            repeat=kernel_loop(address, pointers, owner, sizes),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"schedule": list(lowered.schedule.steps)},
        )


def _size(gemm: Gemm, name: str) -> int:
    """A size that a kernel is told when it is called."""
    return gemm.leading(name[2:]) if name.startswith("ld") else getattr(gemm, name)


def _loaded(lowered: Lowered, threads: int) -> tuple[int, object]:
    """The address of the kernel, which runs on so many threads, and what keeps it alive."""
    from gemmir.backend import backend_for
    from gemmir.cache import ObjectCache, default_path

    signature = lowered.artifact.signature
    object_bytes = lowered.assemble(ObjectCache(default_path()))
    loaded = backend_for(lowered.machine.kind).load(object_bytes, signature)
    if loaded.threads is not None:
        loaded.threads.value = threads
    assert loaded.address is not None
    return loaded.address, loaded


def find(settings: Settings) -> Own:
    """gemmir, which is always here."""
    from importlib.metadata import version

    return Own(settings=settings, about={"version": version("gemmir")})
