"""Fake GPUs, shown by each of the libraries that gemmir can use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from gemmir.backends.ptx import driver
from gemmir.backends.ptx.driver import pycuda
from tests.backends.ptx.fakes import FakeCuda, bindings_module, libcuda, pycuda_module

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
        return cuda

    return install


@pytest.fixture
def by_pycuda(monkeypatch: pytest.MonkeyPatch, no_driver_kept: None) -> Install:
    """Make a fake GPU the one of this computer, shown by PyCUDA."""

    def install(cuda: FakeCuda) -> FakeCuda:
        hide(monkeypatch, "cuda", "cuda.bindings", "cuda.bindings.driver")
        show(monkeypatch, pycuda_module(cuda))
        monkeypatch.setattr(pycuda, "_libcuda", lambda: libcuda(cuda))
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
