"""The part of the `nvgpu` dialect that Hopper brought: warpgroups, mbarriers and the TMA.

| op                                | meaning                                                      |
|-----------------------------------|--------------------------------------------------------------|
| `nvgpu.warp_specialize`           | one thread copies, whole warpgroups multiply                 |
| `nvgpu.mbarrier.create`           | barriers in shared memory, one for each stage                |
| `nvgpu.mbarrier.arrive`           | every warp that runs it has come this far                    |
| `nvgpu.mbarrier.arrive.expect_tx` | one thread has, and so many bytes are still to land          |
| `nvgpu.mbarrier.wait`             | go on when the phase of this parity is over                  |
| `nvgpu.tma.create.descriptor`     | a matrix in global memory, and the box of it that is copied  |
| `nvgpu.tma.async.load`            | begin to copy a box into shared memory, of several blocks    |
| `nvgpu.tma.async.store`           | begin to copy a box out of shared memory                     |
| `nvgpu.tma.store_wait`            | until few stores still read shared memory                    |
| `nvgpu.fence.proxy`               | what threads stored, the TMA and the tensor cores will see   |
| `nvgpu.warpgroup.mma`             | begin acc + a @ b, both in shared memory, by a warpgroup     |
| `nvgpu.warpgroup.wait`            | until few products are under way                             |
| `nvgpu.warpgroup.slice`           | some columns of 64 rows of a sum                             |
| `nvgpu.warpgroup.barrier`         | all warps of this warpgroup have come this far               |
| `nvgpu.cluster.barrier`           | all threads of all blocks of the cluster have come this far  |

The names are those of MLIR where it has the op. Here a value belongs to the whole warpgroup that a
region stands for. A barrier is awaited by the parity of its phase, which begins at 0: a wait for
parity p goes on when a phase of that parity has ended and the next one has not, so that before any
phase has ended a wait for parity 1 does not block. PTX ISA 9.0, sections "mbarrier",
"cp.async.bulk.tensor" and "Asynchronous warpgroup level matrix instructions".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    NoneAttr,
    VectorType,
    i32,
    i64,
)
from xdsl.ir import Attribute, ParametrizedAttribute, Region, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    base,
    eq,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoMemoryEffect, RecursiveMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PrecisionAttr, Space, SpaceAttr, SwizzleAttr
from gemmir.ir.dialect import (
    Number,
    YieldOp,
    accumulator_type,
    is_shared,
    memref_type,
    require_product,
    static_strides,
)

WARPS_OF_GROUP = 4
"""Warps of a warpgroup: PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions"."""

WARPGROUP_ROWS = 64
"""m of every product of a warpgroup."""

MOST_COLUMNS, COLUMN_STEP = 256, 8
"""n of a product is a multiple of 8, at most 256."""

NARROW_INTEGERS, INTEGER_STEP = 24, 16
"""Of integers it is one of 16 beyond 24: PTX ISA 9.0, section "wgmma.mma_async"."""

MOST_BOX = 256
"""Elements along each dimension of a box: CUDA driver API, cuTensorMapEncodeTiled."""

MOST_CLUSTER = 8
"""Blocks of a cluster that every GPU of the kind takes: CUDA C++ Programming Guide."""

REGISTER_STEP, LEAST_REGISTERS, MOST_REGISTERS = 8, 24, 256
"""What `setmaxnreg` takes: PTX ISA 9.0, section "setmaxnreg"."""

_MemRef = base(MemRefType)
_Vector = base(VectorType)


def column_step(element: Attribute, columns: int) -> int:
    """What the columns of a product of `element` are a multiple of."""
    is_wide = isinstance(element, IntegerType) and columns > NARROW_INTEGERS
    return INTEGER_STEP if is_wide else COLUMN_STEP


def _number(attribute: IntegerAttr) -> int:
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
        if self.multicast is not None and not 1 <= _number(self.multicast) < 1 << MOST_CLUSTER:
            raise VerifyException(f"{self.name}: multicast {_number(self.multicast)}")


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
        if _number(self.groups) < 0:
            raise VerifyException(f"{self.name}: groups {_number(self.groups)}")


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
        if _number(self.arrivals) < 1:
            raise VerifyException(f"{self.name}: arrivals {_number(self.arrivals)}")


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
        if self.cluster is not None and not 2 <= _number(self.cluster) <= MOST_CLUSTER:
            raise VerifyException(f"{self.name}: cluster {_number(self.cluster)}")


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
        if not 0 <= _number(self.bytes) < 1 << 20:
            raise VerifyException(f"{self.name}: {_number(self.bytes)} bytes")


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


