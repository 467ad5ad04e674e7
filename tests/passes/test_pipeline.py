"""pipeline: copies of the next slices run beside the products of this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from gemmir import Gemm
from gemmir.errors import ScheduleError
from gemmir.evaluate import EvaluationError, evaluate
from gemmir.ir.dialect import BarrierOp, PackOp, is_shared, memref_type
from gemmir.ir.nvgpu import AsyncCreateGroupOp, AsyncWaitOp
from tests.strategies import arrays_for

After = Callable[[Gemm, str], ModuleOp]
Kind = TypeVar("Kind", bound=Operation)

UNITS = "tile{loops=m,n sizes=32,16 over=blocks},tile{loops=m,n sizes=16,8 over=warps},"
C = "promote{operand=c to=registers},"
SLICES = "tile{loops=k sizes=16},"
A = "promote{operand=a to=shared layout=swizzle:32},"
B = "promote{operand=b to=shared layout=swizzle:32},"
THREE = "pipeline{loop=k stages=3}"
MMA = ",vectorize{with=mma width=8}"
SHARED = f"{UNITS}{C}{SLICES}{A}{B}"


def bf16(m: int, n: int, k: int, **fields: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, dtype="bf16", **fields)


def ops(module: ModuleOp, kind: type[Kind]) -> list[Kind]:
    return [op for op in module.walk() if isinstance(op, kind)]


def test_each_iteration_waits_once_and_begins_the_copy_of_a_later_slice(after: After) -> None:
    module = after(bf16(32, 16, 64), f"{SHARED}{THREE}")
    (loop,) = (op for op in ops(module, scf.ForOp) if op.iter_args)
    kinds = [AsyncWaitOp, BarrierOp, scf.IfOp, AsyncCreateGroupOp]
    assert [type(op) for op in loop.body.block.ops if type(op) in kinds] == kinds
    (wait,) = ops(module, AsyncWaitOp)
    assert wait.groups.value.data == 1
    assert len(ops(module, BarrierOp)) == 1


def test_a_block_that_comes_to_the_loop_again_waits_before_it_copies(after: After) -> None:
    """Its threads may still read the last slice of the tile before."""
    again = SHARED.replace(
        "tile{loops=m,n sizes=16,8", "persist{blocks=2},tile{loops=m,n sizes=16,8"
    )
    module = after(bf16(96, 16, 64), f"{again}{THREE}")
    (loop,) = (op for op in ops(module, scf.ForOp) if op.iter_args)
    block = loop.parent_block()
    assert block is not None
    kinds = [BarrierOp, AsyncCreateGroupOp, scf.ForOp]
    found = [type(op) for op in block.ops if type(op) in kinds]
    assert found == [BarrierOp, AsyncCreateGroupOp, AsyncCreateGroupOp, scf.ForOp]


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_buffer_has_its_stages_one_behind_the_other(after: After, stages: int) -> None:
    module = after(bf16(32, 16, 64), f"{SHARED}pipeline{{loop=k stages={stages}}}")
    buffers = [op.memref for op in ops(module, memref.AllocaOp) if is_shared(op.memref)]
    shapes = sorted(memref_type(buffer).get_shape() for buffer in buffers)
    assert shapes == sorted([(32 * stages, 16), (16 * stages, 16)])
    begun = [op for op in ops(module, PackOp) if op.asynchronous is not None]
    assert len(begun) == len(ops(module, PackOp)) == 2 * stages


@pytest.mark.parametrize("k", [1, 16, 17, 33, 70])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_meaning_where_there_are_fewer_slices_than_stages(
    after: After, k: int, stages: int
) -> None:
    after(bf16(19, 11, k, lda=k + k % 2, ldb=12), f"{SHARED}pipeline{{loop=k stages={stages}}}")


@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
def test_meaning_of_transposed_operands(after: After, trans: tuple[bool, bool]) -> None:
    a, b = trans
    gemm = bf16(34, 18, 40, trans_a=a, trans_b=b, alpha=2.0, beta=1.0, epilogue="bias+relu")
    after(gemm, f"{SHARED}{THREE},fuse-epilogue{MMA}")


def test_meaning_of_threads_with_panels(after: After) -> None:
    gemm = Gemm(m=21, n=18, k=20)
    after(
        gemm,
        "tile{loops=m,n sizes=16,16 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
        "promote{operand=c to=registers},tile{loops=k sizes=8},"
        "promote{operand=b to=shared layout=panel:16},pipeline{loop=k stages=2},"
        "vectorize{with=fma width=2},unroll{loop=k factor=4}",
    )


def test_the_order_of_sums_does_not_change(after: After) -> None:
    """Numbers whose sums are not exact come out to the same bits."""
    gemm = bf16(20, 12, 50)
    results: list[bytes] = []
    for schedule in (SHARED[:-1], f"{SHARED}{THREE}"):
        module, arrays = after(gemm, f"{schedule}{MMA}"), arrays_for(gemm, seed=3)
        evaluate(module, list(arrays.values()))
        results.append(arrays["c"].tobytes())
    assert results[0] == results[1]


def test_a_copy_that_is_not_waited_for_has_not_landed(after: After) -> None:
    gemm = bf16(32, 16, 64)
    module = after(gemm, f"{SHARED}{THREE}{MMA}")
    (wait,) = ops(module, AsyncWaitOp)
    wait.detach()
    wait.erase()
    arrays = arrays_for(gemm)
    evaluate(module, list(arrays.values()))
    assert (arrays["c"] != arrays["c"]).all()


def test_a_copy_that_belongs_to_no_group_is_a_fault(after: After) -> None:
    gemm = bf16(32, 16, 64)
    module = after(gemm, f"{SHARED}{THREE}{MMA}")
    for group in ops(module, AsyncCreateGroupOp):
        group.detach()
        group.erase()
    with pytest.raises(EvaluationError, match=r"GEM0911: .*belong to no group"):
        evaluate(module, list(arrays_for(gemm).values()))


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        (f"{SHARED}pipeline{{loop=k stages=2 with=rdma}}", "GEM0392", "use cp.async"),
        (f"{SHARED}pipeline{{loop=k stages=1}}", "GEM0393", "use 2 or more"),
        (f"{SHARED}pipeline{{loop=m stages=2}}", "GEM0394", "no loop over m copies"),
        (f"{UNITS}{C}{SLICES}{THREE}", "GEM0394", "then promote.*, then pipeline"),
        (f"{UNITS}{C}{A}{THREE}", "GEM0394", "use tile.loops=k"),
        (f"{SHARED}{THREE},{THREE}", "GEM0395", "give one pipeline"),
        (f"{SHARED}{THREE}{MMA},{THREE}", "GEM0301", "put pipeline before vectorize"),
    ],
)
def test_errors(after: After, schedule: str, code: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words) as found:
        after(bf16(32, 16, 64), schedule)
    assert found.value.code == code
