"""Default schedules for warpgroups: what the TMA copies, `wgmma` multiplies.

    swap-operands                               few rows become columns
    split-k{…}                                  slices of k, where C has few tiles
    tile{loops=m,n … over=clusters}             two blocks that share what they copy of B or of A
    interchange{order=m,n group=8}              blocks that run together share what is in L2
    tile{loops=m sizes=128 over=blocks}
    persist{blocks=66}                          blocks stay, and take one tile after another
    tile{loops=m sizes=64 over=warpgroups}      warpgroups that multiply, below one another
    promote{operand=c to=registers}
    tile{loops=k sizes=64}                      128 bytes of k
    promote{operand=a to=shared …}              and of B, swizzled as the TMA and wgmma have it
    promote{operand=c to=shared …}              C goes out in pieces that the TMA stores
    pipeline{loop=k … with=tma specialize=true}
    vectorize{with=wgmma}

Which tiles, and which of these passes, `hopper_model` says. Of a grouped GEMM the rows of all
products are tiled one after another, `loops=group,m,n`, without clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine.gpu import GpuMachine
from gemmir.schedule.hopper_model import (
    ALIGNMENT_BYTES,
    GROUP_ROWS,
    PAIR_BYTES,
    SLICE_BYTES,
    WarpgroupTiles,
    grouped_tiles,
    oriented,
    stays,
    warpgroup_tiles,
)


def takes_warpgroups(gemm: Gemm, machine: GpuMachine) -> bool:
    """Whether the TMA can copy the operands of `gemm` and warpgroups of `machine` multiply them.

    A product that fills neither 64 rows nor 64 columns, or has less than a slice of k, is left to
    warps, and so are those whose blocks have scales and less than a slice of k.
    """
    item = gemm.element.item_bytes
    if gemm.dtype not in machine.wgmma_dtypes:
        return False
    if item != PAIR_BYTES and (gemm.trans_a or not gemm.trans_b):
        return False
    if gemm.scale_block is not None and gemm.scale_block * item % SLICE_BYTES:
        return False
    if max(gemm.m, gemm.n) < GROUP_ROWS or min(gemm.m, gemm.n) == 0 or gemm.k * item < SLICE_BYTES:
        return False
    strides = [s for name in "ab" for s in (gemm.leading(name), gemm.batch_stride(name))]
    return all(s * item % ALIGNMENT_BYTES == 0 for s in strides)


def hopper_passes(gemm: Gemm, machine: GpuMachine, *, fuse: bool, expand: bool) -> Iterator[str]:
    """The passes for `gemm` on `machine`, one at a time."""
    choose = warpgroup_tiles if gemm.groups is None else grouped_tiles
    tiles = choose(gemm, machine, expand=expand)
    yield from spelled(gemm, machine, tiles, fuse=fuse)


def spelled(gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles, *, fuse: bool) -> Iterator[str]:
    """The passes that make a kernel of `tiles`."""
    gemm = oriented(gemm, tiles)
    batch, one = ("batch,", "1,") if gemm.batch is not None else ("", "")
    if gemm.groups is not None:
        batch, one = "group,", "1,"
    if tiles.swapped:
        yield "swap-operands"
    if tiles.split > 1:
        yield f"split-k{{factor={tiles.split} order=fixed}}"
    whole = f"{tiles.m * tiles.cluster_m},{tiles.n * tiles.cluster_n}"
    unit = "clusters" if tiles.cluster > 1 else "blocks"
    yield f"tile{{loops={batch}m,n sizes={one}{whole} over={unit}}}"
    if tiles.group:
        yield f"interchange{{order=m,n group={tiles.group}}}"
    if tiles.cluster_m > 1:
        yield f"tile{{loops=m sizes={tiles.m} over=blocks}}"
    if tiles.cluster_n > 1:
        yield f"tile{{loops=n sizes={tiles.n} over=blocks}}"
    if stays(gemm, machine, tiles):
        yield f"persist{{blocks={machine.sms // tiles.cluster}}}"
    yield f"tile{{loops=m sizes={tiles.m // tiles.warpgroups} over=warpgroups}}"
    yield "promote{operand=c to=registers}"
    depth = SLICE_BYTES // gemm.element.item_bytes
    yield f"tile{{loops=k sizes={depth}}}"
    if gemm.scale_block is not None and gemm.k > gemm.scale_block:
        yield "promote{operand=c to=registers}"
    for operand in "ab":
        yield f"promote{{operand={operand} to=shared layout=swizzle:{SLICE_BYTES}}}"
    if fuse:
        yield "fuse-epilogue"
    if tiles.piece_bytes:
        yield f"promote{{operand=c to=shared layout=swizzle:{tiles.piece_bytes}}}"
    turns = " pingpong=true" if tiles.pingpong else ""
    yield f"pipeline{{loop=k stages={tiles.stages} with=tma specialize=true{turns}}}"
    yield "vectorize{with=wgmma}"
