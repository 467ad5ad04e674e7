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
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import builtin, func, memref
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, StringAttr
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.arguments import size_arguments
from gemmir.ir.build import ARGUMENT_ACCESS, ARGUMENT_NAME
from gemmir.ir.dialect import PackOp
from gemmir.ir.loops import require_gemms
from gemmir.ir.packed import compute_symbol, pack_symbol

OPERANDS = ("a", "b")

PACKED = "packed"
"""The name of what the function that packs writes."""


@dataclass(frozen=True, kw_only=True)
class PrepackPlan:
    """The function to cut, and in it the pack of a whole argument into a buffer of its own."""

    function: func.FuncOp
    operand: str
    argument: BlockArgument
    pack: PackOp
    read: tuple[Operation, ...]
    alloc: memref.AllocOp
    view: memref.SubviewOp
    dealloc: memref.DeallocOp


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
    for pack in whole.body.block.ops:
        if isinstance(pack, PackOp) and argument is not None:
            read = _between(argument, pack.source)
            if read is not None:
                return _plan(whole, operand, argument, pack, read)
    raise ScheduleError(
        "GEM1344",
        f"prepack: {operand} is not packed as a whole before all loops",
        f"put promote{{operand={operand} to=l3 layout=panel:WIDTH}} first, and prepack behind it",
    )


def _between(argument: BlockArgument, value: SSAValue) -> tuple[Operation, ...] | None:
    """The ops that make the view `value` of `argument` alone; None where it is of others."""
    if value is argument:
        return ()
    owner = value.owner
    if not isinstance(owner, Operation) or len(owner.operands) != 1:
        return None
    before = _between(argument, owner.operands[0])
    return None if before is None else (*before, owner)


def _plan(
    function: func.FuncOp,
    operand: str,
    argument: BlockArgument,
    pack: PackOp,
    read: tuple[Operation, ...],
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
    return PrepackPlan(
        function=function,
        operand=operand,
        argument=argument,
        pack=pack,
        read=read,
        alloc=alloc,
        view=view,
        dealloc=dealloc,
    )


def prepack(plan: PrepackPlan) -> None:
    """Make the two functions of `plan`, and let the one that is there call them."""
    compute, operand = plan.function, plan.operand
    symbol, types = compute.sym_name.data, list(compute.function_type.inputs.data)
    place = plan.argument.index
    source, made = types[place], plan.alloc.memref.type
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
    alloc = plan.alloc.clone()
    alloc.memref.name_hint = f"{operand}_packed"
    for op in (plan.pack, *reversed(plan.read), plan.dealloc):
        op.detach()
        op.erase()
    taken = compute.body.block.insert_arg(made, place)
    taken.name_hint = alloc.memref.name_hint
    plan.alloc.memref.replace_all_uses_with(taken)
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


def _fill(function: func.FuncOp, plan: PrepackPlan) -> None:
    """The body that packs: the view of the buffer and the copy into it."""
    block = function.body.block
    source, target = block.args
    source.name_hint, target.name_hint = plan.operand, PACKED
    value: SSAValue = source
    for op in plan.read:
        copy = op.clone({op.operands[0]: value})
        block.add_op(copy)
        value = copy.results[0]
    view = plan.view.clone()
    view.operands[0] = target
    block.add_ops([view, PackOp(value, view.result), func.ReturnOp()])


@dataclass(frozen=True)
class Prepack(ModulePass):
    """Give the pack of `operand`, made before all loops, and what reads it a function each."""

    name = "gemmir-prepack"

    operand: str

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        prepack(plan(op, self.operand))