@irdl_op_definition
class WarpgroupBarrierOp(IRDLOperation):
    """No warp of this warpgroup goes on before all of its four have come here."""

    name = "nvgpu.warpgroup.barrier"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self) -> None:
        super().__init__()


@irdl_op_definition
class ClusterBarrierOp(IRDLOperation):
    """No thread of any block of the cluster goes on before all have come here."""

    name = "nvgpu.cluster.barrier"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self) -> None:
        super().__init__()


@irdl_op_definition
class WarpgroupMmaOp(IRDLOperation):
    """Begin acc + a @ b for m x k and k x n in shared memory; one group of products.

    The result may be passed to another such op or to `nvgpu.warpgroup.wait`, and to nothing else;
    until the wait A and B must stay as they are. Sums are made in the type of `acc`; in which order
    within one instruction, and with how many roundings, is not said. A `precision` of tf32 rounds
    factors to it, to nearest: the TMA does where it copies them for such a product.
    """

    name = "nvgpu.warpgroup.mma"

    T: ClassVar = VarConstraint("T", _Vector)

    a = operand_def(_MemRef)
    b = operand_def(_MemRef)
    acc = operand_def(T)
    result = result_def(T)
    precision = opt_prop_def(PrecisionAttr)

    assembly_format: ClassVar[str | None] = (
        "$a `,` $b `,` $acc (`precision` $precision^)? attr-dict"
        " `:` type($a) `,` type($b) `,` type($acc)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, a: SSAValue, b: SSAValue, acc: SSAValue, precision: PrecisionAttr | None = None
    ) -> None:
        super().__init__(
            operands=[a, b, acc], result_types=[acc.type], properties={"precision": precision}
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """m, n and k of the whole product."""
        (m, k), (_, n) = (memref_type(v).get_shape() for v in (self.a, self.b))
        return m, n, k

    def verify_(self) -> None:
        a, b = memref_type(self.a), memref_type(self.b)
        total = cast("VectorType[Attribute]", self.acc.type)
        if [len(t.get_shape()) for t in (a, b, total)] != [2, 2, 2]:
            raise VerifyException(f"{self.name}: {a} by {b} are not matrices")
        m, n, k = self.shape
        if b.get_shape()[0] != k or total.get_shape() != (m, n):
            raise VerifyException(f"{self.name}: {a} by {b} is not {total}")
        if m % WARPGROUP_ROWS or n % COLUMN_STEP or not 0 < n <= MOST_COLUMNS:
            raise VerifyException(
                f"{self.name}: {m} x {n} is not made of {WARPGROUP_ROWS} rows and columns in steps "
                f"of {COLUMN_STEP} to {MOST_COLUMNS}"
            )
        if not (is_shared(self.a) and is_shared(self.b)):
            raise VerifyException(f"{self.name}: {a} and {b} are not both in shared memory")
        if not (isinstance(a.layout, SwizzleAttr) and isinstance(b.layout, SwizzleAttr)):
            raise VerifyException(f"{self.name}: {a} and {b} are not both swizzled")
        if a.element_type != b.element_type:
            raise VerifyException(f"{self.name}: {a} by {b}")
        require_product(self.name, a.element_type, self.precision)
        if total.element_type != accumulator_type(a.element_type):
            raise VerifyException(f"{self.name}: {a} by {b} is not summed in {total}")


@irdl_op_definition
class WarpgroupWaitOp(IRDLOperation):
    """Wait until at most the last `groups` products are under way; the sum passes through.

    With `groups` 0 the result is finished; otherwise it may only be passed on to more products.
    """

    name = "nvgpu.warpgroup.wait"

    T: ClassVar = VarConstraint("T", _Vector)

    acc = operand_def(T)
    result = result_def(T)
    groups = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = "`groups` $groups $acc attr-dict `:` type($acc)"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, groups: int, acc: SSAValue) -> None:
        super().__init__(
            operands=[acc],
            result_types=[acc.type],
            properties={"groups": IntegerAttr(groups, i64)},
        )

    def verify_(self) -> None:
        if not 0 <= _number(self.groups) <= 7:
            raise VerifyException(f"{self.name}: groups {_number(self.groups)}")


