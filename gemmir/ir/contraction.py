"""What a linalg contraction means: which loop dimension is m, n, k or batch, and how arrays lie.

Everything is decided from the indexing maps, the iterators, the types and the body; what is not
exactly a matrix product is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, cast

from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AffineMapAttr,
    AnyFloat,
    ArrayAttr,
    Float32Type,
    Float64Type,
    MemRefType,
    NoneAttr,
    StridedLayoutAttr,
    StringAttr,
    TensorType,
)
from xdsl.dialects.linalg.attrs import IteratorTypeAttr
from xdsl.ir import Attribute, Block, Operation
from xdsl.ir.affine import AffineDimExpr, AffineMap

from gemmir.ir.build import packed_strides
from gemmir.ir.linalg_syntax import (
    PARALLEL,
    REDUCTION,
    ContractOp,
    GenericOp,
    StructuredOp,
    YieldOp,
)

# Attributes of an operation that say nothing of what it computes.
_REMARKS: Final = frozenset({"doc", "linalg.memoized_indexing_maps"})


class RefusedError(Exception):
    """The text is IR, but `op` is nothing that gemmir can take on; `reason` says why."""

    def __init__(self, op: Operation, reason: str) -> None:
        super().__init__(f"{op.name}: {reason}")
        self.op = op


def refuse(op: Operation, reason: str) -> NoReturn:
    """Raise `RefusedError`."""
    raise RefusedError(op, reason)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an array lies: shape, and strides in elements."""

    element: AnyFloat
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def layout_of(op: Operation, what: str, kind: Attribute) -> Layout:
    """The layout of a memref or tensor type; refuses what is dynamic, and other element types.

    `op` and `what` name the value in the message.
    """
    if not isinstance(kind, MemRefType | TensorType):
        refuse(op, f"{what} is {kind}, which is neither a memref nor a tensor")
    array = cast("MemRefType[Attribute] | TensorType[Attribute]", kind)
    element = array.element_type
    if not isinstance(element, Float32Type | Float64Type):
        refuse(op, f"{what} has elements of {element}; only f32 and f64 are supported")
    shape = array.get_shape()
    if DYNAMIC_INDEX in shape:
        refuse(op, f"{what} is {kind}, whose shape is dynamic; sizes must be known")
    strides = packed_strides(shape)
    if isinstance(array, TensorType):
        if not isinstance(array.encoding, NoneAttr):
            refuse(op, f"{what} is {kind}, whose encoding is not supported")
        return Layout(element=element, shape=shape, strides=strides)
    if not isinstance(array.memory_space, NoneAttr):
        refuse(op, f"{what} is {kind}; arrays of the caller have no memory space")
    if not isinstance(array.layout, NoneAttr):
        strides = _explicit_strides(op, what, array)
    return Layout(element=element, shape=shape, strides=strides)


def _explicit_strides(op: Operation, what: str, kind: MemRefType[Attribute]) -> tuple[int, ...]:
    layout = kind.layout
    if not isinstance(layout, StridedLayoutAttr):
        refuse(op, f"{what} is {kind}, whose layout is not strided")
    if layout.get_offset() != 0:
        refuse(op, f"{what} is {kind}; the offset must be 0")
    strides = tuple(s for s in layout.get_strides() if s is not None)
    if len(strides) != len(layout.get_strides()):
        refuse(op, f"{what} is {kind}, whose strides are dynamic; they must be known")
    if len(strides) != len(kind.get_shape()):
        refuse(op, f"{what} is {kind}, whose rank is not the number of its strides")
    if min(strides, default=0) < 0:
        refuse(op, f"{what} is {kind}, whose strides are negative")
    return strides


