"""The road on a GPU: from one thread an element to the shipped schedule.

One thread an element, neighbours in a warp along rows, slices of A and B in shared memory, tiles in
the registers of a thread, wide copies, tiles of warps; then tensor cores, larger tiles of theirs,
copies that run meanwhile, unrolling; on Hopper the products of warpgroups of what the TMA copies,
larger tiles, clusters, the order of blocks, and blocks that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.schedule import default_schedule
from gemmir.search.ladders.rungs import Climb, Edit
from gemmir.search.ladders.words import bytes_text, per

SUM: Final = "promote{operand=c to=registers}"
SCALAR: Final = "vectorize{with=fma width=1}"

SIDE: Final = 16
"""Threads of a block along m and along n: 256 of them, eight warps."""

WARP: Final = (4, 8)
"""Threads of a warp along m and n, once it has a tile of its own."""

LOAD_BYTES: Final = 16
"""The widest load of a thread."""

BANKS_BYTES: Final = 128
"""A turn of the banks of shared memory, and the longest row of a swizzle."""

SECTOR_BYTES: Final = 32
"""What global memory moves at least."""

COPY_BYTES: Final = 4
"""The shortest asynchronous copy, which begins at a multiple of itself."""

LEAST_STEPS: Final = 2
MMA_K_BYTES: Final = 32
SWIZZLES: Final = (128, 64, 32)
WARPGROUP_K_BYTES: Final = 128
"""A slice of k of a warpgroup: the longest row that the TMA swizzles."""

PAIR_BYTES: Final = 2
"""Elements of 16 bits, for which tensor cores are a rung of the ladder."""

SLICE_BYTES: Final = 64
"""A slice of k of each row of A: two sectors."""

STAGES: Final = 4
"""Slices that are under way or multiplied, where copies are asynchronous."""

WIDE_TILE: Final = (128, 256)
"""The tile of a block of two warpgroups with 128 sums a thread."""

GROUP: Final = 8
"""Rows of tiles along which blocks are numbered."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Sizes of a GPU's ladder: `thread` x `thread` sums a thread, slices of `depth` of k."""

    item: int
    thread: int
    depth: int

    @property
    def block(self) -> int:
        """Rows and columns of the tile of a block."""
        return SIDE * self.thread

    @property
    def width(self) -> int:
        """Elements of the widest load."""
        return LOAD_BYTES // self.item


