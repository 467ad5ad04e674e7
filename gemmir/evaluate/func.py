"""The func dialect: binds the caller's arrays to the arguments of a function and runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import DYNAMIC_INDEX, IndexType, MemRefType, ModuleOp, StringAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from gemmir.dtypes import restrided
from gemmir.evaluate import (
    amx,
    arith,
    gemmir,
    grid,
    math,
    memref,
    nvgpu,
    pallas,
    scf,
    vector,
    warpgroup,
)
from gemmir.evaluate.fault import EvaluationError, FaultError, error_in
from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.memref import memref_of
from gemmir.evaluate.values import Array, dtype_of
from gemmir.evaluate.view import (
    Buffer,
    View,
    require_type,
    same_strides,
    span,
    strided_view,
    strides_of,
)
from gemmir.int4 import unpack_int4
from gemmir.ir.arguments import layout_of
from gemmir.ir.build import ELEMENT_TYPES
from gemmir.ir.dialect import enclosing_ops
from gemmir.ir.tma import TMA_OPS
from gemmir.ir.warpgroup import WARPGROUP_OPS
from gemmir.sizes import DisagreementError, Layout, sizes_of

INT4: Final = ELEMENT_TYPES["i4"]


def evaluate(module: ModuleOp, arrays: Sequence[Array], *, symbol: str | None = None) -> None:
    """Run the only function of `module`, or the one named `symbol`, on `arrays`, in place.

    An array must have the element type, shape and strides of its argument; the stride of a
    dimension of at most one element does not matter. Sizes among the arguments are those of the
    arrays. An argument with `gemmir.access = "read"` is not written to. Iterations of
    `gemmir.forall` run in reverse.

    Raises `EvaluationError` (GEM09xx) naming the op at fault; arrays may then be partly written.
    """
    function = _function(module, symbol)
    views = _bind(function, arrays)
    hopper = (*TMA_OPS, *WARPGROUP_OPS)
    frame = Frame(MEANINGS, watched=any(isinstance(op, hopper) for op in function.walk()))
    with np.errstate(all="ignore"):
        frame.run(function.body.block, views)
        _end(frame, function)
    for op in frame.heap.values():
        raise error_in(op, FaultError("GEM0905", f"{len(frame.heap)} buffers are never freed"))


def _end(frame: Frame, function: func.FuncOp) -> None:
    kernel = frame.fibers.current
    try:
        kernel.end()
        kernel.block.end(kernel.clock)
    except FaultError as fault:
        raise error_in(function, fault) from None


def _function(module: ModuleOp, symbol: str | None) -> func.FuncOp:
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    if symbol is None and len(functions) > 1:
        functions = {name: function for name, function in functions.items() if _is_public(function)}
    if symbol is None and len(functions) != 1:
        raise EvaluationError(
            "GEM0901", f"the module has {len(functions)} functions", "give the symbol of one"
        )
    name = next(iter(functions)) if symbol is None else symbol
    if name not in functions:
        known = ", ".join(functions) or "none"
        raise EvaluationError("GEM0901", f"there is no function {name!r}", f"known: {known}")
    function = functions[name]
    if function.is_declaration or function.function_type.outputs.data:
        raise error_in(function, FaultError("GEM0901", "the function has no body, or has results"))
    return function


def _is_public(function: func.FuncOp) -> bool:
    return function.sym_visibility is None or function.sym_visibility.data == "public"


def _call(frame: Frame, op: func.CallOp) -> Step:
    """Another function of the module, on the same values."""
    module = next(o for o in enclosing_ops(op) if isinstance(o, ModuleOp))
    name = op.callee.root_reference.data
    called = [o for o in module.ops if isinstance(o, func.FuncOp) and o.sym_name.data == name]
    if not called or called[0].is_declaration or op.results:
        raise FaultError("GEM0903", f"@{name} is no function here, or has results")
    body = called[0].body.block

    def step(*values: Any) -> Sequence[Any]:
        return frame.run(body, values)

    return step


MEANINGS: Final[Meanings] = {
    **arith.MEANINGS,
    **math.MEANINGS,
    **memref.MEANINGS,
    **vector.MEANINGS,
    **scf.MEANINGS,
    **gemmir.MEANINGS,
    **amx.MEANINGS,
    **nvgpu.MEANINGS,
    **grid.MEANINGS,
    **warpgroup.MEANINGS,
    **pallas.MEANINGS,
    func.CallOp: _call,
}
"""What every op inside a function means."""


def _bind(function: func.FuncOp, arrays: Sequence[Array]) -> list[View | int]:
    """A view for each array, and behind them the sizes that the arrays have."""
    whole = function.body.block.args
    arguments = [argument for argument in whole if not isinstance(argument.type, IndexType)]
    if len(arguments) != len(arrays):
        raise error_in(
            function, FaultError("GEM0902", f"{len(arrays)} arrays for {len(arguments)} arguments")
        )
    views: list[View] = []
    for i, (argument, array) in enumerate(zip(arguments, arrays, strict=True)):
        attributes = _attributes(function, i)
        try:
            read_only = attributes.get("gemmir.access") == StringAttr("read")
            views.append(_view(array, memref_of(argument), read_only=read_only))
        except FaultError as fault:
            name = attributes.get("gemmir.name")
            shown = f" ({name.data})" if isinstance(name, StringAttr) else ""
            where = f"argument {i}{shown}: {fault.message}"
            raise error_in(function, FaultError("GEM0902", where)) from None
    if len(arguments) == len(whole):
        return [*views]
    try:
        return [*views, *_sizes(function, arrays)]
    except (VerifyException, DisagreementError) as error:
        raise error_in(function, FaultError("GEM0902", str(error))) from None


def _sizes(function: func.FuncOp, arrays: Sequence[Array]) -> Sequence[int]:
    """The sizes that `function` takes behind its arrays, as `arrays` have them."""
    names: list[str] = []
    stated: list[Layout] = []
    for i, argument in enumerate(function.body.block.args):
        attributes = _attributes(function, i)
        if isinstance(argument.type, IndexType):
            name = attributes.get("gemmir.name")
            names.append(name.data if isinstance(name, StringAttr) else "")
        else:
            stated.append(layout_of(memref_of(argument), attributes))
    found = [
        Layout(
            name=own.name,
            shape=array.shape,
            strides=tuple([s // array.itemsize for s in array.strides]),
        )
        for own, array in zip(stated, arrays, strict=True)
    ]
    return list(sizes_of(names, stated, found).values())


def _attributes(function: func.FuncOp, i: int) -> Mapping[str, Attribute]:
    if function.arg_attrs is None:
        return {}
    return function.arg_attrs.data[i].data


def _view(array: Array, of: MemRefType[Attribute], *, read_only: bool) -> View:
    """A view of the memory of `array`; faults where it is not what the type `of` says.

    Elements of 4 bits, which are only read, are taken out of their bytes.
    """
    if of.element_type == INT4 and array.dtype == np.uint8 and read_only:
        array = unpacked(array)
    if array.dtype != dtype_of(of) or not _has_shape(array, of):
        found = "x".join(map(str, (*array.shape, array.dtype)))
        raise FaultError("GEM0902", f"the array is {found}, not {of}")
    strides = tuple([s // array.itemsize for s in array.strides])
    whole = all(s % array.itemsize == 0 for s in array.strides)
    if not whole or not same_strides(array.shape, strides, strides_of(of, array.shape)):
        raise FaultError("GEM0902", f"byte strides {list(array.strides)} are not those of {of}")
    strides = tuple([s if n > 1 else 0 for n, s in zip(array.shape, strides, strict=True)])
    memory = _memory(array, span(array.shape, strides))
    if read_only:
        memory.flags.writeable = False
    view = strided_view(Buffer(memory), 0, array.shape, strides)
    require_type(view, of)
    return view


def unpacked(packed: Array) -> Array:
    """What `packed` has two of in a byte, in memory that lies as its own does."""
    strides = (*(2 * s for s in packed.strides[:-1]), packed.strides[-1])
    shape = (*packed.shape[:-1], 2 * packed.shape[-1])
    halves = unpack_int4(_memory(packed, span(packed.shape, packed.strides)))
    return restrided(halves, shape, strides)


def _has_shape(array: Array, of: MemRefType[Attribute]) -> bool:
    stated = of.get_shape()
    return len(stated) == array.ndim and all(
        extent in (size, DYNAMIC_INDEX) for size, extent in zip(array.shape, stated, strict=True)
    )


def _memory(array: Array, elements: int) -> Array:
    """The memory of `array` from its first element to its last, gaps included, as one dimension."""
    if elements == 0:
        return np.empty(0, array.dtype)
    return restrided(array, (elements,), (array.itemsize,))
