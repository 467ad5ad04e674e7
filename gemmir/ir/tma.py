"""The part of the `nvgpu` dialect that Hopper brought for copies: mbarriers and the TMA.

| op                                | meaning                                                      |
|-----------------------------------|--------------------------------------------------------------|
| `nvgpu.mbarrier.create`           | barriers in shared memory, one for each stage                |
| `nvgpu.mbarrier.arrive`           | every warp that runs it has come this far                    |
| `nvgpu.mbarrier.arrive.expect_tx` | one thread has, and so many bytes are still to land          |
| `nvgpu.mbarrier.wait`             | go on when the phase of this parity is over                  |
| `nvgpu.tma.create.descriptor`     | a matrix in global memory, and the box of it that is copied  |
| `nvgpu.tma.async.load`            | begin to copy a box into shared memory, of several blocks    |
| `nvgpu.tma.async.store`           | begin to copy a box out of shared memory                     |
| `nvgpu.tma.store_wait`            | until few stores still read shared memory                    |
| `nvgpu.fence.proxy`               | what threads stored, the TMA and the tensor cores will see   |

The names are those of MLIR where it has the op. A barrier is awaited by the parity of its phase,
which begins at 0: a wait for parity p goes on when a phase of that parity has ended and the next
one has not, so that before any phase has ended a wait for parity 1 does not block. PTX ISA 9.0,
sections "mbarrier" and "cp.async.bulk.tensor".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import IndexType, IntegerAttr, MemRefType, NoneAttr, i32, i64
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    base,
    eq,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import Space, SpaceAttr, SwizzleAttr
from gemmir.ir.dialect import Number, is_shared, memref_type, static_strides

MOST_BOX = 256
"""Elements along each dimension of a box: CUDA driver API, cuTensorMapEncodeTiled."""

MOST_CLUSTER = 8
"""Blocks of a cluster that every GPU of the kind takes: CUDA C++ Programming Guide."""

_MemRef = base(MemRefType)


def number_of(attribute: IntegerAttr) -> int:
    """The value of a property."""
    return attribute.value.data


@irdl_attr_definition
class TensorMapType(ParametrizedAttribute, TypeAttribute):
    """`!nvgpu.tensormap<BOX>`: how boxes of a matrix are copied; BOX is one in shared memory."""

    name = "nvgpu.tensormap"

    box: MemRefType[Attribute]


def box_of(descriptor: SSAValue) -> MemRefType[Number]:
    """The type of one box that `descriptor` copies, which the verifiers guarantee."""
    assert isinstance(descriptor.type, TensorMapType)
    return cast("MemRefType[Number]", descriptor.type.box)


@irdl_op_definition
class CreateDescriptorOp(IRDLOperation):
    """What the TMA must know of `tensor`, in global memory, to copy boxes of it.

    A box is a matrix of the last two dimensions, in their order, in one panel: along that in which
    the tensor is adjacent it has at most as many bytes as its swizzle, or as 16 bytes times 256
    without one.
    """

    name = "nvgpu.tma.create.descriptor"

    tensor = operand_def(_MemRef)
    result = result_def(TensorMapType)

    assembly_format: ClassVar[str | None] = "$tensor attr-dict `:` type($tensor) `->` type($result)"

    def __init__(self, tensor: SSAValue, box: MemRefType[Number]) -> None:
        super().__init__(operands=[tensor], result_types=[TensorMapType(box)])

    @property
    def fast(self) -> int:
        """Which of the last two dimensions of the tensor is adjacent in memory."""
        strides = static_strides(memref_type(self.tensor))
        return 0 if strides[-2] == 1 and strides[-1] != 1 else 1

    def verify_(self) -> None:
        tensor, box = memref_type(self.tensor), box_of(self.result)
        strides, shape = static_strides(tensor), box.get_shape()
        if len(tensor.get_shape()) not in (2, 3) or len(shape) != 2:
            raise VerifyException(f"{self.name}: boxes {box} of {tensor} are not matrices")
        if tensor.element_type != box.element_type or is_shared(self.tensor):
            raise VerifyException(f"{self.name}: boxes {box} of {tensor}")
        if box.memory_space != SpaceAttr(Space.SHARED):
            raise VerifyException(f"{self.name}: {box} is not in shared memory")
        if strides[-2 + self.fast] != 1:
            raise VerifyException(f"{self.name}: no dimension of {tensor} is adjacent")
        if any(not 1 <= extent <= MOST_BOX for extent in shape):
            raise VerifyException(f"{self.name}: extents {shape} are not 1 to {MOST_BOX}")
        if isinstance(box.layout, SwizzleAttr):
            if box.layout.dim.data != self.fast or shape[self.fast] > box.layout.width.data:
                raise VerifyException(f"{self.name}: {box} is not one panel along {self.fast}")
        elif not isinstance(box.layout, NoneAttr) or self.fast != 1:
            raise VerifyException(f"{self.name}: {box} is neither swizzled nor dense")


def _require_box(op: IRDLOperation, descriptor: SSAValue, shared: SSAValue, rank: int) -> None:
    box, found = box_of(descriptor), memref_type(shared)
    if found.get_shape() != box.get_shape() or found.element_type != box.element_type:
        raise VerifyException(f"{op.name}: {found} is no box of {box}")
    if not is_shared(shared):
        raise VerifyException(f"{op.name}: {found} is not in shared memory")
    if isinstance(box.layout, SwizzleAttr):
        layout = found.layout
        if not isinstance(layout, SwizzleAttr) or (layout.dim, layout.width, layout.chunk) != (
            box.layout.dim,
            box.layout.width,
            box.layout.chunk,
        ):
            raise VerifyException(f"{op.name}: {found} is swizzled otherwise than {box}")
    owner = descriptor.owner
    if isinstance(owner, CreateDescriptorOp) and rank != len(memref_type(owner.tensor).get_shape()):
        raise VerifyException(f"{op.name}: {rank} indices of {memref_type(owner.tensor)}")


def _require_barriers(op: IRDLOperation, barriers: SSAValue) -> None:
    found = memref_type(barriers)
    if found.element_type != i64 or len(found.get_shape()) != 1 or not is_shared(barriers):
        raise VerifyException(f"{op.name}: {found} are no barriers in shared memory")


@irdl_op_definition
class TmaLoadOp(IRDLOperation):
    """Begin to copy the box at `indices` to `target`; outside the tensor there are zeros.

    Run by one thread. Where it lands, its bytes count for barrier `stage` of `barriers`; until then
    nobody may touch the target. With `multicast`, bit b of it set, it lands in the block b of the
    cluster at the same place as here, and counts for the barrier there.
    """

    name = "nvgpu.tma.async.load"

    descriptor = operand_def(TensorMapType)
    indices = var_operand_def(IndexType())
    barriers = operand_def(_MemRef)
    stage = operand_def(eq(i32))
    target = operand_def(_MemRef)
    multicast = opt_prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$descriptor `[` $indices `]` `,` $barriers `[` $stage `]` `to` $target"
        " (`multicast` $multicast^)? attr-dict"
        " `:` type($descriptor) `,` type($barriers) `to` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self,
        descriptor: SSAValue,
        indices: Sequence[SSAValue],
        barriers: SSAValue,
        stage: SSAValue,
        target: SSAValue,
        *,
        multicast: int | None = None,
    ) -> None:
        mask = None if multicast is None else IntegerAttr(multicast, i64)
        super().__init__(
            operands=[descriptor, indices, barriers, stage, target],
            properties={"multicast": mask},
        )

    def verify_(self) -> None:
        _require_barriers(self, self.barriers)
        _require_box(self, self.descriptor, self.target, len(self.indices))
        if self.multicast is not None and not 1 <= number_of(self.multicast) < 1 << MOST_CLUSTER:
            raise VerifyException(f"{self.name}: multicast {number_of(self.multicast)}")


@irdl_op_definition
class TmaStoreOp(IRDLOperation):
    """Begin to copy `source` to the box at `indices`; what is outside the tensor is left out.

    Run by one thread of the warpgroup. Until a wait nobody may write to the source.
    """

    name = "nvgpu.tma.async.store"

    source = operand_def(_MemRef)
    descriptor = operand_def(TensorMapType)
    indices = var_operand_def(IndexType())

    assembly_format: ClassVar[str | None] = (
        "$source `to` $descriptor `[` $indices `]` attr-dict"
        " `:` type($source) `to` type($descriptor)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, source: SSAValue, descriptor: SSAValue, indices: Sequence[SSAValue]) -> None:
        super().__init__(operands=[source, descriptor, indices])

    def verify_(self) -> None:
        _require_box(self, self.descriptor, self.source, len(self.indices))


@irdl_op_definition
class TmaStoreWaitOp(IRDLOperation):
    """The thread that stores waits until at most its last `groups` stores still read their source.

    What was stored is in global memory when the kernel ends.
    """

    name = "nvgpu.tma.store_wait"

    groups = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = "`groups` $groups attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, groups: int) -> None:
        super().__init__(properties={"groups": IntegerAttr(groups, i64)})

    def verify_(self) -> None:
        if number_of(self.groups) < 0:
            raise VerifyException(f"{self.name}: groups {number_of(self.groups)}")


@irdl_op_definition
class CreateBarriersOp(IRDLOperation):
    """Barriers in shared memory whose phases end after `arrivals` arrivals and all their bytes.

    They may be used after the next barrier of the block, or of its cluster.
    """

    name = "nvgpu.mbarrier.create"

    arrivals = prop_def(IntegerAttr)
    result = result_def(_MemRef)

    assembly_format: ClassVar[str | None] = "`arrivals` $arrivals attr-dict `:` type($result)"
    traits = traits_def(MemoryWriteEffect())

    def __init__(self, *, stages: int, arrivals: int) -> None:
        made = MemRefType(i64, (stages,), memory_space=SpaceAttr(Space.SHARED))
        super().__init__(result_types=[made], properties={"arrivals": IntegerAttr(arrivals, i64)})

    def verify_(self) -> None:
        _require_barriers(self, self.result)
        if number_of(self.arrivals) < 1:
            raise VerifyException(f"{self.name}: arrivals {number_of(self.arrivals)}")


@irdl_op_definition
class ArriveOp(IRDLOperation):
    """Each warp of the warpgroup arrives once; with `cluster`, in each of so many blocks of it."""

    name = "nvgpu.mbarrier.arrive"

    barriers = operand_def(_MemRef)
    stage = operand_def(eq(i32))
    cluster = opt_prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$barriers `[` $stage `]` (`cluster` $cluster^)? attr-dict `:` type($barriers)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, barriers: SSAValue, stage: SSAValue, *, cluster: int | None = None) -> None:
        blocks = None if cluster is None else IntegerAttr(cluster, i64)
        super().__init__(operands=[barriers, stage], properties={"cluster": blocks})

    def verify_(self) -> None:
        _require_barriers(self, self.barriers)
        if self.cluster is not None and not 2 <= number_of(self.cluster) <= MOST_CLUSTER:
            raise VerifyException(f"{self.name}: cluster {number_of(self.cluster)}")


@irdl_op_definition
class ArriveExpectOp(IRDLOperation):
    """One thread arrives, and the phase does not end before `bytes` more bytes have landed."""

    name = "nvgpu.mbarrier.arrive.expect_tx"

    barriers = operand_def(_MemRef)
    stage = operand_def(eq(i32))
    bytes = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$barriers `[` $stage `]` `bytes` $bytes attr-dict `:` type($barriers)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, barriers: SSAValue, stage: SSAValue, *, bytes: int) -> None:
        super().__init__(operands=[barriers, stage], properties={"bytes": IntegerAttr(bytes, i64)})

    def verify_(self) -> None:
        _require_barriers(self, self.barriers)
        if not 0 <= number_of(self.bytes) < 1 << 20:
            raise VerifyException(f"{self.name}: {number_of(self.bytes)} bytes")


@irdl_op_definition
class WaitOp(IRDLOperation):
    """Wait until the phase of `parity` of barrier `stage` is over."""

    name = "nvgpu.mbarrier.wait"

    barriers = operand_def(_MemRef)
    stage = operand_def(eq(i32))
    parity = operand_def(eq(i32))

    assembly_format: ClassVar[str | None] = (
        "$barriers `[` $stage `]` `parity` $parity attr-dict `:` type($barriers)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, barriers: SSAValue, stage: SSAValue, parity: SSAValue) -> None:
        super().__init__(operands=[barriers, stage, parity])

    def verify_(self) -> None:
        _require_barriers(self, self.barriers)


@irdl_op_definition
class ProxyFenceOp(IRDLOperation):
    """What this thread stored to shared memory is seen by the TMA and the tensor cores."""

    name = "nvgpu.fence.proxy"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self) -> None:
        super().__init__()


TMA_OPS = (
    ArriveExpectOp,
    ArriveOp,
    CreateBarriersOp,
    CreateDescriptorOp,
    ProxyFenceOp,
    TmaLoadOp,
    TmaStoreOp,
    TmaStoreWaitOp,
    WaitOp,
)
