"""The `gemmir` dialect: what a GEMM needs and upstream dialects, as xDSL has them, cannot say.

| op                    | level              | meaning                                         |
|-----------------------|--------------------|-------------------------------------------------|
| `gemmir.gemm`         | gemm to promoted   | C = alpha * A @ B + beta * C                    |
| `gemmir.epilogue`     | gemm to promoted   | an elementwise function of tiles                |
| `gemmir.forall`       | tiled and below    | a loop whose iterations run on other units      |
| `gemmir.barrier`      | promoted and below | all threads of a block have come this far       |
| `gemmir.pack`         | promoted           | copy into panels, zero-filled at the edge       |
| `gemmir.unpack`       | promoted           | copy a piece of C out of shared memory          |
| `gemmir.visits`       | tiled and below    | which tile of rows has rows of which product    |
| `gemmir.columnsum`    | promoted           | sums of the columns of panels                   |
| `gemmir.rowsum`       | promoted           | sums of rows                                    |
| `gemmir.unsigned`     | promoted           | a view of bytes with 128 added                  |
| `gemmir.prefetch`     | promoted and below | bring a tile near; no effect on values          |
| `gemmir.column`       | vectorized         | a column of what was read as a block            |
| `gemmir.extend`       | vectorized         | integers in a wider type, or as floats          |
| `gemmir.unsign`       | vectorized         | bytes with 128 added, as such without a sign    |
| `gemmir.outerproduct` | vectorized         | acc + lhs @ rhs of a few columns and rows       |
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar, TypeAlias, cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    AnyFloatConstr,
    BFloat16Type,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    NoneAttr,
    Signedness,
    StridedLayoutAttr,
    StringAttr,
    UnitAttr,
    VectorType,
    bf16,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    IsTerminator,
    MemoryReadEffect,
    MemoryWriteEffect,
    NoMemoryEffect,
    RecursiveMemoryEffect,
    SingleBlockImplicitTerminator,
    ensure_terminator,
)
from xdsl.utils.exceptions import VerifyException

from gemmir.dtypes import BY_MLIR
from gemmir.ir.attributes import PanelAttr, PrecisionAttr, Space, SpaceAttr, SwizzleAttr

CORES = "cores"
"""The mapping of `gemmir.forall` onto the cores of a CPU."""

CLUSTERS = "clusters"
BLOCKS = "blocks"
WARPGROUPS = "warpgroups"
WARPS = "warps"
THREADS = "threads"
"""The mappings of `gemmir.forall` onto a GPU: blocks of a grid, and what is inside a block.

Loops over blocks inside loops over clusters are over the blocks of one cluster.

