"""Schedules for CPUs of problems that have no size before they are called.

Small ones, and those of few rows or columns or of a small B, read A and B where they lie. Others
have blocks of B packed, and so have all where B is transposed; large ones have A packed too where
that is transposed. Each is a version of the function.

Tiles that read rows of A where they lie hold a pointer for each of them, of which x86-64 has few
registers; and their loop over k is not unrolled: LLVM would load ahead from all rows, and spill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.model import item_bytes
from gemmir.schedule.cpu.packed import packed_both
from gemmir.schedule.cpu.schedule_class import Microkernel
from gemmir.schedule.cpu.tiles import RegisterTile, most_rows

SMALL = 512
"""Up to this m, n and k the operands are read where they lie (measured on Zen 5)."""

FEW_ROWS = 8
"""Up to this many rows of A, packing B costs more than it saves (measured on Zen 5)."""

FEW_COLUMNS = 48
"""The same of columns of B."""

LARGE = 8192
"""An extent that is larger than any block: what blocks of a packed schedule are decided by."""

ROW_POINTERS = 8
"""Rows of a tile that reads A where it lies: half the general registers of x86-64."""

BLOCK_COLUMN_BYTES = 1024
"""Bytes of a column of a packed block of B: 256 steps of k in f32 (measured on Zen 5)."""

ROLLED = Microkernel(steps=1)
"""A loop over k that is not unrolled."""

End = Callable[[Gemm, Microkernel], Iterator[str]]
"""The passes behind loops and copies."""


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
    for limits, passes in _versions(whole, machine):
        named = {name: most for name, most in limits.items() if name in loops}
        sizes = {"m": whole.m, "n": whole.n, "k": whole.k}
        if named and all(sizes[name] <= limits[name] for name in limits.keys() - named.keys()):
            most = ",".join(map(str, named.values()))
            yield f"version{{loops={','.join(named)} most={most}}}"
            yield from passes
            yield from end(whole, ROLLED)
            yield "otherwise"
    if whole.trans_a:
        yield from packed_both(whole, machine)
        yield from end(whole, Microkernel())
        return
    yield from _half_packed(whole, machine, _tile(whole, machine, 2))
    yield from end(whole, ROLLED)


def unpacked(gemm: Gemm, machine: CpuMachine) -> str:
    """The schedule for problems of any size that allocates nothing, for want of memory."""
    return ",".join(
        [*_direct(gemm, machine), f"vectorize{{with=fma width={_lanes(gemm, machine)}}}"]
    )


def _lanes(gemm: Gemm, machine: CpuMachine) -> int:
    """All lanes of a vector of sums, whatever n turns out to be."""
    return machine.lanes(gemm.accumulator.item_bytes)


def _versions(whole: Gemm, machine: CpuMachine) -> Iterator[tuple[dict[str, int], list[str]]]:
    """The largest sizes of each version, and the passes of its loops and copies."""
    small = {"m": SMALL, "n": SMALL, "k": SMALL}
    direct = list(_direct(whole, machine))
    if not whole.trans_b:
        yield small, direct
        yield {"m": FEW_ROWS}, direct
        yield {"n": FEW_COLUMNS}, direct
        if not whole.trans_a:
            yield {"n": SMALL, "k": SMALL}, direct
        return
    lanes = _lanes(whole, machine)
    narrow = RegisterTile(rows=ROW_POINTERS, vectors=1, lanes=lanes)
    yield {"n": lanes}, list(_half_packed(whole, machine, narrow))
    if whole.trans_a:
        yield small, list(_half_packed(whole, machine, _tile(whole, machine, 2)))


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
    yield f"tile{{loops=k,n sizes={BLOCK_COLUMN_BYTES // item_bytes(gemm)},{columns}}}"
    yield f"promote{{operand=b to=l2 layout=panel:{tile.columns}}}"
    yield f"tile{{loops=m sizes={tile.rows} edges=halve}}"
    yield f"tile{{loops=n sizes={tile.columns}}}"
    yield "promote{operand=c to=registers prefetch=true}"
