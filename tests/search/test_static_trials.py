"""Trials for machines that are not here: checked on smaller problems, and weighed by models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule import Schedule, default_schedule
from gemmir.search.trials import Limits, static_candidate
from gemmir.search.trials.static_candidate import StaticCandidate, smaller
from gemmir.search.trials.static_trials import StaticTrials

GPU = Schedule.parse(
    "tile{loops=m,n sizes=32,32 over=blocks per_sm=1},tile{loops=m,n sizes=32,32 over=warps},"
    "promote{operand=c to=registers},tile{loops=k sizes=64},"
    "promote{operand=a to=shared layout=swizzle:128},"
    "promote{operand=b to=shared layout=swizzle:64},pipeline{loop=k stages=2},"
    "vectorize{with=mma width=8},unroll{loop=k factor=4}"
)
GEMM = Gemm(m=100, n=70, k=600, dtype="f16")

TINY = Gemm(m=40, n=40, k=72, dtype="f16")


def candidate(schedule: object = GPU, target: str = "cuda:sm_80") -> StaticCandidate:
    settings = {"target": target, "schedule": str(schedule), "profile": False}
    return StaticCandidate({"settings": settings})


def test_a_smaller_problem_has_the_same_last_tiles() -> None:
    gemm, schedule = smaller(GEMM, GPU)
    assert (gemm.m, gemm.n, gemm.k) == (32 + 4, 32 + 6, 2 * 64 + 24)
    assert (gemm.dtype, schedule) == ("f16", GPU)
    tiny = Gemm(m=10, n=20, k=30, dtype="f16", batch=9)
    assert smaller(tiny, GPU)[0] == Gemm(m=10, n=20, k=30, dtype="f16", batch=2)
    untiled = Schedule.parse("tile{loops=m,n sizes=128,128 over=grid}")
    gemm, _ = smaller(Gemm(m=4096, n=4096, k=21696), untiled)
    assert (gemm.m, gemm.n, gemm.k) == (256, 256, 256)


def test_blocks_that_persist_are_fewer_than_tiles() -> None:
    whole = Gemm(m=4096, n=4096, k=21696, dtype="bf16")
    default = default_schedule(whole, machine_for("cuda:sm_90a"))
    assert "persist{blocks=132}" in str(default)
    gemm, schedule = smaller(whole, default)
    assert "persist{blocks=3}" in str(schedule)
    assert gemm.flops < whole.flops / 1000


def test_what_is_wrong_in_the_emulator_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: Callable[..., Any] = vars(static_candidate)["_computed"]
    asked = candidate()
    assert asked.answer({"do": "prepare", "with": {"gemm": asdict(TINY)}})["flops"] == TINY.flops
    found = asked.answer({"do": "check", "with": {"seed": 0}})
    assert found["fault"] == "" and 0 < found["error"] < 1
    assert found["about"]["checked"] == "m=40 n=40 k=72"
    assert found["about"]["emulated"]["mma"] > 0

    def spoiled(lowered: Any, arrays: list[Any]) -> dict[str, Any]:
        made = computed(lowered, arrays)
        arrays[-1][-1, -1] += 1
        return made

    monkeypatch.setattr(static_candidate, "_computed", spoiled)
    found = asked.answer({"do": "check", "with": {"seed": 0}})
    assert found["fault"].startswith("m=40 n=40 k=72: element [39, 39] is ")


def test_what_cannot_be_checked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = candidate()
    asked.prepare(asdict(TINY))

    def refuses(*_: object) -> Any:
        raise ScheduleError("GEM0301", "it is too small")

    monkeypatch.setattr(asked, "_lower", refuses)
    found = asked.answer({"do": "check", "with": {"seed": 0}})
    assert found["illegal"].startswith("GEM0301: it cannot be checked with m=40 n=40 k=72: it is")


@pytest.mark.parametrize("target", ["cuda:sm_80", "tpu:v5e"])
def test_a_trial_has_the_seconds_of_the_model(target: str) -> None:
    gemm = TINY if target.startswith("cuda") else Gemm(m=64, n=256, k=256, dtype="bf16")
    schedule = GPU if target.startswith("cuda") else default_schedule(gemm, machine_for(target))
    if target.startswith("tpu"):
        pytest.importorskip("jax")
    with StaticTrials(gemm, target=target, limits=Limits(seconds=120)) as trials:
        found = trials.run(str(schedule))
        assert found.ok, found.detail
        assert found.value is not None and 0 < found.value < 1e-3
        assert "bound_by" in found.about and found.error is not None
        illegal = trials.run("tile{loops=m,z sizes=3,4}")
        assert illegal.status == "illegal"
