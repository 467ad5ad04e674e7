"""Spaces around the default schedules for warpgroups.

The tile of a block and by how many warpgroups it is multiplied, whether these take turns at the
tiles of a block, clusters of two blocks, blocks that stay, the order of the blocks, the slices of k
that are under way, and into how many slices on blocks of their own k is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.passes import ModulePass

from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine
from gemmir.passes.interchange import Interchange
from gemmir.passes.persist import Persist
from gemmir.passes.pipeline import Pipeline
from gemmir.passes.promote import Promote
from gemmir.passes.split_k import SplitK
from gemmir.passes.swap_operands import SwapOperands
from gemmir.passes.tile import Tile
from gemmir.schedule import pass_text
from gemmir.search.spaces.draft import Draft, near

ROWS: Final = (64, 128, 256)
"""m of the tile of a block: one product of a warpgroup has 64 rows."""

COLUMNS: Final = (64, 128, 192, 256)
NARROW_COLUMNS: Final = (8, 16, 32, 64)
"""n of it, and where the default has less than 64: PTX ISA 9.0, wgmma, n is a multiple of 8."""

WARPGROUPS: Final = (1, 2)
GROUPS: Final = (0, 4, 8, 16, 32)
STAGES: Final = (2, 3, 4, 5, 6, 7, 8, 10, 12)
PANEL: Final = 64
"""Elements of 16 bits in a row of the widest swizzle."""

SLICE_BYTES: Final = 128
"""Of a row in a slice of k: one row of the widest swizzle."""


def open_hopper(gemm: Gemm, machine: GpuMachine, passes: Sequence[ModulePass], about: str) -> str:
    """The text of the space around a default schedule of `passes`."""
    opening = _Opening(gemm, passes, Draft(about=about))
    for p in passes:
        opening.open(p)
    opening.limits()
    return opening.draft.text


class _Opening:
    """A schedule while its passes are opened, one after another."""

    def __init__(self, gemm: Gemm, passes: Sequence[ModulePass], draft: Draft) -> None:
        self.gemm = gemm
        self.passes = passes
        self.draft = draft
        self.tiles = {
            p.over: dict(zip(p.loops, p.sizes, strict=True))
            for p in passes
            if isinstance(p, Tile) and p.over is not None
        }
        self.group = next((p.group or 0 for p in passes if isinstance(p, Interchange)), 0)
        self.stays = any(isinstance(p, Persist) for p in passes)
        self.turns = any(isinstance(p, Pipeline) and p.pingpong for p in passes)
        self.is_swapped = any(isinstance(p, SwapOperands) for p in passes)
        self.has_pieces = any(
            isinstance(p, Promote) and p.layout and p.operand == "c" for p in passes
        )
        self.is_plain = gemm.batch is None and gemm.groups is None
        self.whole_k = "k"
        self.slices = next((p.factor for p in passes if isinstance(p, SplitK)), 1)
        self.stages = next((p.stages for p in passes if isinstance(p, Pipeline)), 2)

    @property
    def tile(self) -> dict[str, int]:
        """m and n of the tile of a block in the default."""
        return {**self.tiles.get("clusters", {}), **self.tiles.get("blocks", {})}

    def open(self, p: ModulePass) -> None:
        """Write one pass with holes, or as it is."""
        if isinstance(p, SplitK):
            self._split(p)
        elif isinstance(p, Tile) and "n" in p.loops and len(p.loops) > 1:
            self._blocks(p)
        elif isinstance(p, Tile) and p.over == "warpgroups":
            self.draft.add("tile{loops=m sizes=?group_m over=warpgroups}")
        elif isinstance(p, Promote) and p.operand == "c" and p.to == "shared":
            self._pieces()
        elif isinstance(p, Pipeline):
            self._pipeline(p)
        elif not isinstance(p, Interchange | Persist) and not (
            isinstance(p, Tile) and p.over == "blocks"
        ):
            self.draft.add(pass_text(p))

    def _split(self, p: SplitK) -> None:
        values = [1, *near(p.factor, 2, 4 * p.factor)]
        slices = self.draft.hole("slices", p.factor, values, "slices of k on blocks of their own")
        self.draft.add(f"split-k{{factor={slices} order={p.order}}}", f"{slices[1:]} > 1")
        self.whole_k = f"ceil(k / {slices[1:]})"

    def _blocks(self, p: Tile) -> None:
        """Blocks, or clusters of two; their order; and whether they stay."""
        tile, over = self.tile, p.over
        whole = dict(zip(p.loops, p.sizes, strict=True))
        shared = next((d for d in "mn" if over == "clusters" and whole[d] > tile[d]), "none")
        self.draft.hole("tile_m", tile["m"], ROWS, "m of the tile of a block")
        columns = COLUMNS if tile["n"] >= COLUMNS[0] else NARROW_COLUMNS
        self.draft.hole("tile_n", tile["n"], columns, "n of it")
        rows = self.tiles["warpgroups"]["m"]
        self.draft.hole("warpgroups", tile["m"] // rows, WARPGROUPS, "that multiply it together")
        self.draft.let("group_m", "tile_m // warpgroups")
        self.draft.where("group_m % 64 == 0")
        one = "1," if len(p.loops) == 3 else ""
        loops = ",".join(p.loops)
        if self.is_plain:
            self.draft.hole(
                "cluster", f"'{shared}'", ("'none'", "'m'", "'n'"), "two blocks side by side along"
            )
            self._clusters()
            self.draft.let("cluster_m", "2 * tile_m if cluster == 'm' else tile_m")
            self.draft.let("cluster_n", "2 * tile_n if cluster == 'n' else tile_n")
            sizes = f"{one}?cluster_m,?cluster_n"
            self.draft.add(
                f"tile{{loops={loops} sizes={sizes} over=clusters}}", "cluster != 'none'"
            )
        blocks = "cluster == 'none'" if self.is_plain else None
        self.draft.add(f"tile{{loops={loops} sizes={one}?tile_m,?tile_n over=blocks}}", blocks)
        if self.is_plain:
            order = self.draft.hole("side", self.group, GROUPS, "blocks that run together, along m")
            self.draft.add(f"interchange{{order=m,n group={order}}}", f"{order[1:]} > 0")
            for d in "mn":
                self.draft.add(
                    f"tile{{loops={d} sizes=?tile_{d} over=blocks}}", f"cluster == '{d}'"
                )
        first = "yes" if self.stays else "no"
        stay = self.draft.hole("stay", first, ("yes", "no"), "blocks take several tiles in turn")[
            1:
        ]
        count = "sms // (1 if cluster == 'none' else 2)" if self.is_plain else "sms"
        blocks_ = self.draft.let("blocks", count)
        self.draft.add(f"persist{{blocks={blocks_}}}", f"{stay} == 'yes'")
        if self.gemm.groups is None:
            self._count(blocks_[1:])
        if self.whole_k != "k":
            self.draft.where("slices == 1 or (cluster == 'none' and stay == 'no')")
        if self.gemm.scale_block is not None:
            self.draft.where(f"{self.gemm.scale_block} % tile_n == 0")

    def _clusters(self) -> None:
        """There are two blocks to share what each of them copies, half of it in whole rows."""
        gemm = self.gemm
        extents, along_k = ("m", "n"), (not gemm.trans_a, gemm.trans_b)
        if self.is_swapped:
            extents, along_k = extents[::-1], along_k[::-1]
        for d, other, extent, is_along_k in zip("mn", "nm", extents, along_k[::-1], strict=True):
            self.draft.where(f"cluster != '{d}' or {extent} > tile_{d}")
            if not is_along_k:
                self.draft.where(f"cluster != '{d}' or tile_{other} % {2 * PANEL} == 0")

    def _count(self, blocks: str) -> None:
        """Blocks stay where there are more tiles than blocks."""
        rows, columns = ("n", "m") if self.is_swapped else ("m", "n")
        tile_m, tile_n = ("cluster_m", "cluster_n") if self.is_plain else ("tile_m", "tile_n")
        tiles = f"batch * ceil({rows} / {tile_m}) * ceil({columns} / {tile_n})"
        self.draft.where(f"stay == 'no' or {blocks} < {tiles}")

    def _pieces(self) -> None:
        """C goes out in pieces of as many bytes of a row as divide a tile."""
        row = "tile_n * out_bytes"
        widest = f"128 if {row} % 128 == 0 else 64 if {row} % 64 == 0 else 32"
        self.draft.add(
            f"promote{{operand=c to=shared layout=swizzle:{self.draft.let('piece', widest)}}}"
        )

    def _pipeline(self, p: Pipeline) -> None:
        self.draft.hole("stages", p.stages, STAGES, "slices that are under way")
        turns = self.draft.hole(
            "pingpong", str(self.turns).lower(), ("true", "false"), "two warpgroups in turns"
        )
        self.draft.add(
            f"pipeline{{loop=k stages=?stages with={p.with_} specialize=true pingpong={turns}}}"
        )
        self.draft.where("pingpong == 'false' or (warpgroups == 1 and stay == 'yes')")

    def limits(self) -> None:
        """What a block may have of the machine."""
        depth = f"{SLICE_BYTES} // item_bytes"
        steps = -(-self.gemm.k // self.slices) * self.gemm.element.item_bytes / SLICE_BYTES
        least = 2 if self.stages <= steps else max(self.stages, 2)  # the default's are allowed
        self.draft.where(f"stages <= max(ceil({self.whole_k} / ({depth})), {least})")
        pieces = " + tile_m * tile_n * out_bytes" if self.has_pieces else ""
        held = f"stages * (tile_m + tile_n) * {SLICE_BYTES}{pieces}"
        self.draft.where(f"{held} <= smem_bytes_per_block")
