"""MKL, the package `mkl`."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gemmir.bench.entrant import Array, Entrant, Settings, UnableError, plain_product, require
from gemmir.bench.loops import Moving, call_loop, real
from gemmir.bench.peers.cblas import (
    ROW_MAJOR,
    Cblas,
    address_of,
    gemm_addresses,
    loaded_libraries,
    moving,
    transposes,
)
from gemmir.gemm import Gemm

SEQUENTIAL: Final = 1
INTEL: Final = 0
"""MKL_THREADING_SEQUENTIAL and MKL_THREADING_INTEL of mkl_service.h."""

FIX_OFFSET: Final = 173
"""CblasFixOffset of mkl_cblas.h: one number is added to all of the result."""

MIXED: Final = {"bf16": "cblas_gemm_bf16bf16f32", "f16": "cblas_gemm_f16f16f32"}
"""Functions that multiply 16-bit floats and sum in f32."""


@dataclass(frozen=True, kw_only=True)
class Mkl:
    """MKL in this process; `cblas` is what it has in common with others."""

    library: ctypes.CDLL
    cblas: Cblas

    @property
    def about(self) -> Mapping[str, str]:
        """Its version and file, and the code path that it has taken."""
        return {**self.cblas.about, "code_path": _code_path()}

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """cblas_?gemm, or the function of MKL that has such a product."""
        types = (gemm.element.name, gemm.element_b.name)
        if types[0] == types[1] and types[0] in MIXED:
            return self._mixed(gemm, arrays, MIXED[gemm.dtype])
        if types == ("u8", "i8"):
            return self._bytes(gemm, arrays)
        return self.cblas.enter(gemm, arrays)

    def _mixed(self, gemm: Gemm, arrays: Mapping[str, Array], name: str) -> Entrant:
        plain_product(gemm)
        require(gemm.out in (None, "f32"), f"{name} has no C of {gemm.out}")
        a, b, c = moving(gemm, arrays)
        alpha, beta = real("f32", gemm.alpha), real("f32", gemm.beta)
        lda, ldb, ldc = (f"i32 {gemm.leading(x)}" for x in "abc")
        arguments = [*_head(gemm), alpha, a, lda, b, ldb, beta, c, ldc]
        return self._entrant(gemm, arrays, name, arguments)

    def _bytes(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """Of rows, A has unsigned numbers and B signed ones, whatever the name says of columns."""
        plain_product(gemm)
        a, b, c = moving(gemm, arrays)
        alpha, beta = real("f32", gemm.alpha), real("f32", gemm.beta)
        lda, ldb, ldc = (f"i32 {gemm.leading(x)}" for x in "abc")
        nothing = np.zeros(1, np.int32)
        tail = [alpha, a, lda, "i8 0", b, ldb, "i8 0", beta, c, ldc]
        order, ta, tb, *sizes = _head(gemm)
        head = [order, ta, tb, f"i32 {FIX_OFFSET}", *sizes]
        arguments = [*head, *tail, Moving(address=nothing.ctypes.data)]
        return self._entrant(gemm, arrays, "cblas_gemm_s8u8s32", arguments, nothing)

    def _entrant(
        self,
        gemm: Gemm,
        arrays: Mapping[str, Array],
        name: str,
        arguments: list[str | Moving],
        owner: object = None,
    ) -> Entrant:
        address = address_of(self.library, name)
        if address is None:
            raise UnableError(f"it has no {name}")
        items = 1 if gemm.batch is None else gemm.batch
        return Entrant(
            repeat=call_loop(address, arguments, items=items, owner=owner),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"called": name},
        )


def find(settings: Settings) -> Mkl:
    """The library, sequential for one thread."""
    paths = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if not paths:
        raise UnableError(f"no libmkl_rt in {sys.prefix}/lib; pip install mkl")
    library = ctypes.CDLL(str(paths[0]))
    library.MKL_Set_Threading_Layer(SEQUENTIAL if settings.threads == 1 else INTEL)
    library.MKL_Set_Num_Threads(settings.threads)
    text = ctypes.create_string_buffer(256)
    library.MKL_Get_Version_String(text, len(text))
    cblas = Cblas(
        about={"version": " ".join(text.value.decode().split()), "file": paths[0].name},
        integer="i32",
        addresses=gemm_addresses(library, "{}"),
        batched=gemm_addresses(library, "{}", "_batch_strided"),
    )
    return Mkl(library=library, cblas=cblas)


def _head(gemm: Gemm) -> list[str | Moving]:
    sizes = [f"i32 {size}" for size in (gemm.m, gemm.n, gemm.k)]
    return [f"i32 {ROW_MAJOR}", *transposes(gemm), *sizes]


def _code_path() -> str:
    """Which of MKL's code paths it has chosen, once it was called: def, avx2, avx512 …"""
    found = (re.fullmatch(r"libmkl_(def|mc3|avx\d+)\.so.*", p.name) for p in loaded_libraries())
    return ", ".join(sorted({match[1] for match in found if match}))
