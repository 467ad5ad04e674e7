"""The text of the file: what the arrays are, the kernels, and the function that calls them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from xdsl.dialects import func, memref
from xdsl.ir import SSAValue
from xdsl.ir.affine import (
    AffineBinaryOpExpr,
    AffineBinaryOpKind,
    AffineConstantExpr,
    AffineDimExpr,
    AffineExpr,
    AffineSymExpr,
)

from gemmir.backends.pallas.arithmetic import ARITHMETIC
from gemmir.backends.pallas.arrays import Operand, operand_of, require_dense
from gemmir.backends.pallas.cost import Cost, cost_of, in_vmem_before, visiting, vmem_limit
from gemmir.backends.pallas.emitter import Emitter, Expr, Ref, Table, element_of
from gemmir.backends.pallas.layout import INDENT, broken
from gemmir.backends.pallas.memory import MEMORY
from gemmir.backends.pallas.names import Names, python_name
from gemmir.backends.pallas.structure import STRUCTURE
from gemmir.backends.pallas.summary import array_lines, block_lines, formula
from gemmir.backends.pallas.types import jax_type
from gemmir.backends.pallas.visits import VISITS, visits_function
from gemmir.errors import BackendError
from gemmir.ir.dialect import VisitsOp, memref_type, product_name
from gemmir.ir.pallas import BlockAttr, CallOp, DotOp
from gemmir.machine import TpuMachine
from gemmir.signature import Argument, Signature

TABLE: Final[Table] = {**ARITHMETIC, **MEMORY, **STRUCTURE, **VISITS}

IMPORTS: Final = (
    "import jax",
    "import jax.numpy as jnp",
    "from jax import lax",
    "from jax.experimental import pallas as pl",
    "from jax.experimental.pallas import tpu as pltpu",
)
"""What a file may need; each line ends with the name by which it is used."""


class FunctionText:
    """A function of the IR as a Python file."""

    def __init__(self, signature: Signature, function: func.FuncOp, machine: TpuMachine) -> None:
        self.machine = machine
        self.symbol = python_name(signature.symbol)
        self.arguments = signature.arguments
        self.values = function.body.block.args
        self.ops = list(function.body.block.ops)
        names = Names({self.symbol})
        self.names = [names.new(argument.name, "x") for argument in signature.arguments]
        self.arrays: dict[SSAValue, str] = dict(zip(self.values, self.names, strict=True))
        self.constants = Emitter(TABLE, Names())
        self.called: list[tuple[CallOp, Sequence[Operand]]] = []
        self.kernels: list[str] = []
        self.lines: list[str] = []

    @property
    def result(self) -> Argument:
        """The array that is written, which is the last."""
        return self.arguments[-1]

    def file(self) -> str:
        """The whole file."""
        for argument, value in zip(self.arguments, self.values, strict=True):
            require_dense(argument.name, value)
            jax_type(memref_type(value).element_type)
        is_empty = 0 in self.result.shape
        for op in self.ops:
            if isinstance(op, CallOp) and not is_empty and 0 not in op.extents:
                self._call(op)
            elif isinstance(op, VisitsOp):
                self._visits(op, is_empty=is_empty)
            elif not isinstance(op, CallOp | memref.ReinterpretCastOp | func.ReturnOp):
                self.constants.op(op)
        body = "\n".join([*self.kernels, self._function()])
        imports = [line for line in IMPORTS if _is_used(line, body)]
        return "\n".join([*self._docstring(), *imports, "", "", body])

    def _docstring(self) -> list[str]:
        """What is computed, from which arrays, in which blocks."""
        called = [(call, operands, self.arrays) for call, operands in self.called]
        what = "; ".join(formula(*how) for how in called) or f"{self.names[-1]} has no elements"
        return [
            f'"""{what}, by a Pallas kernel for {self.machine.product}.',
            "",
            "Arrays:",
            *array_lines(self.names, self.arguments, self.values),
            "",
            *(line for how in called for line in block_lines(*how)),
            '"""',
            "",
        ]

    def _function(self) -> str:
        *inputs, last = self.names
        parameters = [*inputs, last] if self.result.access == "readwrite" else inputs
        head = broken(f"def {self.symbol}(", [*parameters, "*", "interpret=False"], "):", 0)
        lines = self.lines
        if not lines:
            lines = [] if last in parameters else [f"    {last} = {self._zeros()}"]
        doc = f'    """Return {last}; `interpret` is that of pl.pallas_call."""'
        return "\n".join([*head, doc, *lines, f"    return {last}", ""])

    def _zeros(self) -> str:
        return f"jnp.zeros({self.result.shape}, {jax_type(self._type(self.values[-1]))})"

    @staticmethod
    def _type(value: SSAValue):
        return memref_type(value).element_type

    def _visits(self, op: VisitsOp, *, is_empty: bool) -> None:
        """Append a function that finds what a grid visits, and the line that calls it."""
        function = f"_{self.symbol}_visits"
        name = Names({self.symbol, *self.names}).new(op.result.name_hint, "visits")
        self.arrays[op.result] = name
        if is_empty:
            return
        self.kernels.append(visits_function(function, op))
        self.lines.append(f"    {name} = {function}({self.arrays[op.offsets]})")

    def _call(self, call: CallOp) -> None:
        """Append a kernel, and the lines that call it."""
        arrays = (*call.inputs, *call.outputs)
        operands = [
            operand_of(self._name_of(array), array, block, reference)
            for array, block, reference in zip(arrays, call.blocks, call.references, strict=True)
        ]
        kernel = f"_{self.symbol}_kernel" + (f"_{len(self.called) + 1}" if self.called else "")
        names = Names({self.symbol, kernel})
        _require_products(call, self.machine)
        self.kernels.append(self._kernel(kernel, call, operands, names))
        self.called.append((call, operands))
        count = len(call.inputs)
        self._pallas_call(kernel, call, operands[:count], operands[count:])

    def _name_of(self, array: SSAValue) -> str:
        while isinstance(array.owner, memref.ReinterpretCastOp):
            array = array.owner.source
        return self.arrays[array]

    def _kernel(self, kernel: str, call: CallOp, operands: Sequence[Operand], names: Names) -> str:
        e = Emitter(TABLE, names, dict(self.constants.values))
        changed = {operand.base for operand in operands[len(call.inputs) :]}
        parameters: list[str] = []
        if call.prefetched is not None:
            parameters.append(names.new(f"{self.arrays[call.prefetched]}_ref", "x"))
            e.values[call.prefetched] = Expr(text=parameters[0])
        for number, (operand, value) in enumerate(zip(operands, call.references, strict=True)):
            is_old = number < len(call.inputs) and operand.base in changed
            stem = self.arrays[operand.base] + ("_old" if is_old else "")
            rows, columns = memref_type(value).get_shape()
            ref = Ref(
                name=names.new(f"{stem}_ref", "x"),
                shape=operand.block,
                extents=(rows, columns),
                transposed=operand.transposed,
            )
            e.values[value] = ref
            parameters.append(ref.name)
        for value in call.scratch:
            rows, columns = memref_type(value).get_shape()
            name = names.new(f"{value.name_hint or 'scratch'}_ref", "x")
            e.values[value] = Ref(name=name, shape=(rows, columns), extents=(rows, columns))
            parameters.append(name)
        for dim, value in enumerate(call.indices):
            e.index(value, f"pl.program_id({dim})")
        e.ops(call.body.block.ops)
        head = broken(f"def {kernel}(", parameters, "):", 0)
        doc = '    """One step of the grid, on blocks in VMEM."""'
        return "\n".join([*head, doc, *e.lines, "", ""])

    def _pallas_call(
        self,
        kernel: str,
        call: CallOp,
        inputs: Sequence[Operand],
        outputs: Sequence[Operand],
    ) -> None:
        first = [] if call.prefetched is None else [self.arrays[call.prefetched]]
        arrays = zip((*inputs, *outputs), call.blocks, strict=True)
        specs = [_spec(call, o, b, first) for o, b in arrays]
        shapes = [f"jax.ShapeDtypeStruct({o.shape}, {_jax_type(o)})" for o in outputs]
        scratch = [_scratch(value) for value in call.scratch]
        aliases = self._aliases(inputs, outputs, len(first))
        semantics = _tuple([f'"{word.data}"' for word in call.semantics])
        limit = vmem_limit(call, (*inputs, *outputs), self.machine)
        params = broken(
            "compiler_params=pltpu.CompilerParams(",
            [f"dimension_semantics={semantics}", f"vmem_limit_bytes={limit}"],
            "),",
            2,
        )
        depth = 3 if first else 2
        grid = [
            f"{INDENT * depth}grid={_tuple(map(str, call.extents))},",
            *broken("in_specs=[", specs[: len(inputs)], "],", depth),
            *_one_or_list("out_specs=", specs[len(inputs) :], depth),
            *(broken("scratch_shapes=[", scratch, "],", depth) if scratch else ()),
        ]
        if first:
            head = "        grid_spec=pltpu.PrefetchScalarGridSpec("
            grid = [head, "            num_scalar_prefetch=1,", *grid, "        ),"]
        lines = [
            f"        {kernel},",
            *grid,
            *_one_or_list("out_shape=", shapes, 2),
            *([f"        input_output_aliases={aliases},"] if aliases else ()),
            *params,
            *_estimate(cost_of(call, (*inputs, *outputs))),
            "        interpret=interpret,",
            f'        name="{self.symbol}",',
        ]
        given = [*first, *(self._shaped(o) for o in inputs)]
        results = ", ".join(self.arrays[o.base] for o in outputs)
        self.lines += self._placed(call, inputs)
        self.lines += [f"    {results} = pl.pallas_call("]
        self.lines += [*lines, *broken(")(", given, ")", 1)]
        for output in outputs:
            shape, name = memref_type(output.base).get_shape(), self.arrays[output.base]
            if output.shape != shape:
                self.lines.append(f"    {name} = {name}.reshape{shape}")

    def _placed(self, call: CallOp, inputs: Sequence[Operand]) -> Iterator[str]:
        """Where arrays are before the call, where one of them is in VMEM as a whole.

        The others are not, or XLA would copy them there too, only to be copied once more by blocks.
        """
        pairs = list(zip(inputs, call.blocks, strict=False))
        spaces = {self.arrays[o.base]: in_vmem_before(o, block) for o, block in pairs}
        if not any(spaces.values()):
            return
        yield "    if not interpret:"
        for name, is_whole in spaces.items():
            space = "VMEM" if is_whole else "HBM"
            yield f"        {name} = pltpu.with_memory_space_constraint({name}, pltpu.{space})"

    def _shaped(self, operand: Operand) -> str:
        """An operand in the shape that its blocks cut."""
        name = self.arrays[operand.base]
        is_same = operand.shape == memref_type(operand.base).get_shape()
        return name if is_same else f"{name}.reshape{_tuple(map(str, operand.shape))}"

    def _aliases(
        self, inputs: Sequence[Operand], outputs: Sequence[Operand], before: int
    ) -> dict[int, int]:
        """The inputs that are outputs too, which are changed in place.

        `before` is how many arrays the call has before the inputs. By what is prefetched the grid
        may read other blocks than it writes, which the IR has in the right order.
        """
        found: dict[int, int] = {}
        for position, output in enumerate(outputs):
            for number, operand in enumerate(inputs):
                if operand.base is not output.base:
                    continue
                is_same = operand == output if not before else _is_cut_alike(operand, output)
                if not is_same or position in found.values():
                    name = self.arrays[output.base]
                    raise BackendError(
                        "GEM0471",
                        f"{name} is read in other blocks than those that are written",
                        f"read {name} once, in the blocks of the output",
                    )
                found[before + number] = position
        return found


