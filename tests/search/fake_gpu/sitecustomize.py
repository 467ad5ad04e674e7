"""What every Python process does that has this folder on its path: it has a GPU that is none.

Its kernels run in the PTX emulator; the file that GEMMIR_FAKE_GPU names says what is wrong with it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gemmir.backends.ptx.driver import libcuda
from tests.backends.ptx.fakes import FakeCuda, FakeFaultError, Function, Status, bindings_module
from tests.backends.ptx.fakes import libcuda as fake_libcuda


class FaultyCuda(FakeCuda):
    """A GPU on which something may be wrong, and whose graphs compute once."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.is_broken = False
        self.replayed: set[int] = set()

    def fault(self) -> str:
        """What is wrong now."""
        return Path(os.environ["GEMMIR_FAKE_GPU"]).read_text()

    def call(self, name: str, *arguments: object) -> None:
        """After a fault nothing works any more."""
        if self.is_broken:
            raise FakeFaultError(Status.ILLEGAL_ADDRESS)
        super().call(name, *arguments)
        if name == "record":
            self.tick_ms = 1e-6 if self.fault() == "too fast" else 2.0
        if name == "synchronize" and self.fault() == "faults" and self.did("launch"):
            self.is_broken = True
            raise FakeFaultError(Status.ILLEGAL_ADDRESS)

    def load(self, image: bytes) -> tuple[int, str]:
        if self.fault() == "refuses":
            raise FakeFaultError(Status.INVALID_PTX, "no such instruction")
        return super().load(image)

    def allocate(self, size: int) -> int:
        if self.fault() == "is full":
            raise FakeFaultError(Status.OUT_OF_MEMORY)
        return super().allocate(size)

    def launch(
        self,
        function: Function,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        shared: int,
        stream: int,
        parameters_of: Callable[[list[int]], list[bytes]],
    ) -> None:
        if self.fault() == "hangs":
            time.sleep(60)
        if self.fault() == "crashes":
            ctypes.string_at(0)
        super().launch(function, grid, block, shared, stream, parameters_of)
        if self.fault() == "wrong":
            output = self.bytes_at(int.from_bytes(self.parameters[-1][-1], "little"))
            output[:4] = 0x3C

    def start_graph(self, graph: int, stream: int) -> None:
        """Later replays of a graph compute what the first one did; who is too fast, nothing."""
        self.runs = graph not in self.replayed and self.fault() != "too fast"
        super().start_graph(graph, stream)
        self.runs = True
        self.replayed.add(graph)
        if self.fault() == "wrong later":
            for room in self.memory.values():
                room[len(room) // 2] = 0x3C


def install() -> None:
    """Be the GPU of this process."""
    name, major, minor = os.environ["GEMMIR_FAKE_GPU_IS"].split(",")
    cuda = FaultyCuda(gpus=((name, (int(major), int(minor))),))
    cuda.attributes[38] = 1024
    module = bindings_module(cuda)
    for name in ("cuda", "cuda.bindings"):
        package = ModuleType(name)
        package.__path__ = []
        vars(package).update(__version__="13.2.0")
        sys.modules[name] = package
    sys.modules[module.__name__] = module
    libcuda.__dict__["library"] = lambda: fake_libcuda(cuda)


if "GEMMIR_FAKE_GPU" in os.environ:
    install()
