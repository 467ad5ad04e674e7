"""On how many threads a kernel runs, and that its results do not depend on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemmir
from gemmir import threads
from gemmir.backends.cpu import openmp
from gemmir.backends.cpu.assemble import header
from gemmir.errors import CallError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.kernel import Array, Kernel
from gemmir.schedule import Schedule
from gemmir.thunk import NativeKernel

ROWS = "tile{loops=m sizes=8 over=cores},"
COLUMNS = "tile{loops=n sizes=16 over=cores},"
SUM = "promote{operand=c to=registers},vectorize{with=fma width=8}"
PACKED = "promote{operand=a to=l2 layout=panel:4},promote{operand=b to=l2 layout=panel:8},"
SCHEDULES = {
    "rows": ROWS + "tile{loops=m,n sizes=4,8}," + SUM,
    "columns": COLUMNS + "tile{loops=m,n sizes=4,8}," + SUM,
    "packed by every thread": ROWS + PACKED + "tile{loops=m,n sizes=4,8}," + SUM,
    "packed once": PACKED + "tile{loops=m sizes=4 over=cores},tile{loops=n sizes=8}," + SUM,
    "batch": "tile{loops=batch sizes=1 over=cores},tile{loops=m,n sizes=4,8}," + SUM,
}
SERIAL = "tile{loops=m,n sizes=4,8}," + SUM


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process may run on four CPUs, whatever there is."""
    monkeypatch.setattr(threads, "allowed", lambda: 4)
    yield


def number_of(kernel: Kernel) -> int:
    assert isinstance(kernel, NativeKernel) and kernel.loaded.threads is not None
    return kernel.loaded.threads.value


def set_number(kernel: Kernel, count: int) -> None:
    assert isinstance(kernel, NativeKernel) and kernel.loaded.threads is not None
    kernel.loaded.threads.value = count


@pytest.mark.parametrize(
    ("own", "openmp", "given", "planned", "running"),
    [
        (None, None, None, 1, 0),
        (None, None, 3, 3, 3),
        (None, None, 8, 8, 4),
        (None, "2", None, 2, 2),
        (None, "3,2", None, 3, 3),
        ("2", "3", None, 2, 2),
        (" 2 ", None, None, 2, 2),
        ("", "3", None, 3, 3),
        ("64", None, None, 4, 4),
        ("2", "2", 1, 1, 1),
    ],
)
def test_who_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    openmp: str | None,
    given: int | None,
    planned: int,
    running: int,
):
    for name, value in zip(threads.VARIABLES, (own, openmp), strict=True):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert (threads.planned(given), threads.running(given)) == (planned, running)
    expected = Schedule.parse(str(gemmir.lower(LARGE, threads=planned).schedule))
    assert gemmir.lower(LARGE, threads=given).schedule == expected


LARGE = Gemm(m=96, n=64, k=32)

BOUND = """
import os
import numpy as np
import gemmir
a = np.ones((64, 64), np.float32)
for m in (64, 32):
    kernel = gemmir.compile(gemmir.Gemm(m=m, n=64, k=64), threads=2)
    kernel(a[:m], a)
    print(kernel.loaded.threads.value, len(os.sched_getaffinity(0)))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_openmp_may_bind_the_thread_that_loads_it():
    """The second kernel too has two threads, though the first one narrowed the caller's mask."""
    environment = {k: v for k, v in os.environ.items() if k not in threads.BINDING}
    for extra, masks in (({}, ("2", "2")), ({"OMP_PROC_BIND": "close"}, ("1", "1"))):
        command = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])" + BOUND
        found = subprocess.run(
            [sys.executable, "-c", command],
            env={**environment, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert found == ["2", masks[0], "2", masks[1]], extra


@pytest.mark.parametrize("name", threads.VARIABLES)
@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "2 3", "²"])
def test_what_is_no_number_of_threads_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    for call in (lambda: gemmir.compile(LARGE), lambda: gemmir.matmul(ONES, ONES[:1])):
        with pytest.raises(CallError, match=f"GEM1340: {name}={value} is not.*set it to 1 to 4"):
            call()
    gemmir.lower(LARGE, target="cpu:znver3")
    gemmir.compile(LARGE, threads=1)