Nested loops are numbered with the innermost fastest, so that 32 iterations of the loops over
threads inside the loops over warps are the lanes of one warp.
"""

BLOCKS_PER_SM = "gemmir.blocks_per_sm"
"""Attribute of a function: how many blocks one multiprocessor of a GPU shall hold at least."""

GRID = "grid"
"""The mapping of `gemmir.forall` onto the grid of a TPU kernel, whose steps a core walks in order.
"""

INSIDE_BLOCK = (WARPGROUPS, WARPS, THREADS)
MAPPINGS = (CORES, CLUSTERS, BLOCKS, *INSIDE_BLOCK, GRID)

_MemRef = base(MemRefType)


Number: TypeAlias = AnyFloat | IntegerType
"""The type of an element: i8 is signed, ui8 is not."""

FACTOR_BITS = (8, 16)
"""Bits of integers that are multiplied: their products have room in i32."""

UNSIGNED = (IntegerType(8, Signedness.UNSIGNED),)
"""Integers without a sign that elements can be."""

MOST_UNSIGNED = 255
"""The greatest number of ui8."""

SIGN_TAKEN = (i8, UNSIGNED[0])
"""Integers that have a sign, and what they are without one when 128 has been added."""

NARROW_FLOATS = (Float16Type, BFloat16Type, Float8E4M3FNType, Float8E5M2Type)
"""Types whose products are summed in f32."""


def memref_type(value: SSAValue) -> MemRefType[Number]:
    """The type of a memref of numbers; the verifiers guarantee that it is one."""
    found = cast("MemRefType[Number]", value.type)
    assert isinstance(found, MemRefType)
    return found


STAGED = (SpaceAttr(Space.SHARED), SpaceAttr(Space.VMEM))
"""Memories into which tiles are copied in any layout."""

CACHES = tuple(SpaceAttr(space) for space in (Space.L1, Space.L2, Space.L3))
"""Where buffers of panels are meant to stay; a window into one panel is strided."""


def is_shared(value: SSAValue) -> bool:
    """Whether a memref lies in the shared memory of a block."""
    return memref_type(value).memory_space == SpaceAttr(Space.SHARED)


def accumulator_type(element: Attribute) -> Number:
    """The type in which products of `element` are summed: f32 at least, i32 of integers."""
    if isinstance(element, IntegerType):
        return i32
    return f32 if isinstance(element, NARROW_FLOATS) else cast("AnyFloat", element)


def summed_types(summed: Number) -> tuple[Number, ...]:
    """The types that a sum of type `summed` may be rounded to, its own first."""
    return (summed, f16, bf16) if summed == f32 else (summed,)


def summed_type(a: Attribute, b: Attribute) -> Number:
    """The type in which products of an `a` and a `b` are summed: that of the float of two kinds."""
    summed = accumulator_type(a)
    return accumulator_type(b) if isinstance(summed, IntegerType) else summed


def product_name(element: Attribute, precision: PrecisionAttr | None = None) -> str:
    """What is multiplied, as `Gemm.dtype` says it; the spelling of a type that it has no name for.

    `precision` says how f32 is rounded first.
    """
    if precision is not None:
        return precision.data.value
    spelled = str(element)
    return BY_MLIR[spelled].name if spelled in BY_MLIR else spelled


def require_product(name: str, element: Attribute, precision: PrecisionAttr | None) -> None:
    """Raise `VerifyException` unless elements of this type can be multiplied."""
    if isinstance(element, IntegerType) and element.bitwidth != 8:
        raise VerifyException(f"{name}: no products of {element}; use i8 or ui8")
    if precision is not None and element != f32:
        raise VerifyException(f"{name}: precision {precision.data} is for f32, not for {element}")


def require_factors(name: str, a: Attribute, b: Attribute, precision: PrecisionAttr | None) -> None:
    """Raise `VerifyException` unless an `a` can be multiplied by a `b`.

    Of different types both are widened exactly to that of the sum, or as integers to any that
    holds their product: floats that are summed in one type, integers of 8 and 16 bits, or one of
    each. Integers of 4 bits are factors of floats.
    """
    for element in (a, b):
        is_weight = b == IntegerType(4) and not _is_integer(a)
        known = FACTOR_BITS if not is_weight else (4, *FACTOR_BITS)
        if isinstance(element, IntegerType) and element.bitwidth not in known:
            raise VerifyException(f"{name}: no products of {element}; use i8 or ui8")
        if precision is not None and element != f32:
            raise VerifyException(
                f"{name}: precision {precision.data} is for f32, not for {element}"
            )
    sums = {accumulator_type(element) for element in (a, b)}
    if len(sums - {i32}) > 1:
        raise VerifyException(f"{name}: element types {[str(a), str(b)]} differ")


def _is_integer(element: Attribute) -> bool:
    return isinstance(element, IntegerType)


def dot_depth(a: Attribute, b: Attribute) -> int | None:
    """How many products of an `a` and a `b` are added to a sum at once; None where there is one.

    32 bits hold so many of each: 4 of 8 bits, with and without a sign, and 2 of i16 or bf16.
    """
    if a == b and a in (bf16, i16):
        return 2
    are_bytes = all(isinstance(x, IntegerType) and x.bitwidth == 8 for x in (a, b))
    return 4 if are_bytes else None


def is_unsigned(element: Attribute) -> bool:
    """Whether a type is one of integers that have no sign, as ui8 is."""
    return element in UNSIGNED


def is_widening(source: Attribute, target: Attribute) -> bool:
    """Whether every number of the type `source` is one of the type `target`."""
    if source == target:
        return True
    if not isinstance(source, IntegerType):
        return (isinstance(source, Float16Type | BFloat16Type) and target in (f32, f64)) or (
            source == f32 and target == f64
        )
    if not isinstance(target, IntegerType):
        return target in (f32, f64) and source.bitwidth <= FACTOR_BITS[-1]
    return target not in UNSIGNED and target.bitwidth > source.bitwidth


def _require_same_elements(name: str, types: Sequence[MemRefType[Attribute]]) -> None:
    if len({t.element_type for t in types}) > 1:
        raise VerifyException(
            f"{name}: element types {[str(t.element_type) for t in types]} differ"
        )


def _require_extent(name: str, dimension: str, *extents: int) -> None:
    static = {e for e in extents if e != DYNAMIC_INDEX}
    if len(static) > 1:
        raise VerifyException(f"{name}: extents {sorted(static)} of {dimension} differ")


@irdl_op_definition
class GemmOp(IRDLOperation):
    """C = alpha * A @ B + beta * C on memrefs m x k, k x n, m x n, or on batches of them.

    C has the type in which products of A and B are summed or, where that is f32, a type of 16
    bits; the sum is made in the type of the accumulator and rounded once to that of C. A and B may
    have different types, as `require_factors` says: their elements are then widened exactly, and of
    i4 two are in a byte, the first one low. With a `precision` A and B are f32, and each element is
    rounded as that says before it is multiplied. Where `first` is given and false, beta is taken as
    1: the op then continues a sum that an earlier slice of k has begun. With beta = 0 the old C is
    not read.

    With `scales` k is cut into blocks of `depth`, and the products of each count for C[i, j] times
    the elements [block of k, j / columns, i, j mod columns] of all scales, which are of the type of
    the sum. Columns of one block have the same, the last stride is 0, or there is one block along n
    in which each column has its own.

    `alpha_value` and `beta_value`, of the type of the sum, are factors of alpha and of beta that
    are known at run time. Where beta turns out to be 0 the old C is not read either.
    """

    name = "gemmir.gemm"

    a = operand_def(_MemRef)
    b = operand_def(_MemRef)
    c = operand_def(_MemRef)
    first = opt_operand_def(i1)
    alpha_value = opt_operand_def(AnyFloatConstr)
    beta_value = opt_operand_def(AnyFloatConstr)
    scales = var_operand_def(_MemRef)
    alpha = prop_def(FloatAttr)
    beta = prop_def(FloatAttr)
    depth = opt_prop_def(IntegerAttr)
    precision = opt_prop_def(PrecisionAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format: ClassVar[str | None] = (
        "$a `,` $b `,` $c (`first` $first^)? `alpha` $alpha"
        " (`times` $alpha_value^ `:` type($alpha_value))? `beta` $beta"
        " (`times` $beta_value^ `:` type($beta_value))?"
        " (`precision` $precision^)? (`scales` `(` $scales^ `:` type($scales) `)`)?"
        " (`depth` $depth^)? attr-dict"
        " `:` type($a) `,` type($b) `,` type($c)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self,
        a: SSAValue,
        b: SSAValue,
        c: SSAValue,
        *,
        alpha: float = 1.0,
        beta: float = 0.0,
        first: SSAValue | None = None,
        precision: PrecisionAttr | None = None,
        scales: Sequence[SSAValue] = (),
        depth: IntegerAttr | None = None,
        alpha_value: SSAValue | None = None,
        beta_value: SSAValue | None = None,
    ) -> None:
        super().__init__(
            operands=[a, b, c, first, alpha_value, beta_value, scales],
            properties={
                "alpha": FloatAttr(alpha, f64),
                "beta": FloatAttr(beta, f64),
                "depth": depth,
                "precision": precision,
            },
        )

    @property
    def summed(self) -> Number:
        """The type of the accumulator."""
        return summed_type(memref_type(self.a).element_type, memref_type(self.b).element_type)

    def verify_(self) -> None:
        types = [memref_type(v) for v in (self.a, self.b, self.c)]
        a_element, b_element = types[0].element_type, types[1].element_type
        require_factors(self.name, a_element, b_element, self.precision)
        results = summed_types(self.summed)
        if types[2].element_type not in results:
            of = f"{a_element}" if a_element == b_element else f"{a_element} and {b_element}"
            raise VerifyException(
                f"{self.name}: C is {types[2].element_type}, and products of {of} are summed "
                f"in {results[0]}"
            )
        shapes = [t.get_shape() for t in types]
        if len({len(s) for s in shapes}) > 1 or len(shapes[0]) not in (2, 3):
            raise VerifyException(
                f"{self.name}: ranks {[len(s) for s in shapes]} must be all 2, or 3 with a batch"
            )
        a, b, c = shapes
        _require_extent(self.name, "m", a[-2], c[-2])
        _require_extent(self.name, "n", b[-1], c[-1])
        _require_extent(self.name, "k", a[-1], b[-2])
        if len(a) == 3:
            _require_extent(self.name, "batch", a[0], b[0], c[0])
        for attribute in (self.alpha, self.beta):
            if attribute.type != f64:
                raise VerifyException(f"{self.name}: alpha and beta are written as f64")
        for factor in (self.alpha_value, self.beta_value):
            if factor is not None and factor.type != results[0]:
                raise VerifyException(
                    f"{self.name}: a factor of {factor.type} of {results[0]} sums"
                )
        if bool(self.scales) != (self.depth is not None):
            raise VerifyException(f"{self.name}: scales and the depth of a block go together")
        if len({memref_type(scale).get_shape() for scale in self.scales}) > 1:
            raise VerifyException(f"{self.name}: scales of different shapes")
        for scale in self.scales:
            self._verify_scale(memref_type(scale), results[0], shapes)

    def _verify_scale(
        self, scale: MemRefType[Number], summed: Number, shapes: Sequence[Sequence[int]]
    ) -> None:
        assert self.depth is not None
        depth, shape = self.depth.value.data, scale.get_shape()
        if scale.element_type != summed or isinstance(summed, IntegerType):
            raise VerifyException(f"{self.name}: scales of {scale.element_type} of {summed} sums")
        if len(shape) != 4 or len(shapes[0]) != 2 or (static_strides(scale)[-1] and shape[1] != 1):
            raise VerifyException(
                f"{self.name}: {scale} is no scale for each block of k, of columns, and each row"
            )
        (m, k), (_, n) = shapes[:2]
        if depth < 1 or (shape[3] < 1 and shape[3] != DYNAMIC_INDEX):
            raise VerifyException(f"{self.name}: blocks of {depth} by {shape[3]}")
        _require_extent(self.name, "m", m, shape[2])
        for name, count, extent, size in (("k", shape[0], k, depth), ("n", shape[1], n, shape[3])):
            if DYNAMIC_INDEX not in (count, extent, size) and count * size < extent:
                raise VerifyException(
                    f"{self.name}: {count} blocks of {size} along {name} are less than {extent}"
                )


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends the region of `gemmir.epilogue`, with the element to store, or of `gemmir.forall`."""

    name = "gemmir.yield"

    value = opt_operand_def(AnyFloatConstr | base(IntegerType))

    assembly_format: ClassVar[str | None] = "($value^ `:` type($value))? attr-dict"
    traits = traits_def(IsTerminator())

    def __init__(self, value: SSAValue | None = None) -> None:
        super().__init__(operands=[value])


