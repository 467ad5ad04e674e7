"""One BLAS library for all tests, linked once, and its functions as Python calls them."""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.backends.cpu.assemble import COMPILERS
from gemmir.backends.cpu.blas import CONVENTIONS, LETTERS, Convention
from gemmir.blas import blas_library

Array = npt.NDArray[Any]

ROW, COLUMN = 101, 102
"""CblasRowMajor and CblasColMajor."""

NUMBERS: Final = {"N": 111, "T": 112, "C": 113}
"""CblasNoTrans, CblasTrans and CblasConjTrans."""

REALS: Final = {"f32": ctypes.c_float, "f64": ctypes.c_double}
NUMPY: Final = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
INTEGERS: Final = {"i32": ctypes.c_int32, "i64": ctypes.c_int64}


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call as BLAS names them; arrays are flat, or None for a null pointer."""

    order: int
    trans_a: str
    trans_b: str
    m: int
    n: int
    k: int
    alpha: float
    a: Array | None
    lda: int
    b: Array | None
    ldb: int
    beta: float
    c: Array | None
    ldc: int


@dataclass(frozen=True, kw_only=True)
class Library:
    """A loaded BLAS."""

    path: Path
    loaded: ctypes.CDLL

    def cblas(self, call: Call, dtype: str, convention: Convention = CONVENTIONS[0]) -> None:
        """Call the function of C."""
        name = f"{convention.prefix}cblas_{LETTERS[dtype]}gemm{convention.cblas}"
        integer, real = INTEGERS[convention.integer], REALS[dtype]
        getattr(self.loaded, name)(
            ctypes.c_int(call.order),
            ctypes.c_int(NUMBERS.get(call.trans_a, 0)),
            ctypes.c_int(NUMBERS.get(call.trans_b, 0)),
            *map(integer, (call.m, call.n, call.k)),
            real(call.alpha),
            _address(call.a),
            integer(call.lda),
            _address(call.b),
            integer(call.ldb),
            real(call.beta),
            _address(call.c),
            integer(call.ldc),
        )

    def fortran(self, call: Call, dtype: str, convention: Convention = CONVENTIONS[0]) -> None:
        """Call the function of Fortran, with the lengths of its strings behind the arguments."""
        assert call.order == COLUMN
        name = f"{convention.prefix}{LETTERS[dtype]}gemm{convention.fortran}"
        integer, real = INTEGERS[convention.integer], REALS[dtype]

        def number(value: int) -> object:
            return ctypes.byref(integer(value))

        getattr(self.loaded, name)(
            ctypes.c_char_p(call.trans_a.encode()),
            ctypes.c_char_p(call.trans_b.encode()),
            *map(number, (call.m, call.n, call.k)),
            ctypes.byref(real(call.alpha)),
            _address(call.a),
            number(call.lda),
            _address(call.b),
            number(call.ldb),
            ctypes.byref(real(call.beta)),
            _address(call.c),
            number(call.ldc),
            ctypes.c_size_t(1),
            ctypes.c_size_t(1),
        )


def _address(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def preloaded(library: Path, **more: str) -> dict[str, str]:
    """The environment of a program that is run on the library."""
    return {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """`gemmir blas` for this computer."""
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip(f"none of {', '.join(COMPILERS)} is installed")
    path = tmp_path_factory.mktemp("blas") / "libgemmirblas.so"
    path.write_bytes(blas_library("cpu").data)
    return Library(path=path, loaded=ctypes.CDLL(str(path)))
