"""The benchmark harness: one tiny problem is measured, and a wrong result is never timed.

Nothing here asserts how fast anything is.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / "bench"

DIGITS = 1e-4
"""Results are written with six digits."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "cpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True, kw_only=True)
class Liar:
    """A contestant whose result is `value` everywhere."""

    output: np.ndarray[Any, Any]
    value: float
    name: str = "liar"
    flops: int = 1

    def repeat(self, count: int) -> None:
        self.output[...] = self.value


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of `bench`, which is no package, as its scripts do."""
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    return importlib.import_module


def test_one_problem_is_measured_and_its_numbers_are_sane(tmp_path: Path):
    file = tmp_path / "result.json"
    done = run("--shape", "8x8x8", "--rounds", "3", "--seed", "7", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "8 x 8 x 8 f64" in done.stdout
    result: dict[str, Any] = json.loads(file.read_text())
    assert (result["seed"], result["rounds"], result["compile"]) == (7, 3, [])
    assert {*result["peers"], *result["missing_peers"]} == {"openblas", "mkl"}
    rows: list[dict[str, Any]] = result["throughput"]
    assert [row["dtype"] for row in rows] == ["f32", "f64"]
    for row in rows:
        assert_sane(row, {*result["peers"], "numpy"})


def assert_sane(row: dict[str, Any], peers: set[str]) -> None:
    measured: dict[str, Any] = row["measured"]
    assert set(measured) == peers | {"gemmir", "fma peak"}
    own = measured["gemmir"]["cpu"]["seconds"]
    for name, found in measured.items():
        cpu = found["cpu"]
        assert 0 < cpu["lower"] <= cpu["seconds"] <= cpu["upper"]
        assert found["wall"]["seconds"] > 0 and cpu["count"] == 3 and found["calls"] >= 1
        if name != "fma peak":
            assert found["gflops"] == pytest.approx(2 * 8**3 / cpu["seconds"] / 1e9, rel=DIGITS)
    for peer in peers:
        expected = measured[peer]["cpu"]["seconds"] / own
        assert row["ratios"][peer] == pytest.approx(expected, rel=DIGITS)
    assert 0 < row["percent_of_peak"] < 200
    assert row["schedules"]["gemmir"]


def test_calls_are_doubled_until_the_clock_can_tell(module: Callable[[str], ModuleType]):
    harness = module("harness")
    counts: list[int] = []

    def work(count: int) -> None:
        counts.append(count)
        for _ in range(count):
            sum(range(100))

    measured = harness.race([harness.Contestant(name="gemmir", repeat=work, flops=100)], 2)
    trials, rounds = counts[:-2], counts[-2:]
    assert trials == [2**i for i in range(len(trials))]
    assert rounds == [measured["gemmir"].calls] * 2
    assert measured["gemmir"].calls > 1


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_wrong_result_is_refused(module: Callable[[str], ModuleType], dtype: str):
    harness, suites = module("harness"), module("suites")
    gemm = suites.shape(4, 5, 6, dtype, "bias+gelu")
    course = harness.epilogue_course(gemm, 0)
    expected = harness.reference(gemm, course.operands)
    output: np.ndarray[Any, Any] = course.operands.output
    harness.check(course.contestants[0], expected, output)
    with pytest.raises(harness.WrongResultError, match="liar is wrong"):
        harness.check(Liar(output=output, value=1.0), expected, output)


def test_what_is_not_written_is_refused(module: Callable[[str], ModuleType]):
    harness, suites = module("harness"), module("suites")
    gemm = suites.shape(2, 2, 2)
    course = harness.product_course(gemm, [], 0)

    def idle(count: int) -> None:
        """Write nothing."""

    nothing = harness.Contestant(name="idle", repeat=idle, flops=1)
    with pytest.raises(harness.WrongResultError, match="idle is wrong"):
        harness.check(nothing, harness.reference(gemm, course.operands), course.operands.output)


def test_a_bar_is_the_fastest_peer_over_gemmir(module: Callable[[str], ModuleType]):
    harness, suites = module("harness"), module("suites")

    def took(seconds: float) -> Any:
        timing = harness.timing_of([seconds])
        return harness.Measured(calls=1, gflops=1.0, cpu=timing, wall=timing)

    measured = {"gemmir": took(2.0), "openblas": took(4.0), "mkl": took(3.0)}
    bar = suites.AtLeast(ratio=1.6, peers=("openblas", "mkl"))
    assert (bar.judge(measured).value, bar.judge(measured).is_met) == (1.5, False)
    assert suites.AtLeast(ratio=1.6, peers=("openblas",)).judge(measured).is_met
    assert suites.AtLeast(ratio=1.6, peers=("absent",)).judge(measured) is None
    fused = {"gemmir": took(1.05), "gemmir, product only": took(1.0)}
    verdict = suites.Overhead(part=0.04).judge(fused)
    assert verdict.value == pytest.approx(0.05) and not verdict.is_met


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--suite", "square"], "unknown suites square"), (["--shape", "8x8"], "is not MxNxK")],
)
def test_a_wrong_option_is_a_usage_error(arguments: list[str], part: str):
    done = run(*arguments)
    assert done.returncode == 2
    assert part in done.stderr
