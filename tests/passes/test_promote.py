"""promote: packed copies of A and B, and C in registers."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from xdsl.dialects import func, memref, scf
from xdsl.dialects.builtin import ModuleOp

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import EpilogueOp, ForallOp, PackOp, PrefetchOp, memref_type
from gemmir.ir.loops import gemms

After = Callable[[Gemm, str], ModuleOp]

SMALL = Gemm(m=7, n=9, k=5)
A = "promote{operand=a to=l2 layout=panel:3}"
B = "promote{operand=b to=l3 layout=panel:4}"
C = "promote{operand=c to=registers}"


def buffers(module: ModuleOp) -> list[memref.AllocOp]:
    return [op for op in module.walk() if isinstance(op, memref.AllocOp)]


@pytest.mark.parametrize(
    "gemm",
    [
        SMALL,
        Gemm(m=7, n=9, k=5, trans_a=True, trans_b=True, lda=8, ldb=6, ldc=11),
        Gemm(m=7, n=9, k=5, alpha=2, beta=3),
        Gemm(m=7, n=9, k=5, alpha=2, beta=1),
        Gemm(m=1, n=1, k=1),
        Gemm(m=7, n=9, k=0),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "schedule",
    [
        A,
        B,
        C,
        f"{A},{B},{C}",
        f"tile{{loops=m,n sizes=4,5}},{B},{A},{C}",
        f"{B},tile{{loops=n sizes=4}},{A},tile{{loops=m sizes=3}},{C}",
        f"tile{{loops=m sizes=4 over=cores}},{B},{A},tile{{loops=m,n sizes=3,4}},{C}",
    ],
)
def test_the_meaning_stays(after: After, gemm: Gemm, schedule: str) -> None:
    after(gemm, schedule)


@pytest.mark.parametrize("beta", [0, 1, 3])
def test_slices_of_k_are_packed_and_added(after: After, beta: float) -> None:
    gemm = Gemm(m=7, n=9, k=5, alpha=2, beta=beta)
    after(gemm, f"tile{{loops=k sizes=2}},{B},{A},tile{{loops=m,n sizes=3,4}},{C}")


def test_a_packed_buffer_holds_whole_panels(after: After) -> None:
    (buffer,) = buffers(after(SMALL, A))
    made = memref_type(buffer.memref)
    assert made.get_shape() == (9, 5)
    assert made.layout == PanelAttr(0, 3, 15)
    assert made.memory_space == SpaceAttr(Space.L2)
    (other,) = buffers(after(SMALL, B))
    assert memref_type(other.memref).get_shape() == (5, 12)
    assert memref_type(other.memref).layout == PanelAttr(1, 4, 20)


def test_the_buffer_of_a_tile_has_the_size_of_the_largest(after: After) -> None:
    (buffer,) = buffers(after(SMALL, f"tile{{loops=m,k sizes=4,2}},{A}"))
    assert memref_type(buffer.memref).get_shape() == (6, 2)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "i8", "u8"])
@pytest.mark.parametrize("trans", [False, True])
def test_panels_of_a_wider_type_hold_the_same_numbers(
    after: After, dtype: str, *, trans: bool
) -> None:
    gemm = replace(SMALL, dtype=dtype, trans_a=trans, trans_b=trans)
    wider = "i16" if gemm.accumulator.is_integer else "f32"
    converted = [p.replace("}", f" as={wider}}}") for p in (A, B)]
    module = after(gemm, f"tile{{loops=m,n sizes=3,4}},{','.join(converted)},{C}")
    made = {str(memref_type(buffer.memref).element_type) for buffer in buffers(module)}
    assert made == {wider}
    after(gemm, f"{','.join(converted)},{C}")


def test_one_operand_may_be_wider_than_the_other(after: After) -> None:
    """Between the two passes A is bf16 and B f32, and C is rounded to bf16 as before."""
    module = after(replace(SMALL, dtype="bf16", out="bf16"), B.replace("}", " as=f32}"))
    (product,) = gemms(module)
    kinds = [str(memref_type(v).element_type) for v in (product.a, product.b, product.c)]
    assert kinds == ["bf16", "f32", "bf16"]
    assert str(product.summed) == "f32"


def test_a_buffer_is_made_once_and_freed_at_the_end(after: After) -> None:
    module = after(SMALL, f"tile{{loops=m,n sizes=3,4}},{A}")
    (buffer,) = buffers(module)
    frees = [op for op in module.walk() if isinstance(op, memref.DeallocOp)]
    assert [type(op.parent_op()) for op in (buffer, *frees)] == [func.FuncOp, func.FuncOp]
    (pack,) = (op for op in module.walk() if isinstance(op, PackOp))
    assert isinstance(pack.parent_op(), scf.ForOp)


def test_inside_a_loop_over_cores_the_buffer_is_private(after: After) -> None:
    module = after(SMALL, f"tile{{loops=m sizes=3 over=cores}},tile{{loops=n sizes=4}},{A}")
    (buffer,) = buffers(module)
    assert isinstance(buffer.parent_op(), ForallOp)


def test_the_copy_stands_where_the_pass_stands_among_the_tiles(after: After) -> None:
    def depth(schedule: str) -> int:
        (pack,) = (op for op in after(SMALL, schedule).walk() if isinstance(op, PackOp))
        parents = 0
        op = pack.parent_op()
        while op is not None:
            parents += isinstance(op, scf.ForOp)
            op = op.parent_op()
        return parents

    tiles = "tile{loops=m sizes=3}"
    assert [depth(f"{A},{tiles}"), depth(f"{tiles},{A}")] == [0, 1]


def test_the_accumulator_has_its_full_size_and_the_product_no_factors(after: After) -> None:
    gemm = Gemm(m=7, n=9, k=5, alpha=2, beta=3)
    module = after(gemm, f"tile{{loops=m sizes=4}},{C}")
    (acc,) = (op for op in module.walk() if isinstance(op, memref.AllocaOp))
    assert memref_type(acc.memref).get_shape() == (4, 9)
    (inner,) = gemms(module)
    assert (inner.alpha.value.data, inner.beta.value.data) == (1, 0)


def test_beta_is_applied_on_the_first_slice_only(after: After) -> None:
    """Two write-backs: with beta where `first` holds, adding where it does not."""
    gemm = Gemm(m=7, n=9, k=5, beta=3)
    module = after(gemm, f"tile{{loops=k sizes=2}},{C}")
    parents = [op.parent_op() for op in module.walk() if isinstance(op, EpilogueOp)]
    assert len(parents) == 2
    assert parents[0] is parents[1]
    assert isinstance(parents[0], scf.IfOp)


def test_the_old_c_is_not_read_without_beta(after: After) -> None:
    (write_back,) = (op for op in after(SMALL, C).walk() if isinstance(op, EpilogueOp))
    assert not write_back.body.block.args[-1].uses


def test_prefetch_asks_for_c_before_the_product(after: After) -> None:
    module = after(SMALL, "promote{operand=c to=registers prefetch=true}")
    ops = [type(op).__name__ for op in module.walk()]
    assert ops.index(PrefetchOp.__name__) < ops.index("GemmOp")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("operand=a to=l2 layout=panel:3", "operand=b to=l2 layout=panel:3"),
        ("operand=a to=l2 layout=panel:3", "operand=a to=l1 layout=panel:3"),
        ("operand=a to=l2 layout=panel:3", "operand=a to=l2 layout=panel:2"),
        ("operand=c to=registers", "operand=c to=registers prefetch=true"),
    ],
)
def test_every_parameter_changes_the_ir(after: After, one: str, other: str) -> None:
    assert str(after(SMALL, f"promote{{{one}}}")) != str(after(SMALL, f"promote{{{other}}}"))


BATCH = Gemm(m=4, n=4, k=4, batch=2)


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, "promote{operand=a to=registers}", "GEM0330", "use one of l1, l2, l3"),
        (SMALL, "promote{operand=a to=smem layout=panel:4}", "GEM0330", "'smem'"),
        (SMALL, "promote{operand=a to=l2}", "GEM0331", "use panel:WIDTH"),
        (SMALL, "promote{operand=b to=l2 layout=panel:0}", "GEM0331", "panel:0"),
        (SMALL, "promote{operand=b to=l2 layout=swizzle:128}", "GEM0331", "swizzle:128"),
        (SMALL, f"{A},{A}", "GEM0332", "operand a is packed already"),
        (BATCH, A, "GEM0333", "tile batch by 1 first"),
        (BATCH, C, "GEM0333", "tile batch by 1 first"),
        (SMALL, "promote{operand=c to=l2}", "GEM0331", "layout=None of c"),
        (SMALL, "promote{operand=c to=registers layout=panel:4}", "GEM0334", "no layout"),
        (SMALL, f"{C},{C}", "GEM0335", "in registers already"),
        (SMALL, "promote{operand=d to=l2}", "GEM0336", "use a, b or c"),
        (SMALL, "promote{operand=a to=l2 layout=panel:3 prefetch=true}", "GEM0337", "operand=c"),
        (
            SMALL,
            f"{A},tile{{loops=m sizes=4}}",
            "GEM0329",
            "m by 4 would begin tiles inside panels of 3; tile m by 3",
        ),
        (
            SMALL,
            f"{A},tile{{loops=m sizes=6}}",
            "GEM0310",
            "a tile of 6 along m does not lie in one",
        ),
        (SMALL, f"{B},tile{{loops=n sizes=5}}", "GEM0329", "n by 5 would begin"),
    ],
)
def test_errors(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code


ON_GRID = "tile{loops=m,n sizes=4,5 over=grid}"
TO_VMEM = {name: f"promote{{operand={name} to=vmem}}" for name in "abc"}


def vmem_types(module: ModuleOp) -> dict[str, str]:
    """What is allocated in vmem, by name."""
    allocas = [op for op in module.walk() if isinstance(op, memref.AllocaOp)]
    return {str(op.memref.name_hint): str(op.memref.type) for op in allocas}


@pytest.mark.parametrize(
    "gemm",
    [
        SMALL,
        Gemm(m=7, n=9, k=5, trans_a=True, trans_b=True, alpha=2, beta=3),
        Gemm(m=7, n=9, k=0, beta=2),
        Gemm(m=8, n=10, k=5, dtype="bf16", epilogue="bias+relu"),
    ],
    ids=str,
)
@pytest.mark.parametrize("slices", ["", "tile{loops=k sizes=2},"])
def test_blocks_in_vmem_keep_the_meaning(after: After, gemm: Gemm, slices: str) -> None:
    if gemm.k or not slices:
        a, b, c = TO_VMEM.values()
        after(gemm, f"{ON_GRID},{c},{slices}{a},{b}")
        after(gemm, f"{b},{ON_GRID},{slices}{a},{c}")


def test_a_block_in_vmem_lies_as_its_source_does(after: After) -> None:
    plain = vmem_types(after(SMALL, f"{ON_GRID},{TO_VMEM['a']},{TO_VMEM['b']}"))
    assert plain == {
        "a_block": "memref<4x5xf32, #gemmir.space<vmem>>",
        "b_block": "memref<5x5xf32, #gemmir.space<vmem>>",
    }
    gemm = Gemm(m=7, n=9, k=3, trans_a=True, trans_b=True)
    transposed = vmem_types(after(gemm, f"{ON_GRID},{TO_VMEM['a']},{TO_VMEM['b']}"))
    assert transposed == {
        "a_block": "memref<4x3xf32, strided<[1, 4]>, #gemmir.space<vmem>>",
        "b_block": "memref<3x5xf32, strided<[1, 3]>, #gemmir.space<vmem>>",
    }


@pytest.mark.parametrize(("dtype", "summed"), [("bf16", "f32"), ("i8", "i32"), ("f32", "f32")])
def test_the_accumulator_in_vmem_has_the_type_of_the_sum(
    after: After, dtype: str, summed: str
) -> None:
    made = vmem_types(after(Gemm(m=7, n=9, k=5, dtype=dtype), f"{ON_GRID},{TO_VMEM['c']}"))
    assert made == {"acc": f"memref<4x5x{summed}, #gemmir.space<vmem>>"}


@pytest.mark.parametrize(
    ("gemm", "schedule", "code", "words"),
    [
        (SMALL, "promote{operand=a to=vmem layout=panel:4}", "GEM0353", "leave layout out"),
        (SMALL, f"{TO_VMEM['a']},{TO_VMEM['a']}", "GEM0332", "packed already"),
        (BATCH, TO_VMEM["b"], "GEM0333", "tile batch by 1 first"),
        (BATCH, TO_VMEM["c"], "GEM0333", "tile batch by 1 first"),
        (SMALL, "promote{operand=c to=vmem layout=panel:4}", "GEM0334", "with no layout"),
        (SMALL, f"{TO_VMEM['c']},{TO_VMEM['c']}", "GEM0335", "in vmem already"),
        (SMALL, f"{C},{TO_VMEM['c']}", "GEM0335", "in registers already"),
        (SMALL, "promote{operand=c to=vmem prefetch=true}", "GEM0337", "is for registers"),
        (SMALL, "promote{operand=a to=vmem prefetch=true}", "GEM0337", "operand=c"),
    ],
)
def test_errors_in_vmem(after: After, gemm: Gemm, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(gemm, schedule)
    assert found.value.code == code
