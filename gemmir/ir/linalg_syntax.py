"""The linalg operations of MLIR text that gemmir can read, as syntax only.

They are parsed, both in their own and in the generic form, and turned into `gemmir.gemm` and
`gemmir.epilogue` by `gemmir.ir.import_mlir`; no pass ever sees them. xDSL's linalg dialect is not
used because it cannot read `indexing_maps` on named operations and lacks most of them.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, Final, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr
from xdsl.dialects.linalg.attrs import IteratorTypeAttr
from xdsl.dialects.tensor import Tensor
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.ir.affine import AffineExpr, AffineMap
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    irdl_op_definition,
    opt_prop_def,
    traits_def,
    var_operand_def,
    var_region_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.traits import IsTerminator

from gemmir.ir.context import make_context

PARALLEL: Final = "parallel"
REDUCTION: Final = "reduction"


class StructuredOp(IRDLOperation, ABC):
    """What every linalg operation is made of: inputs, outputs, maps, iterators and a body.

    `DEFAULT_MAPS` and `ITERATORS` are those of a named operation; None where the text gives them.
    """

    inputs = var_operand_def()
    outputs = var_operand_def()
    res = var_result_def()
    indexing_maps = opt_prop_def(ArrayAttr)
    iterator_types = opt_prop_def(ArrayAttr)
    body = var_region_def("single_block")

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    DEFAULT_MAPS: ClassVar[tuple[AffineMap, ...] | None] = None
    ITERATORS: ClassVar[tuple[str, ...] | None] = None

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        attributes = cls.parse_head(parser)
        inputs = _parse_operands(parser) if parser.parse_optional_keyword("ins") else ()
        parser.parse_keyword("outs")
        outputs = _parse_operands(parser)
        if parser.parse_optional_keyword("attrs"):
            parser.parse_punctuation("=")
            attributes |= parser.parse_optional_attr_dict()
        region = parser.parse_optional_region()
        properties = {
            name: attributes.pop(name)
            for name in ("indexing_maps", "iterator_types")
            if name in attributes
        }
        return cls.build(
            operands=[inputs, outputs],
            result_types=[_parse_result_types(parser)],
            properties=properties,
            attributes=attributes,
            regions=[[] if region is None else [region]],
        )

    @classmethod
    def parse_head(cls, parser: Parser) -> dict[str, Attribute]:
        """What stands before `ins`: `indexing_maps = [..]` and a dictionary, both optional."""
        found: dict[str, Attribute] = {}
        if parser.parse_optional_keyword("indexing_maps"):
            parser.parse_punctuation("=")
            found["indexing_maps"] = parser.parse_attribute()
        found |= parser.parse_optional_properties_dict()
        return found | parser.parse_optional_attr_dict()


def _parse_operands(parser: Parser) -> Sequence[SSAValue]:
    position = parser.pos
    parser.parse_punctuation("(")
    names = parser.parse_comma_separated_list(
        parser.Delimiter.NONE, parser.parse_unresolved_operand
    )
    parser.parse_punctuation(":")
    types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
    parser.parse_punctuation(")")
    return parser.resolve_operands(names, types, position)


def _parse_result_types(parser: Parser) -> Sequence[Attribute]:
    if parser.parse_optional_punctuation("->") is None:
        return ()
    several = parser.parse_optional_comma_separated_list(parser.Delimiter.PAREN, parser.parse_type)
    return [parser.parse_type()] if several is None else several


def _maps(dims: int, *results: tuple[int, ...]) -> tuple[AffineMap, ...]:
    return tuple(
        AffineMap(dims, 0, tuple(AffineExpr.dimension(d) for d in dimensions))
        for dimensions in results
    )


@irdl_op_definition
class MatmulOp(StructuredOp):
    """C += A B."""

    name = "linalg.matmul"
    DEFAULT_MAPS: ClassVar = _maps(3, (0, 2), (2, 1), (0, 1))
    ITERATORS: ClassVar = (PARALLEL, PARALLEL, REDUCTION)


@irdl_op_definition
class MatmulTransposeAOp(StructuredOp):
    """C += A^T B, A stored k x m."""

    name = "linalg.matmul_transpose_a"
    DEFAULT_MAPS: ClassVar = _maps(3, (2, 0), (2, 1), (0, 1))
    ITERATORS: ClassVar = MatmulOp.ITERATORS


@irdl_op_definition
class MatmulTransposeBOp(StructuredOp):
    """C += A B^T, B stored n x k."""

    name = "linalg.matmul_transpose_b"
    DEFAULT_MAPS: ClassVar = _maps(3, (0, 2), (1, 2), (0, 1))
    ITERATORS: ClassVar = MatmulOp.ITERATORS


@irdl_op_definition
class BatchMatmulOp(StructuredOp):
    """C += A B for each of a batch."""

    name = "linalg.batch_matmul"
    DEFAULT_MAPS: ClassVar = _maps(4, (0, 1, 3), (0, 3, 2), (0, 1, 2))
    ITERATORS: ClassVar = (PARALLEL, PARALLEL, PARALLEL, REDUCTION)


@irdl_op_definition
class BatchMatmulTransposeAOp(StructuredOp):
    """C += A^T B for each of a batch, A stored k x m."""

    name = "linalg.batch_matmul_transpose_a"
    DEFAULT_MAPS: ClassVar = _maps(4, (0, 3, 1), (0, 3, 2), (0, 1, 2))
    ITERATORS: ClassVar = BatchMatmulOp.ITERATORS


@irdl_op_definition
class BatchMatmulTransposeBOp(StructuredOp):
    """C += A B^T for each of a batch, B stored n x k."""

    name = "linalg.batch_matmul_transpose_b"
    DEFAULT_MAPS: ClassVar = _maps(4, (0, 1, 3), (0, 2, 3), (0, 1, 2))
    ITERATORS: ClassVar = BatchMatmulOp.ITERATORS


@irdl_op_definition
class ContractOp(StructuredOp):
    """A contraction by its maps alone: a dimension that the output lacks is summed over."""

    name = "linalg.contract"


@irdl_op_definition
class GenericOp(StructuredOp):
    """A contraction, or an elementwise operation, by maps, iterators and a body."""

    name = "linalg.generic"

    @classmethod
    def parse_head(cls, parser: Parser) -> dict[str, Attribute]:
        position = parser.pos
        trait = parser.parse_attribute()
        if not isinstance(trait, DictionaryAttr):
            parser.raise_error(
                "expected a dictionary of indexing_maps and iterator_types", position
            )
        return dict(trait.data)


@irdl_op_definition
class FillOp(StructuredOp):
    """Write one value to every element of the output."""

    name = "linalg.fill"


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Ends the body of a linalg operation."""

    name = "linalg.yield"

    values = var_operand_def()

    assembly_format = "attr-dict ($values^ `:` type($values))?"
    traits = traits_def(IsTerminator())


CONTRACTIONS: Final = (
    MatmulOp,
    MatmulTransposeAOp,
    MatmulTransposeBOp,
    BatchMatmulOp,
    BatchMatmulTransposeAOp,
    BatchMatmulTransposeBOp,
    ContractOp,
    GenericOp,
)

LINALG: Final = Dialect("linalg", [*CONTRACTIONS, FillOp, YieldOp], [IteratorTypeAttr])


def make_import_context() -> Context:
    """A context that reads gemmir's dialects, and beside them linalg and tensor."""
    context = make_context()
    context.register_dialect(LINALG.name, lambda: LINALG)
    context.register_dialect(Tensor.name, lambda: Tensor)
    return context
