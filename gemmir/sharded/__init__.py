"""x @ w of JAX arrays that are sharded over a mesh, by gemmir kernels.

`sharded_matmul` is the door: it reads the problem off the arrays and their specs. What must be
gathered or added up follows from the specs alone (`plan`); `product` is what each device does, and
`ring` how it overlaps. JAX is imported when the door is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.errors import CallError
from gemmir.jax_modules import jax
from gemmir.machine.tpu import SHIPPED_TPUS
from gemmir.sharded.plan import Axes, Lying
from gemmir.sharded.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jax import Array
    from jax.sharding import AbstractMesh, Mesh, PartitionSpec

__all__ = ["sharded_matmul"]

DEFAULT_TARGET: Final = "tpu:v5e"
"""The machine whose schedule is interpreted where the devices of a mesh are CPUs."""


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
    make none, GEM0563 where `bias` or `residual` has another shape or type, GEM0564 where
    there is no mesh; and what
    `gemmir.compile` does of the product of a shard.
    """
    from gemmir.sharded.product import multiply

    if len(x.shape) < 2 or len(w.shape) != 2 or x.shape[-1] != w.shape[0]:
        raise CallError(
            "GEM0559",
            f"x of shape {tuple(x.shape)} and w of shape {tuple(w.shape)}",
            "use (…, m, k) and (k, n)",
        )
    rows = ("m",) if len(x.shape) == 2 else tuple(f"m{i}" for i in range(len(x.shape) - 1))
    product, out = _types(x.dtype, w.dtype, dtype, preferred_element_type)
    x_spec, w_spec = in_specs
    shape = (*x.shape[:-1], w.shape[1])
    mesh = _mesh_set() if mesh is None else mesh
    machine, interpreted = _machine(mesh, target, interpret)
    problem = Problem(
        mesh=mesh,
        a=_lying("x", (*rows, "k"), tuple(x.shape), x_spec),
        b=_lying("w", ("k", "n"), tuple(w.shape), w_spec),
        c=_lying("the result", (*rows, "n"), shape, out_specs),
        dtype=product,
        out=out,
        epilogue=epilogue,
        overlap=overlap,
        target=machine,
        interpret=interpreted,
    )
    given = {"bias": bias, "residual": residual}
    extras = _extras(problem.epilogue, given, {"bias": shape[-1:], "residual": shape}, out)
    return multiply(problem, x, w, extras)


def _lying(
    name: str, labels: tuple[str, ...], shape: tuple[int, ...], spec: PartitionSpec
) -> Lying:
    entries = cast("tuple[object, ...]", spec.partitions)
    if spec.unreduced or spec.reduced or any(not _is_entry(entry) for entry in entries):
        raise CallError(
            "GEM0553",
            f"the spec {spec} of {name} leaves open how it lies",
            "use None, an axis or a tuple of axes for each dimension",
        )
    if len(entries) > len(shape):
        raise CallError(
            "GEM0555",
            f"the spec {spec} of {name} has {len(entries)} entries, and {name} {len(shape)} "
            "dimensions",
            f"use at most {len(shape)}",
        )
    axes = (*map(_axes, entries), *((),) * (len(shape) - len(entries)))
    return Lying(name=name, labels=labels, shape=shape, axes=axes)


def _is_entry(entry: object) -> bool:
    return entry is None or isinstance(entry, str | tuple)


def _axes(entry: object) -> Axes:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else cast("Axes", entry)


def _types(
    x: np.dtype[Any], w: np.dtype[Any], dtype: str | None, preferred: Any
) -> tuple[str, str]:
    """The product and the element type of its result, as `Gemm` names them."""
    plain = {p.element.numpy: name for name, p in PRODUCTS.items() if name == p.element.name}
    if x != w or x not in plain:
        raise CallError(
            "GEM0560",
            f"x of {x.name} and w of {w.name}",
            f"use one of {', '.join(known.name for known in plain)} for both",
        )
    fitting = [name for name, product in PRODUCTS.items() if product.element.numpy == x]
    product = plain[x] if dtype is None else dtype
    if product not in fitting:
        raise CallError(
            "GEM0561",
            f"dtype {product!r} is no product of arrays of {x.name}",
            f"use {' or '.join(fitting)}",
        )
    results = PRODUCTS[product].results
    if preferred is None:
        return product, plain[x] if plain[x] in results else results[0]
    wanted = np.dtype(preferred)
    names = {ELEMENTS[name].numpy: name for name in results}
    if wanted not in names:
        raise CallError(
            "GEM0562",
            f"preferred_element_type={wanted.name} of a product of {product}",
            f"use {' or '.join(known.name for known in names)}",
        )
    return product, names[wanted]


def _mesh_set() -> AbstractMesh:
    """The mesh of `jax.set_mesh`, without its devices: under `jax.jit` they are not known."""
    found = jax().sharding.get_abstract_mesh()
    if found.empty:
        raise CallError(
            "GEM0564", "mesh is not given, and there is none", "pass mesh=, or use jax.set_mesh"
        )
    return found


def _devices(mesh: Any) -> Iterable[Any]:
    """Devices of a mesh, or what an abstract one says of all of them, if anything."""
    if isinstance(mesh, jax().sharding.AbstractMesh):
        return () if mesh.abstract_device is None else (mesh.abstract_device,)
    return mesh.devices.flat


def _machine(mesh: Any, target: str | None, interpret: Any) -> tuple[str, Any]:
    """The target of the kernels of a mesh, and whether they are interpreted."""
    devices = list(_devices(mesh))
    kinds = sorted({device.device_kind for device in devices})
    platforms = {device.platform for device in devices}
    interpreted = platforms == {"cpu"} if interpret is None else interpret
    if interpreted is not False:
        return DEFAULT_TARGET if target is None else target, interpreted
    found = [
        machine.target
        for machine in SHIPPED_TPUS
        if kinds and set(kinds) <= {machine.device_kind, machine.product}
    ]
    if platforms != {"tpu"} or not found or target not in (None, found[0]):
        raise CallError(
            "GEM0557",
            f"the mesh has devices of kind {', '.join(kinds) or 'unknown'}, which run no kernel "
            f"for {target or 'any target'}",
            f"use target={found[0]!r}" if found else "use TPU devices, or interpret=True",
        )
    return found[0], False


def _extras(
    epilogue: str,
    given: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    out: str,
) -> dict[str, Any]:
    """The operands of the epilogue, which are just those that it has steps for."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if (value is not None) != (name in epilogue.split("+")):
            raise CallError(
                "GEM0558",
                f"{name} is {'not ' if value is None else ''}given, and the epilogue {epilogue!r}",
                f"pass {name}=" if value is None else f"leave {name} out, or add it as a step",
            )
        if value is None:
            continue
        if tuple(value.shape) != shapes[name] or value.dtype != ELEMENTS[out].numpy:
            raise CallError(
                "GEM0563",
                f"{name} is {value.dtype.name}{list(value.shape)}",
                f"pass {ELEMENTS[out].numpy.name}{list(shapes[name])}",
            )
        found[name] = value
    return found
