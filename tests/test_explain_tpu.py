"""explain for TPUs: what is read from the last IR, and libtpu's profile where it is asked for."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from gemmir import tpu_profile
from gemmir.backends.pallas.profile import Profile
from gemmir.cache import ObjectCache
from gemmir.compiler import Lowered, lower, lower_text
from gemmir.errors import MissingError, ProfileError
from gemmir.explain import explain, facts
from gemmir.explain_tpu import CallFacts, tpu_explanation
from gemmir.gemm import Gemm
from gemmir.machine.tpu import V5E
from gemmir.tpu_profile import LABEL, Comparison, compare, comparison_lines, programs

FULL_K: Final = """
tile{loops=m,n sizes=256,256 over=grid}
promote{operand=c to=vmem}
promote{operand=a to=vmem}
promote{operand=b to=vmem}
pipeline{loop=n stages=2 with=dma}
vectorize{with=mxu}
"""
K_LOOP: Final = """
tile{loops=m,n sizes=256,256 over=grid}
promote{operand=c to=vmem}
tile{loops=k sizes=128}
promote{operand=a to=vmem}
promote{operand=b to=vmem}
pipeline{loop=k stages=2 with=dma}
vectorize{with=mxu}
"""
GEMM: Final = Gemm(m=512, n=768, k=1024, dtype="bf16", out="bf16")
KIB: Final = 1024
MIB: Final = 1024 * KIB


def lowered(schedule: str = FULL_K, gemm: Gemm = GEMM, target: str = "tpu:v5e") -> Lowered:
    return lower(gemm, target, schedule)


def kernel(found: Lowered) -> CallFacts:
    (only,) = tpu_explanation(found).kernels
    return only


def test_blocks_and_what_they_move() -> None:
    """2 x 3 steps: a block of A stays for the three of its row, B is fetched for both rows."""
    found = kernel(lowered())
    assert (found.grid, found.steps, found.semantics) == ((2, 3), 6, ("parallel", "parallel"))
    a, b, c = found.blocks
    assert (a.name, a.dtype, a.array, a.block) == ("a", "bf16", (512, 1024), (256, 1024))
    assert (a.vmem_bytes, a.hbm_bytes) == (2 * 512 * KIB, MIB)
    assert b.hbm_bytes == 2 * 1024 * 768 * 2
    assert c.hbm_bytes == 512 * 768 * 2
    assert found.vmem_bytes == 2 * (512 + 512 + 128) * KIB
    assert found.flops == GEMM.flops
    assert found.flops_per_step == GEMM.flops / 6
    assert (found.chunk, found.chunks) == (1024, 1)


def test_a_loop_over_k_is_a_dimension_of_the_grid() -> None:
    found = kernel(lowered(K_LOOP))
    assert found.grid == (2, 3, 8)
    assert found.semantics == ("parallel", "parallel", "arbitrary")
    assert found.scratch_bytes == 256 * 256 * 4
    assert (found.chunk, found.chunks) == (128, 8)


def test_a_c_that_is_read_has_two_blocks() -> None:
    found = kernel(lowered(gemm=replace(GEMM, beta=1.0)))
    assert [block.name for block in found.blocks] == ["a", "b", "old c", "c"]


def test_what_is_predicted() -> None:
    """Of a step on v5e: the products take 1024 cycles, half of its bytes and 0.5 us more.

    The first blocks of A and B, 1 MiB at 546 bytes a cycle, are waited for and are not in a step.
    """
    found = kernel(lowered()).prediction
    assert found.mxu_cycles_per_step == 2 * 256 * 256 * 1024 / 131072
    assert found.overhead_cycles_per_step == V5E.grid_step_overhead_cycles
    moved = MIB + 2 * 1024 * 768 * 2 + 512 * 768 * 2
    rate = 819e9 / 1.5e9
    assert found.hbm_cycles_per_step == pytest.approx((moved - MIB) / 6 / rate)
    assert found.copy_cycles_per_step == pytest.approx(750 + found.hbm_cycles_per_step / 2)
    assert found.bound == "latency of copies"
    assert found.cycles == pytest.approx(6 * found.copy_cycles_per_step + MIB / rate)


def test_large_blocks_are_bound_by_the_matrix_units_and_long_rows_by_hbm() -> None:
    large = Gemm(m=4096, n=4096, k=4096, dtype="bf16", out="bf16")
    schedule = FULL_K.replace("256,256", "512,512")
    assert kernel(lowered(schedule, large)).prediction.bound == "MXU"
    thin = Gemm(m=128, n=4096, k=4096, dtype="bf16", out="bf16")
    schedule = FULL_K.replace("256,256", "128,1024")
    assert kernel(lowered(schedule, thin)).prediction.bound == "HBM"


def test_two_cores_share_the_steps() -> None:
    one, two = kernel(lowered()).prediction, kernel(lowered(target="tpu:v5p")).prediction
    assert two.mxu_cycles_per_step == one.mxu_cycles_per_step
    assert two.cycles < one.cycles


def test_as_text() -> None:
    text = explain(lowered(K_LOOP))
    assert "grid       2 x 3 x 8 = 48 steps; in order along dimension 2\n" in text
    assert "block      a: 256 x 128 of 512 x 1024 bf16, 2 buffers, 128 KiB; " in text
    assert "scratch    256 KiB\n" in text
    assert "128 products by the matrix units, in their own order, added in the order of k 8 times"
    assert "of 128 MiB a core" in text
    assert text == lowered(K_LOOP).explain()


def test_as_json() -> None:
    found = json.loads(json.dumps(facts(lowered()), default=str))
    assert found["target"] == "tpu:v5e"
    assert found["kernels"][0]["grid"] == [2, 3]
    assert "profile" not in found


def test_without_libtpu_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert "pip install gemmir[tpu-aot]" in explain(lowered())


# The profile -------------------------------------------------------------------------------------


def some(**changes: Any) -> Profile:
    """A profile with the figures that matter here."""
    plain = Profile(
        target="tpu:v5e",
        function="gemm",
        flops=1,
        ideal_cycles=900,
        method="simulated",
        cycles=1000,
        cycles_by={"simulated": 1000, "schedule": 950},
        seconds=1e-6,
        copy_bytes=0,
        copy_cycles=0,
        hbm_bytes=MIB,
        hbm_bytes_by_block=True,
        hbm_cycles=500,
        vmem_bytes=MIB,
        code_bytes=4096,
        grid=(2, 3),
        loop=None,
        iterations=6,
        shares={"MXU": 0.9},
        bound="MXU",
        refused="",
        late=False,
        versions={"jax": "0", "jaxlib": "0", "libtpu": "0"},
    )
    return replace(plain, **changes)


def test_both_are_compared_by_a_method_that_both_have() -> None:
    same = Comparison(ours=some(), xla=some(cycles_by={"simulated": 1200}))
    assert (same.method, same.mxu_utilisation, same.xla_mxu_utilisation) == ("simulated", 0.9, 0.75)
    xla = some(cycles_by={"schedule": 1000, "hlo-estimate": 2000}, method="schedule")
    other = Comparison(ours=some(), xla=xla)
    assert other.method == "schedule"
    assert other.mxu_utilisation == pytest.approx(900 / 950)
    assert other.xla_mxu_utilisation == 0.9


def test_copies_outside_are_a_second_figure() -> None:
    """And fewer cycles than HBM takes are not believed in either."""
    found = Comparison(ours=some(), xla=some(copy_cycles=200, copy_bytes=MIB, hbm_cycles=1300))
    assert found.xla_mxu_utilisation == pytest.approx(900 / 1300)
    assert some(copy_cycles=200).mxu_utilisation_with_copies == pytest.approx(900 / 1200)
    lines = [" ".join(line.split()) for line in comparison_lines(found)]
    assert lines[0] == f"profile {LABEL}, libtpu 0"
    assert "MXU utilisation, simulated 90.0% 69.2%" in lines
    assert "with copies outside 90.0% 60.0%" in lines
    assert "HBM traffic 1.0 MiB 1.0 MiB, 1.0 MiB of it copied" in lines
    assert lines[-1] == "copies of a whole operand before a product are in the second line only"


def test_programs_take_what_is_read() -> None:
    gemm = replace(GEMM, trans_b=True)
    ours, xla = programs(gemm, lowered(gemm=gemm).artifact)
    assert [a.shape for a in ours.arguments] == [(512, 1024), (768, 1024)]
    assert ours.arguments == xla.arguments
    assert {a.dtype for a in ours.arguments} == {"bfloat16"}
    assert ours.text == lowered(gemm=gemm).artifact.text


def test_a_profile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once for each program, machine and version; `say` is told of the long ones only."""
    made: list[str] = []
    said: list[str] = []

    def profile(machine: object, program: object, **options: object) -> Profile:
        made.append(str(machine))
        return some()

    monkeypatch.setattr(tpu_profile, "profile", profile)
    monkeypatch.setattr(tpu_profile, "require_libtpu", lambda: None)
    monkeypatch.setattr(tpu_profile, "versions", lambda: {"libtpu": "0"})
    cache = ObjectCache(tmp_path)
    first = compare(lowered(), cache=cache, say=said.append)
    assert compare(lowered(), cache=cache, say=said.append) == first
    assert (len(made), said) == (2, [])
    large = lowered(gemm=Gemm(m=4096, n=4096, k=4096, dtype="bf16", out="bf16"))
    compare(large, cache=cache, say=said.append)
    assert len(made) == 4
    assert "1 million cycles for tpu:v5e" in said[0]


