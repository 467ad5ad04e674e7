"""vectorize: sums in vectors, copies by panels, epilogues on vectors."""

from collections.abc import Callable

import pytest
from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.dialect import EpilogueOp, GemmOp, OuterProductOp, PackOp
from gemmir.ir.loops import dimension_of
from gemmir.ir.nvgpu import AsyncCopyOp, LdMatrixOp, MmaSyncOp

After = Callable[[Gemm, str], ModuleOp]

A = "promote{operand=a to=l2 layout=panel:3}"
B = "promote{operand=b to=l3 layout=panel:8}"
C = "promote{operand=c to=registers}"
V = "vectorize{with=fma width=4}"
PACKED = f"tile{{loops=k sizes=4}},{B},{A},tile{{loops=n,m sizes=8,3}},{C}"

PROBLEMS = [
    Gemm(m=7, n=9, k=5),
    Gemm(m=7, n=9, k=5, alpha=2, beta=3, lda=7, ldb=10, ldc=11, epilogue="bias+relu"),
    Gemm(m=7, n=9, k=5, trans_a=True, trans_b=True, beta=1, epilogue="residual"),
    Gemm(m=6, n=16, k=8, dtype="f64"),
    Gemm(m=3, n=8, k=1, epilogue="bias"),
    Gemm(m=7, n=9, k=5, epilogue="gelu+bias"),
    Gemm(m=20, n=10, k=19, trans_a=True),
]


def count(module: ModuleOp, *kinds: type) -> int:
    return sum(isinstance(op, kinds) for op in module.walk())


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    "schedule",
    [
        f"{C},{V}",
        f"tile{{loops=m,n sizes=3,8}},{C},{V}",
        f"tile{{loops=m,n sizes=3,6}},{C},{V}",
        f"tile{{loops=m,n sizes=2,5}},{C},vectorize{{with=fma width=1}}",
        f"tile{{loops=m,n sizes=3,8 edges=peel}},tile{{loops=k sizes=2}},{C},{V}",
        f"{PACKED},{V}",
        f"tile{{loops=m sizes=6 over=cores}},{PACKED},{V}",
    ],
)
def test_the_meaning_stays(after: After, gemm: Gemm, schedule: str) -> None:
    module = after(gemm, schedule)
    assert count(module, GemmOp, EpilogueOp, PackOp, memref.AllocaOp) == 0


@pytest.mark.parametrize("gemm", [Gemm(m=0, n=4, k=3), Gemm(m=3, n=0, k=3), Gemm(m=3, n=4, k=0)])
def test_nothing_to_sum(after: After, gemm: Gemm) -> None:
    after(gemm, f"{C},{V}")


def test_a_batch_epilogue_runs_on_each_matrix(after: After) -> None:
    gemm = Gemm(m=3, n=5, k=4, batch=2, epilogue="relu+bias+residual")
    module = after(gemm, f"tile{{loops=batch sizes=1}},{C},{V}")
    loops = [dimension_of(op) for op in module.walk() if isinstance(op, scf.ForOp)]
    assert loops == ["batch", "k", "batch", "m", "n"]


def test_one_column_of_a_and_one_row_of_b_for_each_accumulator(after: After) -> None:
    module = after(Gemm(m=3, n=8, k=4), f"{C},{V}")
    (loop,) = (op for op in module.walk() if isinstance(op, scf.ForOp))
    assert [str(v.type) for v in loop.iter_args] == ["vector<3x4xf32>"] * 2
    reads = [op for op in loop.body.block.ops if isinstance(op, vector.TransferReadOp)]
    assert [str(op.result.type) for op in reads] == ["vector<3x1xf32>"] + ["vector<1x4xf32>"] * 2
    assert count(module, OuterProductOp) == 2


def test_full_tiles_are_read_and_written_without_a_mask(after: After) -> None:
    module = after(Gemm(m=6, n=8, k=4), f"tile{{loops=m,n sizes=3,4}},{C},{V}")
    transfers = [
        op for op in module.walk() if isinstance(op, vector.TransferReadOp | vector.TransferWriteOp)
    ]
    assert transfers
    assert all(flag.value.data for op in transfers for flag in op.in_bounds.data)
    assert count(module, scf.IfOp) == 0


def test_only_the_write_back_of_packed_operands_is_clipped(after: After) -> None:
    """Panels are filled up with zeros, so the loop over k needs no mask anywhere."""
    module = after(Gemm(m=7, n=9, k=4), f"{B},{A},tile{{loops=n,m sizes=8,3}},{C},{V}")
    loops = [op for op in module.walk() if isinstance(op, scf.ForOp) and op.iter_args]
    reads = [
        op for loop in loops for op in loop.body.block.ops if isinstance(op, vector.TransferReadOp)
    ]
    assert all(flag.value.data for op in reads for flag in op.in_bounds.data)
    writes = [op for op in module.walk() if isinstance(op, vector.TransferWriteOp)]
    assert not all(flag.value.data for op in writes for flag in op.in_bounds.data)


def test_a_full_and_a_clipped_version_of_the_write_back(after: After) -> None:
    module = after(Gemm(m=7, n=8, k=4), f"tile{{loops=m sizes=3}},{C},{V}")
    (branch,) = (op for op in module.walk() if isinstance(op, scf.IfOp))
    versions = [
        [
            op.in_bounds.data[0].value.data
            for op in block.ops
            if isinstance(op, vector.TransferWriteOp)
        ]
        for region in branch.regions
        for block in region.blocks
    ]
    assert [all(v) for v in versions] == [True, False]
    assert all(versions)


