"""Which driver is found, which GPU runs the code, and how a program starts its kernels."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gemmir.backends.ptx.driver import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    Gpu,
    Memory,
    find_driver,
    require_gpu,
    runs,
)
from gemmir.backends.ptx.image import Image
from gemmir.backends.ptx.load import Program, load
from gemmir.errors import DeviceError, DeviceMemoryError, MissingError
from gemmir.launch import KernelLaunch, Launch
from gemmir.signature import Argument, Signature
from tests.backends.ptx.conftest import Install, hide, show
from tests.backends.ptx.fakes import FakeCuda, Status, bindings_module

SIGNATURE = Signature(
    symbol="add",
    arguments=(
        Argument(name="a", dtype="f32", shape=(32,), strides=(1,), access="read"),
        Argument(name="c", dtype="f32", shape=(32,), strides=(1,), access="write"),
    ),
)

ENTRY = """
.visible .entry NAME(.param .u64 NAME_param_0, .param .u64 NAME_param_1PARAMETER)
{
.reg .b32 %r<3>;
.reg .b64 %rd<9>;
.reg .f32 %f<3>;
ld.param.u64 %rd1, [NAME_param_SOURCE];
ld.param.u64 %rd2, [NAME_param_TARGET];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 4;
add.s64 %rd4, %rd1, %rd3;
add.s64 %rd5, %rd2, %rd3;
ld.global.f32 %f1, [%rd4];
add.f32 %f2, %f1, 0f3F800000;
st.global.f32 [%rd5], %f2;
ret;
}
"""


def entry(name: str, source: int, target: int, *, workspaces: int = 0) -> str:
    """A kernel that stores one more than what it loads from one of its pointers to another."""
    more = "".join(f", .param .u64 {name}_param_{2 + i}" for i in range(workspaces))
    text = ENTRY.replace("PARAMETER", more).replace("SOURCE", str(source))
    return text.replace("TARGET", str(target)).replace("NAME", name)


HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"

ONE = Image(
    gpu="sm_80",
    launch=Launch(kernels=(KernelLaunch(symbol="add", blocks=1, threads=32),)),
    ptx=(HEAD + entry("add", 0, 1)).encode(),
)

TWO = Image(
    gpu="sm_80",
    launch=Launch(
        kernels=(
            KernelLaunch(symbol="first", blocks=1, threads=32, dynamic_shared_bytes=4096),
            KernelLaunch(symbol="none", blocks=0, threads=32),
            KernelLaunch(symbol="second", blocks=1, threads=32),
        ),
        workspace_bytes=(128,),
    ),
    ptx=(HEAD + entry("first", 0, 2, workspaces=1) + entry("second", 2, 1, workspaces=1)).encode(),
)
"""`first` stores into a workspace what `second` loads from it."""


def program(image: Image) -> Program:
    owner = load(image.to_bytes(), SIGNATURE).owner
    assert isinstance(owner, Program)
    return owner


def arrays(made: Program) -> list[Memory]:
    """0 to 31, and room for as many."""
    memories = [Memory(made.driver, 0, 128) for _ in range(2)]
    with made.driver.use(0):
        made.driver.copy_in(memories[0].address, np.arange(32, dtype=np.float32).view(np.uint8))
    return memories


def content(made: Program, memory: Memory) -> list[float]:
    found = np.empty(128, np.uint8)
    with made.driver.use(0):
        made.driver.copy_out(found, memory.address)
    return found.view(np.float32).tolist()


def test_without_a_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, no_driver_kept: None
):
    hide(monkeypatch, "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    with pytest.raises(MissingError, match=r"GEM0607.*pip install gemmir\[cuda") as raised:
        find_driver()
    assert raised.value.exit_code == 4


def test_without_a_gpu_the_message_says_so(install: Install):
    install(FakeCuda(gpus=()))
    with pytest.raises(MissingError, match=r"GEM0609.*the driver knows no GPU.*gemmir check"):
        find_driver()


def test_without_a_driver_the_message_has_the_words_of_the_package(
    monkeypatch: pytest.MonkeyPatch, no_driver_kept: None
):
    """PyCUDA cannot be imported where there is no libcuda, and cuInit of the bindings fails."""

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("libcuda.so.1 is not there")

    hide(monkeypatch, "pycuda", "pycuda.driver")
    show(monkeypatch, Broken("cuda.bindings.driver"))
    with pytest.raises(MissingError, match=r"GEM0609.*cuda-bindings: libcuda.so.1 is not there"):
        find_driver()


def test_pycuda_is_taken_first(by_pycuda: Install, monkeypatch: pytest.MonkeyPatch):
    by_pycuda(FakeCuda())
    show(monkeypatch, bindings_module(FakeCuda()))
    assert find_driver().library == "PyCUDA 2026.1"


def test_the_bindings_are_taken_where_pycuda_does_not_work(
    monkeypatch: pytest.MonkeyPatch, no_driver_kept: None
):
    broken = ModuleType("pycuda.driver")
    vars(broken).update(Error=RuntimeError, init=_fails)
    show(monkeypatch, broken)
    show(monkeypatch, bindings_module(FakeCuda()))
    assert find_driver().library == "cuda-bindings 13.2.0"


def _fails() -> None:
    raise RuntimeError("cuInit failed: no CUDA-capable device is detected")


def test_gpus_are_described(cuda: FakeCuda):
    driver = find_driver()
    (gpu,) = driver.gpus()
    assert (gpu.name, gpu.sm, gpu.memory_bytes) == ("Fake H200", "sm_90", cuda.room)
    assert driver.cuda_version == (13, 2)
    assert driver.current() == 0
    with driver.use(0):
        assert driver.current() == 0
    assert cuda.stack == []


@pytest.mark.parametrize(
    ("target", "capability", "fits"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (9, 0), True),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_90a", (8, 0), False),
        ("sm_89", (8, 6), False),
        ("sm_120", (12, 0), True),
        ("sm_120", (10, 3), False),
    ],
)
def test_code_runs_on_newer_gpus_unless_it_is_for_one_only(
    target: str, capability: tuple[int, int], fits: bool
):
    gpu = Gpu(number=0, name="G", capability=capability, memory_bytes=1)
    assert runs(target, gpu) is fits


def test_code_for_another_gpu_is_refused_with_both_named(install: Install):
    install(FakeCuda(gpus=(("Fake A100", (8, 0)),)))
    with pytest.raises(MissingError, match=r"GEM0610.*sm_90a.*Fake A100 \(sm_80\).*cuda:sm_80"):
        require_gpu("sm_90a")
    require_gpu("sm_80")


def test_the_first_gpu_that_runs_the_code_is_used(install: Install):
    install(FakeCuda(gpus=(("Old", (7, 5)), ("New", (9, 0)))))
    made = program(ONE)
    assert made.first_gpu == 1
    with pytest.raises(MissingError, match=r"GEM0610.*Old \(sm_75\)"):
        made.bind([0, 0], gpu=0)


def test_an_image_is_the_same_again():
    whole = Image(gpu="sm_90a", launch=TWO.launch, ptx=TWO.ptx, cubin=b"\x7fELF\n\0{")
    assert Image.from_bytes(whole.to_bytes()) == whole
    assert Image.from_bytes(ONE.to_bytes()) == ONE


@pytest.mark.parametrize("data", [b"", b"no json\nx", json.dumps({"gpu": "sm_80"}).encode()])
def test_what_is_no_image_is_refused(data: bytes):
    with pytest.raises((ValueError, KeyError)):
        Image.from_bytes(data)


def test_a_program_runs_its_kernel(cuda: FakeCuda):
    made = program(ONE)
    a, c = arrays(made)
    assert made.run(a.address, c.address) == 0
    assert content(made, c) == [n + 1.0 for n in range(32)]
    assert cuda.did("synchronize") == [(LEGACY_STREAM,)]
    assert cuda.stack == []


def test_kernels_run_in_order_and_share_a_workspace(cuda: FakeCuda):
    made = program(TWO)
    a, c = arrays(made)
    made.run(a.address, c.address)
    assert content(made, c) == [n + 2.0 for n in range(32)]
    assert cuda.did("launch") == [("first", 1, 4096), ("second", 1, 0)]
    assert cuda.did("attribute") == [("dynamic", 4096)]
    assert cuda.did("function") == [("first",), ("second",)]


def test_code_is_loaded_once_and_workspaces_once_for_each_stream(cuda: FakeCuda):
    made = program(TWO)
    a, c = arrays(made)
    before = len(cuda.did("alloc"))
    for stream in (LEGACY_STREAM, 7, LEGACY_STREAM, 7, PER_THREAD_STREAM):
        made.bind([a.address, c.address], gpu=0, stream=stream)()
    assert len(cuda.did("load")) == 1
    assert len(cuda.did("alloc")) == before + 3


def test_memory_is_given_back(cuda: FakeCuda):
    made = program(TWO)
    a, c = arrays(made)
    made.run(a.address, c.address)
    assert len(cuda.memory) == 3
    a.free()
    a.free()
    del made, c
    assert cuda.memory == {}


def test_a_cubin_that_the_driver_does_not_know_gives_way_to_the_ptx(cuda: FakeCuda):
    made = program(Image(gpu="sm_80", launch=ONE.launch, ptx=ONE.ptx, cubin=b"\x7fELF"))
    a, c = arrays(made)
    made.run(a.address, c.address)
    assert content(made, c)[:2] == [1.0, 2.0]
    assert len(cuda.did("load")) == 2


def test_code_that_the_driver_refuses_is_an_error_with_its_words(cuda: FakeCuda):
    made = program(Image(gpu="sm_80", launch=ONE.launch, ptx=b"\x7fELF"))
    with pytest.raises(DeviceError, match=r"GEM0525.*(?i:invalid_ptx).*reads no such image"):
        made.bind([0, 0], gpu=0)


def test_no_room_on_the_gpu_is_a_memory_error(install: Install):
    install(FakeCuda(room=100))
    with pytest.raises(DeviceMemoryError, match=r"GEM0524.*128 bytes") as raised:
        Memory(find_driver(), 0, 128)
    assert isinstance(raised.value, MemoryError)


def test_after_a_fault_there_is_not_said_to_be_no_room(install: Install):
    cuda = install(FakeCuda())
    cuda.failing["alloc"] = Status.ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=r"GEM0526: cuMemAlloc.*start it again"):
        Memory(find_driver(), 0, 128)


@pytest.mark.parametrize("call", ["launch", "synchronize", "function", "copy_in"])
def test_a_call_that_fails_is_an_error_that_names_it(cuda: FakeCuda, call: str):
    made = program(ONE)
    cuda.failing[call] = Status.ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=r"GEM0526.*cu\w+ failed.*(?i:illegal_address|700)"):
        a, c = arrays(made)
        made.run(a.address, c.address)
    assert cuda.stack == []


def test_memory_that_cannot_be_given_back_is_passed_over(cuda: FakeCuda):
    memory = Memory(find_driver(), 0, 16)
    cuda.failing["free"] = Status.ILLEGAL_ADDRESS
    memory.free()


def test_events_tell_seconds(cuda: FakeCuda):
    driver = find_driver()
    with driver.use(0):
        assert driver.seconds(driver.record(), driver.record()) == pytest.approx(2e-3)


def test_a_stream_of_another_library_is_waited_for_and_made_to_wait(by_pycuda: Install):
    """PyCUDA starts kernels on the default stream only."""
    cuda = by_pycuda(FakeCuda())
    made = program(ONE)
    a, c = arrays(made)
    made.bind([a.address, c.address], gpu=0, stream=77)()
    kinds = ("record", "wait", "launch")
    (_, first, on), waits, launch, (_, last, then), ends = (
        entry for entry in cuda.log if entry[0] in kinds
    )
    assert (on, waits) == (77, ("wait", LEGACY_STREAM, first))
    assert launch == ("launch", "add", LEGACY_STREAM, 0)
    assert (then, ends) == (LEGACY_STREAM, ("wait", 77, last))


def test_the_bindings_start_kernels_on_any_stream(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    made = program(ONE)
    a, c = arrays(made)
    made.bind([a.address, c.address], gpu=0, stream=77)()
    assert cuda.did("launch") == [("add", 77, 0)]


def test_loading_imports_no_xdsl(tmp_path: Path):
    """A computer that only runs kernels needs neither xDSL nor LLVM."""
    import subprocess
    import sys

    root = Path(__file__).parents[3]
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(root / 'bench')!r})\n"
        "sys.modules['xdsl'] = sys.modules['llvmlite'] = None\n"
        "from gpu import without_front_door\n"
        "without_front_door()\n"
        "import gemmir.backends.ptx.load, gemmir.gpu_kernel\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
