"""How a tile is spread over the threads of the warps that share it.

Of each 16 x n part of it that a warp has, lane l has of each 8 x 8 block the elements (l / 4,
2 (l mod 4)) and the one right of that: one row of two lanes for each block, blocks by rows within
16 rows. The four warps of a warpgroup have 16 rows each of every 64. PTX ISA 9.0, sections "Matrix
Fragments for mma.m16n8k16 with floating point type" and "Register Fragments for wgmma".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gemmir.backends.llvm.emitter import Emitter
from gemmir.backends.ptx.launch import LANES
from gemmir.backends.ptx.threads import lane_of, warp_of
from gemmir.ir.warpgroup import WARPS_OF_GROUP

BLOCK: Final = 8
"""Rows and columns of a block."""

PAIR: Final = 2
"""Adjacent elements of the sum that one lane has of a block."""

QUAD: Final = 4
"""Lanes that share a row of A or a column of B."""

ROWS: Final = 2 * BLOCK
"""Rows that a warp has side by side."""


@dataclass(frozen=True)
class Spread:
    """The spread of a tile over so many warps."""

    warps: int

    def __call__(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and lanes that one thread has of a tile."""
        rows, columns = shape
        return rows * columns // (self.warps * LANES * PAIR), PAIR

    def blocks(self, shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """The first element of each block of the first warp, in the order of a thread's rows."""
        rows, columns = shape
        for row in range(0, rows, ROWS * self.warps):
            for column in range(0, columns, BLOCK):
                for half in range(row, min(row + ROWS, rows), BLOCK):
                    yield half, column

    def first_row(self, e: Emitter) -> str:
        """The first row of the tile of which this warp has some."""
        if self.warps == 1:
            return "0"
        number = e.text.binary("urem", e.text.widened(warp_of(e)), str(self.warps))
        return e.text.binary("mul", number, str(ROWS))

    def origin(self, e: Emitter) -> tuple[str, str]:
        """The first element of the tile that this thread has."""
        text, lane = e.text, lane_of(e)
        row = text.binary("add", text.binary("udiv", lane, str(QUAD)), self.first_row(e))
        return row, text.binary("mul", text.binary("urem", lane, str(QUAD)), str(PAIR))


OF_WARP: Final = Spread(1)
OF_GROUP: Final = Spread(WARPS_OF_GROUP)


def spread_of(e: Emitter) -> Spread | None:
    """How vectors are spread where the emitter is; None where each thread has its own."""
    assert e.spread is None or isinstance(e.spread, Spread)
    return e.spread
