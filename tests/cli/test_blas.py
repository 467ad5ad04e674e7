"""gemmir blas: what is written, what is said, and what is refused."""

import ctypes
import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from gemmir.backends.cpu.assemble import COMPILERS
from gemmir.blas import BlasLibrary, blas_library
from tests.cli.conftest import Cli

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f"none of {', '.join(COMPILERS)} is installed"
)


compiled = cache(blas_library)
"""It takes seconds to compile, which is done once for all tests of this process."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets that a library is asked for; that for the host is what comes."""
    targets: list[str] = []

    def library(target: str) -> BlasLibrary:
        targets.append(target)
        return compiled("cpu")

    monkeypatch.setattr("gemmir.blas.blas_library", library)
    return targets


@needs_compiler
def test_the_library_is_written_and_described(cli: Cli, tmp_path: Path, asked: list[str]) -> None:
    result = cli("blas", "-o", "libmine.so", "--json")
    assert result.status == 0, result.err
    said = json.loads(result.out)
    assert said["file"] == "libmine.so"
    assert said["bytes"] == (tmp_path / "libmine.so").stat().st_size
    assert said["target"] == "cpu"
    assert {"sgemm_", "cblas_dgemm", "sgemm_64_", "scipy_cblas_sgemm64_"} <= set(said["symbols"])
    assert sorted(said["schedules"])[:2] == ["gemmir_dgemm_nn", "gemmir_dgemm_nt"]
    library = ctypes.CDLL(str(tmp_path / "libmine.so"))
    assert all(hasattr(library, name) for name in said["symbols"])
    assert not hasattr(library, "gemmir_sgemm_nn")
    assert result.err == f"wrote libmine.so, {said['bytes']} bytes\n"
    assert asked == ["cpu"]


@needs_compiler
def test_without_json_the_symbols_are_named(cli: Cli, asked: list[str]) -> None:
    result = cli("blas", "--target", "cpu:x86-64-v3", "-o", "x.so")
    assert result.status == 0, result.err
    name = compiled("cpu").machine.llvm_cpu
    assert result.out.startswith(f"x.so for cpu:x86-64-v3 ({name}): sgemm_ cblas_sgemm dgemm_")
    assert asked == ["cpu:x86-64-v3"]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("--target", "cuda:sm_80"), 1, "error GEM1360: a BLAS library is for programs on a CPU"),
        (("--target", "tpu:v5e"), 1, "error GEM1360: a BLAS library is for programs on a CPU"),
        (("--target", "cpu:znver33"), 4, "error GEM0602: there is no target 'cpu:znver33'"),
        (("--nosuch",), 2, "No such option: --nosuch"),
    ],
)
def test_what_is_refused(cli: Cli, arguments: tuple[str, ...], status: int, error: str) -> None:
    result = cli("blas", *arguments)
    assert (result.status, result.out) == (status, "")
    assert error in " ".join(result.err.replace("│", " ").split())


def test_without_a_compiler_nothing_is_compiled(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("gemmir.blas.build", never)
    monkeypatch.setenv("PATH", "")
    result = cli("blas", "-o", "x.so")
    assert result.status == 4
    assert "error GEM0603: linking a shared library needs a C compiler" in result.err
    assert not Path("x.so").exists()
