"""MLIR text -> the gemm-level module: one linalg contraction becomes one gemmir.gemm.

    func.func @f(%x, %y, %z: memref)               func.func @f(%x, %y, %z)
        linalg.fill ins(0) outs(%z)           ->       gemmir.gemm %x, %y, %z beta 0
        linalg.matmul ins(%x, %y) outs(%z)

Without a fill linalg accumulates: beta is then 1. On tensors the result becomes a new last argument
`c`, and an initial value that is an argument becomes `residual`, added by a gemmir.epilogue.
Nothing is guessed: a function that does anything else is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    AnyFloat,
    FloatAttr,
    MemRefType,
    ModuleOp,
    TensorType,
)
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from gemmir.ir.build import (
    ARGUMENT_NAME,
    Argument,
    add_epilogue,
    new_function,
    strided_memref,
    view,
)
from gemmir.ir.context import parse_error, parse_with_lines, verify
from gemmir.ir.contraction import (
    Contraction,
    RefusedError,
    View,
    contraction_of,
    layout_of,
    refuse,
    require_known_attributes,
)
from gemmir.ir.dialect import GemmOp, memref_type
from gemmir.ir.linalg_syntax import (
    CONTRACTIONS,
    LINALG,
    FillOp,
    StructuredOp,
    YieldOp,
    make_import_context,
)
from gemmir.ir.problem import problem_of


def import_mlir(text: str, name: str) -> ModuleOp:
    """The gemm-level module of MLIR `text`; text in gemmir's own dialect, of any level, as it is.

    `name` stands for the text in messages. Arguments are named after the SSA names of the text and
    keep their order, except that the output is last.

    Raises `ParseError`: GEM0201 for what is not IR, GEM0202 for what does not verify, GEM0203, with
    the line, for a function that is not exactly one matrix product of known shape in f32 or f64.
    """
    parsed = parse_with_lines(text, name, make_import_context())
    verify(parsed, name)
    try:
        if _is_native(parsed.module):
            return _as_is(parsed.module)
        module = _emit(_read(_function_to_import(parsed.module)))
    except RefusedError as refused:
        line = parsed.line(refused.op)
        raise parse_error("GEM0203", str(refused), name=name, line=line) from refused
    module.verify()
    return module


def _is_native(module: ModuleOp) -> bool:
    """Whether the text is one that gemmir printed, rather than plain MLIR."""
    for op in module.walk():
        if op.dialect_name() == "gemmir":
            return True
        if isinstance(op, func.FuncOp) and op.arg_attrs is not None:
            return any(ARGUMENT_NAME in attributes.data for attributes in op.arg_attrs)
    return False


def _as_is(module: ModuleOp) -> ModuleOp:
    for op in module.walk():
        if op.dialect_name() in (LINALG.name, tensor.Tensor.name):
            refuse(op, "cannot stand in a module that is already in gemmir's dialect")
    return module


def _function_to_import(module: ModuleOp) -> func.FuncOp:
    functions: list[func.FuncOp] = []
    for op in module.ops:
        if not isinstance(op, func.FuncOp):
            refuse(op, "only func.func may stand in the module")
        functions.append(op)
    if not functions:
        refuse(module, "has no func.func")
    able = [f for f in functions if any(isinstance(op, CONTRACTIONS) for op in f.walk())]
    if len(able) > 1:
        names = ", ".join(f"@{f.sym_name.data}" for f in able)
        refuse(able[1], f"several functions have a contraction: {names}; keep one of them")
    if not able:
        names = ", ".join(f"@{f.sym_name.data}" for f in functions)
        refuse(functions[0], f"no linalg contraction in {names}")
    return able[0]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A function to import, understood.

    `output` is the argument that is written; None on tensors, where it is yet to be made.
    `initial` is the argument that a tensor result starts from, if any.
    """

    symbol: str
    arguments: Sequence[SSAValue]
    op: StructuredOp
    contraction: Contraction
    beta: float
    output: SSAValue | None = None
    initial: SSAValue | None = None


def _read(function: func.FuncOp) -> _Source:
    """Understand `function`, or refuse it at the operation that is in the way."""
    if len(function.body.blocks) > 1:
        refuse(function, "has more than one block")
    block = function.body.block
    op, fills = _only_contraction(block)
    contraction = contraction_of(op)
    source = _Source(
        symbol=function.sym_name.data,
        arguments=[a for a in block.args if not _gives_shape_only(a)],
        op=op,
        contraction=contraction,
        beta=0.0,
    )
    on_tensors = isinstance(op.outputs[0].type, TensorType)
    source = _read_tensors(source, block) if on_tensors else _read_memrefs(source, fills, block)
    used = {*op.inputs, source.output, source.initial}
    for argument in source.arguments:
        if argument not in used:
            refuse(function, f"argument {_spelled(argument)} is not used by {op.name}")
    return source


def _only_contraction(block: Block) -> tuple[StructuredOp, list[FillOp]]:
    """The one contraction and the fills of a function that has nothing else with an effect."""
    contractions: list[StructuredOp] = []
    fills: list[FillOp] = []
    for op in block.ops:
        if isinstance(op, CONTRACTIONS):
            contractions.append(op)
        elif isinstance(op, FillOp):
            _require_zero_fill(op)
            fills.append(op)
        elif not isinstance(op, arith.ConstantOp | tensor.EmptyOp | func.ReturnOp):
            refuse(op, "cannot be imported beside a contraction")
    if len(contractions) > 1:
        refuse(contractions[1], f"is a second contraction, after {contractions[0].name}")
    return contractions[0], fills


