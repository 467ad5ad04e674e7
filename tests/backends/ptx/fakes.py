"""A GPU that is none: its memory is in this process, and its kernels run in the PTX emulator.

`FakeCuda` is the machine; `bindings_module` and `pycuda_module` show it as NVIDIA's `cuda-bindings`
and PyCUDA show theirs. Addresses are far from any that this process has, so that touching one from
Python ends the test.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gemmir import dlpack
from gemmir.backends.ptx.driver.tensor_maps import MAP_ALIGNMENT, MAP_BYTES
from gemmir.backends.ptx.emulator import emulate
from gemmir.launch import TensorMap

Array = npt.NDArray[Any]

FIRST_ADDRESS: Final = 0x7F00_0000_0000_0000
FIRST_HANDLE: Final = 0x5500
FIRST_STREAM: Final = 0x7700
ALIGNMENT: Final = 256
POINTER_BYTES: Final = 8

PARAMETER_BASE: Final = 0x210
"""Where parameters begin in the bank of constants of sm_90, by which a tensor map is aligned."""

GARBAGE: Final = 0xFF
"""What new memory holds: NaNs of every float type."""


class Status(IntEnum):
    """Some of CUresult."""

    SUCCESS = 0
    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    INVALID_CONTEXT = 201
    INVALID_PTX = 218
    INVALID_HANDLE = 400
    NOT_FOUND = 500
    ILLEGAL_ADDRESS = 700


class FakeFaultError(Exception):
    """A call that the driver answers with a status that is not success."""

    def __init__(self, status: Status, log: str = "") -> None:
        super().__init__(status.name)
        self.status = status
        self.log = log


@dataclass(frozen=True)
class Function:
    """A kernel of a module, in one context."""

    gpu: int
    text: str
    symbol: str
    handle: int
    attributes: dict[Any, int] = field(default_factory=dict[Any, int], compare=False)

    def __int__(self) -> int:
        return self.handle


H200: Final = {16: 132, 13: 1_980_000, 36: 3_201_000, 37: 6144, 38: 60 << 20}
"""What a driver says of an H200, by the numbers of cuda.h: multiprocessors, kHz, kHz of the memory,
bits of its bus, bytes of L2."""


@dataclass
class FakeCuda:
    """The GPUs of a computer, by name and capability; `log` is what was asked of the driver.

    The next call named in `failing` is answered with its status. Two events are `tick_ms` apart.
    """

    gpus: tuple[tuple[str, tuple[int, int]], ...] = (("Fake H200", (9, 0)),)
    room: int = 1 << 30
    runs: bool = True
    tick_ms: float = 2.0
    log: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    failing: dict[str, Status] = field(default_factory=dict[str, Status])
    memory: dict[int, Array] = field(default_factory=dict[int, Array])
    attributes: dict[int, int] = field(default_factory=lambda: dict(H200))
    parameters: list[list[bytes]] = field(default_factory=list[list[bytes]])
    functions: list[Function] = field(default_factory=list[Function])

    def __post_init__(self) -> None:
        self._next = FIRST_ADDRESS
        self._lock = threading.RLock()
        self._stacks: dict[int, list[int]] = {}
        self._events = 0
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: list[list[Callable[[], None]]] = []

    @property
    def stack(self) -> list[int]:
        """The contexts of this thread, by their GPU."""
        with self._lock:
            return self._stacks.setdefault(threading.get_ident(), [])

    def did(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of `name`."""
        return [tuple(rest) for found, *rest in self.log if found == name]

    def call(self, name: str, *arguments: Any) -> None:
        """Note a call; it fails where it shall, or where it needs a context and there is none."""
        with self._lock:
            self.log.append((name, *arguments))
            if name in self.failing:
                raise FakeFaultError(self.failing.pop(name))
        if not self.stack:
            raise FakeFaultError(Status.INVALID_CONTEXT)

    def allocate(self, size: int) -> int:
        self.call("alloc", size)
        with self._lock:
            if size > self.room - sum(a.size for a in self.memory.values()):
                raise FakeFaultError(Status.OUT_OF_MEMORY)
            address = self._next
            self._next += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
            self.memory[address] = np.full(size, GARBAGE, np.uint8)
            return address

    def free(self, address: int) -> None:
        self.call("free", address)
        with self._lock:
            del self.memory[address]

    def bytes_at(self, address: int) -> Array:
        """The memory from `address` to the end of its allocation."""
        with self._lock:
            for base, room in self.memory.items():
                if base <= address < base + room.size:
                    return room[address - base :]
        raise FakeFaultError(Status.INVALID_VALUE)

    def copy_in(self, address: int, data: Array) -> None:
        self.call("copy_in", address, data.size)
        self.bytes_at(address)[: data.size] = data

    def copy_out(self, data: Array, address: int) -> None:
        self.call("copy_out", address, data.size)
        data[:] = self.bytes_at(address)[: data.size]

    def load(self, image: bytes) -> tuple[int, str]:
        self.call("load", len(image))
        if not image.endswith(b"\0") or image.startswith(b"\x7fELF"):
            raise FakeFaultError(Status.INVALID_PTX, "this driver reads no such image\0")
        return self.stack[-1], image[:-1].decode()

    def function(self, module: tuple[int, str], symbol: str) -> Function:
        self.call("function", symbol)
        if symbol not in module[1]:
            raise FakeFaultError(Status.NOT_FOUND)
        with self._lock:
            made = Function(*module, symbol, handle=FIRST_HANDLE + len(self.functions))
            self.functions.append(made)
        return made

    def launch(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared: int,
        stream: int,
        parameters_of: Callable[[list[int]], list[bytes]],
    ) -> None:
        """`parameters_of` has the bytes of parameters of these sizes; of 128 are tensor maps."""
        self.call("launch", function.symbol, stream, shared)
        if function.gpu != self.stack[-1]:
            raise FakeFaultError(Status.INVALID_HANDLE)
        if shared and shared not in function.attributes.values():
            raise FakeFaultError(Status.INVALID_VALUE)
        sizes = parameter_sizes(function.text, function.symbol)
        found = parameters_of(sizes)
        pointers = [int.from_bytes(p, "little") for p in found if len(p) == POINTER_BYTES]
        arrays = [self.bytes_at(address) for address in pointers]
        self.parameters.append(found)
        x, y, z = grid
        sizes = [array.size for array in arrays]
        maps = [p for p in found if len(p) == MAP_BYTES]

        def start() -> None:
            if self.runs:
                emulate(
                    function.text,
                    [*(decoded(made, pointers, sizes) for made in maps), *arrays],
                    grid=(x, y, z),
                    block=_triple(block),
                    kernel=function.symbol,
                    shared_bytes=shared,
                )

        if self._recording is None:
            start()
        else:
            self._recording.append(start)

    def begin_recording(self, stream: int) -> None:
        self.call("begin recording", stream)
        if stream in (1, 2) or self._recording is not None:
            raise FakeFaultError(Status.INVALID_VALUE)
        self._recording = []

    def end_recording(self, stream: int) -> int:
        self.call("end recording", stream)
        assert self._recording is not None
        self._graphs.append(self._recording)
        self._recording = None
        return len(self._graphs)

    def start_graph(self, graph: int, stream: int) -> None:
        self.call("graph", graph, stream)
        for start in self._graphs[graph - 1]:
            start()

    def event(self) -> int:
        self.call("event")
        with self._lock:
            self._events += 1
            return self._events


