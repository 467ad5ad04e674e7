"""Where the buffers of a kernel lie in the shared memory of its blocks.

As long as they fit they are declared, each by itself. Beyond that they lie one behind the other in
memory whose size is given at the launch, those first that are to be aligned most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from xdsl.dialects import memref
from xdsl.dialects.builtin import FixedBitwidthType, MemRefType
from xdsl.ir import Operation

from gemmir.errors import BackendError
from gemmir.ir.attributes import SWIZZLE_ROWS, PanelAttr, SwizzleAttr
from gemmir.ir.dialect import Number, is_shared, memref_type
from gemmir.ir.tma import CreateBarriersOp
from gemmir.machine.gpu import GpuMachine

STATIC_BYTES: Final = 48 * 1024
"""Shared memory that a kernel may declare: CUDA C++ Programming Guide, section on shared memory."""

ALIGNMENT_BYTES: Final = 128
"""All banks of shared memory, so that every buffer begins in the first."""


SharedBuffer: TypeAlias = memref.AllocaOp | CreateBarriersOp
"""What lies in shared memory."""


def shared_buffers(op: Operation) -> list[SharedBuffer]:
    """The buffers in shared memory, in the order of the text."""
    return [
        o
        for o in op.walk()
        if isinstance(o, CreateBarriersOp)
        or (isinstance(o, memref.AllocaOp) and is_shared(o.memref))
    ]


def buffer_type(buffer: SharedBuffer) -> MemRefType[Number]:
    """What a buffer holds."""
    return memref_type(buffer.results[0])


def item_bytes(t: MemRefType[Number]) -> int:
    """Bytes of an element."""
    element = t.element_type
    assert isinstance(element, FixedBitwidthType)
    return element.size


def alignment_bytes(t: MemRefType[Number]) -> int:
    """What the address of a buffer is a multiple of: all rows of the pattern of a swizzle.

    The TMA and the products of warpgroups take the pattern from the address.
    """
    if not isinstance(t.layout, SwizzleAttr):
        return ALIGNMENT_BYTES
    return max(SWIZZLE_ROWS * t.layout.width.data * item_bytes(t), ALIGNMENT_BYTES)


def shared_bytes(t: MemRefType[Number]) -> int:
    """Bytes of a buffer, from its first element to one past the last, rounded up."""
    if isinstance(t.layout, SwizzleAttr | PanelAttr):
        panels = -(-t.get_shape()[t.layout.dim.data] // t.layout.width.data)
        elements = panels * t.layout.stride.data
    else:
        strides = t.get_strides()
        assert strides is not None
        last = sum((n - 1) * (s or 0) for n, s in zip(t.get_shape(), strides, strict=True))
        elements = last + 1
    return -(-elements * item_bytes(t) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True, kw_only=True)
class SharedMemory:
    """The buffers of a kernel by their sizes and alignments, and whether they are declared.

    `name` is what the memory is called in LLVM.
    """

    name: str
    sizes: tuple[int, ...]
    alignments: tuple[int, ...]

    @property
    def alignment(self) -> int:
        """What the memory as a whole is aligned to."""
        return max(self.alignments, default=ALIGNMENT_BYTES)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each buffer begins in memory that is given at the launch."""
        places = [0] * len(self.sizes)
        end = 0
        for number in sorted(range(len(places)), key=lambda n: -self.alignments[n]):
            places[number] = -(-end // self.alignments[number]) * self.alignments[number]
            end = places[number] + self.sizes[number]
        return tuple(places)

    @property
    def total_bytes(self) -> int:
        """What a block takes."""
        return max((at + n for at, n in zip(self.offsets, self.sizes, strict=True)), default=0)

    @property
    def is_static(self) -> bool:
        """Whether the kernel declares its buffers."""
        return self.total_bytes <= STATIC_BYTES

    @property
    def static_bytes(self) -> int:
        """What the kernel declares."""
        return self.total_bytes if self.is_static else 0

    @property
    def dynamic_bytes(self) -> int:
        """What is to be given at the launch."""
        return self.total_bytes - self.static_bytes

    def address(self, number: int) -> str:
        """The buffer of this number, a constant pointer in LLVM."""
        if self.is_static:
            return f"{self.name}{number}"
        offset = self.offsets[number]
        return f"getelementptr (i8, ptr addrspace(3) {self.name}, i64 {offset})"

    def declarations(self) -> list[str]:
        """The globals in LLVM."""
        if not self.is_static:
            return [f"{self.name} = external addrspace(3) global [0 x i8], align {self.alignment}"]
        return [
            f"{self.name}{number} = internal addrspace(3) global [{size} x i8] undef, "
            f"align {alignment}"
            for number, (size, alignment) in enumerate(
                zip(self.sizes, self.alignments, strict=True)
            )
        ]


def shared_memory(kernel: Operation, symbol: str) -> SharedMemory:
    """The shared memory of `kernel`, which is a nest of loops over blocks or a function."""
    types = tuple(map(buffer_type, shared_buffers(kernel)))
    return SharedMemory(
        name=f"@{symbol}_shared",
        sizes=tuple(map(shared_bytes, types)),
        alignments=tuple(map(alignment_bytes, types)),
    )


def require_room(memory: SharedMemory, machine: GpuMachine) -> None:
    """`BackendError` GEM0443 where a block of `machine` has no room for `memory`."""
    if memory.total_bytes > machine.smem_bytes_per_block:
        raise BackendError(
            "GEM0443",
            f"{memory.total_bytes} bytes of shared memory, and a block of {machine.name} has "
            f"{machine.smem_bytes_per_block}",
            "tile k, m or n smaller, or use fewer stages",
        )
