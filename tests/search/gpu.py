"""A GPU for tests of what is timed on one: none, whose kernels run in the PTX emulator.

It is the one of this process and of all that it starts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmir.backends.ptx.driver import find_driver, libcuda
from tests.backends.ptx.conftest import hide, show
from tests.backends.ptx.fakes import FakeCuda, bindings_module
from tests.backends.ptx.fakes import libcuda as fake_libcuda

HERE = Path(__file__).parent
TARGET = "cuda:sm_80"


class FakeGpu:
    """What is wrong with the GPU is the text of a file, which all processes read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.be("")

    def be(self, fault: str) -> None:
        """From now on, have this fault; "" for none."""
        self._file.write_text(fault)


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str = "Fake A100",
    capability: tuple[int, int] = (8, 0),
) -> FakeGpu:
    """Make it the GPU of this computer until the test ends."""
    gpu = FakeGpu(folder / "fault")
    cuda = FakeCuda(gpus=((name, capability),))
    cuda.attributes[38] = 1024
    hide(monkeypatch, "pycuda", "pycuda.driver")
    show(monkeypatch, bindings_module(cuda))
    monkeypatch.setattr(libcuda, "library", lambda: fake_libcuda(cuda))
    monkeypatch.setenv("GEMMIR_FAKE_GPU", str(folder / "fault"))
    monkeypatch.setenv("GEMMIR_FAKE_GPU_IS", ",".join(map(str, (name, *capability))))
    path = [HERE / "fake_gpu", HERE.parents[1]]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, path)))
    find_driver.cache_clear()
    return gpu
