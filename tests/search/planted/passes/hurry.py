"""A pass that makes kernels faster and wrong, for tests of who notices.

It is no part of gemmir: tests put its folder beside that of the passes. `what` says what is left
out, `at` at which of the places where it could be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xdsl.context import Context
from xdsl.dialects import arith, scf, vector
from xdsl.dialects.builtin import IndexType, IntegerAttr, ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from gemmir.errors import ScheduleError


def constant(value: int, before: Operation) -> arith.ConstantOp:
    """A new index constant."""
    made = arith.ConstantOp(IntegerAttr(value, IndexType()))
    Rewriter.insert_op(made, InsertPoint.before(before))
    return made


def number(op: Operation | object) -> int:
    """The value of a constant."""
    assert isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr)
    return op.value.value.data


def shorten(loop: scf.ForOp, part: Callable[[int, int], int]) -> None:
    """Let a loop of constant bounds end earlier: `part` of its trips and its step."""
    step = number(loop.step.owner)
    trips = -(-number(loop.ub.owner) // step)
    loop.operands[1] = constant(part(trips, step), loop).result


def sums(module: ModuleOp) -> list[Operation]:
    """Loops over k, of more than one trip."""
    return [
        op
        for op in module.walk()
        if isinstance(op, scf.ForOp)
        and op.attributes.get("gemmir.dim") is not None
        and "k" in str(op.attributes["gemmir.dim"])
        and op.iter_args
        and isinstance(op.ub.owner, arith.ConstantOp)
    ]


def others(module: ModuleOp) -> list[Operation]:
    """Loops that sum nothing."""
    return [
        op
        for op in module.walk()
        if isinstance(op, scf.ForOp)
        and not op.iter_args
        and isinstance(op.ub.owner, arith.ConstantOp)
        and number(op.ub.owner) > number(op.step.owner)
    ]


def k_half(op: Operation) -> None:
    """Sum half of the products."""
    assert isinstance(op, scf.ForOp)
    shorten(op, lambda trips, step: max(trips // 2, 1) * step if trips > 1 else 0)


def k_short(op: Operation) -> None:
    """Leave the last products out."""
    assert isinstance(op, scf.ForOp)
    shorten(op, lambda trips, step: (trips - 1) * step)


def last_tile(op: Operation) -> None:
    """Leave the last tile out."""
    assert isinstance(op, scf.ForOp)
    shorten(op, lambda trips, step: (trips - 1) * step)


PRODUCTS: Final = ("gemmir.outerproduct", "gemmir.pairproduct")


def products(module: Operation) -> list[Operation]:
    return [op for op in module.walk() if op.name in PRODUCTS]


def drop_product(op: Operation) -> None:
    """Take the sum as it was before."""
    sum_before = op.operands[2]
    op.results[0].replace_all_uses_with(sum_before)
    op.detach()
    op.erase()


def functions(module: ModuleOp) -> list[Operation]:
    return [op for op in module.walk() if op.name == "func.func" and products(op)]


def drop_products(op: Operation) -> None:
    """Drop every second one."""
    for number, product in enumerate(products(op)):
        if number % 2:
            drop_product(product)


def stores(module: ModuleOp) -> list[Operation]:
    return [op for op in module.walk() if isinstance(op, vector.TransferWriteOp)]


def drop(op: Operation) -> None:
    """Do not do it."""
    op.detach()
    op.erase()


def activations(module: ModuleOp) -> list[Operation]:
    return [op for op in module.walk() if op.name in ("arith.maximumf", "arith.maxsi")]


def pass_through(op: Operation) -> None:
    """Take its first operand for its result."""
    op.results[0].replace_all_uses_with(op.operands[0])
    drop(op)


WHATS: Final = {
    "k_half": (sums, k_half),
    "k_short": (sums, k_short),
    "last_tile": (others, last_tile),
    "drop_product": (products, drop_product),
    "drop_products": (functions, drop_products),
    "drop_store": (stores, drop),
    "no_relu": (activations, pass_through),
}


@dataclass(frozen=True)
class Hurry(ModulePass):
    """Leave something out."""

    name = "gemmir-hurry"
    what: str
    at: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Do it at one place; `ScheduleError` where there is no such place."""
        find, edit = WHATS[self.what]
        found = find(op)
        if self.at >= len(found):
            raise ScheduleError("GEM9999", f"hurry: there are {len(found)} places for {self.what}")
        edit(found[self.at])