def _is_cut_alike(operand: Operand, other: Operand) -> bool:
    """Whether two operands have the same blocks, of which a step may have different ones."""
    pairs = zip(operand.axes, other.axes, strict=True)
    axes = tuple(replace(axis, index=own.index) for axis, own in pairs)
    return replace(operand, axes=axes) == other


def _require_products(call: CallOp, machine: TpuMachine) -> None:
    """The machine multiplies what the kernel does."""
    for op in call.body.walk():
        if not isinstance(op, DotOp):
            continue
        name = product_name(element_of(op.lhs), op.precision)
        if name not in machine.mxu_dtypes:
            raise BackendError(
                "GEM0476",
                f"{machine.product} has no products of {name}",
                f"use {', '.join(machine.mxu_dtypes)}",
            )


def _is_used(line: str, body: str) -> bool:
    """Whether the name that a line imports stands in the file."""
    return re.search(rf"\b{line.split()[-1]}\.", body) is not None


def _one_or_list(head: str, items: Sequence[str], depth: int) -> list[str]:
    """An argument that is one for a single output and a list for several."""
    if len(items) > 1:
        return broken(f"{head}[", items, "],", depth)
    return [f"{INDENT * depth}{head}{items[0]},"]


def _spec(call: CallOp, operand: Operand, block: BlockAttr, prefetched: Sequence[str]) -> str:
    """The block spec of an operand; all of one in a single buffer is no part of the pipeline.

    The index map of the others may read the array that is prefetched.
    """
    if in_vmem_before(operand, block):
        return "pl.BlockSpec(memory_space=pltpu.VMEM)"
    names = index_names(call)
    along = visiting(call)
    symbols = [
        f"{table}[{row}, {names[along]}]"
        for table in prefetched
        if along is not None
        for row in range(block.map.data.num_symbols)
    ]
    shape = _tuple([str(axis.block) for axis in operand.axes])
    index = _tuple([python_of(axis.index, names, symbols) for axis in operand.axes])
    parameters = f" {', '.join([*names, *prefetched])}" if names else ""
    mode = ", pipeline_mode=pl.Buffered(1)" if block.buffers.data == 1 else ""
    return f"pl.BlockSpec({shape}, lambda{parameters}: {index}{mode})"


