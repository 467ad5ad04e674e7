"""Cells that are really measured: schedules, libraries, the peak, and figures of compiled code."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from gemmir.compiler import lower
from gemmir.gemm import Gemm
from gemmir.search.experiments import cells
from gemmir.search.experiments.cells import Bench
from gemmir.search.experiments.plan import Candidate, Kind, Objective, Point
from gemmir.search.experiments.records import Outcome
from gemmir.search.experiments.static_figures import figures
from tests.search.experiments.examples import SETTINGS

QUICK = replace(SETTINGS, rounds=2, sample_seconds=1e-4, warm_up_seconds=1e-5, cpus=())


def point(
    name: str,
    kind: Kind = "schedule",
    *,
    target: str = "cpu",
    schedule: str | None = None,
    objective: Objective = "time",
    dtype: str = "f32",
) -> Point:
    return Point(
        problem=Gemm(m=32, n=32, k=32, dtype=dtype),
        target=target,
        candidate=Candidate(name=name, kind=kind),
        objective=objective,
        schedule=schedule,
    )


@pytest.fixture(scope="module")
def timed() -> dict[str, Outcome]:
    """Everybody who may take part, by one bench."""
    lanes = "promote{operand=c to=registers},vectorize{with=fma width=4}"
    with Bench(QUICK, []) as bench:
        return {
            p.candidate.name: bench.measure(p)
            for p in (
                point("default"),
                point("mine", schedule=f"tile{{loops=m,n sizes=4,8}},{lanes}"),
                point("too large", schedule=f"tile{{loops=m,n sizes=32,32}},{lanes}"),
                point("numpy", "peer"),
                point("fma peak", "peak"),
            )
        }


def test_what_is_right_is_timed(timed: dict[str, Outcome]) -> None:
    for name in ("default", "mine", "numpy"):
        found = timed[name]
        assert (found.status, found.detail, len(found.samples)) == ("ok", None, 2), name
        assert found.error_ratio is not None and 0 <= found.error_ratio <= 1
        assert all(s.cpu > 0 and s.wall > 0 and s.calls >= 1 for s in found.samples)
        assert found.took_seconds is not None and found.took_seconds > 0
    assert timed["mine"].steps is not None and timed["mine"].steps[0].startswith("tile{loops=m,n")
    assert timed["default"].steps and timed["numpy"].steps is None
    assert timed["numpy"].about and timed["numpy"].about["version"]


def test_a_schedule_that_does_not_fit_is_illegal(timed: dict[str, Outcome]) -> None:
    found = timed["too large"]
    assert found.status == "illegal" and found.samples == ()
    assert found.detail is not None and found.detail.startswith("GEM03")


def test_the_peak_is_as_long_as_the_multiply_adds_of_the_problem(
    timed: dict[str, Outcome],
) -> None:
    """No kernel is faster than the unit that it uses, but for the scatter of so short samples."""
    peak, own = (
        statistics.median(s.cpu for s in timed[name].samples) for name in ("fma peak", "default")
    )
    assert timed["fma peak"].status == "ok" and 1e-8 < peak < 1.5 * own


def test_the_state_of_the_machine_is_kept(timed: dict[str, Outcome]) -> None:
    for found in timed.values():
        assert found.started <= found.ended
        assert found.before.load_average is not None
        assert found.after.affinity and found.after.affinity == found.before.affinity


@pytest.mark.parametrize(
    ("target", "dtype", "wanted"),
    [
        ("cpu:x86-64-v3", "f32", {"vector registers", "inner loop: fmas"}),
        ("cuda:sm_80", "bf16", {"blocks", "loop: multiply-adds"}),
        ("tpu:v5e", "bf16", {"VMEM", "predicted cycles"}),
    ],
)
def test_static_figures(target: str, dtype: str, wanted: set[str]) -> None:
    found, _ = figures(lower(Gemm(m=128, n=128, k=512, dtype=dtype), target))
    assert wanted | {"predicted time"} <= set(found)
    assert all(value >= 0 for value, _ in found.values())


def test_static_figures_are_read_in_a_process() -> None:
    with Bench(QUICK, []) as bench:
        found = bench.measure(point("default", objective="static"))
    assert (found.status, found.samples) == ("ok", ())
    assert found.figures and found.figures["vector registers"].unit == "registers"
    assert found.steps


def test_static_figures_of_what_does_not_fit_and_of_what_takes_too_long() -> None:
    text = "tile{loops=m,n sizes=32,32},promote{operand=c to=registers},vectorize{with=fma width=4}"
    illegal = point("x", schedule=text, objective="static")
    with Bench(replace(QUICK, limit_seconds=30.0), []) as bench:
        assert bench.measure(illegal).status == "illegal"
    with Bench(replace(QUICK, limit_seconds=0.01), []) as bench:
        assert bench.measure(illegal).status == "timeout"


SLOW = """
import subprocess, sys, time
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **quiet)
open(sys.argv[1], "w").write(str(inner.pid))
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("seconds", [0, 60])
def test_what_a_process_has_started_is_ended(seconds: int, tmp_path: Path) -> None:
    log = tmp_path / "pid"
    command = [sys.executable, "-c", SLOW, str(log), str(seconds)]
    with pytest.raises(subprocess.TimeoutExpired) if seconds else nullcontext():
        cells.run(command, {}, 2.0 if seconds else 30.0)
    end = time.monotonic() + 5
    while is_running(int(log.read_text())) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(int(log.read_text()))


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
