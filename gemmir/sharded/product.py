"""A product of global arrays, and its derivative, which is two such products.

The two are planned as every other: the table of `plan` has whatever they need. The epilogue is
differentiated by JAX, on sums that are complete.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from jax.sharding import PartitionSpec

from gemmir import jax_modules
from gemmir.dtypes import PRODUCTS
from gemmir.sharded.plan import Lying
from gemmir.sharded.problem import Problem
from gemmir.sharded.shard import Array, Extras, finish, on_device

jax = jax_modules.jax()


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
    extras: Extras = {}
    if back is not None:
        gradient, extras = back(gradient)
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
        partial(on_device, problem),
        mesh=problem.mesh,
        in_specs=(_spec(problem.a), _spec(problem.b), specs),
        out_specs=_spec(problem.c),
        check_vma=False,
    )
    return run(a, b, dict(extras))


def _spec(array: Lying) -> PartitionSpec:
    return PartitionSpec(*(axes or None for axes in array.axes))
