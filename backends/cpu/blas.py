"""The interface of a BLAS around products of any size: LLVM text of what programs call.

A product is a function that gemmir compiled for row-major arrays, one for each type and each pair
of transposes. Here stand the functions that Fortran and C programs call, `sgemm_` and `cblas_sgemm`
and those of f64: they check arguments as the reference BLAS does, return early where it does, and
exchange the operands where arrays are column-major. Everything is for the System V and AArch64 ABIs
of Linux.

An error is told to `cblas_xerbla` or `xerbla_`, weak names that are left undefined: those of the
program win, then those of the BLAS that it is linked with, and without any the error is printed to
standard error. What the call would have written stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Final

from gemmir.backend import Artifact
from gemmir.backends.cpu import pool
from gemmir.backends.cpu.blas_text import COMMON, CORE, ENTRIES, ERRORS
from gemmir.signature import Signature

LETTERS: Final = {"f32": "s", "f64": "d"}
"""The letter of BLAS for an element type."""

TRANSPOSES: Final = ("nn", "nt", "tn", "tt")
"""Of A and B, in the order of the tables of products."""

C_TYPES: Final = {"f32": "float", "f64": "double"}
"""The LLVM type of an element."""

WIDTHS: Final = {"f32": 4, "f64": 8}
"""Bytes of an element."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a BLAS spells its names, `prefix` and what follows, and the LLVM type of its integers."""

    prefix: str
    fortran: str
    cblas: str
    integer: str


CONVENTIONS: Final = (
    Convention(prefix="", fortran="_", cblas="", integer="i32"),
    Convention(prefix="", fortran="_64_", cblas="64_", integer="i64"),
    Convention(prefix="scipy_", fortran="_", cblas="", integer="i32"),
    Convention(prefix="scipy_", fortran="_64_", cblas="64_", integer="i64"),
)
"""The usual names, those of a BLAS with 64-bit integers, and both in the wheels of NumPy and SciPy,
whose OpenBLAS has names of its own so that programs can have another one beside it."""


def exported(convention: Convention, dtype: str) -> tuple[str, str]:
    """The names for Fortran and for C."""
    stem = f"{LETTERS[dtype]}gemm"
    return (
        f"{convention.prefix}{stem}{convention.fortran}",
        f"{convention.prefix}cblas_{stem}{convention.cblas}",
    )


def exported_names(dtypes: Sequence[str]) -> tuple[str, ...]:
    """Every name that a program can call."""
    return tuple(n for c in CONVENTIONS for dtype in dtypes for n in exported(c, dtype))


Products = Mapping[str, Sequence[Signature]]
"""The products of each element type, in the order of `TRANSPOSES`."""


def interface(products: Products, spare: Products, cpu: str) -> Artifact:
    """What programs call for `products`, and for `spare` ones where those have no memory.

    The arguments of a product are found by their names: the arrays a, b and c, one element each of
    alpha and beta, and the sizes m, n, k, lda, ldb and ldc. Products of a type have the same ones
    in the same order.
    """
    parts = [COMMON]
    parts.extend(_core(dtype, products[dtype], spare[dtype]) for dtype in products)
    for convention in CONVENTIONS:
        parts.append(_errors(convention))
        parts.extend(_entries(convention, dtype) for dtype in products)
    first = next(iter(products.values()))[0]
    return Artifact(kind="llvm", text="\n".join(parts), signature=first, cpu=cpu)


def heap(signature: Signature, cpu: str) -> Artifact:
    """The heap of `pool` for a library of its own, beside that of the C library.

    Its functions are linked in place of those in `pool.SYMBOLS`, which it calls by the names that
    the linker then gives them.
    """
    text = pool.text(huge_pages=True)
    for name in pool.SYMBOLS:
        text = text.replace(f"@{name}(", f"@__real_{name}(")
    return Artifact(kind="llvm", text=text, signature=signature, cpu=cpu)


def _core(dtype: str, signatures: Sequence[Signature], spare: Sequence[Signature]) -> str:
    """What checks, returns early, scales or multiplies, on column-major arrays."""
    symbols = [signature.symbol for signature in (*signatures, *spare)]
    types = ", ".join(text.split()[0] for text in _product_arguments(signatures[0]))
    return Template(CORE).substitute(
        dtype=dtype,
        t=C_TYPES[dtype],
        width=WIDTHS[dtype],
        declarations="\n".join(f"declare i32 @{symbol}({types})" for symbol in symbols),
        table=", ".join(f"ptr @{symbol}" for symbol in symbols),
        arguments=", ".join(_product_arguments(signatures[0])),
    )


def _product_arguments(signature: Signature) -> Iterator[str]:
    """The arguments of the call of a product, whose C is the transpose of ours."""
    exchanged = {"a": "b", "b": "a", "m": "n", "n": "m", "lda": "ldb", "ldb": "lda"}
    for argument in signature.arguments:
        yield f"ptr %{exchanged.get(argument.name, argument.name)}"
    for name in signature.sizes:
        yield f"i64 %{exchanged.get(name, name)}"


def _errors(convention: Convention) -> str:
    return Template(ERRORS).substitute(
        xerbla=f"{convention.prefix}xerbla{convention.fortran}",
        cblas_xerbla=f"{convention.prefix}cblas_xerbla{convention.cblas}",
        integer=convention.integer,
        info=_converted("%info", "i32", convention.integer),
        found=_converted("%found", "i32", convention.integer),
    )


def _entries(convention: Convention, dtype: str) -> str:
    """The functions for Fortran and for C."""
    fortran, cblas = exported(convention, dtype)
    letter, integer = LETTERS[dtype], convention.integer
    fields = {
        "dtype": dtype,
        "t": C_TYPES[dtype],
        "integer": integer,
        "fortran": fortran,
        "cblas": cblas,
        "xerbla": f"{convention.prefix}xerbla{convention.fortran}",
        "cblas_xerbla": f"{convention.prefix}cblas_xerbla{convention.cblas}",
        "fortran_name": f"{letter.upper()}GEMM ",
        "cblas_name": f"cblas_{letter}gemm",
        "loads": "\n".join(
            f"  %{n}.given = load {integer}, ptr %{n}.at\n"
            f"  %{n} = {_converted(f'%{n}.given', integer, 'i64')}"
            for n in ("m", "n", "k", "lda", "ldb", "ldc")
        ),
        "sizes": "\n".join(
            f"  %{n} = {_converted(f'%{n}.given', integer, 'i64')}"
            for n in ("m", "n", "k", "lda", "ldb", "ldc")
        ),
    }
    return Template(ENTRIES).substitute(fields)


def _converted(value: str, given: str, wanted: str) -> str:
    """The instruction that takes an integer to another type, which may be the same."""
    word = "sext" if wanted == "i64" and given == "i32" else "bitcast"
    return f"{word} {given} {value} to {wanted}"
