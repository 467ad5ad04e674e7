"""Schedules as values: parse, print, compare and hash."""

from __future__ import annotations

import re
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemmir import ANY, Gemm, PassPipeline, Schedule
from gemmir.errors import ScheduleError
from gemmir.machine import machine_for
from gemmir.machine.gpu import SM_80, SM_90A
from gemmir.passes import pass_class, pass_names
from gemmir.schedule.default import default_schedule
from gemmir.schedule.prepacked import prepacked_text
from gemmir.schedule.schedule import parameters_of
from tests.gpu_strategies import gpu_cases
from tests.hopper_strategies import hopper_cases
from tests.strategies import examples, scheduled

TEXT = (
    "tile{loops=n,k sizes=2048,512},promote{operand=b to=l3 layout=panel:16},"
    "tile{loops=m sizes=72 over=cores edges=peel},promote{operand=c to=registers prefetch=true},"
    "fuse-epilogue,vectorize{with=fma width=8},unroll{loop=k factor=4}"
)
DIGEST = "fd148f83597c"
"""The first 12 hexadecimal digits of the SHA-256 of TEXT: names of files depend on it."""


@given(scheduled())
@examples(1)
def test_parse_is_the_inverse_of_print(case: tuple[Gemm, Schedule]) -> None:
    _, schedule = case
    again = Schedule.parse(str(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert (str(again), again.digest) == (str(schedule), schedule.digest)
    assert Schedule.parse("\n".join(schedule.steps)) == schedule


def test_a_canonical_text_is_printed_as_it_was_read() -> None:
    schedule = Schedule.parse(TEXT)
    assert str(schedule) == TEXT
    assert len(schedule) == len(schedule.steps) == 7
    assert ",".join(schedule.steps) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("},", "}\n"),
        TEXT.replace("},", "},\r\n\r\n  "),
        TEXT.replace("},", "}  # so says the model, {here}\n") + " # end",
        "# first\n" + TEXT + ",\n",
        TEXT.replace("panel:16", '"panel:16"'),
        TEXT.replace("fuse-epilogue", "fuse_epilogue"),
        TEXT.replace("tile{", "gemmir-tile{"),
        TEXT.replace("layout=panel:16", "layout=panel:16 prefetch=false"),
        TEXT.replace("loops=m sizes=72", "sizes=72 loops=m"),
    ],
)
def test_texts_that_say_the_same(text: str) -> None:
    schedule = Schedule.parse(text)
    assert schedule == Schedule.parse(TEXT)
    assert str(schedule) == TEXT


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n\n#"])
def test_a_schedule_may_be_empty(text: str) -> None:
    assert Schedule.parse(text) == Schedule()
    assert str(Schedule()) == ""


def test_any_difference_is_another_schedule() -> None:
    changed = [
        TEXT.replace("72", "71"),
        TEXT.replace("n,k", "k,n"),
        TEXT.replace(" prefetch=true", ""),
        TEXT.removesuffix(",unroll{loop=k factor=4}"),
    ]
    schedules = [Schedule.parse(text) for text in (TEXT, *changed)]
    assert len(set(schedules)) == len({s.digest for s in schedules}) == len(schedules)


def test_the_digest_is_the_same_in_every_process() -> None:
    code = "import sys, gemmir; print(gemmir.Schedule.parse(sys.argv[1]).digest)"
    done = subprocess.run(
        [sys.executable, "-c", code, TEXT], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == Schedule.parse(TEXT).digest == DIGEST


def test_a_pipeline_of_passes_prints_as_a_schedule() -> None:
    passes = Schedule.parse(TEXT).passes
    assert PassPipeline(list(passes)).passes == passes
    assert str(PassPipeline(passes)) == TEXT
    assert PassPipeline(passes).digest == DIGEST


def test_every_pass_is_in_the_text_of_some_schedule() -> None:
    cpu = machine_for("cpu:x86-64-v3")
    any_rows = default_schedule(Gemm(m=ANY, n=64, k=64), cpu)
    packed = prepacked_text(default_schedule(Gemm(m=300, n=304, k=300), cpu), 304)
    bytes_ = default_schedule(Gemm(m=300, n=300, k=300, dtype="i8"), machine_for("cpu:znver4"))
    small = Gemm(m=16, n=16, k=16)
    peeled, one_vector = (default_schedule(small, machine_for(f"cpu:znver{n}")) for n in (4, 5))
    parts = default_schedule(Gemm(m=100, n=100, k=100), cpu)
    packs = Schedule.parse(packed)
    fused = default_schedule(Gemm(m=128, n=1024, k=1024), machine_for("cpu:znver4"))
    chosen = (any_rows, packs, bytes_, peeled, one_vector, parts, fused)
    steps = [step for schedule in chosen for step in schedule.steps]
    seen = {step.split("{")[0] for step in steps}

    @given(st.tuples(scheduled(), gpu_cases(SM_80), hopper_cases(SM_90A)))
    @examples(6)
    def draw(cases: tuple[tuple[Gemm, Schedule], ...]) -> None:
        seen.update(step.split("{")[0] for _, schedule in cases for step in schedule.steps)

    draw()
    assert seen == set(pass_names())


@pytest.mark.parametrize("name", pass_names())
def test_an_unknown_pass_names_the_nearest(name: str) -> None:
    with pytest.raises(ScheduleError, match=f"use {name}$") as found:
        Schedule.parse(f"{name}x")
    assert found.value.code == "GEM0302"


@pytest.mark.parametrize("name", pass_names())
def test_an_unknown_parameter_names_those_that_are_known(name: str) -> None:
    needed = [key for key, required in parameters_of(pass_class(name)).items() if required]
    with pytest.raises(ScheduleError) as found:
        Schedule.parse(f"{name}{{colour=red}}")
    assert found.value.code == "GEM0303"
    assert "colour" in found.value.message
    assert all(re.search(rf"\b{key}\b", found.value.hint) for key in needed)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("tile{loops=m sizes=4.5}", "GEM0304"),
        ("tile{loops=m sizes=four}", "GEM0304"),
        ("unroll{loop=k factor=2,3}", "GEM0304"),
        ("promote{operand=c to=registers prefetch=yes}", "GEM0304"),
        ("tile{loops=m sizes=}", "GEM0305"),
        ("tile{loops=m sizes=4", "GEM0305"),
        ("tile{loops=m sizes=4}}", "GEM0305"),
        ("tile{loops=m\nsizes=4}", "GEM0305"),
        ("fuse-epilogue,,fuse-epilogue", "GEM0305"),
        ("fuse-epilogue vectorize{with=fma width=8}", "GEM0305"),
        ("tile(loops=m)", "GEM0305"),
        ("{", "GEM0305"),
        ("\x00", "GEM0305"),
        ("é", "GEM0305"),
    ],
)
def test_a_text_that_is_wrong(text: str, code: str) -> None:
    with pytest.raises(ScheduleError) as found:
        Schedule.parse(text)
    assert found.value.code == code
    assert found.value.hint
