"""Kernels for a GPU as callables, on a GPU whose kernels run in the emulator."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import gemmir
from gemmir.arrays import Operands, make_operands
from gemmir.cache import ObjectCache
from gemmir.check import check as gemmir_check
from gemmir.device_arrays import DeviceArray
from gemmir.errors import CallError, DeviceError, DeviceMemoryError, MissingError
from gemmir.gpu_kernel import GpuKernel
from gemmir.reference import reference_of_gemm
from tests.backends.ptx.conftest import Install
from tests.backends.ptx.fakes import ByDlpack, ByInterface, FakeCuda, FakeTensor, Status, tensor

Array = npt.NDArray[Any]

TARGET = "cuda:sm_90a"
SMALL = gemmir.Gemm(m=20, n=24, k=16)

PROBLEMS = {
    "f32": SMALL,
    "edges": gemmir.Gemm(m=17, n=5, k=9),
    "f64": gemmir.Gemm(m=16, n=16, k=8, dtype="f64"),
    "bf16": gemmir.Gemm(m=32, n=32, k=32, dtype="bf16"),
    "f16 to f16": gemmir.Gemm(m=32, n=32, k=32, dtype="f16", out="f16"),
    "tf32": gemmir.Gemm(m=32, n=32, k=16, dtype="tf32"),
    "i8": gemmir.Gemm(m=32, n=32, k=32, dtype="i8"),
    "u8": gemmir.Gemm(m=32, n=32, k=32, dtype="u8", lda=36),
    "e4m3": gemmir.Gemm(m=32, n=32, k=32, dtype="e4m3"),
    "e5m2": gemmir.Gemm(m=32, n=32, k=32, dtype="e5m2", out="bf16"),
    "transposed": gemmir.Gemm(m=16, n=24, k=8, trans_a=True, trans_b=True),
    "padded rows": gemmir.Gemm(m=8, n=12, k=8, lda=12, ldb=16, ldc=20),
    "beta": gemmir.Gemm(m=8, n=8, k=8, alpha=0.5, beta=2.0, ldc=12),
    "stack": gemmir.Gemm(m=8, n=8, k=8, batch=3),
    "epilogue": gemmir.Gemm(m=16, n=16, k=8, epilogue="bias+relu"),
    "groups": gemmir.Gemm(m=20, n=8, k=8, groups=3),
    "no rows": gemmir.Gemm(m=0, n=8, k=8),
    "no products": gemmir.Gemm(m=8, n=8, k=0),
}


def compiled(gemm: gemmir.Gemm = SMALL) -> GpuKernel:
    kernel = gemmir.compile(gemm, TARGET, cache=ObjectCache(None))
    assert isinstance(kernel, GpuKernel)
    return kernel


def on_cpu(kernel: gemmir.Kernel) -> Operands:
    return make_operands(kernel.signature)


def on_gpu(kernel: gemmir.Kernel, cuda: FakeCuda, kind: type[FakeTensor]) -> list[Any]:
    """Random operands on the fake GPU, the output last."""
    return [tensor(kind, cuda, array) for array in on_cpu(kernel).arrays]


def assert_right(gemm: gemmir.Gemm, before: Operands, c: Array) -> None:
    wrong = reference_of_gemm(gemm, before).compare(c).first_wrong
    assert wrong is None, str(wrong)


@pytest.mark.parametrize("name", PROBLEMS)
def test_numpy_arrays_are_copied_over_and_back(cuda: FakeCuda, name: str):
    gemm = PROBLEMS[name]
    kernel = compiled(gemm)
    operands = on_cpu(kernel)
    before = operands.copy()
    *inputs, out = operands.arrays
    assert kernel(*inputs, out=out) is out
    assert_right(gemm, before, out)
    assert operands.damage(before) == ""
    assert cuda.memory == {}


def test_split_sums_go_through_a_workspace(cuda: FakeCuda):
    gemm = gemmir.Gemm(m=32, n=32, k=256)
    plain = gemmir.lower(gemm, TARGET).schedule
    lowered = gemmir.lower(gemm, TARGET, f"split-k{{factor=4}},{plain}")
    kernel = lowered.compile(ObjectCache(None))
    operands = on_cpu(kernel)
    *inputs, out = operands.arrays
    kernel(*inputs, out=out)
    assert_right(gemm, operands, out)
    assert len(cuda.did("launch")) == 2
    assert list(lowered.artifact.launch.workspace_bytes if lowered.artifact.launch else ()) == [
        room.size for room in cuda.memory.values()
    ]


def test_without_out_the_result_is_a_new_numpy_array(by_bindings: Install):
    by_bindings(FakeCuda())
    kernel = compiled()
    operands = on_cpu(kernel)
    a, b, _ = operands.arrays
    assert_right(SMALL, operands, kernel(a, b=b))


def test_a_bound_call_reads_what_is_in_the_arrays_then(by_bindings: Install):
    by_bindings(FakeCuda())
    kernel = compiled()
    operands = on_cpu(kernel)
    a, b, c = operands.arrays
    call = kernel.bind(a, b, out=c)
    a[...] *= -1
    before = operands.copy()
    assert call() is c
    assert_right(SMALL, before, c)


@pytest.mark.parametrize("kind", [ByDlpack, ByInterface])
def test_arrays_on_the_gpu_are_used_where_they_lie(cuda: FakeCuda, kind: type[FakeTensor]):
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, kind)
    asked = len(cuda.log)
    assert kernel(a, b, out=c) is c
    assert_right(SMALL, on_cpu(kernel), c.data)
    done = {name for name, *_ in cuda.log[asked:]}
    assert done <= {"load", "function", "launch"}


def test_an_array_of_bf16_is_known_by_its_two_raw_bytes(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled(PROBLEMS["bf16"])
    a, b, c = on_gpu(kernel, cuda, ByInterface)
    assert a.__cuda_array_interface__["typestr"] == "<V2"
    kernel(a, b, out=c)
    assert_right(PROBLEMS["bf16"], on_cpu(kernel), c.data)


def test_the_result_is_an_array_on_the_gpu_that_others_take(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, _ = on_gpu(kernel, cuda, ByDlpack)
    c = kernel(a, b)
    assert isinstance(c, DeviceArray)
    assert repr(c) == "<DeviceArray float32[20, 24] on GPU 0>"
    assert_right(SMALL, on_cpu(kernel), c.numpy())
    assert c.__dlpack_device__() == (2, 0)
    assert c.__cuda_array_interface__["shape"] == (20, 24)
    wider = compiled(gemmir.Gemm(m=20, n=16, k=24))
    again = wider(c, tensor(ByDlpack, cuda, np.eye(24, 16, dtype=np.float32)))
    assert np.array_equal(again.numpy(), c.numpy()[:, :16])


def test_a_consumer_on_another_stream_waits_for_the_kernel(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, _ = on_gpu(kernel, cuda, ByDlpack)
    c = kernel(a, b)
    cuda.log.clear()
    capsules = [c.__dlpack__(stream=stream) for stream in (None, 1, -1, 9)]
    assert [entry[0] for entry in cuda.log] == ["event", "record", "wait"]
    assert cuda.did("wait") == [(9, cuda.did("record")[0][0])]
    with pytest.raises(BufferError, match="not copied"):
        c.__dlpack__(copy=True)
    address = c.__cuda_array_interface__["data"][0]
    del c
    assert address in cuda.memory
    del capsules
    assert address not in cuda.memory


def test_the_kernel_runs_on_the_stream_of_the_output(by_bindings: Install):
    """What the other streams do to the arrays comes before it or after it."""
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, ByInterface)
    b.stream, c.stream = 8, 9
    kernel(a, b, out=c)
    order = [entry for entry in cuda.log if entry[0] in ("record", "wait", "launch")]
    launch = order.index(("launch", "gemm", 9, cuda.did("launch")[0][2]))
    before, after = order[:launch], order[launch + 1 :]
    assert [(e[0], e[2] if e[0] == "record" else e[1]) for e in before] == [
        ("record", 1),
        ("wait", 9),
        ("record", 8),
        ("wait", 9),
    ]
    assert [(e[0], e[2] if e[0] == "record" else e[1]) for e in after] == [
        ("record", 9),
        ("wait", 1),
        ("record", 9),
        ("wait", 8),
    ]


def test_dlpack_is_asked_to_be_ready_on_the_default_stream(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, ByDlpack)
    kernel(a, b, out=c)
    assert a.asked == b.asked == c.asked == [1]


@dataclass(frozen=True)
class FakeDevice:
    """Where a tensor of PyTorch is."""

    type: str = "cuda"


class Tensor(ByDlpack):
    """A tensor of PyTorch, which is told by the module of its class."""

    device = FakeDevice()
    requires_grad = False

    def data_ptr(self) -> int:
        return self.address

    def stride(self) -> tuple[int, ...]:
        return tuple(s // self.dtype.itemsize for s in self.strides)

    def swapaxes(self, one: int, other: int) -> Tensor:
        turned = np.swapaxes(self.data, one, other)
        return Tensor(self.cuda, self.address, turned.shape, self.dtype, turned.strides, self.gpu)


Tensor.__module__ = "torch"


@dataclass
class FakeTorch:
    """PyTorch as far as it is asked: the current stream, and new tensors."""

    fake: FakeCuda
    stream: int
    Tensor: ClassVar[type[Tensor]] = Tensor
    float32: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    bfloat16: ClassVar[np.dtype[Any]] = np.dtype(ml_dtypes.bfloat16)

    @property
    def cuda(self) -> FakeTorch:
        return self

    def current_stream(self, gpu: object) -> Any:
        return SimpleNamespace(cuda_stream=self.stream)

    def empty_strided(
        self, shape: tuple[int, ...], strides: tuple[int, ...], *, dtype: np.dtype[Any], device: Any
    ) -> Any:
        assert device is Tensor.device
        made = tensor(Tensor, self.fake, np.full(shape, np.nan, dtype))
        assert made.stride() == strides
        return made


@pytest.fixture
def torch(by_bindings: Install, monkeypatch: pytest.MonkeyPatch) -> FakeTorch:
    """PyTorch on a fake GPU, working on stream 42."""
    found = FakeTorch(by_bindings(FakeCuda()), stream=42)
    monkeypatch.setitem(sys.modules, "torch", cast("Any", found))
    return found


def test_pytorch_gets_its_own_tensors_on_its_current_stream(torch: FakeTorch):
    kernel = compiled()
    a, b, _ = on_gpu(kernel, torch.fake, Tensor)
    c = kernel(a, b)
    assert type(c) is Tensor
    assert_right(SMALL, on_cpu(kernel), c.data)
    assert a.asked == [-1]
    assert torch.fake.did("launch")[0][1] == 42
    assert torch.fake.did("wait") == []


def test_tensors_that_were_seen_are_not_looked_at_again(torch: FakeTorch):
    kernel = compiled()
    a, b, c = on_gpu(kernel, torch.fake, Tensor)
    for _ in range(3):
        assert kernel(a, b, out=c) is c
    assert a.asked == [-1]
    assert len(torch.fake.did("launch")) == 3
    torch.stream = 43
    kernel(a, b, out=c)
    assert a.asked == [-1, -1]
    assert torch.fake.did("launch")[-1][1] == 43
    a.requires_grad = True
    kernel(a, b, out=c)
    assert a.asked == [-1, -1, -1]


def test_tensors_that_are_seen_for_the_first_time_are_checked(torch: FakeTorch):
    kernel = compiled()
    a, b, c = on_gpu(kernel, torch.fake, Tensor)
    kernel(a, b, out=c)
    b.strides = (192, 8)
    with pytest.raises(CallError, match="GEM0507"):
        kernel(a, b, out=c)


def test_matmul_reads_the_problem_off_tensors(torch: FakeTorch):
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-1, 1, s).astype(np.float32) for s in ((2, 8, 16), (12, 16)))
    x, w = (tensor(Tensor, torch.fake, array) for array in (a, b))
    c = gemmir.matmul(x, w.swapaxes(0, 1))
    assert type(c) is Tensor
    assert np.allclose(c.data, a @ b.T, atol=1e-5)
    half = tensor(Tensor, torch.fake, np.eye(16, dtype=ml_dtypes.bfloat16))
    assert gemmir.matmul(half, half).dtype == half.dtype


def test_matmul_refuses_what_it_would_have_to_copy_on_the_gpu(torch: FakeTorch):
    a = tensor(Tensor, torch.fake, np.zeros((8, 16), np.float32)[:, :8])
    every_other = Tensor(torch.fake, a.address, (8, 8), a.dtype, (64, 8))
    with pytest.raises(CallError, match=r"GEM0520.*strides \(64, 8\).*contiguous"):
        gemmir.matmul(every_other, a)
    with pytest.raises(CallError, match=r"GEM0520.*Tensor and a ndarray"):
        gemmir.matmul(a, a.data)
    with pytest.raises(CallError, match=r"GEM0520.*uint16"):
        gemmir.matmul(*[tensor(ByInterface, torch.fake, np.zeros((8, 8), np.uint16))] * 2)


def test_a_bound_call_only_starts_the_kernel(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, ByDlpack)
    call = kernel.bind(a, b, out=c)
    cuda.log.clear()
    assert call() is c
    assert [entry[0] for entry in cuda.log] == ["launch"]
    assert_right(SMALL, on_cpu(kernel), c.data)


def test_a_kernel_may_be_called_from_several_threads(cuda: FakeCuda):
    kernel = compiled(gemmir.Gemm(m=8, n=8, k=8))
    operands = on_cpu(kernel)
    a, b, _ = operands.arrays
    found: list[Array] = []

    def work() -> None:
        found.extend(kernel(a, b) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert all(np.array_equal(c, found[0]) for c in found)
    assert len(cuda.did("function")) == 1
    assert cuda.memory == {}


@pytest.mark.parametrize("call", ["launch", "synchronize"])
def test_nothing_is_written_where_the_gpu_fails(cuda: FakeCuda, call: str):
    kernel = compiled()
    operands = on_cpu(kernel)
    before = operands.copy()
    *inputs, out = operands.arrays
    cuda.failing[call] = Status.ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match="GEM0526"):
        kernel(*inputs, out=out)
    assert operands.damage(before) == ""
    assert np.array_equal(out, before.output, equal_nan=True)
    assert cuda.memory == {}


def test_no_room_on_the_gpu_leaves_nothing_behind(install: Install):
    cuda = install(FakeCuda(room=2000))
    kernel = compiled()
    *inputs, out = on_cpu(kernel).arrays
    with pytest.raises(DeviceMemoryError, match="GEM0524"):
        kernel(*inputs, out=out)
    assert cuda.memory == {}


def test_arrays_in_different_memories_are_refused(by_bindings: Install):
    cuda = by_bindings(FakeCuda(gpus=(("One", (9, 0)), ("Two", (9, 0)))))
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, ByDlpack)
    with pytest.raises(CallError, match=r"GEM0521.*a on GPU 0, b on the CPU, c on GPU 0"):
        kernel(a, b.data, out=c)
    b.gpu = 1
    with pytest.raises(CallError, match=r"GEM0521.*b on GPU 1"):
        kernel(a, b, out=c)


def test_an_array_that_cannot_be_shared_is_refused_with_its_words(by_bindings: Install):
    class Stubborn(ByDlpack):
        def __dlpack__(self, *, stream: int | None = None) -> object:
            raise BufferError("it requires a gradient")

    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    _, b, c = on_gpu(kernel, cuda, ByDlpack)
    a = tensor(Stubborn, cuda, np.zeros((20, 16), np.float32))
    with pytest.raises(CallError, match=r"GEM0522.*Stubborn.*requires a gradient.*detach"):
        kernel(a, b, out=c)


def test_an_array_with_a_mask_is_refused(by_bindings: Install):
    class Masked(ByInterface):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {**super().__cuda_array_interface__, "mask": object()}

    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    _, b, c = on_gpu(kernel, cuda, ByInterface)
    with pytest.raises(CallError, match=r"GEM0522.*mask"):
        kernel(tensor(Masked, cuda, np.zeros((20, 16), np.float32)), b, out=c)


def test_an_array_on_the_gpu_must_be_aligned_to_what_is_loaded_at_once(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    _, b, c = on_gpu(kernel, cuda, ByDlpack)
    a = tensor(ByDlpack, cuda, np.zeros((20, 16), np.float32), offset=4)
    with pytest.raises(CallError, match=r"GEM0523.*a starts at.*16 bytes"):
        kernel(a, b, out=c)


def test_arrays_on_the_gpu_are_checked_as_those_on_the_cpu_are(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled()
    a, b, c = on_gpu(kernel, cuda, ByInterface)
    wide = tensor(ByInterface, cuda, np.zeros((20, 16)))
    turned = tensor(ByInterface, cuda, np.zeros((16, 20), np.float32))
    asked = len(cuda.did("launch"))
    with pytest.raises(CallError, match="GEM0504"):
        kernel(wide, b, out=c)
    with pytest.raises(CallError, match="GEM0506"):
        kernel(turned, b, out=c)
    with pytest.raises(CallError, match="GEM0501"):
        kernel(a, out=c)
    with pytest.raises(CallError, match="GEM0502"):
        kernel(a, b, out=c, d=a)
    inside = ByInterface(cuda, a.address + 16, c.shape, c.dtype, c.strides)
    with pytest.raises(CallError, match="GEM0511"):
        kernel(a, b, out=inside)
    c.is_read_only = True
    with pytest.raises(CallError, match="GEM0510"):
        kernel(a, b, out=c)
    apart = ByInterface(cuda, b.address, b.shape, b.dtype, (192, 8))
    with pytest.raises(CallError, match="GEM0507"):
        kernel(a, apart, out=tensor(ByInterface, cuda, np.zeros((20, 24), np.float32)))
    assert len(cuda.did("launch")) == asked


def test_beta_needs_its_output_on_the_gpu_too(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    kernel = compiled(gemmir.Gemm(m=8, n=8, k=8, beta=1.0))
    a, b, _ = on_gpu(kernel, cuda, ByDlpack)
    with pytest.raises(CallError, match="GEM0512"):
        kernel(a, b)


def test_the_kernel_alone_is_timed_by_the_clock_of_the_gpu(by_bindings: Install):
    cuda = by_bindings(FakeCuda(runs=False))
    kernel = compiled()
    *inputs, out = on_cpu(kernel).arrays
    timing = kernel.measure(*inputs, out=out, seconds=0.0)
    assert timing.seconds == pytest.approx(2e-3)
    assert timing.count == 5
    assert len(cuda.did("launch")) == 7


def test_compiling_without_a_gpu_that_runs_it_says_so_before_it_lowers(install: Install):
    install(FakeCuda(gpus=(("Fake A100", (8, 0)),)))
    with pytest.raises(MissingError, match="GEM0610"):
        gemmir.compile(SMALL, TARGET)
    with pytest.raises(MissingError, match="GEM0610"):
        gemmir.lower(SMALL, TARGET).compile()


def test_what_is_cached_is_loaded_again(by_bindings: Install, tmp_path: Any):
    by_bindings(FakeCuda())
    cache = ObjectCache(tmp_path)
    first = gemmir.compile(SMALL, TARGET, cache=cache)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = gemmir.compile(SMALL, TARGET, cache=cache)
    a, b, _ = on_cpu(first).arrays
    assert np.array_equal(first(a, b), again(a, b))
    assert file.stat().st_mtime_ns == written


def test_check_goes_on_to_the_gpu_where_there_is_one(cuda: FakeCuda):
    report = gemmir_check(SMALL, target=TARGET)
    assert [row.name for row in report.rows[-2:]] == ["ptx", "gpu"]
    assert report.ok
    assert len(cuda.did("launch")) == 1


def test_check_keeps_from_the_gpu_what_the_emulator_refuses(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    text = gemmir.lower(SMALL, TARGET).artifact.text
    wrong = text.replace("st.global", "st.nowhere", 1)
    report = gemmir_check(SMALL, target=TARGET, ptx=wrong)
    assert report.rows[-1].name == "ptx"
    assert not report.ok
    assert cuda.did("launch") == []


def test_check_reports_a_gpu_that_computes_something_else(by_bindings: Install):
    by_bindings(FakeCuda(runs=False))
    report = gemmir_check(SMALL, target=TARGET, shrink=False)
    assert report.first_wrong is not None
    assert report.first_wrong.name == "gpu"
