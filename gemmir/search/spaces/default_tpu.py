"""Spaces around the default schedules for TPUs.

The blocks of a step of the grid and their order, slices of k where the default cuts it, and the
parts of a block that are multiplied at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.passes import ModulePass

from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.tile import Tile
from gemmir.schedule import pass_text
from gemmir.search.spaces.draft import Draft, near, powers

PARTS: Final = {"m": (64, 128, 256), "n": (128, 256, 512)}
"""Rows and columns of the part of a block that is multiplied at a time."""

MOST_TIMES: Final = 16
"""Blocks are up to so many times smaller or larger than those of the default."""


def open_tpu(gemm: Gemm, machine: TpuMachine, passes: Sequence[ModulePass], about: str) -> str:
    """The text of the space around a default schedule of `passes`."""
    opening = _Opening(gemm, machine, passes, Draft(about=about))
    for p in passes:
        opening.open(p)
    return opening.draft.text


class _Opening:
    """A schedule while its passes are opened, one after another."""

    def __init__(
        self, gemm: Gemm, machine: TpuMachine, passes: Sequence[ModulePass], draft: Draft
    ) -> None:
        self.gemm = gemm
        self.machine = machine
        self.passes = passes
        self.draft = draft
        self.opened: dict[str, str] = {}
        self.order = ""

    def open(self, p: ModulePass) -> None:
        """Write one pass with holes, or as it is."""
        if isinstance(p, Tile) and p.over == "grid":
            self._grid(p)
        elif isinstance(p, Tile) and p.loops == ("k",):
            self._slices(p)
        elif isinstance(p, Tile):
            self._parts(p)
        elif isinstance(p, Pipeline) and self.order and p.loop in "mn":
            inner = self.draft.let("inner", f"'n' if {self.order} == 'mn' else 'm'")
            self.draft.add(f"pipeline{{loop={inner} stages={p.stages} with={p.with_}}}")
        else:
            self.draft.add(pass_text(p))

    def _grid(self, p: Tile) -> None:
        extents = {"m": self.gemm.m, "n": self.gemm.n}
        sizes = {d: str(s) for d, s in zip(p.loops, p.sizes, strict=True)}
        for d, size in zip(p.loops, p.sizes, strict=True):
            if d in extents:
                sizes[d] = self._block(d, size, extents[d])
        plain = [d for d in p.loops if d in "mn"]
        if self.gemm.groups is not None or len(plain) < 2 or "?" not in "".join(sizes.values()):
            self.draft.add(self._tile([*p.loops], sizes))
            return
        first = "".join(plain)
        order = self.draft.hole("order", first, ("mn", "nm"), "loops over the grid, outer first")
        self.order = order[1:]
        rest = [d for d in p.loops if d not in plain]
        for chosen in ("mn", "nm"):
            loops = [*rest, *chosen]
            self.draft.add(self._tile(loops, sizes), f"{self.order} == '{chosen}'")

    def _tile(self, loops: Sequence[str], sizes: dict[str, str]) -> str:
        chosen = ",".join(sizes[d] for d in loops)
        return f"tile{{loops={','.join(loops)} sizes={chosen} over=grid}}"

    def _block(self, d: str, size: int, extent: int) -> str:
        """A block: as many whole registers as divide the dimension about evenly, or all of it."""
        step = self._step(d)
        least, most = size // MOST_TIMES, min(size * MOST_TIMES, extent - 1)
        values = [v for v in powers(max(least, step), most) if v % step == 0 and v != size]
        if not values:
            return str(size)
        first = d if size == extent else size
        others = [*values, *([d] if size < extent else [])]
        name = self.draft.hole(f"block_{d}", first, others, f"{d} of a block")
        self.opened[d] = name[1:]
        return name

    def _step(self, d: str) -> int:
        """What a block is a multiple of along a dimension, of every array that has it."""
        along_lanes = {"n": True, "m": self.gemm.trans_a}[d]
        if along_lanes:
            return self.machine.lanes
        item = min(self.gemm.element.item_bytes, self.gemm.result.item_bytes, 4)
        return self.machine.sublanes * 4 // item

    def _slices(self, p: Tile) -> None:
        (size,) = p.sizes
        values = near(size, self.machine.lanes, self.gemm.k - 1)
        name = self.draft.hole("block_k", size, values, "elements of k in a slice")
        self.draft.add(f"tile{{loops=k sizes={name}}}")

    def _parts(self, p: Tile) -> None:
        """Parts of a block, which divide it."""
        names: list[str] = []
        for d, size in zip(p.loops, p.sizes, strict=True):
            name = self.draft.hole(
                f"part_{d}", size, PARTS[d], f"{d} of what is multiplied at a time"
            )
            names.append(name)
            block = self.opened.get(d)
            if block is not None:
                self.draft.where(f"{block} % {name[1:]} == 0")
        self.draft.add(f"tile{{loops={','.join(p.loops)} sizes={','.join(names)}}}")