_ENTRY = r"\.entry\s+{}\s*\(([^)]*)\)"
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+64\s+\.b8\s+\w+\[(\d+)\]|\.[ub]64)")


def parameter_sizes(text: str, symbol: str) -> list[int]:
    """The bytes of each parameter of a kernel: arrays of bytes that are aligned to 64, pointers."""
    entry = re.search(_ENTRY.format(re.escape(symbol)), text)
    assert entry is not None
    return [int(size or POINTER_BYTES) for size in _PARAMETER.findall(entry.group(1))]


def parameter_ends(sizes: list[int]) -> list[int]:
    """Where parameters of these sizes end in the bank of constants of sm_90."""
    at, ends = PARAMETER_BASE, list[int]()
    for size in sizes:
        alignment = MAP_ALIGNMENT if size == MAP_BYTES else size
        at += -at % alignment + size
        ends.append(at)
    return ends


def _triple(found: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = found
    return x, y, z


def _at(address: int, size: int) -> Array:
    """Memory of this process."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


Answer: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Bindings:
    """The functions of NVIDIA's driver API as `cuda-bindings` has them, under shorter names."""

    cuda: FakeCuda

    def init(self, flags: int) -> None:
        """Nothing has to be made ready."""

    def version(self) -> int:
        return 13020

    def count(self) -> int:
        return len(self.cuda.gpus)

    def device(self, number: int) -> int:
        return number

    def name(self, size: int, gpu: int) -> bytes:
        return self.cuda.gpus[gpu][0].encode().ljust(size, b"\0")

    def device_attribute(self, which: int, gpu: int) -> int:
        return self.cuda.gpus[gpu][1][which]

    def room(self, gpu: int) -> int:
        return self.cuda.room

    def retain(self, gpu: int) -> int:
        return gpu + 1

    def current(self) -> int:
        return self.cuda.stack[-1] + 1 if self.cuda.stack else 0

    def current_device(self) -> int:
        return self.cuda.stack[-1]

    def push(self, context: int) -> None:
        self.cuda.stack.append(context - 1)

    def pop(self) -> int:
        return self.cuda.stack.pop() + 1

    def load(self, image: bytes, count: int, options: list[str], values: list[Any]) -> Any:
        assert count == len(options) == len(values)
        try:
            return self.cuda.load(image)
        except FakeFaultError as error:
            values[options.index("error log")][: len(error.log)] = error.log.encode()
            raise

    def function(self, module: tuple[int, str], name: bytes) -> Function:
        return self.cuda.function(module, name.decode())

    def attribute(self, function: Function, name: str, value: int) -> None:
        self.cuda.call("attribute", name, value)
        function.attributes[name] = value

    def copy_in(self, to: int, at: int, size: int) -> None:
        self.cuda.copy_in(to, _at(at, size))

    def copy_out(self, at: int, of: int, size: int) -> None:
        self.cuda.copy_out(_at(at, size), of)

    def synchronize(self, stream: int) -> None:
        self.cuda.call("synchronize", stream)

    def event(self, flags: int) -> int:
        return self.cuda.event()

    def record(self, event: int, stream: int) -> None:
        self.cuda.call("record", event, stream)

    def wait(self, stream: int, event: int, flags: int) -> None:
        self.cuda.call("wait", stream, event)

    def nothing(self, event: int) -> None:
        """An event is awaited, or not needed any more."""

    def elapsed(self, first: int, last: int) -> float:
        return self.cuda.tick_ms * (last - first)

    def error_name(self, status: Status) -> bytes:
        return f"CUDA_ERROR_{status.name}".encode()

    def error_text(self, status: Status) -> bytes:
        return status.name.lower().encode()

    def functions(self) -> dict[str, tuple[int, Callable[..., Any]]]:
        """How many values each function returns behind its status, and what it does."""
        return {
            "cuInit": (0, self.init),
            "cuDriverGetVersion": (1, self.version),
            "cuDeviceGetCount": (1, self.count),
            "cuDeviceGet": (1, self.device),
            "cuDeviceGetName": (1, self.name),
            "cuDeviceGetAttribute": (1, self.device_attribute),
            "cuDeviceTotalMem": (1, self.room),
            "cuDevicePrimaryCtxRetain": (1, self.retain),
            "cuCtxGetCurrent": (1, self.current),
            "cuCtxGetDevice": (1, self.current_device),
            "cuCtxPushCurrent": (0, self.push),
            "cuCtxPopCurrent": (1, self.pop),
            "cuModuleLoadDataEx": (1, self.load),
            "cuModuleGetFunction": (1, self.function),
            "cuFuncSetAttribute": (0, self.attribute),
            "cuMemAlloc": (1, self.cuda.allocate),
            "cuMemFree": (0, self.cuda.free),
            "cuMemcpyHtoD": (0, self.copy_in),
            "cuMemcpyDtoH": (0, self.copy_out),
            "cuStreamSynchronize": (0, self.synchronize),
            "cuEventCreate": (1, self.event),
            "cuEventRecord": (0, self.record),
            "cuStreamWaitEvent": (0, self.wait),
            "cuEventDestroy": (0, self.nothing),
            "cuEventSynchronize": (0, self.nothing),
            "cuEventElapsedTime": (1, self.elapsed),
            "cuGetErrorName": (1, self.error_name),
            "cuGetErrorString": (1, self.error_text),
        }


def bindings_module(cuda: FakeCuda) -> ModuleType:
    """`cuda.bindings.driver`: every function returns a status and its values and never raises."""

    def answering(values: int, function: Callable[..., Any]) -> Callable[..., Answer]:
        def call(*arguments: Any) -> Answer:
            try:
                found = function(*arguments)
            except FakeFaultError as error:
                return (error.status, *[None] * values)
            return (Status.SUCCESS, found) if values else (Status.SUCCESS,)

        return call

    module = ModuleType("cuda.bindings.driver")
    functions = Bindings(cuda).functions()
    vars(module).update({name: answering(*found) for name, found in functions.items()})
    vars(module).update(
        CUresult=Status,
        CUjit_option=SimpleNamespace(
            CU_JIT_INFO_LOG_BUFFER="info log",
            CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES="info size",
            CU_JIT_ERROR_LOG_BUFFER="error log",
            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES="error size",
        ),
        CUfunction_attribute=SimpleNamespace(
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic"
        ),
        CUdevice_attribute=SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=0,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=1,
        ),
    )
    return module


