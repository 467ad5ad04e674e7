"""Default schedules with an edit or two, as a user makes them: refused with a reason, or right.

Right is every stage, and what is emitted: machine code, or PTX in the emulator, which finds races.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

import gemmir
from gemmir import Gemm
from gemmir.check import check
from gemmir.errors import GemmirError, ProblemError
from gemmir.schedule import Schedule
from tests.strategies import examples, extents

PASSES: Final = (
    "unroll{loop=k factor=2}",
    "interchange{order=n,m,k}",
    "peel{loop=k}",
    "swap-operands",
    "fuse-epilogue",
    "fuse-pack{operand=b}",
    "persist{blocks=2}",
    "pipeline{loop=k stages=2}",
    "prefetch{operand=b loop=k ahead=1 to=l2}",
    "part{loop=m at=8}",
    "split-k{factor=2}",
    "tile{loops=k sizes=16}",
    "tile{loops=m,n sizes=5,16}",
    "promote{operand=a to=l2 layout=panel:8}",
    "promote{operand=b to=shared layout=swizzle:32}",
    "promote{operand=c to=registers}",
    "vectorize{with=fma width=4}",
)
WORDS: Final = {
    "loop": ("m", "n", "k"),
    "loops": ("m", "n", "k", "m,n"),
    "operand": ("a", "b", "c"),
    "to": ("l1", "l2", "registers", "shared"),
    "over": ("cores", "blocks", "warps", "threads"),
    "with": ("fma", "dot", "mma"),
    "layout": ("panel:8", "panel:16", "panel:16x2", "swizzle:32", "swizzle:128"),
    "edges": ("clip", "peel", "overlap", "even"),
    "during": ("n", "k", "n,k"),
}


@st.composite
def edited(draw: st.DrawFn, schedule: Schedule) -> str:
    """The text of `schedule` after one to three edits."""
    steps = list(schedule.steps)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        if not steps:
            break
        place = draw(st.integers(0, len(steps) - 1))
        other = draw(st.integers(0, len(steps) - 1))
        match draw(st.sampled_from(["leave out", "exchange", "repeat", "add", "number", "word"])):
            case "leave out":
                steps.pop(place)
            case "exchange":
                steps[place], steps[other] = steps[other], steps[place]
            case "repeat":
                steps.insert(other, steps[place])
            case "add":
                steps.insert(place, draw(st.sampled_from(PASSES)))
            case "number":
                steps[place] = draw(_other_number(steps[place]))
            case _:
                steps[place] = draw(_other_word(steps[place]))
    return ",".join(steps)


@st.composite
def _other_number(draw: st.DrawFn, step: str) -> str:
    found = list(re.finditer(r"\d+", step))
    if not found:
        return step
    at = draw(st.sampled_from(found))
    old = int(at.group())
    new = draw(st.sampled_from([old * 2, old // 2, old + 1, old + 8, 1, 3]))
    return f"{step[: at.start()]}{new}{step[at.end() :]}"


@st.composite
def _other_word(draw: st.DrawFn, step: str) -> str:
    found = [at for at in re.finditer(r"([a-z]+)=[^ }]+", step) if at.group(1) in WORDS]
    if not found:
        return step
    at = draw(st.sampled_from(found))
    name = at.group(1)
    return f"{step[: at.start()]}{name}={draw(st.sampled_from(WORDS[name]))}{step[at.end() :]}"


@st.composite
def edits(draw: st.DrawFn, target: str, types: tuple[str, ...]) -> tuple[Gemm, str]:
    """A problem, and its default schedule for `target` edited."""
    gemm = Gemm(
        m=draw(extents(48)),
        n=draw(extents(48)),
        k=draw(extents(70)),
        dtype=draw(st.sampled_from(types)),
        beta=draw(st.sampled_from([0.0, -2.0])),
    )
    fields: list[dict[str, Any]] = [
        {"epilogue": draw(st.sampled_from(["", "bias", "relu", "bias+gelu"]))},
        {"trans_a": draw(st.booleans())},
        {"trans_b": draw(st.booleans())},
        {"batch": draw(st.sampled_from([None, None, 3]))},
        {"out": draw(st.sampled_from([None, "bf16"]))},
    ]
    for field in fields:
        try:
            gemm = replace(gemm, **field)
        except ProblemError:
            continue
    return gemm, draw(edited(gemmir.lower(gemm, target).schedule))


def require_refused_or_right(gemm: Gemm, target: str, schedule: str) -> None:
    try:
        lowered = gemmir.lower(gemm, target, schedule)
        assert lowered.artifact.text
    except GemmirError:
        return
    check(lowered, shrink=False).require_ok()


@examples(0.5)
@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@given(data=st.data())
def test_edited_schedules_of_cpus(target: str, data: st.DataObject) -> None:
    gemm, schedule = data.draw(edits(target, ("f32", "f64", "bf16", "i8")))
    require_refused_or_right(gemm, target, schedule)


@examples(0.2)
@given(drawn=edits("cuda:sm_86", ("f32", "f16", "bf16", "i8")))
@example(
    drawn=(
        Gemm(m=64, n=64, k=48),
        "tile{loops=m,n sizes=16,32 over=blocks},persist{blocks=2},"
        "tile{loops=m,n sizes=4,4 over=threads},promote{operand=c to=registers},"
        "tile{loops=k sizes=16},promote{operand=a to=shared layout=panel:20},"
        "promote{operand=b to=shared layout=panel:32},pipeline{loop=k stages=2},"
        "vectorize{with=fma width=4}",
    )
)
@example(
    drawn=(
        Gemm(m=64, n=64, k=16),
        "tile{loops=m,n sizes=16,32 over=blocks},persist{blocks=2},"
        "tile{loops=m,n sizes=4,4 over=threads},promote{operand=c to=registers},"
        "promote{operand=a to=shared layout=panel:20},"
        "promote{operand=b to=shared layout=panel:32},vectorize{with=fma width=4}",
    )
)
@example(
    drawn=(
        Gemm(m=32, n=16, k=40, dtype="f16"),
        "tile{loops=m,n sizes=32,16 over=blocks},tile{loops=m,n sizes=32,16 over=warps},"
        "promote{operand=c to=registers},tile{loops=k sizes=64},"
        "promote{operand=a to=shared layout=swizzle:128},"
        "promote{operand=b to=shared layout=swizzle:32},vectorize{with=mma width=16}",
    )
)
def test_edited_schedules_of_a_gpu(drawn: tuple[Gemm, str]) -> None:
    """The examples were races: tiles that a block takes in turn, and vectors of two chunks."""
    gemm, schedule = drawn
    require_refused_or_right(gemm, "cuda:sm_86", schedule)
