"""Blocks that run together: their ranks, barriers, arrivals at each other, and multicast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.hopper import INIT, load, matrix_map, only, run, wait
from tests.backends.ptx.emulator.ptx import Array

MEET = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n"
RANKS = "mov.u32 %r20, %cluster_ctarank;\nxor.b32 %r21, %r20, 1;\n"

SEEDS = (None, 0, 1, 2)


def test_a_block_knows_where_it_is() -> None:
    names = [
        "cluster_ctarank",
        "cluster_nctarank",
        "clusterid.x",
        "nclusterid.x",
        "cluster_ctaid.x",
    ]
    out = np.zeros((6, len(names)), np.uint32)
    text = f"mov.u32 %r1, %ctaid.x;\nmad.wide.u32 %d1, %r1, {4 * len(names)}, %d50;\n"
    for number, name in enumerate(names):
        text += f"mov.u32 %r2, %{name};\nst.global.b32 [%d1+{4 * number}], %r2;\n"
    run(only("eq 0", text, "over"), [], [out], blocks=6, cluster=2)
    assert out.tolist() == [[n % 2, 2, n // 2, 3, n % 2] for n in range(6)]
    run(only("eq 0", text, "over"), [], [out], blocks=6)
    assert out.tolist() == [[0, 1, n, 6, 0] for n in range(6)]


def test_shared_memory_lies_in_the_window_of_its_block() -> None:
    """The block finds its own also without the window, and no other block's."""
    out = np.zeros((4, 3), np.uint32)
    text = """
        mov.u32 %r1, %ctaid.x;
        mad.wide.u32 %d1, %r1, 12, %d50;
        mov.b32 %r2, tile;
        shr.u32 %r3, %r2, 24;
        st.global.b32 [%d1], %r3;
        st.shared.b32 [tile+8], %r1;
        and.b32 %r2, %r2, 0xffffff;
        ld.shared.b32 %r4, [%r2+8];
        st.global.b32 [%d1+4], %r4;
        mov.b64 %d2, tile+8;
        ld.shared.b32 %r5, [%d2];
        st.global.b32 [%d1+8], %r5;
    """
    run(only("eq 0", text, "over"), [], [out], blocks=4, cluster=2)
    assert out.tolist() == [[n % 2, n, n] for n in range(4)]
    other = "mov.u32 %r2, tile;\nxor.b32 %r2, %r2, 0x1000000;\nst.shared.b32 [%r2], 1;\n"
    with pytest.raises(PtxFault, match=r"GEM1002.*0x1000400 lies in another block of the cluster"):
        run(only("eq 0", other, "over"), [], [], blocks=2, cluster=2)


def test_a_descriptor_has_no_window() -> None:
    """Of the other bits, those of the window change the leading offset."""
    sums = "{" + ", ".join(f"%a{n}" for n in range(32)) + "}"
    text = f"""
        mov.b32 %r41, tile;
        mad.lo.u32 %r41, %r50, 16, %r41;
        st.shared.v4.b32 [%r41], {{%r50, %r50, %r50, %r50}};
        fence.proxy.async;
        bar.sync 0;
        mov.b64 %d1, tile;
        MASK
        shr.u64 %d1, %d1, 4;
        or.b64 %d1, %d1, {128 >> 4 << 16 | 256 >> 4 << 32:#x};
        setp.ne.u32 %q, %r50, %r50;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {sums}, %d1, %d1, %q, 1, 1, 0, 0;
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
    """

    def go(mask: str) -> None:
        body = text.replace("MASK", mask)
        run(body, [], [], blocks=2, cluster=2, registers=".reg .b32 %a<32>;")

    go("and.b64 %d1, %d1, 0x3ffff;")
    with pytest.raises(PtxFault, match=r"block \(1, 0, 0\).*it multiplies byte 2176 of tile"):
        go("")


def test_blocks_fill_clusters() -> None:
    with pytest.raises(PtxFault, match=r"GEM1007.*clusters of \(2, 1, 1\)"):
        run("", [], [], blocks=3, cluster=2)