@dataclass(frozen=True, kw_only=True)
class View:
    """An operand as a product reads it: shape and strides of (batch,) rows, columns."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Contraction:
    """`out += lhs @ rhs` on views of the operands; `swapped` where lhs is the second input.

    `order` says for each dimension of `out` which dimension of the output operand it is.
    """

    swapped: bool
    order: tuple[int, ...]
    lhs: View
    rhs: View
    out: View
    element: AnyFloat


def contraction_of(op: StructuredOp) -> Contraction:
    """The matrix product that `op` spells; raises `RefusedError` where it is not exactly one."""
    if len(op.inputs) != 2 or len(op.outputs) != 1:
        refuse(op, f"has {len(op.inputs)} inputs and {len(op.outputs)} outputs; expected 2 and 1")
    require_known_attributes(op)
    _require_multiply_add(op)
    maps = _dimensions(op)
    layouts = [
        layout_of(op, f"operand {i}", value.type) for i, value in enumerate(op.operands, start=1)
    ]
    if len({layout.element for layout in layouts}) > 1:
        found = ", ".join(str(layout.element) for layout in layouts)
        refuse(op, f"mixed precision ({found}) is not supported")
    if len({isinstance(value.type, MemRefType) for value in op.operands}) > 1:
        refuse(op, "has both memref and tensor operands")
    extents = _extents(op, maps, layouts)
    roles = _roles(op, maps)
    _require_iterators(op, roles)
    return _oriented(op, maps, layouts, extents, roles)


def require_known_attributes(op: StructuredOp) -> None:
    """Refuse an attribute that may change what `op` means."""
    unknown = sorted(set(op.attributes) - _REMARKS)
    if unknown:
        refuse(op, f"attribute {unknown[0]} is not supported")


def _require_multiply_add(op: StructuredOp) -> None:
    if not op.body:
        if isinstance(op, GenericOp):
            refuse(op, "has no body")
        return
    block = op.body[0].block
    for inner in block.ops:
        if not isinstance(inner, arith.MulfOp | arith.AddfOp | YieldOp):
            refuse(inner, f"the body of {op.name} may only have arith.mulf and arith.addf")
    if not _is_multiply_add(block):
        refuse(op, "the body is not out + in1 * in2")


def _is_multiply_add(block: Block) -> bool:
    if len(block.args) != 3 or len(block.ops) != 3:
        return False
    left, right, old = block.args
    multiply, add, end = block.ops
    return (
        isinstance(multiply, arith.MulfOp)
        and isinstance(add, arith.AddfOp)
        and set(multiply.operands) == {left, right}
        and set(add.operands) == {old, multiply.result}
        and tuple(end.operands) == (add.result,)
    )


def _dimensions(op: StructuredOp) -> list[tuple[int, ...]]:
    """For each operand, the loop dimension that runs along each of its own dimensions."""
    maps = op.DEFAULT_MAPS if op.indexing_maps is None else given_maps(op, op.indexing_maps)
    if maps is None:
        refuse(op, "has no indexing_maps")
    if len(maps) != 3:
        refuse(op, f"has {len(maps)} indexing_maps; expected one for each of 3 operands")
    if len({m.num_dims for m in maps}) > 1:
        refuse(op, "its indexing_maps differ in the number of dimensions")
    if op.ITERATORS is not None and maps[0].num_dims != len(op.ITERATORS):
        refuse(op, f"its maps have {maps[0].num_dims} dimensions; expected {len(op.ITERATORS)}")
    found = [_permutation(op, m) for m in maps]
    unused = set(range(maps[0].num_dims)) - {d for dimensions in found for d in dimensions}
    if unused:
        refuse(op, f"no operand uses dimension d{min(unused)}")
    return found


def given_maps(op: StructuredOp, given: ArrayAttr[Attribute]) -> list[AffineMap]:
    """The affine maps of the attribute `given`; refuses anything else in it."""
    maps = [m.data for m in given if isinstance(m, AffineMapAttr)]
    if len(maps) != len(given):
        refuse(op, "indexing_maps must be affine maps")
    return maps


def _permutation(op: Operation, affine: AffineMap) -> tuple[int, ...]:
    found = tuple(e.position for e in affine.results if isinstance(e, AffineDimExpr))
    if affine.num_symbols or len(found) != len(affine.results) or len(set(found)) != len(found):
        refuse(op, f"map {affine} must list distinct dimensions")
    return found


def _extents(
    op: Operation, maps: Sequence[tuple[int, ...]], layouts: Sequence[Layout]
) -> dict[int, int]:
    extents: dict[int, int] = {}
    for i, (dimensions, layout) in enumerate(zip(maps, layouts, strict=True), start=1):
        if len(dimensions) != len(layout.shape):
            refuse(op, f"operand {i} has rank {len(layout.shape)}; its map has {len(dimensions)}")
        for dimension, extent in zip(dimensions, layout.shape, strict=True):
            if extents.setdefault(dimension, extent) != extent:
                refuse(
                    op,
                    f"dimension d{dimension} is {extents[dimension]} in an operand before "
                    f"and {extent} in operand {i}",
                )
    return extents


# Which operands a dimension runs over (first input, second input, output), and what it then is.
_ROLES: Final[Mapping[tuple[bool, bool, bool], str]] = {
    (True, False, True): "m",
    (False, True, True): "n",
    (True, True, False): "k",
    (True, True, True): "batch",
}


def _roles(op: Operation, maps: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The loop dimension that is m, n, k, and batch where there is one.

    Of two dimensions that one input alone shares with the output, the outer one of the output is
    the batch: the other input is the same for all of it.
    """
    found: dict[str, list[int]] = {role: [] for role in _ROLES.values()}
    for dimension in sorted({d for dimensions in maps for d in dimensions}):
        uses = tuple(dimension in dimensions for dimensions in maps)
        if len(uses) != 3 or uses not in _ROLES:
            refuse(op, f"dimension d{dimension} is used by one operand only")
        found[_ROLES[uses]].append(dimension)
    for role in ("m", "n"):
        if len(found[role]) == 2 and not found["batch"]:
            outer, inner = sorted(found[role], key=maps[2].index)
            found[role], found["batch"] = [inner], [outer]
    for role, dimensions in found.items():
        if len(dimensions) > 1 or (not dimensions and role != "batch"):
            names = ", ".join(f"d{d}" for d in dimensions) or "none"
            refuse(op, f"is not one matrix product: the dimensions that act as {role} are {names}")
    return {role: dimensions[0] for role, dimensions in found.items() if dimensions}