def pycuda_module(cuda: FakeCuda) -> ModuleType:
    """`pycuda.driver`: a failure is its `Error`, functions and events have no handles."""

    class Error(Exception):
        pass

    class NoMemoryError(Error):
        pass

    def tried(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except FakeFaultError as error:
            kind = NoMemoryError if error.status == Status.OUT_OF_MEMORY else Error
            raise kind(f"call failed: {error.status.name.lower()}\n{error.log}") from None

    class Context:
        def __init__(self, gpu: int) -> None:
            self.gpu = gpu

        def push(self) -> None:
            cuda.stack.append(self.gpu)

        @staticmethod
        def pop() -> None:
            cuda.stack.pop()

        @staticmethod
        def get_device() -> Device:
            if not cuda.stack:
                raise Error("invalid device context")
            return Device(cuda.stack[-1])

    @dataclass(frozen=True)
    class Device:
        number: int

        @staticmethod
        def count() -> int:
            return len(cuda.gpus)

        def name(self) -> str:
            return cuda.gpus[self.number][0]

        def compute_capability(self) -> tuple[int, int]:
            return cuda.gpus[self.number][1]

        def total_memory(self) -> int:
            return cuda.room

        def retain_primary_context(self) -> Context:
            return Context(self.number)

    class PycudaFunction:
        def __init__(self, function: Function) -> None:
            self._function = function

        def set_attribute(self, name: str, value: int) -> None:
            tried(cuda.call, "attribute", name, value)
            self._function.attributes[name] = value

        def _launch_kernel(
            self,
            grid: tuple[int, ...],
            block: tuple[int, ...],
            packed: bytes,
            shared: int,
            stream: None,
        ) -> None:
            assert stream is None

            def parameters(sizes: list[int]) -> list[bytes]:
                ends = [end - PARAMETER_BASE for end in parameter_ends(sizes)]
                assert len(packed) == max(ends, default=0)
                return [packed[end - n : end] for n, end in zip(sizes, ends, strict=True)]

            tried(cuda.launch, self._function, grid, block, shared, 1, parameters)

    class Module:
        def __init__(self, module: tuple[int, str]) -> None:
            self._module = module

        def get_function(self, symbol: str) -> PycudaFunction:
            return PycudaFunction(tried(cuda.function, self._module, symbol))

    def module_from_buffer(buffer: bytes) -> Module:
        try:
            return Module(cuda.load(buffer))
        except FakeFaultError as error:
            said = f"cuModuleLoadDataEx failed: {error.status.name}"
            raise Error(f"{said} - {error.log}") from None

    class Allocation:
        def __init__(self, size: int) -> None:
            self._address = tried(cuda.allocate, size)

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            tried(cuda.free, self._address)

    class Event:
        def record(self) -> Event:
            self.number = cuda.event()
            return self

        def synchronize(self) -> Event:
            return self

        def time_since(self, other: Event) -> float:
            return cuda.tick_ms * (self.number - other.number)

    module = ModuleType("pycuda.driver")
    vars(module).update(
        Error=Error,
        MemoryError=NoMemoryError,
        Context=Context,
        Device=Device,
        Event=Event,
        init=lambda: None,
        get_driver_version=lambda: 13020,
        function_attribute=SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic"),
        mem_alloc=Allocation,
        memcpy_htod=partial(tried, cuda.copy_in),
        memcpy_dtoh=partial(tried, cuda.copy_out),
        module_from_buffer=module_from_buffer,
    )
    return module


@dataclass(frozen=True)
class Libcuda:
    """What is asked of libcuda itself, by ctypes."""

    cuda: FakeCuda

    def current(self, place: Any) -> None:
        place._obj.value = self.cuda.stack[-1] + 1 if self.cuda.stack else None

    def launch(self, handle: Any, *rest: Any) -> None:
        x, y, z, bx, by, bz, shared, stream, places, extra = rest
        assert extra is None
        function = next(f for f in self.cuda.functions if f.handle == handle.value)

        def parameters(sizes: list[int]) -> list[bytes]:
            found = (ctypes.c_void_p * len(sizes)).from_address(places.value)
            return [ctypes.string_at(at or 0, n) for at, n in zip(found, sizes, strict=True)]

        self.cuda.launch(function, (x, y, z), (bx, by, bz), shared, stream.value, parameters)

    def create(self, place: Any, flags: int) -> None:
        place._obj.value = self.cuda.event()

    def noted(self, name: str, *handles: Any) -> None:
        self.cuda.call(name, *(handle.value for handle in handles if hasattr(handle, "value")))

    def nothing(self, event: Any) -> None:
        """An event is not needed any more."""

    def device(self, place: Any, number: int) -> None:
        place._obj.value = number

    def attribute(self, place: Any, which: int, device: Any) -> None:
        place._obj.value = self.cuda.attributes[which]

    def stream(self, place: Any, flags: int) -> None:
        self.cuda.call("stream", flags)
        place._obj.value = FIRST_STREAM + len(self.cuda.did("stream"))

    def begin(self, stream: Any, mode: int) -> None:
        self.cuda.begin_recording(stream.value)

    def end(self, stream: Any, place: Any) -> None:
        place._obj.value = self.cuda.end_recording(stream.value)

    def instantiate(self, place: Any, graph: Any, flags: Any) -> None:
        assert flags.value == 0
        place._obj.value = graph.value

    def replay(self, graph: Any, stream: Any) -> None:
        self.cuda.start_graph(graph.value, stream.value)

    def encode(self, place: Any, kind: int, rank: int, start: Any, *rest: Any) -> None:
        """Write all that is said of a tensor map where it shall be."""
        extents, strides, box, steps, interleave, swizzle, promotion, fill = rest
        assert place.value % MAP_ALIGNMENT == 0
        assert list(steps) == [1] * rank
        self.cuda.call("encode", start.value)
        made = encoded(
            kind,
            start.value,
            extents,
            strides[: rank - 1],
            box,
            (interleave, swizzle, promotion, fill),
        )
        ctypes.memmove(place.value, made, len(made))

    def functions(self) -> dict[str, Callable[..., None]]:
        return {
            "cuCtxGetCurrent": self.current,
            "cuDeviceGet": self.device,
            "cuDeviceGetAttribute": self.attribute,
            "cuStreamCreate": self.stream,
            "cuStreamBeginCapture_v2": self.begin,
            "cuStreamEndCapture": self.end,
            "cuGraphInstantiateWithFlags": self.instantiate,
            "cuGraphLaunch": self.replay,
            "cuEventCreate": self.create,
            "cuEventDestroy_v2": self.nothing,
            "cuEventRecord": partial(self.noted, "record"),
            "cuLaunchKernel": self.launch,
            "cuStreamSynchronize": partial(self.noted, "synchronize"),
            "cuStreamWaitEvent": partial(self.noted, "wait"),
            "cuTensorMapEncodeTiled": self.encode,
        }


def encoded(
    kind: int,
    start: int,
    extents: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int],
    modes: Sequence[int],
) -> bytes:
    """A tensor map of the fake driver: what it was made of."""
    said = json.dumps([kind, start, [*extents], [*strides], [*box], [*modes]])
    return said.encode().ljust(MAP_BYTES)


