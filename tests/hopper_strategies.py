"""Hypothesis strategies: problems for warpgroups, and schedules with every form of their pipeline.

What is drawn is legal: an error for a drawn schedule is a fault, of the strategy or of a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import hypothesis.strategies as st

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.gemm import DTYPES, Gemm
from gemmir.ir.attributes import SWIZZLE_ROWS
from gemmir.machine import GpuMachine
from gemmir.schedule import Schedule
from tests.gpu_strategies import whole
from tests.strategies import problems

TMA_BYTES: Final = 16
"""Rows and matrices begin at multiples of it: CUDA driver API, cuTensorMapEncodeTiled."""

COLUMNS: Final = (8, 16, 24, 32, 64, 96, 128, 192, 256)
"""Columns of a tile; up to 192 with two tiles of 64 rows for one warpgroup."""

WIDEST_OF_TWO: Final = 192
PAIR_BYTES: Final = 2

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
    return _aligned(gemm)


def _packed(gemm: Gemm) -> Gemm:
    names = (f"{what}{name}" for what in ("ld", "batch_stride_") for name in "abc")
    return replace(gemm, **dict.fromkeys(names))


def _aligned(gemm: Gemm) -> Gemm:
    """`gemm` with rows that begin at multiples of 16 bytes, of C too."""
    steps = {name: TMA_BYTES // gemm.element.item_bytes for name in "ab"} | {"c": TMA_BYTES}
    return replace(gemm, **{f"ld{x}": -(-gemm.leading(x) // s) * s for x, s in steps.items()})


@dataclass(kw_only=True)
class _Draft:
    """A schedule as far as it is drawn."""

    draw: st.DrawFn
    gemm: Gemm
    swizzle: int
    steps: list[str] = field(default_factory=list[str])

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def across(self, operand: str) -> int:
        """Elements of m or n at which parts of a tile may begin: of a row, or of rows alike."""
        is_adjacent = self.gemm.trans_a if operand == "a" else not self.gemm.trans_b
        return self.swizzle // self.gemm.element.item_bytes if is_adjacent else SWIZZLE_ROWS

    def may_share(self, along: str, block: tuple[int, int]) -> bool:
        """Whether there are two blocks along m or n, each of which copies half of what they share.

        Below each other they share B, beside each other A.
        """
        inside, tile = (self.gemm.m, block[0]) if along == "m" else (self.gemm.n, block[1])
        operand, shared = ("b", min(block[1], self.gemm.n))
        if along == "n":
            operand, shared = "a", -(-min(block[0], self.gemm.m) // 64) * 64
        step = self.across(operand)
        return inside > tile and -(-shared // step) % 2 == 0

    def over_grid(self, block: tuple[int, int]) -> None:
        """Blocks or clusters of two, perhaps numbered in groups, perhaps fewer than tiles."""
        m, n = block
        batch = self.gemm.batch is not None
        along = self.draw(st.sampled_from(["", *(x for x in "mn" if self.may_share(x, block))]))
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
        if tiles > 1 and not self.chance(3):
            self.steps.append(f"persist{{blocks={self.draw(st.integers(1, min(tiles - 1, 3)))}}}")

    def staging(self, columns: int) -> None:
        """Perhaps C goes out through shared memory, in rows of which the tile has whole ones."""
        item = ELEMENTS[self.gemm.out or self.gemm.element.accumulator].item_bytes
        rows = [r for r in SWIZZLES if columns * item % r == 0]
        if rows and self.chance(2):
            row = self.draw(st.sampled_from(rows))
            self.steps.append(f"promote{{operand=c to=shared layout=swizzle:{row}}}")

    def pipeline(self, warpgroups: int) -> None:
        """Copies overlap with products, and perhaps the write-back of one tile with another."""
        may_turn = warpgroups == 1 and any(s.startswith("persist") for s in self.steps)
        turn = " pingpong=true" if may_turn and self.chance(2) else ""
        stages = self.draw(st.integers(2, 4))
        self.steps.append(f"pipeline{{loop=k stages={stages} with=tma specialize=true{turn}}}")


@st.composite
def hopper_schedules(draw: st.DrawFn, gemm: Gemm) -> Schedule:
    """Schedules for `gemm` on warpgroups."""
    swizzle = draw(st.sampled_from([128, *SWIZZLES]))
    draft = _Draft(draw=draw, gemm=gemm, swizzle=swizzle)
    rows = draw(st.sampled_from([64, 64, 128]))
    groups = draw(st.integers(1, 3 if rows == 64 else 2))
    columns = draw(st.sampled_from([n for n in COLUMNS if rows == 64 or n <= WIDEST_OF_TWO]))
    columns = -(-columns // draft.across("b")) * draft.across("b")
    depth = draw(st.sampled_from([swizzle, swizzle, 2 * swizzle])) // gemm.element.item_bytes
    draft.over_grid((rows * groups, columns))
    draft.steps += [
        f"tile{{loops=m sizes={rows} over=warpgroups}}",
        "promote{operand=c to=registers}",
        f"tile{{loops=k sizes={depth}}}",
        f"promote{{operand=a to=shared layout=swizzle:{swizzle}}}",
        f"promote{{operand=b to=shared layout=swizzle:{swizzle}}}",
    ]
    if gemm.steps:
        draft.steps.append("fuse-epilogue")
    draft.staging(columns)
    draft.pipeline(groups)
    draft.steps.append("vectorize{with=wgmma}")
    if {"gelu", "silu"} & set(gemm.steps):
        draft.steps.append("expand-math")
    return Schedule.parse(",".join(draft.steps))


@st.composite
def hopper_cases(draw: st.DrawFn, machine: GpuMachine, most: int = 200) -> tuple[Gemm, Schedule]:
    """A problem and a schedule for it."""
    gemm = draw(hopper_problems(machine, most))
    return gemm, draw(hopper_schedules(gemm))
