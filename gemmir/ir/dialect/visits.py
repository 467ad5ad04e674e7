"""Which tile of rows has rows of which product of a grouped GEMM."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, MemRefType, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import Space, SpaceAttr
from gemmir.ir.dialect.memrefs import MEMREF, memref_type


class Visit(IntEnum):
    """The rows of what `gemmir.visits` makes."""

    PRODUCT = 0
    TILE = 1
    BEGIN = 2
    END = 3
    TAKES_OLD = 4
    OLD = 5


def most_visits(groups: int, rows: int, size: int) -> int:
    """How many visits tiles of `size` of `rows` rows can need for so many products.

    Every tile needs one, and one more for each product but the first that begins inside of one.
    """
    return -(-rows // size) + min(groups, rows) - 1 if rows else 0


@irdl_op_definition
class VisitsOp(IRDLOperation):
    """Which rows of which tile belong to which product of a grouped GEMM.

    `offsets` says where in `rows` rows those of each product begin, as `Gemm` has it; tile i has
    the rows from i * `size` on. A visit is a tile and a product that has rows in it. Column v of
    the result is visit v in the order of rows: the number of the product, that of the tile, the
    first and one past the last of the rows of the tile that are the product's. So those of one tile
    follow each other. Then there is 1 where a visit is the first of its tile and leaves rows of it
    out, which keep what is in them, otherwise 0; and the last tile for which that was so, or the
    tile of the first visit. Columns behind the last visit repeat its product and tile, with rows
    from 0 to 0; if there is none, the last product and tile 0, all of which is left out.
    """

    name = "gemmir.visits"

    offsets = operand_def(MEMREF)
    rows = prop_def(IntegerAttr)
    size = prop_def(IntegerAttr)
    result = result_def(MEMREF)

    assembly_format: ClassVar[str | None] = (
        "$offsets `rows` $rows `by` $size attr-dict `:` type($offsets) `->` type($result)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, offsets: SSAValue, *, rows: int, size: int) -> None:
        (count,) = memref_type(offsets).get_shape()
        shape = len(Visit), most_visits(count - 1, rows, size)
        super().__init__(
            operands=[offsets],
            result_types=[MemRefType(i32, shape, memory_space=SpaceAttr(Space.SMEM))],
            properties={"rows": IntegerAttr(rows, i64), "size": IntegerAttr(size, i64)},
        )

    @property
    def tile(self) -> int:
        """How many rows a tile has."""
        return self.size.value.data

    def verify_(self) -> None:
        source, made = memref_type(self.offsets), memref_type(self.result)
        if source.element_type != i32 or len(source.get_shape()) != 1 or source.get_shape()[0] < 2:
            raise VerifyException(f"{self.name}: {source} does not say where products begin")
        rows, size = self.rows.value.data, self.tile
        if rows < 0 or size < 1:
            raise VerifyException(f"{self.name}: {rows} rows in tiles of {size}")
        shape = len(Visit), most_visits(source.get_shape()[0] - 1, rows, size)
        expected = MemRefType(i32, shape, memory_space=SpaceAttr(Space.SMEM))
        if made != expected:
            raise VerifyException(f"{self.name}: the result is {expected}, not {made}")
