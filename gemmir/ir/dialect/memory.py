"""Copies into buffers and out of them, views of bytes, and what is asked for ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, IntegerAttr, IntegerType, MemRefType, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoMemoryEffect
from xdsl.utils.exceptions import VerifyException

from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect.elements import SIGN_TAKEN, Number, is_widening
from gemmir.ir.dialect.memrefs import (
    CACHES,
    MEMREF,
    STAGED,
    is_shared,
    memref_type,
    require_extent,
    require_same_elements,
)


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

    source = operand_def(MEMREF)
    target = operand_def(MEMREF)
    scales = opt_operand_def(MEMREF)
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
            require_same_elements(self.name, (source, target))
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
        require_extent(self.name, "n", sizes[3], shape[1])
        if DYNAMIC_INDEX not in (sizes[0], shape[0]) and sizes[0] * depth < shape[0]:
            raise VerifyException(
                f"{self.name}: {sizes[0]} blocks of {depth} along k are less than {shape[0]}"
            )


@irdl_op_definition
class UnpackOp(IRDLOperation):
    """Copy the leading corner of `source`, in shared memory, into all of `target`."""

    name = "gemmir.unpack"

    source = operand_def(MEMREF)
    target = operand_def(MEMREF)

    assembly_format: ClassVar[str | None] = (
        "$source `into` $target attr-dict `:` type($source) `into` type($target)"
    )
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, source: SSAValue, target: SSAValue) -> None:
        super().__init__(operands=[source, target])

    def verify_(self) -> None:
        source, target = memref_type(self.source), memref_type(self.target)
        require_same_elements(self.name, (source, target))
        if len(source.get_shape()) != 2 or len(target.get_shape()) != 2:
            raise VerifyException(f"{self.name}: source and target must be matrices")
        if not is_shared(self.source) or is_shared(self.target):
            raise VerifyException(f"{self.name}: {source} into {target}")
        for room, extent in zip(source.get_shape(), target.get_shape(), strict=True):
            if DYNAMIC_INDEX not in (extent, room) and extent > room:
                raise VerifyException(f"{self.name}: {target} is larger than {source}")


@irdl_op_definition
class UnsignedOp(IRDLOperation):
    """A view of i8 whose elements count 128 more, as ui8; it may only be read.

    Nothing moves: who reads a vector of it flips the highest bits.
    """

    name = "gemmir.unsigned"

    source = operand_def(MEMREF)
    result = result_def(MEMREF)

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


@irdl_op_definition
class PrefetchOp(IRDLOperation):
    """Ask for every row of a tile to be brought into the first cache level, to be written soon.

    With `into` it will be read, from that cache level.
    """

    name = "gemmir.prefetch"

    source = operand_def(MEMREF)
    level = opt_prop_def(SpaceAttr)

    assembly_format: ClassVar[str | None] = "$source (`into` $level^)? attr-dict `:` type($source)"
    traits = traits_def(MemoryReadEffect())

    def __init__(self, source: SSAValue, into: Space | None = None) -> None:
        level = None if into is None else SpaceAttr(into)
        super().__init__(operands=[source], properties={"level": level})

    def verify_(self) -> None:
        if self.level is not None and self.level.data not in (Space.L1, Space.L2):
            raise VerifyException(f"{self.name}: into {self.level.data}, which is not l1 or l2")
