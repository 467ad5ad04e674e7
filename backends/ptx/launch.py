"""How kernels are laid out over a GPU, read from their loops over blocks, warps and threads.

Each nest of loops over blocks in a function is one kernel. They run one after another, so that what
one nest has stored is there for the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xdsl.dialects import func, vector
from xdsl.ir import Operation

from gemmir.errors import BackendError
from gemmir.ir.dialect import BLOCKS, CORES, THREADS, WARPS, ForallOp, enclosing_ops
from gemmir.ir.index import constant_of

LANES = 32
"""The threads of a warp."""

MAX_THREADS = 1024
"""Threads of one block: CUDA C++ Programming Guide, table of technical specifications."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The loops over blocks, warps and threads of one kernel, outermost first.

    Where there are loops over warps, those over threads inside them are over the 32 of a warp. The
    kernel is all of `root`: one of several nests of a function, or the function.
    """

    root: ForallOp | func.FuncOp
    blocks: tuple[ForallOp, ...]
    warps: tuple[ForallOp, ...]
    threads: tuple[ForallOp, ...]

    @property
    def grid(self) -> int:
        """How many blocks there are."""
        return math.prod(map(trips, self.blocks))

    @property
    def block(self) -> int:
        """How many threads a block has."""
        if self.warps:
            return math.prod(map(trips, self.warps)) * LANES
        return math.prod(map(trips, self.threads))


def trips(loop: ForallOp) -> int:
    """The iterations of a loop, whose bounds are static."""
    lb, ub, step = (constant_of(v) for v in (loop.lb, loop.ub, loop.step))
    if lb is None or ub is None or step is None:
        raise BackendError("GEM0440", f"a loop over {loop.over.data} has no static bounds")
    return max(-(-(ub - lb) // step), 0)


def layouts_of(function: func.FuncOp) -> tuple[Layout, ...]:
    """The layout of each kernel of `function`, in the order in which they run.

    All stores must be inside the loops over threads of a kernel. Raises `BackendError`: GEM0440
    where a kernel is not one nest of loops over blocks and one inside it, GEM0441 for a store that
    every thread of a block or every block would make, GEM0442 for a block of too many threads.
    """
    nests = _nests(function)
    if len(nests) < 2:
        return (_layout(function),)
    for op in function.body.block.ops:
        if op not in nests:
            _require_own_stores(op, nests)
    return tuple(map(_layout, nests))


def _nests(function: func.FuncOp) -> list[ForallOp]:
    return [op for op in function.body.block.ops if isinstance(op, ForallOp)]


def kernel_of(op: Operation) -> ForallOp | func.FuncOp:
    """The kernel that an op of a function is part of, the `root` of its layout."""
    around = enclosing_ops(op)
    function = next(o for o in around if isinstance(o, func.FuncOp))
    nests = _nests(function)
    return function if len(nests) < 2 else next(o for o in nests if o in around)


def _layout(root: ForallOp | func.FuncOp) -> Layout:
    foralls = [o for o in root.walk() if isinstance(o, ForallOp)]
    if any(o.over.data == CORES for o in foralls):
        raise BackendError(
            "GEM0440", "a loop over cores on a GPU", "tile over=blocks, warps or threads"
        )
    blocks, warps, threads = (
        tuple(o for o in foralls if o.over.data == over) for over in (BLOCKS, WARPS, THREADS)
    )
    layout = Layout(root=root, blocks=blocks, warps=warps, threads=threads)
    nest = (*blocks, *warps, *(() if warps else threads))
    if any(outer not in enclosing_ops(inner) for outer, inner in pairwise(nest)):
        raise BackendError(
            "GEM0440",
            "a kernel is not one nest of loops over blocks with one over threads in it",
            "tile over blocks once, with all of its loops, and fuse the epilogue",
        )
    for loop in threads if warps else ():
        _require_warp(loop, nest)
    if layout.block > MAX_THREADS:
        raise BackendError(
            "GEM0442",
            f"a block of {layout.block} threads, and there are at most {MAX_THREADS}",
            "use larger tiles over threads or smaller ones over blocks",
        )
    _require_own_stores(root, nest)
    return layout


def _require_warp(loop: ForallOp, nest: Sequence[ForallOp]) -> None:
    """Loops over the threads of a warp are inside all over warps, and are 32 together."""
    around = [o for o in enclosing_ops(loop) if isinstance(o, ForallOp)]
    inner = [o for o in loop.body.walk() if isinstance(o, ForallOp)]
    own = [loop, *inner, *(o for o in around if o.over.data == THREADS)]
    found = math.prod(map(trips, own))
    if found != LANES or any(o not in around for o in nest):
        raise BackendError(
            "GEM0440",
            f"loops over {found} threads inside those over warps, and a warp has {LANES}",
            f"tile over threads so that {LANES} of them share the tile of a warp",
        )


def _require_own_stores(root: Operation, foralls: Sequence[ForallOp]) -> None:
    for op in root.walk():
        if isinstance(op, vector.TransferWriteOp) and not _inside_all(op, foralls):
            raise BackendError(
                "GEM0441",
                "a store outside the innermost loop over blocks or threads would be made many "
                "times at once",
                "fuse-epilogue moves the epilogue into that loop",
            )


def _inside_all(op: Operation, foralls: Sequence[ForallOp]) -> bool:
    around = enclosing_ops(op)
    return all(loop in around for loop in foralls)