def _require_iterators(op: StructuredOp, roles: Mapping[str, int]) -> None:
    if isinstance(op, ContractOp) and op.iterator_types is None:
        return
    given = list(op.ITERATORS or ())
    if op.iterator_types is not None:
        given = [iterator_of(op, attribute) for attribute in op.iterator_types]
    if len(given) != len(roles):
        refuse(op, f"has {len(given)} iterator_types; expected {len(roles)}")
    for role, dimension in roles.items():
        expected = REDUCTION if role == "k" else PARALLEL
        if given[dimension] != expected:
            refuse(op, f"dimension d{dimension} is {given[dimension]}, but acts as {role}")


def iterator_of(op: Operation, attribute: Attribute) -> str:
    """What an iterator type is called, in either of its spellings."""
    if isinstance(attribute, StringAttr):
        return attribute.data
    if isinstance(attribute, IteratorTypeAttr):
        return str(attribute.data.value)
    refuse(op, f"iterator type {attribute} is not known")


def _require_distinct_elements(op: Operation, out: View) -> None:
    span = 1
    for stride, extent in sorted(zip(out.strides, out.shape, strict=True)):
        if 0 not in out.shape and extent > 1 and stride < span:
            refuse(op, f"elements of the output overlap: strides {list(out.strides)}")
        span += max(extent - 1, 0) * stride


def _oriented(
    op: Operation,
    maps: Sequence[tuple[int, ...]],
    layouts: Sequence[Layout],
    extents: Mapping[int, int],
    roles: Mapping[str, int],
) -> Contraction:
    """The product with its factors in the order that makes rows of the output contiguous."""

    batch = [roles["batch"]] if "batch" in roles else []

    def view(operand: int, rows: int, columns: int) -> View:
        wanted = [*batch, rows, columns]
        strides = dict(zip(maps[operand], layouts[operand].strides, strict=True))
        return View(
            shape=tuple(extents[d] for d in wanted),
            strides=tuple(strides.get(d, 0) for d in wanted),
        )

    m, n, k = roles["m"], roles["n"], roles["k"]
    *_, m_stride, n_stride = view(2, m, n).strides
    swapped = m_stride == 1 and n_stride != 1
    if swapped:
        m, n = n, m
    lhs, rhs = (1, 0) if swapped else (0, 1)
    _require_distinct_elements(op, view(2, m, n))
    return Contraction(
        swapped=swapped,
        order=tuple(maps[2].index(dimension) for dimension in (*batch, m, n)),
        lhs=view(lhs, m, k),
        rhs=view(rhs, k, n),
        out=view(2, m, n),
        element=layouts[2].element,
    )
