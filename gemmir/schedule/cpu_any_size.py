"""Schedules for CPUs of problems that have no size before they are called.

Small ones read A and B where they lie; where B is transposed, blocks of it are packed. Middling
ones have blocks of B packed only. All others are packed as the packed schedules of known sizes are.
Each is a version of the function.

Tiles that read rows of A where they lie hold a pointer for each of them, of which x86-64 has few
registers; and their loop over k is not unrolled: LLVM would load ahead from all rows, and spill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import item_bytes
from gemmir.schedule.cpu_packed import K_STEPS_PER_ITERATION, packed
from gemmir.schedule.cpu_tiles import RegisterTile, most_rows

SMALL = 512
"""Up to this m, n and k the operands are read where they lie (measured on Zen 5)."""

MIDDLING = 1024
"""Up to this m, n and k only B is packed, where A has rows to read (measured on Zen 5)."""

LARGE = 8192
"""An extent that is larger than any block: what blocks of a packed schedule are decided by."""

ROW_POINTERS = 8
"""Rows of a tile that reads A where it lies: half the general registers of x86-64."""

BLOCK_COLUMN_BYTES = 1024
"""Bytes of a column of a packed block of B: 256 steps of k in f32 (measured on Zen 5)."""

End = Callable[[Gemm, int], Iterator[str]]
"""The passes behind loops and copies, for so many unrolled steps of k."""


def any_size(gemm: Gemm, machine: CpuMachine, end: End) -> Iterator[str]:
    """The passes for `gemm`, some of whose m, n and k are unknown."""
    loops = tuple(name for name in gemm.unknown if name in ("m", "n", "k"))
    whole = replace(
        gemm,
        **dict.fromkeys(loops, LARGE),
        **dict.fromkeys(gemm.unknown_factors, 1.0),
        lda=None,
        ldb=None,
        ldc=None,
    )
    if loops:
        yield from _versions(whole, loops, machine, end)
    yield from packed(whole, machine)
    yield from end(whole, K_STEPS_PER_ITERATION)


def unpacked(gemm: Gemm, machine: CpuMachine) -> str:
    """The schedule for problems of any size that allocates nothing, for want of memory."""
    return ",".join(
        [*_direct(gemm, machine), f"vectorize{{with=fma width={_lanes(gemm, machine)}}}"]
    )


def _lanes(gemm: Gemm, machine: CpuMachine) -> int:
    """All lanes of a vector, whatever n turns out to be."""
    return machine.lanes(item_bytes(gemm))


def _versions(whole: Gemm, loops: tuple[str, ...], machine: CpuMachine, end: End) -> Iterator[str]:
    """Those for sizes up to a limit, each with the passes that follow it."""
    if not whole.trans_b:
        yield _up_to(SMALL, loops)
        yield from _direct(whole, machine)
        yield from end(whole, 1)
        yield "otherwise"
    elif "n" in loops:
        lanes = _lanes(whole, machine)
        yield f"version{{loops=n most={lanes}}}"
        yield from _half_packed(
            whole, machine, RegisterTile(rows=ROW_POINTERS, vectors=1, lanes=lanes)
        )
        yield from end(whole, 1)
        yield "otherwise"
    if whole.trans_b or not whole.trans_a:
        yield _up_to(SMALL if whole.trans_a else MIDDLING, loops)
        yield from _half_packed(whole, machine, _tile(whole, machine, 2))
        yield from end(whole, 1)
        yield "otherwise"


def _up_to(most: int, loops: tuple[str, ...]) -> str:
    limits = ",".join(str(most) for _ in loops)
    return f"version{{loops={','.join(loops)} most={limits}}}"


def _tile(gemm: Gemm, machine: CpuMachine, vectors: int) -> RegisterTile:
    """The tile of as many vectors that reads rows of A where they lie."""
    rows = min(most_rows(machine, vectors), ROW_POINTERS)
    return RegisterTile(rows=rows, vectors=vectors, lanes=_lanes(gemm, machine))


def _direct(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """Full tiles, halves of them, and a vector that is clipped."""
    vectors = 3 if machine.vector_registers >= 32 else 2
    tile = _tile(gemm, machine, vectors)
    yield f"tile{{loops=n sizes={tile.columns} edges=halve least={tile.lanes}}}"
    yield f"tile{{loops=m sizes={tile.rows} edges=halve}}"
    yield "promote{operand=c to=registers}"


def _half_packed(gemm: Gemm, machine: CpuMachine, tile: RegisterTile) -> Iterator[str]:
    """Blocks of B packed into half of L2, A read where it lies."""
    columns = machine.l2_bytes // 2 // BLOCK_COLUMN_BYTES // tile.columns * tile.columns
    yield f"tile{{loops=n,k sizes={columns},{BLOCK_COLUMN_BYTES // item_bytes(gemm)}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{tile.columns}}}"
    yield f"tile{{loops=m sizes={tile.rows} edges=halve}}"
    yield f"tile{{loops=n sizes={tile.columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"