ITEMS: Final = {0: "u8", 1: "f16", 2: "f32", 4: "f64", 11: "tf32"}
"""An element type that is as wide as those of a kind of CUtensorMapDataType."""


SWIZZLES: Final[Sequence[int]] = (0, 32, 64, 128)
"""Bytes of a swizzle by its CUtensorMapSwizzle."""


def decoded(made: bytes, pointers: Sequence[int], sizes: Sequence[int]) -> TensorMap:
    """The tensor map that `encoded` wrote, of one of the arrays at `pointers`."""
    kind, start, extents, strides, box, modes = json.loads(made)
    places = enumerate(zip(pointers, sizes, strict=True))
    argument = next(n for n, (begin, size) in places if begin <= start < begin + size)
    return TensorMap(
        argument=argument,
        item=ITEMS[kind],
        extents=tuple(extents),
        strides_bytes=tuple(strides),
        box=tuple(box),
        swizzle_bytes=SWIZZLES[int(modes[1])],
        offset_bytes=start - pointers[argument],
    )


def libcuda(cuda: FakeCuda) -> Any:
    """The driver as ctypes shows it: every function returns its status."""

    def answering(function: Callable[..., None]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            try:
                function(*arguments)
            except FakeFaultError as error:
                return int(error.status)
            return 0

        return call

    functions = Libcuda(cuda).functions()
    return SimpleNamespace(**{name: answering(found) for name, found in functions.items()})


@dataclass
class FakeTensor:
    """An array of some library on a fake GPU, shown by DLPack or by the older interface."""

    cuda: FakeCuda
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    gpu: int = 0
    stream: int | None = None
    is_read_only: bool = False
    asked: list[int | None] = field(default_factory=list[int | None])

    @property
    def data(self) -> Array:
        """What is in it, as a NumPy array that shares its memory."""
        return np.ndarray(
            self.shape, self.dtype, self.cuda.bytes_at(self.address), strides=self.strides
        )


class ByDlpack(FakeTensor):
    """Shown by DLPack; `asked` are the streams that it was asked to be ready on."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.gpu

    def __dlpack__(self, *, stream: int | None = None) -> object:
        self.asked.append(stream)
        strides = [s // self.dtype.itemsize for s in self.strides]
        return dlpack.make(self.address, self.dtype, self.shape, strides, self.gpu, self)


class ByInterface(FakeTensor):
    """Shown by `__cuda_array_interface__`, on `stream`."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "data": (self.address, self.is_read_only),
            "typestr": self.dtype.str,
            "shape": self.shape,
            "strides": self.strides,
            "stream": self.stream,
        }


def tensor(
    kind: type[FakeTensor], cuda: FakeCuda, array: Array, gpu: int = 0, offset: int = 0
) -> Any:
    """A copy of `array` on a fake GPU, `offset` bytes behind the begin of its memory."""
    cuda.stack.append(gpu)
    address = cuda.allocate(array.nbytes + offset) + offset
    cuda.stack.pop()
    packed = np.ascontiguousarray(array)
    made = kind(cuda, address, array.shape, array.dtype, packed.strides, gpu)
    made.data[...] = array
    return made
