"""cp.async and its groups, as the PTX ISA defines them: a copy lands as late as the waits allow."""

from __future__ import annotations

import numpy as np
import pytest

from gemmir.backends.ptx.emulator import PtxFault
from tests.backends.ptx.emulator.ptx import Array, kernel, launch

U8, U32 = np.uint8, np.uint32
TILE = ".shared .align 16 .b8 tile[2048];"

COPY = """
    mov.b32 %r40, tile;
    mad.lo.u32 %r41, %r50, 16, %r40;
    mad.wide.u32 %d41, %r50, 16, %d50;
    mad.wide.u32 %d42, %r50, 16, %d51;
"""
"""%r41 and %d41 are 16 bytes a thread in shared memory and of a buffer, %d42 of the last one."""

BACK = """
    ld.shared.v4.b32 {%r30, %r31, %r32, %r33}, [%r41];
    st.global.v4.b32 [%d42], {%r30, %r31, %r32, %r33};
"""


ONE = "cp.async.cg.shared.global [%r41], [%d41], 16;\n"
TWO = "cp.async.cg.shared.global [%r41+512], [%d41], 16;\n"
COMMIT = "cp.async.commit_group;\n"


def copied(body: str, threads: int = 4, source: Array | None = None) -> Array:
    data = np.arange(1, 16 * threads + 1, dtype=U8) if source is None else source
    out = np.zeros(16 * threads, U8)
    launch(kernel(COPY + body, 2, shared=TILE), [data, out], threads)
    return out


@pytest.mark.parametrize("wait", ["cp.async.wait_all;", COMMIT + "cp.async.wait_group 0;"])
@pytest.mark.parametrize(
    "copies",
    [
        ["cg.shared.global [%r41], [%d41], 16"],
        ["ca.shared.global [%r41], [%d41], 16"],
        ["ca.shared::cta.global [%r41], [%d41], 8", "ca.shared.global [%r41+8], [%d41+8], 8"],
        [f"ca.shared.global [%r41+{n}], [%d41+{n}], 4" for n in (0, 4, 8, 12)],
        ["cg.shared.global.L2::128B [%r41], [%d41], 16"],
        ["cg.shared.global [%r41], [%d41], 16, 16"],
    ],
)  # fmt: skip
def test_copies(wait: str, copies: list[str]) -> None:
    text = "".join(f"cp.async.{copy};\n" for copy in copies) + wait + BACK
    assert copied(text).tolist() == list(range(1, 65))


@pytest.mark.parametrize("size", [0, 1, 4, 7, 16])
def test_bytes_past_the_size_of_the_source_are_zeros(size: int) -> None:
    copy = "cp.async.cg.shared.global [%r41], [%d41], 16, %r1;\ncp.async.wait_all;"
    expected = [n + 1 if n % 16 < size else 0 for n in range(64)]
    assert copied(f"mov.u32 %r1, {size};\n" + copy + BACK).tolist() == expected


def test_the_source_is_not_read_past_its_size() -> None:
    """The last thread has 6 bytes left."""
    text = """
        mul.lo.u32 %r1, %r50, 16;
        sub.u32 %r1, 54, %r1;
        min.u32 %r1, %r1, 16;
        cp.async.cg.shared.global [%r41], [%d41], 16, %r1;
        cp.async.wait_all;
    """
    source = np.arange(1, 55, dtype=U8)
    assert copied(text + BACK, source=source).tolist() == [*range(1, 55), *[0] * 10]
    with pytest.raises(PtxFault, match=r"GEM1002.*thread 3.*48 of the 54 bytes of p0"):
        copied(text.replace("min.u32 %r1, %r1, 16", "mov.u32 %r1, 16"), source=source)


def test_a_source_of_no_bytes_may_lie_anywhere() -> None:
    text = "mov.b64 %d1, 16;\ncp.async.cg.shared.global [%r41], [%d1], 16, 0;\ncp.async.wait_all;"
    assert not copied(text + BACK).any()


