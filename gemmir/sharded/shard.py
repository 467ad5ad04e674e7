"""What one device does: gather, multiply with a kernel of its own shard, and add up, as planned.

Sums of several products stay in the type of the sum until they are complete; so they are rounded no
more often than those of one kernel, in another order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from gemmir import jax_modules
from gemmir.compiler import compile
from gemmir.dtypes import ELEMENTS
from gemmir.epilogue_steps import STEP_OPERANDS
from gemmir.gemm import Gemm
from gemmir.sharded.plan import Collective, Lying
from gemmir.sharded.problem import Problem
from gemmir.sharded.ring import Array, over_chunks, place, sum_pieces
from gemmir.tpu_derivative import STEPS

jax = jax_modules.jax()

Extras = Mapping[str, Array]
"""The operands of the epilogue, by name."""


def on_device(problem: Problem, a: Array, b: Array, extras: Extras) -> Array:
    """The shard of c on this device."""
    ring, sums = problem.plan.ring, problem.plan.sums
    for each in problem.plan.gathers:
        if each is ring:
            continue
        if each.kind == "gather_a":
            a = _gather(a, problem.a, each)
        else:
            b = _gather(b, problem.b, each)
    shard = Shard(problem=problem, a=a, b=b, extras=extras)
    if ring is None:
        return shard.added(shard.sums(a, b), sums) if sums else shard.result(a, b)
    if ring in sums:
        return shard.summed(ring)
    return shard.accumulated(ring) if ring.label in problem.plan.contracted else shard.placed(ring)


def _gather(x: Array, array: Lying, each: Collective) -> Array:
    axis = array.labels.index(cast("str", each.label))
    return jax.lax.all_gather(x, each.axes, axis=axis, tiled=True)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What this device has of a, b and the operands of the epilogue, and how it makes c of it."""

    problem: Problem
    a: Array
    b: Array
    extras: Extras

    def placed(self, ring: Collective) -> Array:
        """The product with chunks of rows or columns from the ring: each gives a part of c."""
        axis = self.problem.c.labels.index(cast("str", ring.label))

        def multiply(index: Any, chunk: Array, c: Array | None) -> Array:
            a, b = self._pair(ring, index, chunk)
            part = self.sums(a, b) if self._sums_left else self._at(ring, index).result(a, b)
            if c is None:
                shape = (n * ring.size if i == axis else n for i, n in enumerate(part.shape))
                c = jax.lax.empty(tuple(shape), part.dtype)
            start = index * part.shape[axis]
            return jax.lax.dynamic_update_slice_in_dim(c, part, start, axis)

        c = over_chunks(multiply, self._moving(ring), ring)
        return self.added(c, self.problem.plan.sums) if self._sums_left else c

    def accumulated(self, ring: Collective) -> Array:
        """The product with chunks along k from the ring: each gives a part of the sums."""

        def multiply(index: Any, chunk: Array, c: Array | None) -> Array:
            return self.sums(*self._pair(ring, index, chunk), c)

        return self.added(over_chunks(multiply, self._moving(ring), ring), self.problem.plan.sums)

    def summed(self, ring: Collective) -> Array:
        """The sums of all devices, piece by piece round the ring."""

        def product(index: Any, into: Array | None) -> Array:
            a = _part(self.a, self.problem.a.labels, ring, index)
            b = _part(self.b, self.problem.b.labels, ring, index)
            return self.sums(a, b, into)

        piece = sum_pieces(product, ring)
        others = tuple(each for each in self.problem.plan.sums if each is not ring)
        if ring.kind == "scatter":
            return self.added(piece, others)
        return _gather(self._at(ring, place(ring)).added(piece, others), self.problem.c, ring)

    @property
    def _sums_left(self) -> bool:
        return bool(self.problem.plan.sums)

    def _moving(self, ring: Collective) -> Array:
        return self.a if ring.kind == "gather_a" else self.b

    def _pair(self, ring: Collective, index: Any, chunk: Array) -> tuple[Array, Array]:
        """A chunk of one operand and what it multiplies of the other."""
        if ring.kind == "gather_a":
            return chunk, _part(self.b, self.problem.b.labels, ring, index)
        return _part(self.a, self.problem.a.labels, ring, index), chunk

    def _at(self, ring: Collective, index: Any) -> Shard:
        """This with only that piece of the epilogue's operands."""
        pieces = {
            name: _part(x, self.problem.extra_labels(name), ring, index)
            for name, x in self.extras.items()
        }
        return replace(self, extras=pieces)

    def added(self, sums: Array, over: tuple[Collective, ...]) -> Array:
        """Sums added up over other axes, and then the epilogue."""
        for each in over:
            if each.kind == "reduce":
                sums = jax.lax.psum(sums, each.axes)
            else:
                axis = self.problem.c.labels.index(cast("str", each.label))
                sums = jax.lax.psum_scatter(sums, each.axes, scatter_dimension=axis, tiled=True)
        return finish(self.problem.epilogue, self.problem.out, sums, self.extras)

    def sums(self, a: Array, b: Array, into: Array | None = None) -> Array:
        """A product in the type of the sum, added to `into` where that is given."""
        return self._kernel(a, b, self.problem.sum_type, "", into)

    def result(self, a: Array, b: Array) -> Array:
        """A product that is complete, with the epilogue, in the type of the result."""
        return self._kernel(a, b, self.problem.out, self.problem.epilogue, None)

    def _kernel(self, a: Array, b: Array, out: str, epilogue: str, into: Array | None) -> Array:
        """All dimensions of an array but the last lie one after another, as rows of a matrix."""
        contracted = self.problem.plan.contracted
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
            self.extras[step] if step == "bias" else _matrix(self.extras[step])
            for step in gemm.steps
            if step in self.extras
        ]
        kernel = compile(gemm, self.problem.target, interpret=self.problem.interpret)
        c = kernel(*operands) if into is None else kernel(*operands, out=_matrix(into))
        return c.reshape(shape)


def _matrix(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _part(x: Array, labels: tuple[str, ...], ring: Collective, index: Any) -> Array:
    """Of the equal parts that `ring` goes by the one at `index`; all where x is not cut so."""
    if ring.label not in labels:
        return x
    axis = labels.index(ring.label)
    size = x.shape[axis] // ring.size
    return jax.lax.dynamic_slice_in_dim(x, index * size, size, axis)


def finish(epilogue: str, out: str, sums: Array, extras: Extras) -> Array:
    """The epilogue of sums that are complete, in their type, rounded to `out`."""
    x = sums
    for step in epilogue.split("+") if epilogue else ():
        operands = (extras[name].astype(x.dtype) for name in STEP_OPERANDS.get(step, ()))
        x = STEPS[step](x, *operands)
    return x.astype(ELEMENTS[out].numpy)
