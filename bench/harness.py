"""Timing: contestants in turns on one core, each checked before its first timing counts."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from loops import Repeat, cblas_loop, kernel_loop, peak_loop
from peers import Blas

from gemmir.arrays import Operands, make_operands
from gemmir.backend import backend_for
from gemmir.cache import ObjectCache
from gemmir.compiler import Lowered, lower
from gemmir.dtypes import ELEMENTS
from gemmir.gemm import Gemm
from gemmir.measure import Timing, on_one_core
from gemmir.reference import Reference

Array = npt.NDArray[Any]

LEAST_SECONDS: Final = 0.02
"""One timing is so many calls that it takes about this long, or one call."""

GEMMIR: Final = "gemmir"
PRODUCT: Final = "gemmir, product only"
NUMPY: Final = "numpy"
PEAK: Final = "fma peak"


class WrongResultError(Exception):
    """A contestant does not compute what it is timed for."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """`repeat(count)` makes `count` calls, of so many floating-point operations each."""

    name: str
    repeat: Callable[[int], None]
    flops: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of one call in CPU time of the thread and in wall time; `calls` made one timing."""

    calls: int
    gflops: float
    cpu: Timing
    wall: Timing


@dataclass(frozen=True, kw_only=True)
class Course:
    """Problems on the same arrays: `lowered` names what gemmir made of each."""

    operands: Operands
    lowered: Mapping[str, Lowered]
    contestants: Sequence[Contestant]

    @property
    def schedules(self) -> dict[str, list[str]]:
        """The passes of every kernel of gemmir."""
        return {name: list(lowered.schedule.steps) for name, lowered in self.lowered.items()}


def product_course(gemm: Gemm, blases: Sequence[Blas], seed: int) -> Course:
    """A plain product by gemmir, each peer and NumPy; every result is checked."""
    lowered = lower(gemm)
    operands = make_operands(lowered.artifact.signature, seed)
    a, b, c = operands.arrays
    pointers = [array.ctypes.data for array in (a, b, c)]
    contestants = [
        Contestant(name=GEMMIR, repeat=_kernel(lowered, operands), flops=gemm.flops),
        *(
            Contestant(
                name=blas.name,
                repeat=cblas_loop(blas.addresses[gemm.dtype], blas.integer, gemm, pointers),
                flops=gemm.flops,
            )
            for blas in blases
        ),
        Contestant(name=NUMPY, repeat=_numpy(a, b, c), flops=gemm.flops),
    ]
    expected = reference(gemm, operands)
    for contestant in contestants:
        check(contestant, expected, c)
    return Course(operands=operands, lowered={GEMMIR: lowered}, contestants=contestants)


def epilogue_course(gemm: Gemm, seed: int) -> Course:
    """gemmir with an epilogue and without it, on the same arrays; both results are checked."""
    problems = {GEMMIR: gemm, PRODUCT: replace(gemm, epilogue="")}
    lowered = {name: lower(problem) for name, problem in problems.items()}
    operands = make_operands(lowered[GEMMIR].artifact.signature, seed)
    contestants: list[Contestant] = []
    for name, problem in problems.items():
        used = Operands(by_name={o.name: operands.by_name[o.name] for o in problem.operands})
        repeat = _kernel(lowered[name], used)
        contestants.append(Contestant(name=name, repeat=repeat, flops=gemm.flops))
        check(contestants[-1], reference(problem, used), operands.output)
    return Course(operands=operands, lowered=lowered, contestants=contestants)


def peak_contestant(dtype: str) -> Contestant:
    """The most FMAs that the core makes of this type, as one more contestant."""
    repeat, flops = peak_loop(dtype)
    return Contestant(name=PEAK, repeat=repeat, flops=flops)


def race(contestants: Sequence[Contestant], rounds: int) -> dict[str, Measured]:
    """Time all in turns, A B C A B C, `rounds` times."""
    calls = {c.name: _calls(c) for c in contestants}
    times: dict[str, list[tuple[float, float]]] = {c.name: [] for c in contestants}
    for _ in range(rounds):
        for c in contestants:
            times[c.name].append(_timed(c, calls[c.name]))
    return {c.name: _measured(c, calls[c.name], times[c.name]) for c in contestants}


def timing_of(samples: Sequence[float]) -> Timing:
    """The median and the quartiles of seconds."""
    lower_quartile, median, upper_quartile = (
        float(x) for x in np.percentile(samples, [25, 50, 75])
    )
    return Timing(seconds=median, lower=lower_quartile, upper=upper_quartile, count=len(samples))


def reference(gemm: Gemm, operands: Operands) -> Reference:
    """The right answer in float64, for f32 and f64.

    For f64 the answer itself is rounded as much as what is checked, which doubles the bound.
    """
    arrays = {name: operand.array for name, operand in operands.by_name.items()}
    as_f32 = replace(gemm, dtype="f32")
    unit = gemm.element.unit / ELEMENTS["f32"].unit
    scale = 1.0 if gemm.dtype == "f32" else 2 * unit
    return Reference(
        origin="float64",
        expected=as_f32.reference(arrays),
        bound=scale * as_f32.error_bound(arrays),
        view=lambda output: output,
    )


def check(contestant: Contestant, expected: Reference, output: Array) -> None:
    """Call once on an output of NaNs; `WrongResultError` where an element is out of its bound."""
    output[...] = np.nan
    contestant.repeat(1)
    wrong = expected.compare(output).first_wrong
    if wrong is not None:
        raise WrongResultError(f"{contestant.name} is wrong: {wrong}")


@contextmanager
def pinned(cpu: int | None) -> Generator[int | None]:
    """Stay on `cpu`, or on the one that `on_one_core` chooses; None where the system cannot."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        with on_one_core() as core:
            yield core
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, allowed)


def _kernel(lowered: Lowered, operands: Operands) -> Repeat:
    signature = lowered.artifact.signature
    object_bytes = lowered.assemble(ObjectCache(None))
    loaded = backend_for(lowered.machine.kind).load(object_bytes, signature)
    address = ctypes.cast(cast("Any", loaded.entry), ctypes.c_void_p).value or 0
    return kernel_loop(address, [a.ctypes.data for a in operands.arrays], (loaded, operands))


def _numpy(a: Array, b: Array, c: Array) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        for _ in range(count):
            np.matmul(a, b, out=c)

    return repeat


def _calls(contestant: Contestant) -> int:
    """Calls for one timing, from a batch that is doubled until the clock can tell its length."""
    count = 1
    while True:
        seconds, _ = _timed(contestant, count)
        if seconds * count >= LEAST_SECONDS / 8:
            return max(round(LEAST_SECONDS / seconds), 1)
        count *= 2


def _timed(contestant: Contestant, calls: int) -> tuple[float, float]:
    """CPU and wall seconds of one call, over `calls` of them."""
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    contestant.repeat(calls)
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return max(cpu, 1) * 1e-9 / calls, wall * 1e-9 / calls


def _measured(contestant: Contestant, calls: int, times: Sequence[tuple[float, float]]) -> Measured:
    cpu, wall = (timing_of(column) for column in zip(*times, strict=True))
    return Measured(calls=calls, gflops=cpu.gflops(contestant.flops), cpu=cpu, wall=wall)
