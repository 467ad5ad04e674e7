"""The problem: C = epilogue(alpha * op(A) @ op(B) + beta * C), as a value.

`Gemm` says what is to be computed and how the user's arrays lie; it says nothing of how it is
computed. It also knows what the right answer is and how far a correct implementation may be from it
(`gemmir.right_answer`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt

from gemmir.dtypes import (
    ELEMENTS,
    FACTORS_B,
    PRODUCTS,
    WEIGHTS,
    ElementType,
    ProductType,
)
from gemmir.epilogue_steps import (
    EPILOGUE_STEPS,
    EXACT_STEPS,
    EXPONENTIAL_STEPS,
    STEP_OPERANDS,
)
from gemmir.errors import ProblemError
from gemmir.right_answer import error_bound, reference, wide_type
from gemmir.sizes import Unknown

Array = npt.NDArray[Any]

DTYPES: Final[Mapping[str, tuple[str, ...]]] = {n: p.results for n, p in PRODUCTS.items()}
"""What A and B may be, and the element types of which C may then be, that of the sum first."""

OFFSETS: Final = "offsets"
"""The operand that says where the rows of each of several products begin."""

COUNTS: Final = "counts"
"""The operand that says how many rows each of several products has, where all have room for m."""

SIZES: Final = ("m", "n", "k", "lda", "ldb", "ldc")
FACTORS: Final = ("alpha", "beta")
"""What may be known in a call only."""

MAX_ELEMENTS: Final = 2**40
"""No operand may span more elements than this: 64-bit byte offsets must not overflow."""

LEAST_SCALE_BLOCK: Final = 16
"""Elements along k that have one scale: one product of tensor cores takes so many at least."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One array of the problem: its shape, its strides in elements and its element type."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    access: Literal["read", "write", "readwrite"]

    @property
    def is_known(self) -> bool:
        """Whether its shape and strides are known before a call."""
        return not any(isinstance(n, Unknown) for n in (*self.shape, *self.strides))

    @property
    def span(self) -> int:
        """Elements from the first to one past the last that the array can touch."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """C = epilogue(alpha * op(A) @ op(B) + beta * C) with op(A) m x k, op(B) k x n, C m x n.

    All arrays are row-major. `trans_a` means that A is stored k x m, `trans_b` that B is stored
    n x k. `lda`, `ldb`, `ldc` are the distances in elements between stored rows, at least the row
    length, which is the default. With `batch` every array has a leading dimension; its strides
    default to packed matrices, and a `batch_stride_a` or `batch_stride_b` of 0 means one matrix
    shared by the whole batch (the array then has two dimensions).

    With `groups` it is several products, for which `offsets`, an array of groups + 1 i32 behind B,
    says at run time which rows they have: product g has the rows from offsets[g] up to
    offsets[g + 1] of A and C, which have m rows in all, and matrix g of B, which has one for each.
    offsets[0] is 0, no offset is less than the one before, and none is more than m. Rows of C
    behind the last product stay as they are; so `out` is needed in a call. `bias` then has a row
    of n for each product. With `masked` too, each product has room of its own for m rows: A, C and
    `residual` have a matrix for each, of which `counts`, an array of groups i32 in place of
    `offsets`, says how many rows there are. The others of C stay as they are.

    `epilogue` joins steps by `+`: `bias` (length n), `relu`, `gelu` (tanh form), `silu`,
    `residual` (shape of C), and `scale`, which multiplies by the scale of A and by that of B, two
    arrays `scale_a` and `scale_b` of one element of the type of the sum. `dtype` is the element
    type of A and B, `out` that of all other arrays.
    f16, bf16, e4m3 and e5m2 are summed in f32, which is also what C is unless `out` says f16 or
    bf16. So are tf32, bf16x1 and bf16x3, whose A and B are f32 and are rounded where they are
    multiplied: to tf32, to bf16, or each to the sum of two bf16 (`gemmir.dtypes.Precision`). i8 and
    u8 are summed in i32, modulo 2**32; then alpha and beta are whole numbers and the epilogue has
    none of `gelu`, `silu` and `scale`.

    With `scale_block=128` elements of A and B have scales, one for 128 elements along k in a row of
    A, one for 128 by 128 elements of B: what is summed are products of elements times their scales.
    Behind B come `scale_a` and `scale_b`, arrays of the type of the sum, which lie as A and B do:
    m x ceil(k / 128) or its transpose with `trans_a`, and so with B.

    `dtype_b` is the element type of B where that is another: u8 by i8 or i8 by u8, or weights, i8
    or i4 by an A of f32, bf16 or f16. Weights have scales: with `weight_group=128` one for 128
    elements along k of each column, so that what is multiplied is an element of A by one of B times
    its scale. Behind B comes `scale_b`, an array of the type of the sum that lies as B does,
    ceil(k / 128) x n or its transpose with `trans_b`. Two elements of i4, from -8 to 7, are a byte,
    the first in its low half: the array of B is one of uint8 with rows half as long
    (`gemmir.pack_int4` makes it), and rows and `ldb` have a whole number of bytes.

    `ANY` in place of m, n, k, lda, ldb, ldc, alpha or beta (None too in place of the first three)
    is a number that the caller of the kernel passes (`gemmir.sizes`): the sizes follow from the
    arrays, and `alpha` and `beta` are arrays of one element of the type of the sum, behind B. Of
    one product only. Where beta is 0 in a call C is not read.

    Raises `ProblemError` (GEM01xx) where the fields contradict each other.
    """

    m: int
    n: int
    k: int
    dtype: str = "f32"
    out: str | None = None
    alpha: float = 1.0
    beta: float = 0.0
    trans_a: bool = False
    trans_b: bool = False
    lda: int | None = None
    ldb: int | None = None
    ldc: int | None = None
    batch: int | None = None
    batch_stride_a: int | None = None
    batch_stride_b: int | None = None
    batch_stride_c: int | None = None
    groups: int | None = None
    masked: bool = False
    scale_block: int | None = None
    epilogue: str = ""
    dtype_b: str | None = None
    weight_group: int | None = None

    def __post_init__(self) -> None:
        self._name_unknown()
        self._check_sizes()
        self._check_types()
        self._check_type_of_b()
        self._check_epilogue()
        if self.scale_block is not None:
            self._check_scales(self.scale_block)
        if self.has_weights or self.weight_group is not None:
            self._check_weights(self.weight_group)
        self._check_strides()

    def _name_unknown(self) -> None:
        """Name what is known in a call only, and refuse it where everything must be known."""
        for name in (*SIZES, *FACTORS):
            found: object = getattr(self, name)
            if isinstance(found, Unknown) or (found is None and name in SIZES[:3]):
                object.__setattr__(self, name, Unknown(name))
        unknown = (*self.unknown, *self.unknown_factors)
        if not unknown:
            return
        for name in ("batch", "groups", "scale_block", "weight_group"):
            if getattr(self, name) is not None:
                raise ProblemError(
                    "GEM1350",
                    f"{', '.join(unknown)} known in a call only, and {name}={getattr(self, name)}",
                    f"leave {name} out, or give the numbers",
                )

    def _check_sizes(self) -> None:
        for name in ("m", "n", "k", "batch", "groups"):
            size: object = getattr(self, name)
            if isinstance(size, Unknown) and name in SIZES:
                continue
            if name in ("batch", "groups") and size is None:
                continue
            if not isinstance(size, SupportsIndex) or isinstance(size, bool):
                raise ProblemError("GEM0101", f"{name}={size!r} is not a whole number")
            whole = operator.index(size)
            if whole < 0:
                raise ProblemError("GEM0102", f"{name}={whole} is negative", "sizes start at 0")
            object.__setattr__(self, name, whole)
        if self.groups is not None:
            self._check_groups()
        elif self.masked:
            raise ProblemError(
                "GEM0123", "masked=True of one product, all of whose rows are there", "give groups"
            )

    def _check_groups(self) -> None:
        if self.groups == 0:
            raise ProblemError("GEM0122", "groups=0 has no products", "use 1 or more")
        if self.batch is not None or self.trans_a:
            other = "trans_a" if self.batch is None else f"batch={self.batch}"
            raise ProblemError(
                "GEM0123",
                f"groups={self.groups} and {other}: rows of A belong to one product each",
                f"leave {other.split('=')[0]} out",
            )

    def _check_types(self) -> None:
        if self.dtype not in DTYPES:
            raise ProblemError(
                "GEM0103", f"dtype {self.dtype!r} is not supported", f"use {' or '.join(DTYPES)}"
            )
        if self.out not in (None, *DTYPES[self.dtype]):
            raise ProblemError(
                "GEM0104",
                f"out={self.out!r} of a product of {self.dtype}",
                f"use {' or '.join(DTYPES[self.dtype])}",
            )
        for name in FACTORS:
            if isinstance(getattr(self, name), Unknown):
                self._check_unknown_factor(name)
                continue
            value = float(getattr(self, name))
            if self.accumulator.is_integer:
                _require_whole(name, value, self.dtype)
                object.__setattr__(self, name, value)
                continue
            with np.errstate(over="ignore"):
                summed = self.accumulator.numpy.type(value)
            if not math.isfinite(float(summed)):
                raise ProblemError(
                    "GEM0105", f"{name}={value} is not finite as {self.accumulator.name}"
                )
            object.__setattr__(self, name, value)

    def _check_type_of_b(self) -> None:
        if self.dtype_b is None:
            return
        if self.dtype_b == self.dtype:
            object.__setattr__(self, "dtype_b", None)
            return
        others = FACTORS_B.get(self.dtype, ())
        if self.dtype_b not in others:
            raise ProblemError(
                "GEM1330",
                f"dtype_b={self.dtype_b!r} of a product of {self.dtype}",
                f"use {' or '.join((self.dtype, *others))}",
            )

    def _check_weights(self, group: object) -> None:
        if not self.has_weights:
            raise ProblemError(
                "GEM1331",
                f"weight_group={group!r} of a B of {self.element_b.name}, which has no scales",
                "give dtype_b=i8 or dtype_b=i4, or leave weight_group out",
            )
        size = operator.index(group) if isinstance(group, SupportsIndex) else 0
        if size < 1 or size % 2:
            raise ProblemError(
                "GEM1331",
                f"weight_group={group!r} of a B of {self.dtype_b}: an even number of elements "
                "along k has one scale",
                f"use {size + 1 if size > 0 else 128}",
            )
        object.__setattr__(self, "weight_group", size)
        others: dict[str, object] = {
            "batch": self.batch,
            "groups": self.groups,
            "scale_block": self.scale_block,
            "epilogue": "scale" if "scale" in self.steps else None,
        }
        for name, value in others.items():
            if value is not None:
                raise ProblemError(
                    "GEM1332",
                    f"dtype_b={self.dtype_b} and {name}={value}: weights have scales in one "
                    "product, and no others",
                    f"leave {name} out" if name != "epilogue" else "multiply scale_b beforehand",
                )
        if 0 in (self.m, self.n, self.k):
            raise ProblemError(
                "GEM1332",
                f"dtype_b={self.dtype_b} of {self.m} x {self.n} x {self.k} has no groups",
                "leave dtype_b out where an extent is 0",
            )
        per_byte = self.element_b.per_byte
        for name, elements in (("nk"[self.trans_b], self._cols_b), ("ldb", self.leading("b"))):
            if elements % per_byte:
                raise ProblemError(
                    "GEM1333",
                    f"{name}={elements} of a B of {self.dtype_b}: a row is no whole number of "
                    "bytes",
                    f"use {name}={elements + 1}, with zeros behind",
                )

    def _check_unknown_factor(self, name: str) -> None:
        if self.accumulator.is_integer:
            raise ProblemError(
                "GEM1350",
                f"{name} of {self.accumulator.name} sums is known in a call only",
                "use a dtype of floats, or give the number",
            )

    def _check_epilogue(self) -> None:
        for step in self.steps:
            if step not in EPILOGUE_STEPS:
                raise ProblemError(
                    "GEM0106",
                    f"epilogue step {step!r} is not known",
                    f"join any of {', '.join(EPILOGUE_STEPS)} by '+'",
                )
            if self.accumulator.is_integer and step not in EXACT_STEPS:
                raise ProblemError(
                    "GEM0113",
                    f"epilogue step {step!r} of {self.accumulator.name} sums",
                    f"join any of {', '.join(EXACT_STEPS)} by '+'",
                )
        for step in STEP_OPERANDS:
            if self.steps.count(step) > 1:
                raise ProblemError(
                    "GEM0107", f"epilogue has {step} twice", "add the operands first"
                )

    def _check_scales(self, block: object) -> None:
        size = operator.index(block) if isinstance(block, SupportsIndex) else 0
        if size < LEAST_SCALE_BLOCK or size & (size - 1):
            raise ProblemError(
                "GEM0131",
                f"scale_block={block!r} is no power of two from {LEAST_SCALE_BLOCK} on",
                "use 128",
            )
        object.__setattr__(self, "scale_block", size)
        if self.accumulator.is_integer:
            raise ProblemError(
                "GEM0132",
                f"scale_block={block} of {self.accumulator.name} sums",
                "use a dtype of floats, such as e4m3",
            )
        others = {"batch": self.batch, "groups": self.groups}
        for name, value in others.items():
            if value is not None:
                raise ProblemError(
                    "GEM0133",
                    f"scale_block={block} and {name}={value}: blocks have scales in one product",
                    f"leave {name} out",
                )
        if "scale" in self.steps:
            raise ProblemError(
                "GEM0134",
                f"scale_block={block} and the step scale of the epilogue have the same operands",
                "multiply the scales of blocks by the others beforehand",
            )
        if 0 in (self.m, self.n, self.k):
            raise ProblemError(
                "GEM0135",
                f"scale_block={block} of {self.m} x {self.n} x {self.k} has no blocks",
                "leave scale_block out where an extent is 0",
            )

    def _check_strides(self) -> None:
        for operand, least in (("a", self._cols_a), ("b", self._cols_b), ("c", self.n)):
            lead = getattr(self, f"ld{operand}")
            if isinstance(lead, Unknown) or (lead is None and isinstance(least, Unknown)):
                continue
            if isinstance(least, Unknown):
                raise ProblemError(
                    "GEM1350",
                    f"ld{operand}={lead} of rows whose length is known in a call only",
                    f"leave ld{operand} out, or use ANY",
                )
            if lead is not None and lead < max(least, 1):
                raise ProblemError(
                    "GEM0108",
                    f"ld{operand}={lead} is less than the row length {least}",
                    f"use at least {max(least, 1)}",
                )
            stride = getattr(self, f"batch_stride_{operand}")
            if stride is None:
                continue
            if self.batch is None:
                raise ProblemError("GEM0109", f"batch_stride_{operand} needs a batch")
            rows = self._stored_rows(operand)
            shared = stride == 0 and operand != "c"
            if not shared and stride < rows * self.leading(operand):
                raise ProblemError(
                    "GEM0110",
                    f"batch_stride_{operand}={stride} is less than a matrix",
                    f"use at least {rows * self.leading(operand)}"
                    + ("" if operand == "c" else ", or 0 to share one matrix"),
                )
        for operand in self.operands:
            if operand.is_known and operand.span > MAX_ELEMENTS:
                raise ProblemError(
                    "GEM0111",
                    f"operand {operand.name} spans {operand.span} elements",
                    f"the limit is {MAX_ELEMENTS}",
                )

    @property
    def _cols_a(self) -> int:
        return self.m if self.trans_a else self.k

    @property
    def _cols_b(self) -> int:
        return self.k if self.trans_b else self.n

    def _stored_rows(self, operand: str) -> int:
        return {
            "a": self.k if self.trans_a else self.m,
            "b": self.n if self.trans_b else self.k,
            "c": self.m,
        }[operand]

    def leading(self, operand: str) -> int:
        """Distance in elements between stored rows of operand `a`, `b` or `c`."""
        given = getattr(self, f"ld{operand}")
        return given or {"a": self._cols_a, "b": self._cols_b, "c": self.n}[operand] or 1

    def batch_stride(self, operand: str) -> int:
        """Distance in elements between matrices of operand `a`, `b` or `c`; 0 where shared."""
        given = getattr(self, f"batch_stride_{operand}")
        return self._stored_rows(operand) * self.leading(operand) if given is None else given

    @property
    def unknown(self) -> tuple[str, ...]:
        """The sizes and leading dimensions that are known in a call only, in order."""
        return tuple(name for name in SIZES if isinstance(getattr(self, name), Unknown))

    @property
    def unknown_factors(self) -> tuple[str, ...]:
        """Which of alpha and beta are known in a call only."""
        return tuple(name for name in FACTORS if isinstance(getattr(self, name), Unknown))

    def at(self, **numbers: float) -> Gemm:
        """This problem where some of what is unknown has these `numbers`.

        Rows lie as far apart as they are long where that was unknown too and is not among them.
        """
        leads = {name: None for name in self.unknown if name not in (*numbers, *SIZES[:3])}
        return replace(self, **leads, **numbers)

    def of(self, arrays: Mapping[str, Array]) -> Gemm:
        """This problem with the sizes, alpha and beta that `arrays`, by operand name, have."""
        if not self.unknown and not self.unknown_factors:
            return self
        rows, columns = arrays["c"].shape
        sizes = {"m": rows, "n": columns, "k": arrays["a"].shape[0 if self.trans_a else 1]}
        numbers: dict[str, float] = {name: sizes[name] for name in self.unknown if name in sizes}
        numbers |= {name: float(arrays[name][0]) for name in self.unknown_factors}
        return self.at(**numbers)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of the epilogue, in order."""
        return tuple(self.epilogue.split("+")) if self.epilogue else ()

    @property
    def has_exponentials(self) -> bool:
        """Whether the epilogue takes exponentials."""
        return not {*EXPONENTIAL_STEPS}.isdisjoint(self.steps)

    @property
    def flops(self) -> int:
        """Floating-point operations of the product; the epilogue is not counted."""
        count = self.batch if self.groups is None else self.groups if self.masked else 1
        return 2 * (1 if count is None else count) * self.m * self.n * self.k

    @property
    def rows_each(self) -> int:
        """Rows that each of several products is taken to have: room for them, or its share of m."""
        if self.groups is None or self.masked:
            return self.m
        return max(-(-self.m // self.groups), 1)

    @property
    def bytes_moved(self) -> int:
        """Least bytes between memory and the core: every operand once, C twice if it is read."""
        again = self.operands[-1:] if self.beta else ()
        return sum(
            ELEMENTS[o.dtype].bits * math.prod(o.shape) // 8 for o in (*self.operands, *again)
        )

    @property
    def product(self) -> ProductType:
        """How products are made and summed."""
        return PRODUCTS[self.dtype]

    @property
    def roundings(self) -> int:
        """Roundings around a sum: of alpha, beta and their sum, and of the scales of a block."""
        return 4 if self.scale_block is None and self.weight_group is None else 7

    @property
    def element(self) -> ElementType:
        """The element type of A, and of B where `dtype_b` says no other."""
        return self.product.element

    @property
    def element_b(self) -> ElementType:
        """The element type of B."""
        return self.element if self.dtype_b is None else ELEMENTS[self.dtype_b]

    @property
    def has_weights(self) -> bool:
        """Whether B has integers that are multiplied by scales, and A floats."""
        return self.dtype_b in WEIGHTS and not self.element.is_integer

    @property
    def accumulator(self) -> ElementType:
        """The type in which products are summed, alpha and beta applied and epilogues computed."""
        return ELEMENTS[self.element.accumulator]

    @property
    def result(self) -> ElementType:
        """The element type of C and of the operands of the epilogue."""
        return self.accumulator if self.out is None else ELEMENTS[self.out]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The arrays of a call, in order: a, b, offsets, those of the epilogue, and c last."""

        def matrix(name: str, rows: int, cols: int, access: Literal["read", "write", "readwrite"]):
            shape, strides = (rows, cols), (self.leading(name), 1)
            if self.batch is not None and (0 in shape or self.batch_stride(name) != 0):
                shape, strides = (self.batch, *shape), (self.batch_stride(name), *strides)
            if self.groups is not None and (self.masked or name == "b"):
                shape, strides = (self.groups, *shape), (self.batch_stride(name), *strides)
            elements = {"a": self.element, "b": self.element_b, "c": self.result}
            dtype = elements[name].name
            return Operand(name=name, shape=shape, strides=strides, dtype=dtype, access=access)

        keeps_rows = self.beta or self.groups is not None
        c = matrix("c", self.m, self.n, "readwrite" if keeps_rows else "write")
        found = [
            matrix("a", self._stored_rows("a"), self._cols_a, "read"),
            matrix("b", self._stored_rows("b"), self._cols_b, "read"),
        ]
        found += [
            Operand(name=f, shape=(1,), strides=(1,), dtype=self.accumulator.name, access="read")
            for f in self.unknown_factors
        ]
        if self.scale_block is not None:
            found += [self._scale_operand("a"), self._scale_operand("b")]
        if self.has_weights:
            found.append(self._scale_operand("b"))
        if self.groups is not None:
            name, count = (COUNTS, self.groups) if self.masked else (OFFSETS, self.groups + 1)
            found.append(
                Operand(name=name, shape=(count,), strides=(1,), dtype="i32", access="read")
            )
        for step in self.steps:
            shape, dtype = c.shape, self.result.name
            strides = (self.n or 1, 1)
            if len(c.shape) == 3:
                strides = (self.m * strides[0], *strides)
            if step == "bias":
                shape, strides = (self.n,), (1,)
                if self.groups is not None:
                    shape, strides = (self.groups, self.n), (max(self.n, 1), 1)
            elif step == "scale":
                shape, strides, dtype = (1,), (1,), self.accumulator.name
            found += [
                Operand(name=name, shape=shape, strides=strides, dtype=dtype, access="read")
                for name in STEP_OPERANDS.get(step, ())
            ]
        return (*found, c)

    def _scale_operand(self, name: str) -> Operand:
        """One scale for each block of A or B, as that is stored."""
        blocks = {"m": self.m, "n": -(-self.n // (self.scale_block or 1))}
        blocks["k"] = -(-self.k // self.scale_depth)
        dimensions, transposed = ("mk", self.trans_a) if name == "a" else ("kn", self.trans_b)
        rows, columns = dimensions[::-1] if transposed else dimensions
        shape = blocks[rows], blocks[columns]
        return Operand(
            name=f"scale_{name}",
            shape=shape,
            strides=(shape[1], 1),
            dtype=self.accumulator.name,
            access="read",
        )

    @property
    def scale_depth(self) -> int:
        """How many elements along k have one scale; all, where there are none."""
        return self.scale_block or self.weight_group or self.k

    def reference(self, arrays: Mapping[str, Array]) -> Array:
        """The right answer for `arrays` (by operand name; `c` is read if beta != 0).

        Computed in float64, and for f64 problems in the platform's widest type. Integers are exact,
        in 64 bits, and wrap to 32 wherever a kernel may hold them.
        """
        if self.unknown or self.unknown_factors:
            return self.of(arrays).reference(arrays)
        if self.groups is not None:
            return self._by_group(arrays, arrays["c"].astype(wide_type(self)), reference)
        return reference(self, arrays)

    def error_bound(
        self, arrays: Mapping[str, Array], depth: int | None = None, *, emulated: bool = False
    ) -> Array:
        """Elementwise a-priori bound of |computed - exact| for a correct implementation.

        `depth` is the number of roundings on the longest path of the reduction, by default k plus
        one for each operation around it. Of integers the bound is 0. Tensor cores sum products of
        8-bit floats in fewer bits than f32 has; `emulated` is the bound of the evaluator and of the
        emulator, which do not. See `gemmir.right_answer`.
        """
        if self.unknown or self.unknown_factors:
            return self.of(arrays).error_bound(arrays, depth, emulated=emulated)
        bound = partial(error_bound, depth=depth, emulated=emulated)
        if self.accumulator.is_integer or self.groups is None:
            return bound(self, arrays)
        return self._by_group(arrays, np.zeros(self.operands[-1].shape, wide_type(self)), bound)

    def _by_group(
        self,
        arrays: Mapping[str, Array],
        found: Array,
        compute: Callable[[Gemm, Mapping[str, Array]], Array],
    ) -> Array:
        """`found` with what `compute` gives for each product in its rows."""
        for number, rows in enumerate(self._rows_of(arrays)):
            part = {
                name: array[number] if name in ("b", "bias") else array[rows]
                for name, array in arrays.items()
                if name not in (*STEP_OPERANDS["scale"], OFFSETS, COUNTS)
            }
            part |= {name: arrays[name] for name in STEP_OPERANDS["scale"] if name in arrays}
            one = replace(self, m=len(part["a"]), groups=None, masked=False)
            found[rows] = compute(one, part)
        return found

    def _rows_of(self, arrays: Mapping[str, Array]) -> Iterator[slice | tuple[int, slice]]:
        """Where each product has its rows."""
        if self.masked:
            yield from ((g, slice(0, n)) for g, n in enumerate(arrays[COUNTS].tolist()))
        else:
            yield from (slice(begin, end) for begin, end in pairwise(arrays[OFFSETS].tolist()))


def _require_whole(name: str, value: float, dtype: str) -> None:
    """Raise `ProblemError` GEM0112 unless `value` is a 32-bit integer."""
    limits = np.iinfo(np.int32)
    if math.isfinite(value) and value == round(value) and limits.min <= value <= limits.max:
        return
    nearest = min(max(value, limits.min), limits.max) if math.isfinite(value) else 1
    raise ProblemError(
        "GEM0112",
        f"{name}={value} of a product of {dtype}, which is summed in i32",
        f"use a whole number of 32 bits, such as {round(nearest)}",
    )
