"""The problem of a gemm-level module, recovered from its IR: the other direction of `build`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from xdsl.dialects import memref
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StridedLayoutAttr,
)
from xdsl.ir import Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from gemmir.epilogue_steps import EPILOGUE_STEPS, STEP_OPERANDS
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.arguments import size_arguments
from gemmir.ir.build import epilogue_body, packed_strides
from gemmir.ir.dialect import (
    EpilogueOp,
    GemmOp,
    Number,
    accumulator_type,
    enclosing_ops,
    memref_type,
    product_name,
    static_strides,
    strides_of,
)
from gemmir.ir.index import Extent, enclosing_function
from gemmir.ir.loops import GROUP, dimension_of
from gemmir.ir.views import cast_strides, sizes_of
from gemmir.sizes import ANY, Unknown

FUNCTIONS: Final = tuple(step for step in EPILOGUE_STEPS if step not in STEP_OPERANDS)
"""Steps of an epilogue without operands."""


def problem_of(module: ModuleOp) -> Gemm:
    """The problem of a gemm-level module, to choose a schedule by and to count flops.

    m, n, k, batch, groups, the types, alpha and beta are those of the `gemmir.gemm`. Transposition,
    leading dimensions and batch strides follow from the strides of its operands; strides that
    `Gemm` cannot express, such as a transposed C, are left at their defaults. Of an epilogue that
    does not compute as `build` makes it, only the operands are found, as `bias`, `residual` or
    `scale` (`says_epilogue`). What is an argument of the function, or is loaded from one, is `ANY`.

    Raises `ParseError` GEM0204 where the module has not exactly one `gemmir.gemm`, or that is on
    parts of arrays.
    """
    products = [op for op in module.walk() if isinstance(op, GemmOp)]
    if len(products) != 1:
        raise ParseError("GEM0204", f"the module has {len(products)} gemmir.gemm; expected one")
    (op,) = products
    is_grouped = any(dimension_of(o) == GROUP for o in enclosing_ops(op))
    values = [_of_all_groups(v) if is_grouped else v for v in (op.a, op.b, op.c)]
    a, b, c = (_stored(op, value) for value in values)
    *batch, m, k = _layout(values[0])[0]
    masked = is_grouped and bool(batch)
    element, of_b, out = (memref_type(v).element_type for v in (op.a, op.b, op.c))
    depth = None if op.depth is None else op.depth.value.data
    return Gemm(
        m=m,
        n=_layout(op.b)[0][-1],
        k=k,
        groups=memref_type(values[1]).get_shape()[0] if is_grouped else None,
        masked=masked,
        dtype=product_name(element, op.precision),
        out=None if out == accumulator_type(element) else product_name(out),
        alpha=op.alpha.value.data if op.alpha_value is None else ANY,
        beta=op.beta.value.data if op.beta_value is None else ANY,
        trans_a=a.transposed,
        trans_b=b.transposed,
        lda=a.leading,
        ldb=b.leading,
        ldc=None if c.transposed else c.leading,
        batch=batch[0] if batch and not masked else None,
        batch_stride_a=a.batch_stride,
        batch_stride_b=b.batch_stride,
        batch_stride_c=None if c.transposed else c.batch_stride or None,
        scale_block=depth if of_b == element else None,
        dtype_b=None if of_b == element else product_name(of_b),
        weight_group=None if of_b == element else depth,
        epilogue="+".join(_steps(module)),
    )


def says_epilogue(gemm: Gemm, module: ModuleOp) -> bool:
    """Whether the steps of `gemm`, which `problem_of` found, are all that epilogues compute."""
    epilogues = _epilogues(module)
    return not epilogues if not gemm.steps else _steps_of(epilogues) == gemm.steps


def _of_all_groups(value: SSAValue) -> SSAValue:
    """The array of all products that the operand of one is a part of."""
    if not isinstance(value.owner, memref.SubviewOp):
        raise ParseError("GEM0204", "the operands of one product in a loop are no parts of arrays")
    return value.owner.source


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """How a matrix is stored, as `Gemm` says it; None is the default."""

    transposed: bool = False
    leading: int | None = None
    batch_stride: int | None = None


def _stored(op: GemmOp, value: SSAValue) -> _Stored:
    if op.first is not None:
        raise ParseError(
            "GEM0204", f"the gemmir.gemm on {memref_type(value)} is not at the gemm level"
        )
    shape, strides = _layout(value)
    *batch, rows, columns = shape
    *outer, down, across = strides
    transposed = not _is_row_major(down, across, columns) and _is_row_major(across, down, rows)
    if transposed:
        rows, columns, down, across = columns, rows, across, down
    shared = _Stored(transposed=transposed, batch_stride=0 if batch and outer == [0] else None)
    if not _is_row_major(down, across, columns):
        return shared
    stored = replace(shared, leading=None if down == (columns or 1) else down)
    if batch and outer[0] > rows * down:
        return replace(stored, batch_stride=outer[0])
    return stored


def _is_row_major(down: int, across: int, columns: int) -> bool:
    if isinstance(down, Unknown):
        return across == 1
    if isinstance(columns, Unknown):  # no number is known to be that far apart
        return False
    return across == 1 and down >= max(columns, 1)


def _layout(value: SSAValue) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape and strides of an operand; sizes that are arguments of the function are unknown."""
    kind, cast = memref_type(value), value.owner
    if _is_static(kind):
        return kind.get_shape(), _strides_of(kind)
    if not isinstance(cast, memref.ReinterpretCastOp):
        raise ParseError("GEM0204", f"the gemmir.gemm on {kind} is not at the gemm level")
    names = {size: name for name, size in size_arguments(enclosing_function(cast)).items()}

    def number(extent: Extent) -> int:
        if isinstance(extent, int):
            return extent
        if extent not in names:
            raise ParseError("GEM0204", f"the gemmir.gemm on {kind} is of a part of an array")
        return Unknown(names[extent])

    shape, strides = (tuple(map(number, n)) for n in (sizes_of(cast), cast_strides(cast)))
    return shape, strides


