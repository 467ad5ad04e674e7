"""LIBXSMM, whose kernels are made for each small shape.

Debian has it as an archive only, of which a shared library is made with the C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemmir.bench.entrant import Array, Entrant, Settings, UnableError, plain_product, require
from gemmir.bench.loops import call_loop
from gemmir.bench.peers.cblas import moving
from gemmir.gemm import Gemm

LARGEST: Final = 256**3
"""Products of m, n and k up to this one are asked for: its kernels are for small matrices."""

ARCHIVES: Final = ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib")

STUBS: Final = "".join(
    f"void {name}_(void) {{ __builtin_trap(); }}\n" for name in ("sgemm", "dgemm", "sgemv", "dgemv")
)
"""The BLAS functions that LIBXSMM falls back to, which its dispatched kernels never do."""

TRANSPOSED_A: Final = 1
TRANSPOSED_B: Final = 2
BETA_0: Final = 16
"""Flags of libxsmm_typedefs.h: LIBXSMM_GEMM_FLAG_TRANS_A, _TRANS_B and _BETA_0."""

DISPATCH: Final = {"f32": "libxsmm_smmdispatch", "f64": "libxsmm_dmmdispatch"}
REAL: Final = {"f32": ctypes.c_float, "f64": ctypes.c_double}


@dataclass(frozen=True, kw_only=True)
class Libxsmm:
    """The library in this process."""

    library: ctypes.CDLL
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """A dispatched kernel. It knows columns, so it computes the transpose of C, B' A'."""
        plain_product(gemm)
        require(gemm.dtype in DISPATCH, f"its kernels of {gemm.dtype} need B in another layout")
        require(gemm.m * gemm.n * gemm.k <= LARGEST, "its kernels are for small matrices")
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "its kernels have no such alpha and beta")
        kernel = self._dispatched(gemm)
        a, b, c = moving(gemm, arrays)
        items = 1 if gemm.batch is None else gemm.batch
        return Entrant(
            repeat=call_loop(kernel, [b, a, c], items=items),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"called": DISPATCH[gemm.dtype]},
        )

    def _dispatched(self, gemm: Gemm) -> int:
        dispatch = getattr(self.library, DISPATCH[gemm.dtype])
        dispatch.restype = ctypes.c_void_p
        real, whole = REAL[gemm.dtype], ctypes.c_int
        leading = [ctypes.byref(whole(gemm.leading(x))) for x in "bac"]
        factors = [ctypes.byref(real(x)) for x in (1.0, 0.0)]
        flags = TRANSPOSED_A * gemm.trans_b + TRANSPOSED_B * gemm.trans_a + BETA_0
        no_prefetch = ctypes.byref(whole(0))
        sizes = [whole(gemm.n), whole(gemm.m), whole(gemm.k)]
        found: int | None = dispatch(
            *sizes, *leading, *factors, ctypes.byref(whole(flags)), no_prefetch
        )
        if not found:
            raise UnableError("it has no kernel for this shape")
        return found


def find(settings: Settings) -> Libxsmm:
    """The system's shared library, or one made of its archive; it has one thread."""
    require(settings.threads == 1, "its kernels have one thread")
    path = _path()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise UnableError(f"{path} cannot be loaded: {error}") from error
    library.libxsmm_init()
    library.libxsmm_get_target_arch.restype = ctypes.c_char_p
    target: bytes = library.libxsmm_get_target_arch()
    return Libxsmm(
        library=library,
        about={"version": _version(), "file": Path(path).name, "code_path": target.decode()},
    )


def _path() -> str:
    file = find_library("xsmm")
    if file is not None:
        return file
    archive = next((p for p in (Path(d, "libxsmm.a") for d in ARCHIVES) if p.is_file()), None)
    if archive is None:
        raise UnableError("the system has no libxsmm")
    return str(_shared(archive))


def _shared(archive: Path) -> Path:
    """A shared library of what is in `archive`, made once and kept."""
    from gemmir.cache import default_path

    facts = archive.stat()
    name = hashlib.sha256(f"{archive} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
    folder = default_path() or Path(tempfile.gettempdir(), f"gemmir-{os.getuid()}")
    made = folder / f"libxsmm-{name[:16]}.so"
    if made.is_file():
        return made
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UnableError(f"{archive} is an archive, and there is no C compiler to link it")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        stubs, new = Path(work, "stubs.c"), Path(work, "libxsmm.so")
        stubs.write_text(STUBS)
        whole = ["-Wl,--whole-archive", str(archive), "-Wl,--no-whole-archive"]
        command = [compiler, "-shared", "-fPIC", "-o", str(new), str(stubs), *whole]
        libraries = ["-ldl", "-lm", "-lpthread", "-lrt"]
        done = subprocess.run([*command, *libraries], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnableError(f"{compiler} cannot link {archive}: {done.stderr.strip()[-200:]}")
        os.replace(new, made)
    return made


def _version() -> str:
    """The version that the header says: the library itself has no function for it."""
    try:
        lines = Path("/usr/include/libxsmm_version.h").read_text().splitlines()
    except OSError:
        return ""
    words = [line.split() for line in lines if "LIBXSMM_CONFIG_VERSION " in line + " "]
    return words[0][-1].strip('"') if words else ""
