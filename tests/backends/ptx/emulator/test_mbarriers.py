"""mbarriers: phases, arrivals, and what those learn who wait."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.hopper import INIT, only, run, wait
from tests.backends.ptx.emulator.ptx import Array

ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [bar];\n"
TILE = "mov.b32 %r40, tile;\nmad.lo.u32 %r41, %r50, 4, %r40;\n"
PUT = TILE + "st.shared.b32 [%r41], %r50;\n"
TAKE = "xor.b32 %r42, %r50, 127;\nmad.lo.u32 %r43, %r42, 4, %r40;\nld.shared.b32 %r44, [%r43];\n"
GIVE = "mad.wide.u32 %d41, %r50, 4, %d50;\nst.global.b32 [%d41], %r44;\n"


def made(full: int, empty: int = 1) -> str:
    return INIT.format(full=full, empty=empty)


def exchanged(between: str, full: int = 128, seed: int | None = None) -> Array:
    """Each thread takes the number of another one."""
    out = np.zeros(128, np.uint32)
    run(made(full) + PUT + between + TAKE + GIVE, [], [out], seed=seed)
    return out


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@pytest.mark.parametrize(
    ("full", "between"),
    [
        (128, ARRIVE + wait("bar", "0", "w")),
        (4, "bar.warp.sync -1;\nand.b32 %r1, %r50, 31;\nsetp.eq.u32 %p, %r1, 0;\n@%p " + ARRIVE
         + wait("bar", "0", "w")),
        (256, ARRIVE.replace("[bar]", "[bar], 2") + wait("bar", "0", "w")),
        (128, "mbarrier.arrive.release.cta.shared::cta.b64 %d1, [bar];\nw:\n"
         "mbarrier.try_wait.shared::cta.b64 %q, [bar], %d1;\n@!%q bra w;\n"),
        (128, ARRIVE + "w:\nmbarrier.test_wait.parity.shared.b64 %q, [bar], 0;\n@!%q bra w;\n"),
        (128, ARRIVE.replace("shared::cta.b64", "b64")
         + "w:\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %q, [bar], 0, 1000;\n"
         "@!%q bra w;\n"),
    ],
)  # fmt: skip
def test_who_waits_sees_what_was_done_before(full: int, between: str, seed: int | None) -> None:
    found = exchanged(between, full, seed)
    assert found.tolist() == [n ^ 127 for n in range(128)]


WRONG: dict[str, tuple[int, str, str]] = {
    "no wait": (128, ARRIVE, "GEM1003.*reads what thread|GEM1004"),
    "no arrivals of the others": (
        32, only("lt 32", ARRIVE, "x") + wait("bar", "0", "w"),
        "GEM1003.*reads what thread|GEM1004",
    ),
    "an arrival before the write": (
        128, ARRIVE + PUT.replace("%r50;", "%r41;") + wait("bar", "0", "w"),
        "GEM1003.*reads what thread",
    ),
    "lanes that the arriving one has not met": (
        4, "and.b32 %r1, %r50, 31;\nsetp.eq.u32 %p, %r1, 0;\n@%p " + ARRIVE + wait("bar", "0", "w"),
        "GEM1003.*reads what thread",
    ),
    "more arrivals than its phase takes": (
        100, ARRIVE + wait("bar", "0", "w"), "GEM1003.*reads what thread|GEM1012|GEM1004",
    ),
    "an arrival is lost": (
        128, only("ne 77", ARRIVE, "x") + wait("bar", "0", "w"),
        r"GEM1011.*threads 0 to 127.*mbarrier at byte 0 of bar.* parity 0: in phase 0 127 of 128"
        r"|GEM1011.*in phase 0 127 of 128",
    ),
    "the other parity": (
        128, ARRIVE + wait("bar", "1", "w"), "GEM1003.*reads what|GEM1011|GEM1004",
    ),
    "a phase later": (
        128, ARRIVE + wait("bar", "0", "w") + wait("bar", "1", "v"), "GEM1011.*in phase 1",
    ),
    "no mbarrier there": (128, ARRIVE.replace("[bar]", "[bar+16]"), "GEM1012.*no mbarrier is init"),
    "a parity of 2": (128, ARRIVE + wait("bar", "2", "w"), "GEM1012.*parity 2"),
    "a phase that has begun": (256, ARRIVE, "GEM1012.*mbarrier.*128 of 256|GEM100[34]"),
    "its bytes are read": (128, "ld.shared.b32 %r1, [bar];\n", "GEM1003.*is part of an mbarrier"),
    "its bytes are written": (128, "st.shared.b32 [bar+12], 1;\n", "GEM1003.*of an mbarrier"),
    "bytes that do not come": (
        128,
        only("eq 0", "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 16;\n", "x") + ARRIVE
        + wait("bar", "0", "w"), "GEM1011.*128 of 128 arrivals have come and 16 bytes are still",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_use_is_found(name: str, seed: int | None) -> None:
    full, between, message = WRONG[name]
    with pytest.raises(PtxFault, match=message):
        exchanged(between, full, seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_result_of_a_wait_counts(seed: int) -> None:
    """In step all threads have arrived before any of them asks."""
    between = ARRIVE + "mbarrier.try_wait.parity.shared::cta.b64 %q, [bar], 0;\n"
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread|GEM1004"):
        exchanged(between, seed=seed)


def test_a_phase_takes_no_more_arrivals_than_it_needs() -> None:
    """It waits for bytes yet, so that one more is not of the next phase."""
    both = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 16;\n" + ARRIVE
    with pytest.raises(PtxFault, match=r"GEM1012.*1 arrive at .*phase 0 takes only 0 more"):
        run(made(1) + only("eq 0", both, "x"), [], [])


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_barrier_of_all_threads_orders_atomic_operations(seed: int | None) -> None:
    out = np.zeros(128, np.uint32)
    text = (
        made(1) + only("eq 0", "st.shared.b32 [tile], 0;\n", "x") + "bar.sync 0;\n"
        "atom.shared.add.u32 %r30, [tile], 1;\n{}ld.shared.b32 %r44, [tile];\n" + GIVE
    )  # fmt: skip
    run(text.format("bar.sync 0;\n"), [], [out], seed=seed)
    assert (out == 128).all()
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what another thread writes"):
        run(text.format(""), [], [out], seed=seed)


def test_no_bytes_may_be_missing_at_the_end() -> None:
    expect = "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 16;\n"
    with pytest.raises(PtxFault, match=r"GEM1012.*0 of 1 arrivals .* 16 bytes are still expected"):
        run(made(1) + only("eq 0", expect, "x"), [], [])


@pytest.mark.parametrize("count", [0, 1 << 20])
def test_the_number_of_arrivals_is_checked(count: int) -> None:
    with pytest.raises(PtxFault, match=f"GEM1012.*an mbarrier for {count} arrivals"):
        run(made(count), [], [])


def test_an_mbarrier_can_be_given_back() -> None:
    end = "mbarrier.inval.shared::cta.b64 [bar];\nst.shared.b32 [bar], %r50;\n"
    run(made(1) + only("eq 0", end, "x"), [], [])
    with pytest.raises(PtxFault, match=r"GEM1012.*no mbarrier is initialised"):
        run(made(1) + only("eq 0", end + ARRIVE, "x"), [], [])
    with pytest.raises(PtxFault, match=r"GEM1012.*1 of 128 arrivals"):
        run(made(128) + only("eq 0", ARRIVE + end, "x"), [], [])


@pytest.mark.parametrize(
    "instruction",
    [
        "mbarrier.init.shared.b32 [bar], 1;",
        "mbarrier.arrive.noComplete.shared.b64 %d1, [bar], 1;",
        "mbarrier.arrive_drop.shared.b64 %d1, [bar];",
        "mbarrier.arrive.shared::cluster.b64 %d1, [bar];",
        "mbarrier.try_wait.parity.shared::cluster.b64 %p, [bar], 0;",
        "mbarrier.test_wait.parity.shared.b64 %p, [bar], 0, 10;",
        "mbarrier.pending_count.b64 %r1, %d1;",
        "fence.mbarrier_init.release.cta;",
        "mapa.u64 %d1, %d2, 0;",
    ],
)
def test_what_is_not_known_is_a_fault(instruction: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        run(instruction, [], [])


SHARE = """
    setp.ge.u32 %p, %r50, 64;
    mov.u32 %r30, 7;
    @%p bra reads;
    st.shared.b32 [%r41], %r50;
    bar.arrive 3, 128;
    bra end;
