"""Structured IR -> LLVM text, in one walk.

func, scf, arith, math, memref, vector and gemmir ops have one small emitter each; the tables of
`arithmetic`, `memory` and `structure` are all there is. Register tiles are expanded here and
nowhere else.
"""

from __future__ import annotations

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from gemmir.backends.llvm.arithmetic import ARITHMETIC
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.llvm.memory import MEMORY
from gemmir.backends.llvm.structure import STRUCTURE, reserve_team_buffers
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type

EMITTERS: Table = {**ARITHMETIC, **MEMORY, **STRUCTURE}


def emit_module(module: ModuleOp) -> str:
    """LLVM text for every function of `module`: `i32 @name(ptr, …)`, 0 on success.

    Raises `BackendError` (GEM0421) for an op that has no emitter.
    """
    parts: list[str] = []
    declarations: set[str] = set()
    for op in module.body.block.ops:
        if not isinstance(op, func.FuncOp):
            raise BackendError("GEM0421", f"{op.name} has no instruction at module level")
        emitter = Emitter(EMITTERS, op.sym_name.data)
        parts.append(_function(emitter, op))
        parts.extend(emitter.outlined)
        declarations |= emitter.text.declarations
    return "\n\n".join([*sorted(declarations), *parts]) + "\n"


def _function(emitter: Emitter, op: func.FuncOp) -> str:
    parameters: list[str] = []
    for number, argument in enumerate(op.body.block.args):
        name = f"%a{number}"
        sizes = tuple(str(s) for s in memref_type(argument).get_shape())
        emitter.values[argument] = Pointer(name, sizes)
        parameters.append(f"ptr noalias {name}")
    reserve_team_buffers(emitter, op)
    emitter.block(op.body.block)
    head = f"define i32 @{op.sym_name.data}({', '.join(parameters)}) nounwind {{"
    return "\n".join([head, "entry:", *emitter.text.stack, *emitter.text.lines, "}"])
