"""pipeline with=dma: the loops over a grid and one over k become the steps of a pallas.call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.ir.dialect import EpilogueOp, ForallOp, GemmOp, PackOp, memref_type
from gemmir.ir.pallas import CallOp

After = Callable[[Gemm, str], ModuleOp]

GRID = "tile{loops=m,n sizes=16,32 over=grid}"
C = "promote{operand=c to=vmem}"
K = "tile{loops=k sizes=16}"
A = "promote{operand=a to=vmem}"
B = "promote{operand=b to=vmem}"
F = "fuse-epilogue"
FULL = f"{GRID},{C},{A},{B}"
SLICED = f"{GRID},{C},{K},{A},{B}"
BY_N = "pipeline{loop=n stages=2 with=dma}"
BY_K = "pipeline{loop=k stages=2 with=dma}"


def bf16(m: int = 40, n: int = 48, k: int = 56, **fields: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, dtype="bf16", **fields)


def call(module: ModuleOp) -> CallOp:
    """The only one that there is."""
    (found,) = (op for op in module.walk() if isinstance(op, CallOp))
    return found


def count(module: ModuleOp, *kinds: type) -> int:
    return sum(isinstance(op, kinds) for op in module.walk())


def blocks(module: ModuleOp) -> dict[str, tuple[tuple[int, ...], str, int]]:
    """Shape, map and buffers of the block of each array, by the name of what is in the body."""
    made = call(module)
    return {
        value.name_hint or "": (block.extents, str(block.map.data), block.buffers.data)
        for value, block in zip(made.references, made.blocks, strict=True)
    }


def test_loops_and_copies_become_a_grid_and_blocks(after: After) -> None:
    module = after(bf16(), f"{FULL},{BY_N}")
    assert count(module, ForallOp, scf.ForOp, PackOp, memref.AllocaOp) == 0
    made = call(module)
    assert made.extents == (3, 2)
    assert [word.data for word in made.semantics] == ["parallel", "parallel"]
    assert blocks(module) == {
        "a_block": ((16, 56), "(d0, d1) -> (d0, 0)", 2),
        "b_block": ((56, 32), "(d0, d1) -> (0, d1)", 2),
        "c_block": ((16, 32), "(d0, d1) -> (d0, d1)", 2),
    }
    (scratch,) = made.scratch
    assert str(scratch.type) == "memref<16x32xf32, #gemmir.space<vmem>>"


def test_the_loop_over_k_is_the_last_dimension_and_sequential(after: After) -> None:
    module = after(bf16(epilogue="bias"), f"{SLICED},{F},{BY_K}")
    made = call(module)
    assert made.extents == (3, 2, 4)
    assert [word.data for word in made.semantics] == ["parallel", "parallel", "arbitrary"]
    assert blocks(module)["a_block"] == ((16, 16), "(d0, d1, d2) -> (d0, d2)", 2)
    (epilogue,) = (op for op in module.walk() if isinstance(op, EpilogueOp))
    assert isinstance(epilogue.parent_op(), scf.IfOp)


def test_one_slice_of_k_needs_no_condition(after: After) -> None:
    module = after(bf16(k=16), f"{SLICED},{BY_K}")
    assert call(module).extents == (3, 2, 1)
    assert count(module, scf.IfOp) == 0


def test_products_take_whole_blocks_at_the_edge(after: After) -> None:
    """Of C only what is in the array is copied back; only along k the last block may be shorter."""
    module = after(bf16(m=40, n=50, k=56), f"{SLICED},{BY_K}")
    (product,) = (op for op in module.walk() if isinstance(op, GemmOp))
    shapes = [memref_type(v).get_shape() for v in (product.a, product.b, product.c)]
    assert shapes == [(16, DYNAMIC_INDEX), (DYNAMIC_INDEX, 32), (16, 32)]


def test_a_batch_is_a_dimension_of_the_grid_and_none_of_the_block(after: After) -> None:
    schedule = f"{FULL},{BY_N}".replace("loops=m,n sizes=", "loops=batch,m,n sizes=1,")
    module = after(bf16(batch=3, batch_stride_b=0), schedule)
    assert call(module).extents == (3, 3, 2)
    assert blocks(module)["a_block"][0] == (1, 16, 56)
    assert [memref_type(v).get_shape() for v in call(module).references] == [
        (16, 56),
        (56, 32),
        (16, 32),
    ]


def test_old_elements_of_c_are_an_input(after: After) -> None:
    made = call(after(bf16(beta=0.5), f"{FULL},{BY_N}"))
    assert made.outputs[0] in made.inputs
    made = call(after(bf16(), f"{FULL},{BY_N}"))
    assert made.outputs[0] not in made.inputs


def test_a_whole_operand_is_a_single_block_of_one_buffer(after: After) -> None:
    module = after(bf16(), f"{A},{GRID.replace('16', '8')},{C},{B},{BY_N}")
    assert blocks(module)["a_block"] == ((40, 56), "(d0, d1) -> (0, 0)", 1)
    assert blocks(module)["b_block"][2] == 2


def test_a_transposed_operand_stays_transposed(after: After) -> None:
    made = call(after(bf16(trans_b=True), f"{FULL},{BY_N}"))
    assert str(made.references[1].type) == (
        "memref<56x32xbf16, strided<[1, 56]>, #gemmir.space<vmem>>"
    )


def test_a_bias_is_the_same_for_all_rows(after: After) -> None:
    made = call(after(bf16(epilogue="bias"), f"{FULL},{F},{BY_N}"))
    assert str(made.references[2].type) == (
        "memref<16x32xf32, strided<[0, 1]>, #gemmir.space<vmem>>"
    )


@pytest.mark.parametrize("order", ["m,n", "n,m"])
def test_the_order_of_loops_is_that_of_the_grid(after: After, order: str) -> None:
    sizes = {"m": "16", "n": "32"}
    cuts = ",".join(sizes[name] for name in order.split(","))
    tile = f"tile{{loops={order} sizes={cuts} over=grid}}"
    last = order[-1]
    module = after(bf16(), f"{tile},{C},{A},{B},pipeline{{loop={last} stages=2 with=dma}}")
    assert call(module).extents == ((3, 2) if order == "m,n" else (2, 3))


@pytest.mark.parametrize("k", [0, 1, 15, 16, 17, 48])
@pytest.mark.parametrize("schedule", [f"{FULL},{BY_N}", f"{SLICED},{BY_K}"])
def test_meaning_for_every_length_of_k(after: After, k: int, schedule: str) -> None:
    if k == 0 and K in schedule:
        return
    after(bf16(k=k, beta=0.5, alpha=2.0), schedule)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (1, 1), (16, 32), (17, 33), (33, 65)])
def test_meaning_at_the_edges(after: After, m: int, n: int) -> None:
    after(bf16(m=m, n=n, epilogue="bias+relu+residual"), f"{SLICED},{F},{BY_K}")


@pytest.mark.parametrize("dtype", ["f32", "bf16x1", "bf16x3", "i8", "e4m3", "e5m2"])
@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
def test_meaning_of_every_type_and_transposition(
    after: After, dtype: str, trans: tuple[bool, bool]
) -> None:
    gemm = Gemm(m=21, n=34, k=30, dtype=dtype, trans_a=trans[0], trans_b=trans[1], beta=1)
    after(gemm, f"{SLICED},{BY_K}")


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{C},{A},{B},{BY_N}", "GEM0354", "use tile"),
        (f"{GRID},{C},{K},tile{{loops=k sizes=8}},{A},{B},{BY_K}", "GEM0355", "over k,k"),
        (f"{FULL},pipeline{{loop=m stages=2 with=dma}}", "GEM0356", "use loop=n"),
        (f"{GRID},{C},{A},{BY_N}", "GEM0357", "b is not in vmem; put promote"),
        (f"{A},{GRID},{C},{B},{BY_N}", "GEM0358", "tile m by a divisor"),
        (f"{FULL},pipeline{{loop=n stages=1 with=dma}}", "GEM0359", "use stages=2"),
        (f"{C},{GRID},{A},{B},{BY_N}", "GEM0391", "c is promoted outside the grid"),
        (f"{GRID},{K},{C},{A},{B},{BY_K}", "GEM0391", "before tile.loops=k"),
        (f"{GRID},{C},{B},{K},{A},{BY_K}", "GEM0391", "b is promoted between the loops"),
        (f"{FULL},{BY_N},{BY_N}", "GEM0354", "no loop runs over one"),
        (f"{FULL},pipeline{{loop=n stages=2 with=rdma}}", "GEM0392", "use cp.async, tma, dma"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(bf16(), schedule)
    assert found.value.code == code


def test_a_step_that_would_write_c_twice_is_refused(after: After) -> None:
    with pytest.raises(ScheduleError, match="fuse-epilogue after promote") as found:
        after(bf16(epilogue="relu"), f"{GRID},{F},{C},{A},{B},{BY_N}")
    assert found.value.code == "GEM0391"
