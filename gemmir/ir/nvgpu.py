"""The `nvgpu` dialect: the tensor cores and asynchronous copies of a GPU, named as in MLIR.

| op                                | level              | meaning                              |
|-----------------------------------|--------------------|--------------------------------------|
| `nvgpu.ldmatrix`                  | vectorized         | a tile of A or B from shared memory  |
| `nvgpu.mma.sync`                  | vectorized         | acc + lhs @ rhs, by a whole warp     |
| `nvgpu.device_async_copy`         | vectorized         | begin to copy a few bytes to shared  |
| `nvgpu.device_async_create_group` | promoted and below | name what was begun since the last   |
| `nvgpu.device_async_wait`         | promoted and below | wait until few groups are under way  |

MLIR gives every lane of a warp its part of a tile. Here a value belongs to the whole warp that a
loop over warps stands for, so that IR says which elements and not which lane: the emitter spreads
them by the layouts of fragments in PTX ISA 9.0, section "Matrix multiply-accumulate operation".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    UnitAttr,
    VectorType,
    i64,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
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
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.dtypes import Precision
from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.dialect import (
    Number,
    accumulator_type,
    is_shared,
    memref_type,
    require_product,
)
from gemmir.ir.tma import TMA_OPS, TensorMapType
from gemmir.ir.warpgroup import WARPGROUP_OPS

_MemRef = base(MemRefType)
_Vector = base(VectorType)


def matrix_shape(value: SSAValue) -> tuple[int, int]:
    """Rows and columns of a vector, which the verifiers guarantee to be a matrix."""
    shape = cast("VectorType[Attribute]", value.type).get_shape()
    return shape[0], shape[1]


def _require_matrices(name: str, *values: SSAValue) -> None:
    shapes = [cast("VectorType[Attribute]", v.type).get_shape() for v in values]
    if any(len(s) != 2 for s in shapes):
        raise VerifyException(f"{name}: shapes {shapes} are not all matrices")


@irdl_op_definition
class LdMatrixOp(IRDLOperation):
    """The tile at `indices` of `source`, in shared memory, as `fragment` a or b of a product."""

    name = "nvgpu.ldmatrix"

    source = operand_def(_MemRef)
    indices = var_operand_def(IndexType())
    result = result_def(_Vector)
    fragment = prop_def(StringAttr)

    assembly_format: ClassVar[str | None] = (
        "$fragment $source `[` $indices `]` attr-dict `:` type($source) `->` type($result)"
    )
    traits = traits_def(MemoryReadEffect())

    def __init__(
        self,
        fragment: str,
        source: SSAValue,
        indices: Sequence[SSAValue],
        result: VectorType[Number],
    ) -> None:
        super().__init__(
            operands=[source, indices],
            result_types=[result],
            properties={"fragment": StringAttr(fragment)},
        )

    def verify_(self) -> None:
        _require_matrices(self.name, self.result)
        made = self.result.type
        source = memref_type(self.source)
        if self.fragment.data not in ("a", "b"):
            raise VerifyException(f"{self.name}: fragment {self.fragment.data!r} is not a or b")
        if not is_shared(self.source):
            raise VerifyException(f"{self.name}: {source} is not in shared memory")
        if made.element_type != source.element_type:
            raise VerifyException(f"{self.name}: {made} of {source}")
        if len(self.indices) != len(source.get_shape()) or len(self.indices) != 2:
            raise VerifyException(f"{self.name}: {len(self.indices)} indices of {source}")


@irdl_op_definition
class MmaSyncOp(IRDLOperation):
    """acc + lhs @ rhs for m x k, k x n and m x n, made of instructions of `shape` (m, n, k).

    Products are exact and summed in the type of `acc`; in which order within one instruction, and
    with how many roundings, is not said. With `tf32Enabled` operands of f32 are rounded to tf32, to
    nearest, halves away from zero, before they are multiplied.
    """

    name = "nvgpu.mma.sync"

    T: ClassVar = VarConstraint("T", _Vector)

    lhs = operand_def(_Vector)
    rhs = operand_def(_Vector)
    acc = operand_def(T)
    result = result_def(T)
    shape = prop_def(ArrayAttr[IntegerAttr])
    tf32 = opt_prop_def(UnitAttr, prop_name="tf32Enabled")

    assembly_format: ClassVar[str | None] = (
        "$lhs `,` $rhs `,` $acc `shape` $shape (`tf32Enabled` $tf32Enabled^)? attr-dict"
        " `:` type($lhs) `,` type($rhs) `,` type($acc)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(
        self,
        lhs: SSAValue,
        rhs: SSAValue,
        acc: SSAValue,
        shape: Sequence[int],
        *,
        tf32: bool = False,
    ) -> None:
        super().__init__(
            operands=[lhs, rhs, acc],
            result_types=[acc.type],
            properties={
                "shape": ArrayAttr([IntegerAttr(n, i64) for n in shape]),
                "tf32Enabled": UnitAttr() if tf32 else None,
            },
        )

    @property
    def precision(self) -> PrecisionAttr | None:
        """How operands are rounded before they are multiplied, as `gemmir.gemm` says it."""
        return None if self.tf32 is None else PrecisionAttr(Precision.TF32)

    @property
    def instruction(self) -> tuple[int, int, int]:
        """m, n and k of one instruction."""
        m, n, k = (n.value.data for n in self.shape.data)
        return m, n, k

    def verify_(self) -> None:
        _require_matrices(self.name, self.lhs, self.rhs, self.acc)
        (m, k), (depth, n), acc = map(matrix_shape, (self.lhs, self.rhs, self.acc))
        if depth != k or acc != (m, n):
            raise VerifyException(f"{self.name}: {(m, k)} by {(depth, n)} is not {acc}")
        if len(self.shape.data) != 3:
            raise VerifyException(f"{self.name}: the shape is m, n, k")
        if any(whole % part for whole, part in zip((m, n, k), self.instruction, strict=True)):
            raise VerifyException(
                f"{self.name}: {(m, n, k)} is not made of instructions of {self.instruction}"
            )
        lhs, rhs, total = (
            cast("VectorType[Attribute]", v.type).element_type
            for v in (self.lhs, self.rhs, self.acc)
        )
        require_product(self.name, lhs, self.precision)
        if lhs != rhs or total != accumulator_type(lhs):
            raise VerifyException(f"{self.name}: {lhs} by {rhs} is not summed in {total}")


ASYNC_COPY_BYTES = (4, 8, 16)
"""What one asynchronous copy can move: PTX ISA 9.0, section "cp.async"."""


@irdl_op_definition
class AsyncCopyOp(IRDLOperation):
    """Begin to copy `elements` neighbours along dimension `along`; those past `valid` become zeros.

    Elements number `valid` and up are not read, and none where it is not positive. Until a wait
    nobody may touch the target.
    """

    name = "nvgpu.device_async_copy"

    source = operand_def(_MemRef)
    source_indices = var_operand_def(IndexType())
    target = operand_def(_MemRef)
    target_indices = var_operand_def(IndexType())
    valid = operand_def(IndexType())
    elements = prop_def(IntegerAttr)
    along = prop_def(IntegerAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format: ClassVar[str | None] = (
        "$source `[` $source_indices `]` `to` $target `[` $target_indices `]` `elements` $elements"
        " `along` $along `valid` $valid attr-dict `:` type($source) `to` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self,
        source: SSAValue,
        source_indices: Sequence[SSAValue],
        target: SSAValue,
        target_indices: Sequence[SSAValue],
        valid: SSAValue,
        *,
        elements: int,
        along: int,
    ) -> None:
        super().__init__(
            operands=[source, source_indices, target, target_indices, valid],
            properties={
                "elements": IntegerAttr(elements, i64),
                "along": IntegerAttr(along, i64),
            },
        )

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        ranks = [len(t.get_shape()) for t in (source, target)]
        if ranks != [2, 2] or ranks != [len(self.source_indices), len(self.target_indices)]:
            raise VerifyException(f"{self.name}: source and target must be matrices")
        if not is_shared(self.target):
            raise VerifyException(f"{self.name}: {target} is not in shared memory")
        element = source.element_type
        if element != target.element_type:
            raise VerifyException(f"{self.name}: {source} to {target}")
        moved = self.elements.value.data * element.size
        if moved not in ASYNC_COPY_BYTES:
            raise VerifyException(f"{self.name}: {moved} bytes are not one of {ASYNC_COPY_BYTES}")
        if self.along.value.data not in (0, 1):
            raise VerifyException(f"{self.name}: dimension {self.along.value.data} is not 0 or 1")


@irdl_op_definition
class AsyncCreateGroupOp(IRDLOperation):
    """All copies begun since the last group are one group, which may be empty."""

    name = "nvgpu.device_async_create_group"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())


@irdl_op_definition
class AsyncWaitOp(IRDLOperation):
    """Wait until at most the last `groups` groups are under way.

    What a thread has copied it then sees itself; others see it after the next barrier.
    """

    name = "nvgpu.device_async_wait"

    groups = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = "`groups` $groups attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, groups: int) -> None:
        super().__init__(properties={"groups": IntegerAttr(groups, i64)})

    def verify_(self) -> None:
        if self.groups.value.data < 0:
            raise VerifyException(f"{self.name}: groups {self.groups.value.data}")


NVGPU = Dialect(
    "nvgpu",
    [
        AsyncCopyOp,
        AsyncCreateGroupOp,
        AsyncWaitOp,
        LdMatrixOp,
        MmaSyncOp,
        *TMA_OPS,
        *WARPGROUP_OPS,
    ],
    [TensorMapType],
)