@irdl_op_definition
class EpilogueOp(IRDLOperation):
    """Apply an elementwise function to tiles of one shape and store into `output`.

    The region has one scalar argument for each input and a last one for the old element of
    `output`, which is read only if the argument is used, each of the type of its operand. A
    broadcast operand is a memref with a stride of 0.
    """

    name = "gemmir.epilogue"

    inputs = var_operand_def(_MemRef)
    output = operand_def(_MemRef)
    body = region_def("single_block")

    assembly_format: ClassVar[str | None] = (
        "(`ins` `(` $inputs^ `:` type($inputs) `)`)? `outs` `(` $output `:` type($output) `)`"
        " $body attr-dict"
    )
    traits = traits_def(RecursiveMemoryEffect(), MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, inputs: Sequence[SSAValue], output: SSAValue, body: Region) -> None:
        super().__init__(operands=[inputs, output], regions=[body])

    def verify_(self) -> None:
        types = [memref_type(v) for v in self.operands]
        shapes = [t.get_shape() for t in types]
        if len({len(s) for s in shapes}) > 1:
            raise VerifyException(f"{self.name}: ranks {[len(s) for s in shapes]} differ")
        for dim, extents in enumerate(zip(*shapes, strict=True)):
            _require_extent(self.name, f"dimension {dim}", *extents)
        block = self.body.block
        element = types[-1].element_type
        elements = [t.element_type for t in types]
        if list(block.arg_types) != elements:
            raise VerifyException(
                f"{self.name}: the region needs arguments of {[str(t) for t in elements]}, "
                f"one an operand, and has {[str(t) for t in block.arg_types]}"
            )
        if not isinstance(block.last_op, YieldOp):
            raise VerifyException(f"{self.name}: the region must end in gemmir.yield")
        for op in block.ops:
            if not isinstance(op, YieldOp) and op.name.split(".")[0] not in ("arith", "math"):
                raise VerifyException(f"{self.name}: {op.name} is not an elementwise op")
            if op.regions:
                raise VerifyException(f"{self.name}: {op.name} has a region")
        stored = block.last_op.value
        if stored is None or stored.type != element:
            raise VerifyException(f"{self.name}: the region must yield one {element}")


