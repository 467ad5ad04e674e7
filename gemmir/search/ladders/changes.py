"""What a rung changes in the IR: the loops and ops of its last stage."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr
from xdsl.ir import Operation, SSAValue

from gemmir.ir.dialect import ForallOp
from gemmir.ir.loops import DIMENSION
from gemmir.ir.pallas import CallOp

ARITHMETIC: Final = (
    "arith.",
    "builtin.",
    "func.",
    "scf.yield",
    "gemmir.yield",
    "affine.",
    "memref.subview",
)
"""Ops that every stage has many of and that say little: of indices, addresses and ends."""


def op_counts(module: ModuleOp) -> dict[str, int]:
    """How many ops of each kind there are, without arithmetic on indices."""
    found = Counter(op.name for op in module.walk() if not op.name.startswith(ARITHMETIC))
    return dict(sorted(found.items()))


def changed_counts(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much the count of each kind has changed, where it has."""
    names = sorted({*before, *after})
    return {n: d for n in names if (d := after.get(n, 0) - before.get(n, 0))}


def outline(module: ModuleOp) -> list[str]:
    """The loops of `module` with the ops that stand in each, one line a loop or kind of op."""
    lines: list[str] = []
    for op in module.body.block.ops:
        lines += _outline(op, 0)
    return lines


def outline_diff(before: list[str], after: list[str]) -> list[str]:
    """Lines that begin with - and +, and a little of what is around them."""
    found = difflib.unified_diff(before, after, n=1, lineterm="")
    return [line for line in found if not line.startswith(("---", "+++", "@@"))]


def _outline(op: Operation, depth: int) -> Iterator[str]:
    header = _header(op)
    inner = depth + bool(header)
    if header:
        yield "  " * depth + header
    counts: Counter[str] = Counter()
    nested: list[Operation] = []
    for region in op.regions:
        for child in region.ops if region.blocks else ():
            if child.regions:
                nested.append(child)
            elif not child.name.startswith(ARITHMETIC):
                counts[_leaf(child)] += 1
    for name, count in counts.items():
        yield "  " * inner + (f"{count} x {name}" if count > 1 else name)
    for child in nested:
        yield from _outline(child, inner)


def _header(op: Operation) -> str:
    """A loop as a line; "" for what is no loop."""
    if isinstance(op, scf.ForOp):
        dim = op.attributes.get(DIMENSION)
        name = dim.data if isinstance(dim, StringAttr) else "…"
        step = _constant(op.step)
        return f"for {name} step {'?' if step is None else step}"
    if isinstance(op, ForallOp):
        return f"forall over {op.over.data}"
    if isinstance(op, CallOp):
        return f"grid {' x '.join(map(str, op.extents))}"
    return ""


def _leaf(op: Operation) -> str:
    """An op, and the types of its results where they are vectors."""
    shapes = [str(r.type) for r in op.results if str(r.type).startswith("vector<")]
    return f"{op.name} {shapes[0]}" if shapes else op.name


def _constant(value: SSAValue) -> int | None:
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    return None
