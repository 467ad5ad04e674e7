"""Loops of a GEMM nest: how they are made, named and found.

A loop carries the discardable attribute `gemmir.dim` with the dimension of the GEMM that it walks,
so that later passes can name it after the IR has been printed and parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import BLOCKS, ForallOp, GemmOp, YieldOp, enclosing_ops
from gemmir.ir.index import INDEX, constant_of

DIMENSION: Final = "gemmir.dim"
DIMENSIONS: Final = ("batch", "m", "n", "k")
GROUP: Final = "group"
"""The dimension of the loop over the products of a grouped GEMM."""

TILES: Final = "tiles"
"""The dimension of the loop in which a block that stays takes one tile after another."""

Loop: TypeAlias = scf.ForOp | ForallOp


def gemms(module: ModuleOp) -> list[GemmOp]:
    """The `gemmir.gemm` ops of a module; a list, so that they may be rewritten on the way."""
    return [op for op in module.walk() if isinstance(op, GemmOp)]


def require_gemms(
    pass_name: str,
    module: ModuleOp,
    *,
    takes_scales: bool = False,
    takes_factors: bool = False,
) -> list[GemmOp]:
    """The `gemmir.gemm` ops of a module; `ScheduleError` (GEM0301) where there are none left.

    GEM1288 where one has scales of blocks, and the pass does not take those; GEM1356 where alpha or
    beta is known at run time only, and the pass takes numbers.
    """
    found = gemms(module)
    for gemm in found:
        factors = (gemm.alpha_value, gemm.beta_value)
        if not takes_factors and factors != (None, None):
            raise ScheduleError(
                "GEM1356",
                f"{pass_name}: alpha or beta of the gemmir.gemm is known at run time only",
                f"leave {pass_name} out, or put it behind promote{{operand=c to=registers}}",
            )
        if gemm.depth is not None and not takes_scales:
            size = gemm.depth.value.data
            raise ScheduleError(
                "GEM1288",
                f"{pass_name}: the gemmir.gemm has a scale for every {size} along k",
                f"leave {pass_name} out, or first tile k by {size} and n by at most {size}, and "
                "promote{operand=c to=registers} behind that",
            )
    if not found:
        raise ScheduleError(
            "GEM0301",
            f"{pass_name}: there is no gemmir.gemm to work on",
            f"put {pass_name} before vectorize",
        )
    return found


def open_loop(
    builder: Builder,
    dimension: str,
    bounds: tuple[SSAValue, SSAValue, SSAValue],
    over: str | None = None,
) -> tuple[SSAValue, Builder]:
    """Insert an empty loop from, to, by `bounds`; returns its variable and a builder inside it."""
    end = scf.YieldOp() if over is None else YieldOp()
    body = Block([end], arg_types=[INDEX])
    region = Region(body)
    loop = scf.ForOp(*bounds, [], region) if over is None else ForallOp(*bounds, over, region)
    loop.attributes[DIMENSION] = StringAttr(dimension)
    builder.insert(loop)
    return body.args[0], Builder(InsertPoint.before(end))


def dimension_of(op: Operation) -> str | None:
    """The dimension that a loop walks, None where `op` is no loop of a GEMM nest."""
    name = op.attributes.get(DIMENSION)
    return name.data if isinstance(op, Loop) and isinstance(name, StringAttr) else None


def loops_around(op: Operation, dimension: str) -> list[Loop]:
    """The loops over `dimension` around `op`, innermost first."""
    return [o for o in enclosing_ops(op) if isinstance(o, Loop) and dimension_of(o) == dimension]


def trips(loop: Loop) -> int:
    """How many iterations a loop from 0 has, whose bounds are static."""
    ub, step = constant_of(loop.ub), constant_of(loop.step)
    assert ub is not None and step is not None
    return max(-(-ub // step), 0)


def runs_more_than_once(loop: Loop) -> bool:
    """Whether the bounds alone show that the loop has at least two iterations."""
    lb, ub, step = (constant_of(v) for v in (loop.lb, loop.ub, loop.step))
    return lb is not None and ub is not None and step is not None and lb + step < ub


def is_repeated(op: Operation) -> bool:
    """Whether a block of a GPU comes to `op` more than once, in loops inside those over blocks."""
    for around in enclosing_ops(op):
        if isinstance(around, scf.ForOp):
            return True
        if isinstance(around, ForallOp) and around.over.data == BLOCKS:
            return False
    return False


def tiles_overlap(loop: Loop) -> bool:
    """Whether the loop moves its last tile back inside, onto elements of the one before."""
    uses = list(loop.body.block.args[0].uses)
    return bool(uses) and all(isinstance(use.operation, arith.MinSIOp) for use in uses)


def carry(
    loops: Sequence[scf.ForOp], begin: list[SSAValue]
) -> tuple[list[SSAValue], Callable[[list[SSAValue]], list[SSAValue]]]:
    """Let `loops`, outermost first, carry values that are `begin` at first, beside what they carry.

    Returns the values at the start of the innermost body, and a function that takes those at its
    end to those after the outermost loop.
    """
    carrying: list[scf.ForOp] = []
    for loop in loops:
        region = loop.detach_region(loop.body)
        block = region.block
        made = scf.ForOp(loop.lb, loop.ub, loop.step, [*loop.iter_args, *begin], region)
        begin = [block.insert_arg(v.type, len(block.args)) for v in begin]
        made.attributes |= loop.attributes
        Builder(InsertPoint.before(loop)).insert(made)
        for old, new in zip(loop.results, made.results, strict=False):
            old.replace_all_uses_with(new)
        loop.detach()
        loop.erase()
        carrying.append(made)

    def finish(end: list[SSAValue]) -> list[SSAValue]:
        for loop in reversed(carrying):
            last = loop.body.block.last_op
            assert last is not None
            Builder(InsertPoint.before(last)).insert(scf.YieldOp(*last.operands, *end))
            last.detach()
            last.erase()
            end = [*loop.results[-len(end) :]]
        return end

    return begin, finish


def conditional(
    condition: SSAValue,
    then: Callable[[Builder], object],
    otherwise: Callable[[Builder], object],
) -> scf.IfOp:
    """An `scf.if` whose two bodies are filled by the callables."""
    blocks = [Block([scf.YieldOp()]), Block([scf.YieldOp()])]
    for block, fill in zip(blocks, (then, otherwise), strict=True):
        assert block.last_op is not None
        fill(Builder(InsertPoint.before(block.last_op)))
    return scf.IfOp(condition, [], Region(blocks[0]), Region(blocks[1]))


def move(ops: Sequence[Operation], builder: Builder) -> None:
    """Move `ops`, in order, to where `builder` inserts."""
    for op in ops:
        op.detach()
        builder.insert(op)
