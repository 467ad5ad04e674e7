"""Spaces around the default schedules for GPUs without warpgroups.

A block is made of warps, and a warp without tensor cores of threads: the holes are the innermost
tile and how many there are along m and n, so that all tiles around it are whole. Then the slices of
k, how many are under way, how many blocks a multiprocessor shall hold and into how many slices k is
cut for them. Layouts follow from the tiles: the widest swizzle that a row fills, and panels that
are padded as those of the default are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.passes import ModulePass

from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.promote import Promote
from gemmir.passes.split_k import SplitK
from gemmir.passes.tile import Tile
from gemmir.passes.unroll import Unroll
from gemmir.passes.vectorize import MMA, Vectorize
from gemmir.schedule import pass_text
from gemmir.search.spaces.draft import Draft, near

WARP_TILES: Final = {"m": (16, 32, 64, 128), "n": (8, 16, 32, 64, 128)}
"""m and n of the tile of a warp with tensor cores: whole products of 16 x 8."""

THREAD_BYTES: Final = (16, 32, 64)
"""Of the tile of a thread, along m and along n: whole loads."""

UNITS: Final = (1, 2, 4, 8)
"""Warps of a block along m and along n."""

MOST_THREADS: Final = 32
"""Threads of a block along m or n, where they are numbered through it."""

SLICE_BYTES: Final = (32, 64, 128)
"""Of a row, in a slice of k."""

STAGES: Final = (2, 3, 4, 5, 6)
PER_SM: Final = (1, 2, 3)
TURNS: Final = (1, 2, 4)
"""Iterations of the loop over a slice of k."""

MMA_ROWS: Final = 16
"""Rows of panels are padded to whole ones."""


def open_gpu(gemm: Gemm, machine: GpuMachine, passes: Sequence[ModulePass], about: str) -> str:
    """The text of the space around a default schedule of `passes`."""
    opening = _Opening(gemm, machine, passes, Draft(about=about))
    for p in passes:
        opening.open(p)
    opening.limits()
    return opening.draft.text


class _Opening:
    """A schedule while its passes are opened, one after another."""

    def __init__(
        self, gemm: Gemm, machine: GpuMachine, passes: Sequence[ModulePass], draft: Draft
    ) -> None:
        self.gemm = gemm
        self.machine = machine
        self.passes = passes
        self.draft = draft
        self.item = gemm.element.item_bytes
        self.tiles = {
            p.over: dict(zip(p.loops, p.sizes, strict=True))
            for p in passes
            if isinstance(p, Tile) and p.over is not None
        }
        self.uses_mma = any(isinstance(p, Vectorize) and p.with_ == MMA for p in passes)
        self.slice = next(
            (p.sizes[0] for p in passes if isinstance(p, Tile) and p.loops == ("k",)), 0
        )
        self.whole_k = "k"
        self.stages = self.per_sm = ""

    def open(self, p: ModulePass) -> None:
        """Write one pass with holes, or as it is."""
        if isinstance(p, SplitK):
            self._split(p)
        elif isinstance(p, Tile) and p.over == "blocks":
            self._blocks(p)
        elif isinstance(p, Tile) and p.over in ("warps", "threads"):
            short = p.over.removesuffix("s")
            self.draft.add(f"tile{{loops=m,n sizes=?{short}_m,?{short}_n over={p.over}}}")
        elif isinstance(p, Tile):
            self._slices(p)
        elif isinstance(p, Promote) and p.operand != "c":
            self._copy(p)
        elif isinstance(p, Pipeline):
            self._pipeline(p)
        elif isinstance(p, Vectorize):
            self.draft.add(pass_text(p))
            self._unroll()
        elif not isinstance(p, Unroll):
            self.draft.add(pass_text(p))

    def _split(self, p: SplitK) -> None:
        values = [1, *near(p.factor, 2, 4 * p.factor)]
        slices = self.draft.hole("slices", p.factor, values, "slices of k on blocks of their own")
        self.draft.add(f"split-k{{factor={slices} order={p.order}}}", f"{slices[1:]} > 1")
        self.whole_k = f"ceil(k / {slices[1:]})"

    def _blocks(self, p: Tile) -> None:
        """The tile of a block, as so many of those inside it along m and n."""
        for d in "mn":
            self._nest(d)
        sizes = ",".join("1" if d in ("batch", "group") else f"?block_{d}" for d in p.loops)
        self.per_sm = self.draft.hole(
            "per_sm", p.per_sm or 1, PER_SM, "blocks of a multiprocessor"
        )[1:]
        loops = ",".join(p.loops)
        self.draft.add(f"tile{{loops={loops} sizes={sizes} over=blocks per_sm=?{self.per_sm}}}")

    def _nest(self, d: str) -> None:
        """Tiles of a block, a warp and a thread along one dimension, from the inside."""
        block, warp = self.tiles["blocks"][d], self.tiles.get("warps", {}).get(d)
        if self.uses_mma:
            assert warp is not None
            self.draft.hole(f"warp_{d}", warp, WARP_TILES[d], f"{d} of the tile of a warp")
            self._units(d, "warps", block // warp, f"warp_{d}")
            return
        thread = self.tiles["threads"][d]
        sizes = [size // self.item for size in THREAD_BYTES]
        self.draft.hole(f"thread_{d}", thread, sizes, f"{d} of the tile of a thread")
        if warp is None:
            values = near(block // thread, 1, MOST_THREADS)
            self.draft.hole(f"threads_{d}", block // thread, values, f"threads along {d}")
            self.draft.let(f"block_{d}", f"threads_{d} * thread_{d}")
            return
        self.draft.let(f"warp_{d}", f"{warp // thread} * thread_{d}")
        self._units(d, "warps", block // warp, f"warp_{d}")

    def _units(self, d: str, units: str, count: int, tile: str) -> None:
        self.draft.hole(f"{units}_{d}", count, UNITS, f"{units} of a block along {d}")
        self.draft.let(f"block_{d}", f"{units}_{d} * {tile}")

    def _slices(self, p: Tile) -> None:
        (size,) = p.sizes
        values = [b // self.item for b in SLICE_BYTES if b // self.item < max(self.gemm.k, size)]
        if self.gemm.scale_block is not None:
            values = [v for v in values if self.gemm.scale_block % v == 0]
        kc = self.draft.hole("kc", size, values, "elements of k in a slice")
        self.draft.add(f"tile{{loops=k sizes={kc}}}")

    def _copy(self, p: Promote) -> None:
        """A tile in shared memory, whose layout follows from its size."""
        d, along_k = ("m", not self.gemm.trans_a) if p.operand == "a" else ("n", self.gemm.trans_b)
        kind, _, amount = (p.layout or "").partition(":")
        block = self.tiles["blocks"][d]
        if kind == "swizzle":
            row = f"{'kc' if along_k else f'block_{d}'} * item_bytes"
            widest = f"128 if {row} >= 128 else 64 if {row} >= 64 else 32"
            name = self.draft.let(f"swizzle_{p.operand}", widest)
        elif self.uses_mma:
            rows = -(-block // MMA_ROWS) * MMA_ROWS
            padded = f"ceil(block_{d} / {MMA_ROWS}) * {MMA_ROWS} + {int(amount) - rows}"
            name = self.draft.let(f"panel_{p.operand}", padded)
        elif p.operand == "a":
            name = self.draft.let("panel_a", f"block_m + {int(amount) - block}")
        else:
            name = self.draft.let("panel_b", f"max({amount}, thread_n)")
        self.draft.add(f"promote{{operand={p.operand} to=shared layout={kind}:{name}}}")

    def _pipeline(self, p: Pipeline) -> None:
        self.stages = self.draft.hole("stages", p.stages, STAGES, "slices that are under way")[1:]
        self.draft.add(f"pipeline{{loop=k stages=?{self.stages} with={p.with_}}}")
        self.draft.where(f"{self.stages} <= ceil({self.whole_k} / kc)")

    def _unroll(self) -> None:
        unroll = next((p for p in self.passes if isinstance(p, Unroll)), None)
        if not self.slice or (unroll is None and not self.uses_mma):
            return
        factor = 1 if unroll is None else unroll.factor
        if self.uses_mma:
            step = self.slice // factor
            steps = self.draft.let("k_steps", f"kc // {step}")
            self.draft.where(f"kc % {step} == 0")
        else:
            turns = self.draft.hole("turns", 1, TURNS, "iterations over a slice")[1:]
            whole = self.gemm.k if factor == self.gemm.k else None
            most = "kc" if whole is None else "min(kc, k)"
            steps = self.draft.let("k_steps", f"max({most} // {turns}, 1)")
        self.draft.add(f"unroll{{loop=k factor={steps}}}", "k_steps > 1")

    def limits(self) -> None:
        """What a block may have of the machine."""
        if self.slice:
            held = "(block_m + block_n) * kc * item_bytes"
            held = f"{self.stages} * {held}" if self.stages else held
            self.draft.where(f"{held} <= smem_bytes_per_block")
            self.draft.where(f"{self.per_sm} * {held} <= smem_bytes_per_sm")
        if "warps" in self.tiles:
            threads = "warps_m * warps_n * threads_per_warp"
        else:
            threads = "threads_m * threads_n"
        self.draft.where(f"{threads} <= max_threads_per_block")
