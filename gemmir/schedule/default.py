"""The schedule that is used when none is given, chosen by rules from the problem and the machine.

For a CPU see `cpu`, for a GPU `default_gpu`, for a TPU `default_tpu`.
"""

from __future__ import annotations

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, Machine, TpuMachine, targets
from gemmir.schedule.cpu.default import cpu_passes
from gemmir.schedule.default_gpu import gpu_passes
from gemmir.schedule.default_tpu import tpu_passes
from gemmir.schedule.schedule import Schedule


def default_schedule(gemm: Gemm, machine: Machine, threads: int = 1) -> Schedule:
    """The schedule for `gemm` on one core of `machine`, or on `threads` cores."""
    return Schedule.parse(default_text(gemm, machine, threads))


def default_text(
    gemm: Gemm,
    machine: Machine,
    threads: int = 1,
    *,
    fuse: bool | None = None,
    expand: bool | None = None,
) -> str:
    """The text of `default_schedule`, one pass a line.

    `fuse` and `expand` say whether there is an epilogue and whether it has exponentials, where the
    epilogue of `gemm` does not tell.
    """
    _require_unit(gemm, machine)
    fuse = bool(gemm.steps) if fuse is None else fuse
    expand = gemm.has_exponentials if expand is None else expand
    if not isinstance(machine, CpuMachine):
        require_one_thread(machine, threads)
        if isinstance(machine, TpuMachine):
            return "\n".join(tpu_passes(gemm, machine, fuse=fuse))
        return "\n".join(gpu_passes(gemm, machine, fuse=fuse, expand=expand))
    return "\n".join(cpu_passes(gemm, machine, threads, fuse=fuse, expand=expand))


def require_one_thread(machine: Machine, threads: int) -> None:
    """`ScheduleError` GEM0317 where threads are asked of a machine that has no cores."""
    if threads != 1:
        raise ScheduleError(
            "GEM0317",
            f"threads={threads} are cores of a CPU, and {machine.target} has none",
            "leave threads out: a kernel has all of the machine",
        )


def _require_unit(gemm: Gemm, machine: Machine) -> None:
    """`ScheduleError` where `machine` has no unit that sums products of the type.

    GEM0316, and GEM1337 where it has none for those of two types.
    """
    if gemm.dtype_b is not None and not isinstance(machine, CpuMachine):
        raise ScheduleError(
            "GEM1337",
            f"{machine.target} has no schedule for products of {gemm.dtype} by {gemm.dtype_b}",
            f"use a CPU, or make B {gemm.dtype} before the call",
        )
    if gemm.has_weights or gemm.dtype in _unit_dtypes(machine):
        return
    if not gemm.product.is_mixed and not isinstance(machine, TpuMachine):
        return
    known = [name for name, m in targets() if gemm.dtype in _unit_dtypes(m)]
    own = ", ".join(dict.fromkeys(("f32", *_unit_dtypes(machine))))
    raise ScheduleError(
        "GEM0316",
        f"{machine.target} has no schedule for products of {gemm.dtype}",
        f"use dtype {own}" + (f", or a target of {', '.join(known)}" if known else ""),
    )


CPU_MIXED = ("f16", "bf16", "i8", "u8")
"""Types whose products every CPU sums in a wider one."""


def _unit_dtypes(machine: Machine) -> tuple[str, ...]:
    """What the matrix units of a machine multiply, and what a CPU sums in a wider type."""
    if isinstance(machine, CpuMachine):
        return CPU_MIXED
    return machine.mxu_dtypes if isinstance(machine, TpuMachine) else machine.mma_dtypes
