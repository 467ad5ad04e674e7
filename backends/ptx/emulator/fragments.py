"""Which elements of a matrix each lane holds: PTX ISA, section "Matrix Fragments for mma".

A lane is `group` = lane / 4 and `own` = lane mod 4. A register holds `packed` adjacent elements of
A or B along k; registers of A go through the halves of 8 rows first, then through k.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from gemmir.backends.ptx.emulator.values import Array

LANES = 32
LANE = np.arange(LANES)
GROUP, OWN = LANE // 4, LANE % 4


def _where(rows: Array, columns: Array, shape: tuple[int, int]) -> Array:
    """For each element of a matrix, lane * elements + number of the one that holds it."""
    places = np.full(shape, -1)
    places[rows, columns] = np.arange(rows.size).reshape(rows.shape)
    assert (places >= 0).all()
    return places


@cache
def places_of_a(rows: int, depth: int, packed: int) -> Array:
    """Where the elements of A, `rows` by `depth`, lie in a warp's registers."""
    halves = rows // 8
    element = np.arange(rows * depth // LANES)
    register, part = element // packed, element % packed
    row = GROUP[:, None] + 8 * (register % halves)
    column = 4 * packed * (register // halves) + packed * OWN[:, None] + part
    return _where(row, column, (rows, depth))


@cache
def places_of_b(depth: int, packed: int) -> Array:
    """Where the elements of B, `depth` by 8, lie."""
    element = np.arange(depth * 8 // LANES)
    register, part = element // packed, element % packed
    row = 4 * packed * register + packed * OWN[:, None] + part
    return _where(row, np.broadcast_to(GROUP[:, None], row.shape), (depth, 8))


@cache
def places_of_c(rows: int) -> Array:
    """Where the elements of C and D, `rows` by 8, lie: two adjacent ones of each half of 8 rows."""
    element = np.arange(rows * 8 // LANES)
    row = GROUP[:, None] + 8 * (element // 2)
    column = 2 * OWN[:, None] + element % 2
    return _where(row, column, (rows, 8))


@cache
def elements_of_c(rows: int) -> Array:
    """The other way: for lane * elements + number, which of rows * 8 elements it is."""
    return np.argsort(places_of_c(rows).ravel())
