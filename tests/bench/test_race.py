"""Races: turns, checks before any timing, and contestants that fail. No test asserts a speed."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import get_args

import pytest

from gemmir.bench import race as racing
from gemmir.bench.contestants import Contestant, Kind, contestants
from gemmir.bench.operands import make, write
from gemmir.bench.race import Field, cpus_for, still_in
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for

HERE = Path(__file__).parent

GEMM = Gemm(m=3, n=4, k=5)


def fake(name: str, fault: str = "", **environment: str) -> Contestant:
    variables = {"PYTHONPATH": str(HERE), "FAKE": fault, "NAME": name, **environment}
    family = "" if name == "gemmir" else name
    return Contestant(name=name, peer="fake_peer", environment=variables, family=family)


def field(*those: Contestant, threads: int = 1) -> Field:
    return Field(those, target="cpu", threads=threads, cpus=[])


def test_contestants_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(racing, "FAR", 1e9)
    log = str(tmp_path / "log")
    names = ["gemmir", "x", "y"]
    with field(*(fake(name, LOG=log) for name in names)) as there:
        found = there.race(GEMM, rounds=5, seed=0)
    calls = [name for name, _ in groupby(Path(log).read_text().split())]
    assert calls == names * 6, "each once to be checked, and then five rounds"
    assert {name: r.seconds.count for name, r in found.results.items()} == dict.fromkeys(names, 5)
    assert list(found.peers) == ["x", "y"]
    for result in found.results.values():
        assert 0 < result.wall.lower <= result.wall.seconds <= result.wall.upper
        assert result.flops == GEMM.flops


@pytest.mark.parametrize(("fault", "part"), [("wrong", "element [2, 3]"), ("silent", "nan")])
def test_who_is_wrong_is_not_timed(fault: str, part: str, tmp_path: Path):
    log = tmp_path / "log"
    with field(fake("gemmir"), fake("liar", fault, LOG=str(log))) as there:
        found = there.race(GEMM, rounds=3, seed=0)
    assert part in found.wrong["liar"]
    assert list(found.results) == ["gemmir"] and found.ratio is None
    assert log.read_text().split() == ["liar"], "one call, which was compared"


def test_f64_is_not_compared_as_if_it_were_f32():
    with field(fake("gemmir"), fake("x", "rounds")) as there:
        assert list(there.race(GEMM, rounds=1, seed=0).results) == ["gemmir", "x"]
        assert list(there.race(replace(GEMM, dtype="f64"), rounds=1, seed=0).wrong) == ["x"]


def test_gemmir_that_is_wrong_has_no_ratio():
    with field(fake("gemmir", "wrong"), fake("x")) as there:
        found = there.race(GEMM, rounds=3, seed=0)
    assert list(found.wrong) == ["gemmir"] and found.ratio is None and found.best_peer == "x"


def test_who_cannot_is_listed_with_the_reason():
    with field(fake("gemmir"), fake("gone", "missing"), fake("no", "unable")) as there:
        assert there.unable == {"gone": "it is not installed"}
        found = there.race(GEMM, rounds=1, seed=0)
    assert found.unable == {"no": "it does not do this one"}
    assert list(found.results) == ["gemmir"]


def test_who_dies_takes_no_other_along_and_is_back_for_the_next_problem():
    with field(fake("gemmir"), fake("mortal", "dies")) as there:
        for _ in range(2):
            found = there.race(GEMM, rounds=2, seed=0)
            assert found.unable == {"mortal": "its process ended with status 7"}
            assert found.results["gemmir"].seconds.count == 2


def test_who_hangs_is_ended(monkeypatch: pytest.MonkeyPatch):
    with field(fake("gemmir"), fake("idle", "hangs")) as there:
        monkeypatch.setattr(racing, "ANSWER_SECONDS", 2.0)
        found = there.race(GEMM, rounds=1, seed=0)
    assert found.unable == {"idle": "it has not answered for 2 s"}


@pytest.mark.parametrize(
    ("number", "calls", "those"),
    [
        (0, 1, "gemmir near far fma peak"),
        (2, 1, "gemmir near far fma peak"),
        (2, 100, "gemmir near fma peak"),
        (3, 1, "gemmir near fma peak"),
        (4, 100, "gemmir near fma peak"),
        (5, 100, ""),
        (9, 1, "gemmir near fma peak"),
    ],
)
def test_who_is_far_behind_or_slow_is_timed_less_often(number: int, calls: int, those: str):
    """Far behind is over 1.3 times the fastest; timings take a hundredth of a second a call."""
    seconds = {"gemmir": 2e-2, "near": 1e-2, "far": 1.4e-2, "fma peak": 1e-3}
    times = {name: [{"wall": s, "calls": calls}] for name, s in seconds.items()}
    times["fma peak"][0]["calls"] = calls * 10
    assert " ".join(still_in(times, number)) == those


def test_a_first_call_that_takes_long_is_not_taken_for_the_others():
    with field(fake("gemmir", "compiles")) as there:
        result = there.race(GEMM, rounds=1, seed=0).results["gemmir"]
    assert result.calls > 1


def comes_to_rest(process: int) -> bool:
    """Whether a process is stopped, which takes the system a while."""
    file = Path(f"/proc/{process}/stat")
    end = time.monotonic() + 10
    while time.monotonic() < end and file.read_text().split()[2] != "T":
        time.sleep(0.01)
    return file.read_text().split()[2] == "T"


def test_several_threads_are_stopped_between_turns(tmp_path: Path):
    log = str(tmp_path / "log")
    with field(fake("gemmir", LOG=log), fake("x", LOG=log), threads=2) as there:
        found = there.race(GEMM, rounds=3, seed=0)
        assert all(comes_to_rest(r.about["process"]) for r in found.results.values())
    assert found.results["x"].seconds is found.results["x"].wall


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends them")
def test_contestants_end_with_the_race_even_when_stopped():
    script = f"""
