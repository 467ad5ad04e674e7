"""The CPU of this computer; nothing else in gemmir asks the operating system about it.

The CPU's name and features come from LLVM, its caches from Linux (Documentation/ABI/testing/
sysfs-devices-system-cpu). Where the system does not tell, the caches are those of the named CPU of
the same kind, which is the smallest of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from gemmir.errors import MissingError
from gemmir.llvm import binding
from gemmir.machine.cpu import (
    HOST_NAME,
    KIB,
    MIB,
    NEOVERSE_N1,
    SHIPPED,
    X86_64_V3,
    X86_64_V4,
    CpuMachine,
)

CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of the first core."""


@dataclass(frozen=True, kw_only=True)
class HostCpu:
    """LLVM's view of this computer: CPU name, triple, and each feature with whether it is there."""

    name: str
    triple: str
    features: Mapping[str, bool]


@cache
def host_cpu() -> HostCpu:
    """This computer's CPU; without features where LLVM cannot tell them."""
    llvm = binding()
    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:
        features = {}
    return HostCpu(
        name=llvm.get_host_cpu_name(), triple=llvm.get_process_triple(), features=features
    )


def feature_string(cpu: str) -> str:
    """LLVM's feature string for code that runs on `cpu`.

    For the host's own name it says exactly what the host has, since a virtual machine may hide
    features that the name implies; for other CPUs the name says all.
    """
    host = host_cpu()
    if cpu != host.name:
        return ""
    return ",".join(
        f"{'+' if there else '-'}{name}" for name, there in sorted(host.features.items())
    )


def missing_features(machine: CpuMachine) -> tuple[str, ...]:
    """What this computer lacks to run code made for `machine`; empty where it can run it.

    Another architecture is reported by its name.
    """
    host = host_cpu()
    if architecture(machine.llvm_triple) != architecture(host.triple):
        return (architecture(machine.llvm_triple),)
    return tuple(name for name in machine.llvm_features if not host.features.get(name, False))


def require_runnable(machine: CpuMachine) -> None:
    """`MissingError` GEM0606 where this computer cannot run code for `machine`."""
    missing = missing_features(machine)
    if missing:
        raise MissingError(
            "GEM0606",
            f"this CPU ({host_cpu().name}) cannot run code for {machine.target}: "
            f"it has no {', '.join(missing)}",
            "write an object file and run it on such a CPU, or use the target cpu",
        )


def architecture(triple: str) -> str:
    """The architecture in an LLVM triple, by LLVM's own name for it."""
    name = triple.split("-", 1)[0]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def triple_for(cpu: str) -> str:
    """The LLVM triple of the CPU that LLVM calls `cpu`: the host's, unless that CPU is foreign."""
    host = host_cpu()
    for machine in SHIPPED:
        foreign = architecture(machine.llvm_triple) != architecture(host.triple)
        if machine.llvm_cpu == cpu and foreign:
            return machine.llvm_triple
    return host.triple


@cache
def host_machine() -> CpuMachine:
    """This computer's CPU.

    Raises `MissingError` GEM0605 where it has no vector FMA: every multiply-add of a kernel would
    then be a call of a library function, a hundred times slower.
    """
    return detect(host_cpu(), CACHES)


def detect(host: HostCpu, caches: Path) -> CpuMachine:
    """The machine of `host`, whose caches the folder `caches` describes; see `host_machine`."""
    like = _kind(host)
    l1, l2, l3 = _nested(_cache_bytes(caches), like)
    return CpuMachine(
        name=HOST_NAME,
        llvm_cpu=host.name,
        llvm_triple=host.triple,
        llvm_features=tuple(sorted(name for name, there in host.features.items() if there)),
        vector_bytes=like.vector_bytes,
        vector_registers=like.vector_registers,
        l1_bytes=l1,
        l2_bytes=l2,
        l3_bytes=l3,
        fma_per_cycle=_fma_per_cycle(host.name, like),
    )


def _fma_per_cycle(name: str, like: CpuMachine) -> int:
    """That of the CPU which LLVM calls `name`, where it is shipped and its vectors are these."""
    own = [m for m in SHIPPED if m.llvm_cpu == name and m.vector_bytes == like.vector_bytes]
    return own[0].fma_per_cycle if own else like.fma_per_cycle


def _kind(host: HostCpu) -> CpuMachine:
    """The named CPU whose vector unit `host` has."""
    if architecture(host.triple) == "aarch64":
        return NEOVERSE_N1
    has = {name for name, there in host.features.items() if there}
    if has >= set(X86_64_V4.llvm_features):
        return X86_64_V4
    lacks = [name for name in ("avx2", "fma") if name not in has]
    if architecture(host.triple) != "x86_64" or lacks:
        wanted = ", ".join(lacks) if architecture(host.triple) == "x86_64" else "known vector unit"
        raise MissingError(
            "GEM0605",
            f"this CPU ({host.name}, {architecture(host.triple)}) has no {wanted}",
            f"compile for another one, such as {X86_64_V3.target}, and run the object file there",
        )
    return X86_64_V3


def _cache_bytes(caches: Path) -> dict[int, int]:
    """Bytes of each cache level that holds data, as far as the folder tells."""
    found: dict[int, int] = {}
    for index in sorted(caches.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            size = _size_bytes((index / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and size > 0:
            found[level] = size
    return found


def _size_bytes(text: str) -> int:
    """Bytes of a size as Linux writes it: 32K, 2M."""
    unit = {"K": KIB, "M": MIB}.get(text[-1:], 1)
    return int(text.rstrip("KM")) * unit


def _nested(found: Mapping[int, int], like: CpuMachine) -> tuple[int, int, int]:
    """L1, L2 and L3, none smaller than the one before; a missing level 3 is the size of level 2."""
    if not found:
        return like.l1_bytes, like.l2_bytes, like.l3_bytes
    l1 = found.get(1, like.l1_bytes)
    l2 = max(l1, found.get(2, l1))
    return l1, l2, max(l2, found.get(3, l2))
