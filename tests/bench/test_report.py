"""Figures, bars, tables, results files and pictures, of races that never were."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gemmir.bench import plot, report, results
from gemmir.bench.race import Field, Race, Result
from gemmir.bench.suite import Bars, Class, Figure, Place, Suite
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.measure import Timing

FLOPS = Gemm(m=10, n=10, k=10).flops


def result(seconds: float, flops: int = FLOPS) -> Result:
    timing = Timing(seconds=seconds, lower=seconds / 2, upper=seconds * 2, count=3)
    return Result(calls=4, flops=flops, seconds=timing, cpu=timing, wall=timing, about={})


def race(gemm: Gemm | None = None, own: str = "gemmir", **seconds: float) -> Race:
    """A race in which everybody took so many seconds."""
    found = {name.replace("_", " "): result(s) for name, s in seconds.items()}
    return Race(
        gemm=gemm or Gemm(m=10, n=10, k=10),
        own=own,
        peers=[n for n in found if n not in (own, "fma peak", "gemmir", "gemmir bound")],
        results=found,
        unable={"z": "it is tired"},
        wrong={"w": "element [0, 0] is 1"},
    )


def test_the_ratio_is_of_the_best_peer():
    found = race(gemmir=2.0, x=3.0, y=5.0, fma_peak=1.0)
    assert (found.best_peer, found.ratio, found.percent_of_peak) == ("x", 1.5, 50.0)
    assert race(x=3.0).ratio is None and race(gemmir=1.0).ratio is None


def test_bars_are_of_the_mean_and_of_the_worst():
    first = Class(name="one", problems=(), bars=Bars(class_=1.9, shape=1.0))
    second = Class(name="two", problems=(), bars=Bars())
    found = {"one": [race(gemmir=1, x=4), race(gemmir=1, x=1)], "two": [race(gemmir=2, x=1)]}
    verdicts = report.verdicts(Suite(classes=(first, second), bars=Bars(suite=1.3)), found)
    values = [(v.value, v.is_met) for v in verdicts]
    assert values[:4] == [
        (pytest.approx(2.0), True),
        (1.0, True),
        (pytest.approx(0.5), False),
        (0.5, False),
    ]
    assert values[4] == (pytest.approx(2 ** (1 / 3)), False), "the suite"
    assert verdicts[1].what == "one, worst: 10 x 10 x 10 f32 by x"


def test_figures_are_speeds_beside_the_peak_or_each_other():
    gemm, other = Gemm(m=10, n=10, k=10), Gemm(m=1, n=1, k=1, batch=2)
    place = Place(class_="one", shape="2*1x1x1")
    figures = (
        Figure(what="p", of=Place(class_="one", shape="10x10x10"), over=None, least=0.5),
        Figure(what="q", of=Place(class_="one", shape="10x10x10"), over=place, least=0.5),
        Figure(what="not run", of=Place(class_="two", shape="1x1x1"), over=place, least=0.5),
    )
    one = Class(name="one", problems=(gemm, other), bars=Bars())
    suite = Suite(classes=(one,), bars=Bars(), figures=figures)
    races = [race(gemm, gemmir=4.0, fma_peak=1.0), race(other, gemmir=8.0, fma_peak=4.0)]
    found = [(v.what, v.value, v.is_met) for v in report.verdicts(suite, {"one": races})]
    assert found == [("p", 0.25, False), ("q", 0.5, True)]


def test_a_class_without_a_figure_has_no_verdict():
    only = Class(name="one", problems=(), bars=Bars())
    assert report.verdicts(Suite(classes=(only,), bars=Bars()), {"one": [race(x=1)]}) == []


def test_a_prepared_call_may_cost_a_microsecond():
    of = Class(name="calls", kind="calls", problems=(), bars=Bars())
    for bound, met in ((1.5e-6, True), (2.5e-6, False)):
        found = race(own="gemmir.matmul", gemmir=1e-6, gemmir_bound=bound, x=1.0)
        verdict = report.class_verdicts(of, [found])[-1]
        assert verdict.value == pytest.approx(1e6 * bound - 1) and verdict.is_met is met
        assert verdict.cells[2] == "<= 1"


def test_a_line_of_the_table_fits_its_head():
    found = race(gemmir=2e-6, x=1e-6, fma_peak=1e-6)
    names = report.others([found])
    assert names == ["x", "w"]
    cells = report.cells(found, names, Bars())
    assert len(cells) == len(report.columns(names))
    assert cells == [
        "10 x 10 x 10 f32", "1.0", "0.5 .. 2.0", "50.0", "1.00", "2.0", "wrong", "x", "0.500",
        "below 0.95",
    ]  # fmt: skip
    assert len(report.cells(race(x=1.0), names, Bars())) == len(cells)


@pytest.mark.parametrize(
    ("gemm", "words"),
    [
        (Gemm(m=1, n=2, k=3, dtype="bf16", out="bf16", trans_b=True), "1 x 2 x 3 bf16 -> bf16 B'"),
        (Gemm(m=1, n=2, k=3, batch=4, lda=8, beta=1.0), "4 * 1 x 2 x 3 f32 lda=8 beta=1"),
        (Gemm(m=1, n=2, k=4, dtype_b="i4", weight_group=2), "1 x 2 x 4 f32 x i4 /2"),
        (Gemm(m=1, n=2, k=3, epilogue="bias+relu", trans_a=True), "1 x 2 x 3 f32 A' bias+relu"),
    ],
)
def test_problems_are_told_apart(gemm: Gemm, words: str):
    assert report.spelled(gemm) == words


def document(*races: Race) -> dict[str, Any]:
    field = cast("Field", SimpleNamespace(about={"gemmir": {}}, unable={"jax": "not here"}))
    before = results.environment(target="cpu", threads=1, cpus=[0], rounds=3, seed=7)
    verdicts = [report.Verdict(what="one", value=2.0, bar=1.0)]
    return results.document(before, field, {"one": races}, verdicts)


def test_a_results_file_has_every_number():
    text = results.text_of(document(race(gemmir=2.0, x=1 / 3, fma_peak=1.0)))
    found = json.loads(text)
    assert (found["seed"], found["rounds"], found["missing"]) == (7, 3, {"jax": "not here"})
    assert found["command"].startswith("gemmir")
    assert {"gemmir", "numpy", "llvm", "commit"} <= set(found["versions"])
    (entry,) = found["classes"]["one"]
    assert entry["problem"] == {"m": 10, "n": 10, "k": 10, "dtype": "f32"}
    assert entry["best_peer"] == "x" and entry["ratio"] == pytest.approx(1 / 6, rel=1e-5)
    assert entry["results"]["x"]["cpu_seconds"] == pytest.approx([1 / 3, 1 / 6, 2 / 3], rel=1e-5)
    assert (entry["unable"], entry["wrong"]) == (
        {"z": "it is tired"},
        {"w": "element [0, 0] is 1"},
    )
    assert found["bars"] == [{"what": "one", "value": 2, "bar": 1, "most": False, "is_met": True}]
    assert max(map(len, text.splitlines())) < 500, "a line for each measurement"


def test_runs_are_compared_by_their_problems():
    old = json.loads(results.text_of(document(race(gemmir=2e-6, x=3e-6, fma_peak=1e-6))))
    other = race(Gemm(m=1, n=1, k=1), gemmir=1e-6)
    new = {"one": [race(gemmir=1e-6, x=3e-6, fma_peak=0.8e-6), other]}
    assert report.compared(new, old) == [
        ["10 x 10 x 10 f32", "1.0", "2.0", "1.500", "3.000", "1.600"]
    ]
    assert report.compared(new, {}) == []


def test_bars_of_a_plot_are_as_long_as_their_part():
    assert report.bar(1.0) == "█" * report.WIDTH
    assert report.bar(0.5) == "█" * (report.WIDTH // 2)
    assert report.bar(2.0) == report.bar(1.0) and report.bar(0.0) == ""
    lines = report.speeds_text(race(gemmir=1e-6, x=2e-6))
    assert [line.count("█") for line in lines] == [report.WIDTH, report.WIDTH // 2]
    (line,) = report.ratios_text([race(gemmir=1.0, x=1.0), race(x=1.0)])
    assert line.count("█") == report.WIDTH // 2 and "1.000" in line


@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_picture_is_drawn(form: str):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    races = {name: [race(gemmir=1.0, x=2.0, fma_peak=0.5), race(x=1.0)] for name in "abc"}
    data = plot.picture(races, "a title", form)
    assert data.startswith(b"\x89PNG" if form == "png" else b"<?xml")


def test_a_picture_that_cannot_be_drawn_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingError, match=r"use out\.png"):
        plot.check_plot(Path("out.gif"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match="matplotlib") as caught:
        plot.check_plot(Path("out.png"))
    assert caught.value.code == "GEM1374"
