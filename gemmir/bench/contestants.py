"""Who takes part in a race, and the environment that each library needs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gemmir.errors import MissingError
from gemmir.machine import CpuMachine
from gemmir.machine.host import host_cpu

GEMMIR: Final = "gemmir"
PEAK: Final = "fma peak"

FAMILIES: Final = ("numpy", "openblas", "mkl", "onednn", "blis", "libxsmm", "torch", "jax")
"""What may be raced against, in the order of the tables."""

FROM_PYTHON: Final = ("numpy", "torch", "jax")
"""Those that are called from Python, as their users do: what the call costs is in their time."""

SKYLAKEX: Final = "openblas-skylakex"
"""OpenBLAS with its kernels for AVX-512, which it does not choose on CPUs that it does not know."""

AVX2_ONLY: Final[Mapping[str, str]] = {
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "LIBXSMM_TARGET": "hsw",
    "ATEN_CPU_CAPABILITY": "avx2",
}
"""Variables by which each library is kept to the instructions of AVX2."""

JAX_UNLIMITED: Final = "no option keeps the library behind XLA's dot to AVX2"
"""`--xla_cpu_max_isa` is for the code that XLA makes itself."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One process: its name in tables, its file in `peers`, its environment, its schedule.

    `barred` is the reason why it cannot take part, or "".
    """

    name: str
    peer: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    schedule: str | None = None
    barred: str = ""

    @property
    def is_peer(self) -> bool:
        """Whether it is a library that gemmir is compared with."""
        return self.peer in FAMILIES


def contestants(
    *,
    against: Sequence[str] | None,
    machine: CpuMachine,
    threads: int,
    schedules: Mapping[str, str | None],
) -> list[Contestant]:
    """gemmir with each of `schedules`, all that is raced against, and the peak of one thread.

    Peers are kept to AVX2 where `machine` has no more and this CPU has. Raises `MissingError`
    GEM1371 for a name that is no peer.
    """
    chosen = _families(against)
    shared = _threads(threads) | (dict(AVX2_ONLY) if _is_limited(machine) else {})
    eigen = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    jax = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": eigen}
    found = [
        Contestant(name=name, peer=GEMMIR, environment=shared, schedule=text)
        for name, text in schedules.items()
    ]
    for family in chosen:
        own = jax if family == "jax" else {}
        barred = JAX_UNLIMITED if family == "jax" and _is_limited(machine) else ""
        found.append(Contestant(name=family, peer=family, environment=shared | own, barred=barred))
        if family == "openblas" and machine.vector_bytes == 64:
            skylake = shared | {"OPENBLAS_CORETYPE": "SkylakeX"}
            found.append(Contestant(name=SKYLAKEX, peer="openblas", environment=skylake))
    if threads == 1:
        found.append(Contestant(name=PEAK, peer="peak", environment=shared))
    return found


def _families(against: Sequence[str] | None) -> tuple[str, ...]:
    if against is None:
        return FAMILIES
    for name in against:
        if name not in FAMILIES:
            nearest = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.0)[0]
            raise MissingError(
                "GEM1371",
                f"--against {name}: the libraries are {', '.join(FAMILIES)}",
                f"use {nearest}",
            )
    return tuple(family for family in FAMILIES if family in against)


def _threads(count: int) -> dict[str, str]:
    """Variables that set the number of threads; on several, each keeps the CPU that it has."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM")
    found = {f"{name}_NUM_THREADS": str(count) for name in names}
    found |= {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"}
    if count > 1:
        found |= {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
    return found


def _is_limited(machine: CpuMachine) -> bool:
    """Whether this CPU has wider vectors than code for `machine` uses."""
    return machine.vector_bytes < 64 and bool(host_cpu().features.get("avx512f"))


def cpu_model() -> str:
    """The CPU's name as Linux tells it, and LLVM's name for it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{match[1] if match else 'a CPU'} ({host_cpu().name})"
