"""MLIR text -> the gemm-level module: one linalg contraction becomes one gemmir.gemm.

    func.func @f(%x, %y, %r, %z: memref)           func.func @f(%x, %y, %r, %z)
        linalg.fill ins(0) outs(%z)           ->       gemmir.gemm %x, %y, %z beta 0
        linalg.matmul ins(%x, %y) outs(%z)             gemmir.epilogue ins(%r) outs(%z) { f }
        linalg.generic ins(%r) outs(%z) { f }

Without a fill linalg accumulates: beta is then 1. Elementwise operations on the result become one
gemmir.epilogue together. On tensors the result becomes a new last argument `c`, and an initial
value that is an argument becomes `residual`, which the epilogue adds first. Nothing is guessed: a
function that does anything else is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    FloatAttr,
    MemRefType,
    ModuleOp,
    TensorType,
)
from xdsl.ir import Block, BlockArgument, Operation, OpResult, SSAValue

from gemmir.ir.build import (
    ARGUMENT_NAME,
    Argument,
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
from gemmir.ir.dialect import GemmOp, Number, memref_type
from gemmir.ir.elementwise import (
    Elementwise,
    Operand,
    add_composed,
    elementwise_of,
    is_constant,
    is_elementwise,
    is_overwritten,
)
from gemmir.ir.linalg_syntax import (
    CONTRACTIONS,
    LINALG,
    FillOp,
    GenericOp,
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
    the line, for a function that is not exactly one matrix product of known shape in f32 or f64,
    with elementwise operations on its result.
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
    able = [f for f in functions if any(_is_contraction(op) for op in f.walk())]
    if len(able) > 1:
        names = ", ".join(f"@{f.sym_name.data}" for f in able)
        refuse(able[1], f"several functions have a contraction: {names}; keep one of them")
    if not able:
        names = ", ".join(f"@{f.sym_name.data}" for f in functions)
        refuse(functions[0], f"no linalg contraction in {names}")
    return able[0]


def _is_contraction(op: Operation) -> TypeGuard[StructuredOp]:
    return isinstance(op, CONTRACTIONS) and not is_elementwise(op)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A function to import, understood.

    `product` is what the contraction makes, as the operations in `steps` read it. `output` is the
    argument that is written; None on tensors, where it is yet to be made. `initial` is the argument
    that a tensor result starts from, if any.
    """

    symbol: str
    arguments: Sequence[SSAValue]
    op: StructuredOp
    contraction: Contraction
    product: Operand
    steps: Sequence[Elementwise]
    beta: float
    output: SSAValue | None = None
    initial: Operand | None = None

    @property
    def last(self) -> Operation:
        """The operation that makes the final result."""
        return self.steps[-1].op if self.steps else self.op

    @property
    def reads(self) -> list[Operand]:
        """The operands beside C of what follows the product, in order, each once."""
        made = {self.product.value, *(step.result.value for step in self.steps)}
        first = [] if self.initial is None else [self.initial]
        found = [*first, *(operand for step in self.steps for operand in step.reads)]
        return [o for o in dict.fromkeys(found) if o.value not in made and not is_constant(o.value)]


def _read(function: func.FuncOp) -> _Source:
    """Understand `function`, or refuse it at the operation that is in the way."""
    if len(function.body.blocks) > 1:
        refuse(function, "has more than one block")
    block = function.body.block
    found = _operations(block)
    op, contraction = found.contraction, contraction_of(found.contraction)
    layout = layout_of(op, "the output", op.outputs[0].type)
    source = _Source(
        symbol=function.sym_name.data,
        arguments=[a for a in block.args if not _gives_shape_only(a)],
        op=op,
        contraction=contraction,
        product=Operand(value=next(iter(op.results), op.outputs[0]), strides=layout.strides),
        steps=[elementwise_of(step, contraction.element) for step in found.elementwise],
        beta=0.0,
    )
    _require_chain(source, block)
    on_tensors = isinstance(op.outputs[0].type, TensorType)
    source = _read_tensors(source, block) if on_tensors else _read_memrefs(source, found, block)
    used = {*op.inputs, source.output, *(operand.value for operand in source.reads)}
    for argument in source.arguments:
        if argument not in used:
            refuse(function, f"argument {_spelled(argument)} is not used by {op.name}")
    return source


@dataclass(frozen=True, kw_only=True)
class _Operations:
    """The operations of a function that have an effect, in order, by what they are."""

    contraction: StructuredOp
    elementwise: Sequence[GenericOp]
    fills: Sequence[FillOp]


def _operations(block: Block) -> _Operations:
    """Sort the operations of a function; refuses a second contraction and what is not known."""
    contractions: list[StructuredOp] = []
    elementwise: list[GenericOp] = []
    fills: list[FillOp] = []
    for op in block.ops:
        if is_elementwise(op):
            elementwise.append(op)
        elif _is_contraction(op):
            contractions.append(op)
        elif isinstance(op, FillOp):
            _require_zero_fill(op)
            fills.append(op)
        elif not isinstance(op, arith.ConstantOp | tensor.EmptyOp | func.ReturnOp):
            refuse(op, "cannot be imported beside a contraction")
    if len(contractions) > 1:
        second, before = contractions[1], f"contraction, after {contractions[0].name}"
        known = "neither elementwise nor the first" if isinstance(second, GenericOp) else "a second"
        refuse(second, f"is {known} {before}")
    if not contractions:
        refuse(elementwise[0], "stands around the contraction")
    return _Operations(contraction=contractions[0], elementwise=elementwise, fills=fills)


