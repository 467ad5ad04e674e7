"""Reorder the loops that stand directly inside one another around a GEMM.

    scf.for %i (m)                         scf.for %j (n)
        scf.for %j (n)            ->           scf.for %i (m)
            gemmir.gemm                            gemmir.gemm

Only a perfect nest can be reordered: a copy or a size computed between two loops ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import builtin
from xdsl.dialects.builtin import StringAttr
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import ForallOp, GemmOp, enclosing_ops
from gemmir.ir.loops import DIMENSION, Loop, dimension_of, require_gemms, tiles_overlap


def plan(gemm: GemmOp, order: Sequence[str]) -> list[Loop]:
    """The loops to reorder, outermost first; `ScheduleError` (GEM0340 to GEM0342) if illegal."""
    nest = _perfect_nest(gemm)
    names = [dimension_of(loop) or "" for loop in nest]
    window = names[: len(order)]
    if sorted(window) != sorted(order) or len(set(order)) != len(order) or len(order) < 2:
        raise ScheduleError(
            "GEM0340",
            f"interchange: order={','.join(order)} of the nest {','.join(names[::-1]) or 'none'}",
            f"name the innermost loops, as in order={','.join(names) or 'n,m'}",
        )
    loops = nest[: len(order)][::-1]
    if any(isinstance(loop, ForallOp) for loop in loops):
        raise ScheduleError("GEM0341", "interchange: a loop over cores stays where it is")
    if "k" in order and any(tiles_overlap(loop) for loop in loops):
        raise ScheduleError(
            "GEM0342",
            "interchange: k cannot move across tiles that overlap",
            "use edges=clip, or leave k where it is",
        )
    return loops


def _perfect_nest(gemm: GemmOp) -> list[Loop]:
    """The loops around `gemm` with nothing but one another in them, innermost first."""
    nest: list[Loop] = []
    for op in enclosing_ops(gemm):
        if not isinstance(op, Loop) or (nest and len(op.body.block.ops) != 2):
            break
        nest.append(op)
    return nest


def interchange(loops: Sequence[Loop], order: Sequence[str]) -> None:
    """Give the nest `loops`, outermost first, the dimensions of `order`."""
    headers = {dimension_of(loop): (loop, tuple(loop.operands[:3])) for loop in loops}
    variables = {loop: loop.body.block.args[0] for loop in loops}
    uses = {name: list(variables[loop].uses) for name, (loop, _) in headers.items()}
    hints = {name: variables[loop].name_hint for name, (loop, _) in headers.items()}
    for loop, name in zip(loops, order, strict=True):
        for position, bound in enumerate(headers[name][1]):
            loop.operands[position] = bound
        loop.attributes[DIMENSION] = StringAttr(name)
        for use in uses[name]:
            use.operation.operands[use.index] = variables[loop]
        variables[loop].name_hint = hints[name]


@dataclass(frozen=True)
class Interchange(ModulePass):
    """Reorder the innermost loops to `order`, outermost first."""

    name = "gemmir-interchange"

    order: tuple[str, ...]

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        for gemm in require_gemms("interchange", op):
            interchange(plan(gemm, self.order), self.order)
