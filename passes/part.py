"""Cut rows or columns of C in two, each a function of its own, with passes of its own.

    func.func @gemm(%a, %b, %c)   ->   func.func @gemm(%a, %b, %c)
      gemmir.gemm m x 100 x k              func.call @gemm.n96(%a, %b, %c)
                                           func.call @gemm.n96.rest(%a, %b, %c)
                                       func.func private @gemm.n96 …     columns 0 to 95
                                           gemmir.gemm m x 96 x k on subviews
                                       func.func private @gemm.n96.rest …     those from 96 on
                                           gemmir.gemm m x 4 x k on subviews

The passes that follow work on the first, up to `otherwise`; those behind that work on the other.
An epilogue goes with the elements that it is of. Copies nothing, and changes no order of summation
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, builtin, func, memref
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, GemmOp, memref_type
from gemmir.ir.index import Extent, before
from gemmir.ir.loops import require_gemms
from gemmir.ir.versions import DONE, TURN, WAITING, current, private_copy
from gemmir.ir.views import extents, subview

LOOPS = ("m", "n")
WHOLE = (
    GemmOp,
    EpilogueOp,
    func.ReturnOp,
    arith.ConstantOp,
    memref.ReinterpretCastOp,
    memref.SubviewOp,
)
"""What a function, or a part of one, consists of before the first pass."""


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """The function to cut, along which dimension of C, and where: `at` of `extent`."""

    function: func.FuncOp
    loop: str
    at: int
    extent: int


def plan(module: builtin.ModuleOp, loop: str, at: int) -> PartPlan:
    """Decide the parts; `ScheduleError` (GEM1302, GEM1303) where there are none."""
    (gemm, *_) = require_gemms("part", module, takes_factors=True)
    function = current(module)
    if function is None or not all(isinstance(op, WHOLE) for op in function.body.block.ops):
        raise ScheduleError(
            "GEM1302",
            "part: other passes have worked on the function",
            "make it the first pass, or put it right behind version or otherwise",
        )
    if len(memref_type(gemm.c).get_shape()) != len(LOOPS):
        raise ScheduleError("GEM1302", "part: the product is a batch", "leave part out")
    if loop not in LOOPS:
        raise ScheduleError(
            "GEM1303", f"part: loop={loop} is no dimension of C", f"use {' or '.join(LOOPS)}"
        )
    extent = extents(gemm.c)[LOOPS.index(loop)]
    if not isinstance(extent, int) or not 0 < at < extent:
        known = extent if isinstance(extent, int) else "a number that is known in a call only"
        raise ScheduleError(
            "GEM1303",
            f"part: at={at} of {loop}, which is {known}",
            f"use at=1 to {extent - 1}"
            if isinstance(extent, int) and extent > 1
            else "leave part out",
        )
    return PartPlan(function=function, loop=loop, at=at, extent=extent)


def part(plan: PartPlan) -> None:
    """Make the two functions of `plan`, and let the one that is there call both."""
    whole = plan.function
    symbol = f"{whole.sym_name.data}.{plan.loop}{plan.at}"
    first, rest = (private_copy(whole, name) for name in (symbol, f"{symbol}.rest"))
    rest.attributes[TURN] = WAITING
    parent = whole.parent_block()
    assert parent is not None
    parent.insert_ops_after([first, rest], whole)
    _narrow(first, plan.loop, 0, plan.at)
    _narrow(rest, plan.loop, plan.at, plan.extent - plan.at)
    _call_both(whole, (first, rest))


def _narrow(function: func.FuncOp, loop: str, begin: int, size: int) -> None:
    """Let `function` compute `size` rows or columns of C, from `begin` on.

    Windows stand before the product, where every later pass finds them.
    """
    of_c = LOOPS.index(loop)
    ops = list(function.body.block.ops)
    gemm = next(op for op in ops if isinstance(op, GemmOp))
    for cast in ops[ops.index(gemm) :]:
        if isinstance(cast, memref.ReinterpretCastOp):
            cast.detach()
            function.body.block.insert_op_before(cast, gemm)
    windows: dict[tuple[SSAValue, int], SSAValue] = {}
    for op in ops:
        if isinstance(op, GemmOp):
            dimensions = {(0 if loop == "m" else 1): of_c, 2: of_c}
        elif isinstance(op, EpilogueOp):
            dimensions = dict.fromkeys(range(len(op.operands)), of_c)
        else:
            continue
        for position, dimension in dimensions.items():
            whole = op.operands[position]
            if (whole, dimension) not in windows:
                windows[whole, dimension] = _window(gemm, whole, dimension, begin, size)
            op.operands[position] = windows[whole, dimension]


def _window(gemm: GemmOp, value: SSAValue, dimension: int, begin: int, size: int) -> SSAValue:
    """The rows or columns of `value` that belong to the part."""
    offsets: list[Extent] = [0, 0]
    sizes = list(extents(value))
    offsets[dimension], sizes[dimension] = begin, size
    return subview(before(gemm), value, offsets, sizes)


def _call_both(function: func.FuncOp, parts: Sequence[func.FuncOp]) -> None:
    block = Block(arg_types=function.function_type.inputs.data)
    for new, old in zip(block.args, function.body.block.args, strict=True):
        new.name_hint = old.name_hint
    function.detach_region(function.body)
    function.add_region(Region(block))
    block.add_ops(func.CallOp(each.sym_name.data, list(block.args), ()) for each in parts)
    block.add_op(func.ReturnOp())
    function.attributes[TURN] = DONE


@dataclass(frozen=True)
class Part(ModulePass):
    """Give the first `at` rows (`loop=m`) or columns (`loop=n`) of C a function of their own.

    The passes that follow work on it, up to `otherwise`, and those behind that on the others.
    """

    name = "gemmir-part"

    loop: str
    at: int

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        part(plan(op, self.loop, self.at))
