"""Comparisons: differences that were planted are found, and none where there is none."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmir.errors import CallError
from gemmir.gemm import Gemm
from gemmir.search.experiments.compare import (
    Comparison,
    compare_contestants,
    compare_runs,
    holm,
)
from gemmir.search.experiments.modules import scipy_stats
from gemmir.search.experiments.plan import Candidate, Kind, Point
from gemmir.search.experiments.records import Cell, Status
from tests.search.experiments.examples import outcome

SIZES = range(8, 8 + 20)


def cell(size: int, who: str, repetition: int, *seconds: float, status: Status = "ok") -> Cell:
    kinds: dict[str, Kind] = {"fma peak": "peak", "numpy": "peer"}
    point = Point(
        problem=Gemm(m=size, n=size, k=size),
        target="cpu",
        candidate=Candidate(name=who, kind=kinds.get(who, "schedule")),
        objective="time",
    )
    return Cell(
        run=1,
        position=0,
        repetition=repetition,
        point=point,
        outcome=outcome(status, *seconds),
        worker="w",
        host="h",
        cpu="c",
        seconds=seconds,
    )


def noisy(
    generator: random.Random,
    who: str,
    factor: float,
    sizes: Sequence[int] = SIZES,
    *,
    repetitions: int = 5,
    between: float = 0.01,
) -> list[Cell]:
    """Cells whose processes differ by about `between`, and their samples by a tenth of it."""
    found: list[Cell] = []
    for size in sizes:
        for repetition in range(repetitions):
            level = factor * size * math.exp(generator.gauss(0, between))
            samples = [level * math.exp(generator.gauss(0, between / 10)) for _ in range(8)]
            found.append(cell(size, who, repetition, *samples))
    return found


def verdicts(found: Comparison) -> dict[str, int]:
    names = [difference.verdict for difference in found.differences]
    return {name: names.count(name) for name in names}


def test_a_planted_difference_is_found() -> None:
    generator = random.Random(1)
    old = noisy(generator, "a", 1.0)
    for factor, verdict in ((1.2, "slower"), (0.8, "faster")):
        found = compare_runs(old, noisy(generator, "a", factor))
        assert verdicts(found) == {verdict: len(SIZES)}
        assert found.mean_ratios == {"a": pytest.approx(factor, rel=0.01)}
        inside = [d.interval[0] < factor < d.interval[1] for d in found.differences]
        assert sum(inside) >= 17, "intervals of 95 % have the true ratio in 19 of 20"
        for difference in found.differences:
            assert difference.interval[0] < difference.ratio < difference.interval[1]
            assert abs(difference.delta) == 1.0 and difference.method == "Welch's t"


def test_processes_that_differ_are_no_difference() -> None:
    """All samples together would say that nearly every pair differs: they are no evidence."""
    generator = random.Random(2)
    alike: list[int] = []
    for _ in range(10):
        old, new = (noisy(generator, "a", 1.0, between=0.05) for _ in range(2))
        found = compare_runs(old, new)
        alike.append(verdicts(found).get("no difference seen", 0))
        naive = [
            float(scipy_stats().mannwhitneyu(d.old.samples, d.new.samples).pvalue)
            for d in found.differences
        ]
        assert sum(chance < 0.05 for chance in naive) > len(SIZES) / 3
    assert sum(alike) >= 10 * len(SIZES) - 2


def test_contestants_are_compared_in_pairs_of_a_block() -> None:
    """What slows a whole block is not a difference between those in it."""
    generator = random.Random(3)
    cells: list[Cell] = []
    for repetition in range(4):
        slow = 1 + repetition
        for who, factor in (("a", 1.0), ("b", 1.02), ("fma peak", 0.5)):
            level = slow * factor * math.exp(generator.gauss(0, 0.0005))
            cells.append(cell(8, who, repetition, *[level] * 3))
    (found,) = compare_contestants(cells, "a").differences
    assert (found.method, found.verdict) == ("paired t", "slower")
    assert found.ratio == pytest.approx(1.02, rel=0.002)
    (other,) = compare_contestants(cells, "b").differences
    assert other.verdict == "faster" and other.ratio == pytest.approx(1 / found.ratio)
    assert other.interval == pytest.approx((1 / found.interval[1], 1 / found.interval[0]))


def test_a_slower_machine_is_told_by_what_gemmir_does_not_change() -> None:
    generator = random.Random(5)
    old, new = (
        [c for who in ("a", "numpy", "fma peak") for c in noisy(generator, who, factor)]
        for factor in (1.0, 1.03)
    )
    found = compare_runs(old, new)
    assert found.control == pytest.approx(1.03, rel=0.005)
    assert {d.new.contestant for d in found.differences} == {"a", "numpy"}
    assert compare_contestants(old, "a").control is None
    assert compare_runs(*[[c for c in cells if c.point.candidate.name == "a"]
                          for cells in (old, new)]).control is None  # fmt: skip
    sizes = [d.problem for d in found.differences]
    assert sizes == sorted(sizes, key=lambda name: int(name.split()[0])), "small ones first"


def test_one_repetition_has_only_its_samples() -> None:
    generator = random.Random(4)
    old, new = (noisy(generator, "a", f, (8,), repetitions=1) for f in (1.0, 1.5))
    (found,) = compare_runs(old, new).differences
    assert (found.method, found.verdict) == ("Mann-Whitney", "slower")
    assert compare_runs(old, new) == compare_runs(old, new), "the bootstrap has a seed"
    (one,) = compare_runs([cell(8, "a", 0, 1.0)], [cell(8, "a", 0, 2.0)]).differences
    assert one.verdict == "no difference seen", "two numbers tell nothing"


def test_nothing_varies() -> None:
    same = [cell(8, "a", r, 1.0, 1.0) for r in range(3)]
    (found,) = compare_runs(same, same).differences
    assert (found.verdict, found.ratio, found.chance) == ("no difference seen", 1.0, 1.0)
    assert found.delta == 0.0


def test_what_is_not_right_is_not_compared() -> None:
    old = [cell(8, "a", 0, 1.0), cell(8, "b", 0, 1.0)]
    new = [cell(8, "a", 0, 1.0, status="wrong"), cell(9, "a", 0, 1.0)]
    found = compare_runs(old, new)
    assert found.differences == ()
    (change,) = found.changes
    assert (change.what, change.old, change.new) == ("status", "ok", "wrong")
    assert found.only_old == ("b: 8 x 8 x 8 f32 on cpu",)
    assert found.only_new == ("a: 9 x 9 x 9 f32 on cpu",)


def test_an_unknown_baseline() -> None:
    with pytest.raises(CallError, match=r"GEM1422: .* called c; use one of a, b"):
        compare_contestants([cell(8, "a", 0, 1.0), cell(8, "b", 0, 1.0)], "c")


CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(CHANCES)
def test_holm_keeps_the_order_and_never_helps(chances: list[float]) -> None:
    found = holm(chances)
    assert all(1 >= after >= before for before, after in zip(chances, found, strict=True))
    order = np.argsort(chances, kind="stable")
    assert (np.diff(np.asarray(found)[order]) >= 0).all()


SAMPLES = st.lists(st.floats(0.5, 2), min_size=1, max_size=12)


@given(SAMPLES, SAMPLES)
def test_cliffs_delta_is_that_of_mann_and_whitney(old: list[float], new: list[float]) -> None:
    (found,) = compare_runs([cell(8, "a", 0, *old)], [cell(8, "a", 0, *new)]).differences
    pairs = [(a > b) - (a < b) for a in new for b in old]
    assert found.delta == pytest.approx(sum(pairs) / len(pairs))
