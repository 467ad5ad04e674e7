"""Go on with what the last `version` or `part` has left: the passes behind it work on that.

    func.func private @gemm.m8 …                     ->   … attributes {gemmir.turn = "done"}
    func.func private @gemm.more …                   ->   func.func private @gemm.more …
        attributes {gemmir.turn = "waiting"}

Changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import builtin
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import GemmOp
from gemmir.ir.versions import DONE, TURN, current, waiting


@dataclass(frozen=True)
class Otherwise(ModulePass):
    """End the passes of the last `version` or `part`, and begin those of what it has left."""

    name = "gemmir-otherwise"

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        following, function = waiting(op), current(op)
        if following is None or function is None:
            raise ScheduleError(
                "GEM1355",
                "otherwise: there is no version or part whose passes it could end",
                "put version or part, and passes, before it",
            )
        if any(isinstance(inner, GemmOp) for inner in function.walk()):
            raise ScheduleError(
                "GEM1355",
                f"otherwise: @{function.sym_name.data} has a gemmir.gemm left",
                "put vectorize before it",
            )
        function.attributes[TURN] = DONE
        del following.attributes[TURN]
