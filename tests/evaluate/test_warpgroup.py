"""The ops of warpgroups one by one: what they do, and what may not be done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import EvaluationError
from gemmir.evaluate.products import rounded_to_tf32

Array = npt.NDArray[Any]
Run = Callable[..., None]

CONSTANTS: Final = """
%0 = arith.constant 0 : index
%1 = arith.constant 1 : index
%2 = arith.constant 2 : index
%8 = arith.constant 8 : index
%16 = arith.constant 16 : index
%64 = arith.constant 64 : index
%minus = arith.constant -3 : index
%i0 = arith.constant 0 : i32
%i1 = arith.constant 1 : i32
%i2 = arith.constant 2 : i32
%pad = arith.constant 0.0 : f32
"""

TILE: Final = "memref<8x32xf32, #gemmir.swizzle<1, 32, 256, 4>, #gemmir.space<shared>>"
WINDOW: Final = "memref<8x32xf32, strided<[40, 1]>>"
MATRIX: Final = "memref<20x40xf32>"
BARRIERS: Final = "memref<1xi64, #gemmir.space<shared>>"

SPECIALIZED: Final = """
%tile = memref.alloca() : {TILE}
%map = nvgpu.tma.create.descriptor %m : {MATRIX} -> !nvgpu.tensormap<{TILE}>
%full = nvgpu.mbarrier.create arrivals 1 : i64 : {BARRIERS}
gemmir.barrier
nvgpu.warp_specialize warpgroups 1 : i64 registers 40 : i64, 232 : i64 producer {{
  {producer}
  gemmir.yield
}} consumers {{
^bb0(%w: index):
  {consumer}
  gemmir.yield
}}
"""

EXPECT: Final = f"nvgpu.mbarrier.arrive.expect_tx %full[%i0] bytes 1024 : i64 : {BARRIERS}"
WAIT: Final = f"nvgpu.mbarrier.wait %full[%i0] parity %i0 : {BARRIERS}"


def _load(i: str, j: str) -> str:
    return (
        f"nvgpu.tma.async.load %map[%{i}, %{j}], %full[%i0] to %tile"
        f" : !nvgpu.tensormap<{TILE}>, {BARRIERS} to {TILE}"
    )


def _store(i: str, j: str) -> str:
    return f"nvgpu.tma.async.store %tile to %map[%{i}, %{j}] : {TILE} to !nvgpu.tensormap<{TILE}>"


FINISH: Final = "nvgpu.tma.store_wait groups 0 : i64"
FENCE: Final = "nvgpu.fence.proxy"
MEET: Final = "nvgpu.warpgroup.barrier"


def _fill(number: float) -> str:
    return f"""
      %v{int(number)} = arith.constant dense<{number}> : vector<8x32xf32>
      vector.transfer_write %v{int(number)}, %tile[%0, %0] {{in_bounds = [true, true]}}
        : vector<8x32xf32>, {TILE}
    """


def _roles(producer: str, consumer: str) -> str:
    whole = SPECIALIZED.format(
        TILE=TILE, MATRIX=MATRIX, BARRIERS=BARRIERS, producer=producer, consumer=consumer
    )
    return CONSTANTS + whole


def _iota(*shape: int) -> Array:
    return 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def _fails(run: Run, code: str, message: str, producer: str, consumer: str) -> None:
    with pytest.raises(EvaluationError, match=f"{code}: .*{message}") as caught:
        run(f"%m: {MATRIX}", _roles(producer, consumer), _iota(20, 40))
    assert "\n" not in caught.value.message


READ: Final = f"""
  %v = vector.transfer_read %tile[%0, %0], %pad {{in_bounds = [true, true]}}
    : {TILE}, vector<8x32xf32>
  vector.transfer_write %v, %out[%0, %0] {{in_bounds = [true, true]}}
    : vector<8x32xf32>, memref<8x32xf32>