def _require_chain(source: _Source, block: Block) -> None:
    """Refuse an elementwise operation unless it reads what those before it made, at its place."""
    for i, value in enumerate(source.op.inputs, start=1):
        if isinstance(value, OpResult):
            refuse(source.op, f"operand {i} is made by {value.op.name}; it must be an argument")
    made = {source.product.value}
    order = list(block.ops)
    for step in source.steps:
        if order.index(step.op) < order.index(source.op):
            refuse(step.op, f"stands before {source.op.name}")
        if not any(operand.value in made for operand in step.reads):
            refuse(step.op, f"does not read the result of {source.op.name}")
        for operand in step.reads:
            _require_readable(step, operand, made, source.product)
        made.add(step.result.value)


def _require_readable(
    step: Elementwise, operand: Operand, made: Collection[SSAValue], product: Operand
) -> None:
    value = operand.value
    if value in made:
        if operand.strides != product.strides or step.result.strides != product.strides:
            refuse(step.op, f"reads {_spelled(value)} at another place than it writes")
    elif isinstance(value, OpResult) and not is_constant(value):
        refuse(step.op, f"reads what {value.op.name} makes; it may read arguments and the product")


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
    """Whether a tensor argument is nothing but the destination of what overwrites it."""
    return (
        isinstance(argument.type, TensorType)
        and argument.first_use is not None
        and all(_is_destination(use.operation, use.index) for use in argument.uses)
    )


def _is_destination(op: Operation, index: int) -> bool:
    """Whether operand `index` of `op` is overwritten and not read."""
    overwrites = isinstance(op, FillOp) or (is_elementwise(op) and is_overwritten(op))
    return overwrites and index == len(op.operands) - 1


def _spelled(argument: SSAValue) -> str:
    return f"%{argument.name_hint}" if argument.name_hint else "without a name"


def _read_memrefs(source: _Source, found: _Operations, block: Block) -> _Source:
    """The output is an argument; without a fill before the contraction it is added to."""
    op = source.op
    output = op.outputs[0]
    if output in op.inputs:
        refuse(op, f"reads and writes {_spelled(output)}; the output must be another array")
    order = list(block.ops)
    for fill in found.fills:
        if fill.outputs[0] is not output:
            refuse(fill, f"writes {_spelled(fill.outputs[0])}, which is not the output")
        if order.index(fill) > order.index(op):
            refuse(fill, f"overwrites the result of {op.name}")
    for step in found.elementwise:
        if step.outputs[0] is not output:
            refuse(
                step, f"writes {_spelled(step.outputs[0])}, which is not the output of {op.name}"
            )
    end = block.last_op
    for writer in (op, *found.elementwise):
        if writer.results or (isinstance(end, func.ReturnOp) and end.operands):
            refuse(writer, "neither it nor its function may have a result on memrefs")
    return replace(source, output=output, beta=0.0 if found.fills else 1.0)


def _read_tensors(source: _Source, block: Block) -> _Source:
    """The result is new; it starts from zero, or from an argument, which is then added."""
    end, last = block.last_op, source.last
    for op in (source.op, *(step.op for step in source.steps)):
        if [result.type for result in op.results] != [op.outputs[0].type]:
            refuse(op, "the type of the result is not that of the output operand")
    if not isinstance(end, func.ReturnOp) or tuple(end.operands) != tuple(last.results):
        refuse(end or last, f"the function must return the result of {last.name} and nothing else")
    for step in source.steps:
        if step.result.value.first_use is None:
            refuse(step.op, "its result is not used")
    start = source.op.outputs[0]
    if isinstance(start, OpResult) and not isinstance(start.op, FillOp):
        made = start.op.name
        refuse(source.op, f"adds to {made}, which is neither an argument nor filled with 0.0")
    if isinstance(start, OpResult):
        return source
    return replace(source, initial=Operand(value=start, strides=source.product.strides))


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
    if source.steps or source.initial is not None:
        add_composed(
            block,
            source.steps,
            {o: _viewed(block, values[o.value], _along(contraction, o)) for o in source.reads},
            c,
            product=source.product,
            residual=source.initial,
        )
    block.add_op(func.ReturnOp())
    return module


def _along(contraction: Contraction, operand: Operand) -> View:
    """How `operand` is read along the dimensions of the product."""
    strides = tuple(operand.strides[dimension] for dimension in contraction.order)
    return View(shape=contraction.out.shape, strides=strides)


def _memref_of(op: Operation, value: SSAValue) -> MemRefType[Number]:
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
    defaults: dict[SSAValue | None, str] = {
        operand.value: "residual" if any(operand.strides[:-1]) else "bias"
        for operand in source.reads
    }
    defaults |= {second: "b", first: "a", source.output: "c"}
    initial = None if source.initial is None else source.initial.value
    found: dict[SSAValue | None, str] = {}
    for value in (source.output, *source.arguments):
        if value not in found:
            hint = None if value is None or value is initial else value.name_hint
            found[value] = _unique(hint or defaults[value], found.values())
    return found


def _unique(name: str, taken: Collection[str]) -> str:
    candidates = itertools.chain([name], (f"{name}{i}" for i in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


__all__ = ["import_mlir", "problem_of"]
