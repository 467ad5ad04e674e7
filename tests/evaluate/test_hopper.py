"""Whole kernels of warpgroups, mbarriers and the TMA: right as they are; wrong edits are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import EvaluationError, evaluate
from gemmir.ir.context import parse_module

Array = npt.NDArray[Any]

HERE: Final = Path(__file__).parent / "hopper"
BLOCKS: Final = (HERE / "blocks.mlir").read_text()
CLUSTERS: Final = (HERE / "clusters.mlir").read_text()

BARRIERS: Final = "memref<3xi64, #gemmir.space<shared>>"
WAIT_FULL: Final = f"nvgpu.mbarrier.wait %full[%stage_1] parity %parity_1 : {BARRIERS}"
WAIT_EMPTY: Final = f"nvgpu.mbarrier.wait %empty[%stage] parity %parity : {BARRIERS}"
LAST_WAIT: Final = "%total = nvgpu.warpgroup.wait groups 0 : i64 %ck_3 : vector<64x256xf32>"
LAST_RELEASE: Final = f"nvgpu.mbarrier.arrive %empty[%ck_2] : {BARRIERS}"
RELEASE: Final = f"nvgpu.mbarrier.arrive %empty[%before] : {BARRIERS}"
SUMMED: Final = "%summed = nvgpu.warpgroup.wait groups 1 : i64 %begun : vector<64x256xf32>"
NEXT: Final = "scf.yield %next_1, %other_1, %stage_1, %summed"
CLUSTER_BARRIER: Final = "nvgpu.cluster.barrier\n"


def _factors() -> tuple[Array, Array]:
    random = np.random.default_rng(5)
    a, b = (random.uniform(-1, 1, shape) for shape in ((200, 256), (512, 256)))
    return a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)


def _run(text: str) -> tuple[Array, Array]:
    """C as `text` computes it, and as it should be."""
    a, b = _factors()
    c = np.full((200, 512), np.nan, np.float32)
    evaluate(parse_module(text), [a, b, c])
    return c, a.astype(np.float64) @ b.astype(np.float64).T


def _edited(text: str, *edits: tuple[str, str]) -> str:
    """`text` with the first of each that is to go replaced."""
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize("text", [BLOCKS, CLUSTERS])
def test_a_kernel_is_right(text: str) -> None:
    c, exact = _run(text)
    np.testing.assert_allclose(c, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", [BLOCKS, CLUSTERS])
def test_a_kernel_runs_the_same_every_time(text: str) -> None:
    first, second = (_run(text)[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


WRONG: Final = {
    "a stage is read before its loads have landed": (
        [(WAIT_FULL, "")],
        "GEM0925",
        "warpgroup.mma .*consumer 0 read what loads of %full.0. of block 1 write: 4096 elements",
    ),
    "a stage is filled before it is free": (
        [(WAIT_EMPTY, "")],
        "GEM0922",
        "expect_tx .*1 more arrivals, but phase 0 of %full.0. of block 1 lacks 0 arrivals",
    ),
    "consumers do not wait for the first phase": (
        [("%parity0_1 = %i0", "%parity0_1 = %i1")],
        "GEM0925",
        "warpgroup.mma .*read what loads",
    ),
    "the producer waits for what nobody has filled": (
        [("%parity0 = %i1", "%parity0 = %i0")],
        "GEM0920",
        "mbarrier.wait .*the producer waits for parity 0: phase 0 of %empty.0. of block 1 lacks "
        "8 arrivals; block 1: consumer 0 waits for parity 0: phase 0 of %full.0. of block 1 lacks "
        "1 arrivals; block 1: consumer 1 waits",
    ),
    "the parity does not turn": (
        [(NEXT, NEXT.replace("%other_1", "%parity_1"))],
        "GEM0925",
        "tma.async.load .*write what products of block 1: consumer 0 read",
    ),
    "the bytes of A are not expected": (
        [("bytes 49152", "bytes 32768")],
        "GEM0923",
        "phase 0 of %full.2. of block 1 ends while 16384 bytes are under way",
    ),
    "the bytes of B are not expected": (
        [("bytes 49152", "bytes 16384")],
        "GEM0923",
        "16384 bytes more land than phase 0 of %full.2. of block 1 expects",
    ),
    "no bytes are expected": (
        [("bytes 49152", "bytes 0")],
        "GEM0925",
        "warpgroup.mma .*read what loads",
    ),
    "bytes are expected that nobody loads": (
        [("bytes 49152", "bytes 65536")],
        "GEM0920",
        "phase 0 of %full.0. of block 1 lacks 0 arrivals and 16384 bytes",
    ),
    "a stage is released before the product": (
        [(SUMMED, ""), (NEXT, f"{SUMMED}\n{NEXT}"),
         ("%later = arith.cmpi ne, %p_1, %0 : index", "%later = arith.constant true"),
         ("arrive %empty[%before]", "arrive %empty[%stage_1]"), (LAST_RELEASE, "")],
        "GEM0925",
        "tma.async.load .*write what products of block 1: consumer 0 read: 4096 elements",
    ),
    "more products are under way than stages are kept": (
        [("wait groups 1 ", "wait groups 2 ")],
        "GEM0925",
        "tma.async.load .*write what products",
    ),
    "one of two warpgroups frees a stage": (
        [("arrivals 8", "arrivals 4")],
        "GEM0925",
        "",
    ),
    "more arrivals are awaited than come": (
        [("arrivals 8", "arrivals 16")],
        "GEM0920",
        "phase 0 of %empty.0. of block 1 lacks 8 arrivals",
    ),
    "the last stage is not released": (
        [(LAST_RELEASE, "")],
        "GEM0920",
        "phase 1 of %empty.0. of block 1 lacks 8 arrivals",
    ),
    "the sum is written without a wait": (
        [(LAST_WAIT, ""), ("write %total", "write %ck_3")],
        "GEM0921",
        "vector.transfer_write .*products are still under way",
    ),
    "the last wait leaves a product under way": (
        [("wait groups 0", "wait groups 1")],
        "GEM0921",
        "vector.transfer_write",
    ),
    "barriers are used at once": (
        [("gemmir.barrier\n", "\n")],
        "GEM0924",
        "mbarrier.wait .*no barrier of the block comes after %empty of block 1 was created",
    ),
    "one warpgroup comes to a barrier of the block": (
        [(SUMMED, f"{SUMMED}\ngemmir.barrier")],
        "GEM0910",
        "gemmir.barrier: only block 1: consumer 0 comes",
    ),
    "copies go to blocks that there are not": (
        [("to %as :", "to %as multicast 3 : i64 :")],
        "GEM0929",
        "tma.async.load .*block 1 of a cluster of 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_edits_are_named(name: str) -> None:
    edits, code, message = WRONG[name]
    with pytest.raises(EvaluationError, match=f"{code}: .*{message}"):
        _run(_edited(BLOCKS, *edits))


WRONG_IN_CLUSTERS: Final = {
    "half of B reaches one block": (
        [("multicast 3", "multicast 1")],
        "GEM0920",
        "phase 0 of %full.0. of block 1 of cluster 0 lacks 0 arrivals and 32768 bytes",
    ),
    "half of B reaches a block twice": (
        [("to %as :", "to %as multicast 3 : i64 :")],
        "GEM0925",
        "tma.async.load .*loads of %full.0. of block 0 of cluster 0 write what loads of %full.0.",
    ),
    "a block does not wait for the other to read": (
        [("arrive %empty[%before] cluster 2 : i64 :", "arrive %empty[%before] :")],
        "GEM0920",
        "lacks 8 arrivals",
    ),
    "only blocks of their own free a stage": (
        [("arrivals 16", "arrivals 8"),
         ("arrive %empty[%before] cluster 2 : i64 :", "arrive %empty[%before] :"),
         ("arrive %empty[%ck_2] cluster 2 : i64 :", "arrive %empty[%ck_2] :")],
        "GEM0925",
        "tma.async.load",
    ),
    "arrivals go to more blocks than there are": (
        [("%before] cluster 2", "%before] cluster 4")],
        "GEM0929",
        "mbarrier.arrive .*the cluster has 2 blocks",
    ),
    "copies go to more blocks than there are": (
        [("multicast 3", "multicast 5")],
        "GEM0929",
        "tma.async.load .*block 2 of a cluster of 2",
    ),
    "a block begins before the other has barriers": (
        [(CLUSTER_BARRIER, "gemmir.barrier\n")],
        "GEM0924",
        "tma.async.load .*no barrier of its cluster comes after %full of block 0",
    ),
    "a block ends while the other still arrives there": (
        [("}\n        nvgpu.cluster.barrier\n", "}\n")],
        "GEM0929",
        "",
    ),
    "a block comes to a barrier alone": (
        [(CLUSTER_BARRIER, CLUSTER_BARRIER + "%first = arith.cmpi eq, %rank, %0 : index\n"
                           f"scf.if %first {{\n{CLUSTER_BARRIER}}}\n")],
        "GEM0920",
        "block 0 of cluster 0 waits for nvgpu.cluster.barrier: 1 of 2 blocks came",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_IN_CLUSTERS)
def test_wrong_edits_of_clusters_are_named(name: str) -> None:
    edits, code, message = WRONG_IN_CLUSTERS[name]
    with pytest.raises(EvaluationError, match=f"{code}: .*{message}"):
        _run(_edited(CLUSTERS, *edits))