ONES = np.ones((97, 1), np.float32)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_there_is_at_least_one_thread_and_a_whole_number_of_them(count: Any):
    with pytest.raises(CallError, match=f"GEM1341: threads={count!r}: .*use 1 to 4"):
        gemmir.compile(LARGE, threads=count)
    for target in ("cpu", "cpu:x86-64-v3"):
        with pytest.raises(CallError, match="GEM1341"):
            gemmir.lower(LARGE, target, threads=count)
    with pytest.raises(CallError, match="GEM1341"):
        gemmir.compile(LARGE, schedule=SCHEDULES["rows"], threads=count)
    with pytest.raises(CallError, match="GEM1341"):
        gemmir.matmul(ONES, ONES[:1], threads=count)


def test_threads_beside_a_schedule_are_those_of_the_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    gemm, schedule = Gemm(m=20, n=20, k=4), SCHEDULES["rows"]
    assert number_of(gemmir.compile(gemm, schedule=schedule)) == 0
    assert number_of(gemmir.compile(gemm, schedule=schedule, threads=3)) == 3
    assert number_of(gemmir.compile(gemm, schedule=schedule, threads=9)) == 4
    assert number_of(gemmir.lower(gemm, schedule=schedule, threads=2).compile()) == 2
    monkeypatch.setenv("GEMMIR_NUM_THREADS", "3")
    assert number_of(gemmir.compile(gemm, schedule=schedule)) == 3
    assert number_of(gemmir.compile(gemm, schedule=schedule, threads=1)) == 1


@pytest.mark.parametrize(
    "schedule", [SERIAL, "tile{loops=m sizes=4},parallelize{loop=m over=blocks}"]
)
def test_threads_beside_a_schedule_without_a_loop_over_cores(schedule: str):
    gemm = Gemm(m=20, n=20, k=4)
    for call in (gemmir.compile, gemmir.lower):
        with pytest.raises(ScheduleError, match=r"GEM1342: threads=2 .*add parallelize\{"):
            call(gemm, schedule=schedule, threads=2)
    with pytest.raises(ScheduleError, match="GEM1342"):
        gemmir.lower_text(gemmir.lower(gemm).source, schedule=schedule, threads=2)


def test_parallelize_is_a_loop_over_cores():
    schedule = f"tile{{loops=m sizes=4}},{SUM.replace('promote', 'parallelize{loop=m},promote', 1)}"
    gemmir.compile(Gemm(m=20, n=20, k=4), schedule=schedule, threads=2)


@pytest.mark.parametrize("schedule", [None, "tile{loops=m,n sizes=16,16 over=blocks}"])
def test_a_gpu_has_no_threads_to_choose(schedule: str | None):
    with pytest.raises(ScheduleError, match="GEM0317"):
        gemmir.lower(LARGE, "cuda:sm_90a", schedule=schedule, threads=2)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[str, Gemm, int]:
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    m, n, k = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 20))
    batch = draw(st.integers(1, 5)) if name == "batch" else None
    shared = 0 if batch and draw(st.booleans()) else None
    gemm = Gemm(m=m, n=n, k=k, batch=batch, batch_stride_b=shared)
    return name, gemm, draw(st.integers(1, m))