def test_a_source_that_is_ignored_gives_zeros() -> None:
    text = """
        setp.gt.u32 %p, %r50, 1;
        cp.async.cg.shared.global [%r41], [%d41], 16, %p;
        cp.async.wait_all;
    """
    assert copied(text + BACK).tolist() == [*range(1, 33), *[0] * 32]


def test_more_bytes_than_the_copy_has_are_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"GEM1010.*17 bytes of a copy of 16"):
        copied("cp.async.cg.shared.global [%r41], [%d41], 16, 17;")


@pytest.mark.parametrize(
    "copy",
    [
        "cp.async.cg.shared.global [%r41], [%d41], 8;",
        "cp.async.ca.shared.global [%r41], [%d41], 2;",
        "cp.async.ca.shared.global [%r41], [%d41], 32;",
        "cp.async.shared.global [%r41], [%d41], 16;",
        "cp.async.ca.global.shared [%d41], [%r41], 16;",
        "cp.async.bulk.commit_all;",
        "cp.async.wait_group %r1;",
        "cp.async.mbarrier.arrive.shared.b64 [%r41];",
    ],
)
def test_what_is_not_known_is_a_fault(copy: str) -> None:
    with pytest.raises(PtxFault, match="GEM1001"):
        copied(copy)


@pytest.mark.parametrize(
    ("copy", "space"),
    [
        ("cp.async.cg.shared.global [%r41+8], [%d41], 16;", "shared"),
        ("cp.async.cg.shared.global [%r41], [%d41+8], 16;", "global"),
        ("cp.async.ca.shared.global [%r41], [%d41+2], 4;", "global"),
    ],
)
def test_a_copy_that_is_misaligned_is_a_fault(copy: str, space: str) -> None:
    with pytest.raises(PtxFault, match=rf"GEM1002.*the {space} address .* is no multiple of"):
        copied(copy, source=np.zeros(128, U8))


def test_a_copy_past_the_end_of_shared_memory_is_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"GEM1002.*2048 of the 2048 bytes of tile"):
        copied("cp.async.cg.shared.global [%r40+2048], [%d41], 16;", threads=1)


WAITS_THAT_DO = [
    ONE + COMMIT + "cp.async.wait_group 0;",
    ONE + COMMIT + TWO + COMMIT + "cp.async.wait_group 1;",
    ONE + COMMIT + COMMIT + COMMIT + "cp.async.wait_group 2;",
    ONE + TWO + COMMIT + "cp.async.wait_group 0;",
    ONE + "cp.async.wait_all;",
    ONE + COMMIT + TWO + "cp.async.wait_group 0;",
]
WAITS_THAT_DO_NOT = [
    ONE,
    ONE + COMMIT,
    ONE + "cp.async.wait_group 0;",
    ONE + COMMIT + "cp.async.wait_group 1;",
    TWO + COMMIT + ONE + COMMIT + "cp.async.wait_group 1;",
    ONE + COMMIT + TWO + COMMIT + "cp.async.wait_group 2;",
    TWO + COMMIT + ONE + "cp.async.wait_group 0;",
    ONE + COMMIT + "bar.sync 0;",
]


@pytest.mark.parametrize("waits", WAITS_THAT_DO)
def test_a_wait_that_lets_a_copy_land(waits: str) -> None:
    assert copied(waits + BACK).tolist() == list(range(1, 65))


@pytest.mark.parametrize("waits", WAITS_THAT_DO_NOT)
def test_a_read_of_what_has_not_landed_is_a_fault(waits: str) -> None:
    with pytest.raises(PtxFault, match=r"GEM1008.*reads what an asynchronous copy of thread 0"):
        copied(waits + BACK)


def test_a_write_to_what_has_not_landed_is_a_fault() -> None:
    text = ONE + COMMIT + "st.shared.b32 [%r41+4], %r50;"
    with pytest.raises(PtxFault, match=r"GEM1008.*writes what an asynchronous copy of thread 0"):
        copied(text)