def tiles_of(gemm: Gemm) -> Tiles:
    """Sizes for elements of `gemm`: half the sums where each takes two registers."""
    item = gemm.element.item_bytes
    return Tiles(item=item, thread=4 if item == 8 else 8, depth=min(SLICE_BYTES // item, 32))


def gpu_climb(gemm: Gemm, machine: GpuMachine) -> Climb:
    """The ladder of `gemm` on `machine`, as far as its units go."""
    tiles, climb = tiles_of(gemm), Climb()
    say = _Why(gemm, machine, tiles)
    _one_thread_an_element(climb, gemm, say)
    _tiles(climb, gemm, tiles, say)
    takes_mma = tiles.item == PAIR_BYTES and gemm.dtype in machine.mma_dtypes
    if takes_mma:
        _tensor_cores(climb, gemm, machine, tiles, say)
    else:
        climb.leave_out("tensor-cores", f"this ladder has none for {gemm.dtype}")
    if machine.has_async_copies:
        _pipeline(climb, gemm, tiles, say)
    else:
        climb.leave_out("async-copies", f"{machine.name} has none")
    if takes_mma and gemm.dtype in machine.wgmma_dtypes and _suits_tma(gemm):
        _warpgroups(climb, gemm, machine, tiles, say)
    else:
        climb.leave_out("wgmma", f"not for {gemm.dtype} in these sizes on {machine.name}")
    climb.arrive(
        "default", "what gemmir compile chooses", say.default(), default_schedule(gemm, machine)
    )
    return climb


def _suits_tma(gemm: Gemm) -> bool:
    """Whether rows begin where the TMA copies from, and C is larger than a tile."""
    strides = [s for name in "ab" for s in (gemm.leading(name), gemm.batch_stride(name))]
    aligned = all(s * gemm.element.item_bytes % LOAD_BYTES == 0 for s in strides)
    return aligned and gemm.m > WIDE_TILE[0] and gemm.n >= WIDE_TILE[1]


def _over(gemm: Gemm, m: int, n: int, unit: str) -> str:
    """The loops over tiles of C, and over the products of a batch."""
    batch, one = ("batch,", "1,") if gemm.batch is not None else ("", "")
    return f"tile{{loops={batch}m,n sizes={one}{m},{n} over={unit}}}"


def _step(steps: Sequence[str], start: str) -> str:
    """The pass of `steps` that begins so."""
    return next(step for step in steps if step.startswith(start))


def _one_thread_an_element(climb: Climb, gemm: Gemm, say: _Why) -> None:
    blocks = _over(gemm, SIDE, SIDE, "blocks")
    down = "tile{loops=n,m sizes=1,1 over=threads}"
    exponential = gemm.has_exponentials and gemm.dtype == "f64"
    steps = [blocks, down, SUM, *(["fuse-epilogue"] if gemm.steps else []), SCALAR]
    steps += ["expand-math"] if exponential else []
    climb.rung(
        "naive", "one thread an element of C", say.naive(), *(Edit(new=step) for step in steps)
    )
    climb.rung(
        "coalesced",
        "neighbours of a warp along a row",
        say.coalesced(),
        Edit(old=down, new="tile{loops=m,n sizes=1,1 over=threads}"),
    )


def _tiles(climb: Climb, gemm: Gemm, tiles: Tiles, say: _Why) -> None:
    """Shared memory, registers, wide loads, and the tile of a warp."""
    ends = "fuse-epilogue" if gemm.steps else SCALAR
    small = [f"promote{{operand={name} to=shared layout=panel:{SIDE}}}" for name in "ab"]
    climb.rung(
        "shared-memory",
        "slices of A and B for the whole block",
        say.shared(),
        Edit(new=f"tile{{loops=k sizes={tiles.depth}}}", before=ends),
        *(Edit(new=step, before=ends) for step in small),
    )
    thread = f"tile{{loops=m,n sizes={tiles.thread},{tiles.thread} over=threads}}"
    large = [f"promote{{operand={name} to=shared layout=panel:{tiles.block}}}" for name in "ab"]
    climb.rung(
        "register-tiled",
        f"{tiles.thread} x {tiles.thread} sums a thread",
        say.registers(),
        Edit(
            old=_over(gemm, SIDE, SIDE, "blocks"),
            new=_over(gemm, tiles.block, tiles.block, "blocks"),
        ),
        Edit(old="tile{loops=m,n sizes=1,1 over=threads}", new=thread),
        *(Edit(old=old, new=new) for old, new in zip(small, large, strict=True)),
    )
    climb.rung(
        "wide-loads",
        f"{LOAD_BYTES} bytes a load",
        say.wide(),
        Edit(old=SCALAR, new=f"vectorize{{with=fma width={tiles.width}}}"),
    )
    rows, columns = WARP[0] * tiles.thread, WARP[1] * tiles.thread
    padded = tiles.block + LOAD_BYTES // tiles.item
    panel = max(BANKS_BYTES // tiles.item, tiles.thread)
    climb.rung(
        "warp-tiled",
        f"{rows} x {columns} a warp, rows apart",
        say.warps(),
        Edit(new=f"tile{{loops=m,n sizes={rows},{columns} over=warps}}", before=thread),
        Edit(old=large[0], new=f"promote{{operand=a to=shared layout=panel:{padded}}}"),
        Edit(old=large[1], new=f"promote{{operand=b to=shared layout=panel:{panel}}}"),
    )


def _tensor_cores(climb: Climb, gemm: Gemm, machine: GpuMachine, tiles: Tiles, say: _Why) -> None:
    a, b = (_step(climb.steps, f"promote{{operand={name}") for name in "ab")
    rows = {"a": not gemm.trans_a, "b": gemm.trans_b}
    layouts = {name: _swizzle(tiles, along_k=along) for name, along in rows.items()}
    shape = (
        ""
        if machine.mma_k_bytes == MMA_K_BYTES
        else f" shape=16,8,{machine.mma_k_bytes // tiles.item}"
    )
    mma = f"vectorize{{with=mma width={tiles.width}{shape}}}"
    climb.rung(
        "tensor-cores",
        "a product of a whole warp",
        say.tensor_cores(),
        Edit(old=f"tile{{loops=m,n sizes={tiles.thread},{tiles.thread} over=threads}}"),
        Edit(old=a, new=f"promote{{operand=a to=shared layout=swizzle:{layouts['a']}}}"),
        Edit(old=b, new=f"promote{{operand=b to=shared layout=swizzle:{layouts['b']}}}"),
        Edit(old=f"vectorize{{with=fma width={tiles.width}}}", new=mma),
    )
    warp = f"tile{{loops=m,n sizes={WARP[0] * tiles.thread},{WARP[1] * tiles.thread} over=warps}}"
    climb.rung(
        "square-warp-tiles",
        "64 x 64 a warp",
        say.square(),
        Edit(old=warp, new="tile{loops=m,n sizes=64,64 over=warps}"),
    )


def _swizzle(tiles: Tiles, *, along_k: bool) -> int:
    """The longest swizzle that a row of the tile of a block fills."""
    row = tiles.item * (tiles.depth if along_k else tiles.block)
    return next(size for size in SWIZZLES if size <= row)


def _pipeline(climb: Climb, gemm: Gemm, tiles: Tiles, say: _Why) -> None:
    rows = {name: gemm.leading(name) * tiles.item for name in "ab"}
    if odd := [name for name, row in rows.items() if row % COPY_BYTES]:
        climb.leave_out("async-copies", f"rows of {odd[0]} are {rows[odd[0]]} bytes apart")
        return
    ends = next(s for s in climb.steps if s.startswith(("fuse-epilogue", "vectorize")))
    stages = STAGES if tiles.item == PAIR_BYTES else 2
    climb.rung(
        "async-copies",
        f"{stages - 1} slices under way",
        say.copies(stages),
        Edit(new=f"pipeline{{loop=k stages={stages} with=cp.async}}", before=ends),
    )
    step = min(tiles.depth, gemm.k)
    if any("with=mma" in s for s in climb.steps):
        step = -(-step * tiles.item // MMA_K_BYTES)
    if step < LEAST_STEPS:
        climb.leave_out("unrolled", f"all of k={gemm.k} is one step")
        return
    last = Edit(new=f"unroll{{loop=k factor={step}}}")
    if climb.steps[-1] == "expand-math":
        last = Edit(new=last.new, before="expand-math")
    climb.rung("unrolled", "a whole slice an iteration", say.unrolled(step), last)


def _warpgroups(climb: Climb, gemm: Gemm, machine: GpuMachine, tiles: Tiles, say: _Why) -> None:
    """Hopper: products of warpgroups, larger tiles, clusters, their order, and few blocks."""
    steps, depth = climb.steps, WARPGROUP_K_BYTES // tiles.item
    square = _over(gemm, tiles.block, tiles.block, "blocks")
    swizzle = f"layout=swizzle:{WARPGROUP_K_BYTES}"
    tiled = {name: _step(steps, f"promote{{operand={name}") for name in "ab"}
    promoted = [
        Edit(old=old, new=f"promote{{operand={name} to=shared {swizzle}}}")
        for name, old in tiled.items()
        if swizzle not in old
    ]
    climb.rung(
        "wgmma",
        "warpgroups multiply what the TMA copies",
        say.warpgroups(),
        Edit(
            old="tile{loops=m,n sizes=64,64 over=warps}",
            new="tile{loops=m sizes=64 over=warpgroups}",
        ),
        Edit(old=f"tile{{loops=k sizes={tiles.depth}}}", new=f"tile{{loops=k sizes={depth}}}"),
        *promoted,
        Edit(
            old=_step(steps, "pipeline"),
            new=f"pipeline{{loop=k stages={STAGES} with=tma specialize=true}}",
        ),
        Edit(old=_step(steps, "vectorize"), new="vectorize{with=wgmma}"),
        *(Edit(old=step) for step in steps if step.startswith("unroll")),
    )
    wide = _over(gemm, *WIDE_TILE, "blocks")
    climb.rung(
        "wide-tiles",
        f"{WIDE_TILE[0]} x {WIDE_TILE[1]} a block",
        say.wide_tiles(),
        Edit(old=square, new=wide),
    )
    clusters = _over(gemm, 2 * WIDE_TILE[0], WIDE_TILE[1], "clusters")
    climb.rung(
        "clusters",
        "two blocks share B",
        say.clusters(),
        Edit(old=wide, new=clusters),
        Edit(
            new=f"tile{{loops=m sizes={WIDE_TILE[0]} over=blocks}}",
            before="tile{loops=m sizes=64 over=warpgroups}",
        ),
    )
    down = -(-gemm.m // (2 * WIDE_TILE[0]))
    across = -(-gemm.n // WIDE_TILE[1])
    if min(down, across) > 1:
        group = min(GROUP, down)
        climb.rung(
            "block-order",
            f"blocks in groups of {group} rows",
            say.order(),
            Edit(
                new=f"interchange{{order=m,n group={group}}}",
                before=f"tile{{loops=m sizes={WIDE_TILE[0]} over=blocks}}",
            ),
        )
    stay = machine.sms // 2
    count = (gemm.batch or 1) * down * across
    if count > stay:
        climb.rung(
            "persistent",
            "as many blocks as fit",
            say.persistent(count, stay),
            Edit(
                new=f"persist{{blocks={stay}}}",
                before="tile{loops=m sizes=64 over=warpgroups}",
            ),
        )
    else:
        climb.leave_out("persistent", f"{count} tiles are no more than {stay} clusters")


@dataclass(frozen=True)
class _Why:
    """Why each rung is faster than the one before, with the numbers of a problem and a machine."""

    gemm: Gemm
    machine: GpuMachine
    tiles: Tiles

    def _read(self, block_m: int, block_n: int) -> str:
        """What all blocks read of A and B."""
        gemm, item = self.gemm, self.tiles.item
        count = (gemm.batch or 1) * gemm.m * gemm.n * gemm.k * item
        return bytes_text(count // block_m + count // block_n)

    def naive(self) -> str:
        gemm, item = self.gemm, self.tiles.item
        text = (
            f"Every thread sums one element of C: two loads of {item} bytes for each multiply-add, "
            f"{per(2, 2 * item)} flops a byte. Threads of a warp are numbered down a column of C, "
        )
        if gemm.trans_a:
            return (
                f"{text}and A is stored k x m, so that what they read of A adjoins; what they "
                "write of C does not."
            )
        return (
            f"{text}so that they read elements of A that are "
            f"{bytes_text(gemm.leading('a') * item)} apart, each from a sector of {SECTOR_BYTES} "
            f"bytes of its own, of which {item} are used."
        )

    def coalesced(self) -> str:
        if self.gemm.trans_b:
            apart = bytes_text(self.gemm.leading("b") * self.tiles.item)
            return (
                "The same loads by other threads: neighbours in a warp have neighbouring columns, "
                "so what they write of C adjoins, and of A all in a row read the same element. But "
                f"B is stored n x k, and its columns are {apart} apart: for B this order is the "
                "wrong one, until slices of it are copied along k."
            )
        return (
            "The same loads by other threads: neighbours in a warp have neighbouring columns, so "
            "what they read of B adjoins and is fetched in whole sectors, and of A all in a row "
            "read the same element, which is fetched once."
        )

    def shared(self) -> str:
        return (
            f"Threads of a block of {SIDE} x {SIDE} read the same rows of A and columns of B. A "
            f"slice of {self.tiles.depth} of k is copied into shared memory once for all of them, "
            f"so that each element is fetched by the block once rather than {SIDE} times: "
            f"{self._read(SIDE, SIDE)} in all instead of {self._read(1, 1)} of loads. The inner "
            "loop still has two loads a multiply-add, but of memory that answers in some 30 "
            "cycles. Where the first cache "
            "served the block as well, this gains nothing yet: it is what tiles in registers will "
            "read from."
        )

    def registers(self) -> str:
        thread, block = self.tiles.thread, self.tiles.block
        return (
            f"A thread keeps {thread} x {thread} sums in registers: {thread * thread} "
            f"multiply-adds for {2 * thread} elements from shared memory, {per(thread, 2)} an "
            f"element where there was half a one. A block now has {block} x {block} of C, and all "
            f"blocks together read {self._read(block, block)} of global memory rather than "
            f"{self._read(SIDE, SIDE)}."
        )

    def wide(self) -> str:
        return (
            f"Copies move {LOAD_BYTES} bytes a load, {self.tiles.width} elements, so that filling "
            f"a slice takes one load instruction where there were {self.tiles.width}, and each "
            "warp asks for whole lines at once."
        )

    def warps(self) -> str:
        rows, columns = WARP[0] * self.tiles.thread, WARP[1] * self.tiles.thread
        return (
            f"A warp has {rows} x {columns} of C, {WARP[0]} x {WARP[1]} threads: together its "
            f"threads read {rows + columns} elements for a step of k, where a strip of two rows of "
            f"threads read {2 * self.tiles.thread + self.tiles.block}. Columns of A begin "
            f"{LOAD_BYTES} bytes later each, and rows of B are cut into panels of {BANKS_BYTES} "
            "bytes: threads that load together and met one bank meet different ones. Where none "
            "did, the banks are as busy as before."
        )

    def tensor_cores(self) -> str:
        depth = self.machine.mma_k_bytes // self.tiles.item
        return (
            f"One instruction of a warp, mma.sync of 16 x 8 x {depth}, is {128 * depth} "
            f"multiply-adds, {4 * depth} a lane, where a thread had one: what limits the kernel is "
            "now to feed it. ldmatrix brings four 8 x 8 pieces in one instruction, and the swizzle "
            "lets its eight rows lie in different banks without any padding."
        )

    def square(self) -> str:
        small = WARP[0] * self.tiles.thread, WARP[1] * self.tiles.thread
        before, after = per(small[0] * small[1], sum(small)), per(64 * 64, 128)
        return (
            f"A warp of {small[0]} x {small[1]} multiplies {before} times for each element that it "
            f"reads of shared memory, one of 64 x 64 {after} times. Half as many warps do twice as "
            "much each; a thread has 128 sums."
        )

    def copies(self, stages: int) -> str:
        slice_bytes = 2 * self.tiles.block * self.tiles.depth * self.tiles.item
        return (
            f"cp.async writes from global to shared memory without registers, and nobody waits for "
            f"it before the slice is needed: {stages - 1} slices of {bytes_text(slice_bytes)} are "
            "under way while one is multiplied. Before, all threads copied, met at a barrier, and "
            "multiplied, in turns."
        )

    def unrolled(self, factor: int) -> str:
        return (
            f"{factor} steps of k, a whole slice, are one body without branches: addresses in "
            "shared memory become constants of the instructions, and loads of the next step stand "
            "among the products of this one."
        )

    def warpgroups(self) -> str:
        return (
            "wgmma multiplies 64 x 128 x 16 for four warps, straight from shared memory: no "
            "ldmatrix, no registers for A and B. One thread asks the TMA for whole tiles, by "
            "coordinates, and barriers in shared memory say when they have come; a warpgroup of "
            "its own does that, and gives its registers to the others. mma.sync reaches about two "
            "thirds of what these units do."
        )

    def wide_tiles(self) -> str:
        m, n = WIDE_TILE
        before, after = self._read(self.tiles.block, self.tiles.block), self._read(m, n)
        return (
            f"A block of {m} x {n} reads {m + n} rows of k for {m * n} sums: {after} in all rather "
            f"than {before}. wgmma of 64 x 256 reads 80 bytes a cycle of shared memory, that of "
            "64 x 128 reads 96 of the 128 that there are."
        )

    def clusters(self) -> str:
        m, n = WIDE_TILE
        return (
            f"Two blocks that need the same {n} columns of B run on neighbouring multiprocessors, "
            "each asks for half of it, and the TMA delivers to both: L2 is read for "
            f"{self._read(2 * m, n)} rather than {self._read(m, n)}, which saves power more than "
            "time."
        )

    def order(self) -> str:
        return (
            "Blocks that run at the same time are numbered so that they form a square of C rather "
            "than a strip: they read fewer rows of A and columns of B between them, which L2 "
            f"({bytes_text(self.machine.l2_bytes)}) then holds."
        )

    def persistent(self, tiles: int, stay: int) -> str:
        return (
            f"{stay} clusters take the {tiles} tiles in turn instead of one cluster a tile: "
            "barriers are made once, and the TMA already copies for the next tile while this one "
            "is stored."
        )

    def default(self) -> str:
        return (
            "The schedule that the rules and models of this machine choose for these sizes; the "
            "lines above say where it differs from the rung before."
        )
