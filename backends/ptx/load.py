"""Kernels onto the GPUs of this computer.

The code goes to a GPU when it is first started there, and stays until the process ends. What a
kernel needs beside its arrays, it has once for each stream, so that calls on one stream, which run
one after the other, share it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

from gemmir.backend import Loaded
from gemmir.backends.ptx.driver import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    Driver,
    Memory,
    require_gpu,
    runs,
)
from gemmir.backends.ptx.image import Image
from gemmir.errors import DeviceError
from gemmir.launch import KernelLaunch
from gemmir.signature import Signature

Kernels: TypeAlias = Sequence[tuple[object, KernelLaunch]]


class Program:
    """The kernels of one artifact, which may be started on every GPU that runs their code."""

    def __init__(self, image: Image, signature: Signature, driver: Driver) -> None:
        self.image = image
        self.signature = signature
        self.driver = driver
        self._lock = threading.Lock()
        self._kernels: dict[int, Kernels] = {}
        self._workspaces: dict[tuple[int, int, int], tuple[Memory, ...]] = {}

    @cached_property
    def first_gpu(self) -> int:
        """The GPU for arrays that are on none: the one in use, or the first that runs the code."""
        gpus = {gpu.number: gpu for gpu in self.driver.gpus()}
        used = self.driver.current()
        order = [used, *gpus]
        return next((n for n in order if n in gpus and runs(self.image.gpu, gpus[n])), used)

    def bind(
        self, addresses: Sequence[int], *, gpu: int, stream: int = LEGACY_STREAM
    ) -> Callable[[], int]:
        """A call that starts the kernels on these arrays, does not wait for them and returns 0.

        Raises `MissingError` GEM0610 where `gpu` does not run the code, and `DeviceError`.
        """
        driver = self.driver
        require_gpu(self.image.gpu, next(g for g in driver.gpus() if g.number == gpu))
        with driver.use(gpu):
            kernels = self._on(gpu)
            workspaces = self._workspaces_on(gpu, stream)
            places = [memory.address for memory in workspaces]
            call = driver.launcher(gpu, kernels, [*addresses, *places], stream)

        def call_in_turn(_workspaces: object = workspaces) -> int:
            """No kernel of another call may come between those that share a workspace."""
            with self._lock:
                return call()

        return call_in_turn if workspaces or len(kernels) > 1 else call

    def run(self, *addresses: int) -> int:
        """Run on arrays of `first_gpu` and wait; 0 as the status of a function on the CPU."""
        gpu = self.first_gpu
        call = self.bind(addresses, gpu=gpu)
        call()
        with self.driver.use(gpu):
            self.driver.synchronize(LEGACY_STREAM)
        return 0

    def _on(self, gpu: int) -> Kernels:
        """The kernels on this GPU that have blocks."""
        with self._lock:
            if gpu not in self._kernels:
                module = self._module()
                self._kernels[gpu] = [
                    (self.driver.function(module, k.symbol, k.dynamic_shared_bytes), k)
                    for k in self.image.launch.kernels
                    if k.blocks
                ]
            return self._kernels[gpu]

    def _module(self) -> object:
        """The cubin where the driver takes it, which is quicker; otherwise the PTX."""
        if self.image.cubin:
            try:
                return self.driver.load(self.image.cubin)
            except DeviceError:
                pass
        return self.driver.load(self.image.ptx)

    def _workspaces_on(self, gpu: int, stream: int) -> tuple[Memory, ...]:
        """The workspaces of a stream; the default stream of a thread is another in each."""
        thread = threading.get_ident() if stream == PER_THREAD_STREAM else 0
        key = (gpu, stream, thread)
        with self._lock:
            if key not in self._workspaces:
                sizes = self.image.launch.workspace_bytes
                self._workspaces[key] = tuple(Memory(self.driver, gpu, size) for size in sizes)
            return self._workspaces[key]


def load(object_bytes: bytes, signature: Signature) -> Loaded:
    """The kernels of an image that `assemble` made; `owner` is their `Program`.

    Raises `MissingError`: GEM0607 where no package for it is installed, GEM0609 where there is no
    GPU, GEM0610 where none runs the code.
    """
    image = Image.from_bytes(object_bytes)
    program = Program(image, signature, require_gpu(image.gpu))
    return Loaded(entry=program.run, owner=program)