reads:
    bar.sync 3, 128;
    ld.shared.b32 %r30, [%r41+-256];
    mad.wide.u32 %d41, %r50, 4, %d50;
    st.global.b32 [%d41], %r30;
end:
"""


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_barrier_of_those_who_arrive_and_those_who_wait(seed: int | None) -> None:
    out = np.zeros(128, np.uint32)
    run(TILE + SHARE, [], [out], seed=seed)
    assert out[64:].tolist() == list(range(64))


WRONG_BARRIERS: dict[str, tuple[str, str]] = {
    "no arrival": (SHARE.replace("bar.arrive 3, 128;", ""), "GEM1011.*barrier 3 .64 of 128"),
    "another number": (SHARE.replace("arrive 3", "arrive 4"), "GEM1011.*barrier 3 .64 of 128"),
    "fewer threads": (SHARE.replace("3, 128", "3, 64"), "GEM1003|GEM1004"),
    "more threads": (SHARE.replace("3, 128", "3, 160"), "GEM1011.*64 of 160|GEM1011.*128 of 160"),
    "another count": (
        SHARE.replace("arrive 3, 128", "arrive 3, 96"), "GEM1005.*barrier 3 is for .* threads here",
    ),
    "no warps": (SHARE.replace("3, 128", "3, 120"), "GEM1005.*for 120 threads, not for"),
    "a warp in part": (SHARE.replace("%r50, 64;", "%r50, 70;"), "GEM1009.*lanes of warp 2 are"),
    "barrier 16": (SHARE.replace(" 3, ", " 16, "), "GEM1005.*there is no barrier 16"),
    "the write behind it": (
        SHARE.replace("st.shared.b32 [%r41], %r50;", "").replace(
            "bra end;\nreads", "st.shared.b32 [%r41], %r50;\nbra end;\nreads"
        ),
        "GEM1004|GEM1003",
    ),
    "nobody waits": (
        "setp.lt.u32 %p, %r50, 64;\n@%p bar.arrive 3, 128;", "GEM1005.*ends and barrier 3 .64 of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("name", WRONG_BARRIERS)
def test_a_wrong_barrier_of_some_threads_is_found(name: str, seed: int | None) -> None:
    body, message = WRONG_BARRIERS[name]
    body = body.replace("bra end;\n    reads", "bra end;\nreads")
    with pytest.raises(PtxFault, match=message):
        run(TILE + body, [], [np.zeros(128, np.uint32)], seed=seed)


def test_two_halves_of_a_block_meet_by_turns() -> None:
    """Each half has its own barrier, named by a register, and again and again."""
    out = np.zeros(128, np.uint32)
    text = (
        TILE
        + """
        shr.u32 %r30, %r50, 6;
        add.u32 %r30, %r30, 1;
        mov.u32 %r31, 0;
        mov.u32 %r33, %r50;
    again:
        st.shared.b32 [%r41], %r33;
        bar.sync %r30, 64;
        xor.b32 %r34, %r50, 63;
        mad.lo.u32 %r34, %r34, 4, %r40;
        ld.shared.b32 %r33, [%r34];
        bar.sync %r30, 64;
        add.u32 %r31, %r31, 1;
        setp.lt.u32 %p, %r31, 3;
        @%p bra again;
        mad.wide.u32 %d41, %r50, 4, %d50;
        st.global.b32 [%d41], %r33;
    """
    )
    run(text, [], [out], seed=4)
    assert out.tolist() == [n ^ 63 for n in range(128)]
    without = text.replace("bar.sync %r30, 64;\n        add", "add")
    with pytest.raises(PtxFault, match=r"GEM1003.*s what thread \d+ "):
        run(without, [], [out], seed=4)


REGISTERS = """
    setp.lt.u32 %p, %r50, 128;
    @%p bra first;
    setmaxnreg.inc.sync.aligned.u32 {more};
    bra end;
