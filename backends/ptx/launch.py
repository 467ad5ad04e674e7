"""How kernels are laid out over a GPU, read from their loops over blocks, warps and threads.

Each nest of loops over clusters or blocks in a function is one kernel. They run one after another,
so that what one nest has stored is there for the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xdsl.dialects import func, vector
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation

from gemmir.errors import BackendError
from gemmir.ir.dialect import (
    BLOCKS,
    BLOCKS_PER_SM,
    CLUSTERS,
    CORES,
    THREADS,
    WARPGROUPS,
    WARPS,
    ForallOp,
    enclosing_ops,
)
from gemmir.ir.index import constant_of
from gemmir.ir.warpgroup import MOST_REGISTERS, REGISTER_STEP, WARPS_OF_GROUP, WarpSpecializeOp

LANES = 32
"""The threads of a warp."""

GROUP_THREADS = WARPS_OF_GROUP * LANES
"""The threads of a warpgroup."""

THREADS_OF = {WARPS: LANES, WARPGROUPS: GROUP_THREADS}
"""How many threads one iteration of a loop over these has."""

MAX_THREADS = 1024
"""Threads of one block: CUDA C++ Programming Guide, table of technical specifications."""

REGISTERS = 65536
"""Registers of 32 bits that the blocks of one multiprocessor have: the same table."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The loops over clusters, blocks, warpgroups or warps, and threads of one kernel.

    Outermost first. Where there are loops over clusters, those over blocks are over the blocks of
    one. Where there are loops over warps or warpgroups, those over threads inside them are over the
    threads of one. The kernel is all of `root`: one of several nests of a function, or the
    function. Its threads may be split by `roles` instead.
    """

    root: ForallOp | func.FuncOp
    clusters: tuple[ForallOp, ...]
    blocks: tuple[ForallOp, ...]
    teams: tuple[ForallOp, ...]
    threads: tuple[ForallOp, ...]
    roles: WarpSpecializeOp | None

    @property
    def cluster(self) -> int:
        """How many blocks a cluster has."""
        return math.prod(map(trips, self.blocks)) if self.clusters else 1

    @property
    def grid(self) -> int:
        """How many blocks there are."""
        return math.prod(map(trips, (*self.clusters, *self.blocks)))

    @property
    def block(self) -> int:
        """How many threads a block has."""
        if self.roles is not None:
            return (1 + self.roles.count) * GROUP_THREADS
        if self.teams:
            return math.prod(map(trips, self.teams)) * THREADS_OF[self.teams[0].over.data]
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
    clusters, blocks, groups, warps, threads = (
        tuple(o for o in foralls if o.over.data == over)
        for over in (CLUSTERS, BLOCKS, WARPGROUPS, WARPS, THREADS)
    )
    if groups and warps:
        raise BackendError(
            "GEM0440",
            "a kernel has loops over warpgroups and over warps",
            "tile over warpgroups for wgmma, or over warps for mma",
        )
    roles = next((o for o in root.walk() if isinstance(o, WarpSpecializeOp)), None)
    teams = groups or warps
    layout = Layout(
        root=root, clusters=clusters, blocks=blocks, teams=teams, threads=threads, roles=roles
    )
    nest: tuple[Operation, ...] = (*clusters, *blocks, *teams, *(() if teams else threads))
    if any(outer not in enclosing_ops(inner) for outer, inner in pairwise(nest)):
        raise BackendError(
            "GEM0440",
            "a kernel is not one nest of loops over blocks with one over threads in it",
            "tile over blocks once, with all of its loops, and fuse the epilogue",
        )
    for loop in threads if teams else ():
        _require_team(loop, teams, nest)
    if roles is not None:
        _require_roles(roles, layout)
        nest = (*nest, roles)
    if layout.block > MAX_THREADS:
        raise BackendError(
            "GEM0442",
            f"a block of {layout.block} threads, and there are at most {MAX_THREADS}",
            "use larger tiles over threads or smaller ones over blocks",
        )
    _require_own_stores(root, nest)
    return layout


def _require_team(loop: ForallOp, teams: Sequence[ForallOp], nest: Sequence[Operation]) -> None:
    """Loops over the threads of a warp or warpgroup are inside all over these, and are all of it.

    A warp has 32 threads, and a warpgroup 128.
    """
    over = teams[0].over.data
    around = [o for o in enclosing_ops(loop) if isinstance(o, ForallOp)]
    inner = [o for o in loop.body.walk() if isinstance(o, ForallOp)]
    own = [loop, *inner, *(o for o in around if o.over.data == THREADS)]
    found, wanted = math.prod(map(trips, own)), THREADS_OF[over]
    if found != wanted or any(o not in around for o in nest):
        raise BackendError(
            "GEM0440",
            f"loops over {found} threads inside those over {over}, and one of these has {wanted}",
            f"tile over threads so that {wanted} of them share its tile",
        )


def _require_roles(roles: WarpSpecializeOp, layout: Layout) -> None:
    """A kernel whose threads have roles has no other loops over them, and registers for all."""
    around = enclosing_ops(roles)
    others = [o for o in layout.root.walk() if isinstance(o, WarpSpecializeOp) and o is not roles]
    outside = [o for o in (*layout.clusters, *layout.blocks) if o not in around]
    if layout.teams or layout.threads or others or outside:
        raise BackendError(
            "GEM0440",
            "a kernel whose warps have roles has loops over warps or threads too",
            "leave out what is over warpgroups, warps or threads beside pipeline with specialize",
        )
    threads, held = layout.block, REGISTERS // (blocks_per_sm(layout.root) or 1)
    given = min(MOST_REGISTERS, held // threads // REGISTER_STEP * REGISTER_STEP)
    fewer, more = roles.registers
    together = GROUP_THREADS * (fewer + roles.count * more)
    if not fewer <= given <= more or together > held:
        left = (held // GROUP_THREADS - fewer) // roles.count // REGISTER_STEP * REGISTER_STEP
        raise BackendError(
            "GEM0446",
            f"{fewer} registers for a thread that copies and {more} for one that multiplies: each "
            f"of {threads} threads begins with {given}, and a block has {held}",
            f"use at most {given} and then {min(left, MOST_REGISTERS)}",
        )


def blocks_per_sm(op: Operation) -> int | None:
    """How many blocks one multiprocessor shall hold at least of what `op` is, or is part of."""
    function = next(o for o in (op, *enclosing_ops(op)) if isinstance(o, func.FuncOp))
    found = function.attributes.get(BLOCKS_PER_SM)
    return found.value.data if isinstance(found, IntegerAttr) else None


def _require_own_stores(root: Operation, nest: Sequence[Operation]) -> None:
    for op in root.walk():
        if isinstance(op, vector.TransferWriteOp) and not _inside_all(op, nest):
            raise BackendError(
                "GEM0441",
                "a store outside the innermost loop over blocks or threads would be made many "
                "times at once",
                "fuse-epilogue moves the epilogue into that loop",
            )


def _inside_all(op: Operation, nest: Sequence[Operation]) -> bool:
    around = enclosing_ops(op)
    return all(o in around for o in nest)