"""


@pytest.mark.parametrize(
    ("i", "j"), [("8", "8"), ("0", "0"), ("16", "16"), ("minus", "minus"), ("64", "0")]
)
def test_outside_a_tensor_there_are_zeros(run: Run, i: str, j: str) -> None:
    m, out = _iota(20, 40), np.full((8, 32), np.nan, np.float32)
    text = _roles(f"{EXPECT}\n{_load(i, j)}", f"{WAIT}\n{READ}")
    run(f"%m: {MATRIX}, %out: memref<8x32xf32>", text, m, out)
    at = {"8": 8, "0": 0, "16": 16, "64": 64, "minus": -3}
    padded = np.zeros((200, 200), np.float32)
    padded[50:70, 50:90] = m
    top, left = 50 + at[i], 50 + at[j]
    np.testing.assert_array_equal(out, padded[top : top + 8, left : left + 32])


def test_a_load_may_be_begun_before_its_bytes_are_expected(run: Run) -> None:
    m, out = _iota(20, 40), np.full((8, 32), np.nan, np.float32)
    text = _roles(f"{_load('0', '0')}\n{EXPECT}", f"{WAIT}\n{READ}")
    run(f"%m: {MATRIX}, %out: memref<8x32xf32>", text, m, out)
    np.testing.assert_array_equal(out, m[:8, :32])


def test_threads_see_what_a_load_brings_only_after_a_wait(run: Run) -> None:
    read = "%v = memref.load %tile[%0, %0] : " + TILE
    load = f"{EXPECT}\n{_load('0', '0')}"
    _fails(run, "GEM0925", "memref.load .*read what loads of %full.0. .*: 1 elements", load, read)


@pytest.mark.parametrize(
    ("i", "j"), [("8", "8"), ("0", "0"), ("16", "16"), ("minus", "minus"), ("64", "0")]
)
def test_what_is_outside_a_tensor_is_not_stored(run: Run, i: str, j: str) -> None:
    m = _iota(20, 40)
    expected = np.zeros((200, 200), np.float32)
    expected[50:70, 50:90] = m
    at = {"8": 8, "0": 0, "16": 16, "64": 64, "minus": -3}
    top, left = 50 + at[i], 50 + at[j]
    expected[top : top + 8, left : left + 32] = 7
    stored = "\n".join([_fill(7), FENCE, MEET, _store(i, j), FINISH])
    run(f"%m: {MATRIX}", _roles("", stored), m)
    np.testing.assert_array_equal(m, expected[50:70, 50:90])


def test_room_of_a_store_is_used_again(run: Run) -> None:
    m = _iota(20, 40)
    steps = [_fill(7), FENCE, MEET, _store("0", "0"), FINISH, MEET]
    steps += [_fill(5), FENCE, MEET, _store("8", "0"), FINISH]
    run(f"%m: {MATRIX}", _roles("", "\n".join(steps)), m)
    np.testing.assert_array_equal(m[:16, :32], np.repeat([7, 5], 8)[:, None] + np.zeros((16, 32)))


def test_a_store_reads_as_late_as_it_may(run: Run) -> None:
    """What another store must not see: between it and its wait the matrix is as before."""
    m, out = _iota(20, 40), np.full((8, 32), np.nan, np.float32)
    look = f"""
      %v = vector.transfer_read %m[%0, %0], %pad {{in_bounds = [true, true]}}
        : {MATRIX}, vector<8x32xf32>
      vector.transfer_write %v, %out[%0, %0] {{in_bounds = [true, true]}}
        : vector<8x32xf32>, memref<8x32xf32>
    """
    steps = [_fill(7), FENCE, MEET, _store("0", "0"), look, FINISH]
    run(f"%m: {MATRIX}, %out: memref<8x32xf32>", _roles("", "\n".join(steps)), m, out)
    np.testing.assert_array_equal(out, _iota(20, 40)[:8, :32])
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 7))


STORE: Final = _store("0", "0")


@pytest.mark.parametrize(
    ("steps", "code", "message"),
    [
        ([_fill(7), STORE, FINISH], "GEM0926", "stores of .*read what .*consumer 0 wrote: no nvgp"),
        ([_fill(7), MEET, STORE, FINISH], "GEM0926", ""),
        ([_fill(7), FENCE, STORE, FINISH], "GEM0926", ""),
        ([_fill(7), MEET, FENCE, STORE, FINISH], "GEM0926", ""),
        ([_fill(7), FENCE, MEET, _fill(5), STORE, FINISH], "GEM0926", ""),
        ([_fill(7), FENCE, MEET, STORE], "GEM0928", "1 stores of .*consumer 0 are never waited"),
        ([_fill(7), FENCE, MEET, STORE, STORE, "nvgpu.tma.store_wait groups 1 : i64"],
         "GEM0928", "1 stores"),
        ([_fill(7), FENCE, MEET, STORE, _fill(5)], "GEM0925", "consumer 0 write what stores of"),
        ([_fill(7), FENCE, MEET, STORE, FINISH, _fill(5)], "GEM0925", "write what stores of"),
        ([_fill(7), FENCE, MEET, STORE, STORE, "nvgpu.tma.store_wait groups 1 : i64", MEET,
          _fill(5)], "GEM0925", "write what stores of"),
    ],
)  # fmt: skip
def test_stores_that_are_wrong(run: Run, steps: list[str], code: str, message: str) -> None:
    _fails(run, code, message, "", "\n".join(steps))


def test_one_thread_needs_no_barrier_of_its_warpgroup(run: Run) -> None:
    m = _iota(20, 40)
    steps = [_fill(7), FENCE, STORE, FINISH, _fill(5), FENCE, STORE, FINISH]
    run(f"%m: {MATRIX}", _roles("\n".join(steps), ""), m)
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 5))


def test_a_load_over_what_threads_wrote_needs_a_fence(run: Run) -> None:
    wrong = [_fill(7), EXPECT, _load("0", "0")]
    _fails(run, "GEM0926", "write over what .*the producer wrote", "\n".join(wrong), WAIT)
    right = [_fill(7), FENCE, EXPECT, _load("0", "0")]
    run(f"%m: {MATRIX}", _roles("\n".join(right), WAIT), _iota(20, 40))


def test_other_threads_wait_before_they_write(run: Run) -> None:
    _fails(run, "GEM0925", "consumer 0 write what .*the producer write: 256", _fill(5), _fill(7))


def test_an_arrival_tells_what_a_role_did(run: Run) -> None:
    m = _iota(20, 40)
    arrive = f"nvgpu.mbarrier.arrive %full[%i0] : {BARRIERS}"
    consumer = [WAIT, _fill(7), FENCE, MEET, STORE, FINISH]
    run(f"%m: {MATRIX}", _roles(f"{_fill(5)}\n{arrive}", "\n".join(consumer)), m)
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 7))


@pytest.mark.parametrize(
    ("producer", "consumer", "code", "message"),
    [
        (MEET, "", "GEM0927", "the producer is one thread, not a warpgroup"),

        (f"nvgpu.mbarrier.wait %full[%i0] parity %i2 : {BARRIERS}", "", "GEM0930", "parity 2 is"),
        (f"nvgpu.mbarrier.wait %full[%i1] parity %i1 : {BARRIERS}", "", "GEM0904", "barrier 1 of"),
        (f"nvgpu.mbarrier.arrive %full[%i0] : {BARRIERS}\n{WAIT}",
         f"nvgpu.mbarrier.arrive %full[%i0] : {BARRIERS}", "GEM0922", "4 more arrivals, but phase"),
        (f"%no = memref.alloca() : {BARRIERS}\nnvgpu.mbarrier.arrive %no[%i0] : {BARRIERS}", "",
         "GEM0924", "no barriers of .* were created there"),
        (f"{EXPECT}\n{_load('0', '0')}", "", "GEM0928", "1 loads are still to land"),
        (EXPECT, "", "GEM0923", "the grid ends, but phase 0 of %full.0. .* and 1024 bytes"),
        ("nvgpu.cluster.barrier", "", "GEM0910", "only .*the producer comes to nvgpu.cluster"),
    ],
)  # fmt: skip
def test_roles_that_are_wrong(
    run: Run, producer: str, consumer: str, code: str, message: str
) -> None:
    text = f"""
      gemmir.forall %b = %0 to %1 step %1 over blocks {{
        {_roles(producer, consumer).replace(CONSTANTS, "")}
      }}
    """
    with pytest.raises(EvaluationError, match=f"{code}: .*{message.replace('grid', 'block')}"):
        run(f"%m: {MATRIX}", CONSTANTS + text, _iota(20, 40))


ARRIVE: Final = f"nvgpu.mbarrier.arrive %full[%i0] : {BARRIERS}"


def test_an_arrival_tells_of_a_fence(run: Run) -> None:
    """So one thread of another warpgroup may store what a warpgroup wrote."""
    m = _iota(20, 40)
    consumer = "\n".join([_fill(7), FENCE, ARRIVE])
    text = _roles(f"{WAIT}\n{STORE}\n{FINISH}", consumer).replace("arrivals 1", "arrivals 4")
    run(f"%m: {MATRIX}", text, m)
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 7))
    with pytest.raises(EvaluationError, match="GEM0926"):
        run(f"%m: {MATRIX}", text.replace(FENCE, ""), m)


def test_an_arrival_does_not_tell_what_comes_later(run: Run) -> None:
    producer = f"{ARRIVE}\n{_fill(5)}"
    consumer = f"{WAIT}\n{_fill(7)}"
    _fails(run, "GEM0925", "consumer 0 write what .*the producer write", producer, consumer)


def test_roles_are_not_divided_again(run: Run) -> None:
    again = """
      nvgpu.warp_specialize warpgroups 1 : i64 registers 40 : i64, 232 : i64 producer {
        gemmir.yield
      } consumers {
      ^bb0(%x: index):
        gemmir.yield
      }
    """
    _fails(run, "GEM0910", "only .*consumer 0 comes to nvgpu.warp_specialize", "", again)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (f"gemmir.unpack %tile into %window : {TILE} into {WINDOW}", "read what loads of"),
        (f"gemmir.pack %window into %tile : {WINDOW} into {TILE}", "write what loads of"),
        (f"gemmir.epilogue outs(%tile : {TILE}) {{\n^bb0(%x: f32):\ngemmir.yield %pad : f32\n}}",
         "write what loads of"),
        (f"gemmir.epilogue outs(%tile : {TILE}) {{\n^bb0(%x: f32):\ngemmir.yield %x : f32\n}}",
         "read what loads of"),
    ],
)  # fmt: skip
def test_whole_tiles_wait_for_loads_too(run: Run, op: str, message: str) -> None:
    window = f"%window = memref.subview %m[0, 0] [8, 32] [1, 1] : {MATRIX} to {WINDOW}\n"
    _fails(run, "GEM0925", message, f"{EXPECT}\n{_load('0', '0')}", window + op)


WHOLE: Final = f"""
%tile = memref.alloca() : {TILE}
%map = nvgpu.tma.create.descriptor %m : {MATRIX} -> !nvgpu.tensormap<{TILE}>
%full = nvgpu.mbarrier.create arrivals 1 : i64 : {BARRIERS}
"""


def _wrong_alone(run: Run, code: str, message: str, body: str) -> None:
    with pytest.raises(EvaluationError, match=f"{code}: .*{message}"):
        run(f"%m: {MATRIX}", CONSTANTS + body, _iota(20, 40))


def test_a_kernel_ends_with_nothing_under_way(run: Run) -> None:
    store = WHOLE + "\n".join([_fill(7), FENCE, "gemmir.barrier", STORE])
    _wrong_alone(run, "GEM0928", "1 stores of the kernel", store)
    _wrong_alone(run, "GEM0923", "phase 0 of %full", f"{WHOLE}\ngemmir.barrier\n{EXPECT}")


def test_all_threads_of_a_block_need_a_barrier_behind_a_fence(run: Run) -> None:
    body = WHOLE + "\n".join([_fill(7), FENCE, STORE, FINISH])
    _wrong_alone(run, "GEM0926", "", body)
    m = _iota(20, 40)
    right = WHOLE + "\n".join([_fill(7), FENCE, "gemmir.barrier", STORE, FINISH])
    run(f"%m: {MATRIX}", CONSTANTS + right, m)
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 7))


def test_a_barrier_of_the_threads_of_a_team_is_one_of_the_block(run: Run) -> None:
    body = f"""
      {WHOLE}
      {_fill(7)}
      nvgpu.fence.proxy
      gemmir.forall %w = %0 to %2 step %1 over warps {{
        gemmir.barrier
      }}
      {STORE}
      {FINISH}
    """
    m = _iota(20, 40)
    run(f"%m: {MATRIX}", CONSTANTS + body, m)
    np.testing.assert_array_equal(m[:8, :32], np.full((8, 32), 7))


CLUSTER: Final = """
gemmir.forall %c = %0 to %1 step %1 over clusters {{
  gemmir.forall %i = %0 to %2 step %1 over blocks {{
    gemmir.forall %j = %0 to %2 step %1 over blocks {{
      {whole}
      %is_first = arith.cmpi eq, %i, %0 : index
      %is_left = arith.cmpi eq, %j, %0 : index
      %is_one = arith.andi %is_first, %is_left : i1
      nvgpu.cluster.barrier
      {body}
    }}
  }}
}}
"""


def _cluster(body: str) -> str:
    whole = WHOLE.replace("arrivals 1", "arrivals 4") if AFAR in body else WHOLE
    return CLUSTER.format(whole=whole, body=body)


AFAR: Final = f"nvgpu.mbarrier.arrive %full[%i0] cluster 4 : i64 : {BARRIERS}"


def test_blocks_of_a_cluster_are_numbered_as_loops_are_nested(run: Run) -> None:
    """Block 2 is the first of the second row: it alone gets what block 0 copies."""
    body = f"""
      scf.if %is_one {{
        {_load("0", "0").replace("to %tile :", "to %tile multicast 4 : i64 :")}
      }}
      %here = arith.muli %i, %2 : index
      %number = arith.addi %here, %j : index
      %gets = arith.cmpi eq, %number, %2 : index
      scf.if %gets {{
        {EXPECT}
        {WAIT}
        {READ}
      }}
      nvgpu.cluster.barrier
    """
    m, out = _iota(20, 40), np.zeros((8, 32), np.float32)
    run(f"%m: {MATRIX}, %out: memref<8x32xf32>", CONSTANTS + _cluster(body), m, out)
    np.testing.assert_array_equal(out, m[:8, :32])


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (f"scf.if %is_one {{\n{AFAR}\n}}", "GEM0929",
         "block 3 of cluster 0 is over"),
        ("%last = arith.constant true\n%no = arith.xori %is_left, %last : i1\n"
         f"scf.if %no {{\n{AFAR}\n}}", "GEM0929",
         "block 0 of cluster 0 may have ended when block 3 of cluster 0 arrives"),
        ("\n".join([_fill(7), FENCE, "nvgpu.cluster.barrier", STORE]), "GEM0928",
         "1 stores of block . of cluster 0 are never"),
    ],
)  # fmt: skip
def test_blocks_of_a_cluster_that_are_wrong(run: Run, body: str, code: str, message: str) -> None:
    _wrong_alone(run, code, message, _cluster(body))


def test_a_block_copies_to_none_that_has_not_begun(run: Run) -> None:
    body = _load("0", "0").replace("to %tile :", "to %tile multicast 2 : i64 :")
    text = _cluster(body).replace("nvgpu.cluster.barrier", "gemmir.barrier")
    _wrong_alone(run, "GEM0929", "block 1 of cluster 0 has not come so far", text)


FACTOR: Final = "memref<64x32xf32, #gemmir.swizzle<1, 32, 2048, 4>, #gemmir.space<shared>>"
OTHER: Final = "memref<32x8xf32, #gemmir.swizzle<0, 32, 256, 4>, #gemmir.space<shared>>"
SUM: Final = "vector<64x8xf32>"
PRODUCTS: Final = """
%a = memref.alloca() : {FACTOR}
%b = memref.alloca() : {OTHER}
%zero = arith.constant dense<0.0> : {SUM}
%va = vector.transfer_read %m[%0, %0], %pad {{in_bounds = [true, true]}}
  : memref<64x32xf32>, vector<64x32xf32>
