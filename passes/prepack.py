"""Let an operand be packed once, before the calls that read it.

    func.func @gemm(%a, %b, %c)      ->     func.func @gemm(%a, %b, %c)
        %b_packed = memref.alloc()              %b_packed = memref.alloc()
        gemmir.pack %b into %b_packed           func.call @gemm_pack_b(%b, %b_packed)
        gemmir.gemm %a, %b_packed, %c           func.call @gemm_packed_b(%a, %b_packed, %c)
        memref.dealloc %b_packed                memref.dealloc %b_packed
                                            func.func nested @gemm_pack_b(%b, %packed)
                                                gemmir.pack %b into %packed
                                            func.func nested @gemm_packed_b(%a, %packed, %c)
                                                gemmir.gemm %a, %packed, %c

The two functions may be called by themselves: the type of `%packed` says how it lies. The passes
that follow work on both. Changes no order of summation.

What is packed in each iteration of a loop over a batch or groups becomes a stack: one row of
panels, those of a matrix behind those of the one before. A matrix that all products share is packed
once.

    for %s: gemmir.pack %b[%s] into ...   ->    for %s: gemmir.pack %b[%s] into %packed[0, %s * 16]
            gemmir.gemm ...                     for %s: gemmir.gemm ... %packed[0, %s * 16] ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, builtin, func, memref, scf
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IndexType,
    MemRefType,
    StringAttr,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from gemmir.errors import ScheduleError
from gemmir.ir.arguments import size_arguments
from gemmir.ir.attributes import PanelAttr
from gemmir.ir.build import ARGUMENT_ACCESS, ARGUMENT_NAME
from gemmir.ir.dialect import ForallOp, PackOp, memref_type, static_strides
from gemmir.ir.index import constant_of
from gemmir.ir.loops import DIMENSION, dimension_of, require_gemms
from gemmir.ir.packed import compute_symbol, pack_symbol

OPERANDS = ("a", "b")

PAGE_BYTES = 4096
"""The buffer begins on a page, as `promote` has it."""

PACKED = "packed"
"""The name of what the function that packs writes."""


STACKED = ("batch", "group")
"""Loops over products that have matrices of their own."""


@dataclass(frozen=True, kw_only=True)
class PrepackPlan:
    """The function to cut, and in it the pack of a whole argument into a buffer of its own.

    `loop` is the one over products, if there is one, whose matrices lie in a stack of `count`, each
    `apart` elements of the packed dimension behind the one before; of a shared one there is one.
    """

    function: func.FuncOp
    operand: str
    argument: BlockArgument
    pack: PackOp
    read: tuple[Operation, ...]
    alloc: memref.AllocOp
    view: memref.SubviewOp
    dealloc: memref.DeallocOp
    loop: scf.ForOp | ForallOp | None
    count: int
    apart: int

    @property
    def made(self) -> MemRefType[Attribute]:
        """The type of the buffer of all matrices."""
        one = memref_type(self.alloc.memref)
        shape = list(one.get_shape())
        shape[_packed_dim(one)] *= self.count
        return MemRefType(one.element_type, shape, one.layout, one.memory_space)


def _packed_dim(of: MemRefType[Attribute]) -> int:
    assert isinstance(of.layout, PanelAttr)
    return of.layout.dim.data


def plan(module: builtin.ModuleOp, operand: str) -> PrepackPlan:
    """Find the pack; `ScheduleError` GEM1343 and GEM1344 where there is none to cut off."""
    if operand not in OPERANDS:
        raise ScheduleError("GEM1343", f"prepack: operand={operand!r}", "use a or b")
    require_gemms("prepack", module)
    functions = [o for o in module.ops if isinstance(o, func.FuncOp)]
    whole = functions[0]
    if len(functions) > 1 or size_arguments(whole):
        raise ScheduleError(
            "GEM1344",
            "prepack: the module has several functions, or sizes that are known in a call only",
            "give all sizes, and leave version out",
        )
    name = StringAttr(operand)
    attributes = whole.arg_attrs.data if whole.arg_attrs is not None else ()
    places = [n for n, own in enumerate(attributes) if own.data.get(ARGUMENT_NAME) == name]
    argument = whole.body.block.args[places[0]] if places else None
    body = whole.body.block
    inner = [op for op in body.ops if _is_over_products(op)]
    for loop, block in ((None, body), *((op, op.body.block) for op in inner)):
        for pack in block.ops:
            if isinstance(pack, PackOp) and argument is not None:
                read = _between(argument, pack.source, loop and loop.body.block.args[0])
                if read is not None:
                    return _plan(whole, operand, argument, pack, read, loop)
    raise ScheduleError(
        "GEM1344",
        f"prepack: {operand} is not packed as a whole before all loops but that over the batch",
        f"put promote{{operand={operand} to=l3 layout=panel:WIDTH}} first, and prepack behind it",
    )


def _is_over_products(op: Operation) -> TypeGuard[scf.ForOp | ForallOp]:
    """Whether `op` is a loop over all products of a batch or all groups, one at a time."""
    return (
        isinstance(op, scf.ForOp | ForallOp)
        and dimension_of(op) in STACKED
        and (constant_of(op.lb), constant_of(op.step)) == (0, 1)
        and constant_of(op.ub) is not None
    )


def _between(
    argument: BlockArgument, value: SSAValue, product: SSAValue | None
) -> tuple[Operation, ...] | None:
    """The ops that make the view `value` of `argument`, of one product; None where of others."""
    if value is argument:
        return ()
    owner = value.owner
    if not isinstance(owner, Operation) or any(o is not product for o in owner.operands[1:]):
        return None
    if not isinstance(owner, memref.SubviewOp | memref.ReinterpretCastOp):
        return None
    before = _between(argument, owner.operands[0], product)
    return None if before is None else (*before, owner)


def _plan(
    function: func.FuncOp,
    operand: str,
    argument: BlockArgument,
    pack: PackOp,
    read: tuple[Operation, ...],
    loop: scf.ForOp | ForallOp | None,
) -> PrepackPlan:
    view = pack.target.owner
    assert isinstance(view, memref.SubviewOp)
    alloc = view.source.owner
    assert isinstance(alloc, memref.AllocOp)
    ends = [use.operation for use in alloc.memref.uses]
    (dealloc,) = (op for op in ends if isinstance(op, memref.DeallocOp))
    values = [argument, *(op.results[0] for op in read)]
    if pack.scales is not None or any(len(list(value.uses)) > 1 for value in values):
        raise ScheduleError(
            "GEM1344",
            f"prepack: {operand} is read elsewhere too, or has scales when it is packed",
            "leave prepack out",
        )
    count = 1 if loop is None or _is_shared(read) else constant_of(loop.ub)
    made = memref_type(alloc.memref)
    assert count is not None and isinstance(made.layout, PanelAttr)
    return PrepackPlan(
        function=function,
        operand=operand,
        argument=argument,
        pack=pack,
        read=read,
        alloc=alloc,
        view=view,
        dealloc=dealloc,
        loop=loop,
        count=max(count, 1),
        apart=made.get_shape()[_packed_dim(made)],
    )


def _is_shared(read: Sequence[Operation]) -> bool:
    """Whether all products read the same matrix: it begins at the same place for each."""
    (cut,) = (op for op in read if isinstance(op, memref.SubviewOp))
    return static_strides(memref_type(cut.source))[0] == 0


def prepack(plan: PrepackPlan) -> None:
    """Make the two functions of `plan`, and let the one that is there call them."""
    compute, operand = plan.function, plan.operand
    symbol, types = compute.sym_name.data, list(compute.function_type.inputs.data)
    place = plan.argument.index
    source, made = types[place], plan.made
    whole = func.FuncOp(symbol, (types, []), arg_attrs=compute.arg_attrs)
    for key, value in compute.attributes.items():
        whole.attributes[key] = value
    filled = func.FuncOp(
        pack_symbol(symbol, operand),
        ([source, made], []),
        visibility="nested",
        arg_attrs=_pack_attributes(operand),
    )
    _fill(filled, plan)
    alloc = memref.AllocOp.get(
        made.element_type, PAGE_BYTES, made.shape, None, made.layout, made.memory_space
    )
    alloc.memref.name_hint = f"{operand}_packed"
    for op in (plan.pack, *reversed(plan.read), plan.dealloc):
        op.detach()
        op.erase()
    taken = compute.body.block.insert_arg(made, place)
    taken.name_hint = alloc.memref.name_hint
    _take(plan, taken)
    plan.alloc.detach()
    plan.alloc.erase()
    compute.body.block.erase_arg(plan.argument)
    types[place] = made
    compute.sym_name = StringAttr(compute_symbol(symbol, operand))
    compute.sym_visibility = StringAttr("nested")
    compute.function_type = FunctionType.from_lists(types, [])
    parent = compute.parent_block()
    assert parent is not None
    parent.insert_op_before(whole, compute)
    parent.insert_op_after(filled, compute)
    for new, old in zip(whole.body.block.args, compute.body.block.args, strict=True):
        new.name_hint = old.name_hint
    original = whole.body.block.args[place]
    original.name_hint = operand
    arguments: list[SSAValue] = list(whole.body.block.args)
    arguments[place] = alloc.memref
    whole.body.block.add_ops(
        [
            alloc,
            func.CallOp(filled.sym_name.data, [original, alloc.memref], ()),
            func.CallOp(compute.sym_name.data, arguments, ()),
            memref.DeallocOp.get(alloc.memref),
            func.ReturnOp(),
        ]
    )


def _pack_attributes(operand: str) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(
        DictionaryAttr({ARGUMENT_NAME: StringAttr(name), ARGUMENT_ACCESS: StringAttr(access)})
        for name, access in ((operand, "read"), (PACKED, "write"))
    )


def _take(plan: PrepackPlan, packed: SSAValue) -> None:
    """Let the window into the buffer of the function be one into `packed`."""
    product = plan.loop and plan.loop.body.block.args[0]
    builder = Builder(InsertPoint.before(plan.view))
    view = _window(builder, plan, packed, product)
    plan.view.result.replace_all_uses_with(view)
    plan.view.detach()
    plan.view.erase()


def _window(
    builder: Builder, plan: PrepackPlan, packed: SSAValue, product: SSAValue | None
) -> SSAValue:
    """The matrix of a product in `packed`: whole panels before it, it lies as the first does."""
    made = memref_type(plan.view.result)
    offsets: list[SSAValue | int] = [0, 0]
    if plan.count > 1 and product is not None:
        apart = builder.insert(_index(plan.apart))
        begin = builder.insert(arith.MuliOp(product, apart.result)).result
        offsets[_packed_dim(made)] = begin
    shape = list(made.get_shape())
    view = memref.SubviewOp.get(packed, offsets, shape, [1, 1], made)
    view.result.name_hint = plan.view.result.name_hint
    return builder.insert(view).result


def _fill(function: func.FuncOp, plan: PrepackPlan) -> None:
    """The body that packs: for each product the view of the buffer and the copy into it."""
    block = function.body.block
    source, target = block.args
    source.name_hint, target.name_hint = plan.operand, PACKED
    builder = Builder(InsertPoint.at_end(block))
    if plan.loop is None:
        _copy(builder, plan, source, target, None)
    else:
        begin, end, step = (builder.insert(_index(n)).result for n in (0, plan.count, 1))
        body = Block([], arg_types=[IndexType()])
        body.args[0].name_hint = plan.loop.body.block.args[0].name_hint
        loop = scf.ForOp(begin, end, step, [], Region(body))
        loop.attributes[DIMENSION] = plan.loop.attributes[DIMENSION]
        builder.insert(loop)
        inner = Builder(InsertPoint.at_end(body))
        _copy(inner, plan, source, target, body.args[0])
        inner.insert(scf.YieldOp())
    builder.insert(func.ReturnOp())


def _index(number: int) -> arith.ConstantOp:
    return arith.ConstantOp.from_int_and_width(number, IndexType())


def _copy(
    builder: Builder,
    plan: PrepackPlan,
    source: SSAValue,
    target: SSAValue,
    product: SSAValue | None,
) -> None:
    """Copy the matrix of `product` in `source` to its place in `target`."""
    values: dict[SSAValue, SSAValue] = {plan.argument: source}
    if plan.loop is not None and product is not None:
        values[plan.loop.body.block.args[0]] = product
    value = source
    for op in plan.read:
        copy = builder.insert(op.clone(values))
        value = copy.results[0]
    builder.insert(PackOp(value, _window(builder, plan, target, product)))


@dataclass(frozen=True)
class Prepack(ModulePass):
    """Give the pack of `operand`, made before all loops, and what reads it a function each."""

    name = "gemmir-prepack"

    operand: str

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        prepack(plan(op, self.operand))
