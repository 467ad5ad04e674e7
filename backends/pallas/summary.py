"""The docstring of the file: what is computed, from which arrays, in which blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from xdsl.dialects import vector
from xdsl.ir import OpResult, SSAValue

from gemmir.backends.pallas.arrays import Operand
from gemmir.backends.pallas.emitter import vectors
from gemmir.backends.pallas.types import jax_type
from gemmir.ir.dialect import memref_type
from gemmir.ir.pallas import PARALLEL, CallOp, DotOp
from gemmir.signature import Argument

_USES: Final = {"read": "", "write": "the result", "readwrite": "read, and the result"}


def array_lines(
    names: Sequence[str], arguments: Sequence[Argument], values: Sequence[SSAValue]
) -> Iterator[str]:
    """A line for each array: name, type, shape, and what it is for."""
    kinds = [
        f"{jax_type(memref_type(value).element_type).removeprefix('jnp.')}{list(argument.shape)}"
        for argument, value in zip(arguments, values, strict=True)
    ]
    widths = [max(map(len, column)) for column in (names, kinds)]
    for name, kind, argument in zip(names, kinds, arguments, strict=True):
        line = f"{name:{widths[0]}}  {kind:{widths[1]}}  {_USES[argument.access]}"
        yield f"    {line}".rstrip()


def formula(call: CallOp, operands: Sequence[Operand], names: Mapping[SSAValue, str]) -> str:
    """What a kernel computes: the product, as it is or with what else is read."""
    blocks = dict(zip(call.references, operands, strict=True))
    product = next((op for op in call.body.walk() if isinstance(op, DotOp)), None)
    factors = [] if product is None else [blocks[_source(v)] for v in product.operands]
    terms = [names[o.base] for o in operands[: len(call.inputs)] if o not in factors]
    if factors:
        words = [f"{names[o.base]}{'.T' if o.transposed else ''}" for o in factors]
        terms.insert(0, " @ ".join(words))
    result = names[operands[-1].base]
    is_plain = len(terms) == 1 and _is_plain(call)
    return f"{result} = {terms[0]}" if is_plain else f"{result} = f({', '.join(terms)})"


def _source(value: SSAValue) -> SSAValue:
    """The block that an operand of a product is read from, through conversions and views."""
    while isinstance(value, OpResult):
        value = value.op.operands[0]
    return value


_PLAIN: Final = ("arith.addf", "arith.addi", "arith.constant", "arith.select", "arith.truncf")


def _is_plain(call: CallOp) -> bool:
    """Whether nothing is done with a product but to sum it up and to round it."""
    made = (op for op in call.body.walk() if vectors(op.results))
    return all(op.name in _PLAIN or isinstance(op, DotOp | vector.TransferReadOp) for op in made)


def block_lines(
    call: CallOp, operands: Sequence[Operand], names: Mapping[SSAValue, str]
) -> Iterator[str]:
    """The steps of a grid and the blocks that each has in VMEM."""
    steps = " x ".join(map(str, call.extents)) or "1"
    waits = [n for n, word in enumerate(call.semantics) if word.data != PARALLEL]
    order = f", in order along dimension {', '.join(map(str, waits))}" if waits else ""
    yield f"Grid: {steps} steps{order}. In VMEM at each step:"
    lines = [
        f"    {names[operand.base]} {' x '.join(map(str, operand.block))}"
        + ("" if block.buffers.data == 1 else f", {block.buffers.data} buffers")
        for operand, block in zip(operands, call.blocks, strict=True)
    ]
    yield from dict.fromkeys(lines)
    for value in call.scratch:
        kind = memref_type(value)
        name = jax_type(kind.element_type).removeprefix("jnp.")
        shape = " x ".join(map(str, kind.get_shape()))
        yield f"    {value.name_hint or 'scratch'} {shape} of {name}"
