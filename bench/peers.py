"""The libraries that gemmir is compared with, as they are found on this computer.

`openblas` is the one that NumPy has loaded, `mkl` the pip package; both are called through cblas,
with one thread. A peer that is not there is listed with the reason.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

GEMM_NAMES: Final = {"f32": "cblas_sgemm", "f64": "cblas_dgemm"}

OPENBLAS_SPELLINGS: Final = (
    ("scipy_", "64_", "i64"),
    ("scipy_", "", "i32"),
    ("", "64_", "i64"),
    ("", "", "i32"),
)
"""Prefix, suffix and integer type of OpenBLAS's symbols: those of NumPy's wheels come first."""

MKL_SEQUENTIAL: Final = 1
"""MKL_THREADING_SEQUENTIAL of mkl_service.h."""


@dataclass(frozen=True, kw_only=True)
class Blas:
    """A loaded library: the address of its cblas function for each dtype.

    `file` is its name, and `integer` is LLVM's type of its sizes.
    """

    name: str
    version: str
    file: str
    integer: str
    addresses: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A peer that is not here, and why."""

    name: str
    reason: str


def find() -> tuple[list[Blas], list[Missing]]:
    """The peers that can be called, and those that cannot; each has one thread from now on."""
    found: list[Blas] = []
    missing: list[Missing] = []
    for name, look in (("openblas", _openblas), ("mkl", _mkl)):
        try:
            found.append(look())
        except (OSError, LookupError, AttributeError) as error:
            missing.append(Missing(name=name, reason=str(error)))
    return found, missing


def mkl_code_path() -> str:
    """Which of MKL's code paths it has chosen, once it was called: def, avx2, avx512 …"""
    names = (re.fullmatch(r"libmkl_(def|mc3|avx\d+)\.so.*", path.name) for path in _loaded())
    return ", ".join(sorted({match[1] for match in names if match}))


def _openblas() -> Blas:
    paths = sorted({path for path in _openblas_paths() if "openblas" in path.name})
    if not paths:
        raise LookupError(f"NumPy {np.__version__} has not loaded an OpenBLAS")
    library = ctypes.CDLL(str(paths[0]))
    prefix, suffix, integer = _spelling(library, paths[0])
    stem = prefix + "openblas_"
    getattr(library, f"{stem}set_num_threads{suffix}")(1)
    describe = getattr(library, f"{stem}get_config{suffix}")
    describe.restype = ctypes.c_char_p
    text: bytes = describe()
    names = {dtype: prefix + name + suffix for dtype, name in GEMM_NAMES.items()}
    return Blas(
        name="openblas",
        version=text.decode(),
        file=paths[0].name,
        integer=integer,
        addresses=_addresses(library, names),
    )


def _spelling(library: ctypes.CDLL, path: Path) -> tuple[str, str, str]:
    for prefix, suffix, integer in OPENBLAS_SPELLINGS:
        if hasattr(library, prefix + GEMM_NAMES["f32"] + suffix):
            return prefix, suffix, integer
    raise LookupError(f"{path} has no {GEMM_NAMES['f32']} by any known name")


def _openblas_paths() -> Iterator[Path]:
    """Libraries in this process, or where the system does not list them, beside NumPy."""
    yield from _loaded()
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        if folder.is_dir():
            yield from folder.iterdir()


def _mkl() -> Blas:
    paths = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if not paths:
        raise LookupError(f"no libmkl_rt in {sys.prefix}/lib; pip install mkl")
    library = ctypes.CDLL(str(paths[0]))
    library.MKL_Set_Threading_Layer(MKL_SEQUENTIAL)
    text = ctypes.create_string_buffer(256)
    library.MKL_Get_Version_String(text, len(text))
    return Blas(
        name="mkl",
        version=" ".join(text.value.decode().split()),
        file=paths[0].name,
        integer="i32",
        addresses=_addresses(library, GEMM_NAMES),
    )


def _addresses(library: ctypes.CDLL, names: Mapping[str, str]) -> dict[str, int]:
    functions = {dtype: getattr(library, name) for dtype, name in names.items()}
    return {dtype: ctypes.cast(f, ctypes.c_void_p).value or 0 for dtype, f in functions.items()}


def _loaded() -> Iterator[Path]:
    """Shared libraries in this process, where Linux lists them."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    yield from {Path(line.split(maxsplit=5)[-1]) for line in lines if ".so" in line}
