"""Who takes part in a race, and the environment that each library needs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from gemmir.errors import MissingError
from gemmir.machine import CpuMachine
from gemmir.machine.host import host_cpu

PEERS: Final = "gemmir.bench.peers"

GEMMIR: Final = "gemmir"
PEAK: Final = "fma peak"

FAMILIES: Final = ("numpy", "openblas", "mkl", "onednn", "blis", "libxsmm", "torch", "jax")
"""What may be raced against, in the order of the tables."""

Kind = Literal["product", "calls", "any m"]
"""What is compared: a product, what calling costs from Python, or a kernel for any number of rows
with that for the very number."""

MATMUL: Final = "gemmir.matmul"
BOUND: Final = "gemmir bound"
CALLS: Final = (MATMUL, "gemmir kernel", BOUND, "np.matmul", "torch.matmul")
"""Ways of calling; of gemmir's the first is compared with those of others."""

ANY_M: Final = "gemmir, any m"

ONEDNN_IN_TORCH: Final = "onednn-torch"
"""Another oneDNN than that of the system, where PyTorch is installed."""

FROM_PYTHON: Final = ("numpy", ONEDNN_IN_TORCH, "torch", "jax")
"""Those that are called from Python, as their users do: what the call costs is in their time."""

AVX512_BYTES: Final = 64

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
    """One process: its name in tables, its module, its environment, its schedule.

    `family` is what `--against` calls it, "" for gemmir itself and for the peak. `barred` is the
    reason why it cannot take part, or "". `call` is its way of calling. `kind` is what it takes
    part in, beside gemmir and the peak, which do in all.
    """

    name: str
    peer: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    family: str = ""
    schedule: str | None = None
    barred: str = ""
    call: str = ""
    kind: Kind = "product"


def contestants(
    *,
    against: Sequence[str] | None,
    machine: CpuMachine,
    threads: int,
    schedules: Mapping[str, str | None],
    kinds: Collection[Kind] = ("product",),
) -> list[Contestant]:
    """gemmir with each of `schedules`, all that is raced against, and the peak of one thread.

    `kinds` are what is compared. Peers are kept to AVX2 where `machine` has no more and this CPU
    has. Raises `MissingError` GEM1371 for a name that is no peer.
    """
    chosen = _families(against)
    limited = _is_limited(machine)
    shared = thread_variables(threads) | (dict(AVX2_ONLY) if limited else {})
    found = [
        Contestant(name=name, peer=f"{PEERS}.gemmir", environment=shared, schedule=text)
        for name, text in schedules.items()
    ]
    for family in chosen:
        found += _of_family(family, shared, limited=limited, threads=threads, machine=machine)
    if "calls" in kinds:
        found += _calls(chosen, shared)
    if "any m" in kinds:
        found.append(replace(found[0], name=ANY_M, call=ANY_M, kind="any m"))
    if threads == 1:
        found.append(Contestant(name=PEAK, peer=f"{PEERS}.peak", environment=shared))
    return found


def _of_family(
    family: str, shared: Mapping[str, str], *, limited: bool, threads: int, machine: CpuMachine
) -> list[Contestant]:
    """A library, and its variants: what it does not choose itself, or another copy of it."""
    first = Contestant(name=family, peer=f"{PEERS}.{family}", family=family, environment=shared)
    if family == "jax":
        eigen = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
        own = {**shared, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": eigen}
        return [replace(first, environment=own, barred=JAX_UNLIMITED if limited else "")]
    if family == "onednn":
        return [first, replace(first, name=ONEDNN_IN_TORCH, peer=f"{PEERS}.onednn_torch")]
    if family == "openblas" and machine.vector_bytes == AVX512_BYTES:
        own = {**shared, "OPENBLAS_CORETYPE": "SkylakeX"}
        return [first, replace(first, name=SKYLAKEX, environment=own)]
    return [first]


def _calls(chosen: Sequence[str], shared: Mapping[str, str]) -> list[Contestant]:
    families = {"np.matmul": "numpy", "torch.matmul": "torch"}
    return [
        Contestant(
            name=c,
            peer=f"{PEERS}.calls",
            environment=shared,
            call=c,
            family=families.get(c, ""),
            kind="calls",
        )
        for c in CALLS
        if c not in families or families[c] in chosen
    ]


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


def thread_variables(count: int) -> dict[str, str]:
    """Variables that set the number of threads; on several, each keeps the CPU that it has."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM")
    found = {f"{name}_NUM_THREADS": str(count) for name in names}
    found |= {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"}
    if count > 1:
        found |= {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}
    return found


def _is_limited(machine: CpuMachine) -> bool:
    """Whether this CPU has wider vectors than code for `machine` uses."""
    return machine.vector_bytes < AVX512_BYTES and bool(host_cpu().features.get("avx512f"))


def cpu_model() -> str:
    """The CPU's name as Linux tells it, and LLVM's name for it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{match[1] if match else 'a CPU'} ({host_cpu().name})"
