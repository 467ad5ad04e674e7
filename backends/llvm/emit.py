"""Structured IR -> LLVM text, in one walk.

func, scf, arith, math, memref, vector and gemmir ops have one small emitter each; the tables of
`arithmetic`, `memory` and `structure` are all there is. Register tiles are expanded here and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable

from xdsl.dialects import func
from xdsl.dialects.builtin import DYNAMIC_INDEX, IndexType, ModuleOp, StringAttr

from gemmir.backends.llvm.arithmetic import ARITHMETIC
from gemmir.backends.llvm.deals import DEALS
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.llvm.memory import MEMORY
from gemmir.backends.llvm.nibbles import NIBBLES
from gemmir.backends.llvm.structure import STRUCTURE, reserve_teams
from gemmir.backends.llvm.tiles import TILES
from gemmir.errors import BackendError
from gemmir.ir.arguments import layout_of
from gemmir.ir.build import ARGUMENT_NAME
from gemmir.ir.dialect import memref_type
from gemmir.sizes import Unknown

EMITTERS: Table = {**ARITHMETIC, **MEMORY, **STRUCTURE, **NIBBLES, **DEALS, **TILES}


def emit_module(module: ModuleOp, features: Iterable[str] = ()) -> str:
    """LLVM text for every function of `module`: `i32 @name(ptr, …, i64, …)`, 0 on success.

    `features` are LLVM's names of what the CPU has, of which some instructions need one.
    Raises `BackendError` (GEM0421) for an op that has no emitter.
    """
    parts: list[str] = []
    declarations: set[str] = set()
    for op in module.body.block.ops:
        if not isinstance(op, func.FuncOp):
            raise BackendError("GEM0421", f"{op.name} has no instruction at module level")
        entry = _entry(module)
        emitter = Emitter(EMITTERS, op.sym_name.data, features=frozenset(features), entry=entry)
        parts.append(_function(emitter, op))
        parts.extend(emitter.outlined)
        declarations |= emitter.text.declarations
    return "\n\n".join([*sorted(declarations), *parts]) + "\n"


def _entry(module: ModuleOp) -> str:
    """The name of the first function that is not private."""
    functions = [op for op in module.body.block.ops if isinstance(op, func.FuncOp)]
    public = [f.sym_name.data for f in functions if f.sym_visibility is None]
    return next(iter(public), "")


def _function(emitter: Emitter, op: func.FuncOp) -> str:
    parameters: list[str] = []
    for number, argument in enumerate(op.body.block.args):
        name = f"%a{number}"
        if isinstance(argument.type, IndexType):
            emitter.values[argument] = name
            emitter.text.early_names.add(name)
            parameters.append(f"i64 {name}")
            continue
        emitter.values[argument] = _array(name, op, number)
        parameters.append(f"ptr noalias {name}")
    reserve_teams(emitter, op)
    emitter.block(op.body.block)
    is_private = op.sym_visibility is not None and op.sym_visibility.data == "private"
    kind = "internal i32" if is_private else "i32"
    head = f"define {kind} @{op.sym_name.data}({', '.join(parameters)}) nounwind {{"
    return "\n".join([head, "entry:", *emitter.text.stack, *emitter.text.lines, "}"])


def _array(name: str, op: func.FuncOp, number: int) -> Pointer:
    """An array among the arguments; what its type leaves open are sizes among them."""
    of = memref_type(op.body.block.args[number])
    if DYNAMIC_INDEX not in of.get_shape():
        return Pointer(name, tuple(str(s) for s in of.get_shape()))
    attributes = op.arg_attrs.data if op.arg_attrs is not None else ()
    places = {own.data.get(ARGUMENT_NAME): f"%a{place}" for place, own in enumerate(attributes)}
    found = layout_of(of, attributes[number].data if attributes else {})
    sizes, strides = (
        tuple(places[StringAttr(n.name)] if isinstance(n, Unknown) else str(n) for n in numbers)
        for numbers in (found.shape, found.strides)
    )
    return Pointer(name, sizes, strides=strides)
