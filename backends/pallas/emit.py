"""The TPU's IR -> a Python file with a Pallas kernel, in one walk.

Each `pallas.call` of a function becomes a kernel and a call of `pl.pallas_call`. The op emitters
are the tables of `arithmetic`, `memory` and `structure`.
"""

from __future__ import annotations

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from gemmir.backend import Artifact
from gemmir.backends.pallas.function import FunctionText
from gemmir.machine import Machine, TpuMachine
from gemmir.signature import signature_of


def emit(module: ModuleOp, machine: Machine) -> Artifact:
    """`module` as a Python file for `machine`; `BackendError` where an op has no spelling."""
    assert isinstance(machine, TpuMachine)
    signature = signature_of(module)
    function = next(
        op
        for op in module.body.block.ops
        if isinstance(op, func.FuncOp) and op.sym_name.data == signature.symbol
    )
    text = FunctionText(signature, function, machine).file()
    return Artifact(kind="pallas", text=text, signature=signature, cpu=machine.name)
