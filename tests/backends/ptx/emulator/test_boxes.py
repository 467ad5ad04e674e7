"""Copies of boxes by tensor maps: where each byte goes, and what may not happen before or after."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from gemmir.launch import TensorMap
from tests.backends.ptx.emulator.hopper import INIT, load, matrix_map, only, run, store, wait
from tests.backends.ptx.emulator.ptx import Array

MADE = INIT.format(full=1, empty=1)


def expecting(size: int) -> str:
    return f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {size};\n"


def fetch(size: int, copies: str) -> str:
    """Thread 0 copies `size` bytes in all, and every thread waits for them."""
    return MADE + only("eq 0", expecting(size) + copies, "go") + wait("bar", "0", "full")


def back(words: int) -> str:
    """The first `words` of shared memory, 128 threads at a time, into the last buffer."""
    return "".join(
        f"""
        mov.b32 %r40, tile;
        mad.lo.u32 %r41, %r50, 4, %r40;
        ld.shared.b32 %r42, [%r41+{512 * n}];
        mad.wide.u32 %d41, %r50, 4, %d51;
        st.global.b32 [%d41+{512 * n}], %r42;
    """
        for n in range(words // 128)
    )


def placed(box: Array, swizzle: int) -> Array:
    """Where the bytes of a box lie, as the CUDA C++ Programming Guide draws the swizzles."""
    plain = np.ascontiguousarray(box).view(np.uint8).ravel()
    found = np.zeros_like(plain)
    for place in range(plain.size):
        row, chunk, byte = place // 128, place // 16 % 8, place % 16
        if swizzle == 128:
            chunk ^= row % 8
        elif swizzle == 64:
            chunk = chunk & 4 | (chunk & 3) ^ (row % 4)
        elif swizzle == 32:
            chunk = chunk & 6 | (chunk & 1) ^ (row % 2)
        found[128 * row + 16 * chunk + byte] = plain[place]
    return found


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize(
    ("swizzle", "box"),
    [(0, (32, 32)), (32, (16, 64)), (64, (32, 32)), (128, (64, 16)), (0, (8, 128))],
)
def test_a_box_comes_to_its_place(swizzle: int, box: tuple[int, int], seed: int | None) -> None:
    source = np.arange(200 * 128, dtype=np.uint16).reshape(200, 128)
    out = np.zeros(box[0] * box[1] // 2, np.uint32)
    tensor = matrix_map(source, "f16", box, swizzle=swizzle)
    copies = "mov.u32 %r1, 8;\nmov.u32 %r2, 40;\n" + load("tile", "%r1, %r2", "bar")
    run(fetch(out.nbytes, copies) + back(out.size), [tensor], [source, out], seed=seed)
    expected = placed(source[40 : 40 + box[1], 8 : 8 + box[0]], swizzle)
    np.testing.assert_array_equal(out.view(np.uint8), expected)


@pytest.mark.parametrize(
    ("x", "y"), [(-8, 0), (0, -3), (96, 25), (104, 2), (200, 0), (-64, -16), (8, 3)]
)
def test_outside_there_are_zeros_and_their_bytes_count(x: int, y: int) -> None:
    source = np.arange(1, 32 * 104 + 1, dtype=np.uint16).reshape(32, 104)[:, :101]
    whole = np.arange(1, 32 * 104 + 1, dtype=np.uint16).reshape(32, 104)
    tensor = TensorMap(
        argument=0, item="f16", extents=(101, 32), strides_bytes=(208,), box=(32, 16),
        swizzle_bytes=64,
    )  # fmt: skip
    out = np.zeros(256, np.uint32)
    copies = f"mov.s32 %r1, {x};\nmov.s32 %r2, {y};\n" + load("tile", "%r1, %r2", "bar")
    run(fetch(1024, copies) + back(256), [tensor], [whole, out])
    padded = np.zeros((200, 500), np.uint16)
    padded[64:96, 128:229] = source
    expected = padded[64 + y : 80 + y, 128 + x : 160 + x]
    np.testing.assert_array_equal(out.view(np.uint8), placed(expected, 64))


def test_three_dimensions() -> None:
    source = np.arange(3 * 20 * 64, dtype=np.uint16).reshape(3, 20, 64)
    out = np.zeros(512, np.uint32)
    tensor = matrix_map(source, "bf16", (32, 8, 4), swizzle=64)
    copy = (
        "mov.u32 %r1, 32;\nmov.u32 %r2, 4;\nmov.u32 %r3, 1;\n"
        "cp.async.bulk.tensor.3d.shared::cta.global.tile.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [tile], [m0, {%r1, %r2, %r3}], [bar], %d1;\n"
    )
    run("mov.b64 %d1, 0;\n" + fetch(2048, copy) + back(512), [tensor], [source, out])
    expected = np.zeros((4, 8, 32), np.uint16)
    expected[:2] = source[1:3, 4:12, 32:64]
    np.testing.assert_array_equal(out.view(np.uint8), placed(expected, 64))


def test_f32_is_rounded_where_the_map_says_tf32() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(-1, 1, (16, 32)).astype(np.float32)
    out = np.zeros(512, np.float32)
    for item in ("f32", "tf32"):
        tensor = matrix_map(source, item, (32, 16), swizzle=0)
        copies = "mov.u32 %r1, 0;\n" + load("tile", "%r1, %r1", "bar")
        run(fetch(2048, copies) + back(512), [tensor], [source, out])
        bits = source.view(np.uint32).ravel()
        expected = (bits + 0x1000) & 0xFFFFE000 if item == "tf32" else bits
        np.testing.assert_array_equal(out.view(np.uint32), expected)


FILL = """
    mov.b32 %r40, tile;
    mad.lo.u32 %r41, %r50, 16, %r40;
    mul.lo.u32 %r42, %r50, 4;
    add.u32 %r43, %r42, 1;
    add.u32 %r44, %r42, 2;
    add.u32 %r45, %r42, 3;
    st.shared.v4.b32 [%r41], {%r42, %r43, %r44, %r45};
