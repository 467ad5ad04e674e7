"""The driver through PyCUDA.

PyCUDA starts kernels on its own streams only, and does not show the handles of its functions and
events. So kernels run on the default stream, and a stream of another library is ordered with it by
events of our own, made by the same driver in the same context.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

from gemmir.backends.ptx.driver import libcuda
from gemmir.backends.ptx.driver.base import (
    LEGACY_STREAM,
    Bytes,
    Gpu,
    failed,
    no_memory,
    refused_code,
)
from gemmir.backends.ptx.driver.parameters import Parameters
from gemmir.errors import DeviceError
from gemmir.launch import KernelLaunch

MODULE: Final = "pycuda.driver"

_NO_TIMING: Final = 2
"""CU_EVENT_DISABLE_TIMING."""


class PycudaDriver:
    """NVIDIA's driver API, as PyCUDA shows it.

    Making one raises `ImportError` where PyCUDA is not installed or finds no driver to link with,
    and `RuntimeError` where there is no GPU.
    """

    def __init__(self) -> None:
        self._api: Any = import_module(MODULE)
        self._lock = threading.Lock()
        self._contexts: dict[int, Any] = {}
        self._allocations: dict[int, Any] = {}
        try:
            self._api.init()
            self._gpus = tuple(map(self._gpu, range(self._api.Device.count())))
        except self._api.Error as error:
            raise RuntimeError(_said(error)) from error

    @property
    def library(self) -> str:
        """The Python library and its version."""
        return f"PyCUDA {import_module('pycuda').VERSION_TEXT}"

    @property
    def cuda_version(self) -> tuple[int, int]:
        """The newest CUDA that the driver knows."""
        number = self._api.get_driver_version()
        return number // 1000, number % 1000 // 10

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs."""
        return self._gpus

    def current(self) -> int:
        """The number of the GPU that this thread uses, 0 where it uses none yet."""
        try:
            own = self._api.Context.get_device()
        except self._api.Error:
            return 0
        return next((gpu.number for gpu in self._gpus if self._api.Device(gpu.number) == own), 0)

    @contextmanager
    def use(self, gpu: int) -> Generator[None]:
        """Make the primary context of a GPU current in this thread."""
        self._context(gpu).push()
        try:
            yield
        finally:
            self._api.Context.pop()

    def load(self, image: bytes) -> object:
        """PTX or a cubin as a module; PyCUDA puts the driver's words into its error."""
        try:
            return self._api.module_from_buffer(image + b"\0")
        except self._api.Error as error:
            said, _, log = _said(error).partition(" - ")
            raise refused_code(said, log) from error

    def function(self, module: object, symbol: str, dynamic_shared_bytes: int) -> object:
        """A kernel of a module, which may be started with so much dynamic shared memory."""
        owner: Any = module
        found = self._tried("cuModuleGetFunction", owner.get_function, symbol)
        attribute = self._api.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
        if dynamic_shared_bytes:
            self._tried("cuFuncSetAttribute", found.set_attribute, attribute, dynamic_shared_bytes)
        return found

    def launcher(
        self,
        gpu: int,
        kernels: Sequence[tuple[object, KernelLaunch]],
        addresses: Sequence[int],
        stream: int,
    ) -> Callable[[], int]:
        """A call that starts all `kernels`, in order, on `stream`, and returns 0."""
        started: list[tuple[Any, tuple[Any, ...]]] = [
            (function, _launch_arguments(kernel, Parameters(kernel, addresses).to_bytes()))
            for function, kernel in kernels
        ]

        def start() -> int:
            for function, arguments in started:
                try:
                    function._launch_kernel(*arguments)
                except self._api.Error as error:
                    said = _said(error).removeprefix("cuLaunchKernel failed: ")
                    raise failed("cuLaunchKernel", said) from error
            return 0

        def start_in_order() -> int:
            """Behind what is on the stream, and before what comes there."""
            self.wait(LEGACY_STREAM, stream)
            start()
            self.wait(stream, LEGACY_STREAM)
            return 0

        is_default = stream == LEGACY_STREAM
        return libcuda.inside(partial(self.use, gpu), start if is_default else start_in_order)

    def new_stream(self) -> int:
        """The legacy stream: PyCUDA starts kernels on no other that it did not make."""
        return LEGACY_STREAM

    def allocate(self, size: int) -> int:
        """The address of `size` bytes."""
        try:
            made = self._tried("cuMemAlloc", self._api.mem_alloc, size)
        except DeviceError as error:
            if isinstance(error.__cause__, self._api.MemoryError):
                raise no_memory(size, _said(error.__cause__)) from error
            raise
        self._allocations[int(made)] = made
        return int(made)

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        self._tried("cuMemFree", self._allocations.pop(address).free)

    def copy_in(self, address: int, source: Bytes) -> None:
        """Copy to the GPU and wait for it."""
        self._tried("cuMemcpyHtoD", self._api.memcpy_htod, address, source)

    def copy_out(self, target: Bytes, address: int) -> None:
        """Copy from the GPU and wait for it."""
        self._tried("cuMemcpyDtoH", self._api.memcpy_dtoh, target, address)

    def wait(self, stream: int, on: int) -> None:
        """Hold back later work of `stream` until the present work of the stream `on` is done."""
        event = ctypes.c_void_p()
        libcuda.require("cuEventCreate", ctypes.byref(event), _NO_TIMING)
        libcuda.require("cuEventRecord", event, ctypes.c_void_p(on))
        libcuda.require("cuStreamWaitEvent", ctypes.c_void_p(stream), event, 0)
        libcuda.require("cuEventDestroy_v2", event)

    def synchronize(self, stream: int) -> None:
        """Wait for the work of a stream."""
        libcuda.require("cuStreamSynchronize", ctypes.c_void_p(stream))

    def record(self) -> object:
        """An event at the present end of the legacy stream."""
        return self._tried("cuEventRecord", self._api.Event().record)

    def seconds(self, first: object, last: object) -> float:
        """The time between two events."""
        end: Any = last
        self._tried("cuEventSynchronize", end.synchronize)
        return end.time_since(first) / 1e3

    def _gpu(self, number: int) -> Gpu:
        device = self._api.Device(number)
        return Gpu(
            number=number,
            name=device.name(),
            capability=device.compute_capability(),
            memory_bytes=device.total_memory(),
        )

    def _context(self, gpu: int) -> Any:
        with self._lock:
            if gpu not in self._contexts:
                device = self._api.Device(gpu)
                self._contexts[gpu] = self._tried(
                    "cuDevicePrimaryCtxRetain", device.retain_primary_context
                )
            return self._contexts[gpu]

    def _tried(self, call: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._api.Error as error:
            raise failed(call, _said(error).removeprefix(f"{call} failed: ")) from error


def _said(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _launch_arguments(kernel: KernelLaunch, parameters: bytes) -> tuple[Any, ...]:
    """What a function of PyCUDA is started with, on the default stream."""
    grid, block = (kernel.blocks, 1, 1), (kernel.threads, 1, 1)
    return grid, block, parameters, kernel.dynamic_shared_bytes, None
