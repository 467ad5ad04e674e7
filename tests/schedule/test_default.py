"""Default schedules: legal and within the machine, for every machine and any problem."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm, Schedule
from gemmir.machine import CpuMachine, GpuMachine, TpuMachine, machine_for, targets
from gemmir.machine.cpu import SHIPPED
from gemmir.schedule import check_fits
from gemmir.schedule.default import default_schedule
from tests.strategies import epilogues, examples, problems

TARGETS = [target for target, machine in targets() if not isinstance(machine, TpuMachine)]

Lowers = Callable[[Gemm, str, int], None]


def check(gemm: Gemm, target: str, threads: int) -> None:
    """The default schedule of `gemm` is the same text again, fits, and can be emitted."""
    machine = machine_for(target)
    assert not isinstance(machine, TpuMachine)
    threads = threads if isinstance(machine, CpuMachine) else 1
    schedule = default_schedule(gemm, machine, threads)
    assert Schedule.parse(str(schedule)) == schedule
    check_fits(schedule, gemm, machine)
    lowered = gemmir.lower(gemm, target=target, threads=threads)
    assert lowered.schedule == schedule
    assert isinstance(machine, CpuMachine | GpuMachine)
    assert lowered.artifact.cpu == machine.llvm_cpu


@pytest.mark.parametrize("target", TARGETS)
def test_small_problems(target: str) -> None:
    @given(problems(), st.sampled_from([1, 1, 2, 3]))
    @examples(0.6)
    def each(gemm: Gemm, threads: int) -> None:
        check(gemm, target, threads)

    each()


@st.composite
def shapes(draw: st.DrawFn) -> Gemm:
    """Problems of every size, from vectors to the largest that can be written down."""
    batch = draw(st.sampled_from([None, None, 1, 64]))
    most = 10**6 if batch is None else 10**4
    powers = st.integers(0, most.bit_length() - 2).map(lambda e: 2**e)
    size = st.one_of(st.integers(1, 40), powers, st.integers(1, most))
    return Gemm(
        m=draw(size),
        n=draw(size),
        k=draw(size),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        beta=draw(st.sampled_from([0.0, 1.0])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        epilogue=draw(epilogues()),
        batch=batch,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_problems_of_any_size(target: str) -> None:
    @given(shapes(), st.sampled_from([1, 2, 8, 64]))
    @examples(0.6)
    def each(gemm: Gemm, threads: int) -> None:
        check(gemm, target, threads)

    each()


def test_defaults_use_whole_vectors_of_their_machine() -> None:
    gemm = Gemm(m=512, n=512, k=512)
    for machine in SHIPPED:
        text = str(default_schedule(gemm, machine))
        assert f"width={machine.vector_bytes // 4}" in text
    assert len({default_schedule(gemm, machine) for machine in SHIPPED}) > 1


def test_a_default_depends_on_nothing_but_problem_machine_and_threads() -> None:
    gemm = Gemm(m=300, n=200, k=100, epilogue="bias")
    machine = machine_for("cpu:znver3")
    assert default_schedule(gemm, machine) == default_schedule(replace(gemm), machine)
    assert "cores" in str(default_schedule(gemm, machine, threads=2))
    assert "cores" not in str(default_schedule(gemm, machine))


@pytest.mark.parametrize(
    ("target", "gemm", "copied"),
    [
        ("cpu:znver5", Gemm(m=512, n=512, k=512), False),
        ("cpu:znver5", Gemm(m=520, n=512, k=512), True),
        ("cpu:znver5", Gemm(m=384, n=384, k=384, lda=1024), True),
        ("cpu:znver5", Gemm(m=384, n=384, k=384, ldb=1024), True),
        ("cpu:znver5", Gemm(m=384, n=384, k=384, trans_a=True), True),
        ("cpu:znver5", Gemm(m=256, n=256, k=256, dtype="f64"), False),
        ("cpu:znver3", Gemm(m=192, n=192, k=192), False),
        ("cpu:znver3", Gemm(m=256, n=256, k=256), False),
        ("cpu:znver3", Gemm(m=384, n=384, k=384), False),
        ("cpu:znver3", Gemm(m=384, n=384, k=384, ldb=512), True),
        ("cpu:znver3", Gemm(m=513, n=513, k=500), True),
        ("cpu:znver3", Gemm(m=640, n=640, k=640), True),
        ("cpu:neoverse-v1", Gemm(m=384, n=384, k=384), True),
    ],
)
def test_close_operands_are_not_copied(target: str, gemm: Gemm, copied: bool) -> None:
    machine = machine_for(target)
    assert ("promote{operand=b" in str(default_schedule(gemm, machine))) is copied


@pytest.mark.parametrize(
    ("target", "gemm", "columns"),
    [
        ("cpu:znver5", Gemm(m=1, n=64, k=64, dtype="f64"), 64),
        ("cpu:znver5", Gemm(m=2, n=64, k=64), 64),
        ("cpu:znver5", Gemm(m=4, n=64, k=64, dtype="f64"), 32),
        ("cpu:znver5", Gemm(m=6, n=64, k=64), 64),
        ("cpu:znver5", Gemm(m=7, n=64, k=64), 32),
        ("cpu:znver3", Gemm(m=2, n=64, k=64), 32),
    ],
    ids=str,
)
def test_few_rows_have_wide_tiles(target: str, gemm: Gemm, columns: int) -> None:
    """Eight sums are what two multiply-adds of four cycles wait for."""
    text = str(default_schedule(gemm, machine_for(target), 1))
    found = re.search(r"loops=(?:m,n sizes=\d+,(\d+)|n,m sizes=(\d+))", text)
    assert found is not None and int(found[1] or found[2]) == columns


@pytest.mark.parametrize(
    ("target", "gemm", "is_asked"),
    [
        ("cpu:znver5", Gemm(m=2048, n=2048, k=64), True),
        ("cpu:znver5", Gemm(m=4096, n=4096, k=64), False),
        ("cpu:znver5", Gemm(m=1024, n=1024, k=64), False),
        ("cpu:znver5", Gemm(m=2048, n=2048, k=64, trans_a=True), False),
        ("cpu:znver3", Gemm(m=3000, n=900, k=64), False),
    ],
    ids=str,
)
def test_rows_that_c_pushes_out_are_asked_for(target: str, gemm: Gemm, is_asked: bool) -> None:
    """Sums are short, and C comes from L3."""
    text = str(default_schedule(gemm, machine_for(target), 1))
    assert ("prefetch{operand=a loop=m ahead=1 during=n}" in text) == is_asked


@pytest.mark.parametrize(
    ("target", "gemm", "outside"),
    [
        ("cpu:znver5", Gemm(m=64, n=64, k=64), "m"),
        ("cpu:znver5", Gemm(m=192, n=192, k=192), "n"),
        ("cpu:znver5", Gemm(m=128, n=128, k=128), "m"),
        ("cpu:znver5", Gemm(m=256, n=256, k=256, dtype="f64"), "m"),
        ("cpu:znver5", Gemm(m=255, n=255, k=255, dtype="f64"), "m"),
        ("cpu:znver5", Gemm(m=288, n=288, k=288, dtype="f64"), "n"),
        ("cpu:znver3", Gemm(m=128, n=128, k=128), "n"),
    ],
    ids=str,
)
def test_rows_are_walked_outside_where_columns_of_b_leave_l1(
    target: str, gemm: Gemm, outside: str
) -> None:
    """B is in L1, or in L2 where the columns of a tile collide in L1 or are more than it holds."""
    (first, *_) = default_schedule(gemm, machine_for(target), 1).steps
    assert first.startswith(f"tile{{loops={outside}")


def test_two_transposed_operands_are_read_where_they_lie() -> None:
    both = Gemm(m=48, n=40, k=48, trans_a=True, trans_b=True)
    for target in ("cpu:znver3", "cpu:znver5"):
        text = str(default_schedule(both, machine_for(target), threads=1))
        assert text.startswith("swap-operands,tile{loops=m"), text
        assert "operand=a" not in text
        assert "operand=b" not in text
    for other in (
        replace(both, trans_a=False),
        replace(both, beta=1.0),
        replace(both, epilogue="relu"),
        replace(both, k=8),
    ):
        text = str(default_schedule(other, machine_for("cpu:znver5"), threads=1))
        assert "swap-operands" not in text, text
    any_rows = Gemm(m=gemmir.ANY, n=8192, k=32, trans_a=True, trans_b=True)
    assert "swap-operands" not in str(default_schedule(any_rows, machine_for("cpu:znver5")))


def test_sums_that_are_turned_leave_registers_for_it() -> None:
    """8 x 48 would spill where C is stored transposed; as it is, it does not."""
    for size in (48, 96):
        turned = Gemm(m=size, n=size, k=size, trans_a=True, trans_b=True)
        steps = default_schedule(turned, machine_for("cpu:znver5"), 1).steps
        assert steps[0] == "swap-operands"
        assert "6,48" in steps[1] or "48,6" in steps[1]
        plain = default_schedule(Gemm(m=size, n=size, k=size), machine_for("cpu:znver5"), 1).steps
        assert "8,48" in plain[0] or "48,8" in plain[0]


def test_a_row_shorter_than_a_vector_is_masked_where_masks_are_fast() -> None:
    widths = {
        (target, n): str(default_schedule(Gemm(m=13, n=n, k=13), machine_for(target), threads=1))
        for target in ("cpu:znver3", "cpu:znver5")
        for n in (8, 13)
    }
    assert "width=16" in widths["cpu:znver5", 13]
    assert "width=8" in widths["cpu:znver5", 8]
    assert "width=8" in widths["cpu:znver3", 13]


def test_a_last_tile_that_overlaps_costs_as_much_as_a_whole_one() -> None:
    """Of 32 columns in f64 on AVX2 4 x 12 would compute 36, and 3 x 16 just those."""
    steps = default_schedule(Gemm(m=32, n=32, k=32, dtype="f64"), machine_for("cpu:znver3")).steps
    assert steps[0] == "tile{loops=m,n sizes=3,16 edges=even}"


@pytest.mark.parametrize(
    ("m", "ldb", "slices", "copies"),
    [(4096, None, 32, False), (4096, 80, 32, True), (1024, None, 1, True)],
)
def test_few_columns_keep_slices_of_b_in_l1_where_a_comes_from_memory(
    m: int, ldb: int | None, slices: int, copies: bool
) -> None:
    machine = machine_for("cpu:znver5")
    assert isinstance(machine, CpuMachine)
    k = 4096 if m == 4096 else 1024
    schedule = str(default_schedule(Gemm(m=m, n=64, k=k, ldb=ldb), machine, 1))
    cut = f"tile{{loops=k sizes={k // slices}}}"
    assert cut in schedule if slices > 1 else "loops=k sizes" not in schedule
    assert ("operand=b" in schedule) == copies
    assert ("prefetch{operand=a" in schedule) == (slices > 1)


def test_no_single_vector_is_left_where_four_at_a_time_leave_more() -> None:
    machine = machine_for("cpu:znver5")
    steps = default_schedule(Gemm(m=100, n=112, k=100), machine, 1).steps
    assert "6" in steps[0] and "64" in steps[0]
    steps = default_schedule(Gemm(m=128, n=128, k=128), machine, 1).steps
    assert "64" not in steps[0]


@pytest.mark.parametrize(
    ("target", "gemm", "rows"),
    [
        ("cpu:znver5", Gemm(m=16, n=16, k=16), 3),
        ("cpu:znver5", Gemm(m=16, n=16, k=256), 2),
        ("cpu:znver5", Gemm(m=16, n=16, k=16, trans_a=True), 0),
        ("cpu:znver5", Gemm(m=16, n=32, k=16), 0),
        ("cpu:znver5", Gemm(m=16, n=16, k=3), 0),
        ("cpu:znver3", Gemm(m=8, n=8, k=8), 3),
        ("cpu:znver3", Gemm(m=8, n=8, k=64), 0),
        ("cpu:icelake-server", Gemm(m=16, n=16, k=16), 0),
    ],
    ids=str,
)
def test_some_rows_are_read_wide_where_loads_bind(target: str, gemm: Gemm, rows: int) -> None:
    """A tile of one vector has more loads than multiply-adds."""
    text = str(default_schedule(gemm, machine_for(target), 1))
    assert (f"widen-reads{{rows={rows}}}" in text) if rows else ("widen-reads" not in text)


def test_a_short_k_has_no_loop_where_a_tile_has_one_vector() -> None:
    machine = machine_for("cpu:znver5")
    texts = [str(default_schedule(Gemm(m=16, n=16, k=k), machine, 1)) for k in (13, 16, 17)]
    factors = [re.search(r"factor=(\d+)", text) for text in texts]
    assert [int(f[1]) for f in factors if f is not None] == [13, 16, 4]


def test_few_rows_of_any_number_are_wide_tiles_of_their_size() -> None:
    machine = machine_for("cpu:znver5")
    near = str(default_schedule(Gemm(m=gemmir.ANY, n=3072, k=768), machine, 1))
    assert "tile{loops=n sizes=64 edges=peel},tile{loops=m sizes=6}" in near
    assert "edges=halve" not in near
    far = str(default_schedule(Gemm(m=gemmir.ANY, n=4096, k=4096), machine, 1))
    eight = [
        text.partition("version{loops=m sizes=8}")[2].partition("otherwise")[0]
        for text in (near, far)
    ]
    assert ["prefetch{operand=b" in text for text in eight] == [False, True]
