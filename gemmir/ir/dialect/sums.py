"""Sums of the rows and columns of operands whose sign was taken, to be set off."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, i8, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, prop_def, traits_def
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PanelAttr
from gemmir.ir.dialect.elements import MOST_UNSIGNED, SIGN_TAKEN
from gemmir.ir.dialect.memrefs import MEMREF, in_rows, memref_type, require_extent


@irdl_op_definition
class ColumnSumOp(IRDLOperation):
    """Store `factor` times the sum of each column of `source` (k x n) in `target` (1 x n).

    The source are bytes in panels of some depth. Sums are of type i32, modulo 2**32; with the last
    column the whole panel is summed, and the target has room for it.
    """

    name = "gemmir.columnsum"

    source = operand_def(MEMREF)
    target = operand_def(MEMREF)
    factor = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$source `into` $target `times` $factor attr-dict `:` type($source) `into` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, source: SSAValue, target: SSAValue, factor: int) -> None:
        super().__init__(operands=[source, target], properties={"factor": IntegerAttr(factor, i64)})

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        layout = source.layout
        if not isinstance(layout, PanelAttr) or layout.dim.data != 1 or layout.depth.data != 4:
            raise VerifyException(f"{self.name}: {source} is not in panels of columns, 4 deep")
        if source.element_type not in SIGN_TAKEN or target.element_type != i32:
            raise VerifyException(
                f"{self.name}: sums of {source.element_type} as {target.element_type}"
            )
        shapes = source.get_shape(), target.get_shape()
        if len(shapes[1]) != 2 or shapes[1][0] != 1:
            raise VerifyException(f"{self.name}: {target} is not one row")
        require_extent(self.name, "n", shapes[0][1], shapes[1][1])
        _require_byte(self.name, self.factor.value.data)


@irdl_op_definition
class RowSumOp(IRDLOperation):
    """Store `factor` times the sum of each row of `source` (m x k) in `target` (m x 1).

    The source are bytes that have a sign, in rows of neighbours. Sums are of type i32, modulo
    2**32.
    """

    name = "gemmir.rowsum"

    source = operand_def(MEMREF)
    target = operand_def(MEMREF)
    factor = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$source `into` $target `times` $factor attr-dict `:` type($source) `into` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, source: SSAValue, target: SSAValue, factor: int) -> None:
        super().__init__(operands=[source, target], properties={"factor": IntegerAttr(factor, i64)})

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        if not in_rows(source):
            raise VerifyException(f"{self.name}: {source} does not lie in rows")
        if source.element_type != i8 or target.element_type != i32:
            raise VerifyException(
                f"{self.name}: sums of {source.element_type} as {target.element_type}"
            )
        shapes = source.get_shape(), target.get_shape()
        if len(shapes[1]) != 2 or shapes[1][1] != 1:
            raise VerifyException(f"{self.name}: {target} is not one column")
        require_extent(self.name, "m", shapes[0][0], shapes[1][0])
        _require_byte(self.name, self.factor.value.data)


def _require_byte(name: str, factor: int) -> None:
    if not 0 <= factor <= MOST_UNSIGNED:
        raise VerifyException(f"{name}: a factor of {factor}, which is no byte")
