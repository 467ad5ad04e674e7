"""Libraries that have the cblas interface, called from a loop of machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gemmir.bench.entrant import Array, Entrant, one_type, plain_product, require
from gemmir.bench.loops import Moving, call_loop, real
from gemmir.dtypes import ELEMENTS
from gemmir.gemm import Gemm

ROW_MAJOR: Final = 101
NOT_TRANSPOSED: Final = 111
TRANSPOSED: Final = 112
"""CblasRowMajor, CblasNoTrans and CblasTrans of cblas.h."""

GEMM_NAMES: Final = {"f32": "cblas_sgemm", "f64": "cblas_dgemm"}


@dataclass(frozen=True, kw_only=True)
class Cblas:
    """A loaded library: the address of its gemm for each dtype, and of its batched one if any.

    `integer` is LLVM's type of its sizes: i32 for LP64, i64 for ILP64.
    """

    about: Mapping[str, str]
    integer: str
    addresses: Mapping[str, int]
    batched: Mapping[str, int]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """A call of cblas_?gemm; of a batch, of the batched one, or one after the other."""
        plain_product(gemm)
        one_type(gemm)
        require(gemm.dtype in self.addresses, f"its gemm has no {gemm.dtype}")
        is_strided = gemm.batch is not None and gemm.dtype in self.batched
        arguments = self._strided(gemm, arrays) if is_strided else self._each(gemm, arrays)
        address = (self.batched if is_strided else self.addresses)[gemm.dtype]
        items = 1 if is_strided or gemm.batch is None else gemm.batch
        return Entrant(
            repeat=call_loop(address, arguments, items=items),
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"called": "gemm_batch_strided" if is_strided else "gemm"},
        )

    def _each(self, gemm: Gemm, arrays: Mapping[str, Array]) -> list[str | Moving]:
        a, b, c = moving(gemm, arrays)
        alpha, beta = real(gemm.dtype, gemm.alpha), real(gemm.dtype, gemm.beta)
        lda, ldb, ldc = (f"{self.integer} {gemm.leading(name)}" for name in "abc")
        return [*self._head(gemm), alpha, a, lda, b, ldb, beta, c, ldc]

    def _strided(self, gemm: Gemm, arrays: Mapping[str, Array]) -> list[str | Moving]:
        a, b, c = (Moving(address=arrays[name].ctypes.data) for name in "abc")
        alpha, beta = real(gemm.dtype, gemm.alpha), real(gemm.dtype, gemm.beta)
        (lda, sa), (ldb, sb), (ldc, sc) = (
            (f"{self.integer} {gemm.leading(x)}", f"{self.integer} {gemm.batch_stride(x)}")
            for x in "abc"
        )
        last = f"{self.integer} {gemm.batch}"
        return [*self._head(gemm), alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, last]

    def _head(self, gemm: Gemm) -> list[str | Moving]:
        sizes = [f"{self.integer} {size}" for size in (gemm.m, gemm.n, gemm.k)]
        return [f"i32 {ROW_MAJOR}", *transposes(gemm), *sizes]


def transposes(gemm: Gemm) -> list[str]:
    """CBLAS_TRANSPOSE of A and B."""
    given = (gemm.trans_a, gemm.trans_b)
    return [f"i32 {TRANSPOSED if is_transposed else NOT_TRANSPOSED}" for is_transposed in given]


def moving(gemm: Gemm, arrays: Mapping[str, Array]) -> list[Moving]:
    """Pointers to A, B and C, each a matrix further for the next product of a batch."""
    types = {operand.name: operand.dtype for operand in gemm.operands}
    return [
        Moving(
            address=arrays[x].ctypes.data,
            stride_bytes=(
                0 if gemm.batch is None else gemm.batch_stride(x) * ELEMENTS[types[x]].item_bytes
            ),
        )
        for x in "abc"
    ]


def address_of(library: ctypes.CDLL, name: str) -> int | None:
    """The address of a function, or None where the library has none of that name."""
    function: Any = getattr(library, name, None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def gemm_addresses(library: ctypes.CDLL, spelled: str, suffix: str = "") -> dict[str, int]:
    """Addresses of gemms by dtype; `spelled` has {} for cblas_sgemm and the like."""
    found = {
        dtype: address_of(library, spelled.format(name + suffix))
        for dtype, name in GEMM_NAMES.items()
    }
    return {dtype: address for dtype, address in found.items() if address is not None}


def loaded_libraries() -> Iterator[Path]:
    """Shared libraries in this process, where Linux lists them."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    yield from {Path(line.split(maxsplit=5)[-1]) for line in lines if ".so" in line}
