"""The `pallas` dialect: what a Pallas kernel for a TPU is made of.

| op            | level       | meaning                                                           |
|---------------|-------------|-------------------------------------------------------------------|
| `pallas.dot`  | vectorized  | lhs @ rhs of whole blocks, by the matrix unit                     |
| `pallas.call` | vectorized  | a grid of steps on blocks in VMEM, copied while others are used   |

The grid of a call is walked in order, the last dimension fastest. Before a step every block that
the step before did not use is copied in; a block of an output is copied back when the next step
uses another one, and after the last step. So a block that does not change is copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    AffineMapAttr,
    ArrayAttr,
    IndexType,
    IntAttr,
    IntegerAttr,
    MemRefType,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
    VectorType,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Dialect, ParametrizedAttribute, Region, SSAValue
from xdsl.ir.affine import AffineMap
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    base,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import (
    MemoryReadEffect,
    MemoryWriteEffect,
    NoMemoryEffect,
    RecursiveMemoryEffect,
    SingleBlockImplicitTerminator,
)
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PrecisionAttr, Space, SpaceAttr
from gemmir.ir.dialect import (
    Number,
    YieldOp,
    accumulator_type,
    memref_type,
    require_product,
    static_strides,
)

_MemRef = base(MemRefType)
_Vector = base(VectorType)

PARALLEL = "parallel"
ARBITRARY = "arbitrary"
SEMANTICS = (PARALLEL, ARBITRARY)
"""What the steps along a dimension of a grid may do: run anywhere, or one after the other."""

BUFFERS = (1, 2)
"""How many copies of a block there may be: with two, the next one is copied meanwhile."""


def in_vmem(value: SSAValue) -> bool:
    """Whether a memref lies in the vector memory of a TPU."""
    return memref_type(value).memory_space == SpaceAttr(Space.VMEM)


def block_type(source: MemRefType[Number], shape: tuple[int, int]) -> MemRefType[Number]:
    """The buffer in VMEM for a block of the matrix `source`, dense and in the order of its strides.

    A stride of 0 stays: the buffer then has the elements of one row or column.
    """
    down, across = static_strides(source)
    rows, columns = shape
    strides = (columns, 1) if down == 0 or down >= across > 0 else (1, rows)
    dense = tuple(own if old else 0 for own, old in zip(strides, (down, across), strict=True))
    layout = NoneAttr() if dense == (columns, 1) else StridedLayoutAttr(dense, 0)
    return MemRefType(source.element_type, shape, layout, SpaceAttr(Space.VMEM))


def is_block(value: SSAValue) -> bool:
    """Whether `value` is the block of an array in a step of a call."""
    call = value.owner.parent_op() if isinstance(value.owner, Block) else None
    return isinstance(call, CallOp) and value in call.references


@irdl_attr_definition
class BlockAttr(ParametrizedAttribute):
    """`#pallas.block<[8, 128], affine_map<(d0, d1) -> (d0, d1)>, 2>`: how an array is cut.

    The map takes the indices of a step to the number of the block along each dimension of the
    array. The last number is how many buffers the block has.
    """

    name = "pallas.block"

    shape: ArrayAttr[IntAttr]
    map: AffineMapAttr
    buffers: IntAttr

    def __init__(self, shape: Sequence[int], map: AffineMap, buffers: int = 2) -> None:
        super().__init__(ArrayAttr(map_int(shape)), AffineMapAttr(map), IntAttr(buffers))

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape of a block."""
        return tuple(extent.data for extent in self.shape)

    def verify(self) -> None:
        if any(extent < 1 for extent in self.extents):
            raise VerifyException(f"a block of {list(self.extents)} has no elements")
        if len(self.map.data.results) != len(self.extents):
            raise VerifyException(f"the map {self.map.data} does not number {self.extents}")
        if self.buffers.data not in BUFFERS:
            raise VerifyException(f"{self.buffers.data} buffers of a block are not 1 or 2")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            shape = parser.parse_comma_separated_list(
                AttrParser.Delimiter.SQUARE, parser.parse_integer
            )
            parser.parse_punctuation(",")
            found = parser.parse_attribute()
            parser.parse_punctuation(",")
            buffers = parser.parse_integer()
        return [ArrayAttr(map_int(shape)), found, IntAttr(buffers)]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{list(self.extents)}, ")
            printer.print_attribute(self.map)
            printer.print_string(f", {self.buffers.data}")


