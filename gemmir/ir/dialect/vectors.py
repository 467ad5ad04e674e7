"""Vectors in registers: taking them apart, conversions, products, and sums of lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import IntegerAttr, IntegerType, VectorType, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import NoMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.dialect.elements import SIGN_TAKEN, dot_depth, is_widening, summed_type


def _matrices(
    name: str, values: Sequence[SSAValue]
) -> tuple[list[VectorType[Attribute]], list[tuple[int, ...]]]:
    """The types and the shapes of vectors that are all matrices."""
    types = [cast("VectorType[Attribute]", value.type) for value in values]
    shapes = [t.get_shape() for t in types]
    if any(len(shape) != 2 for shape in shapes):
        raise VerifyException(f"{name}: shapes {shapes} are not all matrices")
    return types, shapes


@irdl_op_definition
class ExtendOp(IRDLOperation):
    """Integers in a wider type or as floats: i8 with its sign, ui8 without one.

    It is `arith.extsi`, `arith.extui`, `arith.sitofp` and `arith.uitofp` of MLIR, which xDSL has
    for scalars only. With an `exponent` e a float is the number times 2**e: a CPU makes that of 4
    bits that are the highest of a word, and need not be taken down.
    """

    name = "gemmir.extend"

    input = operand_def(base(VectorType))
    result = result_def(base(VectorType))
    exponent = opt_prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$input (`exponent` $exponent^)? attr-dict `:` type($input) `to` type($result)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, value: SSAValue, made: VectorType[Attribute], exponent: int = 0) -> None:
        super().__init__(
            operands=[value],
            result_types=[made],
            properties={"exponent": IntegerAttr(exponent, i64) if exponent else None},
        )

    def verify_(self) -> None:
        source, made = (
            cast("VectorType[Attribute]", value.type) for value in (self.input, self.result)
        )
        elements = source.element_type, made.element_type
        if source.get_shape() != made.get_shape():
            raise VerifyException(f"{self.name}: {source} and {made} have different shapes")
        if not isinstance(elements[0], IntegerType) or not is_widening(*elements):
            raise VerifyException(f"{self.name}: {elements[1]} does not hold every {elements[0]}")
        if self.exponent is not None and isinstance(elements[1], IntegerType):
            raise VerifyException(f"{self.name}: an exponent of {elements[1]}, which is no float")


@irdl_op_definition
class UnsignOp(IRDLOperation):
    """Numbers of i8 with 128 added, as ui8: the same bits but for the highest."""

    name = "gemmir.unsign"

    input = operand_def(base(VectorType))
    result = result_def(base(VectorType))

    assembly_format: ClassVar[str | None] = "$input attr-dict `:` type($input) `to` type($result)"
    traits = traits_def(NoMemoryEffect())

    def __init__(self, value: SSAValue) -> None:
        shape = cast("VectorType[Attribute]", value.type).get_shape()
        super().__init__(operands=[value], result_types=[VectorType(SIGN_TAKEN[1], shape)])

    def verify_(self) -> None:
        source, made = (
            cast("VectorType[Attribute]", value.type) for value in (self.input, self.result)
        )
        if (source.element_type, made.element_type) != SIGN_TAKEN:
            raise VerifyException(
                f"{self.name}: {source.element_type} to {made.element_type}, not i8 to ui8"
            )
        if source.get_shape() != made.get_shape():
            raise VerifyException(f"{self.name}: {source} and {made} have different shapes")


@irdl_op_definition
class ColumnOp(IRDLOperation):
    """The column `at` of block (r x w) below the column above (s x 1), as one of s + r elements.

    A block is read at once and taken apart in registers, where its elements would take a load each.
    """

    name = "gemmir.column"

    above = operand_def(base(VectorType))
    block = operand_def(base(VectorType))
    at = prop_def(IntegerAttr)
    result = result_def(base(VectorType))

    assembly_format: ClassVar[str | None] = (
        "$above `,` $block `[` $at `]` attr-dict "
        "`:` type($above) `,` type($block) `to` type($result)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, above: SSAValue, block: SSAValue, at: int) -> None:
        made = cast("VectorType[Attribute]", above.type)
        rows = cast("VectorType[Attribute]", block.type).get_shape()[0]
        super().__init__(
            operands=[above, block],
            result_types=[VectorType(made.element_type, (made.get_shape()[0] + rows, 1))],
            properties={"at": IntegerAttr(at, i64)},
        )

    def verify_(self) -> None:
        types, (above, block, made) = _matrices(self.name, (self.above, self.block, self.result))
        if above[1] != 1 or made != (above[0] + block[0], 1):
            raise VerifyException(
                f"{self.name}: a column of {block} below {above} is no {made}; "
                f"expected {(above[0] + block[0], 1)}"
            )
        if not 0 <= self.at.value.data < block[1]:
            raise VerifyException(f"{self.name}: {block} has no column {self.at.value.data}")
        if len({t.element_type for t in types}) > 1:
            raise VerifyException(f"{self.name}: element types differ")


@irdl_op_definition
class DealOp(IRDLOperation):
    """The lanes of some vectors, one after the other, dealt to the results in turn.

    Of n results number i has lanes i, n + i, 2 n + i and so on, in each row. A second deal, to as
    many as each of them has lanes, puts all lanes back.
    """

    name = "gemmir.deal"

    inputs = var_operand_def(base(VectorType))
    outputs = var_result_def(base(VectorType))

    assembly_format: ClassVar[str | None] = (
        "$inputs attr-dict `:` type($inputs) `to` type($outputs)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, values: Sequence[SSAValue], count: int) -> None:
        first = cast("VectorType[Attribute]", values[0].type)
        rows, lanes = first.get_shape()
        made = VectorType(first.element_type, (rows, len(values) * lanes // count))
        super().__init__(operands=[values], result_types=[[made] * count])

    def verify_(self) -> None:
        if not self.inputs or not self.outputs:
            raise VerifyException(f"{self.name}: nothing is dealt")
        types, shapes = _matrices(self.name, (*self.inputs, *self.outputs))
        given, count = len(self.inputs), len(self.outputs)
        if len(set(types[:given])) > 1 or len(set(types[given:])) > 1:
            raise VerifyException(f"{self.name}: vectors of different types")
        same = types[0].element_type == types[-1].element_type and shapes[0][0] == shapes[-1][0]
        if not same or given * shapes[0][1] != count * shapes[-1][1]:
            raise VerifyException(
                f"{self.name}: {given} times {types[0]} and {count} times {types[-1]}"
            )


def _require_summed(name: str, depth: int, types: Sequence[Attribute]) -> None:
    """Refuse a type of sums that `depth` products of both factors are not added to at once."""
    lhs, rhs, summed = types
    if depth == 1 and (lhs, rhs) != (summed, summed):
        raise VerifyException(f"{name}: element types differ")
    if depth > 1 and (depth != dot_depth(lhs, rhs) or summed != summed_type(lhs, rhs)):
        raise VerifyException(
            f"{name}: {depth} products of {lhs} and {rhs} are not added to {summed} at once"
        )


@irdl_op_definition
class OuterProductOp(IRDLOperation):
    """acc + lhs @ rhs for columns lhs (r x d), rows rhs (d x c) and a tile acc (r x c).

    For d = 1, a column and a row, each element is one fused multiply-add. Otherwise d products of
    narrower elements, as many as 32 bits hold, are added to each element of the sum: integers
    exactly, modulo 2**32; bf16 in any order, where each addition may be off by a unit in the last
    place of f32, and factors and sums below the least normal number may be taken as 0. The last
    dimension of the tile is the width of the vector unit.
    """

    name = "gemmir.outerproduct"

    T: ClassVar = VarConstraint("T", base(VectorType))

    lhs = operand_def(base(VectorType))
    rhs = operand_def(base(VectorType))
    acc = operand_def(T)
    result = result_def(T)

    assembly_format: ClassVar[str | None] = (
        "$lhs `,` $rhs `,` $acc attr-dict `:` type($lhs) `,` type($rhs) `,` type($acc)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, lhs: SSAValue, rhs: SSAValue, acc: SSAValue) -> None:
        super().__init__(operands=[lhs, rhs, acc], result_types=[acc.type])

    def verify_(self) -> None:
        types, (lhs, rhs, acc) = _matrices(self.name, (self.lhs, self.rhs, self.acc))
        depth = lhs[1]
        if lhs != (acc[0], depth) or rhs != (depth, acc[1]):
            raise VerifyException(
                f"{self.name}: {lhs} by {rhs} is not a rank-{depth} update of {acc}; "
                f"expected {(acc[0], depth)} by {(depth, acc[1])}"
            )
        _require_summed(self.name, depth, [t.element_type for t in types])

    @property
    def depth(self) -> int:
        """How many products are added to each element."""
        return cast("VectorType[Attribute]", self.lhs.type).get_shape()[1]


@irdl_op_definition
class PairProductOp(IRDLOperation):
    """acc + lhs * rhs for each pair of a row of lhs (r x wd) and one of rhs (c x wd), lane by lane.

    The row i * c + j of acc (r * c x w) is that of the pair i and j. For d = 1 each element is one
    fused multiply-add. Otherwise d products of neighbours are added to each lane: lane l has those
    of elements l * d to l * d + d - 1, of types and as exactly as `gemmir.outerproduct` adds them.
    """

    name = "gemmir.pairproduct"

    T: ClassVar = VarConstraint("T", base(VectorType))

    lhs = operand_def(base(VectorType))
    rhs = operand_def(base(VectorType))
    acc = operand_def(T)
    result = result_def(T)

    assembly_format: ClassVar[str | None] = (
        "$lhs `,` $rhs `,` $acc attr-dict `:` type($lhs) `,` type($rhs) `,` type($acc)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, lhs: SSAValue, rhs: SSAValue, acc: SSAValue) -> None:
        super().__init__(operands=[lhs, rhs, acc], result_types=[acc.type])

    def verify_(self) -> None:
        types, (lhs, rhs, acc) = _matrices(self.name, (self.lhs, self.rhs, self.acc))
        depth = max(lhs[1] // acc[1], 1)
        if acc[0] != lhs[0] * rhs[0] or lhs[1] != rhs[1] or lhs[1] != acc[1] * depth:
            raise VerifyException(
                f"{self.name}: {lhs} and {rhs} have {lhs[0] * rhs[0]} pairs of rows of {lhs[1]}, "
                f"and acc is {acc}"
            )
        _require_summed(self.name, depth, [t.element_type for t in types])

    @property
    def depth(self) -> int:
        """How many products are added to each lane."""
        lhs, acc = (cast("VectorType[Attribute]", v.type).get_shape() for v in (self.lhs, self.acc))
        return lhs[1] // acc[1]


@irdl_op_definition
class LaneSumOp(IRDLOperation):
    """The sum of the lanes of each row of source (r * c x w), as a matrix r x c.

    The upper half of the lanes is added to the lower one until one is left: w is a power of two.
    """

    name = "gemmir.lanesum"

    source = operand_def(base(VectorType))
    result = result_def(base(VectorType))

    assembly_format: ClassVar[str | None] = "$source attr-dict `:` type($source) `to` type($result)"
    traits = traits_def(NoMemoryEffect())

    def __init__(self, source: SSAValue, rows: int, columns: int) -> None:
        element = cast("VectorType[Attribute]", source.type).element_type
        super().__init__(operands=[source], result_types=[VectorType(element, (rows, columns))])

    def verify_(self) -> None:
        types = [cast("VectorType[Attribute]", v.type) for v in (self.source, self.result)]
        source, result = (t.get_shape() for t in types)
        if {len(source), len(result)} != {2} or source[0] != result[0] * result[1]:
            raise VerifyException(f"{self.name}: {source} has no row for each of {result}")
        if source[1] & (source[1] - 1):
            raise VerifyException(f"{self.name}: {source[1]} lanes cannot be added in halves")
        if types[0].element_type != types[1].element_type:
            raise VerifyException(f"{self.name}: element types differ")
