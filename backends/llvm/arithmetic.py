"""Emitters of arith, math and gemmir.outerproduct: an LLVM instruction for each row of a vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from xdsl.dialects import arith, vector
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    UnrealizedConversionCastOp,
    VectorType,
    bf16,
    i8,
)
from xdsl.ir import Attribute, Operation, SSAValue

from gemmir.backends.llvm.bf16 import convert_bf16
from gemmir.backends.llvm.dots import dot_products, pair_products, words_of
from gemmir.backends.llvm.emitter import (
    Columns,
    Emitter,
    Rows,
    Splat,
    Table,
    element_of,
    set_rows,
    shape_of,
)
from gemmir.backends.llvm.lane_sums import lane_sum
from gemmir.backends.llvm.text import (
    float_literal,
    is_literal,
    lanes_type,
    scalar_suffix,
    scalar_type,
    splat_literal,
    suffix,
)
from gemmir.ir.dialect import (
    ColumnOp,
    ExtendOp,
    LaneSumOp,
    OuterProductOp,
    PairProductOp,
    UnsignOp,
    is_unsigned,
)

HIGHEST_BIT = -128
"""The highest bit of a byte, as an i8."""


def _constant(e: Emitter, op: arith.ConstantOp) -> None:
    value = op.value
    if isinstance(value, DenseIntOrFPElementsAttr):
        literal = _literal(value.get_values()[0], value.get_element_type())
        e.values[op.result] = Splat(literal)
    elif isinstance(value, FloatAttr):
        e.values[op.result] = float_literal(value.value.data, value.type)
    else:
        assert isinstance(value, IntegerAttr)
        e.values[op.result] = str(value.value.data)


def _literal(value: Any, element: Attribute) -> str:
    return float_literal(value, element) if isinstance(value, float) else str(int(value))


def _index_add(e: Emitter, op: arith.AddiOp) -> None:
    if not isinstance(op.result.type, IndexType):
        _elementwise(e, op)
    else:
        e.values[op.result] = e.text.add(e.scalar(op.lhs), e.scalar(op.rhs))


def _index_mul(e: Emitter, op: arith.MuliOp) -> None:
    if not isinstance(op.result.type, IndexType):
        _elementwise(e, op)
        return
    e.values[op.result] = e.text.mul(e.scalar(op.lhs), e.scalar(op.rhs))


def _index_sub(e: Emitter, op: arith.SubiOp) -> None:
    if not isinstance(op.result.type, IndexType):
        _elementwise(e, op)
        return
    x, y = e.scalar(op.lhs), e.scalar(op.rhs)
    both_known = is_literal(x) and is_literal(y)
    e.values[op.result] = (
        str(int(x) - int(y)) if both_known else e.text.value(f"sub nsw i64 {x}, {y}")
    )


def _index_min(e: Emitter, op: arith.MinSIOp) -> None:
    x, y = e.scalar(op.lhs), e.scalar(op.rhs)
    if is_literal(x) and is_literal(y):
        e.values[op.result] = str(min(int(x), int(y)))
        return
    e.text.declare("i64 @llvm.smin.i64(i64, i64)")
    e.values[op.result] = e.text.value(f"call i64 @llvm.smin.i64(i64 {x}, i64 {y})")


def _index_divide(e: Emitter, op: arith.DivUIOp | arith.RemUIOp) -> None:
    word = "udiv" if isinstance(op, arith.DivUIOp) else "urem"
    e.values[op.result] = e.text.binary(word, e.scalar(op.lhs), e.scalar(op.rhs))


_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")


def _compare(e: Emitter, op: arith.CmpiOp) -> None:
    predicate = _PREDICATES[op.predicate.value.data]
    t = e.row_type(op.lhs.type)
    x, y = e.scalar(op.lhs), e.scalar(op.rhs)
    if all(is_literal(v) or v in e.text.narrow for v in (x, y)):
        t, x, y = "i32", e.text.narrowed(x), e.text.narrowed(y)
    e.values[op.result] = e.text.value(f"icmp {predicate} {t} {x}, {y}")


_FLOAT_PREDICATES = (
    *("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord"),
    *("ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true"),
)


def _compare_floats(e: Emitter, op: arith.CmpfOp) -> None:
    """Of scalars."""
    t, predicate = e.row_type(op.lhs.type), _FLOAT_PREDICATES[op.predicate.value.data]
    e.values[op.result] = e.text.value(
        f"fcmp {predicate} {t} {e.scalar(op.lhs)}, {e.scalar(op.rhs)}"
    )


def _broadcast(e: Emitter, op: vector.BroadcastOp) -> None:
    """A scalar in every lane of every row, or one row as all of them."""
    rows, _ = e.shape(op.vector.type)
    is_row = isinstance(op.source.type, VectorType)
    row = e.rows(op.source)[0] if is_row else _splat(e, e.scalar(op.source), op.vector.type)
    set_rows(e, op.vector, [row] * rows)


_BINARY: dict[str, str] = {
    arith.AddfOp.name: "fadd",
    arith.AddiOp.name: "add",
    arith.AndIOp.name: "and",
    arith.DivfOp.name: "fdiv",
    arith.MulfOp.name: "fmul",
    arith.MuliOp.name: "mul",
    arith.RemSIOp.name: "srem",
    arith.ShLIOp.name: "shl",
    arith.SubfOp.name: "fsub",
    arith.SubiOp.name: "sub",
    arith.XOrIOp.name: "xor",
}


def _elementwise(e: Emitter, op: Operation) -> None:
    t = e.row_type(op.results[0].type)
    word = _BINARY[op.name]
    pairs = zip(e.rows(op.operands[0]), e.rows(op.operands[1]), strict=True)
    set_rows(e, op.results[0], [e.text.value(f"{word} {t} {x}, {y}") for x, y in pairs])


def _negate(e: Emitter, op: arith.NegfOp) -> None:
    t = e.row_type(op.result.type)
    set_rows(e, op.result, [e.text.value(f"fneg {t} {x}") for x in e.rows(op.operand)])


def _bitcast(e: Emitter, op: arith.BitcastOp) -> None:
    source, target = e.row_type(op.input.type), e.row_type(op.result.type)
    rows = [e.text.value(f"bitcast {source} {x} to {target}") for x in e.rows(op.input)]
    set_rows(e, op.result, rows)


def _index_cast(e: Emitter, op: arith.IndexCastOp) -> None:
    """An index has 64 bits: the other type is at most as wide."""
    source, target = e.row_type(op.input.type), e.row_type(op.result.type)
    word = "trunc" if isinstance(op.input.type, IndexType) else "sext"
    x = e.scalar(op.input)
    known = is_literal(x) or source == target
    made = x if known else e.text.value(f"{word} {source} {x} to {target}")
    e.values[op.result] = made


_CONVERSIONS: dict[str, str] = {
    arith.ExtFOp.name: "fpext",
    arith.ExtUIOp.name: "zext",
    arith.TruncFOp.name: "fptrunc",
}


def _convert(e: Emitter, op: Any) -> None:
    _convert_rows(e, _CONVERSIONS[op.name], op.input, op.result)


def _convert_rows(e: Emitter, word: str, value: SSAValue, result: SSAValue) -> None:
    """Row by row, or column by column where they lie so in memory."""
    found = e.values[value]
    if isinstance(found, Columns):
        convert = _conversion(e, word, value.type, result.type, shape_of(value.type)[0])
        e.values[result] = Columns([convert(x) for x in found.lines])
        return
    convert = _conversion(e, word, value.type, result.type, e.shape(value.type)[1])
    set_rows(e, result, [convert(x) for x in e.rows(value)])


def _conversion(
    e: Emitter, word: str, source: Attribute, target: Attribute, lanes: int
) -> Callable[[str], str]:
    """What converts one line of so many lanes."""
    elements = element_of(source), element_of(target)
    if e.features is not None and bf16 in elements:
        return lambda x: convert_bf16(e, x, lanes, to_bf16=elements[1] == bf16)
    of, to = (lanes_type(element, lanes) for element in elements)
    return lambda x: e.text.value(f"{word} {of} {x} to {to}")


def _extend(e: Emitter, op: ExtendOp) -> None:
    exponent = 0 if op.exponent is None else op.exponent.value.data
    unsigned = is_unsigned(element_of(op.input.type))
    if isinstance(e.values[op.input], Columns) and not exponent:
        is_integer = isinstance(element_of(op.result.type), IntegerType)
        word = ("zext" if unsigned else "sext") if is_integer else f"{'us'[not unsigned]}itofp"
        _convert_rows(e, word, op.input, op.result)
        return
    rows, source = e.rows(op.input), e.row_type(op.input.type)
    made = widened(e, rows, source, op.result.type, exponent, unsigned=unsigned)
    set_rows(e, op.result, made)


def widened(
    e: Emitter, rows: Rows, source: str, t: Attribute, exponent: int, *, unsigned: bool = False
) -> Rows:
    """Rows of integers of the LLVM type `source` as `t`; as floats times 2**exponent."""
    element, target = element_of(t), e.row_type(t)
    word = "zext" if unsigned else "sext"
    if not isinstance(element, IntegerType):
        word = "uitofp" if unsigned else "sitofp"
    made = [e.text.value(f"{word} {source} {x} to {target}") for x in rows]
    if not exponent:
        return made
    factor = float_literal(2.0**exponent, element)
    factors = splat_literal(factor, scalar_type(element), e.shape(t)[1])
    return [e.text.value(f"fmul {target} {x}, {factors}") for x in made]


def _unsign(e: Emitter, op: UnsignOp) -> None:
    """The highest bit is flipped, in lines as they lie."""
    found = e.values[op.input]
    rows, lanes = shape_of(op.input.type)
    lines, width = (found.lines, rows) if isinstance(found, Columns) else (e.rows(op.input), lanes)
    t = lanes_type(i8, width)
    highest = splat_literal(str(HIGHEST_BIT), "i8", width)
    made = [e.text.value(f"xor {t} {line}, {highest}") for line in lines]
    if isinstance(found, Columns):
        e.values[op.result] = Columns(made)
    else:
        set_rows(e, op.result, made)


def _select(e: Emitter, op: arith.SelectOp) -> None:
    t = e.row_type(op.result.type)
    flag = e.scalar(op.cond)
    if isinstance(op.result.type, VectorType):
        pairs = zip(e.rows(op.lhs), e.rows(op.rhs), strict=True)
        rows = [e.text.value(f"select i1 {flag}, {t} {x}, {t} {y}") for x, y in pairs]
        set_rows(e, op.result, rows)
        return
    x, y = e.scalar(op.lhs), e.scalar(op.rhs)
    made = e.text.value(f"select i1 {flag}, {t} {x}, {t} {y}")
    e.text.multiples[made] = math.gcd(e.text.divisor(x), e.text.divisor(y))
    e.values[op.result] = made


def _extremum(e: Emitter, op: arith.MaximumfOp | arith.MinimumfOp) -> None:
    """Against a constant one compare and select keep a NaN, and are one instruction on x86."""
    t = e.row_type(op.result.type)
    is_max = isinstance(op, arith.MaximumfOp)
    x, y = e.rows(op.lhs), e.rows(op.rhs)
    if isinstance(op.rhs.owner, arith.ConstantOp):
        order = "olt" if is_max else "ogt"
        tests = [e.text.value(f"fcmp {order} {t} {a}, {b}") for a, b in zip(x, y, strict=True)]
        lanes = e.shape(op.result.type)[1]
        flag = "i1" if lanes == 1 else f"<{lanes} x i1>"
        rows = [
            e.text.value(f"select {flag} {c}, {t} {b}, {t} {a}")
            for c, a, b in zip(tests, x, y, strict=True)
        ]
    else:
        name = _intrinsic(e, "maximum" if is_max else "minimum", op.result.type)
        e.text.declare(f"{t} {name}({t}, {t})")
        rows = [
            e.text.value(f"call {t} {name}({t} {a}, {t} {b})") for a, b in zip(x, y, strict=True)
        ]
    set_rows(e, op.result, rows)


def _larger(e: Emitter, op: arith.MaxSIOp) -> None:
    t = e.row_type(op.result.type)
    lanes = e.shape(op.result.type)[1]
    flag = "i1" if lanes == 1 else f"<{lanes} x i1>"
    rows: Rows = []
    for x, y in zip(e.rows(op.lhs), e.rows(op.rhs), strict=True):
        test = e.text.value(f"icmp sgt {t} {x}, {y}")
        rows.append(e.text.value(f"select {flag} {test}, {t} {x}, {t} {y}"))
    set_rows(e, op.result, rows)


def _cast(e: Emitter, op: UnrealizedConversionCastOp) -> None:
    """An integer under another name: LLVM's have no sign."""
    e.values[op.results[0]] = e.values[op.operands[0]]


