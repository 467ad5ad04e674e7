"""How long a product takes warpgroups in one tile or another, by a model, and so which to take.

Of all tiles in `TILES`, with and without clusters and with k cut into a few slices, those are taken
that the model says take least time (`seconds`). A slice of 128 bytes of k takes as long as its
products, reading shared memory, or copying, whichever is longest; every wave of blocks takes its
slices and an end; and all of it takes at least what device memory takes. Constants without a source
were measured on an H200 with kernels of this kind in many tiles, timed between those of cuBLAS; the
card was limited by its power, of which the model knows no more than a share for each byte copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from gemmir.gemm import Gemm
from gemmir.ir.groups import most_row_tiles
from gemmir.ir.specialize import THREADS_OF_GROUP
from gemmir.machine.gpu import GpuMachine
from gemmir.passes.split_k import slice_size

SLICE_BYTES: Final = 128
"""A slice of k: one row of the widest swizzle, the most of a row that one copy moves."""

ALIGNMENT_BYTES: Final = 16
"""What rows and matrices are multiples of that the TMA copies: CUDA driver API,
cuTensorMapEncodeTiled."""

PANEL: Final = 64
"""Elements of 16 bits in a row of the widest swizzle: what n is a multiple of where B lies along
it."""

PAIR_BYTES: Final = 2
"""Elements of this size may be adjacent along m and n too: PTX ISA 9.0, section "Strides" of
"Asynchronous warpgroup level matrix instructions"."""

GROUP_ROWS: Final = 64
"""Rows of the product of a warpgroup."""

TILES: Final = (
    (128, 256, 2),
    (256, 128, 2),
    (256, 160, 2),
    (128, 224, 2),
    (128, 192, 2),
    (128, 160, 2),
    (128, 128, 2),
    (128, 96, 2),
    (128, 64, 2),
    (64, 256, 1),
    (64, 192, 1),
    (64, 128, 1),
    (64, 64, 1),
    (64, 32, 1),
)
"""m and n of the tile of a block, and how many warpgroups multiply it. Of tiles that cost the same
the first is taken."""

TURNS: Final = ((128, 160), (128, 128))
TURNS_SHARE: Final = 0.98
"""m and n of the tiles that two warpgroups take in turns: one multiplies while the other stores.
They do not wait for each other in every slice, either: beside what their stores hide 128 x 128 took
0.98 to 0.99 of the best tiles of two warpgroups together at 8192 cubed, (4096, 4096, 14336) and
(4096, 8192, 28672). Clusters of them were not measured, and are not tried."""

MOST_SUMS: Final = 160
MOST_SUMS_EXPANDED: Final = 128
MOST_SUMS_GROUPED: Final = 96
"""Sums of a thread. Of 192 ptxas 13.0 still spills none, but of 256 x 192 shared memory holds three
slices and no pieces of C; with gelu it spills some of 160. A grouped GEMM has gelu a second time,
for tiles whose rows are not all there, and it spills some of 128."""

MOST_SUMS_SCALED: Final = 64
"""The same where each is held twice, for a slice of k and for all of it: of 96 ptxas 13.0 spills
some with addresses of scales beside them."""

NARROW_TILES: Final = ((64, 1), (128, 2))
COLUMN_STEP: Final = 8
"""m and warpgroups of the tiles where C has less than 64 columns, and what n is a multiple of."""

INTEGER_STEP: Final = 16
INTEGER_WIDTHS: Final = (8, 24)
"""n of products of 8-bit integers, where it is no multiple of 16: PTX ISA 9.0, section "Register
fragments and shared memory matrix layouts" of wgmma."""

BARRIER_BYTES: Final = 1024
"""Shared memory beside the slices: barriers, and that slices begin at a multiple of 1024 bytes."""

MOST_STAGES: Final = 12
LEAST_STAGES: Final = 3
"""Slices that are held at once: fewer than three and neither copies nor products overlap."""

SPLITS: Final = (1, 2, 3, 4, 5, 6, 7, 8)
"""Slices of k that have blocks of their own."""

SHARED_BYTES_PER_CYCLE: Final = 128
"""What a multiprocessor reads of its shared memory in a cycle: 32 banks of 4 bytes."""

