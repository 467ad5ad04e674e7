"""The road on a TPU: from blocks of one matrix unit to the shipped schedule.

A step of a grid multiplies two blocks that the DMA has brought into VMEM. Blocks grow, first along
m and n, then along k until all of it is in one step; then as far as VMEM goes; then the grid walks
in the order that brings fewer bytes, and a block is multiplied a part at a time, whose sums stay in
registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine
from gemmir.schedule import default_schedule
from gemmir.schedule.default_tpu import (
    MOST_STEP_CYCLES,
    PART_ROWS,
    SPLIT_BYTES,
    VMEM_SHARE,
    TpuBlocks,
    step_cycles,
    vmem_bytes,
)
from gemmir.search.ladders.rungs import Climb, Edit
from gemmir.search.ladders.words import bytes_text, per

UNIT: Final = 128
"""The smallest block: one 128 x 128 matrix unit, or a quarter of a larger one."""

SQUARE: Final = 512
"""Rows and columns of a larger block, and its slice of k."""

WIDE: Final = ((1024, 512), (512, 512), (512, 256), (256, 256))
"""Blocks with all of k, the largest first: one that VMEM holds is taken."""

SUM: Final = "promote{operand=c to=vmem}"
END: Final = "vectorize{with=mxu}"


def tpu_climb(gemm: Gemm, machine: TpuMachine) -> Climb:
    """The ladder of `gemm` on `machine`."""
    climb = Climb()
    say = _Why(gemm, machine)
    small, large = _square(gemm, UNIT), _square(gemm, SQUARE)
    depth = min(UNIT, gemm.k)
    cut = f"tile{{loops=k sizes={depth}}}"
    fused = ["fuse-epilogue"] if gemm.steps else []
    copied = ["promote{operand=a to=vmem}", "promote{operand=b to=vmem}"]
    by_k = "pipeline{loop=k stages=2 with=dma}"
    is_cut = depth < gemm.k
    first = [_grid(gemm, "nm", small), SUM, *([cut] if is_cut else []), *copied, *fused]
    first += [by_k if is_cut else "pipeline{loop=m stages=2 with=dma}", END]
    climb.rung(
        "small-blocks",
        f"{small[0]} x {small[1]} x {depth} a step",
        say.small(small, depth),
        *(Edit(new=step) for step in first),
    )
    at = small
    if large != small:
        climb.rung(
            "large-blocks",
            f"{large[0]} x {large[1]} x {depth} a step",
            say.large(small, large),
            Edit(old=_grid(gemm, "nm", small), new=_grid(gemm, "nm", large)),
        )
        at = large
    else:
        climb.leave_out("large-blocks", f"C is {gemm.m} x {gemm.n}")
    if is_cut:
        at = _along_k(climb, gemm, machine, at, depth, say)
    has_all_k = not any(step.startswith("tile{loops=k") for step in climb.steps)
    if has_all_k:
        _order(climb, gemm, at, say)
        _parts(climb, gemm, machine, at, say)
    climb.arrive(
        "default", "what gemmir compile chooses", say.default(), default_schedule(gemm, machine)
    )
    return climb


def _square(gemm: Gemm, side: int) -> tuple[int, int]:
    return min(side, gemm.m), min(side, gemm.n)


def _grid(gemm: Gemm, order: str, block: tuple[int, int]) -> str:
    """The loops over blocks of C, outermost first."""
    batch, one = ("batch,", "1,") if gemm.batch is not None else ("", "")
    size = {"m": block[0], "n": block[1]}
    sizes = ",".join(str(size[name]) for name in order)
    return f"tile{{loops={batch}{','.join(order)} sizes={one}{sizes} over=grid}}"


def _fits(gemm: Gemm, machine: TpuMachine, block: tuple[int, int]) -> bool:
    """Whether two buffers of such blocks with all of k leave a quarter of VMEM."""
    blocks = TpuBlocks(order="mn", m=block[0], n=block[1], k=gemm.k)
    return (
        vmem_bytes(gemm, blocks) <= machine.vmem_bytes_per_core * VMEM_SHARE
        and step_cycles(gemm, machine, blocks) <= MOST_STEP_CYCLES
    )


def _along_k(
    climb: Climb, gemm: Gemm, machine: TpuMachine, at: tuple[int, int], depth: int, say: _Why
) -> tuple[int, int]:
    """Longer slices of k, then all of it, then blocks as large as VMEM allows; the last block."""
    deep, slice_ = min(SQUARE, gemm.k), depth
    cut = f"tile{{loops=k sizes={depth}}}"
    if deep < gemm.k:
        longer = f"tile{{loops=k sizes={deep}}}"
        climb.rung(
            "deep-blocks",
            f"{at[0]} x {at[1]} x {deep} a step",
            say.deep(at, depth, deep),
            Edit(old=cut, new=longer),
        )
        cut, slice_ = longer, deep
    blocks = [_clipped(gemm, block) for block in (*WIDE, (UNIT, UNIT))]
    fitting = [block for block in blocks if _fits(gemm, machine, block)]
    if not fitting:
        room = bytes_text(machine.vmem_bytes_per_core)
        climb.leave_out("full-k", f"all of k={gemm.k} does not fit {room} of VMEM")
        return at
    whole = at if at in fitting else fitting[0]
    climb.rung(
        "full-k",
        "all of k in one step",
        say.full(at, whole, slice_),
        *([] if whole == at else [Edit(old=_grid(gemm, "nm", at), new=_grid(gemm, "nm", whole))]),
        Edit(old=cut),
        Edit(old="pipeline{loop=k stages=2 with=dma}", new="pipeline{loop=m stages=2 with=dma}"),
    )
    widest = fitting[0]
    if widest[0] * widest[1] <= whole[0] * whole[1]:
        climb.leave_out("vmem-blocks", f"no larger blocks than {whole[0]} x {whole[1]} fit")
        return whole
    climb.rung(
        "vmem-blocks",
        f"{widest[0]} x {widest[1]} x {gemm.k} a step",
        say.wide(whole, widest),
        Edit(old=_grid(gemm, "nm", whole), new=_grid(gemm, "nm", widest)),
    )
    return widest


def _clipped(gemm: Gemm, block: tuple[int, int]) -> tuple[int, int]:
    return min(block[0], gemm.m), min(block[1], gemm.n)


def _order(climb: Climb, gemm: Gemm, at: tuple[int, int], say: _Why) -> None:
    """The other order of the grid, where it brings fewer bytes."""
    before, after = _moved(gemm, "nm", at), _moved(gemm, "mn", at)
    if after >= before:
        climb.leave_out(
            "grid-order", f"blocks of m, n in turn would bring {bytes_text(after)} of A and B too"
        )
        return
    climb.rung(
        "grid-order",
        "a row of blocks after another",
        say.order(before, after),
        Edit(old=_grid(gemm, "nm", at), new=_grid(gemm, "mn", at)),
        Edit(old="pipeline{loop=m stages=2 with=dma}", new="pipeline{loop=n stages=2 with=dma}"),
    )


def _moved(gemm: Gemm, order: str, block: tuple[int, int]) -> int:
    """Bytes of A and B that come from HBM: a block only where it is another than before."""
    counts = {"m": -(-gemm.m // block[0]), "n": -(-gemm.n // block[1])}
    bytes_of = {"m": gemm.m * gemm.k, "n": gemm.k * gemm.n}
    outer, inner = order
    again = counts[outer] if counts[inner] > 1 else 1
    total = bytes_of[outer] + bytes_of[inner] * again
    return (gemm.batch or 1) * total * gemm.element.item_bytes


def _parts(climb: Climb, gemm: Gemm, machine: TpuMachine, at: tuple[int, int], say: _Why) -> None:
    """A part of a block at a time."""
    unit = machine.mxu_size
    sizes = {"n": unit, "m": at[0] if gemm.trans_b else PART_ROWS}
    extents = {"m": at[0], "n": at[1]}
    cuts = {d: s for d, s in sizes.items() if extents[d] > s and extents[d] % s == 0}
    if gemm.element.item_bytes == SPLIT_BYTES or gemm.trans_a or gemm.beta != 0 or not cuts:
        climb.leave_out("parts", "parts of a block would be made again what they share")
        return
    cut = f"tile{{loops={','.join(cuts)} sizes={','.join(map(str, cuts.values()))}}}"
    moved = [Edit(old=SUM), Edit(new=cut, before=END), Edit(new=SUM, before=END)]
    if gemm.steps:
        moved.append(Edit(new="fuse-epilogue", before=END))
    rows, columns = cuts.get("m", at[0]), cuts.get("n", at[1])
    climb.rung("parts", f"{rows} x {columns} at a time", say.parts(at, (rows, columns)), *moved)


@dataclass(frozen=True)
class _Why:
    """Why each rung is faster than the one before, with the numbers of a problem and a machine."""

    gemm: Gemm
    machine: TpuMachine

    def _cycles(self, block: tuple[int, int], k: int) -> float:
        return 2 * block[0] * block[1] * k / self.machine.mxu_flops_per_cycle(self.gemm.dtype)

    def _intensity(self, block: tuple[int, int]) -> str:
        """Flops for each byte of A and B that a step brings."""
        m, n = block
        return per(2 * m * n, (m + n) * self.gemm.element.item_bytes)

    def small(self, block: tuple[int, int], k: int) -> str:
        machine = self.machine
        flops = machine.mxu_flops_per_cycle(self.gemm.dtype)
        return (
            f"A step multiplies {block[0]} x {k} by {k} x {block[1]}: "
            f"{self._cycles(block, k):,.0f} cycles of the matrix units, while beginning a step "
            f"alone takes about {machine.grid_step_overhead_cycles} and a copy from HBM its "
            f"latency. Blocks of A and B give {self._intensity(block)} flops a byte, and the "
            "machine needs "
            f"{per(flops, machine.hbm_bytes_per_cycle_per_core)}."
        )

    def large(self, before: tuple[int, int], after: tuple[int, int]) -> str:
        return (
            f"A block of {after[0]} x {after[1]} of C uses every element of A {after[1]} times and "
            f"of B {after[0]} times: {self._intensity(after)} flops a byte instead of "
            f"{self._intensity(before)}, and fewer steps to begin."
        )

    def deep(self, block: tuple[int, int], before: int, after: int) -> str:
        return (
            f"{after} of k a step instead of {before}: {self._cycles(block, after):,.0f} cycles of "
            f"products against the {self.machine.grid_step_overhead_cycles} of a step, and the "
            "accumulator in VMEM is read and written a quarter as often."
        )

    def full(self, before: tuple[int, int], block: tuple[int, int], depth: int) -> str:
        turns = -(-self.gemm.k // depth)
        smaller = (
            ""
            if block == before
            else f" Blocks are {block[0]} x {block[1]}, for which two buffers of each have room in "
            f"VMEM ({bytes_text(self.machine.vmem_bytes_per_core)}): {self._intensity(block)} "
            f"flops a byte where there were {self._intensity(before)}."
        )
        return (
            f"With all of k={self.gemm.k} in one step C is never read back: its sum went through "
            f"VMEM {turns} times. And a block of one operand stays while the grid walks along the "
            f"other, for it does not change with k any more.{smaller}"
        )

    def wide(self, before: tuple[int, int], after: tuple[int, int]) -> str:
        room = bytes_text(self.machine.vmem_bytes_per_core)
        blocks = TpuBlocks(order="mn", m=after[0], n=after[1], k=self.gemm.k)
        taken = bytes_text(vmem_bytes(self.gemm, blocks))
        return (
            f"Two buffers of each block of {after[0]} x {after[1]} take {taken} of {room} of VMEM, "
            f"and give {self._intensity(after)} flops a byte rather than "
            f"{self._intensity(before)}. A step of it is {self._cycles(after, self.gemm.k):,.0f} "
            "cycles of products; larger ones are not tried, for libtpu takes a minute to compile "
            f"one of {4 * MOST_STEP_CYCLES:,}. Where the matrix units are the limit already, that "
            "gains little but room."
        )

    def order(self, before: int, after: int) -> str:
        return (
            "The block that changes in the outer loop stays in VMEM, that of the inner loop comes "
            f"again for each. In this order the smaller one comes again: {bytes_text(after)} of A "
            f"and B from HBM in place of {bytes_text(before)}."
        )

    def parts(self, block: tuple[int, int], part: tuple[int, int]) -> str:
        machine = self.machine
        lanes = machine.sublanes * machine.lanes
        whole, one = block[0] * block[1] // lanes, part[0] * part[1] // lanes
        return (
            f"The sums of a whole block are {whole:,} registers of {machine.sublanes} x "
            f"{machine.lanes}, of which there are 64: libtpu spills them. Those of a part of "
            f"{part[0]} x {part[1]} are {one}. The model of cycles does not see spills; libtpu's "
            "profile does."
        )

    def default(self) -> str:
        return (
            "The blocks that the model, or a search with libtpu's profile, found best for these "
            "sizes; the lines above say where they differ from the rung before."
        )