def test_a_profile_that_came_too_late_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def profile(machine: object, program: object, **options: object) -> Profile:
        made.append(str(machine))
        return some(refused="it was not done in 1 s", late=True)

    monkeypatch.setattr(tpu_profile, "profile", profile)
    monkeypatch.setattr(tpu_profile, "require_libtpu", lambda: None)
    monkeypatch.setattr(tpu_profile, "versions", lambda: {"libtpu": "0"})
    compare(lowered(), cache=ObjectCache(tmp_path), say=print)
    found = compare(lowered(), cache=ObjectCache(tmp_path), say=print)
    assert len(made) == 4
    assert any("not done in 1 s" in line for line in comparison_lines(found))


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    whole = lowered()
    text = whole.stages["vectorized"].text
    with pytest.raises(ProfileError) as caught:
        compare(lower_text(text, "tpu:v5e"), cache=ObjectCache(None), say=print)
    assert caught.value.code == "GEM1111"
    with pytest.raises(ProfileError) as caught:
        compare(replace(whole, problem=replace(GEMM, k=0)), cache=ObjectCache(None), say=print)
    assert caught.value.code == "GEM1112"
    grouped = replace(whole, problem=Gemm(m=512, n=768, k=1024, dtype="bf16", groups=4))
    with pytest.raises(ProfileError) as caught:
        compare(grouped, cache=ObjectCache(None), say=print)
    assert caught.value.code == "GEM1110"


def test_a_missing_libtpu_is_an_error_of_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(MissingError) as caught:
        compare(lowered(), cache=ObjectCache(None), say=print)
    assert caught.value.code == "GEM0630"