def _intrinsic(e: Emitter, stem: str, t: Attribute) -> str:
    lanes = e.shape(t)[1]
    element = element_of(t)
    return f"@llvm.{stem}.{scalar_suffix(element) if lanes == 1 else suffix(element, lanes)}"


def _call_rows(e: Emitter, stem: str, result: SSAValue, operands: Sequence[Rows]) -> None:
    """result = llvm.stem(operands), row by row."""
    t = e.row_type(result.type)
    name = _intrinsic(e, stem, result.type)
    e.text.declare(f"{t} {name}({', '.join([t] * len(operands))})")
    rows = [
        e.text.value(f"call {t} {name}({', '.join(f'{t} {x}' for x in row)})")
        for row in zip(*operands, strict=True)
    ]
    set_rows(e, result, rows)


def _fma(e: Emitter, op: Operation) -> None:
    _call_rows(e, "fma", op.results[0], [e.rows(v) for v in op.operands])


def _outer_product(e: Emitter, op: OuterProductOp) -> None:
    """Products that share their column are emitted together, one row of all of them at a time.

    Then each element of the column is broadcast once and dead after its row: with as many
    accumulators as registers allow, any other order makes LLVM spill them.
    """
    if op.result in e.values:
        return
    run = _products_of(op)
    if op.depth > 1:
        _dot_products(e, op, run)
        return
    adds = [_add_product(e, p) for p in run]
    rows = [e.rows(p.rhs)[0] for p in run]
    sums = [e.rows(p.acc) for p in run]
    made: list[Rows] = [[] for _ in run]
    for number, element in enumerate(e.rows(op.lhs)):
        x = _splat(e, element, op.result.type)
        for add, row, total, result in zip(adds, rows, sums, made, strict=True):
            result.append(add(x, row, total[number]))
    for product, result in zip(run, made, strict=True):
        e.values[product.result] = result


