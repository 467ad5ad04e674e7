"""What an elementwise linalg.generic means, and several of them as one gemmir.epilogue.

Every iterator is parallel, so that an element of the output depends on one element of each operand:
the one at the same place, or, along dimensions that its map leaves out, one that is the same for
all. Such an operand is a memref with strides of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from xdsl.dialects import arith
from xdsl.dialects.builtin import AffineMapAttr, AnyFloat, FloatAttr, MemRefType, StringAttr
from xdsl.dialects.linalg.attrs import IteratorType, IteratorTypeAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from gemmir.ir.contraction import (
    Layout,
    given_maps,
    layout_of,
    refuse,
    require_known_attributes,
)
from gemmir.ir.dialect import EpilogueOp, memref_type
from gemmir.ir.dialect import YieldOp as EpilogueYieldOp
from gemmir.ir.linalg_syntax import PARALLEL, GenericOp, YieldOp

BODY_OPS: Final = (
    "arith.addf",
    "arith.subf",
    "arith.mulf",
    "arith.divf",
    "arith.negf",
    "arith.maximumf",
    "arith.constant",
    "math.exp",
)
"""The operations of the body of an elementwise operation."""

_INSTEAD: Final[Mapping[str, str]] = {
    "arith.maxnumf": "arith.maximumf, which keeps NaN,",
    "math.tanh": "math.exp, by tanh(u) = 2 / (1 + exp(-2 u)) - 1,",
}
"""What to write in place of some operations that a body may not have."""

_PARALLEL: Final = (StringAttr(PARALLEL), IteratorTypeAttr(IteratorType.PARALLEL))


def is_elementwise(op: Operation) -> TypeGuard[GenericOp]:
    """Whether `op` is a linalg.generic that has a parallel loop for each dimension of its output.

    What else it needs is not looked at.
    """
    if not isinstance(op, GenericOp) or op.indexing_maps is None or op.iterator_types is None:
        return False
    *_, last = (None, *op.indexing_maps)
    if not isinstance(last, AffineMapAttr) or len(last.data.results) != last.data.num_dims:
        return False
    return all(iterator in _PARALLEL for iterator in op.iterator_types)


def is_overwritten(op: GenericOp) -> bool:
    """Whether the body does not look at the old elements of the output."""
    return all(not region.block.args[-1].uses for region in op.body if region.block.args)


@dataclass(frozen=True, kw_only=True)
class Operand:
    """An array as an operation reads it: its strides in elements along the dimensions of C.

    A stride is 0 where the operand is the same all along the dimension.
    """

    value: SSAValue
    strides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Elementwise:
    """An operation that makes each element of `result` from those of `operands`.

    The last operand is the old C. Those that are None are not read by the body.
    """

    op: GenericOp
    operands: tuple[Operand | None, ...]
    result: Operand

    @property
    def reads(self) -> list[Operand]:
        """The operands that the body reads, in order."""
        return [operand for operand in self.operands if operand is not None]


def elementwise_of(op: GenericOp, element: AnyFloat) -> Elementwise:
    """The elementwise operation that `op` spells in `element`s; refuses what is not exactly one."""
    require_known_attributes(op)
    if len(op.outputs) != 1:
        refuse(op, f"has {len(op.outputs)} outputs; expected 1")
    if len({isinstance(value.type, MemRefType) for value in _arrays(op)}) > 1:
        refuse(op, "has both memref and tensor operands")
    layouts = [_layout(op, i, value) for i, value in enumerate(op.operands, start=1)]
    _require_body(op, element)
    for i, layout in enumerate(layouts, start=1):
        if layout.element != element:
            refuse(op, f"operand {i} has elements of {layout.element}; the product has {element}")
    output = op.outputs[0]
    result = Operand(value=next(iter(op.results), output), strides=layouts[-1].strides)
    operands = [
        Operand(value=value, strides=strides)
        for value, strides in zip(op.operands, _strides(op, layouts), strict=True)
    ]
    used = (bool(argument.uses) for argument in op.body[0].block.args)
    return Elementwise(
        op=op,
        operands=tuple(o if use else None for o, use in zip(operands, used, strict=True)),
        result=result,
    )


def _arrays(op: GenericOp) -> list[SSAValue]:
    return [value for value in op.operands if not is_constant(value)]


def is_constant(value: SSAValue) -> bool:
    """Whether `value` is a floating-point scalar that a constant gives."""
    return _constant(value) is not None


def _constant(value: SSAValue) -> arith.ConstantOp | None:
    """The operation that made a floating-point scalar, if it is a constant."""
    made = value.owner
    if isinstance(made, arith.ConstantOp) and isinstance(made.value, FloatAttr):
        return made
    return None


def _layout(op: GenericOp, number: int, value: SSAValue) -> Layout:
    constant = _constant(value)
    if constant is None or value in op.outputs:
        return layout_of(op, f"operand {number}", value.type)
    assert isinstance(constant.value, FloatAttr)
    return Layout(element=constant.value.type, shape=(), strides=())


def _strides(op: GenericOp, layouts: Sequence[Layout]) -> list[tuple[int, ...]]:
    """For each operand, its strides along the dimensions of the output."""
    assert op.indexing_maps is not None
    maps = given_maps(op, op.indexing_maps)
    if len(maps) != len(layouts):
        refuse(op, f"has {len(maps)} indexing_maps; expected one for each of {len(layouts)}")
    if {m.num_dims for m in maps} != {len(op.iterator_types or ())}:
        refuse(op, "its indexing_maps differ in the number of dimensions from iterator_types")
    for i, (affine, layout) in enumerate(zip(maps, layouts, strict=True), start=1):
        if len(affine.results) != len(layout.shape):
            refuse(op, f"operand {i} has rank {len(layout.shape)}; its map {affine} differs")
    order = [e.position for e in maps[-1].results if isinstance(e, AffineDimExpr)]
    if len(set(order)) != maps[-1].num_dims:
        refuse(op, f"map {maps[-1]} of the output must list every dimension once")
    extents = dict(zip(order, layouts[-1].shape, strict=True))
    found: list[tuple[int, ...]] = []
    for i, (affine, layout) in enumerate(zip(maps, layouts, strict=True), start=1):
        along = _along(op, i, affine, layout, extents)
        found.append(tuple(along.get(dimension, 0) for dimension in order))
    return found


def _along(
    op: GenericOp, number: int, affine: AffineMap, layout: Layout, extents: Mapping[int, int]
) -> dict[int, int]:
    """The stride of one operand along each loop dimension that its map has."""
    found: dict[int, int] = {}
    for at, extent, stride in zip(affine.results, layout.shape, layout.strides, strict=True):
        if _is_zero(at) and extent > 0:
            continue
        if not isinstance(at, AffineDimExpr) or at.position in found:
            refuse(op, f"map {affine} must list distinct dimensions, or 0")
        wanted = extents[at.position]
        if extent != wanted:
            refuse(
                op,
                f"dimension d{at.position} is {wanted} in the output and {extent} in "
                f"operand {number}",
            )
        found[at.position] = stride
    return found


def _is_zero(at: AffineExpr) -> bool:
    return isinstance(at, AffineConstantExpr) and at.value == 0


def _require_body(op: GenericOp, element: AnyFloat) -> None:
    if not op.body:
        refuse(op, "has no body")
    block = op.body[0].block
    wanted = len(op.operands)
    if tuple(block.arg_types) != (element,) * wanted:
        found = ", ".join(map(str, block.arg_types)) or "none"
        refuse(
            op, f"the body needs {wanted} arguments of {element}, one an operand; it has {found}"
        )
    for inner in block.ops:
        _require_known_op(op, inner, element)
        for value in inner.operands:
            if value.owner is not block and not _is_local(value, block) and not is_constant(value):
                refuse(inner, "uses a value from outside of the body that is not a constant")


def _is_local(value: SSAValue, block: Block) -> bool:
    return isinstance(value.owner, Operation) and value.owner.parent_block() is block


def _require_known_op(op: GenericOp, inner: Operation, element: AnyFloat) -> None:
    types: Sequence[Attribute]
    if isinstance(inner, YieldOp):
        types = inner.operand_types
    elif inner.name in BODY_OPS:
        types = inner.result_types
    else:
        instead = _INSTEAD.get(inner.name)
        advice = f"; use {instead} instead" if instead else ""
        known = ", ".join(BODY_OPS)
        refuse(inner, f"the body of an elementwise {op.name} may only have {known}{advice}")
    if tuple(types) != (element,):
        found = ", ".join(map(str, types)) or "nothing"
        refuse(inner, f"gives {found}; the elements are {element}")


def add_composed(
    block: Block,
    steps: Sequence[Elementwise],
    inputs: Mapping[Operand, SSAValue],
    output: SSAValue,
    *,
    product: Operand,
    residual: Operand | None,
) -> None:
    """Append one gemmir.epilogue that adds `residual` to `output`, then applies `steps` in order.

    `inputs` are the operands of the steps beside C as memrefs of the shape of `output`. `product`
    is what the steps call the output of the contraction.
    """
    element = memref_type(output).element_type
    body = Block(arg_types=[element] * (len(inputs) + 1))
    for argument, value in zip(body.args, (*inputs.values(), output), strict=True):
        argument.name_hint = f"{value.name_hint}_element"
    elements: dict[Operand, SSAValue] = dict(zip(inputs, body.args, strict=False))
    stored: SSAValue = body.args[-1]
    if residual is not None:
        add = arith.AddfOp(stored, elements[residual])
        add.result.name_hint = "sum"
        body.add_op(add)
        stored = add.result
    elements[product] = stored
    copies: dict[SSAValue, SSAValue] = {}
    for step in steps:
        stored = _inline(step, elements, copies, body)
        elements[step.result] = stored
    body.add_op(EpilogueYieldOp(stored))
    block.add_op(EpilogueOp(list(inputs.values()), output, Region(body)))


def _inline(
    step: Elementwise,
    elements: Mapping[Operand, SSAValue],
    copies: dict[SSAValue, SSAValue],
    into: Block,
) -> SSAValue:
    """Copy the body of `step` to the end of `into`; returns what it yields.

    `copies` maps what has been copied, also constants that stand outside of the body.
    """
    body = step.op.body[0].block
    for argument, operand in zip(body.args, step.operands, strict=True):
        if operand is not None:
            known = elements.get(operand)
            copies[argument] = _copied(operand.value, copies, into) if known is None else known
    for inner in body.ops:
        found = [_copied(value, copies, into) for value in inner.operands]
        if isinstance(inner, YieldOp):
            return found[0]
        into.add_op(inner.clone(copies))
    raise AssertionError("the body of a linalg operation ends in linalg.yield")


def _copied(value: SSAValue, copies: dict[SSAValue, SSAValue], into: Block) -> SSAValue:
    """The copy of `value` in `into`; one is made of a constant that has none."""
    if value not in copies:
        constant = _constant(value)
        assert constant is not None
        into.add_op(constant.clone(copies))
    return copies[value]
