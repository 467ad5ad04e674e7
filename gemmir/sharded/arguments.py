"""What `sharded_matmul` reads off its arguments, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.errors import CallError
from gemmir.gemm import Gemm
from gemmir.jax_modules import jax
from gemmir.machine.tpu import SHIPPED_TPUS
from gemmir.sharded.plan import Axes, Lying

if TYPE_CHECKING:
    from jax.sharding import AbstractMesh, PartitionSpec

DEFAULT_TARGET: Final = "tpu:v5e"
"""The machine whose schedule is interpreted where the devices of a mesh are CPUs."""

MULTIPLIED: Final = frozenset(dtype for machine in SHIPPED_TPUS for dtype in machine.mxu_dtypes)
"""The products that some TPU makes."""


def check_shapes(x: Any, w: Any) -> None:
    """`CallError` GEM0559 where the two are no arrays, or have no product, GEM0566 if one is empty.

    XLA fails on empty arrays that are exchanged.
    """
    shapes = [tuple(array.shape) if hasattr(array, "shape") else None for array in (x, w)]
    of_x, of_w = shapes
    if of_x and of_w and len(of_x) >= 2 and len(of_w) == 2 and of_x[-1] == of_w[0]:
        if 0 in (*of_x, *of_w):
            message = f"x of shape {of_x} and w of shape {of_w} have nothing to share out"
            raise CallError("GEM0566", message, "use extents of 1 or more")
        return
    said = [
        f"{name} of shape {shape}" if shape is not None else f"{name} that is no array"
        for name, shape in zip("xw", shapes, strict=True)
    ]
    raise CallError("GEM0559", " and ".join(said), "use arrays of (…, m, k) and (k, n)")


def two_specs(in_specs: Any) -> tuple[Any, Any]:
    """The specs of x and of w; `CallError` GEM0565 where there are not two."""
    if not isinstance(in_specs, tuple | list) or len(cast("tuple[Any, ...]", in_specs)) != 2:
        raise _no_spec("in_specs", in_specs)
    x_spec, w_spec = cast("tuple[Any, Any]", in_specs)
    return x_spec, w_spec


def _no_spec(name: str, given: Any) -> CallError:
    hint = "use in_specs=(P(…), P(…)) and out_specs=P(…)"
    return CallError("GEM0565", f"{name} is {given!r}", hint)


def lying(name: str, labels: tuple[str, ...], shape: tuple[int, ...], spec: PartitionSpec) -> Lying:
    """How an array lies by its spec; `CallError` GEM0553, GEM0555 or GEM0565 where that is none."""
    if not isinstance(spec, jax().sharding.PartitionSpec):
        raise _no_spec(f"the spec of {name}", spec)
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


def types_of(
    x: np.dtype[Any], w: np.dtype[Any], dtype: str | None, preferred: Any
) -> tuple[str, str]:
    """The product and the element type of its result, as `Gemm` names them.

    Raises `CallError`: GEM0560 where arrays of such types are not multiplied, GEM0561 where they
    are not multiplied so, GEM0562 where the result cannot have its type.
    """
    multiplied = {name: p for name, p in PRODUCTS.items() if name in MULTIPLIED}
    plain = {p.element.numpy: name for name, p in multiplied.items() if name == p.element.name}
    if x != w or x not in plain:
        raise CallError(
            "GEM0560",
            f"x of {x.name} and w of {w.name}",
            f"use one of {', '.join(known.name for known in plain)} for both",
        )
    fitting = [name for name, product in multiplied.items() if product.element.numpy == x]
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


def mesh_set() -> AbstractMesh:
    """The mesh of `jax.set_mesh`, without its devices: under `jax.jit` they are not known.

    Raises `CallError` GEM0564 where there is none.
    """
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


def machine_of(mesh: Any, target: str | None, interpret: Any) -> tuple[str, Any]:
    """The target of the kernels of a mesh, and how they are interpreted, if at all.

    Raises `CallError` GEM0557 where the devices run no kernels, or none for the target.
    """
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


def extras_of(
    gemm: Gemm, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The operands of the epilogue, by name.

    Raises `CallError`: GEM0558 where they are not those that it has steps for, GEM0563 where one
    has another shape or type.
    """
    if "scale" in gemm.steps:
        raise CallError(
            "GEM0558",
            f"the epilogue {gemm.epilogue!r} of a sharded product, which has no scales",
            "leave scale out, and multiply the result, or one of x and w, by it",
        )
    element = gemm.result.numpy
    found: dict[str, Any] = {}
    for name, value in given.items():
        if (value is not None) != (name in gemm.steps):
            said = "not given" if value is None else "given"
            raise CallError(
                "GEM0558",
                f"{name} is {said}, and the epilogue {gemm.epilogue!r}",
                f"pass {name}=" if value is None else f"leave {name} out, or add it as a step",
            )
        if value is None:
            continue
        if tuple(value.shape) != shapes[name] or value.dtype != element:
            raise CallError(
                "GEM0563",
                f"{name} is {value.dtype.name}{list(value.shape)}",
                f"pass {element.name}{list(shapes[name])}",
            )
        found[name] = value
    return found
