"""Loops over units of hardware: cores, and the blocks, warps and threads of a GPU."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import AnyFloatConstr, IndexType, IntegerType, StringAttr
from xdsl.ir import Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    base,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    region_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    IsTerminator,
    MemoryReadEffect,
    MemoryWriteEffect,
    RecursiveMemoryEffect,
    SingleBlockImplicitTerminator,
    ensure_terminator,
)
from xdsl.utils.exceptions import VerifyException

CORES = "cores"
"""The mapping of `gemmir.forall` onto the cores of a CPU."""

CLUSTERS = "clusters"
BLOCKS = "blocks"
WARPGROUPS = "warpgroups"
WARPS = "warps"
THREADS = "threads"
"""The mappings of `gemmir.forall` onto a GPU: blocks of a grid, and what is inside a block.

Loops over blocks inside loops over clusters are over the blocks of one cluster.

Nested loops are numbered with the innermost fastest, so that 32 iterations of the loops over
threads inside the loops over warps are the lanes of one warp.
"""

BLOCKS_PER_SM = "gemmir.blocks_per_sm"
"""Attribute of a function: how many blocks one multiprocessor of a GPU shall hold at least."""

GRID = "grid"
"""The mapping of `gemmir.forall` onto the grid of a TPU kernel, whose steps a core walks in order.
"""

INSIDE_BLOCK = (WARPGROUPS, WARPS, THREADS)
MAPPINGS = (CORES, CLUSTERS, BLOCKS, *INSIDE_BLOCK, GRID)


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends the region of `gemmir.epilogue`, with the element to store, or of `gemmir.forall`."""

    name = "gemmir.yield"

    value = opt_operand_def(AnyFloatConstr | base(IntegerType))

    assembly_format: ClassVar[str | None] = "($value^ `:` type($value))? attr-dict"
    traits = traits_def(IsTerminator())

    def __init__(self, value: SSAValue | None = None) -> None:
        super().__init__(operands=[value])


@irdl_op_definition
class ForallOp(IRDLOperation):
    """A loop whose iterations are independent and run on the units that `over` names.

    Cores are dealt contiguous iterations; a block, warp or thread of a GPU has exactly one. Which
    unit computes an element never changes its bits.
    """

    name = "gemmir.forall"

    lb = operand_def(IndexType())
    ub = operand_def(IndexType())
    step = operand_def(IndexType())
    over = prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(SingleBlockImplicitTerminator(YieldOp), RecursiveMemoryEffect())

    def __init__(self, lb: SSAValue, ub: SSAValue, step: SSAValue, over: str, body: Region) -> None:
        super().__init__(
            operands=[lb, ub, step], properties={"over": StringAttr(over)}, regions=[body]
        )

    def verify_(self) -> None:
        if tuple(self.body.block.arg_types) != (IndexType(),):
            raise VerifyException(f"{self.name}: the body takes one index")
        if self.over.data not in MAPPINGS:
            known = ", ".join(MAPPINGS)
            raise VerifyException(f"{self.name}: over {self.over.data!r} is not one of {known}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.body.block.args[0])
        for word, value in ((" = ", self.lb), (" to ", self.ub), (" step ", self.step)):
            printer.print_string(word)
            printer.print_ssa_value(value)
        printer.print_string(f" over {self.over.data} ")
        printer.print_region(
            self.body,
            print_entry_block_args=False,
            print_empty_block=False,
            print_block_terminators=False,
        )
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> ForallOp:
        argument = parser.parse_argument(expect_type=False)
        parser.parse_punctuation("=")
        lb = parser.parse_unresolved_operand()
        parser.parse_keyword("to")
        ub = parser.parse_unresolved_operand()
        parser.parse_keyword("step")
        step = parser.parse_unresolved_operand()
        parser.parse_keyword("over")
        over = parser.parse_identifier()
        index = IndexType()
        bounds = [parser.resolve_operand(v, index) for v in (lb, ub, step)]
        body = parser.parse_region((argument.resolve(index),))
        attributes = parser.parse_optional_attr_dict()
        op = cls(bounds[0], bounds[1], bounds[2], over, body)
        op.attributes |= attributes
        for trait in op.get_traits_of_type(SingleBlockImplicitTerminator):
            ensure_terminator(op, trait)
        return op


@irdl_op_definition
class BarrierOp(IRDLOperation):
    """No thread of a block goes on before all have come here; what they wrote is then seen by all.

    Every thread of the block must reach the same barrier.
    """

    name = "gemmir.barrier"

    assembly_format: ClassVar[str | None] = "attr-dict"
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self) -> None:
        super().__init__()


def enclosing_ops(op: Operation) -> list[Operation]:
    """The ops around `op`, innermost first."""
    found: list[Operation] = []
    parent = op.parent_op()
    while parent is not None:
        found.append(parent)
        parent = parent.parent_op()
    return found