SWIZZLE_ROWS: Final = 8
"""Rows after which the pattern of a swizzle repeats."""

GROUPS: Final = (2, 4, 8, 16)
"""Rows of tiles along which blocks are numbered."""

SUSTAINED_CLOCK_HZ: Final = 1.43e9
"""The clock at which the tensor cores of an H200 would run if its 700 W were all for them. With it
and `ENERGY_OF_COPIES` the model is within 3 per cent of what tiles from 64 x 256 to 256 x 192 of
bf16 took at 4096 and 8192 cubed, and within 7 of those with a side of 512; smaller products, which
draw less, take up to a quarter less than it says, in whatever tiles."""

COPY_BYTES_PER_SECOND: Final = 118e9
"""What the TMA of one multiprocessor brings from L2, measured with tiles of 64 x 256: about 64
bytes a cycle. It is as much with multicast, and of all multiprocessors at once."""

COPY_SECONDS: Final = 1.25e-6
"""How long a copy is under way: what is copied in that time are the stages that are held. 64 x 64
with 4 and 8 stages on (64, 4096, 4096) took 20.8 and 13.8 us on an H200."""

DRAM_SHARE: Final = 0.88
"""4.22 of 4.8 TB/s: what kernels that read weights once reached of the datasheet of an H200."""

UNHIDDEN: Final = 0.02
"""The part of the shorter of two that is seen beside the longer one: of tiles for which memory
takes equally long the model then takes those with less to do."""

BEGIN_SECONDS: Final = 2.6e-6
"""From the end of a kernel before to the first product, and from the last one to its end."""

END_SECONDS: Final = 0.7e-6
STORE_BYTES_PER_SECOND: Final = 50e9
EXPAND_SECONDS: Final = 0.06e-9
THREADS_STORE: Final = 3
"""What a tile costs a multiprocessor when its sum is complete, and what it then stores: fitted to
tiles from 64 x 256 to 256 x 192 that `stmatrix` and the TMA store. Threads take three times as long
for elements of 16 bits, of which they fill no sectors: at 4096 cubed a tenth of all time. gelu is
11 instructions an element, of which a multiprocessor issues 128 a cycle."""

PIECE_BYTES: Final = (128, 64, 32)
PIECE_BUFFERS: Final = 2
"""Rows of the pieces in which C is stored, and how many pieces of 64 rows a warpgroup holds."""

CLUSTER_SECONDS: Final = 0.5e-6
"""What it takes blocks of a cluster to begin and end together: (512, 14336, 4096)."""

COMBINE_SECONDS: Final = 1.8e-6
COMBINE_BYTES_PER_SECOND: Final = 1.2e12
"""What it takes to add the parts of a sum: another kernel, and its traffic. 1.85, 2.2 and 3.6 us
were seen for two parts of (1, 4096), (16, 4096) and (64, 4096)."""

ENERGY_OF_COPIES: Final = 0.05
ENERGY_OF_READS: Final = 0.02
"""The part of the time of a copy that is added to that of products, for the power that it takes
from them: into shared memory, and out of L2, where clusters read once. At 8192 cubed clusters won 1
per cent, and 128 x 128 took as long as 128 x 256 with fewer cycles."""