def map_int(numbers: Sequence[int]) -> list[IntAttr]:
    """Whole numbers as attributes."""
    return [IntAttr(number) for number in numbers]


@irdl_op_definition
class DotOp(IRDLOperation):
    """lhs @ rhs for m x k and k x n, summed in the type of the accumulator.

    In which order, and with how many roundings, is not said. With a `precision` factors of f32 are
    rounded as that says before they are multiplied.
    """

    name = "pallas.dot"

    lhs = operand_def(_Vector)
    rhs = operand_def(_Vector)
    result = result_def(_Vector)
    precision = opt_prop_def(PrecisionAttr)

    assembly_format: ClassVar[str | None] = (
        "$lhs `,` $rhs (`precision` $precision^)? attr-dict"
        " `:` type($lhs) `,` type($rhs) `->` type($result)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(
        self, lhs: SSAValue, rhs: SSAValue, *, precision: PrecisionAttr | None = None
    ) -> None:
        left, right = (cast("VectorType[Number]", v.type) for v in (lhs, rhs))
        shape = left.get_shape()[0], right.get_shape()[1]
        result = VectorType(accumulator_type(left.element_type), shape)
        super().__init__(
            operands=[lhs, rhs], result_types=[result], properties={"precision": precision}
        )

    def verify_(self) -> None:
        values = (self.lhs, self.rhs, self.result)
        types = [cast("VectorType[Number]", v.type) for v in values]
        shapes = [t.get_shape() for t in types]
        if any(len(s) != 2 for s in shapes):
            raise VerifyException(f"{self.name}: shapes {shapes} are not all matrices")
        left, right, result = shapes
        if left[1] != right[0] or result != (left[0], right[1]):
            raise VerifyException(f"{self.name}: {left} by {right} is not {result}")
        element = types[0].element_type
        require_product(self.name, element, self.precision)
        if types[1].element_type != element or types[2].element_type != accumulator_type(element):
            raise VerifyException(
                f"{self.name}: products of {element} and {types[1].element_type} in "
                f"{types[2].element_type}"
            )