@irdl_op_definition
class ForallOp(IRDLOperation):
    """A loop whose iterations are independent and run on the units that `over` names.

    Cores are dealt contiguous iterations; a block, warp or thread of a GPU has exactly one. Which
    unit computes an element never changes its bits.
    """

    name = "gemmir.forall"

    lb = operand_def(IndexType())
    ub = operand_def(IndexType())
    step = operand_def(IndexType())
    over = prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(SingleBlockImplicitTerminator(YieldOp), RecursiveMemoryEffect())

    def __init__(self, lb: SSAValue, ub: SSAValue, step: SSAValue, over: str, body: Region) -> None:
        super().__init__(
            operands=[lb, ub, step], properties={"over": StringAttr(over)}, regions=[body]
        )

    def verify_(self) -> None:
        if tuple(self.body.block.arg_types) != (IndexType(),):
            raise VerifyException(f"{self.name}: the body takes one index")
        if self.over.data not in MAPPINGS:
            known = ", ".join(MAPPINGS)
            raise VerifyException(f"{self.name}: over {self.over.data!r} is not one of {known}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.body.block.args[0])
        for word, value in ((" = ", self.lb), (" to ", self.ub), (" step ", self.step)):
            printer.print_string(word)
            printer.print_ssa_value(value)
        printer.print_string(f" over {self.over.data} ")
        printer.print_region(
            self.body,
            print_entry_block_args=False,
            print_empty_block=False,
            print_block_terminators=False,
        )
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> ForallOp:
        argument = parser.parse_argument(expect_type=False)
        parser.parse_punctuation("=")
        lb = parser.parse_unresolved_operand()
        parser.parse_keyword("to")
        ub = parser.parse_unresolved_operand()
        parser.parse_keyword("step")
        step = parser.parse_unresolved_operand()
        parser.parse_keyword("over")
        over = parser.parse_identifier()
        index = IndexType()
        bounds = [parser.resolve_operand(v, index) for v in (lb, ub, step)]
        body = parser.parse_region((argument.resolve(index),))
        attributes = parser.parse_optional_attr_dict()
        op = cls(bounds[0], bounds[1], bounds[2], over, body)
        op.attributes |= attributes
        for trait in op.get_traits_of_type(SingleBlockImplicitTerminator):
            ensure_terminator(op, trait)
        return op


@irdl_op_definition
class PackOp(IRDLOperation):
    """Copy `source` into the leading corner of `target`.

    A wider type of the target holds the same numbers: elements are converted, into panels only. So
    are those of i8 into panels of ui8, where they are 128 more, and so is what is filled up.
    Of panels, the last one that is touched is filled up with zeros to its full width, and nothing
    beyond it is written; a window into one panel is filled up altogether. So is a buffer in shared
    memory, where the copy is made by all threads of the block together; where it is `asynchronous`
    it only begins here, and nobody may touch the buffer before a wait. A block in the vector memory
    of a TPU is not filled up: what is past the source stays as it was.

    With `scales` element [k, j] is multiplied by element [k / `depth`, 0, 0, j] of them, which are
    the scales of columns that a `gemmir.gemm` has, and of the type of the target.
    """

    name = "gemmir.pack"

    source = operand_def(_MemRef)
    target = operand_def(_MemRef)
    scales = opt_operand_def(_MemRef)
    asynchronous = opt_prop_def(UnitAttr)
    depth = opt_prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "(`asynchronous` $asynchronous^)? $source `into` $target"
        " (`scales` `(` $scales^ `:` type($scales) `)`)? (`depth` $depth^)? attr-dict"
        " `:` type($source) `into` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self,
        source: SSAValue,
        target: SSAValue,
        *,
        asynchronous: bool = False,
        scales: SSAValue | None = None,
        depth: IntegerAttr | None = None,
    ) -> None:
        super().__init__(
            operands=[source, target, scales],
            properties={"asynchronous": UnitAttr() if asynchronous else None, "depth": depth},
        )

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        if target.memory_space in STAGED:
            _require_same_elements(self.name, (source, target))
        elements = source.element_type, target.element_type
        if not is_widening(*elements) and elements != SIGN_TAKEN:
            raise VerifyException(f"{self.name}: {elements[1]} does not hold every {elements[0]}")
        if self.asynchronous is not None and not is_shared(self.target):
            raise VerifyException(f"{self.name}: only copies to shared memory are asynchronous")
        if not isinstance(target.layout, PanelAttr) and target.memory_space not in STAGED + CACHES:
            raise VerifyException(f"{self.name}: the target {target} has no panel layout")
        if len(source.get_shape()) != 2 or len(target.get_shape()) != 2:
            raise VerifyException(f"{self.name}: source and target must be matrices")
        for dim, (extent, room) in enumerate(
            zip(source.get_shape(), target.get_shape(), strict=True)
        ):
            if DYNAMIC_INDEX not in (extent, room) and extent > room:
                raise VerifyException(
                    f"{self.name}: extent {extent} of dimension {dim} does not fit into {room}"
                )
        if (self.scales is None) != (self.depth is None):
            raise VerifyException(f"{self.name}: scales and the depth of a block go together")
        if self.scales is not None:
            self._verify_scales(memref_type(self.scales), target, source.get_shape())

    def _verify_scales(
        self, scales: MemRefType[Number], target: MemRefType[Number], shape: Sequence[int]
    ) -> None:
        assert self.depth is not None
        depth, sizes = self.depth.value.data, scales.get_shape()
        if len(sizes) != 4 or sizes[1] != 1 or depth < 1:
            raise VerifyException(f"{self.name}: {scales} is no scale for each block and column")
        is_float = not isinstance(target.element_type, IntegerType)
        if scales.element_type != target.element_type or not is_float or is_shared(self.target):
            raise VerifyException(f"{self.name}: scales of {scales.element_type} into {target}")
        _require_extent(self.name, "n", sizes[3], shape[1])
        if DYNAMIC_INDEX not in (sizes[0], shape[0]) and sizes[0] * depth < shape[0]:
            raise VerifyException(
                f"{self.name}: {sizes[0]} blocks of {depth} along k are less than {shape[0]}"
            )