def _dot_products(e: Emitter, op: OuterProductOp, run: Sequence[OuterProductOp]) -> None:
    """Products of several columns and rows, in the same order."""
    adds = [dot_products(e, product) for product in run]
    sums = [e.rows(p.acc) for p in run]
    made: list[Rows] = [[] for _ in run]
    for number, word in enumerate(words_of(e, op.lhs, op.depth)):
        for add, total, result in zip(adds, sums, made, strict=True):
            result.append(add(word, total[number]))
    for product, result in zip(run, made, strict=True):
        e.values[product.result] = result


def _add_product(e: Emitter, op: OuterProductOp) -> Callable[[str, str, str], str]:
    """x * y + z on rows of the result; only x * y where z is minus zero, which changes no number.

    LLVM leaves a multiply-add there, and keeps the constant in a register.
    """
    total, element = e.values[op.acc], element_of(op.acc.type)
    if isinstance(total, Splat) and total.literal == _literal(-0.0, element):
        t = e.row_type(op.result.type)
        return lambda x, y, z: e.text.value(f"fmul {t} {x}, {y}")
    return _multiply_add(e, op.result.type)


def _multiply_add(e: Emitter, of: Attribute) -> Callable[[str, str, str], str]:
    """x * y + z on rows of the type `of`: rounded once, or modulo a power of two."""
    t = e.row_type(of)
    if isinstance(element_of(of), IntegerType):
        return lambda x, y, z: e.text.value(f"add {t} {e.text.value(f'mul {t} {x}, {y}')}, {z}")
    name = _intrinsic(e, "fma", of)
    e.text.declare(f"{t} {name}({t}, {t}, {t})")
    return lambda x, y, z: e.text.value(f"call {t} {name}({t} {x}, {t} {y}, {t} {z})")


