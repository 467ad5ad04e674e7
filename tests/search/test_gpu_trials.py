"""Trials on a GPU: from a schedule to a verdict, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemmir.backends.ptx.driver import find_driver, libcuda
from gemmir.backends.ptx.driver.figures import Figures
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine, machine_for
from gemmir.schedule import Schedule, default_schedule
from gemmir.search.trials import Limits, Trials
from gemmir.search.trials.gpu_arrays import MOST_PLACES, Rotation
from gemmir.search.trials.gpu_candidate import GpuCandidate
from gemmir.search.trials.gpu_roofline import GpuRoofline
from gemmir.search.trials.memory import Memory, sums_exactly
from gemmir.search.trials.places import missing_gpu
from gemmir.search.trials.roofline import bytes_of
from gemmir.search.trials.trials import Entry
from gemmir.search.tuning.objective import MeasuredSeconds
from tests.backends.ptx.conftest import hide, show
from tests.backends.ptx.fakes import FakeCuda, bindings_module, pycuda_module
from tests.backends.ptx.fakes import libcuda as fake_libcuda
from tests.search.gpu import TARGET, FakeGpu, install


def reason() -> str:
    """Why there is no GPU here, or ""."""
    try:
        find_driver()
    except MissingError as error:
        return error.message
    return ""


MISSING = reason()

GEMM = Gemm(m=20, n=24, k=16, dtype="f16", out="f32")
SCHEDULE = (
    "tile{loops=m,n sizes=32,24 over=blocks per_sm=1},tile{loops=m,n sizes=32,24 over=warps},"
    "promote{operand=c to=registers},tile{loops=k sizes=16},"
    "promote{operand=a to=shared layout=swizzle:32},"
    "promote{operand=b to=shared layout=swizzle:32},vectorize{with=mma width=8}"
)
TWO_WARPS = SCHEDULE.replace("32,24 over=warps", "16,24 over=warps")
LIMITS = Limits(seconds=60.0, rounds=2, sample_seconds=0.004)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    find_driver.cache_clear()


@pytest.fixture(scope="module")
def made(
    patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeGpu, Trials]]:
    gpu = install(patched, tmp_path_factory.mktemp("gpu"))
    with Trials(GEMM, target=TARGET, limits=LIMITS) as trials:
        yield gpu, trials


def test_a_right_kernel_is_checked_and_timed(made: tuple[FakeGpu, Trials]) -> None:
    gpu, trials = made
    gpu.be("")
    found = trials.run(SCHEDULE)
    assert (found.status, found.detail) == ("ok", "")
    assert found.error is not None and 0 < found.error < 1, "it was compared with float64"
    assert len(found.seconds) == LIMITS.rounds and found.flops == GEMM.flops
    launches = found.samples[0].calls
    assert launches % found.about["operand_places"] == 0, "each place as often as any other"
    assert found.value == pytest.approx(2e-3 / launches), "two events of this GPU are 2 ms apart"
    assert found.about["loader"] == "cuda-bindings 13.2.0"
    assert found.about["operands_are_cold"] is True
    assert found.about["schedule"] == list(Schedule.parse(SCHEDULE).steps)
    assert trials.place.clock == "time of a launch on Fake A100"


@pytest.mark.parametrize(
    ("fault", "status", "part"),
    [
        ("refuses", "illegal", "GEM0525: the driver refuses the code"),
        ("is full", "crashed", "GEM0524"),
        ("faults", "crashed", "GEM0526: cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("crashes", "crashed", "SIGSEGV"),
        ("wrong", "wrong", "whole numbers: element [0, 0]"),
        ("wrong later", "wrong", "after many calls, "),
        ("too fast", "impossible", "15,360 operations at"),
    ],
)
def test_a_failure_is_an_outcome_and_the_next_trial_is_not_hurt(
    made: tuple[FakeGpu, Trials], fault: str, status: str, part: str
) -> None:
    gpu, trials = made
    gpu.be(fault)
    found = trials.run(SCHEDULE)
    assert found.status == status and part in found.detail, found
    assert found.value is None
    timed = fault in ("wrong later", "too fast")
    assert bool(found.seconds) == timed, "who is wrong is not timed"
    gpu.be("")
    assert trials.run(SCHEDULE).ok


def test_a_kernel_without_an_end_is_ended(made: tuple[FakeGpu, Trials]) -> None:
    gpu, trials = made
    gpu.be("hangs")
    with Trials(GEMM, target=TARGET, limits=replace(LIMITS, seconds=3.0)) as short:
        found = short.run(SCHEDULE)
        assert found.status == "timeout" and "compute has not ended within 3 s" in found.detail
        gpu.be("")
        assert short.run(SCHEDULE).ok
    assert trials.run(SCHEDULE).ok


def test_a_schedule_that_does_not_fit_is_illegal(made: tuple[FakeGpu, Trials]) -> None:
    gpu, trials = made
    gpu.be("")
    found = trials.run("tile{loops=z sizes=4}")
    assert found.status == "illegal" and "GEM03" in found.detail


def test_memory_is_limited_while_it_compiles(made: tuple[FakeGpu, Trials]) -> None:
    gpu, trials = made
    gpu.be("")
    with Trials(GEMM, target=TARGET, limits=replace(LIMITS, memory_bytes=1 << 20)) as small:
        assert small.run(SCHEDULE).status == "crashed"
    assert trials.run(SCHEDULE).ok


def test_what_is_right_in_the_emulator_wins_a_race(made: tuple[FakeGpu, Trials]) -> None:
    """Schedules race in processes that go on; one that is refused falls out."""
    gpu, trials = made
    gpu.be("")
    objective = MeasuredSeconds(trials)
    other = "tile{loops=m,n sizes=32,24 over=blocks}"
    times, failed = objective.race([SCHEDULE, other], 3, np.random.default_rng(0))
    assert len(times[SCHEDULE]) == 3 and list(failed) == [other]
    assert failed[other].status == "illegal"
    assert (objective.name, objective.is_measured) == ("time of a launch on Fake A100", True)


def test_all_of_a_race_compile_before_one_is_waited_for(
    made: tuple[FakeGpu, Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, trials = made
    gpu.be("")
    did: list[str] = []
    for name in ("begin", "check"):
        does = getattr(Entry, name)

        def noted(entry: Entry, name: str = name, does: Callable[..., Any] = does) -> Any:
            did.append(name)
            return does(entry)

        monkeypatch.setattr(Entry, name, noted)
    times, _ = MeasuredSeconds(trials).race([SCHEDULE, TWO_WARPS], 1, np.random.default_rng(0))
    assert did == ["begin", "begin", "check", "check"]
    assert list(times) == [SCHEDULE, TWO_WARPS]


@pytest.mark.parametrize("library", ["PyCUDA", "cuda-bindings"])
def test_each_library_launches_as_it_can(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a graph, or in a loop by the one that has no stream for it; each place in its turn."""
    cuda = FakeCuda(gpus=(("Fake A100", (8, 0)),))
    shown = {"PyCUDA": pycuda_module(cuda), "cuda-bindings": bindings_module(cuda)}
    hide(monkeypatch, "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    show(monkeypatch, shown[library])
    monkeypatch.setattr(libcuda, "library", lambda: fake_libcuda(cuda))
    find_driver.cache_clear()
    memory = Memory(GEMM, 0)
    settings = {"target": TARGET, "schedule": SCHEDULE, "gpu": 0, "places": 3, "is_cold": True}
    candidate = GpuCandidate({"settings": settings}, memory.file)
    prepared = candidate.answer({"do": "prepare", "with": {"gemm": asdict(GEMM)}})
    assert prepared["about"]["loader"].startswith(library)
    for case in memory.cases:
        assert candidate.answer({"do": "compute", "with": {"case": case.name}}) == {}
        assert case.fault(memory.shown)[0] == ""
    cuda.runs = False
    asked = {"sample_seconds": 0.004, "warm_up_seconds": 0.0}
    before = len(cuda.parameters)
    found = candidate.answer({"do": "time", "with": asked})
    assert found["calls"] == 2 * 2 * 3, "two graphs of two laps of three places"
    assert bool(cuda.did("graph")) == (library == "cuda-bindings")
    places = [parameters[-1] for parameters in cuda.parameters[before:]]
    if library == "cuda-bindings":
        assert len(places) == 3 + 2 * 3, "what was recorded: a lap, and then two of them"
    assert len(set(places)) == 3 and all(a != b for a, b in pairwise(places))
    memory.close()
    find_driver.cache_clear()


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=64, n=64, k=64, dtype="bf16"),
        Gemm(m=130, n=72, k=96, dtype="f16", out="f16", epilogue="bias+relu", trans_b=True),
        Gemm(m=64, n=64, k=2048, dtype="bf16"),
    ],
    ids=["tma", "epilogue", "split"],
)
def test_default_schedules_of_hopper_are_right_there(
    gemm: Gemm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tensor maps, copies of its memory unit, products of warpgroups and split sums."""
    install(monkeypatch, tmp_path, "Fake H200", (9, 0))
    schedule = str(default_schedule(gemm, machine_for("cuda:sm_90a")))
    with Trials(gemm, target="cuda:sm_90a", limits=LIMITS) as trials:
        found = trials.run(schedule)
    find_driver.cache_clear()
    assert (found.status, found.detail) == ("ok", ""), schedule


# Where there is no such GPU ----------------------------------------------------------------------


def test_another_gpu_is_none(made: tuple[FakeGpu, Trials]) -> None:
    """Code for sm_75 runs there, but it is no T4."""
    for target in ("cuda:sm_75", "cuda:sm_90a"):
        with pytest.raises(MissingError, match="GEM1460") as raised:
            Trials(GEMM, target=target)
        assert f"times for {target} need a GPU of that architecture" in raised.value.message
        assert "there is Fake A100, cuda:sm_80" in raised.value.message
        machine = machine_for(target)
        assert isinstance(machine, GpuMachine)
        assert missing_gpu(machine) == raised.value.message
    own = machine_for(TARGET)
    assert isinstance(own, GpuMachine) and missing_gpu(own) == ""


@pytest.mark.skipif(not MISSING, reason="there is a GPU")
def test_without_a_gpu_the_message_names_the_static_objective() -> None:
    find_driver.cache_clear()
    with pytest.raises(MissingError, match=r"GEM1460.*--objective static") as raised:
        Trials(GEMM, target="cuda:sm_90a")
    assert raised.value.exit_code == 4


def test_a_tpu_is_not_timed() -> None:
    with pytest.raises(MissingError, match=r"GEM1461.*--objective static"):
        Trials(Gemm(m=64, n=128, k=128), target="tpu:v5e")


# Limits ------------------------------------------------------------------------------------------


H200 = Figures(sms=132, clock_khz=1_980_000, memory_khz=3_201_000, memory_bus_bits=6144, l2_bytes=1)
SMALL = Figures(sms=1, clock_khz=1, memory_khz=1, memory_bus_bits=64, l2_bytes=1)


@pytest.mark.parametrize(
    ("dtype", "tflops"),
    [
        ("bf16", 1070.5),
        ("f16", 1070.5),
        ("tf32", 535.3),
        ("bf16x3", 1070.5),
        ("e4m3", 2141.0),
        ("i8", 2141.0),
        ("f32", 66.9),
        ("f64", 66.9),
    ],
)
def test_products_are_not_faster_than_the_fastest_unit(dtype: str, tflops: float) -> None:
    machine = machine_for("cuda:sm_90a")
    assert isinstance(machine, GpuMachine)
    gemm = Gemm(m=4096, n=4096, k=4096, dtype=dtype)
    roofline = GpuRoofline.of(machine, gemm, SMALL, is_cold=True)
    assert roofline.flops_per_second == pytest.approx(tflops * 1e12, rel=1e-3)
    least = gemm.flops / roofline.flops_per_second
    assert roofline.seconds(gemm) == least
    assert roofline.forbids(gemm, least) == "" != roofline.forbids(gemm, least / 1.2)


def test_cold_operands_come_from_the_memory_and_others_from_l2() -> None:
    machine = machine_for("cuda:sm_90a")
    assert isinstance(machine, GpuMachine)
    decode = Gemm(m=16, n=4096, k=4096, dtype="bf16")
    moved = 2 * (16 * 4096 + 4096 * 4096) + 4 * 16 * 4096
    assert bytes_of(decode) == moved
    cold = GpuRoofline.of(machine, decode, SMALL, is_cold=True)
    assert cold.seconds(decode) == pytest.approx(moved / 4.8e12)
    warm = GpuRoofline.of(machine, decode, SMALL, is_cold=False)
    assert warm.seconds(decode) < cold.seconds(decode) / 2
    larger = GpuRoofline.of(machine, decode, H200, is_cold=True)
    assert larger.seconds(decode) == pytest.approx(moved / H200.dram_bytes_per_second)
    for nothing in (Gemm(m=0, n=9, k=9), Gemm(m=9, n=9, k=9, alpha=0.0)):
        assert cold.seconds(nothing) == 0.0


def test_what_is_repeated_is_read_once() -> None:
    one = Gemm(m=64, n=64, k=64)
    many = Gemm(m=64, n=64, k=64, batch=8, batch_stride_b=0)
    assert bytes_of(many) == 8 * bytes_of(one) - 7 * 4 * 64 * 64


def test_operands_rotate_through_more_than_the_cache() -> None:
    megabyte = 1 << 20
    assert Rotation.of(33 * megabyte, 60 * megabyte) == Rotation(places=9, is_cold=True)
    assert Rotation.of(900 * megabyte, 60 * megabyte) == Rotation(places=2, is_cold=True)
    small = Rotation.of(3000, 60 * megabyte)
    assert (small.places, small.is_cold) == (MOST_PLACES, False)
    assert Rotation.of(0, 60 * megabyte).places == MOST_PLACES


@pytest.mark.parametrize(("k", "exact"), [(512, True), (1820, True), (1821, False)])
def test_sums_of_few_bits_are_exact_up_to_them(k: int, exact: bool) -> None:
    """Tensor cores of Hopper keep 14 bits of sums of 8-bit floats."""
    assert sums_exactly(Gemm(m=3, n=4, k=k, dtype="e4m3")) == exact
