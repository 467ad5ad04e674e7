"""The product of matrices, and the elementwise function after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloatConstr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    MemRefType,
    f64,
    i1,
)
from xdsl.ir import Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, RecursiveMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.dialect.elements import Number, require_factors, summed_type, summed_types
from gemmir.ir.dialect.loops import YieldOp
from gemmir.ir.dialect.memrefs import MEMREF, memref_type, require_extent, static_strides


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

    a = operand_def(MEMREF)
    b = operand_def(MEMREF)
    c = operand_def(MEMREF)
    first = opt_operand_def(i1)
    alpha_value = opt_operand_def(AnyFloatConstr)
    beta_value = opt_operand_def(AnyFloatConstr)
    scales = var_operand_def(MEMREF)
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
        require_extent(self.name, "m", a[-2], c[-2])
        require_extent(self.name, "n", b[-1], c[-1])
        require_extent(self.name, "k", a[-1], b[-2])
        if len(a) == 3:
            require_extent(self.name, "batch", a[0], b[0], c[0])
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
        require_extent(self.name, "m", m, shape[2])
        for name, count, extent, size in (("k", shape[0], k, depth), ("n", shape[1], n, shape[3])):
            if DYNAMIC_INDEX not in (count, extent, size) and count * size < extent:
                raise VerifyException(
                    f"{self.name}: {count} blocks of {size} along {name} are less than {extent}"
                )


@irdl_op_definition
class EpilogueOp(IRDLOperation):
    """Apply an elementwise function to tiles of one shape and store into `output`.

    The region has one scalar argument for each input and a last one for the old element of
    `output`, which is read only if the argument is used, each of the type of its operand. A
    broadcast operand is a memref with a stride of 0.
    """

    name = "gemmir.epilogue"

    inputs = var_operand_def(MEMREF)
    output = operand_def(MEMREF)
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
            require_extent(self.name, f"dimension {dim}", *extents)
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