@dataclass(frozen=True, kw_only=True)
class WarpgroupTiles:
    """How a product is cut: the tile of a block, what multiplies it, and what blocks share.

    `cluster_m` blocks below one another share B, `cluster_n` beside one another share A. `group` is
    along how many rows of tiles, or of clusters, blocks are numbered first; 0 is row by row. C is
    stored in pieces with rows of `piece_bytes`, or by the threads themselves where they are 0. With
    `pingpong` two warpgroups take a tile each in turns; `warpgroups` is then 1. With
    `swapped` all of this is of the transpose of C, and A and B change places.
    """

    m: int
    n: int
    warpgroups: int
    stages: int
    cluster_m: int = 1
    cluster_n: int = 1
    split: int = 1
    group: int = 0
    piece_bytes: int = 0
    pingpong: bool = False
    swapped: bool = False

    @property
    def sums(self) -> int:
        """Sums of a thread."""
        return self.m * self.n // (self.warpgroups * THREADS_OF_GROUP)

    @property
    def all_warpgroups(self) -> int:
        """Warpgroups of a block that multiply."""
        return 2 if self.pingpong else self.warpgroups

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.cluster_m * self.cluster_n

    def tiles(self, gemm: Gemm) -> int:
        """Tiles of C, those of whole clusters and of each slice of k counted; `gemm` as cut."""
        down = _round_up(-(-gemm.m // self.m), self.cluster_m)
        if gemm.groups is not None:
            down = most_row_tiles(gemm.groups, gemm.m, self.m, masked=gemm.masked)
        across = _round_up(-(-gemm.n // self.n), self.cluster_n)
        return (gemm.batch or 1) * down * across * self.split


def warpgroup_tiles(gemm: Gemm, machine: GpuMachine, *, expand: bool = False) -> WarpgroupTiles:
    """The tiles with which the model says that `gemm` takes least time.

    `expand` says that there are exponentials in its epilogue, which take registers from the sums.
    """
    most = MOST_SUMS_EXPANDED if expand else MOST_SUMS
    if gemm.scale_block is not None:
        most = MOST_SUMS_SCALED
    fitting = (tiles for tiles in candidates(gemm, machine) if tiles.sums <= most)
    return min(fitting, key=lambda tiles: seconds(gemm, machine, tiles, expand=expand))


def grouped_tiles(gemm: Gemm, machine: GpuMachine, *, expand: bool = False) -> WarpgroupTiles:
    """The tiles for several products, as if all had as many rows: those for a batch of them.

    Their rows begin anywhere, so that blocks share nothing and stand in no other order.
    """
    assert gemm.groups is not None
    even = replace(gemm, groups=None, masked=False, batch=gemm.groups, m=gemm.rows_each)
    most = MOST_SUMS_GROUPED if expand else MOST_SUMS
    fitting = (
        tiles
        for tiles in candidates(even, machine)
        if tiles.sums <= most
        and not tiles.swapped
        and tiles.cluster == tiles.split == 1
        and (stays(gemm, machine, tiles) or not tiles.pingpong)
    )
    best = min(fitting, key=lambda tiles: seconds(even, machine, tiles, expand=expand))
    return replace(best, group=0)


def oriented(gemm: Gemm, tiles: WarpgroupTiles) -> Gemm:
    """The product that `tiles` cut: `gemm`, or that of the transposes."""
    return _transposed(gemm) if tiles.swapped else gemm


def _transposed(gemm: Gemm) -> Gemm:
    """The transpose of C, which a `Gemm` has row by row, as this one does not lie."""
    strides = (
        {}
        if gemm.batch is None
        else {
            "batch_stride_a": gemm.batch_stride("b"),
            "batch_stride_b": gemm.batch_stride("a"),
            "batch_stride_c": None,
        }
    )
    return replace(
        gemm,
        m=gemm.n,
        n=gemm.m,
        trans_a=not gemm.trans_b,
        trans_b=not gemm.trans_a,
        lda=gemm.leading("b"),
        ldb=gemm.leading("a"),
        ldc=None,
        **strides,
    )


def candidates(gemm: Gemm, machine: GpuMachine) -> Iterator[WarpgroupTiles]:
    """All tiles that are tried: those that fit, and no larger than C needs.

    Few rows are also made columns; where they do not fill 64 rows that is tried first. With scales
    of blocks neither is done, nor is k cut, and a tile lies inside of one along n.
    """
    if gemm.scale_block is not None:
        yield from _candidates(gemm, machine, swapped=False)
        return
    if gemm.m < GROUP_ROWS < gemm.n:
        yield from _candidates(_transposed(gemm), machine, swapped=True)
    yield from _candidates(gemm, machine, swapped=False)
    if gemm.m == GROUP_ROWS < gemm.n:
        yield from _candidates(_transposed(gemm), machine, swapped=True)


def _candidates(gemm: Gemm, machine: GpuMachine, *, swapped: bool) -> Iterator[WarpgroupTiles]:
    for m, n, warpgroups, pingpong in _shapes(gemm):
        is_too_large = m > _round_up(gemm.m, GROUP_ROWS) or n > _round_up(gemm.n, PANEL)
        if is_too_large or (not gemm.trans_b and n % PANEL) or not _is_width(gemm, n):
            continue
        if gemm.scale_block is not None and n < gemm.n and gemm.scale_block % n:
            continue
        parts = _splits(gemm.k, gemm.element.item_bytes) if gemm.scale_block is None else (1,)
        for split in parts:
            tiles = WarpgroupTiles(
                m=m,
                n=n,
                warpgroups=warpgroups,
                stages=0,
                split=split,
                pingpong=pingpong,
                swapped=swapped,
            )
            if not pingpong or stays(gemm, machine, tiles):
                yield from _completed(gemm, machine, tiles)


def stays(gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles) -> bool:
    """Whether blocks stay and take several tiles: where there are more than fit at once.

    Not so with parts of k, each of which is a product of its own. `gemm` is as the tiles cut it.
    """
    return tiles.split == 1 and tiles.tiles(gemm) // tiles.cluster > machine.sms // tiles.cluster


def _is_width(gemm: Gemm, n: int) -> bool:
    """Whether there is a product so wide, where C may be narrower than the tile."""
    width = min(n, _round_up(gemm.n, COLUMN_STEP))
    return not gemm.accumulator.is_integer or width in INTEGER_WIDTHS or width % INTEGER_STEP == 0


def _shapes(gemm: Gemm) -> Iterator[tuple[int, int, int, bool]]:
    """m, n, how many warpgroups multiply a tile, and whether two of them take turns."""
    yield from ((m, n, 1, True) for m, n in TURNS)
    yield from ((m, n, warpgroups, False) for m, n, warpgroups in TILES)
    if gemm.n < PANEL:
        columns = _round_up(gemm.n, COLUMN_STEP)
        yield from ((m, columns, warpgroups, False) for m, warpgroups in NARROW_TILES)


def _completed(gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles) -> Iterator[WarpgroupTiles]:
    """`tiles` with and without clusters, and with as many stages as fit beside pieces of C."""
    piece = _piece_bytes(gemm, tiles)
    pieces = PIECE_BUFFERS * GROUP_ROWS * tiles.all_warpgroups * piece
    room = machine.smem_bytes_per_block - BARRIER_BYTES - pieces
    stages = min(room // stage_bytes(tiles.m, tiles.n), MOST_STAGES)
    if stages < LEAST_STAGES:
        return
    clusters = _clusters(gemm, machine, tiles.m, tiles.n)
    for cluster_m, cluster_n in [(1, 1)] if tiles.pingpong else clusters:
        found = replace(
            tiles, cluster_m=cluster_m, cluster_n=cluster_n, stages=stages, piece_bytes=piece
        )
        yield replace(found, group=_group(gemm, machine, found))


def _piece_bytes(gemm: Gemm, tiles: WarpgroupTiles) -> int:
    """Rows of the pieces in which the TMA stores C: elements of 16 bits in whole, aligned rows.

    Sums of slices of k are wider, and a transposed C has no such rows.
    """
    item = gemm.result.item_bytes
    lengths = (gemm.n, gemm.leading("c"), gemm.batch_stride("c"))
    is_aligned = all(length * item % ALIGNMENT_BYTES == 0 for length in lengths)
    if item != PAIR_BYTES or not is_aligned or tiles.split > 1 or tiles.swapped:
        return 0
    return next((size for size in PIECE_BYTES if tiles.n * item % size == 0), 0)


def stage_bytes(m: int, n: int) -> int:
    """Shared memory of one slice of the tiles of A and B."""
    return (m + n) * SLICE_BYTES


def _splits(k: int, item: int) -> Iterator[int]:
    """Into how many parts k may be cut, so that all but the last are made of whole slices."""
    for split in SPLITS:
        size = slice_size(k, split, item)
        if split == 1 or (size * item % SLICE_BYTES == 0 and -(-k // size) == split):
            yield split


def _clusters(gemm: Gemm, machine: GpuMachine, m: int, n: int) -> Iterator[tuple[int, int]]:
    """Blocks along m and n of a cluster: one, or two where C has a second tile there."""
    yield 1, 1
    if machine.max_blocks_per_cluster > 1:
        if gemm.m > m and _can_share(gemm.trans_b, n):
            yield 2, 1
        if gemm.n > n and _can_share(not gemm.trans_a, m):
            yield 1, 2


def _can_share(along_k: bool, extent: int) -> bool:
    """Whether two blocks can each copy half of a tile: rows of whole swizzles, or whole panels."""
    return extent % (2 * (SWIZZLE_ROWS if along_k else PANEL)) == 0


def _group(gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles) -> int:
    """Along how many rows of tiles blocks are numbered first, so that those that run at the same
    time read the least of A and B; 0 where row by row is no worse."""
    height, width = tiles.m * tiles.cluster_m, tiles.n * tiles.cluster_n
    down, across = -(-gemm.m // height), -(-gemm.n // width)
    together = min(machine.sms // tiles.cluster, down * across)

    def read(group: int) -> int:
        columns = min(-(-together // min(group, down)), across)
        return -(-together // columns) * height + columns * width

    best = min((1, *GROUPS), key=read)
    return best if best > 1 and min(down, across) > 1 else 0


def seconds(
    gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles, *, expand: bool = False
) -> float:
    """How long the whole product takes, by the model; `expand` is that of `warpgroup_tiles`."""
    gemm = oriented(gemm, tiles)
    blocks = tiles.tiles(gemm)
    waves = -(-blocks // (machine.sms // tiles.cluster * tiles.cluster))
    slices = -(-gemm.k * gemm.element.item_bytes // (SLICE_BYTES * tiles.split))
    share = TURNS_SHARE if tiles.pingpong else 1
    multiplying = share * slices * slice_seconds(gemm, machine, tiles)
    end = end_seconds(gemm, tiles, expand=expand)
    if tiles.pingpong:
        working = waves * max(multiplying, (multiplying + end) / 2) + end
    else:
        working = waves * (multiplying + end)
    around = BEGIN_SECONDS + (CLUSTER_SECONDS if tiles.cluster > 1 else 0.0)
    if tiles.split > 1:
        parts = (gemm.batch or 1) * tiles.split * gemm.m * gemm.n * gemm.accumulator.item_bytes
        around += COMBINE_SECONDS + parts / COMBINE_BYTES_PER_SECOND
    memory = gemm.bytes_moved / (machine.dram_bytes_per_second * DRAM_SHARE)
    least, longest = sorted((working, memory))
    return around + longest + UNHIDDEN * least


def end_seconds(gemm: Gemm, tiles: WarpgroupTiles, *, expand: bool) -> float:
    """What a tile takes when its sum is complete: its epilogue, and to be stored."""
    stored = gemm.accumulator if tiles.split > 1 else gemm.result
    by_threads = stored.item_bytes == PAIR_BYTES and not tiles.piece_bytes
    each = stored.item_bytes * (THREADS_STORE if by_threads else 1) / STORE_BYTES_PER_SECOND
    each += EXPAND_SECONDS if expand and tiles.split == 1 else 0.0
    return END_SECONDS + tiles.m * tiles.n * each


def slice_seconds(gemm: Gemm, machine: GpuMachine, tiles: WarpgroupTiles) -> float:
    """How long a multiprocessor takes for a slice of k: to multiply, to read, or to copy it.

    `gemm` is as the tiles cut it.
    """
    assert machine.wgmma_flops_per_cycle_per_sm is not None
    products = 2 * tiles.m * tiles.n * SLICE_BYTES // PAIR_BYTES
    read = tiles.m // GROUP_ROWS * (GROUP_ROWS + tiles.n) * SLICE_BYTES
    cycles = max(products / machine.wgmma_flops_per_cycle_per_sm, read / SHARED_BYTES_PER_CYCLE)
    rows, columns = (
        min(tile, _round_up(extent, SWIZZLE_ROWS))
        for tile, extent in ((tiles.m, gemm.m), (tiles.n, gemm.n))
    )
    copied = (rows + columns) * SLICE_BYTES
    held = tiles.stages * copied
    copying = copied / min(COPY_BYTES_PER_SECOND, held / COPY_SECONDS)
    shared = (rows / tiles.cluster_n + columns / tiles.cluster_m) * SLICE_BYTES
    energy = (ENERGY_OF_COPIES * copied + ENERGY_OF_READS * shared) / COPY_BYTES_PER_SECOND
    return max(cycles / SUSTAINED_CLOCK_HZ, copying) + energy


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
