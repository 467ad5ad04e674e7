"""Element types: their names, their NumPy types, and what a product of them is summed in.

A name is what `Gemm.dtype` and the IR call the type (`bf16`, `f32`). The types that NumPy lacks are
those of ml_dtypes, whose arrays other libraries share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import ml_dtypes
import numpy as np


@dataclass(frozen=True, kw_only=True)
class ElementType:
    """One element type.

    `unit` is the unit roundoff, half the distance from 1 to the next number. Below `least_normal`
    numbers are `least` apart. `accumulator` is the type in which products are summed.
    """

    name: str
    numpy: np.dtype[Any]
    accumulator: str
    unit: float
    least_normal: float
    least: float

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize


def _element(name: str, numpy: type[Any], accumulator: str) -> ElementType:
    limits = cast("Any", ml_dtypes.finfo(numpy))
    return ElementType(
        name=name,
        numpy=np.dtype(numpy),
        accumulator=accumulator,
        unit=float(limits.eps) / 2,
        least_normal=float(limits.smallest_normal),
        least=float(limits.smallest_subnormal),
    )


ELEMENTS: Final[Mapping[str, ElementType]] = {
    element.name: element
    for element in (
        _element("f32", np.float32, "f32"),
        _element("f64", np.float64, "f64"),
        _element("f16", np.float16, "f32"),
        _element("bf16", ml_dtypes.bfloat16, "f32"),
    )
}
"""Every element type of an array, by its name."""