"""
"""Each thread writes its four numbers."""

FENCE = "fence.proxy.async.shared::cta;\n"
BAR = "bar.sync 0;\n"
ZEROS = "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\n"
COMMIT = "cp.async.bulk.commit_group;\n"
SEND = ZEROS + store("tile", "%r1, %r2") + COMMIT
READ = "cp.async.bulk.wait_group.read 0;\n"


def sent(body: str, x: int = 0, swizzle: int = 128, seed: int | None = None) -> Array:
    out = np.zeros((20, 32), np.int32)
    tensor = matrix_map(out, "i32", (32, 16), swizzle=swizzle)
    run(body.replace("mov.u32 %r2, 0", f"mov.u32 %r2, {x}"), [tensor], [out], seed=seed)
    return out


@pytest.mark.parametrize("swizzle", [0, 128])
@pytest.mark.parametrize("first", [0, 4, 10])
def test_a_box_is_stored_as_far_as_there_is_room(swizzle: int, first: int) -> None:
    found = sent(FILL + FENCE + BAR + only("eq 0", SEND + READ, "go"), first, swizzle)
    own = np.arange(512, dtype=np.int32).reshape(16, 32)
    lies = placed(own, swizzle).view(np.int32).reshape(16, 32)
    last = min(first + 16, 20)
    np.testing.assert_array_equal(found[first:last], lies[: last - first])
    assert not found[:first].any()


def test_rows_that_end_within_16_bytes_cannot_be_stored() -> None:
    """On silicon the TMA writes all 16 of them, beyond the end of the row."""
    memory = np.zeros((20, 32), np.int32)
    tensor = matrix_map(memory[:, :30], "i32", (32, 16), swizzle=128)
    with pytest.raises(PtxFault, match=r"GEM1013.*end after 120 bytes"):
        run(FILL + FENCE + BAR + only("eq 0", SEND + READ, "go"), [tensor], [memory])


def test_a_box_begins_at_whole_16_bytes() -> None:
    memory = np.zeros((20, 32), np.int32)
    tensor = matrix_map(memory, "i32", (32, 16), swizzle=128)
    late = (FILL + FENCE + BAR + only("eq 0", SEND + READ, "go")).replace("%r1, 0", "%r1, 3", 1)
    with pytest.raises(PtxFault, match=r"GEM1013.*begins 12 bytes behind its row"):
        run(late, [tensor], [memory])


def test_what_is_added_is_added() -> None:
    out = np.ones((16, 32), np.int32)
    add = (
        ZEROS + "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group "
        "[m0, {%r1, %r2}], [tile];\n" + COMMIT + "cp.async.bulk.wait_group 0;\n"
    )
    tensor = matrix_map(out, "i32", (32, 16), swizzle=0)
    run(FILL + FENCE + BAR + only("eq 0", add, "go"), [tensor], [out])
    np.testing.assert_array_equal(out.ravel(), np.arange(1, 513))


WRITE = "st.shared.b32 [tile], %r50;\n"

WRONG: dict[str, tuple[str, str]] = {
    "no proxy fence": (FILL + BAR + only("eq 0", SEND + READ, "go"), "GEM1014.*reads what thread"),
    "the fence before the writes": (
        FENCE + FILL + BAR + only("eq 0", SEND + READ, "go"),
        "GEM1014.*reads what thread",
    ),
    "no barrier": (
        FILL + FENCE + only("eq 0", SEND + READ, "go"), "GEM1003.*reads what thread|GEM1004",
    ),
    "never written": (only("eq 0", SEND + READ, "go"), "GEM1004.*was never written"),
    "half written": (
        only("lt 64", FILL + FENCE, "x") + BAR + only("eq 0", SEND + READ, "go"),
        "GEM1004.*byte 1024 of tile.* was never written",
    ),
    "overwritten at once": (
        FILL + FENCE + BAR + only("eq 0", SEND + WRITE + READ, "go"),
        "GEM1008.*overwrites what a store of a box has yet to read",
    ),
    "overwritten by others": (
        FILL + FENCE + BAR + only("eq 0", SEND + READ, "go") + only("eq 32", WRITE, "x"),
        "GEM1003.*(of a box reads, and whose wait|reads what thread 32)|GEM1008.*yet to read",
    ),
    "others wait": (
        FILL + FENCE + BAR + only("eq 0", SEND, "go") + READ + BAR + only("eq 32", WRITE, "x")
        + only("eq 0", READ, "y"),
        "",
    ),
    "no wait": (FILL + FENCE + BAR + only("eq 0", SEND, "go"), "GEM1016.*thread 0 ends and does"),
    "no group": (
        FILL + FENCE + BAR + only("eq 0", ZEROS + store("tile", "%r1, %r2") + READ, "go"),
        "GEM1016.*after cp.async.bulk.commit_group",
    ),
    "a wait for all but one": (
        FILL + FENCE + BAR + only("eq 0", SEND + READ.replace("0", "1"), "go"),
        "GEM1016.*thread 0 ends and does",
    ),
    "misaligned": (
        FILL + FENCE + BAR + only("eq 0", ZEROS + store("tile+16", "%r1, %r2") + COMMIT, "go"),
        "GEM1002.*no multiple of 128",
    ),
    "past the end": (
        FILL + FENCE + BAR + only("eq 0", ZEROS + store("tile+64512", "%r1, %r2") + COMMIT, "go"),
        "GEM1002.*2048 bytes at 64512 of the 65536 bytes of tile",
    ),
    "no such map": (
        "mov.b64 %d1, 64;\n" + only("eq 0", ZEROS + store("tile", "%r1, %r2", tensor="%d1"), "go"),
        "GEM1013.*no tensor map at 0x40",
    ),
    "three coordinates": (
        only("eq 0", ZEROS + store("tile", "%r1, %r2, %r1").replace(".2d", ".3d"), "go"),
        "GEM1013.*m0 has 2 dimensions, not 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_store_is_found(name: str, seed: int | None) -> None:
    body, message = WRONG[name]
    if not message:
        sent(body, seed=seed)
        return
    with pytest.raises(PtxFault, match=message):
        sent(body, seed=seed)


TAKE = "ld.shared.b32 %r1, [tile];\n"
COPY = ZEROS + load("tile", "%r1, %r2", "bar")
GO = only("eq 0", expecting(1024) + COPY, "go")
FULL = wait("bar", "0", "full")

LINGER = "mov.u32 %r9, 0;\nmore:\nadd.u32 %r9, %r9, 1;\nsetp.lt.u32 %p, %r9, 90;\n@%p bra more;\n"

WRONG_LOADS: dict[str, tuple[str, str]] = {
    "right": (MADE + GO + FULL + TAKE, ""),
    "no wait": (MADE + GO + TAKE, "GEM1008.*an asynchronous copy of thread 0 has yet|GEM1004"),
    "one warp does not wait": (
        MADE + GO + only("lt 96", FULL, "x") + only("ge 96", TAKE, "y"),
        "GEM1008.*yet to fill|GEM1003.*an asynchronous copy writes without a wait|GEM1004",
    ),
    "a barrier instead of a wait": (
        MADE + only("eq 0", expecting(1024) + COPY, "go") + only("lt 32", FULL, "x") + BAR + TAKE,
        "",
    ),
    "never waited for": (MADE + GO, "GEM1012.*1024 bytes are still|GEM1016"),
    "another byte": (
        MADE + GO + FULL + "ld.shared.b32 %r1, [tile+1024];\n", "GEM1004.*never written"
    ),
    "over a write without a fence": (MADE + FILL + BAR + GO + FULL, "GEM1014.*writes what thread"),
    "over a write with one": (MADE + FILL + FENCE + BAR + GO + FULL, ""),
    "over a read": (MADE + FILL + FENCE + BAR + TAKE + GO + FULL, "GEM1003.*writes what .*reads"),
    "over a read before a barrier": (MADE + FILL + FENCE + BAR + TAKE + BAR + GO + FULL, ""),
    "over another copy": (
        MADE + only("eq 0", expecting(2048) + COPY + COPY, "go") + FULL, "GEM1008.*writes what",
    ),
    "a write over it": (
        MADE + GO + only("eq 32", WRITE, "x") + FULL, "GEM1008.*yet to fill|GEM1003",
    ),
    "no mbarrier": (GO + FULL, "GEM1012.*no mbarrier is initialised"),
    "too many bytes": (
        MADE + only("eq 0", expecting(1040) + COPY, "go") + FULL, "GEM1011.*16 bytes are still",
    ),
    "too few bytes": (
        MADE + only("eq 0", expecting(1008) + COPY, "go") + FULL, "GEM1011.*16 bytes more than",
    ),
    "what others write in global memory": (
        MADE + only("eq 32", "st.global.b32 [%d50], 1;\n", "x") + GO + FULL,
        "GEM1003.*reads what thread 32 writes|GEM1003.*writes what",
    ),
    "what others wrote before a barrier": (
        MADE + only("eq 32", "st.global.b32 [%d50], 1;\n", "x") + BAR + GO + FULL, "",
    ),
    "bytes and no copy": (
        MADE + only("eq 0", expecting(1024), "go"), "GEM1012.*1 of 1 .*1024 bytes are still",
    ),
    "a mask of another block": (
        MADE + only("eq 0", expecting(1024) + ZEROS + "mov.b16 %h0, 2;\n"
        + load("tile", "%r1, %r2", "bar", multicast="%h0"), "go") + FULL,
        "GEM1002.*the mask 0x2 names blocks of a cluster of 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("name", WRONG_LOADS)
def test_a_wrong_load_is_found(name: str, seed: int | None) -> None:
    body, message = WRONG_LOADS[name]
    source = np.ones((32, 32), np.int32)
    tensor = matrix_map(source, "i32", (32, 8))
    if not message:
        run(body, [tensor], [source], seed=seed)
        return
    with pytest.raises(PtxFault, match=message):
        run(body, [tensor], [source], seed=seed)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_a_barrier_does_not_stand_for_a_wait(seed: int | None) -> None:
    """The copy may have landed before it, which nobody knows."""
    source = np.ones((32, 32), np.int32)
    with pytest.raises(PtxFault, match=r"GEM1008.*yet to fill|GEM1003.*without a wait between"):
        body = MADE + GO + LINGER + BAR + TAKE + FULL
        run(body, [matrix_map(source, "i32", (32, 8))], [source], seed=seed)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("missing", range(4))
def test_a_copy_comes_after_all_who_read_a_byte(missing: int, seed: int | None) -> None:
    """One warp reads it too, and nobody knows when."""
    away = f"shr.u32 %r9, %r50, 5;\nsetp.ne.u32 %p, %r9, {missing};\n@%p "
    arrive = "mbarrier.arrive.shared::cta.b64 _, [bar+8];\n"
    made = INIT.format(full=1, empty=96) + FILL + FENCE + BAR + TAKE + away + arrive
    go = wait("bar+8", "0", "free") + expecting(1024) + COPY
    by = 0 if missing else 32
    source = np.ones((32, 32), np.int32)
    with pytest.raises(PtxFault, match=r"GEM1003.*writes what .* reads without|GEM1008"):
        body = made + only(f"eq {by}", go, "go") + FULL
        run(body, [matrix_map(source, "i32", (32, 8))], [source], seed=seed)
    run(made.replace("96", "128").replace(away, "") + only(f"eq {by}", go, "go") + FULL,
        [matrix_map(source, "i32", (32, 8))], [source], seed=seed)  # fmt: skip


def test_a_write_comes_after_all_stores_of_a_byte() -> None:
    """Two threads store the same box, and the writer meets one of them only."""
    other = SEND.replace("mov.u32 %r2, 0", "mov.u32 %r2, 16")
    both = only("eq 0", SEND + READ, "a") + only("eq 32", other + READ, "b")
    meet = "setp.ge.u32 %p, %r50, 96;\n@%p bra end;\n{}bar.sync 1, {};\n"
    write = only("eq 64", WRITE, "c") + "end:\n"
    early = "setp.lt.u32 %p, %r50, 32;\n@%p bra end;\n"
    first = FILL + FENCE + BAR + both
    with pytest.raises(PtxFault, match=r"GEM1003.*a store of a box reads, and whose wait"):
        sent(first + meet.format(early, 64) + write)
    sent(first + meet.format("", 96) + write)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_a_copy_that_lands_early_must_be_waited_for_too(seed: int | None) -> None:
    source = np.ones((32, 32), np.int32)
    with pytest.raises(PtxFault, match=r"GEM1016.*not wait for"):
        run(MADE + GO + LINGER, [matrix_map(source, "i32", (32, 8))], [source], seed=seed)


def a_map(**changes: Any) -> TensorMap:
    fields: dict[str, Any] = {
        "argument": 0, "item": "bf16", "extents": (64, 32), "strides_bytes": (128,),
        "box": (64, 8), "swizzle_bytes": 128,
    }  # fmt: skip
    return TensorMap(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides_bytes": (120,)}, r"GEM1013.*m0 has the strides \(120,\)"),
        ({"box": (64, 257)}, "GEM1013.*has the box"),
        ({"box": (32, 8)}, "GEM1013.*rows of 64 bytes, and is swizzled over 128"),
        ({"box": (4, 8), "swizzle_bytes": 0}, "GEM1013.*rows of 8 bytes, no multiple of 16"),
        ({"swizzle_bytes": 16}, "GEM1013.*a swizzle over 16 bytes"),
        ({"extents": (64, 0)}, "GEM1013.*has the extents"),
        ({"extents": (64, 33)}, "GEM1013.*reaches to byte 4224 of a buffer of 4096"),
        ({"offset_bytes": 8}, "GEM1013.*begins at byte 8"),
        ({"box": (64,)}, "GEM1013.*has 2 extents"),
        ({"argument": 1}, "GEM1007.*m0 is of the buffer 1"),
    ],
)
def test_a_map_obeys_the_rules_of_the_driver(changes: dict[str, Any], message: str) -> None:
    source = np.zeros((32, 64), ml_dtypes.bfloat16)
    run("", [a_map()], [source])
    with pytest.raises(PtxFault, match=message):
        run("", [a_map(**changes)], [source])


def test_a_map_may_be_fetched_before() -> None:
    source = np.zeros((32, 64), ml_dtypes.bfloat16)
    text = (
        "mov.b64 %d1, m0;\ncvta.param.u64 %d2, %d1;\nprefetch.tensormap [%d2];\n"
        + ZEROS
        + "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%d2, {%r1, %r2}];\n"
    )
    run(text, [a_map()], [source])
    with pytest.raises(PtxFault, match=r"GEM1013.*no tensor map"):
        run("prefetch.tensormap [%d50];", [a_map()], [source])
