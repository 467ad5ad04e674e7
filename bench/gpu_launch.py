"""What a launch costs the CPU, from Python, on tensors of PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gpu_check import loaded

from gemmir.gemm import Gemm
from gemmir.gpu_kernel import GpuKernel
from gemmir.signature import Argument

CALLS: Final = 200
"""Calls in a row: few enough that the GPU's queue, of 1024 launches, does not fill."""

ROUNDS: Final = 40

KINDS: Final = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}

BOUND: Final = "bound call"
CALLED: Final = "call"


def launch_cost(
    torch: Any, folder: Path, case: Mapping[str, Any], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Microseconds of a bound call, of a call that looks at its arrays, and of PyTorch's."""
    rows: list[dict[str, Any]] = []
    for name, kernel in case["kernels"].items():
        say(name)
        for kind, cost in _costs(torch, folder, kernel).items():
            row = {"name": f"{name}, {kind}", "wrong": False, "microseconds": cost}
            rows.append({**row, "schedule": kernel["schedule"], "launch": kernel["launch"]})
    say("torch")
    peer = _peer_cost(torch, Gemm(**case["problem"]))
    return [*rows, {"name": "torch", "wrong": False, "microseconds": peer}]


def _costs(torch: Any, folder: Path, kernel: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found, signature = loaded(folder, kernel)
    called = GpuKernel(found, signature)
    *operands, out = (_tensor(torch, argument) for argument in signature.arguments)
    return {
        BOUND: _cost(torch, called.bind(*operands, out=out)),
        CALLED: _cost(torch, lambda: called(*operands, out=out)),
    }


def _peer_cost(torch: Any, gemm: Gemm) -> dict[str, float]:
    kind = getattr(torch, KINDS[gemm.element.name])
    a, b = (
        torch.rand(shape, device="cuda").to(kind) for shape in ((gemm.m, gemm.k), (gemm.k, gemm.n))
    )
    out = torch.matmul(a, b)
    return _cost(torch, lambda: torch.matmul(a, b, out=out))


def _tensor(torch: Any, argument: Argument) -> Any:
    kind = getattr(torch, KINDS[argument.dtype])
    return torch.rand(argument.shape, device="cuda").to(kind)


def _cost(torch: Any, call: Callable[[], Any]) -> dict[str, float]:
    found: list[float] = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - start) / CALLS * 1e6)
    lower, median, upper = statistics.quantiles(found, n=4)
    return {"median": median, "lower": lower, "upper": upper}
