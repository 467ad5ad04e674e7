"""Every stage of every lowering means the same: run in the evaluator, it is within the bound."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from gemmir import Gemm, Schedule
from gemmir.evaluate import evaluate
from gemmir.ir.build import build
from gemmir.lowering import run_pass
from gemmir.machine import machine_for
from gemmir.machine.gpu import SM_80
from gemmir.machine.tpu import SHIPPED_TPUS, V5E
from gemmir.schedule import check_fits
from gemmir.schedule.default import default_schedule
from tests.gpu_strategies import gpu_cases
from tests.strategies import (
    arrays_for,
    copied,
    examples,
    furthest,
    problems,
    scheduled,
    surroundings,
)
from tests.tpu_strategies import tpu_cases, tpu_problems, tpu_schedules

MOST = 20
"""The evaluator takes some 10 us for an op on a vector, so that extents are small."""

WHOLE_TILES = 300
"""Extents of up to two and a half blocks of 128; an op on a block is one of NumPy."""


def check_stages(gemm: Gemm, schedule: Schedule) -> None:
    """Run the IR before the first pass of `schedule` and after each."""
    arrays = arrays_for(gemm)
    outside = {name: surroundings(array) for name, array in arrays.items()}
    module = build(gemm)
    for p in (None, *schedule.passes):
        if p is not None:
            run_pass(p, module, verify=True)
        found = copied(arrays)
        evaluate(module, list(found.values()))
        assert furthest(gemm, arrays, found["c"]) <= 1, f"after {p}"
        assert {name: surroundings(array) for name, array in found.items()} == outside, f"after {p}"


@given(scheduled(MOST))
@examples(1)
def test_every_stage_of_a_drawn_schedule(case: tuple[Gemm, Schedule]) -> None:
    check_stages(*case)


@given(gpu_cases(SM_80, MOST))
@examples(0.6)
def test_every_stage_of_a_schedule_drawn_for_a_gpu(case: tuple[Gemm, Schedule]) -> None:
    check_stages(*case)


@given(tpu_cases(V5E, MOST))
@examples(2)
def test_every_stage_of_a_schedule_drawn_for_a_tpu(case: tuple[Gemm, Schedule]) -> None:
    check_stages(*case)


@given(st.data())
@examples(0.6)
def test_every_stage_of_a_schedule_of_blocks_that_a_tpu_has(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(SHIPPED_TPUS))
    gemm = data.draw(tpu_problems(machine, WHOLE_TILES))
    schedule = data.draw(tpu_schedules(gemm, machine))
    check_fits(schedule, gemm, machine)
    check_stages(gemm, schedule)


@given(st.data())
@examples(0.3)
def test_every_stage_of_the_default_schedule_for_a_tpu(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(SHIPPED_TPUS))
    gemm = data.draw(tpu_problems(machine, WHOLE_TILES))
    check_stages(gemm, default_schedule(gemm, machine))


@given(problems(MOST))
@examples(0.6)
def test_every_stage_of_the_default_schedule(gemm: Gemm) -> None:
    check_stages(gemm, default_schedule(gemm, machine_for("cpu")))


@given(problems(MOST))
@examples(0.3)
def test_every_stage_of_the_default_schedule_for_two_threads(gemm: Gemm) -> None:
    check_stages(gemm, default_schedule(gemm, machine_for("cpu"), threads=2))


def test_drawn_schedules_have_every_pass_and_fit_the_machine() -> None:
    words = {
        *("interchange", "fuse-epilogue", "unroll", "parallelize", "expand-math", "vectorize"),
        *("edges=overlap", "edges=peel", "over=cores", "prefetch=true", "to=l1", "to=l2", "to=l3"),
        *("operand=a", "operand=b", "operand=c", "loops=k", "loops=batch"),
    }
    seen: set[str] = set()

    @given(scheduled())
    @examples(8)
    def draw(case: tuple[Gemm, Schedule]) -> None:
        gemm, schedule = case
        check_fits(schedule, gemm, machine_for("cpu"))
        seen.update(word for word in words if word in str(schedule))

    draw()
    assert seen == words


def test_schedules_drawn_for_a_gpu_have_every_pass_and_fit_it() -> None:
    words = {
        *("split-k", "interchange", "group=", "fuse-epilogue", "unroll", "expand-math", "pipeline"),
        *("with=fma", "with=mma", "over=blocks", "over=warps", "over=threads", "loops=k"),
        *("operand=a to=shared layout=panel", "operand=b to=shared layout=panel", "loops=batch"),
        *("layout=swizzle:32", "layout=swizzle:64", "layout=swizzle:128", "stages=2", "stages=4"),
    }
    seen: set[str] = set()

    @given(gpu_cases(SM_80))
    @examples(8)
    def draw(case: tuple[Gemm, Schedule]) -> None:
        gemm, schedule = case
        check_fits(schedule, gemm, SM_80)
        seen.update(word for word in words if word in str(schedule))

    draw()
    assert seen == words


def test_schedules_drawn_for_a_tpu_have_every_pass() -> None:
    words = {
        *("interchange", "parallelize", "fuse-epilogue", "pipeline{loop=k", "pipeline{loop=n"),
        *("over=grid", "loops=batch", "loops=k", "edges=peel", "pipeline{loop=m", "with=mxu"),
    }
    seen: set[str] = set()

    @given(tpu_cases(V5E))
    @examples(8)
    def draw(case: tuple[Gemm, Schedule]) -> None:
        _, schedule = case
        text = str(schedule)
        seen.update(word for word in words if word in text)
        if text.startswith("promote"):
            seen.add("promoted as a whole")
        if text.index("operand=c") > text.index("pipeline"):
            seen.add("summed part by part")

    draw()
    assert seen == words | {"promoted as a whole", "summed part by part"}
