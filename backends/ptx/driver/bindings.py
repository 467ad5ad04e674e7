"""The driver through NVIDIA's own wheel, `cuda-bindings`, which needs nothing to be compiled."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any, Final

from gemmir.backends.ptx.driver import graphs, libcuda
from gemmir.backends.ptx.driver.base import (
    LEGACY_STREAM,
    LOG_BYTES,
    Bytes,
    Gpu,
    failed,
    no_memory,
    refused_code,
)
from gemmir.backends.ptx.driver.parameters import Parameters
from gemmir.launch import KernelLaunch

MODULE: Final = "cuda.bindings.driver"


class BindingsDriver:
    """NVIDIA's driver API, called as C calls it.

    Making one raises `ImportError` where the wheel is not installed, and `RuntimeError` where there
    is no driver or no GPU.
    """

    def __init__(self) -> None:
        self._api: Any = import_module(MODULE)
        self._lock = threading.Lock()
        self._contexts: dict[int, Any] = {}
        status = self._api.cuInit(0)[0]
        if status:
            raise RuntimeError(self._said(status))
        self._gpus = tuple(map(self._gpu, range(self._call("cuDeviceGetCount"))))

    @property
    def library(self) -> str:
        """The Python library and its version."""
        return f"cuda-bindings {import_module('cuda.bindings').__version__}"

    @property
    def cuda_version(self) -> tuple[int, int]:
        """The newest CUDA that the driver knows."""
        number = self._call("cuDriverGetVersion")
        return number // 1000, number % 1000 // 10

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs."""
        return self._gpus

    def current(self) -> int:
        """The number of the GPU that this thread uses, 0 where it uses none yet."""
        if not int(self._call("cuCtxGetCurrent")):
            return 0
        return int(self._call("cuCtxGetDevice"))

    def use(self, gpu: int) -> _Use:
        """Make the primary context of a GPU current in this thread."""
        return _Use(self._api, self._context(gpu))

    def load(self, image: bytes) -> object:
        """PTX or a cubin as a module."""
        option = self._api.CUjit_option
        said, log = bytearray(LOG_BYTES), bytearray(LOG_BYTES)
        options = {
            option.CU_JIT_INFO_LOG_BUFFER: said,
            option.CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES: LOG_BYTES,
            option.CU_JIT_ERROR_LOG_BUFFER: log,
            option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: LOG_BYTES,
        }
        status, module = self._api.cuModuleLoadDataEx(
            image + b"\0", len(options), list(options), list(options.values())
        )
        if status:
            raise refused_code(self._said(status), log.decode(errors="replace"))
        return module

    def function(self, module: object, symbol: str, dynamic_shared_bytes: int) -> object:
        """A kernel of a module, which may be started with so much dynamic shared memory."""
        found = self._call("cuModuleGetFunction", module, symbol.encode())
        attribute = self._api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        if dynamic_shared_bytes:
            self._call("cuFuncSetAttribute", found, attribute, dynamic_shared_bytes)
        return found

    def launcher(
        self,
        gpu: int,
        kernels: Sequence[tuple[object, KernelLaunch]],
        addresses: Sequence[int],
        stream: int,
    ) -> Callable[[], int]:
        """A call that starts all `kernels`, in order, on `stream`, and returns 0.

        ctypes makes the call in 0.3 us, since all arguments are ready; the wheel takes some 2 us.
        """
        parameters = [Parameters(kernel, addresses) for _, kernel in kernels]
        started = [
            _launch_arguments(function, kernel, stream, made.places)
            for (function, kernel), made in zip(kernels, parameters, strict=True)
        ]
        launch = libcuda.library().cuLaunchKernel

        def start(_kept: object = parameters) -> int:
            for arguments in started:
                status = launch(*arguments)
                if status:
                    raise failed("cuLaunchKernel", self._said(self._api.CUresult(status)))
            return 0

        return libcuda.inside(partial(self.use, gpu), start)

    def new_stream(self) -> int:
        """A stream whose launches can be recorded."""
        return graphs.new_stream()

    def allocate(self, size: int) -> int:
        """The address of `size` bytes."""
        status, address = self._api.cuMemAlloc(size)
        if int(status) == OUT_OF_MEMORY:
            raise no_memory(size, self._said(status))
        if status:
            raise failed("cuMemAlloc", self._said(status))
        return int(address)

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        self._call("cuMemFree", address)

    def copy_in(self, address: int, source: Bytes) -> None:
        """Copy to the GPU and wait for it."""
        self._call("cuMemcpyHtoD", address, source.ctypes.data, source.nbytes)

    def copy_out(self, target: Bytes, address: int) -> None:
        """Copy from the GPU and wait for it."""
        self._call("cuMemcpyDtoH", target.ctypes.data, address, target.nbytes)

    def wait(self, stream: int, on: int) -> None:
        """Hold back later work of `stream` until the present work of the stream `on` is done."""
        event = self._call("cuEventCreate", _NO_TIMING)
        self._call("cuEventRecord", event, on)
        self._call("cuStreamWaitEvent", stream, event, 0)
        self._call("cuEventDestroy", event)

    def synchronize(self, stream: int) -> None:
        """Wait for the work of a stream."""
        self._call("cuStreamSynchronize", stream)

    def record(self) -> object:
        """An event at the present end of the legacy stream."""
        event = self._call("cuEventCreate", 0)
        self._call("cuEventRecord", event, LEGACY_STREAM)
        return event

    def seconds(self, first: object, last: object) -> float:
        """The time between two events."""
        self._call("cuEventSynchronize", last)
        return self._call("cuEventElapsedTime", first, last) / 1e3

    def _context(self, gpu: int) -> Any:
        context = self._contexts.get(gpu)
        if context is None:
            with self._lock:
                if gpu not in self._contexts:
                    device = self._call("cuDeviceGet", gpu)
                    self._contexts[gpu] = self._call("cuDevicePrimaryCtxRetain", device)
                context = self._contexts[gpu]
        return context

    def _gpu(self, number: int) -> Gpu:
        device = self._call("cuDeviceGet", number)
        kind = self._api.CUdevice_attribute
        major, minor = (
            self._call("cuDeviceGetAttribute", attribute, device)
            for attribute in (
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return Gpu(
            number=number,
            name=self._call("cuDeviceGetName", 256, device).split(b"\0")[0].decode(),
            capability=(major, minor),
            memory_bytes=self._call("cuDeviceTotalMem", device),
        )

    def _call(self, name: str, *arguments: Any) -> Any:
        """The value that a function of the API returns behind its status, if there is one."""
        status, *values = getattr(self._api, name)(*arguments)
        if status:
            raise failed(name, self._said(status))
        return values[0] if values else None

    def _said(self, status: Any) -> str:
        name, text = (
            ask(status)[1] for ask in (self._api.cuGetErrorName, self._api.cuGetErrorString)
        )
        return f"{name.decode()}, {text.decode()}" if name and text else f"status {int(status)}"


def _launch_arguments(
    function: Any, kernel: KernelLaunch, stream: int, places: int
) -> tuple[Any, ...]:
    """What cuLaunchKernel takes, as ctypes passes it without a look at it."""
    return (
        ctypes.c_void_p(int(function)),
        kernel.blocks,
        1,
        1,
        kernel.threads,
        1,
        1,
        kernel.dynamic_shared_bytes,
        ctypes.c_void_p(stream),
        ctypes.c_void_p(places),
        None,
    )


OUT_OF_MEMORY: Final = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""

_NO_TIMING: Final = 2
"""CU_EVENT_DISABLE_TIMING."""


class _Use:
    """A context that is current between `__enter__` and `__exit__`."""

    __slots__ = ("_api", "_context", "_pushed")

    def __init__(self, api: Any, context: Any) -> None:
        self._api = api
        self._context = context
        self._pushed = False

    def __enter__(self) -> None:
        _, found = self._api.cuCtxGetCurrent()
        if int(found) != int(self._context):
            (status,) = self._api.cuCtxPushCurrent(self._context)
            if status:
                raise failed("cuCtxPushCurrent", f"status {int(status)}")
            self._pushed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pushed:
            self._pushed = False
            self._api.cuCtxPopCurrent()