import os, signal, sys, time
sys.path.insert(0, {str(HERE.parents[1])!r})
from tests.bench.test_race import GEMM, fake, field
there = field(fake("gemmir"), threads=2)
print(there.race(GEMM, rounds=1, seed=0).results["gemmir"].about["process"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    process = Path("/proc", done.stdout.strip())
    end = time.monotonic() + 10
    while process.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert done.stdout.strip().isdigit() and not process.exists(), done.stderr


def test_a_peer_is_measured_without_the_compiler(tmp_path: Path):
    script = f"""
import runpy, sys
sys.modules["xdsl"] = None
worker = runpy.run_path({str(racing.WORKER)!r})
worker["without_front_door"]()
found = worker["Worker"]("gemmir.bench.peers.numpy", {{"target": "cpu", "threads": 1}})
assert "about" in found.answer({{"do": "load"}})
answer = found.answer({{"do": "enter", "with": {{
    "gemm": {{"m": 3, "n": 4, "k": 5}}, "given": sys.argv[1], "result": sys.argv[1] + "/c.npy"
}}}})
assert answer["flops"] == 120, answer
assert found.answer({{"do": "time"}})["calls"] >= 1
import gemmir.bench.loops
"""
    write(make(Gemm(m=3, n=4, k=5), 0), tmp_path)
    command = [sys.executable, "-P", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROBLEMS = [
    Gemm(m=5, n=6, k=7),
    Gemm(m=5, n=6, k=7, dtype="f64", trans_a=True, ldc=9),
    Gemm(m=8, n=16, k=8, trans_b=True, lda=11, ldb=13),
    Gemm(m=4, n=8, k=4, trans_a=True, trans_b=True),
    Gemm(m=4, n=8, k=4, batch=3),
    Gemm(m=4, n=8, k=4, batch=3, batch_stride_b=0, dtype="f64"),
    Gemm(m=5, n=6, k=7, alpha=0.5, beta=2.0),
    Gemm(m=5, n=6, k=7, epilogue="bias+gelu"),
    Gemm(m=5, n=6, k=7, epilogue="silu+residual+relu"),
    Gemm(m=4, n=8, k=32, dtype="u8", dtype_b="i8"),
    Gemm(m=4, n=8, k=32, dtype="i8"),
    Gemm(m=4, n=8, k=32, dtype="bf16"),
    Gemm(m=4, n=8, k=32, dtype="bf16", out="bf16", epilogue="bias+relu"),
    Gemm(m=4, n=8, k=64, dtype_b="i4", weight_group=32, trans_b=True),
    Gemm(m=4, n=8, k=50, dtype_b="i8", weight_group=32),
]


@pytest.fixture(scope="module")
def everybody():
    machine = machine_for("cpu")
    assert isinstance(machine, CpuMachine)
    those = contestants(
        against=None,
        machine=machine,
        threads=1,
        schedules={"gemmir": None},
        kinds=get_args(Kind),
    )
    with Field(those, target="cpu", threads=1, cpus=[]) as there:
        yield there


@pytest.mark.parametrize("gemm", PROBLEMS, ids=repr)
def test_whoever_is_here_computes_what_it_should(everybody: Field, gemm: Gemm):
    found = everybody.race(gemm, rounds=1, seed=3)
    assert found.wrong == {}
    if gemm.dtype in ("f32", "f64") and not gemm.has_weights:
        assert "gemmir" in found.results and "fma peak" in found.results
    if gemm.dtype == "f32" and not gemm.beta:
        assert "numpy" in found.results


def test_every_way_of_calling_gives_the_product(everybody: Field):
    found = everybody.race(Gemm(m=5, n=6, k=7), rounds=1, seed=3, kind="calls")
    assert found.own == "gemmir.matmul" and found.wrong == {}
    own = {"gemmir", "gemmir.matmul", "gemmir kernel", "gemmir bound", "np.matmul"}
    assert own <= set(found.results)


def test_a_kernel_for_any_m_is_compared_with_that_for_one(everybody: Field):
    found = everybody.race(Gemm(m=5, n=6, k=7), rounds=1, seed=3, kind="any m")
    assert found.wrong == {} and found.unable == {}
    assert list(found.results) == ["gemmir", "gemmir, any m", "fma peak"]
    assert (found.own, found.best_peer) == ("gemmir, any m", "gemmir")


def test_cpus_are_the_ones_asked_for(monkeypatch: pytest.MonkeyPatch):
    def allowed(_: int) -> set[int]:
        return {2, 3, 5}

    monkeypatch.setattr("os.sched_getaffinity", allowed)
    assert cpus_for(1, 3) == [3]
    assert cpus_for(2, 5) == [5, 2]
    for threads, cpu, part in ((1, 0, "2, 3, 5"), (4, 2, "3 CPUs")):
        with pytest.raises(MissingError, match=part) as caught:
            cpus_for(threads, cpu)
        assert caught.value.code == "GEM1373"
