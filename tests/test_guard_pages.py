"""Machine code stays inside its operands: each lies against a page that cannot be touched.

A call out of bounds ends in SIGSEGV, so calls are made in a forked child. Operands that are only
read lie on pages that cannot be written.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pytest

import gemmir
from gemmir import Gemm, Kernel
from gemmir.backends.cpu.openmp import runtime
from gemmir.dtypes import ELEMENTS
from gemmir.gemm import Operand
from tests.strategies import arrays_for, furthest

Array = npt.NDArray[Any]
Place = Literal["start", "end"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and mprotect")

PAGE: Final = mmap.PAGESIZE
NOTHING, READ, READ_WRITE = 0, 1, 3
"""Protection of pages: PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """An array in pages of its own between two that cannot be touched."""

    pages: mmap.mmap
    array: Array

    def protect(self, protection: int) -> None:
        """Set what may be done to the pages that hold the array."""
        _protect(self.pages, PAGE, len(self.pages) - 2 * PAGE, protection)


def _protect(pages: mmap.mmap, begin: int, length: int, protection: int) -> None:
    if length == 0:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + begin
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(operand: Operand, place: Place) -> Guarded:
    """Memory for `operand` that begins, or ends, where a page begins that cannot be touched."""
    element = ELEMENTS[operand.dtype]
    dtype = element.stored
    size = operand.span * element.bits // 8
    inner = -(-size // PAGE) * PAGE
    pages = mmap.mmap(-1, inner + 2 * PAGE)
    first = PAGE if place == "start" else PAGE + inner - size
    strides = [s * dtype.itemsize for s in element.stored_strides(operand.strides)]
    array = np.ndarray(element.stored_shape(operand.shape), dtype, pages, first, strides)
    _protect(pages, 0, PAGE, NOTHING)
    _protect(pages, PAGE + inner, PAGE, NOTHING)
    return Guarded(pages=pages, array=array)


def guarded_operands(gemm: Gemm, place: Place) -> dict[str, Guarded]:
    """Every operand of `gemm` between guards, with random elements; only c can be written."""
    values = arrays_for(gemm)
    found: dict[str, Guarded] = {}
    for operand in gemm.operands:
        made = guarded(operand, place)
        made.array[...] = values[operand.name]
        made.protect(READ if operand.access == "read" else READ_WRITE)
        found[operand.name] = made
    return found


def call(kernel: Kernel, operands: Mapping[str, Guarded]) -> Array:
    """Run `kernel` on guarded operands; returns c."""
    *inputs, c = (o.array for o in operands.values())
    kernel(*inputs, out=c)
    return c


def status_of(action: Callable[[], None]) -> int:
    """The exit status of a forked child that runs `action`: 0, or minus a signal, or 1 on error.

    The threads of an OpenMP runtime do not survive a fork, so the child has one.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            runtime().omp_set_num_threads(1)
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(gemm: Gemm, schedule: str | None = None) -> None:
    """Call the kernel with every operand at the start, then at the end, of its pages."""
    kernel = gemmir.lower(gemm, schedule=schedule).compile()

    def at_both() -> None:
        for place in ("start", "end"):
            operands = guarded_operands(gemm, place)
            before = {name: o.array.copy() for name, o in operands.items()}
            assert furthest(gemm, before, call(kernel, operands)) <= 1

    assert status_of(at_both) == 0, f"{gemm} with {schedule}"


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_an_access_beside_an_operand_is_found(place: Place, name: str) -> None:
    gemm = Gemm(m=3, n=5, k=7)

    def beside() -> None:
        array = guarded_operands(gemm, place)[name].array
        step = -1 if place == "start" else array.size
        ctypes.c_float.from_address(array.ctypes.data + step * array.itemsize).value  # noqa: B018

    assert status_of(beside) == -11


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_write_to_an_operand_that_is_read_is_found(name: str) -> None:
    def write() -> None:
        guarded_operands(Gemm(m=3, n=5, k=7), "start")[name].array[0, 0] = 1

    assert status_of(write) == -11


def shapes() -> Iterator[tuple[int, int, int]]:
    """Around the register tiles in m and n, with few and with many terms."""
    for m, n in itertools.product((1, 3, 6, 7, 13), (1, 2, 7, 8, 9, 17, 33)):
        yield m, n, 1 + (m * 7 + n) % 23


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("trans", ["nn", "nt", "tn", "tt"])
def test_default_schedules(dtype: str, trans: str) -> None:
    for number, (m, n, k) in enumerate(shapes()):
        check(
            Gemm(
                m=m,
                n=n,
                k=k,
                dtype=dtype,
                trans_a=trans[0] == "t",
                trans_b=trans[1] == "t",
                beta=(0.0, 1.0, -0.5)[number % 3],
                epilogue=("", "bias", "residual+relu", "bias+gelu")[number % 4],
            )
        )


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("dtype_b", ["i4", "i8"])
def test_default_schedules_of_weights(dtype_b: str, trans_b: bool) -> None:
    for number, (m, n, k) in enumerate([*shapes(), (1, 150, 260), (3, 34, 258), (70, 38, 42)]):
        odd = 0 if dtype_b == "i8" else 1
        n, k = (n, k + k % 2 * odd) if trans_b else (n + n % 2 * odd, k)
        group = (2, 16, 64, 128)[number % 4]
        check(Gemm(m=m, n=n, k=k, dtype_b=dtype_b, weight_group=group, trans_b=trans_b, beta=0.5))


@pytest.mark.parametrize("trans_b", [False, True])
def test_default_schedules_of_larger_problems(trans_b: bool) -> None:
    for m, n, k in ((97, 101, 103), (1, 259, 300), (259, 1, 300), (130, 67, 1025)):
        check(Gemm(m=m, n=n, k=k, trans_b=trans_b, epilogue="bias"))


@pytest.mark.parametrize("threads", [2, 3])
def test_default_schedules_of_batches(threads: int) -> None:
    for stride in (None, 0):
        gemm = Gemm(m=7, n=9, k=5, batch=3, lda=6, ldc=11, batch_stride_b=stride, beta=1.0)
        schedule = gemmir.lower(gemm).schedule
        check(gemm, str(schedule))
        check(gemm, str(gemmir.lower(gemm, threads=threads).schedule))


SCHEDULES: Final = {
    "direct": "tile{loops=n,m sizes=12,3},promote{operand=c to=registers},vectorize{with=fma "
    "width=8},unroll{loop=k factor=4}",
    "overlap": "tile{loops=n,m sizes=8,5 edges=overlap},promote{operand=c to=registers},"
    "vectorize{with=fma width=8},unroll{loop=k factor=3}",
    "peel": "tile{loops=n,m sizes=8,5 edges=peel},promote{operand=c to=registers},"
    "vectorize{with=fma width=8},unroll{loop=k factor=3}",
    "packed": "tile{loops=k sizes=6},promote{operand=b to=l3 layout=panel:8},promote{operand=a "
    "to=l2 layout=panel:5},tile{loops=n,m sizes=8,5},promote{operand=c to=registers "
    "prefetch=true},vectorize{with=fma width=4},unroll{loop=k factor=4}",
    "packed b": "tile{loops=n sizes=9},promote{operand=b to=l2 layout=panel:9},"
    "tile{loops=m sizes=3},promote{operand=c to=registers},vectorize{with=fma width=8}",
    "ragged": "tile{loops=n,m sizes=7,3},promote{operand=c to=registers},vectorize{with=fma "
    "width=4},unroll{loop=k factor=2}",
    "cores": "tile{loops=m sizes=6 over=cores},tile{loops=n,m sizes=8,3},promote{operand=a to=l1 "
    "layout=panel:3},promote{operand=c to=registers},vectorize{with=fma width=8}",
    "sliced": "tile{loops=k,n,m sizes=4,8,2},interchange{order=m,k,n},promote{operand=c "
    "to=registers},vectorize{with=fma width=2}",
    "along k": "promote{operand=a to=l2 layout=panel:1},promote{operand=b to=l2 layout=panel:1},"
    "tile{loops=m,n sizes=3,2 edges=peel},promote{operand=c to=registers},"
    "vectorize{with=fma width=8 along=k}",
    "whole": "tile{loops=n,m sizes=8,4},promote{operand=c to=registers},vectorize{with=fma "
    "width=8},unroll{loop=k factor=2}",
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, dtype: str) -> None:
    """Rows of C that are padded end where C ends: the padding of the last row does not exist."""
    schedule = SCHEDULES[name]
    if dtype == "f64":
        schedule = schedule.replace("width=8", "width=4")
    fused = schedule.replace("vectorize", "fuse-epilogue,vectorize")
    for m, n, k in ((10, 16, 6), (11, 23, 7), (13, 17, 13)):
        for trans in (False, True):
            check(Gemm(m=m, n=n, k=k, dtype=dtype, trans_a=trans, trans_b=not trans), schedule)
            check(
                Gemm(
                    m=m,
                    n=n,
                    k=k,
                    dtype=dtype,
                    trans_a=trans,
                    trans_b=trans,
                    ldc=n + 5,
                    epilogue="bias+relu+residual",
                ),
                fused,
            )