first:
    setmaxnreg.dec.sync.aligned.u32 {fewer};
end:
"""


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize(
    ("fewer", "more", "message"),
    [
        (40, 232, ""),
        (24, 240, ""),
        (40, 240, r"GEM1011.*setmaxnreg.inc.*more registers: \d+ registers are free"),
        (44, 232, "GEM1017.*44 registers are no multiple of 8"),
        (16, 232, "GEM1017.*16 registers"),
        (40, 264, "GEM1017.*264 registers"),
        (176, 232, "GEM1017.*of 168 registers cannot get 176, fewer only"),
        (40, 160, "GEM1017.*of 168 registers cannot get 160, more only"),
    ],
)
def test_registers_go_from_warps_to_others(
    fewer: int, more: int, message: str, seed: int | None
) -> None:
    """384 threads begin with 168 each."""
    body = REGISTERS.format(fewer=fewer, more=more)
    if more < fewer + 128:
        body += "@%p bra over;\nsetmaxnreg.dec.sync.aligned.u32 232;\nover:"
    if not message:
        run(body, [], [], threads=384, seed=seed)
        return
    with pytest.raises(PtxFault, match=message):
        run(body, [], [], threads=384, seed=seed)


def test_dependent_grids_change_nothing() -> None:
    run("griddepcontrol.wait;\ngriddepcontrol.launch_dependents;", [], [])
