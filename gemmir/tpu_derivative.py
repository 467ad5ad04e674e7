"""The derivative of a GEMM of JAX arrays, whose products are GEMMs again.

    C = f(alpha op(A) op(B) + beta C0, bias, residual, scales)

    dX        = the elementwise part f, differentiated by JAX at the sum, which is computed again
    d op(A)   = alpha dX op(B)^T          d op(B) = alpha op(A)^T dX          dC0 = beta dX

dX is rounded to the type of A and B before it is multiplied, that of 8-bit floats to bf16.

Of a grouped GEMM all this holds in the rows of each product, with its own B and bias; in rows of no
product dX is 0 and dC0 is dC. dA is a grouped GEMM again. d op(B) sums over rows, of which every
product has others: it is XLA's ragged product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.epilogue_steps import STEP_OPERANDS
from gemmir.errors import CallError
from gemmir.gemm import OFFSETS, Gemm
from gemmir.jax_modules import jax, jnp

Compile = Callable[[Gemm], Callable[..., Any]]
"""From a GEMM to a kernel of it, for the same device."""

NARROW: Final = ("e4m3", "e5m2")
"""Types too narrow for derivatives."""

CURVED: Final = ("relu", "gelu", "silu", "scale")
"""Steps whose derivative, by the sum or by their operands, depends on the sum."""

ELEMENTWISE: Final = tuple(name for names in STEP_OPERANDS.values() for name in names)
"""The operands of steps."""


def differentiable(
    function: Callable[..., Any], problem: Gemm | None, compile: Compile
) -> Callable[..., Any]:
    """`function`, which computes `problem`, with a derivative.

    Taking it is a `CallError` GEM0545 where the problem is not known. JAX itself takes none of
    integers.
    """

    def forward(*arrays: Any) -> tuple[Any, tuple[Any, ...]]:
        require_derivative(problem)
        return function(*arrays), arrays

    def backward(arrays: tuple[Any, ...], gradient: Any) -> tuple[Any, ...]:
        gemm = require_derivative(problem)
        of = Backward if gemm.groups is None else GroupedBackward
        return of(gemm, compile).gradients(arrays, gradient)

    result = jax().custom_vjp(function)
    result.defvjp(forward, backward)
    return result


def require_derivative(problem: Gemm | None) -> Gemm:
    """The problem, where it has a derivative."""
    if problem is None:
        raise CallError(
            "GEM0545",
            "the derivative of this kernel is not known: it comes from a text whose epilogue is "
            "only ops",
            "differentiate a kernel of gemmir.compile(Gemm(…))",
        )
    return problem


class Backward:
    """The derivative of one GEMM."""

    def __init__(self, gemm: Gemm, compile: Compile) -> None:
        self.gemm = gemm
        self.compile = compile
        self.dtype = "bf16" if gemm.dtype in NARROW else gemm.dtype
        self.summed = ELEMENTS[gemm.accumulator.name].numpy

    def gradients(self, arrays: Sequence[Any], gradient: Any) -> tuple[Any, ...]:
        """The derivative by each of `arrays`, in order, in its type."""
        gemm = self.gemm
        named = dict(zip((o.name for o in gemm.operands), arrays, strict=False))
        elementwise = {name: named[name] for name in ELEMENTWISE if name in named}
        wide = {name: x.astype(self.summed) for name, x in elementwise.items()}
        _, pull = jax().vjp(self._epilogue, self._sum(named), wide)
        by_sum, by_others = pull(gradient.astype(self.summed))
        factor = by_sum.astype(ELEMENTS[PRODUCTS[self.dtype].element.name].numpy)
        found = {"a": self._by_a(named, factor), "b": self._by_b(named, factor), **by_others}
        if gemm.beta:
            found["c"] = gemm.beta * by_sum
        return tuple(found[name].astype(x.dtype) for name, x in named.items())

    def _sum(self, named: Mapping[str, Any]) -> Any:
        """What the epilogue is applied to, where its derivative depends on it."""
        gemm = self.gemm
        if not set(gemm.steps) & set(CURVED):
            return jnp().zeros(gemm.operands[-1].shape, self.summed)
        product = replace(gemm, out=None, beta=0.0, epilogue="")
        found = self._product_of(product, named)
        return found + gemm.beta * named["c"].astype(self.summed) if gemm.beta else found

    def _product_of(self, plain: Gemm, named: Mapping[str, Any]) -> Any:
        """The product alone."""
        return self.compile(plain)(named["a"], named["b"])

    def _epilogue(self, x: Any, others: Mapping[str, Any]) -> Any:
        for step in self.gemm.steps:
            x = STEPS[step](x, *(others[name] for name in STEP_OPERANDS.get(step, ())))
        return x

    def _by_a(self, named: Mapping[str, Any], by_sum: Any) -> Any:
        """alpha dX op(B)^T as A is stored."""
        gemm, b = self.gemm, self._factor(named["b"])
        shared = {"batch_stride_b": 0 if self._is_shared("b") else None}
        if not gemm.trans_a:
            sizes = {"m": gemm.m, "n": gemm.k, "k": gemm.n, "trans_b": not gemm.trans_b}
            return self._product("a", by_sum, b, **sizes, **shared)
        sizes = {"m": gemm.k, "n": gemm.m, "k": gemm.n, "trans_a": gemm.trans_b, "trans_b": True}
        shared = {"batch_stride_a": shared["batch_stride_b"]}
        return self._product("a", b, by_sum, **sizes, **shared)

    def _by_b(self, named: Mapping[str, Any], by_sum: Any) -> Any:
        """alpha op(A)^T dX as B is stored."""
        gemm, a = self.gemm, self._factor(named["a"])
        shared = {"batch_stride_a": 0 if self._is_shared("a") else None}
        if not gemm.trans_b:
            sizes = {"m": gemm.k, "n": gemm.n, "k": gemm.m, "trans_a": not gemm.trans_a}
            return self._product("b", a, by_sum, **sizes, **shared)
        sizes = {"m": gemm.n, "n": gemm.k, "k": gemm.m, "trans_a": True, "trans_b": gemm.trans_a}
        shared = {"batch_stride_b": shared["batch_stride_a"]}
        return self._product("b", by_sum, a, **sizes, **shared)

    def _factor(self, x: Any) -> Any:
        return x.astype(ELEMENTS[PRODUCTS[self.dtype].element.name].numpy)

    def _is_shared(self, operand: str) -> bool:
        """Whether one matrix is used by the whole batch."""
        return self.gemm.batch is not None and self.gemm.batch_stride(operand) == 0

    def _product(self, name: str, a: Any, b: Any, **fields: Any) -> Any:
        """A product of the derivative by operand `name`; of a shared one the sum over the batch."""
        gemm = self.gemm
        element = PRODUCTS[self.dtype].element.name
        is_shared = self._is_shared(name)
        is_kept = element in PRODUCTS[self.dtype].results and not is_shared
        product = Gemm(
            dtype=self.dtype,
            out=element if is_kept else None,
            alpha=gemm.alpha,
            batch=gemm.batch,
            **fields,
        )
        found = self.compile(product)(a, b)
        return found.sum(axis=0) if is_shared else found


class GroupedBackward(Backward):
    """The derivative of one grouped GEMM."""

    def gradients(self, arrays: Sequence[Any], gradient: Any) -> tuple[Any, ...]:
        """The derivative by each of `arrays`, in order, in its type; offsets have none."""
        gemm = self.gemm
        named = dict(zip((o.name for o in gemm.operands), arrays, strict=True))
        offsets, row = named[OFFSETS], jnp().arange(gemm.m)[:, None]
        product = jnp().sum(offsets[1:-1] <= row, axis=1)
        is_inside = row < offsets[-1]
        wide = {n: named[n].astype(self.summed) for n in ELEMENTWISE if n in named}

        def epilogue(x: Any, others: Mapping[str, Any]) -> Any:
            rows = {n: y[product] if n == "bias" else y for n, y in others.items()}
            return jnp().where(is_inside, self._epilogue(x, rows), 0)

        _, pull = jax().vjp(epilogue, self._sum(named), wide)
        by_sum, by_others = pull(gradient.astype(self.summed))
        factor = by_sum.astype(ELEMENTS[PRODUCTS[self.dtype].element.name].numpy)
        found = {"a": self._by_a(named, factor), "b": self._by_b(named, factor), **by_others}
        found["c"] = jnp().where(is_inside, gemm.beta * by_sum, gradient)
        none = np.zeros(offsets.shape, jax().dtypes.float0)
        return tuple(
            none if name == OFFSETS else found[name].astype(x.dtype) for name, x in named.items()
        )

    def _of_rows(self, gemm: Gemm, a: Any, b: Any, named: Mapping[str, Any]) -> Any:
        """The grouped product `gemm` of the same rows, 0 in rows of no product."""
        zeros = jnp().zeros((gemm.m, gemm.n), gemm.result.numpy)
        return self.compile(gemm)(a, b, named[OFFSETS], out=zeros)

    def _product_of(self, plain: Gemm, named: Mapping[str, Any]) -> Any:
        return self._of_rows(plain, named["a"], named["b"], named)

    def _by_a(self, named: Mapping[str, Any], by_sum: Any) -> Any:
        """alpha dX op(B)^T."""
        gemm, element = self.gemm, PRODUCTS[self.dtype].element.name
        product = Gemm(
            m=gemm.m,
            n=gemm.k,
            k=gemm.n,
            dtype=self.dtype,
            out=element if element in PRODUCTS[self.dtype].results else None,
            alpha=gemm.alpha,
            groups=gemm.groups,
            trans_b=not gemm.trans_b,
        )
        return self._of_rows(product, by_sum, self._factor(named["b"]), named)

    def _by_b(self, named: Mapping[str, Any], by_sum: Any) -> Any:
        """alpha A^T dX of each product, as B is stored."""
        lax, a = jax().lax, self._factor(named["a"])
        rows = lax.RaggedDotDimensionNumbers(
            dot_dimension_numbers=(((0,), (0,)), ((), ())),
            lhs_ragged_dimensions=[0],
            rhs_group_dimensions=[],
        )
        left, right = (by_sum, a) if self.gemm.trans_b else (a, by_sum)
        is_f32 = PRODUCTS[self.dtype].element.name == "f32"
        found = lax.ragged_dot_general(
            left,
            right,
            jnp().diff(named[OFFSETS]),
            rows,
            precision=lax.Precision.HIGHEST if is_f32 else None,
            preferred_element_type=self.summed,
        )
        return self.gemm.alpha * found


def _add(x: Any, y: Any) -> Any:
    return x + y


def _scale(x: Any, scale_a: Any, scale_b: Any) -> Any:
    return x * (scale_a * scale_b)


def _relu(x: Any) -> Any:
    return jax().nn.relu(x)


def _gelu(x: Any) -> Any:
    return jax().nn.gelu(x, approximate=True)


def _silu(x: Any) -> Any:
    return jax().nn.silu(x)


STEPS: Final[Mapping[str, Callable[..., Any]]] = {
    "bias": _add,
    "residual": _add,
    "scale": _scale,
    "relu": _relu,
    "gelu": _gelu,
    "silu": _silu,
}
"""The steps of an epilogue, of the sum and their operands."""