@irdl_op_definition
class CallOp(IRDLOperation):
    """Run the body for every step of `grid`, on blocks of the arrays in VMEM.

    The body takes the indices of the step, a block for each input and output, and scratch buffers,
    which keep what one step leaves in them for the next. A block has the shape that `blocks` says,
    without leading dimensions of 1 that its type does not have. What of it is past the edge of its
    array is undefined, and is not copied back. An array that is both an input and an output is
    changed in place: a block of it that no step uses stays as it is.

    What is `prefetched`, rows of i32 in SMEM, is there before the first step. Row r has in the
    column that is the index of the step `along` a dimension of the grid what symbol r of the map of
    a block stands for; the body may read it too.
    """

    name = "pallas.call"

    prefetched = opt_operand_def(_MemRef)
    inputs = var_operand_def(_MemRef)
    outputs = var_operand_def(_MemRef)
    grid = prop_def(ArrayAttr[IntegerAttr])
    semantics = prop_def(ArrayAttr[StringAttr])
    along = opt_prop_def(IntegerAttr)
    blocks = prop_def(ArrayAttr[BlockAttr])
    body = region_def("single_block")

    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(
        SingleBlockImplicitTerminator(YieldOp),
        RecursiveMemoryEffect(),
        MemoryReadEffect(),
        MemoryWriteEffect(),
    )
    assembly_format: ClassVar[str | None] = (
        "`grid` $grid `semantics` $semantics"
        " (`prefetched` `(` $prefetched^ `:` type($prefetched) `)` `along` $along)?"
        " (`ins` `(` $inputs^ `:` type($inputs) `)`)?"
        " `outs` `(` $outputs `:` type($outputs) `)` `blocks` $blocks $body attr-dict"
    )

    def __init__(
        self,
        inputs: Sequence[SSAValue],
        outputs: Sequence[SSAValue],
        *,
        grid: Sequence[int],
        semantics: Sequence[str],
        blocks: Sequence[BlockAttr],
        body: Region,
        prefetched: SSAValue | None = None,
        along: int | None = None,
    ) -> None:
        super().__init__(
            operands=[prefetched, inputs, outputs],
            properties={
                "along": None if along is None else IntegerAttr(along, i64),
                "grid": ArrayAttr([IntegerAttr(extent, i64) for extent in grid]),
                "semantics": ArrayAttr(map(StringAttr, semantics)),
                "blocks": ArrayAttr(blocks),
            },
            regions=[body],
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """The steps along each dimension of the grid."""
        return tuple(extent.value.data for extent in self.grid)

    @property
    def indices(self) -> Sequence[SSAValue]:
        """The indices of a step, as the body has them."""
        return self.body.block.args[: len(self.extents)]

    @property
    def references(self) -> Sequence[SSAValue]:
        """The blocks of inputs and outputs, as the body has them."""
        return self.body.block.args[len(self.extents) : len(self.extents) + len(self.blocks)]

    @property
    def scratch(self) -> Sequence[SSAValue]:
        """The buffers that live through all steps, as the body has them."""
        return self.body.block.args[len(self.extents) + len(self.blocks) :]

    def verify_(self) -> None:
        arrays = (*self.inputs, *self.outputs)
        if len(arrays) != len(self.blocks) or not self.outputs:
            raise VerifyException(f"{self.name}: {len(self.blocks)} blocks of {len(arrays)} arrays")
        words = [word.data for word in self.semantics]
        if len(words) != len(self.extents) or set(words) - set(SEMANTICS):
            raise VerifyException(f"{self.name}: semantics {words} of a grid {self.extents}")
        if any(type(v.type) is not IndexType for v in self.indices):
            raise VerifyException(f"{self.name}: the body begins with {len(self.extents)} indices")
        if len(self.references) != len(arrays):
            raise VerifyException(f"{self.name}: the body takes one block an array")
        symbols = self._verify_prefetched()
        for array, block, reference in zip(arrays, self.blocks, self.references, strict=True):
            if block.map.data.num_symbols > symbols:
                raise VerifyException(f"{self.name}: {block} needs more than {symbols} rows")
            self._verify_block(array, block, reference)
        for buffer in self.scratch:
            _require_vmem(self.name, buffer)

    def _verify_prefetched(self) -> int:
        """Check what is prefetched; returns how many rows it has."""
        if self.prefetched is None or self.along is None:
            if self.prefetched is not None or self.along is not None:
                raise VerifyException(f"{self.name}: numbers are prefetched along a dimension")
            return 0
        found, along = memref_type(self.prefetched), self.along.value.data
        shape = found.get_shape()
        is_scalar = found.memory_space == SpaceAttr(Space.SMEM) and found.element_type == i32
        if not is_scalar or len(shape) != 2:
            raise VerifyException(f"{self.name}: {found} is not rows of i32 in SMEM")
        if not 0 <= along < len(self.extents) or shape[1] != self.extents[along]:
            raise VerifyException(
                f"{self.name}: {found} has no column for each step along dimension {along}"
            )
        return shape[0]

    def _verify_block(self, array: SSAValue, block: BlockAttr, reference: SSAValue) -> None:
        _require_vmem(self.name, reference)
        whole, cut = memref_type(array), memref_type(reference)
        extents, shape = block.extents, cut.get_shape()
        dropped = len(extents) - len(shape)
        if len(extents) != len(whole.get_shape()) or block.map.data.num_dims != len(self.extents):
            raise VerifyException(f"{self.name}: {block} does not cut {whole}")
        if dropped < 0 or extents[dropped:] != shape or set(extents[:dropped]) - {1}:
            raise VerifyException(f"{self.name}: a block of {list(extents)} is not {cut}")
        if whole.element_type != cut.element_type:
            raise VerifyException(f"{self.name}: {cut} of {whole}")


def _require_vmem(name: str, value: SSAValue) -> None:
    found: Attribute = value.type
    if not MemRefType.constr().verifies(found) or not in_vmem(value):
        raise VerifyException(f"{name}: {found} is not a buffer in VMEM")


PALLAS = Dialect("pallas", [CallOp, DotOp], [BlockAttr])
