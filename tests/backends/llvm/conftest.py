"""Small kernels as LLVM text, and running them with an allocator that can fail."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gemmir
from gemmir.backend import Artifact
from gemmir.backends.cpu.assemble import assemble
from gemmir.backends.cpu.load import load
from gemmir.signature import Signature

Array = npt.NDArray[Any]

PACKED = """
tile{loops=k sizes=8}
promote{operand=b to=l3 layout=panel:16}
promote{operand=a to=l2 layout=panel:6}
tile{loops=n,m sizes=16,6}
promote{operand=c to=registers}
fuse-epilogue
vectorize{with=fma width=8}
unroll{loop=k factor=2}
"""

THREADED = f"tile{{loops=m sizes=6 over=cores}}\n{PACKED}"

FAILING_ALLOCATOR = """
@calls = internal global i32 0
@live = internal global i32 0
declare noalias ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
define internal ptr @test_alloc(i64 %alignment, i64 %size) {
  %call = atomicrmw add ptr @calls, i32 1 seq_cst
  %fails = icmp eq i32 %call, FAILING
  br i1 %fails, label %none, label %some
none:
  ret ptr null
some:
  %made = call ptr @aligned_alloc(i64 %alignment, i64 %size)
  %before = atomicrmw add ptr @live, i32 1 seq_cst
  ret ptr %made
}
define internal void @test_free(ptr %buffer) {
  %before = atomicrmw sub ptr @live, i32 1 seq_cst
  call void @free(ptr %buffer)
  ret void
}
define i32 @traced(PARAMETERS) {
  %status = call i32 @gemm(ARGUMENTS)
  %calls = load i32, ptr @calls
  %live = load i32, ptr @live
  %high = mul i32 %calls, 256
  %low = mul i32 %live, 16
  %sum = add i32 %high, %low
  %all = add i32 %sum, %status
  ret i32 %all
}
"""
"""The heap, with its call number FAILING refused; the result packs the calls, what is still
allocated at the end, and the status."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One call: its status, how often it allocated, what it did not free; C before and after."""

    status: int
    calls: int
    live: int
    before: Array
    c: Array
    exact: Array


def traced_call(gemm: gemmir.Gemm, schedule: str, failing: int) -> Traced:
    """Run `gemm` on whole numbers, with allocation number `failing` refused, from 0."""
    artifact = gemmir.lower(gemm, schedule=schedule).artifact
    generator = np.random.default_rng(0)
    arrays = {
        o.name: generator.integers(-3, 4, o.shape).astype(gemm.element.numpy) for o in gemm.operands
    }
    exact = gemm.reference(arrays)
    before = arrays["c"].copy()
    entry = load(assemble(_with_failing_allocator(artifact, failing)), _traced(artifact))
    packed = entry(*(array.ctypes.data for array in arrays.values()))
    return Traced(
        status=packed % 16,
        calls=packed // 256,
        live=packed // 16 % 16,
        before=before,
        c=arrays["c"],
        exact=exact,
    )


def _traced(artifact: Artifact) -> Signature:
    return replace(artifact.signature, symbol="traced")


def _with_failing_allocator(artifact: Artifact, failing: int) -> Artifact:
    lines = [
        line
        for line in artifact.text.splitlines()
        if not line.startswith("declare") or ("aligned_alloc" not in line and "@free" not in line)
    ]
    kernel = "\n".join(lines)
    kernel = kernel.replace("@aligned_alloc(", "@test_alloc(").replace("@free(", "@test_free(")
    names = [f"ptr %p{i}" for i, _ in enumerate(artifact.signature.arguments)]
    around = FAILING_ALLOCATOR.replace("FAILING", str(failing))
    around = around.replace("PARAMETERS", ", ".join(names)).replace("ARGUMENTS", ", ".join(names))
    return replace(artifact, text=f"{around}\n{kernel}", signature=_traced(artifact))


@pytest.fixture(scope="session")
def trace() -> Callable[[gemmir.Gemm, str, int], Traced]:
    """trace(gemm, schedule, failing): run with one allocation refused."""
    return traced_call


@pytest.fixture(scope="session")
def packed() -> str:
    """A schedule that packs A and B and cuts k into slices."""
    return PACKED


@pytest.fixture(scope="session")
def threaded() -> str:
    """The same on several cores, where each packs for itself."""
    return THREADED