def _is_static(kind: MemRefType[Number]) -> bool:
    """Whether all sizes and leading dimensions are known."""
    if DYNAMIC_INDEX in kind.get_shape():
        return False
    return not isinstance(kind.layout, StridedLayoutAttr) or None not in kind.layout.get_strides()


def _strides_of(kind: MemRefType[Number]) -> tuple[int, ...]:
    if isinstance(kind.layout, NoneAttr):
        return packed_strides(kind.get_shape())
    try:
        return static_strides(kind)
    except VerifyException as error:
        raise ParseError("GEM0204", f"not at the gemm level: {error}") from error


def _epilogues(module: ModuleOp) -> list[EpilogueOp]:
    return [op for op in module.walk() if isinstance(op, EpilogueOp)]


def _steps(module: ModuleOp) -> tuple[str, ...]:
    """The steps of the epilogue, or, where it computes something else, its operands alone."""
    epilogues = _epilogues(module)
    found = _steps_of(epilogues)
    return tuple(_operand_steps(epilogues)) if found is None else found


def _steps_of(epilogues: Sequence[EpilogueOp]) -> tuple[str, ...] | None:
    """The steps that compute the same as the only epilogue, by the same ops; None without any."""
    if len(epilogues) != 1:
        return () if not epilogues else None
    (op,) = epilogues
    with_operands = _operand_steps(epilogues)
    if sum(len(STEP_OPERANDS[step]) for step in with_operands) != len(op.inputs):
        return None
    return _continued(op, with_operands, ())


def _continued(
    op: EpilogueOp, with_operands: Sequence[str], steps: tuple[str, ...]
) -> tuple[str, ...] | None:
    """`steps`, which the ops of `op` may begin with, and those that follow until its end."""
    body = epilogue_body(steps, op.inputs, op.output)
    if not with_operands and op.body.is_structurally_equivalent(body):
        return steps
    begun, whole = _names(body), _names(op.body)
    if len(begun) >= len(whole) or whole[: len(begun)] != begun:
        return None
    for step in (*with_operands[:1], *FUNCTIONS):
        left = with_operands[1:] if step in with_operands[:1] else with_operands
        found = _continued(op, left, (*steps, step))
        if found is not None:
            return found
    return None


def _names(body: Region) -> list[str]:
    """The names of the ops before those that give the result back."""
    return [op.name for op in body.block.ops if op.name not in ("arith.truncf", "gemmir.yield")]


def _operand_steps(epilogues: Sequence[EpilogueOp]) -> list[str]:
    """The steps that have operands, in order."""
    found: list[str] = []
    for op in epilogues:
        for value in op.inputs:
            kind = memref_type(value)
            *outer, across = _strides_of(kind) if _is_static(kind) else strides_of(kind)
            step = "residual" if any(s != 0 for s in outer) else "bias" if across else "scale"
            if step not in found:
                found.append(step)
    return found
