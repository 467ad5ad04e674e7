"""Ahead of time: object files, assembly, shared libraries and headers, used as C uses them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemmir.backend import Artifact
from gemmir.backends.cpu.assemble import (
    assemble,
    assembly,
    header,
    parameter_names,
    shared_library,
)
from gemmir.errors import BackendError, MissingError
from gemmir.machine.host import host_cpu, triple_for
from gemmir.signature import Argument, Signature

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]

WIDE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define i32 @axpy(ptr %a, ptr %b, ptr %c) {
  %x = load <16 x float>, ptr %a, align 4
  %y = load <16 x float>, ptr %b, align 4
  %z = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %y)
  store <16 x float> %z, ptr %c, align 4
  ret i32 0
}
"""

C_PROGRAM = r"""
#include "axpy.h"
#include <stdio.h>

int main(void) {
  float a[32], b[32], c[32];
  for (int i = 0; i < 32; ++i) { a[i] = (float)i; b[i] = 100.0f; c[i] = -1.0f; }
  int32_t status = axpy(a, b, c);
  for (int i = 0; i < 32; ++i)
    if (c[i] != 2.0f * a[i] + b[i]) { printf("wrong at %d: %f\n", i, c[i]); return 2; }
  printf("status %d, last %.1f\n", status, c[31]);
  return 0;
}
"""


def compiler(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    return found


def test_wrong_text_is_an_error_with_llvms_reason(serial: Artifact):
    with pytest.raises(BackendError, match=r"GEM0401.*expected"):
        assemble(replace(serial, text="define i32 @axpy("))
    with pytest.raises(BackendError, match=r"GEM0401.*undefined value"):
        assembly(replace(serial, text="define i32 @f() {\n ret i32 %nothing\n}"))


def test_text_that_parses_but_does_not_verify_is_an_error(serial: Artifact):
    text = "define i32 @f() {\nentry:\n  br label %entry\n}"
    with pytest.raises(BackendError, match=r"GEM0401.*[Ee]ntry block"):
        assemble(replace(serial, text=text))


@pytest.mark.parametrize(
    ("cpu", "instruction"),
    [
        ("znver3", "ymm"),
        ("x86-64-v3", "ymm"),
        ("x86-64-v4", "zmm"),
        ("neoverse-n1", "fmla\tv"),
    ],
)
def test_each_cpu_gets_its_vector_unit(serial: Artifact, cpu: str, instruction: str):
    text = assembly(replace(serial, text=WIDE, cpu=cpu))
    assert instruction in text
    assert "fmaf" not in text


def test_foreign_text_keeps_no_triple_of_its_own(serial: Artifact):
    text = 'target triple = "riscv64-unknown-linux-gnu"\n' + WIDE
    assert "fmla" in assembly(replace(serial, text=text, cpu="neoverse-n1"))


def test_assembling_twice_gives_the_same_bytes(serial: Artifact):
    assert assemble(serial) == assemble(serial)


def test_a_shared_library_runs_from_ctypes(serial: Artifact, arrays: Arrays, tmp_path: Path):
    compiler("cc", "gcc", "clang")
    path = tmp_path / "axpy.so"
    path.write_bytes(shared_library(assemble(serial)))
    a, b, c = arrays
    function = ctypes.CDLL(str(path)).axpy
    function.argtypes = [ctypes.c_void_p] * 3
    assert function(a.ctypes.data, b.ctypes.data, c.ctypes.data) == 0
    np.testing.assert_array_equal(c, 2 * a + b)
    assert b"libgomp" not in path.read_bytes()


def test_a_threaded_shared_library_brings_its_runtime(
    threaded: Artifact, arrays: Arrays, tmp_path: Path
):
    compiler("cc", "gcc", "clang")
    path = tmp_path / "axpy.so"
    path.write_bytes(shared_library(assemble(threaded)))
    assert b"libgomp" in path.read_bytes()
    a, b, c = arrays
    function = ctypes.CDLL(str(path)).axpy
    function.argtypes = [ctypes.c_void_p] * 3
    assert function(a.ctypes.data, b.ctypes.data, c.ctypes.data) == 0
    np.testing.assert_array_equal(c, 2 * a + b)


def test_without_a_c_compiler_the_error_says_so(
    serial: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"GEM0603.*cc, gcc, clang"):
        shared_library(assemble(serial))


def test_a_foreign_object_needs_a_cross_compiler(
    serial: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    foreign = "znver3" if triple_for("neoverse-n1") == host_cpu().triple else "neoverse-n1"
    with pytest.raises(MissingError, match=r"GEM0603.*none of (x86_64|aarch64)-linux-gnu-gcc"):
        shared_library(assemble(replace(serial, text=WIDE, cpu=foreign)))


def test_a_shared_library_of_several_objects_exports_what_it_is_told_to(
    serial: Artifact, tmp_path: Path
):
    compiler("cc", "gcc", "clang")
    other = replace(serial, text=serial.text.replace("@axpy", "@other"))
    path = tmp_path / "both.so"
    path.write_bytes(shared_library(assemble(serial), assemble(other), exported=["other"]))
    library = ctypes.CDLL(str(path))
    assert hasattr(library, "other")
    assert not hasattr(library, "axpy")


def test_what_cannot_be_linked_is_an_error_with_the_linkers_reason():
    compiler("cc", "gcc", "clang")
    with pytest.raises(BackendError, match=r"GEM0402.*cannot link"):
        shared_library(b"no object file")


@pytest.mark.parametrize(("names", "suffix"), [(("cc", "gcc"), "c"), (("c++", "g++"), "cpp")])
def test_a_program_links_the_object_by_its_header(
    serial: Artifact, tmp_path: Path, names: tuple[str, ...], suffix: str
):
    cc = compiler(*names)
    (tmp_path / "axpy.o").write_bytes(assemble(serial))
    (tmp_path / "axpy.h").write_text(header(serial.signature))
    (tmp_path / f"main.{suffix}").write_text(C_PROGRAM)
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(
        [cc, *strict, f"main.{suffix}", "axpy.o", "-o", "main"], cwd=tmp_path, check=True
    )
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "status 0, last 162.0\n")


def test_the_header_documents_each_operand_and_the_result():
    c = Argument(name="c", dtype="f64", shape=(3, 5), strides=(9, 1), access="readwrite")
    bias = Argument(name="bias", dtype="f64", shape=(5,), strides=(1,), access="read")
    text = header(Signature(symbol="gemm_3x5", arguments=(bias, c)))
    assert " *   bias: double, 5, strides (1), read\n" in text
    assert " *   c: double, 3 x 5, strides (9, 1), read and written\n" in text
    assert (
        "int32_t gemm_3x5(\n    const double *__restrict bias,\n    double *__restrict c);" in text
    )
    assert text.count("GEMMIR_GEMM_3X5_H") == 3
    assert "Returns 0 when the output is written, or 1" in text


@pytest.mark.parametrize("name", ["int", "2nd", "a b", "*/", "c"])
def test_names_that_c_cannot_have_become_places(name: str):
    arguments = [
        Argument(name=n, dtype="f32", shape=(1,), strides=(1,), access="read") for n in (name, "c")
    ]
    assert parameter_names(arguments) == ("operand0", "operand1")


@pytest.mark.parametrize("symbol", ["my gemm", "int", "", "a.b"])
def test_a_symbol_that_c_cannot_call_is_refused(signature: Signature, symbol: str):
    with pytest.raises(BackendError, match="GEM0404"):
        header(replace(signature, symbol=symbol))