@irdl_op_definition
class UnpackOp(IRDLOperation):
    """Copy the leading corner of `source`, in shared memory, into all of `target`."""

    name = "gemmir.unpack"

    source = operand_def(_MemRef)
    target = operand_def(_MemRef)

    assembly_format: ClassVar[str | None] = (
        "$source `into` $target attr-dict `:` type($source) `into` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, source: SSAValue, target: SSAValue) -> None:
        super().__init__(operands=[source, target])

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        _require_same_elements(self.name, (source, target))
        if len(source.get_shape()) != 2 or len(target.get_shape()) != 2:
            raise VerifyException(f"{self.name}: source and target must be matrices")
        if not is_shared(self.source) or is_shared(self.target):
            raise VerifyException(f"{self.name}: {source} into {target}")
        for room, extent in zip(source.get_shape(), target.get_shape(), strict=True):
            if DYNAMIC_INDEX not in (extent, room) and extent > room:
                raise VerifyException(f"{self.name}: {target} is larger than {source}")


@irdl_op_definition
class BarrierOp(IRDLOperation):
    """No thread of a block goes on before all have come here; what they wrote is then seen by all.

    Every thread of the block must reach the same barrier.
    """

    name = "gemmir.barrier"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self) -> None:
        super().__init__()


@irdl_op_definition
class ColumnSumOp(IRDLOperation):
    """Store `factor` times the sum of each column of `source` (k x n) in `target` (1 x n).

    The source are bytes in panels of some depth. Sums are of type i32, modulo 2**32; with the last
    column the whole panel is summed, and the target has room for it.
    """

    name = "gemmir.columnsum"

    source = operand_def(_MemRef)
    target = operand_def(_MemRef)
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
        _require_extent(self.name, "n", shapes[0][1], shapes[1][1])
        _require_byte(self.name, self.factor.value.data)