@irdl_op_definition
class WarpgroupSliceOp(IRDLOperation):
    """The part of a finished sum at `row` and `column`, which threads have in registers already.

    Rows are cut in steps of 64, columns in steps of 8.
    """

    name = "nvgpu.warpgroup.slice"

    source = operand_def(_Vector)
    result = result_def(_Vector)
    row = prop_def(IntegerAttr)
    column = prop_def(IntegerAttr)

    assembly_format: ClassVar[str | None] = (
        "$source `row` $row `column` $column attr-dict `:` type($source) `->` type($result)"
    )
    traits = traits_def(NoMemoryEffect())

    def __init__(self, source: SSAValue, place: tuple[int, int], shape: tuple[int, int]) -> None:
        of = cast("VectorType[Attribute]", source.type)
        super().__init__(
            operands=[source],
            result_types=[VectorType(of.element_type, shape)],
            properties={
                "row": IntegerAttr(place[0], i64),
                "column": IntegerAttr(place[1], i64),
            },
        )

    @property
    def place(self) -> tuple[int, int]:
        """The first row and column."""
        return _number(self.row), _number(self.column)

    def verify_(self) -> None:
        source, made = (cast("VectorType[Attribute]", v.type) for v in (self.source, self.result))
        if [len(t.get_shape()) for t in (source, made)] != [2, 2]:
            raise VerifyException(f"{self.name}: {made} of {source}")
        if source.element_type != made.element_type:
            raise VerifyException(f"{self.name}: {made} of {source}")
        steps = (WARPGROUP_ROWS, COLUMN_STEP)
        for place, part, whole, step in zip(
            self.place, made.get_shape(), source.get_shape(), steps, strict=True
        ):
            if place < 0 or place % step or part % step or place + part > whole:
                raise VerifyException(f"{self.name}: {part} from {place} on of {whole}")


@irdl_op_definition
class WarpSpecializeOp(IRDLOperation):
    """Split a block: one thread runs `producer`, each of `warpgroups` more warpgroups `consumers`.

    The region of consumers takes the number of the warpgroup, from 0. All run at the same time;
    what one does for another goes through barriers. The producer is in a warpgroup of its own,
    whose threads keep so many registers each, as do those of consumers: `setmaxnreg`.
    """

    name = "nvgpu.warp_specialize"

    warpgroups = prop_def(IntegerAttr)
    producer_registers = prop_def(IntegerAttr)
    consumer_registers = prop_def(IntegerAttr)
    producer = region_def("single_block")
    consumers = region_def("single_block")

    assembly_format: ClassVar[str | None] = (
        "`warpgroups` $warpgroups `registers` $producer_registers `,` $consumer_registers"
        " `producer` $producer `consumers` $consumers attr-dict"
    )
    traits = traits_def(RecursiveMemoryEffect())

    def __init__(
        self, producer: Region, consumers: Region, *, warpgroups: int, registers: tuple[int, int]
    ) -> None:
        super().__init__(
            properties={
                "warpgroups": IntegerAttr(warpgroups, i64),
                "producer_registers": IntegerAttr(registers[0], i64),
                "consumer_registers": IntegerAttr(registers[1], i64),
            },
            regions=[producer, consumers],
        )

    @property
    def count(self) -> int:
        """How many warpgroups multiply."""
        return _number(self.warpgroups)

    @property
    def registers(self) -> tuple[int, int]:
        """The registers of a thread that copies and of one that multiplies."""
        return _number(self.producer_registers), _number(self.consumer_registers)

    def verify_(self) -> None:
        if self.count < 1:
            raise VerifyException(f"{self.name}: {self.count} warpgroups")
        for found in self.registers:
            is_known = LEAST_REGISTERS <= found <= MOST_REGISTERS
            if found % REGISTER_STEP or not is_known:
                raise VerifyException(
                    f"{self.name}: {found} registers are no multiple of {REGISTER_STEP} from "
                    f"{LEAST_REGISTERS} to {MOST_REGISTERS}"
                )
        if tuple(self.producer.block.arg_types):
            raise VerifyException(f"{self.name}: the producer takes nothing")
        if tuple(self.consumers.block.arg_types) != (IndexType(),):
            raise VerifyException(f"{self.name}: consumers take the number of their warpgroup")
        for region in (self.producer, self.consumers):
            if not isinstance(region.block.last_op, YieldOp):
                raise VerifyException(f"{self.name}: a region must end in gemmir.yield")


WARPGROUP_OPS = (
    ArriveExpectOp,
    ArriveOp,
    ClusterBarrierOp,
    CreateBarriersOp,
    CreateDescriptorOp,
    ProxyFenceOp,
    TmaLoadOp,
    TmaStoreOp,
    TmaStoreWaitOp,
    WaitOp,
    WarpSpecializeOp,
    WarpgroupBarrierOp,
    WarpgroupMmaOp,
    WarpgroupSliceOp,
    WarpgroupWaitOp,
)
