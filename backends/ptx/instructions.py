"""The instructions of the tensor cores that products are made of: one table.

Registers of A and B have 32 bits, of f64 one element each. Sums are two elements of each 8 x 8
block of a tile. PTX ISA 9.0, section "Matrix multiply-accumulate operation using mma instruction".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from xdsl.dialects.builtin import ModuleOp, VectorType
from xdsl.ir import Attribute

from gemmir.errors import BackendError
from gemmir.ir.dialect import product_name
from gemmir.ir.nvgpu import AsyncCopyOp, MmaSyncOp
from gemmir.ir.warpgroup import WARPGROUP_OPS
from gemmir.machine.gpu import GpuMachine


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One `mma.sync`: its intrinsic, and what its registers are in LLVM.

    `shape` is m, n and k; `register` the type of a register of A and B, `sum` that of an element of
    the sum. `ptx_version` is the least PTX ISA that has it, times ten.
    """

    intrinsic: str
    shape: tuple[int, int, int]
    item_bytes: int
    register: str = "i32"
    sum: str = "float"
    ptx_version: int = 70

    @property
    def register_bytes(self) -> int:
        """Bytes of a register of A and B."""
        return 8 if self.register == "double" else 4

    @property
    def k_bytes(self) -> int:
        """Bytes of each row of A that it takes."""
        return self.shape[2] * self.item_bytes


_MMA = "llvm.nvvm.mma"

INSTRUCTIONS: Final[Mapping[tuple[str, int], Instruction]] = {
    ("f16", 16): Instruction(
        intrinsic=f"{_MMA}.m16n8k16.row.col.f32.f32",
        shape=(16, 8, 16),
        item_bytes=2,
        register="<2 x half>",
    ),
    ("f16", 8): Instruction(
        intrinsic=f"{_MMA}.m16n8k8.row.col.f32.f32",
        shape=(16, 8, 8),
        item_bytes=2,
        register="<2 x half>",
        ptx_version=65,
    ),
    ("bf16", 16): Instruction(
        intrinsic=f"{_MMA}.m16n8k16.row.col.bf16", shape=(16, 8, 16), item_bytes=2
    ),
    ("tf32", 8): Instruction(
        intrinsic=f"{_MMA}.m16n8k8.row.col.tf32", shape=(16, 8, 8), item_bytes=4
    ),
    ("e4m3", 32): Instruction(
        intrinsic=f"{_MMA}.m16n8k32.row.col.f32.e4m3.e4m3.f32",
        shape=(16, 8, 32),
        item_bytes=1,
        ptx_version=84,
    ),
    ("e5m2", 32): Instruction(
        intrinsic=f"{_MMA}.m16n8k32.row.col.f32.e5m2.e5m2.f32",
        shape=(16, 8, 32),
        item_bytes=1,
        ptx_version=84,
    ),
    ("i8", 32): Instruction(
        intrinsic=f"{_MMA}.m16n8k32.row.col.s8", shape=(16, 8, 32), item_bytes=1, sum="i32"
    ),
    ("u8", 32): Instruction(
        intrinsic=f"{_MMA}.m16n8k32.row.col.u8", shape=(16, 8, 32), item_bytes=1, sum="i32"
    ),
    ("f64", 4): Instruction(
        intrinsic=f"{_MMA}.m8n8k4.row.col.f64",
        shape=(8, 8, 4),
        item_bytes=8,
        register="double",
        sum="double",
    ),
}
"""By what is multiplied, as `Gemm.dtype` says it, and k."""


def product_of(op: MmaSyncOp) -> str:
    """What `op` multiplies, as `Gemm.dtype` says it."""
    of = cast("VectorType[Attribute]", op.lhs.type)
    return product_name(of.element_type, op.precision)


def instruction_of(op: MmaSyncOp) -> Instruction:
    """The instruction of `op`; `BackendError` GEM0427 where there is none of its shape."""
    name = product_of(op)
    found = INSTRUCTIONS.get((name, op.instruction[2]))
    if found is not None and found.shape == op.instruction:
        return found
    known = [i.shape for (of, _), i in INSTRUCTIONS.items() if of == name]
    raise BackendError(
        "GEM0427",
        f"no instruction multiplies {name} in the shape {op.instruction}",
        f"use {' or '.join(map(str, known))}" if known else f"use {', '.join(_names())}",
    )


def _names() -> list[str]:
    return list(dict.fromkeys(name for name, _ in INSTRUCTIONS))


def required_ptx(module: ModuleOp, machine: GpuMachine) -> int:
    """The least PTX ISA that has the products of `module` and knows `machine`, times ten.

    Raises `BackendError` GEM0426 where `machine` has no such instruction.
    """
    version = machine.ptx_version
    for op in module.walk():
        if isinstance(op, AsyncCopyOp) and not machine.has_async_copies:
            raise BackendError(
                "GEM0426", f"{machine.name} has no asynchronous copies", "leave pipeline out"
            )
        if isinstance(op, WARPGROUP_OPS) and not machine.wgmma_dtypes:
            raise BackendError(
                "GEM0426",
                f"{machine.name} has no {op.name}",
                "only sm_90a has products of warpgroups and the TMA: vectorize{with=mma}, and "
                "pipeline without with=tma",
            )
        if not isinstance(op, MmaSyncOp):
            continue
        name, found = product_of(op), instruction_of(op)
        if name not in machine.mma_dtypes or found.k_bytes > machine.mma_k_bytes:
            raise BackendError(
                "GEM0426",
                f"{machine.name} has no product of {name} in the shape {found.shape}",
                f"it has {', '.join(machine.mma_dtypes) or 'no tensor cores'}, of "
                f"{machine.mma_k_bytes} bytes along k",
            )
        version = max(version, found.ptx_version)
    return version
