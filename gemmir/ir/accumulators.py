"""What `vectorize` makes of a GEMM on an accumulator tile: vectors of sums and how they are fed."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.index import Extent


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
    def block(self) -> int:
        """Columns that are dealt to as many vectors as each has lanes."""
        return self.width * self.width

    @property
    def starts(self) -> range:
        """First columns of the accumulators."""
        return range(0, self.columns, self.width)