def _pair_product(e: Emitter, op: PairProductOp) -> None:
    """Column by column of the tile, so that what is read of B is dead after its products."""
    if op.depth > 1:
        pair_products(e, op)
        return
    add_product = _multiply_add(e, op.result.type)
    lhs, rhs, acc = e.rows(op.lhs), e.rows(op.rhs), list(e.rows(op.acc))
    for column, y in enumerate(rhs):
        for row, x in enumerate(lhs):
            at = row * len(rhs) + column
            acc[at] = add_product(x, y, acc[at])
    set_rows(e, op.result, acc)


def _column(e: Emitter, op: ColumnOp) -> None:
    """Elements of rows that are held in registers.

    A fence keeps LLVM from reading each element from memory after all.
    """
    block, at = cast("VectorType[Attribute]", op.block.type), op.at.value.data
    wide = e.row_type(block)
    fence = f"@llvm.arithmetic.fence.{suffix(block.element_type, e.shape(block)[1])}"
    e.text.declare(f"{wide} {fence}({wide})")
    made = list(e.rows(op.above))
    for row in e.rows(op.block):
        key = ("held", row, wide)
        if key not in e.text.addresses:
            e.text.addresses[key] = e.text.value(f"call {wide} {fence}({wide} {row})")
        made.append(e.text.value(f"extractelement {wide} {e.text.addresses[key]}, i64 {at}"))
    set_rows(e, op.result, made)


