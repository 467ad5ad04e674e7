"""Versions of a function for some sizes: which of them passes work on, and how one is told a size.

Parts of C (`part`) take turns as versions do; both are computed.

    func.func @gemm(…, %m)                             the public function only decides
        %is_small = arith.cmpi sle, %m, 8
        scf.if %is_small { func.call @gemm.m8(…, %m) } else { func.call @gemm.more(…, %m) }
    func.func private @gemm.m8(…, %m)                  the version that passes work on
    func.func private @gemm.more(…, %m)                waits for its turn: gemmir.turn = "waiting"

A function that has its passes behind it, or needs none, says `gemmir.turn = "done"`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from xdsl.builder import Builder
from xdsl.dialects import arith, func, memref, scf
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, StringAttr
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint

from gemmir.ir.arguments import size_arguments
from gemmir.ir.build import strided_memref
from gemmir.ir.dialect import memref_type
from gemmir.ir.index import Extent, as_index
from gemmir.ir.views import cast_strides, sizes_of
from gemmir.sizes import Unknown

TURN: Final = "gemmir.turn"
"""Attribute of a function that passes leave alone."""

DONE: Final = StringAttr("done")
WAITING: Final = StringAttr("waiting")


@contextmanager
def only_current(module: ModuleOp) -> Generator[None]:
    """Without the functions whose turn it is not; afterwards they are back in their places."""
    block = module.body.block
    whole = list(block.ops)
    apart = [op for op in whole if TURN in op.attributes]
    first = next((n for n, op in enumerate(whole) if op not in apart), len(whole))
    for op in apart:
        op.detach()
    try:
        yield
    finally:
        head = [op for op in apart if whole.index(op) < first]
        if head and block.first_op is not None:
            block.insert_ops_before(head, block.first_op)
            block.add_ops(apart[len(head) :])
        else:
            block.add_ops(apart)


def current(module: ModuleOp) -> func.FuncOp | None:
    """The function that passes work on; None where all have theirs behind them."""
    found = (op for op in module.ops if isinstance(op, func.FuncOp) and TURN not in op.attributes)
    return next(found, None)


def waiting(module: ModuleOp) -> func.FuncOp | None:
    """The function whose turn is next."""
    named = (op for op in module.ops if isinstance(op, func.FuncOp))
    return next((op for op in named if op.attributes.get(TURN) == WAITING), None)


def private_copy(function: func.FuncOp, symbol: str) -> func.FuncOp:
    """A copy of `function` that only its module sees."""
    made = function.clone()
    made.sym_name = StringAttr(symbol)
    made.sym_visibility = StringAttr("private")
    return made


def bound(
    function: func.FuncOp, size: SSAValue, *, most: int | None = None, least: int = 0
) -> None:
    """Say in `function` that `size` is at most `most` and at least `least`."""
    uses = list(size.uses)
    first = next(op for op in function.body.block.ops if not isinstance(op, arith.ConstantOp))
    builder, value = Builder(InsertPoint.before(first)), size
    if most is not None:
        value = builder.insert(arith.MinSIOp(value, as_index(first, most))).result
    if least > 0:
        value = builder.insert(arith.MaxSIOp(value, as_index(first, least))).result
    value.name_hint = size.name_hint
    for use in uses:
        use.operation.operands[use.index] = value


def settle(size: SSAValue, number: int) -> None:
    """Put `number` in place of `size` in every cast of an array; in its type it is static then.

    What an earlier version has said of `size` goes: it holds of `number`.
    """
    for op in {use.operation: None for use in size.uses}:
        if isinstance(op, arith.MinSIOp | arith.MaxSIOp):
            settle(op.result, number)
            op.detach()
            op.erase()
            continue
        assert isinstance(op, memref.ReinterpretCastOp)
        _settle_cast(op, size, number)


def _settle_cast(cast: memref.ReinterpretCastOp, size: SSAValue, number: int) -> None:
    def settled(extent: Extent) -> Extent:
        return number if extent is size else extent

    sizes, strides = (tuple(map(settled, found)) for found in (sizes_of(cast), cast_strides(cast)))
    shape, apart = (
        [n if isinstance(n, int) else Unknown("?") for n in found] for found in (sizes, strides)
    )
    made = strided_memref(memref_type(cast.source).element_type, shape, apart)
    static = [
        [n if isinstance(n, int) else DYNAMIC_INDEX for n in found] for found in (sizes, strides)
    ]
    dynamic = [[n for n in found if not isinstance(n, int)] for found in (sizes, strides)]
    builder = Builder(InsertPoint.before(cast))
    replaced = builder.insert(
        memref.ReinterpretCastOp(
            cast.source, (), dynamic[0], dynamic[1], (0,), static[0], static[1], made
        )
    )
    replaced.result.name_hint = cast.result.name_hint
    cast.result.replace_all_uses_with(replaced.result)
    cast.detach()
    cast.erase()


def is_plain(function: func.FuncOp) -> bool:
    """Whether sizes are used for nothing but to say how arrays lie, as before the first pass."""
    users = [use.operation for size in size_arguments(function).values() for use in size.uses]
    bounds = (memref.ReinterpretCastOp, arith.MinSIOp, arith.MaxSIOp)
    return all(isinstance(op, bounds) for op in users) and not any(
        isinstance(op, scf.ForOp | scf.IfOp) for op in function.body.block.ops
    )
