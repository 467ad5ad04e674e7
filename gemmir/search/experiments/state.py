"""What numbers depend on beside the kernels: the machine, its state, versions, the revision.

Linux tells most of it; where a system does not tell something, it is None and never a guess.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Final

from gemmir.backends.ptx.driver import find_driver
from gemmir.bench.contestants import cpu_model
from gemmir.cache import python_files
from gemmir.errors import MissingError
from gemmir.llvm import versions as llvm_versions

PACKAGES: Final = ("gemmir", "numpy", "xdsl")
OPTIONAL: Final = ("jax", "libtpu", "pycuda", "dask")
"""Packages whose versions are kept where they are installed."""

SYSTEM_CPUS: Final = Path("/sys/devices/system/cpu")
"""Documentation/admin-guide/pm/cpufreq.rst of Linux."""

THERMAL: Final = Path("/sys/class/thermal")
"""Documentation/driver-api/thermal/sysfs-api.rst of Linux."""

CPU_ZONES: Final = ("x86_pkg_temp", "cpu", "k10temp", "coretemp", "acpitz")
"""How the types of thermal zones that are about the CPU begin, the nearest to it first."""

STEAL: Final = 8
"""Which word of a line of /proc/stat is the time that a hypervisor gave to others, in proc(5)."""


@dataclass(frozen=True, kw_only=True)
class State:
    """The machine at one moment; of the CPUs that are measured on, their mean.

    `steal_seconds` counts from the start of the machine what a hypervisor gave to others.
    """

    load_average: float | None
    mhz: float | None
    celsius: float | None
    governor: str | None
    affinity: tuple[int, ...]
    steal_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a process runs, and of what versions; `cpu` is the name of the CPU."""

    host: str
    cpu: str
    cpus: int
    system: str
    versions: Mapping[str, str]
    revision: str | None
    is_dirty: bool | None
    source: str

    def differences(self, other: Environment) -> list[str]:
        """What of `other` would make its numbers ones of another compiler or machine."""
        pairs = [("cpu", self.cpu, other.cpu), ("gemmir's source", self.source, other.source)]
        for name in sorted({*self.versions, *other.versions}):
            there, here = (v.get(name, "none") for v in (self.versions, other.versions))
            pairs.append((name, there, here))
        return [f"{what}: {was} became {now}" for what, was, now in pairs if was != now]


def machine_state(cpus: Sequence[int]) -> State:
    """The state now, of `cpus` or, where there are none, of those that this process may use."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    of = list(cpus) or allowed
    return State(
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        mhz=_mean([_mhz(cpu) for cpu in of]),
        celsius=_celsius(),
        governor=_governor(of),
        affinity=tuple(of),
        steal_seconds=_steal_seconds(of),
    )


@cache
def environment() -> Environment:
    """That of this process."""
    llvmlite, llvm = llvm_versions()
    found = {"python": platform.python_version(), "llvmlite": llvmlite, "llvm": llvm}
    found |= {name: version(name) for name in PACKAGES}
    for name in OPTIONAL:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found |= _gpu()
    revision, is_dirty = _revision()
    return Environment(
        host=socket.gethostname(),
        cpu=cpu_model(),
        cpus=os.cpu_count() or 1,
        system=platform.platform(),
        versions=found,
        revision=revision,
        is_dirty=is_dirty,
        source=_source(),
    )


def _gpu() -> dict[str, str]:
    """The first GPU of this computer and the newest CUDA that its driver knows, if there is one."""
    try:
        driver = find_driver()
    except MissingError:
        return {}
    return {"gpu": driver.gpus()[0].name, "driver_cuda": ".".join(map(str, driver.cuda_version))}


def _revision() -> tuple[str | None, bool | None]:
    """The commit of gemmir's own files and whether any differs from it; None outside of git."""
    folder = Path(str(files("gemmir")))
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return _git(folder, "rev-parse", "HEAD"), None if changed is None else changed != ""


def _source() -> str:
    """A hash of the text of all that makes kernels and times them."""
    root = Path(str(files("gemmir")))
    names = sorted(name for name, _, _ in python_files(str(root)))
    made = hashlib.sha256()
    for name in names:
        if not name.startswith(("cli/", "search/")):
            made.update(f"{name}\0".encode() + (root / name).read_bytes())
    return made.hexdigest()[:16]


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mhz(cpu: int) -> float | None:
    """What cpufreq says, or else /proc/cpuinfo, which virtual machines have, too."""
    text = _read(SYSTEM_CPUS / f"cpu{cpu}" / "cpufreq" / "scaling_cur_freq")
    if text is not None:
        return float(text) / 1e3
    for block in (_read(Path("/proc/cpuinfo")) or "").split("\n\n"):
        rows = [line.partition(":") for line in block.splitlines()]
        found = {name.strip(): value.strip() for name, _, value in rows}
        if found.get("processor") == str(cpu) and "cpu MHz" in found:
            return float(found["cpu MHz"])
    return None


def _governor(cpus: Sequence[int]) -> str | None:
    paths = [SYSTEM_CPUS / f"cpu{cpu}" / "cpufreq" / "scaling_governor" for cpu in cpus]
    found = {text for text in map(_read, paths) if text is not None}
    return "+".join(sorted(found)) or None


def _celsius() -> float | None:
    """The zone that is nearest to the CPU."""
    zones: dict[str, Path] = {}
    for zone in sorted(THERMAL.glob("thermal_zone*")):
        zones.setdefault(_read(zone / "type") or "", zone)
    for wanted in CPU_ZONES:
        for name, zone in zones.items():
            text = _read(zone / "temp") if name.startswith(wanted) else None
            if text is not None:
                return int(text) / 1e3
    return None


def _steal_seconds(cpus: Sequence[int]) -> float | None:
    names = {f"cpu{cpu}" for cpu in cpus}
    rows = [line.split() for line in (_read(Path("/proc/stat")) or "").splitlines()]
    found = [int(row[STEAL]) for row in rows if row and row[0] in names and len(row) > STEAL]
    return sum(found) / os.sysconf("SC_CLK_TCK") if found else None


def _read(path: Path) -> str | None:
    """The text of a file of the system; None where there is none, or it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
