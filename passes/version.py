"""Give small or special sizes a function of their own, which then has passes of its own.

    func.func @gemm(…, %m)      ->     func.func @gemm(…, %m)
        gemmir.gemm …                      %small = arith.cmpi sle, %m, 8
                                           scf.if %small { func.call @gemm.m8(…, %m) }
                                           else { func.call @gemm.more(…, %m) }
                                       func.func private @gemm.m8 …      %m is at most 8
                                           gemmir.gemm …
                                       func.func private @gemm.more …    %m is at least 9
                                           gemmir.gemm …

The passes that follow work on the function of the sizes that are named, up to `otherwise`; those
behind that work on the other, which may be cut again. With `most` each of `loops` is at most so
much there; with `sizes` it is exactly that, and static in all types. Changes no order of summation
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, builtin, func
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass

from gemmir.errors import ScheduleError
from gemmir.ir.arguments import size_arguments
from gemmir.ir.index import as_index, before, both
from gemmir.ir.loops import conditional, require_gemms
from gemmir.ir.versions import DONE, TURN, WAITING, bound, current, is_plain, private_copy, settle


@dataclass(frozen=True, kw_only=True)
class VersionPlan:
    """The function to cut in two, and what holds in the first of them: sizes and their numbers."""

    function: func.FuncOp
    loops: tuple[str, ...]
    numbers: tuple[int, ...]
    is_exact: bool

    @property
    def symbol(self) -> str:
        """The name of the version."""
        sizes = (f"{name}{number}" for name, number in zip(self.loops, self.numbers, strict=True))
        return ".".join([self.function.sym_name.data, *sizes])


def plan(
    module: builtin.ModuleOp,
    loops: Sequence[str],
    most: Sequence[int] | None,
    sizes: Sequence[int] | None,
) -> VersionPlan:
    """Decide the version; `ScheduleError` (GEM1352) where there can be none."""
    require_gemms("version", module, takes_scales=True, takes_factors=True)
    function = current(module)
    if function is None or not is_plain(function):
        raise ScheduleError(
            "GEM1352",
            "version: other passes have worked on the function",
            "make it the first pass, or put it right behind otherwise",
        )
    numbers = most if sizes is None else sizes
    if numbers is None or (most is not None and sizes is not None):
        given = "neither most nor sizes" if numbers is None else "most and sizes"
        raise ScheduleError("GEM1352", f"version: {given}", "give one of them")
    if len(loops) != len(numbers) or not loops or min(numbers) < 1:
        raise ScheduleError(
            "GEM1352",
            f"version: loops={','.join(loops)} and {','.join(map(str, numbers)) or 'no numbers'}",
            "give each loop a number of 1 or more",
        )
    known = [name for name in size_arguments(function) if name in ("m", "n", "k")]
    for name in loops:
        if name not in known or loops.count(name) > 1:
            raise ScheduleError(
                "GEM1352",
                f"version: loops={','.join(loops)}, and {name} is not known at run time only",
                f"name each of {', '.join(known)} at most once" if known else "leave version out",
            )
    return VersionPlan(
        function=function, loops=tuple(loops), numbers=tuple(numbers), is_exact=sizes is not None
    )


def version(plan: VersionPlan) -> None:
    """Make the two functions of `plan`, and let the one that is there decide between them."""
    whole = plan.function
    names = (plan.symbol, f"{whole.sym_name.data}.more")
    small, other = (private_copy(whole, symbol) for symbol in names)
    other.attributes[TURN] = WAITING
    parent = whole.parent_block()
    assert parent is not None
    parent.insert_ops_after([small, other], whole)
    sizes = size_arguments(small)
    for name, number in zip(plan.loops, plan.numbers, strict=True):
        if plan.is_exact:
            settle(sizes[name], number)
        else:
            bound(small, sizes[name], most=number)
    if len(plan.loops) == 1 and not plan.is_exact:
        bound(other, size_arguments(other)[plan.loops[0]], least=plan.numbers[0] + 1)
    _decide(plan, small, other)


def _decide(plan: VersionPlan, small: func.FuncOp, other: func.FuncOp) -> None:
    """Let the function of `plan` call one of the two."""
    function = plan.function
    types = function.function_type.inputs.data
    block = Block(arg_types=types)
    for new, old in zip(block.args, function.body.block.args, strict=True):
        new.name_hint = old.name_hint
    function.detach_region(function.body)
    function.add_region(Region(block))
    end = func.ReturnOp()
    block.add_op(end)
    builder = before(end)
    sizes = size_arguments(function)
    tests: list[SSAValue] = []
    word = "eq" if plan.is_exact else "sle"
    for name, number in zip(plan.loops, plan.numbers, strict=True):
        test = arith.CmpiOp(sizes[name], as_index(end, number), word)
        tests.append(builder.insert(test).result)
    condition = both(builder, tests)
    assert condition is not None
    arguments = list(block.args)
    builder.insert(
        conditional(
            condition,
            lambda then: then.insert(func.CallOp(small.sym_name.data, arguments, ())),
            lambda otherwise: otherwise.insert(func.CallOp(other.sym_name.data, arguments, ())),
        )
    )
    function.attributes[TURN] = DONE


@dataclass(frozen=True)
class Version(ModulePass):
    """Give sizes of `loops` that are at most `most`, or exactly `sizes`, a function of their own.

    The passes that follow work on it, up to `otherwise`.
    """

    name = "gemmir-version"

    loops: tuple[str, ...]
    most: tuple[int, ...] | None = None
    sizes: tuple[int, ...] | None = None

    def apply(self, ctx: Context, op: builtin.ModuleOp) -> None:
        version(plan(op, self.loops, self.most, self.sizes))