MADE = INIT.format(full=1, empty=1).replace("bar.sync 0;", MEET)
REMOTE = RANKS + "mapa.shared::cluster.u64 %d2, %d1, %r21;\n"
SIGNAL = (
    "mov.b64 %d1, bar;\n"
    + REMOTE
    + "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%d2];\n"
)
SIGNALLED = wait("bar", "0", "w")
NARROW = SIGNAL.replace("b64 %d", "b32 %r").replace("%d", "%r").replace("u64", "u32")
FIRST_ENDS = RANKS + "setp.eq.u32 %p, %r20, 0;\n@%p bra end;\n"
TALK = only("eq 0", SIGNAL, "s")

TALKS: dict[str, tuple[str, str]] = {
    "each signals the other": (MADE + TALK + SIGNALLED, ""),
    "narrow addresses": (
        MADE + only("eq 0", NARROW, "s") + SIGNALLED, "",
    ),
    "a relaxed barrier behind the fence of mbarriers": (
        MADE.replace("arrive.aligned", "arrive.relaxed.aligned") + TALK + SIGNALLED,
        "",
    ),
    "no barrier of the cluster": (
        MADE.replace(MEET, "bar.sync 0;\n") + TALK + SIGNALLED,
        "GEM1003.*which another thread initialises without a barrier|GEM1012.*no mbarrier",
    ),
    "no wait at it": (
        MADE.replace("barrier.cluster.wait.aligned;", "bar.sync 0;") + TALK
        + SIGNALLED,
        "GEM1003.*which another thread initialises without a barrier|GEM1012.*no mbarrier",
    ),
    "no fence of the mbarriers": (
        MADE.replace("fence.mbarrier_init.release.cluster;", "") + TALK + SIGNALLED,
        "GEM1014.*no fence.mbarrier_init follows",
    ),
    "one does not wait": (
        MADE + TALK + FIRST_ENDS + SIGNALLED
        + "end:\n",
        "GEM1016.*(for an arrival of thread 0 of block 1|block 0 of the cluster has ended)",
    ),
    "one does not wait, and meets the other later": (
        MADE + TALK + FIRST_ENDS + SIGNALLED
        + "end:\n" + MEET, "",
    ),
    "one signals itself": (
        MADE + only("eq 0", SIGNAL.replace("%d1, %r21", "%d1, %r20"), "s") + SIGNALLED, "",
    ),
    "one signals twice": (
        MADE + only("eq 0", SIGNAL + SIGNAL, "s") + SIGNALLED,
        "GEM1016.*does not wait for an arrival|GEM1016.*has ended|GEM1011.*in phase 2 0 of 1",
    ),
    "nobody signals": (MADE + SIGNALLED, "GEM1011.*in phase 0 0 of 1 arrivals"),
    "a rank of no block": (
        MADE + only("eq 0", SIGNAL.replace("%r20, 1;", "%r20, 2;"), "s") + SIGNALLED,
        "GEM1002.*the cluster has no block [23]",
    ),
    "an arrival that says it is in this block": (
        MADE + only("eq 0", SIGNAL.replace("cluster.b64 _", "cta.b64 _"), "s") + SIGNALLED,
        "GEM1002.*lies in another block",
    ),
    "one block does not come": (
        RANKS + "setp.eq.u32 %p, %r20, 0;\n@%p bra end;\n"
        "setp.ne.u32 %p, %r50, %r50;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\nend:\n", "",
    ),
    "an arrival too many": (
        "barrier.cluster.arrive;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n",
        "GEM1005.*arrives twice",
    ),
    "no arrival": ("barrier.cluster.wait;\n", "GEM1005.*barrier.cluster.wait follows no arrive"),
    "a warp in part": (
        "setp.lt.u32 %p, %r50, 40;\n@%p barrier.cluster.arrive.aligned;\n",
        "GEM1009.*8 of 32 lanes of warp 1",
    ),
    "threads that never come": (
        MADE + "setp.lt.u32 %p, %r50, 64;\n@%p bra waits;\n" + MEET + "bra end;\nwaits:\n"
        + SIGNALLED + MEET + "end:\n",
        r"GEM1011.*barrier of the cluster, where \d+ threads are",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TALKS)
def test_blocks_talk(name: str, seed: int | None) -> None:
    body, message = TALKS[name]
    if not message:
        run(body, [], [], blocks=4, cluster=2, seed=seed)
        return
    with pytest.raises(PtxFault, match=message):
        run(body, [], [], blocks=4, cluster=2, seed=seed)


ROWS, COLUMNS = 8, 64
BYTES = ROWS * COLUMNS * 2

SPREAD = f"""
    {RANKS}
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], EXPECTED;
    shl.b32 %r22, %r20, 10;
    mov.b32 %r23, tile;
    add.u32 %r22, %r22, %r23;
    mov.u32 %r24, 0;
    shl.b32 %r25, %r20, 3;
    mov.b16 %h0, MASK;
    {load("%r22", "%r24, %r25", "bar", multicast="%h0")}
"""
"""Each block brings its half of what both need."""

BACK = """
    mov.b32 %r30, tile;
    mad.lo.u32 %r30, %r50, 16, %r30;
    ld.shared.v4.b32 {%r31, %r32, %r33, %r34}, [%r30];
    mov.u32 %r35, %ctaid.x;
    mad.lo.u32 %r35, %r35, 128, %r50;
    mad.wide.u32 %d1, %r35, 16, %d51;
    st.global.v4.b32 [%d1], {%r31, %r32, %r33, %r34};
"""


def spread(
    *,
    mask: str = "3",
    expected: int = 2 * BYTES,
    change: dict[str, str] | None = None,
    last: str = "",
    seed: int | None = None,
) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    source: np.ndarray[Any, Any] = rng.integers(0, 65536, (16, COLUMNS)).astype(np.uint16)
    out = np.zeros((2, 16, COLUMNS), np.uint16)
    body = SPREAD.replace("MASK", mask).replace("EXPECTED", str(expected))
    body = MADE + only("eq 0", body, "s") + wait("bar", "0", "w") + BACK + last
    for old, new in (change or {}).items():
        assert old in body
        body = body.replace(old, new)
    tensor = matrix_map(source, "bf16", (COLUMNS, ROWS), swizzle=0)
    arrays = [source, out.view(np.uint32).reshape(-1)]
    run(body, [tensor], arrays, blocks=2, cluster=2, seed=seed)
    return arrays[1].view(np.uint16).reshape(out.shape), source


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_comes_to_all_blocks_of_its_mask(seed: int | None) -> None:
    found, source = spread(seed=seed)
    np.testing.assert_array_equal(found, np.stack([source, source]))


CLEAN = """
    mov.b32 %r30, tile;
    mad.lo.u32 %r30, %r50, 16, %r30;
    st.shared.v4.b32 [%r30], {%r50, %r50, %r50, %r50};
    fence.proxy.async.shared::cta;
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_into_another_block_comes_after_what_is_there(seed: int | None) -> None:
    found, source = spread(change={MEET: CLEAN + MEET}, seed=seed)
    np.testing.assert_array_equal(found, np.stack([source, source]))
    relaxed = MEET.replace("arrive.aligned", "arrive.relaxed.aligned")
    with pytest.raises(
        PtxFault, match=r"GEM1003.*writes what thread \d+ of block \d of the cluster"
    ):
        spread(change={MEET: CLEAN + relaxed}, seed=seed)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a mask of itself only": ({"mask": "1"}, "GEM1011.*bytes (are still|more than) expected"),
    "a mask of the other only": ({"mask": "2"}, "GEM1011.*bytes (are still|more than) expected"),
    "a mask of more blocks": ({"mask": "7"}, "GEM1002.*the mask 0x7 names blocks of a"),
    "a mask of none": ({"mask": "0"}, "GEM1002.*the mask 0x0"),
    "bytes of one copy": (
        {"expected": BYTES}, "GEM1008.*yet to fill|GEM1016.*has ended|GEM1012|GEM100[34]",
    ),
    "no barrier of the cluster before": (
        {"change": {MEET: "bar.sync 0;\n"}},
        "GEM1003.*which another thread initialises without a barrier|GEM1012.*no mbarrier",
    ),
    "both to one place": (
        {"change": {"shl.b32 %r22, %r20, 10;": "mov.u32 %r22, 0;"}},
        "GEM1008.*writes what an asynchronous copy of thread 0 of block|GEM1003.*writes what",
    ),
    "no wait": ({"change": {wait("bar", "0", "w"): ""}}, "GEM1008.*yet to fill|GEM1004"),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_multicast_is_found(name: str, seed: int | None) -> None:
    options, message = MISTAKES[name]
    with pytest.raises(PtxFault, match=message):
        spread(**options, seed=seed)
