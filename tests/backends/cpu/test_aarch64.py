"""Code for AArch64: linked by a cross compiler into a program and run by QEMU, against float64.

Skipped where `qemu-aarch64` or `aarch64-linux-gnu-gcc` is missing (Debian: qemu-user and
gcc-aarch64-linux-gnu with libc6-dev-arm64-cross).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import header
from gemmir.blas import blas_library
from gemmir.signature import Argument, Signature
from tests.strategies import arrays_for, furthest

Array = npt.NDArray[Any]

CROSS: Final = "aarch64-linux-gnu-gcc"
QEMU: Final = "qemu-aarch64"
MISSING: Final = [tool for tool in (CROSS, QEMU) if shutil.which(tool) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

MAIN: Final = """\
#include "{symbol}.h"
#include <stdio.h>
#include <stdlib.h>

static void *taken(size_t bytes, int is_read) {{
  void *array = malloc(bytes);
  if (array == NULL || (is_read && fread(array, 1, bytes, stdin) != bytes)) exit(3);
  return array;
}}

int main(void) {{
{arrays}
  if ({symbol}({names}) != 0) return 4;
  return fwrite({output}, 1, {output_bytes}, stdout) == {output_bytes} ? 0 : 5;
}}
"""
"""Reads what is read from standard input, calls the function once, and writes the output."""


def program(signature: Signature) -> str:
    """The C program that calls the function."""
    names = [argument.name for argument in signature.arguments]
    output = signature.arguments[-1]
    return MAIN.format(
        symbol=signature.symbol,
        arrays="\n".join(map(_declaration, signature.arguments)),
        names=", ".join(names),
        output=output.name,
        output_bytes=output.span_bytes,
    )


def _declaration(argument: Argument) -> str:
    is_read = int(argument.access != "write")
    return f"  void *{argument.name} = taken({argument.span_bytes}, {is_read});"


def emulated(
    gemm: Gemm, target: str, arrays: Mapping[str, Array], folder: Path, **how: Any
) -> Array:
    """C as code for `target` computes it under QEMU."""
    lowered = gemmir.lower(gemm, target, **how)
    signature = lowered.artifact.signature
    (folder / "kernel.o").write_bytes(lowered.assemble())
    (folder / f"{signature.symbol}.h").write_text(header(signature))
    (folder / "main.c").write_text(program(signature))
    runtime = ["-lgomp"] if how.get("threads", 1) > 1 else []
    command = [CROSS, "-static", "-Wall", "-Werror", "main.c", "kernel.o", *runtime, "-o", "main"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    read = [arrays[a.name].tobytes() for a in signature.arguments if a.access != "write"]
    done = subprocess.run(
        [QEMU, "./main"], cwd=folder, input=b"".join(read), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    output = signature.arguments[-1]
    return np.frombuffer(done.stdout, arrays["c"].dtype).reshape(output.shape)


PROBLEMS: Final = {
    "direct": Gemm(m=16, n=16, k=16),
    "odd": Gemm(m=31, n=17, k=23),
    "packed": Gemm(m=97, n=530, k=301, trans_b=True),
    "f64": Gemm(m=45, n=33, k=70, dtype="f64", trans_a=True),
    "epilogue": Gemm(m=20, n=37, k=9, epilogue="bias+gelu+residual", alpha=0.5, beta=2.0),
    "batch": Gemm(m=5, n=6, k=7, batch=3),
    "one row": Gemm(m=1, n=1000, k=600),
    "i8": Gemm(m=21, n=50, k=37, dtype="i8"),
    "u8 by i8": Gemm(m=21, n=50, k=37, dtype="u8", dtype_b="i8"),
    "bf16": Gemm(m=21, n=50, k=37, dtype="bf16"),
    "f16": Gemm(m=21, n=50, k=37, dtype="f16", trans_b=True),
    "weights": Gemm(m=3, n=102, k=96, dtype_b="i4", weight_group=32),
    "stored weights": Gemm(m=70, n=33, k=90, dtype_b="i4", weight_group=16, trans_b=True),
}


@pytest.mark.parametrize("target", ["cpu:neoverse-n1", "cpu:neoverse-v1", "cpu:neoverse-n2"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_numbers_are_within_the_bound(name: str, target: str, tmp_path: Path) -> None:
    gemm = PROBLEMS[name]
    arrays = arrays_for(gemm)
    assert furthest(gemm, arrays, emulated(gemm, target, arrays, tmp_path)) <= 1


def test_threads_are_those_of_the_systems_runtime(tmp_path: Path) -> None:
    gemm = Gemm(m=64, n=40, k=33)
    arrays = arrays_for(gemm)
    result = emulated(gemm, "cpu:neoverse-n1", arrays, tmp_path, threads=2)
    assert furthest(gemm, arrays, result) <= 1


def test_wrong_numbers_are_seen(tmp_path: Path) -> None:
    """What compares with float64 does not hold for another product."""
    gemm = Gemm(m=8, n=8, k=8)
    arrays = arrays_for(gemm)
    result = emulated(gemm, "cpu:neoverse-n1", arrays, tmp_path)
    assert furthest(gemm, arrays, result + np.float32(0.5)) > 1


BLAS_MAIN: Final = r"""
#include <stdio.h>
#include <stdlib.h>

