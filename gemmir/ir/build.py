"""Gemm -> the gemm-level module: views of the user's arrays, one gemmir.gemm, one epilogue.

    func.func @gemm(%a, %b, %bias, %c)
        %b_t    = memref.reinterpret_cast %b      strides swapped where B is stored n x k
        gemmir.gemm %a, %b_t, %c
        %bias_2 = memref.reinterpret_cast %bias   stride 0 where a vector or matrix is shared
        gemmir.epilogue ins(%bias_2) outs(%c)     every step of the epilogue, in order

Moves no data: a transposed or shared operand is the same array under other strides.

Where sizes are known in a call only they are arguments behind the arrays, `index`, and every array
that has some is cast to them first:

    func.func @gemm(%a : memref<?x4096xf32>, %b, %c : memref<?x4096xf32>, %m : index)
        %a_m = memref.reinterpret_cast %a to offset: [0], sizes: [%m, 4096], strides: [4096, 1]
        …

The type of such an argument does not say which `?` is which: its attribute `gemmir.sizes` names
them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from xdsl.builder import Builder
from xdsl.dialects import arith, func, memref
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    ArrayAttr,
    DictionaryAttr,
    Float8E4M3FNType,
    Float8E5M2Type,
    FloatAttr,
    FunctionType,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    ModuleOp,
    Signedness,
    StridedLayoutAttr,
    StringAttr,
    bf16,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.epilogue_steps import GELU_CUBIC, GELU_SQRT_2_OVER_PI, STEP_OPERANDS
from gemmir.gemm import COUNTS, OFFSETS, Gemm, Operand
from gemmir.ir.attributes import PrecisionAttr
from gemmir.ir.dialect import (
    EpilogueOp,
    GemmOp,
    Number,
    YieldOp,
    accumulator_type,
    memref_type,
)
from gemmir.sizes import Unknown

ELEMENT_TYPES: Final[Mapping[str, Number]] = {
    "f16": f16,
    "bf16": bf16,
    "f32": f32,
    "f64": f64,
    "e4m3": Float8E4M3FNType(),
    "e5m2": Float8E5M2Type(),
    "i8": i8,
    "u8": IntegerType(8, Signedness.UNSIGNED),
    "i16": i16,
    "i32": i32,
    "i4": IntegerType(4),
}
"""The element type in the IR, by its name."""

ARGUMENT_NAME: Final = "gemmir.name"
ARGUMENT_ACCESS: Final = "gemmir.access"
"""Argument attributes: what the array is called, and whether it is read, written or both."""

SIZE_NAMES: Final = "gemmir.sizes"
"""Argument attribute: which sizes the dynamic extents and strides of its type are, in order."""

SIZE: Final = "size"
"""The access of an argument that is a size and no array."""

Access = Literal["read", "write", "readwrite"]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One array of a function: its name for the caller, its type, and how it is used."""

    name: str
    type: MemRefType[Number]
    access: Access
    sizes: tuple[str, ...] = ()


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a row-major array without gaps; an empty dimension counts as 1.

    An unknown extent is not multiplied: what is farther apart than one row has to be said.
    """
    strides = [1] * min(len(shape), 1)
    for extent in reversed(shape[1:]):
        strides.append(extent or 1 if strides[-1] == 1 else strides[-1] * max(extent, 1))
    return tuple(reversed(strides))


def _static(numbers: Sequence[int]) -> tuple[int, ...]:
    """`numbers` as a type has them: unknown ones are dynamic."""
    return tuple(DYNAMIC_INDEX if isinstance(n, Unknown) else n for n in numbers)


def strided_memref(
    element: Number, shape: Sequence[int], strides: Sequence[int]
) -> MemRefType[Number]:
    """A memref type with these strides in elements; packed row-major ones need no layout."""
    extents = _static(shape)
    if tuple(strides) == packed_strides(shape) and DYNAMIC_INDEX not in extents[1:]:
        return MemRefType(element, extents)
    stated = [None if isinstance(s, Unknown) else s for s in strides]
    return MemRefType(element, extents, StridedLayoutAttr(stated))


def new_function(
    symbol: str, arguments: Sequence[Argument], sizes: Sequence[str] = ()
) -> tuple[ModuleOp, Block]:
    """A module of one function of `arguments` and `sizes`, and its body, which needs its ops."""
    types = [*(argument.type for argument in arguments), *(IndexType() for _ in sizes)]
    block = Block(arg_types=types)
    names = [*(argument.name for argument in arguments), *sizes]
    for value, name in zip(block.args, names, strict=True):
        value.name_hint = name
    attributes = ArrayAttr(
        DictionaryAttr(
            {ARGUMENT_NAME: StringAttr(name), ARGUMENT_ACCESS: StringAttr(access), **own}
        )
        for name, access, own in (
            *((a.name, a.access, _size_names(a)) for a in arguments),
            *((name, SIZE, {}) for name in sizes),
        )
    )
    function = func.FuncOp(
        symbol, FunctionType.from_lists(types, ()), Region(block), arg_attrs=attributes
    )
    return ModuleOp([function]), block


def _size_names(argument: Argument) -> dict[str, Attribute]:
    if not argument.sizes:
        return {}
    return {SIZE_NAMES: ArrayAttr(map(StringAttr, argument.sizes))}


def _append(block: Block, op: Operation, hint: str) -> SSAValue:
    block.add_op(op)
    op.results[0].name_hint = hint
    return op.results[0]


def view(
    block: Block, source: SSAValue, shape: Sequence[int], strides: Sequence[int], hint: str
) -> SSAValue:
    """Append a cast of memref `source` to `shape` and `strides` in elements, from its start.

    What is unknown is the argument of the function that has its name.
    """
    return _append(block, _cast(source, shape, strides, _size_values(block)), hint)


def _size_values(block: Block) -> dict[str, SSAValue]:
    """The sizes among the arguments of a function, by name."""
    return {
        value.name_hint or "": value for value in block.args if isinstance(value.type, IndexType)
    }


def view_before(
    op: Operation, source: SSAValue, shape: Sequence[int], strides: Sequence[int], hint: str
) -> SSAValue:
    """As `view`, in front of `op`; where `source` has that type already, `source` itself."""
    if strided_memref(memref_type(source).element_type, shape, strides) == source.type:
        return source
    cast = Builder(InsertPoint.before(op)).insert(_cast(source, shape, strides))
    cast.result.name_hint = hint
    return cast.result


def _cast(
    source: SSAValue,
    shape: Sequence[int],
    strides: Sequence[int],
    values: Mapping[str, SSAValue] | None = None,
) -> memref.ReinterpretCastOp:
    result = strided_memref(memref_type(source).element_type, shape, strides)
    dynamic = [
        [(values or {})[n.name] for n in numbers if isinstance(n, Unknown)]
        for numbers in (shape, strides)
    ]
    return memref.ReinterpretCastOp(
        source, (), dynamic[0], dynamic[1], (0,), _static(shape), _static(strides), result
    )


def build(gemm: Gemm, symbol: str = "gemm") -> ModuleOp:
    """The gemm-level module of one function `symbol` that computes `gemm`.

    Its arguments are `gemm.operands` in order, the output last.
    """
    operands = {operand.name: operand for operand in gemm.operands}
    arguments = [_argument(operand) for operand in operands.values()]
    module, block = new_function(symbol, arguments, gemm.unknown)
    values: dict[str, SSAValue] = dict(zip(operands, block.args, strict=False))
    factors = _factors(block, {name: values[name] for name in gemm.unknown_factors})
    for name in ("c", "residual"):
        if name in values and not operands[name].is_known:
            of = operands[name]
            values[name] = view(block, values[name], of.shape, of.strides, f"{name}_whole")
    a = _matrix(block, values["a"], operands["a"], gemm, transposed=gemm.trans_a)
    b = _matrix(block, values["b"], operands["b"], gemm, transposed=gemm.trans_b)
    if gemm.groups is not None:
        _add_groups(block, {**values, "b": b}, gemm)
        return module
    precision = _precision(gemm)
    block.add_op(
        GemmOp(
            a,
            b,
            values["c"],
            alpha=1.0 if "alpha" in factors else gemm.alpha,
            beta=1.0 if "beta" in factors else gemm.beta,
            alpha_value=factors.get("alpha"),
            beta_value=factors.get("beta"),
            precision=precision,
            scales=_scales(block, values, gemm),
            depth=_depth(gemm),
        )
    )
    if gemm.steps:
        inputs = [_epilogue_input(block, values, name, gemm) for name in _epilogue_names(gemm)]
        add_epilogue(block, gemm.steps, inputs, values["c"])
    block.add_op(func.ReturnOp())
    return module


def _scales(block: Block, values: Mapping[str, SSAValue], gemm: Gemm) -> list[SSAValue]:
    """Views of the scales of A and B by block of k, block of n, row, and column of the block."""
    operands = {operand.name: operand for operand in gemm.operands}
    if gemm.has_weights:
        k, n = operands["scale_b"].strides[::-1] if gemm.trans_b else operands["scale_b"].strides
        shape = (-(-gemm.k // gemm.scale_depth), 1, gemm.m, gemm.n)
        return [view(block, values["scale_b"], shape, (k, 0, 0, n), "scale_b_columns")]
    size = gemm.scale_block
    if size is None:
        return []
    shape = (-(-gemm.k // size), -(-gemm.n // size), gemm.m, size)
    m, k = operands["scale_a"].strides[::-1] if gemm.trans_a else operands["scale_a"].strides
    found = view(block, values["scale_a"], shape, (k, 0, m, 0), "scale_a_blocks")
    k, n = operands["scale_b"].strides[::-1] if gemm.trans_b else operands["scale_b"].strides
    return [found, view(block, values["scale_b"], shape, (k, n, 0, 0), "scale_b_blocks")]


def _depth(gemm: Gemm) -> IntegerAttr | None:
    """How many elements along k have one scale."""
    has_scales = gemm.has_weights or gemm.scale_block is not None
    return IntegerAttr(gemm.scale_depth, i64) if has_scales else None


def _add_groups(block: Block, values: Mapping[str, SSAValue], gemm: Gemm) -> None:
    """Append a loop over the products of a grouped GEMM, and the end of the function."""
    from gemmir.ir.groups import open_groups, open_masked_groups  # few problems need it

    end = func.ReturnOp()
    inputs = {name: values[name] for name in _epilogue_names(gemm)}
    for name in STEP_OPERANDS["scale"]:
        if name in inputs:
            inputs[name] = _epilogue_input(block, values, name, gemm)
    if "bias" in inputs:
        assert gemm.groups is not None
        shape, strides = (gemm.groups, gemm.m, gemm.n), (max(gemm.n, 1), 0, 1)
        inputs["bias"] = view(block, values["bias"], shape, strides, "bias_rows")
    block.add_op(end)
    if gemm.masked:
        group = open_masked_groups(end, values[COUNTS], gemm.m)
    else:
        group = open_groups(end, values[OFFSETS], gemm.m)
    a, c = (group.part_of(values[name]) for name in "ac")
    b = group.matrix_of(values["b"])
    parts = [group.part_of(value) for value in inputs.values()]
    precision = _precision(gemm)
    group.builder.insert(GemmOp(a, b, c, alpha=gemm.alpha, beta=gemm.beta, precision=precision))
    if gemm.steps:
        group.builder.insert(_epilogue(gemm.steps, parts, c))


def _precision(gemm: Gemm) -> PrecisionAttr | None:
    found = gemm.product.precision
    return None if found is None else PrecisionAttr(found)


def _factors(block: Block, arrays: Mapping[str, SSAValue]) -> dict[str, SSAValue]:
    """Append loads of alpha and beta."""
    if not arrays:
        return {}
    zero = _append(block, arith.ConstantOp(IntegerAttr.from_index_int_value(0)), "c0")
    return {
        name: _append(block, memref.LoadOp.get(array, [zero]), f"{name}_value")
        for name, array in arrays.items()
    }


def _argument(operand: Operand) -> Argument:
    made = strided_memref(ELEMENT_TYPES[operand.dtype], operand.shape, operand.strides)
    stated = operand.strides if isinstance(made.layout, StridedLayoutAttr) else ()
    names = [n.name for n in (*operand.shape, *stated) if isinstance(n, Unknown)]
    return Argument(name=operand.name, type=made, access=operand.access, sizes=tuple(names))


def _matrix(
    block: Block, source: SSAValue, operand: Operand, gemm: Gemm, *, transposed: bool
) -> SSAValue:
    """The stored `operand` as the product reads it: op(A) or op(B), one for each of the batch."""
    shape, strides, hint = operand.shape, operand.strides, operand.name
    if transposed:
        shape = (*shape[:-2], shape[-1], shape[-2])
        strides = (*strides[:-2], strides[-1], strides[-2])
        hint += "_t"
    if gemm.batch is not None and len(shape) == 2:
        shape, strides = (gemm.batch, *shape), (0, *strides)
        hint += "_shared"
    if (shape, strides) == (operand.shape, operand.strides) and operand.is_known:
        return source
    return view(block, source, shape, strides, hint)


def _epilogue_names(gemm: Gemm) -> list[str]:
    """The operands of all steps, in order."""
    return [name for step in gemm.steps for name in STEP_OPERANDS.get(step, ())]


def _epilogue_input(
    block: Block, values: Mapping[str, SSAValue], name: str, gemm: Gemm
) -> SSAValue:
    """An operand of the epilogue in the shape of C."""
    if name == "residual":
        return values[name]
    shape = gemm.operands[-1].shape
    strides = (*(0 for _ in shape[1:]), 1 if name == "bias" else 0)
    hint = "bias_rows" if name == "bias" else f"{name}_everywhere"
    return view(block, values[name], shape, strides, hint)


def add_epilogue(
    block: Block, steps: Sequence[str], inputs: Sequence[SSAValue], output: SSAValue
) -> None:
    """Append one gemmir.epilogue that applies `steps` to `output`, in order.

    `inputs` are the operands of those steps that have any (bias, residual, scale), of the shape of
    `output`. They are computed in the type of the accumulator.
    """
    block.add_op(_epilogue(steps, inputs, output))


def _epilogue(steps: Sequence[str], inputs: Sequence[SSAValue], output: SSAValue) -> EpilogueOp:
    return EpilogueOp(inputs, output, epilogue_body(steps, inputs, output))


def epilogue_body(steps: Sequence[str], inputs: Sequence[SSAValue], output: SSAValue) -> Region:
    """What `add_epilogue` has in its op: functions of single elements."""
    element = memref_type(output).element_type
    body = Block(arg_types=[memref_type(v).element_type for v in (*inputs, output)])
    for argument, value in zip(body.args, (*inputs, output), strict=True):
        argument.name_hint = f"{value.name_hint}_element"
    elementwise = _Elementwise(block=body, element=accumulator_type(element))
    *operands, x = (elementwise.widened(argument) for argument in body.args)
    remaining = iter(operands)
    for step in steps:
        x = _STEPS[step](elementwise, x, remaining)
    body.add_op(YieldOp(narrowed(body, x, element)))
    return Region(body)


def widened(block: Block, value: SSAValue, element: Number) -> SSAValue:
    """Append what takes `value` to the type `element`, if it is another."""
    if value.type == element:
        return value
    assert isinstance(element, AnyFloat)
    return _append(block, arith.ExtFOp(value, element), f"{value.name_hint or 'x'}_wide")


def number_attr(value: float, element: Number) -> FloatAttr | IntegerAttr:
    """`value` as a constant of the type `element`; of an integer it is whole."""
    if isinstance(element, IntegerType):
        return IntegerAttr(int(value), element)
    return FloatAttr(value, element)


def added(x: SSAValue, y: SSAValue) -> arith.AddfOp | arith.AddiOp:
    """x + y, of floats or of integers, which wrap."""
    return arith.AddiOp(x, y) if isinstance(x.type, IntegerType) else arith.AddfOp(x, y)


def multiplied(x: SSAValue, y: SSAValue) -> arith.MulfOp | arith.MuliOp:
    """x * y, of floats or of integers, which wrap."""
    return arith.MuliOp(x, y) if isinstance(x.type, IntegerType) else arith.MulfOp(x, y)


def scaled(block: Block, value: SSAValue, factor: float, element: Number) -> SSAValue:
    """Append what multiplies `value`, of type `element`, by `factor`, if that is not 1."""
    if factor == 1:
        return value
    constant = arith.ConstantOp(number_attr(factor, element))
    product = multiplied(value, constant.result)
    block.add_ops([constant, product])
    return product.result


def narrowed(block: Block, value: SSAValue, element: Number) -> SSAValue:
    """Append what rounds `value` to the type `element`, if it is another."""
    if value.type == element:
        return value
    assert isinstance(element, AnyFloat)
    return _append(block, arith.TruncFOp(value, element), "rounded")


@dataclass(frozen=True, kw_only=True)
class _Elementwise:
    """Appends scalar operations to the body of an epilogue."""

    block: Block
    element: Number

    def widened(self, value: SSAValue) -> SSAValue:
        return widened(self.block, value, self.element)

    def constant(self, value: float) -> SSAValue:
        return _append(self.block, arith.ConstantOp(number_attr(value, self.element)), "cst")

    def add(self, x: SSAValue, y: SSAValue, hint: str) -> SSAValue:
        return _append(self.block, added(x, y), hint)

    def mul(self, x: SSAValue, y: SSAValue, hint: str) -> SSAValue:
        return _append(self.block, multiplied(x, y), hint)

    def over_one_plus_exp(self, x: SSAValue, exponent: SSAValue, hint: str) -> SSAValue:
        """x / (1 + exp(exponent)): x times the logistic function of -exponent."""
        from xdsl.dialects import math  # slow to import, and few problems need it

        exp = _append(self.block, math.ExpOp(exponent), "exp")
        return _append(
            self.block, arith.DivfOp(x, self.add(self.constant(1.0), exp, "denominator")), hint
        )


def _add_operand(body: _Elementwise, x: SSAValue, operands: Iterator[SSAValue]) -> SSAValue:
    return body.add(x, next(operands), "sum")


def _scale(body: _Elementwise, x: SSAValue, operands: Iterator[SSAValue]) -> SSAValue:
    """x times the product of both scales, which is one number for all of C."""
    factor = body.mul(next(operands), next(operands), "scale")
    return body.mul(x, factor, "scaled")


def _relu(body: _Elementwise, x: SSAValue, operands: Iterator[SSAValue]) -> SSAValue:
    zero = body.constant(0.0)
    is_integer = isinstance(body.element, IntegerType)
    larger = arith.MaxSIOp(x, zero) if is_integer else arith.MaximumfOp(x, zero)
    return _append(body.block, larger, "relu")


def _silu(body: _Elementwise, x: SSAValue, operands: Iterator[SSAValue]) -> SSAValue:
    minus_x = _append(body.block, arith.NegfOp(x), "minus_x")
    return body.over_one_plus_exp(x, minus_x, "silu")


def _gelu(body: _Elementwise, x: SSAValue, operands: Iterator[SSAValue]) -> SSAValue:
    """x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3): gelu in its tanh form."""
    cube = body.mul(body.mul(x, x, "square"), x, "cube")
    inner = body.add(x, body.mul(body.constant(GELU_CUBIC), cube, "cubic"), "inner")
    minus_2u = body.mul(body.constant(-2.0 * GELU_SQRT_2_OVER_PI), inner, "minus_2u")
    return body.over_one_plus_exp(x, minus_2u, "gelu")


_STEPS: Final[Mapping[str, Callable[[_Elementwise, SSAValue, Iterator[SSAValue]], SSAValue]]] = {
    "bias": _add_operand,
    "residual": _add_operand,
    "scale": _scale,
    "relu": _relu,
    "gelu": _gelu,
    "silu": _silu,
}
