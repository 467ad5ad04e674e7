"""The road on a CPU: from three loops around one multiply-add to the shipped schedule.

The rungs are those of every lecture on the subject, with the sizes of this machine: loops in an
order that reads along rows, blocks for the caches, sums in registers, packing, vectors, unrolling,
prefetching, and cores. What stands in `why` is reckoned from the problem and the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule import default_schedule
from gemmir.search.ladders.rungs import Climb, Edit
from gemmir.search.ladders.words import bytes_text, held, per

LINE_BYTES = 64
"""A cache line of every CPU that is shipped."""

PAGE_BYTES = 4096

K_SLICE_BYTES = 1024
"""Of each row of A at a time: a quarter of a page; rows pages apart then share few sets of L1."""

MOST_ROWS = 8
"""Rows of a register tile: of A where it lies each takes a way of the same sets of L1."""

FILL = "fuse-pack{operand=b}"

K_STEPS = 4
"""Steps of k an iteration, where the loop is unrolled."""

MANY_REGISTERS = 32
"""Tiles of so many registers have the multiply-adds beside which an iteration can ask for lines."""

SUM = "promote{operand=c to=registers}"
SCALAR = "vectorize{with=fma width=1}"
NAIVE = "tile{loops=m,n,k sizes=1,1,1}"
ALONG_ROWS = "tile{loops=m,k,n sizes=1,1,1}"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The sizes of a CPU's ladder: `mr` x `vectors` registers of sums, blocks `kc` x `nc` of B."""

    mr: int
    vectors: int
    lanes: int
    kc: int
    nc: int

    @property
    def nr(self) -> int:
        """Columns of the register tile, once a register holds a vector."""
        return self.vectors * self.lanes


