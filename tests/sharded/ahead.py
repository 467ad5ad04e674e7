"""Compiles sharded products for TPUs that are not there, with libtpu, in a process of its own.

`ahead.py TOPOLOGY` reads a list of cases as JSON and writes for each what the device does, in the
order of the schedule: `kernel` for a custom call, and the collectives of XLA by their names.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from typing import Any, Final

import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gemmir
from gemmir.dtypes import ELEMENTS

jax: Any = import_module("jax")
topologies: Any = import_module("jax.experimental.topologies")

CALL: Final = re.compile(r"^  (?:ROOT )?%?[\w.\-]+ = .*? ([a-z][a-z\-]*)\(", re.M)
COLLECTIVES: Final = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)


def main() -> None:
    topology = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[1])
    devices = np.array(topology.devices)
    print(json.dumps([steps(devices, **case) for case in json.load(sys.stdin)]))


def steps(
    devices: Any,
    mesh: dict[str, int],
    specs: list[list[Any]],
    sizes: list[int],
    dtype: str,
    overlap: bool | None,
    gradient: bool,
) -> list[str]:
    """What a device does for one product, in the order of the schedule."""
    shape = Mesh(devices.reshape(tuple(mesh.values())), tuple(mesh))
    x_spec, w_spec, out_spec = (PartitionSpec(*spec) for spec in specs)
    m, k, n = sizes

    def product(x: Any, w: Any) -> Any:
        return gemmir.sharded_matmul(
            x, w, mesh=shape, in_specs=(x_spec, w_spec), out_specs=out_spec, overlap=overlap
        )

    def pulled(x: Any, w: Any) -> Any:
        result, pull = jax.vjp(product, x, w)
        return pull(result)

    element = ELEMENTS[dtype].numpy
    operands = [
        jax.ShapeDtypeStruct(extents, element, sharding=NamedSharding(shape, spec))
        for extents, spec in (((m, k), x_spec), ((k, n), w_spec))
    ]
    text = jax.jit(pulled if gradient else product).lower(*operands).compile().as_text()
    entry = text[text.index("\nENTRY ") :]
    return [word for line in entry.splitlines() if (word := said(line, text)) is not None]


def said(line: str, text: str) -> str | None:
    """A kernel or a collective; None for everything else.

    A reduce-scatter of XLA is a fusion of that name around an all-reduce.
    """
    found = CALL.match(line)
    if found is None:
        return None
    name = found[1]
    if name == "custom-call" and 'custom_call_target="tpu_custom_call"' in line:
        return "kernel"
    if name == "fusion" and "calls=%all-reduce-scatter" in line:
        return "reduce-scatter"
    return name if name.startswith(COLLECTIVES) else None


if __name__ == "__main__":
    main()
