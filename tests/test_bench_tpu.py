"""Profiling kernels for TPUs beside XLA's, and the blocks that it found."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gemmir import Gemm
from gemmir.machine import TpuMachine, machine_for
from gemmir.schedule import check_fits
from gemmir.schedule.default import default_schedule

BENCH = Path(__file__).parent.parent / "bench"
FOUND: dict[str, Any] = json.loads(
    files("gemmir.schedule.found").joinpath("tpu.json").read_text(encoding="utf-8")
)
RESULTS: dict[str, Any] = json.loads((BENCH / "results" / "tpu-static.json").read_text())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "tpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def problem(dtype: str, shape: list[int]) -> Gemm:
    m, n, k = shape
    return Gemm(m=m, n=n, k=k, dtype=dtype, out="i32" if dtype == "i8" else "bf16")


@pytest.mark.parametrize("entry", FOUND["entries"], ids=lambda e: f"{e['target']}-{e['dtype']}")
def test_found_blocks_are_the_default_of_their_problem(entry: dict[str, Any]) -> None:
    machine = machine_for(entry["target"])
    assert isinstance(machine, TpuMachine)
    gemm = problem(entry["dtype"], entry["shape"])
    schedule = default_schedule(gemm, machine)
    assert list(schedule.steps) == entry["schedule"]
    check_fits(schedule, gemm, machine)


@pytest.mark.parametrize("row", RESULTS["rows"], ids=lambda row: row["case"])
def test_results_are_of_the_default_schedules_and_reach_their_bars(row: dict[str, Any]) -> None:
    target, dtype, shape = row["case"].split("/")
    gemm = problem(dtype, [int(size) for size in shape.split("x")])
    assert list(default_schedule(gemm, machine_for(target)).steps) == row["schedule"]
    assert row["ratio"] >= row["bar"]
    assert row["ours"]["spills"] <= row["xla"]["spills"]


def test_results_are_of_the_suite() -> None:
    listed = run("--list")
    assert listed.returncode == 0, listed.stderr
    suite = listed.stdout.split()
    rows = [row["case"] for row in RESULTS["rows"]]
    assert rows == [case for case in suite if case in rows]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--case", "v6e/bf16/64x64x64"),
        ("--case", "tpu:v6e/bf16/64x64x64", "--blocks", "mk/64x64x64"),
    ],
)
def test_what_is_no_case_and_no_blocks_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_small_case_is_profiled_beside_xla(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    blocks = ("--blocks", "nm/512x256x512/a")
    done = run("--case", "tpu:v6e/bf16/512x512x512", *blocks, "--json", str(path))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(path.read_text())["rows"]
    assert row["schedule"][0] == "promote{operand=a to=vmem}"
    assert 0 < row["mxu_utilisation"] < 1 and 0 < row["xla_mxu_utilisation"] < 1
    assert row["ours"]["copy_bytes"] == 512 * 512 * 2