%vb = vector.transfer_read %n[%0, %0], %pad {{in_bounds = [true, true]}}
  : memref<32x8xf32>, vector<32x8xf32>
vector.transfer_write %va, %a[%0, %0] {{in_bounds = [true, true]}} : vector<64x32xf32>, {FACTOR}
vector.transfer_write %vb, %b[%0, %0] {{in_bounds = [true, true]}} : vector<32x8xf32>, {OTHER}
{visible}
nvgpu.warp_specialize warpgroups 1 : i64 registers 40 : i64, 232 : i64 producer {{
  gemmir.yield
}} consumers {{
^bb0(%w: index):
  %s = nvgpu.warpgroup.mma %a, %b, %zero precision <tf32>
    : {FACTOR}, {OTHER}, {SUM}
  {then}
  vector.transfer_write %t, %out[%0, %0] {{in_bounds = [true, true]}} : {SUM}, memref<64x8xf32>
  gemmir.yield
}}
"""
VISIBLE: Final = "nvgpu.fence.proxy\ngemmir.barrier"
THEN: Final = f"%t = nvgpu.warpgroup.wait groups 0 : i64 %s : {SUM}"


def _products(run: Run, visible: str, then: str) -> tuple[Array, Array]:
    random = np.random.default_rng(3)
    m, n = (random.uniform(-1, 1, s).astype(np.float32) for s in ((64, 32), (32, 8)))
    out = np.full((64, 8), np.nan, np.float32)
    text = PRODUCTS.format(FACTOR=FACTOR, OTHER=OTHER, SUM=SUM, visible=visible, then=then)
    arguments = "%m: memref<64x32xf32>, %n: memref<32x8xf32>, %out: memref<64x8xf32>"
    run(arguments, CONSTANTS + text, m, n, out)
    return out, rounded_to_tf32(m).astype(np.float64) @ rounded_to_tf32(n)


def test_products_of_tf32_are_rounded(run: Run) -> None:
    out, exact = _products(run, VISIBLE, THEN)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-5)


def test_products_are_added_in_their_order(run: Run) -> None:
    again = f"""
      %u = nvgpu.warpgroup.mma %a, %b, %s precision <tf32>
        : {FACTOR}, {OTHER}, {SUM}
      %v = nvgpu.warpgroup.wait groups 1 : i64 %u : {SUM}
      %t = nvgpu.warpgroup.wait groups 0 : i64 %v : {SUM}
    """
    out, exact = _products(run, VISIBLE, again)
    np.testing.assert_allclose(out, 2 * exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("visible", "then", "code", "message"),
    [
        ("", THEN, "GEM0926", "warpgroup.mma .*products of .* read what the kernel wrote: no"),
        ("gemmir.barrier", THEN, "GEM0926", ""),
        ("nvgpu.fence.proxy", THEN, "GEM0926", ""),
        (VISIBLE, f"%t = arith.addf %s, %s : {SUM}\n{THEN.replace('%t', '%u')}",
         "GEM0921", "arith.addf"),
        (VISIBLE, f"%t = arith.negf %zero : {SUM}", "GEM0928", "1 products of"),
        (VISIBLE, f"%t = nvgpu.warpgroup.wait groups 1 : i64 %zero : {SUM}",
         "GEM0921", "vector.transfer_write"),
        (VISIBLE, f"memref.store %pad, %a[%0, %0] : {FACTOR}\n{THEN}",
         "GEM0925", "memref.store .*write what products of .* read: 1 elements"),
        (VISIBLE, f"{THEN}\nmemref.store %pad, %a[%0, %0] : {FACTOR}",
         "GEM0925", "memref.store .*write what products of .* read: 1 elements"),
        (VISIBLE, f"memref.store %pad, %b[%0, %0] : {OTHER}\n{THEN}",
         "GEM0925", "memref.store .*write what products of .* read: 1 elements"),
    ],
)  # fmt: skip
def test_products_that_are_wrong(
    run: Run, visible: str, then: str, code: str, message: str
) -> None:
    with pytest.raises(EvaluationError, match=f"{code}: .*{message}"):
        _products(run, visible, then)


def test_factors_may_go_when_all_warps_have_waited(run: Run) -> None:
    then = f"{THEN}\n{MEET}\nmemref.store %pad, %a[%0, %0] : {FACTOR}"
    out, exact = _products(run, VISIBLE, then)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-5)


def test_a_finished_sum_stays_one(run: Run) -> None:
    """A loop of no iteration hands on a sum to which nothing was added."""
    none = f"""
      {THEN.replace("%t", "%u")}
      %t = nvgpu.warpgroup.wait groups 0 : i64 %zero : {SUM}
    """
    out, _ = _products(run, VISIBLE, none)
    np.testing.assert_array_equal(out, np.zeros((64, 8)))


def test_a_part_of_a_sum(run: Run) -> None:
    body = """
      %v = vector.transfer_read %m[%0, %0], %pad {in_bounds = [true, true]}
        : memref<128x24xf32>, vector<128x24xf32>
      %s = nvgpu.warpgroup.slice %v row 64 : i64 column 8 : i64
        : vector<128x24xf32> -> vector<64x16xf32>
      vector.transfer_write %s, %out[%0, %0] {in_bounds = [true, true]}
        : vector<64x16xf32>, memref<64x16xf32>
    """
    m, out = _iota(128, 24), np.full((64, 16), np.nan, np.float32)
    run("%m: memref<128x24xf32>, %out: memref<64x16xf32>", CONSTANTS + body, m, out)
    np.testing.assert_array_equal(out, m[64:, 8:])


def test_stages_are_counted_in_i32(run: Run) -> None:
    """extui of a bit and of a negative number, exclusive or, and both ways of an index cast."""
    body = """
      %yes = arith.cmpi eq, %i1, %i1 : i32
      %wide = arith.extui %yes : i1 to i32
      %other = arith.xori %wide, %i1 : i32
      %byte = arith.constant -1 : i8
      %all = arith.extui %byte : i8 to i32
      %eight = arith.index_cast %8 : index to i32
      %chosen = arith.select %yes, %all, %i0 : i32
      memref.store %wide, %m[%0] : memref<64xi32>
      memref.store %other, %m[%1] : memref<64xi32>
      memref.store %chosen, %m[%2] : memref<64xi32>
      %at = arith.index_cast %eight : i32 to index
      memref.store %eight, %m[%at] : memref<64xi32>
    """
    m = np.full(64, 9, np.int32)
    run("%m: memref<64xi32>", CONSTANTS + body, m)
    assert [*m[:3], m[8]] == [1, 0, 255, 8]


def test_a_batch_of_boxes(run: Run) -> None:
    m, out = _iota(3, 8, 32).astype(ml_dtypes.bfloat16), np.zeros((8, 32), ml_dtypes.bfloat16)
    tile = "memref<8x32xbf16, #gemmir.space<shared>>"
    body = f"""
      %tile = memref.alloca() : {tile}
      %map = nvgpu.tma.create.descriptor %m : memref<3x8x32xbf16> -> !nvgpu.tensormap<{tile}>
      %full = nvgpu.mbarrier.create arrivals 1 : i64 : {BARRIERS}
      gemmir.barrier
      nvgpu.mbarrier.arrive.expect_tx %full[%i0] bytes 512 : i64 : {BARRIERS}
      nvgpu.tma.async.load %map[%2, %0, %0], %full[%i0] to %tile
        : !nvgpu.tensormap<{tile}>, {BARRIERS} to {tile}
      nvgpu.mbarrier.wait %full[%i0] parity %i0 : {BARRIERS}
      nvgpu.fence.proxy
      nvgpu.tma.async.store %tile to %map[%0, %0, %0] : {tile} to !nvgpu.tensormap<{tile}>
      nvgpu.tma.store_wait groups 0 : i64
    """
    run("%m: memref<3x8x32xbf16>", CONSTANTS + body, m)
    np.testing.assert_array_equal(m[0], m[2])
    assert out.shape == m[0].shape
