"""A product on a mesh as a value: everything but the numbers, and without JAX."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gemmir.dtypes import PRODUCTS
from gemmir.sharded.plan import Lying, Plan, plan
from gemmir.tpu_derivative import NARROW

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh, Mesh


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One product on a mesh, as a value: everything but the numbers.

    `dtype` is the product and `out` the element type of the result, as `Gemm` has them. Raises
    what `plan` does.
    """

    mesh: Mesh | AbstractMesh
    a: Lying
    b: Lying
    c: Lying
    dtype: str
    out: str
    epilogue: str
    overlap: bool | None
    target: str
    interpret: Any

    def __post_init__(self) -> None:
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """What is gathered and added up."""
        sizes = {str(axis): int(size) for axis, size in self.mesh.shape.items()}
        item_bytes = PRODUCTS[self.dtype].element.item_bytes
        return plan(self.a, self.b, self.c, sizes, item_bytes=item_bytes, overlap=self.overlap)

    @property
    def sum_type(self) -> str:
        """The type in which products are summed."""
        return PRODUCTS[self.dtype].element.accumulator

    def extra_labels(self, name: str) -> tuple[str, ...]:
        """The dimensions of an operand of the epilogue."""
        return self.c.labels[-1:] if name == "bias" else self.c.labels

    def gradient(self, which: str) -> Problem:
        """The product that is the derivative in `a` or in `b`: of what comes back for c."""
        overlap = None if self.overlap else self.overlap  # backwards there may be nothing to send
        dtype = _gradient_dtype(self.dtype)
        other = replace(self, epilogue="", dtype=dtype, out=_kept(dtype), overlap=overlap)
        if which == "a":
            return replace(other, a=self.c, b=self.b, c=self.a)
        return replace(other, a=self.a, b=self.c, c=self.b)


def _kept(dtype: str) -> str:
    """The element type of a gradient: that of the operands where a product can have it."""
    product = PRODUCTS[dtype]
    return product.element.name if product.element.name in product.results else product.results[0]


def _gradient_dtype(dtype: str) -> str:
    """8-bit floats lie exactly in bf16, and gradients need its range."""
    return "bf16" if dtype in NARROW else dtype
