"""Packed buffers: freed on every path, and no output touched where one cannot be had."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gemmir

Trace = Callable[[gemmir.Gemm, str, int], Any]

NEVER = 1000

GEMM = gemmir.Gemm(m=20, n=40, k=24, beta=2, epilogue="bias+relu")


def schedule_of(kind: str, packed: str, threaded: str) -> str:
    """One core, several cores, or several cores anew for every slice of k."""
    return {
        "serial": packed,
        "threaded": threaded,
        "sliced": "tile{loops=k sizes=8}\n" + threaded.replace("tile{loops=k sizes=8}\n", ""),
    }[kind]


KINDS = pytest.mark.parametrize("kind", ["serial", "threaded", "sliced"])


@KINDS
def test_every_buffer_is_freed(trace: Trace, packed: str, threaded: str, kind: str) -> None:
    found = trace(GEMM, schedule_of(kind, packed, threaded), NEVER)
    assert (found.status, found.calls, found.live) == (0, 2, 0)
    assert np.array_equal(found.c, found.exact)


@KINDS
@pytest.mark.parametrize("failing", [0, 1])
def test_without_memory_nothing_is_written(
    trace: Trace, packed: str, threaded: str, kind: str, failing: int
) -> None:
    """Also not by the threads, or the slices of k, that would have had their buffers."""
    found = trace(GEMM, schedule_of(kind, packed, threaded), failing)
    assert (found.status, found.calls, found.live) == (1, failing + 1, 0)
    assert np.array_equal(found.c, found.before)
    assert not np.array_equal(found.c, found.exact)
