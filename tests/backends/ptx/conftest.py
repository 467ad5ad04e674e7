"""Fake GPUs, shown by each of the libraries that gemmir can use, and fake tools of CUDA."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gemmir.backends.ptx import assemble as assembling
from gemmir.backends.ptx import driver
from gemmir.backends.ptx.driver import libcuda
from tests.backends.ptx.fakes import FakeCuda, bindings_module, pycuda_module
from tests.backends.ptx.fakes import libcuda as fake_libcuda

Install = Callable[[FakeCuda], FakeCuda]


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Importing these modules is a `ModuleNotFoundError`."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def show(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Importing this module, and the packages around it, finds it."""
    *packages, _ = module.__name__.split(".")
    for end in range(1, len(packages) + 1):
        package = ModuleType(".".join(packages[:end]))
        package.__path__ = []
        vars(package).update(VERSION_TEXT="2026.1", __version__="13.2.0")
        monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def no_driver_kept() -> Iterator[None]:
    """The driver that one test finds is not left for the next."""

    driver.find_driver.cache_clear()
    yield
    driver.find_driver.cache_clear()


@pytest.fixture
def by_bindings(monkeypatch: pytest.MonkeyPatch, no_driver_kept: None) -> Install:
    """Make a fake GPU the one of this computer, shown by `cuda-bindings`."""

    def install(cuda: FakeCuda) -> FakeCuda:
        hide(monkeypatch, "pycuda", "pycuda.driver")
        show(monkeypatch, bindings_module(cuda))
        monkeypatch.setattr(libcuda, "library", lambda: fake_libcuda(cuda))
        return cuda

    return install


@pytest.fixture
def by_pycuda(monkeypatch: pytest.MonkeyPatch, no_driver_kept: None) -> Install:
    """Make a fake GPU the one of this computer, shown by PyCUDA."""

    def install(cuda: FakeCuda) -> FakeCuda:
        hide(monkeypatch, "cuda", "cuda.bindings", "cuda.bindings.driver")
        show(monkeypatch, pycuda_module(cuda))
        monkeypatch.setattr(libcuda, "library", lambda: fake_libcuda(cuda))
        return cuda

    return install


@pytest.fixture(params=["by_bindings", "by_pycuda"])
def install(request: pytest.FixtureRequest) -> Install:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def cuda(install: Install) -> FakeCuda:
    """A fake GPU of compute capability 9.0, shown by both libraries in turn."""
    return install(FakeCuda())


SAYS = """#!/bin/sh
echo "ptxas info    : Used 40 registers, 12 bytes spill stores, 8 bytes spill loads"
EXTRA
for last; do :; done
printf code > "$last"
"""


def tool(folder: Path, name: str, extra: str = "") -> Path:
    """A tool that says what ptxas says and writes its last argument."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(SAYS.replace("EXTRA", extra))
    file.chmod(0o755)
    return file


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool of CUDA is found."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(assembling, "WHEELS", ())
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ptxas(nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ptxas under CUDA_HOME, which can run the shell."""
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tool(tmp_path / "bin", "ptxas")