def index_names(call: CallOp) -> list[str]:
    """A name for each dimension of the grid."""
    names = Names()
    return [names.new(value.name_hint, "ijpq"[dim % 4]) for dim, value in enumerate(call.indices)]


_WORDS: Final = {
    AffineBinaryOpKind.Add: "+",
    AffineBinaryOpKind.Mul: "*",
    AffineBinaryOpKind.FloorDiv: "//",
    AffineBinaryOpKind.Mod: "%",
}


def python_of(expr: AffineExpr, names: Sequence[str], symbols: Sequence[str] = ()) -> str:
    """An affine expression in Python."""
    if isinstance(expr, AffineConstantExpr):
        return str(expr.value)
    if isinstance(expr, AffineDimExpr):
        return names[expr.position]
    if isinstance(expr, AffineSymExpr):
        return symbols[expr.position]
    if isinstance(expr, AffineBinaryOpExpr) and expr.kind in _WORDS:
        left, right = (_inner(side, names, symbols) for side in (expr.lhs, expr.rhs))
        return f"{left} {_WORDS[expr.kind]} {right}"
    raise BackendError(
        "GEM0472", f"{expr} has no spelling in an index map", "use sums, products, floordiv and mod"
    )


def _inner(expr: AffineExpr, names: Sequence[str], symbols: Sequence[str]) -> str:
    text = python_of(expr, names, symbols)
    return f"({text})" if isinstance(expr, AffineBinaryOpExpr) else text


def _tuple(items: Sequence[str] | Iterator[str]) -> str:
    found = list(items)
    return f"({', '.join(found)}{',' if len(found) == 1 else ''})"


def _scratch(value: SSAValue) -> str:
    kind = memref_type(value)
    return f"pltpu.VMEM({kind.get_shape()}, {jax_type(kind.element_type)})"


def _jax_type(operand: Operand) -> str:
    return jax_type(memref_type(operand.base).element_type)


def _estimate(cost: Cost) -> list[str]:
    items = [
        f"flops={cost.flops}",
        f"bytes_accessed={cost.bytes_accessed}",
        f"transcendentals={cost.transcendentals}",
    ]
    return broken("cost_estimate=pl.CostEstimate(", items, "),", 2)
