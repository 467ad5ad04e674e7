"""gemmir doctor: whether this computer has what gemmir needs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final, Literal

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import put, put_json

MISSING: Final = 4
"""The exit status where something is missing that nothing works without."""

TPU_SECONDS: Final = 60.0
"""How long JAX may look for TPUs."""

TPU_DEVICES: Final = """
import jax
kinds = [device.device_kind for device in jax.devices() if device.platform == "tpu"]
print("TPUS", ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)))
"""
"""What finds the TPUs, in a process of its own: libtpu keeps them for the one that asks."""

State = Literal["ok", "limited", "missing"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; without what is `missing` nothing works."""

    name: str
    state: State
    text: str


def doctor(*, json: Json = False) -> None:
    """Look at versions, CPU, GPU, TPU, the tools and the cache, and compile a small GEMM.

    The exit status is 4 where something is missing that nothing works without.
    """
    found = [_looked(name, look) for name, look in LOOKS.items()]
    if json:
        put_json([asdict(finding) for finding in found])
    else:
        put("".join(f"{f.state:<8} {f.name:<12} {f.text}\n" for f in found))
    if any(finding.state == "missing" for finding in found):
        raise typer.Exit(MISSING)


def _looked(name: str, look: Callable[[], tuple[State, str]]) -> Finding:
    """What `look` finds; an error of gemmir, or a package that is not there, is a finding too."""
    from gemmir.errors import GemmirError

    try:
        state, text = look()
    except (GemmirError, ImportError, PackageNotFoundError) as error:
        state, text = "missing", f"{error}"
    return Finding(name=name, state=state, text=text)


def _python() -> tuple[State, str]:
    return "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}"


def _gemmir() -> tuple[State, str]:
    return "ok", version("gemmir")


def _xdsl() -> tuple[State, str]:
    return "ok", version("xdsl")


def _numpy() -> tuple[State, str]:
    return "ok", version("numpy")


def _llvm() -> tuple[State, str]:
    from gemmir.llvm import versions

    package, llvm = versions()
    return "ok", f"llvmlite {package} with LLVM {llvm}"


def _cpu() -> tuple[State, str]:
    from gemmir.machine.host import host_cpu, host_machine

    machine = host_machine()
    shown = ("avx2", "fma", "avx512f", "neon", "sve")
    features = [name for name in shown if host_cpu().features.get(name)]
    return "ok", (
        f"{machine.llvm_cpu}, {os.cpu_count()} cores, {', '.join(features)}; "
        f"{machine.vector_registers} vector registers of {machine.vector_bytes} bytes"
    )


def _caches() -> tuple[State, str]:
    from gemmir.machine.host import CACHES, host_machine

    machine = host_machine()
    sizes = [machine.l1_bytes, machine.l2_bytes, machine.l3_bytes]
    text = ", ".join(f"L{i} {size // 1024} KiB" for i, size in enumerate(sizes, 1))
    if CACHES.is_dir():
        return "ok", text
    return "limited", f"{text}, which is a guess: the system does not tell"


def _compiler() -> tuple[State, str]:
    from gemmir.backends.cpu.assemble import COMPILERS

    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        return "limited", f"none of {', '.join(COMPILERS)}: compile --emit so cannot link"
    return "ok", found


def _openmp() -> tuple[State, str]:
    from gemmir.backends.cpu.openmp import runtime
    from gemmir.errors import MissingError

    try:
        library = runtime()
    except MissingError as error:
        return "limited", f"no kernel on several threads: {error.hint}"
    return "ok", str(getattr(library, "_name", None) or "already in this process")


def _cache() -> tuple[State, str]:
    from gemmir.cache import default_path

    path = default_path()
    if path is None:
        return "limited", "kernels are not kept: GEMMIR_CACHE is off, or there is no home folder"
    around = next(p for p in (path, *path.parents) if p.exists())
    if around.is_dir() and os.access(around, os.W_OK | os.X_OK):
        return "ok", f"{path}, writable"
    return "limited", f"{path} cannot be written: kernels are compiled anew in each process"