def test_two_copies_to_one_place_are_a_fault() -> None:
    with pytest.raises(PtxFault, match=r"GEM1008.*writes what an asynchronous copy of thread 0"):
        copied(ONE + COMMIT + ONE)
    with pytest.raises(PtxFault, match=r"GEM1003.*two threads write at once"):
        copied("cp.async.cg.shared.global [%r40], [%d41], 16;")


NEIGHBOUR = """
    xor.b32 %r1, %r50, 1;
    mad.lo.u32 %r41, %r1, 16, %r40;
"""


def test_another_thread_reads_what_has_landed_after_a_barrier_only() -> None:
    text = ONE + COMMIT + "cp.async.wait_group 0;\nBARRIER" + NEIGHBOUR + BACK
    expected = np.arange(1, 65, dtype=U8).reshape(4, 16)[[1, 0, 3, 2]].ravel()
    np.testing.assert_array_equal(copied(text.replace("BARRIER", "bar.sync 0;")), expected)
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread 1 writes without a barrier"):
        copied(text.replace("BARRIER", ""))


def test_what_lands_is_new_since_the_last_barrier() -> None:
    text = "bar.sync 0;\n" + ONE + "cp.async.wait_all;" + NEIGHBOUR + BACK
    with pytest.raises(PtxFault, match=r"GEM1003.*reads what thread 1 writes without a barrier"):
        copied(text)


def test_another_thread_needs_the_wait_of_the_thread_that_copies() -> None:
    """Only thread 0 waits."""
    text = ONE + COMMIT + "setp.eq.u32 %p, %r50, 0;\n@%p cp.async.wait_group 0;\nbar.sync 0;" + BACK
    with pytest.raises(PtxFault, match=r"GEM1008.*thread 1,.*copy of thread 1 has yet to fill"):
        copied(text)


def test_a_copy_onto_what_others_still_read_is_a_fault() -> None:
    """The pipeline's stage is filled again without a barrier after its use."""
    text = ONE + COMMIT + "cp.async.wait_group 0;\nbar.sync 0;" + NEIGHBOUR + BACK
    again = "\nmad.lo.u32 %r41, %r50, 16, %r40;\n" + ONE
    copied(text + "bar.sync 0;" + again)
    with pytest.raises(PtxFault, match=r"GEM1003.*writes what thread 1 reads without a barrier"):
        copied(text + again)


def test_a_copy_reads_its_source_when_it_lands() -> None:
    """A thread that changes the source before its wait sees the change."""
    text = ONE + COMMIT + "st.global.b32 [%d41], 0;\ncp.async.wait_group 0;" + BACK
    expected = [0 if n % 16 < 4 else n + 1 for n in range(64)]
    assert copied(text).tolist() == expected


def test_groups_are_those_of_each_thread() -> None:
    """Threads 0 and 1 commit one group more; waiting for all but one lets the others' copy lie."""
    text = (
        ONE
        + COMMIT
        + "setp.lt.u32 %p, %r50, 2;\n@%p cp.async.commit_group;\ncp.async.wait_group 1;"
    )
    with pytest.raises(PtxFault, match=r"GEM1008.*thread 2,"):
        copied(text + BACK)
    fine = text + "\n@!%p bra over;" + BACK + "over:"
    assert copied(fine).tolist() == [*range(1, 33), *[0] * 32]


@pytest.mark.parametrize(("pitch", "degree"), [(16, 1), (32, 2), (128, 8)])
def test_bank_conflicts_of_copies(pitch: int, degree: int) -> None:
    text = f"mad.lo.u32 %r41, %r50, {pitch}, %r40;\n" + ONE
    data, out = np.zeros(16 * 16, U8), np.zeros(16 * 16, U8)
    report = launch(kernel(COPY + text, 2, shared=TILE), [data, out], 16)
    assert [a.ratio for a in report.shared] == [degree]
    assert [a.ratio for a in report.global_] == [1]


def test_a_copy_that_no_one_waits_for_is_no_fault() -> None:
    assert not copied(ONE).any()