def test_constants_become_vectors_once(after: After) -> None:
    gemm = Gemm(m=3, n=8, k=4, epilogue="relu")
    module = after(gemm, f"{C},fuse-epilogue,{V}")
    vectors = [
        str(op.result.type)
        for op in module.walk()
        if isinstance(op, arith.ConstantOp) and "vector" in str(op.result.type)
    ]
    assert len(vectors) == len(set(vectors)) == 1


def test_a_copy_takes_several_elements_along_the_rows_of_its_source(after: After) -> None:
    module = after(Gemm(m=3, n=8, k=19), f"{A},tile{{loops=n,m sizes=8,3}},{C},{V}")
    shapes = [str(op.vector.type) for op in module.walk() if isinstance(op, vector.TransferWriteOp)]
    assert shapes[:2] == ["vector<3x8xf32>", "vector<3x1xf32>"]


@pytest.mark.parametrize("width", [1, 2, 8])
def test_the_width_changes_the_ir(after: After, width: int) -> None:
    gemm = Gemm(m=3, n=8, k=4)
    other = f"{C},vectorize{{with=fma width={width}}}"
    assert str(after(gemm, f"{C},{V}")) != str(after(gemm, other))


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{C},vectorize{{with=sse width=4}}", "GEM0370", "use fma, dot, amx, mma"),
        (f"{C},vectorize{{with=mma width=4}}", "GEM0375", "no instruction for f32"),
        (f"{C},vectorize{{with=fma width=0}}", "GEM0371", "width=0"),
        (V, "GEM0372", "put promote"),
        (f"tile{{loops=m,n sizes=3,8}},{V}", "GEM0372", "C is not in registers"),
        (f"{A},{C},{V}", "GEM0373", "tile m by 3, or promote with panel:6"),
        (
            f"{B},tile{{loops=n sizes=16}},{C},{V}",
            "GEM0373",
            "tiles of 16 along n read panels of 8",
        ),
        (f"{C},{V},{V}", "GEM0301", "there is no gemmir.gemm"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(Gemm(m=6, n=16, k=4), schedule)
    assert found.value.code == code


WARP = "tile{loops=m,n sizes=32,16 over=blocks},tile{loops=m,n sizes=16,16 over=warps}"
SLICE = "tile{loops=k sizes=16}"
SHARED = (
    "promote{operand=a to=shared layout=swizzle:32},promote{operand=b to=shared layout=swizzle:32}"
)
MMA = "vectorize{with=mma width=8}"


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_warp_multiplies_its_tile_as_a_whole(after: After, dtype: str) -> None:
    module = after(Gemm(m=32, n=16, k=32, dtype=dtype), f"{WARP},{C},{SLICE},{SHARED},{MMA}")
    (product,) = (op for op in module.walk() if isinstance(op, MmaSyncOp))
    assert str(product.acc.type) == "vector<16x16xf32>"
    assert product.instruction == (16, 8, 16)
    fragments = [op.fragment.data for op in module.walk() if isinstance(op, LdMatrixOp)]
    assert fragments == ["a", "b"]


THREAD = "tile{loops=m,n sizes=16,16 over=blocks},tile{loops=m,n sizes=4,4 over=threads}"


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_thread_widens_elements_of_16_bits(after: After, dtype: str) -> None:
    module = after(Gemm(m=17, n=15, k=5, dtype=dtype), f"{THREAD},{C},{V}")
    products = [op for op in module.walk() if isinstance(op, OuterProductOp)]
    assert products
    assert {str(v.type) for op in products for v in (op.lhs, op.rhs)} == {
        "vector<4x1xf32>",
        "vector<1x4xf32>",
    }


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (17, 9, 15), (31, 15, 33), (48, 40, 16)])
def test_tiles_of_tensor_cores_are_rounded_up_and_clipped(
    after: After, m: int, n: int, k: int
) -> None:
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", out="bf16", beta=1.0, epilogue="bias+relu")
    after(gemm, f"{WARP},{C},{SLICE},{SHARED},fuse-epilogue,{MMA}")
    after(gemm, f"{WARP},{C},{SHARED},fuse-epilogue,{MMA}")


def test_no_products_where_k_is_0(after: After) -> None:
    module = after(Gemm(m=32, n=16, k=0, dtype="f16", beta=2.0), f"{WARP},{C},{MMA}")
    assert count(module, MmaSyncOp) == 0


def test_copies_are_as_wide_as_the_rows_allow(after: After) -> None:
    pipelined = f"{WARP},{C},{SLICE},{SHARED},pipeline{{loop=k stages=2}},{MMA}"
    for lda, elements in ((32, 8), (36, 4), (34, 2)):
        module = after(Gemm(m=32, n=16, k=32, dtype="f16", lda=lda), pipelined)
        begun = [op for op in module.walk() if isinstance(op, AsyncCopyOp)]
        assert {op.elements.value.data for op in begun} == {8, elements}


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{WARP},{C},{SHARED},{V}", "GEM0374", "not f16 in f32; use with=mma"),
        (f"{C},{MMA}", "GEM0376", "the tile is one of no unit"),
        (f"{WARP},{C},{MMA}", "GEM0376", "reads a from shared memory"),
        (
            f"{WARP},{C},{SLICE},{SHARED},pipeline{{loop=k stages=2}},{MMA}",
            "GEM0377",
            "of rows of 33 elements of f16 it can move 2",
        ),
    ],
)
def test_errors_of_tensor_cores(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(Gemm(m=32, n=16, k=33, dtype="f16"), schedule)
    assert found.value.code == code
