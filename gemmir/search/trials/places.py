"""Where the trials of a target run: on CPUs of this computer, or on a GPU of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gemmir.backends.ptx.driver import Gpu, find_driver
from gemmir.backends.ptx.driver.figures import figures
from gemmir.bench.contestants import PEERS, thread_variables
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.gpu_kernel import target_for
from gemmir.machine import GpuMachine, Machine, TpuMachine
from gemmir.machine.host import require_runnable
from gemmir.search.trials.gpu_arrays import Rotation
from gemmir.search.trials.gpu_candidate import GPU
from gemmir.search.trials.gpu_roofline import GpuRoofline
from gemmir.search.trials.roofline import Limit, bytes_of

NO_CACHE: Final = {"GEMMIR_CACHE": "off"}
"""Kernels that are tried once are not kept for later, where they would take the place of others."""

NO_DRIVER_CACHE: Final = {"CUDA_CACHE_DISABLE": "1"}
"""The same for what the driver makes of PTX."""

STATIC: Final = 'the objective static needs no device: --objective static, or in a spec "static"'


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a schedule becomes a process: its module, its environment and its settings.

    `clock` says what the seconds are, and `device` on what they are taken, "" for the CPU. `limit`
    is the least time that is known without a measurement, None where one has to be made.
    """

    clock: str
    peer: str
    environment: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    device: str = ""
    limit: Limit | None = None


def place_for(machine: Machine, gemm: Gemm, threads: int) -> Place:
    """Where trials for a machine run, if they run here.

    Raises `MissingError`: as `require_runnable` does of a CPU, GEM1460 of a GPU that is not here,
    and GEM1461 of a TPU.
    """
    if isinstance(machine, TpuMachine):
        raise MissingError(
            "GEM1461",
            f"kernels for {machine.target} are not timed on this computer",
            STATIC,
        )
    if isinstance(machine, GpuMachine):
        return _on_gpu(machine, gemm)
    require_runnable(machine)
    return Place(
        clock="CPU time of a call" if threads == 1 else "wall time of a call",
        peer=f"{PEERS}.gemmir",
        environment={**thread_variables(threads), **NO_CACHE},
    )


def gpu_for(machine: GpuMachine) -> Gpu:
    """The first GPU of this computer that is of this architecture; `MissingError` GEM1460.

    One that only runs code of an older one has other limits, and other schedules are fast on it.
    """
    try:
        gpus = find_driver().gpus()
    except MissingError as error:
        raise _no_gpu(machine, error.message) from error
    own = {gpu: _own_target(gpu) for gpu in gpus}
    found = next((gpu for gpu, target in own.items() if target == machine.target), None)
    if found is None:
        there = ", ".join(f"{gpu.name}, {target or gpu.sm}" for gpu, target in own.items())
        raise _no_gpu(machine, f"there is {there}")
    return found


def missing_gpu(machine: GpuMachine) -> str:
    """Why there is no GPU of this architecture to time kernels on; "" where there is one."""
    try:
        gpu_for(machine)
    except MissingError as error:
        return error.message
    return ""


def _on_gpu(machine: GpuMachine, gemm: Gemm) -> Place:
    gpu = gpu_for(machine)
    known = figures(gpu.number)
    rotation = Rotation.of(bytes_of(gemm), known.l2_bytes)
    return Place(
        clock=f"time of a launch on {gpu.name}",
        peer=GPU,
        environment={**NO_CACHE, **NO_DRIVER_CACHE},
        device=gpu.name,
        settings={"gpu": gpu.number, **asdict(rotation)},
        limit=GpuRoofline.of(machine, gemm, known, is_cold=rotation.is_cold),
    )


def _own_target(gpu: Gpu) -> str:
    """The newest target that a GPU runs; "" where it is older than all."""
    try:
        return target_for(gpu)
    except MissingError:
        return ""


def _no_gpu(machine: GpuMachine, reason: str) -> MissingError:
    return MissingError(
        "GEM1460", f"times for {machine.target} need a GPU of that architecture: {reason}", STATIC
    )