@irdl_op_definition
class RowSumOp(IRDLOperation):
    """Store `factor` times the sum of each row of `source` (m x k) in `target` (m x 1).

    The source are bytes that have a sign, in rows of neighbours. Sums are of type i32, modulo
    2**32.
    """

    name = "gemmir.rowsum"

    source = operand_def(_MemRef)
    target = operand_def(_MemRef)
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
        _require_extent(self.name, "m", shapes[0][0], shapes[1][0])
        _require_byte(self.name, self.factor.value.data)


def in_rows(of: MemRefType[Number]) -> bool:
    """Whether neighbours in a row of a matrix are adjacent, maybe in panels of single rows."""
    layout = of.layout
    if isinstance(layout, PanelAttr):
        return (layout.dim.data, layout.width.data, layout.depth.data) == (0, 1, 1)
    return len(of.get_shape()) == 2 and strides_of(of)[1] == 1


def _require_byte(name: str, factor: int) -> None:
    if not 0 <= factor <= MOST_UNSIGNED:
        raise VerifyException(f"{name}: a factor of {factor}, which is no byte")


@irdl_op_definition
class PrefetchOp(IRDLOperation):
    """Ask for every row of a tile to be brought into the first cache level, to be written soon.

    With `into` it will be read, from that cache level.
    """

    name = "gemmir.prefetch"

    source = operand_def(_MemRef)
    level = opt_prop_def(SpaceAttr)

    assembly_format: ClassVar[str | None] = "$source (`into` $level^)? attr-dict `:` type($source)"
    traits = traits_def(MemoryReadEffect())

    def __init__(self, source: SSAValue, into: Space | None = None) -> None:
        level = None if into is None else SpaceAttr(into)
        super().__init__(operands=[source], properties={"level": level})

    def verify_(self) -> None:
        if self.level is not None and self.level.data not in (Space.L1, Space.L2):
            raise VerifyException(f"{self.name}: into {self.level.data}, which is not l1 or l2")


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

    Of n results number i has lanes i, n + i, 2 n + i and so on, in each row. Where there are as
    many vectors as each has lanes, a second deal puts all lanes back.
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
class UnsignedOp(IRDLOperation):
    """A view of i8 whose elements count 128 more, as ui8; it may only be read.

    Nothing moves: who reads a vector of it flips the highest bits.
    """

    name = "gemmir.unsigned"

    source = operand_def(_MemRef)
    result = result_def(_MemRef)

    assembly_format: ClassVar[str | None] = "$source attr-dict `:` type($source) `to` type($result)"
    traits = traits_def(NoMemoryEffect())

    def __init__(self, source: SSAValue) -> None:
        of = memref_type(source)
        made = MemRefType[Number](SIGN_TAKEN[1], of.get_shape(), of.layout, of.memory_space)
        super().__init__(operands=[source], result_types=[made])

    def verify_(self) -> None:
        source, made = memref_type(self.source), memref_type(self.result)
        if (source.element_type, made.element_type) != SIGN_TAKEN:
            raise VerifyException(
                f"{self.name}: {source.element_type} to {made.element_type}, not i8 to ui8"
            )
        lies = [(t.shape, t.layout, t.memory_space) for t in (source, made)]
        if lies[0] != lies[1]:
            raise VerifyException(f"{self.name}: {source} and {made} do not lie the same")


