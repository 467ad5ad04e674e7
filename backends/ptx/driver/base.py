"""What loading and launching ask of a GPU's driver, and the errors that it answers with.

Two libraries can answer: see `gemmir.backends.ptx.driver`. Everything is in the primary context of
a GPU, which PyTorch, CuPy and JAX share, so that their arrays are used where they lie.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from gemmir.errors import DeviceError, DeviceMemoryError
from gemmir.launch import KernelLaunch

Bytes = npt.NDArray[np.uint8]

LEGACY_STREAM: Final = 1
"""The default stream, which waits for all streams that do not opt out: CU_STREAM_LEGACY."""

PER_THREAD_STREAM: Final = 2
"""A name for the default stream of the thread that uses it: CU_STREAM_PER_THREAD."""

LOG_BYTES: Final = 16384
"""Room for what the driver's assembler says."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU of this computer, by its number, with its compute capability (9, 0)."""

    number: int
    name: str
    capability: tuple[int, int]
    memory_bytes: int

    @property
    def sm(self) -> str:
        """The capability as targets write it: sm_90."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


class Driver(Protocol):
    """The driver of NVIDIA's GPUs, through one Python library.

    What takes or returns a module, a function, a stream, an event or an address must be called
    inside `use`. What `launcher` returns, `wait` and `record` only enqueue. A failure is a
    `DeviceError` (GEM0524 to GEM0526).
    """

    @property
    def library(self) -> str:
        """The Python library and its version."""
        ...

    @property
    def cuda_version(self) -> tuple[int, int]:
        """The newest CUDA that the driver knows."""
        ...

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs."""
        ...

    def current(self) -> int:
        """The number of the GPU that this thread uses, 0 where it uses none yet."""
        ...

    def use(self, gpu: int) -> AbstractContextManager[None]:
        """Make the primary context of a GPU current in this thread."""
        ...

    def load(self, image: bytes) -> object:
        """PTX or a cubin as a module; GEM0525 with what the driver says where it refuses it."""
        ...

    def function(self, module: object, symbol: str, dynamic_shared_bytes: int) -> object:
        """A kernel of a module, which may be started with so much dynamic shared memory."""
        ...

    def launcher(
        self,
        gpu: int,
        kernels: Sequence[tuple[object, KernelLaunch]],
        addresses: Sequence[int],
        stream: int,
    ) -> Callable[[], int]:
        """A call that starts all `kernels`, in order, on `stream`, and returns 0.

        It may be made in any thread, outside `use` too. Tensor maps are made now, of the addresses
        (GEM0527 to GEM0535).
        """
        ...

    def new_stream(self) -> int:
        """A stream whose launches `graphs.recorded` can record; the legacy stream, on which none
        can be, where the library starts kernels on that alone."""
        ...

    def allocate(self, size: int) -> int:
        """The address of `size` bytes; `DeviceMemoryError` GEM0524 where there is no room."""
        ...

    def free(self, address: int) -> None:
        """Give back what `allocate` returned, when no kernel uses it any more."""
        ...

    def copy_in(self, address: int, source: Bytes) -> None:
        """Copy to the GPU and wait for it, ordered by the legacy stream."""
        ...

    def copy_out(self, target: Bytes, address: int) -> None:
        """Copy from the GPU and wait for it, ordered by the legacy stream."""
        ...

    def wait(self, stream: int, on: int) -> None:
        """Hold back later work of `stream` until the present work of the stream `on` is done."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait for the work of a stream; its failure is raised here."""
        ...

    def record(self) -> object:
        """An event at the present end of the legacy stream."""
        ...

    def seconds(self, first: object, last: object) -> float:
        """The time between two events of the legacy stream, once the last has happened."""
        ...


class Memory:
    """Bytes on a GPU, which are given back with this object."""

    def __init__(self, driver: Driver, gpu: int, size: int) -> None:
        with driver.use(gpu):
            self.address = driver.allocate(max(size, 1))
        self._finalizer = weakref.finalize(self, _free, driver, gpu, self.address)
        self._finalizer.atexit = False

    def free(self) -> None:
        """Give the bytes back now."""
        self._finalizer()


def _free(driver: Driver, gpu: int, address: int) -> None:
    """After a fault in a kernel nothing can be given back, and that has been said."""
    with suppress(DeviceError), driver.use(gpu):
        driver.free(address)


def no_memory(size: int, said: str) -> DeviceMemoryError:
    """The error of an allocation that failed."""
    return DeviceMemoryError(
        "GEM0524",
        f"the GPU has no {size} bytes of memory left ({said})",
        "free arrays there, or use a smaller problem",
    )


def refused_code(said: str, log: str) -> DeviceError:
    """The error of a module that the driver does not load."""
    text = " ".join(log.replace("\0", " ").split())
    return DeviceError(
        "GEM0525",
        f"the driver refuses the code ({said}){f': {text}' if text else ''}",
        "a driver that knows a newer CUDA may take it",
    )


def failed(call: str, said: str) -> DeviceError:
    """The error of any other call that failed, which may be due to a kernel before it."""
    hint = "after a fault in a kernel the GPU does nothing more for this process: start it again"
    if "out of memory" in said:
        hint = "other programs may hold the memory of the GPU"
    return DeviceError("GEM0526", f"{call} failed: {said}", hint)


def as_bytes(array: npt.NDArray[Any]) -> Bytes:
    """A contiguous array as the bytes that it is made of, without a copy."""
    return array.reshape(-1).view(np.uint8)
