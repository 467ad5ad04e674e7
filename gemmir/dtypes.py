"""Element types: their names, their NumPy types, and what a product of them is summed in.

A name is what `Gemm.dtype` calls the type (`bf16`, `e4m3`); the IR spells it as MLIR does
(`bf16`, `f8E4M3FN`). The types that NumPy lacks are those of ml_dtypes, whose arrays other
libraries share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class ElementType:
    """One element type.

    `mlir` is its spelling in the IR. `unit` is the unit roundoff, half the distance from 1 to the
    next number. Below `least_normal` numbers are `least` apart; all three are 0 for integers, which
    wrap. `accumulator` is the type in which products are summed. `numpy` holds one element; where
    `per_byte` elements share a byte, arrays have bytes, the first element in the lowest bits.
    """

    name: str
    mlir: str
    numpy: np.dtype[Any]
    accumulator: str
    unit: float
    least_normal: float
    least: float
    per_byte: int = 1

    @property
    def bits(self) -> int:
        """Bits of one element in an array."""
        return 8 * self.numpy.itemsize // self.per_byte

    @property
    def item_bytes(self) -> int:
        """Bytes of one element, of which no other is a part."""
        assert self.per_byte == 1, f"{self.name} has {self.bits} bits"
        return self.numpy.itemsize

    @property
    def stored(self) -> np.dtype[Any]:
        """The NumPy type of an array of such elements."""
        return self.numpy if self.per_byte == 1 else np.dtype(np.uint8)

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the array that holds `shape` elements, rows of whole bytes."""
        return shape if self.per_byte == 1 else (*shape[:-1], shape[-1] // self.per_byte)

    def stored_strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """The strides of that array, in its own elements; those along a row are adjacent."""
        if self.per_byte == 1:
            return strides
        return (*(s // self.per_byte for s in strides[:-1]), strides[-1])

    @property
    def is_integer(self) -> bool:
        """Whether arithmetic is exact, modulo a power of two."""
        return self.numpy.kind in "iu"


def _float(name: str, mlir: str, numpy: type[Any], accumulator: str) -> ElementType:
    limits = cast("Any", ml_dtypes.finfo(numpy))
    return ElementType(
        name=name,
        mlir=mlir,
        numpy=np.dtype(numpy),
        accumulator=accumulator,
        unit=float(limits.eps) / 2,
        least_normal=float(limits.smallest_normal),
        least=float(limits.smallest_subnormal),
    )


def _integer(name: str, mlir: str, numpy: type[Any]) -> ElementType:
    return ElementType(
        name=name,
        mlir=mlir,
        numpy=np.dtype(numpy),
        accumulator="i32",
        unit=0.0,
        least_normal=0.0,
        least=0.0,
    )


ELEMENTS: Final[Mapping[str, ElementType]] = {
    element.name: element
    for element in (
        _float("f32", "f32", np.float32, "f32"),
        _float("f64", "f64", np.float64, "f64"),
        _float("f16", "f16", np.float16, "f32"),
        _float("bf16", "bf16", ml_dtypes.bfloat16, "f32"),
        _float("e4m3", "f8E4M3FN", ml_dtypes.float8_e4m3fn, "f32"),
        _float("e5m2", "f8E5M2", ml_dtypes.float8_e5m2, "f32"),
        _integer("i8", "i8", np.int8),
        _integer("u8", "ui8", np.uint8),
        _integer("i16", "i16", np.int16),
        _integer("i32", "i32", np.int32),
        replace(_integer("i4", "i4", np.int8), per_byte=2),
    )
}
"""Every element type of an array, by its name."""

BY_MLIR: Final[Mapping[str, ElementType]] = {e.mlir: e for e in ELEMENTS.values()}
"""Every element type of an array, by its spelling in the IR."""

TRUNCATION: Final = 2
"""How many units in the last place of a sum a rounding may cost where a tensor core adds: it may
truncate. Fasi, Higham, Mikaitis, Pranesh, Numerical Behavior of NVIDIA Tensor Cores, PeerJ Computer
Science 7:e330, 2021."""

TF32_UNIT: Final = 2.0**-11
"""The unit roundoff of tf32, which has 10 bits behind the point: PTX ISA 9.0, section "Alternate
Floating-Point Data Formats"."""

BF16_UNIT: Final = ELEMENTS["bf16"].unit
"""The unit roundoff of bf16, which has 7 bits behind the point: 2**-8."""

BF16X3_UNIT: Final = BF16_UNIT**2
"""What each factor of a product by bf16x3 may be off by, relative to itself.

Let u be the unit of bf16 and |x| in [1, 2). hi = bf16(x) leaves at most u, which f32 holds exactly;
lo, what bf16 has of that, is at most u too, for u is a number of bf16, and leaves at most u/2 of
its own unit: u**2 / 2. So lo lo, which is dropped, is at most u**2 of the product, and what two
factors lack of hi + lo is together as much: 2 u**2 and less than u**4, two factors of 1 + u**2.
This is the compensated product of Markidis et al., NVIDIA Tensor Core Programmability, Performance
& Precision, IPDPSW 2018, in bf16, as of Henry, Tang, Heinecke, Leveraging the bfloat16 Artificial
Intelligence Datatype, ARITH 2019, section III."""

BF16X3_WEIGHT: Final = 3 * (1 + BF16_UNIT) * (1 + 3 * BF16_UNIT)
"""How a rounding of the sum counts for more where three products are summed for each: there are
three times as many, and the absolute values of hi hi, hi lo and lo hi are together at most
(1 + u)**2 + 2 u (1 + u) of the product's."""

FP8_SUM_UNIT: Final = 2.0**-13 * 9 / 8
"""What one addend may lose where the tensor cores of sm_89 and sm_90 sum products of 8-bit floats:
all are shifted to the largest exponent and keep 14 bits. DeepSeek-V3 Technical Report,
arXiv:2412.19437, section 3.3.2. With every 16 products the old sum is shifted and the new one cut
off: 18 losses."""


class Precision(StrEnum):
    """How factors that are stored as f32 are rounded where they are multiplied.

    To tf32 and to bf16 they are rounded to nearest, of tf32 halves away from zero, of bf16 to even.
    By `bf16x3` each is split into hi = bf16(x) and lo = bf16(x - hi), and a product is hi hi +
    hi lo + lo hi. Each product of two such parts is exact in f32, in which they are summed.
    """

    TF32 = "tf32"
    BF16X1 = "bf16x1"
    BF16X3 = "bf16x3"


@dataclass(frozen=True, kw_only=True)
class ProductType:
    """What `Gemm.dtype` names: how A and B are stored, and how their products are made and summed.

    `results` are the element types that C may have, that of the sum first. By `precision` operands
    are rounded before they are multiplied, which costs each at most `operand_unit` of itself; None
    takes them as they are. A rounding of the sum costs at most `sum_unit` on any machine, and
    `ieee_unit` where the evaluator and the emulator run it, `sum_weight` times where a product is
    itself a sum.
    """

    element: ElementType
    results: tuple[str, ...]
    precision: Precision | None = None
    operand_unit: float = 0.0
    sum_unit: float
    ieee_unit: float
    sum_weight: float = 1.0

    @property
    def is_mixed(self) -> bool:
        """Whether a unit is needed that multiplies other numbers than it adds."""
        return self.element.accumulator != self.element.name or self.precision is not None

    def gamma(self, roundings: int, *, emulated: bool) -> float:
        """How far a sum may be off, relative to that of the absolute values of its products.

        Each product goes through at most `roundings` roundings of the sum; `emulated` says that
        the evaluator or the emulator makes it. Higham, Accuracy and Stability of Numerical
        Algorithms, 2nd ed., section 3.5.
        """
        unit = self.ieee_unit if emulated else self.sum_unit
        return math.expm1(roundings * self.sum_weight * unit + 2 * math.log1p(self.operand_unit))

    def underflow(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """How far `a @ b` may be off because factors that are rounded may underflow.

        Each may lose the least normal number of f32, which is that of tf32 and bf16 too: a machine
        may take less for 0, as vpdpbf16ps does of factors that are bf16 already.
        """
        may_lose = self.precision is not None or self.element.name == "bf16"
        least = self.element.least_normal if may_lose else 0.0
        lost = np.abs(a).sum(axis=-1, keepdims=True) + np.abs(b).sum(axis=-2, keepdims=True)
        return least * lost


def _plain(name: str) -> ProductType:
    element = ELEMENTS[name]
    return ProductType(
        element=element, results=(name,), sum_unit=element.unit, ieee_unit=element.unit
    )


MIXED_RESULTS: Final = ("f32", "f16", "bf16")
MIXED_UNIT: Final = TRUNCATION * ELEMENTS["f32"].unit


def _mixed(name: str, *, sum_unit: float = MIXED_UNIT) -> ProductType:
    return ProductType(
        element=ELEMENTS[name], results=MIXED_RESULTS, sum_unit=sum_unit, ieee_unit=MIXED_UNIT
    )


def _rounded(precision: Precision, unit: float, weight: float = 1.0) -> ProductType:
    """f32 that is rounded where it is multiplied."""
    return replace(_mixed("f32"), precision=precision, operand_unit=unit, sum_weight=weight)


def _exact(name: str) -> ProductType:
    return ProductType(element=ELEMENTS[name], results=("i32",), sum_unit=0.0, ieee_unit=0.0)


PRODUCTS: Final[Mapping[str, ProductType]] = {
    "f32": _plain("f32"),
    "f64": _plain("f64"),
    "tf32": _rounded(Precision.TF32, TF32_UNIT),
    "bf16x1": _rounded(Precision.BF16X1, BF16_UNIT),
    "bf16x3": _rounded(Precision.BF16X3, BF16X3_UNIT, BF16X3_WEIGHT),
    "f16": _mixed("f16"),
    "bf16": _mixed("bf16"),
    "e4m3": _mixed("e4m3", sum_unit=FP8_SUM_UNIT),
    "e5m2": _mixed("e5m2", sum_unit=FP8_SUM_UNIT),
    "i8": _exact("i8"),
    "u8": _exact("u8"),
}
"""What a GEMM may multiply, by the name that `Gemm.dtype` has for it."""

WEIGHTS: Final = ("i8", "i4")
"""What B may be where A is a float: integers that have scales."""

FACTORS_B: Final[Mapping[str, tuple[str, ...]]] = {
    "f32": WEIGHTS,
    "bf16": WEIGHTS,
    "f16": WEIGHTS,
    "i8": ("u8",),
    "u8": ("i8",),
}
"""What B may be besides the type of A, by that type."""


FOREIGN: Final = 2
"""`dtype.isbuiltin` of a type that another library adds to NumPy."""


def spelled(dtype: np.dtype[Any]) -> str:
    """A type as Python code has it."""
    return f"{'ml_dtypes' if dtype.isbuiltin == FOREIGN else 'np'}.{dtype.name}"


def restrided(
    array: npt.NDArray[Any], shape: tuple[int, ...], strides: tuple[int, ...]
) -> npt.NDArray[Any]:
    """The memory from the first element of `array` on in another shape, with strides in bytes.

    Reads as integers what it shows, for NumPy knows no types of other libraries here.
    """
    plain = array.view(np.dtype(f"u{array.itemsize}"))
    return np.lib.stride_tricks.as_strided(plain, shape, strides).view(array.dtype)
