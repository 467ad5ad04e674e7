"""x @ w of JAX arrays that are sharded over a mesh, by gemmir kernels.

`sharded_matmul` is the door: it reads the problem off the arrays and their specs. What must be
gathered or added up follows from the specs alone (`plan`); `product` is what each device does, and
`ring` how it overlaps. JAX is imported when the door is first used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gemmir.gemm import Gemm
from gemmir.jax_modules import jax
from gemmir.sharded.arguments import (
    check_shapes,
    extras_of,
    lying,
    machine_of,
    mesh_set,
    two_specs,
    types_of,
)
from gemmir.sharded.problem import Problem

if TYPE_CHECKING:
    from jax import Array
    from jax.sharding import AbstractMesh, Mesh, PartitionSpec

__all__ = ["sharded_matmul"]


def sharded_matmul(
    x: Array,
    w: Array,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    in_specs: tuple[PartitionSpec, PartitionSpec],
    out_specs: PartitionSpec,
    epilogue: str = "",
    bias: Array | None = None,
    residual: Array | None = None,
    dtype: str | None = None,
    preferred_element_type: Any = None,
    overlap: bool | None = None,
    target: str | None = None,
    interpret: Any = None,
) -> Array:
    """x @ w of arrays that are sharded over `mesh`, each device running a gemmir kernel.

    `x` is (..., k) and `w` is (k, n); `in_specs` and `out_specs` say how they and the result lie,
    as for `jax.shard_map`, and `mesh` is by default that of `jax.set_mesh`. What is communicated
    follows from the specs. For an axis "d" that shards

        x              w            result
        P("d", None)   P()          P("d", None)   nothing: rows
        P()            P(None, "d") P(None, "d")   nothing: columns
        P("d", None)   P(None, "d") P(None, "d")   x is gathered, by rows
        P(None, "d")   P(None, "d") P(None, "d")   x is gathered, along k
        P("d", None)   P(None, "d") P("d", None)   w is gathered, by columns
        P("d", None)   P("d", None) P("d", None)   w is gathered, along k
        P(None, "d")   P("d", None) P()            partial sums are added up for all
        P(None, "d")   P("d", None) P("d", None)   partial sums are added up, rows lie apart
        P(None, "d")   P("d", None) P(None, "d")   partial sums are added up, columns lie apart

    and other axes of the mesh may do another of these at once. The exchange that moves the most
    bytes goes round a ring in both directions while kernels run, one for each device of the ring;
    with `overlap=False`, and for the others, a collective of XLA comes before or after one kernel.
    `overlap=True` demands a ring.

    `epilogue` is that of `Gemm`; `bias` lies as the columns of the result and `residual` as the
    result, both of its element type. `dtype` names the product, as in `Gemm`, by default that of
    the arrays; the result is of `preferred_element_type`, by default that of the arrays where sums
    can have it. Sums of several devices are kept in f32 or i32 until they are complete.

    `target` is the machine that kernels are made for: by default that of the mesh's devices. On a
    mesh of CPU devices kernels are interpreted, those of `tpu:v5e` by default. `interpret` is as
    for `gemmir.compile`.

    It works under `jax.jit`, on meshes of several processes, and is differentiable: the products
    backwards are sharded products by the same rules, with kernels and rings of their own.

    Raises `CallError`: GEM0550 to GEM0556 where the specs do not fit the mesh, the arrays or each
    other, GEM0557 where there is no machine for the devices, GEM0558 where `bias` or `residual` is
    not what the epilogue has, GEM0559 where shapes make no product, GEM0560 to GEM0562 where types
    make none, GEM0563 where `bias` or `residual` has another shape or type, GEM0564 where there is
    no mesh, GEM0565 where a spec is something else, GEM0566 where an array is empty; `ProblemError`
    where the epilogue is not one; `MissingError` GEM0615 without JAX; and what `gemmir.compile`
    does of the product of a shard.
    """
    jax()
    from gemmir.sharded.product import multiply

    check_shapes(x, w)
    rows = ("m",) if len(x.shape) == 2 else tuple(f"m{i}" for i in range(len(x.shape) - 1))
    product, out = types_of(x.dtype, w.dtype, dtype, preferred_element_type)
    x_spec, w_spec = two_specs(in_specs)
    shape = (*x.shape[:-1], w.shape[1])
    gemm = Gemm(
        m=math.prod(shape[:-1]),
        n=shape[-1],
        k=w.shape[0],
        dtype=product,
        out=out,
        epilogue=epilogue,
    )
    mesh = mesh_set() if mesh is None else mesh
    machine, interpreted = machine_of(mesh, target, interpret)
    problem = Problem(
        mesh=mesh,
        a=lying("x", (*rows, "k"), tuple(x.shape), x_spec),
        b=lying("w", ("k", "n"), tuple(w.shape), w_spec),
        c=lying("the result", (*rows, "n"), shape, out_specs),
        dtype=gemm.dtype,
        out=out,
        epilogue=gemm.epilogue,
        overlap=overlap,
        target=machine,
        interpret=interpreted,
    )
    given = {"bias": bias, "residual": residual}
    extras = extras_of(gemm, given, {"bias": shape[-1:], "residual": shape})
    return multiply(problem, x, w, extras)
