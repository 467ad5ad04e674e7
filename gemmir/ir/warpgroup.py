"""The part of the `nvgpu` dialect that Hopper brought for products: warpgroups.

| op                                | meaning                                                      |
|-----------------------------------|--------------------------------------------------------------|
| `nvgpu.warp_specialize`           | one thread copies, whole warpgroups multiply                 |
| `nvgpu.warpgroup.mma`             | begin acc + a @ b, both in shared memory, by a warpgroup     |
| `nvgpu.warpgroup.wait`            | until few products are under way                             |
| `nvgpu.warpgroup.slice`           | some columns of 64 rows of a sum                             |
| `nvgpu.warpgroup.barrier`         | all warps of this warpgroup have come this far               |
| `nvgpu.cluster.barrier`           | all threads of all blocks of the cluster have come this far  |

The names are those of MLIR where it has the op. Here a value belongs to the whole warpgroup that a
region stands for. PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions".
"""

from __future__ import annotations

from typing import ClassVar, cast

from xdsl.dialects.builtin import IndexType, IntegerAttr, IntegerType, MemRefType, VectorType, i64
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoMemoryEffect, RecursiveMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PrecisionAttr, SwizzleAttr
from gemmir.ir.dialect import YieldOp, accumulator_type, is_shared, memref_type, require_product
from gemmir.ir.tma import number_of

WARPS_OF_GROUP = 4
"""Warps of a warpgroup: PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions"."""

WARPGROUP_ROWS = 64
"""m of every product of a warpgroup."""

MOST_COLUMNS, COLUMN_STEP = 256, 8
"""n of a product is a multiple of 8, at most 256."""

NARROW_INTEGERS, INTEGER_STEP = 24, 16
"""Of integers it is one of 16 beyond 24: PTX ISA 9.0, section "wgmma.mma_async"."""

REGISTER_STEP, LEAST_REGISTERS, MOST_REGISTERS = 8, 24, 256
"""What `setmaxnreg` takes: PTX ISA 9.0, section "setmaxnreg"."""

_MemRef = base(MemRefType)
_Vector = base(VectorType)


def column_step(element: Attribute, columns: int) -> int:
    """What the columns of a product of `element` are a multiple of."""
    is_wide = isinstance(element, IntegerType) and columns > NARROW_INTEGERS
    return INTEGER_STEP if is_wide else COLUMN_STEP


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
        if not 0 <= number_of(self.groups) <= 7:
            raise VerifyException(f"{self.name}: groups {number_of(self.groups)}")


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
        return number_of(self.row), number_of(self.column)

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
        return number_of(self.warpgroups)

    @property
    def registers(self) -> tuple[int, int]:
        """The registers of a thread that copies and of one that multiplies."""
        return number_of(self.producer_registers), number_of(self.consumer_registers)

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
    ClusterBarrierOp,
    WarpSpecializeOp,
    WarpgroupBarrierOp,
    WarpgroupMmaOp,
    WarpgroupSliceOp,
    WarpgroupWaitOp,
)
