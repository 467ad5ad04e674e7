"""Programs that were linked with another BLAS, run on the library by LD_PRELOAD."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.blas.conftest import Library, preloaded

FOLDERS: Final = sorted(Path("/usr/lib").glob("*-linux-gnu/blas"))
"""Where Debian's libblas-test and libblas3 are."""

SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""A Python whose NumPy may be linked with the system's BLAS."""


def netlib(name: str) -> Path:
    """A program of the tester of netlib."""
    found = [folder / name for folder in FOLDERS if (folder / name).exists()]
    if not found:
        pytest.skip("Debian's libblas-test is not installed")
    return found[0]


def reference() -> list[Path]:
    """Where the library of netlib itself is."""
    return [folder for folder in FOLDERS if (folder / "libblas.so.3").exists()]


def run(command: list[str], library: Library, folder: Path, text: str = "") -> str:
    """The output of a program on the library, whose gemm must have been called."""
    traces = folder / "bindings"
    environment = preloaded(library.path, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(traces))
    if reference():
        environment["LD_LIBRARY_PATH"] = str(reference()[0])
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = "".join(path.read_text(errors="replace") for path in folder.glob("bindings.*"))
    pattern = re.compile(rf"to {re.escape(str(library.path))} \[\d+\]: normal symbol `\w*gemm\w*'")
    assert pattern.search(said), f"{command[0]} did not call the library"
    return done.stdout


@pytest.mark.parametrize("letter", ["s", "d"])
def test_the_fortran_tester_of_netlib(library: Library, letter: str, tmp_path: Path) -> None:
    program = netlib(f"xblat3{letter}")
    run([str(program)], library, tmp_path, (program.parent / f"{letter}blat3.in").read_text())
    report = (tmp_path / f"{letter}blat3.out").read_text()
    name = f"{letter.upper()}GEMM"
    assert f"{name}  PASSED THE TESTS OF ERROR-EXITS" in report
    assert f"{name}  PASSED THE COMPUTATIONAL TESTS ( 17496 CALLS)" in report
    assert "FAIL" not in report
    assert "SUSPECT" not in report


@pytest.mark.parametrize("letter", ["s", "d"])
def test_the_c_tester_of_netlib(library: Library, letter: str, tmp_path: Path) -> None:
    program = netlib(f"x{letter}cblat3")
    if not reference():
        pytest.skip("it needs variables of Debian's libblas3, which is not installed")
    report = run([str(program)], library, tmp_path, (program.parent / f"{letter}in3").read_text())
    name = f"cblas_{letter}gemm"
    assert f"{name}  PASSED THE TESTS OF ERROR-EXITS" in report
    assert f"{name}  PASSED THE COLUMN-MAJOR COMPUTATIONAL TESTS ( 17496 CALLS)" in report
    assert f"{name}  PASSED THE ROW-MAJOR    COMPUTATIONAL TESTS ( 17496 CALLS)" in report
    assert "FAIL" not in report
    assert "SUSPECT" not in report


def numpy_of(python: str, *modules: str) -> None:
    """Skip where that Python has no NumPy whose tests can be run."""
    names = ", ".join(("numpy", "pytest", "hypothesis", *modules))
    if shutil.which(python) is None:
        pytest.skip(f"there is no {python}")
    done = subprocess.run([python, "-c", f"import {names}"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{python} does not have all of {names}")


def test_the_linalg_tests_of_the_systems_numpy(library: Library, tmp_path: Path) -> None:
    numpy_of(SYSTEM_PYTHON, "numpy.linalg.tests.test_linalg")
    command = [SYSTEM_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs"]
    run([*command, "numpy.linalg"], library, tmp_path)


def test_the_matmul_tests_of_the_systems_numpy(library: Library, tmp_path: Path) -> None:
    numpy_of(SYSTEM_PYTHON, "numpy.core.tests.test_multiarray")
    command = [SYSTEM_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs"]
    tests = "numpy.core.tests.test_multiarray"
    run([*command, tests, "-k", "(TestMatmul or TestDot) and not huge"], library, tmp_path)


def test_the_numpy_of_this_python(library: Library, tmp_path: Path) -> None:
    """The OpenBLAS in wheels has names of its own, which the library has too."""
    code = "import numpy as np; a = np.eye(70, dtype='f4') * 3; print((a @ (a + 1))[0, :2])"
    assert run([sys.executable, "-c", code], library, tmp_path).split() == ["[12.", "3.]"]
