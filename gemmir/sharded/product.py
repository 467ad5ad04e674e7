"""A product on a mesh: what each device does, and the derivative.

Each device gathers, multiplies with a kernel of its own shard, and adds up, as a `Plan` says.
Sums of several products are kept in the type of the sum until the last; so they are rounded no
more often than one kernel would, in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.gemm import Gemm
from gemmir.sharded.plan import Collective, Lying, Plan, plan
from gemmir.sharded.ring import chunks, place, sum_pieces

Array = Any
"""A `jax.Array` or a tracer."""

Extras = Mapping[str, Array]
"""The operands of the epilogue, by name."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One product on a mesh, as a value: everything but the numbers.

    `dtype` is the product and `out` the element type of the result, as `Gemm` has them.
    """

    mesh: Mesh
    a: Lying
    b: Lying
    c: Lying
    dtype: str
    out: str
    epilogue: str
    overlap: bool
    target: str
    interpret: bool

    @property
    def plan(self) -> Plan:
        """What is gathered and added up; a `CallError` where the specs make no product."""
        sizes = cast("Mapping[str, int]", dict(self.mesh.shape))
        item_bytes = PRODUCTS[self.dtype].element.item_bytes
        return plan(
            self.a, self.b, self.c, sizes, item_bytes=item_bytes, overlap=self.overlap
        )

    @property
    def sum_type(self) -> str:
        """The type in which products are summed."""
        return PRODUCTS[self.dtype].element.accumulator

    def extra_labels(self, name: str) -> tuple[str, ...]:
        """The dimensions of an operand of the epilogue."""
        return self.c.labels[-1:] if name == "bias" else self.c.labels

    def gradient(self, which: str) -> Problem:
        """The product that is the derivative in `a` or in `b`: of what comes back for c."""
        other = replace(self, epilogue="", dtype=_gradient_dtype(self.dtype))
        if which == "a":
            return replace(other, a=self.c, b=self.b, c=self.a, out=_kept(other.dtype))
        return replace(other, a=self.a, b=self.c, c=self.b, out=_kept(other.dtype))


def _kept(dtype: str) -> str:
    """The element type of a gradient: that of the operands where a product can have it."""
    product = PRODUCTS[dtype]
    return product.element.name if product.element.name in product.results else product.results[0]


def _gradient_dtype(dtype: str) -> str:
    """8-bit floats lie exactly in bf16, and gradients need its range."""
    return "bf16" if dtype in ("e4m3", "e5m2") else dtype


# On all devices -----------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def multiply(problem: Problem, a: Array, b: Array, extras: Extras) -> Array:
    """The product of global arrays; its derivatives are products on the same mesh."""
    return _multiply(problem, a, b, extras)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _multiply(problem: Problem, a: Array, b: Array, extras: Extras) -> Array:
    return _on_mesh(problem, a, b, extras)


def _forward(problem: Problem, a: Array, b: Array, extras: Extras) -> tuple[Array, Any]:
    """The result, and what the derivative needs: the operands and that of the epilogue."""
    if not problem.epilogue:
        return _on_mesh(problem, a, b, extras), (a, b, None)
    sums = _on_mesh(replace(problem, epilogue="", out=problem.sum_type), a, b, {})
    result, back = jax.vjp(partial(finish, problem.epilogue, problem.out), sums, extras)
    return result, (a, b, back)


def _backward(problem: Problem, saved: Any, gradient: Array) -> tuple[Array, Array, Extras]:
    a, b, back = saved
    gradient, extras = (gradient, {}) if back is None else back(gradient)
    in_a, in_b = problem.gradient("a"), problem.gradient("b")
    element = PRODUCTS[in_a.dtype].element.numpy
    near, left, right = (x.astype(element) for x in (gradient, a, b))
    grad_a = _on_mesh(in_a, near, right, {}).astype(a.dtype)
    grad_b = _on_mesh(in_b, left, near, {}).astype(b.dtype)
    return grad_a, grad_b, extras


_multiply.defvjp(_forward, _backward)


def _on_mesh(problem: Problem, a: Array, b: Array, extras: Extras) -> Array:
    specs = {
        name: PartitionSpec(*(problem.c.along(n) or None for n in problem.extra_labels(name)))
        for name in extras
    }
    run = jax.shard_map(
        partial(_on_device, problem),
        mesh=problem.mesh,
        in_specs=(_spec(problem.a), _spec(problem.b), specs),
        out_specs=_spec(problem.c),
        check_vma=False,
    )
    return run(a, b, dict(extras))


def _spec(array: Lying) -> PartitionSpec:
    return PartitionSpec(*(axes or None for axes in array.axes))


# On one device ------------------------------------------------------------------------------------


def _on_device(problem: Problem, a: Array, b: Array, extras: Extras) -> Array:
    """The shard of c on this device."""
    steps = problem.plan
    for each in steps.gathers:
        if each is steps.ring:
            continue
        if each.kind == "gather_a":
            a = _gather(a, problem.a, each)
        else:
            b = _gather(b, problem.b, each)
    local = _Local(problem=problem, plan=steps, a=a, b=b, extras=extras)
    if steps.ring is None:
        result = local.whole()
    elif steps.ring in steps.sums:
        return local.summed(steps.ring)
    else:
        result = local.gathered(steps.ring)
    return local.added(result, steps.sums, extras) if steps.sums else result


def _gather(x: Array, array: Lying, each: Collective) -> Array:
    axis = array.labels.index(cast("str", each.label))
    return jax.lax.all_gather(x, each.axes, axis=axis, tiled=True)


@dataclass(frozen=True, kw_only=True)
class _Local:
    """The shards on this device and what they are multiplied to."""

    problem: Problem
    plan: Plan
    a: Array
    b: Array
    extras: Extras

    def whole(self) -> Array:
        """The product of the shards; with the epilogue where there is nothing to add."""
        if self.plan.sums:
            return self._sums(self.a, self.b)
        return self._result(self.a, self.b, self.extras)

    def gathered(self, ring: Collective) -> Array:
        """The product with all chunks of one operand, which go round the ring."""
        label = cast("str", ring.label)
        return self._accumulated(ring) if label in self.plan.contracted else self._placed(ring)

    def _placed(self, ring: Collective) -> Array:
        """Chunks of rows or columns: each gives a part of c."""
        label = cast("str", ring.label)
        axis = self.problem.c.labels.index(label)
        c: Array = None
        for index, chunk in chunks(self._moving(ring), ring):
            a, b = self._with(ring, chunk)
            extras = {
                name: _part(x, self.problem.extra_labels(name), label, index, ring.size)
                for name, x in self.extras.items()
            }
            part = self._sums(a, b) if self.plan.sums else self._result(a, b, extras)
            if c is None:
                shape = list(part.shape)
                shape[axis] *= ring.size
                c = jnp.zeros(shape, part.dtype)
            start = index * part.shape[axis]
            c = jax.lax.dynamic_update_slice_in_dim(c, part, start, axis)
        return c

    def _accumulated(self, ring: Collective) -> Array:
        """Chunks along k: each gives a part of the sums."""
        label = cast("str", ring.label)
        still = self.problem.b if ring.kind == "gather_a" else self.problem.a
        c: Array = None
        for index, chunk in chunks(self._moving(ring), ring):
            a, b = self._with(ring, chunk)
            if ring.kind == "gather_a":
                b = _part(b, still.labels, label, index, ring.size)
            else:
                a = _part(a, still.labels, label, index, ring.size)
            c = self._sums(a, b, c)
        return c if self.plan.sums else self._finished(c, self.extras)

    def _moving(self, ring: Collective) -> Array:
        return self.a if ring.kind == "gather_a" else self.b

    def _with(self, ring: Collective, chunk: Array) -> tuple[Array, Array]:
        return (chunk, self.b) if ring.kind == "gather_a" else (self.a, chunk)

    def summed(self, ring: Collective) -> Array:
        """The sums of all devices, piece by piece round the ring."""
        label = cast("str", ring.label)

        def product(index: Any, into: Array | None) -> Array:
            a = _part(self.a, self.problem.a.labels, label, index, ring.size)
            b = _part(self.b, self.problem.b.labels, label, index, ring.size)
            return self._sums(a, b, into)

        piece = sum_pieces(product, ring)
        others = tuple(each for each in self.plan.sums if each is not ring)
        if ring.kind == "scatter":
            return self.added(piece, others, self.extras)
        extras = {
            name: _part(x, self.problem.extra_labels(name), label, place(ring), ring.size)
            for name, x in self.extras.items()
        }
        return _gather(self.added(piece, others, extras), self.problem.c, ring)

    def added(self, sums: Array, over: tuple[Collective, ...], extras: Extras) -> Array:
        """The sums added up over other axes, and the epilogue."""
        for each in over:
            if each.kind == "reduce":
                sums = jax.lax.psum(sums, each.axes)
            else:
                axis = self.problem.c.labels.index(cast("str", each.label))
                sums = jax.lax.psum_scatter(sums, each.axes, scatter_dimension=axis, tiled=True)
        return self._finished(sums, extras)

    def _finished(self, sums: Array, extras: Extras) -> Array:
        return finish(self.problem.epilogue, self.problem.out, sums, extras)

    def _sums(self, a: Array, b: Array, into: Array | None = None) -> Array:
        """A product in the type of the sum, added to `into` where that is given."""
        return self._kernel(a, b, {}, into, self.problem.sum_type, "")

    def _result(self, a: Array, b: Array, extras: Extras) -> Array:
        """A product with the epilogue, in the type of the result."""
        return self._kernel(a, b, extras, None, self.problem.out, self.problem.epilogue)

    def _kernel(
        self, a: Array, b: Array, extras: Extras, into: Array | None, out: str, epilogue: str
    ) -> Array:
        """All dimensions of an array but the last lie one after another, as rows of a matrix."""
        contracted = self.plan.contracted
        a_sizes = dict(zip(self.problem.a.labels, a.shape, strict=True))
        b_sizes = dict(zip(self.problem.b.labels, b.shape, strict=True))
        shape = tuple({**a_sizes, **b_sizes}[label] for label in self.problem.c.labels)
        gemm = Gemm(
            m=math.prod(shape[:-1]),
            n=shape[-1],
            k=math.prod(a_sizes[label] for label in contracted),
            dtype=self.problem.dtype,
            out=out,
            beta=0.0 if into is None else 1.0,
            trans_a=self.problem.a.labels[-1] not in contracted,
            trans_b=self.problem.b.labels[-1] in contracted,
            epilogue=epilogue,
        )
        operands = [_matrix(a), _matrix(b)]
        operands += [
            extras[step] if step == "bias" else _matrix(extras[step])
            for step in gemm.steps
            if step in extras
        ]
        kernel = _local_product(gemm, self.problem.target, self.problem.interpret)
        c = kernel(*operands) if into is None else kernel(*operands, out=_matrix(into))
        return c.reshape(shape)


def _matrix(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _part(x: Array, labels: tuple[str, ...], label: str, index: Any, parts: int) -> Array:
    """One of equal parts along `label`; all of an array that has no such dimension."""
    if label not in labels:
        return x
    axis = labels.index(label)
    size = x.shape[axis] // parts
    return jax.lax.dynamic_slice_in_dim(x, index * size, size, axis)


def finish(epilogue: str, out: str, sums: Array, extras: Extras) -> Array:
    """The epilogue of sums that are complete, in their type, rounded to `out`."""
    x = sums
    for step in epilogue.split("+") if epilogue else ():
        x = _STEPS[step](x, extras)
    return x.astype(ELEMENTS[out].numpy)


_STEPS: Mapping[str, Callable[[Array, Extras], Array]] = {
    "bias": lambda x, extras: x + extras["bias"].astype(x.dtype),
    "residual": lambda x, extras: x + extras["residual"].astype(x.dtype),
    "relu": lambda x, _: jnp.maximum(x, 0),
    "gelu": lambda x, _: jax.nn.gelu(x, approximate=True),
    "silu": lambda x, _: jax.nn.silu(x),
}


@lru_cache(maxsize=1024)
def _local_product(gemm: Gemm, target: str, interpret: bool) -> Callable[..., Array]:
    """The kernel of one shard."""

    def seam(a, b, *extras, out=None):
        x = jnp.dot(a.T if gemm.trans_a else a, b.T if gemm.trans_b else b, precision="highest",
                    preferred_element_type=gemm.accumulator.numpy)
        if out is not None:
            x = x + out
        named = dict(zip([s for s in gemm.steps if s in ("bias", "residual")], extras, strict=True))
        return finish(gemm.epilogue, gemm.result.name, x, named)

    return seam
