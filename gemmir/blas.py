"""A BLAS library of gemmir: `sgemm` and `dgemm` for C and Fortran, in a shared library.

Programs that call a BLAS run on it by LD_PRELOAD; all other functions of BLAS still come from the
one that they are linked with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gemmir.backends.cpu import pool
from gemmir.backends.cpu.assemble import assemble, compiler_for, shared_library
from gemmir.backends.cpu.blas import LETTERS, TRANSPOSES, exported_names, heap, interface
from gemmir.compiler import Lowered, lower_text
from gemmir.errors import BackendError
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.machine import HOST, CpuMachine, machine_for
from gemmir.machine.host import architecture
from gemmir.schedule.cpu.any_size import unpacked
from gemmir.signature import Signature
from gemmir.sizes import ANY

SPARE: Final = "_spare"
"""What the names of products end with that are called where there is no memory for the others."""


@dataclass(frozen=True, kw_only=True)
class BlasLibrary:
    """A shared library, the functions that it exports, and the products that it is made of."""

    machine: CpuMachine
    symbols: tuple[str, ...]
    products: Mapping[str, Lowered]
    data: bytes


def blas_library(target: str = HOST) -> BlasLibrary:
    """The library for the CPU `target`, whose products run on the thread that calls them.

    Raises `BackendError` GEM1360 where the target is no CPU, `MissingError` where there is no such
    target (GEM0602) or no C compiler to link with (GEM0603).
    """
    machine = machine_for(target)
    if not isinstance(machine, CpuMachine):
        raise BackendError(
            "GEM1360",
            f"a BLAS library is for programs on a CPU, and {target} is none",
            "use cpu, or the name of a CPU that gemmir targets lists",
        )
    compiler_for(architecture(machine.llvm_triple))  # or else there is no use in compiling all
    products = {symbol(dtype, t): _product(dtype, t, target) for dtype, t in _all()}
    spare = {symbol(dtype, t) + SPARE: _spare(dtype, t, target, machine) for dtype, t in _all()}
    front = interface(
        {dtype: _signatures(products, dtype) for dtype in LETTERS},
        {dtype: _signatures(spare, dtype, SPARE) for dtype in LETTERS},
        machine.llvm_cpu,
    )
    own = [assemble(front), assemble(heap(front.signature, machine.llvm_cpu))]
    names = exported_names(tuple(LETTERS))
    made = [product.assemble() for product in (*products.values(), *spare.values())]
    return BlasLibrary(
        machine=machine,
        symbols=names,
        products=products,
        data=shared_library(*own, *made, exported=names, heap=pool.SYMBOLS),
    )


def _signatures(products: Mapping[str, Lowered], dtype: str, more: str = "") -> list[Signature]:
    return [products[symbol(dtype, t) + more].artifact.signature for t in TRANSPOSES]


def _all() -> list[tuple[str, str]]:
    return [(dtype, transposes) for dtype in LETTERS for transposes in TRANSPOSES]


def symbol(dtype: str, transposes: str) -> str:
    """The name of a product inside the library."""
    return f"gemmir_{LETTERS[dtype]}gemm_{transposes}"


def problem(dtype: str, transposes: str) -> Gemm:
    """A row-major product of any size."""
    trans_a, trans_b = (letter == "t" for letter in transposes)
    return Gemm(
        m=ANY,
        n=ANY,
        k=ANY,
        lda=ANY,
        ldb=ANY,
        ldc=ANY,
        alpha=ANY,
        beta=ANY,
        dtype=dtype,
        trans_a=trans_a,
        trans_b=trans_b,
    )


def _spare(dtype: str, transposes: str, target: str, machine: CpuMachine) -> Lowered:
    """The product that needs no memory."""
    gemm = problem(dtype, transposes)
    module = build(gemm, symbol(dtype, transposes) + SPARE)
    return lower_text(str(module) + "\n", target, schedule=unpacked(gemm, machine), threads=1)


def _product(dtype: str, transposes: str, target: str) -> Lowered:
    module = build(problem(dtype, transposes), symbol(dtype, transposes))
    return lower_text(str(module) + "\n", target, threads=1)
