"""oneDNN's gemm functions, of the system's libdnnl."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes.util import find_library
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gemmir.bench.entrant import Array, Entrant, Settings, UnableError, plain_product, require
from gemmir.bench.loops import Moving, call_loop, real
from gemmir.bench.peers.cblas import address_of, moving
from gemmir.gemm import Gemm

FUNCTIONS: Final = {
    ("f32", "f32"): "dnnl_sgemm",
    ("u8", "i8"): "dnnl_gemm_u8s8s32",
    ("i8", "i8"): "dnnl_gemm_s8s8s32",
}
"""The function for each type of A and B."""

ISAS: Final = {
    0x1: "SSE4.1",
    0x3: "AVX",
    0x7: "AVX2",
    0xF: "AVX2-VNNI",
    0x27: "AVX-512",
    0x67: "AVX-512 VNNI",
    0xE7: "AVX-512 BF16",
}
"""Names of dnnl_cpu_isa_t, dnnl_types.h."""


class Version(ctypes.Structure):
    """dnnl_version_t: three numbers, then what gemmir does not ask."""

    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


@dataclass(frozen=True, kw_only=True)
class OneDnn:
    """The library in this process."""

    library: ctypes.CDLL
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """The gemm of these types; one product of a batch after the other."""
        plain_product(gemm)
        types = (gemm.element.name, gemm.element_b.name)
        name = FUNCTIONS.get(types)
        if name is None:
            raise UnableError(f"it has no gemm function for {' x '.join(types)}")
        require(gemm.out in (None, "f32", "i32"), f"{name} has no C of {gemm.out}")
        address = address_of(self.library, name)
        if address is None:
            raise UnableError(f"it has no {name}")
        nothing = np.zeros(1, np.int32)
        return Entrant(
            repeat=call_loop(
                address,
                _arguments(gemm, arrays, nothing),
                result="i32",
                items=1 if gemm.batch is None else gemm.batch,
                owner=nothing,
            ),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"called": name},
        )


def _arguments(gemm: Gemm, arrays: Mapping[str, Array], nothing: Array) -> list[str | Moving]:
    a, b, c = moving(gemm, arrays)
    alpha, beta = real("f32", gemm.alpha), real("f32", gemm.beta)
    lda, ldb, ldc = (f"i64 {gemm.leading(x)}" for x in "abc")
    head = [f"i8 signext {ord('T' if t else 'N')}" for t in (gemm.trans_a, gemm.trans_b)]
    sizes = [f"i64 {size}" for size in (gemm.m, gemm.n, gemm.k)]
    if gemm.dtype == "f32":
        return [*head, *sizes, alpha, a, lda, b, ldb, beta, c, ldc]
    zero_a = f"i8 {'zeroext' if gemm.dtype == 'u8' else 'signext'} 0"
    offset = f"i8 signext {ord('F')}"
    tail = [alpha, a, lda, zero_a, b, ldb, "i8 signext 0", beta, c, ldc]
    return [*head, offset, *sizes, *tail, Moving(address=nothing.ctypes.data)]


def find(settings: Settings) -> OneDnn:
    """The library; its OpenMP takes the number of threads from the environment."""
    file = find_library("dnnl")
    if file is None:
        raise UnableError("the system has no libdnnl")
    library = ctypes.CDLL(file)
    library.dnnl_version.restype = ctypes.POINTER(Version)
    found: Any = library.dnnl_version().contents
    isa = int(library.dnnl_get_effective_cpu_isa())
    return OneDnn(
        library=library,
        about={
            "version": f"{found.major}.{found.minor}.{found.patch}",
            "file": file,
            "code_path": ISAS.get(isa, hex(isa)),
        },
    )
