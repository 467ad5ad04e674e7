"""What may overwrite what products and stores read: only who knows of every wait for them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gemmir.backends.ptx.emulator.async_reads import AsyncReads
from gemmir.backends.ptx.emulator.clocks import EPOCH, WARP, Clocks
from gemmir.backends.ptx.emulator.faults import FaultError


def clocks() -> Clocks:
    epochs = itertools.count(1)
    return Clocks(160, 1, lambda: next(epochs) * EPOCH)


def warp(number: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(WARP * number, WARP * (number + 1))


def test_all_parts_must_be_over_and_known() -> None:
    """Four warps wait for a product, each tells thread 128, and only then may that overwrite it."""
    known, reads = clocks(), AsyncReads()
    read = reads.begin("a product", np.arange(8, 16), 4)
    for number in range(4):
        with pytest.raises(FaultError, match="has yet to read"):
            reads.require_free_units(8, 16, 128, known)
        read.end(warp(number), known.tick())
        clock, _ = known.released(warp(number)[:1])
        known.acquire(np.array([128]), clock)
    other = np.array([129])
    with pytest.raises(FaultError, match="no barrier makes known here"):
        reads.require_free_units(15, 20, 129, known)
    reads.require_free_units(16, 20, 129, known)
    known.acquire(other, known.released(np.array([128]))[0])
    reads.require_free_units(0, 20, 129, known)
    assert not reads.held


def test_a_wait_after_the_arrival_is_not_known() -> None:
    known, reads = clocks(), AsyncReads()
    read = reads.begin("a product", np.arange(4), 1)
    clock, now = known.released(warp(0))
    read.end(warp(0), now)
    known.acquire(np.array([128]), clock)
    with pytest.raises(FaultError, match="no barrier makes known here"):
        reads.require_free_units(0, 4, 128, known)
    reads.require_free_units(0, 4, 5, known)


def test_only_what_is_touched_counts() -> None:
    known, reads = clocks(), AsyncReads()
    reads.begin("a product", np.array([2, 4, 6]), 1)
    for low in (0, 3, 5, 7):
        reads.require_free_units(low, low + 1, 128, known)
    for low in (2, 4, 6):
        with pytest.raises(FaultError, match="overwrites what a product has yet to read"):
            reads.require_free_units(low, low + 1, 128, known)
