"""The heap of loaded kernels: what it keeps, what it returns, and that no two callers share it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import gemmir
from gemmir.backends.cpu import pool
from gemmir.backends.cpu.load import pool_library
from gemmir.backends.cpu.pool import FRONT, HUGE_PAGE, LARGEST_KEPT, PLACES

Take = Callable[[int, int], "int | None"]
Give = Callable[["int | None"], None]


@pytest.fixture
def take() -> Take:
    address = pool_library()[pool.SYMBOLS["aligned_alloc"]]
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)


@pytest.fixture
def give() -> Give:
    address = pool_library()[pool.SYMBOLS["free"]]
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@pytest.fixture
def power(take: Take, give: Give) -> Iterator[int]:
    """A size of blocks of which none is kept before a test, and none by it after."""
    yield 24
    for buffer in [take(FRONT, (1 << 24) - FRONT) for _ in range(PLACES)]:
        give(buffer)


def test_what_is_given_back_is_taken_again(take: Take, give: Give, power: int):
    first = take(FRONT, 1 << (power - 1))
    give(first)
    assert take(FRONT, (1 << power) - FRONT) == first
    give(first)


def test_as_many_as_there_are_places_are_kept(take: Take, give: Give, power: int):
    size = (1 << power) - FRONT
    taken = [take(FRONT, size) for _ in range(PLACES)]
    for buffer in taken:
        give(buffer)
    again = [take(FRONT, size) for _ in range(PLACES)]
    assert set(again) == set(taken)
    for buffer in again:
        give(buffer)


def test_what_is_aligned_to_more_than_a_page_is_not_kept(take: Take, give: Give):
    """It begins elsewhere in its block than others do."""
    alignment = 1 << HUGE_PAGE
    held = [take(FRONT, alignment) for _ in range(PLACES)]  # nothing of the size is kept now
    special = take(alignment, alignment)
    give(special)
    held.append(take(FRONT, alignment))
    assert held[-1] != special
    for buffer in held:
        give(buffer)


@pytest.mark.skipif(sys.platform != "linux", reason="msync tells what is mapped on Linux")
@pytest.mark.parametrize("power", [LARGEST_KEPT, LARGEST_KEPT + 1])
def test_what_has_no_place_goes_back_to_the_system(take: Take, give: Give, power: int):
    """The C library maps blocks of such sizes one by one, and unmaps them when they are freed."""
    taken = [take(FRONT, (1 << power) - FRONT) for _ in range(PLACES + 1)]
    assert all(map(is_mapped, taken))
    for buffer in taken:
        give(buffer)
    assert sum(map(is_mapped, taken)) == (PLACES if power == LARGEST_KEPT else 0)


def is_mapped(buffer: int | None) -> bool:
    ms_async = 1
    return ctypes.CDLL(None).msync(ctypes.c_void_p(buffer), ctypes.c_size_t(1), ms_async) == 0


def test_a_larger_buffer_is_of_another_block(take: Take, give: Give):
    small = take(FRONT, 4096)
    give(small)
    large = take(FRONT, 1 << 20)
    assert large != small
    give(large)


def test_no_two_callers_have_one_buffer(take: Take, give: Give, power: int):
    size = 1 << (power - 1)
    taken = [take(FRONT, size) for _ in range(2 * PLACES)]
    assert None not in taken
    starts = sorted(t for t in taken if t is not None)
    assert all(b - a >= size for a, b in pairwise(starts))
    for buffer in taken:
        give(buffer)


def test_threads_write_only_their_own(take: Take, give: Give):
    barrier = threading.Barrier(8)

    def work(number: int) -> bool:
        barrier.wait()
        for _ in range(200):
            buffer = take(FRONT, 5000)
            assert buffer is not None
            cells = (ctypes.c_int64 * 625).from_address(buffer)
            cells[:] = [number] * 625
            if any(c != number for c in cells):
                return False
            give(buffer)
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


@pytest.mark.parametrize("alignment", [16, 4096, 8192, 1 << 21])
@pytest.mark.parametrize("size", [1, 4096, 12345, 1 << HUGE_PAGE, (1 << LARGEST_KEPT) + 1])
def test_buffers_are_aligned_and_whole(take: Take, give: Give, alignment: int, size: int):
    buffer = take(alignment, size)
    assert buffer is not None
    assert buffer % alignment == 0
    ctypes.memset(buffer, 255, size)
    give(buffer)


@pytest.mark.parametrize("size", [1 << 45, 1 << 47, (1 << 63) - 1])
def test_what_no_computer_has_is_refused(take: Take, size: int):
    assert take(FRONT, size) is None


def test_nothing_is_given_back_twice_by_a_call_without_memory(give: Give):
    give(None)


def test_only_linux_is_asked_for_huge_pages():
    assert "madvise" in pool.text(huge_pages=True)
    assert "madvise" not in pool.text(huge_pages=False)


def test_kernels_use_it(take: Take, give: Give):
    """The copy of B lies where the next buffer of that size will."""
    schedule = (
        "promote{operand=b to=l2 layout=panel:16},tile{loops=n,m sizes=16,4},"
        "promote{operand=c to=registers},vectorize{with=fma width=8}"
    )
    gemm = gemmir.Gemm(m=64, n=64, k=64)
    kernel = gemmir.lower(gemm, target="cpu", schedule=schedule).compile()
    taken = [take(FRONT, 64 * 64 * 4) for _ in range(PLACES)]
    b = np.full((64, 64), 7, np.float32)
    kernel(np.ones((64, 64), np.float32), b)
    buffer = take(FRONT, 64 * 64 * 4)
    assert buffer is not None
    assert set((ctypes.c_float * (64 * 64)).from_address(buffer)) == {7.0}
    for used in [*taken, buffer]:
        give(used)
