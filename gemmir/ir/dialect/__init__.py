"""The `gemmir` dialect: what a GEMM needs and upstream dialects, as xDSL has them, cannot say.

| op                    | file    | level              | meaning                                   |
|-----------------------|---------|--------------------|-------------------------------------------|
| `gemmir.gemm`         | gemm    | gemm to promoted   | C = alpha * A @ B + beta * C              |
| `gemmir.epilogue`     | gemm    | gemm to promoted   | an elementwise function of tiles          |
| `gemmir.forall`       | loops   | tiled and below    | iterations that run on other units        |
| `gemmir.yield`        | loops   | all                | the end of an epilogue or of such a loop  |
| `gemmir.barrier`      | loops   | promoted and below | all threads of a block have come this far |
| `gemmir.visits`       | visits  | tiled and below    | which tile of rows is whose, of products  |
| `gemmir.pack`         | memory  | promoted           | copy into panels, zero-filled at the edge |
| `gemmir.unpack`       | memory  | promoted           | copy a piece of C out of shared memory    |
| `gemmir.unsigned`     | memory  | promoted           | a view of bytes with 128 added            |
| `gemmir.prefetch`     | memory  | promoted and below | bring a tile near, with no effect         |
| `gemmir.columnsum`    | sums    | promoted           | sums of the columns of panels             |
| `gemmir.rowsum`       | sums    | promoted           | sums of rows                              |
| `gemmir.extend`       | vectors | vectorized         | integers in a wider type, or as floats    |
| `gemmir.unsign`       | vectors | vectorized         | bytes with 128 added, without a sign      |
| `gemmir.column`       | vectors | vectorized         | a column of what was read as a block      |
| `gemmir.deal`         | vectors | vectorized         | lanes of vectors dealt to others in turn  |
| `gemmir.outerproduct` | vectors | vectorized         | acc + lhs @ rhs of a few columns and rows |
| `gemmir.pairproduct`  | vectors | vectorized         | acc + lhs * rhs of pairs of rows          |
| `gemmir.lanesum`      | vectors | vectorized         | the sum of the lanes of each row          |

What is asked of the types of their operands is in elements and memrefs.
"""

from __future__ import annotations

from xdsl.ir import Dialect

from gemmir.ir.attributes import PanelAttr, PrecisionAttr, SpaceAttr, SwizzleAttr
from gemmir.ir.dialect.elements import (
    SIGN_TAKEN,
    Number,
    accumulator_type,
    dot_depth,
    is_unsigned,
    is_widening,
    product_name,
    require_factors,
    require_product,
    summed_type,
    summed_types,
)
from gemmir.ir.dialect.gemm import EpilogueOp, GemmOp
from gemmir.ir.dialect.loops import (
    BLOCKS,
    BLOCKS_PER_SM,
    CLUSTERS,
    CORES,
    GRID,
    INSIDE_BLOCK,
    MAPPINGS,
    THREADS,
    WARPGROUPS,
    WARPS,
    BarrierOp,
    ForallOp,
    YieldOp,
    enclosing_ops,
)
from gemmir.ir.dialect.memory import PackOp, PrefetchOp, UnpackOp, UnsignedOp
from gemmir.ir.dialect.memrefs import in_rows, is_shared, memref_type, static_strides, strides_of
from gemmir.ir.dialect.sums import ColumnSumOp, RowSumOp
from gemmir.ir.dialect.vectors import (
    ColumnOp,
    DealOp,
    ExtendOp,
    LaneSumOp,
    OuterProductOp,
    PairProductOp,
    UnsignOp,
)
from gemmir.ir.dialect.visits import Visit, VisitsOp, most_visits

GEMMIR = Dialect(
    "gemmir",
    [
        BarrierOp,
        ColumnOp,
        ColumnSumOp,
        DealOp,
        EpilogueOp,
        ExtendOp,
        ForallOp,
        GemmOp,
        LaneSumOp,
        OuterProductOp,
        PackOp,
        PairProductOp,
        PrefetchOp,
        RowSumOp,
        UnpackOp,
        UnsignOp,
        UnsignedOp,
        VisitsOp,
        YieldOp,
    ],
    [PanelAttr, PrecisionAttr, SpaceAttr, SwizzleAttr],
)

__all__ = [
    "BLOCKS",
    "BLOCKS_PER_SM",
    "CLUSTERS",
    "CORES",
    "GEMMIR",
    "GRID",
    "INSIDE_BLOCK",
    "MAPPINGS",
    "SIGN_TAKEN",
    "THREADS",
    "WARPGROUPS",
    "WARPS",
    "BarrierOp",
    "ColumnOp",
    "ColumnSumOp",
    "DealOp",
    "EpilogueOp",
    "ExtendOp",
    "ForallOp",
    "GemmOp",
    "LaneSumOp",
    "Number",
    "OuterProductOp",
    "PackOp",
    "PairProductOp",
    "PrefetchOp",
    "RowSumOp",
    "UnpackOp",
    "UnsignOp",
    "UnsignedOp",
    "Visit",
    "VisitsOp",
    "YieldOp",
    "accumulator_type",
    "dot_depth",
    "enclosing_ops",
    "in_rows",
    "is_shared",
    "is_unsigned",
    "is_widening",
    "memref_type",
    "most_visits",
    "product_name",
    "require_factors",
    "require_product",
    "static_strides",
    "strides_of",
    "summed_type",
    "summed_types",
]
