"""What `vectorize` makes of a GEMM on an accumulator tile: vectors of sums and how they are fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xdsl.ir import SSAValue

from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.index import Extent

MOST_DEALT: Final = 8
"""Elements of 4 bits in a word: to so many vectors a row is dealt at most."""


def dealt_to(width: int) -> int:
    """To how many vectors of `width` lanes a row is dealt, so that few deals put sums in order."""
    return min(width, MOST_DEALT)


@dataclass(frozen=True, kw_only=True)
class GemmPlan:
    """One GEMM on an accumulator tile of static shape.

    `width` columns are one accumulator, to which `depth` products are added at once. With tensor
    cores, whose instruction has the shape `mma`, all are one, and rows and columns are rounded up
    to whole instructions.
    """

    accumulator: SSAValue
    rows: int
    columns: int
    width: int
    k: Extent
    depth: int = 1
    mma: tuple[int, int, int] | None = None
    precision: PrecisionAttr | None = None
    of_warpgroup: bool = False
    dealt: bool = False

    @property
    def share(self) -> int:
        """To how many vectors a block of columns is dealt."""
        return dealt_to(self.width)

    @property
    def block(self) -> int:
        """Columns that are dealt together."""
        return self.width * self.share

    @property
    def starts(self) -> range:
        """First columns of the accumulators."""
        return range(0, self.columns, self.width)
