"""Kernels on a real GPU: numbers, arrays of other libraries, streams and threads.

Skipped where there is none. Every test runs by each library that works here.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

import gemmir
from gemmir.arrays import make_operands
from gemmir.backends.ptx import driver as drivers
from gemmir.backends.ptx.driver import DRIVERS, Driver, find_driver
from gemmir.cache import ObjectCache
from gemmir.device_arrays import DeviceArray
from gemmir.errors import DeviceMemoryError, MissingError
from gemmir.gemm import DTYPES
from gemmir.gpu_kernel import GpuKernel, target_for
from gemmir.machine.gpu import SM_90A
from gemmir.reference import reference_of_gemm
from tests.hopper_strategies import hopper_cases
from tests.strategies import examples

Array = npt.NDArray[Any]

SEED: Final = 7
SIZES: Final = (1, 3, 16, 17, 63, 64, 65, 127, 128, 130, 257)
DRAWN: Final = 12
"""Problems of drawn sizes for each element type."""


def reason() -> str:
    """Why there is nothing to test on, or ""."""
    try:
        find_driver()
    except MissingError as error:
        return error.message
    return ""


MISSING: Final = reason()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there is a GPU")


@pytest.fixture(params=sorted(DRIVERS), autouse=True)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Each library in turn."""
    package = {"pycuda": "pycuda", "cuda-bindings": "cuda"}[request.param]
    if find_spec(package) is None:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(drivers, "DRIVERS", {request.param: DRIVERS[request.param]})
    find_driver.cache_clear()
    yield find_driver()
    find_driver.cache_clear()


@pytest.fixture(scope="module")
def target() -> str:
    """The newest target that the first GPU runs."""
    return target_for(find_driver().gpus()[0])


@pytest.fixture
def torch() -> Any:
    found: Any = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return found


def compiled(gemm: gemmir.Gemm, target: str) -> GpuKernel:
    kernel = gemmir.compile(gemm, target, cache=ObjectCache(None))
    assert isinstance(kernel, GpuKernel)
    return kernel


def drawn() -> Iterator[gemmir.Gemm]:
    """Problems of every element type, with edges, other orders and strides."""
    generator = random.Random(SEED)
    for dtype in ("f32", *SM_90A.mma_dtypes):
        for _ in range(DRAWN):
            m, n, k = (generator.choice(SIZES) for _ in range(3))
            beta = generator.choice((0.0, 0.0, 2.0))
            yield gemmir.Gemm(
                m=m,
                n=n,
                k=k,
                dtype=dtype,
                out=generator.choice(DTYPES[dtype]),
                trans_a=generator.random() < 0.5,
                trans_b=generator.random() < 0.5,
                alpha=generator.choice((1.0, -3.0)),
                beta=beta,
                ldc=n + generator.choice((0, 0, 3)),
                batch=generator.choice((None, None, 3)),
            )
    for dtype, epilogue in itertools.product(("f32", "bf16"), ("bias+relu", "bias+gelu+residual")):
        yield gemmir.Gemm(m=65, n=48, k=40, dtype=dtype, epilogue=epilogue)
    for dtype in ("f32", "bf16"):
        yield gemmir.Gemm(m=200, n=72, k=64, dtype=dtype, groups=5)
    yield gemmir.Gemm(m=0, n=8, k=8)
    yield gemmir.Gemm(m=8, n=8, k=0)
    yield gemmir.Gemm(m=1024, n=1024, k=1024)
    yield gemmir.Gemm(m=1024, n=512, k=768, dtype="bf16")


@pytest.mark.parametrize("gemm", list(drawn()), ids=str)
def test_the_numbers_are_within_their_bound(gemm: gemmir.Gemm, target: str):
    assert_right(gemm, compiled(gemm, target))


def test_warpgroups_multiply_by_drawn_schedules(target: str):
    if target != "cuda:sm_90a":
        pytest.skip(f"{target} has no warpgroups that multiply")

    @given(hopper_cases(SM_90A, most=400))
    @examples(0.5)
    def draw(case: tuple[gemmir.Gemm, gemmir.Schedule]) -> None:
        gemm, schedule = case
        assert_right(gemm, gemmir.lower(gemm, target, schedule).compile(ObjectCache(None)))

    draw()


def assert_right(gemm: gemmir.Gemm, kernel: gemmir.Kernel) -> None:
    operands = make_operands(kernel.signature, SEED)
    before = operands.copy()
    *inputs, out = operands.arrays
    kernel(*inputs, out=out)
    wrong = reference_of_gemm(gemm, before, emulated=False).compare(out).first_wrong
    assert wrong is None, str(wrong)
    assert operands.damage(before) == ""


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_split_sums_are_added_by_a_second_kernel(target: str, dtype: str):
    gemm = gemmir.Gemm(m=64, n=64, k=2048, dtype=dtype)
    kernel = compiled(gemm, target)
    assert "split-k" in str(gemmir.lower(gemm, target).schedule)
    operands = make_operands(kernel.signature, SEED)
    *inputs, out = operands.arrays
    kernel(*inputs, out=out)
    wrong = reference_of_gemm(gemm, operands).compare(out).first_wrong
    assert wrong is None, str(wrong)
    assert np.array_equal(kernel(*inputs), out)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_tensors_of_pytorch_are_used_where_they_lie(torch: Any, target: str, dtype: str):
    name = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}[dtype]
    kernel = compiled(gemmir.Gemm(m=130, n=96, k=64, dtype=name, trans_b=True), target)
    kind = getattr(torch, dtype)
    a, b = (torch.rand(shape, device="cuda").to(kind) for shape in ((130, 64), (96, 64)))
    c = kernel(a, b)
    assert isinstance(c, torch.Tensor)
    exact = a.double() @ b.double().mT
    assert (c.double() - exact).abs().max().item() < 1e-4
    out = torch.full_like(c, float("nan"))
    assert kernel(a, b, out=out) is out
    assert torch.equal(out, c)