def _gpu() -> tuple[State, str]:
    from gemmir.backends.ptx.driver import find_driver
    from gemmir.errors import MissingError

    try:
        driver = find_driver()
    except MissingError as error:
        return "limited", f"no kernel runs on one: {error.message}; {error.hint}"
    gpus = ", ".join(f"{g.name} ({g.sm}, {g.memory_bytes >> 30} GiB)" for g in driver.gpus())
    major, minor = driver.cuda_version
    return "ok", f"{gpus}, by {driver.library}; the driver knows CUDA {major}.{minor}"


def _ptxas() -> tuple[State, str]:
    from gemmir.backends.ptx.assemble import find_ptxas

    found = find_ptxas()
    if found is None:
        return (
            "limited",
            "registers and spills of GPU kernels are unknown: pip install gemmir[ptxas]",
        )
    return "ok", found


def _jax() -> tuple[State, str]:
    if find_spec("jax") is None:
        return "limited", "no kernel for a TPU runs or is checked: pip install gemmir[tpu]"
    return "ok", f"{version('jax')} with jaxlib {version('jaxlib')}"


def _libtpu() -> tuple[State, str]:
    from gemmir.backends.pallas.profile import require_libtpu
    from gemmir.errors import MissingError

    try:
        require_libtpu()
    except MissingError as error:
        return "limited", f"{error.message}: {error.hint}"
    return "ok", f"{version('libtpu')} compiles and profiles kernels, with no TPU"


def _tpu() -> tuple[State, str]:
    if find_spec("jax") is None:
        return "limited", "not looked for: JAX is not installed"
    command = [sys.executable, "-c", TPU_DEVICES]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TPU_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "limited", f"JAX has not found one in {TPU_SECONDS:g} s"
    found = [line[5:] for line in done.stdout.splitlines() if line.startswith("TPUS ")]
    if not found or not found[0]:
        return "limited", "JAX finds none: kernels for TPUs run in its interpreter"
    return "ok", found[0]


def _gpu_works() -> tuple[State, str]:
    import numpy as np

    from gemmir.backends.ptx.driver import find_driver
    from gemmir.cache import ObjectCache
    from gemmir.compiler import compile
    from gemmir.errors import DeviceError, MissingError
    from gemmir.gemm import Gemm
    from gemmir.gpu_kernel import target_for

    try:
        gpu = find_driver().gpus()[0]
        target = target_for(gpu)
    except MissingError as error:
        return "limited", f"not tried: {error.message}"
    small = Gemm(m=5, n=9, k=7)
    a, b = np.full((5, 7), 2.0, np.float32), np.full((7, 9), 3.0, np.float32)
    try:
        c = compile(small, target, cache=ObjectCache(None))(a, b)
    except DeviceError as error:
        return "missing", str(error)
    if not np.array_equal(c, a @ b):
        return "missing", f"a small GEMM is wrong on {gpu.name}"
    return "ok", f"a small GEMM for {target} is right on {gpu.name}"


def _works() -> tuple[State, str]:
    from gemmir.cache import ObjectCache
    from gemmir.check import check
    from gemmir.compiler import compile
    from gemmir.gemm import Gemm

    small = Gemm(m=5, n=9, k=7, epilogue="bias+gelu")
    compile(small, cache=ObjectCache(None))
    report = check(small, shrink=False)
    wrong = report.first_wrong
    if wrong is not None:
        return "missing", f"a small GEMM is wrong at {wrong.name}: {wrong.fault}"
    return "ok", f"a small GEMM compiles, and {len(report.rows)} stages of it are right"


LOOKS: Final[dict[str, Callable[[], tuple[State, str]]]] = {
    "Python": _python,
    "gemmir": _gemmir,
    "xDSL": _xdsl,
    "NumPy": _numpy,
    "LLVM": _llvm,
    "CPU": _cpu,
    "caches": _caches,
    "C compiler": _compiler,
    "OpenMP": _openmp,
    "GPU": _gpu,
    "ptxas": _ptxas,
    "JAX": _jax,
    "libtpu": _libtpu,
    "TPU": _tpu,
    "kernel cache": _cache,
    "works": _works,
    "works on GPU": _gpu_works,
}
"""What is looked at, in order."""
