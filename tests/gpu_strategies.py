"""Hypothesis strategies: problems for a GPU and legal schedules for them.

The blocks are small, one to four warps, so that the emulator runs a kernel in a fraction of a
second. What is drawn is legal: an error for a drawn schedule is a fault, of the strategy or of the
pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import hypothesis.strategies as st

from gemmir.dtypes import PRODUCTS
from gemmir.epilogue_steps import EXACT_STEPS
from gemmir.gemm import DTYPES, Gemm
from gemmir.machine import GpuMachine
from gemmir.passes.split_k import slice_size
from gemmir.schedule import Schedule
from tests.strategies import problems

MAX_THREADS: Final = 128
"""Threads of a block."""

WARP_SHAPES: Final = ((4, 8), (8, 4), (2, 16), (16, 2), (1, 32), (32, 1))
"""The threads of a warp along m and n."""

THREAD_TILES: Final = ((1, 1), (2, 2), (4, 4), (8, 4), (4, 2), (3, 2), (1, 4))
WARP_TILES: Final = ((16, 8), (16, 16), (32, 16), (32, 32), (64, 32), (16, 24), (48, 8))
ASYNC_BYTES: Final = (4, 8, 16)
LOAD_BYTES: Final = 16
FRAGMENT_ROWS: Final = 16
INSTRUCTION_BYTES: Final = 32
"""What one product on tensor cores takes of k."""


@st.composite
def gpu_problems(draw: st.DrawFn, machine: GpuMachine, most: int = 48) -> Gemm:
    """Problems of every kind and every element type that `machine` multiplies."""
    gemm = draw(problems(most, (None, None, 0, 2)))
    dtype = draw(st.sampled_from(gpu_dtypes(machine)))
    out = draw(st.sampled_from([None, *DTYPES[dtype]]))
    gemm = replace(
        whole(gemm) if PRODUCTS[dtype].element.is_integer else gemm, dtype=dtype, out=out
    )
    return _aligned(gemm) if draw(st.booleans()) else gemm


def gpu_dtypes(machine: GpuMachine) -> list[str]:
    """All that `machine` multiplies, with its tensor cores or without."""
    return ["f32", *(d for d in machine.mma_dtypes if d != "f64"), "f64"]


def whole(gemm: Gemm) -> Gemm:
    """`gemm` with whole factors, and without the steps that integers do not have."""
    steps = "+".join(step for step in gemm.steps if step in EXACT_STEPS)
    return replace(gemm, alpha=round(2 * gemm.alpha), beta=round(2 * gemm.beta), epilogue=steps)


def _aligned(gemm: Gemm) -> Gemm:
    """`gemm` with rows and matrices at multiples of 8 elements, so that copies may be wide."""
    rows = {f"ld{name}": -(-max(gemm.leading(name), 1) // 8) * 8 for name in "abc"}
    shared = [n for n in "abc" if gemm.batch is not None and gemm.batch_stride(n) == 0]
    names = [name for name in "abc" if name not in shared]
    return replace(gemm, **rows, **{f"batch_stride_{name}": None for name in names})


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """A tile in shared memory: whether its rows lie there as in the source, and how far apart."""

    is_adjacent: bool
    pitch: tuple[int, ...] = ()


@dataclass(kw_only=True)
class _Draft:
    """A schedule as far as it is drawn; `block` and `k` are the tile of a block."""

    draw: st.DrawFn
    gemm: Gemm
    block: tuple[int, int]
    steps: list[str] = field(default_factory=list[str])
    slice_: int = 0
    k: int = field(init=False)

    def __post_init__(self) -> None:
        self.k = self.gemm.k

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def split(self) -> None:
        """Perhaps slices of k on blocks of their own."""
        item = self.gemm.element.item_bytes
        most = -(-self.k // slice_size(max(self.k, 1), max(self.k, 1), item))
        if most > 1 and self.chance(4):
            factor = self.draw(st.integers(2, min(most, 5)))
            self.k = slice_size(self.k, factor, item)
            factor = -(-self.gemm.k // self.k)
            self.steps.append(f"split-k{{factor={factor} order=fixed}}")

    def over_blocks(self) -> None:
        """The grid, and perhaps another order of it."""
        self.split()
        m, n = self.block
        batch = self.gemm.batch is not None
        loops, sizes = ("batch,m,n", f"1,{m},{n}") if batch else ("m,n", f"{m},{n}")
        self.steps.append(f"tile{{loops={loops} sizes={sizes} over=blocks}}")
        if self.chance(4):
            group = self.draw(st.sampled_from(["", " group=2", " group=3"]))
            order = self.draw(st.sampled_from(["n,m", "m,n"] if group else ["n,m"]))
            self.steps.append(f"interchange{{order={order}{group}}}")

    def inside(self, name: str) -> int:
        """The most that a block has of m or n."""
        whole, tile = getattr(self.gemm, name), self.block["mn".index(name)]
        return min(whole, tile) if whole else tile

    def slices(self, sizes: list[int]) -> None:
        """Perhaps slices of k, and always where A or B go to shared memory behind it."""
        if self.k and not self.chance(4):
            self.slice_ = self.draw(st.sampled_from(sizes))
            self.steps.append(f"tile{{loops=k sizes={self.slice_}}}")

    def epilogue(self) -> None:
        if self.gemm.steps:
            self.steps.append("fuse-epilogue")

    def unroll(self, trips: int) -> None:
        if trips >= 2 and self.chance(2):
            factor = self.draw(st.integers(2, min(trips, 8)))
            self.steps.append(f"unroll{{loop=k factor={factor}}}")

    def runs_along(self, operand: str) -> int:
        """The dimension of the operand, as the product reads it, in which it is adjacent."""
        transposed = self.gemm.trans_a if operand == "a" else self.gemm.trans_b
        return 0 if transposed and self.gemm.leading(operand) != 1 else 1

    def copies(self, operand: str, width: int, tile: _Tile) -> int:
        """Bytes that an asynchronous copy of the operand can move at once."""
        gemm, item = self.gemm, self.gemm.element.item_bytes
        rows = [gemm.leading(operand), *tile.pitch]
        if gemm.batch is not None and gemm.batch_stride(operand):
            rows.append(gemm.batch_stride(operand))
        lanes = math.gcd(width, *rows) if tile.is_adjacent else 1
        return min(lanes * item, LOAD_BYTES)

    def pipeline(self, widths: list[int], tiles: dict[str, _Tile]) -> list[int]:
        """Perhaps overlap the copies of the operands in `tiles`; the widths that then remain."""
        able = [
            w for w in widths if all(self.copies(o, w, t) in ASYNC_BYTES for o, t in tiles.items())
        ]
        item = self.gemm.element.item_bytes
        sizes = (*self.block, self.slice_, self.k)
        aligned = all(size * item % LOAD_BYTES == 0 for size in sizes[:3])
        if not self.slice_ or not tiles or not able or not aligned or self.chance(4):
            return widths
        self.steps.append(f"pipeline{{loop=k stages={self.draw(st.integers(2, 4))}}}")
        return able

    def finish(self) -> Schedule:
        if {"gelu", "silu"} & set(self.gemm.steps):
            self.steps.append("expand-math")
        return Schedule.parse(",".join(self.steps))


@st.composite
def gpu_schedules(draw: st.DrawFn, gemm: Gemm, machine: GpuMachine) -> Schedule:
    """Schedules for `gemm` that are legal on `machine`."""
    may_be_either = gemm.dtype == "f64" and draw(st.booleans())
    if gemm.dtype in machine.mma_dtypes and not may_be_either:
        return draw(_tensor_schedules(gemm))
    return draw(_simt_schedules(gemm))


@st.composite
def gpu_cases(draw: st.DrawFn, machine: GpuMachine, most: int = 48) -> tuple[Gemm, Schedule]:
    """A problem and a schedule for it."""
    gemm = draw(gpu_problems(machine, most))
    return gemm, draw(gpu_schedules(gemm, machine))


@st.composite
def _simt_schedules(draw: st.DrawFn, gemm: Gemm) -> Schedule:
    thread = draw(st.sampled_from(THREAD_TILES))
    warps = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)]))
    shape = draw(st.sampled_from(WARP_SHAPES))
    warp = (shape[0] * thread[0], shape[1] * thread[1])
    draft = _Draft(draw=draw, gemm=gemm, block=(warps[0] * warp[0], warps[1] * warp[1]))
    by_warps = all(
        draft.inside(name) > size - tile
        for name, size, tile in zip("mn", warp, thread, strict=True)
    )
    if not by_warps or draft.chance(3):
        by_warps = False
        draft.block = draw(_thread_block(thread))
    draft.over_blocks()
    if by_warps:
        draft.steps.append(f"tile{{loops=m,n sizes={warp[0]},{warp[1]} over=warps}}")
    draft.steps.append(f"tile{{loops=m,n sizes={thread[0]},{thread[1]} over=threads}}")
    draft.steps.append("promote{operand=c to=registers}")
    draft.slices([4, 8, 16, 5, draft.k + 1])
    tiles: dict[str, _Tile] = {}
    for operand in draw(st.permutations("ab")):
        if gemm.k and draft.chance(2):
            tiles[operand] = _share_panel(draft, operand, thread, warp if by_warps else thread)
    widths = [w for w in (1, 2, 4) if w * gemm.element.item_bytes <= LOAD_BYTES]
    widths = draft.pipeline(widths, tiles)
    draft.epilogue()
    draft.steps.append(f"vectorize{{with=fma width={draw(st.sampled_from(widths))}}}")
    draft.unroll(min(draft.slice_ or draft.k, draft.k))
    return draft.finish()


@st.composite
def _thread_block(draw: st.DrawFn, thread: tuple[int, int]) -> tuple[int, int]:
    """A block that is no multiple of a warp, nor perhaps of the tile of a thread."""
    across = draw(st.integers(1, 12))
    down = draw(st.integers(1, MAX_THREADS // across))
    missing = draw(st.integers(0, min(thread) - 1))
    return min(down, 16) * thread[0] - missing, across * thread[1] - missing


def _share_panel(
    draft: _Draft, operand: str, thread: tuple[int, int], outer: tuple[int, int]
) -> _Tile:
    """Bring an operand to shared memory in one panel, or in several.

    `outer` is the tile of a warp, or that of a thread where there are no warps.
    """
    dim = 0 if operand == "a" else 1
    tile, extent = thread[dim], draft.inside("mn"[dim])
    step = outer[dim] if extent > outer[dim] else tile
    rows = -(-extent // step) * step
    width = rows + draft.draw(st.sampled_from([0, 1, 4]))
    pitch = (width,)
    if draft.chance(3) and rows > tile:
        width = tile * draft.draw(st.integers(1, rows // tile))
        gap = LOAD_BYTES // draft.gemm.element.item_bytes
        pitch = (width, width * (draft.slice_ or draft.k) + gap)
    draft.steps.append(f"promote{{operand={operand} to=shared layout=panel:{width}}}")
    return _Tile(is_adjacent=draft.runs_along(operand) == dim, pitch=pitch)


@st.composite
def _tensor_schedules(draw: st.DrawFn, gemm: Gemm) -> Schedule:
    warp = draw(st.sampled_from(WARP_TILES))
    warps = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 4)]))
    draft = _Draft(draw=draw, gemm=gemm, block=(warps[0] * warp[0], warps[1] * warp[1]))
    draft.over_blocks()
    draft.steps.append(f"tile{{loops=m,n sizes={warp[0]},{warp[1]} over=warps}}")
    draft.steps.append("promote{operand=c to=registers}")
    deep = INSTRUCTION_BYTES // gemm.element.item_bytes
    draft.slices([deep, 2 * deep, 4 * deep, deep * 3 // 2])
    depth = min(draft.slice_ or draft.k, draft.k)
    tiles: dict[str, _Tile] = {}
    for operand in draw(st.permutations("ab")) if gemm.k else ():
        tiles[operand] = _share_for_warps(draft, operand, warp)
    widths = [w for w in (1, 2, 4, 8, 16) if w * gemm.element.item_bytes <= LOAD_BYTES]
    widths = draft.pipeline(widths, tiles)
    draft.epilogue()
    shape = ""
    if gemm.dtype == "f16" and draft.chance(3):
        shape, deep = " shape=16,8,8", 8
    draft.steps.append(f"vectorize{{with=mma width={draw(st.sampled_from(widths))}{shape}}}")
    step = 2 * deep if gemm.dtype == "f64" else deep  # of f64 two products are fed at once
    draft.unroll(-(-depth // step))
    return draft.finish()


def _share_for_warps(draft: _Draft, operand: str, warp: tuple[int, int]) -> _Tile:
    """Bring an operand to shared memory in swizzled rows, or in one panel."""
    dim = 0 if operand == "a" else 1
    if draft.chance(3):
        extent = draft.inside("mn"[dim])
        rows = -(-extent // warp[dim]) * warp[dim] if extent > warp[dim] else extent
        width = -(-rows // FRAGMENT_ROWS) * FRAGMENT_ROWS + draft.draw(st.sampled_from([0, 4, 8]))
        draft.steps.append(f"promote{{operand={operand} to=shared layout=panel:{width}}}")
        return _Tile(is_adjacent=draft.runs_along(operand) == dim, pitch=(width,))
    row = draft.draw(st.sampled_from([32, 64, 128]))
    draft.steps.append(f"promote{{operand={operand} to=shared layout=swizzle:{row}}}")
    return _Tile(is_adjacent=True)
