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
from gemmir.backend import Argument, Signature
from gemmir.backends.cpu.assemble import header
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
