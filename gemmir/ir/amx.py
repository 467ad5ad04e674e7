"""The `amx` dialect: the matrix tiles of Intel CPUs, named as in MLIR.

| op              | level      | meaning                                          |
|-----------------|------------|--------------------------------------------------|
| `amx.tile_zero` | vectorized | a tile of zeros                                  |
| `amx.tile_load` | vectorized | rows of memory as a tile                         |
| `amx.tile_mulf` | vectorized | acc + lhs @ rhs of bf16, summed in f32           |
| `amx.tile_muli` | vectorized | the same of bytes, summed in i32                 |
| `amx.tile_store`| vectorized | the rows of a tile to memory                     |

A tile has up to 16 rows of up to 64 bytes, in a register of its own, of which a core has 8. Whether
bytes have a sign is said by their type, and not by the op as in MLIR. Intel 64 and IA-32
Architectures Software Developer's Manual, volume 1, chapter "Programming with Intel AMX".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, cast

from xdsl.dialects.builtin import (
    FixedBitwidthType,
    IndexType,
    IntAttr,
    IntegerType,
    MemRefType,
    bf16,
    f32,
    i32,
)
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    base,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect import Number, dot_depth, memref_type, strides_of, summed_type

TILE_ROWS: Final = 16
"""Rows of a tile, and columns of a sum."""

ROW_BYTES: Final = 64
"""Bytes of a row."""

WORD_BYTES: Final = 4
"""Bytes of a row of A that one element of the sum takes at once: 2 of bf16, or 4 bytes."""

TILES: Final = 8
"""Registers for tiles of a core."""


@irdl_attr_definition
class TileType(ParametrizedAttribute, TypeAttribute):
    """`!amx.tile<16x32xbf16>`: rows, elements of a row, and their type."""

    name = "amx.tile"

    rows: IntAttr
    columns: IntAttr
    element_type: Attribute

    def __init__(self, rows: int, columns: int, element_type: Attribute) -> None:
        super().__init__(IntAttr(rows), IntAttr(columns), element_type)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and elements of each."""
        return self.rows.data, self.columns.data

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        assert isinstance(self.element_type, FixedBitwidthType)
        return self.columns.data * self.element_type.size

    def verify(self) -> None:
        if not isinstance(self.element_type, FixedBitwidthType):
            raise VerifyException(f"a tile of {self.element_type}")
        rows, width = self.rows.data, self.row_bytes
        if not (1 <= rows <= TILE_ROWS and 0 < width <= ROW_BYTES and width % WORD_BYTES == 0):
            raise VerifyException(
                f"a tile of {rows} rows of {width} bytes; it has up to {TILE_ROWS} rows of up to "
                f"{ROW_BYTES} bytes, in words of {WORD_BYTES}"
            )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            shape, element = parser.parse_ranked_shape()
        if len(shape) != 2:
            parser.raise_error("a tile has rows and columns")
        return [*map(IntAttr, shape), element]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.rows.data}x{self.columns.data}x")
            printer.print_attribute(self.element_type)


_MemRef = base(MemRefType)


def tile_type(value: SSAValue) -> TileType:
    """The type of a tile, which the verifiers guarantee."""
    return cast("TileType", value.type)


def step_of(a: Attribute, b: Attribute) -> int | None:
    """How much of k one product of tiles of an `a` and a `b` takes; None where there is none."""
    depth = dot_depth(a, b)
    is_known = depth is not None and (a == bf16 or depth == WORD_BYTES)
    return depth * TILE_ROWS if is_known and depth is not None else None


def group_of(source: SSAValue) -> int:
    """How many rows of a memref are one row of its tiles: the depth of panels of columns."""
    layout = memref_type(source).layout
    if not isinstance(layout, PanelAttr) or layout.dim.data == 0:
        return 1
    return layout.depth.data


def _require_rows(name: str, memory: SSAValue, rank: int, tile: TileType) -> None:
    """`VerifyException` unless rows of `tile` are adjacent in `memory`."""
    of, (_, columns) = memref_type(memory), tile.shape
    if of.element_type != tile.element_type:
        raise VerifyException(f"{name}: {tile} of {of}")
    if len(of.get_shape()) != 2 or rank != 2:
        raise VerifyException(f"{name}: {rank} indices of {of}, which is no matrix")
    layout = of.layout
    if not isinstance(layout, PanelAttr):
        if strides_of(of)[1] != 1:
            raise VerifyException(f"{name}: rows of {of} are not adjacent")
        return
    width, depth = layout.width.data, layout.depth.data
    fits = columns <= width * depth if layout.dim.data == 1 else depth % columns == 0
    if not fits or layout.pitch != layout.width:
        raise VerifyException(f"{name}: rows of {tile} are not adjacent in {of}")