def _products_of(op: OuterProductOp) -> list[OuterProductOp]:
    """`op` and the products right after it that have the same column and type."""
    run = [op]
    while (
        isinstance(following := run[-1].next_op, OuterProductOp)
        and following.lhs is op.lhs
        and following.result.type == op.result.type
    ):
        run.append(following)
    return run


def _splat(e: Emitter, scalar: str, t: Attribute) -> str:
    """A row with `scalar` in every lane, written once a block."""
    rows = e.row_type(t)
    lanes = e.shape(t)[1]
    if lanes == 1:
        return scalar
    key = ("splat", scalar, rows)
    if key not in e.text.addresses:
        one = e.text.value(
            f"insertelement {rows} poison, {scalar_type(element_of(t))} {scalar}, i64 0"
        )
        e.text.addresses[key] = e.text.value(
            f"shufflevector {rows} {one}, {rows} poison, <{lanes} x i32> zeroinitializer"
        )
    return e.text.addresses[key]


ARITHMETIC: Table = {
    **dict.fromkeys(_BINARY, _elementwise),
    **dict.fromkeys(_CONVERSIONS, _convert),
    arith.AddiOp.name: _index_add,
    arith.BitcastOp.name: _bitcast,
    arith.CmpfOp.name: _compare_floats,
    arith.CmpiOp.name: _compare,
    arith.ConstantOp.name: _constant,
    arith.IndexCastOp.name: _index_cast,
    arith.SelectOp.name: _select,
    arith.DivUIOp.name: _index_divide,
    arith.RemUIOp.name: _index_divide,
    arith.MaximumfOp.name: _extremum,
    arith.MinimumfOp.name: _extremum,
    arith.MinSIOp.name: _index_min,
    arith.MaxSIOp.name: _larger,
    arith.MuliOp.name: _index_mul,
    arith.NegfOp.name: _negate,
    arith.SubiOp.name: _index_sub,
    "math.fma": _fma,
    ExtendOp.name: _extend,
    ColumnOp.name: _column,
    LaneSumOp.name: lane_sum,
    OuterProductOp.name: _outer_product,
    PairProductOp.name: _pair_product,
    UnsignOp.name: _unsign,
    UnrealizedConversionCastOp.name: _cast,
    vector.BroadcastOp.name: _broadcast,
}