def _require_zero_fill(fill: FillOp) -> None:
    require_known_attributes(fill)
    if len(fill.inputs) != 1 or len(fill.outputs) != 1 or fill.indexing_maps is not None:
        refuse(fill, "must have one input, one output and no indexing_maps")
    if any(
        not isinstance(inner, YieldOp) or tuple(inner.operands) != tuple(region.block.args[:1])
        for region in fill.body
        for inner in region.block.ops
    ):
        refuse(fill, "its body does anything but yield the input")
    constant = fill.inputs[0].owner
    value = constant.value if isinstance(constant, arith.ConstantOp) else None
    if not isinstance(value, FloatAttr) or value.value.data != 0.0:
        refuse(fill, "the output may only be filled with the constant 0.0")


def _gives_shape_only(argument: BlockArgument) -> bool:
    """Whether a tensor argument is nothing but the destination of a fill, which overwrites it."""
    return (
        isinstance(argument.type, TensorType)
        and argument.first_use is not None
        and all(
            isinstance(use.operation, FillOp) and use.index == len(use.operation.inputs)
            for use in argument.uses
        )
    )


def _spelled(argument: SSAValue) -> str:
    return f"%{argument.name_hint}" if argument.name_hint else "without a name"


def _read_memrefs(source: _Source, fills: Sequence[FillOp], block: Block) -> _Source:
    """The output is an argument; without a fill before the contraction it is added to."""
    op = source.op
    output = op.outputs[0]
    if output in op.inputs:
        refuse(op, f"reads and writes {_spelled(output)}; the output must be another array")
    order = list(block.ops)
    for fill in fills:
        if fill.outputs[0] is not output:
            refuse(fill, f"writes {_spelled(fill.outputs[0])}, which is not the output")
        if order.index(fill) > order.index(op):
            refuse(fill, f"overwrites the result of {op.name}")
    end = block.last_op
    if op.results or (isinstance(end, func.ReturnOp) and end.operands):
        refuse(op, "neither it nor its function may have a result on memrefs")
    return replace(source, output=output, beta=0.0 if fills else 1.0)


def _read_tensors(source: _Source, block: Block) -> _Source:
    """The result is new; it starts from zero, or from an argument, which is then added."""
    op, end = source.op, block.last_op
    if not isinstance(end, func.ReturnOp) or tuple(end.operands) != tuple(op.results):
        refuse(end or op, f"the function must return the result of {op.name} and nothing else")
    if [result.type for result in op.results] != [op.outputs[0].type]:
        refuse(op, "the type of the result is not that of the output operand")
    start = op.outputs[0].owner
    if isinstance(start, tensor.EmptyOp):
        refuse(op, "adds to tensor.empty, whose elements are not defined; fill it with 0.0 first")
    return source if isinstance(start, FillOp) else replace(source, initial=op.outputs[0])


def _emit(source: _Source) -> ModuleOp:
    """The gemm-level module that does what `source` does."""
    names = _names(source)
    inputs = [a for a in source.arguments if a is not source.output]
    arguments = [
        Argument(name=names[a], type=_memref_of(source.op, a), access="read") for a in inputs
    ]
    output = Argument(
        name=names[source.output],
        type=_memref_of(source.op, source.op.outputs[0]),
        access="readwrite" if source.beta else "write",
    )
    module, block = new_function(source.symbol, [*arguments, output])
    values = dict(zip((*inputs, source.output), block.args, strict=True))
    contraction = source.contraction
    first, second = source.op.inputs
    lhs, rhs = (second, first) if contraction.swapped else (first, second)
    a = _viewed(block, values[lhs], contraction.lhs)
    b = _viewed(block, values[rhs], contraction.rhs)
    c = _viewed(block, values[source.output], contraction.out)
    block.add_op(GemmOp(a, b, c, beta=source.beta))
    if source.initial is not None:
        residual = _viewed(block, values[source.initial], contraction.out)
        add_epilogue(block, ("residual",), [residual], c)
    block.add_op(func.ReturnOp())
    return module


def _memref_of(op: Operation, value: SSAValue) -> MemRefType[AnyFloat]:
    layout = layout_of(op, _spelled(value), value.type)
    return strided_memref(layout.element, layout.shape, layout.strides)


def _viewed(block: Block, source: SSAValue, wanted: View) -> SSAValue:
    """`source` as the product reads it; itself where it lies that way already."""
    element = memref_type(source).element_type
    if source.type == strided_memref(element, wanted.shape, wanted.strides):
        return source
    return view(block, source, wanted.shape, wanted.strides, f"{source.name_hint}_view")


def _names(source: _Source) -> dict[SSAValue | None, str]:
    """A name for each argument, from the text where it has one; no two are the same."""
    first, second = source.op.inputs
    defaults: dict[SSAValue | None, str] = {second: "b", first: "a", source.output: "c"}
    if source.initial is not None and source.initial not in source.op.inputs:
        defaults[source.initial] = "residual"
    found: dict[SSAValue | None, str] = {}
    for value in (source.output, *source.arguments):
        if value not in found:
            hint = None if value is None or value is source.initial else value.name_hint
            found[value] = _unique(hint or defaults[value], found.values())
    return found


def _unique(name: str, taken: Collection[str]) -> str:
    candidates = itertools.chain([name], (f"{name}{i}" for i in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


__all__ = ["import_mlir", "problem_of"]