@irdl_op_definition
class TileZeroOp(IRDLOperation):
    """A tile of zeros."""

    name = "amx.tile_zero"

    result = result_def(TileType)

    assembly_format: ClassVar[str | None] = "attr-dict `:` type($result)"
    traits = traits_def(NoMemoryEffect())

    def __init__(self, made: TileType) -> None:
        super().__init__(result_types=[made])


@irdl_op_definition
class TileLoadOp(IRDLOperation):
    """The tile of `source` that begins at `indices`; all of it must be there.

    Of panels of some depth along n, as B lies in them, a row of the tile has so many neighbours
    along k of each column, one column after another, as the right-hand side of a product has them.
    """

    name = "amx.tile_load"

    source = operand_def(_MemRef)
    indices = var_operand_def(IndexType())
    result = result_def(TileType)

    assembly_format: ClassVar[str | None] = (
        "$source `[` $indices `]` attr-dict `:` type($source) `into` type($result)"
    )
    traits = traits_def(MemoryReadEffect())

    def __init__(self, source: SSAValue, indices: Sequence[SSAValue], made: TileType) -> None:
        super().__init__(operands=[source, indices], result_types=[made])

    def verify_(self) -> None:
        _require_rows(self.name, self.source, len(self.indices), tile_type(self.result))


@irdl_op_definition
class TileStoreOp(IRDLOperation):
    """Store the rows of `tile` where `indices` of `target` are; there must be room for all."""

    name = "amx.tile_store"

    target = operand_def(_MemRef)
    indices = var_operand_def(IndexType())
    tile = operand_def(TileType)

    assembly_format: ClassVar[str | None] = (
        "$target `[` $indices `]` `,` $tile attr-dict `:` type($target) `,` type($tile)"
    )
    traits = traits_def(MemoryWriteEffect())

    def __init__(self, target: SSAValue, indices: Sequence[SSAValue], tile: SSAValue) -> None:
        super().__init__(operands=[target, indices, tile])

    def verify_(self) -> None:
        _require_rows(self.name, self.target, len(self.indices), tile_type(self.tile))
        if isinstance(memref_type(self.target).layout, PanelAttr):
            raise VerifyException(f"{self.name}: {memref_type(self.target)} has panels")


class TileProductOp(IRDLOperation):
    """What products of tiles share: m x k by k x n, where rows of rhs are words of k."""

    T: ClassVar = VarConstraint("T", base(TileType))

    lhs = operand_def(TileType)
    rhs = operand_def(TileType)
    acc = operand_def(T)
    result = result_def(T)

    assembly_format: ClassVar[str | None] = (
        "$lhs `,` $rhs `,` $acc attr-dict `:` type($lhs) `,` type($rhs) `,` type($acc)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, lhs: SSAValue, rhs: SSAValue, acc: SSAValue) -> None:
        super().__init__(operands=[lhs, rhs, acc], result_types=[acc.type])

    @property
    def depth(self) -> int:
        """How many elements a word has."""
        tile = tile_type(self.lhs)
        return WORD_BYTES * tile.columns.data // tile.row_bytes

    def verify_(self) -> None:
        lhs, rhs, acc = (tile_type(v) for v in (self.lhs, self.rhs, self.acc))
        factors = lhs.element_type, rhs.element_type
        if step_of(*factors) is None or summed_type(*factors) != self._summed():
            raise VerifyException(f"{self.name}: no products of {factors[0]} and {factors[1]}")
        if acc.element_type != self._summed():
            raise VerifyException(f"{self.name}: sums are {self._summed()}, and not {acc}")
        (m, k), (words, n), depth = lhs.shape, rhs.shape, self.depth
        if k != words * depth or acc.shape != (m, n // depth) or n % depth:
            raise VerifyException(f"{self.name}: {lhs} by {rhs} is not {acc}")

    def _summed(self) -> Number:
        return f32 if self.name == TileMulFOp.name else i32


@irdl_op_definition
class TileMulFOp(TileProductOp):
    """acc + lhs @ rhs of bf16: sums of the even and of the odd products along k begin at 0, are
    added to each other and then to acc, each rounded to f32. Factors and sums below the least
    normal number count as 0.
    """

    name = "amx.tile_mulf"


@irdl_op_definition
class TileMulIOp(TileProductOp):
    """acc + lhs @ rhs of bytes with or without a sign, in i32, modulo 2**32."""

    name = "amx.tile_muli"


def product_of(lhs: SSAValue, rhs: SSAValue, acc: SSAValue) -> TileMulFOp | TileMulIOp:
    """acc + lhs @ rhs."""
    is_integer = isinstance(tile_type(acc).element_type, IntegerType)
    return (TileMulIOp if is_integer else TileMulFOp)(lhs, rhs, acc)


AMX = Dialect(
    "amx",
    [TileLoadOp, TileMulFOp, TileMulIOp, TileStoreOp, TileZeroOp],
    [TileType],
)
