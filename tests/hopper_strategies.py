"""Hypothesis strategies: problems for warpgroups, and schedules with every form of their pipeline.

What is drawn is legal: an error for a drawn schedule is a fault, of the strategy or of a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import hypothesis.strategies as st

from gemmir.dtypes import PRODUCTS
from gemmir.gemm import DTYPES, Gemm
from gemmir.ir.attributes import SWIZZLE_ROWS
from gemmir.ir.groups import most_row_tiles
from gemmir.ir.staging import STORED_BYTES
from gemmir.machine import GpuMachine
from gemmir.passes.split_k import slice_size
from gemmir.schedule import Schedule
from tests.gpu_strategies import whole
from tests.strategies import problems

TMA_BYTES: Final = 16
"""Rows and matrices begin at multiples of it: CUDA driver API, cuTensorMapEncodeTiled."""

COLUMNS: Final = (8, 16, 24, 32, 64, 96, 128, 192, 256)
"""Columns of the tile of a warpgroup; fewer where it has more rows, or others are beside it."""

WARPGROUPS: Final = {(1, 1): 256, (2, 1): 256, (3, 1): 192, (1, 2): 128, (2, 2): 128}
"""Warpgroups of a block along m and n, and the most columns that the registers of each have room
for."""

WIDEST_OF_TWO: Final = 192
PAIR_BYTES: Final = 2
MOST_BYTES: Final = 200 * 1024
"""Most shared memory of a block that is drawn."""

MOST_TWICE: Final = 64 * 64
"""Elements of a tile that registers hold twice beside each other."""

SCALED: Final = 256
"""Elements that have one scale: no slice of k is longer."""

SWIZZLES: Final = (32, 64, 128)
"""Bytes of a row in shared memory."""


@st.composite
def hopper_problems(draw: st.DrawFn, machine: GpuMachine, most: int = 200) -> Gemm:
    """Problems of every type that warpgroups multiply, not empty, aligned as the TMA needs it."""
    gemm = _packed(draw(problems(most, (None, None, 2))))
    dtype = draw(st.sampled_from(machine.wgmma_dtypes))
    gemm = whole(gemm) if PRODUCTS[dtype].element.is_integer else gemm
    out = draw(st.sampled_from([None, *DTYPES[dtype]]))
    gemm = replace(gemm, dtype=dtype, out=out, **{x: max(getattr(gemm, x), 1) for x in "mnk"})
    if gemm.element.item_bytes != PAIR_BYTES:
        gemm = replace(gemm, trans_a=False, trans_b=True)
    if gemm.batch is None and draw(st.integers(0, 4)) == 0:
        groups, masked = draw(st.integers(1, 5)), draw(st.booleans())
        gemm = replace(gemm, trans_a=False, groups=groups, masked=masked)
    shared = draw(st.sampled_from(["", "a", "b"])) if gemm.batch is not None else ""
    return replace(_aligned(gemm), **{f"batch_stride_{x}": 0 for x in shared})


@st.composite
def large_hopper_problems(draw: st.DrawFn, machine: GpuMachine) -> Gemm:
    """Problems of which each is for warpgroups by default: of a tile or more, and a slice of k."""
    gemm = replace(
        _packed(draw(hopper_problems(machine))),
        m=draw(st.integers(1, 600)),
        n=draw(st.integers(64, 600)),
        k=draw(st.sampled_from([128, 130, 200, 333, 1024])),
    )
    return _aligned(gemm)


def _packed(gemm: Gemm) -> Gemm:
    names = (f"{what}{name}" for what in ("ld", "batch_stride_") for name in "abc")
    return replace(gemm, **dict.fromkeys(names))


def _aligned(gemm: Gemm) -> Gemm:
    """`gemm` with rows that begin at multiples of 16 bytes, of C too."""
    steps = {name: TMA_BYTES // gemm.element.item_bytes for name in "ab"} | {"c": TMA_BYTES}
    return replace(gemm, **{f"ld{x}": -(-gemm.leading(x) // s) * s for x, s in steps.items()})


def _swapped(gemm: Gemm) -> Gemm:
    """The problem that `swap-operands` leaves: C transposed, from B and A transposed."""
    return replace(
        gemm,
        m=gemm.n,
        n=gemm.m,
        trans_a=not gemm.trans_b,
        trans_b=not gemm.trans_a,
        lda=gemm.ldb,
        ldb=gemm.lda,
        ldc=None,
        batch_stride_a=gemm.batch_stride_b,
        batch_stride_b=gemm.batch_stride_a,
    )


@dataclass(kw_only=True)
class _Draft:
    """A schedule as far as it is drawn.

    `tile` is that of a warpgroup and `groups` how many of them a block has along m and n; `depth`
    is a slice of k, `swizzles` the bytes of the rows in which A and B lie. There are `factor` parts
    of k; without `stores_tiles` all of C is the sum of parts.
    """

    draw: st.DrawFn
    gemm: Gemm
    is_swapped: bool
    tile: tuple[int, int] = (64, 8)
    groups: tuple[int, int] = (1, 1)
    depth: int = 0
    swizzles: dict[str, int] = field(default_factory=dict[str, int])
    steps: list[str] = field(default_factory=list[str])
    factor: int = 1
    stores_tiles: bool = True

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    @property
    def block(self) -> tuple[int, int]:
        """The tile of a block."""
        return self.tile[0] * self.groups[0], self.tile[1] * self.groups[1]

    def is_along_k(self, operand: str) -> bool:
        return not self.gemm.trans_a if operand == "a" else self.gemm.trans_b

    def across(self, operand: str) -> int:
        """Elements of m or n at which parts of a tile may begin: of a row, or of rows alike."""
        if self.is_along_k(operand):
            return SWIZZLE_ROWS
        return self.swizzles[operand] // self.gemm.element.item_bytes

    def slices(self) -> None:
        """Rows in which A and B lie, and slices of k that fill them where they run along k."""
        item = self.gemm.element.item_bytes
        bytes_ = self.draw(st.sampled_from([128, *SWIZZLES, 256]))
        self.depth = bytes_ // item
        for operand in "ab":
            fitting = [s for s in SWIZZLES if s <= bytes_ or not self.is_along_k(operand)]
            self.swizzles[operand] = self.draw(st.sampled_from([fitting[-1], *fitting]))

    def shape(self) -> None:
        """The tile of a warpgroup, and how many a block has."""
        self.groups = self.draw(st.sampled_from([(1, 1), *WARPGROUPS]))
        rows = self.draw(st.sampled_from([64, 64, 128])) if self.groups[0] < 3 else 64
        most = WARPGROUPS[self.groups] if rows == 64 else min(WARPGROUPS[self.groups] // 2, 192)
        most = WIDEST_OF_TWO if rows == 128 and self.groups in ((1, 1), (2, 1)) else most
        columns = self.draw(st.sampled_from([n for n in COLUMNS if n <= most]))
        step = self.across("b")
        if self.groups[1] > 1:
            step = max(step, 16)
        self.tile = rows, -(-columns // step) * step

    def held(self, dim: int) -> int:
        """Rows of A or columns of B that a block holds."""
        inside = min((self.gemm.m, self.gemm.n)[dim], self.block[dim])
        whole = self.tile[dim] if inside > self.tile[dim] else (64, 1)[dim]
        return -(-inside // whole) * whole

    def may_share(self, along: str) -> bool:
        """Whether there are two blocks along m or n, each of which copies half of what they share.

        Below each other they share B, beside each other A.
        """
        dim = "mn".index(along)
        step = self.across("ba"[dim])
        has_two = (self.gemm.m, self.gemm.n)[dim] > self.block[dim]
        return has_two and -(-self.held(1 - dim) // step) % 2 == 0

    def split(self) -> None:
        """Perhaps slices of k on blocks of their own, made of whole slices of those that follow."""
        gemm, item = self.gemm, self.gemm.element.item_bytes
        part = slice_size(gemm.k, 2, item)
        if part < gemm.k and part % self.depth == 0 and self.chance(3):
            self.factor = -(-gemm.k // part)
            self.steps.append(f"split-k{{factor={self.factor} order=fixed}}")

    def over_grid(self) -> None:
        """Blocks or clusters of two, perhaps numbered in groups, perhaps fewer than tiles."""
        m, n = self.block
        if self.gemm.groups is not None:
            self.over_rows(self.gemm.groups)
            return
        batch = self.gemm.batch is not None
        able = [x for x in "mn" if self.factor == 1 and self.may_share(x)]
        along = self.draw(st.sampled_from(["", *able]))
        inner = f"tile{{loops={along} sizes={m if along == 'm' else n} over=blocks}}"
        m, n = m * (1 + (along == "m")), n * (1 + (along == "n"))
        loops, sizes = ("batch,m,n", f"1,{m},{n}") if batch else ("m,n", f"{m},{n}")
        over = "clusters" if along else "blocks"
        self.steps.append(f"tile{{loops={loops} sizes={sizes} over={over}}}")
        if self.chance(3):
            group = self.draw(st.sampled_from([2, 8]))
            order = self.draw(st.sampled_from(["n,m", "m,n"]))
            self.steps.append(f"interchange{{order={order} group={group}}}")
        if along:
            self.steps.append(inner)
        tiles = -(-self.gemm.m // m) * -(-self.gemm.n // n) * (self.gemm.batch or 1)
        if tiles > 1 and self.factor == 1 and not self.chance(3):
            self.steps.append(f"persist{{blocks={self.draw(st.integers(1, min(tiles - 1, 3)))}}}")

    def over_rows(self, groups: int) -> None:
        """Blocks of the rows of all products, perhaps fewer than there may be tiles."""
        m, n = self.block
        self.steps.append(f"tile{{loops=group,m,n sizes=1,{m},{n} over=blocks}}")
        tiles = most_row_tiles(groups, self.gemm.m, m, masked=self.gemm.masked) * -(
            -self.gemm.n // n
        )
        if tiles > 1 and not self.chance(3):
            self.steps.append(f"persist{{blocks={self.draw(st.integers(1, min(tiles - 1, 3)))}}}")

    def over_warpgroups(self) -> None:
        """Tiles of warpgroups, along m, along n, or along both in either order."""
        names = [d for d in (0, 1) if self.groups[d] > 1] or [0]
        names = self.draw(st.permutations(names))
        loops, sizes = ",".join("mn"[d] for d in names), ",".join(str(self.tile[d]) for d in names)
        self.steps.append(f"tile{{loops={loops} sizes={sizes} over=warpgroups}}")

    def stream(self) -> None:
        """Perhaps the slices of all tiles dealt to blocks, where these do not come out even."""
        inside = [s for s in self.steps if s.startswith(("persist", "split-k")) or "clusters" in s]
        tiles = -(-self.gemm.m // self.block[0]) * -(-self.gemm.n // self.block[1])
        tiles *= self.gemm.batch or 1
        able = [b for b in (2, 3, 5) if tiles % b and b <= tiles * -(-self.gemm.k // self.depth)]
        if not inside and able and self.chance(2):
            blocks = self.draw(st.sampled_from(able))
            self.steps.append(f"stream-k{{blocks={blocks} slice={self.depth}}}")
            self.stores_tiles = tiles >= 2 * blocks

    def second_sum(self) -> None:
        """Slices are added to a running sum where blocks have scales, and perhaps elsewhere."""
        rows, columns = self.tile
        is_small = rows * columns <= MOST_TWICE
        if self.gemm.scale_block is not None or (is_small and self.chance(4)):
            self.steps.append("promote{operand=c to=registers}")

    def staging(self) -> None:
        """Perhaps C goes out through shared memory, in rows of which the tile has whole ones."""
        item = self.gemm.result.item_bytes
        rows = [r for r in SWIZZLES if self.tile[1] * item % r == 0]
        is_stored = self.factor == 1 and self.stores_tiles and not self.is_swapped
        is_stored = is_stored and self.gemm.n * item % STORED_BYTES == 0
        if rows and is_stored and self.chance(2):
            row = self.draw(st.sampled_from(rows))
            self.steps.append(f"promote{{operand=c to=shared layout=swizzle:{row}}}")

    def pipeline(self) -> None:
        """Copies overlap with products, and perhaps the write-back of one tile with another."""
        may_turn = self.groups == (1, 1) and any(s.startswith("persist") for s in self.steps)
        turn = " pingpong=true" if may_turn and not self.chance(3) else ""
        bytes_ = sum(self.block) * self.depth * self.gemm.element.item_bytes
        most = max(min(MOST_BYTES // bytes_, 7), 2)
        stages = self.draw(st.integers(2, most))
        self.steps.append(f"pipeline{{loop=k stages={stages} with=tma specialize=true{turn}}}")

    def fit_scales(self, block: int) -> None:
        """Tiles that blocks of scales are made of, of sums that registers hold twice."""
        fitting = [n for n in (16, 32, 64, 128) if n % self.across("b") == 0]
        columns = self.draw(st.sampled_from([n for n in fitting if block % n == 0]))
        groups = self.groups[0] * self.groups[1]
        self.groups = (groups if groups < 3 else 2), 1
        self.tile = 64, columns


@st.composite
def hopper_schedules(draw: st.DrawFn, gemm: Gemm) -> Schedule:
    """Schedules for `gemm` on warpgroups."""
    is_alone = gemm.scale_block is None and gemm.groups is None
    is_swapped = is_alone and draw(st.integers(0, 4)) == 4
    worked = _swapped(gemm) if is_swapped else gemm
    draft = _Draft(draw=draw, gemm=worked, is_swapped=is_swapped)
    if is_swapped:
        draft.steps.append("swap-operands")
    draft.slices()
    draft.shape()
    if is_alone:
        draft.split()
    elif gemm.scale_block is not None:
        draft.fit_scales(gemm.scale_block)
    draft.over_grid()
    draft.over_warpgroups()
    draft.steps.append("promote{operand=c to=registers}")
    if gemm.steps:
        draft.steps.append("fuse-epilogue")
    if is_alone:
        draft.stream()
    draft.steps.append(f"tile{{loops=k sizes={draft.depth}}}")
    draft.second_sum()
    for operand in draw(st.permutations("ab")):
        layout = f"swizzle:{draft.swizzles[operand]}"
        draft.steps.append(f"promote{{operand={operand} to=shared layout={layout}}}")
    draft.staging()
    draft.pipeline()
    draft.steps.append("vectorize{with=wgmma}")
    if {"gelu", "silu"} & set(gemm.steps):
        draft.steps.append("expand-math")
    return Schedule.parse(",".join(draft.steps))


@st.composite
def scaled_hopper_cases(draw: st.DrawFn, machine: GpuMachine) -> tuple[Gemm, Schedule]:
    """A problem whose blocks have scales, several along k, and a schedule for it."""
    gemm = _packed(draw(hopper_problems(machine)))
    dtype = "e4m3" if gemm.accumulator.is_integer else gemm.dtype
    has_pairs = PRODUCTS[dtype].element.item_bytes == PAIR_BYTES
    gemm = replace(
        gemm,
        k=gemm.k + SCALED,
        dtype=dtype,
        out=draw(st.sampled_from(DTYPES[dtype])),
        batch=None,
        groups=None,
        masked=False,
        trans_a=gemm.trans_a and has_pairs,
        trans_b=gemm.trans_b or not has_pairs,
        epilogue="+".join(step for step in gemm.steps if step != "scale"),
        scale_block=SCALED,
    )
    gemm = _aligned(gemm)
    return gemm, draw(hopper_schedules(gemm))


@st.composite
def hopper_cases(draw: st.DrawFn, machine: GpuMachine, most: int = 200) -> tuple[Gemm, Schedule]:
    """A problem and a schedule for it."""
    gemm = draw(hopper_problems(machine, most))
    return gemm, draw(hopper_schedules(gemm))