def blocks_of(gemm: Gemm, machine: CpuMachine) -> Blocks:
    """Sizes from the registers and caches of `machine`.

    Sums take three quarters of the registers at most; a block of B takes half of L2.
    """
    item = gemm.element.item_bytes
    lanes = machine.lanes(gemm.accumulator.item_bytes)
    vectors = max(2, LINE_BYTES // machine.vector_bytes)
    vectors = min(vectors, -(-gemm.n // lanes))
    rows = min(MOST_ROWS, machine.vector_registers * 3 // 4 // vectors, gemm.m)
    columns = vectors * lanes
    kc = _even(gemm.k, K_SLICE_BYTES // item, K_STEPS)
    nc = _even(gemm.n, machine.l2_bytes // 2 // (kc * item), columns)
    return Blocks(mr=rows, vectors=vectors, lanes=lanes, kc=kc, nc=nc)


def _even(extent: int, most: int, step: int) -> int:
    """A block of at most `most`, a multiple of `step`, of which there are equal ones."""
    parts = -(-extent // max(most, step))
    even = -(-extent // parts // step) * step
    return min(even, max(most, step) // step * step, extent)


def cpu_climb(gemm: Gemm, machine: CpuMachine, threads: int = 1) -> Climb:
    """The ladder of `gemm` on one core of `machine`, and at its end on `threads` cores."""
    blocks, climb = blocks_of(gemm, machine), Climb()
    say = _Why(gemm, machine, blocks)
    edges = "" if gemm.m % blocks.mr == 0 else " edges=peel"
    batch = ["tile{loops=batch sizes=1}"] if gemm.batch is not None else []
    exponential = ["expand-math"] if gemm.has_exponentials else []
    first = [*batch, NAIVE, SUM, SCALAR, *exponential]
    climb.rung(
        "naive",
        "three loops around one multiply-add",
        say.naive(),
        *(Edit(new=step) for step in first),
    )
    climb.rung(
        "loop-order", "n innermost: along the rows", say.order(), Edit(old=NAIVE, new=ALONG_ROWS)
    )
    _block(climb, gemm, blocks, say)
    cut = f"tile{{loops=m sizes={blocks.mr}}}"
    scalars = f"tile{{loops=n sizes={blocks.vectors}}}"
    climb.rung(
        "register-tiled",
        f"{blocks.mr} x {blocks.vectors} sums in registers",
        say.registers(),
        Edit(old=ALONG_ROWS, new=cut),
        Edit(new=scalars, before=SUM),
    )
    packing = f"promote{{operand=b to=l2 layout=panel:{blocks.vectors}}}"
    climb.rung("packed", "the block of B in panels", say.packed(), Edit(new=packing, before=cut))
    columns = min(blocks.nr, gemm.n)
    wide = f"tile{{loops=n sizes={columns}}}"
    vectors = f"vectorize{{with=fma width={blocks.lanes}}}"
    climb.rung(
        "vectorized",
        f"a vector of {blocks.lanes} for each scalar",
        say.vectorized(),
        Edit(old=packing, new=f"promote{{operand=b to=l2 layout=panel:{columns}}}"),
        Edit(old=scalars, new=wide),
        Edit(old=SCALAR, new=vectors),
    )
    if gemm.steps:
        climb.rung(
            "fused",
            "the epilogue on sums in registers",
            say.fused(),
            Edit(new="fuse-epilogue", before=vectors),
        )
    unroll = f"unroll{{loop=k factor={min(K_STEPS, blocks.kc)}}}"
    if blocks.kc > 1:
        climb.rung(
            "unrolled",
            "several steps of k an iteration",
            say.unrolled(),
            Edit(new=unroll, before=exponential[0] if exponential else ""),
        )
    before, asks = "fuse-epilogue" if gemm.steps else vectors, list[Edit]()
    if gemm.m >= 2 * blocks.mr and gemm.n > columns:
        asks = _asks(gemm, machine, blocks, before=before)
        early = [Edit(old=cut, new=f"tile{{loops=m sizes={blocks.mr}{edges}}}")] if edges else []
        if gemm.n % blocks.nc:
            over = f"tile{{loops=n sizes={blocks.nc}"
            early.append(Edit(old=f"{over}}}", new=f"{over} edges=peel}}"))
        climb.rung(
            "prefetched",
            "what comes next is asked for early",
            say.prefetched(),
            *early,
            *asks,
        )
    else:
        climb.leave_out("prefetched", "C has too few register tiles for one to come next")
    default = default_schedule(gemm, machine)
    within_sums = f"tile{{loops=k sizes={K_STEPS}}}" in [edit.new for edit in asks]
    if within_sums and FILL in default.steps:
        climb.rung(
            "filled",
            "the first rows fill the panels",
            say.filled(),
            Edit(new=FILL, before=before),
        )
    climb.arrive("default", "what gemmir compile chooses", say.default(), default)
    if threads > 1:
        climb.arrive(
            "threads",
            f"{threads} cores",
            say.threads(threads),
            default_schedule(gemm, machine, threads),
        )
    return climb


def _asks(gemm: Gemm, machine: CpuMachine, blocks: Blocks, before: str) -> list[Edit]:
    """For the next rows of A and the tile of C: line by line in the sum, or before it begins."""
    ask = "prefetch{operand=a loop=m ahead=1 to=l1 during=n"
    few = machine.vector_registers < MANY_REGISTERS
    if few or gemm.k % blocks.kc or blocks.kc % K_STEPS:
        return [
            Edit(new=f"{ask}}}", before=SUM),
            Edit(old=SUM, new="promote{operand=c to=registers prefetch=true}"),
        ]
    return [
        Edit(new=f"tile{{loops=k sizes={K_STEPS}}}", before=before),
        Edit(new=f"{ask},k}}", before=before),
        Edit(new="prefetch{operand=c loop=n ahead=0 during=k}", before=before),
    ]


def _block(climb: Climb, gemm: Gemm, blocks: Blocks, say: _Why) -> None:
    """The rung of blocks for the caches, where B has more than one."""
    cuts = [
        Edit(new=f"tile{{loops={name} sizes={size}}}", before=ALONG_ROWS)
        for name, size, extent in (("n", blocks.nc, gemm.n), ("k", blocks.kc, gemm.k))
        if size < extent
    ]
    if cuts:
        climb.rung("cache-tiled", "a block of B at a time", say.tiled(), *cuts)
    else:
        climb.leave_out("cache-tiled", f"all of B, {gemm.k} x {gemm.n}, is one block")


@dataclass(frozen=True)
class _Why:
    """Why each rung is faster than the one before, with the numbers of a problem and a machine."""

    gemm: Gemm
    machine: CpuMachine
    blocks: Blocks

    @property
    def _item(self) -> int:
        return self.gemm.element.item_bytes

    def _held(self, size: int) -> str:
        return held(size, self.machine)

    def naive(self) -> str:
        gemm, item = self.gemm, self._item
        c = gemm.result.item_bytes
        moved = 2 * item + 2 * c
        column = gemm.k * LINE_BYTES
        apart = gemm.leading("b") * item
        text = (
            f"Every multiply-add loads an element of A, of B and of C and stores C: {moved} bytes "
            f"for 2 flops. Each sum goes through memory, so the next multiply-add waits for the "
            "store before it."
        )
        if gemm.trans_b:
            return f"{text} B is stored n x k, so that its columns are read along rows already."
        if apart < LINE_BYTES:
            return (
                f"{text} Down a column of B the elements are {bytes_text(apart)} apart, so that a "
                f"line has {LINE_BYTES // apart} of them."
            )
        return (
            f"{text} Down a column of B the elements are {bytes_text(apart)} apart, each in a line "
            f"of its own: the {gemm.k} lines of a column are {bytes_text(column)}, "
            f"{self._held(column)}, of which {item} bytes in {LINE_BYTES} are used."
        )

    def order(self) -> str:
        along = LINE_BYTES // self._item
        row = self.gemm.n * self.gemm.result.item_bytes
        apart = self.gemm.leading("b") * self._item
        if self.gemm.trans_b:
            return (
                "The same loads and stores in another order: neighbours in a row of C are "
                "different sums, so no multiply-add waits for the one before, and C is walked "
                "along its rows. But B is stored n x k, so that with n innermost its elements are "
                f"{bytes_text(apart)} apart: what the order gains for C it loses for B, until B is "
                "packed."
            )
        return (
            "The same loads and stores in another order: with n innermost B and C are walked "
            f"along their rows, so that all {along} elements of a line are used before the next "
            "one, which the prefetcher has brought. Neighbours in a row of C are different sums, "
            f"so no multiply-add waits for the one before; a row of C is {bytes_text(row)}, "
            f"{self._held(row)}."
        )

    def tiled(self) -> str:
        gemm, blocks, item = self.gemm, self.blocks, self._item
        whole, block = gemm.k * gemm.n * item, blocks.kc * blocks.nc * item
        turns = -(-gemm.k // blocks.kc)
        return (
            f"All of B, {bytes_text(whole)}, was read for each of the {gemm.m} rows of A; it is "
            f"{self._held(whole)}. A block of {blocks.kc} x {blocks.nc} is {bytes_text(block)}, "
            f"{self._held(block)}, and serves all rows before the next one is needed. The price: C "
            f"is gone through {turns} times."
        )

    def registers(self) -> str:
        blocks = self.blocks
        products, loads = blocks.mr * blocks.vectors, blocks.mr + blocks.vectors
        return (
            f"A tile of {blocks.mr} x {blocks.vectors} sums stays in {products} of "
            f"{self.machine.vector_registers} registers for {min(blocks.kc, self.gemm.k)} steps of "
            f"k: C is loaded and stored once a tile, not once a step. {products} multiply-adds "
            f"share {blocks.mr} elements of A and {blocks.vectors} of B: {per(products, loads)} a "
            "load, where there was one for two loads and a store; and they are independent, which "
            "hides the latency of each."
        )

    def packed(self) -> str:
        gemm, blocks, item = self.gemm, self.blocks, self._item
        apart = gemm.leading("b") * item
        used = -(-gemm.m // blocks.mr)
        where = "in another page each" if apart >= PAGE_BYTES else "in other lines"
        if self.gemm.trans_b:
            return (
                f"B is stored n x k: the {blocks.vectors} elements that the tile reads at each "
                f"step of k are {bytes_text(apart)} apart. Copied into panels {blocks.vectors} "
                "columns wide they lie in the order in which they are read, one line after "
                "another. The "
                f"copy is one load and store an element, and each is then used by {used} tiles."
            )
        if apart < LINE_BYTES:
            where = f"{LINE_BYTES // apart} of them in a line"
        return (
            f"The tile reads {blocks.vectors} elements of a row of B at each step of k, and these "
            f"rows are {bytes_text(apart)} apart, {where}. Copied into panels {blocks.vectors} "
            "columns wide they lie in the order in which they are read, one line after another. "
            f"The copy is one load and store an element, and each is then used by {used} tiles."
        )

    def vectorized(self) -> str:
        blocks, machine = self.blocks, self.machine
        peak = machine.flops_per_cycle(self.gemm.accumulator.item_bytes)
        columns = min(blocks.nr, self.gemm.n)
        unused = f" ({blocks.nr - columns} columns unused)" if columns < blocks.nr else ""
        return (
            f"Every register of the tile now holds {blocks.lanes} sums instead of one, {blocks.mr} "
            f"x {blocks.nr} in the same {blocks.mr * blocks.vectors} registers{unused}: the "
            f"same number of instructions does {blocks.lanes} times the work. A row of the panel, "
            f"{bytes_text(columns * self._item)}, is {blocks.vectors} loads, and an element of A "
            f"is broadcast to all lanes for the {blocks.vectors} multiply-adds of its row; "
            f"{machine.fma_per_cycle} FMA a cycle of {blocks.lanes} lanes are {peak} flops a cycle."
        )

    def fused(self) -> str:
        size = self.gemm.m * self.gemm.n * self.gemm.result.item_bytes
        return (
            f"The epilogue ({self.gemm.epilogue}) read and wrote all of C once more, "
            f"{bytes_text(2 * size)}. On sums that are still in registers it costs its arithmetic."
        )

    def unrolled(self) -> str:
        products, steps = self.blocks.mr * self.blocks.vectors, min(K_STEPS, self.blocks.kc)
        return (
            f"Counting and branching are paid once for {steps} steps of k, beside "
            f"{steps * products} multiply-adds rather than {products}. A wide core has issue "
            "slots to spare, so the gain is small or none; every sum keeps its order."
        )

    def prefetched(self) -> str:
        blocks, item = self.blocks, self._item
        rows = blocks.mr * blocks.kc * item
        return (
            f"The {blocks.mr} rows of A that come next, {bytes_text(rows)}, are asked for while "
            "the ones before are multiplied, a share with each tile along n, and a tile of C "
            "before it is added to. Neither is waited for then, which counts where A comes from "
            "L3 or memory. Requests that come together hold up the loads behind them: where an "
            "iteration over k has enough to do, each asks for a line or two."
        )

    def filled(self) -> str:
        rows, lanes = self.blocks.mr, self.blocks.nr
        return (
            f"The block of B is not copied before it is multiplied: the first {rows} rows of A "
            f"copy the {lanes} elements of a row that they are about to multiply, and loads and "
            f"stores go beside multiply-adds. That is once for {self.gemm.m} rows, of which a line "
            "of B takes half a cycle each: the fewer rows, the more it saves."
        )

    def default(self) -> str:
        return (
            "The schedule that the model of this machine chooses for these sizes. Where it "
            "differs from the rung before, the lines above say how; gemmir explain says what each "
            "pass does."
        )

    def threads(self, threads: int) -> str:
        peak = threads * self.machine.flops_per_cycle(self.gemm.accumulator.item_bytes)
        return (
            f"{threads} cores take parts of C that do not overlap: {peak} flops a cycle together, "
            "and each has its own L1 and L2. What they share is L3 and memory; every element of C "
            "is summed by one core, so its bits stay the same."
        )