def _matrices(
    name: str, values: Sequence[SSAValue]
) -> tuple[list[VectorType[Attribute]], list[tuple[int, ...]]]:
    """The types and the shapes of vectors that are all matrices."""
    types = [cast("VectorType[Attribute]", value.type) for value in values]
    shapes = [t.get_shape() for t in types]
    if any(len(shape) != 2 for shape in shapes):
        raise VerifyException(f"{name}: shapes {shapes} are not all matrices")
    return types, shapes


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

    offsets = operand_def(_MemRef)
    rows = prop_def(IntegerAttr)
    size = prop_def(IntegerAttr)
    result = result_def(_MemRef)

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


GEMMIR = Dialect(
    "gemmir",
    [
        BarrierOp,
        ColumnOp,
        ColumnSumOp,
        DealOp,
        EpilogueOp,
        ExtendOp,
        ForallOp,
        GemmOp,
        LaneSumOp,
        OuterProductOp,
        PackOp,
        PairProductOp,
        PrefetchOp,
        RowSumOp,
        UnpackOp,
        UnsignOp,
        UnsignedOp,
        VisitsOp,
        YieldOp,
    ],
    [PanelAttr, PrecisionAttr, SpaceAttr, SwizzleAttr],
)


def strides_of(t: MemRefType[Attribute]) -> tuple[int | None, ...]:
    """Strides in elements of a memref whose layout is strided or absent; None where dynamic."""
    if isinstance(t.layout, NoneAttr):
        strides: list[int | None] = []
        size: int | None = 1
        for extent in reversed(t.get_shape()):
            strides.append(size)
            size = None if size is None or extent == DYNAMIC_INDEX else size * extent
        return tuple(reversed(strides))
    if not isinstance(t.layout, StridedLayoutAttr):
        raise VerifyException(f"{t} is not strided")
    return tuple(t.layout.get_strides())


