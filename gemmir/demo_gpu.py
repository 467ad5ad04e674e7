"""The layer of the demo for a GPU: its PTX, checked in the emulator, and run if there is a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from gemmir.arrays import make_operands
from gemmir.backends.ptx.emulator import Report
from gemmir.backends.ptx.run import run_ptx
from gemmir.compiler import Lowered, lower
from gemmir.errors import MismatchError, MissingError
from gemmir.explain_code import MachineCode, machine_code
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.measure import Timing
from gemmir.reference import Comparison, Element, reference_of_gemm

TARGET: Final = "cuda:sm_90a"
DTYPE: Final = "bf16"

REDUCED: Final = {"m": 128, "n": 128, "k": 96}
"""What the emulator takes about a second for; every block of the layer does the same."""

GPU_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Emulated:
    """One run of the PTX of a smaller problem with the same schedule, which found no fault."""

    problem: Gemm
    seconds: float
    report: Report
    largest: Element


@dataclass(frozen=True, kw_only=True)
class OnGpu:
    """The layer on a GPU of this computer, compiled for its own target."""

    name: str
    target: str
    timing: Timing
    largest: Element


@dataclass(frozen=True, kw_only=True)
class GpuDemo:
    """What was lowered and checked; where nothing ran on a GPU, `reason` says why."""

    lowered: Lowered
    code: MachineCode
    emulated: Emulated
    on_gpu: OnGpu | None
    reason: str


def run_gpu_demo(layer: Gemm, seconds: float = GPU_SECONDS) -> GpuDemo:
    """Lower `layer` with inputs of `DTYPE`, check it in the emulator, and run it on a GPU.

    Raises `EmulationError` for what the emulator finds wrong, such as a race, and `MismatchError`
    GEM0802 where a result is not within its bound.
    """
    gemm = replace(layer, dtype=DTYPE)
    lowered = lower(gemm, TARGET)
    assert isinstance(lowered.machine, GpuMachine)
    on_gpu, reason = _on_gpu(gemm, seconds)
    return GpuDemo(
        lowered=lowered,
        code=machine_code(lowered.artifact, lowered.machine),
        emulated=_emulated(replace(gemm, **REDUCED), lowered),
        on_gpu=on_gpu,
        reason=reason,
    )


def _emulated(problem: Gemm, like: Lowered) -> Emulated:
    artifact = lower(problem, TARGET, like.schedule).artifact
    operands = make_operands(artifact.signature)
    start = time.perf_counter()
    report = run_ptx(artifact, artifact.text, operands.arrays)
    seconds = time.perf_counter() - start
    assert report is not None
    largest = checked(reference_of_gemm(problem, operands).compare(operands.output))
    return Emulated(problem=problem, seconds=seconds, report=report, largest=largest)


def _on_gpu(gemm: Gemm, seconds: float) -> tuple[OnGpu | None, str]:
    from gemmir.backends.ptx.driver import find_driver
    from gemmir.gpu_kernel import GpuKernel, target_for

    try:
        gpu = find_driver().gpus()[0]
        target = target_for(gpu)
        lowered = lower(gemm, target)
        kernel = lowered.compile()
    except MissingError as error:
        return None, error.message
    assert isinstance(kernel, GpuKernel)
    operands = make_operands(lowered.artifact.signature)
    *inputs, output = operands.arrays
    kernel(*inputs, out=output)
    reference = reference_of_gemm(gemm, operands, emulated=False)
    largest = checked(reference.compare(output))
    timing = kernel.measure(*inputs, out=output, seconds=seconds)
    return OnGpu(name=gpu.name, target=target, timing=timing, largest=largest), ""


def checked(compared: Comparison) -> Element:
    """The element that is furthest off; `MismatchError` GEM0802 where one is not in its bound."""
    if compared.first_wrong is not None:
        raise MismatchError("GEM0802", str(compared.first_wrong), "gemmir check finds the pass")
    assert compared.largest is not None
    return compared.largest
