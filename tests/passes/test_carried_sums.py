"""promote{operand=c to=registers carry=true}: sums that go on from one slice of k to the next."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.backends.cpu.openmp import runtime
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.lowering import run_passes, run_stages
from gemmir.machine import machine_for
from gemmir.schedule import Schedule
from gemmir.schedule.default import default_schedule
from gemmir.sizes import ANY
from tests.strategies import arrays_for, examples

After = Callable[[Gemm, str], ModuleOp]

CARRY = "promote{operand=c to=registers carry=true}"
LANES = "vectorize{with=fma width=4}"


@given(
    m=st.integers(1, 9),
    n=st.integers(1, 13),
    k=st.integers(1, 12),
    kc=st.integers(1, 12),
    edges=st.sampled_from(["clip", "peel", "halve"]),
    beta=st.sampled_from([0.0, 1.0]),
    epilogue=st.sampled_from(["", "bias+relu"]),
)
@example(m=9, n=13, k=12, kc=5, edges="clip", beta=0.0, epilogue="bias+relu")
@example(m=5, n=9, k=7, kc=7, edges="peel", beta=1.0, epilogue="")
@examples(0.5)
def test_every_stage_keeps_the_meaning(
    m: int, n: int, k: int, kc: int, edges: str, beta: float, epilogue: str
) -> None:
    gemm = Gemm(m=m, n=n, k=k, beta=beta, epilogue=epilogue)
    fuse = "fuse-epilogue," if epilogue else ""
    if kc >= k and beta == 0:
        return
    schedule = f"tile{{loops=k sizes={kc}}},tile{{loops=m,n sizes=4,8 edges={edges}}},{CARRY},"
    module = build(gemm)
    arrays = arrays_for(gemm)
    exact, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    for step in Schedule.parse(f"{schedule}{fuse}{LANES}").steps:
        run_passes(module, Schedule.parse(step))
        own = [array.copy() if name == "c" else array for name, array in arrays.items()]
        evaluate(module, own)
        assert np.all(np.abs(own[-1] - exact) <= bound), step


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_sum_that_goes_on_may_be_cut_further(beta: float) -> None:
    gemm = Gemm(m=3, n=11, k=22, beta=beta)
    slices = f"tile{{loops=k sizes=8}},{CARRY},tile{{loops=k sizes=3}},{LANES}"
    check(gemm, target="cpu:x86-64-v3", schedule=slices).require_ok()


@given(kc=st.integers(3, 40), panels=st.booleans())
@example(kc=40, panels=True)
def test_bits_do_not_depend_on_where_k_is_cut(kc: int, panels: bool) -> None:
    gemm = Gemm(m=11, n=37, k=41)
    arrays = arrays_for(gemm)
    end = "vectorize{with=fma width=8},unroll{loop=k factor=3}"
    tiles = "tile{loops=m,n sizes=4,16},"
    pack = "promote{operand=b to=l2 layout=panel:16}," if panels else ""
    whole = f"{tiles}promote{{operand=c to=registers}},{end}"
    cut = f"tile{{loops=k sizes={kc}}},{pack}{tiles}{CARRY},{end}"
    one, other = (gemmir.compile(gemm, schedule=s)(arrays["a"], arrays["b"]) for s in (whole, cut))
    np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def test_without_it_they_do() -> None:
    """The test above can fail."""
    gemm = Gemm(m=11, n=37, k=41)
    arrays = arrays_for(gemm)
    plain = "tile{loops=m,n sizes=4,16},promote{operand=c to=registers},vectorize{with=fma width=8}"
    one, other = (
        gemmir.compile(gemm, schedule=s)(arrays["a"], arrays["b"])
        for s in (plain, f"tile{{loops=k sizes=5}},{plain}")
    )
    assert (one != other).any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("n", "k"), [(608, 600), (1024, 256)])
def test_a_row_has_the_same_bits_in_all_versions(n: int, k: int, threads: int) -> None:
    """By the default schedule of any m: versions of one row and of few, of some, and of many."""
    if threads > 1:
        runtime()
    gemm = Gemm(m=ANY, n=n, k=k)
    arrays = arrays_for(gemm.at(m=300))
    kernel = gemmir.compile(gemm, threads=threads)
    whole = kernel(arrays["a"], arrays["b"])
    assert np.all(np.abs(whole - gemm.reference(arrays)) <= gemm.error_bound(arrays))
    for rows in (1, 2, 3, 4, 5, 7, 13, 33, 64, 97, 256):
        part = kernel(arrays["a"][:rows], arrays["b"])
        np.testing.assert_array_equal(part.view(np.uint32), whole[:rows].view(np.uint32))


def test_slices_with_lanes_along_k_do_not_go_on() -> None:
    """Of a B that is stored n x k, by which 5 to 8 rows have k cut."""
    gemm = Gemm(m=ANY, n=256, k=3000, trans_b=True)
    passes = str(default_schedule(gemm, machine_for("cpu:znver5"))).split("otherwise")
    along = [version for version in passes if "along=k" in version and "loops=k" in version]
    assert along and not any("carry=true" in version for version in along)
    gemmir.lower(gemm, "cpu:znver5")


def test_check_and_explain_know_it() -> None:
    schedule = f"tile{{loops=k sizes=4}},{CARRY},{LANES}"
    gemm = Gemm(m=3, n=9, k=10)
    assert check(gemm, schedule=schedule).ok
    text = gemmir.lower(gemm, schedule=schedule).explain()
    assert "from what the slice before has left in c" in text
    assert "one accumulator, 10 fused multiply-adds in the order of k" in text


def test_a_stage_is_read_again() -> None:
    schedule = Schedule.parse(f"tile{{loops=k sizes=4}},{CARRY},{LANES}")
    whole = gemmir.lower(Gemm(m=3, n=9, k=10), schedule=schedule)
    for stage in run_stages(build(Gemm(m=3, n=9, k=10)), schedule):
        assert gemmir.lower_text(stage.text).artifact.text == whole.artifact.text


@pytest.mark.parametrize(
    ("gemm", "schedule"),
    [
        (Gemm(m=4, n=8, k=6), CARRY),
        (Gemm(m=4, n=8, k=6, alpha=2.0), f"tile{{loops=k sizes=2}},{CARRY}"),
        (Gemm(m=4, n=8, k=6, beta=2.0), f"tile{{loops=k sizes=2}},{CARRY}"),
        (Gemm(m=4, n=8, k=6, beta=ANY), f"tile{{loops=k sizes=2}},{CARRY}"),
        (Gemm(m=4, n=8, k=6), "promote{operand=b to=l2 layout=panel:8 carry=true}"),
        (
            Gemm(m=8, n=8, k=6),
            "tile{loops=m,n sizes=4,4 over=blocks},tile{loops=k sizes=2}," + CARRY,
        ),
    ],
)
def test_errors(gemm: Gemm, schedule: str) -> None:
    with pytest.raises(ScheduleError, match=r"leave (carry|it) out") as found:
        run_passes(build(gemm), Schedule.parse(schedule))
    assert found.value.code == "GEM1357"