def static_strides(t: MemRefType[Attribute]) -> tuple[int, ...]:
    """Strides in elements of a memref whose layout is strided or absent, where all are static."""
    found = strides_of(t)
    if any(s is None for s in found):
        raise VerifyException(f"{t} has a dynamic stride")
    return tuple(s for s in found if s is not None)


def enclosing_ops(op: Operation) -> list[Operation]:
    """The ops around `op`, innermost first."""
    found: list[Operation] = []
    parent = op.parent_op()
    while parent is not None:
        found.append(parent)
        parent = parent.parent_op()
    return found


__all__ = [
    "BLOCKS",
    "BLOCKS_PER_SM",
    "CLUSTERS",
    "CORES",
    "GEMMIR",
    "GRID",
    "INSIDE_BLOCK",
    "MAPPINGS",
    "SIGN_TAKEN",
    "THREADS",
    "WARPGROUPS",
    "WARPS",
    "BarrierOp",
    "ColumnOp",
    "ColumnSumOp",
    "DealOp",
    "EpilogueOp",
    "ExtendOp",
    "ForallOp",
    "GemmOp",
    "Number",
    "OuterProductOp",
    "PackOp",
    "PrefetchOp",
    "RowSumOp",
    "UnpackOp",
    "UnsignOp",
    "UnsignedOp",
    "Visit",
    "VisitsOp",
    "YieldOp",
    "accumulator_type",
    "dot_depth",
    "enclosing_ops",
    "in_rows",
    "is_shared",
    "is_unsigned",
    "is_widening",
    "memref_type",
    "most_visits",
    "product_name",
    "require_factors",
    "require_product",
    "static_strides",
    "strides_of",
    "summed_type",
    "summed_types",
]
