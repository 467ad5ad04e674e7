"""OpenBLAS: the package scipy-openblas32 where it is installed, otherwise the one in NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from gemmir.bench.entrant import Settings, UnableError
from gemmir.bench.peers.cblas import Cblas, gemm_addresses, loaded_libraries

SPELLINGS: Final = (
    ("scipy_", "64_", "i64"),
    ("scipy_", "", "i32"),
    ("", "64_", "i64"),
    ("", "", "i32"),
)
"""Prefix, suffix and integer type of OpenBLAS's symbols: those of NumPy's wheels come first."""


def find(settings: Settings) -> Cblas:
    """The library, with as many threads as `settings` say."""
    path = next(_paths(), None)
    if path is None:
        raise UnableError(
            f"no scipy-openblas32 is installed, and NumPy {np.__version__} has loaded no OpenBLAS"
        )
    return load(path, settings.threads)


def load(path: Path, threads: int) -> Cblas:
    """The OpenBLAS at `path`."""
    library = ctypes.CDLL(str(path))
    prefix, suffix, integer = _spelling(library, path)
    stem = prefix + "openblas_"
    getattr(library, f"{stem}set_num_threads{suffix}")(threads)
    config = getattr(library, f"{stem}get_config{suffix}")
    core = getattr(library, f"{stem}get_corename{suffix}")
    config.restype = core.restype = ctypes.c_char_p
    version, code_path = (text.decode() for text in (config(), core()))
    return Cblas(
        about={"version": version, "file": path.name, "code_path": code_path},
        integer=integer,
        addresses=gemm_addresses(library, prefix + "{}" + suffix),
        batched=gemm_addresses(library, prefix + "{}" + suffix, "_batch_strided"),
    )


def _paths() -> Iterator[Path]:
    spec = find_spec("scipy_openblas32")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from Path(folder, "lib").glob("*openblas*.so*")
    yield from numpy_openblas()


def numpy_openblas() -> Iterator[Path]:
    """Libraries in this process, or where the system does not list them, beside NumPy."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs")
    beside = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    yield from sorted({p for p in (*loaded_libraries(), *beside) if "openblas" in p.name})


def _spelling(library: ctypes.CDLL, path: Path) -> tuple[str, str, str]:
    for prefix, suffix, integer in SPELLINGS:
        if hasattr(library, f"{prefix}cblas_sgemm{suffix}"):
            return prefix, suffix, integer
    raise UnableError(f"{path} has no cblas_sgemm by any known name")
