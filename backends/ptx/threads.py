"""The numbers of a thread: which of its block, its warp and its cluster it is.

They are found once, where the kernel begins.
"""

from __future__ import annotations

from xdsl.ir import Operation, Region

from gemmir.backends.llvm.emitter import Emitter
from gemmir.backends.ptx.launch import GROUP_THREADS, LANES
from gemmir.ir.dialect import WARPGROUPS, ForallOp
from gemmir.ir.warpgroup import WARPS_OF_GROUP, WarpSpecializeOp

CONVERGENT = "convergent nounwind"
"""What calls are that all threads of a warp make together."""


def register(e: Emitter, name: str) -> str:
    """A special register, as i32."""
    intrinsic = f"@llvm.nvvm.read.ptx.sreg.{name}"
    e.text.declare(f"i32 {intrinsic}()")
    return e.text.early(f"call i32 {intrinsic}()")


def thread_of(e: Emitter) -> str:
    """The number of this thread in its block, as i32."""
    return register(e, "tid.x")


def lane_of(e: Emitter) -> str:
    """The number of this thread in its warp."""
    return e.text.binary("urem", e.text.widened(thread_of(e)), str(LANES))


def warp_of(e: Emitter) -> str:
    """The number of this warp in its block, as i32: known to be the same in all of its threads."""
    shuffle = "@llvm.nvvm.shfl.sync.idx.i32"
    e.text.declare(f"i32 {shuffle}(i32, i32, i32, i32) {CONVERGENT}")
    own = e.text.early(f"lshr i32 {thread_of(e)}, {LANES.bit_length() - 1}")
    return e.text.early(f"call i32 {shuffle}(i32 -1, i32 {own}, i32 0, i32 {LANES - 1})")


def group_of(e: Emitter) -> str:
    """The number of this warpgroup in its block, as i32, the same in all threads of a warp."""
    return e.text.early(f"lshr i32 {warp_of(e)}, {WARPS_OF_GROUP.bit_length() - 1}")


def one_of(e: Emitter, op: Operation) -> str | None:
    """Whether this is the one thread that runs `op`, as i1; None where there is no other.

    Inside what a warpgroup runs it is the first of it, otherwise the first of the block.
    """
    region, around = _team(op)
    if isinstance(around, WarpSpecializeOp) and region is around.producer:
        return None
    number = thread_of(e)
    if around is not None:
        number = e.text.early(f"and i32 {number}, {GROUP_THREADS - 1}")
    return e.text.early(f"icmp eq i32 {number}, 0")


def is_in_roles(op: Operation) -> bool:
    """Whether `op` is inside what only some warps of a block run."""
    return isinstance(_team(op)[1], WarpSpecializeOp)


def _team(op: Operation) -> tuple[Region | None, Operation | None]:
    """The role or the loop over warpgroups around `op`, and which region of it; None without."""
    region = op.parent_region()
    while region is not None:
        around = region.parent_op()
        is_loop = isinstance(around, ForallOp) and around.over.data == WARPGROUPS
        if is_loop or isinstance(around, WarpSpecializeOp):
            return region, around
        region = None if around is None else around.parent_region()
    return None, None


def by_one(e: Emitter, op: Operation) -> OneThread:
    """`with by_one(e, op):` what is emitted then is run by one thread only."""
    return OneThread(e, one_of(e, op))


class OneThread:
    """A block of instructions under a condition."""

    def __init__(self, e: Emitter, condition: str | None) -> None:
        self.text, self.condition = e.text, condition
        self.done = ""

    def __enter__(self) -> None:
        if self.condition is None:
            return
        own, self.done = self.text.fresh("one"), self.text.fresh("all")
        self.text.line(f"br i1 {self.condition}, label %{own}, label %{self.done}")
        self.text.start(own)

    def __exit__(self, *_: object) -> None:
        if self.condition is not None:
            self.text.line(f"br label %{self.done}")
            self.text.start(self.done)
