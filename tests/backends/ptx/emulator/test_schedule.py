"""Branches, barriers, divergence, races between threads, and the order in which warps run."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault, emulate
from gemmir.backends.ptx.emulator import schedule as turns
from tests.backends.ptx.emulator.ptx import kernel, launch, run

U32 = np.uint32
TILE = ".shared .align 16 .b8 tile[4096];"
OWN = "mov.b32 %r40, tile;\nmad.lo.u32 %r41, %r50, 4, %r40;\n"
"""%r41 is the word of each thread."""


def test_a_loop_runs_as_often_as_each_thread_says() -> None:
    text = """
        mov.u32 %r1, 0;
        mov.u32 %r2, 0;
    again:
        setp.ge.u32 %p, %r1, %r0;
        @%p bra.uni done;
        add.u32 %r2, %r2, %r1;
        add.u32 %r1, %r1, 1;
        bra again;
    done:
        mov.u32 %r3, %r2;
    """
    counts = np.array([0, 3, 1, 10, 4], U32)
    found = run(text, [counts], [("%r3", U32)])[0]
    assert found.tolist() == [n * (n - 1) // 2 for n in counts.tolist()]


def test_both_ways_of_a_branch_meet_again() -> None:
    """They come to the last instructions together: those run once for all threads."""
    text = kernel(
        """
        setp.lt.u32 %p, %r50, 10;
        @%p bra less;
        mov.u32 %r1, 1;
        bra meet;
    less:
        mov.u32 %r1, 2;
    meet:
        shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;
        """
    )
    launch(text, [])


def test_a_guard_lets_other_threads_pass() -> None:
    text = (
        "setp.eq.u32 %p, %r0, 2;\nmov.u32 %r1, 7;\n@%p mov.u32 %r1, 8;\n@!%p add.u32 %r1, %r1, 2;"
    )
    found = run(text, [np.arange(4, dtype=U32)], [("%r1", U32)])[0]
    assert found.tolist() == [9, 9, 8, 9]


@pytest.mark.parametrize("end", ["ret;", "exit;", "ret.uni;"])
def test_threads_end_on_their_own(end: str) -> None:
    out = np.zeros(32, U32)
    text = kernel(
        f"setp.lt.u32 %p, %r50, 5;\n@%p {end}\nmad.wide.u32 %d0, %r50, 4, %d50;\n"
        "st.global.u32 [%d0], 1;",
        1,
    )
    launch(text, [out])
    assert out.tolist() == [0] * 5 + [1] * 27


@pytest.mark.parametrize(
    "barrier",
    ["bar.sync 0;", "barrier.sync 0;", "barrier.sync.aligned 0;", "barrier.cta.sync.aligned 0;",
     "bar.cta.sync 0;", "bar.sync 0, 64;"],
)  # fmt: skip
def test_a_barrier_orders_what_threads_do(barrier: str) -> None:
    out = np.zeros(64, U32)
    text = f"""
        {OWN}
        st.shared.u32 [%r41], %r50;
        {{}}
        sub.u32 %r1, 63, %r50;
        mad.lo.u32 %r42, %r1, 4, %r40;
        ld.shared.u32 %r2, [%r42];
        mad.wide.u32 %d0, %r50, 4, %d50;
        st.global.u32 [%d0], %r2;
    """
    launch(kernel(text.format(barrier), 1, shared=TILE), [out], threads=64)
    assert out.tolist() == list(range(63, -1, -1))
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread 63 writes without a barrier"):
        launch(kernel(text.format(""), 1, shared=TILE), [out], threads=64)


@pytest.mark.parametrize(
    "barrier",
    ["bar.arrive 1;", "bar.sync.aligned 0;", "barrier.arrive.weird 0, 64;",
     "bar.red.popc.u32 %r0, 0, %p;"],
)  # fmt: skip
def test_an_unknown_barrier_is_a_fault(barrier: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        launch(kernel(barrier), [], threads=64)


DIVERGED = {
    "some have ended": (
        "setp.lt.u32 %p, %r50, 40;\n@%p bra over;\nbar.sync 0;\nover:",
        "24 of 64 threads wait, the others have ended",
    ),
    "one warp is cut": (
        "setp.eq.u32 %p, %r50, 3;\n@!%p bar.sync 0;",
        "63 of 64 threads wait, the others have ended",
    ),
    "two barriers": (
        "setp.lt.u32 %p, %r50, 32;\n@%p bra first;\nbar.sync 0;\nbra over;\n"
        "first:\nbar.sync 0;\nover:",
        "64 of 64 threads wait at 2 barriers",
    ),
}


@pytest.mark.parametrize("case", DIVERGED)
@pytest.mark.parametrize("seed", [None, 3])
def test_a_barrier_that_not_all_threads_reach_is_a_fault(case: str, seed: int | None) -> None:
    body, message = DIVERGED[case]
    with pytest.raises(PtxFault, match="GEM1005") as caught:
        launch(kernel(body), [], threads=64, seed=seed)
    assert message in str(caught.value)


def test_a_kernel_that_does_not_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_STEPS", 1000)
    with pytest.raises(PtxFault, match=r"GEM1006.*has not ended after 1000 steps"):
        launch(kernel("again:\nbra again;"), [])
    with pytest.raises(PtxFault, match="GEM1006"):
        launch(kernel("again:\nbra again;"), [], threads=64, seed=1)


RACES = {
    "write after write": (
        "st.shared.u32 [%r41], 1;\n{}\nst.shared.u32 [%r43], 2;",
        "writes what thread 1 writes without a barrier",
    ),
    "write after read": (
        "st.shared.u32 [%r41], 1;\nbar.sync 0;\nld.shared.u32 %r1, [%r41];\n{}\n"
        "st.shared.u32 [%r43], 2;",
        "writes what thread 1 reads without a barrier",
    ),
    "read after write": (
        "st.shared.u32 [%r41], 1;\n{}\nld.shared.u32 %r1, [%r43];",
        "reads what thread 1 writes without a barrier",
    ),
    "write after a read of several": (
        "st.shared.u32 [%r41], 1;\nbar.sync 0;\nld.shared.u32 %r1, [tile];\n{}\n"
        "setp.eq.u32 %p, %r50, 0;\n@%p st.shared.u32 [tile], 2;",
        "writes what another thread reads without a barrier",
    ),
}  # fmt: skip
OTHER = "xor.b32 %r42, %r50, 1;\nmad.lo.u32 %r43, %r42, 4, %r40;\n"


@pytest.mark.parametrize("case", RACES)
@pytest.mark.parametrize("threads", [32, 64])
def test_races_in_shared_memory(case: str, threads: int) -> None:
    body, message = RACES[case]
    launch(kernel(OWN + OTHER + body.format("bar.sync 0;"), shared=TILE), [], threads)
    with pytest.raises(PtxFault, match="GEM1003") as caught:
        launch(kernel(OWN + OTHER + body.format(""), shared=TILE), [], threads)
    assert message in str(caught.value)


@pytest.mark.parametrize("case", RACES)
def test_a_barrier_of_a_warp_orders_its_lanes(case: str) -> None:
    body, _ = RACES[case]
    text = kernel(OWN + OTHER + body.format("bar.warp.sync -1;"), shared=TILE)
    launch(text, [], threads=32)


def test_a_barrier_of_a_warp_does_not_order_other_warps() -> None:
    body, _ = RACES["read after write"]
    other = OTHER.replace("%r50, 1", "%r50, 32")
    text = kernel(OWN + other + body.format("bar.warp.sync -1;"), shared=TILE)
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread 32 writes"):
        launch(text, [], threads=64)
    several, _ = RACES["write after a read of several"]
    text = kernel(OWN + OTHER + several.format("bar.warp.sync -1;"), shared=TILE)
    with pytest.raises(PtxFault, match=r"GEM1003.*writes what another thread reads"):
        launch(text, [], threads=64)


@pytest.mark.parametrize("writer", [0, 32])
def test_readers_of_two_warps_are_not_ordered_by_the_barrier_of_one(writer: int) -> None:
    text = f"""
        setp.eq.u32 %q, %r50, 0;
        @%q st.shared.u32 [tile], 1;
        bar.sync 0;
        ld.shared.u32 %r1, [tile];
        bar.warp.sync -1;
        setp.eq.u32 %p, %r50, {writer};
        @%p st.shared.u32 [tile], 2;
    """
    launch(kernel(text, shared=TILE), [], threads=32)
    with pytest.raises(PtxFault, match=r"GEM1003.*writes what another thread reads"):
        launch(kernel(text, shared=TILE), [], threads=64)


def test_all_readers_count() -> None:
    """Thread 0 reads, then thread 1, and that one writes."""
    body = """
        setp.eq.u32 %p, %r50, 0;
        setp.eq.u32 %q, %r50, 1;
        @%p st.shared.u32 [tile], 1;
        bar.sync 0;
        @%p ld.shared.u32 %r1, [tile];
        @%q ld.shared.u32 %r1, [tile];
        @%q st.shared.u32 [tile], 2;
    """
    with pytest.raises(PtxFault, match=r"GEM1003.*thread 1,.*writes what another thread reads"):
        launch(kernel(body, shared=TILE), [])


def test_two_threads_that_write_one_byte_at_once_race() -> None:
    with pytest.raises(PtxFault, match=r"GEM1003.*two threads write at once: byte 0 of tile"):
        launch(kernel("st.shared.u32 [tile], 1;", shared=TILE), [])


def test_neighbouring_bytes_do_not_race() -> None:
    launch(
        kernel(
            "mov.b32 %r40, tile;\nadd.u32 %r41, %r40, %r50;\nst.shared.b8 [%r41], 1;", shared=TILE
        ),
        [],
    )


def test_races_in_global_memory() -> None:
    body = "mad.wide.u32 %d0, %r50, 4, %d50;\nst.global.u32 [%d0], 1;\n{}ld.global.u32 %r0, [%d50];"
    launch(kernel(body.format("bar.sync 0;\n"), 1), [np.zeros(32, U32)])
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread 0 writes"):
        launch(kernel(body.format(""), 1), [np.zeros(32, U32)])


LOAD, STORE = "ld.global.u32 %r1, [%d50];", "st.global.u32 [%d50], 1;"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (STORE, LOAD, "reads what thread 0 of another block writes"),
        (LOAD, STORE, "writes what thread 0 of another block reads"),
        (STORE, STORE, "writes what thread 0 of another block writes"),
    ],
)
def test_blocks_race(first: str, second: str, message: str) -> None:
    text = f"mov.u32 %r0, %ctaid.x;\nsetp.eq.u32 %p, %r0, 0;\n@%p {first}\n@!%p {second}"
    with pytest.raises(PtxFault, match=r"GEM1003: block \(1, 0, 0\)") as caught:
        launch(kernel(text, 1), [np.zeros(1, U32)], threads=1, blocks=2)
    assert message in str(caught.value)


def test_a_block_that_writes_what_any_earlier_one_has_read_races() -> None:
    text = """
        mov.u32 %r0, %ctaid.x;
        ld.global.u32 %r1, [%d50];
        setp.eq.u32 %p, %r0, 1;
        @%p st.global.u32 [%d50], 1;
    """
    with pytest.raises(PtxFault, match=r"GEM1003.*another block reads"):
        launch(kernel(text, 1), [np.zeros(1, U32)], threads=1, blocks=2)


def test_all_blocks_may_read() -> None:
    launch(kernel("ld.global.u32 %r1, [%d50];", 1), [np.zeros(1, U32)], threads=64, blocks=3)


ORDER = """
    mov.u32 %r1, %warpid;
    atom.global.add.u32 %r2, [%d50], 1;
    mad.wide.u32 %d0, %r2, 4, %d51;
    st.global.u32 [%d0], %r1;
