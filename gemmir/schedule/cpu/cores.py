"""What each core of a CPU computes: products of a batch or of groups, or a part of C."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.classes import plain_class_of
from gemmir.schedule.cpu.direct import DIRECT
from gemmir.schedule.cpu.in_tiles import has_tiles, tile_of
from gemmir.schedule.cpu.mixed import is_mixed
from gemmir.schedule.cpu.model import K_SLICE_BYTES, lanes_used, round_up, with_size
from gemmir.schedule.cpu.tiles import packed_tile

COPY_PRODUCTS = 16
"""Multiply-adds that take as long as an element of B that is packed, or one of A that is read for
the first time: at 1024 cubed on Zen 5, half of the rows are 1.4 % slower than half of the columns,
since each of two cores then packs all of B."""


def outer_loops(gemm: Gemm, machine: CpuMachine, threads: int) -> Iterator[str]:
    """The loops over the batch and over the cores."""
    if gemm.groups is not None:
        yield from ["parallelize{loop=group}"] if threads > 1 else []
        return
    by_batch = shares_batch(gemm, threads)
    if gemm.batch is not None:
        yield f"tile{{loops=batch sizes=1{' over=cores' if by_batch else ''}}}"
    if threads > 1 and not by_batch:
        name, size = _cut(gemm, machine, threads)
        yield f"tile{{loops={name} sizes={size} over=cores}}"


def shares_batch(gemm: Gemm, threads: int) -> bool:
    """Whether each core computes some of the products of a batch."""
    return threads > 1 and gemm.batch is not None and gemm.batch >= threads


def share_of(gemm: Gemm, machine: CpuMachine, threads: int) -> tuple[Gemm, bool]:
    """The problem of one core, and whether that of every core has the same size."""
    if gemm.groups is not None:
        return replace(gemm, m=gemm.rows_each, groups=None, masked=False), False
    if threads == 1 or shares_batch(gemm, threads):
        return gemm, True
    name, size = _cut(gemm, machine, threads)
    extent = gemm.m if name == "m" else gemm.n
    return with_size(gemm, {name: min(size, extent)}), extent % size == 0


def _cut(gemm: Gemm, machine: CpuMachine, threads: int) -> tuple[str, int]:
    """The dimension of C that is cut, and the part of it that each core gets.

    Equal parts are better than others, then those with the least work, then those of the longer
    dimension.
    """
    extents = {"m": gemm.m} if gemm.scale_block is not None else {"m": gemm.m, "n": gemm.n}
    return min(
        ((name, _part(gemm, machine, threads, name)) for name in extents),
        key=lambda cut: (
            extents[cut[0]] % cut[1] != 0,
            _work(with_size(gemm, {cut[0]: min(cut[1], extents[cut[0]])}), machine),
            -extents[cut[0]],
        ),
    )


def _part(gemm: Gemm, machine: CpuMachine, threads: int, name: str) -> int:
    """What each core gets of a dimension: equal parts, or else whole register tiles.

    Columns of weights are not cut within a tile, nor within a byte.
    """
    tile = packed_tile(gemm, machine)
    extent, step = (gemm.m, tile.rows) if name == "m" else (gemm.n, tile.columns)
    if is_mixed(gemm) and has_tiles(gemm, machine):
        whole = tile_of(gemm)["mn".index(name)]
        step = whole if extent >= threads * whole else step
    if extent % threads == 0 and not (name == "n" and gemm.has_weights):
        return extent // threads
    return max(round_up(-(-extent // threads), step), 1)


def _work(share: Gemm, machine: CpuMachine) -> int:
    """What a core does for each step of k, in multiply-adds, with what its tiles do in vain.

    Whoever packs copies its columns of B, and reads its rows of A once for every block of them.
    """
    lanes = lanes_used(share, machine)
    if not is_mixed(share) and plain_class_of(share, machine) is DIRECT:
        return share.m * round_up(share.n, lanes)
    tile = packed_tile(share, machine)
    rows, columns = round_up(share.m, tile.rows), round_up(share.n, tile.columns)
    blocks = -(-columns // max(machine.l2_bytes // 2 // K_SLICE_BYTES, 1))
    return rows * columns + COPY_PRODUCTS * (columns + rows * blocks)