def test_tensors_that_were_seen_give_the_same_again(torch: Any, target: str):
    kernel = compiled(gemmir.Gemm(m=64, n=64, k=64), target)
    a, b = (torch.rand(64, 64, device="cuda") for _ in range(2))
    c = first = kernel(a, b)
    for _ in range(100):
        a.neg_()
        c = kernel(a, b)
    assert torch.equal(c, first)


def test_matmul_reads_the_problem_off_tensors(torch: Any):
    a = torch.rand(3, 40, 48, device="cuda")
    b = torch.rand(56, 48, device="cuda")
    c = gemmir.matmul(a, b.mT)
    assert (c.double() - a.double() @ b.double().mT).abs().max().item() < 1e-4
    half = gemmir.matmul(a[0].to(torch.bfloat16), b.to(torch.bfloat16).mT)
    assert half.dtype == torch.bfloat16


def test_a_side_stream_of_pytorch_keeps_its_order(torch: Any, target: str):
    """A long task before the kernel, and one after it that spoils its operands."""
    kernel = compiled(gemmir.Gemm(m=256, n=256, k=256), target)
    a, b = (torch.rand(256, 256, device="cuda") for _ in range(2))
    exact = a.double() @ b.double()
    torch.cuda.synchronize()
    for _ in range(10):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            late = torch.zeros_like(a)
            for _ in range(50):
                late += 0.0
            late += a
            c = kernel(late, b)
            late.zero_()
        stream.synchronize()
        assert (c.double() - exact).abs().max().item() < 1e-4


def test_a_bound_call_can_be_captured_in_a_graph(torch: Any, target: str, driver: Driver):
    if "PyCUDA" in driver.library:
        pytest.skip("PyCUDA starts kernels on the default stream, which cannot be captured")
    kernel = compiled(gemmir.Gemm(m=64, n=64, k=64), target)
    a, b, c = (torch.rand(64, 64, device="cuda") for _ in range(3))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        call = kernel.bind(a, b, out=c)
        call()
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            call()
    a.fill_(2.0)
    graph.replay()
    torch.cuda.synchronize()
    assert (c.double() - a.double() @ b.double()).abs().max().item() < 1e-4


def test_arrays_of_cupy_are_used_where_they_lie(target: str):
    cupy: Any = pytest.importorskip("cupy")
    kernel = compiled(gemmir.Gemm(m=65, n=32, k=48), target)
    a, b = (cupy.random.rand(*shape, dtype=np.float32) for shape in ((65, 48), (48, 32)))
    c = kernel(a, b)
    assert isinstance(c, cupy.ndarray)
    assert float(abs(c - a.astype("f8") @ b.astype("f8")).max()) < 1e-4
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        again = kernel(a, b)
    stream.synchronize()
    assert bool((again == c).all())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_of_jax_are_used_where_they_lie(
    target: str, dtype: str, monkeypatch: pytest.MonkeyPatch
):
    """JAX would take three quarters of the memory, which other tests need at the same time."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax: Any = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    numpy = import_module("jax.numpy")
    name = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    kernel = compiled(gemmir.Gemm(m=64, n=32, k=48, dtype=name), target)
    a, b = (numpy.ones(shape, dtype) for shape in ((64, 48), (48, 32)))
    c = kernel(a, b)
    assert isinstance(c, jax.Array)
    assert np.array_equal(np.asarray(c), np.full((64, 32), 48.0))


def test_our_own_arrays_go_to_other_libraries(torch: Any, target: str):
    kernel = compiled(gemmir.Gemm(m=64, n=64, k=64), target)

    class Plain:
        """An array of no library that is known by name."""

        def __init__(self, tensor: Any) -> None:
            self.tensor = tensor
            self.__cuda_array_interface__ = tensor.__cuda_array_interface__

    a, b = (torch.rand(64, 64, device="cuda") for _ in range(2))
    torch.cuda.synchronize()
    c = kernel(Plain(a), Plain(b))
    assert isinstance(c, DeviceArray)
    tensor = torch.from_dlpack(c)
    assert (tensor.double() - a.double() @ b.double()).abs().max().item() < 1e-4
    assert np.array_equal(c.numpy(), tensor.cpu().numpy())


def test_a_kernel_runs_in_several_threads_at_once(target: str):
    kernel = compiled(gemmir.Gemm(m=200, n=100, k=300), target)
    *inputs, out = make_operands(kernel.signature, SEED).arrays
    kernel(*inputs, out=out)
    found: list[Array] = []

    def work() -> None:
        found.extend(kernel(*inputs) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert all(np.array_equal(c, out) for c in found)


def test_no_room_on_the_gpu_is_a_memory_error(driver: Driver):
    size = 2 * driver.gpus()[0].memory_bytes
    with driver.use(0), pytest.raises(DeviceMemoryError, match="GEM0524"):
        driver.allocate(size)


def test_the_command_line_runs_on_the_gpu(target: str):
    command = ["-m", "gemmir", "run", "--m", "256", "--n", "256", "--k", "256", "--target", target]
    done = subprocess.run(
        [sys.executable, *command, "--seconds", "0.1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "GFLOP/s" in done.stdout
