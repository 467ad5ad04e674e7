"""Where the buffers of a kernel lie in the shared memory of its blocks.

As long as they fit they are declared, each by itself. Beyond that they lie one behind the other in
memory whose size is given at the launch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from xdsl.dialects import memref
from xdsl.dialects.builtin import FixedBitwidthType
from xdsl.ir import Operation

from gemmir.errors import BackendError
from gemmir.ir.attributes import PanelAttr, SwizzleAttr
from gemmir.ir.dialect import is_shared, memref_type
from gemmir.machine.gpu import GpuMachine

STATIC_BYTES: Final = 48 * 1024
"""Shared memory that a kernel may declare: CUDA C++ Programming Guide, section on shared memory."""

ALIGNMENT_BYTES: Final = 128
"""All banks of shared memory, so that every buffer begins in the first."""


def shared_buffers(op: Operation) -> list[memref.AllocaOp]:
    """The buffers in shared memory, in the order of the text."""
    return [o for o in op.walk() if isinstance(o, memref.AllocaOp) and is_shared(o.memref)]


def shared_bytes(op: memref.AllocaOp) -> int:
    """Bytes of a buffer, from its first element to one past the last, rounded up."""
    t = memref_type(op.memref)
    element = t.element_type
    assert isinstance(element, FixedBitwidthType)
    if isinstance(t.layout, SwizzleAttr | PanelAttr):
        panels = -(-t.get_shape()[t.layout.dim.data] // t.layout.width.data)
        elements = panels * t.layout.stride.data
    else:
        strides = t.get_strides()
        assert strides is not None
        last = sum((n - 1) * (s or 0) for n, s in zip(t.get_shape(), strides, strict=True))
        elements = last + 1
    return -(-elements * element.size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True, kw_only=True)
class SharedMemory:
    """The buffers of a kernel by their sizes in bytes, and whether they are declared.

    `name` is what the memory is called in LLVM.
    """

    name: str
    sizes: tuple[int, ...]

    @property
    def total_bytes(self) -> int:
        """What a block takes."""
        return sum(self.sizes)

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
        offset = list(itertools.accumulate(self.sizes, initial=0))[number]
        return f"getelementptr (i8, ptr addrspace(3) {self.name}, i64 {offset})"

    def declarations(self) -> list[str]:
        """The globals in LLVM."""
        if not self.is_static:
            return [f"{self.name} = external addrspace(3) global [0 x i8], align {ALIGNMENT_BYTES}"]
        return [
            f"{self.name}{number} = internal addrspace(3) global [{size} x i8] undef, "
            f"align {ALIGNMENT_BYTES}"
            for number, size in enumerate(self.sizes)
        ]


def shared_memory(kernel: Operation, symbol: str) -> SharedMemory:
    """The shared memory of `kernel`, which is a nest of loops over blocks or a function."""
    sizes = tuple(map(shared_bytes, shared_buffers(kernel)))
    return SharedMemory(name=f"@{symbol}_shared", sizes=sizes)


def require_room(memory: SharedMemory, machine: GpuMachine) -> None:
    """`BackendError` GEM0443 where a block of `machine` has no room for `memory`."""
    if memory.total_bytes > machine.smem_bytes_per_block:
        raise BackendError(
            "GEM0443",
            f"{memory.total_bytes} bytes of shared memory, and a block of {machine.name} has "
            f"{machine.smem_bytes_per_block}",
            "tile k, m or n smaller, or use fewer stages",
        )