void cblas_TYPEgemm(int, int, int, int, int, int, REAL, const REAL *, int, const REAL *, int, REAL,
  REAL *, int);

int main(int count, char **given) {
  int x[6];
  for (int i = 0; i < 6; i++) x[i] = atoi(given[i + 1]);
  size_t sizes[3] = {(size_t)x[3] * x[5], (size_t)x[5] * x[4], (size_t)x[3] * x[4]};
  REAL *array[3];
  for (int i = 0; i < 3; i++) {
    array[i] = malloc(sizes[i] * sizeof(REAL));
    if (fread(array[i], sizeof(REAL), sizes[i], stdin) != sizes[i]) return 3;
  }
  cblas_TYPEgemm(x[0], x[1], x[2], x[3], x[4], x[5], 0.5, array[0], x[1] == 111 ? x[5] : x[3],
    array[1], x[2] == 111 ? x[4] : x[5], 2, array[2], x[4]);
  return fwrite(array[2], sizeof(REAL), sizes[2], stdout) != sizes[2] || count != 7;
}
"""
"""Calls row-major gemm once, with alpha 0.5 and beta 2, on arrays from standard input."""

SYSROOT: Final = Path("/usr/aarch64-linux-gnu")
"""Where Debian has the C library for AArch64."""


@pytest.fixture(scope="module")
def blas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BLAS library for AArch64, with a program for each type that calls it."""
    folder = tmp_path_factory.mktemp("blas")
    (folder / "libgemmirblas.so").write_bytes(blas_library("cpu:neoverse-n1").data)
    for letter, real in (("s", "float"), ("d", "double")):
        text = BLAS_MAIN.replace("TYPE", letter).replace("REAL", real)
        (folder / f"{letter}.c").write_text(text)
        command = [CROSS, f"{letter}.c", "libgemmirblas.so", "-Wl,-rpath,.", "-o", letter]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.skipif(not SYSROOT.is_dir(), reason=f"needs a C library in {SYSROOT}")
@pytest.mark.parametrize("sizes", [(5, 6, 7), (70, 33, 129), (600, 40, 31)])
@pytest.mark.parametrize("transposes", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_blas_library(
    blas: Path, dtype: str, transposes: str, sizes: tuple[int, int, int]
) -> None:
    m, n, k = sizes
    trans_a, trans_b = (t == "t" for t in transposes)
    gemm = Gemm(m=m, n=n, k=k, dtype=dtype, alpha=0.5, beta=2, trans_a=trans_a, trans_b=trans_b)
    arrays = arrays_for(gemm)
    numbers = [101, 111 + trans_a, 111 + trans_b, m, n, k]
    done = subprocess.run(
        [QEMU, "-L", str(SYSROOT), "./s" if dtype == "f32" else "./d", *map(str, numbers)],
        cwd=blas,
        input=b"".join(arrays[name].tobytes() for name in "abc"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result = np.frombuffer(done.stdout, arrays["c"].dtype).reshape(m, n)
    assert furthest(gemm, arrays, result) <= 1
