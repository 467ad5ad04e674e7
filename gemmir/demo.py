"""BERT-base's MLP up-projection from the problem to GFLOP/s, beside NumPy on the same core.

The same layer on a GPU is in `demo_gpu`, on a TPU in `demo_tpu`.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from gemmir.arrays import Operands, make_operands
from gemmir.compiler import Lowered, lower
from gemmir.demo_gpu import GpuDemo, checked, run_gpu_demo
from gemmir.demo_tpu import TpuDemo, run_tpu_demo
from gemmir.epilogue_steps import GELU_CUBIC
from gemmir.gemm import Gemm
from gemmir.machine.host import host_cpu
from gemmir.measure import Timing, interleaved, on_one_core
from gemmir.reference import Element, reference_of_gemm

Array = npt.NDArray[Any]

PROBLEM: Final = Gemm(m=128, n=3072, k=768, dtype="f32", epilogue="bias+gelu")
"""128 tokens through the first layer of the MLP: arXiv:1810.04805, section 3, BERT-base."""

ONE_THREAD: Final[Mapping[str, str]] = {
    name: "1"
    for name in (
        "BLIS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
}
"""What keeps NumPy's BLAS to one thread, whichever it is; read when NumPy is imported."""

MEASURE_SECONDS: Final = 4.0

GEMMIR: Final = "gemmir"
NUMPY: Final = "NumPy"
NUMPY_PRODUCT: Final = "NumPy, product only"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What was lowered and measured; `core` is the one that it ran on, where it could be chosen."""

    lowered: Lowered
    timings: Mapping[str, Timing]
    largest: Element
    cpu: str
    core: int | None
    blas: str
    has_one_thread: bool
    gpu: GpuDemo
    tpu: TpuDemo


def run_demo(say: Callable[[str], None], seconds: float = MEASURE_SECONDS) -> Demo:
    """Lower, compile, check and time the problem; lower and check it for a GPU and a TPU too.

    NumPy's BLAS has one thread if the variables in `ONE_THREAD` were set before NumPy was imported.
    `say` is told what comes next. Raises as `run_gpu_demo` does.
    """
    say(f"one layer on the CPU, beside NumPy: {seconds:g} s")
    lowered = lower(PROBLEM)
    operands = make_operands(lowered.artifact.signature)
    *inputs, output = operands.arrays
    call = lowered.compile().bind(*inputs, out=output)
    call()
    largest = checked(reference_of_gemm(PROBLEM, operands).compare(operands.output))
    with on_one_core() as core:
        timings = interleaved({GEMMIR: call, **_numpy_calls(operands)}, seconds)
    say("the same layer for a GPU: its PTX in the emulator")
    gpu = run_gpu_demo(PROBLEM)
    say("the same layer for a TPU: its Pallas kernel in the interpreter, and a static profile")
    tpu = run_tpu_demo(PROBLEM, say)
    return Demo(
        lowered=lowered,
        timings=timings,
        largest=largest,
        cpu=f"{host_cpu().name} ({platform.machine()})",
        core=core,
        blas=blas_name(),
        has_one_thread=all(os.environ.get(k) == v for k, v in ONE_THREAD.items()),
        gpu=gpu,
        tpu=tpu,
    )


def _numpy_calls(operands: Operands) -> dict[str, Callable[[], Any]]:
    """The same work in NumPy, in place throughout; and the product alone."""
    a, b, bias, _ = operands.arrays
    y = np.empty((PROBLEM.m, PROBLEM.n), np.float32)
    t = np.empty_like(y)
    half, cubic = np.float32(0.5), np.float32(GELU_CUBIC)
    scale = np.float32(math.sqrt(2 / math.pi))

    def product() -> None:
        np.matmul(a, b, out=y)

    def product_bias_gelu() -> None:
        np.matmul(a, b, out=y)
        np.add(y, bias, out=y)
        np.multiply(y, y, out=t)
        np.multiply(t, cubic, out=t)
        np.add(t, np.float32(1), out=t)
        np.multiply(t, y, out=t)
        np.multiply(t, scale, out=t)
        np.tanh(t, out=t)
        np.add(t, np.float32(1), out=t)
        np.multiply(t, half, out=t)
        np.multiply(y, t, out=y)

    return {NUMPY: product_bias_gelu, NUMPY_PRODUCT: product}


def blas_name() -> str:
    """The BLAS that NumPy calls, as it was built."""
    show = cast("Callable[..., dict[str, Any]]", np.show_config)
    built = show(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(built.get(word, "")) for word in ("name", "version")).strip() or "unknown"