@given(shapes())
def test_rows_are_the_same_bits_for_any_rows_batch_and_threads(case: tuple[str, Gemm, int]):
    name, gemm, rows = case
    rng = np.random.default_rng(1)
    arrays = [
        rng.uniform(-1, 1, operand.shape).astype(np.float32)
        for operand in gemm.operands
        if operand.access == "read"
    ]
    kernel = gemmir.compile(gemm, schedule=SCHEDULES[name])
    set_number(kernel, 1)
    expected = kernel(*arrays)
    for count in (2, 3, 4):
        set_number(kernel, count)
        assert kernel(*arrays).tobytes() == expected.tobytes(), count
    a, b = arrays
    fewer = replace(gemm, m=rows, batch=1 if gemm.batch else None)
    few = gemmir.compile(fewer, schedule=SCHEDULES[name])
    set_number(few, 3)
    if gemm.batch is None:
        assert few(np.ascontiguousarray(a[:rows]), b).tobytes() == expected[:rows].tobytes()
        return
    for i in range(gemm.batch):
        right = b if b.ndim == 2 else b[i : i + 1]
        found = few(np.ascontiguousarray(a[i : i + 1, :rows]), right)
        assert found[0].tobytes() == expected[i, :rows].tobytes()


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 60), st.none() | st.integers(1, 4))
def test_default_schedules_give_the_same_bits_on_any_number(
    m: int, n: int, k: int, batch: int | None
):
    gemm = Gemm(m=m, n=n, k=k, batch=batch)
    schedule = gemmir.lower(gemm, threads=3).schedule
    if not schedule.is_threaded:
        return
    rng = np.random.default_rng(2)
    shapes = [o.shape for o in gemm.operands if o.access == "read"]
    arrays = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    kernel = gemmir.compile(gemm, schedule=schedule)
    results: set[bytes] = set()
    for count in (1, 2, 3, 4):
        set_number(kernel, count)
        results.add(kernel(*arrays).tobytes())
    assert len(results) == 1


def test_kernels_of_several_threads_run_from_several_python_threads():
    gemm = Gemm(m=64, n=48, k=32)
    kernel = gemmir.compile(gemm, schedule=SCHEDULES["packed by every thread"], threads=3)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        a, b = (rng.integers(-4, 4, s).astype(np.float32) for s in ((64, 32), (32, 48)))
        for _ in range(50):
            if not np.array_equal(kernel(a, b), a @ b):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


FORKED = """
import os, sys
import numpy as np
import gemmir
from gemmir import threads
threads.allowed = lambda: 3
kernel = gemmir.compile(gemmir.Gemm(m=64, n=48, k=32), schedule=sys.argv[1], threads=3)
a, b = np.ones((64, 32), np.float32), np.ones((32, 48), np.float32)
assert (kernel(a, b) == 32).all()
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0 if (kernel(a, b) == 32).all() and len(os.listdir("/proc/self/task")) > 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (kernel(a, b) == 32).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it counts threads in /proc")
def test_a_forked_process_runs_kernels_on_threads():
    subprocess.run(
        [sys.executable, "-c", FORKED, SCHEDULES["rows"]], timeout=120, check=True, env=os.environ
    )


WAITING = """
import ctypes, os, sys
from gemmir.backends.cpu import openmp
before = dict(os.environ)
seen = {}
real = ctypes.CDLL
def spy(name):
    seen.update(os.environ)
    return real(name)
ctypes.CDLL = spy
openmp.runtime()
assert dict(os.environ) == before
print(seen.get("GOMP_SPINCOUNT"), seen.get("KMP_BLOCKTIME"))
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, " ".join(openmp.BRIEFLY.values())),
        ({"OMP_WAIT_POLICY": "active"}, "None None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
    ],
)
def test_a_runtime_is_loaded_with_threads_that_wait_briefly(said: dict[str, str], expected: str):
    environment = {k: v for k, v in os.environ.items() if k not in openmp.WAITING} | said
    command = [sys.executable, "-c", WAITING]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


def test_the_header_names_the_variable():
    threaded = gemmir.lower(Gemm(m=20, n=20, k=4), schedule=SCHEDULES["rows"]).artifact
    assert "\n@gemm_threads = global i32 0\n" in f"\n{threaded.text}"
    assert "extern int32_t gemm_threads;" in header(threaded.signature, is_threaded=True)
    assert "_threads" not in header(threaded.signature)


def test_matmul_takes_the_number():
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-4, 4, (160, 160)).astype(np.float32) for _ in range(2))
    expected: Array = a @ b
    for count in (1, 2, 3, None, 2):
        np.testing.assert_array_equal(gemmir.matmul(a, b, threads=count), expected)
    with pytest.raises(CallError, match="GEM1341"):
        gemmir.matmul(a, b, threads=0)