"""


def order_of_warps(seed: int | None) -> list[int]:
    out = np.zeros(128, U32)
    emulate(kernel(ORDER, 2), [np.zeros(1, U32), out], grid=(1, 1, 1), block=(128, 1, 1), seed=seed)
    return out[::32].tolist()


def test_a_seed_says_in_which_order_warps_run() -> None:
    assert order_of_warps(None) == [0, 1, 2, 3]
    orders = [order_of_warps(seed) for seed in range(8)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 2
    assert orders == [order_of_warps(seed) for seed in range(8)]


@pytest.mark.parametrize("seed", range(4))
def test_a_seed_changes_no_result(seed: int) -> None:
    """A sum by halves with barriers."""
    text = f"""
        {OWN}
        st.shared.u32 [%r41], %r50;
        bar.sync 0;
        mov.u32 %r1, 64;
    again:
        setp.ge.u32 %p, %r50, %r1;
        @%p bra skip;
        mad.lo.u32 %r42, %r1, 4, %r41;
        ld.shared.u32 %r2, [%r41];
        ld.shared.u32 %r3, [%r42];
        add.u32 %r2, %r2, %r3;
        st.shared.u32 [%r41], %r2;
    skip:
        bar.sync 0;
        shr.u32 %r1, %r1, 1;
        setp.ne.u32 %p, %r1, 0;
        @%p bra again;
        ld.shared.u32 %r4, [tile];
        setp.eq.u32 %p, %r50, 0;
        @%p st.global.u32 [%d50], %r4;
    """
    out = np.zeros(1, U32)
    launch(kernel(text, 1, shared=TILE), [out], threads=128, seed=seed)
    assert out[0] == sum(range(128))
